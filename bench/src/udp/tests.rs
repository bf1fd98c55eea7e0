use super::receive::receive;
use super::*;
use crate::Report;
use std::net::UdpSocket;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

fn arguments(receiver: String) -> send::SendArguments {
    send::SendArguments {
        receiver,
        rate: 5000,
        size: 100,
        seconds: 10.0,
        count: Some(500),
        echo: true,
        show: crate::Show::default(),
    }
}

#[test]
fn both_ends_agree_on_what_was_sent() {
    for (any, echo) in [("127.0.0.1:0", true), ("[::1]:0", false)] {
        let Ok(socket) = UdpSocket::bind(any) else { continue };
        let receiver = socket.local_addr().unwrap().to_string();
        let (sent, received) = std::thread::scope(|scope| {
            let receiver_thread = scope.spawn(|| receive(&socket, WAIT));
            let sent = send::run(&send::SendArguments { echo, ..arguments(receiver) });
            (sent.unwrap(), receiver_thread.join().unwrap().unwrap())
        });
        assert!(received.is_complete);
        assert_eq!((sent.sent, sent.unsent, received.findings.received), (500, 0, 500));
        let counts = |found: &Findings| (found.received, found.lost, found.duplicates, found.payload_bytes);
        assert_eq!(sent.receiver_found.as_ref().map(counts), Some(counts(&received.findings)));
        assert_eq!(counts(&received.findings), (500, 0, 0, 50_000));
        assert_eq!((sent.echoed, sent.round_trip.is_some()), (echo.then_some(500), echo));
        assert!(received.findings.one_way.is_some(), "both ends read the same clock");
        for text in [sent.text(), received.text(), sent.svg(), received.svg()] {
            assert!(text.contains("one way"), "{text}");
        }
    }
}

#[test]
fn nobody_who_does_not_answer_is_sent_more_than_greetings() {
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let receiver = stranger.local_addr().unwrap().to_string();
    let error = send::run(&arguments(receiver)).unwrap_err();
    assert!(error.contains("no receiver answers"), "{error}");
    stranger.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2048];
    let mut heard = 0;
    while let Ok(bytes) = stranger.recv(&mut buffer) {
        assert_eq!(Header::read(&buffer[..bytes]).map(|(header, _)| header.kind), Some(MessageKind::Hello));
        heard += 1;
    }
    assert!((1..=15).contains(&heard), "{heard}");
}

#[test]
fn messages_are_read_as_written_and_others_are_not() {
    let header = Header { kind: MessageKind::Echo, run: 1 << 60, number: 2, sent_ns: 3, received: 4 };
    let message = header.with_body(&Greeting { clock: None, echo: true });
    let (read, body) = Header::read(&message).unwrap();
    assert_eq!((read, serde_json::from_slice::<Greeting>(body).unwrap().echo), (header, true));
    for cut in 0..HEADER_BYTES {
        assert_eq!(Header::read(&message[..cut]), None);
    }
    for (place, byte) in [(0, b'X'), (7, 9), (4, 1)] {
        let mut other = message.clone();
        other[place] = byte;
        assert_eq!(Header::read(&other), None);
    }
}
