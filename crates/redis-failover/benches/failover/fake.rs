//! Servers that only answer questions, so that thousands of groups fit on a small machine.
//!
//! Each instance has a loopback address of its own and all share one port: masters are
//! `127.1.x.y`, their only replica is `127.2.x.y`. Master and replica tell one consistent story of
//! an idle group: who follows whom, one replication id, and an offset that grows by a `PING` every
//! ten seconds on both. Which of them is meant is told by the address that a client connected to,
//! so that listening takes no descriptor for each. They live in a process of their own, which is
//! this program started again, because what is measured needs as many descriptors as they do.

use std::net::{Ipv4Addr, SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::common::child::{Owned, command};
use crate::common::ports::Port;
use crate::common::{PATIENCE, now, wait_until};

/// Has the port of a process that is to be all servers.
const PROCESS: &str = "BENCH_FAKE_SERVERS";
/// What a master sends to its replicas every `repl-ping-replica-period`.
const PING_BYTES: u64 = 14;
const PING_PERIOD_S: u64 = 10;
const FIRST_OFFSET: u64 = 1000;
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Sockets that listen on the port. Servers have a queue for new connections each; one queue for all would overflow.
const LISTENERS: usize = 8;
const BACKLOG: i32 = 4096;
/// What they are asked by the benchmark: how many probes they answered.
const PROBES: &str = "PROBES";

/// The servers of many groups.
#[derive(Debug)]
pub(crate) struct Fleet {
    groups: usize,
    port: Port,
    _process: Owned,
}

impl Fleet {
    /// The servers run until the value is dropped.
    pub(crate) fn start(groups: usize) -> Self {
        let port = Port::take();
        let myself = std::env::current_exe().expect("the program has a path");
        let mut command = command(myself);
        command.env(PROCESS, port.number().to_string());
        let process = Owned::start(command).expect("this program can be started again");
        let fleet = Self { groups, port, _process: process };
        wait_until("the servers listen", PATIENCE, || fleet.connect(0).ok());
        fleet
    }

    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    pub(crate) fn masters(&self) -> impl Iterator<Item = SocketAddr> {
        (0..self.groups).map(|group| self.addr(group, Role::Master))
    }

    /// Masters and replicas in turn.
    pub(crate) fn instances(&self) -> impl Iterator<Item = SocketAddr> {
        let both = [Role::Master, Role::Replica];
        (0..self.groups).flat_map(move |group| both.map(|role| self.addr(group, role)))
    }

    /// How many probes were answered so far.
    pub(crate) fn probes(&self) -> u64 {
        use std::io::{BufRead as _, Write as _};
        let mut stream = self.connect(0).expect("the servers listen");
        let request = format!("*1\r\n{}", bulk(PROBES));
        stream.write_all(request.as_bytes()).expect("the servers read");
        let mut line = String::new();
        std::io::BufReader::new(stream).read_line(&mut line).expect("the servers answer");
        line.trim().trim_start_matches(':').parse().expect("a number")
    }

    fn addr(&self, group: usize, role: Role) -> SocketAddr {
        (host(group, role), self.port.number()).into()
    }

    fn connect(&self, group: usize) -> std::io::Result<StdStream> {
        StdStream::connect(self.addr(group, Role::Master))
    }
}

/// What this process may open is inherited by those that it starts, and each of them needs a socket for every instance.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
}

/// Is all servers until it is killed, when this process was started for that.
pub(crate) fn serve_if_told() {
    let Ok(port) = std::env::var(PROCESS) else { return };
    raise_file_limit();
    let port = port.parse().expect("a port");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.expect("a runtime can be made").block_on(serve(port));
}

async fn serve(port: u16) {
    let counted = Arc::new(AtomicU64::new(0));
    let started_at = now();
    for _ in 0..LISTENERS {
        let listener = listen(port).expect("the port is ours");
        let counted = Arc::clone(&counted);
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // There is no descriptor for it; one is free again when a client goes.
                    tokio::task::yield_now().await;
                    continue;
                };
                let Some(fake) = Fake::behind(&stream, started_at) else { continue };
                tokio::spawn(answer(fake, stream, Arc::clone(&counted)));
            }
        });
    }
    std::future::pending::<()>().await;
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Serves one connection until its end.
async fn answer(fake: Fake, mut stream: TcpStream, counted: Arc<AtomicU64>) {
    let mut input = Vec::new();
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.read_buf(&mut input).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut replies = Vec::new();
        while let Some((args, used)) = parse(&input) {
            input.drain(..used);
            fake.reply(&args, &counted, &mut replies);
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

/// The address of a group's instance of that role.
fn host(group: usize, role: Role) -> Ipv4Addr {
    let net = match role {
        Role::Master => 1,
        Role::Replica => 2,
    };
    let [high, low] = [group / 250, group % 250 + 1];
    let byte = |n: usize| u8::try_from(n).expect("at most 60000 groups");
    Ipv4Addr::new(127, net, byte(high), byte(low))
}

struct Fake {
    group: usize,
    role: Role,
    port: u16,
    started_at: Instant,
}

impl Fake {
    /// The one that a client connected to.
    fn behind(stream: &TcpStream, started_at: Instant) -> Option<Self> {
        let SocketAddr::V4(addr) = stream.local_addr().ok()? else { return None };
        let [_, net, high, low] = addr.ip().octets();
        let role = match net {
            1 => Role::Master,
            2 => Role::Replica,
            _ => return None,
        };
        let group = usize::from(high) * 250 + usize::from(low).checked_sub(1)?;
        Some(Self { group, role, port: addr.port(), started_at })
    }

    fn host(&self, role: Role) -> Ipv4Addr {
        host(self.group, role)
    }

    fn uptime_s(&self) -> u64 {
        self.started_at.elapsed().as_secs()
    }

    fn offset(&self) -> u64 {
        FIRST_OFFSET + self.uptime_s() / PING_PERIOD_S * PING_BYTES
    }

    fn reply(&self, args: &[String], counted: &AtomicU64, out: &mut Vec<u8>) {
        let name = args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let first = args.get(1).map(|arg| arg.to_ascii_lowercase()).unwrap_or_default();
        if (name.as_str(), first.as_str()) == ("INFO", "replication") {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        let reply = match (name.as_str(), first.as_str()) {
            ("PING", _) => "+PONG\r\n".to_owned(),
            (PROBES, _) => format!(":{}\r\n", counted.load(Ordering::Relaxed)),
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
