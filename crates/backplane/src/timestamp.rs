//! Wall time: nanoseconds since 1970, and the two ways of writing it.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

const DAY: u64 = 86_400;
const SECOND: u64 = 1_000_000_000;

/// A moment as the origin's wall clock shows it, in nanoseconds since 1970-01-01T00:00:00Z; ends in the year 2554.
///
/// ```
/// use steadfast_backplane::Timestamp;
/// let time: Timestamp = "2026-07-01T12:00:00.5Z".parse().unwrap();
/// assert_eq!(time.to_string(), "2026-07-01T12:00:00.500000000Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

/// A text that is no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a moment as RFC 3339 writes it, as in 2026-07-01T12:00:00Z, from 1970 to 2554")]
pub struct TimestampError;

/// A day of the Gregorian calendar.
struct Date {
    year: u64,
    /// From 1.
    month: u64,
    /// From 1.
    day: u64,
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days before each month of a year that is no leap year, and of the whole.
const BEFORE: [u64; 13] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];

/// Days of a year before a month; from 1, 13 for the whole year.
const fn days_before(year: u64, month: u64) -> u64 {
    BEFORE[month as usize - 1] + (month > 2 && is_leap(year)) as u64
}

/// Days from 1970 to the beginning of a year.
const fn days_to(year: u64) -> u64 {
    let before = year - 1;
    365 * (year - 1970) + (before / 4 - before / 100 + before / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400)
}

impl Date {
    fn of(days: u64) -> Self {
        // Never too late, and one year too early at most.
        let mut year = 1970 + days / 366;
        while days_to(year + 1) <= days {
            year += 1;
        }
        let rest = days - days_to(year);
        let month = (1..=12).rev().find(|month| days_before(year, *month) <= rest).unwrap_or(1);
        Self { year, month, day: rest - days_before(year, month) + 1 }
    }

    fn days(&self) -> Option<u64> {
        let Self { year, month, day } = *self;
        let known = (1970..=2554).contains(&year) && (1..=12).contains(&month);
        let fits = known && (1..=days_before(year, month + 1) - days_before(year, month)).contains(&day);
        fits.then(|| days_to(year) + days_before(year, month) + day - 1)
    }
}

impl Timestamp {
    /// As FTB writes the start of a process: weekday, month, day, day of the year, time (`%a_%b_%d_%j_%H:%M:%S`). FTB
    /// takes the local time; this is UTC, so that hosts agree. 24 bytes.
    #[must_use]
    pub fn ftb_start(self) -> String {
        const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let seconds = self.0 / SECOND;
        let days = seconds / DAY;
        let date = Date::of(days);
        let of_year = days - days_to(date.year) + 1;
        let (weekday, month) = (WEEKDAYS[(days % 7) as usize], MONTHS[date.month as usize - 1]);
        let time = Clock(seconds % DAY);
        format!("{weekday}_{month}_{:02}_{of_year:03}_{time}", date.day)
    }
}

/// Seconds of a day.
struct Clock(u64);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}:{:02}", self.0 / 3600, self.0 / 60 % 60, self.0 % 60)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / SECOND;
        let Date { year, month, day } = Date::of(seconds / DAY);
        write!(f, "{year:04}-{month:02}-{day:02}T{}.{:09}Z", Clock(seconds % DAY), self.0 % SECOND)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Takes decimal digits from the front, `count` of them.
fn digits(text: &mut &str, count: usize) -> Option<u64> {
    let (number, rest) = text.split_at_checked(count)?;
    *text = rest;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

fn parse(mut text: &str) -> Option<Timestamp> {
    let text = &mut text;
    let skip = |text: &mut &str, any: &[char]| text.strip_prefix(any).map(|rest| *text = rest);
    let year = digits(text, 4)?;
    skip(text, &['-'])?;
    let month = digits(text, 2)?;
    skip(text, &['-'])?;
    let day = digits(text, 2)?;
    skip(text, &['T', 't', ' '])?;
    let hour = digits(text, 2).filter(|hour| *hour < 24)?;
    skip(text, &[':'])?;
    let minute = digits(text, 2).filter(|minute| *minute < 60)?;
    skip(text, &[':'])?;
    // A leap second is the last second of its minute.
    let second = digits(text, 2).filter(|second| *second <= 60)?.min(59);
    let mut nanos = 0;
    if skip(text, &['.']).is_some() {
        let count = text.bytes().take_while(u8::is_ascii_digit).count();
        let fraction = text.get(..count.min(9)).filter(|_| count > 0)?;
        nanos = fraction.parse::<u64>().ok()? * 10u64.pow(9 - fraction.len() as u32);
        *text = text.get(count..)?;
    }
    let local = Date { year, month, day }.days()? * DAY + hour * 3600 + minute * 60 + second;
    let seconds = match *text {
        "Z" | "z" => local,
        _ => {
            let west = text.starts_with('-');
            skip(text, &['+', '-'])?;
            let hours = digits(text, 2).filter(|hours| *hours < 24)?;
            skip(text, &[':'])?;
            let minutes = digits(text, 2).filter(|minutes| *minutes < 60)?;
            let offset = hours * 3600 + minutes * 60;
            if !text.is_empty() {
                return None;
            }
            if west { local + offset } else { local.checked_sub(offset)? }
        }
    };
    Some(Timestamp(seconds.checked_mul(SECOND)?.checked_add(nanos)?))
}

impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        parse(text).ok_or(TimestampError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    /// Compared with what `date -u` says.
    #[test]
    fn golden_moments() {
        for (seconds, text, start) in [
            (0, "1970-01-01T00:00:00", "Thu_Jan_01_001_00:00:00"),
            (951_782_400, "2000-02-29T00:00:00", "Tue_Feb_29_060_00:00:00"),
            (951_868_800, "2000-03-01T00:00:00", "Wed_Mar_01_061_00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59", "Thu_Dec_31_365_23:59:59"),
            (1_835_308_800, "2028-02-28T00:00:00", "Mon_Feb_28_059_00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00", "Mon_Mar_01_060_00:00:00"),
        ] {
            let time = Timestamp(seconds * SECOND + 7);
            assert_eq!(time.to_string(), format!("{text}.000000007Z"));
            assert_eq!(time.ftb_start(), start);
        }
        assert_eq!(Timestamp(u64::MAX).to_string(), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn offsets_and_fractions() {
        let noon = "2026-07-01T12:00:00Z".parse::<Timestamp>().unwrap();
        for same in ["2026-07-01t14:30:00+02:30", "2026-07-01 07:00:00.000-05:00", "2026-07-01T12:00:00.0z"] {
            assert_eq!(same.parse(), Ok(noon), "{same}");
        }
        assert_eq!("2026-07-01T12:00:00.1234567899Z".parse(), Ok(Timestamp(noon.0 + 123_456_789)));
        for bad in [
            "",
            "2026-07-01",
            "2026-07-01T12:00:00",
            "2026-13-01T12:00:00Z",
            "2026-02-29T12:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2600-01-01T00:00:00Z",
            "2026-07-01T24:00:00Z",
            "2026-07-01T12:00:00.Z",
            "2026-07-01T12:00:00Zx",
            "2026-07-01T12:00:00+1:00",
            "+026-07-01T12:00:00Z",
            "2554-12-31T00:00:00Z",
            "２026-07-01T12:00:00Z",
            "2026-07-01T12:00:00+01:00:00",
            "2026-00-01T00:00:00Z",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(TimestampError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read_back(nanos: u64) {
            prop_assert_eq!(Timestamp(nanos).to_string().parse(), Ok(Timestamp(nanos)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9TZ:.+ -]{0,40}|.{0,30}") {
            let _any = text.parse::<Timestamp>();
        }
    }
}
