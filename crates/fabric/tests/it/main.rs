//! The network as a whole: nothing is faster than an empty network, one message alone is as fast, and the core that ships
//! keeps short messages short where a plain queue does not.

use core::time::Duration;
use steadfast_fabric::topology::Topology;
use steadfast_fabric::{
    Faults, Preset, Report, Settings, Transport, Workload, carry, largest_load, simulate,
};
use steadfast_homa::ANY_LENGTH;

fn run(settings: &Settings) -> Report {
    simulate(settings).expect("room for all hosts")
}

#[test]
fn one_message_alone_takes_what_an_empty_network_takes() {
    let mut lengths = 0;
    for seed in 0..300 {
        let settings = Settings { warm_up: 0.0, seed, ..Settings::paper(Workload::W3, 0.5, 1) };
        let report = run(&settings);
        let [sample] = report.samples[..] else { panic!("one message") };
        if sample.length <= 1442 {
            assert!((sample.slowdown - 1.0).abs() < 1e-9, "{sample:?}");
        } else {
            // Its last packet may have waited for the one before it; what is granted ends one packet more.
            assert!((1.0..1.2).contains(&sample.slowdown), "{sample:?}");
            lengths += usize::from(sample.length > 9328);
        }
    }
    assert!(lengths > 0, "one was granted");
}

#[test]
fn every_message_completes_and_none_before_it_can() {
    for workload in Workload::ALL {
        let messages = if workload.mean() < 10_000.0 { 5000 } else { 500 };
        let settings = Settings { warm_up: 0.0, ..Settings::paper(workload, 0.6, messages) };
        for transport in [settings.transport.clone(), Transport::Queue] {
            let report = run(&Settings { transport, ..settings.clone() });
            assert_eq!(report.samples.len(), messages as usize, "{}", workload.name());
            let fastest = report.samples.iter().map(|sample| sample.slowdown).fold(f64::MAX, f64::min);
            assert!(fastest > 1.0 - 1e-9, "{}: {fastest}", workload.name());
        }
    }
}

#[test]
fn a_seed_gives_the_same_run() {
    let settings = Settings::paper(Workload::W4, 0.8, 300);
    let (first, second) = (run(&settings), run(&settings));
    assert_eq!(first.packets, second.packets);
    assert_eq!(first.figures(), second.figures());
    let other = run(&Settings { seed: 2, ..settings });
    assert_ne!(first.packets, other.packets);
}

#[test]
fn short_messages_pass_long_ones_under_homa_and_not_in_a_plain_queue() {
    let settings = Settings::paper(Workload::W3, 0.8, 30_000);
    let homa = run(&settings);
    let queue = run(&Settings { transport: Transport::Queue, ..settings });
    let short = |report: &Report| report.up_to(300).expect("short messages").p99;
    // The paper's simulations say 2.2 at most.
    assert!(short(&homa) < 2.5, "{}", short(&homa));
    assert!(short(&queue) > 10.0 * short(&homa), "{} {}", short(&queue), short(&homa));
}

#[test]
fn queues_are_bounded_by_overcommitment() {
    let report = run(&Settings::paper(Workload::W5, 0.8, 400));
    // The paper has 126 KB at most from rack to host for W5; a plain queue has a hundred times that.
    assert!(report.queues[2].most < 200_000, "{}", report.queues[2].most);
}

#[test]
fn cutoffs_from_the_traffic_do_as_well_as_those_computed_from_the_workload() {
    // Few hosts, so that some milliseconds take few messages: that is how often a sender is told.
    let topology = Topology { racks: 2, hosts_per_rack: 4, ..Topology::paper() };
    let settings = Settings { topology, warm_up: 0.6, ..Settings::paper(Workload::W2, 0.9, 120_000) };
    let fixed = run(&settings);
    let Transport::Homa(mut config) = settings.transport.clone() else { panic!("not Homa") };
    config.adapt_cutoffs = true;
    config.cutoff_messages = 500;
    config.cutoff_interval = Duration::from_millis(1);
    // All at one level to begin with.
    config.cutoffs = [ANY_LENGTH, 0, 0, 0, 0, 0, 0, ANY_LENGTH];
    let mut stubborn = config.clone();
    stubborn.adapt_cutoffs = false;
    let stubborn = run(&Settings { transport: Transport::Homa(stubborn), ..settings.clone() });
    let learned = run(&Settings { transport: Transport::Homa(config), ..settings });
    let short = |report: &Report| report.up_to(300).expect("short messages").p99;
    assert!(short(&learned) < 1.2 * short(&fixed), "{} {}", short(&learned), short(&fixed));
    assert!(short(&stubborn) > 1.3 * short(&learned), "{} {}", short(&stubborn), short(&learned));
}

#[test]
fn granting_several_messages_at_a_time_carries_more_than_one() {
    let topology = Topology { racks: 2, hosts_per_rack: 8, ..Topology::paper() };
    let settings = Settings { topology, warm_up: 0.3, ..Settings::paper(Workload::W4, 0.95, 8000) };
    let several = run(&settings);
    let Transport::Homa(mut config) = settings.transport.clone() else { panic!("not Homa") };
    config.overcommit = 1;
    let one = run(&Settings { transport: Transport::Homa(config), ..settings });
    // A sender that was granted may be busy with another receiver, and the link to this one is idle.
    assert!(several.goodput() > 1.1 * one.goodput(), "{} {}", several.goodput(), one.goodput());
}

/// The settings that ship, on 16 hosts.
fn shipped(workload: Workload, load: f64, messages: u32) -> Settings {
    let topology = Topology { racks: 2, hosts_per_rack: 8, ..Topology::paper() };
    Settings { topology, ..Settings::paper(workload, load, messages).shipped() }
}

#[test]
fn the_core_as_it_is_used_answers_everything_and_keeps_short_messages_short() {
    let settings = shipped(Workload::W3, 0.8, 20_000);
    let homa = run(&settings);
    assert_eq!((homa.failed, homa.samples.len()), (0, 18_000));
    let queue = run(&Settings { transport: Transport::Queue, ..settings });
    let short = |report: &Report| report.up_to(300).expect("short messages").p99;
    assert!(short(&queue) > 3.0 * short(&homa), "{} {}", short(&queue), short(&homa));
    let long = run(&shipped(Workload::W4, 0.8, 2000));
    assert_eq!((long.failed, long.samples.len()), (0, 1800));
}

#[test]
fn a_network_that_loses_repeats_and_reorders_costs_time_and_no_message() {
    let settings = shipped(Workload::W4, 0.6, 1000);
    let faults = Faults { lost: 0.002, repeated: 0.01, late: 0.01 };
    let report = run(&Settings { faults, ..settings.clone() });
    assert_eq!((report.failed, report.samples.len()), (0, 900));
    let worst = |report: &Report| report.samples.iter().map(|sample| sample.slowdown).fold(0.0, f64::max);
    assert!(worst(&report) > worst(&run(&settings)), "what is lost is asked for after milliseconds");
}

#[test]
fn on_slow_links_nothing_is_sent_twice_and_no_queue_overflows() {
    // Shorter messages hold up the long ones in the switch for hundreds of milliseconds.
    let settings = Settings { warm_up: 0.2, ..Settings::new(Preset::Slow, Workload::W4, 0.8, 3000) };
    let report = run(&settings.shipped());
    assert_eq!((report.failed, report.samples.len()), (0, 2400));
    assert!(report.in_vain() < 0.001 && report.dropped < 10, "{} {}", report.in_vain(), report.dropped);
    let short = report.short().expect("messages").p99;
    assert!(short < 4.0, "{short}");
}

#[test]
fn every_preset_carries_what_is_offered() {
    for preset in Preset::ALL {
        let settings = Settings::new(preset, Workload::W1, 0.5, 20_000);
        let report = run(&settings);
        assert_eq!((report.failed, report.samples.len()), (0, 18_000), "{}", preset.name());
        // Some is on its way at the beginning, and some at the end.
        let (offered, goodput) = (report.offered(), report.goodput());
        assert!((offered - settings.load).abs() < 0.001 * settings.load, "{}: {offered}", preset.name());
        assert!((0.9..1.1).contains(&(goodput / offered)), "{}: {goodput} of {offered}", preset.name());
        let full = preset.messages(Workload::W1, false);
        assert!(full > 20_000 && (9..=11).contains(&(full / preset.messages(Workload::W1, true))));
    }
}

#[test]
fn withheld_grants_waste_bandwidth_and_more_overcommitment_less_of_it() {
    let settings = Settings { warm_up: 0.3, ..Settings::new(Preset::Small, Workload::W4, 0.95, 4000) };
    let wasted = |overcommit| {
        let Transport::Homa(mut config) = settings.transport.clone() else { panic!("not Homa") };
        config.overcommit = overcommit;
        run(&Settings { transport: Transport::Homa(config), ..settings.clone() }).wasted()
    };
    let (one, seven) = (wasted(1), wasted(7));
    assert!(one > 0.1 && one < 0.6, "{one}");
    assert!(seven < one / 2.0, "{seven} {one}");
    let queue = run(&Settings { transport: Transport::Queue, ..settings.clone() });
    assert!(queue.wasted() < f64::EPSILON, "nothing is granted there");
}

#[test]
fn a_search_finds_less_where_one_message_is_granted_at_a_time() {
    let at = |load, overcommit| {
        let settings = Settings { warm_up: 0.4, ..Settings::new(Preset::Small, Workload::W3, load, 100_000) };
        let Transport::Homa(mut config) = settings.transport.clone() else { panic!("not Homa") };
        config.overcommit = overcommit;
        Settings { transport: Transport::Homa(config), ..settings }
    };
    let several = largest_load(|load| at(load, 4)).expect("room for all hosts");
    let one = largest_load(|load| at(load, 1)).expect("room for all hosts");
    assert_eq!(several.probes.len(), 5);
    assert!(several.probes.is_sorted_by_key(|probe| probe.percent));
    for probe in &several.probes {
        assert_eq!(probe.report.is_sustained(), Some(probe.percent) <= several.percent, "{probe:?}");
    }
    assert!(several.percent > one.percent, "{:?} {:?}", several.percent, one.percent);
    // The same again is the same.
    let again = largest_load(|load| at(load, 4)).expect("room for all hosts");
    assert_eq!(again.percent, several.percent);
}

#[test]
fn more_than_the_links_carry_is_not_sustained() {
    let settings = Settings { warm_up: 0.4, ..Settings::new(Preset::Small, Workload::W1, 1.2, 60_000) };
    for transport in [settings.transport.clone(), Transport::Queue] {
        let report = carry(&Settings { transport, ..settings.clone() }).expect("room for all hosts");
        assert!(!report.is_sustained() && report.backlog() > 0.9, "{}", report.backlog());
    }
}
