//! What the switch tells guests about their network: DHCP, DHCPv6 and router advertisements.
//!
//! The packets for metadata and name servers are exchanged with the services process ([`relay`]).
//!
//! Workers hand requests over and send the replies. Here they are read, answered from the newest snapshot, and nothing is
//! remembered: addresses are assigned with the ENI, so that a lease needs no database, and none is lost with a process.

mod advertisements;
mod dhcp4;
mod dhcp6;
mod frame;
pub mod relay;
mod router_advert;
pub mod thread;

use crate::exchange::publish::Publication;
use crate::exchange::services::{GuestQuestion, ServiceLink, ServiceOutcome, ServiceReply, ServiceRequest};
use crate::services::advertisements::Advertisements;
use crate::services::thread::ServiceTurn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use vswitch_core::hw::time::Time;
use vswitch_core::observe::guest_network::GuestNetwork;
use vswitch_core::packet::headers::{Addresses, parse};
use vswitch_core::packet::verdict::DropReason;

/// Requests that are answered before the time is looked at again.
const REQUESTS_PER_TURN: usize = 64;

/// The services, without a thread.
#[derive(Debug)]
pub struct Services {
    link: Arc<ServiceLink>,
    publication: Arc<Publication>,
    advertisements: Advertisements,
    /// The publication that was looked at last.
    seen: u64,
}

impl Services {
    /// Services that answer from what is published. `seed` spreads what they send unasked.
    pub fn new(link: Arc<ServiceLink>, publication: Arc<Publication>, seed: u64) -> Self {
        Self { link, publication, advertisements: Advertisements::new(seed), seen: 0 }
    }
}

impl ServiceTurn for Services {
    fn link(&self) -> Arc<ServiceLink> {
        Arc::clone(&self.link)
    }

    fn turn(&mut self, now: Time) -> usize {
        let published = self.publication.newest();
        self.seen = published.sequence;
        let mut done = 0;
        while done < REQUESTS_PER_TURN
            && let Some(ServiceRequest { eni, mut buffer }) = self.link.next_request()
        {
            done += 1;
            let location = published.location(eni.index).filter(|it| it.eni_generation == eni.generation);
            let network = location.and_then(|_| published.snapshot.guest_network(eni.index));
            let reply = network.map_or(Err(DropReason::EniGone), |network| guarded(&network, buffer.frame()));
            let outcome = match reply {
                Ok(frame) => {
                    if let Some(question) = question_of(buffer.frame()) {
                        self.link.note_told(eni, question, now);
                    }
                    buffer.fill(&frame);
                    ServiceOutcome::Reply
                }
                Err(reason) => ServiceOutcome::Dropped(reason),
            };
            let worker = location.map_or(0, |location| usize::from(location.worker));
            self.link.reply(worker, ServiceReply { eni, outcome, buffer });
        }
        done + self.advertisements.turn(&self.link, &published, now)
    }

    fn has_input(&self) -> bool {
        self.link.has_requests() || self.publication.is_newer_than(self.seen)
    }

    fn next_due(&self) -> Option<Time> {
        self.advertisements.next_due()
    }
}

/// [`respond`], if no fault of a decoder ends it: one guest's bytes must not take the service from all others.
fn guarded(network: &GuestNetwork<'_>, request: &[u8]) -> Result<Vec<u8>, DropReason> {
    catch_unwind(AssertUnwindSafe(|| respond(network, request))).unwrap_or_else(|_| {
        log::error!("a request of {} for a service met a fault of its decoder", network.mac);
        Err(DropReason::DhcpMalformed)
    })
}

/// The frame that answers a guest's request.
///
/// # Errors
/// The reason under which the request is dropped.
pub fn respond(network: &GuestNetwork<'_>, request: &[u8]) -> Result<Vec<u8>, DropReason> {
    const UDP_HEADER_BYTES: usize = 8;
    let headers = parse::parse(request)?;
    let payload_at = headers.transport_offset as usize + UDP_HEADER_BYTES;
    let payload = request.get(payload_at..headers.end as usize).unwrap_or_default();
    match headers.tuple.addresses {
        Addresses::V4 { .. } if headers.is_dhcp_request() => dhcp4::respond(network, payload),
        Addresses::V6 { source, .. } if headers.is_dhcp_request() => dhcp6::respond(network, source.into(), payload),
        Addresses::V6 { .. } if headers.is_neighbor_discovery() => router_advert::frame(network).ok_or(NOT_SERVED),
        Addresses::V4 { .. } | Addresses::V6 { .. } => Err(NOT_SERVED),
    }
}

/// What a guest's request that was answered asked for.
fn question_of(request: &[u8]) -> Option<GuestQuestion> {
    let headers = parse::parse(request).ok()?;
    Some(match headers.tuple.addresses {
        Addresses::V4 { .. } => GuestQuestion::Dhcp,
        Addresses::V6 { .. } if headers.is_neighbor_discovery() => GuestQuestion::Router,
        Addresses::V6 { .. } => GuestQuestion::Dhcp6,
    })
}

/// Why a request that nothing answers is dropped.
const NOT_SERVED: DropReason = DropReason::DhcpUnserved;
