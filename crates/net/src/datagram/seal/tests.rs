//! Sealed packets against replays, losses, forgeries and the ends of what can be counted.

use super::keyring::{Opener, split};
use super::*;
use std::collections::HashSet;
use steadfast_wire::rng::Rng;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305];

fn offer(algorithm: Algorithm) -> Offer {
    let secret = std::array::from_fn(|index| index as u8);
    Offer { algorithm, key_id: 0x0102_0304, secret }
}

/// Both ends of one offer, with short generations.
fn ends(generation: u64) -> (Sealer, Opener) {
    let offer = offer(Algorithm::Aes128Gcm);
    (Sealer::with_generation(&offer, generation), Opener::with_generation(&offer, generation))
}

fn seal(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    sealer.seal(&mut packet, |out| out.extend_from_slice(plain)).unwrap();
    packet
}

fn open(opener: &mut Opener, packet: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut packet = packet.to_vec();
    let (header, body) = split(&mut packet)?;
    opener.open(&header, body).map(|plain| plain.to_vec())
}

/// A packet with this counter.
fn at(sealer: &mut Sealer, counter: u64) -> Vec<u8> {
    sealer.counter = counter;
    seal(sealer, &counter.to_be_bytes())
}

/// Computed by another implementation of HKDF and of these algorithms.
#[test]
fn golden_packets() {
    let expected = [
        [
            "400102030400000000000000008aace21ba55bb7c7a59ec41de65ed9ac177ce77732c3db2d91",
            "41010203040000000000000002e182765b27cc0012026b96b582e5b6169621c2efbc1f4b3512",
        ],
        [
            "40010203040000000000000000a83fbe5c0330fcbe4a23eab7536b2f03905d7b04295d907c07",
            "41010203040000000000000002ede2c896302b23f81029e2bd8a9abe740c27062e34b9c9d81a",
        ],
        [
            "4001020304000000000000000038313f9bf34843c943ab1ecec244944f0212d28f8fe10c46be",
            "41010203040000000000000002782df57eb9eed73e307cb8e41fc6a8af4efae302c14ea2040b",
        ],
    ];
    for (algorithm, expected) in ALGORITHMS.into_iter().zip(expected) {
        // Two packets a generation: the third is of the second.
        let mut sealer = Sealer::with_generation(&offer(algorithm), 2);
        let packets: Vec<_> = (0..3).map(|_| seal(&mut sealer, b"steadfast")).collect();
        let hex = |packet: &[u8]| data_encoding::HEXLOWER.encode(packet);
        assert_eq!([hex(&packets[0]), hex(&packets[2])], expected, "{algorithm:?}");
        assert_eq!(packets[0].len(), 9 + Sealer::OVERHEAD);
    }
}

#[test]
fn an_offer_travels() {
    for algorithm in ALGORITHMS {
        let offer = offer(algorithm);
        let mut bytes = offer.encode();
        assert_eq!(Offer::decode(&bytes).as_ref(), Some(&offer));
        assert!(!format!("{offer:?}").contains("31"), "no secret in a log: {offer:?}");
        bytes[0] = 9;
        assert_eq!(Offer::decode(&bytes), None);
    }
}

#[test]
fn a_ring_finds_the_owner_and_opens_in_place() {
    let mut ring = Keyring::new(ALGORITHMS.len());
    let mut sealers: Vec<_> =
        ALGORITHMS.iter().map(|algorithm| Sealer::new(ring.offer(*algorithm, *algorithm).unwrap())).collect();
    let full = ring.offer(Algorithm::Aes128Gcm, Algorithm::Aes128Gcm).unwrap_err();
    assert!(matches!(full, KeyringError::Full(3)), "{full}");
    for round in 0..100usize {
        for (sealer, algorithm) in sealers.iter_mut().zip(ALGORITHMS) {
            let plain = vec![round as u8; round * 7];
            let mut packet = seal(sealer, &plain);
            assert_eq!(ring.open(&mut packet), Ok((&algorithm, &mut plain.clone()[..])));
        }
    }
    // A key that is gone is a stranger's.
    assert_eq!(ring.remove(sealers[1].key_id()), Some(Algorithm::Aes256Gcm));
    assert_eq!(ring.open(&mut seal(&mut sealers[1], b"")), Err(OpenError::UnknownKey));
    assert_eq!((ring.len(), ring.counters().opened, ring.counters().unknown), (2, 300, 1));
}

#[test]
fn the_same_id_is_not_enough() {
    let mut ring = Keyring::new(2);
    let theirs = ring.offer("theirs", Algorithm::Aes128Gcm).unwrap();
    for algorithm in ALGORITHMS {
        let forged = Offer { algorithm, key_id: theirs.key_id, secret: [7; SECRET] };
        assert_eq!(ring.open(&mut seal(&mut Sealer::new(forged), b"hello")), Err(OpenError::Forged));
    }
    // The forgeries changed nothing, and had the counter of the first packet.
    let mut sealer = Sealer::new(theirs);
    assert!(ring.open(&mut seal(&mut sealer, b"hello")).is_ok());
    assert_eq!(ring.counters().forged, 3);
}

#[test]
fn no_packet_opens_twice_in_whichever_order() {
    let (mut sealer, mut opener) = ends(GENERATION);
    let packets: Vec<_> = (0..3 * WINDOW).map(|counter| at(&mut sealer, counter)).collect();
    let mut rng = Rng::new([3; 32]);
    let mut order: Vec<usize> = (0..packets.len()).collect();
    // Each up to half a window away from its place.
    order.sort_by_cached_key(|place| *place as u64 + rng.bits() % (WINDOW / 2));
    for place in &order {
        assert_eq!(open(&mut opener, &packets[*place]), Ok((*place as u64).to_be_bytes().to_vec()));
        assert_eq!(open(&mut opener, &packets[*place]), Err(OpenError::Replayed));
    }
    for packet in &packets {
        assert!(matches!(open(&mut opener, packet), Err(OpenError::Replayed | OpenError::TooOld)));
    }
}

#[test]
fn the_window_ends_exactly() {
    let (mut sealer, mut opener) = ends(GENERATION);
    let old = [at(&mut sealer, 0), at(&mut sealer, 1)];
    open(&mut opener, &at(&mut sealer, WINDOW)).unwrap();
    assert_eq!(open(&mut opener, &old[0]), Err(OpenError::TooOld));
    assert!(open(&mut opener, &old[1]).is_ok());
    assert_eq!(open(&mut opener, &old[1]), Err(OpenError::Replayed));
}

#[test]
fn forgeries_move_no_window() {
    let (mut sealer, mut opener) = ends(GENERATION);
    let first = seal(&mut sealer, b"first");
    let mut far = at(&mut sealer, GENERATION - 1);
    let last = far.len() - 1;
    far[last] ^= 1;
    assert_eq!(open(&mut opener, &far), Err(OpenError::Forged));
    assert!(open(&mut opener, &first).is_ok(), "it would be too old if the other had counted");
}

#[test]
fn generations_change_with_late_and_lost_packets() {
    const SHORT: u64 = 3 * WINDOW;
    let (mut sealer, mut opener) = ends(SHORT);
    let late = at(&mut sealer, SHORT - 1);
    let later = at(&mut sealer, SHORT - 2);
    // Everything around the change is lost but one of the next generation.
    open(&mut opener, &at(&mut sealer, 5)).unwrap();
    open(&mut opener, &at(&mut sealer, SHORT + 10)).unwrap();
    assert!(open(&mut opener, &late).is_ok());
    assert_eq!(opener.held(), 2);
    // The window reaches back to the former generation for the last time.
    open(&mut opener, &at(&mut sealer, SHORT + WINDOW - 2)).unwrap();
    assert_eq!(opener.held(), 2);
    open(&mut opener, &at(&mut sealer, SHORT + WINDOW - 1)).unwrap();
    assert_eq!(opener.held(), 1, "the former key is gone");
    assert_eq!(open(&mut opener, &later), Err(OpenError::TooOld));
    // Many changes; the lowest six bits come round.
    for number in 2..200 {
        let mut fresh = ends(SHORT).0;
        assert!(open(&mut opener, &at(&mut fresh, number * SHORT)).is_ok(), "{number}");
        assert!(opener.held() <= 2);
    }
}

#[test]
fn generations_that_were_lost_whole_are_passed() {
    const SHORT: u64 = 10;
    for lost in 0..6 {
        let (mut sealer, mut opener) = ends(SHORT);
        open(&mut opener, &at(&mut sealer, 0)).unwrap();
        let first = SHORT * (lost + 1);
        // Each packet makes one step at most, so as many are needed as there were steps.
        let tries: Vec<_> =
            (0..6).map(|try_| open(&mut opener, &at(&mut sealer, first + try_)).is_ok()).collect();
        let expected: Vec<_> = (0..6).map(|try_| lost < 4 && try_ >= lost).collect();
        assert_eq!(tries, expected, "{lost} lost");
    }
}

#[test]
fn forged_generations_cost_one_step_each_and_four_in_all() {
    let (mut sealer, mut opener) = ends(10);
    open(&mut opener, &at(&mut sealer, 0)).unwrap();
    for round in 0..3 {
        for number in (1..300).rev() {
            let held = opener.held();
            let mut forged = at(&mut ends(10).0, number * 10);
            forged[20] ^= 1;
            open(&mut opener, &forged).unwrap_err();
            assert!(opener.held() <= held + 1 && opener.held() <= 5, "round {round}, {number}");
        }
    }
    assert_eq!(opener.held(), 5);
    assert!(open(&mut opener, &at(&mut sealer, 1)).is_ok(), "the present one goes on");
    // A generation byte that does not fit its counter is not even tried.
    let forgeries = opener.forgeries;
    let mut forged = at(&mut sealer, 2);
    for wrong in 1..64 {
        forged[0] = Generation::tag(wrong);
        assert_eq!(open(&mut opener, &forged), Err(OpenError::Generation));
    }
    assert_eq!(opener.forgeries, forgeries);
}

#[test]
fn counters_and_patience_end() {
    let offer = offer(Algorithm::Aes128Gcm);
    // In one generation, or the way there would take for ever.
    let (mut sealer, mut opener) =
        (Sealer::with_generation(&offer, u64::MAX), Opener::with_generation(&offer, u64::MAX));
    let last = at(&mut sealer, u64::MAX - 1);
    let mut out = vec![1, 2];
    assert_eq!(sealer.seal(&mut out, |_| panic!("nothing is written")), Err(SealError::Exhausted));
    assert_eq!(out, [1, 2]);
    assert!(open(&mut opener, &last).is_ok());
    assert_eq!(open(&mut opener, &last), Err(OpenError::Replayed));

    let (mut sealer, mut opener) = ends(GENERATION);
    opener.max_forgeries = 3;
    let mut forged = at(&mut sealer, 7);
    forged[15] ^= 1;
    for _ in 0..3 {
        assert_eq!(open(&mut opener, &forged), Err(OpenError::Forged));
    }
    assert_eq!(open(&mut opener, &at(&mut sealer, 8)), Err(OpenError::Ended));
}

#[test]
fn no_part_of_a_packet_opens_and_no_bit_may_change() {
    let mut ring = Keyring::new(1);
    let mut sealer = Sealer::new(ring.offer((), Algorithm::fastest()).unwrap());
    let packet = seal(&mut sealer, &[0xa5; 40]);
    for length in 0..packet.len() {
        let error = ring.open(&mut packet[..length].to_vec()).unwrap_err();
        assert_eq!(error == OpenError::Short, length < Sealer::OVERHEAD, "{length}: {error}");
    }
    let mut longer = packet.clone();
    longer.push(0);
    assert_eq!(ring.open(&mut longer), Err(OpenError::Forged));
    for bit in 0..packet.len() * 8 {
        let mut changed = packet.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        ring.open(&mut changed).expect_err("one bit is another");
    }
    let mut whole = packet.clone();
    assert_eq!(ring.open(&mut whole), Ok((&(), &mut [0xa5; 40][..])));
}

/// Random bytes, and packets changed at random, among good ones: only these open, each once.
#[test]
fn noise_opens_nothing() {
    for seed in 0..30 {
        let mut rng = Rng::new([seed; 32]);
        let mut below = |limit: u64| rng.bits() % limit;
        let (mut sealer, mut opener) = ends(50);
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let mut opened = HashSet::new();
        for _ in 0..2000 {
            let packet = match below(5) {
                0 => (0..below(80)).map(|_| below(256) as u8).collect(),
                1 if !sent.is_empty() => {
                    let mut packet = sent[below(sent.len() as u64) as usize].clone();
                    for _ in 0..=below(3) {
                        let place = below(packet.len() as u64) as usize;
                        packet[place] ^= 1 << below(8);
                    }
                    packet
                }
                2 if !sent.is_empty() => sent[below(sent.len() as u64) as usize].clone(),
                _ => {
                    let packet = seal(&mut sealer, &[7; 20]);
                    sent.push(packet.clone());
                    packet
                }
            };
            match open(&mut opener, &packet) {
                Ok(plain) => {
                    assert_eq!(plain, [7; 20]);
                    assert!(sent.contains(&packet) && opened.insert(packet), "seed {seed}");
                }
                Err(OpenError::Replayed) => assert!(packet.len() >= Sealer::OVERHEAD),
                Err(_) => assert!(!sent.contains(&packet) || opened.contains(&packet), "seed {seed}"),
            }
            assert!(opener.held() <= 6);
        }
        assert_eq!(opened.len(), sent.len(), "seed {seed}");
    }
}
