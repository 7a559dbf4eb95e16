//! The program itself, as a user starts it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::child::{self, Owned};
use super::http::{Client, Response};
use super::netns::Host;
use super::{PATIENCE, temporary_dir, wait_until};

/// The sentence that the program writes to stderr once it accepts requests.
const LISTENING: &str = "listening on ";

/// A running program; dropping it kills it, and shows its log when the test panics.
#[derive(Debug)]
pub struct Daemon {
    process: Owned,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    http: Mutex<Client>,
    http_addr: SocketAddr,
    dir: tempfile::TempDir,
}

/// What [`Daemon::run`] saw of a program that ended by itself.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn code(&self) -> i32 {
        self.status.code().expect("it ended by itself, not by a signal")
    }
}

impl Daemon {
    /// The program that Cargo built for this test or benchmark.
    pub fn binary() -> PathBuf {
        built().to_owned()
    }

    /// Starts the program with `-addr=127.0.0.1:0` (unless `args` say otherwise) and returns when
    /// it listens.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(&Self::binary(), args, &[])
    }

    /// The same with a program and environment variables of one's own.
    #[track_caller]
    pub fn start_with(binary: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        match Self::try_start(&Launch { binary, env, ..Launch::of(args) }) {
            Ok(daemon) => daemon,
            Err(ended) => panic!("it ended instead ({}):\n{}", ended.status, ended.stderr),
        }
    }

    /// Returns when it listens, or what it said when it ended instead.
    #[track_caller]
    pub fn try_start(launch: &Launch<'_>) -> Result<Self, Ended> {
        let (mut process, dir) = launch.start_listening();
        let log = Arc::new(Mutex::new(String::new()));
        let reader = collect_log(&mut process, &log);
        let started_at = super::now();
        let http_addr = loop {
            if let Some(addr) = listening_addr(&lock(&log)) {
                break addr;
            }
            if let Some(status) = process.ended() {
                reader.join().expect("the reader only copies");
                let stderr = lock(&log).clone();
                return Err(Ended { status, stdout: String::new(), stderr });
            }
            let waited = started_at.elapsed();
            assert!(waited < PATIENCE, "in vain: the program listens:\n{}", lock(&log));
            std::thread::sleep(Duration::from_millis(2));
        };
        let http = Mutex::new(Client::new(http_addr));
        Ok(Self { process, log, reader: Some(reader), http, http_addr, dir })
    }

    /// Runs the program to its end: for `--help`, subcommands, and settings that it must refuse.
    #[track_caller]
    pub fn run(args: &[&str], env: &[(&str, &str)]) -> Ended {
        Self::run_to_end(&Launch { env, ..Launch::of(args) })
    }

    /// The same with everything else of a start.
    #[track_caller]
    pub fn run_to_end(launch: &Launch<'_>) -> Ended {
        let (mut process, _dir) = launch.start();
        let stderr = Arc::new(Mutex::new(String::new()));
        let stdout = Arc::new(Mutex::new(String::new()));
        let readers = [
            collect(process.child().stderr.take().expect("it is piped"), &stderr),
            collect(process.child().stdout.take().expect("it is piped"), &stdout),
        ];
        let status = process.wait(PATIENCE);
        for reader in readers {
            reader.join().expect("the reader only copies");
        }
        let text = |buffer: &Mutex<String>| lock(buffer).clone();
        Ended { status, stdout: text(&stdout), stderr: text(&stderr) }
    }

    pub fn http(&self) -> SocketAddr {
        self.http_addr
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The directory in which it runs: a place for its data and for a config file.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything that it has logged so far.
    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    #[track_caller]
    pub fn wait_for_log(&self, words: &str, limit: Duration) {
        let what = format!("the log says {words:?}");
        wait_until(&what, limit, || lock(&self.log).contains(words).then_some(()));
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, "")
    }

    /// The same on a connection of its own and with a limit, for a program that may be stopped or
    /// cut off: `None` when it does not answer.
    pub fn ask(&self, path: &str, limit: Duration) -> Option<Response> {
        Client::new(self.http_addr).with_limit(limit).request("GET", path, "").ok()
    }

    /// `body`: JSON, a form, or nothing.
    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Response {
        self.request("POST", path, body)
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &str) -> Response {
        self.request("PUT", path, body)
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path, "")
    }

    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: &str) -> Response {
        let answer = lock(&self.http).request(method, path, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The `group` object of `GET /v1/groups/{group}`, if the program knows the group.
    #[track_caller]
    pub fn group(&self, group: &str) -> Option<Value> {
        let response = self.get(&format!("/v1/groups/{group}"));
        (response.status == 200).then(|| response.json["group"].clone())
    }

    /// Polls the group until `holds`, and gives the view in which it did. `group` is its name or
    /// its current master's address.
    #[track_caller]
    pub fn wait_for(
        &self,
        group: &str,
        limit: Duration,
        mut holds: impl FnMut(&Value) -> bool,
    ) -> Value {
        let started_at = super::now();
        loop {
            let view = self.group(group);
            if let Some(view) = view.as_ref().filter(|view| holds(view)) {
                return view.clone();
            }
            let shown = || serde_json::to_string_pretty(&view).expect("JSON can be printed");
            assert!(started_at.elapsed() < limit, "{group} after {limit:?}: {}", shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Polls until the group is active with every one of these instances up.
    #[track_caller]
    pub fn wait_until_healthy(&self, group: &str, addrs: &[String]) -> Value {
        self.wait_for(group, PATIENCE, |view| {
            let is_up = |addr: &String| instance(view, addr).is_some_and(|i| i["state"] == "up");
            view["status"] == "active" && addrs.iter().all(is_up)
        })
    }

    /// Polls `GET /master` until it names `addr`.
    #[track_caller]
    pub fn wait_for_master(&self, addr: &str, limit: Duration) {
        let what = format!("GET /master names {addr}");
        wait_until(&what, limit, || {
            self.get("/master").body.split(',').any(|m| m == addr).then_some(())
        });
    }

    /// The entries of `GET /v1/history`, newest first; none of a group that is not known (yet).
    #[track_caller]
    pub fn history(&self, group: &str) -> Vec<Value> {
        let response = self.get(&format!("/v1/history?group={group}"));
        if response.status == 404 {
            return Vec::new();
        }
        response.json["history"].as_array().expect("the history is a list").clone()
    }

    /// SIGTERM, as systemd sends it; gives the exit status.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.end_by(Signal::TERM)
    }

    /// Sends a signal and waits for the end.
    #[track_caller]
    pub fn end_by(&mut self, signal: Signal) -> ExitStatus {
        self.process.signal(signal);
        let status = self.process.wait(PATIENCE);
        self.finish_log();
        status
    }

    /// `kill -9`; gives the moment.
    pub fn kill9(&mut self) -> Instant {
        let killed_at = self.process.kill9();
        self.finish_log();
        killed_at
    }

    /// The process, for faults that strike several at once.
    pub fn process(&mut self) -> &mut Owned {
        &mut self.process
    }

    /// The exit status of a program that ends by itself: by a fault point, or for an error.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let status = self.process.wait(limit);
        self.finish_log();
        status
    }

    /// SIGSTOP; gives the moment.
    pub fn freeze(&mut self) -> Instant {
        self.process.stop()
    }

    /// SIGCONT; gives the moment.
    pub fn thaw(&mut self) -> Instant {
        self.process.cont()
    }

    /// Its end, if it has ended by itself (a fault point, an error).
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// The last lines are in the buffer once the reader has seen the end.
    fn finish_log(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader only copies");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- redis-failover on {} said:\n{}", self.http_addr, lock(&self.log));
        }
    }
}

/// The instance with this address in a group's view.
pub fn instance<'a>(group: &'a Value, addr: &str) -> Option<&'a Value> {
    group["instances"].as_array()?.iter().find(|instance| instance["addr"] == addr)
}

fn built() -> &'static Path {
    let built = option_env!("CARGO_BIN_EXE_redis-failover");
    Path::new(built.expect("the package has a binary redis-failover"))
}

/// How the program is started.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    pub binary: &'a Path,
    pub args: &'a [&'a str],
    pub env: &'a [(&'a str, &'a str)],
    /// On this host of a network; otherwise beside this process.
    pub host: Option<&'a Host>,
    /// As a user without rights, if this one has any.
    pub as_nobody: bool,
}

impl<'a> Launch<'a> {
    /// The program that Cargo built, with these arguments and nothing else.
    pub fn of(args: &'a [&'a str]) -> Self {
        Self { binary: built(), args, env: &[], host: None, as_nobody: false }
    }

    /// Starts it on any free port for HTTP, unless the arguments name one.
    fn start_listening(&self) -> (Owned, tempfile::TempDir) {
        let names_addr = |arg: &&str| arg.trim_start_matches('-').split('=').next() == Some("addr");
        let mut args = self.args.to_vec();
        if !args.iter().any(names_addr) {
            args.push("-addr=127.0.0.1:0");
        }
        Launch { args: &args, ..*self }.start()
    }

    fn start(&self) -> (Owned, tempfile::TempDir) {
        let dir = temporary_dir();
        let mut command = match self.host {
            Some(host) => host.command(self.binary),
            None if self.as_nobody && rustix::process::getuid().is_root() => {
                child::command_as_nobody(self.binary)
            }
            None => child::command(self.binary),
        };
        // The settings of whoever runs the tests are not the test's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REDIS_FAILOVER_") {
                command.env_remove(name);
            }
        }
        command.args(self.args).envs(self.env.iter().copied()).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        (Owned::start(command).expect("the program can be started"), dir)
    }
}

/// Copies stderr line by line, and stdout beside it, so that no full pipe ever stops the program.
fn collect_log(process: &mut Owned, log: &Arc<Mutex<String>>) -> JoinHandle<()> {
    collect(process.child().stdout.take().expect("it is piped"), log);
    collect(process.child().stderr.take().expect("it is piped"), log)
}

fn collect(
    source: impl std::io::Read + Send + 'static,
    log: &Arc<Mutex<String>>,
) -> JoinHandle<()> {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            lock(&log).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// The address after `listening on`, in a line that is complete.
fn listening_addr(log: &str) -> Option<SocketAddr> {
    let whole_lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole_lines.filter_map(|line| line.split_once(LISTENING)).find_map(|(_, rest)| {
        let is_addr = |c: char| c.is_ascii_hexdigit() || ".:[]".contains(c);
        let end = rest.find(|c| !is_addr(c)).unwrap_or(rest.len());
        rest[..end].trim_end_matches(['.', ':']).parse().ok()
    })
}

/// A panicking holder leaves text that is still worth reading.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
