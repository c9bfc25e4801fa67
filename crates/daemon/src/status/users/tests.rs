use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    // However much one test does in a turn.
    pin!(tokio::task::unconstrained(future)).poll(&mut Context::from_waker(Waker::noop()))
}

/// Connections of a user that came in.
fn come(users: &Arc<Users>, number: u32, count: usize) -> Vec<Asker> {
    (0..count).map(|_| users.enter(number).unwrap()).collect()
}

fn begin(asker: &Asker) -> Answering<'_> {
    match poll(asker.answer(false, || ())) {
        Poll::Ready(Some(((), answering))) => answering,
        _ => panic!("it waits"),
    }
}

/// Those that gave way, by their places.
fn ended(askers: &[Asker]) -> Vec<usize> {
    askers.iter().enumerate().filter(|(_, asker)| poll(asker.ended()).is_ready()).map(|(at, _)| at).collect()
}

#[tokio::test]
async fn who_asks_waits_for_his_own_answers_alone() {
    let users = Arc::new(Users::default());
    let (one, other) = (come(&users, 1, ANSWERS.each + 1), come(&users, 2, 1));
    let (last, first) = one.split_last().unwrap();
    let mut unread: Vec<_> = first.iter().map(begin).collect();
    {
        let mut waits = pin!(last.answer(false, || 7));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending(), "one more of the same user");
        drop(begin(&other[0]));
        unread.pop();
        assert!(matches!(waits.as_mut().poll(&mut context), Poll::Ready(Some((7, _)))));
    }
    drop(unread);
    assert_eq!((ended(&one), ended(&other)), (vec![], vec![]));
    drop((one, other));
    assert!(users.lock().users.is_empty());
}

#[tokio::test]
async fn who_does_not_read_gives_way_to_others() {
    let users = Arc::new(Users::default());
    let hogs = [come(&users, 1, ANSWERS.each), come(&users, 2, ANSWERS.each)];
    let unread: Vec<_> = hogs.iter().flatten().map(begin).collect();
    assert_eq!(unread.len(), ANSWERS.all);
    let (root, other) = (come(&users, ROOT, 1), come(&users, 3, 3));
    let _root = begin(&root[0]);
    assert_eq!((ended(&hogs[0]), ended(&hogs[1])), (vec![], vec![]), "root has room of its own");
    let answers: Vec<_> = other.iter().map(begin).collect();
    assert_eq!((ended(&hogs[0]), ended(&hogs[1])), (vec![0, 1], vec![0]), "the first of who has most");
    drop(answers);
    let _again = begin(&other[0]);
    assert_eq!((ended(&hogs[0]), ended(&hogs[1]), ended(&other)), (vec![], vec![], vec![]), "there is room");
}

#[tokio::test]
async fn idle_connections_give_way_to_those_of_the_same_user() {
    let users = Arc::new(Users::default());
    for number in [1, ROOT] {
        let many = come(&users, number, CONNECTIONS.each);
        many[0].attach();
        assert!(many[1].follow());
        let answering = begin(&many[2]);
        // These were idle before, and are again.
        many[4..].iter().chain([&many[3]]).for_each(|asker| drop(begin(asker)));
        let more = come(&users, number, 2);
        assert_eq!(ended(&many), [4, 5], "what is idle for longest");
        drop((answering, more));
    }
    let stay = come(&users, 1, CONNECTIONS.each);
    stay.iter().for_each(Asker::attach);
    assert!(users.enter(1).is_none(), "nothing of it gives way");
    drop(stay);
    drop(users.enter(1).unwrap());
    assert!(users.lock().users.is_empty());
}

#[tokio::test]
async fn connections_give_way_to_users_who_have_fewer() {
    let users = Arc::new(Users::default());
    let many: Vec<_> = (1..=4).map(|number| come(&users, number, CONNECTIONS.each)).collect();
    let root = come(&users, ROOT, 3);
    assert!(many.iter().all(|all| ended(all).is_empty()), "root has room of its own");
    let other = come(&users, 9, 2);
    assert_eq!(ended(&many[0]), [0]);
    assert_eq!(ended(&many[1]), [0], "and then the next");
    assert_eq!((ended(&root), ended(&other)), (vec![], vec![]));
}

#[tokio::test]
async fn who_is_told_of_changes_gives_way_to_users_who_have_fewer() {
    let users = Arc::new(Users::default());
    let follow = |all: &[Asker]| all.iter().filter(|asker| asker.follow()).count();
    let many = [come(&users, 1, FOLLOWERS.each + 1), come(&users, 2, FOLLOWERS.each)];
    assert_eq!(follow(&many[0]), FOLLOWERS.each, "no more of one user");
    assert_eq!(follow(&many[1]), FOLLOWERS.each);
    let (root, other) = (come(&users, ROOT, 1), come(&users, 3, FOLLOWERS.each));
    assert_eq!(follow(&root), 1);
    assert!(ended(&many[0]).is_empty(), "root has room of its own");
    // All have as many in the end, and keep them.
    assert_eq!(follow(&other), FOLLOWERS.all / 3);
    assert_eq!((ended(&many[0]).len(), ended(&many[1]).len()), (43, 42));
    assert!(ended(&other).is_empty());
}
