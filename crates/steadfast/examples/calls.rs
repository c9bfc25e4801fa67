//! Calls with labels, between two endpoints of one process: urgent ones beside an upload that takes what they leave, one
//! that is cancelled, one that is too late.
//!
//! `cargo run -p steadfast --example calls`

#![expect(clippy::print_stdout, reason = "a program that prints")]

use std::time::{Duration, Instant};
use steadfast::rpc::{self, Body, BodyError, CallOptions, Request, Rpc};
use steadfast::{Endpoint, Identity, Labels, Rule, Selector};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Says how much it was told, and how urgently; takes its time if it is asked to.
async fn listen(request: Request) -> std::result::Result<String, BodyError> {
    let urgency = request.labels().urgency;
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(chunk) = body.read_chunk().await? {
        length += chunk.len();
        if chunk == "slowly" {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
    Ok(format!("heard {length} bytes, {urgency:?}"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (ann, bob) = (Identity::generate()?, Identity::generate()?);
    let (ann_key, bob_key) = (ann.fingerprint(), bob.fingerprint());
    let ann = Endpoint::builder().identity(ann).trust(bob_key).bind().await?;
    let bob = Endpoint::builder().identity(bob).trust(ann_key).bind().await?;
    let rpc = Rpc::new(ann.connect(bob.contact()).await?);
    let server = rpc::serve(bob.accept().await.ok_or("closed")?, listen);

    // The rule holds for the answer, too.
    let never_metered = Rule::default().prohibit(Selector::Metered);
    let upload = rpc.call(
        Body::streamed(|mut writer| async move {
            for _ in 0..500 {
                writer.write(vec![0; 64 * 1024]).await?;
            }
            Ok::<_, BodyError>(())
        }),
        CallOptions::default().labels(Labels::background().rule(never_metered)),
    );
    let questions = async {
        for _ in 0..5 {
            let start = Instant::now();
            let urgent = CallOptions::default().deadline(Duration::from_secs(5));
            let answer = rpc.call("stop?", urgent).await?.into_bytes().await?;
            println!("{} after {:?}", String::from_utf8_lossy(&answer), start.elapsed());
        }
        Result::Ok(())
    };
    let (upload, questions) = tokio::join!(upload, questions);
    println!("{}", String::from_utf8_lossy(&upload?.into_bytes().await?));
    questions?;

    let pending = rpc.start("slowly", CallOptions::default()).await?;
    if let Err(error) = pending.cancel().await {
        println!("{error}: {:?}", error.outcome());
    }
    let hurry = CallOptions::default().deadline(Duration::from_millis(100));
    if let Err(error) = rpc.call("slowly", hurry).await {
        println!("{error}: {:?}", error.outcome());
    }
    server.shutdown(Duration::from_secs(1)).await?;
    Ok(())
}
