use super::*;
use crate::{Loss, Queue};

const MS: Duration = Duration::from_millis(1);

/// 1,000 bytes take 1 ms at 8 Mbit/s.
fn slow(change: impl FnOnce(&mut Settings)) -> (Pipe, Instant) {
    let mut settings = Settings { rate: Some(8_000_000), delay: 10 * MS, ..Settings::default() };
    change(&mut settings);
    (Pipe::new(settings, 1), Instant::now())
}

/// Runs the pipe dry, turn by turn as a relay would; each frame is its first byte and the time it took.
fn drain(pipe: &mut Pipe, start: Instant) -> Vec<(u8, Duration)> {
    let mut arrived = Vec::new();
    while let Some(now) = pipe.poll_timeout() {
        while let Some((due, frame)) = pipe.arrive(now) {
            assert_eq!(due, now, "whoever looks when it is time is not late");
            arrived.push((frame[0], now - start));
        }
    }
    arrived
}

#[test]
fn frames_are_serialised_then_delayed() {
    let (mut pipe, start) = slow(|_| ());
    for number in 0..3 {
        pipe.enter(start, &[number; 1000]);
    }
    assert!(pipe.arrive(start + Duration::from_nanos(10_999_999)).is_none());
    assert_eq!(drain(&mut pipe, start), [(0, 11 * MS), (1, 12 * MS), (2, 13 * MS)]);
}

#[test]
fn what_is_handed_over_late_is_counted() {
    let (mut pipe, start) = slow(|_| ());
    for number in 0..3 {
        pipe.enter(start, &[number; 1000]);
    }
    // The first is due at 11 ms, the others a millisecond later each.
    let now = start + Duration::from_micros(12_500);
    while let Some((due, frame)) = pipe.arrive(now) {
        pipe.counters.hand_over(due, now, frame.len());
    }
    let DirectionCounters { frames, bytes, late, latest, .. } = pipe.counters;
    assert_eq!((frames, bytes, late, latest), (2, 2000, 1, Duration::from_micros(1500)));
}

#[test]
fn without_a_rate_only_the_delay_counts() {
    let (mut pipe, start) = slow(|settings| settings.rate = None);
    pipe.enter(start, &[0; 1000]);
    pipe.enter(start, &[1; 1000]);
    assert_eq!(drain(&mut pipe, start), [(0, 10 * MS), (1, 10 * MS)]);
}

#[test]
fn the_queue_drops_its_tail() {
    let (mut pipe, start) = slow(|settings| settings.queue = Queue::Bytes(2000));
    for number in 0..5 {
        pipe.enter(start, &[number; 1000]);
    }
    assert_eq!(pipe.counters.dropped_queue, 2);
    // One departure makes room for one.
    pipe.enter(start + MS, &[5; 1000]);
    pipe.enter(start + MS, &[6; 1000]);
    assert_eq!(pipe.counters.dropped_queue, 3);
    let numbers: Vec<u8> = drain(&mut pipe, start).iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 5]);
}

#[test]
fn a_queue_in_time_follows_the_rate() {
    let (mut pipe, start) = slow(|settings| settings.queue = Queue::Time(2 * MS));
    for number in 0..5 {
        pipe.enter(start, &[number; 1000]);
    }
    assert_eq!(pipe.counters.dropped_queue, 2);
    assert_eq!(drain(&mut pipe, start).len(), 3);
}

#[test]
fn jitter_keeps_order_unless_asked() {
    for reorder in [false, true] {
        let (mut pipe, start) = slow(|settings| {
            settings.rate = None;
            settings.jitter = 20 * MS;
            settings.reorder = reorder;
        });
        for number in 0..100 {
            pipe.enter(start + u32::from(number) * MS / 10, &[number; 100]);
        }
        let arrived = drain(&mut pipe, start);
        assert_eq!(arrived.len(), 100);
        assert!(arrived.iter().all(|(number, took)| {
            let sent = u32::from(*number) * MS / 10;
            // Frames also wait for those before them, which entered at most 10 ms earlier.
            *took >= sent + 10 * MS && *took <= sent + 40 * MS
        }));
        assert_eq!(arrived.is_sorted_by_key(|(number, _)| *number), !reorder);
    }
}

#[test]
fn a_shorter_delay_does_not_reorder() {
    let (mut pipe, start) = slow(|settings| settings.rate = None);
    pipe.enter(start, &[0; 100]);
    pipe.set(start + MS, |settings| settings.delay = MS);
    pipe.enter(start + MS, &[1; 100]);
    assert_eq!(drain(&mut pipe, start), [(0, 10 * MS), (1, 10 * MS)]);
}

#[test]
fn a_new_rate_frees_what_waits() {
    let (mut pipe, start) = slow(|settings| settings.rate = Some(8));
    for number in 0..2 {
        pipe.enter(start, &[number; 1000]);
    }
    // A queue of 100 ms at 8 bit/s holds nothing beside the frame on the wire.
    assert_eq!(pipe.counters.dropped_queue, 1);
    pipe.set(start + MS, |settings| settings.rate = Some(8_000_000));
    assert_eq!(drain(&mut pipe, start), [(0, 12 * MS)]);

    let (mut pipe, start) = slow(|_| ());
    for number in 0..3 {
        pipe.enter(start, &[number; 1000]);
    }
    pipe.set(start, |settings| settings.rate = None);
    assert_eq!(drain(&mut pipe, start), [(0, 10 * MS), (1, 10 * MS), (2, 10 * MS)]);
}

#[test]
fn a_blackhole_takes_what_is_under_way_and_what_comes() {
    let (mut pipe, start) = slow(|_| ());
    for number in 0..3 {
        pipe.enter(start, &[number; 1000]);
    }
    pipe.set(start + MS, |settings| settings.blackhole = true);
    pipe.enter(start + 2 * MS, &[3; 1000]);
    assert_eq!(pipe.counters.dropped_blackhole, 4);
    assert_eq!(pipe.poll_timeout(), None);
    pipe.set(start + 3 * MS, |settings| settings.blackhole = false);
    pipe.enter(start + 3 * MS, &[4; 1000]);
    assert_eq!(drain(&mut pipe, start), [(4, 14 * MS)]);
}

/// Whether each of 100,000 frames is lost.
fn fates(loss: Loss, seed: u64) -> Vec<bool> {
    let mut pipe = Pipe::new(Settings { loss, ..Settings::default() }, seed);
    let now = Instant::now();
    let fates = (0..100_000).map(|_| {
        let before = pipe.counters.dropped_loss;
        pipe.enter(now, &[0; 60]);
        while pipe.arrive(now).is_some() {}
        pipe.counters.dropped_loss > before
    });
    fates.collect()
}

fn share(fates: &[bool]) -> f64 {
    fates.iter().filter(|lost| **lost).count() as f64 / fates.len() as f64
}

/// How many frames are lost in a row, on average.
fn mean_burst(fates: &[bool]) -> f64 {
    let bursts = fates.chunk_by(|one, next| one == next).filter(|run| run[0]);
    share(fates) * fates.len() as f64 / bursts.count() as f64
}

#[test]
fn loss_follows_its_probability_and_its_seed() {
    let lost = |loss: f64, seed: u64| fates(Loss::Independent(loss), seed);
    assert!(!lost(0.0, 1).contains(&true) && !lost(f64::NAN, 1).contains(&true));
    assert!(!lost(1.0, 1).contains(&false));
    assert!((0.095..0.105).contains(&share(&lost(0.1, 1))));
    assert_eq!(lost(0.1, 7), lost(0.1, 7));
    assert_ne!(lost(0.1, 7), lost(0.1, 8));
}

#[test]
fn bursty_loss_has_its_share_and_its_length() {
    let bursty = |share: f64, mean_burst: f64, seed: u64| fates(Loss::Bursty { share, mean_burst }, seed);
    for (asked, length) in [(0.02, 5.0), (0.1, 3.0), (0.3, 20.0), (0.5, 1.0)] {
        let fates = bursty(asked, length, 3);
        assert!((asked * 0.8..asked * 1.2).contains(&share(&fates)), "{asked}: {}", share(&fates));
        assert!(
            (length * 0.9..length * 1.1).contains(&mean_burst(&fates)),
            "{length}: {}",
            mean_burst(&fates)
        );
    }
    assert_eq!(bursty(0.1, 3.0, 7), bursty(0.1, 3.0, 7));
    assert_ne!(bursty(0.1, 3.0, 7), bursty(0.1, 3.0, 8));
    // The same share without bursts: 1 / (1 - share) in a row.
    let independent = fates(Loss::Independent(0.1), 3);
    assert!((1.0..1.2).contains(&mean_burst(&independent)), "{}", mean_burst(&independent));
}

#[test]
fn bursty_loss_at_its_bounds() {
    let bursty = |share: f64, mean_burst: f64| fates(Loss::Bursty { share, mean_burst }, 1);
    for length in [0.0, 5.0, f64::NAN, f64::INFINITY] {
        assert!(!bursty(0.0, length).contains(&true) && !bursty(f64::NAN, length).contains(&true));
        assert!(!bursty(1.0, length).contains(&false));
    }
    // One frame passes between two bursts, so nine of ten are lost only if nine are lost in a row.
    let fates = bursty(0.9, 2.0);
    assert!((0.89..0.91).contains(&share(&fates)), "{}", share(&fates));
    assert!((8.5..9.5).contains(&mean_burst(&fates)), "{}", mean_burst(&fates));
}

#[test]
fn loss_can_be_changed_while_it_runs() {
    let (mut pipe, start) = slow(|settings| {
        settings.rate = None;
        settings.loss = Loss::Bursty { share: 0.5, mean_burst: f64::INFINITY };
    });
    pipe.set(start, |settings| settings.loss = Loss::NONE);
    pipe.enter(start, &[1; 100]);
    pipe.set(start, |settings| settings.loss = Loss::Independent(1.0));
    pipe.enter(start, &[2; 100]);
    assert_eq!(drain(&mut pipe, start), [(1, 10 * MS)]);
}

/// An IPv4 frame of 1,000 bytes and a class, whose first byte is its number.
fn classed(number: u8, class: u8) -> Vec<u8> {
    let mut frame = vec![0; 1000];
    frame[0] = number;
    frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, class << 5]);
    frame
}

#[test]
fn the_highest_class_goes_first_and_never_interrupts() {
    let (mut pipe, start) = slow(|settings| settings.priorities = true);
    for (number, class) in [(0, 0), (1, 0), (2, 3), (3, 7), (4, 3), (5, 1)] {
        pipe.enter(start, &classed(number, class));
    }
    let order: Vec<u8> = drain(&mut pipe, start).iter().map(|(number, _)| *number).collect();
    assert_eq!(order, [0, 3, 2, 4, 5, 1]);
}

#[test]
fn a_full_class_drops_its_own_tail_only() {
    let (mut pipe, start) = slow(|settings| {
        settings.priorities = true;
        settings.queue = Queue::Bytes(2000);
    });
    for number in 0..5 {
        pipe.enter(start, &classed(number, 0));
    }
    assert_eq!(pipe.counters.dropped_queue, 2);
    for number in 5..8 {
        pipe.enter(start, &classed(number, 4));
    }
    assert_eq!(pipe.counters.dropped_queue, 3);
    let order: Vec<u8> = drain(&mut pipe, start).iter().map(|(number, _)| *number).collect();
    assert_eq!(order, [0, 5, 6, 1, 2]);
}

#[test]
fn priorities_are_off_unless_asked_and_change_while_it_runs() {
    let (mut pipe, start) = slow(|_| ());
    for (number, class) in [(0, 0), (1, 0), (2, 7)] {
        pipe.enter(start, &classed(number, class));
    }
    // What waits without a class stays behind whatever has one, in its order.
    pipe.set(start, |settings| settings.priorities = true);
    pipe.enter(start, &classed(3, 5));
    pipe.set(start, |settings| settings.priorities = false);
    pipe.enter(start, &classed(4, 7));
    let order: Vec<u8> = drain(&mut pipe, start).iter().map(|(number, _)| *number).collect();
    assert_eq!(order, [0, 3, 1, 2, 4]);
}

#[test]
fn memory_is_bounded_without_a_rate() {
    let (mut pipe, start) = slow(|settings| settings.rate = None);
    let frame = vec![0; 1 << 20];
    for _ in 0..300 {
        pipe.enter(start, &frame);
    }
    assert_eq!(pipe.counters.dropped_queue, 300 - 256);
}

#[test]
fn what_is_doubled_arrives_twice_and_only_as_often_as_asked() {
    for (share, expected) in [(0.0, 0..1), (0.2, 120..280), (1.0, 1000..1001)] {
        let (mut pipe, start) = slow(|settings| {
            settings.rate = None;
            settings.duplication = share;
        });
        for number in 0..1000 {
            pipe.enter(start, &[number as u8; 10]);
        }
        let arrived = drain(&mut pipe, start);
        let doubled = pipe.counters.duplicated;
        assert!(expected.contains(&doubled), "{doubled} of 1000 at {share}");
        assert_eq!(arrived.len() as u64, 1000 + doubled);
    }
}
