//! Networks that lose, repeat and reorder packets, and servers that restart: every call ends once, with an outcome that is
//! true, and no handler runs twice for one.

use crate::common::Directory;
use crate::world::{GUARD, block_on, endpoint};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steadfast::homa::Peer;
use steadfast::rpc::{CallOptions, Request, Response, Rpc};
use steadfast::{DropReason, Identity, Outcome};
use steadfast_testbed::{Lab, Loss, Settings, isolated};
use tokio::sync::{mpsc, oneshot};

/// Calls of one client.
const CALLS: u32 = 400;
/// Of them under way at a time.
const AT_ONCE: usize = 32;

/// How often each call was executed, whichever process did it.
#[derive(Default)]
struct Executed(Mutex<HashMap<u32, u32>>);

impl Executed {
    fn count(&self, number: u32) {
        *self.0.lock().unwrap().entry(number).or_default() += 1;
    }

    fn times(&self, number: u32) -> u32 {
        self.0.lock().unwrap().get(&number).copied().unwrap_or(0)
    }
}

/// What the network does to packets.
fn bad(settings: &mut Settings) {
    settings.rate = Some(100_000_000);
    settings.loss = Loss::Independent(0.03);
    settings.duplication = 0.1;
    settings.delay = Duration::from_millis(1);
    settings.jitter = Duration::from_millis(8);
    settings.reorder = true;
}

fn body(number: u32) -> Vec<u8> {
    let length = match number % 20 {
        0 => 120_000,
        1..4 => 9000,
        _ => 100,
    };
    let mut body = vec![number as u8; length];
    body[..4].copy_from_slice(&number.to_be_bytes());
    body
}

/// What became of a call, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    number: u32,
    outcome: Outcome,
    /// The response is the one to this request.
    own: bool,
}

/// One call; some have little time, some are cancelled.
async fn one(rpc: Rpc, number: u32) -> Ended {
    let body = body(number);
    let limit = if number % 7 == 3 { Duration::from_millis(6) } else { GUARD };
    let options = CallOptions::default().deadline(limit);
    let result = if number % 11 == 5 {
        match rpc.start(body.clone(), options).await {
            Ok(pending) => {
                tokio::time::sleep(Duration::from_millis(u64::from(number % 5))).await;
                pending.cancel().await
            }
            Err(error) => Err(error),
        }
    } else {
        rpc.call(body.clone(), options).await
    };
    match result {
        Ok(response) => {
            let own = response.into_bytes().await.unwrap() == body;
            Ended { number, outcome: Outcome::Delivered, own }
        }
        Err(error) => Ended { number, outcome: error.outcome(), own: true },
    }
}

/// All calls, so many at a time; each is told when it has ended.
async fn all(peer: &Peer, told: &mpsc::UnboundedSender<u32>) -> Vec<Ended> {
    let rpc = Rpc::over_homa(peer, 1);
    let (mut calls, mut ended) = (tokio::task::JoinSet::new(), Vec::new());
    for number in 0..CALLS {
        if calls.len() >= AT_ONCE {
            ended.push(calls.join_next().await.unwrap().unwrap());
            let _nobody_listens = told.send(ended.len() as u32);
        }
        calls.spawn(one(rpc.clone(), number));
    }
    while let Some(last) = calls.join_next().await {
        ended.push(last.unwrap());
        let _nobody_listens = told.send(ended.len() as u32);
    }
    ended
}

/// Each call has one outcome, which agrees with how often it was executed.
fn judge(ended: &[Ended], executed: &Executed) -> HashMap<&'static str, usize> {
    let mut numbers: Vec<u32> = ended.iter().map(|ended| ended.number).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..CALLS), "each call ends once");
    let mut kinds = HashMap::new();
    for one in ended {
        let times = executed.times(one.number);
        assert!(one.own, "{one:?} got another's response");
        let (kind, is_true) = match one.outcome {
            Outcome::Delivered => ("delivered", times == 1),
            Outcome::Dropped(DropReason::Cancelled) => ("cancelled", times == 0),
            Outcome::Dropped(_) => ("dropped", times == 0),
            _ => ("unknown", times <= 1),
        };
        assert!(is_true, "{one:?} was executed {times} times");
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Runs clients' calls over a bad network against a server that restarts so many times; it is asked to whenever so many
/// more calls have ended.
fn calls(restarts: u32) -> (Vec<Ended>, Arc<Executed>) {
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let link = lab.link("wire", &a, &b).connect().unwrap();
    let directory = Directory::new();
    let path = directory.0.join("identity");
    let a_key = Identity::generate().unwrap();
    let a_print = a_key.fingerprint();
    let executed = Arc::new(Executed::default());
    let (contact_out, contact_in) = oneshot::channel();
    let (again, mut orders) = mpsc::unbounded_channel::<()>();
    let counter = Arc::clone(&executed);
    let server = b.thread("server", move || {
        block_on(async move {
            let mut contact_out = Some(contact_out);
            let mut port = 0;
            loop {
                let counter = Arc::clone(&counter);
                let handler = move |request: Request| {
                    let counter = Arc::clone(&counter);
                    async move {
                        let body = request.into_body().into_bytes().await.unwrap();
                        let number = u32::from_be_bytes(body[..4].try_into().unwrap());
                        counter.count(number);
                        if number % 9 == 4 {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        Response::new(body)
                    }
                };
                let endpoint =
                    endpoint().identity_file(&path).trust(a_print).port(port).bind().await.unwrap();
                port = endpoint.port();
                let serving = endpoint.homa().unwrap().serve(1, handler).unwrap();
                if let Some(out) = contact_out.take() {
                    out.send(endpoint.contact()).unwrap();
                }
                let over = orders.recv().await.is_none();
                // Without a farewell to those who wait.
                drop(serving);
                endpoint.close("").await;
                if over {
                    return;
                }
            }
        });
    });
    let ended = a.run(|| {
        block_on(async {
            let endpoint = endpoint().identity(a_key).bind().await.unwrap();
            let peer = endpoint.homa().unwrap().connect(contact_in.await.unwrap()).await.unwrap();
            link.set(bad);
            let (told, mut progress) = mpsc::unbounded_channel();
            let restarting = async {
                for restart in 1..=restarts {
                    let enough = CALLS * restart / (restarts + 1);
                    while progress.recv().await.unwrap() < enough {}
                    again.send(()).unwrap();
                }
            };
            let (ended, ()) = tokio::join!(all(&peer, &told), restarting);
            link.set(|settings| *settings = Settings::default());
            // What was late has arrived by the time that this one is answered.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Rpc::over_homa(&peer, 1)
                .call(CALLS.to_be_bytes().to_vec(), CallOptions::default())
                .await
                .unwrap();
            drop(again);
            let counters = link.counters();
            for way in [counters.a_to_b, counters.b_to_a] {
                assert!(way.dropped_loss > 10 && way.duplicated > 30, "the network was not bad: {way:?}");
            }
            ended
        })
    });
    server.join().unwrap();
    (ended, executed)
}

#[test]
fn a_network_that_loses_repeats_and_reorders_ends_every_call_once_and_truly() {
    isolated(
        "homa::faults::a_network_that_loses_repeats_and_reorders_ends_every_call_once_and_truly",
        || {
            let (ended, executed) = calls(0);
            let kinds = judge(&ended, &executed);
            // All but those with little time and those that are cancelled.
            assert!(kinds["delivered"] >= CALLS as usize * 2 / 3, "{kinds:?}");
            assert!(kinds.len() > 1, "nothing was late and nothing cancelled: {kinds:?}");
        },
    );
}

#[test]
fn a_server_that_restarts_on_a_bad_network_executes_nothing_twice() {
    isolated("homa::faults::a_server_that_restarts_on_a_bad_network_executes_nothing_twice", || {
        let (ended, executed) = calls(2);
        let kinds = judge(&ended, &executed);
        assert!(kinds["delivered"] >= CALLS as usize / 4, "{kinds:?}");
    });
}
