//! Which end of a packet gets which address and port: of one that leaves its ENI, its source; of one that comes from
//! outside, its destination; of an ICMP error, the same end of itself and the other end of what it quotes.

use crate::config::ids::{EniEpoch, EniIndex};
use crate::hw::time::Tick;
use crate::nat::mappings::{EniMappings, PortsExhausted, PrivatePort};
use crate::nat::rewrite::{TranslatedEnd, rewrite, rewrite_quoted};
use crate::nat::table::{NatEnd, NatTable, PoolAddress};
use crate::packet::Packet;
use crate::packet::headers::parse::quoted;
use crate::packet::headers::{Addresses, Fragment, Headers, IcmpKind, Tuple, protocol};
use crate::packet::verdict::DropReason;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What is done to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translation {
    /// Nothing: it has no private address, or none that is translated.
    None,
    /// One end gets this address and port.
    End(NatEnd),
    /// It is an ICMP error: one end gets this address, and the other end of what it quotes the port too.
    Quote(NatEnd),
}

impl Translation {
    /// Rewrites a packet: the end that is given, and of a quoted packet the other one.
    ///
    /// # Errors
    /// The packet is not what its headers say.
    #[inline]
    pub(crate) fn apply(self, packet: &mut Packet, end: TranslatedEnd) -> Result<(), DropReason> {
        let done = match self {
            Self::None => Some(()),
            Self::End(to) => rewrite(packet, end, to),
            Self::Quote(to) => {
                let other = match end {
                    TranslatedEnd::Source => TranslatedEnd::Destination,
                    TranslatedEnd::Destination => TranslatedEnd::Source,
                };
                // The quote comes first: it is found by headers that the other call changes.
                rewrite_quoted(packet, other, to).and_then(|()| rewrite(packet, end, NatEnd { port: None, ..to }))
            }
        };
        done.ok_or(DropReason::NatUnmapped)
    }
}

/// Why a packet that is to leave has no external address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoExternalEnd {
    /// Its source has none, so that no route leads out for it.
    NoRoute,
    /// It is dropped for this reason.
    Dropped(DropReason),
}

/// The mappings of one ENI, by external address. Nearly always there is one.
#[derive(Debug)]
pub(crate) struct EniNat {
    eni: EniIndex,
    epoch: EniEpoch,
    seed: [u64; 2],
    /// The version of the table that the mappings were last checked against.
    version: u64,
    addresses: Vec<EniMappings>,
}

impl EniNat {
    /// None yet. `seed` determines which ports they will have.
    pub(crate) fn new(eni: EniIndex, epoch: EniEpoch, seed: [u64; 2]) -> Self {
        Self { eni, epoch, seed, version: 0, addresses: Vec::new() }
    }

    /// The ENI whose mappings they are.
    pub(crate) fn epoch(&self) -> EniEpoch {
        self.epoch
    }

    /// How many mappings, and port blocks, it has.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let counts = self.addresses.iter().map(EniMappings::counts);
        counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// What its mappings take, bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.addresses.iter().map(EniMappings::memory_bytes).sum::<usize>()
    }

    /// Ends the mappings whose time has come.
    pub(crate) fn sweep(&mut self, now: Tick) {
        self.addresses.iter_mut().for_each(|mappings| mappings.sweep(now));
        if self.addresses.len() > 1 {
            self.addresses.retain(|mappings| !mappings.is_empty());
        }
    }

    /// Ends what `table` does not permit, if it is not the one that the mappings were checked against.
    #[inline]
    pub(crate) fn check(&mut self, table: &NatTable) {
        if self.version != table.version {
            self.version = table.version;
            self.check_all(table);
        }
    }

    #[cold]
    fn check_all(&mut self, table: &NatTable) {
        // An address that went and came back has other blocks: those that the ENI had of it lead nowhere.
        self.addresses.retain(|mappings| {
            let blocks = table.blocks_of(mappings.external().address);
            blocks.is_some_and(|blocks| Arc::ptr_eq(&blocks, &mappings.external().blocks))
        });
        for mappings in &mut self.addresses {
            let external = mappings.external().address;
            mappings.retain(|private| {
                let pool = table.pool_of(private).unwrap_or_default();
                pool.iter().any(|address| address.address == external)
            });
        }
    }

    /// The external end of a private port, if it has one.
    #[inline]
    pub(crate) fn find(&self, inside: PrivatePort) -> Option<NatEnd> {
        self.addresses.iter().find_map(|mappings| {
            let port = mappings.find(inside)?;
            Some(NatEnd { address: mappings.external().address, port: Some(port) })
        })
    }

    /// The external end of a private port, if `port` is still its external one.
    #[inline]
    pub(crate) fn find_at(&self, inside: PrivatePort, port: u16) -> Option<NatEnd> {
        let is_its = |mappings: &&EniMappings| mappings.private(port, inside.protocol) == Some(inside);
        let mappings = self.addresses.iter().find(is_its)?;
        Some(NatEnd { address: mappings.external().address, port: Some(port) })
    }

    /// Whether nothing has changed in `table` since the mappings were last checked against it.
    #[inline]
    pub(crate) fn is_checked(&self, table: &NatTable) -> bool {
        self.version == table.version
    }

    /// The private end that an external one stands for.
    #[inline]
    pub(crate) fn private(&self, protocol: u8, external: NatEnd) -> Option<NatEnd> {
        let mappings = self.addresses.iter().find(|mappings| mappings.external().address == external.address)?;
        let inside = mappings.private(external.port?, protocol)?;
        Some(NatEnd { address: inside.address, port: Some(inside.port) })
    }

    /// Prefetches what [`EniNat::private`] reads last.
    #[inline]
    pub(crate) fn prefetch(&self, external: NatEnd) {
        let mappings = self.addresses.iter().find(|mappings| mappings.external().address == external.address);
        if let (Some(mappings), Some(port)) = (mappings, external.port) {
            mappings.prefetch(port);
        }
    }

    /// Gives a private port an external one of `pool`.
    #[inline(never)]
    fn map(
        &mut self,
        inside: PrivatePort,
        table: &NatTable,
        pool: &[PoolAddress],
        now: Tick,
    ) -> Result<NatEnd, PortsExhausted> {
        let left = table.port_blocks_max.saturating_sub(self.counts().1);
        let is_of = |mappings: &EniMappings| pool.iter().any(|address| address.address == mappings.external().address);
        for mappings in self.addresses.iter_mut().filter(|mappings| is_of(mappings)) {
            let address = mappings.external().address;
            let blocks_max = mappings.counts().1 + left;
            let port = mappings.map(inside, blocks_max, now, |port| table.is_forwarded(address, port));
            if let Ok(port) = port {
                return Ok(NatEnd { address, port: Some(port) });
            }
        }
        let seed = [self.seed[0] ^ u64::from(self.epoch.0), self.seed[1] ^ u64::from(inside.address)];
        // Which address comes first differs between ENIs, so that they spread over the pool.
        let start = (seed[0] ^ seed[0] >> 32) as usize % pool.len().max(1);
        let others = pool[start..].iter().chain(&pool[..start]);
        for external in others.take(if left > 0 { pool.len() } else { 0 }) {
            if self.addresses.iter().any(|mappings| mappings.external().address == external.address) {
                continue;
            }
            let address = external.address;
            let mut mappings = EniMappings::new(self.eni, external.clone(), seed);
            if let Ok(port) = mappings.map(inside, left, now, |port| table.is_forwarded(address, port)) {
                self.addresses.push(mappings);
                return Ok(NatEnd { address, port: Some(port) });
            }
        }
        Err(PortsExhausted)
    }

    /// Keeps the mapping of a private port for at least `ticks` more after a packet of a session with a remote end.
    #[inline]
    pub(crate) fn keep(&mut self, inside: PrivatePort, remote: u32, ticks: u32, now: Tick) {
        for mappings in &mut self.addresses {
            if let Some(port) = mappings.find(inside) {
                return mappings.keep(port, remote, ticks, now);
            }
        }
    }

    /// What is done to the source of a packet that leaves. A packet whose source has no mapping gets one.
    ///
    /// # Errors
    /// Why it has none.
    #[inline]
    pub(crate) fn outgoing(
        &mut self,
        table: &NatTable,
        headers: &Headers,
        frame: &[u8],
        now: Tick,
    ) -> Result<Translation, NoExternalEnd> {
        let Addresses::V4 { source, .. } = headers.tuple.addresses else { return Ok(Translation::None) };
        self.check(table);
        if headers.has_quote() {
            return self.outgoing_error(table, headers, frame);
        }
        let number = headers.tuple.protocol;
        let port = sender_port(headers);
        if let Some(external) = table.external_of(number, NatEnd { address: source, port }) {
            return Ok(Translation::End(external));
        }
        let Some(pool) = table.pool_of(source) else {
            return if table.routes_private { Ok(Translation::None) } else { Err(NoExternalEnd::NoRoute) };
        };
        let port = port.filter(|_| headers.icmp_kind() != Some(IcmpKind::Reply));
        let inside = port.map(|port| PrivatePort { address: source, port, protocol: number });
        let inside = inside.ok_or(NoExternalEnd::Dropped(DropReason::NatUnmapped))?;
        match self.find(inside) {
            Some(external) => Ok(Translation::End(external)),
            None => self
                .map(inside, table, pool, now)
                .map(Translation::End)
                .map_err(|PortsExhausted| NoExternalEnd::Dropped(DropReason::NatPortsExhausted)),
        }
    }

    /// An error about a packet from outside, which was for the private end that it quotes.
    #[cold]
    fn outgoing_error(&self, table: &NatTable, headers: &Headers, frame: &[u8]) -> Result<Translation, NoExternalEnd> {
        let unmapped = NoExternalEnd::Dropped(DropReason::NatUnmapped);
        let quote = quoted(frame, headers).ok_or(unmapped)?;
        let Addresses::V4 { destination, .. } = quote.tuple.addresses else { return Err(unmapped) };
        let number = quote.tuple.protocol;
        let port = receiver_port(&quote);
        if let Some(external) = table.external_of(number, NatEnd { address: destination, port }) {
            return Ok(Translation::Quote(external));
        }
        let inside = port.map(|port| PrivatePort { address: destination, port, protocol: number });
        match inside.and_then(|inside| self.find(inside)) {
            Some(external) => Ok(Translation::Quote(external)),
            None if table.routes_private && table.pool_of(destination).is_none() => Ok(Translation::None),
            None => Err(unmapped),
        }
    }

    /// What is done to the destination of a packet from outside, and whether a connection that was opened inside is the
    /// only reason why it has one.
    ///
    /// # Errors
    /// It stands for no private end.
    #[inline]
    pub(crate) fn incoming(
        &mut self,
        table: &NatTable,
        headers: &Headers,
        frame: &[u8],
    ) -> Result<(Translation, bool), DropReason> {
        let Addresses::V4 { destination, .. } = headers.tuple.addresses else { return Ok((Translation::None, false)) };
        if !table.is_external(destination) {
            return Ok((Translation::None, false));
        }
        self.check(table);
        let External { protocol, end, is_quoted } = External::of(headers, frame).ok_or(DropReason::NatUnmapped)?;
        let (private, is_mapped) = match table.configured(protocol, end) {
            Some((_, private)) => (private, false),
            // The identifier of a query from outside is not one that was given out here.
            None if headers.icmp_kind() == Some(IcmpKind::Request) => return Err(DropReason::NatUnmapped),
            None => (self.private(protocol, end).ok_or(DropReason::NatUnmapped)?, true),
        };
        let translation = if is_quoted { Translation::Quote(private) } else { Translation::End(private) };
        Ok((translation, is_mapped))
    }
}

/// The external end that a packet from outside is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct External {
    pub(crate) protocol: u8,
    pub(crate) end: NatEnd,
    /// Whether it is the source of a packet that an ICMP error quotes.
    pub(crate) is_quoted: bool,
}

impl External {
    /// Reads it from a packet. None if an error quotes too little, or a packet that its receiver cannot have sent.
    #[inline]
    pub(crate) fn of(headers: &Headers, frame: &[u8]) -> Option<Self> {
        if headers.has_quote() {
            return Self::of_error(headers, frame);
        }
        let Addresses::V4 { destination, .. } = headers.tuple.addresses else { return None };
        let end = NatEnd { address: destination, port: receiver_port(headers) };
        Some(Self { protocol: headers.tuple.protocol, end, is_quoted: false })
    }

    #[cold]
    fn of_error(headers: &Headers, frame: &[u8]) -> Option<Self> {
        let quote = quoted(frame, headers)?;
        let (Addresses::V4 { source, .. }, Addresses::V4 { destination, .. }) =
            (quote.tuple.addresses, headers.tuple.addresses)
        else {
            return None;
        };
        let end = NatEnd { address: source, port: sender_port(&quote) };
        (source == destination).then_some(Self { protocol: quote.tuple.protocol, end, is_quoted: true })
    }
}

/// The port that a packet was sent from; of an ICMP query, or a reply to one, the identifier.
#[inline]
fn sender_port(headers: &Headers) -> Option<u16> {
    port(headers, |tuple| tuple.source_port)
}

/// The port that a packet was sent to; of an ICMP query, or a reply to one, the identifier.
#[inline]
fn receiver_port(headers: &Headers) -> Option<u16> {
    port(headers, |tuple| tuple.destination_port)
}

#[inline]
fn port(headers: &Headers, of: impl Fn(&Tuple) -> u16) -> Option<u16> {
    let Headers { tuple, fragment, .. } = headers;
    match tuple.protocol {
        _ if *fragment == Fragment::Later => None,
        protocol::TCP | protocol::UDP => Some(of(tuple)),
        _ => match headers.icmp_kind() {
            Some(IcmpKind::Request) => Some(tuple.source_port),
            Some(IcmpKind::Reply) => Some(tuple.destination_port),
            Some(IcmpKind::Error | IcmpKind::Other) | None => None,
        },
    }
}

/// Stands for the remote end of a session in its mapping. It is never the number for many.
#[inline]
pub(crate) fn remote_of(tuple: &Tuple) -> u32 {
    let Addresses::V4 { destination, .. } = tuple.addresses else { return 1 };
    (destination ^ u32::from(tuple.destination_port)).wrapping_mul(0x9e37_79b9) | 1
}

/// The private port of a packet that leaves.
#[inline]
pub(crate) fn private_port(headers: &Headers) -> Option<PrivatePort> {
    let Addresses::V4 { source, .. } = headers.tuple.addresses else { return None };
    Some(PrivatePort { address: source, port: sender_port(headers)?, protocol: headers.tuple.protocol })
}
