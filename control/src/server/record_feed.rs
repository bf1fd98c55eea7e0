//! Tells the services process what each ENI is, on a thread of its own: it connects, gets all records, and then those that
//! change. Nothing is read from it.

use crate::ecs::hex;
use crate::os::small_file;
use crate::socket::listener::Socket;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::net::sockopt::socket_peercred;
use rustix::rand::{GetRandomFlags, getrandom};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use vswitch_core::config::ids::EniId;
use vswitch_core::config::services::PROCESS_USER;
use vswitch_core::config::services::record::{GuestRecord, RecordLine};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// How long the process may take to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(5);
/// The secret of tokens, in the folder of the state, so that tokens are good after a restart.
const TOKEN_KEY_FILE: &str = "metadata-token.key";
const TOKEN_KEY_BYTES: usize = 32;

/// Records by ENI; `None` for one that is gone.
type RecordChanges = BTreeMap<EniId, Option<GuestRecord>>;

/// The feed, until it is dropped.
pub(super) struct RecordFeed {
    shared: Arc<FeedChanges>,
    thread: Option<JoinHandle<()>>,
}

/// What has changed since the thread looked last. One entry for each ENI is the most there is.
struct FeedChanges {
    changes: Mutex<(RecordChanges, bool)>,
    waker: Waker,
}

impl RecordFeed {
    /// Starts the thread, which listens at `path`.
    pub(super) fn start(path: &Path, data_dir: &Path, records: BTreeMap<EniId, GuestRecord>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut socket = Socket::listen(path)?;
        // Who may connect is decided by the user at the other end.
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        poll.registry().register(&mut socket.listener, LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let shared = Arc::new(FeedChanges { changes: Mutex::default(), waker });
        let mut feed = FeedThread {
            shared: Arc::clone(&shared),
            poll,
            socket,
            token_key: token_key(data_dir)?,
            records,
            client: None,
        };
        let thread = std::thread::Builder::new().name("records".into()).spawn(move || feed.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Tells of changes.
    pub(super) fn tell(&self, changes: RecordChanges) {
        if !changes.is_empty() {
            self.shared.lock().0.extend(changes);
            // It fails only if a wake-up is pending already.
            let _ = self.shared.waker.wake();
        }
    }
}

impl Drop for RecordFeed {
    fn drop(&mut self) {
        self.shared.lock().1 = true;
        let _ = self.shared.waker.wake();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that tells the services process about ENIs panicked");
        }
    }
}

impl FeedChanges {
    fn lock(&self) -> std::sync::MutexGuard<'_, (RecordChanges, bool)> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct FeedThread {
    shared: Arc<FeedChanges>,
    poll: Poll,
    socket: Socket,
    token_key: String,
    records: BTreeMap<EniId, GuestRecord>,
    /// The newest connection.
    client: Option<BufWriter<UnixStream>>,
}

impl FeedThread {
    fn run(&mut self) {
        let mut events = Events::with_capacity(4);
        loop {
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return log::error!("the services process is told nothing any more: {error}");
            }
            let (changes, is_ending) = std::mem::take(&mut *self.shared.lock());
            if is_ending {
                return;
            }
            self.apply(changes);
            self.accept();
        }
    }

    fn apply(&mut self, changes: RecordChanges) {
        let mut lines = Vec::new();
        for (eni, record) in changes {
            if self.records.get(&eni) == record.as_ref() {
                continue;
            }
            match &record {
                Some(record) => drop(self.records.insert(eni.clone(), record.clone())),
                None => drop(self.records.remove(&eni)),
            }
            lines.push(RecordLine::Record { eni, record: record.map(Box::new) });
        }
        if let Some(client) = &mut self.client
            && !lines.is_empty()
            && let Err(error) = send(client, lines.into_iter())
        {
            log::debug!("the services process has left: {error}");
            self.client = None;
        }
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.socket.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return log::warn!("the services process cannot be connected to: {error}"),
            };
            if let Err(error) = self.welcome(UnixStream::from(std::os::fd::OwnedFd::from(stream))) {
                log::warn!("the services process was not told about ENIs: {error}");
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) -> io::Result<()> {
        let user = socket_peercred(&stream)?.uid;
        if !(user.is_root() || user == rustix::process::geteuid() || user.as_raw() == PROCESS_USER) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {} may not", user.as_raw())));
        }
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = BufWriter::new(stream);
        let begin = RecordLine::Begin { token_key: self.token_key.clone() };
        let all = self.records.iter();
        let all =
            all.map(|(eni, record)| RecordLine::Record { eni: eni.clone(), record: Some(Box::new(record.clone())) });
        send(&mut client, [begin].into_iter().chain(all).chain([RecordLine::Complete {}]))?;
        self.client = Some(client);
        Ok(())
    }
}

fn send(client: &mut BufWriter<UnixStream>, lines: impl Iterator<Item = RecordLine>) -> io::Result<()> {
    for line in lines {
        serde_json::to_writer(&mut *client, &line)?;
        client.write_all(b"\n")?;
    }
    client.flush()
}

/// The secret of tokens, from its file. A new one is made where there is none; if it cannot be kept, tokens end with this
/// process.
fn token_key(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(TOKEN_KEY_FILE);
    let is_key = |text: &String| text.len() == 2 * TOKEN_KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(key) = fs::read_to_string(&path).ok().filter(is_key) {
        return Ok(key);
    }
    let mut key = [0; TOKEN_KEY_BYTES];
    getrandom(&mut key, GetRandomFlags::empty())?;
    let key = hex(&key);
    if let Err(error) = small_file::write(&path, key.as_bytes()) {
        log::warn!("the secret of metadata tokens cannot be kept in {}: {error}", path.display());
    }
    Ok(key)
}
