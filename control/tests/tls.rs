//! The HTTP interface over TLS: a client that trusts the certificate is served, and no other one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use control::config::ApiConfig;
use control::ecs::ApiSettings;
use control::http::Endpoint;
use control::store::MemoryStore;
use control::{ControlConfig, serve_with};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const NAME: &str = "ecs.lab.test";

/// A certificate of its own for one name, and its key.
fn certificate(folder: &Path, file: &str) -> (PathBuf, PathBuf) {
    let path = |end: &str| folder.join(format!("{file}-{end}.pem"));
    let (certificate, key) = (path("certificate"), path("key"));
    let name = format!("subjectAltName=DNS:{NAME}");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"])
        .args(["-subj", "/CN=sluice", "-addext", &name, "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-out".as_ref(), certificate.as_os_str(), "-keyout".as_ref(), key.as_os_str()])
        .output()
        .expect("openssl is needed: scripts/prerequisites installs it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

/// A control plane that speaks TLS. It ends with the value.
struct Served {
    address: SocketAddr,
    control: Option<(UnixStream, JoinHandle<()>)>,
}

fn serve(folder: &Path, tls: Option<(PathBuf, PathBuf)>) -> Served {
    let path = |name: &str| folder.join(name);
    let settings = ApiSettings { unsigned: true, ..ApiSettings::default() };
    let listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    std::fs::create_dir_all(path("data")).unwrap();
    let endpoint = Endpoint::open(&ApiConfig { listen, tls, settings }, &path("data")).unwrap();
    let address = endpoint.address().unwrap();
    let config = ControlConfig::new(path("data"), path("control.sock"), path("vswitch.sock"));
    let (stop, stopped) = UnixStream::pair().unwrap();
    let store = Box::new(MemoryStore::default());
    let control = thread::spawn(move || serve_with(&config, store, stopped, Some(endpoint)).unwrap());
    Served { address, control: Some((stop, control)) }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some((stop, control)) = self.control.take() {
            drop(stop);
            let ended = control.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

/// What a client that trusts one certificate is answered under a name.
fn ask(address: SocketAddr, trusted: &Path, name: &str) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut stream = StreamOwned::new(connection, stream);
    let request = format!(
        "GET /?Action=DescribeRegions&Version=2014-05-26&Format=JSON HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What a client that speaks no TLS is answered.
fn ask_plainly(address: SocketAddr) -> String {
    let mut plain = TcpStream::connect(address).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request =
        "GET /?Action=DescribeRegions&Version=2014-05-26 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    plain.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_certificate_is_made_once_and_serves_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), None);
    let trusted = folder.path().join("data/tls-certificate.pem");
    let made = std::fs::read(&trusted).unwrap();
    for name in ["localhost", "127.0.0.1"] {
        let answer = ask(served.address, &trusted, name).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{name}: {answer}");
    }
    assert!(ask_plainly(served.address).starts_with("HTTP/1.1 200 OK\r\n"));
    drop(served);
    let served = serve(folder.path(), None);
    assert_eq!(std::fs::read(&trusted).unwrap(), made, "clients trust it still");
    assert!(ask(served.address, &trusted, "localhost").is_ok());
}

#[test]
fn only_a_client_that_trusts_the_certificate_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let own = certificate(folder.path(), "own");
    let (other, _) = certificate(folder.path(), "other");
    let served = serve(folder.path(), Some(own.clone()));
    let answer = ask(served.address, &own.0, NAME).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"cn-hangzhou\""), "{answer}");
    let refused = |trusted: &Path, name: &str| ask(served.address, trusted, name).unwrap_err().to_string();
    let told = refused(&own.0, "ecs.other.test");
    assert!(told.contains("not valid for name"), "{told}");
    let told = refused(&other, NAME);
    assert!(told.contains("invalid peer certificate"), "{told}");
    // Who speaks no TLS is answered at the same port.
    assert!(ask_plainly(served.address).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(ask(served.address, &own.0, NAME).is_ok());
}

#[test]
fn files_that_do_not_go_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate_file, _) = certificate(folder.path(), "own");
    let (_, other_key) = certificate(folder.path(), "other");
    for (certificate_file, key) in [
        (certificate_file.clone(), other_key),
        (certificate_file, folder.path().join("none.pem")),
        (folder.path().join("none.pem"), folder.path().join("none.pem")),
    ] {
        let listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let config = ApiConfig { listen, tls: Some((certificate_file, key)), settings: ApiSettings::default() };
        assert!(Endpoint::open(&config, folder.path()).is_err());
    }
}
