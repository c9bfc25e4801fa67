//! Faults of real networks, in a lab.
