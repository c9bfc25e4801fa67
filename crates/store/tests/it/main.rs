//! A store on a real directory, and on a disk that loses what it may.

mod directory;
mod power;
mod records;
