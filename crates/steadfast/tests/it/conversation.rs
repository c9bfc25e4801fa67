//! Messages, receipts and endings over loopback.

use crate::common::{next, soon, talking};
use steadfast::{Labels, Outcome, Rule, Selector, Urgency};

#[tokio::test]
async fn messages_both_ways_with_their_labels() {
    let (_a, _b, at_a, at_b) = talking().await;
    let labels = Labels::background().rule(Rule::default().prohibit(Selector::Metered));
    let receipt = at_a.send("over", labels.clone()).await.unwrap();
    let message = soon("recv", at_b.recv()).await.unwrap().unwrap();
    assert_eq!(message.labels, labels);
    assert_eq!(message.labels.urgency, Urgency::Background);
    assert_eq!(message.id, receipt.id());
    assert_eq!(message.payload().unwrap(), "over");
    soon("ack", receipt.acked()).await.unwrap();
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    at_b.send("and back", Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_a).await.unwrap(), "and back");
}
