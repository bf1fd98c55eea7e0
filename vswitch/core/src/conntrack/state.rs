//! The state of a session.

/// The state of a session. Zero means that the record is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectionState {
    /// No session.
    #[default]
    Free,
    /// TCP: the opener has sent, the other side has not.
    TcpOpening,
    /// TCP: the other side has answered; the handshake is not complete.
    TcpAnswered,
    /// TCP: both sides have sent and the handshake is complete.
    TcpEstablished,
    /// TCP: the opener sent its FIN.
    TcpClosingOpener,
    /// TCP: the responder sent its FIN.
    TcpClosingResponder,
    /// TCP: the opener sent its FIN before the handshake was complete.
    TcpAbandonedOpener,
    /// TCP: the responder sent its FIN before the handshake was complete.
    TcpAbandonedResponder,
    /// TCP: reset, or FIN from both.
    TcpClosed,
    /// UDP: one packet or several from the opener.
    Udp,
    /// UDP: the other side answered.
    UdpAnswered,
    /// UDP: the opener sent more after an answer.
    UdpStream,
    /// ICMP queries.
    Icmp,
    /// Any other protocol.
    Other,
}

/// The shortest timeout there is, seconds.
pub(super) const LEAST_S: u32 = 1;

impl ConnectionState {
    /// All states.
    pub(super) const ALL: [Self; 14] = [
        Self::Free,
        Self::TcpOpening,
        Self::TcpAnswered,
        Self::TcpEstablished,
        Self::TcpClosingOpener,
        Self::TcpClosingResponder,
        Self::TcpAbandonedOpener,
        Self::TcpAbandonedResponder,
        Self::TcpClosed,
        Self::Udp,
        Self::UdpAnswered,
        Self::UdpStream,
        Self::Icmp,
        Self::Other,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::TcpOpening => "opening",
            Self::TcpAnswered => "answered",
            Self::TcpEstablished => "established",
            Self::TcpClosingOpener | Self::TcpClosingResponder => "closing",
            Self::TcpAbandonedOpener | Self::TcpAbandonedResponder => "abandoned",
            Self::TcpClosed => "closed",
            Self::Udp | Self::UdpAnswered => "single",
            Self::UdpStream => "stream",
            Self::Icmp | Self::Other => "open",
        }
    }

    /// Whether a TCP handshake is under way, so that the agreed sequence numbers are not known yet.
    pub(crate) const fn is_shaking_hands(self) -> bool {
        matches!(self, Self::TcpOpening | Self::TcpAnswered)
    }

    #[inline(always)]
    pub(super) const fn is_tcp(self) -> bool {
        self as u8 <= Self::TcpClosed as u8
    }
}
