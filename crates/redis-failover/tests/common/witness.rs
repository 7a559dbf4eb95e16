//! The witnesses: what a client of the servers, and a client of the program, get to see.
//!
//! They talk over plain sockets and not through a client library, so that a measured millisecond
//! is the server's, and an end of connection or a time-out shows as what it is.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::group::Group;
use super::http::Client;
use super::server::Server;
use super::{now, wait_until};

/// One attempt per server and millisecond.
const PERIOD: Duration = Duration::from_millis(1);
/// A server that is not stopped answers in far less; a write that took longer is *unknown*.
const WRITE_LIMIT: Duration = Duration::from_millis(250);
const CONNECT_LIMIT: Duration = Duration::from_millis(100);
/// Ten minutes of writes: a forgotten writer must not eat the machine.
const WRITES_MAX: usize = 600_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// The server, or the lack of one, said no: `-READONLY …`, or a refused connection. Not done.
    Refused(String),
    /// No answer: done, not done, or still to be done.
    Unknown(String),
}

/// One attempt to write one number.
#[derive(Clone, Debug)]
pub struct Write {
    /// Unique over all servers of the writer, rising per server.
    pub number: u64,
    pub sent_at: Instant,
    pub answered_at: Instant,
    pub outcome: Outcome,
}

/// Writes a unique number each millisecond to *each* server of a group, on a thread per server,
/// each into the key of that server ([`key_of`]).
#[derive(Debug)]
pub struct Writer {
    threads: Vec<(String, Arc<Mutex<Vec<Write>>>)>,
    stop: Stopper,
}

impl Write {
    /// No connection was accepted for it.
    fn is_unconnected(&self) -> bool {
        matches!(&self.outcome, Outcome::Refused(why) if why.contains("os error") || why.contains("timed out"))
    }

    fn is_read_only(&self) -> bool {
        matches!(&self.outcome, Outcome::Refused(why) if why.starts_with("READONLY") || why.starts_with("write not support"))
    }
}

/// The first acknowledged write on another server after a fault.
#[derive(Clone, Debug)]
pub struct Gap {
    /// From the fault to the acknowledgement.
    pub length: Duration,
    pub ended_at: Instant,
    /// The server that took the write.
    pub addr: String,
}

/// The time in which a server that came back was a master again.
#[derive(Clone, Copy, Debug)]
pub struct Tenure {
    /// When it accepted the first connection.
    pub began_at: Instant,
    /// When it refused a write as a replica.
    pub ended_at: Instant,
    /// Writes that it acknowledged meanwhile.
    pub acknowledged: usize,
}

impl Tenure {
    pub fn length(&self) -> Duration {
        self.ended_at - self.began_at
    }
}

impl Writer {
    /// Returns when the master of the group has acknowledged a write.
    pub fn start(group: &Group) -> Self {
        let writer = Self::start_on(group.servers());
        writer.wait_for_write(&group.master.addr());
        writer
    }

    pub fn start_on<'a>(servers: impl Iterator<Item = &'a Server>) -> Self {
        Self::start_each(PERIOD, servers)
    }

    /// The same with one attempt per server and `period`, for more servers than this machine could write to each
    /// millisecond.
    pub fn start_each<'a>(period: Duration, servers: impl Iterator<Item = &'a Server>) -> Self {
        let mut stop = Stopper::default();
        let servers: Vec<(String, Option<String>)> =
            servers.map(|s| (s.addr(), s.password().map(str::to_owned))).collect();
        let count = u64::try_from(servers.len()).expect("a small number");
        let mut threads = Vec::new();
        for (number, (addr, password)) in (1..).zip(servers) {
            let writes = Arc::new(Mutex::new(Vec::new()));
            threads.push((addr.clone(), Arc::clone(&writes)));
            let mut pen = Pen { addr, password, connection: None };
            let mut number = number;
            stop.spawn(period, move || {
                let write = pen.write(number);
                number += count;
                let mut writes = lock(&writes);
                writes.push(write);
                writes.len() < WRITES_MAX
            });
        }
        Self { threads, stop }
    }

    /// Ends the writing; the records stay.
    pub fn stop(&mut self) {
        self.stop.stop();
    }

    /// Every attempt on one server, in order.
    pub fn writes(&self, addr: &str) -> Vec<Write> {
        lock(self.records(addr)).clone()
    }

    /// Attempts on one server that were sent after `since` and acknowledged.
    pub fn acknowledged_after(&self, addr: &str, since: Instant) -> Vec<Write> {
        let acknowledged = |w: &&Write| w.sent_at >= since && w.outcome == Outcome::Acknowledged;
        lock(self.records(addr)).iter().filter(acknowledged).cloned().collect()
    }

    /// The write gap of a fault at `old`: `None` until another server has acknowledged a write.
    pub fn gap(&self, fault_at: Instant, old: &str) -> Option<Gap> {
        self.first_write(fault_at, |addr| addr != old)
    }

    /// The first write that one of these servers acknowledged after a moment.
    pub fn first_write(&self, fault_at: Instant, is_asked: impl Fn(&str) -> bool) -> Option<Gap> {
        let others = self.threads.iter().filter(|(addr, _)| is_asked(addr));
        let first_write = |(addr, writes): &(String, Arc<Mutex<Vec<Write>>>)| {
            let writes = lock(writes);
            // From the end: a run is long, and the fault is young.
            let after_fault = writes.iter().rev().take_while(|w| w.answered_at >= fault_at);
            let first = after_fault.filter(|w| w.outcome == Outcome::Acknowledged).last()?;
            let length = first.answered_at - fault_at;
            Some(Gap { length, ended_at: first.answered_at, addr: addr.clone() })
        };
        others.filter_map(first_write).min_by_key(|gap| gap.length)
    }

    /// Waits for the end of the gap.
    #[track_caller]
    pub fn wait_for_gap(&self, fault_at: Instant, old: &str, limit: Duration) -> Gap {
        wait_until("another server takes writes", limit, || self.gap(fault_at, old))
    }

    /// Waits until the server acknowledges a write that was sent from now on.
    #[track_caller]
    pub fn wait_for_write(&self, addr: &str) {
        let since = now();
        let what = format!("{addr} takes a write");
        wait_until(&what, super::PATIENCE, || {
            let writes = lock(self.records(addr));
            let last = writes.last()?;
            (last.sent_at >= since && last.outcome == Outcome::Acknowledged).then_some(())
        });
    }

    /// How long a server that was started or resumed after `since` was a master: `None` until it refuses writes as a
    /// replica.
    pub fn tenure(&self, addr: &str, since: Instant) -> Option<Tenure> {
        let writes = lock(self.records(addr));
        let accepted: Vec<&Write> = writes
            .iter()
            .filter(|write| write.answered_at >= since)
            .skip_while(|write| write.is_unconnected())
            .collect();
        let last = accepted.iter().position(|write| write.is_read_only())?;
        let acknowledged = |write: &&&Write| write.outcome == Outcome::Acknowledged;
        Some(Tenure {
            began_at: accepted[0].sent_at.max(since),
            ended_at: accepted[last].answered_at,
            acknowledged: accepted[..last].iter().filter(acknowledged).count(),
        })
    }

    /// How many of the writes that `old` acknowledged are not in `new`, which was its replica.
    pub fn lost(&self, old: &str, new: &Server) -> usize {
        self.lost_writes(old, new).len()
    }

    /// These writes, in order.
    pub fn lost_writes(&self, old: &str, new: &Server) -> Vec<Write> {
        let kept: u64 = new.cmd(&["GET", &key_of(old)]).parse().unwrap_or(0);
        let is_lost = |w: &&Write| w.outcome == Outcome::Acknowledged && w.number > kept;
        lock(self.records(old)).iter().filter(is_lost).cloned().collect()
    }

    /// Times in which two servers acknowledged writes: from the first such write on `new` to the
    /// last on `old`. Zero when `old` took none any more.
    pub fn two_masters(&self, old: &str, new: &Gap) -> Duration {
        let writes = self.acknowledged_after(old, new.ended_at);
        writes.last().map_or(Duration::ZERO, |last| last.answered_at - new.ended_at)
    }

    #[track_caller]
    fn records(&self, addr: &str) -> &Mutex<Vec<Write>> {
        let thread = self.threads.iter().find(|(a, _)| a == addr);
        &thread.unwrap_or_else(|| panic!("nobody writes to {addr}")).1
    }
}

/// The key into which a writer writes while it talks to the server at `addr`.
pub fn key_of(addr: &str) -> String {
    format!("rig:writer:{addr}")
}

/// One server's end of a writer.
struct Pen {
    addr: String,
    password: Option<String>,
    connection: Option<BufReader<TcpStream>>,
}

impl Pen {
    fn write(&mut self, number: u64) -> Write {
        let sent_at = now();
        let outcome = self.attempt(number);
        Write { number, sent_at, answered_at: now(), outcome }
    }

    fn attempt(&mut self, number: u64) -> Outcome {
        let mut connection = match self.connection.take().map_or_else(|| self.connect(), Ok) {
            Ok(connection) => connection,
            // Nothing was sent yet.
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        match exchange(&mut connection, &["SET", &key_of(&self.addr), &number.to_string()]) {
            Ok(reply) => {
                self.connection = Some(connection);
                match reply.strip_prefix('-') {
                    None => Outcome::Acknowledged,
                    Some(error) => Outcome::Refused(error.to_owned()),
                }
            }
            // The connection is dropped: an answer that comes late must not be taken for another's.
            Err(error) => Outcome::Unknown(error.to_string()),
        }
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let addr: SocketAddr = self.addr.parse().expect("the rig's addresses are numeric");
        let stream = TcpStream::connect_timeout(&addr, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WRITE_LIMIT))?;
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        let mut connection = BufReader::new(stream);
        if let Some(password) = &self.password {
            exchange(&mut connection, &["AUTH", password])?;
        }
        Ok(connection)
    }
}

/// Sends a command whose reply is one line, and gives that line.
fn exchange(connection: &mut BufReader<TcpStream>, args: &[&str]) -> io::Result<String> {
    let mut request = format!("*{}\r\n", args.len());
    for arg in args {
        request += &format!("${}\r\n{arg}\r\n", arg.len());
    }
    connection.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended")),
    }
}

/// A client that says nothing and waits to be cut off.
#[derive(Debug)]
pub struct Idler(BufReader<TcpStream>);

impl Idler {
    /// Returns when the server knows it.
    pub fn of(server: &Server) -> Self {
        let stream = TcpStream::connect(server.addr()).expect("the server listens");
        stream.set_read_timeout(Some(super::PATIENCE)).expect("a socket can wait");
        let mut connection = BufReader::new(stream);
        assert_eq!(exchange(&mut connection, &["PING"]).expect("an answer"), "+PONG");
        Self(connection)
    }

    #[track_caller]
    pub fn wait_until_cut(mut self) {
        let read = self.0.get_mut().read(&mut [0; 1]);
        let cut = match &read {
            Ok(bytes) => *bytes == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        };
        assert!(cut, "{read:?}");
    }
}

/// Asks a monitor each millisecond where the masters are and remembers when the answer changed.
#[derive(Debug)]
pub struct Told {
    answers: Arc<Mutex<Vec<(Instant, String)>>>,
    stop: Stopper,
}

impl Told {
    /// Asks the program `GET /master`; returns when it has answered once.
    pub fn start(http: SocketAddr) -> Self {
        let mut client = Client::new(http).with_limit(WRITE_LIMIT);
        Self::by(move || Some(client.request("GET", "/master", "").ok()?.body))
    }

    /// The same of any monitor: `ask` gives the masters' addresses with commas between them, or nothing when there is no
    /// answer.
    pub fn by(mut ask: impl FnMut() -> Option<String> + Send + 'static) -> Self {
        let mut stop = Stopper::default();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&answers);
        stop.spawn(PERIOD, move || {
            let Some(answer) = ask() else {
                return true;
            };
            let mut told = lock(&told);
            if told.last().is_none_or(|(_, last)| *last != answer) {
                told.push((now(), answer));
            }
            told.len() < WRITES_MAX
        });
        let told = Self { answers, stop };
        wait_until("the monitor says where the masters are", super::PATIENCE, || {
            (!lock(&told.answers).is_empty()).then_some(())
        });
        told
    }

    /// Every different answer and when it came, in order.
    pub fn answers(&self) -> Vec<(Instant, String)> {
        lock(&self.answers).clone()
    }

    /// When the answer first named `addr`, not counting answers that already stood at `since`.
    pub fn named(&self, addr: &str, since: Instant) -> Option<Instant> {
        let names = |answer: &str| answer.split(',').any(|master| master == addr);
        let answers = lock(&self.answers);
        answers.iter().find(|(at, answer)| *at >= since && names(answer)).map(|(at, _)| *at)
    }

    #[track_caller]
    pub fn wait_for(&self, addr: &str, since: Instant, limit: Duration) -> Instant {
        let what = format!("the monitor names {addr}");
        wait_until(&what, limit, || self.named(addr, since))
    }

    pub fn stop(&mut self) {
        self.stop.stop();
    }
}

/// Threads that do something once per period until it says `false`, or they are stopped or dropped.
#[derive(Debug, Default)]
struct Stopper {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stopper {
    fn spawn(&mut self, period: Duration, mut act: impl FnMut() -> bool + Send + 'static) {
        let stopped = Arc::clone(&self.stopped);
        self.threads.push(std::thread::spawn(move || {
            let mut next = now();
            while !stopped.load(Ordering::Relaxed) && act() {
                // A period that was missed is not made up for: that would be a burst.
                next = (next + period).max(now());
                std::thread::sleep(next.saturating_duration_since(now()));
            }
        }));
    }

    fn stop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a witness only looks");
        }
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic was printed when it happened; a second one would abort the test run.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
