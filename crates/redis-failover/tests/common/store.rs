//! Real ZooKeeper and etcd servers on loopback, alone or as an ensemble of three, each with a directory of its own.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::child::{self, Owned};
use super::http::Client;
use super::ports::Port;
use super::{PATIENCE, temporary_dir, wait_until};

/// Debian's, from the package `libzookeeper-java`.
const ZOOKEEPER_JARS: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar";
/// How long a server may take to say that it is there.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// How the nodes of a cluster agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agree {
    Raft,
    Zk,
    Etcd,
}

impl Agree {
    /// All brokers of several nodes. What is not installed is an error where `CI` is set, and said loudly elsewhere.
    pub fn all() -> Vec<Self> {
        [Self::Raft, Self::Zk, Self::Etcd].into_iter().filter(|agree| agree.is_there()).collect()
    }

    /// Those that run apart from the program.
    pub fn outer() -> Vec<Self> {
        Self::all().into_iter().filter(|agree| *agree != Self::Raft).collect()
    }

    /// Whether it can be tried here.
    pub fn is_there(self) -> bool {
        let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
        let (is_there, name) = match self {
            Self::Raft => (true, "raft"),
            Self::Zk => {
                let jars = ZOOKEEPER_JARS.split(':').all(|jar| Path::new(jar).exists());
                (jars && has("java"), "zookeeper")
            }
            Self::Etcd => (has("etcd"), "etcd"),
        };
        if !is_there {
            assert!(std::env::var_os("CI").is_none(), "{name} is missing, and CI needs it");
            eprintln!("SKIPPED on {name}, which is missing (scripts/install-deps.sh {name})");
        }
        is_there
    }

    /// Its name in settings and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Zk => "zk",
            Self::Etcd => "etcd",
        }
    }
}

/// Plays a scenario with every broker, at the same time.
pub fn on_each_broker(play: impl Fn(Agree) + Sync) {
    on_each(Agree::all(), play);
}

/// Plays a scenario with every broker that runs apart, at the same time.
pub fn on_each_outer(play: impl Fn(Agree) + Sync) {
    on_each(Agree::outer(), play);
}

fn on_each(brokers: Vec<Agree>, play: impl Fn(Agree) + Sync) {
    std::thread::scope(|scope| {
        for agree in brokers {
            let play = &play;
            scope.spawn(move || play(agree));
        }
    });
}

/// The servers of one etcd or ZooKeeper; dropping it kills them.
#[derive(Debug)]
pub struct Store {
    agree: Agree,
    servers: Vec<StoreServer>,
    /// With the times and the care for its disk that it has where it is installed, not those of a test in a hurry.
    is_installed: bool,
}

#[derive(Debug)]
struct StoreServer {
    process: Option<Owned>,
    /// For clients, and between the servers.
    ports: Vec<Port>,
    dir: tempfile::TempDir,
}

impl StoreServer {
    fn port(&self, at: usize) -> u16 {
        self.ports[at].number()
    }
}

impl Store {
    /// Starts so many servers, and returns when they answer.
    pub fn start(agree: Agree, servers: usize) -> Self {
        Self::start_as(agree, servers, false)
    }

    /// One server with the settings that its package has.
    pub fn installed(agree: Agree) -> Self {
        Self::start_as(agree, 1, true)
    }

    fn start_as(agree: Agree, servers: usize, is_installed: bool) -> Self {
        let server = |_| StoreServer {
            process: None,
            ports: (0..3).map(|_| Port::take()).collect(),
            dir: temporary_dir(),
        };
        let servers: Vec<StoreServer> = (0..servers).map(server).collect();
        let all = 0..servers.len();
        let mut store = Self { agree, servers, is_installed };
        for at in all.clone() {
            store.launch(at);
        }
        for at in all {
            store.wait_for_answer(at);
        }
        store
    }

    /// One that all tests of this process share, each in a place of its own. The kernel ends it with this process.
    pub fn shared(agree: Agree) -> &'static Self {
        static ZK: OnceLock<Store> = OnceLock::new();
        static ETCD: OnceLock<Store> = OnceLock::new();
        let place = match agree {
            Agree::Zk => &ZK,
            Agree::Etcd => &ETCD,
            Agree::Raft => panic!("Raft has no servers of its own"),
        };
        place.get_or_init(|| Self::start(agree, 1))
    }

    /// A place in it that nobody else has.
    pub fn new_place() -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        format!("/test/{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub fn agree(&self) -> Agree {
        self.agree
    }

    /// Where clients reach the servers.
    pub fn addrs(&self) -> String {
        let addrs: Vec<String> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port(0))).collect();
        addrs.join(",")
    }

    /// `kill -9` of one server.
    pub fn kill9(&mut self, at: usize) {
        if let Some(mut process) = self.servers[at].process.take() {
            process.kill9();
        }
    }

    /// SIGSTOP of one server: it accepts connections, and says nothing.
    pub fn freeze(&mut self, at: usize) {
        self.servers[at].process.as_mut().expect("it runs").stop();
    }

    /// SIGCONT.
    pub fn thaw(&mut self, at: usize) {
        self.servers[at].process.as_mut().expect("it runs").cont();
    }

    /// Starts it again with what it had.
    pub fn restart(&mut self, at: usize) {
        assert!(self.servers[at].process.is_none(), "it runs");
        self.launch(at);
        self.wait_for_answer(at);
    }

    fn launch(&mut self, at: usize) {
        let mut command = match self.agree {
            Agree::Zk => self.zookeeper(at),
            Agree::Etcd => self.etcd(at),
            Agree::Raft => panic!("Raft has no servers of its own"),
        };
        let path = self.servers[at].dir.path().join("log");
        let log = OpenOptions::new().create(true).append(true).open(path);
        let log = log.expect("the directory is ours");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let process = Owned::start(command);
        self.servers[at].process = Some(process.expect("scripts/install-deps.sh installs it"));
    }

    fn zookeeper(&self, at: usize) -> Command {
        let server = &self.servers[at];
        let dir = server.dir.path();
        let data = dir.join("data");
        fs::create_dir_all(&data).expect("the directory is ours");
        // Half a second is a tick, so that sessions of a second are granted; nothing outlasts the machine here.
        let (tick, sync) = if self.is_installed { (2000, "yes") } else { (500, "no") };
        let mut config = format!(
            "tickTime={tick}\ninitLimit=10\nsyncLimit=4\ndataDir={}\nclientPort={}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\nforceSync={sync}\n",
            data.display(),
            server.port(0)
        );
        if self.servers.len() > 1 {
            for (id, other) in (1..).zip(&self.servers) {
                let (quorum, election) = (other.port(1), other.port(2));
                config.push_str(&format!("server.{id}=127.0.0.1:{quorum}:{election}\n"));
            }
            fs::write(data.join("myid"), (at + 1).to_string()).expect("the directory is ours");
        }
        let path = dir.join("zoo.cfg");
        fs::write(&path, config).expect("the directory is ours");
        let mut command = child::command("java");
        command.args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.arg(ZOOKEEPER_JARS).arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
        command.arg(path);
        command
    }

    fn etcd(&self, at: usize) -> Command {
        let server = &self.servers[at];
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> = (0..)
            .zip(&self.servers)
            .map(|(at, server)| format!("e{at}={}", url(server.port(1))))
            .collect();
        let mut command = child::command("etcd");
        command.arg(format!("--name=e{at}"));
        command.arg(format!("--data-dir={}", server.dir.path().join("data").display()));
        for flag in ["listen-client-urls", "advertise-client-urls"] {
            command.arg(format!("--{flag}={}", url(server.port(0))));
        }
        for flag in ["listen-peer-urls", "initial-advertise-peer-urls"] {
            command.arg(format!("--{flag}={}", url(server.port(1))));
        }
        command.arg(format!("--initial-cluster={}", all.join(",")));
        // Leases of two seconds are granted, and another leader is there in one.
        if !self.is_installed {
            command.args(["--heartbeat-interval=50", "--election-timeout=500"]);
        }
        command
    }

    fn wait_for_answer(&mut self, at: usize) {
        let what = format!("the server {at} of {} answers", self.agree.name());
        wait_until(&what, PATIENCE, || self.answers(at).then_some(()));
    }

    /// Whether the server takes part.
    pub fn answers(&self, at: usize) -> bool {
        let port = self.servers[at].port(0);
        match self.agree {
            // Without a quorum it says that it is not serving.
            Agree::Zk => four_letters(port).is_some_and(|said| said.contains("Mode: ")),
            Agree::Etcd => {
                let addr = ([127, 0, 0, 1], port).into();
                let answer =
                    Client::new(addr).with_limit(ANSWER_LIMIT).request("GET", "/health", "");
                answer.is_ok_and(|answer| answer.body.contains("true"))
            }
            Agree::Raft => false,
        }
    }

    /// The log of a server, for a test that failed.
    pub fn log(&self, at: usize) -> String {
        fs::read_to_string(self.servers[at].dir.path().join("log")).unwrap_or_default()
    }
}

fn four_letters(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}
