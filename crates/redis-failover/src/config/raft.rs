//! What the Raft that is built in needs, and when it fits together.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use failover_core::addr::Addr;

use super::{Problem, SavedState};

/// Shortest and longest time between two signs of life of the leader.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_MAX: Duration = Duration::from_secs(10);
/// Longest time until another leader is elected.
const ELECTION_MAX: Duration = Duration::from_secs(60);
/// Most nodes of one cluster: each one more makes every decision slower.
const MEMBERS_MAX: usize = 31;

/// What the broker `raft` needs.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// This node's own address for other nodes. It is listened on, and told to the others.
    pub addr: Option<Addr>,
    /// Where the record is stored.
    pub data_dir: Option<PathBuf>,
    /// Where Raft's own messages go; `None`: nowhere, but for its errors in a log with details.
    pub log_dir: Option<PathBuf>,
    /// The addresses of all nodes that begin together; this node's own need not be among them. With none, or its own
    /// only, it is a single node that remembers.
    pub cluster: Vec<Addr>,
    /// Whether the members that an earlier run saved are kept.
    pub cluster_state: SavedState,
    /// How often the leader shows that it is there.
    pub heartbeat: Duration,
    /// How long a leader must be silent until another is elected, at least.
    pub election_min: Duration,
    /// And at most.
    pub election_max: Duration,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            addr: None,
            data_dir: None,
            log_dir: None,
            cluster: Vec::new(),
            cluster_state: SavedState::default(),
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
        }
    }
}

impl RaftConfig {
    /// Longest time that a command to a server may take: it must be over before the leader that sent it can have lost
    /// its lease.
    pub(super) fn command_timeout_max(&self) -> Duration {
        self.election_max * 3 / 4
    }

    /// How many nodes vote at first, when that is given.
    pub(super) fn voters(&self) -> Option<usize> {
        let all: BTreeSet<_> = self.cluster.iter().chain(&self.addr).collect();
        (!self.cluster.is_empty()).then_some(all.len())
    }

    /// `may_be_reached`: the nodes prove to each other who they are, or need not.
    pub(super) fn check(&self, may_be_reached: bool) -> Result<(), Problem> {
        let Some(addr) = &self.addr else {
            return Err(problem(
                &["raft_addr", "broker"],
                "the broker \"raft\" needs raft_addr, the address of this node for the others",
            ));
        };
        if self.data_dir.is_none() {
            return Err(problem(
                &["raft_data_dir", "raft_addr", "broker"],
                "the broker \"raft\" needs raft_data_dir, the directory for what this node must not \
                 forget; there is no default, so that a start from another place never begins anew",
            ));
        }
        if is_any(addr) {
            return Err(problem(
                &["raft_addr", "node_addr"],
                format!(
                    "raft_addr is {addr}, but it is also told to the other nodes, who cannot connect \
                     to that: write the address or name under which they reach this one"
                ),
            ));
        }
        if !may_be_reached && !is_loopback(addr) {
            return Err(problem(
                &["raft_addr", "node_addr"],
                format!(
                    "raft_addr is {addr}, which others may reach: whoever does could join the \
                     cluster and lead it; give all nodes the same cluster_secret, or set \
                     cluster_open = true where the network is trusted"
                ),
            ));
        }
        self.check_cluster()?;
        self.check_times()
    }

    fn check_cluster(&self) -> Result<(), Problem> {
        let refuse = |why| Err(problem(&["raft_cluster"], why));
        let mut seen = BTreeSet::new();
        for member in &self.cluster {
            if !seen.insert(member) {
                return refuse(format!("raft_cluster has {member} twice"));
            }
            if is_any(member) {
                return refuse(format!("raft_cluster has {member}, which no node can connect to"));
            }
        }
        if self.cluster.len() > MEMBERS_MAX {
            return refuse(format!(
                "raft_cluster has {} addresses, but a cluster has at most {MEMBERS_MAX} nodes",
                self.cluster.len()
            ));
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), Problem> {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (heartbeat, min, max) =
            (ms(self.heartbeat), ms(self.election_min), ms(self.election_max));
        if !(HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&self.heartbeat) {
            return Err(problem(
                &["raft_heartbeat_ms"],
                format!(
                    "raft_heartbeat_ms is {heartbeat}, but must be between {} and {}",
                    ms(HEARTBEAT_MIN),
                    ms(HEARTBEAT_MAX)
                ),
            ));
        }
        if self.heartbeat * 2 > self.election_min {
            return Err(problem(
                &["raft_election_min_ms", "raft_heartbeat_ms"],
                format!(
                    "raft_election_min_ms ({min}) must be at least twice raft_heartbeat_ms \
                     ({heartbeat}): one sign of life that is late must not cost the leader its place"
                ),
            ));
        }
        if self.election_min >= self.election_max {
            return Err(problem(
                &["raft_election_max_ms", "raft_election_min_ms"],
                format!(
                    "raft_election_max_ms ({max}) must be more than raft_election_min_ms ({min}): \
                     each node waits a random time between them, so that not all stand at once"
                ),
            ));
        }
        if self.election_max > ELECTION_MAX {
            return Err(problem(
                &["raft_election_max_ms"],
                format!("raft_election_max_ms must be at most {}", ms(ELECTION_MAX)),
            ));
        }
        Ok(())
    }
}

fn problem(keys: &[&'static str], message: impl Into<String>) -> Problem {
    Problem { group: None, keys: keys.to_vec(), message: message.into() }
}

pub(super) fn is_any(addr: &Addr) -> bool {
    addr.socket().is_some_and(|socket| socket.ip().is_unspecified())
}

/// A name may lead anywhere, but for the one that never does.
fn is_loopback(addr: &Addr) -> bool {
    match addr.socket() {
        Some(socket) => match socket.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        },
        None => addr.host() == "localhost",
    }
}
