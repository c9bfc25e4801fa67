//! Who is at the other end of each peer of the transport: where packets for it go, and what they are sealed with.
//!
//! Without sealing a peer is an address. With it, it is a *lane* of an association: one for each network rule that calls are
//! made under, so that all packets of a call, and of its response, keep its rule. Our own lanes go by the route that the
//! session core chooses under their rule; on a lane of the peer's we answer the way by which it spoke last.

use super::error::SendError;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use steadfast_homa::packet::{Body, DATA_HEADER, Dialect, Packet};
use steadfast_homa::{Instant, LinkId, PeerConfig, PeerId, Transmit, Transport};
use steadfast_net::datagram::seal::{Algorithm, Keyring, Offer, Sealer};
use steadfast_net::datagram::{Batch, Fault, MAX_PACKET, Route, Trouble};
use steadfast_session::AssociationId;
use steadfast_wire::{Fingerprint, Rule};

/// What a packet takes on a wire of Ethernet besides itself: header, checksum, preamble and gap. A link whose rate was told would
/// get more than it takes without it.
const FRAME: u32 = 14 + 4 + 8 + 12;
/// Rules under which calls to one process may be made at a time.
pub(super) const MAX_LANES: usize = 16;
/// Keys for what processes of peers send to us.
const MAX_KEYS: usize = 8192;
/// In the first byte of what is sealed: the lane is the recipient's.
const YOURS: u8 = 0x80;
/// What a path takes if nothing is known of it: Ethernet.
pub(super) const USUAL_MTU: u32 = 1500;
/// What no path takes less than, by the rules of IPv6.
const LEAST_MTU: u32 = 1280;
/// How long nothing comes from where something is missed before the way itself is doubted.
const SILENCE: Duration = Duration::from_millis(20);
/// From how many bytes of payload it takes longer to copy them than to send them by themselves.
const LONG: usize = 16 * 1024;
/// Version of what we offer.
const OFFER_VERSION: u8 = 1;
/// Bytes of the version and the round.
const OFFER_HEAD: usize = 5;

/// Whose request it is, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct From {
    /// The key that was proven; none without sealing.
    pub key: Option<Fingerprint>,
    /// From where it spoke last.
    pub address: Option<SocketAddr>,
}

/// A packet that was opened.
pub(super) struct Opened<'p> {
    pub(super) peer: PeerId,
    pub(super) packet: &'p [u8],
}

/// Where a lane's packets go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) local: Option<IpAddr>,
    pub(super) remote: IpAddr,
    pub(super) link: LinkId,
    /// Bytes of a packet, all headers included.
    pub(super) mtu: u32,
}

#[derive(Debug)]
struct Entry {
    id: PeerId,
    way: Way,
    /// None while nothing may be sent to it.
    route: Option<Route>,
    segment: u32,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Address(SocketAddr),
    Lane { association: AssociationId, ours: bool, lane: u8 },
}

#[derive(Debug)]
struct Association {
    key: Fingerprint,
    /// The id of the key that it seals with.
    key_id: u32,
    /// Of our offer. Only offers of the same round belong together: so none of the other side's is ever used twice.
    round: u32,
    sealer: Option<Sealer>,
    /// Where it receives, over IPv4 and IPv6; 0 where it does not.
    ports: [u16; 2],
    /// Those that are up.
    paths: Vec<Path>,
    ours: BTreeMap<u8, (Rule, PeerId)>,
    theirs: BTreeMap<u8, PeerId>,
}

/// How packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// UDP on the loopback, or raw IP.
    Clear(Dialect),
    Sealed,
}

#[derive(Debug)]
pub(super) struct Peers {
    form: Form,
    /// Bytes of IP's and UDP's headers, over IPv4 and IPv6.
    headers: [u32; 2],
    /// What a path takes where nobody knows better.
    mtu: u32,
    /// By the index of the peer.
    entries: Vec<Option<Entry>>,
    addresses: HashMap<SocketAddr, PeerId>,
    pub(super) ring: Keyring<AssociationId>,
    associations: HashMap<AssociationId, Association>,
}

/// 0 for IPv4, 1 for IPv6.
pub(super) const fn family(ip: IpAddr) -> usize {
    if ip.is_ipv4() { 0 } else { 1 }
}

impl Peers {
    pub(super) fn new(form: Form, headers: [u32; 2], mtu: u32) -> Self {
        Self {
            form,
            headers,
            mtu,
            entries: Vec::new(),
            addresses: HashMap::new(),
            ring: Keyring::new(MAX_KEYS),
            associations: HashMap::new(),
        }
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.form == Form::Sealed
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self.form {
            Form::Clear(dialect) => dialect,
            Form::Sealed => Dialect::Steadfast,
        }
    }

    fn entry(&self, peer: PeerId) -> Option<&Entry> {
        self.entries.get(peer.index())?.as_ref().filter(|entry| entry.id == peer)
    }

    fn entry_mut(&mut self, peer: PeerId) -> Option<&mut Entry> {
        self.entries.get_mut(peer.index())?.as_mut().filter(|entry| entry.id == peer)
    }

    pub(super) fn segment(&self, peer: PeerId) -> usize {
        self.entry(peer).map_or(USUAL_MTU, |entry| entry.segment) as usize
    }

    pub(super) fn who(&self, peer: PeerId) -> From {
        let Some(entry) = self.entry(peer) else { return From { key: None, address: None } };
        match entry.way {
            Way::Address(address) => From { key: None, address: Some(address) },
            Way::Lane { association, .. } => From {
                key: self.associations.get(&association).map(|association| association.key),
                address: entry.route.map(|route| route.remote),
            },
        }
    }

    /// How a peer of this family is to be told to the transport.
    fn config(&self, link: LinkId, family: usize, mtu: u32) -> PeerConfig {
        let sealing = if self.is_sealed() { Sealer::OVERHEAD as u32 + 1 } else { 0 };
        let overhead = self.headers[family] + sealing;
        let most = (MAX_PACKET - DATA_HEADER) as u32 - sealing;
        let segment = mtu.max(LEAST_MTU).saturating_sub(overhead + DATA_HEADER as u32).min(most);
        PeerConfig { link, dialect: self.dialect(), segment, overhead: overhead + FRAME }
    }

    fn add(
        &mut self,
        transport: &mut Transport,
        now: Instant,
        config: PeerConfig,
        (way, route): (Way, Option<Route>),
    ) -> Option<PeerId> {
        let peer = transport.add_peer(now, config).ok()?;
        let index = peer.index();
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        // Its former owner was forgotten to make room, and the event of that is still to come.
        if let Some(Some(former)) = self.entries.get(index) {
            self.forget(former.id);
        }
        self.entries[index] = Some(Entry { id: peer, way, route, segment: config.segment });
        Some(peer)
    }

    /// The transport has forgotten a peer.
    pub(super) fn forget(&mut self, peer: PeerId) {
        let Some(entry) = self.entries.get_mut(peer.index()) else { return };
        let Some(entry) = entry.take_if(|entry| entry.id == peer) else { return };
        match entry.way {
            Way::Address(address) => {
                self.addresses.remove(&address);
            }
            Way::Lane { association, ours, lane } => {
                if let Some(association) = self.associations.get_mut(&association) {
                    if ours {
                        association.ours.remove(&lane);
                    } else {
                        association.theirs.remove(&lane);
                    }
                }
            }
        }
    }

    // ----- in the clear --------------------------------------------------------------------------------------------

    /// The peer at an address, which is to be asked something.
    pub(super) fn at(
        &mut self,
        transport: &mut Transport,
        now: Instant,
        link: LinkId,
        address: SocketAddr,
    ) -> Result<PeerId, SendError> {
        if let Some(peer) = self.addresses.get(&address) {
            return Ok(*peer);
        }
        self.add_address(transport, now, link, Route::to(address)).ok_or(SendError::TooManyPeers)
    }

    fn add_address(
        &mut self,
        transport: &mut Transport,
        now: Instant,
        link: LinkId,
        route: Route,
    ) -> Option<PeerId> {
        let address = route.remote;
        let config = self.config(link, family(address.ip()), self.mtu);
        let peer = self.add(transport, now, config, (Way::Address(address), Some(route)))?;
        self.addresses.insert(address, peer);
        Some(peer)
    }

    /// The peer that sent a packet; somebody new only if it begins a request.
    pub(super) fn known(
        &mut self,
        transport: &mut Transport,
        now: Instant,
        link: LinkId,
        route: Route,
        packet: &[u8],
    ) -> Option<PeerId> {
        if let Some(peer) = self.addresses.get(&route.remote).copied() {
            // It is answered from the address that it asked.
            if let Some(entry) = self.entry_mut(peer) {
                entry.route = Some(route);
            }
            return Some(peer);
        }
        let packet = Packet::decode(self.dialect(), packet).ok()?;
        let asks = matches!(packet.body, Body::Data(_)) && packet.sender_id & 1 == 0;
        asks.then(|| self.add_address(transport, now, link, route)).flatten()
    }

    // ----- sealed --------------------------------------------------------------------------------------------------

    /// What to offer to a process: a key for what it sends to us, and where to. None if there are too many, or it was offered
    /// something in this round, or a later one.
    pub(super) fn offer(
        &mut self,
        transport: &mut Transport,
        (id, key): (AssociationId, Fingerprint),
        round: u32,
        ports: [u16; 2],
    ) -> Option<Vec<u8>> {
        if self.associations.get(&id).is_some_and(|known| known.round >= round) {
            return None;
        }
        let offer = self.ring.offer(id, Algorithm::fastest()).ok()?;
        if let Some(known) = self.associations.get_mut(&id) {
            self.ring.remove(std::mem::replace(&mut known.key_id, offer.key_id()));
            known.round = round;
            known.sealer = None;
            // What was under way cannot be told from what begins now.
            for peer in known.lanes() {
                transport.handle_restart(peer);
            }
        } else {
            let fresh = Association {
                key,
                key_id: offer.key_id(),
                round,
                sealer: None,
                ports: [0; 2],
                paths: Vec::new(),
                ours: BTreeMap::new(),
                theirs: BTreeMap::new(),
            };
            self.associations.insert(id, fresh);
        }
        let mut bytes = vec![OFFER_VERSION];
        bytes.extend_from_slice(&round.to_be_bytes());
        bytes.extend(ports.into_iter().flat_map(u16::to_be_bytes));
        bytes.extend_from_slice(&offer.encode());
        Some(bytes)
    }

    /// A process says what to seal with, and where it receives, in answer to what it was offered. If it does not know that
    /// any more, the round in which it is to be offered something again.
    pub(super) fn offered(
        &mut self,
        transport: &mut Transport,
        id: AssociationId,
        offer: &[u8],
    ) -> Option<u32> {
        let (round, association) = (round_of(offer)?, self.associations.get_mut(&id)?);
        let (ports, rest) = offer[OFFER_HEAD..].split_first_chunk::<4>()?;
        // A later version may say more.
        let offer = rest.first_chunk().and_then(Offer::decode)?;
        if round != association.round {
            // Who had come as far as we are and says less has begun anew. Others are about to hear ours.
            let again = round < association.round && association.sealer.is_some();
            return again.then(|| association.round.saturating_add(1));
        }
        if association.sealer.replace(Sealer::new(offer)).is_some() {
            for peer in association.lanes() {
                transport.handle_restart(peer);
            }
        }
        let [a, b, c, d] = *ports;
        association.ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        None
    }

    /// Adds the processes for whose packets new keys are due, and the round for that.
    pub(super) fn worn(&mut self, all: &mut Vec<(AssociationId, Fingerprint, u32)>) {
        while let Some(id) = self.ring.next_worn() {
            if let Some(known) = self.associations.get(&id) {
                all.push((id, known.key, known.round.saturating_add(1)));
            }
        }
    }

    /// Whether a process is known, and whether it has said what to seal with.
    pub(super) fn is_ready(&self, association: AssociationId) -> bool {
        self.associations.get(&association).is_some_and(|association| association.sealer.is_some())
    }

    /// A process is gone: its keys are void, and what was under way with it has ended.
    pub(super) fn end(&mut self, transport: &mut Transport, association: AssociationId) {
        let Some(ended) = self.associations.remove(&association) else { return };
        self.ring.remove(ended.key_id);
        for peer in ended.lanes() {
            transport.handle_restart(peer);
            transport.remove_peer(peer);
            self.forget(peer);
        }
    }

    pub(super) fn associations(&self) -> Vec<AssociationId> {
        self.associations.keys().copied().collect()
    }

    /// Processes that were asked for missing bytes after `since`.
    pub(super) fn missed_since(
        &self,
        transport: &Transport,
        now: Instant,
        since: Option<Instant>,
    ) -> Vec<AssociationId> {
        let missed =
            |peer: &PeerId| transport.missed(*peer).is_some_and(|at| since.is_none_or(|since| at > since));
        // What came on another lane came the same way, if that lane goes there.
        let way = |peer: PeerId| self.entry(peer).and_then(|entry| entry.route).map(|route| route.remote);
        let heard = |lanes: &[PeerId], missed: PeerId| {
            let alike = lanes.iter().filter(|lane| way(**lane) == way(missed));
            alike.filter_map(|lane| transport.heard(*lane)).any(|at| now < at + SILENCE)
        };
        let silent = |known: &Association| {
            let lanes = known.lanes();
            lanes.iter().filter(|lane| missed(lane)).any(|lane| !heard(&lanes, *lane))
        };
        self.associations.iter().filter(|(_, known)| silent(known)).map(|(id, _)| *id).collect()
    }

    /// From where each process was heard, and when.
    pub(super) fn heard(&self, transport: &Transport) -> Vec<(AssociationId, IpAddr, Instant)> {
        let lanes = self
            .associations
            .iter()
            .flat_map(|(id, known)| known.lanes().into_iter().map(|lane| (*id, lane)));
        lanes
            .filter_map(|(id, lane)| Some((id, self.entry(lane)?.route?.remote.ip(), transport.heard(lane)?)))
            .collect()
    }

    /// The lane for a rule, if there is one that has a way.
    pub(super) fn lane(&self, association: AssociationId, rule: &Rule) -> Option<PeerId> {
        let lanes = &self.associations.get(&association)?.ours;
        let (_, peer) = lanes.values().find(|(known, _)| known == rule)?;
        self.entry(*peer)?.route.map(|_| *peer)
    }

    /// The rules of our lanes to a process.
    pub(super) fn rules(&self, association: AssociationId) -> Vec<Rule> {
        let association = self.associations.get(&association);
        association
            .map(|known| known.ours.values().map(|(rule, _)| rule.clone()).collect())
            .unwrap_or_default()
    }

    /// Opens a lane for a rule. Without a way what goes there waits until [`reroute`](Self::reroute) tells one.
    pub(super) fn open_lane(
        &mut self,
        transport: &mut Transport,
        now: Instant,
        (id, rule): (AssociationId, &Rule),
        (path, link): (Option<Path>, LinkId),
    ) -> Result<PeerId, SendError> {
        let association = self.associations.get(&id).ok_or(SendError::NoPeer)?;
        let route = path.and_then(|path| association.route(path));
        if path.is_some() && route.is_none() {
            // The process has no socket for this family of addresses.
            return Err(SendError::NoNetwork { rule: rule.to_string() });
        }
        if let Some((_, peer)) = association.ours.values().find(|(known, _)| known == rule) {
            let peer = *peer;
            self.reroute(transport, id, rule, path);
            return Ok(peer);
        }
        let association = self.associations.get_mut(&id).ok_or(SendError::NoPeer)?;
        let lane = (0..MAX_LANES as u8).find(|lane| !association.ours.contains_key(lane));
        let Some(lane) = lane else { return Err(SendError::TooManyRules { limit: MAX_LANES }) };
        let config = match path {
            Some(path) => self.config(path.link, family(path.remote), path.mtu),
            None => self.config(link, family(Ipv4Addr::LOCALHOST.into()), USUAL_MTU),
        };
        let way = Way::Lane { association: id, ours: true, lane };
        let peer = self.add(transport, now, config, (way, route)).ok_or(SendError::TooManyPeers)?;
        if let Some(association) = self.associations.get_mut(&id) {
            association.ours.insert(lane, (rule.clone(), peer));
        }
        Ok(peer)
    }

    /// A rule's packets go another way from now on, or none.
    pub(super) fn reroute(
        &mut self,
        transport: &mut Transport,
        id: AssociationId,
        rule: &Rule,
        path: Option<Path>,
    ) {
        let Some(association) = self.associations.get(&id) else { return };
        let Some((_, peer)) = association.ours.values().find(|(known, _)| known == rule) else { return };
        let (peer, route) = (*peer, path.and_then(|path| association.route(path)));
        self.set_route(transport, peer, route, path);
    }

    fn set_route(
        &mut self,
        transport: &mut Transport,
        peer: PeerId,
        route: Option<Route>,
        path: Option<Path>,
    ) {
        let config = path.map(|path| self.config(path.link, family(path.remote), path.mtu));
        let Some(entry) = self.entry_mut(peer) else { return };
        if entry.route == route {
            return;
        }
        entry.route = route;
        if let Some(config) = config {
            entry.segment = config.segment;
            let _known = transport.update_peer(peer, config);
        }
    }

    /// The other ends of a process's paths, and by which link each is reached: what it may speak from.
    pub(super) fn set_paths(&mut self, transport: &mut Transport, id: AssociationId, paths: &[Path]) {
        let Some(association) = self.associations.get_mut(&id) else { return };
        association.paths = paths.to_vec();
        // A lane of the peer's whose way is gone waits until the peer speaks another way: only it knows the rule.
        let theirs: Vec<PeerId> = association.theirs.values().copied().collect();
        for peer in theirs {
            let Some(route) = self.entry(peer).and_then(|entry| entry.route) else { continue };
            if !paths.iter().any(|path| path.remote == route.remote.ip()) {
                self.set_route(transport, peer, None, None);
            }
        }
    }

    /// Opens a packet; nothing changes unless it is proven.
    pub(super) fn open<'p>(
        &mut self,
        transport: &mut Transport,
        now: Instant,
        from: Route,
        packet: &'p mut [u8],
    ) -> Option<Opened<'p>> {
        let (id, plain) = self.ring.open(packet).ok()?;
        let id = *id;
        let (lane, packet) = plain.split_first()?;
        let (yours, lane) = (*lane & YOURS != 0, *lane & !YOURS);
        let association = self.associations.get(&id)?;
        if yours {
            let (_, peer) = association.ours.get(&lane)?;
            return Some(Opened { peer: *peer, packet });
        }
        if usize::from(lane) >= MAX_LANES {
            return None;
        }
        // Answers go where it spoke from, if that is an end of one of its paths: the address alone is not proven.
        let is_from = |path: &&Path| {
            path.remote == from.remote.ip()
                && (path.local.is_none() || from.local.is_none() || path.local == from.local)
        };
        let path = association.paths.iter().find(is_from).copied();
        let path = path.map(|path| Path { local: from.local.or(path.local), ..path });
        let route = path.and_then(|path| association.route(path));
        let known = association.theirs.get(&lane).copied();
        if let Some(peer) = known {
            if route.is_some() && self.entry(peer).is_some_and(|entry| entry.route != route) {
                self.set_route(transport, peer, route, path);
            }
            return Some(Opened { peer, packet });
        }
        // It is sent again, when the path is known here, too.
        let path = path?;
        let config = self.config(path.link, family(path.remote), path.mtu);
        let way = Way::Lane { association: id, ours: false, lane };
        let peer = self.add(transport, now, config, (way, route))?;
        self.associations.get_mut(&id)?.theirs.insert(lane, peer);
        Some(Opened { peer, packet })
    }

    // ----- both ----------------------------------------------------------------------------------------------------

    /// Writes packets; how many bytes they are. Those for whom there is no way are dropped: what matters is sent again.
    pub(super) fn write(&mut self, transmit: &Transmit, tos: u8, batches: &mut [Batch]) -> usize {
        let entry = self.entries.get(transmit.peer().index()).and_then(Option::as_ref);
        let Some(entry) = entry.filter(|entry| entry.id == transmit.peer()) else { return 0 };
        let Some(route) = entry.route else { return 0 };
        let batch = if batches.len() > 1 { family(route.remote.ip()) } else { 0 };
        let Some(batch) = batches.get_mut(batch) else { return 0 };
        let before = batch.bytes();
        match entry.way {
            Way::Address(_) => {
                for index in 0..transmit.packets() {
                    match transmit {
                        Transmit::Data(run) if run.payload(index).len() >= LONG => {
                            let write = |out: &mut Vec<u8>| run.header(index).encode(out);
                            batch.push_long(route, tos, write, run.share_payload(index));
                        }
                        _ => _ = batch.push(route, tos, |out| transmit.write(index, out)),
                    }
                }
            }
            Way::Lane { association, ours, lane } => {
                let association = self.associations.get_mut(&association);
                let Some(sealer) = association.and_then(|association| association.sealer.as_mut()) else {
                    return 0;
                };
                let lane = if ours { lane } else { lane | YOURS };
                for index in 0..transmit.packets() {
                    let _never_exhausted = batch.push_sealed(route, tos, sealer, |out| {
                        out.push(lane);
                        transmit.write(index, out);
                    });
                }
            }
        }
        batch.bytes() - before
    }

    /// Whether what the network says is about a packet to this peer. Where packets are sealed, only who saw one can say so;
    /// that one is too long our own kernel says, without quoting it.
    fn may_concern(&self, entry: &Entry, trouble: &Trouble) -> bool {
        let Way::Lane { association, .. } = entry.way else { return true };
        if trouble.own {
            return matches!(trouble.fault, Fault::TooBig { .. });
        }
        let sealer = self.associations.get(&association).and_then(|known| known.sealer.as_ref());
        sealer.is_some_and(|sealer| sealer.may_have_sealed(&trouble.quoted))
    }

    /// The network says something of an address.
    pub(super) fn trouble(&mut self, transport: &mut Transport, trouble: &Trouble) -> Vec<PeerId> {
        let is_there = |entry: &&Entry| {
            entry.route.is_some_and(|route| route.remote == trouble.remote)
                && self.may_concern(entry, trouble)
        };
        let there: Vec<PeerId> =
            self.entries.iter().flatten().filter(is_there).map(|entry| entry.id).collect();
        if let Fault::TooBig { mtu } = trouble.fault {
            let mtu = if mtu == 0 { LEAST_MTU } else { mtu };
            for peer in &there {
                let sealing = if self.is_sealed() { Sealer::OVERHEAD as u32 + 1 } else { 0 };
                let headers = self.headers[family(trouble.remote.ip())] + sealing + DATA_HEADER as u32;
                let segment = mtu.max(LEAST_MTU) - headers;
                if let Some(entry) = self.entry_mut(*peer).filter(|entry| segment < entry.segment) {
                    entry.segment = segment;
                    transport.set_segment(*peer, segment);
                }
            }
            return Vec::new();
        }
        // Where there may be another way, the paths themselves tell whether this one is good.
        if self.is_sealed() && trouble.fault == Fault::HostUnreachable { Vec::new() } else { there }
    }
}

/// The round of an offer that is understood here.
pub(super) fn round_of(offer: &[u8]) -> Option<u32> {
    let (&OFFER_VERSION, rest) = offer.split_first()? else { return None };
    rest.first_chunk().map(|round| u32::from_be_bytes(*round))
}

impl Association {
    fn lanes(&self) -> Vec<PeerId> {
        self.ours.values().map(|(_, peer)| *peer).chain(self.theirs.values().copied()).collect()
    }

    fn route(&self, path: Path) -> Option<Route> {
        let port = self.ports[family(path.remote)];
        (port != 0).then(|| Route { remote: SocketAddr::new(path.remote, port), local: path.local })
    }
}
