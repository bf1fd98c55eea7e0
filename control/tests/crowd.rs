//! Crowds: idle connections, unfinished requests and half lines beyond any bound, from users without a name and from
//! root. Others still get answers, those beyond the bounds are told so, and what is held stays bounded.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use control::api::{AccessKey, ApiSettings, Product};
use control::api_client::ApiClient;
use control::client::Client;
use control::conform::ApiRig;
use control::http::{CONNECTIONS_MAX, PEER_CONNECTIONS_MAX, UNFINISHED_BYTES_MAX};
use control::model::{Model, Quotas};
use control::query::{Answer, Nothing, Query};
use control::view::StatusView;
use rustix::process::{Resource, Uid, getrlimit, setrlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// A user that has nothing to do with Sluice, and another one.
const NOBODY: u32 = 65_534;
const SOMEBODY: u32 = 65_533;
/// Bytes of the largest body there may be.
const BODY_BYTES: usize = 1 << 20;

/// The tests measure this process and need many descriptors: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn rig() -> ApiRig {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let rig = ApiRig::start(&Model::new(Quotas::default()), ApiSettings::default(), Quotas::default()).unwrap();
    // Its first answer shows that it has started.
    assert_eq!(ask(&mut rig.client().unwrap()), 200);
    rig
}

/// Whether other users can be played.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("left out: only root can connect as other users");
    }
    is_root
}

/// Does something as another user: a socket is its maker's.
fn as_user<T: Send>(user: u32, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            rustix::thread::set_thread_uid(Uid::from_raw(user)).unwrap();
            work()
        });
        worker.join().unwrap()
    })
}

fn crowd(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

fn ask(client: &mut ApiClient) -> u16 {
    client.call(Product::Ecs, "DescribeRegions", &[]).unwrap().status
}

fn status(rig: &ApiRig) -> StatusView {
    match Client::connect(&rig.control_socket()).unwrap().ask(&Query::Status(Nothing {})).unwrap() {
        Answer::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

/// How many of them have been told that there is no room, once as many were as are wanted.
fn refused(crowd: &[TcpStream], wanted: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let told = |stream: &&TcpStream| {
            let mut start = [0; 12];
            stream.set_nonblocking(true).unwrap();
            stream.peek(&mut start).is_ok_and(|count| start[..count] == *b"HTTP/1.1 503")
        };
        let count = crowd.iter().filter(told).count();
        if count >= wanted || Instant::now() > deadline {
            return count;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes of this process that are in memory.
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// What of a request for which there may be no room goes through.
fn send_as_much_as_it_takes(stream: &mut TcpStream, mut bytes: &[u8]) {
    stream.set_nonblocking(true).unwrap();
    // A second without room, not one in all: this machine may be busy.
    let mut deadline = Instant::now() + Duration::from_secs(1);
    while !bytes.is_empty() && Instant::now() < deadline {
        match stream.write(bytes) {
            Ok(count) => {
                bytes = &bytes[count..];
                deadline = Instant::now() + Duration::from_secs(1);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(_) => return,
        }
    }
}

#[test]
fn idle_connections_of_one_user_shut_nobody_out() {
    let _alone = ALONE.lock();
    if !is_root() {
        return;
    }
    let rig = rig();
    let address = rig.address;
    let mut before = rig.client().unwrap();
    assert_eq!(ask(&mut before), 200);
    let crowd = as_user(NOBODY, || crowd(address, CONNECTIONS_MAX));
    let most = CONNECTIONS_MAX - PEER_CONNECTIONS_MAX;
    assert_eq!(refused(&crowd, most), most);
    assert_eq!(ask(&mut before), 200, "who was signed before");
    assert_eq!(ask(&mut rig.client().unwrap()), 200, "root");
    for user in [SOMEBODY, NOBODY] {
        let status = as_user(user, || ask(&mut ApiClient::connect(address, rig.key.clone()).unwrap()));
        assert_eq!(status, 200, "an authenticated caller that is user {user}");
    }
    let http = status(&rig).http_clients.unwrap();
    assert!(http.refused >= most as u64 && http.connections <= http.connections_max, "{http:?}");
}

#[test]
fn idle_connections_of_root_itself_leave_room_for_who_asks() {
    let _alone = ALONE.lock();
    let rig = rig();
    let crowd = crowd(rig.address, CONNECTIONS_MAX + 200);
    assert_eq!(ask(&mut rig.client().unwrap()), 200);
    assert!(refused(&crowd, 200) >= 200);
    if is_root() {
        let key = rig.key.clone();
        let asked = as_user(SOMEBODY, || ask(&mut ApiClient::connect(rig.address, key).unwrap()));
        assert_eq!(asked, 200);
    }
}

/// Requests that stop before their end, in the head or in the body, of as many users as there are.
fn unfinished(start: &str, bytes: usize, users: &[u32]) {
    let _alone = ALONE.lock();
    let users = if is_root() { users } else { &[] };
    let rig = rig();
    let address = rig.address;
    let before_bytes = resident_bytes();
    let request = [start.as_bytes(), &vec![b'a'; bytes]].concat();
    let send = || {
        let mut all = crowd(address, 1000 / users.len().max(1));
        // Many at once, or each would wait for the one before.
        let part = all.len().div_ceil(16);
        thread::scope(|scope| {
            for some in all.chunks_mut(part) {
                let request = &request;
                scope.spawn(move || some.iter_mut().for_each(|stream| send_as_much_as_it_takes(stream, request)));
            }
        });
        all
    };
    let mut held: Vec<Vec<TcpStream>> = users.iter().map(|user| as_user(*user, send)).collect();
    if held.is_empty() {
        held.push(send());
    }
    let http = status(&rig).http_clients.unwrap();
    assert!(http.unfinished_bytes <= UNFINISHED_BYTES_MAX, "{http:?}");
    assert!(http.refused > 0, "{http:?}");
    let grown = resident_bytes().saturating_sub(before_bytes);
    println!("{} MiB more than before, {http:?}", grown >> 20);
    // This process holds the requests of the crowd too.
    assert!(grown < UNFINISHED_BYTES_MAX + (64 << 20), "{} MiB more than before", grown >> 20);
    assert_eq!(ask(&mut rig.client().unwrap()), 200, "root");
    // Also one that is not small.
    let filler = "x".repeat(200 << 10);
    let answer = rig.client().unwrap().call(Product::Ecs, "DescribeRegions", &[("Filler", &filler)]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    for user in users.iter().chain(&[SOMEBODY]).filter(|_| !users.is_empty()) {
        let asked = as_user(*user, || ask(&mut ApiClient::connect(address, rig.key.clone()).unwrap()));
        assert_eq!(asked, 200, "an authenticated caller that is user {user}");
    }
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(120);
    while status(&rig).http_clients.unwrap().unfinished_bytes > 1 << 20 {
        assert!(Instant::now() < deadline, "what is gone is held");
        thread::sleep(Duration::from_millis(20));
    }
}

const BODY: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                    Content-Length: 1048576\r\n\r\n";

#[test]
fn unfinished_bodies_of_one_user_take_no_more_than_their_share() {
    unfinished(BODY, BODY_BYTES - 1, &[NOBODY]);
}

#[test]
fn unfinished_bodies_of_many_users_take_no_more_than_there_is() {
    unfinished(BODY, BODY_BYTES - 1, &[NOBODY, 60_001, 60_002, 60_003, 60_004, 60_005, 60_006, 60_007]);
}

#[test]
fn unfinished_heads_of_many_users_take_no_more_than_there_is() {
    unfinished("GET /?a=", 90 << 10, &[NOBODY, 60_001, 60_002, 60_003, 60_004, 60_005, 60_006, 60_007]);
}

/// Requests that are whole and long, and refused: their connections end, and with them their buffers.
#[test]
fn long_requests_of_nobody_leave_nothing_behind() {
    let _alone = ALONE.lock();
    if !is_root() {
        return;
    }
    let rig = rig();
    let before_bytes = resident_bytes();
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(80 << 10));
    let mut held: Vec<TcpStream> = Vec::new();
    for user in [NOBODY, 60_001, 60_002, 60_003] {
        held.extend(as_user(user, || crowd(rig.address, PEER_CONNECTIONS_MAX)));
    }
    let mut ended = 0;
    for stream in &mut held {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        ended += usize::from(answer.starts_with(b"HTTP/1.1 404"));
    }
    assert_eq!(ended, 4 * PEER_CONNECTIONS_MAX);
    let grown = resident_bytes().saturating_sub(before_bytes);
    assert!(grown < 64 << 20, "{} MiB more than before", grown >> 20);
}

/// A connection that was signed once has a share of its own, however full that of its user is.
#[test]
fn a_signed_connection_gives_way_to_none() {
    let _alone = ALONE.lock();
    if !is_root() {
        return;
    }
    let rig = rig();
    let (address, key) = (rig.address, rig.key.clone());
    let (mut signed, mut unsigned) = as_user(NOBODY, || {
        let mut signed = ApiClient::connect(address, key.clone()).unwrap();
        assert_eq!(ask(&mut signed), 200);
        let wrong = AccessKey { secret: "wrong".into(), ..key };
        let mut unsigned = ApiClient::connect(address, wrong).unwrap();
        assert_eq!(ask(&mut unsigned), 400);
        (signed, unsigned)
    });
    let crowd = as_user(NOBODY, || crowd(address, 2 * PEER_CONNECTIONS_MAX));
    assert!(refused(&crowd, PEER_CONNECTIONS_MAX) >= PEER_CONNECTIONS_MAX);
    assert_eq!(ask(&mut signed), 200);
    assert!(unsigned.call(Product::Ecs, "DescribeRegions", &[]).is_err(), "one that is not signed gave way");
}

#[test]
fn half_lines_on_the_control_socket_are_bounded_and_told_so() {
    let _alone = ALONE.lock();
    let rig = rig();
    let before_bytes = resident_bytes();
    let mut crowd: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(rig.control_socket()).unwrap()).collect();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..2 {
        // One that took too long was told so too, and is closed.
        crowd.retain_mut(|stream| stream.write_all(&piece).is_ok());
    }
    let clients = status(&rig).socket_clients;
    assert!(clients.unfinished_bytes <= clients.unfinished_bytes_max, "{clients:?}");
    assert!(clients.unfinished_bytes_max <= 64 << 20 && clients.refused >= 40, "{clients:?}");
    let grown = resident_bytes().saturating_sub(before_bytes);
    assert!(grown < 192 << 20, "{} MiB more than before", grown >> 20);
    let told = |stream: &mut UnixStream| {
        stream.set_nonblocking(true).unwrap();
        let mut text = [0; 512];
        let count = stream.read(&mut text).unwrap_or(0);
        String::from_utf8_lossy(&text[..count]).into_owned()
    };
    let told: Vec<String> = crowd.iter_mut().map(told).filter(|text| !text.is_empty()).collect();
    assert!(told.len() >= 40 && told[0].contains("\"ServiceUnavailable\""), "{} {:?}", told.len(), told.first());
    // A connection whose line was refused is good for the next one.
    let stream = crowd.last_mut().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.write_all(b"\n{\"version\":1,\"request\":6,\"op\":\"vpc-list\"}\n").unwrap();
    let mut text = [0; 512];
    let count = stream.read(&mut text).unwrap();
    assert!(
        String::from_utf8_lossy(&text[..count]).contains("answered"),
        "{}",
        String::from_utf8_lossy(&text[..count])
    );
    drop(crowd);
}

/// What was sent whole is held no longer than it is worked on.
#[test]
fn whole_lines_leave_nothing_behind() {
    let _alone = ALONE.lock();
    let rig = rig();
    let mut crowd: Vec<UnixStream> = (0..60).map(|_| UnixStream::connect(rig.control_socket()).unwrap()).collect();
    let before_bytes = resident_bytes();
    let line = [vec![b' '; 4 << 20], b"\n".to_vec()].concat();
    for stream in &mut crowd {
        stream.write_all(&line).unwrap();
        let mut text = [0; 512];
        assert!(stream.read(&mut text).unwrap() > 0);
    }
    let grown = resident_bytes().saturating_sub(before_bytes);
    assert!(grown < 64 << 20, "{} MiB more than before", grown >> 20);
    // The question itself is unfinished.
    assert!(status(&rig).socket_clients.unfinished_bytes < 1024);
}

#[test]
fn a_line_that_does_not_end_ends_its_connection() {
    let _alone = ALONE.lock();
    let rig = rig();
    let mut slow = UnixStream::connect(rig.control_socket()).unwrap();
    let mut idle = Client::connect(&rig.control_socket()).unwrap();
    slow.write_all(b"{").unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = String::new();
    slow.read_to_string(&mut text).unwrap();
    assert!(text.contains("RequestTimeout"), "{text}");
    assert!(idle.ask(&Query::VpcList(Nothing {})).is_ok(), "one that sends nothing may wait");
}
