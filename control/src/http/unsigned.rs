//! The checks on a request without a signature, which acts for the first account on a loopback address.
//!
//! Every program of the machine can reach such an address, including browsers, and so can every page that somebody
//! visits. A page's requests can be recognized: by the page's own host name (resolved to the loopback address), by an
//! origin, or by being a simple link.

use crate::ecs::RequestEnvelope;
use crate::error::{ApiError, FORBIDDEN};
use std::net::IpAddr;
use vswitch_core::config::ids::quoted;

/// Refuses what a foreign page may have sent. With TLS (`is_tls`), the client has verified the server, so the host is
/// not checked.
pub(super) fn check(envelope: &RequestEnvelope<'_>, is_question: bool, is_tls: bool) -> Result<(), ApiError> {
    let host = envelope.header("host").unwrap_or("localhost");
    if !is_tls && !is_local(host) {
        let message = format!(
            "unsigned requests name a loopback address or localhost as their host, not {host}: sign it",
            host = quoted(host)
        );
        return Err(FORBIDDEN.error(message));
    }
    if let Some(origin) = envelope.header("origin")
        && origin.split_once("://").is_none_or(|(_, of)| of != host)
    {
        return Err(FORBIDDEN.error("unsigned requests are not for pages of another origin: sign it"));
    }
    let site = envelope.header("sec-fetch-site").unwrap_or("none");
    if !["none", "same-origin"].contains(&site) {
        return Err(FORBIDDEN.error("unsigned requests are not for pages of another site: sign it"));
    }
    if !is_question && envelope.method != "POST" {
        return Err(FORBIDDEN.error("unsigned requests change something by POST only: use that, or sign it"));
    }
    Ok(())
}

/// Whether a host, with or without a port, cannot belong to a page on the Internet: a loopback address, or a name
/// without a dot, such as `localhost`.
fn is_local(host: &str) -> bool {
    let without_port = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    match without_port.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => !without_port.is_empty() && without_port.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use crate::ecs::Parameters;
    use std::collections::BTreeMap;

    fn passes(method: &str, is_question: bool, headers: &[(&str, &str)]) -> bool {
        let headers: BTreeMap<String, String> =
            headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let parameters = Parameters::new([]).unwrap();
        let envelope =
            RequestEnvelope { method, query: &[], pairs: &[], parameters: &parameters, headers: &headers, body: &[] };
        check(&envelope, is_question, false).is_ok()
    }

    #[test]
    fn only_this_machine_is_a_host() {
        for host in ["localhost", "LocalHost:8773", "sluice", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8773"] {
            assert!(passes("POST", false, &[("host", host)]), "{host}");
        }
        let foreign = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "10.0.0.1", "[::2]:80"];
        for host in foreign.into_iter().chain(["::1", "localhost@evil.example", "evil.example:127.0.0.1", "[::1"]) {
            assert!(!passes("POST", true, &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn pages_of_others_are_refused() {
        let host = ("host", "localhost:8773");
        assert!(passes("POST", false, &[host, ("origin", "http://localhost:8773")]));
        for origin in
            ["null", "https://evil.example", "http://localhost:3000", "http://127.0.0.1:8773", "localhost:8773"]
        {
            assert!(!passes("POST", true, &[host, ("origin", origin)]), "{origin}");
        }
        for (site, is_good) in [("none", true), ("same-origin", true), ("same-site", false), ("cross-site", false)] {
            assert_eq!(passes("GET", true, &[host, ("sec-fetch-site", site)]), is_good, "{site}");
        }
    }

    #[test]
    fn a_link_changes_nothing() {
        assert!(passes("GET", true, &[]));
        assert!(!passes("GET", false, &[]));
        assert!(passes("POST", false, &[]));
    }
}
