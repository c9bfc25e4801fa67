//! Faults of real networks, in a lab. Whatever happens, everything arrives once, in order.

use crate::world::{Fault, Signal, Workload, two_networks};
use steadfast_testbed::{Direction, IpNet};

fn scenario(name: &str, fault: Fault) {
    crate::world::scenario(&format!("faults::{name}"), Workload::STANDARD, two_networks, fault);
}

#[test]
fn silent_cut_of_the_better_network() {
    scenario("silent_cut_of_the_better_network", |world, signal| match signal {
        Signal::Pieces(50) => world.wifi.blackhole(Direction::Both),
        Signal::Pieces(120) => world.wifi.heal(),
        _ => {}
    });
}

#[test]
fn own_link_down() {
    scenario("own_link_down", |world, signal| match signal {
        Signal::Pieces(50) => world.wifi.carrier_down(&world.a).unwrap(),
        Signal::Pieces(100) => world.wifi.carrier_up(&world.a).unwrap(),
        _ => {}
    });
}

#[test]
fn both_networks_gone_and_one_back() {
    scenario("both_networks_gone_and_one_back", |world, signal| match signal {
        Signal::Pieces(50) => {
            world.wifi.carrier_down(&world.a).unwrap();
            world.lte.blackhole(Direction::Both);
        }
        Signal::Parked => world.lte.heal(),
        _ => {}
    });
}

#[test]
fn cut_in_one_direction() {
    scenario("cut_in_one_direction", |world, signal| match signal {
        Signal::Pieces(30) => world.wifi.blackhole(Direction::BToA),
        Signal::Pieces(60) => world.wifi.heal(),
        Signal::Pieces(90) => world.wifi.blackhole(Direction::AToB),
        _ => {}
    });
}

#[test]
fn an_address_changes() {
    scenario("an_address_changes", |world, signal| {
        if *signal == Signal::Pieces(50) {
            let old = world.wifi.addresses_of(&world.a);
            let new: IpNet = "10.1.0.77/24".parse().unwrap();
            world.wifi.add_address(&world.a, new).unwrap();
            for net in old {
                world.wifi.remove_address(&world.a, net).unwrap();
            }
        }
    });
}
