//! Conversations: messages that go on from earlier ones.

use harness::frame::TcpFlags;
use harness::message::{Content, Message};
use harness::random::Random;

pub(crate) const PORTS: [u16; 5] = [0, 53, 80, 443, 50_000];
pub(crate) const SOURCE_PORTS: [u16; 4] = [53, 1000, 40_000, 41_000];

/// Another message of the same conversation, or an error about it.
pub(crate) fn follow_up(random: &mut Random, past: Message, reverse: bool) -> Message {
    let Message { source, destination, content } = past.clone();
    let ends = |reverse| if reverse { (destination, source) } else { (source, destination) };
    if random.chance(12) && !matches!(content, Content::Unreachable(_) | Content::LaterPart(_) | Content::FirstPart(..))
    {
        let (source, destination) = ends(random.chance(80));
        return Message { source, destination, content: Content::Unreachable(Box::new(past)) };
    }
    let flags = [
        TcpFlags::SYN,
        TcpFlags::SYN | TcpFlags::ACK,
        TcpFlags::ACK,
        TcpFlags::ACK,
        TcpFlags::FIN | TcpFlags::ACK,
        TcpFlags::RST,
        TcpFlags::RST | TcpFlags::ACK,
    ];
    let content = match content {
        Content::Tcp(near, far, _) | Content::Blind(near, far, _) => {
            let (near, far) = if reverse { (far, near) } else { (near, far) };
            let flags = random.pick(&flags);
            if random.chance(8) { Content::Blind(near, far, flags) } else { Content::Tcp(near, far, flags) }
        }
        Content::Udp(near, far) if reverse => Content::Udp(far, near),
        Content::Ping(identifier) if reverse => Content::Pong(identifier),
        Content::Pong(identifier) if reverse => Content::Ping(identifier),
        Content::FirstPart(id, near, far) if reverse => Content::FirstPart(id, far, near),
        Content::FirstPart(id, ..) if random.chance(70) => Content::LaterPart(id),
        other => other,
    };
    let (source, destination) = ends(reverse);
    Message { source, destination, content }
}
