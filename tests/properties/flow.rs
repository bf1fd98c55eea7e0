//! Keys, tables, prefix maps: each against a collection of the standard library.

use super::cases;
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::config::desired::{Direction, Settings};
use vswitch_core::config::ids::EniEpoch;
use vswitch_core::config::limits::FLOW_CHAIN_MAX;
use vswitch_core::conntrack::key::{ConnectionKey, Key, KeyV4, key_of};
use vswitch_core::conntrack::state::ConnectionState;
use vswitch_core::conntrack::table::Table;
use vswitch_core::conntrack::{Connection, Expiry, Origin, Session};
use vswitch_core::hw::time::Tick;
use vswitch_core::packet::headers::{Addresses, Tuple};
use vswitch_core::packet::verdict::Stage;
use vswitch_core::tables::lpm::PrefixMap;

fn addresses() -> impl Strategy<Value = Addresses> {
    prop_oneof![
        (0u32..6, 0u32..6).prop_map(|(source, destination)| Addresses::V4 { source, destination }),
        any::<(u32, u32)>().prop_map(|(source, destination)| Addresses::V4 { source, destination }),
        any::<(u128, u128)>().prop_map(|(source, destination)| Addresses::V6 { source, destination }),
    ]
}

fn tuples() -> impl Strategy<Value = Tuple> {
    let port = || prop_oneof![0u16..3, any::<u16>()];
    (addresses(), any::<u8>(), port(), port()).prop_map(|(addresses, protocol, source_port, destination_port)| Tuple {
        addresses,
        protocol,
        source_port,
        destination_port,
    })
}

#[derive(Clone, Debug)]
enum ConnectionStep {
    Insert(u8, u32),
    Remove(u8),
    Find(u8),
    Sweep(usize),
}

fn steps() -> impl Strategy<Value = Vec<ConnectionStep>> {
    let step = prop_oneof![
        3 => any::<(u8, u32)>().prop_map(|(name, value)| ConnectionStep::Insert(name % 60, value)),
        2 => any::<u8>().prop_map(|name| ConnectionStep::Remove(name % 60)),
        1 => any::<u8>().prop_map(|name| ConnectionStep::Find(name % 60)),
        1 => (0usize..9).prop_map(ConnectionStep::Sweep),
    ];
    proptest::collection::vec(step, 1..200)
}

fn table_key(name: u8) -> KeyV4 {
    let addresses = Addresses::V4 { source: name as u32, destination: 1000 };
    let tuple = Tuple::of_connection(addresses, 6, [7, 8]);
    match key_of(&tuple).0 {
        Key::V4(key) => key,
        Key::V6(_) => unreachable!("an IPv4 tuple has an IPv4 key"),
    }
}

const SCOPE: EniEpoch = EniEpoch(3);
const TCP: u8 = 6;
/// Long before [`LATE`], and not.
const EARLY: Tick = Tick(1);
const LATE: Tick = Tick(100_000);

fn record(value: u32) -> (Connection, Origin) {
    let (mut connection, mut origin) = (Connection::default(), Origin::default());
    (connection.protocol, connection.state) = (TCP, ConnectionState::Udp);
    connection.sessions[0] = Session::new((SCOPE, 1), Direction::Egress, false, Stage::Rule);
    connection.last_seen = if value.is_multiple_of(2) { EARLY } else { LATE };
    origin.grounds[0] = value;
    (connection, origin)
}

fn prefixes() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0u32..64, 24u8..=32).prop_map(|(low, length)| net(Ipv4Addr::from_bits(0x0a00_0000 | low << 2).into(), length)),
        (any::<u32>(), 0u8..=32).prop_map(|(bits, length)| net(Ipv4Addr::from_bits(bits).into(), length)),
        (any::<u128>(), 0u8..=128).prop_map(|(bits, length)| net(Ipv6Addr::from_bits(bits).into(), length)),
    ]
}

fn net(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).expect("a length that fits the family").trunc()
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn the_reverse_of_the_reverse_is_the_tuple(tuple in tuples()) {
        prop_assert_eq!(tuple.reverse().reverse(), tuple);
    }

    #[test]
    fn both_directions_have_one_key(tuple in tuples(), salt in any::<u32>()) {
        let (key, swapped) = key_of(&tuple);
        let (back, swapped_back) = key_of(&tuple.reverse());
        prop_assert_eq!(key, back);
        prop_assert!(swapped != swapped_back || tuple == tuple.reverse());
        prop_assert_eq!(key.tuple(tuple.protocol, swapped), tuple);
        prop_assert_eq!(key.hash(tuple.protocol, salt, [3, 5]), back.hash(tuple.protocol, salt, [3, 5]));
    }

    #[test]
    fn different_ends_have_different_keys(one in tuples(), other in tuples()) {
        let other = Tuple { protocol: one.protocol, ..other };
        prop_assert_eq!(key_of(&one).0 == key_of(&other).0, one == other || one == other.reverse());
    }

    #[test]
    fn the_longest_prefix_wins(entries in proptest::collection::vec(prefixes(), 0..24), far in any::<u32>()) {
        let numbered: Vec<(IpNet, usize)> = entries.iter().copied().zip(1..).collect();
        let map = PrefixMap::build(&numbered, |covering| covering.last().copied().unwrap_or(0));
        let borders = entries.iter().flat_map(|prefix| [before(prefix.network()), prefix.network(), prefix.broadcast(), after(prefix.broadcast())]);
        for address in borders.chain([Ipv4Addr::from_bits(far).into()]) {
            let covering = numbered.iter().filter(|(prefix, _)| prefix.contains(&address));
            let longest = covering.max_by_key(|(prefix, number)| (prefix.prefix_len(), *number));
            prop_assert_eq!(map.find(address), longest.map_or(0, |(_, number)| *number), "{}", address);
        }
    }
}

fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().wrapping_sub(1)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().wrapping_sub(1)).into(),
    }
}

fn after(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().wrapping_add(1)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().wrapping_add(1)).into(),
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn the_table_is_a_map_of_bounded_size(
        steps in steps(),
        buckets in 1usize..24,
        secret in any::<[u64; 2]>(),
        gives_way in any::<bool>(),
    ) {
        let mut table: Table<KeyV4> = Table::new(buckets, &|_, _| {});
        let hash = |key: &KeyV4| key.hash(TCP, 0, secret);
        let mut model: HashMap<u8, u32> = HashMap::new();
        for step in steps {
            match step {
                ConnectionStep::Insert(name, value) => {
                    let key = table_key(name);
                    if let Some(slot) = table.find(&key, TCP, SCOPE, hash(&key)) {
                        table.origin_mut(slot).grounds[0] = value;
                        model.insert(name, value);
                    } else {
                        let settings = Settings::default();
                        let is_over = |connection: &Connection| gives_way && connection.is_expired(&settings, LATE);
                        match table.insert((key, hash(&key)), record(value), is_over) {
                            Ok((slot, ended)) => {
                                prop_assert_eq!(table.origin(slot).grounds[0], value);
                                let before = model.len();
                                model.retain(|name, _| table.find(&table_key(*name), TCP, SCOPE, hash(&table_key(*name))).is_some());
                                prop_assert_eq!(before - model.len(), usize::from(ended != [Session::default(); 2]));
                                prop_assert!(gives_way || before == model.len());
                                model.insert(name, value);
                            }
                            // Either no record is left for chains, or this chain is as long as may be.
                            Err(_) => {
                                let least = (buckets / 5 * 2 + 1).min(FLOW_CHAIN_MAX);
                                prop_assert!(model.len() >= least, "refuses with {} of {buckets}", model.len());
                            }
                        }
                    }
                }
                ConnectionStep::Remove(name) => {
                    let key = table_key(name);
                    let found = table.find(&key, TCP, SCOPE, hash(&key));
                    prop_assert_eq!(found.is_some(), model.remove(&name).is_some());
                    if let Some(slot) = found { table.remove(slot) }
                }
                ConnectionStep::Find(name) => {
                    let key = table_key(name);
                    prop_assert_eq!(table.find(&key, TCP, EniEpoch(4), hash(&key)), None, "another's");
                    prop_assert_eq!(table.find(&key, 17, SCOPE, hash(&key)), None, "another protocol's");
                    let found = table.find(&key, TCP, SCOPE, hash(&key)).map(|slot| table.origin(slot).grounds[0]);
                    prop_assert_eq!(found, model.get(&name).copied());
                }
                ConnectionStep::Sweep(count) => {
                    let (settings, mut gone) = (Settings::default(), Vec::new());
                    table.sweep(count, &mut Expiry::at(LATE, &settings), &mut |connection| gone.push(connection.last_seen));
                    prop_assert!(gone.iter().all(|seen| *seen == EARLY));
                    let before = model.len();
                    model.retain(|name, _| table.find(&table_key(*name), TCP, SCOPE, hash(&table_key(*name))).is_some());
                    prop_assert_eq!(before - model.len(), gone.len());
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
        prop_assert_eq!(table.iter().count(), model.len());
    }
}
