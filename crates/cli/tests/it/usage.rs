//! Arguments.

use crate::common::steadfast;

#[test]
fn a_wrong_argument_is_a_usage_error() {
    for arguments in [&["demo", "--slowly"][..], &["no-such-command"], &[]] {
        let output = steadfast().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_shows_the_commands_for_people_only() {
    let output = steadfast().arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("demo") && !text.contains("demo-"), "{text}");
    let output = steadfast().arg("--version").output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("steadfast {}\n", env!("CARGO_PKG_VERSION"))
    );
}
