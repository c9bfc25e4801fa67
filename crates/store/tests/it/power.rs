//! Power cuts: whatever was confirmed is there, and nothing out of order.

use crate::records::{Entry, ME, digest, ended, opened, refs, sent, settled};
use proptest::prelude::*;
use steadfast_store::crash::Disk;
use steadfast_store::{SLACK, Store, StoreError};

fn open(disk: &Disk) -> Result<Store<Disk>, StoreError> {
    Store::open_on(disk.clone(), ME)
}

fn records(store: &Store<Disk>) -> Vec<Entry> {
    store.digest().records().collect()
}

/// Groups of records, as a busy endpoint makes them: some are large enough that a segment is soon mostly rubbish.
fn groups() -> impl Strategy<Value = Vec<Vec<(u8, u16)>>> {
    prop::collection::vec(prop::collection::vec((any::<u8>(), any::<u16>()), 1..5), 1..24)
}

/// What a group of dice comes to in the life of three sessions.
fn entries(dice: &[(u8, u16)], next: &mut [u64; 3], open: &mut [bool; 3]) -> Vec<Entry> {
    let mut all = Vec::new();
    for (what, size) in dice {
        let index = usize::from(*what) % 3;
        let session = index as u64 + 1;
        if !open[index] {
            all.push(opened(session));
            (open[index], next[index]) = (true, 1);
        }
        match what / 3 % 8 {
            0 => {
                all.push(ended(session));
                open[index] = false;
            }
            1..=3 if next[index] > 1 => all.push(settled(session, u64::from(*size) % next[index] + 1)),
            // A megabyte now and then.
            kind => {
                let bytes = if kind == 7 { 1 << 20 } else { usize::from(*size) };
                all.push(sent(session, next[index], bytes));
                next[index] += 1;
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn what_was_confirmed_is_there_after_every_power_cut(
        groups in groups(),
        fuses in prop::collection::vec(0..60u64, 1..4),
        seed in any::<u64>(),
    ) {
        let disk = Disk::default();
        let (mut next, mut open_sessions) = ([1; 3], [false; 3]);
        // All that was ever given to the store and is not known to be lost, in the order it was given.
        let mut history: Vec<Entry> = Vec::new();
        let mut groups = groups.iter();
        for (round, fuse) in fuses.iter().enumerate() {
            disk.cut_power_after(*fuse);
            // What came after the last confirmation, of which all or nothing is there.
            let mut doubtful = Vec::new();
            if let Ok(mut store) = open(&disk) {
                prop_assert_eq!(records(&store), digest(&history));
                for dice in groups.by_ref() {
                    let (next_before, open_before) = (next, open_sessions);
                    let group = entries(dice, &mut next, &mut open_sessions);
                    if store.append(refs(&group)).is_err() {
                        (next, open_sessions) = (next_before, open_before);
                        doubtful = group;
                        break;
                    }
                    history.extend(group);
                }
            }
            disk.recover(seed.wrapping_add(round as u64));
            let store = open(&disk).expect("a power cut is no damage");
            let found = records(&store);
            if found != digest(&history) {
                let before = history.len();
                history.extend(doubtful);
                prop_assert_eq!(&found, &digest(&history), "after {} confirmed records", before);
                // The counters of what was doubtful go on from what is there.
                for session in 0..3 {
                    let mine = |entry: &&Entry| entry.0.0 == session as u64 + 1;
                    open_sessions[session] = found.iter().any(|entry| mine(&entry));
                    next[session] = found.iter().filter(mine).find_map(|(_, record)| match record {
                        steadfast_session::Record::Summary(summary) => Some(summary.sent + 1),
                        _ => None,
                    }).unwrap_or(1);
                }
            }
        }
    }
}

#[test]
fn a_segment_that_is_mostly_rubbish_makes_room() {
    let disk = Disk::default();
    let mut store = open(&disk).unwrap();
    store.append(refs(&[opened(1), sent(1, 1, 100_000)])).unwrap();
    let mut longest = 0;
    for id in 2..2000 {
        store.append(refs(&[sent(1, id, 100_000)])).unwrap();
        store.append(refs(&[settled(1, id)])).unwrap();
        longest = longest.max(disk.length());
    }
    let open_bytes = 200_000;
    assert!(longest as u64 <= 2 * open_bytes + SLACK + SLACK / 8 + 200_000, "{longest}");
    assert!(longest as u64 > SLACK, "{longest}: it was begun anew too often");
    drop(store);
    let store = open(&disk).unwrap();
    assert_eq!(records(&store).len(), 3, "the session, its open message, and what the others come to");
}

#[test]
fn damage_is_told_from_a_cut_end() {
    let disk = Disk::default();
    let mut store = open(&disk).unwrap();
    let begin = disk.length();
    store.append(refs(&[opened(1), sent(1, 1, 3000)])).unwrap();
    let first = disk.length();
    store.append(refs(&[sent(1, 2, 3000)])).unwrap();
    drop(store);
    let length = disk.length();
    // In the last batch nobody can tell it from one that was cut: what is before it is there.
    let cut = disk.copy();
    cut.damage(first + 100);
    assert_eq!(records(&open(&cut).unwrap()), digest(&[opened(1), sent(1, 1, 3000)]));
    for at in (0..begin).chain((begin..first).step_by(97)) {
        let damaged = disk.copy();
        assert!(damaged.damage(at), "{at} of {length}");
        let error = open(&damaged).expect_err("it is damaged").to_string();
        let told = error.contains("move the directory away") || error.contains("has format");
        assert!(told, "{at}: {error}");
    }
}

#[test]
fn a_full_disk_takes_nothing_and_goes_on_when_there_is_room() {
    let disk = Disk::default();
    let mut store = open(&disk).unwrap();
    store.append(refs(&[opened(1), sent(1, 1, 1000)])).unwrap();
    disk.set_room(Some(700));
    for _ in 0..3 {
        let error = store.append(refs(&[sent(1, 2, 1000)])).unwrap_err();
        assert!(error.is_full() && error.to_string().contains("make room"), "{error}");
    }
    disk.set_room(None);
    store.append(refs(&[sent(1, 2, 1000)])).unwrap();
    drop(store);
    disk.recover(1);
    let all = [opened(1), sent(1, 1, 1000), sent(1, 2, 1000)];
    assert_eq!(records(&open(&disk).unwrap()), digest(&all));
}

#[test]
fn without_room_for_a_new_segment_the_old_one_serves_on() {
    let disk = Disk::default();
    let mut store = open(&disk).unwrap();
    store.append(refs(&[opened(1), sent(1, 1, 3 << 20)])).unwrap();
    // Room for the old one, and not for another beside it.
    disk.set_room(Some(SLACK as usize + (9 << 19)));
    let mut id = 1;
    while disk.length() < SLACK as usize + (13 << 19) {
        id += 1;
        assert!(id < 40, "it was begun anew without the room for it");
        store.append(refs(&[sent(1, id, 1 << 20), settled(1, id)])).unwrap();
    }
    disk.set_room(None);
    for _ in 0..16 {
        id += 1;
        store.append(refs(&[sent(1, id, 1 << 20), settled(1, id)])).unwrap();
    }
    assert!(disk.length() < SLACK as usize + (8 << 20), "it was begun anew");
    drop(store);
    disk.recover(3);
    let store = open(&disk).unwrap();
    assert_eq!(records(&store).len(), 3);
    assert_eq!(store.generation(), 2);
}

#[test]
fn a_disk_that_refuses_to_force_is_never_trusted_again() {
    let disk = Disk::default();
    let mut store = open(&disk).unwrap();
    store.append(refs(&[opened(1)])).unwrap();
    disk.refuse_force(true);
    assert!(store.append(refs(&[sent(1, 1, 10)])).is_err());
    disk.refuse_force(false);
    let error = store.append(refs(&[sent(1, 1, 10)])).unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    drop(store);
    disk.recover(9);
    open(&disk).unwrap().append(refs(&[sent(1, 1, 10)])).unwrap();
}
