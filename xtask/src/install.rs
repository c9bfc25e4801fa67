//! Laying the program and the C libraries out under a prefix, as programs that ask for FTB expect them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// A library for programs in C.
struct Library {
    package: &'static str,
    /// What the linker asks for, without `lib`; and for pkg-config.
    name: &'static str,
    package_config: &'static str,
    /// Of the interface: programs ask for its first number when they start.
    version: &'static str,
    /// Of the package, for pkg-config.
    release: &'static str,
    description: &'static str,
}

const LIBRARIES: [Library; 2] = [
    Library {
        package: "libftb",
        name: "ftb",
        package_config: "ftb",
        version: "0.5.0",
        release: "0.6.2",
        description: "FTB API 0.5 (Fault Tolerance Backplane) on Steadfast",
    },
    Library {
        package: "libcheckpoint",
        name: "steadfastcheckpoint",
        package_config: "steadfast-checkpoint",
        version: "0.1.0",
        release: "0.1.0",
        description: "What a program does before and after its checkpoints",
    },
];

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    prefix: PathBuf,
    /// The C libraries alone.
    library_only: bool,
    debug: bool,
}

/// `cargo xtask install`.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let plan = plan(words)?;
    let mut build = process::cargo(&["build"]);
    build.args(LIBRARIES.iter().flat_map(|library| ["--package", library.package]));
    if !plan.library_only {
        build.args(["--package", "steadfast-cli"]);
    }
    if !plan.debug {
        build.arg("--release");
    }
    if !process::succeeds(&mut build)? {
        return Ok(false);
    }
    let built = target()?.join(if plan.debug { "debug" } else { "release" });
    lay_out(&plan, &built)?;
    println!("Installed under {}. Programs find the libraries with", plan.prefix.display());
    println!("  PKG_CONFIG_PATH={}", plan.prefix.join("lib/pkgconfig").display());
    println!(
        "  LD_LIBRARY_PATH={}  (unless the system looks there anyway)",
        plan.prefix.join("lib").display()
    );
    Ok(true)
}

fn plan(words: &[&str]) -> Result<Plan> {
    let (mut prefix, mut library_only, mut debug) = (None, false, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--prefix" => prefix = words.next().copied(),
            "--library" => library_only = true,
            "--debug" => debug = true,
            _ => bail!("cannot install with `{word}`: there are --prefix DIR, --library and --debug"),
        }
    }
    let Some(prefix) = prefix else {
        bail!("cannot install nowhere: say --prefix DIR, as in: cargo xtask install --prefix /usr/local")
    };
    let prefix = std::path::absolute(prefix).with_context(|| format!("cannot make sense of `{prefix}`"))?;
    Ok(Plan { prefix, library_only, debug })
}

/// Where cargo builds: this program stands there, in the directory of its profile.
pub(crate) fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find out where this program stands")?;
    let is_profile = |directory: &&Path| directory.ends_with("debug") || directory.ends_with("release");
    let profile = own.ancestors().find(is_profile).and_then(Path::parent);
    profile.map(Path::to_owned).with_context(|| format!("{} stands in no target directory", own.display()))
}

fn lay_out(plan: &Plan, built: &Path) -> Result<()> {
    let Plan { prefix, .. } = plan;
    for library in &LIBRARIES {
        library.lay_out(prefix, built)?;
    }
    if plan.library_only {
        return Ok(());
    }
    let program = prefix.join("bin/steadfast");
    put(&built.join("steadfast"), &program, 0o755)?;
    let pages = prefix.join("share/man/man1");
    let mut man = Command::new(&program);
    if process::answer(man.args(["man", "--dir"]).arg(&pages)).is_none() {
        bail!("cannot write the manual pages into {}; may you write there?", pages.display());
    }
    let unit = fs::read_to_string(process::root().join("crates/cli/steadfast.service"));
    let unit = unit
        .context("cannot read the unit of the daemon")?
        .replace("@PREFIX@", &prefix.display().to_string());
    let place = prefix.join("lib/systemd/system/steadfast.service");
    make_directory(&place)?;
    fs::write(&place, unit).with_context(|| format!("cannot write {}", place.display()))?;
    let completions = prefix.join("share/bash-completion/completions/steadfast");
    make_directory(&completions)?;
    let script = process::answer(Command::new(&program).args(["completions", "bash"]));
    fs::write(&completions, script.context("`steadfast completions bash` failed")?)
        .with_context(|| format!("cannot write {}", completions.display()))
}

impl Library {
    fn lay_out(&self, prefix: &Path, built: &Path) -> Result<()> {
        let Self { package, name, package_config, version, .. } = self;
        let library = prefix.join("lib");
        let (linked, archive) = (format!("lib{name}.so"), format!("lib{name}.a"));
        let major = version.split('.').next().unwrap_or_default();
        let (soname, file) = (format!("{linked}.{major}"), format!("{linked}.{version}"));
        put(&built.join(&linked), &library.join(&file), 0o755)?;
        put(&built.join(&archive), &library.join(&archive), 0o644)?;
        for (link, to) in [(&soname, &file), (&linked, &soname)] {
            let link = library.join(link);
            let _was_not_there = fs::remove_file(&link);
            symlink(to, &link).with_context(|| format!("cannot make the link {}", link.display()))?;
        }
        put_all(&process::root().join("crates").join(package).join("include"), &prefix.join("include"))?;
        let description = library.join("pkgconfig").join(package_config).with_extension("pc");
        make_directory(&description)?;
        fs::write(&description, self.pkg_config(prefix))
            .with_context(|| format!("cannot write {}", description.display()))
    }

    fn pkg_config(&self, prefix: &Path) -> String {
        let Self { name, package_config, release, description, .. } = self;
        let prefix = prefix.display();
        format!(
            "prefix={prefix}\nlibdir=${{prefix}}/lib\nincludedir=${{prefix}}/include\n\n\
             Name: {package_config}\nDescription: {description}\nVersion: {release}\n\
             Libs: -L${{libdir}} -l{name}\nLibs.private: -lpthread -ldl -lm\nCflags: -I${{includedir}}\n"
        )
    }
}

/// Headers, those in directories too.
fn put_all(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { put_all(&from, &to)? } else { put(&from, &to, 0o644)? }
    }
    Ok(())
}

/// Replaces a file at once, so that a program that runs keeps the one that it has.
fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let what = || format!("cannot install {} as {}", from.display(), to.display());
    make_directory(to)?;
    let fresh = to.with_extension("new");
    fs::copy(from, &fresh).with_context(what)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).with_context(what)?;
    fs::rename(&fresh, to).with_context(what)
}

fn make_directory(file: &Path) -> Result<()> {
    let Some(directory) = file.parent() else { return Ok(()) };
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}; may you write there?", directory.display()))
}

/// The flags with which a C program is compiled against the prefix.
#[cfg(test)]
fn flags(prefix: &Path, library: &Library) -> Vec<String> {
    let mut ask = Command::new("pkg-config");
    ask.args(["--cflags", "--libs", library.package_config])
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    match process::answer(&mut ask) {
        Some(flags) => flags.split_whitespace().map(str::to_owned).collect(),
        None => vec![
            format!("-I{}", prefix.join("include").display()),
            format!("-L{}", prefix.join("lib").display()),
            format!("-l{}", library.name),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let plan = plan(&["--library", "--prefix", "/x"]).unwrap();
        assert_eq!(plan, Plan { prefix: "/x".into(), library_only: true, debug: false });
        for (words, part) in
            [(&[][..], "--prefix DIR"), (&["--prefix"], "--prefix DIR"), (&["--to"], "`--to`")]
        {
            let error = super::plan(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    /// With the library as this run builds it, because that is there already.
    #[test]
    fn a_program_compiles_against_the_prefix() {
        let prefix = std::env::temp_dir().join(format!("steadfast-install-{}", std::process::id()));
        let words = ["--library", "--debug", "--prefix", prefix.to_str().unwrap()];
        assert!(run(&words).unwrap() && run(&words).unwrap(), "once, and over itself");
        let programs = [
            "#include <libftb.h>\n#include <stdio.h>\nint main(void) { FTB_client_handle_t h = {0};\n\
             printf(\"%s %d\", FTB_VERSION, FTB_Disconnect(h)); return 0; }\n",
            "#include <steadfast/checkpoint.h>\n#include <stdio.h>\n\
             int main(void) { printf(\"%d\", steadfast_section_leave()); return 0; }\n",
        ];
        for ((library, source), words) in LIBRARIES.iter().zip(programs).zip(["0.6.2 -9", "-1"]) {
            let (file, program) = (prefix.join("old.c"), prefix.join("old"));
            fs::write(&file, source).unwrap();
            let mut compile = Command::new("cc");
            compile.arg("-o").arg(&program).arg(&file).args(flags(&prefix, library));
            assert!(process::succeeds(&mut compile).unwrap());
            let mut old = Command::new(&program);
            let said = process::answer(old.env("LD_LIBRARY_PATH", prefix.join("lib")));
            assert_eq!(said.as_deref(), Some(words));
            // It asks for the name that never changes, not for the file that it was linked with.
            fs::remove_file(prefix.join("lib").join(format!("lib{}.so", library.name))).unwrap();
            let said = process::answer(old.env("LD_LIBRARY_PATH", prefix.join("lib")));
            assert_eq!(said.as_deref(), Some(words));
        }
        fs::remove_dir_all(&prefix).unwrap();
    }
}
