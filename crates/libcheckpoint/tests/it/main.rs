//! A C program, compiled against the header and the built library, that is asked and told as a requester does.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use steadfast_control::{Outcome, Place, Prepared, Wish, find};

const LONG: Duration = Duration::from_secs(60);

/// A directory that goes with its test.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(&self.0);
    }
}

struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    directory: Directory,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Program {
    fn start(name: &str) -> Self {
        let directory = env::temp_dir().join(format!("libcheckpoint-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let directory = Directory(directory);
        let built = env::current_exe().unwrap().with_file_name("libsteadfastcheckpoint.so");
        assert!(built.exists(), "{} is not there", built.display());
        for name in ["libsteadfastcheckpoint.so", "libsteadfastcheckpoint.so.0"] {
            std::os::unix::fs::symlink(&built, directory.0.join(name)).unwrap();
        }
        let (root, binary) = (Path::new(env!("CARGO_MANIFEST_DIR")), directory.0.join("program"));
        let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-pthread", "-I"]);
        compiler.arg(root.join("include")).arg(root.join("tests/c/callbacks.c")).arg("-o").arg(&binary);
        compiler.arg("-L").arg(&directory.0).arg("-lsteadfastcheckpoint");
        let output = compiler.output().expect("a C compiler, which cargo itself needs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut command = Command::new(&binary);
        command.env("LD_LIBRARY_PATH", &directory.0).env("STEADFAST_CONTROL", directory.0.join("control"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut program = Self { child, lines, directory };
        program.says("ready");
        program
    }

    fn says(&mut self, words: &str) {
        assert_eq!(self.lines.next().expect("it ended").unwrap(), words);
    }

    fn told(&mut self, words: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{words}").unwrap();
    }

    fn does(&mut self, words: &str, result: i32) {
        self.told(words);
        self.says(&format!("{words}: {result}"));
    }

    fn place(&self) -> Place {
        let place = find(self.child.id()).unwrap().unwrap();
        assert!(place.path.starts_with(&self.directory.0));
        place
    }
}

fn wish() -> Wish {
    Wish { ready: LONG, silence: LONG, images: Some("/images".into()), goes_on: true }
}

#[test]
fn functions_are_called_before_and_after() {
    let mut program = Program::start("called");
    let place = program.place();
    let prepare = |program: &mut Program| -> Prepared {
        let prepared = place.prepare(&wish()).unwrap();
        program.says("second before /images 1 phase 2");
        program.says("first before /images 1 phase 2");
        prepared
    };
    let prepared = prepare(&mut program);
    let faults = prepared.go_on(&Outcome::Continued, LONG).unwrap();
    assert!(faults.len() == 1 && faults[0].contains("returned 7"), "{faults:?}");
    program.says("first after 0 -");
    let prepared = prepare(&mut program);
    let restored = Outcome::Restored { images: Some("/there".into()) };
    assert!(prepared.go_on(&restored, LONG).unwrap().is_empty());
    program.says("first after 1 /there");
    let prepared = prepare(&mut program);
    prepared.go_on(&Outcome::Abandoned("no room".into()), LONG).unwrap();
    program.says("first after 2 no room");
    program.does("replace", 0);
    program.does("unregister", 0);
    let prepared = place.prepare(&wish()).unwrap();
    prepared.go_on(&Outcome::Abandoned("no room".into()), LONG).unwrap();
    program.says("replaced after 2 no room");
    program.does("unregister", -2);
}

#[test]
fn the_program_may_say_no() {
    let mut program = Program::start("no");
    let place = program.place();
    program.does("not now", 0);
    let error = place.prepare(&wish()).unwrap_err().to_string();
    assert!(error.contains("bad moment") && error.contains("try again later"), "{error}");
    program.says("second before /images 1 phase 2");
    program.does("never", 0);
    let error = place.prepare(&wish()).unwrap_err().to_string();
    assert!(error.contains("cannot be saved") && !error.contains("try again"), "{error}");
    program.says("second before /images 1 phase 2");
    program.does("phase", 0);
}

#[test]
fn sections_of_a_thread_nest_and_hold_a_checkpoint_up() {
    let mut program = Program::start("sections");
    let place = program.place();
    program.does("enter", 0);
    program.does("enter", 0);
    let error = place.prepare(&Wish { ready: Duration::from_millis(30), ..wish() }).unwrap_err();
    assert!(error.to_string().contains("must not be interrupted"), "{error}");
    let asked = std::thread::spawn(move || place.prepare(&wish()).unwrap());
    loop {
        program.told("phase");
        match program.lines.next().unwrap().unwrap().as_str() {
            "phase: 0" => {}
            "phase: 1" => break,
            other => panic!("{other}"),
        }
    }
    program.does("leave", 0);
    // It is inside one still: another one inside that does not wait.
    program.does("try", 0);
    program.does("leave", 0);
    program.told("leave");
    program.says("second before /images 1 phase 2");
    program.says("first before /images 1 phase 2");
    asked.join().unwrap().go_on(&Outcome::Abandoned("enough".into()), LONG).unwrap();
    program.says("first after 2 enough");
    program.says("leave: 0");
    program.does("leave", -1);
    program.does("try", 0);
    program.does("leave", 0);
}
