//! The rounds of a benchmark between hosts: each scenario, each system in turn, with fresh hosts and processes.

use std::collections::HashMap;

use anyhow::Context;

use crate::only::{Only, able};
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::systems::System;

/// What becomes of a figure's samples, one of each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Median,
    Least,
    Most,
    Sum,
}

/// One figure of one run.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    key: String,
    value: f64,
    how: How,
}

impl Figure {
    pub(crate) fn median(key: impl Into<String>, value: f64) -> Self {
        Self { key: key.into(), value, how: How::Median }
    }

    pub(crate) fn least(key: impl Into<String>, value: f64) -> Self {
        Self { key: key.into(), value, how: How::Least }
    }

    pub(crate) fn most(key: impl Into<String>, value: f64) -> Self {
        Self { key: key.into(), value, how: How::Most }
    }

    pub(crate) fn sum(key: impl Into<String>, value: f64) -> Self {
        Self { key: key.into(), value, how: How::Sum }
    }
}

/// A benchmark that goes in rounds.
pub(crate) trait Bench {
    /// What differs from scenario to scenario.
    type Scenario: Copy;

    /// What others are compared with in this round, if anything is, and what it is called in the results.
    fn baseline(
        &mut self,
        _scenario: Self::Scenario,
        _round: u32,
    ) -> anyhow::Result<Option<(&'static str, Vec<Figure>)>> {
        Ok(None)
    }

    /// One run of one system.
    fn measure(
        &mut self,
        system: System,
        scenario: Self::Scenario,
        round: u32,
    ) -> anyhow::Result<Vec<Figure>>;
}

/// Runs what was asked for of these scenarios and systems, and notes the figures.
pub(crate) fn run<B: Bench>(
    bench: &mut B,
    scenarios: &[(&'static str, B::Scenario)],
    systems: &[System],
    (rounds, only): (u32, &Only),
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let (scenarios, systems) = only.select(scenarios, systems)?;
    outcome.condition("rounds", rounds);
    for (name, scenario) in scenarios {
        let systems = able(&systems, name, outcome);
        let mut samples = Samples::default();
        for round in 1..=rounds {
            let place = format!("round {round} of {rounds}, {name}");
            if let Some((baseline, figures)) =
                bench.baseline(scenario, round).with_context(|| place.clone())?
            {
                samples.note(&place, baseline, figures);
            }
            for system in &systems {
                let measured = bench.measure(*system, scenario, round).unwrap_or_else(|error| {
                    // That it failed is a result, too, and the others are still worth measuring.
                    eprintln!("FAILED {place}: {}: {error:#}", system.name());
                    vec![Figure::sum("failed", 1.0)]
                });
                samples.note(&place, system.name(), measured);
            }
        }
        samples.report(name, outcome)?;
        if outcome.of(name, System::Steadfast.name(), "failed").is_some() {
            outcome.fail();
        }
    }
    Ok(())
}

/// The figures of all rounds of a scenario, in the order in which they came first.
#[derive(Debug, Default)]
struct Samples {
    order: Vec<(&'static str, String)>,
    values: HashMap<(&'static str, String), (How, Vec<f64>)>,
}

impl Samples {
    fn note(&mut self, place: &str, system: &'static str, figures: Vec<Figure>) {
        let told: Vec<_> = figures
            .iter()
            .filter(|figure| matches!(figure.how, How::Median | How::Sum))
            .map(|figure| format!("{} {:.4}", figure.key, figure.value))
            .collect();
        eprintln!("{place}: {system}: {}", told.join(", "));
        for Figure { key, value, how } in figures {
            let place = (system, key);
            if !self.values.contains_key(&place) {
                self.order.push(place.clone());
            }
            self.values.entry(place).or_insert((how, Vec::new())).1.push(value);
        }
    }

    fn report(self, scenario: &str, outcome: &mut Outcome) -> anyhow::Result<()> {
        for place in self.order {
            let (how, values) = &self.values[&place];
            let spread = Spread::of(values.iter().copied()).context("a figure without a sample")?;
            let (system, key) = place;
            let value = match how {
                How::Median => spread.median(),
                How::Least => spread.min(),
                How::Most => spread.max(),
                How::Sum => values.iter().sum(),
            };
            outcome.figure(scenario, system, &key, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_become_medians_extremes_and_sums() {
        let mut samples = Samples::default();
        for value in [3.0, 1.0, 7.0] {
            let figures = vec![
                Figure::median("median", value),
                Figure::least("least", value),
                Figure::most("most", value),
                Figure::sum("sum", value),
            ];
            samples.note("here", "tcp", figures);
        }
        let mut outcome = Outcome::new("test");
        samples.report("one", &mut outcome).unwrap();
        let found = ["median", "least", "most", "sum"].map(|key| outcome.of("one", "tcp", key));
        assert_eq!(found, [Some(3.0), Some(1.0), Some(7.0), Some(11.0)]);
    }
}
