//! x
mod beneath;
mod digest;
mod manifest;
mod message;
mod name;
mod store;
#[cfg(test)] mod testing;
pub use digest::*; pub use manifest::*; pub use message::*; pub use name::*;
pub use store::*;
