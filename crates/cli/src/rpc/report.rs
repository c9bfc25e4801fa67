//! What calls of any kind are told to have come to.

use super::tally::Tally;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, clean};

/// Prints what became of calls.
pub(super) fn outcomes(tally: &Tally, output: &mut Output) -> anyhow::Result<()> {
    let mut table = Table::new(["OUTCOME", "CALLS"]).right_from(1);
    let rows = [("delivered", tally.delivered), ("dropped", tally.dropped), ("unknown", tally.unknown)];
    for (name, count) in rows {
        table.row([name, &count.to_string()]);
    }
    output.line("")?;
    output.table(&table)?;
    for (reason, count) in &tally.reasons {
        output.line(format!("{count} of them failed: {reason}."))?;
    }
    if tally.changed > 0 {
        output.line(format!("{} of the answers were not what had been sent.", tally.changed))?;
    }
    Ok(())
}

/// How the command ends.
pub(super) fn exit(tally: &Tally, host: &str) -> anyhow::Result<Exit> {
    if tally.is_good() {
        return Ok(Exit::Done);
    }
    let host = clean(host);
    if tally.delivered == 0 {
        let reason = tally.reasons.keys().next().map_or("no call was made", String::as_str);
        let exit = if tally.is_deaf() && tally.calls() > 0 { Exit::Unreachable } else { Exit::Failed };
        return Err(Failure::new(exit, format!("cannot call {host}: nothing was answered; {reason}")).into());
    }
    let failed = tally.dropped + tally.unknown;
    let message = if failed > 0 {
        format!("{failed} of {} calls to {host} were not answered; the table says why", tally.calls())
    } else {
        format!(
            "{} answers of {host} were not what had been sent; see that what serves there sends requests back",
            tally.changed
        )
    };
    Err(Failure::new(Exit::Failed, message).into())
}
