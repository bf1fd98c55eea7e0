//! A fake forwarding plane for tests of the control plane alone: it acknowledges everything.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use vswitch_core::config::protocol::{self, Applied, RequestBody, Status, SwitchReply, SwitchReplyBody, SwitchRequest};

/// Acknowledges everything at a socket until the process ends.
pub(super) fn fake_switch(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || acknowledge(stream));
        }
    });
    Ok(())
}

fn acknowledge(stream: UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut line = Vec::new();
    let mut running = 0;
    while reader.read_until(b'\n', &mut line)? > 0 {
        let Ok(request) = protocol::read::<SwitchRequest>(&line) else { return Ok(()) };
        line.clear();
        let body = match request.body {
            RequestBody::Replace { generation, .. } | RequestBody::Apply { generation, .. } => {
                running = generation;
                SwitchReplyBody::Applied(Applied { generation, compile_ns: 0, barrier_ns: 0, ports_down: vec![] })
            }
            RequestBody::Ports => SwitchReplyBody::Ports { ports: vec![] },
            _ => SwitchReplyBody::Status(Status {
                generation: running,
                process_id: std::process::id(),
                uptime_ms: 0,
                enis: 0,
                flows: 0,
                lanes: 1,
                lanes_max: 1,
                workers: vec![],
            }),
        };
        let reply = SwitchReply { version: protocol::VERSION, id: request.id, body };
        writer.write_all(&protocol::write(&reply))?;
    }
    Ok(())
}
