//! What kinds of servers there are, and how far decisions depend on the kind: the one place where they differ in core.

use serde::{Deserialize, Serialize};

/// Which kind of server an instance is. Decided by what it answers, never by a name it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavor {
    /// Redis, and servers that cannot be told apart from it.
    Redis,
    /// Valkey.
    Valkey,
    /// LedisDB.
    Ledisdb,
}

/// What a kind of server does and says by itself, where a decision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// A replica and its new master find out what they have in common (replication ids), and the rest is copied. Without
    /// that a replica goes on from its own offset, whatever it holds: only whoever decides knows where a full copy is due.
    pub finds_common: bool,
    /// After a restart it has the role that it had last, where its configuration file can be written.
    pub keeps_role: bool,
    /// A replica says when it last heard from its master. Without that an established link proves nothing.
    pub tells_last_io: bool,
    /// A pause of writes ends by itself. Without that it is a fence, which stands until the server is told otherwise.
    pub pause_ends: bool,
    /// A master counts what it takes also while nobody follows it.
    pub counts_alone: bool,
    /// Clients can be cut off when their server becomes a replica.
    pub cuts_clients: bool,
    /// The largest port under which it can be followed, and announces itself.
    pub port_max: u16,
    /// What its offset counts.
    pub unit: &'static str,
    /// What says how much it holds: its keys, or what it counts alone.
    pub holds: &'static str,
}

const REDIS: Manners = Manners {
    finds_common: true,
    keeps_role: true,
    tells_last_io: true,
    pause_ends: true,
    counts_alone: false,
    cuts_clients: true,
    port_max: u16::MAX,
    unit: "bytes",
    holds: "keys",
};

const LEDISDB: Manners = Manners {
    finds_common: false,
    keeps_role: false,
    tells_last_io: false,
    pause_ends: false,
    counts_alone: true,
    cuts_clients: false,
    // It reads the port of its master as a signed number of 16 bits.
    port_max: 32_767,
    unit: "log entries",
    holds: "log entries",
};

impl Flavor {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Redis, Self::Valkey, Self::Ledisdb];

    /// The name as it is written in answers and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Ledisdb => "ledisdb",
        }
    }

    /// The name as its makers write it, for sentences.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
            Self::Ledisdb => "LedisDB",
        }
    }

    /// Why a server must not listen on a port, as the rest of a sentence about it; `None` when it may.
    pub fn unfit_port(self, port: u16) -> Option<String> {
        let max = self.manners().port_max;
        (port > max).then(|| {
            let title = self.title();
            format!(
                "listens on port {port}, and {title} cannot be told to follow a port above {max}: start it on a lower one"
            )
        })
    }

    /// What it does and says by itself.
    pub const fn manners(self) -> Manners {
        match self {
            Self::Redis | Self::Valkey => REDIS,
            Self::Ledisdb => LEDISDB,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_compare_histories_is_told_what_to_keep() {
        for flavor in [Flavor::Redis, Flavor::Valkey] {
            assert_eq!(flavor.manners(), REDIS);
        }
        let ledisdb = Flavor::Ledisdb.manners();
        assert!(!ledisdb.finds_common && !ledisdb.keeps_role && !ledisdb.tells_last_io);
        assert_eq!((ledisdb.port_max, ledisdb.unit), (32_767, "log entries"));
    }
}
