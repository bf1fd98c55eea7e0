//! What passes or is dropped whatever the rules say (`semantics.md` §3.4).

use crate::config::desired::{Direction, PmtudExempt, Policy};
use crate::packet::Marker;
use crate::packet::headers::{Addresses, Fragment, Headers, Network, is_to_metadata, protocol};
use crate::packet::verdict::{Decision, Stage};
use crate::policy::eni_context::EniContext;
use crate::tables::route::is_internet_destination;

/// The port that mail is sent to (RFC 5321 §4.5.4.2).
pub(crate) const SMTP: u16 = 25;

impl EniContext<'_> {
    /// Steps 0, 1 and 1b (§3.4).
    pub(crate) fn exempt(&self, headers: &Headers, marker: Marker) -> Option<Decision> {
        let accept = |stage| Some(Decision::by(Policy::Accept, stage));
        if headers.network == Network::Arp {
            return accept(Stage::ExemptArp);
        }
        if headers.is_neighbor_discovery() {
            return accept(Stage::ExemptNd);
        }
        if self.is_dhcp(headers) {
            return accept(Stage::ExemptDhcp);
        }
        match self.direction {
            Direction::Egress if is_to_metadata(headers.tuple.addresses) => accept(Stage::ExemptMetadata),
            Direction::Egress if self.is_closed_mail(headers) => Some(Decision::by(Policy::Drop, Stage::PlatformSmtp)),
            Direction::Egress => None,
            Direction::Ingress
                if self.snapshot.settings().pmtud_exempt == PmtudExempt::Always && headers.is_path_mtu_report() =>
            {
                accept(Stage::ExemptPmtud)
            }
            Direction::Ingress => match marker {
                Marker::LoadBalancer => accept(Stage::ExemptSlb),
                Marker::Probe => accept(Stage::ExemptProbe),
                Marker::None | Marker::Uplink => None,
            },
        }
    }

    fn is_dhcp(&self, headers: &Headers) -> bool {
        // The ports of RFC 2131 §4.1 and RFC 8415 §7.2.
        let (client, server) = match headers.tuple.addresses {
            Addresses::V4 { .. } => (68, 67),
            Addresses::V6 { .. } => (546, 547),
        };
        match self.direction {
            Direction::Egress => headers.is_udp(client, server),
            Direction::Ingress => headers.is_udp(server, client),
        }
    }

    fn is_closed_mail(&self, headers: &Headers) -> bool {
        let tuple = &headers.tuple;
        self.snapshot.settings().smtp_closed
            // A later fragment has payload where the port would be.
            && headers.fragment != Fragment::Later
            && tuple.protocol == protocol::TCP
            && tuple.destination_port == SMTP
            && is_internet_destination(tuple.addresses)
            // A VPC may use public blocks for its subnets, and mail inside a VPC stays open.
            && !self.network.route(tuple.addresses).is_inside()
    }
}
