//! Network rules as they are typed.

use serde_json::json;
use steadfast::{Endpoint, NetworkClass, Selector};

use crate::output::{Output, clean};

/// A class, `metered`, or the name of a network.
pub(crate) fn selector(name: &str) -> Selector {
    match NetworkClass::from_name(name) {
        Some(class) => Selector::Class(class),
        None if name == "metered" => Selector::Metered,
        None => Selector::Name(name.into()),
    }
}

/// A class that is written wrong would be taken for a name, and the rule for kept.
pub(crate) fn warn_of_unknown(
    selectors: impl Iterator<Item = Selector>,
    endpoint: &Endpoint,
    output: &mut Output,
) -> anyhow::Result<()> {
    let networks = endpoint.networks();
    for selector in selectors {
        let Selector::Name(name) = selector else { continue };
        if networks.iter().any(|network| network.name == name) {
            continue;
        }
        let shown = clean(&name);
        output.object(&json!({ "event": "warning", "unknown_network": name }))?;
        output.line(format!(
            "No network here is called `{shown}` now, and it is no class: it counts for the other side, and if one appears."
        ))?;
    }
    Ok(())
}
