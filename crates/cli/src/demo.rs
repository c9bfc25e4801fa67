//! The demo.
pub(crate) mod host;
pub(crate) mod lab;
pub(crate) mod protocol;
mod tcp;
use std::process::{ExitCode,Stdio};
pub(crate) fn run(_json: bool) -> ExitCode {
    let mut child = lab::this_program().args(["demo-lab","emulated"]).stdin(Stdio::piped()).spawn().unwrap();
    let _i = child.stdin.take(); child.wait().unwrap();
    ExitCode::SUCCESS
}
