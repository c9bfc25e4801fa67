//! What a benchmark found, for people and for programs.

use std::fmt::Write as _;
use std::fs;
use std::thread;

use serde_json::{Map, Value, json};

/// The result of one benchmark: conditions, figures by scenario and system, and ratios.
#[derive(Debug)]
pub(crate) struct Outcome {
    bench: &'static str,
    conditions: Map<String, Value>,
    scenarios: Map<String, Value>,
    ratios: Map<String, Value>,
    failed: bool,
}

impl Outcome {
    /// An empty one, with what every benchmark says of the machine.
    pub(crate) fn new(bench: &'static str) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let mut outcome =
            Self { bench, conditions: Map::new(), scenarios: Map::new(), ratios: Map::new(), failed: false };
        outcome.condition("kernel", kernel.trim());
        outcome.condition("cores", cores);
        outcome.condition("build", "release, link-time optimisation, all systems alike");
        outcome
    }

    pub(crate) fn condition(&mut self, key: &str, value: impl Into<Value>) {
        self.conditions.insert(key.into(), value.into());
    }

    pub(crate) fn figure(&mut self, scenario: &str, system: &str, key: &str, value: f64) {
        let scenario = self.scenarios.entry(scenario).or_insert_with(|| json!({}));
        let system = scenario.as_object_mut().map(|all| all.entry(system).or_insert_with(|| json!({})));
        if let Some(Value::Object(figures)) = system {
            figures.insert(key.into(), json!(rounded(value)));
        }
    }

    /// A system that could not be measured here: its figure is `"skipped": 1`, the reason a condition.
    pub(crate) fn skipped(&mut self, scenario: &str, system: &str, reason: &str) {
        self.figure(scenario, system, "skipped", 1.0);
        let reasons = self.conditions.entry("skipped").or_insert_with(|| json!({}));
        if let Value::Object(reasons) = reasons {
            reasons.insert(system.into(), reason.into());
        }
    }

    /// A figure that is there already.
    pub(crate) fn of(&self, scenario: &str, system: &str, key: &str) -> Option<f64> {
        self.scenarios.get(scenario)?.get(system)?.get(key)?.as_f64()
    }

    /// Adds the ratio of one key of two systems, if both were measured.
    pub(crate) fn ratio(&mut self, name: &str, scenario: &str, key: &str, systems: [&str; 2]) {
        let [ours, theirs] = systems.map(|system| self.of(scenario, system, key));
        if let (Some(ours), Some(theirs)) = (ours, theirs.filter(|theirs| *theirs != 0.0)) {
            self.add_ratio(name, ours / theirs);
        }
    }

    /// Adds a ratio that was measured as one.
    pub(crate) fn add_ratio(&mut self, name: &str, ratio: f64) {
        self.ratios.insert(name.into(), json!(rounded(ratio)));
    }

    /// Steadfast itself could not do what is measured.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// One line, in the shape that all benchmarks share.
    pub(crate) fn json(&self) -> String {
        let Self { bench, conditions, scenarios, ratios, .. } = self;
        json!({ "bench": bench, "conditions": conditions, "scenarios": scenarios, "ratios": ratios })
            .to_string()
    }

    /// A table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for (scenario, systems) in &self.scenarios {
            let systems: Vec<_> = systems.as_object().into_iter().flatten().collect();
            let mut keys: Vec<&String> = Vec::new();
            for (_, figures) in &systems {
                keys.extend(figures.as_object().into_iter().flat_map(Map::keys));
            }
            let mut seen = std::collections::HashSet::new();
            keys.retain(|key| seen.insert(*key));
            let _infallible = write!(text, "\n{scenario:24}");
            for (system, _) in &systems {
                let _infallible = write!(text, "{system:>14}");
            }
            text.push('\n');
            for key in keys {
                let _infallible = write!(text, "  {key:22}");
                for (_, figures) in &systems {
                    let figure = figures.get(key).map_or("-".into(), Value::to_string);
                    let _infallible = write!(text, "{figure:>14}");
                }
                text.push('\n');
            }
        }
        text.push('\n');
        for (name, ratio) in &self.ratios {
            let _infallible = writeln!(text, "ratio {name:30}{ratio:>14}");
        }
        for (name, value) in &self.conditions {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _infallible = writeln!(text, "{name}: {value}");
        }
        text
    }
}

/// Four digits say all that a measurement is worth.
fn rounded(value: f64) -> f64 {
    if !value.is_normal() {
        return 0.0;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    if scale <= 1.0 { value.round() } else { (value * scale).round() / scale }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is rounded is the nearest number to what is written")]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_the_one_that_all_share() {
        let mut outcome = Outcome::new("failover");
        outcome.figure("clean", "steadfast", "silent_ms_p50", 98.754_32);
        outcome.figure("clean", "tcp", "silent_ms_p50", 197.5);
        outcome.skipped("clean", "mptcp", "no `ip`");
        outcome.ratio("silent", "clean", "silent_ms_p50", ["steadfast", "tcp"]);
        outcome.ratio("none", "clean", "silent_ms_p50", ["steadfast", "mptcp"]);
        let read: Value = serde_json::from_str(&outcome.json()).unwrap();
        assert_eq!(read["bench"], "failover");
        assert_eq!(read["scenarios"]["clean"]["steadfast"]["silent_ms_p50"], 98.75);
        assert_eq!(read["scenarios"]["clean"]["mptcp"]["skipped"], 1.0);
        assert_eq!(read["conditions"]["skipped"]["mptcp"], "no `ip`");
        assert_eq!(read["ratios"], json!({ "silent": 0.5 }));
        assert!(outcome.table().contains("98.75"));
    }

    #[test]
    fn four_digits_are_kept() {
        assert_eq!(rounded(123_456.7), 123_457.0);
        assert_eq!(rounded(0.012_345_6), 0.012_35);
        assert_eq!(rounded(0.0), 0.0);
    }
}
