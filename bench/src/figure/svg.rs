//! The drawing: latency over time on a logarithmic scale.

use steadfast_fabric::svg::{BOTTOM, Drawing, LEFT, Log, Name, RIGHT, Stroke, TOP};

use crate::systems::System;

/// In milliseconds.
const SCALE: Log = Log { values: (10.0, 10_000.0), places: (BOTTOM, TOP) };

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

/// A name and a line.
const fn style(system: System) -> (&'static str, Stroke<'static>) {
    let (name, colour, width, dash) = match system {
        System::Steadfast => ("Steadfast", "#0072b2", 3.0, "none"),
        System::Noq => ("noq (QUIC)", "#009e73", 1.6, "none"),
        System::Mptcp => ("MPTCP", "#d55e00", 1.6, "7 3"),
        System::Aggligator => ("aggligator", "#a4508b", 1.6, "2 2"),
        System::Tcp | System::TcpOne | System::TcpTls => ("TCP", "#6b6b6b", 1.6, "none"),
    };
    (name, Stroke { colour, width, dash })
}

impl Figure<'_> {
    /// The text of the file.
    pub(super) fn draw(&self) -> String {
        let mut drawing = Drawing::new(self.title, self.caption);
        let labels = [(10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s"), (10_000.0, "10 s")];
        drawing.scale(&SCALE, &labels.map(|(millis, label)| (millis, label.to_owned())));
        let mut seconds = 0.0;
        while seconds <= self.seconds {
            drawing.tick(self.x(seconds), &seconds.to_string());
            seconds += 5.0;
        }
        drawing.axis("seconds");
        for Mark { at, text } in self.marks {
            drawing.mark(self.x(*at), "font-weight=\"600\"", text);
        }
        // The one that the figure is about lies on top of the others.
        for series in self.series.iter().rev() {
            let points = series.points.iter().map(|(seconds, millis)| (self.x(*seconds), y(*millis)));
            drawing.line(points, style(series.system).1);
        }
        let names = self.series.iter().map(|series| {
            let (name, stroke) = style(series.system);
            let height = y(series.points.last().and_then(|(_, millis)| *millis));
            Name { height, name, stroke, bold: series.system == System::Steadfast }
        });
        drawing.names(names.collect());
        drawing.finish()
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * seconds / self.seconds
    }
}

/// Where so many milliseconds lie; what was not answered lies at the top.
fn y(millis: Option<f64>) -> f64 {
    SCALE.at(millis.unwrap_or(SCALE.values.1))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // Without an answer a request lies at the top.
        assert!(svg.contains(&format!("{RIGHT:.1},{TOP:.1}")));
    }
}
