//! Keeps the kernel's own stack away from an interface that a port uses.
//!
//! A raw socket copies what the interface receives, and the kernel goes on to process the original, so without further
//! measures a guest would reach the namespace that hosts its port, bypassing every rule. An XDP socket lets everything
//! through that it does not redirect. And what the kernel sends through the interface by itself would reach the guest
//! past the switch. So a filter drops all frames in both directions. On ingress it runs after the sockets, which see a
//! frame before any filter, and before VLAN devices, bridges and protocols. On egress it drops everything that is
//! queued, which the switch's own frames are not (`PACKET_QDISC_BYPASS`, and XDP sockets always).
//!
//! The filters are the kernel's (`clsact`, and a classic BPF program of one instruction). They outlive a process that
//! is killed, so its guests stay isolated; the next process recognizes them by their handle. Everything here works in
//! the network namespace of the calling thread.

use crate::os::netlink::{Netlink, interface_index};
use crate::os::sys;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkLayerType, LinkMessage};
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption, TcU32OptionFlags,
};
use rustix::io::Errno;
use std::io;

/// Distinguishes our filters from those of others: `slui` in ASCII.
const HANDLE: u32 = 0x736c_7569;
/// The priority of our filters: the highest that can be requested.
const PRIORITY: u16 = 1;
/// The name of a queueing discipline that only holds filters.
const CLSACT: &str = "clsact";
/// `TCA_BPF_OPS_LEN` and `TCA_BPF_OPS` of `linux/pkt_cls.h`: the number of classic BPF instructions, and the
/// instructions.
const OPERATION_COUNT: u16 = 4;
const OPERATIONS: u16 = 5;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 6;
/// `TC_ACT_SHOT`: drop the frame.
const DROP: u32 = 2;

/// A direction from the kernel's point of view: into the interface's namespace, or out of it to the guest.
#[derive(Clone, Copy, Debug)]
enum Hook {
    Ingress,
    Egress,
}

impl Hook {
    const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    const fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: u16::MAX, minor }
    }

    /// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `linux/bpf.h`.
    const fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Drops everything the kernel would receive from the interface or send through it from now on. Idempotent.
///
/// # Errors
/// Why it is impossible, and what to do about it. The interface must not be used as a port then.
pub fn isolate(device: &str) -> io::Result<()> {
    let mut interface = Isolated::open(device)?;
    interface.add_filters()?;
    interface.check()
}

/// Whether the interface is isolated from the kernel at the moment.
pub fn is_isolated(device: &str) -> bool {
    Isolated::open(device).is_ok_and(|mut interface| interface.check().is_ok())
}

/// Restores the filters if somebody removed them or put others before them. Returns whether that was necessary.
///
/// # Errors
/// As in [`isolate`].
pub fn restore(device: &str) -> io::Result<bool> {
    let mut interface = Isolated::open(device)?;
    // Checked first, since adding filters to an interface that has them costs several messages each second.
    if interface.check().is_ok() {
        return Ok(false);
    }
    interface.add_filters()?;
    interface.check()?;
    Ok(true)
}

/// Returns the interface to the kernel: removes our filters, whichever process made them, and the discipline that held
/// them if it is empty. It is no error if there is nothing to remove.
///
/// # Errors
/// The kernel's error.
pub fn release(device: &str) -> io::Result<()> {
    let mut interface = match Isolated::open(device) {
        // An interface that is gone took its filters along.
        Err(error) if is_one_of(&error, &[Errno::NODEV]) => return Ok(()),
        opened => opened?,
    };
    let (mut ours, mut others) = (0, 0);
    for hook in Hook::BOTH {
        let filters = interface.filters(hook)?;
        others += filters.iter().filter(|filter| !filter.is_ours()).count();
        if filters.iter().any(TcFilter::is_ours) {
            interface.delete_filter(hook)?;
            ours += 1;
        }
    }
    // The discipline is left to others if they have filters in it.
    if ours > 0 && others == 0 { interface.delete_clsact() } else { Ok(()) }
}

/// A filter as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TcFilter {
    priority: u16,
    handle: u32,
    chain: u32,
    drops: bool,
}

impl TcFilter {
    fn is_ours(&self) -> bool {
        (self.priority, self.handle, self.chain) == (PRIORITY, HANDLE, 0)
    }

    /// `None` for a message that only announces the filters of a priority.
    fn parse(message: &TcMessage) -> Option<Self> {
        let (priority, handle) = ((message.header.info >> 16) as u16, u32::from(message.header.handle));
        let chain = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Chain(chain) => Some(*chain),
            _ => None,
        });
        let options = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
        // The kernel adds what hardware does with it, which is nothing.
        let [count, instructions, direct, _] = program();
        let drops =
            options.is_some_and(|options| [count, instructions, direct].iter().all(|option| options.contains(option)));
        // A priority without filters has the handle zero.
        (handle != 0).then_some(Self { priority, handle, chain: chain.unwrap_or(0), drops })
    }
}

/// An interface and a connection for changing its filters.
struct Isolated<'a> {
    netlink: Netlink,
    device: &'a str,
    index: u32,
}

impl<'a> Isolated<'a> {
    fn open(device: &'a str) -> io::Result<Self> {
        let index = interface_index(device)?;
        let mut netlink = Netlink::open()?;
        let mut link = LinkMessage::default();
        link.header.index = index;
        let told = netlink.get(RouteNetlinkMessage::GetLink(link))?;
        let is_ethernet = |reply: &RouteNetlinkMessage| match reply {
            RouteNetlinkMessage::NewLink(link) => link.header.link_layer_type == LinkLayerType::Ether,
            _ => false,
        };
        if !told.iter().any(is_ethernet) {
            // The loopback device in particular must not be cut off.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not an Ethernet interface"));
        }
        Ok(Self { netlink, device, index })
    }

    fn add_filters(&mut self) -> io::Result<()> {
        // A program at the hook runs before any filter, so filters would isolate nothing.
        self.refuse_programs()?;
        let clsact = self.clsact();
        let added = self.netlink.request(RouteNetlinkMessage::NewQueueDiscipline(clsact), NLM_F_CREATE);
        added.map_err(|error| {
            let device = self.device;
            // `EXIST` and `EINVAL` both mean that another discipline is in the place of this one.
            if is_one_of(&error, &[Errno::INVAL, Errno::EXIST]) {
                let text = format!(
                    "{device} has a foreign ingress queueing discipline, so its frames cannot be kept from \
                     the kernel; remove it with: tc qdisc delete dev {device} ingress"
                );
                return io::Error::new(error.kind(), text);
            }
            self.explain("get a clsact queueing discipline", error)
        })?;
        for hook in Hook::BOTH {
            // Refused before ours is added: of filters with one priority, an older one would run first.
            self.refuse_filters(hook)?;
            let mut filter = self.filter(hook);
            filter.attributes.push(TcAttribute::Options(program().into()));
            let added = self.netlink.request(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE);
            added.map_err(|error| self.explain(&format!("get a filter of its {}", hook.name()), error))?;
        }
        Ok(())
    }

    /// Whether our filters are there and come first.
    fn check(&mut self) -> io::Result<()> {
        self.refuse_programs()?;
        for hook in Hook::BOTH {
            self.refuse_filters(hook)?;
            let filters = self.filters(hook)?;
            if !filters.iter().any(|filter| filter.is_ours() && filter.drops) {
                let text = format!("{} has lost the filter that isolates it from the kernel", self.device);
                return Err(io::Error::other(text));
            }
        }
        Ok(())
    }

    /// Fails if a filter comes before ours, since it could let a frame pass.
    fn refuse_filters(&mut self, hook: Hook) -> io::Result<()> {
        let (device, name) = (self.device, hook.name());
        let filters = self.filters(hook)?;
        if let Some(other) =
            // Only chain 0 runs by itself; filters of other chains run only where a filter jumps to them.
            filters.iter().find(|filter| filter.chain == 0 && filter.priority <= PRIORITY && !filter.is_ours())
        {
            let text = format!(
                "{device} has a foreign filter that runs before all others, so its frames cannot be kept \
                 from the kernel; give it another priority, or remove it with: tc filter delete dev {device} {name} \
                 pref {}",
                other.priority
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(())
    }

    /// Fails if a program runs before all filters, since it could do the same.
    fn refuse_programs(&self) -> io::Result<()> {
        for hook in Hook::BOTH {
            let count = sys::bpf_programs_at(self.index, hook.attach_type());
            if count.map_err(|error| self.explain("ask for BPF programs that come before", error))? == 0 {
                continue;
            }
            let (device, name) = (self.device, hook.name());
            let text = format!(
                "{device} has a BPF program (tcx {name}) that runs before all filters, so its frames cannot be kept \
                 from the kernel; detach it: bpftool net show dev {device} shows which it is"
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(())
    }

    /// The filters of a direction, in the order in which they run.
    fn filters(&mut self, hook: Hook) -> io::Result<Vec<TcFilter>> {
        let message = self.message(TcHandle::UNSPEC, hook.parent());
        let replies = self.netlink.dump(RouteNetlinkMessage::GetTrafficFilter(message))?;
        let told = |reply: &RouteNetlinkMessage| match reply {
            RouteNetlinkMessage::NewTrafficFilter(message) => TcFilter::parse(message),
            _ => None,
        };
        Ok(replies.iter().filter_map(told).collect())
    }

    fn delete_filter(&mut self, hook: Hook) -> io::Result<()> {
        let filter = self.filter(hook);
        self.netlink.request(RouteNetlinkMessage::DelTrafficFilter(filter), 0)
    }

    fn delete_clsact(&mut self) -> io::Result<()> {
        let clsact = self.clsact();
        self.netlink.request(RouteNetlinkMessage::DelQueueDiscipline(clsact), 0)
    }

    /// Names the discipline that holds our filters, and no other that could be in its place.
    fn clsact(&self) -> TcMessage {
        let mut clsact = self.message(TcHandle { major: u16::MAX, minor: 0 }, TcHandle::CLSACT);
        clsact.attributes.push(TcAttribute::Kind(CLSACT.into()));
        clsact
    }

    fn message(&self, handle: TcHandle, parent: TcHandle) -> TcMessage {
        let mut message = TcMessage::with_index(self.index as i32);
        (message.header.handle, message.header.parent) = (handle, parent);
        message
    }

    /// Names our filter of a direction.
    fn filter(&self, hook: Hook) -> TcMessage {
        let mut message = self.message(TcHandle::from(HANDLE), hook.parent());
        // The protocol is in network byte order within a number of the host's.
        message.header.info = u32::from(PRIORITY) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
        message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.into()));
        message
    }

    fn explain(&self, what: &str, error: io::Error) -> io::Error {
        let text = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::OPNOTSUPP) => {
                "this kernel has none of the kind (it needs CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF)".into()
            }
            Some(Errno::PERM | Errno::ACCESS) => format!("{error}; this needs the capability CAP_NET_ADMIN"),
            _ => error.to_string(),
        };
        let device = self.device;
        io::Error::new(error.kind(), format!("frames of {device} cannot be isolated from the kernel: {what}: {text}"))
    }
}

/// One instruction: drop everything. It must not run in hardware, where no socket would see the frame.
fn program() -> [TcOption; 4] {
    let mut instruction = Vec::with_capacity(8);
    instruction.extend(RETURN.to_ne_bytes());
    instruction.extend([0, 0]);
    instruction.extend(DROP.to_ne_bytes());
    [
        TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(OPERATION_COUNT, 1_u16.to_ne_bytes().to_vec()))),
        TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(OPERATIONS, instruction))),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        TcOption::Bpf(TcFilterBpfOption::FlagsGeneric(TcU32OptionFlags::SkipHw)),
    ]
}

fn is_one_of(error: &io::Error, errors: &[Errno]) -> bool {
    errors.iter().any(|one| error.raw_os_error() == Some(one.raw_os_error()))
}
