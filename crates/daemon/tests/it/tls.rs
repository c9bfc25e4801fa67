//! A server that proves itself by a certificate, and wants one.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use steadfast_backplane::{Provenance, Replay};

use crate::host::{Directory, Host, until};
use crate::server::Server;

/// Certificates of a server and of a client, and what vouches for both.
fn certificates(at: &Directory) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(at.0.join("ca.pem"), ca.pem()).unwrap();
    for (name, address) in [("server", "127.0.0.1"), ("client", "client.example")] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![address.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(at.0.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(at.0.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
}

#[test]
fn certificates_on_both_sides() {
    let server = Server::new(|directory| {
        certificates(directory);
        let at = directory.0.display();
        format!(
            "tls {{ cert_file: '{at}/server.pem', key_file: '{at}/server-key.pem', ca_file: '{at}/ca.pem', verify: true }}"
        )
    });
    let at = server.directory.0.display();
    let url = server.url();
    let ca = format!("[nats]\nurl = '{url}'\nca = '{at}/ca.pem'\n");
    let all = format!("{ca}certificate = '{at}/client.pem'\nkey = '{at}/client-key.pem'\n");
    let (mut a, mut b) = (Host::new(), Host::new());
    b.trust(a.key());
    for host in [&mut a, &mut b] {
        host.start(&all);
        host.wait_connected("nats");
    }
    let mut at_b = b.client("a.b.c");
    at_b.subscribe("", Replay::Nothing);
    a.client("a.b.c").publish("one");
    assert_eq!(at_b.next_text(), ("one".into(), Provenance::Signed));

    // Without a certificate of its own; and a server for which nobody vouches.
    let mut stranger = Host::new();
    stranger.start(&ca);
    until("it is refused", || stranger.way("nats").fault);
    stranger.stop();
    stranger.start(&format!("[nats]\nurl = '{}'\n", url.replace("nats:", "tls:")));
    let fault = until("it refuses", || stranger.way("nats").fault);
    assert!(!stranger.way("nats").connected, "{fault}");
}
