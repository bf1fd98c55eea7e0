//! The other programs of `bench/peers/throughput`: ends that load a switch, and the barest switch to compare with.
//!
//! ```text
//! load forward NEAR FAR [busy]         TAP to TAP between two namespaces, without rules, until killed
//! load generate MAC SECONDS            64-byte frames from eth0 of this namespace, as fast as it takes them
//! load crr-server | load crr SECONDS   connect, request, response, close, over and over
//! load echo | load ping SECONDS        one datagram there and back, over and over
//! ```
//!
//! The near end is 10.9.0.1, the far end 10.9.0.2. Each prints one line: figures as `NAME=VALUE`.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use vswitch::os::netlink::Interface;
use vswitch::port::Port;
use vswitch::port::af_packet::AfPacketPort;
use vswitch::port::tap::{Tap, TapIo};
use vswitch_core::config::desired::{self, TapPort};
use vswitch_core::config::limits::{BURST_PACKETS, FRAME_BYTES_MAX};
use vswitch_core::packet::offload::Offloads;
use vswitch_core::packet::verdict::Verdict;
use vswitch_core::packet::{FrameBuffer, HEADROOM_BYTES, Packet};

const FAR: &str = "10.9.0.2";
const CRR_PORT: u16 = 7000;
const ECHO_PORT: u16 = 7777;
/// As the switch's own workers spin before they sleep.
const SPIN: Duration = Duration::from_micros(20);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let seconds = |text: &str| text.parse().map(Duration::from_secs).map_err(io::Error::other);
    match words[..] {
        ["forward", near, far] => forward(near, far, false),
        ["forward", near, far, "busy"] => forward(near, far, true),
        ["generate", mac, time] => generate(mac, seconds(time)?),
        ["crr-server"] => crr_server(),
        ["crr", time] => crr(seconds(time)?),
        ["echo"] => echo(),
        ["ping", time] => ping(seconds(time)?),
        _ => Err(io::Error::other("see the head of vswitch/examples/load.rs")),
    }
}

fn tap(namespace: &str, number: u8) -> io::Result<Tap> {
    let (namespace, device) = (Some(namespace.to_owned()), "eth0".to_owned());
    let tap = TapPort { device, namespace, create_namespace: true, configure: true, mtu_bytes: 1500 };
    let address = format!("10.9.0.{number}/24").parse().map_err(io::Error::other)?;
    let mac = format!("02:00:00:00:00:0{number}").parse().map_err(io::Error::other)?;
    let interface = Interface {
        mac,
        mtu_bytes: 1500,
        addresses: vec![address],
        gateways: Vec::new(),
        gateway_mac: mac,
        routes: Vec::new(),
    };
    Tap::open_with(&tap, Some(&interface), Offloads::ALL, TapIo::Plain)
}

/// Reads a burst here, writes it there, and back: no look at any byte, no copy, no allocation.
fn forward(near: &str, far: &str, is_busy: bool) -> io::Result<()> {
    let taps = [tap(near, 1)?, tap(far, 2)?];
    let devices = taps.each_ref().map(|tap| tap.readiness().ok_or_else(|| io::Error::other("a TAP has a descriptor")));
    let [near, far] = devices;
    let (near, far) = (near?, far?);
    println!("forwarding");
    let mut buffers = vec![vec![0; HEADROOM_BYTES + FRAME_BYTES_MAX]; BURST_PACKETS];
    let mut idle_since = Instant::now();
    loop {
        let mut moved = 0;
        for (from, to) in [(near, far), (far, near)] {
            let mut lengths = [0; BURST_PACKETS];
            let mut count = 0;
            while let Some(buffer) = buffers.get_mut(count)
                && let Ok(length) = rustix::io::read(from, buffer)
            {
                lengths[count] = length;
                count += 1;
            }
            for (buffer, length) in buffers.iter().zip(lengths).take(count) {
                // What a guest's kernel does not take is lost.
                let _ = rustix::io::write(to, &buffer[..length]);
            }
            moved += count;
        }
        if moved > 0 {
            idle_since = Instant::now();
        } else if !is_busy && idle_since.elapsed() > SPIN {
            use rustix::event::{PollFd, PollFlags, poll};
            poll(&mut [PollFd::new(&near, PollFlags::IN), PollFd::new(&far, PollFlags::IN)], None)?;
        }
    }
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

fn generate(mac: &str, time: Duration) -> io::Result<()> {
    let own = std::fs::read_to_string("/sys/class/net/eth0/address")?;
    let octets = |text: &str| text.trim().split(':').map_while(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    let (to, from): (Vec<u8>, Vec<u8>) = (octets(mac), octets(&own));
    let mut frame = [to, from, vec![8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]].concat();
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum);
    // From port 10000 to port 9, without a checksum of its own.
    frame.extend([0x27, 0x10, 0, 9, 0, 26, 0, 0]);
    // With the four bytes that a wire adds, 64.
    frame.resize(60, 0);
    let interface = desired::PacketPort { device: "eth0".into(), namespace: None, mtu_bytes: 1500 };
    let mut port = AfPacketPort::open(&interface)?;
    let packet = |_| {
        let mut buffer = FrameBuffer::with_capacity(frame.len());
        buffer.fill(&frame);
        Packet::new(buffer)
    };
    let mut burst: Vec<Packet> = (0..BURST_PACKETS).map(packet).collect();
    let (started, mut sent) = (Instant::now(), 0);
    while started.elapsed() < time {
        port.send(&mut burst)?;
        sent += burst.iter().filter(|packet| packet.verdict == Verdict::Deliver).count();
    }
    println!("sent_per_s={:.0}", sent as f64 / started.elapsed().as_secs_f64());
    Ok(())
}

fn crr_server() -> io::Result<()> {
    for stream in TcpListener::bind(("0.0.0.0", CRR_PORT))?.incoming() {
        let (mut stream, mut byte) = (stream?, [0]);
        // A client that gives up is its own affair; the second read waits for its end of the connection.
        let _ =
            stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).and_then(|()| stream.read(&mut byte));
    }
    Ok(())
}

fn crr(time: Duration) -> io::Result<()> {
    let (started, mut done) = (Instant::now(), 0);
    while started.elapsed() < time {
        let mut stream = TcpStream::connect((FAR, CRR_PORT))?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        done += 1;
    }
    println!("crr_per_s={:.0}", f64::from(done) / started.elapsed().as_secs_f64());
    Ok(())
}

fn echo() -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", ECHO_PORT))?;
    let mut datagram = [0; 64];
    loop {
        let (bytes, from) = socket.recv_from(&mut datagram)?;
        socket.send_to(&datagram[..bytes], from)?;
    }
}

fn ping(time: Duration) -> io::Result<()> {
    /// So that the one before is forgotten, by workers that sleep too.
    const PAUSE: Duration = Duration::from_micros(500);
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect((FAR, ECHO_PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (started, mut times, mut lost, mut datagram) = (Instant::now(), Vec::new(), 0, [0; 18]);
    while started.elapsed() < time {
        std::thread::sleep(PAUSE);
        let sent = Instant::now();
        socket.send(&datagram)?;
        if socket.recv(&mut datagram).is_ok() {
            times.push(sent.elapsed().as_nanos() as f64 / 1000.0);
        } else {
            lost += 1;
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    println!("rtt_p50_us={:.1} rtt_p99_us={:.1} answered={} lost={lost}", at(0.5), at(0.99), times.len());
    Ok(())
}
