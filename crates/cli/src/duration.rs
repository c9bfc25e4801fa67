//! Durations as people write and read them.

use std::time::Duration;

/// Reads `500ms`, `2s`, `1.5` (seconds), `3m` or `1h`; more than nothing, and at most a day.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let fault = || {
        format!("`{text}` is no duration: write a number and its unit, as in 500ms, 2s or 3m (at most 24h)")
    };
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(fault()),
    };
    let number: f64 = digits.parse().map_err(|_| fault())?;
    let duration = Duration::try_from_secs_f64(number * seconds).map_err(|_| fault())?;
    if duration.is_zero() || duration > Duration::from_secs(86_400) {
        return Err(fault());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (text, milliseconds) in
            [("500ms", 500), ("2s", 2_000), ("1.5", 1_500), ("3m", 180_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "0", "NaN", "inf", "1 week", "25h", "1e99"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
