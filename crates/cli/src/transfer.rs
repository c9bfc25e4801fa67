//! What `send` and `receive` have in common.

pub(crate) mod amount;
mod announce;
mod jobs;
mod meter;
mod report;
mod stop;

pub(crate) use amount::bytes;
pub(crate) use announce::announce;
pub(crate) use jobs::{Job, Jobs, Typed};
pub(crate) use meter::{Direction, Meter};
pub(crate) use report::{Report, Told};
pub(crate) use stop::{Stop, quoted, same_command};

use std::sync::Arc;

use steadfast_transfer::{Event, Monitor};
use tokio::sync::mpsc;

/// A monitor, and what it tells.
pub(crate) fn watched() -> (Arc<Monitor>, mpsc::UnboundedReceiver<Event>) {
    let (sender, events) = mpsc::unbounded_channel();
    let monitor = Monitor::new(move |event| {
        // Whoever watched is gone at the end.
        let _gone = sender.send(event.clone());
    });
    (Arc::new(monitor), events)
}
