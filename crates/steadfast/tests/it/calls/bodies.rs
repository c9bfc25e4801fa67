//! Bodies of every size, whole and streamed, read, refused and broken off.

use super::{Scene, any, echo, soon, until};
use steadfast::rpc::{Body, BodyError, CallError, Request, Response};
use steadfast::{Bytes, Outcome};
use tokio::sync::mpsc;

fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

/// A body that is made in pieces.
fn made(length: usize) -> Body {
    let all = pattern(length);
    Body::streamed(|mut writer| async move {
        for start in (0..length).step_by(50_000) {
            writer.write(all.slice(start..length.min(start + 50_000))).await?;
        }
        Ok::<_, BodyError>(())
    })
}

#[tokio::test]
async fn every_length_there_and_back() {
    let scene = Scene::new(echo).await;
    for length in [0, 1, 100, 32 * 1024, 32 * 1024 + 1, 1 << 20, 5 << 20] {
        for body in [Body::from(pattern(length)), made(length)] {
            let response = scene.call(body, any()).await.unwrap();
            let bytes = soon("the body", response.into_bytes()).await.unwrap();
            assert!(bytes == pattern(length), "{length} bytes there and back");
        }
    }
    scene.settles().await;
}

#[tokio::test]
async fn an_answer_may_begin_before_its_request_has_ended() {
    let scene = Scene::new(async |request: Request| {
        let mut body = request.into_body();
        Body::streamed(|mut writer| async move {
            while let Some(chunk) = body.read_chunk().await? {
                writer.write(chunk.len().to_string()).await?;
            }
            Ok::<_, BodyError>(())
        })
    })
    .await;
    let (go, mut going) = mpsc::channel::<()>(1);
    let body = Body::streamed(|mut writer| async move {
        writer.write("one").await?;
        going.recv().await;
        writer.write("three").await
    });
    let mut response = scene.call(body, any()).await.unwrap();
    assert_eq!(soon("a chunk", response.body().read_chunk()).await.unwrap().unwrap(), "3");
    go.send(()).await.unwrap();
    assert_eq!(soon("a chunk", response.body().read_chunk()).await.unwrap().unwrap(), "5");
    assert_eq!(soon("the end", response.body().read_chunk()).await.unwrap(), None);
}

#[tokio::test]
async fn a_request_that_is_not_wanted_to_its_end() {
    let scene = Scene::new(async |request: Request| {
        let mut body = request.into_body();
        body.read_chunk().await.map(|chunk| chunk.is_some().to_string())
    })
    .await;
    let endless = Body::streamed(|mut writer| async move {
        loop {
            writer.write(vec![0; 50_000]).await?;
        }
        #[expect(unreachable_code, reason = "it names the error")]
        Ok::<(), BodyError>(())
    });
    let response = scene.call(endless, any()).await.unwrap();
    assert_eq!(super::text(response).await, "true");
    scene.settles().await;
}

#[tokio::test]
async fn a_response_that_is_not_wanted_to_its_end() {
    let (sender, mut told) = mpsc::unbounded_channel();
    let scene = Scene::new(move |_| {
        let guard = super::Guard(sender.clone());
        std::future::ready(Body::streamed(|mut writer| async move {
            let _guard = guard;
            loop {
                if writer.write(vec![0; 50_000]).await.is_err() {
                    return Err("nobody reads");
                }
            }
        }))
    })
    .await;
    let mut response = scene.call("x", any()).await.unwrap();
    soon("a chunk", response.body().read_chunk()).await.unwrap().unwrap();
    drop(response);
    assert_eq!(soon("what makes it is dropped", told.recv()).await, Some("dropped"));
    assert_eq!(scene.server.stats().faults, 0, "nothing failed");
}

#[tokio::test]
async fn a_request_that_breaks_off() {
    let (sender, mut told) = mpsc::unbounded_channel();
    let scene = Scene::new(move |request: Request| {
        let sender = sender.clone();
        async move {
            let _nobody_asks = sender.send(request.into_body().into_bytes().await);
        }
    })
    .await;
    let broken = Body::streamed(|mut writer| async move {
        writer.write(vec![0; 50_000]).await.map_err(|error| error.to_string())?;
        Err::<(), _>("the disk is gone".to_owned())
    });
    let error = scene.call(broken, any()).await.unwrap_err();
    let CallError::Body { source, request } = error else { panic!("{error}") };
    assert_eq!(source, BodyError::Failed("the disk is gone".into()));
    assert_ne!(request, Outcome::Delivered);
    scene.settles().await;
    // It began or not; if it did, it did not get the whole.
    if let Ok(read) = told.try_recv() {
        assert_eq!(read, Err(BodyError::Dropped));
    }
}

#[tokio::test]
async fn a_response_that_breaks_off() {
    let scene = Scene::new(async |request: Request| {
        let panics = request.into_body().whole().is_some_and(|bytes| bytes == "panic");
        Response::new(Body::streamed(move |mut writer| async move {
            writer.write(vec![0; 50_000]).await.map_err(|error| error.to_string())?;
            assert!(!panics, "this is part of the test");
            Err::<(), _>("the disk is gone".to_owned())
        }))
    })
    .await;
    for (request, fault) in [
        ("fail", CallError::Failed("the body could not be made: the disk is gone".into())),
        ("panic", CallError::Panicked),
    ] {
        // Whichever arrives first, its beginning or the fault.
        match scene.call(request, any()).await {
            Ok(response) => {
                let read = soon("the body", response.into_bytes()).await;
                assert_eq!(read, Err(BodyError::Dropped));
            }
            Err(error) => assert_eq!(error, fault),
        }
    }
    until("both were told", || scene.server.stats().faults == 2).await;
    scene.settles().await;
}

#[tokio::test]
async fn a_body_longer_than_the_caller_holds() {
    let scene = Scene::new(echo).await;
    for length in [20_000, 200_000] {
        let response = scene.call(pattern(length), any()).await.unwrap();
        let read = soon("the body", response.into_body().into_bytes_within(10_000)).await;
        assert_eq!(read, Err(BodyError::TooLong { limit: 10_000 }));
    }
}
