//! The subscription language of FTB: `attribute=value` with commas between, all of which must fit.

use crate::code::Code;
use crate::event::Event;
use crate::name::{EventSpace, MAX_CLIENT_NAME, MAX_EVENT_NAME, MAX_HOST_NAME, Severity};
use crate::text::Text;
use core::fmt;
use core::str::FromStr;

/// The most pairs in a subscription. There are six attributes and none may stand twice, so more is an error in any case.
const MAX_PAIRS: usize = 10;

/// The most bytes of a subscription; FTB has no bound of its own. Blanks count.
pub const MAX_SUBSCRIPTION: usize = 1024;

const ALL: &str = "all";

/// Which events somebody wants.
///
/// ```
/// use steadfast_backplane::Subscription;
/// let faults: Subscription = "event_space=ftb.all.mpich2, severity=fatal".parse().unwrap();
/// assert_eq!(faults.to_string(), "event_space=ftb.all.mpich2,severity=fatal");
/// let bad = "severity=debug".parse::<Subscription>().unwrap_err();
/// assert_eq!(bad.code() as i32, -16);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    severity: Option<Severity>,
    space: Option<EventSpace>,
    job: Option<Text<MAX_CLIENT_NAME>>,
    host: Option<Text<MAX_HOST_NAME>>,
    name: Option<Text<MAX_EVENT_NAME>>,
    client: Option<Text<MAX_CLIENT_NAME>>,
}

/// How attributes are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Matching {
    /// Each attribute must fit, as FTB's specification says.
    #[default]
    Every = 0,
    /// As FTB 0.6.2 does it: where `event_name` is given, severity, category and component are ignored.
    Ftb = 1,
}

/// Why a text is no subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// Longer than [`MAX_SUBSCRIPTION`], or more pairs than there can be.
    #[error("a subscription has at most {MAX_PAIRS} pairs and {MAX_SUBSCRIPTION} bytes; this has more")]
    TooLong,
    /// Something between commas is not `attribute=value`.
    #[error("a subscription is `attribute=value`, with commas between several; one part of this is not")]
    NoPair,
    /// An attribute stands twice.
    #[error("`{0}` stands twice in a subscription; name each attribute once")]
    Twice(&'static str),
    /// An attribute that there is not.
    #[error(
        "a subscription names an attribute that there is not; known are severity, event_space, jobid, host_name, \
         event_name and client_name"
    )]
    Attribute,
    /// A value that the attribute cannot have.
    #[error(
        "a subscription gives `{0}` a value that it cannot have; check its spelling, and that it has no blanks"
    )]
    Value(&'static str),
    /// The value of `event_space` is none.
    #[error("a subscription's event space is `region.category.component`, each a word or `all`")]
    EventSpace,
}

impl SubscriptionError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::TooLong | Self::NoPair | Self::Twice(_) => Code::SubscriptionString,
            Self::Attribute => Code::FilterAttribute,
            Self::Value(_) => Code::FilterValue,
            Self::EventSpace => Code::EventSpaceFormat,
        }
    }
}

const ATTRIBUTES: [&str; 6] = ["severity", "event_space", "jobid", "host_name", "event_name", "client_name"];

const BLANKS: [char; 2] = [' ', '\t'];

/// Whether a wildcard or the same without case.
fn fits(wanted: &[u8], there: &[u8]) -> bool {
    wanted.eq_ignore_ascii_case(there) || wanted.eq_ignore_ascii_case(ALL.as_bytes())
}

fn text_fits<const MAX: usize>(wanted: Option<&Text<MAX>>, there: &[u8]) -> bool {
    wanted.is_none_or(|wanted| wanted.as_bytes().eq_ignore_ascii_case(there))
}

/// A value; `None` for the wildcard.
fn value<const MAX: usize>(
    text: &str,
    attribute: &'static str,
) -> Result<Option<Text<MAX>>, SubscriptionError> {
    let value = Text::new(text).map_err(|_| SubscriptionError::Value(attribute))?;
    Ok((!text.eq_ignore_ascii_case(ALL)).then_some(value))
}

impl Subscription {
    /// Every event.
    pub const ALL: Self =
        Self { severity: None, space: None, job: None, host: None, name: None, client: None };

    /// Reads a subscription; the empty text is every event. The first error counts, from left to right.
    pub fn new(text: &str) -> Result<Self, SubscriptionError> {
        let mut subscription = Self::ALL;
        if text.is_empty() {
            return Ok(subscription);
        }
        if text.len() > MAX_SUBSCRIPTION || text.split(',').count() > MAX_PAIRS {
            return Err(SubscriptionError::TooLong);
        }
        let mut seen = [false; ATTRIBUTES.len()];
        for pair in text.split(',') {
            let (attribute, value) = pair.split_once('=').ok_or(SubscriptionError::NoPair)?;
            let (attribute, value) = (attribute.trim_matches(BLANKS), value.trim_matches(BLANKS));
            if attribute.is_empty() || value.is_empty() || value.contains('=') {
                return Err(SubscriptionError::NoPair);
            }
            let index = ATTRIBUTES.iter().position(|known| known.eq_ignore_ascii_case(attribute));
            // FTB looks at blanks in an attribute, then at those in its value, and only then which attribute it is.
            if attribute.contains(BLANKS) {
                return Err(SubscriptionError::Attribute);
            }
            if value.contains(BLANKS) {
                return Err(SubscriptionError::Value(index.map_or("it", |index| ATTRIBUTES[index])));
            }
            let index = index.ok_or(SubscriptionError::Attribute)?;
            if core::mem::replace(&mut seen[index], true) {
                return Err(SubscriptionError::Twice(ATTRIBUTES[index]));
            }
            subscription.set(ATTRIBUTES[index], value)?;
        }
        Ok(subscription)
    }

    fn set(&mut self, attribute: &'static str, text: &str) -> Result<(), SubscriptionError> {
        match attribute {
            "severity" if text.eq_ignore_ascii_case(ALL) => {}
            "severity" => {
                let severity = Severity::new(text).map_err(|_| SubscriptionError::Value(attribute))?;
                self.severity = Some(severity);
            }
            "event_space" => {
                self.space = Some(EventSpace::new(text).map_err(|_| SubscriptionError::EventSpace)?);
            }
            "jobid" => self.job = value(text, attribute)?,
            "host_name" => self.host = value(text, attribute)?,
            "event_name" => self.name = value(text, attribute)?,
            _ => self.client = value(text, attribute)?,
        }
        Ok(())
    }

    /// Whether an event is wanted. A host fits by its name or its address.
    #[must_use]
    pub fn matches(&self, event: &Event, matching: Matching) -> bool {
        let space = self.space.as_ref().map(|space| (space.parts(), event.space.parts()));
        let part_fits = |part: usize| space.is_none_or(|(wanted, there)| fits(wanted[part], there[part]));
        let outer = part_fits(0)
            && text_fits(self.job.as_ref(), event.client.job.as_bytes())
            && text_fits(self.client.as_ref(), event.client.name.as_bytes())
            && self.host_fits(event);
        let name = text_fits(self.name.as_ref(), event.name.as_bytes());
        let inner =
            part_fits(1) && part_fits(2) && self.severity.is_none_or(|severity| severity == event.severity);
        outer && name && (inner || (matching == Matching::Ftb && self.name.is_some()))
    }

    fn host_fits(&self, event: &Event) -> bool {
        let Some(wanted) = self.host.as_ref() else { return true };
        let location = &event.location;
        text_fits(Some(wanted), location.host.as_bytes())
            || location.address.is_some_and(|address| wanted.as_str().parse() == Ok(address))
    }

    /// The one event space that it is about, if it is about one.
    #[must_use]
    pub fn one_space(&self) -> Option<&EventSpace> {
        let wild = |part: &str| part.eq_ignore_ascii_case(ALL);
        self.space
            .as_ref()
            .filter(|space| !wild(space.region()) && !wild(space.category()) && !wild(space.component()))
    }
}

/// Whether a pattern of an event space, with `all` as a wildcard for each part, covers a space.
pub(crate) fn covers(pattern: &EventSpace, space: &EventSpace) -> bool {
    pattern.parts().iter().zip(space.parts()).all(|(wanted, there)| fits(wanted, there))
}

impl FromStr for Subscription {
    type Err = SubscriptionError;
    fn from_str(text: &str) -> Result<Self, SubscriptionError> {
        Self::new(text)
    }
}

/// In the language itself, attributes in one order, without what is left open.
impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = [
            ("event_space", self.space.as_ref().map(EventSpace::as_str)),
            ("severity", self.severity.as_ref().map(Severity::as_str)),
            ("event_name", self.name.as_ref().map(Text::as_str)),
            ("client_name", self.client.as_ref().map(Text::as_str)),
            ("jobid", self.job.as_ref().map(Text::as_str)),
            ("host_name", self.host.as_ref().map(Text::as_str)),
        ];
        let mut separator = "";
        for (attribute, value) in pairs {
            if let Some(value) = value {
                write!(f, "{separator}{attribute}={value}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
