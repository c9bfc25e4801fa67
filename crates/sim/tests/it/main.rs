//! The simulator's tests: scenarios, the swarm, the fuzz targets.

mod fuzz;
mod lattice;
mod pair;
mod swarm;
