//! Who may use the port: this user's programs, and no web page in a browser.
//!
//! A page of another site can have a browser send requests to 127.0.0.1, and by DNS rebinding read
//! their answers. Such a request names another host in `Host` (kubectl's `--accept-hosts` refuses
//! it too), or says by `Origin` or `Sec-Fetch-Site` (W3C Fetch Metadata) that it is a page's.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, header, uri::Authority};
use nix::unistd::Uid;

/// Why a request with these headers is not passed on; `None` when it is.
pub fn refusal(headers: &HeaderMap, local: SocketAddr) -> Option<&'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|value| value.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(|host| is_here(host, local)) {
        return Some("the Host header does not name this port on loopback");
    }
    let origin = headers.get(header::ORIGIN);
    let elsewhere = origin.is_some_and(|origin| {
        let host = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://"));
        !host.is_some_and(|host| is_here(host, local))
    });
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if elsewhere || site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return Some("it was sent by a web page of another site");
    }
    None
}

/// Does a `host:port` name this port?
fn is_here(host: &str, local: SocketAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if host.contains('@') || authority.port_u16().unwrap_or(80) != local.port() {
        return false;
    }
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Is the other end of a loopback connection a socket of this user, or of root?
pub fn is_own(peer: SocketAddr, local: SocketAddr) -> bool {
    let table = if peer.is_ipv4() {
        "/proc/self/net/tcp"
    } else {
        "/proc/self/net/tcp6"
    };
    let text = std::fs::read_to_string(table).unwrap_or_default();
    owner(&text, peer, local).is_some_and(|uid| uid == 0 || uid == Uid::effective().as_raw())
}

/// The user of the socket from `peer` to `local`, in the kernel's table (proc(5)).
fn owner(table: &str, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let (peer, local) = (spelled(peer), spelled(local));
    let mut rows = table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.get(1) == Some(&&*peer) && row.get(2) == Some(&&*local))?;
    row.get(7)?.parse().ok()
}

/// An address as the kernel's table has it: words of 32 bits in the machine's order, then the port.
fn spelled(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut text = String::new();
    for word in bytes.as_chunks::<4>().0 {
        let _ = write!(text, "{:08X}", u32::from_ne_bytes(*word));
    }
    let _ = write!(text, ":{:04X}", address.port());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(given: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, value.parse().expect("a value"));
        }
        refusal(&headers, "127.0.0.1:8001".parse().expect("an address")).is_some()
    }

    #[test]
    fn other_hosts_and_pages_of_other_sites_are_refused() {
        for host in [
            "127.0.0.1:8001",
            "localhost:8001",
            "LocalHost:8001",
            "[::1]:8001",
        ] {
            assert!(!refused(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example:8001",
            "127.0.0.1.evil.example:8001",
            "localhost:8002",
            "localhost",
            "10.0.0.1:8001",
            "a@localhost:8001",
        ] {
            assert!(refused(&[("host", host)]), "{host}");
        }
        assert!(refused(&[]));
        assert!(refused(&[
            ("host", "localhost:8001"),
            ("host", "evil.example:8001")
        ]));
        let with = |name, value| refused(&[("host", "localhost:8001"), (name, value)]);
        assert!(with("origin", "http://evil.example") && with("origin", "null"));
        assert!(with("origin", "http://localhost:3000"));
        assert!(with("sec-fetch-site", "cross-site") && with("sec-fetch-site", "same-site"));
        assert!(!with("origin", "http://localhost:8001") && !with("sec-fetch-site", "none"));
    }

    #[test]
    fn the_owner_of_a_connection_is_known() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let local = listener.local_addr().expect("an address");
        let client = std::net::TcpStream::connect(local).expect("connected");
        let peer = client.local_addr().expect("an address");
        assert!(is_own(peer, local));
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("a table");
        assert_eq!(owner(&table, peer, local), Some(Uid::effective().as_raw()));
        assert_eq!(
            owner(&table, "127.0.0.1:1".parse().expect("an address"), local),
            None
        );
    }
}
