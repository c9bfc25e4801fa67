//! The emulator measures itself, and whoever runs the tests sees it.

use std::io::Write;

use steadfast_testbed::{EmulatorPrecision, isolated};

#[test]
fn the_emulator_says_how_exact_it_is() {
    isolated("precision::the_emulator_says_how_exact_it_is", || {
        let precision = EmulatorPrecision::measure().unwrap();
        let lines = precision.to_string().replace('\n', "\nPRECISION ");
        // Not through the macros, whose output the harness keeps to itself.
        writeln!(std::io::stderr(), "PRECISION of the emulator beside other tests\nPRECISION {lines}")
            .unwrap();
        // Facts that hold however busy the machine is.
        assert!((0.08..0.12).contains(&precision.loss_share), "{precision}");
        assert!((0.05..0.15).contains(&precision.bursty_share), "{precision}");
        assert!(precision.link.rate_achieved < 20.5e6, "{precision}");
        assert!(precision.frames_per_second > 0.0 && precision.bits_per_second > 0.0, "{precision}");
    });
}
