//! How long requests are: one length, a workload of the papers, or a distribution in a file.

use std::fs;

use steadfast_fabric::Workload;
use steadfast_fabric::workload::Rng;

use crate::exit::Failure;
use crate::output::clean;

/// Bytes of the longest message that the module takes; longer ones of a distribution are cut to this, as its tools do.
pub(super) const LONGEST: u32 = 1_000_000;
/// Lines of a file at most.
const MAX_POINTS: usize = 100_000;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Lengths {
    Fixed(u32),
    Workload(Workload),
    /// Lengths, and which part of all messages is no longer; the last part is 1.
    Points(Vec<(u32, f64)>),
}

impl Lengths {
    /// What was typed: bytes, the name of a workload, or a file.
    pub(super) fn parse(text: &str, longest: u32) -> anyhow::Result<Self> {
        if let Ok(bytes) = text.parse::<u64>() {
            let length = u32::try_from(bytes).ok().filter(|length| (1..=longest).contains(length));
            let refused = || {
                let message = format!(
                    "messages of {bytes} bytes cannot be sent with this carrier: it takes 1 to {longest}"
                );
                Failure::usage(message)
            };
            return Ok(Self::Fixed(length.ok_or_else(refused)?));
        }
        if let Some(workload) =
            Workload::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(text))
        {
            return Ok(Self::Workload(workload));
        }
        let fails = |why: String| {
            let text = clean(text);
            let help = "a workload is a number of bytes, W1 to W5, or a file with a length and the part of all messages that is \
                        no longer on each line";
            Failure::usage(format!("cannot use the workload {text}: {why}; {help}"))
        };
        let content = fs::read_to_string(text).map_err(|error| fails(error.to_string()))?;
        Ok(Self::Points(points(&content).map_err(fails)?))
    }

    /// A length.
    pub(super) fn sample(&self, rng: &mut Rng) -> u32 {
        let length = match self {
            Self::Fixed(length) => return *length,
            Self::Workload(workload) => workload.sample(rng),
            Self::Points(points) => {
                let at = rng.fraction();
                let index = points.partition_point(|(_, part)| *part < at);
                points[index.min(points.len() - 1)].0
            }
        };
        length.clamp(1, LONGEST)
    }

    /// Bytes in the mean.
    pub(super) fn mean(&self) -> f64 {
        match self {
            Self::Fixed(length) => f64::from(*length),
            Self::Workload(workload) => workload.mean_of_first(LONGEST),
            Self::Points(points) => {
                let mut below = 0.0;
                let share = |(length, part): &(u32, f64)| {
                    let share = part - below;
                    below = *part;
                    f64::from((*length).clamp(1, LONGEST)) * share
                };
                points.iter().map(share).sum()
            }
        }
    }

    /// Bytes of the longest.
    pub(super) fn most(&self) -> u32 {
        match self {
            Self::Fixed(length) => *length,
            _ => LONGEST,
        }
    }

    /// In words.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Fixed(length) => format!("{length} bytes"),
            Self::Workload(workload) => workload.name().into(),
            Self::Points(_) => "a distribution of its own".into(),
        }
    }

    /// As the name of a scenario.
    pub(super) fn scenario(&self) -> String {
        match self {
            Self::Fixed(length) => format!("bytes_{length}"),
            Self::Workload(workload) => workload.name().to_lowercase(),
            Self::Points(_) => "file".into(),
        }
    }
}

/// Reads lines of a length and a part, with spaces or a colon between. Lines of one number (the mean, in files of the
/// simulator of the paper) and comments after `#` are passed over.
fn points(text: &str) -> Result<Vec<(u32, f64)>, String> {
    let mut points: Vec<(u32, f64)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split([' ', '\t', ':']).filter(|word| !word.is_empty());
        let (Some(length), Some(part)) = (words.next(), words.next()) else { continue };
        let length =
            length.parse().map_err(|_| format!("line {number}: `{}` is no length", clean(length)))?;
        let part: f64 =
            part.parse().map_err(|_| format!("line {number}: `{}` is no part of 1", clean(part)))?;
        if !(0.0..=1.0).contains(&part) || points.last().is_some_and(|last| last.0 >= length || last.1 > part)
        {
            return Err(format!("line {number}: lengths have to rise, and the parts with them from 0 to 1"));
        }
        if points.len() == MAX_POINTS {
            return Err(format!("it has more than {MAX_POINTS} lines"));
        }
        points.push((length, part));
    }
    match points.last() {
        Some((_, all)) if (all - 1.0).abs() < 1e-6 => Ok(points),
        Some((_, all)) => {
            Err(format!("its last line says {all}, but all messages are no longer than the longest: 1"))
        }
        None => Err("it has no line with two numbers".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_lengths_and_parts() {
        let lengths =
            Lengths::Points(points("# lengths\n350\n100 0.5\n200:0.75 # and\n\n1000\t1\n").unwrap());
        assert!((lengths.mean() - 350.0).abs() < 1e-9);
        let mut rng = Rng::new(1);
        let mean: f64 = (0..100_000).map(|_| f64::from(lengths.sample(&mut rng))).sum::<f64>() / 1e5;
        assert!((mean / 350.0 - 1.0).abs() < 0.02, "{mean}");
        for wrong in ["", "7", "10 0.5", "10 0.5\n10 1", "10 0.5\n20 0.4", "x 1", "1 x", "1 2", "20 1\n10 1"]
        {
            assert!(points(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn workloads_have_names_and_means() {
        for workload in Workload::ALL {
            let lengths = Lengths::parse(&workload.name().to_lowercase(), LONGEST).unwrap();
            assert_eq!(lengths, Lengths::Workload(workload));
            let mut rng = Rng::new(1);
            let mean: f64 = (0..200_000).map(|_| f64::from(lengths.sample(&mut rng))).sum::<f64>() / 2e5;
            assert!((mean / lengths.mean() - 1.0).abs() < 0.1, "{}: {mean}", workload.name());
        }
        assert_eq!(Lengths::parse("100", LONGEST).unwrap(), Lengths::Fixed(100));
        for wrong in ["0", "1000001", "w6", "-1", "/nowhere"] {
            assert!(Lengths::parse(wrong, LONGEST).is_err(), "{wrong}");
        }
    }
}
