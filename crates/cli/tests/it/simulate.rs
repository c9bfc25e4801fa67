//! The data centre that is simulated.

use std::fs;

use serde_json::Value;

use crate::common::{Home, Run};

/// Little enough for a build without optimisation.
const SMALL: [&str; 6] = ["simulate", "homa", "--preset", "small", "--messages", "2000"];

fn simulate(home: &Home, more: &[&str]) -> Run {
    home.run(&[&SMALL, more].concat())
}

#[test]
fn what_is_found_has_the_shape_of_the_benchmarks_and_comes_again_with_its_seed() {
    let home = Home::empty();
    let found = |more: &[&str]| {
        let mut object = simulate(&home, &[&["--json"], more].concat()).ended(0).object();
        let systems = object["scenarios"].as_object_mut().unwrap().values_mut();
        for figures in systems.flat_map(|systems| systems.as_object_mut().unwrap().values_mut()) {
            assert!(figures.as_object_mut().unwrap().remove("seconds").unwrap().is_number());
        }
        object
    };
    let one = found(&[]);
    assert_eq!(one["bench"], "simulate-homa");
    assert_eq!((&one["conditions"]["hosts"], &one["conditions"]["seed"]), (&8.into(), &1.into()));
    for system in ["homa", "fifo"] {
        let figures = one["scenarios"]["w3"][system].as_object().unwrap();
        assert!(figures.values().all(Value::is_number), "{figures:?}");
        for key in
            ["short_slowdown_p99", "decile_10_slowdown_p50", "queue_rack_to_host_max", "wasted", "goodput"]
        {
            assert!(figures.contains_key(key), "{key}: {figures:?}");
        }
        assert!(figures["short_slowdown_p99"].as_f64().unwrap() >= 1.0);
    }
    let ratio = one["ratios"]["short_slowdown_p99"].as_f64().unwrap();
    assert!(ratio < 1.0, "{ratio}");
    assert_eq!(one, found(&["--seed", "1"]));
    assert_ne!(one["scenarios"], found(&["--seed", "2"])["scenarios"]);
}

#[test]
fn people_get_tables_and_a_drawing() {
    let home = Home::empty();
    let file = home.path().join("w1.svg");
    let run = simulate(&home, &["--workload", "w1", "--plot", file.to_str().unwrap()]).ended(0);
    for words in ["homa (", "fifo (", "SLOWDOWN P50", "queue rack to host", "wasted", "Drawn: "] {
        assert!(run.out.contains(words), "{words}: {}", run.out);
    }
    let drawing = fs::read_to_string(file).unwrap();
    assert!(drawing.contains("Slowdown of messages under W1 at 80 % load") && drawing.ends_with("</svg>\n"));
    let lonely = simulate(&home, &["--transport", "shipped", "--load", "0.3"]).ended(0);
    assert!(lonely.out.contains("shipped (") && !lonely.out.contains("fifo ("), "{}", lonely.out);
}

#[test]
fn what_cannot_be_simulated_or_drawn_is_said_before_it_is_tried() {
    let home = Home::empty();
    for wrong in [["--load", "1"], ["--workload", "W6"], ["--preset", "moon"], ["--transport", "tcp"]] {
        let run = home.run(&[&["simulate", "homa"], &wrong[..]].concat()).ended(2);
        assert!(run.err.contains(wrong[1]), "{run:?}");
    }
    let nowhere = home.path().join("none/w3.svg");
    simulate(&home, &["--plot", nowhere.to_str().unwrap()]).failed(1, &["none/w3.svg", "directory"]);
}
