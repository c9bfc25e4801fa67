//! What does not come about, and the reasons that are told.

use steadfast::{Labels, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{World, listener, soon};

/// A program's connection that breaks at once.
async fn breaks(world: &World, forward: usize) {
    let mut program = world.connect(forward).await;
    let error = soon("the reset", async {
        loop {
            match program.read(&mut [0; 9]).await {
                Err(error) => return error,
                Ok(length) => assert!(length > 0, "it is an end and no reset"),
            }
        }
    })
    .await;
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_target_that_is_not_allowed_or_refuses() {
    // A port at which nobody listens any more.
    let (free, nobody) = listener().await;
    drop(free);
    let targets = ["localhost:1".to_owned(), nobody.to_string(), "no-such-host.invalid:9".to_owned()];
    let labelled: Vec<_> = targets.iter().map(|target| (target.clone(), Labels::foreground())).collect();
    let mut world = World::new(&labelled, &targets[1..]).await;
    for (forward, parts) in [
        (0, ["localhost:1 is not allowed", "--allow localhost:1"]),
        (1, ["refused", "check that it listens"]),
        (2, ["no-such-host.invalid:9", "check"]),
    ] {
        breaks(&world, forward).await;
        // Both operators learn why.
        for side in [0, 1] {
            let reason = world.closed(side).await.unwrap();
            assert!(parts.iter().all(|part| reason.contains(part)), "{forward}: {reason}");
        }
    }
    assert_eq!(world.forwards[0].counters().open(), 0);
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules() {
    let (target, address) = listener().await;
    let mut world = World::new(&[(address.to_string(), Labels::foreground())], &[address.to_string()]).await;
    let socket = soon("connect", world.client.connect(world.server.contact())).await.unwrap();
    let streams = Streams::new(socket);
    // Requests that cannot be understood are refused with words; what ends early is left.
    for (request, part) in [
        (&[7, 0, 0][..], "version 7"),
        (&[1, 255, 255], "too long"),
        (&[1, 0, 3, b'a', b' ', b':'], "no target"),
        (&[1, 0, 3, 0xff, 0xff, 0xff], "no target"),
    ] {
        let mut stream = streams.open(Labels::foreground()).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        soon("the answer", stream.read_to_end(&mut answer)).await.unwrap();
        let words = String::from_utf8_lossy(&answer[3..]).into_owned();
        assert!(answer[0] == 1 && words.contains(part), "{words}");
        assert!(world.closed(1).await.unwrap().contains(part));
    }
    let mut stream = streams.open(Labels::foreground()).await.unwrap();
    stream.write_all(&[1, 0, 9, b'x']).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(world.closed(1).await.is_some());
    // Others are served all the same.
    let mut program = world.connect(0).await;
    program.write_all(b"x").await.unwrap();
    let (mut at_target, _) = soon("the target's connection", target.accept()).await.unwrap();
    assert_eq!(soon("a byte", at_target.read_u8()).await.unwrap(), b'x');
}
