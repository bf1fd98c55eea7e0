//! TLS, with a given certificate or a self-signed one.

use crate::os::small_file;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// An acceptor for TLS connections with these PEM files.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let fault = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(|error| fault(certificate, &error))?.collect();
    let chain = chain.map_err(|error| fault(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| fault(certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The files in the data directory.
const CERTIFICATE_FILE: &str = "tls-certificate.pem";
const KEY_FILE: &str = "tls-key.pem";

/// The certificate and private key in the data directory; new ones if there are none yet. The certificate is
/// self-signed, for this machine's names and the address it listens on.
pub(super) fn kept_files(data_dir: &Path, address: IpAddr) -> Result<(PathBuf, PathBuf), String> {
    let (certificate, key) = (data_dir.join(CERTIFICATE_FILE), data_dir.join(KEY_FILE));
    // The key is written last, so if it exists, both do.
    if key.exists() {
        return Ok((certificate, key));
    }
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    let is_named = address.is_unspecified() || names.contains(&address.to_string());
    if !is_named {
        names.push(address.to_string());
    }
    let made =
        rcgen::generate_simple_self_signed(names).map_err(|error| format!("cannot make a certificate: {error}"))?;
    let fault = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    small_file::write(&certificate, made.cert.pem().as_bytes()).map_err(|error| fault(&certificate, error))?;
    small_file::write(&key, made.signing_key.serialize_pem().as_bytes()).map_err(|error| fault(&key, error))?;
    Ok((certificate, key))
}
