//! CRIU for the tests of checkpoints: the system's own where it works here, else that of a newer Debian, in a directory of
//! its own below the target directory.
//!
//! The packages come from the mirror that this machine uses anyway, through a configuration of apt that is private to that
//! directory. Nothing is installed, and the machine's own sources stay as they are: CRIU is unpacked with all libraries that
//! it needs, and started through its own loader.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;

/// The Debian whose CRIU is taken.
const SUITE: &str = "forky";
/// The oldest that can save a socket on Linux 6.16 and later.
const OLDEST: (u32, u32) = (4, 2);
/// Debian's own names for what a machine may have in its sources.
const SUITES: [&str; 7] = ["bookworm", "trixie", "forky", "stable", "testing", "unstable", "sid"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Makes sure that there is one, or says why there is none. Never fails: tests that miss it say so themselves.
pub(crate) fn run(is_root: bool) {
    if let Some(own) = process::find("criu").or_else(|| Some(PathBuf::from("/usr/sbin/criu")))
        && works(&own)
    {
        return;
    }
    let place = place();
    if works(&place.join("criu")) {
        return;
    }
    println!(
        "Tests of checkpoints need CRIU, which this machine does not have, or has too old for its kernel"
    );
    if !is_root || process::find("apt-get").is_none() || process::find("dpkg-deb").is_none() {
        println!(
            "Going on without it. As root on a Debian, it is fetched from Debian {SUITE} for the tests alone"
        );
        return;
    }
    println!("Fetching that of Debian {SUITE} into {}; nothing is installed", place.display());
    match fetch(&place) {
        Ok(()) if works(&place.join("criu")) => {}
        Ok(()) => println!(
            "Going on without it: `{} check` says that it cannot work here",
            place.join("criu").display()
        ),
        Err(error) => println!("Going on without it: {error:#}"),
    }
}

/// The one that was fetched, if there is one and it works.
pub(crate) fn fetched() -> Option<PathBuf> {
    Some(place().join("criu")).filter(|program| works(program))
}

/// Where the tests look for it, too: beside the directory of what was built.
fn place() -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| process::root().join("target"), PathBuf::from);
    process::root().join(target).join("tools/criu")
}

fn works(program: &Path) -> bool {
    let version = process::answer(Command::new(program).arg("--version")).and_then(|text| version(&text));
    let mut check = Command::new(program);
    check.arg("check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version >= Some(OLDEST) && check.status().is_ok_and(|status| status.success())
}

/// Of `Version: 4.1.1` the first two numbers.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.lines().find_map(|line| line.strip_prefix("Version:"))?.trim().split('.');
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

fn fetch(place: &Path) -> Result<()> {
    let new = place.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    let source = source()?;
    for directory in ["apt/lists/partial", "apt/archives/partial", "apt/preferences", "root"] {
        fs::create_dir_all(new.join(directory)).with_context(|| format!("cannot make {}", new.display()))?;
    }
    let apt = new.join("apt");
    fs::write(apt.join("sources.list"), format!("{source}\n"))?;
    fs::write(apt.join("status"), "")?;
    apt_get(&apt, &["update"])?;
    apt_get(&apt, &["install", "--yes", "--download-only", "--no-install-recommends", "criu"])?;
    let root = new.join("root");
    for archive in fs::read_dir(apt.join("archives"))? {
        let archive = archive?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(&archive).arg(&root);
            if !process::succeeds(&mut unpack)? {
                bail!("cannot unpack {}", archive.display());
            }
        }
    }
    wrap(&new)?;
    fs::remove_dir_all(&apt)?;
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::rename(&new, place).with_context(|| format!("cannot make {}", place.display()))
}

/// apt-get with sources, lists and packages of its own, and with the machine's way to the network.
fn apt_get(apt: &Path, arguments: &[&str]) -> Result<()> {
    let shown = apt.display();
    let mut command = Command::new("apt-get");
    command.arg("--quiet");
    for option in [
        format!("Dir::State={shown}"),
        format!("Dir::State::lists={shown}/lists"),
        format!("Dir::State::status={shown}/status"),
        format!("Dir::Cache={shown}"),
        format!("Dir::Etc::sourcelist={shown}/sources.list"),
        "Dir::Etc::sourceparts=-".to_owned(),
        format!("Dir::Etc::preferencesparts={shown}/preferences"),
        "APT::Default-Release=".to_owned(),
        // These directories are root's alone, and their files are checked by their signature.
        "APT::Sandbox::User=root".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if process::succeeds(&mut command)? {
        return Ok(());
    }
    bail!("apt-get {} failed, see above; is there a network, and a mirror that answers?", arguments[0])
}

/// What starts it through its own loader and with its own libraries.
fn wrap(place: &Path) -> Result<()> {
    let root = place.join("root");
    let loaders =
        ["usr/lib64/ld-linux-x86-64.so.2", "usr/lib/ld-linux-aarch64.so.1", "usr/lib/ld-linux-armhf.so.3"];
    let loader = loaders.into_iter().find(|loader| root.join(loader).exists());
    let loader = loader.context("there is no loader in Debian's libc6 that is known here")?;
    let mut libraries = None;
    for entry in fs::read_dir(root.join("usr/lib"))? {
        let entry = entry?;
        if entry.path().join("libc.so.6").exists() {
            libraries = Some(entry.file_name().to_string_lossy().into_owned());
        }
    }
    let libraries = libraries.context("there is no libc in Debian's libc6")?;
    let script = format!(
        "#!/bin/sh\nhere=$(dirname \"$(readlink -f \"$0\")\")/root\n\
         exec \"$here/{loader}\" --library-path \"$here/usr/lib/{libraries}\" \"$here/usr/sbin/criu\" \"$@\"\n"
    );
    let path = place.join("criu");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A line of sources for the newer Debian, at the mirror that this machine uses.
fn source() -> Result<String> {
    let mut texts = vec![];
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut more: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        more.sort();
        paths.extend(more);
    }
    for path in paths {
        if let Ok(text) = fs::read_to_string(&path) {
            let deb822 = path.extension().is_some_and(|extension| extension == "sources");
            texts.push((deb822, text));
        }
    }
    let mirror =
        texts.iter().find_map(|(deb822, text)| if *deb822 { of_stanzas(text) } else { of_lines(text) });
    let Some(Mirror { uri, keyring }) = mirror else {
        bail!("this machine's package sources name no mirror of Debian")
    };
    let keyring = keyring.unwrap_or_else(|| KEYRING.to_owned());
    Ok(format!("deb [signed-by={keyring}] {uri} {SUITE} main"))
}

#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    uri: String,
    keyring: Option<String>,
}

/// One line for each source, as apt had them first.
fn of_lines(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let fits = SUITES.contains(&suite) && words.any(|word| word == "main");
        let keyring = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        fits.then(|| Mirror { uri: uri.to_owned(), keyring: keyring.map(str::to_owned) })
    })
}

/// Stanzas of fields, as in Debian's control files.
fn of_stanzas(text: &str) -> Option<Mirror> {
    let text: String =
        text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let has = |name: &str, fits: &dyn Fn(&str) -> bool| {
            field(name).is_some_and(|value| value.split_whitespace().any(fits))
        };
        let fits = has("Types", &|word| word == "deb")
            && has("Suites", &|word| SUITES.contains(&word))
            && has("Components", &|word| word == "main")
            && !field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        let uri = field("URIs")?.split_whitespace().next()?;
        // A key may also stand in the file itself, on lines of its own.
        let keyring = field("Signed-By").filter(|value| value.starts_with('/')).map(str::to_owned);
        fits.then(|| Mirror { uri: uri.to_owned(), keyring })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(uri: &str, keyring: Option<&str>) -> Mirror {
        Mirror { uri: uri.to_owned(), keyring: keyring.map(str::to_owned) }
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(version("Version: 4.2.1\n"), Some((4, 2)));
        assert_eq!(version("GitID: v3.17.1\nVersion: 4.10\n"), Some((4, 10)));
        assert!(version("Version: 4.1.1") < Some(OLDEST) && version("none") < Some(OLDEST));
    }

    #[test]
    fn the_mirror_is_found_in_both_forms() {
        let lines = "# deb http://no/debian bookworm main\ndeb-src http://no/debian bookworm main\n\
                     deb https://packages.example/apt tools-bookworm main\n\
                     deb http://security/debian bookworm-security main\n\
                     deb [arch=amd64 signed-by=/k.gpg] http://mirror/debian bookworm contrib main\n";
        assert_eq!(of_lines(lines), Some(mirror("http://mirror/debian", Some("/k.gpg"))));
        assert_eq!(of_lines("deb http://mirror/debian sid main"), Some(mirror("http://mirror/debian", None)));
        assert_eq!(of_lines("deb http://mirror/ubuntu noble main"), None);
        let stanzas = "Types: deb\nURIs: https://tools.example\nSuites: nodistro\nComponents: main\n\n\
                       Types: deb\n# http://snapshot\nURIs: http://mirror/debian http://other\n\
                       Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(of_stanzas(stanzas), Some(mirror("http://mirror/debian", Some("/k.gpg"))));
        let off = stanzas.replace("Components: main\nSigned-By", "Components: main\nEnabled: no\nSigned-By");
        assert_eq!(of_stanzas(&off), None);
        let inline = stanzas.replace("/k.gpg", "\n -----BEGIN PGP PUBLIC KEY BLOCK-----");
        assert_eq!(of_stanzas(&inline), Some(mirror("http://mirror/debian", None)));
    }
}
