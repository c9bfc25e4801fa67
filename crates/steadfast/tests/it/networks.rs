//! Networks that come, go, change their addresses, lose much or queue for long while a transfer runs. Whatever happens,
//! everything arrives once, in order, and a network that is there is used.

use crate::world::{Fault, PIECE, Signal, Workload, World, two_networks};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use steadfast_testbed::{Host, IpNet, Link, LinkBuilder};

fn held(name: &str, links: crate::world::Links, fault: Fault) {
    crate::world::scenario(&format!("networks::{name}"), Workload::HELD, links, fault);
}

/// Whether some pieces of the file took this link since it was made.
fn is_used(link: &Link) -> bool {
    link.counters().a_to_b.bytes > 8 * PIECE as u64
}

fn of_one_family<'lab>(
    wifi: LinkBuilder<'lab>,
    lte: LinkBuilder<'lab>,
    addresses: [[&str; 2]; 2],
) -> [LinkBuilder<'lab>; 2] {
    let [of_wifi, of_lte] = addresses.map(|both| both.map(|text| text.parse::<IpNet>().unwrap()));
    let [wifi, lte] = two_networks(wifi, lte);
    [wifi.addresses(&of_wifi[..1], &of_wifi[1..]), lte.addresses(&of_lte[..1], &of_lte[1..])]
}

/// Gives a host on the better network another address in place of all it has there.
fn move_host(world: &World, host: &Host, to: &str) {
    let old = world.wifi.addresses_of(host);
    world.wifi.add_address(host, to.parse().unwrap()).unwrap();
    for net in old {
        world.wifi.remove_address(host, net).unwrap();
    }
}

/// One side moves, then the other, then both at once; each time the network is to be found again.
fn moves(world: &World, signal: &Signal, to: [&str; 4]) {
    match (world.step(), signal) {
        (0, Signal::Pieces(_)) => move_host(world, &world.a, to[0]),
        (1, signal) if signal.is_up("wifi") => move_host(world, &world.b, to[1]),
        (2, signal) if signal.is_up("wifi") => {
            move_host(world, &world.a, to[2]);
            move_host(world, &world.b, to[3]);
        }
        (3, signal) if signal.is_up("wifi") => world.release(),
        _ => return,
    }
    world.next_step();
}

#[test]
fn ipv4_addresses_change_on_either_side_and_on_both() {
    held(
        "ipv4_addresses_change_on_either_side_and_on_both",
        |wifi, lte| {
            of_one_family(wifi, lte, [["10.1.0.1/24", "10.1.0.2/24"], ["10.2.0.1/24", "10.2.0.2/24"]])
        },
        |world, signal| {
            moves(world, signal, ["10.1.0.11/24", "10.1.0.12/24", "10.7.0.1/24", "10.7.0.2/24"]);
        },
    );
}

#[test]
fn ipv6_addresses_change_on_either_side_and_on_both() {
    held(
        "ipv6_addresses_change_on_either_side_and_on_both",
        |wifi, lte| of_one_family(wifi, lte, [["fd01::1/64", "fd01::2/64"], ["fd02::1/64", "fd02::2/64"]]),
        |world, signal| moves(world, signal, ["fd01::11/64", "fd01::12/64", "fd07::1/64", "fd07::2/64"]),
    );
}

#[test]
fn a_network_that_appears_is_used() {
    held("a_network_that_appears_is_used", two_networks, |world, signal| match signal {
        Signal::Pieces(20) => {
            let link = world.lab.link("eth", &world.a, &world.b).rate_mbit(50.0).connect().unwrap();
            *world.later.lock().unwrap() = Some(link);
        }
        Signal::PathUp(_, all) if all.iter().any(|name| name == "eth") => world.next_step(),
        Signal::Pieces(_)
            if world.step() > 0 && world.later.lock().unwrap().as_ref().is_some_and(is_used) =>
        {
            world.release();
        }
        _ => {}
    });
}

#[test]
fn an_adapter_is_pulled_out_and_comes_back_with_another_address() {
    held(
        "an_adapter_is_pulled_out_and_comes_back_with_another_address",
        two_networks,
        |world, signal| match (world.step(), signal) {
            (0, Signal::Pieces(20)) => {
                world.next_step();
                world.wifi.remove().unwrap();
            }
            (1, signal) if signal.is_down("wifi") => {
                world.next_step();
                let link = world.lab.link("wifi", &world.a, &world.b).rate_mbit(20.0).connect().unwrap();
                *world.later.lock().unwrap() = Some(link);
            }
            (2, signal) if signal.is_up("wifi") => world.next_step(),
            (3, Signal::Pieces(_)) if world.later.lock().unwrap().as_ref().is_some_and(is_used) => {
                world.release();
            }
            _ => {}
        },
    );
}

#[test]
fn a_plug_comes_out_on_either_side_and_goes_in_again() {
    held("a_plug_comes_out_on_either_side_and_goes_in_again", two_networks, |world, signal| {
        match (world.step(), signal) {
            (0, Signal::Pieces(20)) => {
                world.next_step();
                world.wifi.unplug(&world.a).unwrap();
            }
            (1, signal) if signal.is_down("wifi") => {
                world.next_step();
                world.wifi.plug(&world.a).unwrap();
            }
            (2, signal) if signal.is_up("wifi") => {
                world.next_step();
                world.wifi.unplug(&world.b).unwrap();
            }
            (3, signal) if signal.is_down("wifi") => {
                world.next_step();
                world.wifi.plug(&world.b).unwrap();
            }
            (4, signal) if signal.is_up("wifi") => world.release(),
            _ => {}
        }
    });
}

fn lossy<'lab>(wifi: LinkBuilder<'lab>, lte: LinkBuilder<'lab>, share: f64) -> [LinkBuilder<'lab>; 2] {
    two_networks(wifi, lte).map(|link| link.bursty_loss(share, 3.0).jitter(Duration::from_millis(5)))
}

#[test]
fn two_percent_are_lost_in_bursts() {
    crate::world::scenario(
        "networks::two_percent_are_lost_in_bursts",
        Workload::STANDARD,
        |wifi, lte| lossy(wifi, lte, 0.02),
        |_, _| {},
    );
}

#[test]
fn ten_percent_are_lost_in_bursts() {
    // TCP crawls here.
    let workload = Workload { pieces: 30, urgent: 100, held: false };
    crate::world::scenario(
        "networks::ten_percent_are_lost_in_bursts",
        workload,
        |wifi, lte| lossy(wifi, lte, 0.1),
        |_, _| {},
    );
}

/// Somebody else fills the better network and its deep queue, so that every round trip takes a second and more.
#[test]
fn a_deep_queue_is_full() {
    crate::world::scenario(
        "networks::a_deep_queue_is_full",
        Workload::STANDARD,
        |wifi, lte| {
            let [wifi, lte] = two_networks(wifi, lte);
            [wifi.queue(Duration::from_secs(1)), lte.queue(Duration::from_secs(1))]
        },
        |world, signal| {
            if *signal == Signal::Pieces(10) {
                fill(world);
            }
        },
    );
}

/// Pours through the better network until the lab is gone.
fn fill(world: &World) {
    let address = world.wifi.address_of(&world.b);
    let listener = world.b.run(|| TcpListener::bind((address, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let mut source = world.a.run(|| TcpStream::connect(target)).unwrap();
    let (mut sink, _) = listener.accept().unwrap();
    source.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    sink.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // Both end at their time limit once nothing passes any more.
    thread::spawn(move || std::io::copy(&mut sink, &mut std::io::sink()));
    thread::spawn(move || while source.write_all(&[0; 16 * 1024]).is_ok() {});
}
