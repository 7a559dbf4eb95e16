//! Addresses of instances, as people write them and as servers report them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::Text;

/// Where an instance listens: a host name or an IP address, and a port.
///
/// Written `host:port`, with an IPv6 address in brackets. Host names are compared without case, IP addresses in their
/// canonical form. Whether two addresses are the same server is not decided here: that takes the server's own word
/// (its run id, or the address its name resolved to).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr {
    host: Text,
    port: u16,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrError {
    text: String,
    why: &'static str,
}

/// Longer host names cannot be resolved (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

impl Addr {
    /// From a host (name, IPv4 or bare IPv6 address) and a port.
    ///
    /// # Errors
    /// When the host is empty, too long or has characters no host has, or the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, AddrError> {
        let fail = |why| Err(AddrError { text: format!("{host}:{port}"), why });
        if port == 0 {
            return fail("the port must be between 1 and 65535");
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self { host: Text::from(&*ip.to_canonical().to_string()), port });
        }
        if host.is_empty() {
            return fail("the host is missing");
        }
        if host.len() > HOST_BYTES_MAX {
            return fail("the host name is longer than 253 bytes");
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !host.chars().all(fits) {
            return fail("the host has a character that no host name or address has");
        }
        Ok(Self { host: Text::from(&*host.to_ascii_lowercase()), port })
    }

    /// Whether it is known to be the same without a look at the text: one is a clone of the other.
    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        self.port == other.port && self.host.is_clone_of(&other.host)
    }

    /// The host, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address when the host is an IP address and nothing needs to be resolved.
    pub fn socket(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Addr {
    fn from(socket: SocketAddr) -> Self {
        Self { host: Text::from(&*socket.ip().to_canonical().to_string()), port: socket.port() }
    }
}

impl FromStr for Addr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let fail = |why| AddrError { text: text.to_owned(), why };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest
                    .split_once("]:")
                    .ok_or_else(|| fail("an IPv6 address is written [address]:port"))?;
                host.parse::<Ipv6Addr>()
                    .map_err(|_| fail("what is in the brackets is not an IPv6 address"))?;
                (host, port)
            }
            None => text.rsplit_once(':').ok_or_else(|| fail("expected host:port"))?,
        };
        if host.contains(':') && !text.starts_with('[') {
            return Err(fail("an IPv6 address is written [address]:port"));
        }
        let port = Some(port)
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse::<u16>().ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| fail("the port must be between 1 and 65535"))?;
        Self::new(host, port).map_err(|error| fail(error.why))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", &*self.host, self.port)
        } else {
            write!(f, "{}:{}", &*self.host, self.port)
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not an address: {}", self.text, self.why)
    }
}

impl std::error::Error for AddrError {}

impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Addr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["127.0.0.1:6379", "[::1]:6379", "redis-1.example.org:1", "a_b:65535"] {
            assert_eq!(text.parse::<Addr>().expect(text).to_string(), text);
        }
        assert_eq!("LocalHost:1".parse::<Addr>().expect("name").to_string(), "localhost:1");
        assert_eq!(
            "[0:0:0:0:0:0:0:1]:1".parse::<Addr>().expect("v6").to_string(),
            "[::1]:1",
            "one server has one spelling"
        );
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "6379",
            ":6379",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:x",
            "::1:6379",
            "[::1]",
            "[x]:1",
            "a b:1",
            "a/b:1",
            "a,b:1",
            "host:-1",
            "host:+",
            "host:+80",
        ] {
            let error = text.parse::<Addr>().expect_err(text).to_string();
            assert!(error.contains(&format!("\"{text}\"")), "{error}");
        }
    }
}
