//! IP protocol 146 between two hosts, in the module's dialect.

use super::{echo, pattern};
use crate::common::soon;
use crate::world::block_on;
use std::net::{IpAddr, SocketAddr};
use steadfast::Outcome;
use steadfast::homa::Homa;
use steadfast::rpc::{CallOptions, Request, Response, Rpc};
use steadfast_testbed::{Host, Lab, Loss, isolated};
use tokio::sync::oneshot;

/// Calls from one host to another over one family of addresses.
fn calls([a, b]: [&Host; 2], [at_a, at_b]: [IpAddr; 2]) {
    let (ready_out, ready_in) = oneshot::channel();
    let (over_out, over_in) = oneshot::channel::<()>();
    let server = b.thread("server", move || {
        block_on(async move {
            let homa = Homa::raw(at_b).unwrap();
            let who = move |request: Request| async move {
                assert_eq!(request.peer(), None, "nobody proves who they are");
                Response::new("somebody")
            };
            let _serving = (homa.serve(9, echo).unwrap(), homa.serve(10, who).unwrap());
            ready_out.send(()).unwrap();
            let _client_done = over_in.await;
        });
    });
    a.run(|| {
        block_on(async {
            ready_in.await.unwrap();
            let homa = Homa::raw(at_a).unwrap();
            assert_eq!(homa.local_addr().port(), 0);
            let peer = homa.peer(SocketAddr::new(at_b, 0)).unwrap();
            let rpc = Rpc::over_homa(&peer, 9);
            // A request and its response each have a byte or more beside their body.
            for length in [0, 1, 1400, 1401, 70_000, 999_990] {
                let body = pattern(length);
                let response = soon("a call", rpc.call(body.clone(), CallOptions::default())).await.unwrap();
                assert!(response.into_bytes().await.unwrap() == body, "{length} bytes came back as others");
            }
            let other = Rpc::over_homa(&peer, 10);
            let response = soon("a call", other.call("who?", CallOptions::default())).await.unwrap();
            assert_eq!(response.into_bytes().await.unwrap(), "somebody");
            let error =
                soon("a call", rpc.call(pattern(1_000_001), CallOptions::default())).await.unwrap_err();
            assert!(error.to_string().contains("1000000"), "{error}");
            let nobody = Rpc::over_homa(&homa.peer(SocketAddr::new(at_a, 0)).unwrap(), 77);
            let error = soon("a call", nobody.call("x", CallOptions::default())).await.unwrap_err();
            assert_ne!(error.outcome(), Outcome::Delivered, "{error}");
        });
    });
    over_out.send(()).unwrap();
    server.join().unwrap();
}

#[test]
fn calls_cross_as_protocol_146_over_both_families() {
    isolated("homa::raw::calls_cross_as_protocol_146_over_both_families", || {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let link = lab.link("wire", &a, &b).connect().unwrap();
        // A network that loses a packet now and then.
        link.set(|settings| settings.loss = Loss::Independent(0.005));
        calls([&a, &b], [&a, &b].map(|host| link.ipv4_of(host).unwrap().into()));
        calls([&a, &b], [&a, &b].map(|host| link.ipv6_of(host).unwrap().into()));
    });
}
