//! `steadfast keygen` and `steadfast id`: who this side is.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use steadfast::Identity;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Makes the identity.
pub(crate) fn generate(force: bool, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let path = &context.places.identity;
    let shown = path.display();
    // Saving refuses to replace as well; this says it better, and before a key is made in vain.
    if !force && path.symlink_metadata().is_ok() {
        let help = "--force replaces it, and then nobody who trusts the old key trusts this side any more";
        return Err(Failure::new(
            Exit::Failed,
            format!("cannot make a key: {shown} is there already; {help}"),
        )
        .into());
    }
    let identity = Identity::generate()?;
    if force {
        replace(&identity, path)?;
    } else {
        identity.save(path)?;
    }
    let key = identity.fingerprint();
    output.object(&json!({ "key": key.to_string(), "identity": path }))?;
    output.line(format!("Made a key, in {shown}. The public one, which others may know:"))?;
    output.line(key.to_string())?;
    Ok(Exit::Done)
}

/// Puts a new key where there may be one; whoever reads meanwhile finds one of the two.
fn replace(identity: &Identity, path: &Path) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".new-{}", std::process::id()));
    let new = path.with_file_name(name);
    identity.save(&new)?;
    fs::rename(&new, path).with_context(|| {
        let _left_behind = fs::remove_file(&new);
        format!("cannot replace {}; check that its directory can be written to", path.display())
    })
}

/// Prints the public key.
pub(crate) fn show(context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let path = &context.places.identity;
    let key = Identity::load(path)?.fingerprint().to_string();
    output.object(&json!({ "key": key, "identity": path }))?;
    output.line(key)?;
    Ok(Exit::Done)
}
