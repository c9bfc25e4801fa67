//! Two hosts and three links, and how exactly this machine emulates them. It needs no root: it makes itself a user
//! namespace if it must.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::time::Duration;

use steadfast_testbed::{Lab, LabError, enter_user_namespace};

fn main() -> Result<(), LabError> {
    if Lab::available().is_err() {
        enter_user_namespace()?;
    }
    let lab = Lab::new()?;
    let (a, b) = (lab.host("a")?, lab.host("b")?);
    let links = [
        lab.link("wifi", &a, &b).rate_mbit(20.0).delay(Duration::from_millis(10)),
        lab.link("cellular", &a, &b).rate_mbit(100.0).delay(Duration::from_millis(30)),
        lab.link("ethernet", &a, &b).rate_mbit(1000.0),
        lab.link("jumbo", &a, &b).mtu(9000),
        lab.link("unlimited", &a, &b).delay(Duration::from_millis(1)),
    ];
    for link in links {
        let link = link.connect()?;
        println!("{}: {}", link.name(), link.measure_precision()?);
        println!("  {:?}", link.counters());
    }
    Ok(())
}
