use super::Epoch;
use crate::config::Config;
use crate::context::Context;
use crate::journal::Effect;
use alloc::vec::Vec;
use steadfast_wire::frame::{MAX_PENDING_TOKENS, Resume};
use steadfast_wire::{Fingerprint, MessageId, RangeSet, SessionId, Token};

const SESSION: SessionId = SessionId(1);

fn context(seed: u8) -> Context {
    Context::new(Config::default(), Fingerprint([seed; 32]), [seed; 32])
}

/// What one side claims.
fn claim(confirmed: Option<Token>, offered: &[Token], holds: Option<Token>) -> Resume {
    Resume {
        session: SESSION,
        fresh: false,
        per_urgency: false,
        expects: true,
        confirmed,
        offered: offered.to_vec(),
        holds,
        next: MessageId(1),
        shut: None,
        received: RangeSet::new(),
        delivered: RangeSet::new(),
        dropped: RangeSet::new(),
        partial: Vec::new(),
        charged: [0; 2],
        limits: [0; 2],
    }
}

fn view(epoch: &Epoch) -> Resume {
    claim(epoch.confirmed(), epoch.offered(), epoch.holds)
}

/// Both sides hold the other's token, and each knows it.
fn pair(cx: &mut Context) -> (Epoch, Epoch) {
    let (mut a, mut b) = (Epoch::default(), Epoch::default());
    for _ in 0..2 {
        let (ours, theirs) = (a.offer(cx), b.offer(cx));
        b.hold(ours);
        a.hold(theirs);
        assert!(a.confirm(ours) && b.confirm(theirs));
    }
    (a, b)
}

#[test]
fn a_claim_lists_all_that_the_peer_may_hold() {
    let mut cx = context(1);
    let (mut a, b) = pair(&mut cx);
    // Claims that were lost, and one that came through without its answer: each leaves the peer with one of the list.
    let offers: Vec<Token> = (0..MAX_PENDING_TOKENS - 1).map(|_| a.offer(&mut cx)).collect();
    for held in a.confirmed().into_iter().chain(offers) {
        let mut peer = Epoch::default();
        peer.hold(held);
        peer.restore_offered(b.current().expect("a token"));
        assert_eq!(peer.check(&view(&a), false), Ok(()), "holding {held:?}");
    }
}

#[test]
fn an_older_claim_is_refused_once_a_newer_one_was_taken_over() {
    let mut cx = context(2);
    let (mut a, mut b) = pair(&mut cx);
    let old = view(&a);
    a.offer(&mut cx);
    let new = view(&a);
    assert_eq!(b.check(&old, false), Ok(()), "still the latest");
    assert_eq!(b.take_over(&mut cx, SESSION, &new), Some(Effect::Hold(a.current().expect("a token"))));
    assert_eq!(b.holds, a.current());
    assert_eq!(b.check(&old, false), Err(()));
    assert!(b.knows(&new) && !b.knows(&old));
}

#[test]
fn a_second_claimant_of_the_same_state_draws_another_token_and_is_refused() {
    let mut cx = context(3);
    let (a, mut b) = pair(&mut cx);
    let state = (a.confirmed().expect("confirmed"), a.holds);
    let (mut first_cx, mut second_cx) = (context(4), context(5));
    let mut claims = [&mut first_cx, &mut second_cx].map(|cx| {
        let mut copy = Epoch::default();
        copy.restore_offered(state.0);
        copy.confirm(state.0);
        copy.hold(state.1.expect("held"));
        copy.offer(cx);
        view(&copy)
    });
    assert_eq!(b.check(&claims[0], false), Ok(()));
    let _told = b.take_over(&mut cx, SESSION, &claims[0]);
    assert_eq!(b.check(&claims[1], false), Err(()));
    claims[1].offered.clear();
    assert_eq!(b.check(&claims[1], false), Err(()), "nor without a new token");
}

#[test]
fn a_peer_that_holds_what_we_never_offered_is_refused() {
    let mut cx = context(6);
    let (a, b) = pair(&mut cx);
    let mut claim = view(&b);
    assert_eq!(a.check(&claim, false), Ok(()));
    claim.holds = Some(Token([9; 16]));
    assert_eq!(a.check(&claim, false), Err(()));
    claim.holds = None;
    assert_eq!(a.check(&claim, false), Err(()), "it held one of ours before");
}

#[test]
fn a_claim_that_its_confirmation_overtook_is_taken_only_while_it_is_expected() {
    let mut cx = context(7);
    let (mut a, b) = pair(&mut cx);
    let on_its_way = view(&b);
    let offer = a.offer(&mut cx);
    assert!(a.confirm(offer));
    assert_eq!(a.check(&on_its_way, true), Ok(()));
    assert_eq!(a.check(&on_its_way, false), Err(()));
    a.take_over(&mut cx, SESSION, &on_its_way);
    assert_eq!(a.check(&on_its_way, true), Err(()), "once only");
}

#[test]
fn offers_are_bounded_and_the_last_one_is_repeated() {
    let mut cx = context(8);
    let mut epoch = Epoch::default();
    assert!(epoch.is_fresh());
    let offers: Vec<Token> = (0..2 * MAX_PENDING_TOKENS).map(|_| epoch.offer(&mut cx)).collect();
    assert_eq!(epoch.offered(), &offers[..MAX_PENDING_TOKENS]);
    assert!(offers[MAX_PENDING_TOKENS..].iter().all(|offer| *offer == offers[MAX_PENDING_TOKENS - 1]));
    // One that is confirmed takes those before it along.
    assert!(epoch.confirm(offers[1]));
    assert_eq!(epoch.offered(), &offers[2..MAX_PENDING_TOKENS]);
    assert!(!epoch.confirm(offers[0]) && epoch.confirm(offers[1]));
    assert!(!epoch.is_fresh());
}

#[test]
fn a_claim_that_a_newer_one_overtook_is_late_and_one_of_an_older_state_is_not() {
    let mut cx = context(9);
    let (mut a, mut b) = pair(&mut cx);
    let before = (a.confirmed().expect("confirmed"), a.holds.expect("held"));
    a.offer(&mut cx);
    let late = view(&a);
    a.offer(&mut cx);
    let newer = view(&a);
    assert!(!b.is_superseded(&late), "nothing overtook it yet");
    let _told = b.take_over(&mut cx, SESSION, &newer);
    assert!(b.is_superseded(&late) && !b.is_superseded(&newer));
    // The same process from an image of before: its token is a new one.
    let mut restored = Epoch::default();
    restored.restore_offered(before.0);
    restored.confirm(before.0);
    restored.hold(before.1);
    restored.offer(&mut context(10));
    let older = view(&restored);
    assert!(!b.is_superseded(&older));
    assert_eq!(b.check(&older, false), Err(()));
}
