//! Servers that only answer questions, so that a thousand groups fit on a small machine.
//!
//! Each instance has a loopback address of its own and all share one port: masters are
//! `127.1.x.y`, their only replica is `127.2.x.y`. Master and replica tell one consistent story of
//! an idle group: who follows whom, one replication id, and an offset that grows by a `PING` every
//! ten seconds on both. They live in the benchmark's process: what is measured is another one.

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::common::now;
use crate::common::ports::Port;

/// What a master sends to its replicas every `repl-ping-replica-period`.
const PING_BYTES: u64 = 14;
const PING_PERIOD_S: u64 = 10;
const FIRST_OFFSET: u64 = 1000;
/// Listeners, and connections of both ends, with room for more than one connection per instance.
const OPEN_FILES: u64 = 16_000;
const REQUEST_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Fleet {
    masters: Vec<String>,
    _port: Port,
}

impl Fleet {
    /// The servers run until the process ends.
    pub(crate) fn start(groups: usize) -> Self {
        raise_file_limit();
        let port = Port::take();
        let started_at = now();
        let mut masters = Vec::new();
        let mut servers = Vec::new();
        for group in 0..groups {
            for role in [Role::Master, Role::Replica] {
                let fake = Fake { group, role, port: port.number(), started_at };
                let listener = StdListener::bind((fake.host(role), fake.port));
                let listener = listener.expect("a loopback address of our own is free");
                listener.set_nonblocking(true).expect("a socket can be made non-blocking");
                servers.push((Arc::new(fake), listener));
            }
            let last = &servers[servers.len() - 1].0;
            masters.push(format!("{}:{}", last.host(Role::Master), last.port));
        }
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            runtime.expect("a runtime can be made").block_on(serve(servers));
        });
        Self { masters, _port: port }
    }

    pub(crate) fn masters(&self) -> &[String] {
        &self.masters
    }
}

/// The limit is inherited by the program, which needs a socket for each instance, too.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
    }
}

async fn serve(servers: Vec<(Arc<Fake>, StdListener)>) {
    for (fake, listener) in servers {
        let listener = TcpListener::from_std(listener).expect("the runtime takes the socket");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(Arc::clone(&fake), stream));
            }
        });
    }
    std::future::pending::<()>().await;
}

/// Serves one connection until its end.
async fn answer(fake: Arc<Fake>, mut stream: TcpStream) {
    let mut input = Vec::new();
    loop {
        match stream.read_buf(&mut input).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut replies = Vec::new();
        while let Some((args, used)) = parse(&input) {
            input.drain(..used);
            fake.reply(&args, &mut replies);
        }
        let is_sane = input.len() < REQUEST_BYTES_MAX;
        if !is_sane || stream.write_all(&replies).await.is_err() {
            return;
        }
        if input.is_empty() {
            // Thousands of idle connections need no memory.
            input = Vec::new();
        }
    }
}

/// One whole request, an array of bulk strings, and its length; `None` while it is incomplete.
fn parse(input: &[u8]) -> Option<(Vec<String>, usize)> {
    let (count, mut at) = number_after(input, 0, b'*')?;
    let mut args = Vec::new();
    for _ in 0..count {
        let (length, start) = number_after(input, at, b'$')?;
        let bytes = input.get(start..start + length)?;
        args.push(String::from_utf8_lossy(bytes).into_owned());
        at = start + length + 2;
    }
    (at <= input.len()).then_some((args, at))
}

/// The number in the line at `at`, which starts with `mark`, and where the next line begins.
fn number_after(input: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    let line = input.get(at..)?;
    let end = line.windows(2).position(|two| two == b"\r\n")?;
    assert_eq!(line[0], mark, "the program speaks RESP");
    let digits = std::str::from_utf8(&line[1..end]).expect("a number");
    Some((digits.parse().expect("a number"), at + end + 2))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Master,
    Replica,
}

struct Fake {
    group: usize,
    role: Role,
    port: u16,
    started_at: Instant,
}

impl Fake {
    /// The address of this group's instance of that role.
    fn host(&self, role: Role) -> Ipv4Addr {
        let net = match role {
            Role::Master => 1,
            Role::Replica => 2,
        };
        let [high, low] = [self.group / 250, self.group % 250 + 1];
        let byte = |n: usize| u8::try_from(n).expect("at most 60000 groups");
        Ipv4Addr::new(127, net, byte(high), byte(low))
    }

    fn uptime_s(&self) -> u64 {
        self.started_at.elapsed().as_secs()
    }

    fn offset(&self) -> u64 {
        FIRST_OFFSET + self.uptime_s() / PING_PERIOD_S * PING_BYTES
    }

    fn reply(&self, args: &[String], out: &mut Vec<u8>) {
        let name = args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let first = args.get(1).map(|arg| arg.to_ascii_lowercase()).unwrap_or_default();
        let reply = match (name.as_str(), first.as_str()) {
            ("PING", _) => "+PONG\r\n".to_owned(),
            ("INFO", _) => bulk(&self.info(&args[1..])),
            ("ROLE", _) => self.role(),
            ("HELLO", "3") => "-NOPROTO unsupported protocol version\r\n".to_owned(),
            ("CONFIG", "get") => config(&args[2..]),
            ("CLIENT", "id") | ("DBSIZE" | "PUBLISH", _) => ":1\r\n".to_owned(),
            ("AUTH" | "SELECT" | "CLIENT" | "CONFIG" | "QUIT", _) => "+OK\r\n".to_owned(),
            ("SUBSCRIBE", channel) => {
                format!("*3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(channel))
            }
            _ => format!("-ERR unknown command '{name}', with args beginning with: \r\n"),
        };
        out.extend_from_slice(reply.as_bytes());
    }

    fn role(&self) -> String {
        let (port, offset) = (self.port.to_string(), self.offset());
        match self.role {
            Role::Master => {
                let replica = self.host(Role::Replica).to_string();
                let offset_text = bulk(&offset.to_string());
                let replica = format!("*3\r\n{}{}{offset_text}", bulk(&replica), bulk(&port));
                format!("*3\r\n{}:{offset}\r\n*1\r\n{replica}", bulk("master"))
            }
            Role::Replica => {
                let master = self.host(Role::Master).to_string();
                let state = bulk("connected");
                let head = format!("*5\r\n{}{}:{port}\r\n", bulk("slave"), bulk(&master));
                format!("{head}{state}:{offset}\r\n")
            }
        }
    }

    fn info(&self, sections: &[String]) -> String {
        let all = sections.is_empty();
        let wants = |name: &str| {
            let is_it = |s: &String| {
                let s = s.to_ascii_lowercase();
                s == name || ["all", "default", "everything"].contains(&s.as_str())
            };
            all || sections.iter().any(is_it)
        };
        let mut text = Vec::new();
        if wants("server") {
            text.push(self.server());
        }
        if wants("persistence") {
            text.push("# Persistence\r\nloading:0\r\nasync_loading:0\r\n".to_owned());
        }
        if wants("replication") {
            text.push(self.replication());
        }
        if wants("keyspace") {
            text.push("# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n".to_owned());
        }
        text.join("\r\n")
    }

    fn server(&self) -> String {
        let role = match self.role {
            Role::Master => 1,
            Role::Replica => 2,
        };
        let run_id = format!("{role:08x}{:032x}", self.group);
        let (port, uptime_s) = (self.port, self.uptime_s());
        format!(
            "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nprocess_id:{role}\r\n\
             run_id:{run_id}\r\ntcp_port:{port}\r\nuptime_in_seconds:{uptime_s}\r\n"
        )
    }

    fn replication(&self) -> String {
        let (port, offset) = (self.port, self.offset());
        let last_ping_s = self.uptime_s() % PING_PERIOD_S;
        let head = match self.role {
            Role::Master => {
                let replica = self.host(Role::Replica);
                format!(
                    "role:master\r\nconnected_slaves:1\r\n\
                     slave0:ip={replica},port={port},state=online,offset={offset},lag=0\r\n\
                     master_failover_state:no-failover\r\n"
                )
            }
            Role::Replica => {
                let master = self.host(Role::Master);
                format!(
                    "role:slave\r\nmaster_host:{master}\r\nmaster_port:{port}\r\n\
                     master_link_status:up\r\nmaster_last_io_seconds_ago:{last_ping_s}\r\n\
                     master_sync_in_progress:0\r\nslave_read_repl_offset:{offset}\r\n\
                     slave_repl_offset:{offset}\r\nslave_priority:100\r\nslave_read_only:1\r\n\
                     replica_announced:1\r\nconnected_slaves:0\r\n\
                     master_failover_state:no-failover\r\n"
                )
            }
        };
        let replid = format!("f{:039x}", self.group);
        let none = "0".repeat(40);
        format!(
            "# Replication\r\n{head}master_replid:{replid}\r\nmaster_replid2:{none}\r\n\
             master_repl_offset:{offset}\r\nsecond_repl_offset:-1\r\nrepl_backlog_active:1\r\n\
             repl_backlog_size:1048576\r\nrepl_backlog_first_byte_offset:1\r\n\
             repl_backlog_histlen:{offset}\r\n"
        )
    }
}

fn config(names: &[String]) -> String {
    let known = [
        ("min-replicas-max-lag", "10"),
        ("min-replicas-to-write", "0"),
        ("repl-diskless-sync-delay", "5"),
        ("repl-ping-replica-period", "10"),
        ("replica-priority", "100"),
    ];
    let found: Vec<String> = known
        .iter()
        .filter(|(name, _)| names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)))
        .map(|(name, value)| bulk(name) + &bulk(value))
        .collect();
    format!("*{}\r\n{}", found.len() * 2, found.concat())
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
