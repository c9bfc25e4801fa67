//! What is typed for one forward: where programs connect, where that goes, and under which labels.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use steadfast::{Labels, Rule, Selector, Selectors, SizeClass, Urgency};
use steadfast_tunnel::{AllowList, Target};

use crate::rule::selector;

/// `[ADDRESS:]PORT=TARGET[,WORD]...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(super) listen: SocketAddr,
    pub(super) target: Target,
    pub(super) labels: Labels,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |what: String| {
            format!(
                "cannot forward `{text}`: {what}; write [ADDRESS:]PORT=HOST:PORT and then, behind commas, what holds for it, as in \
                 2222=localhost:22 or 8080=localhost:80,background,never=metered"
            )
        };
        let (listen, rest) = text.split_once('=').ok_or_else(|| fault("it has no `=`".into()))?;
        let listen =
            read_listen(listen).ok_or_else(|| fault(format!("`{listen}` is nothing to listen on")))?;
        let mut words = rest.split(',');
        let target = words.next().unwrap_or_default();
        let target = target.parse().map_err(|_| fault(format!("`{target}` is no target")))?;
        let labels = read_labels(words).map_err(fault)?;
        Ok(Self { listen, target, labels })
    }
}

/// Where programs connect; without an address, from this host only.
fn read_listen(text: &str) -> Option<SocketAddr> {
    match text.parse::<u16>() {
        Ok(port) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => match text.strip_prefix("localhost:") {
            Some(port) => read_listen(port),
            None => text.parse().ok(),
        },
    }
}

fn read_labels<'a>(words: impl Iterator<Item = &'a str>) -> Result<Labels, String> {
    let mut labels = Labels::foreground();
    let mut selectors = Selectors::default();
    for word in words {
        match word.split_once('=') {
            None if word == "foreground" => labels.urgency = Urgency::Foreground,
            None if word == "background" => labels.urgency = Urgency::Background,
            None if word == "small" => labels.size = SizeClass::Small,
            Some((verb, network)) if !network.is_empty() => {
                let list = match verb {
                    "only" => &mut selectors.require,
                    "prefer" => &mut selectors.prefer,
                    "avoid" => &mut selectors.avoid,
                    "never" => &mut selectors.prohibit,
                    _ => return Err(unknown(word)),
                };
                list.push(selector(network));
            }
            _ => return Err(unknown(word)),
        }
    }
    let rule = Rule::from(selectors);
    if !rule.fits() {
        return Err(
            "each of only, prefer, avoid and never may stand 8 times, and a name has at most 64 bytes".into(),
        );
    }
    Ok(labels.rule(rule))
}

fn unknown(word: &str) -> String {
    format!(
        "`{word}` says nothing about it (there are foreground, background, small, only=NETWORK, prefer=NETWORK, avoid=NETWORK \
         and never=NETWORK)"
    )
}

impl Spec {
    /// The networks that its rule names.
    pub(super) fn selectors(&self) -> impl Iterator<Item = Selector> + '_ {
        let Selectors { require, prohibit, prefer, avoid } = self.labels.rule.selectors();
        [require, prohibit, prefer, avoid].into_iter().flatten().cloned()
    }

    /// Its labels as they are typed.
    pub(super) fn words(labels: &Labels) -> String {
        let urgency = if labels.urgency == Urgency::Foreground { "foreground" } else { "background" };
        let mut words = vec![urgency.to_owned()];
        if labels.size == SizeClass::Small {
            words.push("small".into());
        }
        let rule = labels.rule.selectors();
        for (verb, list) in [
            ("only", &rule.require),
            ("prefer", &rule.prefer),
            ("avoid", &rule.avoid),
            ("never", &rule.prohibit),
        ] {
            for one in list {
                let name = match one {
                    Selector::Class(class) => class.name().to_owned(),
                    Selector::Metered => "metered".into(),
                    Selector::Name(name) => name.clone(),
                    other => format!("{other:?}"),
                };
                words.push(format!("{verb}={name}"));
            }
        }
        words.join(",")
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A target that may be connected to, in which `*` stands for every host or port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allowed(pub(super) String);

impl FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        AllowList::default().allow(text).map_err(|error| error.to_string())?;
        Ok(Self(text.into()))
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (text, listen, target, words) in [
            ("2222=localhost:22", "127.0.0.1:2222", "localhost:22", "foreground"),
            ("localhost:1=a:2,small", "127.0.0.1:1", "a:2", "foreground,small"),
            ("[::1]:80=[fd00::1]:80,background", "[::1]:80", "[fd00::1]:80", "background"),
            (
                "0.0.0.0:9=b:9,prefer=ethernet,never=metered,avoid=wwan0,only=wifi",
                "0.0.0.0:9",
                "b:9",
                "foreground,only=wifi,prefer=ethernet,avoid=wwan0,never=metered",
            ),
        ] {
            let spec: Spec = text.parse().unwrap();
            assert_eq!((spec.listen.to_string(), spec.target.to_string()), (listen.into(), target.into()));
            assert_eq!(Spec::words(&spec.labels), words, "{text}");
            // What is printed can be typed.
            assert_eq!(format!("{listen}={target},{words}").parse(), Ok(spec));
        }
    }

    #[test]
    fn what_is_no_forward() {
        for (text, part) in [
            ("2222", "no `=`"),
            ("=localhost:22", "nothing to listen on"),
            ("host:1=localhost:22", "nothing to listen on"),
            ("70000=localhost:22", "nothing to listen on"),
            ("1=localhost", "`localhost` is no target"),
            ("1=localhost:22,urgent", "`urgent` says nothing"),
            ("1=localhost:22,never", "`never` says nothing"),
            ("1=localhost:22,never=", "`never=` says nothing"),
            ("1=localhost:22,", "`` says nothing"),
        ] {
            let error = text.parse::<Spec>().unwrap_err();
            assert!(error.contains(part) && error.contains("2222=localhost:22"), "{text}: {error}");
        }
        let many = format!("1=a:1{}", ",avoid=x".repeat(9));
        assert!(many.parse::<Spec>().unwrap_err().contains("8 times"));
    }
}
