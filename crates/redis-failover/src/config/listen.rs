//! Where HTTP listens, as people write it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use failover_core::addr::Addr;

use super::ConfigError;

/// An address to listen on: `:port` for all interfaces, or `host:port`. Port 0 lets the system
/// choose one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// `None`: all interfaces. An IPv6 address without brackets.
    host: Option<String>,
    port: u16,
}

impl ListenAddr {
    /// All interfaces.
    pub fn any(port: u16) -> Self {
        Self { host: None, port }
    }

    /// The host, an IPv6 address without brackets; `None`: all interfaces.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The port; 0: the system chooses.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What to bind, in order, until one succeeds, each `host:port`.
    ///
    /// All interfaces are the IPv6 wildcard first, which takes IPv4 too where the system allows
    /// it, then the IPv4 wildcard, for systems without IPv6.
    pub fn to_bind(&self) -> Vec<String> {
        match self.host {
            Some(_) => vec![self.to_string()],
            None => vec![format!("[::]:{}", self.port), format!("0.0.0.0:{}", self.port)],
        }
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(socket: SocketAddr) -> Self {
        Self { host: Some(socket.ip().to_string()), port: socket.port() }
    }
}

impl FromStr for ListenAddr {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let fail = |why: &str| {
            ConfigError::Invalid(format!(
                "\"{text}\" is no address to listen on: {why}; write host:port or :port"
            ))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| fail("the port is missing"))?;
        let port: u16 = port.parse().map_err(|_| fail("the port must be between 0 and 65535"))?;
        if host.is_empty() {
            return Ok(Self::any(port));
        }
        // Hosts are written as in any other address; only the port may be 0 here.
        let addr: Addr = format!("{host}:1").parse().map_err(|_| fail("this is no host"))?;
        Ok(Self { host: Some(addr.host().to_owned()), port })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, ":{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}
