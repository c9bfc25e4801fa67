//! The round trips of a run as rows of characters, one column a quarter of a second.

use std::time::Duration;

use super::protocol::{Nanos, Sample};

/// The characters, each with the round trip in milliseconds up to which it stands; the last stands for all above.
const LEVELS: [(char, u64); 8] =
    [('▁', 25), ('▂', 50), ('▃', 100), ('▄', 200), ('▅', 500), ('▆', 1000), ('▇', 3000), ('█', u64::MAX)];

/// Stands where a message had no answer at all.
const UNANSWERED: char = '×';

/// The most columns.
const MOST_COLUMNS: u64 = 64;

/// Columns of equal length from the beginning of a run to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Axis {
    began: Nanos,
    column: Nanos,
    columns: usize,
}

impl Axis {
    /// The axis of a run; longer runs have longer columns, so that they fit a terminal.
    pub(crate) fn new(began: Nanos, end: Nanos) -> Self {
        let length = end.saturating_sub(began).max(1);
        let quarters = length.div_ceil(MOST_COLUMNS * 250_000_000).max(1);
        let column = quarters * 250_000_000;
        Self { began, column, columns: length.div_ceil(column) as usize }
    }

    /// The time of one column.
    pub(crate) fn column(&self) -> Duration {
        Duration::from_nanos(self.column)
    }

    fn index(&self, at: Nanos) -> usize {
        let index = at.saturating_sub(self.began) / self.column;
        (index as usize).min(self.columns.saturating_sub(1))
    }

    /// The worst round trip of the messages that were sent in each column; blank where none was sent.
    pub(crate) fn row(&self, samples: &[Sample]) -> String {
        let mut worst: Vec<Option<Option<Nanos>>> = vec![None; self.columns];
        for sample in samples {
            if let Some(cell) = worst.get_mut(self.index(sample.sent)) {
                *cell = match (*cell, sample.round_trip()) {
                    (Some(None), _) | (_, None) => Some(None),
                    (Some(Some(known)), Some(new)) => Some(Some(known.max(new))),
                    (None, Some(new)) => Some(Some(new)),
                };
            }
        }
        worst.into_iter().map(|cell| cell.map_or(' ', |time| time.map_or(UNANSWERED, level))).collect()
    }

    /// A line that marks a time from one moment to another with a text in it.
    pub(crate) fn mark(&self, from: Nanos, to: Nanos, text: &str) -> String {
        let (first, last) = (self.index(from), self.index(to.saturating_sub(1)));
        let inner = (last - first).saturating_sub(1);
        let text: String =
            if text.chars().count() + 2 <= inner { format!(" {text} ") } else { String::new() };
        format!("{}╰{text:─^inner$}╯", " ".repeat(first))
    }

    /// A line with the seconds, each below the column in which it begins.
    pub(crate) fn seconds(&self) -> String {
        let total = self.columns as u64 * self.column / 1_000_000_000;
        let step = [1, 5, 10, 20, 50].into_iter().find(|step| total / step <= 8).unwrap_or(100);
        let mut line = String::new();
        for second in (0..=total).step_by(step as usize) {
            let place = (second * 1_000_000_000 / self.column) as usize;
            line = format!("{line:place$}{second} s");
        }
        line
    }
}

/// What the characters stand for.
pub(crate) fn legend() -> String {
    let bounded = LEVELS.iter().filter(|(_, most)| *most < u64::MAX);
    let bounded: Vec<_> = bounded.map(|(character, most)| format!("{character} {most}")).collect();
    format!("up to  {} ms  {} more", bounded.join("  "), LEVELS[LEVELS.len() - 1].0)
}

fn level(time: Nanos) -> char {
    let fitting = LEVELS.iter().find(|(_, most)| time <= most.saturating_mul(1_000_000));
    fitting.unwrap_or(&LEVELS[LEVELS.len() - 1]).0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn a_row_shows_the_worst_of_each_column() {
        let sample = |at: Nanos, round_trip: Option<Nanos>| {
            let sent = 1000 * MS + at * MS;
            Sample { sent, answered: round_trip.map(|time| sent + time * MS) }
        };
        let axis = Axis::new(1000 * MS, 2250 * MS);
        let samples = [
            sample(0, Some(20)),
            sample(10, Some(60)),
            sample(250, Some(9000)),
            sample(500, None),
            sample(501, Some(1)),
        ];
        assert_eq!(axis.row(&samples), "▃█×  ");
        assert_eq!(axis.row(&[]), "     ");
    }

    #[test]
    fn long_runs_get_longer_columns() {
        assert_eq!(Axis::new(0, 16_000 * MS).column(), Duration::from_millis(250));
        let axis = Axis::new(0, 40_000 * MS);
        assert_eq!(axis.column(), Duration::from_millis(750));
        assert!(axis.row(&[]).chars().count() <= 64);
        assert_eq!(Axis::new(5, 5).row(&[]), " ");
    }

    #[test]
    fn the_cut_is_marked_where_it_was() {
        let axis = Axis::new(0, 5000 * MS);
        assert_eq!(axis.mark(1000 * MS, 4000 * MS, "cut"), "    ╰── cut ───╯");
        assert_eq!(axis.mark(1000 * MS, 1500 * MS, "cut"), "    ╰╯");
        assert_eq!(axis.seconds(), "0 s 1 s 2 s 3 s 4 s 5 s");
    }

    #[test]
    fn the_legend_names_every_character() {
        let legend = legend();
        assert!(LEVELS.iter().all(|(character, _)| legend.contains(*character)), "{legend}");
    }
}
