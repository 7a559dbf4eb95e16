//! Three processes of Sentinel, which guard the same groups for comparison.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use crate::common::child::{self, Owned};
use crate::common::ports::Port;
use crate::common::{Group, ServerKind, Told, temporary_dir, wait_until};

const SENTINELS: usize = 3;
const QUORUM: usize = 2;
/// The same as `max_down_time` 1 of ours.
const DOWN_AFTER_MS: u64 = 1000;
/// A sentinel says hello every 2 s and reads `INFO` every 10 s, and writes its file at each discovery.
const READY_LIMIT: Duration = Duration::from_secs(240);
const REPLY_LIMIT: Duration = Duration::from_secs(5);

pub(crate) struct Sentinels {
    nodes: Vec<Sentinel>,
}

struct Sentinel {
    process: Owned,
    port: Port,
    _dir: tempfile::TempDir,
}

impl Sentinels {
    /// Returns when each of them knows the others, and every replica with its link.
    pub(crate) fn start(kind: ServerKind, groups: &[Group]) -> Self {
        let nodes = (0..SENTINELS).map(|_| Sentinel::start(kind, groups)).collect();
        let sentinels = Self { nodes };
        for sentinel in &sentinels.nodes {
            let mut connection = sentinel.connect();
            for group in groups {
                wait_until("a sentinel knows everybody", READY_LIMIT, || {
                    if is_ready(&mut connection, group) {
                        return Some(());
                    }
                    // Asking all the time would be what is measured.
                    std::thread::sleep(Duration::from_millis(50));
                    None
                });
            }
        }
        sentinels
    }

    pub(crate) fn process(&mut self, node: usize) -> &mut Owned {
        &mut self.nodes[node].process
    }

    /// Asks one of them for the masters of all these groups.
    pub(crate) fn told(&self, node: usize, groups: &[Group]) -> Told {
        let mut questions = redis::pipe();
        for group in groups {
            questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(group.master.addr());
        }
        let client = self.nodes[node].client();
        let mut connection = None;
        Told::by(move || {
            if connection.is_none() {
                connection = client.get_connection_with_timeout(REPLY_LIMIT).ok();
            }
            let answers: Option<Vec<(String, u16)>> = questions.query(connection.as_mut()?).ok();
            let Some(answers) = answers else {
                connection = None;
                return None;
            };
            let masters = answers.iter().map(|(host, port)| format!("{host}:{port}"));
            Some(masters.collect::<Vec<_>>().join(","))
        })
    }

    /// `SENTINEL FAILOVER`, which answers before it is done.
    pub(crate) fn switch(&self, name: &str) {
        let mut connection = self.nodes[0].connect();
        let answer = redis::cmd("SENTINEL").arg("FAILOVER").arg(name).query::<()>(&mut connection);
        answer.expect("the sentinel begins a failover");
    }
}

impl Sentinel {
    /// Each group is named by its master's address, as in our program.
    fn start(kind: ServerKind, groups: &[Group]) -> Self {
        let port = Port::take();
        let dir = temporary_dir();
        let file = dir.path().join("sentinel.conf");
        let mut text = format!(
            "port {}\nbind 127.0.0.1\nprotected-mode no\ndir {}\nlogfile sentinel.log\n",
            port.number(),
            dir.path().display()
        );
        for group in groups {
            let (name, ip, port) = (group.master.addr(), group.master.ip(), group.master.port());
            text += &format!("sentinel monitor {name} {ip} {port} {QUORUM}\n");
            text += &format!("sentinel down-after-milliseconds {name} {DOWN_AFTER_MS}\n");
        }
        std::fs::write(&file, text).expect("the directory is ours");
        let mut command = child::command(kind.program());
        command.arg(&file).arg("--sentinel");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Owned::start(command).expect("a sentinel can be started");
        let sentinel = Self { process, port, _dir: dir };
        let client = sentinel.client();
        wait_until("a sentinel answers", READY_LIMIT, || {
            let mut connection = client.get_connection_with_timeout(REPLY_LIMIT).ok()?;
            redis::cmd("PING").query::<String>(&mut connection).ok()
        });
        sentinel
    }

    fn client(&self) -> redis::Client {
        let addr = SocketAddr::from(([127, 0, 0, 1], self.port.number()));
        redis::Client::open(format!("redis://{addr}")).expect("an address makes a client")
    }

    fn connect(&self) -> redis::Connection {
        let connection = self.client().get_connection_with_timeout(REPLY_LIMIT);
        connection.expect("a sentinel listens")
    }
}

type Fields = BTreeMap<String, String>;

fn is_ready(connection: &mut redis::Connection, group: &Group) -> bool {
    let name = group.master.addr();
    let asked = redis::cmd("SENTINEL").arg("MASTER").arg(&name).query::<Fields>(connection);
    let Ok(master) = asked else { return false };
    let asked = redis::cmd("SENTINEL").arg("REPLICAS").arg(&name).query::<Vec<Fields>>(connection);
    let Ok(replicas) = asked else { return false };
    let has = |fields: &Fields, name: &str, value: &str| {
        fields.get(name).is_some_and(|found| found == value)
    };
    has(&master, "flags", "master")
        && has(&master, "num-other-sentinels", &(SENTINELS - 1).to_string())
        && replicas.len() == group.replicas.len()
        && replicas
            .iter()
            .all(|seen| has(seen, "flags", "slave") && has(seen, "master-link-status", "ok"))
}
