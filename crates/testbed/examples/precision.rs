//! How exact the emulator is on this machine, and how much it carries. It needs no root: it makes itself a user namespace
//! if it must.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use steadfast_testbed::{EmulatorPrecision, Lab, LabError, enter_user_namespace};

fn main() -> Result<(), LabError> {
    if Lab::available().is_err() {
        enter_user_namespace()?;
    }
    println!("{}", EmulatorPrecision::measure()?);
    Ok(())
}
