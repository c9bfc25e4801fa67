//! What drawings are made of: an area with axes, lines, and names beside them, on a background of its own, so that it can be
//! read on light and on dark pages.

use std::fmt::Write as _;

/// Of the whole drawing.
pub const WIDTH: f64 = 960.0;
/// Of the whole drawing.
pub const HEIGHT: f64 = 540.0;
/// Of the area in which lines are.
pub const LEFT: f64 = 76.0;
/// Of the area in which lines are.
pub const RIGHT: f64 = 820.0;
/// Of the area in which lines are.
pub const TOP: f64 = 64.0;
/// Of the area in which lines are.
pub const BOTTOM: f64 = 420.0;
/// The least distance of two names beside the lines.
pub const NAME_HEIGHT: f64 = 18.0;
/// Of axes and what is written in small letters.
pub const FAINT: &str = "#57606a";
/// Of the lines at a scale's labels.
pub const GRID: &str = "#d0d7de";
/// Of those in between.
pub const FINE_GRID: &str = "#eff1f3";

/// A logarithmic scale.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The values at its ends.
    pub values: (f64, f64),
    /// Where these lie.
    pub places: (f64, f64),
}

impl Log {
    /// Where a value lies; one beyond an end lies there.
    #[must_use]
    pub fn at(&self, value: f64) -> f64 {
        let (least, most) = self.values;
        let part = (value.clamp(least, most) / least).log10() / (most / least).log10();
        self.places.0 + (self.places.1 - self.places.0) * part
    }
}

/// How a line looks. Colours are such that people with any eyes can tell them apart; width and dash help.
#[derive(Debug, Clone, Copy)]
pub struct Stroke<'a> {
    /// As CSS has it.
    pub colour: &'a str,
    /// Of the line.
    pub width: f64,
    /// As SVG has it.
    pub dash: &'a str,
}

/// A line's name and the height at which the line ends.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    /// Where it should stand.
    pub height: f64,
    /// What it says.
    pub name: &'a str,
    /// How its line looks.
    pub stroke: Stroke<'a>,
    /// Whether it stands out.
    pub bold: bool,
}

/// A drawing that is being made.
#[derive(Debug)]
pub struct Drawing(String);

impl Drawing {
    /// With a title, and lines below the area that say what it shows.
    #[must_use]
    pub fn new(title: &str, caption: &[String]) -> Self {
        let mut drawing = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\" font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\" \
             font-size=\"14\" fill=\"#1f2328\">\n<title>{}</title>\n<desc>{}</desc>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\" fill=\"#ffffff\"/>\n",
            escaped(title),
            escaped(&caption.join(" ")),
        ));
        drawing.text((LEFT, 34.0), "start", "font-size=\"18\" font-weight=\"600\"", title);
        for (number, line) in caption.iter().enumerate() {
            let place = (LEFT, BOTTOM + 64.0 + 18.0 * number as f64);
            drawing.text(place, "start", &format!("font-size=\"12\" fill=\"{FAINT}\""), line);
        }
        drawing
    }

    /// The text of the file.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }

    /// A thin line.
    pub fn rule(&mut self, (x, y): (f64, f64), (to_x, to_y): (f64, f64), colour: &str) {
        let _infallible = writeln!(
            self.0,
            "<path d=\"M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}\" stroke=\"{colour}\" fill=\"none\"/>"
        );
    }

    /// Words at a place; `anchor` and `attributes` as SVG has them.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: &str, attributes: &str, words: &str) {
        let _infallible = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {attributes}>{}</text>",
            escaped(words)
        );
    }

    /// The axis at the bottom, and what it is of.
    pub fn axis(&mut self, words: &str) {
        self.rule((LEFT, BOTTOM), (RIGHT, BOTTOM), FAINT);
        self.text((f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0), "middle", "", words);
    }

    /// A place of that axis.
    pub fn tick(&mut self, x: f64, label: &str) {
        self.rule((x, BOTTOM), (x, BOTTOM + 5.0), FAINT);
        self.text((x, BOTTOM + 21.0), "middle", "", label);
    }

    /// The scale at the left, a power of ten at each label.
    pub fn scale(&mut self, scale: &Log, labels: &[(f64, String)]) {
        for (value, label) in labels {
            self.rule((LEFT, scale.at(*value)), (RIGHT, scale.at(*value)), GRID);
            self.text((LEFT - 8.0, scale.at(*value) + 5.0), "end", "", label);
            for step in 2..10 {
                let between = value * f64::from(step);
                if between < scale.values.1 {
                    self.rule((LEFT, scale.at(between)), (RIGHT, scale.at(between)), FINE_GRID);
                }
            }
        }
    }

    /// Something at a place from left to right, with words above it.
    pub fn mark(&mut self, x: f64, attributes: &str, words: &str) {
        let _infallible = writeln!(
            self.0,
            "<path d=\"M{x:.1} {:.1}V{BOTTOM}\" stroke=\"#1f2328\" stroke-dasharray=\"4 4\" fill=\"none\"/>",
            TOP - 6.0
        );
        self.text((x, TOP - 12.0), "middle", attributes, words);
    }

    /// A line through points.
    pub fn line(&mut self, points: impl IntoIterator<Item = (f64, f64)>, stroke: Stroke<'_>) {
        let mut places = String::new();
        for (x, y) in points {
            let _infallible = write!(places, "{x:.1},{y:.1} ");
        }
        let Stroke { colour, width, dash } = stroke;
        let _infallible = writeln!(
            self.0,
            "<polyline points=\"{}\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dash}\" \
             stroke-linejoin=\"round\" fill=\"none\"/>",
            places.trim_end()
        );
    }

    /// The legend: each name at the height at which its line ends, or as near as there is room.
    pub fn names(&mut self, mut names: Vec<Name<'_>>) {
        names.sort_by(|one, other| one.height.total_cmp(&other.height));
        let mut free = TOP;
        let mut left = names.len() as f64;
        for Name { height, name, stroke, bold } in names {
            let place = height.max(free).min(BOTTOM - NAME_HEIGHT * (left - 1.0));
            (free, left) = (place + NAME_HEIGHT, left - 1.0);
            let Stroke { colour, width, dash } = stroke;
            let _infallible = writeln!(
                self.0,
                "<path d=\"M{:.1} {place:.1}h26\" stroke=\"{colour}\" stroke-width=\"{width}\" \
                 stroke-dasharray=\"{dash}\" fill=\"none\"/>",
                RIGHT + 10.0
            );
            let weight = if bold { " font-weight=\"700\"" } else { "" };
            let attributes = format!("fill=\"{colour}\"{weight}");
            self.text((RIGHT + 42.0, place + 5.0), "start", &attributes, name);
        }
    }
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_logarithmic_and_ends_at_its_ends() {
        let scale = Log { values: (10.0, 10_000.0), places: (BOTTOM, TOP) };
        let step = scale.at(10.0) - scale.at(100.0);
        assert!((step - (scale.at(100.0) - scale.at(1000.0))).abs() < 1e-9);
        assert!((scale.at(1.0) - BOTTOM).abs() < 1e-9);
        assert!((scale.at(1e6) - TOP).abs() < 1e-9);
    }

    #[test]
    fn names_at_one_height_stand_below_each_other() {
        let stroke = Stroke { colour: "#000000", width: 1.0, dash: "none" };
        let name = Name { height: TOP, name: "a < b", stroke, bold: false };
        let mut drawing = Drawing::new("T & U", &["one".into()]);
        drawing.names(vec![name; 2]);
        let svg = drawing.finish();
        for words in ["T &amp; U", "a &lt; b", ">one<"] {
            assert!(svg.contains(words), "{words} is missing in {svg}");
        }
        assert!(svg.contains(&format!("M{:.1} {TOP:.1}h26", RIGHT + 10.0)));
        assert!(svg.contains(&format!("M{:.1} {:.1}h26", RIGHT + 10.0, TOP + NAME_HEIGHT)));
    }
}
