//! One record for the sessions of both ENIs behaves as two: the same bursts through a shard that passes packets from
//! ENI to ENI at once, and through one that takes them half by half and so keeps every session apart.

use crate::changes::{ENIS, add_eni, change_list, change_membership, change_rules, change_settings, first_world};
use crate::conversation::{PORTS, SOURCE_PORTS, follow_up};
use harness::frame::{Ip, TcpFlags};
use harness::message::{Content, Message};
use harness::random::Random;
use harness::world::{Fate, World};
use vswitch_core::config::desired::{Direction, Timeouts};
use vswitch_core::config::ids::{EniId, EniIndex};
use vswitch_core::config::protocol::FlowDescription;
use vswitch_core::packet::offload::Offload;
use vswitch_core::packet::verdict::Verdict;
use vswitch_core::packet::{FrameBuffer, Packet};

const STEPS: usize = 500;

#[test]
fn sessions_in_one_record_behave_as_two() {
    crate::for_each_seed(|seed| PathPair::new(seed).run());
}

/// Whether each of the two has the fast path: most have it together and not apart, some neither, and some both.
const fn fast_paths(seed: u64) -> [bool; 2] {
    match seed % 4 {
        0 => [false, true],
        1 => [true, true],
        _ => [true, false],
    }
}

struct PathPair {
    seed: u64,
    random: Random,
    /// Packets go all the way at once.
    together: World,
    /// First all egress, then all ingress.
    apart: World,
    recent: Vec<Message>,
}

impl PathPair {
    fn new(seed: u64) -> Self {
        let world = |fast_path| {
            let mut desired = first_world();
            desired.settings.fast_path = fast_path;
            World::with_shards(desired, 1, 512)
        };
        let [together, apart] = fast_paths(seed).map(world);
        Self { seed, random: Random::new(seed), together, apart, recent: Vec::new() }
    }

    fn run(mut self) {
        for step in 0..STEPS {
            match self.random.below(100) {
                0..=9 => self.change(),
                10..=17 => {
                    let seconds = self.random.pick(&[1, 2, 3, 5, 10, 29, 30, 31, 300, 910]);
                    self.together.wait_s(seconds);
                    self.apart.wait_s(seconds);
                }
                _ => self.burst(step),
            }
            self.compare(step);
        }
    }

    fn change(&mut self) {
        let random = &mut self.random;
        let mut desired = self.together.desired.clone();
        match random.below(12) {
            0..=3 => change_rules(random, &mut desired),
            4..=5 => change_membership(random, &mut desired),
            6 => change_list(random, &mut desired),
            7 => change_settings(random, &mut desired),
            8 => {
                let id = random.pick(&ENIS);
                if desired.enis.remove(&EniId::from(id)).is_none() {
                    desired = add_eni(desired, id);
                }
                id.into()
            }
            choice => {
                let id = EniId::from(random.pick(&ENIS));
                let Some(eni) = desired.enis.get_mut(&id) else { return };
                match choice {
                    9 => eni.timeouts = Timeouts { udp_s: random.pick(&[10, 30]), ..Timeouts::default() },
                    10 => eni.sessions_max = random.pick(&[2, 4, 4000]),
                    _ => {
                        eni.source_dest_check ^= true;
                        eni.routed_as_own = random.chance(50);
                    }
                }
                id.to_string()
            }
        };
        for (world, fast_path) in [&mut self.together, &mut self.apart].into_iter().zip(fast_paths(self.seed)) {
            desired.settings.fast_path = fast_path;
            world.change(|current| *current = desired.clone());
        }
    }

    fn burst(&mut self, step: usize) {
        let Some(from) = Some(self.random.pick(&ENIS)).filter(|id| self.exists(id)) else { return };
        let messages: Vec<Message> = (0..=self.random.below(6)).filter_map(|_| self.next_message(from)).collect();
        let claims: Vec<Claim> = messages.iter().map(|_| Claim::random(&mut self.random)).collect();
        let index = self.together.index(from);
        let packets = |world: &World| -> Vec<Packet> {
            let claiming = messages.iter().zip(&claims);
            claiming.map(|(message, claim)| claim.packet_of(message, |ip| world.frame_from(from, ip))).collect()
        };
        let (mut together, mut apart) = (packets(&self.together), packets(&self.apart));
        let World { shards, snapshot, now, .. } = &mut self.together;
        shards[0].forward((snapshot, *now), index, &mut together, |_: EniIndex| true);
        let World { shards, snapshot, now, .. } = &mut self.apart;
        shards[0].egress(snapshot, index, &mut apart, *now);
        shards[0].ingress(snapshot, &mut apart, *now);
        let waited = self.together.release();
        assert_eq!(waited, release_apart(&mut self.apart), "step {step}, seed {}", self.seed);
        for (place, (one, other)) in together.iter().zip(&apart).enumerate() {
            let found = (one.verdict, one.buffer.frame(), one.decision, one.offload);
            let expected = (other.verdict, other.buffer.frame(), other.decision, other.offload);
            let sent = (&messages[place], &claims[place]);
            assert_eq!(found, expected, "packet {place} of step {step}, seed {}: {sent:?}", self.seed);
            let passed = matches!(one.verdict, Verdict::Deliver | Verdict::Answer | Verdict::Wait | Verdict::Drop(_));
            assert!(passed, "{:?}", one.verdict);
        }
        self.recent.extend(messages);
        self.recent.drain(..self.recent.len().saturating_sub(24));
    }

    /// Something that `from` says: often in a conversation that is under way.
    fn next_message(&mut self, from: &str) -> Option<Message> {
        let is_v6 = self.random.chance(30);
        let source = self.address(from, is_v6)?;
        let random = &mut self.random;
        let mine: Vec<&Message> =
            self.recent.iter().filter(|past| past.source == source || past.destination == source).collect();
        if !mine.is_empty() && random.chance(75) {
            let past = mine[random.below(mine.len())].clone();
            let reverse = past.source != source;
            return Some(follow_up(random, past, reverse));
        }
        let (near, far) = (random.pick(&SOURCE_PORTS), random.pick(&PORTS));
        let content = match random.below(8) {
            0..=3 => Content::Tcp(near, far, random.pick(&[TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN])),
            4..=5 => Content::Udp(near, far),
            6 => Content::Ping(near),
            _ if random.chance(50) => Content::LaterPart(random.below(3) as u32),
            _ => Content::FirstPart(random.below(3) as u32, near, far),
        };
        let to = random.pick(&ENIS);
        let destination = self.address(to, is_v6)?;
        (source != destination).then_some(Message { source, destination, content })
    }

    fn address(&self, id: &str, is_v6: bool) -> Option<std::net::IpAddr> {
        let eni = self.together.desired.enis.get(&EniId::from(id))?;
        eni.addresses.iter().find(|prefix| prefix.addr().is_ipv6() == is_v6).map(|prefix| prefix.addr())
    }

    fn exists(&self, id: &str) -> bool {
        self.together.desired.enis.contains_key(&EniId::from(id))
    }

    fn compare(&mut self, step: usize) {
        // What is over is forgotten at different times; what is left must be the same.
        self.together.sweep_all();
        self.apart.sweep_all();
        assert_eq!(self.together.stats(), self.apart.stats(), "step {step}, seed {}", self.seed);
        for id in ENIS.into_iter().filter(|id| self.exists(id)) {
            let (found, expected) = (flows(&self.together, id), flows(&self.apart, id));
            assert_eq!(found, expected, "{id}, step {step}, seed {}", self.seed);
        }
    }
}

/// What [`World::release`] does, half by half.
fn release_apart(world: &mut World) -> Vec<(String, Fate, Vec<u8>)> {
    let World { shards, snapshot, now, .. } = world;
    let mut released = Vec::new();
    while shards[0].released_bytes().is_some() {
        let mut packet = Packet::new(FrameBuffer::with_capacity(512));
        let eni = shards[0].take_released(&mut packet.buffer).expect("it was there");
        let packets = std::slice::from_mut(&mut packet);
        shards[0].forward_released((snapshot, *now), eni, packets, |_: EniIndex| false);
        let passed = packets[0].verdict;
        shards[0].ingress(snapshot, packets, *now);
        let name = |eni| snapshot.eni_id(eni).map(ToString::to_string).unwrap_or_default();
        let fate = match (passed, packet.verdict) {
            (Verdict::Forward(to), Verdict::Deliver) => Fate::Delivered(name(to)),
            (Verdict::Forward(to), Verdict::Drop(reason)) => Fate::Dropped(name(to), Direction::Ingress, reason),
            (Verdict::Drop(reason), _) => Fate::Dropped(name(eni), Direction::Egress, reason),
            (Verdict::Answer, _) => Fate::Answered,
            (Verdict::Serve(_), _) => Fate::Served,
            other => panic!("{other:?}"),
        };
        released.push((name(eni), fate, packet.buffer.frame().to_vec()));
    }
    released
}

fn flows(world: &World, id: &str) -> Vec<FlowDescription> {
    let mut flows = world.flows(id);
    flows.sort_by_key(|flow| format!("{flow:?}"));
    flows
}

/// What a guest claims to have left undone in a TCP or UDP packet.
#[derive(Clone, Debug)]
enum Claim {
    Nothing,
    /// The checksum, and segmentation into pieces of so many bytes unless that is zero.
    Undone(u16),
    /// The same, but a field of the claim is one too large.
    Wrong(u16),
}

impl Claim {
    const DATA: [u8; 40] = [7; 40];

    fn random(random: &mut Random) -> Self {
        let segment_bytes = random.pick(&[0, 0, 9, 40]);
        match random.below(10) {
            0..=5 => Self::Nothing,
            6..=8 => Self::Undone(segment_bytes),
            _ => Self::Wrong(segment_bytes),
        }
    }

    /// The packet of a message, with the claim if its kind of message has one.
    fn packet_of(&self, message: &Message, frame_of: impl Fn(&Ip) -> Vec<u8>) -> Packet {
        let ip = message.packet();
        let (ip, offload) = match (self, &message.content) {
            (Self::Undone(segment_bytes) | Self::Wrong(segment_bytes), Content::Tcp(..) | Content::Udp(..)) => {
                let ip = ip.undone(&Self::DATA);
                let mut offload = ip.offload(*segment_bytes);
                if let (Self::Wrong(_), Some(checksum)) = (self, &mut offload.checksum) {
                    checksum.start += 1;
                }
                (ip, offload)
            }
            _ => (ip, Offload::NONE),
        };
        let mut buffer = FrameBuffer::with_capacity(512);
        buffer.fill(&frame_of(&ip));
        Packet::claiming(buffer, offload)
    }
}
