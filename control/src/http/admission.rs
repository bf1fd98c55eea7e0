//! Limits the connections and the unfinished requests of each peer and of all together.
//!
//! Nothing is known about a client before its first request has been read, so every peer has a share, and whoever holds
//! most gives way. Root, the user this process runs as, and connections that have made a signed request have larger
//! shares, and a reserve that nobody else can use up.

use super::HEAD_BYTES_MAX;
use super::peer::HttpPeer;
use crate::refusal_log::RefusalLog;
use crate::socket::view::ClientsView;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Connections at once.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections that only root and this process's user may make, or that have made a signed request.
const CONNECTIONS_RESERVED: usize = 256;
/// Connections of one peer that have made no signed request.
pub const PEER_CONNECTIONS_MAX: usize = 128;
/// Connections of root or of this process's user, and connections on which one account has made signed requests.
const TRUSTED_CONNECTIONS_MAX: usize = 512;
/// Bytes of unfinished requests at once, of all connections.
pub const UNFINISHED_BYTES_MAX: usize = 64 << 20;
/// Bytes that every connection may always hold.
const CONNECTION_BYTES: usize = 16 << 10;
/// Bytes of a request above which a connection without a signed request is closed afterwards.
const BUFFERED_BYTES: usize = 32 << 10;
/// Bytes beyond [`CONNECTION_BYTES`], of all connections.
const SHARED_BYTES_MAX: usize = 48 << 20;
/// Shared bytes that only root, this process's user and connections with a signed request may hold.
const SHARED_BYTES_RESERVED: usize = 16 << 20;
/// Shared bytes of one peer.
const PEER_BYTES_MAX: usize = 8 << 20;
/// Shared bytes of root, of this process's user, and of one account.
const TRUSTED_BYTES_MAX: usize = 24 << 20;

const _: () = assert!(CONNECTIONS_MAX * CONNECTION_BYTES + SHARED_BYTES_MAX <= UNFINISHED_BYTES_MAX);
const _: () = assert!(PEER_BYTES_MAX <= SHARED_BYTES_MAX - SHARED_BYTES_RESERVED);
const _: () = assert!(PEER_CONNECTIONS_MAX < CONNECTIONS_MAX - CONNECTIONS_RESERVED);

/// Whose share a connection counts against.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ShareHolder {
    /// Of connections without a signed request.
    Peer(HttpPeer),
    /// Of connections with one.
    Account(String),
}

impl ShareHolder {
    fn is_trusted(&self) -> bool {
        match self {
            Self::Peer(peer) => peer.is_privileged(),
            Self::Account(_) => true,
        }
    }

    fn connections_max(&self) -> usize {
        if self.is_trusted() { TRUSTED_CONNECTIONS_MAX } else { PEER_CONNECTIONS_MAX }
    }

    /// The limit of its own shared bytes, and that of all.
    fn bytes_max(&self) -> (usize, usize) {
        match self.is_trusted() {
            true => (TRUSTED_BYTES_MAX, SHARED_BYTES_MAX),
            false => (PEER_BYTES_MAX, SHARED_BYTES_MAX - SHARED_BYTES_RESERVED),
        }
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionPhase {
    /// It is sending a request, or nothing yet.
    Reading,
    /// Its request is complete and being processed.
    Serving,
    /// It was sent a response and has sent nothing since.
    Answered,
}

/// One connection.
#[derive(Debug)]
struct AdmittedConnection {
    holder: ShareHolder,
    phase: ConnectionPhase,
    /// Bytes read of unfinished requests.
    bytes: usize,
    /// Bytes of the last read, which may begin another request after the one it ends.
    last_bytes: usize,
    /// Whether it has to give way to another connection.
    gives_way: bool,
    told: Arc<Notify>,
}

impl AdmittedConnection {
    fn shared_bytes(&self) -> usize {
        shared(self.bytes)
    }

    fn can_give_way(&self) -> bool {
        matches!(self.holder, ShareHolder::Peer(_)) && self.phase != ConnectionPhase::Serving && !self.gives_way
    }
}

/// How much a request of this length takes of the shared bytes. A long one is read into a buffer of its own.
fn shared(bytes: usize) -> usize {
    match bytes.checked_sub(CONNECTION_BYTES) {
        None | Some(0) => 0,
        Some(beyond) => beyond + HEAD_BYTES_MAX,
    }
}

#[derive(Debug, Default)]
struct Share {
    connections: usize,
    shared_bytes: usize,
}

#[derive(Debug, Default)]
struct Places {
    /// By number, so the oldest first.
    places: BTreeMap<u64, AdmittedConnection>,
    shares: BTreeMap<ShareHolder, Share>,
    last: u64,
    /// Connections that have to give way and are not closed yet.
    leaving: usize,
    shared_bytes: usize,
}

/// The admission of all connections.
#[derive(Debug)]
pub(super) struct AdmissionControl {
    places: Mutex<Places>,
    refusals: RefusalLog,
}

impl Default for AdmissionControl {
    fn default() -> Self {
        let what = format!(
            "HTTP takes {CONNECTIONS_MAX} connections, {PEER_CONNECTIONS_MAX} of one user or address, and \
             {UNFINISHED_BYTES_MAX} bytes of unfinished requests"
        );
        Self { places: Mutex::default(), refusals: RefusalLog::new(what) }
    }
}

impl AdmissionControl {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection of a peer; returns `None` if neither it nor another connection can give way.
    pub(super) fn admit(self: &Arc<Self>, peer: HttpPeer) -> Option<Ticket> {
        let mut places = self.places();
        let admitted = places.make_room(&ShareHolder::Peer(peer)).then(|| places.enter(ShareHolder::Peer(peer)));
        drop(places);
        match admitted {
            Some((number, told)) => Some(Ticket { admission: Arc::clone(self), number, told }),
            None => {
                self.refusals.count();
                None
            }
        }
    }

    /// The present counts and limits.
    pub(super) fn status(&self) -> ClientsView {
        let places = self.places();
        ClientsView {
            connections: places.places.len(),
            connections_max: CONNECTIONS_MAX,
            unfinished_bytes: places.places.values().map(|place| place.bytes).sum(),
            unfinished_bytes_max: UNFINISHED_BYTES_MAX,
            refused: self.refusals.total(),
        }
    }
}

impl Places {
    /// Whether there is room for another connection of a holder, after asking another to give way if necessary.
    fn make_room(&mut self, holder: &ShareHolder) -> bool {
        let own = self.shares.get(holder).map_or(0, |share| share.connections);
        if own >= holder.connections_max() {
            // A holder at its own limit makes room from its own share, so that one user never displaces another's
            // connections.
            return self.displace(holder);
        }
        let most = if holder.is_trusted() { CONNECTIONS_MAX } else { CONNECTIONS_MAX - CONNECTIONS_RESERVED };
        // Connections that leave still occupy their entries; counting them would refuse the newcomer they give way to.
        if self.places.len() - self.leaving < most {
            return true;
        }
        // Whoever holds most gives way, provided that this is more than the new connection's holder would have.
        let unsigned = self.shares.iter().filter(|(other, _)| matches!(other, ShareHolder::Peer(_)));
        let largest = unsigned.max_by_key(|(_, share)| share.connections);
        let largest = largest.filter(|(_, share)| share.connections > own + 1).map(|(other, _)| other.clone());
        largest.is_some_and(|largest| self.displace(&largest))
    }

    /// Asks a holder's oldest connection that can give way to do so.
    fn displace(&mut self, holder: &ShareHolder) -> bool {
        // Connections of accounts never give way: only who sent nothing signed can be displaced.
        let Some(place) = self.places.values_mut().find(|place| place.holder == *holder && place.can_give_way()) else {
            return false;
        };
        place.gives_way = true;
        place.told.notify_one();
        self.leaving += 1;
        // The share is left now, not when the connection closes, or its holder would be chosen again in the meantime.
        let holder = place.holder.clone();
        self.leave_share(&holder);
        true
    }

    fn enter(&mut self, holder: ShareHolder) -> (u64, Arc<Notify>) {
        self.last += 1;
        let told = Arc::new(Notify::new());
        self.shares.entry(holder.clone()).or_default().connections += 1;
        let (phase, gives_way) = (ConnectionPhase::Reading, false);
        let place = AdmittedConnection { holder, phase, bytes: 0, last_bytes: 0, gives_way, told: Arc::clone(&told) };
        self.places.insert(self.last, place);
        (self.last, told)
    }

    fn leave_share(&mut self, holder: &ShareHolder) {
        if let Some(share) = self.shares.get_mut(holder) {
            share.connections -= 1;
            // A connection that left the share may still hold bytes of it until it closes.
            if share.connections == 0 && share.shared_bytes == 0 {
                self.shares.remove(holder);
            }
        }
    }

    /// Sets how many bytes a connection holds, if there is room.
    fn hold(&mut self, number: u64, bytes: usize) -> bool {
        let Some(place) = self.places.get_mut(&number) else { return false };
        let before = place.shared_bytes();
        let after = shared(bytes);
        let share = self.shares.entry(place.holder.clone()).or_default();
        let (own_max, all_max) = place.holder.bytes_max();
        let (own, all) = (share.shared_bytes - before + after, self.shared_bytes - before + after);
        // Only growth is refused: an account can be above its limit, because `authenticate` moves bytes to it
        // unchecked.
        if after > before && (own > own_max || all > all_max) {
            return false;
        }
        place.bytes = bytes;
        share.shared_bytes = own;
        self.shared_bytes = all;
        true
    }
}

/// The admission of one connection, which is released when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    admission: Arc<AdmissionControl>,
    number: u64,
    told: Arc<Notify>,
}

impl Ticket {
    /// Completes when the connection has to give way.
    pub(super) async fn gives_way(&self) {
        self.told.notified().await;
    }

    /// Counts bytes that were read. Returns whether there is room for them.
    pub(super) fn read(&self, count: usize) -> bool {
        let mut places = self.admission.places();
        let Some(place) = places.places.get_mut(&self.number) else { return false };
        // The first byte of the next request; what comes ahead of the present response leaves the phase alone.
        if place.phase == ConnectionPhase::Answered {
            place.phase = ConnectionPhase::Reading;
        }
        place.last_bytes = count;
        let bytes = place.bytes + count;
        let has_room = places.hold(self.number, bytes);
        drop(places);
        if !has_room {
            self.admission.refusals.count();
        }
        has_room
    }

    /// Marks the request as complete. Returns whether it may still be processed; from now on the connection does not
    /// give way.
    pub(super) fn begin(&self) -> bool {
        let mut places = self.admission.places();
        // Another connection was admitted in place of one that gives way, so it is too late for its request.
        let place = places.places.get_mut(&self.number).filter(|place| !place.gives_way);
        place.map(|place| place.phase = ConnectionPhase::Serving).is_some()
    }

    /// Moves the connection to the shares of the account that signed the request.
    pub(super) fn authenticate(&self, account: &str) {
        let mut places = self.admission.places();
        let account = ShareHolder::Account(account.to_owned());
        let held = places.shares.get(&account).map_or(0, |share| share.connections);
        let Some(place) = places.places.get(&self.number) else { return };
        // Beyond the account's limit, the connection stays with its address: it is served, and can be displaced later.
        if place.holder == account || place.gives_way || held >= account.connections_max() {
            return;
        }
        let (before, shared) = (place.holder.clone(), place.shared_bytes());
        if let Some(share) = places.shares.get_mut(&before) {
            share.shared_bytes -= shared;
        }
        places.leave_share(&before);
        let share = places.shares.entry(account.clone()).or_default();
        share.connections += 1;
        share.shared_bytes += shared;
        if let Some(place) = places.places.get_mut(&self.number) {
            place.holder = account;
        }
    }

    /// Marks the request as answered and releases its bytes. Returns whether the connection has to be closed, because
    /// the buffers of a long request stay with a connection without a signed request.
    pub(super) fn finish(&self) -> bool {
        let mut places = self.admission.places();
        let Some(place) = places.places.get_mut(&self.number) else { return true };
        let ends = place.bytes > BUFFERED_BYTES && matches!(place.holder, ShareHolder::Peer(_));
        place.phase = ConnectionPhase::Answered;
        // The bytes of the next request were read together with the end of this one.
        let kept = place.last_bytes.min(place.bytes);
        places.hold(self.number, kept);
        ends
    }

    /// Whether the client still waits for a response to what it sends or may send.
    pub(super) fn is_reading(&self) -> bool {
        self.admission.places().places.get(&self.number).is_some_and(|place| place.phase == ConnectionPhase::Reading)
    }

    /// Counts a refused connection.
    pub(super) fn count_refusal(&self) {
        self.admission.refusals.count();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut places = self.admission.places();
        // The bytes go first: `hold` finds their share by the entry that is removed next.
        places.hold(self.number, 0);
        if let Some(place) = places.places.remove(&self.number) {
            match place.gives_way {
                // `displace` took it off its share.
                true => places.leaving -= 1,
                false => places.leave_share(&place.holder),
            }
            // `hold` makes a share anew if the holder's last connection had left it.
            let is_empty = |share: &Share| share.connections == 0 && share.shared_bytes == 0;
            if places.shares.get(&place.holder).is_some_and(is_empty) {
                places.shares.remove(&place.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn elsewhere(number: u32) -> HttpPeer {
        HttpPeer::Address(IpAddr::V4(Ipv4Addr::from(0xc633_6400 + number)))
    }

    fn leaving(admission: &AdmissionControl) -> usize {
        admission.places().leaving
    }

    #[test]
    fn the_oldest_of_a_peer_that_has_its_share_gives_way() {
        let admission = Arc::new(AdmissionControl::default());
        let mut tickets: Vec<Ticket> =
            (0..PEER_CONNECTIONS_MAX).map(|_| admission.admit(elsewhere(1)).unwrap()).collect();
        assert_eq!(leaving(&admission), 0);
        let newest = admission.admit(elsewhere(1)).unwrap();
        assert_eq!(leaving(&admission), 1);
        assert!(!tickets[0].begin() && tickets[1].begin());
        // If all are being served, none can give way.
        tickets.iter().skip(1).for_each(|ticket| assert!(ticket.begin()));
        assert!(newest.begin());
        assert!(admission.admit(elsewhere(1)).is_none());
        assert!(admission.admit(elsewhere(2)).is_some());
        assert_eq!(admission.status().refused, 1);
        tickets.clear();
        drop(newest);
        assert_eq!(admission.status().connections, 0);
        assert!(admission.places().shares.is_empty());
    }

    #[test]
    fn many_peers_leave_room_for_root_for_the_signed_and_for_one_more_peer() {
        let admission = Arc::new(AdmissionControl::default());
        let rest = CONNECTIONS_MAX - CONNECTIONS_RESERVED;
        let full: Vec<Ticket> =
            (0..rest).map(|number| admission.admit(elsewhere(number as u32 % 8)).unwrap()).collect();
        assert_eq!(leaving(&admission), 0);
        let another = admission.admit(elsewhere(100)).unwrap();
        assert_eq!(leaving(&admission), 1, "who holds most gives way");
        another.authenticate("7");
        let root: Vec<Ticket> = (0..50).map(|_| admission.admit(HttpPeer::User(0)).unwrap()).collect();
        assert_eq!(leaving(&admission), 1);
        for ticket in full.iter().chain(&root) {
            ticket.begin();
        }
        assert!(admission.admit(elsewhere(200)).is_none());
        assert!(admission.admit(HttpPeer::User(0)).is_some());
    }

    #[test]
    fn bytes_are_bounded_for_a_peer_and_in_all_and_the_signed_have_a_reserve() {
        let admission = Arc::new(AdmissionControl::default());
        let fill = |peer: HttpPeer| {
            let ticket = admission.admit(peer).unwrap();
            let mut bytes = 0;
            while ticket.read(64 << 10) {
                bytes += 64 << 10;
            }
            (ticket, bytes)
        };
        let (first, bytes) = fill(elsewhere(1));
        assert!(bytes <= PEER_BYTES_MAX + CONNECTION_BYTES);
        assert!(bytes + (64 << 10) + HEAD_BYTES_MAX > PEER_BYTES_MAX);
        let others: Vec<(Ticket, usize)> = (2..20).map(|number| fill(elsewhere(number))).collect();
        let all: usize = others.iter().map(|(_, bytes)| bytes).sum::<usize>() + bytes;
        assert!(all <= SHARED_BYTES_MAX - SHARED_BYTES_RESERVED + 19 * CONNECTION_BYTES, "{all}");
        // A small request always finds room, and a connection with a signed request may use the reserve.
        let signed = admission.admit(elsewhere(1)).unwrap();
        assert!(signed.read(CONNECTION_BYTES) && !signed.read(1 << 20));
        assert!(signed.begin());
        signed.authenticate("7");
        assert!(!signed.finish(), "one that was signed goes on");
        assert!(signed.read(1 << 20));
        let (root, bytes) = fill(HttpPeer::User(0));
        assert!(bytes > 8 << 20, "{bytes}");
        assert!(admission.status().unfinished_bytes <= UNFINISHED_BYTES_MAX);
        drop(root);
        assert!(!first.read(64 << 10));
        assert!(first.finish(), "one that was not ends with a long request");
        assert!(first.read(64 << 10), "what is done is held no longer");
        drop((first, others, signed));
        let places = admission.places();
        assert_eq!((places.shared_bytes, places.places.len(), places.shares.len()), (0, 0, 0));
    }
}
