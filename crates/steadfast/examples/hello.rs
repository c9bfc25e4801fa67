//! A first program: both ends in one process.

#![expect(clippy::print_stdout, reason = "a program that prints")]

use steadfast::{Endpoint, Identity, Labels};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (ann, bob) = (Identity::generate()?, Identity::generate()?);
    let (ann_key, bob_key) = (ann.fingerprint(), bob.fingerprint());
    let ann = Endpoint::builder().identity(ann).trust(bob_key).bind().await?;
    let bob = Endpoint::builder().identity(bob).trust(ann_key).bind().await?;
    let to_bob = ann.connect(bob.contact()).await?;
    let from_ann = bob.accept().await.ok_or("closed")?;
    let receipt = to_bob.send("hello", Labels::foreground()).await?;
    println!("{:?}", from_ann.recv().await?.ok_or("nothing was sent")?.payload());
    println!("{:?}", receipt.outcome().await);
    Ok(())
}
