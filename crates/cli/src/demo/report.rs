//! What the run showed, in figures: computed from what the hosts measured, and printed as JSON.

use std::time::Duration;

use serde::Serialize;

use super::lab::NETWORKS;
use super::protocol::{Arrived, Nanos, PathChange, Report, Sample, Sent};

/// Everything that was told about one run.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Why there was no lab, if there was none.
    pub(crate) forbidden: Option<String>,
    /// When it began.
    pub(crate) began: Option<Nanos>,
    /// When the urgent messages end at the earliest.
    pub(crate) until: Nanos,
    /// The length of the file.
    pub(crate) file_bytes: u64,
    pub(crate) cut: Option<Nanos>,
    pub(crate) healed: Option<Nanos>,
    /// When the network that was cut was first suspect after that.
    pub(crate) suspect: Option<Nanos>,
    /// When it was first used again after it came back.
    pub(crate) back: Option<Nanos>,
    /// Bytes that each network carried to the receiver.
    pub(crate) carried: Vec<u64>,
    /// Bytes of the file that have arrived.
    pub(crate) file_arrived: u64,
    pub(crate) file_done: Option<Nanos>,
    pub(crate) sent: Option<Sent>,
    pub(crate) arrived: Option<Arrived>,
}

impl Run {
    /// Takes in what a process told.
    pub(crate) fn note(&mut self, report: &Report) {
        match report {
            Report::Forbidden(reason) => self.forbidden = Some(reason.clone()),
            Report::Began { at, until, file_bytes } => {
                self.began = Some(*at);
                (self.until, self.file_bytes) = (*until, *file_bytes);
            }
            Report::Cut(at) => self.cut = Some(*at),
            Report::Healed(at) => self.healed = Some(*at),
            Report::Path { at, network, change } if network == NETWORKS[0].name => match change {
                PathChange::Suspect if self.cut.is_some() => {
                    self.suspect.get_or_insert(*at);
                }
                PathChange::Up | PathChange::Recovered if self.healed.is_some() => {
                    self.back.get_or_insert(*at);
                }
                _ => {}
            },
            Report::Carried(bytes) => self.carried.clone_from(bytes),
            Report::FileBytes(bytes) => self.file_arrived = *bytes,
            Report::FileDone(at) => self.file_done = Some(*at),
            Report::Sent(sent) => self.sent = Some(sent.clone()),
            Report::Arrived(arrived) => self.arrived = Some(arrived.clone()),
            _ => {}
        }
    }

    /// The time since the beginning.
    pub(crate) fn since(&self, at: Nanos) -> Duration {
        Duration::from_nanos(at.saturating_sub(self.began.unwrap_or(at)))
    }
}

/// The result, as `--json` prints it. Times are milliseconds, those that end in `_at_ms` from the beginning of the run.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// Whether there were two hosts and two networks; otherwise the loopback.
    pub(crate) emulated: bool,
    /// Why not, and what would help.
    pub(crate) reason: Option<String>,
    pub(crate) duration_ms: f64,
    pub(crate) file_bytes: u64,
    pub(crate) file_done_at_ms: Option<f64>,
    /// Of the file as it was sent.
    pub(crate) sha256: String,
    pub(crate) sha256_match: bool,
    /// Urgent messages without an answer, plus bytes that are missing from the file.
    pub(crate) lost: u64,
    /// Urgent messages and answers that arrived twice.
    pub(crate) duplicated: u64,
    pub(crate) receipts: Receipts,
    /// Bytes that the sender gave to a second path, because the first did not confirm them.
    pub(crate) bytes_resent: u64,
    pub(crate) cut_at_ms: Option<f64>,
    pub(crate) healed_at_ms: Option<f64>,
    /// From the cut to the suspicion.
    pub(crate) suspect_after_ms: Option<f64>,
    /// From the return of the network to its use.
    pub(crate) back_after_ms: Option<f64>,
    /// The longest time without any answer to an urgent message.
    pub(crate) longest_gap_ms: f64,
    /// The same over plain TCP.
    pub(crate) tcp_longest_gap_ms: Option<f64>,
    pub(crate) foreground: RoundTrips,
    pub(crate) tcp: Option<RoundTrips>,
    pub(crate) networks: Vec<NetworkFigures>,
}

/// What the receipts of all messages say, the file's among them.
#[derive(Debug, Serialize)]
pub(crate) struct Receipts {
    pub(crate) delivered: u64,
    pub(crate) other: u64,
}

/// Small messages and their answers. `p50_ms` and `p99_ms` leave out those that were under way or sent while the network
/// was cut; `worst_ms` does not.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct RoundTrips {
    pub(crate) count: u64,
    pub(crate) answered: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) worst_ms: f64,
}

/// One emulated network.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkFigures {
    pub(crate) name: &'static str,
    pub(crate) rate_mbit: f64,
    pub(crate) rtt_ms: f64,
    /// Everything that it carried to the receiver, headers and urgent messages included.
    pub(crate) bytes_carried: u64,
}

impl Figures {
    /// The figures of a run that has ended; `None` if a part of it is missing.
    pub(crate) fn of(run: &Run) -> Option<Self> {
        let (began, sent, arrived) = (run.began?, run.sent.as_ref()?, run.arrived.as_ref()?);
        let cut = run.cut.zip(run.healed);
        let last = sent.urgent.iter().flat_map(|sample| [Some(sample.sent), sample.answered]).flatten().max();
        let end = last.into_iter().chain(run.file_done).max().unwrap_or(began);
        let unanswered = sent.urgent.iter().filter(|sample| sample.answered.is_none()).count() as u64;
        let at = |time: Nanos| milliseconds(time.saturating_sub(began));
        let between = |from: Option<Nanos>, to: Option<Nanos>| Some(milliseconds(to?.saturating_sub(from?)));
        let tcp = !sent.tcp.is_empty();
        let networks = NETWORKS.iter().zip(&run.carried).map(|(plan, bytes)| NetworkFigures {
            name: plan.name,
            rate_mbit: plan.rate_mbit,
            rtt_ms: plan.one_way.as_secs_f64() * 2e3,
            bytes_carried: *bytes,
        });
        Some(Self {
            emulated: run.forbidden.is_none(),
            reason: run.forbidden.clone(),
            duration_ms: at(end),
            file_bytes: run.file_bytes,
            file_done_at_ms: run.file_done.map(at),
            sha256: sent.sha256.clone(),
            sha256_match: !sent.sha256.is_empty() && sent.sha256 == arrived.sha256,
            lost: unanswered + run.file_bytes.saturating_sub(arrived.file_bytes),
            duplicated: arrived.urgent_twice + sent.answers_twice,
            receipts: Receipts { delivered: sent.receipts_delivered, other: sent.receipts_other },
            bytes_resent: sent.bytes_resent,
            cut_at_ms: run.cut.map(at),
            healed_at_ms: run.healed.map(at),
            suspect_after_ms: between(run.cut, run.suspect),
            back_after_ms: between(run.healed, run.back),
            longest_gap_ms: milliseconds(longest_gap(&sent.urgent)),
            tcp_longest_gap_ms: tcp.then(|| milliseconds(longest_gap(&sent.tcp))),
            foreground: RoundTrips::of(&sent.urgent, cut),
            tcp: tcp.then(|| RoundTrips::of(&sent.tcp, cut)),
            networks: networks.collect(),
        })
    }

    /// How long the network was cut.
    pub(crate) fn gone_ms(&self) -> Option<f64> {
        Some(self.healed_at_ms? - self.cut_at_ms?)
    }

    /// Whether everything arrived, once.
    pub(crate) fn is_good(&self) -> bool {
        self.sha256_match && self.lost == 0 && self.duplicated == 0 && self.receipts.other == 0
    }
}

impl RoundTrips {
    fn of(samples: &[Sample], cut: Option<(Nanos, Nanos)>) -> Self {
        let times = |samples: &mut dyn Iterator<Item = &Sample>| {
            let mut times: Vec<_> = samples.filter_map(Sample::round_trip).collect();
            times.sort_unstable();
            times
        };
        let all = times(&mut samples.iter());
        let calm = times(&mut samples.iter().filter(|sample| sample.is_outside(cut)));
        Self {
            count: samples.len() as u64,
            answered: all.len() as u64,
            p50_ms: milliseconds(percentile(&calm, 50)),
            p99_ms: milliseconds(percentile(&calm, 99)),
            worst_ms: milliseconds(percentile(&all, 100)),
        }
    }
}

impl Sample {
    /// From sending to the answer.
    pub(crate) fn round_trip(&self) -> Option<Nanos> {
        self.answered.map(|answered| answered.saturating_sub(self.sent))
    }

    /// Whether the cut cannot have touched it: answered before, or sent after.
    fn is_outside(&self, cut: Option<(Nanos, Nanos)>) -> bool {
        cut.is_none_or(|(from, to)| self.sent >= to || self.answered.is_some_and(|answered| answered <= from))
    }
}

/// The longest time between two answers, from the first message on; what is still unanswered at the last message counts.
pub(crate) fn longest_gap(samples: &[Sample]) -> Nanos {
    let mut answers: Vec<_> = samples.iter().filter_map(|sample| sample.answered).collect();
    answers.extend(samples.iter().map(|sample| sample.sent).min());
    let last_sent = samples.iter().filter(|sample| sample.answered.is_none()).map(|sample| sample.sent).max();
    answers.extend(last_sent);
    answers.sort_unstable();
    answers.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// The smallest value that at least `percent` of the sorted values do not exceed; 0 if there are none.
pub(crate) fn percentile(sorted: &[Nanos], percent: usize) -> Nanos {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Milliseconds to a thousandth.
fn milliseconds(time: Nanos) -> f64 {
    (time as f64 / 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sent: Nanos, answered: impl Into<Option<Nanos>>) -> Sample {
        Sample { sent, answered: answered.into() }
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<Nanos> = (1..=200).collect();
        assert_eq!(percentile(&values, 50), 100);
        assert_eq!(percentile(&values, 99), 198);
        assert_eq!(percentile(&values, 100), 200);
        assert_eq!(percentile(&[7], 1), 7);
        assert_eq!(percentile(&[], 50), 0);
    }

    #[test]
    fn the_gap_is_between_answers_in_the_order_of_their_arrival() {
        assert_eq!(longest_gap(&[]), 0);
        assert_eq!(longest_gap(&[sample(0, 5), sample(10, 15), sample(20, 55), sample(30, 40)]), 25);
        // The wait for the first answer counts, too.
        assert_eq!(longest_gap(&[sample(0, 50), sample(10, 51)]), 50);
    }

    #[test]
    fn a_gap_that_never_ends_lasts_until_the_last_message() {
        assert_eq!(longest_gap(&[sample(0, 5), sample(10, None), sample(900, None)]), 895);
        assert_eq!(longest_gap(&[sample(0, None), sample(70, None)]), 70);
    }

    #[test]
    fn percentiles_leave_out_what_the_cut_touched() {
        let samples = [
            sample(0, 1_000_000),
            sample(90, 9_000_000),
            sample(150, 8_000_000),
            sample(2_000_000, 4_000_000),
        ];
        let trips = RoundTrips::of(&samples, Some((1_500_000, 2_000_000)));
        assert_eq!((trips.count, trips.answered), (4, 4));
        assert_eq!((trips.p50_ms, trips.p99_ms, trips.worst_ms), (1.0, 2.0, 9.0));
        let trips = RoundTrips::of(&samples, None);
        assert_eq!((trips.p50_ms, trips.p99_ms), (2.0, 9.0));
    }

    #[test]
    fn a_run_is_good_only_if_all_arrived_once() {
        let mut run = Run { began: Some(0), file_bytes: 10, ..Run::default() };
        assert!(Figures::of(&run).is_none());
        let sent = Sent {
            urgent: vec![sample(0, 5)],
            sha256: "ab".into(),
            receipts_delivered: 2,
            ..Sent::default()
        };
        let arrived = Arrived { file_bytes: 10, sha256: "ab".into(), ..Arrived::default() };
        run.sent = Some(sent.clone());
        run.arrived = Some(arrived.clone());
        assert!(Figures::of(&run).unwrap().is_good());

        let short = Arrived { file_bytes: 7, ..arrived.clone() };
        let figures =
            Figures::of(&Run { arrived: Some(short), sent: Some(sent.clone()), ..copy(&run) }).unwrap();
        assert_eq!((figures.lost, figures.is_good()), (3, false));
        let silent = Sent { urgent: vec![sample(0, None)], ..sent.clone() };
        let figures =
            Figures::of(&Run { sent: Some(silent), arrived: Some(arrived.clone()), ..copy(&run) }).unwrap();
        assert_eq!((figures.lost, figures.is_good()), (1, false));
        let twice = Arrived { urgent_twice: 1, ..arrived.clone() };
        let figures =
            Figures::of(&Run { arrived: Some(twice), sent: Some(sent.clone()), ..copy(&run) }).unwrap();
        assert_eq!((figures.duplicated, figures.is_good()), (1, false));
        let other = Arrived { sha256: "cd".into(), ..arrived };
        let figures = Figures::of(&Run { arrived: Some(other), sent: Some(sent), ..copy(&run) }).unwrap();
        assert!(!figures.is_good());
    }

    fn copy(run: &Run) -> Run {
        Run { began: run.began, file_bytes: run.file_bytes, ..Run::default() }
    }
}
