//! Slowdown by length of message, as a drawing: both scales are logarithmic, one colour for each system.

use crate::report::{Bin, Report};
use crate::svg::{BOTTOM, Drawing, FINE_GRID, LEFT, Log, Name, RIGHT, Stroke, TOP};

/// One point for each quarter of a power of ten, where there are enough messages.
const BINS_A_DECADE: f64 = 4.0;
/// So many messages have a 99th percentile.
const ENOUGH: usize = 100;
/// Which parts of all messages are shown, in hundredths.
const PARTS: [usize; 4] = [10, 50, 90, 99];

/// What one system did.
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What was measured.
    pub report: &'a Report,
}

/// Half of the messages, and 99 in a hundred of them, do not exceed what the lines show. The first system is the one that
/// it is about. None if no message was measured.
#[must_use]
pub fn slowdown(title: &str, caption: &[String], series: &[Series<'_>]) -> Option<String> {
    let binned: Vec<(&str, Vec<Bin>)> = series
        .iter()
        .map(|series| (series.name, series.report.bins_by_length(BINS_A_DECADE, ENOUGH)))
        .collect();
    let all = || binned.iter().flat_map(|(_, bins)| bins);
    let shortest = f64::from(all().map(|bin| bin.middle).min()?);
    let longest = f64::from(all().map(|bin| bin.middle).max()?);
    let slowest = all().map(|bin| bin.p99).fold(10.0, f64::max);
    let y = Log { values: (1.0, 10_f64.powf(slowest.log10().ceil())), places: (BOTTOM, TOP) };
    let x = Log { values: (shortest, longest.max(shortest * 2.0)), places: (LEFT + 6.0, RIGHT - 6.0) };
    let mut drawing = Drawing::new(title, caption);
    let powers = (0..=y.values.1.log10().round() as i32).map(|power| 10_f64.powi(power));
    drawing.scale(&y, &powers.map(|value| (value, format!("{value}×"))).collect::<Vec<_>>());
    lengths(&mut drawing, &x);
    parts(&mut drawing, &x, series.first()?.report);
    let names: Vec<_> =
        binned.iter().flat_map(|(name, _)| [format!("{name} p99"), format!("{name} p50")]).collect();
    let mut legend = Vec::new();
    for (index, (_, bins)) in binned.iter().enumerate() {
        let (colour, main) = if index == 0 { ("#0072b2", 3.0) } else { ("#d55e00", 2.0) };
        for (number, (width, dash)) in [(main, "none"), (1.6, "6 3")].into_iter().enumerate() {
            let stroke = Stroke { colour, width, dash };
            let of = |bin: &Bin| y.at(if number == 0 { bin.p99 } else { bin.p50 });
            drawing.line(bins.iter().map(|bin| (x.at(f64::from(bin.middle)), of(bin))), stroke);
            let height = bins.last().map_or(BOTTOM, of);
            let name = &names[2 * index + number];
            legend.push(Name { height, name, stroke, bold: index == 0 && number == 0 });
        }
    }
    drawing.names(legend);
    Some(drawing.finish())
}

fn lengths(drawing: &mut Drawing, x: &Log) {
    let (first, last) = (x.values.0.log10().floor() as i32, x.values.1.log10().ceil() as i32);
    for power in first..=last {
        for step in 1..10 {
            let value = f64::from(step) * 10_f64.powi(power);
            if value < x.values.0 || value > x.values.1 {
                continue;
            }
            drawing.rule((x.at(value), TOP), (x.at(value), BOTTOM), FINE_GRID);
            if step == 1 {
                drawing.tick(x.at(value), &amount(power));
            }
        }
    }
    drawing.axis("length of message");
}

/// A power of ten, in bytes.
fn amount(power: i32) -> String {
    let unit = ["B", "KB", "MB", "GB"][(power / 3).clamp(0, 3) as usize];
    format!("{} {unit}", 10_f64.powi(power - power / 3 * 3))
}

/// How many messages are no longer.
fn parts(drawing: &mut Drawing, x: &Log, report: &Report) {
    let mut free = LEFT + 20.0;
    for part in PARTS {
        let sample = report.samples.get((report.samples.len() * part / 100).saturating_sub(1));
        let Some(place) = sample.map(|sample| x.at(f64::from(sample.length))) else { continue };
        // Where messages are much alike there is no room for all.
        if place >= free {
            drawing.mark(place, "font-size=\"12\"", &format!("{part} % of messages"));
            free = place + 110.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Preset, Settings, Transport, Workload, simulate};

    #[test]
    fn both_systems_and_both_percentiles_are_drawn() {
        let settings = Settings::new(Preset::Small, Workload::W3, 0.7, 3000);
        let queue = Settings { transport: Transport::Queue, ..settings.clone() };
        let reports = [settings, queue].map(|settings| simulate(&settings).expect("room for all hosts"));
        let series = [("Homa", &reports[0]), ("FIFO", &reports[1])];
        let series = series.map(|(name, report)| Series { name, report });
        let svg = slowdown("W3 & more", &["A caption.".into()], &series).expect("messages");
        for words in
            ["Homa p50", "Homa p99", "FIFO p50", "FIFO p99", "1 KB", "10×", "W3 &amp; more", "A caption."]
        {
            assert!(svg.contains(words), "{words} is missing in {svg}");
        }
        assert_eq!(svg.matches("<polyline").count(), 4);
    }

    #[test]
    fn lengths_are_named_with_their_unit() {
        assert_eq!([0, 2, 3, 5, 6, 7].map(amount), ["1 B", "100 B", "1 KB", "100 KB", "1 MB", "10 MB"]);
    }
}
