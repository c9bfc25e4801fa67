//! The program as a person runs it.

mod common;
mod demo;
mod usage;
