//! Where a user's files lie.

use std::ffi::OsString;
use std::path::PathBuf;

/// The paths of one user's files, from the XDG base directories and Steadfast's own variables.
///
/// Nothing is created or read here.
///
/// | variable | what it replaces |
/// |---|---|
/// | `STEADFAST_CONFIG` | the configuration file |
/// | `STEADFAST_IDENTITY` | the identity file |
/// | `XDG_CONFIG_HOME` | `~/.config` |
/// | `XDG_STATE_HOME` | `~/.local/state` |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The identity: a private key in PKCS#8 PEM.
    pub identity: PathBuf,
    /// The trusted peers, one a line.
    pub trusted: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// The directory of stores and partial files.
    pub state: PathBuf,
}

/// No home directory is known.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot tell where {what} lies: neither {variable} nor HOME is set to an absolute path; set one of them"
)]
pub struct PlacesError {
    what: &'static str,
    variable: &'static str,
}

impl Places {
    /// The places that this process's environment names.
    ///
    /// Fails if a base directory is needed and neither its variable nor `HOME` is set.
    pub fn from_env() -> Result<Self, PlacesError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// The places that `variable` names, a stand-in for the environment.
    ///
    /// ```
    /// use std::path::Path;
    /// use steadfast_net::Places;
    /// let places = Places::from_variables(|name| (name == "HOME").then(|| "/home/ann".into())).unwrap();
    /// assert_eq!(places.trusted, Path::new("/home/ann/.config/steadfast/trusted"));
    /// ```
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, PlacesError> {
        let base = |what, name: &'static str, under_home: &str| {
            // The XDG specification: a relative path in these variables is invalid and to be ignored.
            let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
            absolute(name)
                .or_else(|| absolute("HOME").map(|home| home.join(under_home)))
                .map(|base| base.join("steadfast"))
                .ok_or(PlacesError { what, variable: name })
        };
        let named = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = base("the configuration directory", "XDG_CONFIG_HOME", ".config")?;
        Ok(Self {
            identity: named("STEADFAST_IDENTITY").unwrap_or_else(|| user.join("identity")),
            trusted: user.join("trusted"),
            config: named("STEADFAST_CONFIG").unwrap_or_else(|| user.join("config.toml")),
            state: base("the state directory", "XDG_STATE_HOME", ".local/state")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn places(variables: &[(&str, &str)]) -> Result<Places, PlacesError> {
        Places::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn variables_win_over_home() {
        let all = places(&[
            ("HOME", "/h"),
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_STATE_HOME", "/s"),
            ("STEADFAST_CONFIG", "own.toml"),
            ("STEADFAST_IDENTITY", "/key"),
        ])
        .unwrap();
        assert_eq!(all.identity, Path::new("/key"));
        assert_eq!(all.trusted, Path::new("/c/steadfast/trusted"));
        assert_eq!(all.config, Path::new("own.toml"));
        assert_eq!(all.state, Path::new("/s/steadfast"));
    }

    #[test]
    fn relative_base_directories_are_ignored() {
        let all = places(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "c"), ("STEADFAST_CONFIG", "")]).unwrap();
        assert_eq!(all.config, Path::new("/h/.config/steadfast/config.toml"));
        assert_eq!(all.state, Path::new("/h/.local/state/steadfast"));
        let error = places(&[("XDG_CONFIG_HOME", "/c")]).unwrap_err().to_string();
        assert!(error.contains("XDG_STATE_HOME"), "{error}");
    }
}
