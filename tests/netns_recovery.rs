//! Connections of real kernels over a loss of the forwarding plane's sessions: what was revoked stays dead and what is
//! allowed goes on, whoever speaks next.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use control::command::{Command, RuleRevoke};
use harness::netns::{RunningSluice, eventually};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

const SERVER: &str = "10.0.1.10:7000";

const LAB: &str = r#"
    vpc = [{ id = "vpc-1", cidr = "10.0.0.0/16" }]
    vswitch = [{ id = "vsw-1", vpc = "vpc-1", cidr = "10.0.1.0/24" }]
    [[group]]
    id = "sg-server"
    vpc = "vpc-1"
    inner_access = "drop"
    ingress = [
        { id = "sgr-tcp", protocol = "tcp", ports = "7000/7000", cidr = "10.0.1.0/24" },
        { id = "sgr-udp", protocol = "udp", ports = "7000/7000", cidr = "10.0.1.0/24" },
    ]
    [[group]]
    id = "sg-client"
    vpc = "vpc-1"
    inner_access = "drop"
    [[eni]]
    id = "eni-server"
    vswitch = "vsw-1"
    ip = "10.0.1.10"
    groups = ["sg-server"]
    namespace = "@-server"
    [[eni]]
    id = "eni-client"
    vswitch = "vsw-1"
    ip = "10.0.1.20"
    groups = ["sg-client"]
    namespace = "@-client"
"#;

/// Both ends of a TCP connection and of a UDP one, which have talked both ways.
struct Ends {
    tcp: [TcpStream; 2],
    udp: [UdpSocket; 2],
}

fn running(workers: usize) -> Option<RunningSluice> {
    RunningSluice::start_lab(workers, LAB, &[])
}

fn connect(running: &RunningSluice) -> Ends {
    let server: SocketAddr = SERVER.parse().unwrap();
    let (listener, udp_server) =
        running.within("server", || Ok((TcpListener::bind(server)?, UdpSocket::bind(server)?)));
    let mut client = running.within("client", || TcpStream::connect(server));
    let (mut accepted, _) = listener.accept().unwrap();
    let udp_client = running.within("client", || {
        let socket = UdpSocket::bind("10.0.1.20:0")?;
        socket.connect(server)?;
        Ok(socket)
    });
    udp_client.send(b"question").unwrap();
    let mut buffer = [0; 64];
    let (_, from) = udp_server.recv_from(&mut buffer).unwrap();
    udp_server.connect(from).unwrap();
    udp_server.send(b"answer").unwrap();
    udp_client.recv(&mut buffer).unwrap();
    for stream in [&mut client, &mut accepted] {
        stream.write_all(b"hello").unwrap();
    }
    for stream in [&mut client, &mut accepted] {
        stream.read_exact(&mut buffer[..5]).unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    for socket in [&udp_client, &udp_server] {
        socket.set_nonblocking(true).unwrap();
    }
    Ends { tcp: [client, accepted], udp: [udp_client, udp_server] }
}

impl Ends {
    /// Both ends speak for a while, one of them first. What an end reads is returned, by its number.
    fn talk(&mut self, first: usize) -> Vec<usize> {
        let mut readers = Vec::new();
        for _ in 0..30 {
            for end in [first, 1 - first] {
                let _ = self.tcp[end].write(b"tcp");
                let _ = self.udp[end].send(b"udp");
                sleep(Duration::from_millis(20));
            }
            for end in 0..2 {
                let mut buffer = [0; 4096];
                let tcp = self.tcp[end].read(&mut buffer).unwrap_or(0);
                let udp = self.udp[end].recv(&mut buffer).unwrap_or(0);
                if tcp + udp > 0 {
                    readers.push(end);
                }
            }
        }
        readers
    }
}

fn revoke(running: &RunningSluice) {
    let ids = ["sgr-tcp", "sgr-udp"].map(String::from).into();
    running.change(&Command::RuleRevoke(RuleRevoke {
        group: "sg-server".into(),
        direction: None,
        ids,
        rules: Vec::new(),
    }));
}

#[test]
fn what_was_revoked_stays_dead_over_a_crash_and_a_flush() {
    for workers in [1, 2] {
        let Some(mut running) = running(workers) else { return };
        for crash in [true, false] {
            for first in [0, 1] {
                running.apply(LAB);
                let mut ends = connect(&running);
                revoke(&running);
                assert!(ends.talk(first).is_empty(), "{workers} workers, nothing after the reply");
                if crash {
                    running.crash("vswitch");
                    running.wait_until_ready();
                } else {
                    assert!(running.sluice(&["flow", "flush", "--all"]).status.success());
                }
                let context = format!("{workers} workers, crash: {crash}, end {first} first");
                assert!(ends.talk(first).is_empty(), "{context}: an end reads what the other sent");
                let flows = running.sluice(&["flow", "list", "--eni", "eni-server", "--json"]);
                assert!(!String::from_utf8_lossy(&flows.stdout).contains("7000"), "{context}");
            }
        }
    }
}

/// A server that pushes to a client that never speaks is heard again after a crash.
#[test]
fn a_server_that_pushes_to_a_silent_client_is_heard_after_a_crash() {
    for workers in [1, 2] {
        let Some(mut running) = running(workers) else { return };
        let mut ends = connect(&running);
        running.crash("vswitch");
        running.wait_until_ready();
        let (mut sent, mut read) = (0_usize, 0_usize);
        let [client, server] = &mut ends.tcp;
        eventually("the client reads all that the server sends", || {
            if sent < 30 {
                match server.write(b"push") {
                    Ok(bytes) => sent += usize::from(bytes == 4),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            let mut buffer = [0; 4096];
            read += client.read(&mut buffer).unwrap_or(0);
            sent == 30 && read == sent * 4
        });
        // It is the session that its rule admits, and ends with it.
        let flows =
            String::from_utf8_lossy(&running.sluice(&["flow", "list", "--eni", "eni-server"]).stdout).into_owned();
        assert!(flows.lines().any(|line| line.contains("ingress") && line.contains("sgr-tcp")), "{flows}");
        revoke(&running);
        assert!(ends.talk(1).is_empty(), "{workers} workers");
    }
}
