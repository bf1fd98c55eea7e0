//! The control socket as a client sees it: framing, refusals, credentials, and a clean end.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod running;

use running::RunningSwitch;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use vswitch::{VswitchConfig, run_until};
use vswitch_core::config::desired::{Desired, Settings};
use vswitch_core::config::limits::MESSAGE_BYTES_MAX;
use vswitch_core::config::protocol::{
    self, Delta, PacketDescription, RequestBody, SwitchReplyBody, SwitchRequest, VERSION,
};

fn code(body: SwitchReplyBody) -> String {
    match body {
        SwitchReplyBody::Refused { refusals } => refusals[0].code.clone(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn status_generations_and_the_end() {
    let mut running = RunningSwitch::start(2);
    assert_eq!(running.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = running.connect();
    let SwitchReplyBody::Status(status) = client.ask(RequestBody::Status) else { panic!() };
    assert_eq!((status.generation, status.workers.len()), (0, 2));
    let replace = RequestBody::Replace { generation: 5, desired: Desired::default() };
    let SwitchReplyBody::Applied(applied) = client.ask(replace) else { panic!() };
    println!("barrier over two workers: {} µs", applied.barrier_ns / 1000);
    assert_eq!(applied.generation, 5);
    let stale = RequestBody::Apply { base: 4, generation: 6, delta: Delta::default() };
    assert_eq!(code(client.ask(stale)), "generation-mismatch");
    let apply = RequestBody::Apply { base: 5, generation: 6, delta: Delta::default() };
    assert!(matches!(client.ask(apply), SwitchReplyBody::Applied(applied) if applied.generation == 6));
    let SwitchReplyBody::Status(status) = client.ask(RequestBody::Status) else { panic!() };
    assert_eq!(status.generation, 6);
    running.stop();
    assert!(!running.path().exists(), "the socket goes with the switch");
}

#[test]
fn bad_input_is_refused_and_the_connection_stays_usable() {
    let running = RunningSwitch::start(1);
    let mut client = running.connect();
    assert_eq!(client.refused(b"hello\n").0, "malformed");
    assert_eq!(client.refused(b"{\"id\": 1, \"op\": \"status\"}\n").0, "version");
    assert_eq!(client.refused(b"{\"version\": 99, \"id\": 1, \"op\": \"status\"}\n").0, "version");
    let (code, message) = client.refused(b"{\"version\": 1, \"id\": 1, \"op\": \"dance\"}\n");
    assert_eq!(code, "malformed");
    assert!(message.contains("dance"), "{message}");
    assert_eq!(client.refused(b"\xff\xfe{}[\n").0, "malformed");
    let unknown = RequestBody::Stats { eni: Some("eni-none".into()) };
    assert_eq!(self::code(client.ask(unknown)), "unknown");
    let packet = PacketDescription {
        from: None,
        to: None,
        protocol: 6,
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        source_port: 1,
        destination_port: 2,
    };
    assert_eq!(self::code(client.ask(RequestBody::Explain { packet })), "invalid");
    assert!(matches!(client.ask(RequestBody::Status), SwitchReplyBody::Status(_)));
}

#[test]
fn a_line_may_come_in_pieces_and_many_at_once() {
    let running = RunningSwitch::start(1);
    let mut client = running.connect();
    let line = protocol::write(&SwitchRequest { version: VERSION, id: 3, body: RequestBody::Ports });
    for byte in &line[..line.len() - 1] {
        client.stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(client.raw(b"\n").id, 3);
    client.stream.write_all(&line.repeat(100)).unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    for _ in 0..100 {
        assert_eq!(client.read().id, 3);
    }
}

#[test]
fn who_does_not_read_keeps_nobody_waiting() {
    let running = RunningSwitch::start(1);
    let mut lazy = running.connect();
    let line = protocol::write(&SwitchRequest { version: VERSION, id: 3, body: RequestBody::Status });
    lazy.stream.set_nonblocking(true).unwrap();
    // Until both directions are full: the switch stops reading from who does not read.
    let mut written = 0;
    while let Ok(count) = lazy.stream.write(&line) {
        written += count;
        assert!(written < 64 << 20, "the switch buffers without bound");
    }
    assert!(matches!(running.connect().ask(RequestBody::Status), SwitchReplyBody::Status(_)));
}

#[test]
fn connections_are_bounded() {
    let running = RunningSwitch::start(1);
    // One after the other, so that the connection by which the start was awaited is gone before the last comes.
    let connect = |_| {
        let mut client = running.connect();
        assert!(matches!(client.ask(RequestBody::Ports), SwitchReplyBody::Ports { .. }));
        client
    };
    let mut clients: Vec<_> = (0..64).map(connect).collect();
    assert_eq!(code(running.connect().read().body), "limit");
    drop(clients.pop());
    assert!(matches!(clients[0].ask(RequestBody::Ports), SwitchReplyBody::Ports { .. }), "the others are served on");
}

/// Many messages that do not end: some of them find no room and are told so, and others are answered meanwhile.
#[test]
fn unfinished_messages_are_bounded_together() {
    let running = RunningSwitch::start(1);
    let piece = vec![b' '; 4 << 20];
    let mut clients: Vec<_> = (0..40).map(|_| running.connect()).collect();
    for client in &mut clients {
        client.stream.write_all(&piece).unwrap();
    }
    assert!(matches!(running.connect().ask(RequestBody::Status), SwitchReplyBody::Status(_)));
    // 64 MiB in all, and one that may be longer.
    let mut refused = 0;
    for client in &mut clients {
        client.stream.set_nonblocking(true).unwrap();
        let mut start = [0; 1];
        if rustix::net::recv(&client.stream, &mut start, rustix::net::RecvFlags::PEEK).is_ok() {
            client.stream.set_nonblocking(false).unwrap();
            assert_eq!(code(client.read().body), "limit");
            // What is left of the line is skipped, and the connection is good for more.
            client.stream.write_all(b"\n").unwrap();
            assert!(matches!(client.ask(RequestBody::Status), SwitchReplyBody::Status(_)));
            refused += 1;
        }
    }
    assert!((20..40).contains(&refused), "{refused}");
    drop(clients);
    // Then there is room again, for any message.
    let mut client = running.connect();
    client.stream.write_all(&piece).unwrap();
    assert!(matches!(client.ask(RequestBody::Status), SwitchReplyBody::Status(_)));
}

#[test]
fn a_message_that_does_not_end_ends_its_connection() {
    let running = RunningSwitch::start(1);
    let (mut slow, mut idle) = (running.connect(), running.connect());
    slow.stream.write_all(b"{").unwrap();
    slow.stream.set_read_timeout(Some(std::time::Duration::from_secs(120))).unwrap();
    assert_eq!(code(slow.read().body), "timeout");
    assert!(matches!(idle.ask(RequestBody::Status), SwitchReplyBody::Status(_)), "one that sends nothing may wait");
}

#[test]
#[ignore = "sends 256 MiB; run by hand"]
fn an_oversized_line_is_refused_once_and_skipped() {
    let running = RunningSwitch::start(1);
    let mut client = running.connect();
    let piece = vec![b' '; 1 << 20];
    for _ in 0..=MESSAGE_BYTES_MAX >> 20 {
        client.stream.write_all(&piece).unwrap();
    }
    assert_eq!(code(client.read().body), "too-large");
    client.stream.write_all(b"\n").unwrap();
    assert!(matches!(client.ask(RequestBody::Status), SwitchReplyBody::Status(_)));
}

#[test]
fn a_second_switch_does_not_take_the_socket_and_a_dead_one_leaves_no_block() {
    let mut running = RunningSwitch::start(1);
    let (_stop, stopped) = UnixStream::pair().unwrap();
    let error = run_until(VswitchConfig::new(running.path()), stopped).unwrap_err();
    assert!(error.to_string().contains("already listens"), "{error}");
    assert!(matches!(running.connect().ask(RequestBody::Status), SwitchReplyBody::Status(_)), "the first lives on");
    running.stop();
    drop(std::os::unix::net::UnixListener::bind(running.path()).unwrap());
    assert!(running.path().exists(), "a socket that nobody listens at");
    let (stop, stopped) = UnixStream::pair().unwrap();
    drop(stop);
    run_until(VswitchConfig::new(running.path()), stopped).unwrap();
}

#[test]
fn sessions_that_would_be_over_at_once_are_refused() {
    let running = RunningSwitch::start(1);
    let mut client = running.connect();
    let mut refusal = |body: RequestBody| match client.ask(body) {
        SwitchReplyBody::Refused { refusals } => (refusals[0].object.clone(), refusals[0].message.clone()),
        other => panic!("{other:?}"),
    };
    let mut desired = Desired::default();
    desired.settings.icmp_timeout_s = 0;
    let (object, message) = refusal(RequestBody::Replace { generation: 1, desired });
    assert_eq!(object, "settings/icmp_timeout_s");
    assert!(message.contains("at least 1 s"), "{message}");
    let settings = Settings { tcp_half_open_timeout_s: 0, ..Settings::default() };
    let delta = Delta { settings: Some(settings), ..Delta::default() };
    let (object, _) = refusal(RequestBody::Apply { base: 0, generation: 1, delta });
    assert_eq!(object, "settings/tcp_half_open_timeout_s");
}

#[test]
fn workers_come_and_go_as_they_are_asked_to() {
    let running = RunningSwitch::start(1);
    let mut client = running.connect();
    for workers in [3, 1, 2] {
        let reply =
            client.raw(format!("{{\"version\":1,\"id\":7,\"op\":\"regroup\",\"workers\":{workers}}}\n").as_bytes());
        let SwitchReplyBody::Regrouped(resized) = reply.body else { panic!("{reply:?}") };
        assert_eq!((resized.workers, resized.lanes), (workers, 1));
        let SwitchReplyBody::Status(status) = client.ask(RequestBody::Status) else { panic!() };
        assert_eq!((status.workers.len(), status.lanes, status.lanes_max), (workers, 1, 1));
    }
    let (code, message) = client.refused(b"{\"version\":1,\"id\":7,\"op\":\"regroup\",\"workers\":65}\n");
    assert_eq!(code, "invalid");
    assert!(message.contains("1 to 64"), "{message}");
}
