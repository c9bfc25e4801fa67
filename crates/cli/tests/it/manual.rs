//! Completions and manual pages.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::{Home, Run, skip};

/// The commands that help lists, which are those for people.
fn commands(home: &Home) -> Vec<String> {
    let help = home.run(&["--help"]).ended(0).out;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // Two spaces and a name; the lines of a long text are indented more.
    let names =
        list.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(' ')).map(|(name, _)| name);
    let names: Vec<_> = names.filter(|name| !name.is_empty() && *name != "help").map(String::from).collect();
    assert!(names.len() > 5, "{help}");
    names
}

#[test]
fn bash_completes_commands_and_options() {
    let home = Home::empty();
    let script = home.run(&["completions", "bash"]).ended(0).out;
    let object = home.run(&["completions", "bash", "--json"]).ended(0).object();
    assert_eq!((&object["shell"], &object["script"]), (&"bash".into(), &script.clone().into()));
    let complete = |words: &str, current: &str| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words} '{current}'); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _steadfast steadfast '{current}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "--noprofile", "-eu"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut bash = bash.spawn().ok()?;
        bash.stdin.take().unwrap().write_all(ask.as_bytes()).unwrap();
        Some(Run::from(bash.wait_with_output().unwrap()).ended(0).out)
    };
    let Some(all) = complete("steadfast", "") else {
        return skip("manual::bash_completes_commands_and_options", "there is no bash");
    };
    for command in commands(&home) {
        assert!(all.lines().any(|line| line == command), "{command}: {all}");
    }
    assert!(!all.contains("demo-lab"), "{all}");
    assert_eq!(complete("steadfast trust", "r").unwrap(), "remove\n");
    assert_eq!(complete("steadfast ping", "--connect").unwrap(), "--connect-limit\n");
}

#[test]
fn other_shells_read_their_completions() {
    let home = Home::empty();
    for (shell, arguments) in [("zsh", &["-n", "-s"][..]), ("fish", &["--no-execute"])] {
        let script = home.run(&["completions", shell]).ended(0).out;
        for command in commands(&home) {
            assert!(script.contains(&command), "{shell} {command}");
        }
        assert!(!script.contains("demo-lab"), "{script}");
        let child = Command::new(shell).args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = child else { continue };
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let run = Run::from(child.wait_with_output().unwrap()).ended(0);
        assert_eq!(run.err, "", "{shell}");
    }
    home.run(&["completions", "tcsh"]).ended(2);
}

#[test]
fn each_command_has_a_page() {
    let home = Home::empty();
    let directory = home.path().join("made/man1");
    let written = home.run(&["man", "--dir", directory.to_str().unwrap(), "--json"]).ended(0).object();
    let main = fs::read_to_string(directory.join("steadfast.1")).unwrap();
    assert_eq!(main, home.run(&["man"]).ended(0).out);
    for command in commands(&home) {
        let page = format!("steadfast-{command}.1");
        assert!(main.contains(&format!("steadfast\\-{command}(1)")), "{command}: {main}");
        assert!(directory.join(&page).exists(), "{page}: {written}");
    }
    assert!(directory.join("steadfast-trust-add.1").exists());
    assert!(!directory.join("steadfast-demo-lab.1").exists());
    let pages = written["pages"].as_array().unwrap();
    assert_eq!(pages.len(), fs::read_dir(&directory).unwrap().count());
    for page in pages {
        let page = page.as_str().unwrap();
        let text = fs::read_to_string(page).unwrap();
        assert!(text.contains(".TH steadfast") && text.contains(".SH NAME"), "{page}: {text}");
        // With all warnings and without output.
        let Ok(groff) = Command::new("groff").args(["-man", "-ww", "-z", page]).output() else { continue };
        assert_eq!(Run::from(groff).ended(0).err, "", "{page}");
    }
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    home.run(&["man", "--dir", file.to_str().unwrap()]).failed(1, &["directory that can be written"]);
}
