//! Tests of the Homa core over a network that lives in memory.
