//! Which scenarios and systems of a benchmark are run.

use anyhow::bail;

use crate::outcome::Outcome;
use crate::systems::System;

/// A scenario and its name.
pub(crate) type Named<S> = (&'static str, S);

/// Scenarios and systems.
pub(crate) type Selected<S, T> = (Vec<Named<S>>, Vec<Named<T>>);

/// The names that were asked for, of scenarios and systems; none means all.
#[derive(Debug, Default)]
pub(crate) struct Only(Vec<String>);

impl Only {
    /// Names with commas between them.
    pub(crate) fn of(list: &str) -> Self {
        Self(list.split(',').map(|name| name.trim().to_owned()).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of a benchmark's scenarios, and of its systems, that were asked for.
    pub(crate) fn select<S: Copy>(
        &self,
        scenarios: &[Named<S>],
        systems: &[System],
    ) -> anyhow::Result<(Vec<Named<S>>, Vec<System>)> {
        let names: Vec<_> = systems.iter().map(|system| (system.name(), *system)).collect();
        let (scenarios, systems) = self.select_named(scenarios, &names)?;
        Ok((scenarios, systems.into_iter().map(|(_, system)| system).collect()))
    }

    /// The same for systems of another kind.
    pub(crate) fn select_named<S: Copy, T: Copy>(
        &self,
        scenarios: &[Named<S>],
        systems: &[Named<T>],
    ) -> anyhow::Result<Selected<S, T>> {
        let known = |asked: &String| {
            scenarios.iter().any(|(name, _)| name == asked) || systems.iter().any(|(name, _)| name == asked)
        };
        if let Some(unknown) = self.0.iter().find(|name| !known(name)) {
            let scenarios: Vec<_> = scenarios.iter().map(|(name, _)| *name).collect();
            let systems: Vec<_> = systems.iter().map(|(name, _)| *name).collect();
            bail!(
                "there is no `{unknown}` here; scenarios are {}, systems are {}",
                scenarios.join(", "),
                systems.join(", ")
            );
        }
        let scenarios = pick(scenarios, |(name, _)| self.0.iter().any(|asked| asked == name));
        let systems = pick(systems, |(name, _)| self.0.iter().any(|asked| asked == name));
        Ok((scenarios, systems))
    }
}

/// Those that were asked for, or all if none was.
fn pick<T: Copy>(all: &[T], asked: impl Fn(&T) -> bool) -> Vec<T> {
    let some: Vec<T> = all.iter().filter(|one| asked(one)).copied().collect();
    if some.is_empty() { all.to_vec() } else { some }
}

/// Those of the systems that can be measured here; the others are said to be left out of a scenario, with the reason.
pub(crate) fn able(systems: &[System], scenario: &str, outcome: &mut Outcome) -> Vec<System> {
    let mut systems = systems.to_vec();
    systems.retain(|system| match system.obstacle() {
        Some(reason) => {
            eprintln!("SKIPPED {} in {scenario}: {reason}", system.name());
            outcome.skipped(scenario, system.name(), &reason);
            false
        }
        None => true,
    });
    systems
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIOS: [(&str, u8); 2] = [("one", 1), ("both", 2)];
    const SYSTEMS: [System; 2] = [System::Steadfast, System::Tcp];

    #[test]
    fn names_choose_scenarios_and_systems() {
        let (scenarios, systems) = Only::of("both").select(&SCENARIOS, &SYSTEMS).unwrap();
        assert_eq!((scenarios, systems), (vec![("both", 2)], SYSTEMS.to_vec()));
        let (scenarios, systems) = Only::of("tcp, one").select(&SCENARIOS, &SYSTEMS).unwrap();
        assert_eq!((scenarios, systems), (vec![("one", 1)], vec![System::Tcp]));
        let (scenarios, _) = Only::default().select(&SCENARIOS, &SYSTEMS).unwrap();
        assert_eq!(scenarios.len(), 2);
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_are_known() {
        let error = Only::of("one,ucp").select(&SCENARIOS, &SYSTEMS).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no `ucp` here; scenarios are one, both, systems are steadfast, tcp"
        );
    }
}
