//! One node of a [`Cluster`](super::Cluster): its addresses, its directory, and how it is started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::daemon::{Daemon, Launch};
use super::netns::Host;
use super::ports::Port;
use super::store::Agree;
use super::temporary_dir;

/// The ports in a network of one's own, where nobody else can have taken them.
const HOST_RAFT_PORT: u16 = 12_000;
const HOST_HTTP_PORT: u16 = 11_000;
/// What the nodes of a network share, because their addresses are not loopback.
const SECRET: (&str, &str) = ("REDIS_FAILOVER_CLUSTER_SECRET", "only the nodes know this");

#[derive(Debug)]
pub(super) struct Node {
    pub(super) raft_addr: String,
    pub(super) http_addr: String,
    /// Held: two ports that nobody else gets. None on a host of its own.
    _ports: Vec<Port>,
    pub(super) host: Option<Host>,
    pub(super) data: tempfile::TempDir,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) running: Option<Daemon>,
    /// Ended runs: they hold the logs, and show them when the test panics.
    pub(super) past: Vec<Daemon>,
    pub(super) is_frozen: bool,
    /// It belongs to the membership, as far as the test is concerned.
    pub(super) is_member: bool,
    /// The size of the disk that is its data directory, if it has one of its own.
    pub(super) disk_mb: Option<u32>,
    /// What it finds in the place of `/etc/resolv.conf`, if that is not the system's.
    pub(super) names: Option<PathBuf>,
}

impl Node {
    pub(super) fn on_loopback() -> Self {
        let ports = vec![Port::take(), Port::take()];
        let addr = |port: &Port| format!("127.0.0.1:{}", port.number());
        let (raft_addr, http_addr) = (addr(&ports[0]), addr(&ports[1]));
        Self::new(raft_addr, http_addr, ports, None)
    }

    pub(super) fn on_host(host: &Host) -> Self {
        let addr = |port: u16| format!("{}:{port}", host.ip());
        let (raft_addr, http_addr) = (addr(HOST_RAFT_PORT), addr(HOST_HTTP_PORT));
        let mut node = Self::new(raft_addr, http_addr, Vec::new(), Some(host.clone()));
        node.env.insert(SECRET.0.to_owned(), SECRET.1.to_owned());
        node
    }

    fn new(raft_addr: String, http_addr: String, ports: Vec<Port>, host: Option<Host>) -> Self {
        Self {
            raft_addr,
            http_addr,
            _ports: ports,
            host,
            data: temporary_dir(),
            args: Vec::new(),
            env: BTreeMap::new(),
            running: None,
            past: Vec::new(),
            is_frozen: false,
            is_member: true,
            disk_mb: None,
            names: None,
        }
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// What it is started with; of arguments with one name the last holds.
    fn args(&self, of_all: &[String], (agree, cluster): (Agree, &str)) -> Vec<String> {
        let mut flags = BTreeMap::new();
        let mut base = vec![format!("-broker={}", agree.name())];
        match agree {
            Agree::Raft => base.extend([
                format!("-raft_addr={}", self.raft_addr),
                format!("-raft_data_dir={}", self.data_dir().display()),
                format!("-raft_cluster={cluster}"),
            ]),
            Agree::Zk | Agree::Etcd => base.push(format!("-node_addr={}", self.raft_addr)),
        }
        base.extend([
            format!("-addr={}", self.http_addr),
            "-check_interval=100".to_owned(),
            "-max_down_time=1".to_owned(),
        ]);
        for arg in base.iter().chain(of_all).chain(&self.args) {
            flags.insert(name_of(arg).to_owned(), arg.clone());
        }
        flags.into_values().collect()
    }

    pub(super) fn launch<T>(
        &self,
        binary: &Path,
        of_all: &[String],
        cluster: (Agree, &str),
        start: impl FnOnce(&Launch<'_>) -> T,
    ) -> T {
        let mut args = self.args(of_all, cluster);
        let mut mounts = String::new();
        if let Some(megabytes) = self.disk_mb {
            std::fs::create_dir_all(self.data_dir()).expect("the directory is ours");
            let dir = self.data_dir();
            mounts += &format!("mount -t tmpfs -o size={megabytes}m none '{}' && ", dir.display());
        }
        if let Some(names) = &self.names {
            mounts += &format!("mount --bind '{}' /etc/resolv.conf && ", names.display());
        }
        let mut program = binary;
        if !mounts.is_empty() {
            program = Path::new("unshare");
            let script = format!("{mounts}exec \"$0\" \"$@\"");
            let binary = binary.display().to_string();
            args.splice(
                0..0,
                ["--mount".to_owned(), "sh".to_owned(), "-c".to_owned(), script, binary],
            );
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let env: Vec<(&str, &str)> =
            self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let host = self.host.as_ref();
        start(&Launch { binary: program, env: &env, host, ..Launch::of(&args) })
    }
}

/// `None`, said loudly, where this user cannot mount a disk.
///
/// # Panics
/// In that case where `CI` is set, where nothing is left out.
pub(super) fn can_mount() -> Option<()> {
    if rustix::process::getuid().is_root() {
        return Some(());
    }
    assert!(std::env::var_os("CI").is_none(), "a disk can only be mounted by root");
    eprintln!("SKIPPED, because this is not root, and a disk can only be mounted by root");
    None
}

/// The name of a flag: what stands before `=`.
pub(super) fn name_of(arg: &str) -> &str {
    arg.split('=').next().unwrap_or(arg)
}
