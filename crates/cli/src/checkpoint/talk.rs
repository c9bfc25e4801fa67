//! What the two sides of a migration say to each other, until one of them is gone.

use std::time::Duration;

use steadfast::{Labels, MultiSocket, Receipt, SendError, Verdict};
use steadfast_checkpoint::Said;
use tokio::time::{Instant, sleep};

/// How often it is looked whether the other side is still there.
const LOOK: Duration = Duration::from_millis(250);

/// One conversation.
pub(super) struct Talk {
    socket: MultiSocket,
    /// How long no network may lead to the other side.
    wait: Duration,
    /// Since when none does.
    parked: Option<Instant>,
}

impl Talk {
    pub(super) fn new(socket: MultiSocket, wait: Duration) -> Self {
        Self { socket, wait, parked: None }
    }

    pub(super) fn socket(&self) -> &MultiSocket {
        &self.socket
    }

    pub(super) async fn say(&self, said: &Said) -> Result<Receipt, SendError> {
        self.socket.send(said.encode(), Labels::foreground()).await
    }

    /// What the other side says next, or why it says nothing any more. Cancel safe.
    pub(super) async fn hear(&mut self) -> Result<Said, String> {
        loop {
            tokio::select! {
                biased;
                message = self.socket.recv() => {
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => return Err("it ended the conversation".to_owned()),
                        Err(error) => return Err(error.to_string()),
                    };
                    let words = message.payload().map(|words| Said::decode(words));
                    return words.and_then(Result::ok).ok_or_else(|| {
                        "it says something that is not understood here; is the same version on both hosts?".to_owned()
                    });
                }
                () = sleep(LOOK) => if let Some(why) = self.gone() {
                    return Err(why);
                }
            }
        }
    }

    /// Why nobody is to be expected there any more.
    fn gone(&mut self) -> Option<String> {
        let standing = self.socket.verdict();
        if matches!(standing.verdict, Verdict::Left | Verdict::Crashed | Verdict::Restarted) {
            return Some(standing.to_string());
        }
        if !self.socket.is_parked() {
            self.parked = None;
            return None;
        }
        let since = *self.parked.get_or_insert_with(Instant::now);
        (since.elapsed() > self.wait).then(|| format!("no network leads there for {:?} now", self.wait))
    }
}
