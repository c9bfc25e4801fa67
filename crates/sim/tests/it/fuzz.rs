//! The fuzz targets on stable: the committed corpus, then inputs from a seed. `STEADFAST_FUZZ_ROUNDS` sets how many.

use steadfast_sim::fuzz;
use steadfast_sim::rng::Rng;

fn rounds() -> u64 {
    std::env::var("STEADFAST_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file?.path());
    let corpus: std::io::Result<Vec<_>> = files.map(read).collect();
    corpus.unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

/// A corpus entry, or well-formed nonsense, with a few bytes changed.
fn input(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    mutated(rng, corpus, fuzz::plausible)
}

fn mutated(rng: &mut Rng, corpus: &[Vec<u8>], plausible: fn(&mut Rng) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = if rng.chance(30) && !corpus.is_empty() {
        corpus[rng.range(0, corpus.len() as u64) as usize].clone()
    } else {
        plausible(rng)
    };
    for _ in 0..rng.range(0, 4) {
        if !bytes.is_empty() {
            let at = rng.range(0, bytes.len() as u64) as usize;
            match rng.range(0, 3) {
                0 => bytes[at] = rng.next() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, rng.next() as u8),
            }
        }
    }
    bytes
}

#[test]
fn fuzz_frames() {
    let corpus = corpus("frames");
    for bytes in &corpus {
        fuzz::frames(bytes);
    }
    let mut rng = Rng::new(1);
    for _ in 0..rounds() {
        fuzz::frames(&input(&mut rng, &corpus));
    }
}

#[test]
fn fuzz_hostile() {
    let corpus = corpus("hostile");
    for bytes in &corpus {
        fuzz::hostile(bytes);
    }
    let mut rng = Rng::new(2);
    for _ in 0..rounds() {
        fuzz::hostile(&input(&mut rng, &corpus));
    }
}

#[test]
fn fuzz_calls() {
    let corpus = corpus("calls");
    for bytes in &corpus {
        fuzz::calls(bytes);
    }
    let mut rng = Rng::new(3);
    for _ in 0..rounds() {
        let mut bytes = input(&mut rng, &corpus);
        if let Some(version) = bytes.first_mut().filter(|_| rng.chance(90)) {
            // Past the version, or little is reached.
            *version = 1;
        }
        fuzz::calls(&bytes);
    }
}

#[test]
fn fuzz_homa_packets() {
    let corpus = corpus("homa_packets");
    for bytes in &corpus {
        fuzz::homa::packets(bytes);
    }
    let mut rng = Rng::new(4);
    for _ in 0..rounds() {
        // The first step of a sequence is a packet more often than not.
        let bytes = mutated(&mut rng, &corpus, fuzz::homa::plausible);
        fuzz::homa::packets(bytes.get(2..).unwrap_or_default());
    }
}

#[test]
fn fuzz_homa_hostile() {
    let corpus = corpus("homa_hostile");
    for bytes in &corpus {
        fuzz::homa::hostile(bytes);
    }
    let mut rng = Rng::new(5);
    for _ in 0..rounds() {
        fuzz::homa::hostile(&mutated(&mut rng, &corpus, fuzz::homa::plausible));
    }
}

#[test]
fn fuzz_backplane_texts() {
    let corpus = corpus("backplane_texts");
    for bytes in &corpus {
        fuzz::backplane::texts(bytes);
    }
    let mut rng = Rng::new(6);
    for _ in 0..rounds() {
        fuzz::backplane::texts(&mutated(&mut rng, &corpus, fuzz::backplane::plausible_text));
    }
}

#[test]
fn fuzz_backplane_frames() {
    let corpus = corpus("backplane_frames");
    for bytes in &corpus {
        fuzz::backplane::frames(bytes);
    }
    let mut rng = Rng::new(7);
    for _ in 0..rounds() {
        fuzz::backplane::frames(&mutated(&mut rng, &corpus, fuzz::backplane::plausible));
    }
}

#[test]
fn fuzz_backplane_hostile() {
    let corpus = corpus("backplane_frames");
    for bytes in &corpus {
        fuzz::backplane::hostile(bytes);
    }
    let mut rng = Rng::new(8);
    for _ in 0..rounds() {
        fuzz::backplane::hostile(&mutated(&mut rng, &corpus, fuzz::backplane::plausible));
    }
}

#[test]
fn fuzz_backplane_agent() {
    let corpus = corpus("backplane_agent");
    for bytes in &corpus {
        fuzz::backplane::agent(bytes);
    }
    let mut rng = Rng::new(9);
    for _ in 0..rounds() {
        fuzz::backplane::agent(&mutated(&mut rng, &corpus, fuzz::backplane::plausible_agent));
    }
}

#[test]
fn fuzz_exchange() {
    let corpus = corpus("exchange");
    for bytes in &corpus {
        fuzz::backplane::exchange(bytes);
    }
    let mut rng = Rng::new(10);
    for _ in 0..rounds() {
        fuzz::backplane::exchange(&mutated(&mut rng, &corpus, fuzz::backplane::plausible_exchange));
    }
}
