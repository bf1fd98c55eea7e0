//! Lists or ends sessions page by page. Each page examines a bounded number of records, since packets have to wait
//! meanwhile.

use crate::compile::snapshot::Snapshot;
use crate::config::ids::{EniId, EniIndex, RuleId};
use crate::config::limits::{LISTED_FLOWS_PER_TURN, LISTED_PLACES_PER_TURN};
use crate::config::protocol::{FlowDescription, FlowSelection};
use crate::conntrack::state::ConnectionState;
use crate::conntrack::tables::Listed;
use crate::conntrack::{Origin, Session};
use crate::datapath::shard::Shard;
use crate::hw::time::{Tick, Time};
use crate::observe::explain::ground_of;
use crate::packet::headers::protocol;
use crate::policy::eni_context::EniContext;
use alloc::vec::Vec;

/// The result of one step of a walk through a shard's sessions.
#[derive(Debug, Default)]
pub struct FlowPage {
    /// The sessions that match the selection.
    pub flows: Vec<FlowDescription>,
    /// Where the next step begins; `None` after the last.
    pub next: Option<u64>,
}

impl Shard {
    /// Lists sessions from `place` on, within one turn's share of work: at most `limit`, plus the rest of the last
    /// place.
    pub fn list_flows(
        &self,
        (snapshot, now): (&Snapshot, Time),
        selection: &FlowSelection,
        (place, limit): (u64, usize),
    ) -> FlowPage {
        let limit = limit.min(LISTED_FLOWS_PER_TURN);
        let (place, end) = (place as usize, (place as usize).saturating_add(LISTED_PLACES_PER_TURN));
        let mut page = FlowPage::default();
        let mut last = place;
        for listed in self.sessions.scan(place, LISTED_PLACES_PER_TURN) {
            // A page ends between places only: the cursor is a place, and a split one would be listed twice or lost.
            if page.flows.len() >= limit && listed.place != last {
                page.next = Some(listed.place as u64);
                return page;
            }
            last = listed.place;
            if let Some(context) = self.wanted((snapshot, now.tick()), selection, &listed) {
                page.flows.push(describe(&context, (&listed, self.sessions.origin(listed.slot)), now.tick()));
            }
        }
        page.next = (end < self.sessions.places()).then_some(end as u64);
        page
    }

    /// Ends sessions from `place` on, within one turn's share of work. Returns how many, and where the next step
    /// begins.
    pub fn flush_flows(
        &mut self,
        (snapshot, now): (&Snapshot, Time),
        selection: &FlowSelection,
        place: u64,
    ) -> (u64, Option<u64>) {
        let (place, end) = (place as usize, (place as usize).saturating_add(LISTED_PLACES_PER_TURN));
        let all = self.sessions.scan(place, LISTED_PLACES_PER_TURN);
        // Collected first, since ending a session changes the chains that are walked.
        let wanted: Vec<_> = all
            .filter(|listed| self.wanted((snapshot, now.tick()), selection, listed).is_some())
            .map(|listed| (listed.slot, listed.connection.sessions[listed.index].epoch()))
            .collect();
        for (slot, epoch) in &wanted {
            self.end_session(*slot, *epoch);
        }
        (wanted.len() as u64, (end < self.sessions.places()).then_some(end as u64))
    }

    /// The context of a live session, if it matches the selection.
    fn wanted<'a>(
        &self,
        (snapshot, now): (&'a Snapshot, Tick),
        selection: &FlowSelection,
        listed: &Listed<'_>,
    ) -> Option<EniContext<'a>> {
        let Listed { tuple, connection, .. } = listed;
        let side = connection.sessions[listed.index];
        let context = EniContext::new(snapshot, EniIndex(self.place_of(side.epoch())? as u32), side.opened())?;
        // An index may have passed to another ENI since the session was opened.
        if context.eni.epoch != side.epoch() || connection.is_expired(snapshot.settings(), now) {
            return None;
        }
        let has_ports = matches!(tuple.protocol, protocol::TCP | protocol::UDP);
        let has_port = |port| has_ports && (tuple.source_port == port || tuple.destination_port == port);
        let (source, destination) = (tuple.addresses.source(), tuple.addresses.destination());
        let is_wanted = selection.eni.as_ref().is_none_or(|id| *id == *context.eni.id)
            && selection.protocol.is_none_or(|number| number == tuple.protocol)
            && selection.port.is_none_or(has_port)
            && selection.prefix.is_none_or(|prefix| prefix.contains(&source) || prefix.contains(&destination))
            && selection.state.as_ref().is_none_or(|state| *state == state_name(connection.state, side))
            && selection.rule.as_ref().is_none_or(|rule| {
                admitting_rule(&context, side, self.sessions.origin(listed.slot).grounds[listed.index]) == Some(rule)
            });
        is_wanted.then_some(context)
    }
}

/// The names of all states in which a session is reported.
pub const STATE_NAMES: [&str; 10] =
    ["opening", "answered", "established", "closing", "abandoned", "closed", "single", "stream", "open", REVOKED];

const REVOKED: &str = "revoked";

fn state_name(state: ConnectionState, side: Session) -> &'static str {
    if side.is_revoked() { REVOKED } else { state.name() }
}

/// The rule that admitted a session. The ground of an older revision refers to the ACL of that time, so it is unknown
/// until the session's next packet.
fn admitting_rule<'a>(context: &EniContext<'a>, side: Session, ground: u32) -> Option<&'a RuleId> {
    (side.revision == context.revision).then(|| ground_of(context.acl, side.opened(), side.stage(), ground).0).flatten()
}

fn describe(context: &EniContext<'_>, (listed, origin): (&Listed<'_>, &Origin), now: Tick) -> FlowDescription {
    let Listed { tuple, connection, .. } = listed;
    let side = connection.sessions[listed.index];
    FlowDescription {
        eni: EniId::clone(&context.eni.id),
        opened: side.opened(),
        protocol: tuple.protocol,
        source: tuple.addresses.source(),
        destination: tuple.addresses.destination(),
        source_port: tuple.source_port,
        // The key has the ICMP type there, which is no port.
        destination_port: if connection.state == ConnectionState::Icmp { 0 } else { tuple.destination_port },
        state: state_name(connection.state, side).into(),
        stage: side.stage().name().into(),
        rule: admitting_rule(context, side, origin.grounds[listed.index]).cloned(),
        revision: side.revision,
        generation: context.snapshot.generation_of(side.revision),
        age_ms: origin.opened_at.age_ms(now),
        idle_ms: connection.last_seen.age_ms(now),
        timeout_s: connection.state.timeout_s(connection.timeouts, context.snapshot.settings()),
        packets: connection.packets.map(u64::from),
        bytes: [0, 1].map(|way| origin.bytes_high[way].with(connection.bytes_low[way])),
    }
}
