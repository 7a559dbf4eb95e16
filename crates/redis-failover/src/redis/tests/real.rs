//! The scripts on real servers, read and changed by the code of the program.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::event::CommandResult;
use failover_sim::model_redis::Denial;
use failover_sim::stage::Fate;
use tokio::runtime::Runtime;

use super::common::{Options, PATIENCE, Server, ServerKind, wait_until};
use super::script::{Keeps, Step};
use super::standing::{Reading, Standing};
use crate::clock::Clock;
use crate::redis::command::{Answered, carry_out};
use crate::redis::connection::{Login, Taken};
use crate::redis::dial::connect;
use crate::redis::interview::{Interview, Mute};
use crate::resolve::Resolver;

/// The smallest backlog that servers take.
pub(super) const BACKLOG_BYTES: u64 = 16 * 1024;
/// Servers that are not written to stay where they are: no keepalive comes in between.
pub(super) const PING_PERIOD_SECS: u32 = 3_600;
/// What a client writes; the model counts about as much for a write.
const VALUE_BYTES: usize = 64;
/// Per key, in microseconds: a load that takes longer than anybody looks at it, and answers a few times a second.
const LOAD_DELAY_US: u32 = 20_000;
/// Per key, in microseconds: a copy that nobody waits for.
const COPY_DELAY_US: u32 = 2_000_000;

/// A client's connection, with the writes on it that have no answer yet.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    writes: std::ops::Range<usize>,
}

/// Real servers.
pub(super) struct Real {
    servers: Vec<Server>,
    keeps: Keeps,
    /// Which are stopped.
    hung: Vec<bool>,
    /// Which hold back writes until they are told otherwise.
    pausing: Vec<bool>,
    clients: Vec<Client>,
    fates: Vec<Fate>,
    /// What was written to stopped servers, kept open.
    lying: Vec<TcpStream>,
    runtime: Runtime,
    clock: Clock,
    resolver: Resolver,
}

impl Real {
    pub(super) fn start(kind: ServerKind, servers: usize, keeps: Keeps) -> Self {
        let options = match keeps {
            Keeps::Log => Options::durable(),
            Keeps::Saves => Options::new(),
        };
        let options = options
            .set("repl-backlog-size", &BACKLOG_BYTES.to_string())
            .set("repl-ping-replica-period", &PING_PERIOD_SECS.to_string())
            // A server says that it is loading only between so many bytes.
            .set("loading-process-events-interval-bytes", "1024");
        let servers: Vec<Server> = (0..servers).map(|_| Server::start(kind, &options)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            hung: vec![false; servers.len()],
            pausing: vec![false; servers.len()],
            servers,
            keeps,
            clients: Vec::new(),
            fates: Vec::new(),
            lying: Vec::new(),
            runtime: runtime.expect("a runtime"),
            clock: Clock::start(),
            resolver: Resolver::new(),
        }
    }

    pub(super) fn addrs(&self) -> Vec<Addr> {
        let addr = |server: &Server| server.addr().parse().expect("an address");
        self.servers.iter().map(addr).collect()
    }

    /// Takes a step. Returns whether a server did what it was told; `None` when it was not asked or cannot say yet.
    pub(super) fn take(&mut self, step: Step) -> Option<bool> {
        if let Some((who, command)) = step.command(&self.addrs()) {
            let done = self.command(who, &command);
            match command {
                Command::Pause { .. } => self.pausing[who] = true,
                Command::Unpause => self.pausing[who] = false,
                Command::Promote { .. }
                | Command::Follow { .. }
                | Command::Demote { .. }
                | Command::Part
                | Command::Fence { .. } => {}
            }
            if let Step::PauseAndWrite(..) = step {
                self.write(who, 1);
            }
            return done;
        }
        match step {
            Step::Write(who, times) => self.write(who, times),
            Step::Kill(who) => {
                if self.keeps == Keeps::Log && !self.hung[who] {
                    self.servers[who].wait_until_durable();
                }
                self.servers[who].kill9();
                self.hung[who] = false;
            }
            Step::Start(who) => {
                self.mend(who);
                self.servers[who].restart();
            }
            Step::StartEmpty(who) => {
                let data = self.servers[who].dir().join("data");
                fs::remove_dir_all(&data).expect("the directory is ours");
                fs::create_dir(&data).expect("the directory is ours");
                self.servers[who].restart();
            }
            Step::StartLoading(who) => {
                let server = &mut self.servers[who];
                let text = server.config_text() + &format!("\nkey-load-delay {LOAD_DELAY_US}\n");
                fs::write(server.dir().join("conf/server.conf"), text).expect("the file is ours");
                server.restart();
            }
            Step::Loaded(who) => {
                self.servers[who].cmd(&["CONFIG", "SET", "key-load-delay", "0"]);
            }
            Step::Save(who) => {
                self.servers[who].cmd(&["SAVE"]);
            }
            Step::Hang(who) => {
                self.servers[who].stop();
                self.hung[who] = true;
            }
            Step::Wake(who) => {
                self.servers[who].cont();
                self.hung[who] = false;
            }
            Step::Priority(who, priority) => {
                let priority = priority.to_string();
                self.servers[who].cmd(&["CONFIG", "SET", "replica-priority", &priority]);
                self.servers[who].cmd(&["CONFIG", "REWRITE"]);
            }
            Step::BreakDisk(who) => self.break_disk(who),
            Step::MendDisk(who) => {
                self.mend(who);
                self.save_in_background(who, "ok");
            }
            Step::SlowCopies(who) => {
                let delay = COPY_DELAY_US.to_string();
                self.servers[who].cmd(&["CONFIG", "SET", "rdb-key-save-delay", &delay]);
            }
            Step::HideStaleData(who) => {
                self.servers[who].cmd(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
            }
            Step::Follow(..)
            | Step::Demote(..)
            | Step::Promote(_)
            | Step::Fence(..)
            | Step::Pause(..)
            | Step::PauseAndWrite(..)
            | Step::Unpause(_) => unreachable!("these are commands"),
        }
        None
    }

    /// Changes a server as the program does.
    fn command(&mut self, who: usize, command: &Command) -> Option<bool> {
        if self.hung[who] {
            let mut stream = self.connect(who);
            stream.write_all(b"REPLICAOF NO ONE\r\n").expect("its host takes it");
            self.lying.push(stream);
            return None;
        }
        let addr = self.addrs()[who].clone();
        let (clock, resolver) = (self.clock, self.resolver.clone());
        let result = self.runtime.block_on(async {
            let Ok(mut connection) = connect(addr, resolver).await else { panic!("it listens") };
            connection.greet(&Login::default(), 0, clock.now()).await.expect("it listens");
            loop {
                let frame = connection.receive().await.expect("it answers");
                if let Taken::Probe(..) = connection.take(frame, clock.now()).expect("it answers") {
                    break;
                }
            }
            let mut answered = Answered::new();
            carry_out(&mut connection, command, &clock, &|| true, &mut answered).await
        });
        match result {
            CommandResult::Done { warnings, .. } => {
                assert_eq!(warnings, Vec::<String>::new());
                Some(true)
            }
            CommandResult::Refused(_) => Some(false),
            CommandResult::NotSent(why) | CommandResult::Unknown(why) => panic!("{why}"),
        }
    }

    fn connect(&self, who: usize) -> TcpStream {
        let server = &self.servers[who];
        TcpStream::connect((server.ip(), server.port())).expect("its host listens")
    }

    /// A client writes, and does not wait.
    fn write(&mut self, who: usize, times: usize) {
        let first = self.fates.len();
        let mut text = String::new();
        for number in first..first + times {
            let value = "v".repeat(VALUE_BYTES);
            text.push_str(&format!("SET key:{number} {value}\r\n"));
        }
        if times == 0 {
            return;
        }
        let mut stream = self.connect(who);
        stream.write_all(text.as_bytes()).expect("its host takes it");
        stream.set_nonblocking(true).expect("a socket");
        self.fates.resize(first + times, Fate::Pending);
        self.clients.push(Client { stream, input: Vec::new(), writes: first..first + times });
        // What a stopped or pausing server answers comes later, or never.
        if !self.hung[who] && !self.pausing[who] {
            wait_until("the writes are answered", PATIENCE, || {
                self.hear();
                self.clients.last()?.writes.is_empty().then_some(())
            });
        } else if !self.hung[who] {
            wait_until("the write is held back", PATIENCE, || {
                let clients = self.servers[who].cmd(&["CLIENT", "LIST"]);
                clients.lines().any(|line| line.contains(" flags=b ")).then_some(())
            });
        }
    }

    /// Reads what clients hear.
    fn hear(&mut self) {
        for client in &mut self.clients {
            let mut bytes = [0; 4096];
            loop {
                match client.stream.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(count) => client.input.extend_from_slice(&bytes[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => break,
                }
            }
            while let Some(end) = client.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = client.input.drain(..=end).collect();
                let number = client.writes.next().expect("an answer to a write");
                self.fates[number] = fate(&String::from_utf8_lossy(&line));
            }
        }
    }

    /// Makes a server's saving fail, and has it notice: a file cannot take the place of a directory.
    fn break_disk(&self, who: usize) {
        self.servers[who].cmd(&["CONFIG", "SET", "save", "3600 1000000"]);
        let data = self.servers[who].dir().join("data");
        // There is none when nothing was saved yet.
        let _ = fs::rename(data.join("dump.rdb"), data.join("aside"));
        fs::create_dir(data.join("dump.rdb")).expect("the directory is ours");
        self.save_in_background(who, "err");
    }

    /// Puts back what was saved before.
    fn mend(&self, who: usize) {
        let data = self.servers[who].dir().join("data");
        if fs::remove_dir(data.join("dump.rdb")).is_ok() {
            let _ = fs::rename(data.join("aside"), data.join("dump.rdb"));
        }
    }

    fn save_in_background(&self, who: usize, wanted: &str) {
        self.servers[who].cmd(&["BGSAVE"]);
        wait_until("the server has tried to save", PATIENCE, || {
            let info = self.servers[who].info("persistence");
            let done = info.get("rdb_bgsave_in_progress")? == "0";
            (done && info.get("rdb_last_bgsave_status")? == wanted).then_some(())
        });
    }

    /// What the servers report now.
    pub(super) fn standing(&mut self) -> Standing {
        self.hear();
        let addrs = self.addrs();
        let readings = (0..addrs.len()).map(|index| self.read(index, &addrs[index])).collect();
        Standing { readings, fates: self.fates.clone() }
    }

    fn read(&self, index: usize, addr: &Addr) -> Option<Reading> {
        if self.hung[index] {
            return None;
        }
        let login = Login::default();
        let begun = self.runtime.block_on(async {
            let asked = Interview::begin(addr, &login, &self.resolver, self.clock);
            tokio::time::timeout(Duration::from_secs(10), asked).await.expect("it answers")
        });
        let interview = match begun {
            Ok(interview) => interview,
            Err(Mute::Refused) => return None,
            // It was cut off, and will be asked again.
            Err(Mute::Broken(_)) => return None,
            Err(mute) => panic!("{mute:?}"),
        };
        let facts = interview.facts.clone().expect("it hides nothing");
        let info = self.servers[index].info("replication");
        let good = info
            .get("min_slaves_good_slaves")
            .or_else(|| info.get("min_replicas_good_replicas"))
            .and_then(|text| text.parse().ok());
        Some(Reading { health: interview.health, facts, good_replicas: good })
    }
}

fn fate(line: &str) -> Fate {
    let denied = [
        ("-MISCONF", Denial::Misconfigured),
        ("-NOREPLICAS", Denial::TooFewReplicas),
        ("-READONLY", Denial::ReadOnly),
        ("-LOADING", Denial::Loading),
        ("-BUSY", Denial::Busy),
        ("-MASTERDOWN", Denial::ReadOnly),
    ];
    if line.starts_with("+OK") {
        return Fate::Acknowledged;
    }
    let why = denied.iter().find(|(code, _)| line.starts_with(code));
    Fate::Denied(why.unwrap_or_else(|| panic!("{line}")).1)
}
