//! The rig of the integration tests and of the benchmark: real servers, the real program, and the
//! witnesses that measure what happens between them.
//!
//! - [`server`]: one Redis or Valkey server, or [`ledisdb`]'s stand-in; [`group`]: a master and its replicas;
//! - [`store`]: the etcd and ZooKeeper through which nodes agree;
//! - [`wire`]: a way to it that can be cut;
//! - [`netns`]: hosts of a network that can be cut off from each other, to start them on;
//! - [`cluster`]: several nodes of the program that guard together, [`node`] one of them;
//! - [`daemon`]: the program itself, and a small HTTP client for it in [`http`];
//! - [`witness`]: a [`Writer`] that writes to every server each millisecond, and [`Told`], which
//!   asks `GET /master` each millisecond;
//! - [`scenario`]: what most scenarios begin with, wait for and assert;
//! - [`together`]: the same for a cluster;
//! - [`script`]: scripts that write down how they were run;
//! - [`slow`]: servers and name servers that nobody should wait for;
//! - [`webhook`]: a service that is told, and answers as it is told to;
//! - [`xcodis`] and [`dashboard`]: what stands in for the proxies of xcodis and for codis;
//! - [`ports`] and [`child`]: free ports, and children that never outlive the test.
//!
//! Everything waits by asking, with a bound; nothing sleeps and hopes. Each child is ended by the
//! value that owns it, also when the test panics, and by the kernel when the test itself is killed.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    unused_imports,
    reason = "every test file and the benchmark includes this module and uses its own part of it"
)]

pub mod child;
pub mod cluster;
pub mod daemon;
pub mod dashboard;
pub mod group;
pub mod http;
pub mod ledisdb;
pub mod netns;
pub mod node;
pub mod ports;
pub mod scenario;
pub mod script;
pub mod server;
pub mod slow;
pub mod store;
pub mod together;
pub mod webhook;
pub mod wire;
pub mod witness;
pub mod xcodis;

use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

pub use cluster::Cluster;
pub use daemon::Daemon;
pub use group::Group;
pub use netns::Network;
pub use server::{Options, Server, ServerKind};
pub use store::{Agree, Store};
pub use witness::{Told, Writer};

/// How long the rig waits for something that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The names of temporary directories begin so, and go on with whose they are.
const DIR_PREFIX: &str = "redis-failover-test-of-";

/// The one clock of the rig.
#[expect(clippy::disallowed_methods, reason = "the rig measures real time; it decides nothing")]
pub fn now() -> Instant {
    Instant::now()
}

/// Asks every 2 ms until `ask` gives a value, and panics with `what` when it takes too long.
#[track_caller]
pub fn wait_until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let started_at = now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(started_at.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory that goes with the value. What is left of processes that were killed, or that shared a directory among all
/// their tests, goes with the next process that asks for one.
pub fn temporary_dir() -> tempfile::TempDir {
    static REAPED: Once = Once::new();
    REAPED.call_once(reap_directories);
    let prefix = format!("{DIR_PREFIX}{}-", std::process::id());
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir();
    dir.expect("the temporary directory is writable")
}

/// Removes the directories whose names tell of a process that is no more. Several may do so at once.
fn reap_directories() {
    let entries =
        std::fs::read_dir(std::env::temp_dir()).expect("the temporary directory is there");
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(DIR_PREFIX));
        let of = rest.and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        let Some(pid) = of.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
