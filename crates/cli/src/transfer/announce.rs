//! What the other side has to run.

use serde_json::{Value, json};
use steadfast::Endpoint;

use super::quoted;
use crate::output::Output;
use crate::screen::Style;

/// Prints the line that the other side runs: `command` of this side's contact. `lead` goes before it on a terminal, `more`
/// into the object.
pub(crate) fn announce(
    endpoint: &Endpoint,
    command: impl FnOnce(&str) -> String,
    lead: &str,
    more: &[(&str, Value)],
    output: &mut Output,
) -> anyhow::Result<()> {
    let contact = endpoint.contact();
    let command = command(&quoted(contact.as_bytes()));
    let mut object = json!({
        "event": "listening",
        "key": endpoint.fingerprint().to_string(),
        "contact": contact,
        "command": command,
    });
    for (name, value) in more {
        object[*name] = value.clone();
    }
    output.object(&object)?;
    if output.screen().is_live() {
        output.line(lead)?;
        output.line("")?;
        let command = output.screen().paint(Style::Bold, command);
        output.line(command)?;
        output.line("")?;
    } else {
        output.line(command)?;
    }
    if contact.ends_with('@') {
        output.line("No network has an address now: complete the line when one has.")?;
    }
    Ok(())
}
