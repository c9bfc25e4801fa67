use super::*;
use crate::Queue;

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
        while let Some(frame) = pipe.arrive(now) {
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

#[test]
fn loss_follows_its_probability_and_its_seed() {
    let lost = |loss: f64, seed: u64| {
        let mut pipe = Pipe::new(Settings { loss, ..Settings::default() }, seed);
        let now = Instant::now();
        for _ in 0..10_000 {
            pipe.enter(now, &[0; 60]);
        }
        pipe.counters.dropped_loss
    };
    assert_eq!(lost(0.0, 1), 0);
    assert_eq!(lost(1.0, 1), 10_000);
    assert_eq!(lost(f64::NAN, 1), 0);
    assert!((800..1200).contains(&lost(0.1, 1)));
    assert_eq!(lost(0.1, 7), lost(0.1, 7));
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
