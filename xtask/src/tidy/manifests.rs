//! The manifests: what every crate inherits, and that a crate uses only the floors below its own.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::source::{Source, line_of, places};
use super::{File, Finding};

/// Which crates of this workspace a crate may use.
struct Floor {
    package: &'static str,
    may_use: &'static [&'static str],
    /// In addition, for its tests and examples.
    may_test_with: &'static [&'static str],
    /// Attributes that keep clocks, sockets and worse out of a core.
    attributes: &'static [&'static str],
}

const CORE: &[&str] = &["#![no_std]", "#![forbid(unsafe_code)]"];

const FLOORS: [Floor; 20] = [
    Floor { package: "steadfast-wire", may_use: &[], may_test_with: &[], attributes: CORE },
    Floor {
        package: "steadfast-session",
        may_use: &["steadfast-wire"],
        may_test_with: &[],
        attributes: CORE,
    },
    Floor { package: "steadfast-homa", may_use: &["steadfast-wire"], may_test_with: &[], attributes: CORE },
    Floor {
        package: "steadfast-backplane",
        may_use: &["steadfast-wire"],
        may_test_with: &[],
        attributes: CORE,
    },
    Floor {
        package: "steadfast-agent-client",
        may_use: &["steadfast-backplane"],
        may_test_with: &["steadfast-wire"],
        attributes: &["#![forbid(unsafe_code)]"],
    },
    Floor {
        package: "libftb",
        may_use: &["steadfast-agent-client", "steadfast-backplane"],
        may_test_with: &["steadfast-wire"],
        attributes: &[],
    },
    Floor {
        package: "steadfast-sim",
        may_use: &["steadfast-wire", "steadfast-session", "steadfast-homa", "steadfast-backplane"],
        may_test_with: &[],
        attributes: &[],
    },
    Floor {
        package: "steadfast-store",
        may_use: &["steadfast-wire", "steadfast-session"],
        may_test_with: &[],
        attributes: &["#![forbid(unsafe_code)]"],
    },
    Floor {
        package: "steadfast-control",
        may_use: &[],
        may_test_with: &[],
        attributes: &["#![forbid(unsafe_code)]"],
    },
    Floor {
        package: "libcheckpoint",
        may_use: &["steadfast-control"],
        may_test_with: &[],
        attributes: &[],
    },
    Floor { package: "steadfast-fabric", may_use: &["steadfast-homa"], may_test_with: &[], attributes: &[] },
    Floor {
        package: "steadfast-net",
        may_use: &["steadfast-wire"],
        may_test_with: &["steadfast-homa", "steadfast-testbed"],
        attributes: &[],
    },
    Floor { package: "steadfast-testbed", may_use: &[], may_test_with: &[], attributes: &[] },
    Floor {
        package: "steadfast",
        may_use: &[
            "steadfast-wire",
            "steadfast-session",
            "steadfast-store",
            "steadfast-homa",
            "steadfast-backplane",
            "steadfast-net",
            "steadfast-control",
            "steadfast-agent-client",
        ],
        may_test_with: &["steadfast-testbed", "steadfast-sim"],
        attributes: &[],
    },
    Floor {
        package: "steadfast-transfer",
        may_use: &["steadfast", "steadfast-wire"],
        may_test_with: &[],
        attributes: &[],
    },
    Floor { package: "steadfast-tunnel", may_use: &["steadfast"], may_test_with: &[], attributes: &[] },
    Floor {
        package: "steadfast-checkpoint",
        may_use: &["steadfast-agent-client", "steadfast-backplane", "steadfast-control"],
        may_test_with: &[],
        attributes: &["#![forbid(unsafe_code)]"],
    },
    Floor {
        package: "steadfast-daemon",
        may_use: &[
            "steadfast-wire",
            "steadfast-session",
            "steadfast-backplane",
            "steadfast-net",
            "steadfast-control",
            "steadfast",
        ],
        may_test_with: &["steadfast-testbed"],
        attributes: &["#![forbid(unsafe_code)]"],
    },
    Floor {
        package: "steadfast-cli",
        may_use: &[
            "steadfast",
            "steadfast-checkpoint",
            "steadfast-daemon",
            "steadfast-fabric",
            "steadfast-testbed",
            "steadfast-transfer",
            "steadfast-tunnel",
            "steadfast-wire",
            "steadfast-session",
            "steadfast-net",
        ],
        may_test_with: &["libftb"],
        attributes: &[],
    },
    Floor { package: "xtask", may_use: &[], may_test_with: &[], attributes: &[] },
];

const INHERITED: [&str; 3] = ["version", "edition", "license"];

pub(super) fn check(files: &[File], findings: &mut Vec<Finding>) {
    let mut manifests = BTreeMap::new();
    for file in files.iter().filter(|file| is_manifest(&file.path)) {
        match file.text.parse::<Table>() {
            Ok(table) => _ = manifests.insert(file.path.as_str(), (file, table)),
            Err(error) => {
                findings.push(Finding::new(
                    &file.path,
                    1,
                    format!("cannot be read: {error}"),
                    "Write it in TOML",
                ));
            }
        }
    }
    let Some((_, root)) = manifests.remove("Cargo.toml") else { return };
    let packages: Vec<&str> = manifests.values().filter_map(|(_, table)| package(table)).collect();
    let names = names(&root, &packages);
    for (file, table) in manifests.values() {
        Manifest { file, table, files, names: &names }.check(findings);
    }
}

/// The root's manifest and those of its members.
fn is_manifest(path: &str) -> bool {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["Cargo.toml"] | ["xtask", "Cargo.toml"] => true,
        ["crates", _, name] => name == "Cargo.toml",
        _ => false,
    }
}

fn package(manifest: &Table) -> Option<&str> {
    manifest.get("package")?.get("name")?.as_str()
}

/// The name under which a dependency is written, and the package of this workspace that it means.
fn names(root: &Table, packages: &[&str]) -> BTreeMap<String, String> {
    let mut names: BTreeMap<String, String> =
        packages.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect();
    let shared =
        root.get("workspace").and_then(|workspace| workspace.get("dependencies")).and_then(Value::as_table);
    for (key, value) in shared.into_iter().flatten() {
        if let Some(renamed) = value.get("package").and_then(Value::as_str)
            && packages.contains(&renamed)
        {
            names.insert(key.clone(), renamed.to_owned());
        }
    }
    names
}

/// One member's manifest, with what it takes to judge it.
struct Manifest<'a> {
    file: &'a File,
    table: &'a Table,
    files: &'a [File],
    names: &'a BTreeMap<String, String>,
}

impl Manifest<'_> {
    fn check(&self, findings: &mut Vec<Finding>) {
        for key in INHERITED {
            let field = self.table.get("package").and_then(|package| package.get(key));
            if !field.is_some_and(|value| is_true(value, "workspace")) {
                let remedy = format!("Write `{key}.workspace = true` below [package]");
                findings.push(self.finding(key, format!("`{key}` is not the workspace's"), remedy));
            }
        }
        if !self.table.get("lints").is_some_and(|lints| is_true(lints, "workspace")) {
            let remedy = "Add a table [lints] with `workspace = true`";
            findings.push(self.finding("[lints]", "the workspace's lints do not apply", remedy));
        }
        let name = package(self.table).unwrap_or_default();
        let Some(floor) = FLOORS.iter().find(|floor| floor.package == name) else {
            let remedy = "Add it to FLOORS in xtask/src/tidy/manifests.rs, with the crates that it may use";
            findings.push(self.finding("name", format!("`{name}` stands on no floor"), remedy));
            return;
        };
        self.check_dependencies(floor, findings);
        self.check_attributes(floor, findings);
    }

    fn check_dependencies(&self, floor: &Floor, findings: &mut Vec<Finding>) {
        let targets = self.table.get("target").and_then(Value::as_table);
        let tables = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
        for table in tables.chain([self.table]) {
            for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
                for (key, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                    let key_or_package = value.get("package").and_then(Value::as_str).unwrap_or(key);
                    if let Some(used) = self.names.get(key_or_package) {
                        self.check_dependency(floor, kind, key, used, findings);
                    }
                }
            }
        }
    }

    fn check_dependency(
        &self,
        floor: &Floor,
        kind: &str,
        key: &str,
        used: &str,
        findings: &mut Vec<Finding>,
    ) {
        let tests = kind == "dev-dependencies";
        let allowed = floor.may_use.contains(&used) || (tests && floor.may_test_with.contains(&used));
        if !allowed {
            let what = format!("`{}` may not have `{used}` among its {kind}", floor.package);
            let remedy =
                "A crate uses only the floors below it: move what is shared down, or the use of it up";
            findings.push(self.finding(key, what, remedy));
        }
        if !self.sources().any(|source| places(&source.text, &key.replace('-', "_")).next().is_some()) {
            let what = format!("`{}` does not use its dependency `{used}`", floor.package);
            findings.push(self.finding(key, what, "Remove it"));
        }
    }

    fn check_attributes(&self, floor: &Floor, findings: &mut Vec<Finding>) {
        let path = format!("{}src/lib.rs", self.directory());
        let Some(library) = self.files.iter().find(|file| file.path == path) else { return };
        let code = Source::new(&library.text).code;
        for attribute in floor.attributes {
            if !code.lines().any(|line| line.trim() == *attribute) {
                let what = format!("the core lacks `{attribute}`");
                let remedy =
                    "Add it below the description of the crate; what then does not compile belongs elsewhere";
                findings.push(Finding::new(&path, 1, what, remedy));
            }
        }
    }

    /// The directory of the crate, with a slash at its end.
    fn directory(&self) -> &str {
        self.file.path.strip_suffix("Cargo.toml").unwrap_or_default()
    }

    fn sources(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust() && file.path.starts_with(self.directory()))
    }

    fn finding(&self, key: &str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        let text = &self.file.text;
        let begins = |line: &str| {
            line.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ', '=']))
        };
        let at = text
            .lines()
            .position(begins)
            .map_or(0, |index| text.lines().take(index).map(|line| line.len() + 1).sum());
        Finding::new(&self.file.path, line_of(text, at), what, remedy)
    }
}

fn is_true(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{file, found};

    const ROOT: &str =
        "[workspace.dependencies]\nwire = { path = \"crates/wire\", package = \"steadfast-wire\" }\n";

    fn member(name: &str, rest: &str) -> String {
        format!(
            "[package]\nname = \"{name}\"\nversion.workspace = true\nedition.workspace = true\n\
             license.workspace = true\n[lints]\nworkspace = true\n{rest}"
        )
    }

    fn findings(net: &str, source: &str) -> Vec<String> {
        let files = [
            file("Cargo.toml", ROOT),
            file("crates/wire/Cargo.toml", &member("steadfast-wire", "")),
            file("crates/session/Cargo.toml", &member("steadfast-session", "")),
            file("crates/net/Cargo.toml", net),
            file("crates/net/src/lib.rs", source),
        ];
        found(|findings| check(&files, findings))
    }

    #[test]
    fn a_crate_uses_the_floors_below() {
        let down = member("steadfast-net", "[dependencies]\nsteadfast-wire.workspace = true\n");
        assert_eq!(findings(&down, "use steadfast_wire::Frame;"), [""; 0]);
        let renamed = member("steadfast-net", "[dependencies]\nwire.workspace = true\n");
        assert_eq!(findings(&renamed, "use wire::Frame;"), [""; 0]);
        for table in ["dependencies", "dev-dependencies", "target.'cfg(unix)'.dependencies"] {
            let across =
                member("steadfast-net", &format!("[{table}]\nsteadfast-session = {{ workspace = true }}\n"));
            let kind = table.rsplit('.').next().unwrap();
            assert_eq!(
                findings(&across, "use steadfast_session::Endpoint;"),
                [format!(
                    "crates/net/Cargo.toml:9: `steadfast-net` may not have `steadfast-session` among its {kind}"
                )]
            );
        }
    }

    #[test]
    fn a_dependency_is_used() {
        let net = member("steadfast-net", "[dependencies]\nsteadfast-wire.workspace = true\n");
        assert_eq!(
            findings(&net, "use steadfast_wires::Frame;"),
            ["crates/net/Cargo.toml:9: `steadfast-net` does not use its dependency `steadfast-wire`"]
        );
    }

    #[test]
    fn every_crate_inherits() {
        assert_eq!(
            findings("[package]\nname = \"steadfast-net\"\nversion = \"1\"\nedition.workspace = true\n", ""),
            [
                "crates/net/Cargo.toml:1: `license` is not the workspace's",
                "crates/net/Cargo.toml:1: the workspace's lints do not apply",
                "crates/net/Cargo.toml:3: `version` is not the workspace's",
            ]
        );
        assert_eq!(
            findings(&member("steadfast-attic", ""), ""),
            ["crates/net/Cargo.toml:2: `steadfast-attic` stands on no floor"]
        );
    }

    #[test]
    fn cores_have_their_attributes() {
        let core = |source: &str| {
            let files = [
                file("Cargo.toml", ROOT),
                file("crates/wire/Cargo.toml", &member("steadfast-wire", "")),
                file("crates/wire/src/lib.rs", source),
            ];
            found(|findings| check(&files, findings))
        };
        assert_eq!(core("//! Core.\n#![no_std]\n#![forbid(unsafe_code)]\n"), [""; 0]);
        assert_eq!(
            core("//! #![no_std]\n#![forbid(unsafe_code)]\n"),
            ["crates/wire/src/lib.rs:1: the core lacks `#![no_std]`"]
        );
    }
}
