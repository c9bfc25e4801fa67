//! The drawing: latency over time on a logarithmic scale, on a background of its own, so that it can be read on light and on
//! dark pages.

use std::fmt::Write as _;

use crate::systems::System;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
/// Of the area in which lines are.
const LEFT: f64 = 76.0;
const RIGHT: f64 = 820.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 420.0;
/// The ends of the scale, in milliseconds.
const LEAST: f64 = 10.0;
const MOST: f64 = 10_000.0;
/// The least distance of two names beside the lines.
const NAME_HEIGHT: f64 = 18.0;

/// One figure.
pub(super) struct Figure<'a> {
    pub(super) title: &'a str,
    pub(super) seconds: f64,
    pub(super) marks: &'a [Mark<'a>],
    pub(super) series: &'a [Series],
    /// Lines below it.
    pub(super) caption: &'a [String],
}

/// What happens at a moment, in seconds.
pub(super) struct Mark<'a> {
    pub(super) at: f64,
    pub(super) text: &'a str,
}

/// What one system did: seconds, and milliseconds where there was an answer.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) system: System,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A name, a colour that people with any eyes can tell from the others, and a width and a dash besides.
fn style(system: System) -> (&'static str, &'static str, f64, &'static str) {
    match system {
        System::Steadfast => ("Steadfast", "#0072b2", 3.0, "none"),
        System::Noq => ("noq (QUIC)", "#009e73", 1.6, "none"),
        System::Mptcp => ("MPTCP", "#d55e00", 1.6, "7 3"),
        System::Aggligator => ("aggligator", "#a4508b", 1.6, "2 2"),
        System::Tcp | System::TcpOne | System::TcpTls => ("TCP", "#6b6b6b", 1.6, "none"),
    }
}

impl Figure<'_> {
    /// The text of the file.
    pub(super) fn draw(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\" font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\" \
             font-size=\"14\" fill=\"#1f2328\">\n<title>{}</title>\n<desc>{}</desc>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\" fill=\"#ffffff\"/>\n",
            escaped(self.title),
            escaped(&self.caption.join(" ")),
        );
        text(&mut svg, (LEFT, 34.0), "start", "font-size=\"18\" font-weight=\"600\"", self.title);
        self.scales(&mut svg);
        self.marks(&mut svg);
        // The one that the figure is about lies on top of the others.
        for series in self.series.iter().rev() {
            self.line(&mut svg, series);
        }
        self.names(&mut svg);
        for (number, line) in self.caption.iter().enumerate() {
            let place = (LEFT, BOTTOM + 64.0 + 18.0 * number as f64);
            text(&mut svg, place, "start", "font-size=\"12\" fill=\"#57606a\"", line);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * seconds / self.seconds
    }

    fn scales(&self, svg: &mut String) {
        let labels = [(10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s"), (10_000.0, "10 s")];
        for (millis, label) in labels {
            rule(svg, (LEFT, y(millis)), (RIGHT, y(millis)), "#d0d7de");
            text(svg, (LEFT - 8.0, y(millis) + 5.0), "end", "", label);
            for step in 2..10 {
                let between = millis * f64::from(step);
                if between < MOST {
                    rule(svg, (LEFT, y(between)), (RIGHT, y(between)), "#eff1f3");
                }
            }
        }
        let mut seconds = 0.0;
        while seconds <= self.seconds {
            rule(svg, (self.x(seconds), BOTTOM), (self.x(seconds), BOTTOM + 5.0), "#57606a");
            text(svg, (self.x(seconds), BOTTOM + 21.0), "middle", "", &format!("{seconds}"));
            seconds += 5.0;
        }
        rule(svg, (LEFT, BOTTOM), (RIGHT, BOTTOM), "#57606a");
        text(svg, (f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0), "middle", "", "seconds");
    }

    fn marks(&self, svg: &mut String) {
        for Mark { at, text: words } in self.marks {
            let x = self.x(*at);
            let _infallible = writeln!(
                svg,
                "<path d=\"M{x:.1} {:.1}V{BOTTOM}\" stroke=\"#1f2328\" stroke-dasharray=\"4 4\" fill=\"none\"/>",
                TOP - 6.0
            );
            text(svg, (x, TOP - 12.0), "middle", "font-weight=\"600\"", words);
        }
    }

    fn line(&self, svg: &mut String, series: &Series) {
        let (_, colour, width, dash) = style(series.system);
        let mut points = String::new();
        for (seconds, millis) in &series.points {
            let _infallible = write!(points, "{:.1},{:.1} ", self.x(*seconds), y(millis.unwrap_or(MOST)));
        }
        let _infallible = writeln!(
            svg,
            "<polyline points=\"{}\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dash}\" \
             stroke-linejoin=\"round\" fill=\"none\"/>",
            points.trim_end()
        );
    }

    /// The legend: each name at the height at which its line ends, or as near as there is room.
    fn names(&self, svg: &mut String) {
        let ends = self.series.iter().map(|series| {
            let last = series.points.last().and_then(|(_, millis)| *millis);
            (y(last.unwrap_or(MOST)), series.system)
        });
        let mut ends: Vec<_> = ends.collect();
        ends.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let mut free = TOP;
        let mut left = ends.len() as f64;
        for (height, system) in ends {
            let place = height.max(free).min(BOTTOM - NAME_HEIGHT * (left - 1.0));
            (free, left) = (place + NAME_HEIGHT, left - 1.0);
            let (name, colour, width, dash) = style(system);
            let _infallible = writeln!(
                svg,
                "<path d=\"M{:.1} {place:.1}h26\" stroke=\"{colour}\" stroke-width=\"{width}\" \
                 stroke-dasharray=\"{dash}\" fill=\"none\"/>",
                RIGHT + 10.0
            );
            let weight = if system == System::Steadfast { " font-weight=\"700\"" } else { "" };
            let attributes = format!("fill=\"{colour}\"{weight}");
            text(svg, (RIGHT + 42.0, place + 5.0), "start", &attributes, name);
        }
    }
}

/// Where so many milliseconds lie.
fn y(millis: f64) -> f64 {
    let part = (millis.clamp(LEAST, MOST) / LEAST).log10() / (MOST / LEAST).log10();
    BOTTOM - (BOTTOM - TOP) * part
}

fn rule(svg: &mut String, (x, y): (f64, f64), (to_x, to_y): (f64, f64), colour: &str) {
    let _infallible =
        writeln!(svg, "<path d=\"M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}\" stroke=\"{colour}\" fill=\"none\"/>");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, attributes: &str, words: &str) {
    let _infallible = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {attributes}>{}</text>",
        escaped(words)
    );
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_logarithmic_and_ends_at_its_ends() {
        let step = y(10.0) - y(100.0);
        assert!((step - (y(100.0) - y(1000.0))).abs() < 1e-9);
        assert!((y(1.0) - BOTTOM).abs() < 1e-9);
        assert!((y(1e6) - TOP).abs() < 1e-9);
    }

    #[test]
    fn words_and_names_are_in_the_drawing() {
        let series = [System::Steadfast, System::Tcp]
            .map(|system| Series { system, points: vec![(0.0, Some(40.0)), (1.0, None)] });
        let caption = ["a < b".to_owned()];
        let marks = [Mark { at: 0.5, text: "cut" }];
        let figure =
            Figure { title: "T & U", seconds: 1.0, marks: &marks, series: &series, caption: &caption };
        let svg = figure.draw();
        for words in ["T &amp; U", "a &lt; b", ">cut<", ">Steadfast<", ">TCP<"] {
            assert!(svg.contains(words), "{words} is missing in {svg}");
        }
        // Without an answer a request lies at the top, and so do both names, one below the other.
        assert!(svg.contains(&format!("{RIGHT:.1},{TOP:.1}")));
        assert!(svg.contains(&format!("M{:.1} {TOP:.1}h26", RIGHT + 10.0)));
        assert!(svg.contains(&format!("M{:.1} {:.1}h26", RIGHT + 10.0, TOP + NAME_HEIGHT)));
    }
}
