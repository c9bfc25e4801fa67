//! Hosts with several networks: each answers for its own addresses alone.

use std::net::UdpSocket;

use socket2::SockRef;
use steadfast_testbed::isolated;

use super::{GUARD, is_silent, pair};

#[test]
fn a_network_does_not_answer_for_the_addresses_of_another() {
    isolated("networks::a_network_does_not_answer_for_the_addresses_of_another", || {
        let net = pair();
        let wifi = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        let lte = net.lab.link("lte", &net.a, &net.b).connect().unwrap();
        let receiver = net.b.run(|| UdpSocket::bind((lte.address_of(&net.b), 0))).unwrap();
        receiver.set_read_timeout(Some(GUARD)).unwrap();
        let target = receiver.local_addr().unwrap();
        let sender = |interface: &str| {
            let socket = net.a.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
            SockRef::from(&socket).bind_device(Some(interface.as_bytes())).unwrap();
            socket
        };
        // A socket that is bound to an interface asks for any address there, whatever the routes say.
        let astray = sender("wifi");
        let before = wifi.counters().a_to_b.frames;
        for _ in 0..3 {
            astray.send_to(b"astray", target).unwrap();
        }
        super::wait_for("a question", || (wifi.counters().a_to_b.frames > before).then_some(()));
        assert!(is_silent(&receiver), "it went over the other network");
        sender("lte").send_to(b"right", target).unwrap();
        assert_eq!(receiver.recv(&mut [0; 64]).unwrap(), 5);
    });
}
