//! Real Redis and Valkey servers on loopback, each with a directory and a config file of its own.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::child::{self, Owned};
use super::ledisdb;
use super::netns::Host;
use super::ports::Port;
use super::{PATIENCE, temporary_dir, wait_until};

/// A server that was not stopped answers within this, or the rig calls it dead.
const REPLY_LIMIT: Duration = Duration::from_secs(2);
/// Connections that may be lost to changes of roles before the rig calls a server dead.
const CUT_OFF_MAX: usize = 3;
/// Ports that may be lost to strangers before the rig gives up.
const START_ATTEMPTS: usize = 10;
const LOG_LINES_SHOWN: usize = 25;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerKind {
    Redis,
    Valkey,
    /// Its stand-in: a process of the test program itself.
    Ledisdb,
}

impl ServerKind {
    /// The kinds that are installed. Redis must be; a missing Valkey is an error where `CI` is
    /// set, and said loudly elsewhere, because Debian has it in backports only.
    pub fn all() -> Vec<Self> {
        let is_there = |kind: &Self| Command::new(kind.program()).arg("--version").output().is_ok();
        assert!(is_there(&Self::Redis), "redis-server is missing: run scripts/install-deps.sh");
        if is_there(&Self::Valkey) {
            return vec![Self::Redis, Self::Valkey];
        }
        assert!(std::env::var_os("CI").is_none(), "valkey-server is missing, and CI needs it");
        eprintln!("SKIPPED on Valkey: valkey-server is missing (scripts/install-deps.sh valkey)");
        vec![Self::Redis]
    }

    pub fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
            Self::Ledisdb => "the stand-in for ledis-server",
        }
    }

    fn is_ledisdb(self) -> bool {
        self == Self::Ledisdb
    }
}

/// What `CONFIG REWRITE` finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ConfigFile {
    #[default]
    Writable,
    /// There, but neither it nor its directory may be written: the rewrite fails with an error.
    ReadOnly,
    /// The server runs without one: the rewrite is refused.
    Absent,
}

/// How a server differs from the plain one (no persistence, no password, config file writable).
#[derive(Clone, Debug, Default)]
pub struct Options {
    config_file: ConfigFile,
    /// `name value` lines of the config file, in order.
    directives: Vec<(String, String)>,
    args: Vec<String>,
    high_port: bool,
    password: Option<String>,
    host: Option<Host>,
}

impl Options {
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps every acknowledged write over `kill -9`.
    pub fn durable() -> Self {
        Self::new().set("appendonly", "yes").set("appendfsync", "always")
    }

    /// A directive of the config file, such as `set("replica-priority", "0")`.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.directives.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs on this host of a network, instead of on loopback.
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// The address on which the server listens.
    fn ip(&self) -> String {
        self.host.as_ref().map_or_else(|| "127.0.0.1".to_owned(), Host::ip)
    }

    /// `requirepass`, which the rig's own commands then use.
    pub fn requirepass(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.set("requirepass", password)
    }

    pub fn masterauth(self, password: &str) -> Self {
        self.set("masterauth", password)
    }

    /// A user, with rules as in `ACL SETUSER`: `user("failover", "on >secret ~* +@all")`.
    pub fn user(self, name: &str, rules: &str) -> Self {
        self.set("user", &format!("{name} {rules}"))
    }

    /// An argument of the command line, after the config file.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Listens on a port above 32767, which LedisDB has trouble with.
    pub fn high_port(mut self) -> Self {
        self.high_port = true;
        self
    }

    /// Nothing differs from the plain server.
    pub fn is_plain(&self) -> bool {
        self.directives.is_empty() && self.args.is_empty()
    }

    pub fn read_only_config(mut self) -> Self {
        self.config_file = ConfigFile::ReadOnly;
        self
    }

    pub fn without_config(mut self) -> Self {
        self.config_file = ConfigFile::Absent;
        self
    }
}

/// One server, killed when the value is dropped.
#[derive(Debug)]
pub struct Server {
    process: Owned,
    kind: ServerKind,
    port: Port,
    options: Options,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server on a free port and returns when it answers.
    pub fn start(kind: ServerKind, options: &Options) -> Self {
        for _ in 0..START_ATTEMPTS {
            let port = if options.high_port { Port::take_high() } else { Port::take() };
            let dir = temporary_dir();
            prepare(kind, dir.path(), &port, options);
            let process = launch(kind, &port, options, dir.path());
            let mut server = Self { process, kind, port, options: options.clone(), dir };
            match server.answer_first() {
                Ok(()) => return server,
                Err(StartError::PortTaken) => {}
                Err(StartError::Ended) => panic!("{kind:?} did not start:\n{}", server.log()),
            }
        }
        panic!("{kind:?} lost {START_ATTEMPTS} ports to other programs");
    }

    pub fn kind(&self) -> ServerKind {
        self.kind
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1`, or the address of its host.
    pub fn ip(&self) -> String {
        self.options.ip()
    }

    /// `127.0.0.1:port`, or the same on its host.
    pub fn addr(&self) -> String {
        format!("{}:{}", self.ip(), self.port())
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Changes `requirepass` and `masterauth`; the rig uses the new one from now on.
    pub fn change_password(&mut self, password: &str) {
        self.cmd(&["CONFIG", "SET", "masterauth", password]);
        self.cmd(&["CONFIG", "SET", "requirepass", password]);
        self.options.password = Some(password.to_owned());
    }

    pub fn password(&self) -> Option<&str> {
        self.options.password.as_deref()
    }

    /// The server's directory, where a dump lands; the config file is `conf/server.conf` in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn config_text(&self) -> String {
        fs::read_to_string(config_path(self.dir())).expect("this server has a config file")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(log_path(self.dir())).unwrap_or_default()
    }

    /// `kill -9`; gives the moment of the fault.
    pub fn kill9(&mut self) -> Instant {
        self.process.kill9()
    }

    /// The process, for faults that strike several at once.
    pub fn process(&mut self) -> &mut Owned {
        &mut self.process
    }

    /// How often it became master after having been a replica.
    pub fn times_promoted(&self) -> usize {
        // The second is Valkey's word for it.
        let log = self.log();
        ["MASTER", "PRIMARY"]
            .map(|word| log.matches(&format!("{word} MODE enabled")).count())
            .iter()
            .sum()
    }

    /// SIGSTOP: it accepts connections and answers nothing. Gives the moment of the fault.
    pub fn stop(&mut self) -> Instant {
        self.process.stop()
    }

    /// SIGCONT; gives the moment.
    pub fn cont(&mut self) -> Instant {
        self.process.cont()
    }

    /// `SHUTDOWN NOSAVE`: gives the moment just before, and returns when the process is gone.
    pub fn shutdown(&mut self) -> Instant {
        let asked_at = super::now();
        // The server ends instead of answering, so the only news is whether it ends.
        let _ = self.try_cmd(&["SHUTDOWN", "NOSAVE"]);
        self.process.wait(PATIENCE);
        asked_at
    }

    /// Starts it again, same port, same directory, after `kill9` or `shutdown`, and returns when
    /// it answers (a server that is `LOADING` answers, too).
    pub fn restart(&mut self) {
        assert!(self.process.ended().is_some(), "restart after kill9() or shutdown()");
        for _ in 0..START_ATTEMPTS {
            self.process = launch(self.kind, &self.port, &self.options, self.dir.path());
            match self.answer_first() {
                Ok(()) => return,
                Err(StartError::PortTaken) => std::thread::sleep(Duration::from_millis(50)),
                Err(StartError::Ended) => break,
            }
        }
        panic!("{:?} did not restart:\n{}", self.kind, self.log());
    }

    /// The same, as a replica of `master` from its first moment on.
    pub fn restart_as_replica_of(&mut self, master: &Self) {
        if self.kind.is_ledisdb() {
            self.start_as_replica_of(Some(master));
            self.restart();
            return;
        }
        let mut text = self.config_text();
        text.push_str(&format!("\nreplicaof {} {}\n", master.ip(), master.port()));
        fs::write(config_path(self.dir()), text).expect("the file is ours");
        self.restart();
    }

    /// Its flags at its next start, which LedisDB takes for its role, whatever it was told meanwhile.
    pub fn start_as_replica_of(&mut self, master: Option<&Self>) {
        self.options.directives.retain(|(name, _)| name != "replicaof");
        if let Some(master) = master {
            let value = format!("{} {}", master.ip(), master.port());
            self.options.directives.push(("replicaof".to_owned(), value));
        }
    }

    /// The reply as text, lines for arrays, `(nil)` for nothing.
    ///
    /// # Panics
    /// On an error reply, and when the server does not answer.
    #[track_caller]
    pub fn cmd(&self, args: &[&str]) -> String {
        match self.try_cmd(args) {
            Ok(reply) => reply,
            Err(error) => panic!("{} {args:?}: {error}", self.addr()),
        }
    }

    /// The reply or the error as text. Each call has a connection of its own.
    pub fn try_cmd(&self, args: &[&str]) -> Result<String, String> {
        command_to((&self.ip(), self.port()), self.password(), args)
            .map_err(|error| error.to_string())
    }

    /// Asks again when the connection ends meanwhile: a change of roles cuts off all clients.
    #[track_caller]
    pub fn info(&self, section: &str) -> BTreeMap<String, String> {
        for _ in 0..CUT_OFF_MAX {
            if let Ok(text) = self.try_cmd(&["INFO", section]) {
                return parse_info(&text);
            }
        }
        parse_info(&self.cmd(&["INFO", section]))
    }

    /// `master` or `slave`, in the server's own words.
    pub fn role(&self) -> String {
        self.info("replication")["role"].clone()
    }

    pub fn offset(&self) -> i64 {
        let info = self.info("replication");
        let number = |name: &str| info[name].parse::<i64>().expect("an offset is a number");
        match self.kind {
            ServerKind::Redis | ServerKind::Valkey => number("master_repl_offset"),
            ServerKind::Ledisdb => number("last_log_id").max(number("commit_log_id")),
        }
    }

    /// Waits until its append-only file has all its data. A replica begins a new one after each full copy, and until that
    /// is complete a kill leaves it with nothing.
    #[track_caller]
    pub fn wait_until_durable(&self) {
        wait_until("its append-only file is complete", PATIENCE, || {
            let replica = self.role() != "master";
            let info = self.info("persistence");
            let count = |name: &str| info.get(name).and_then(|value| value.parse::<u64>().ok());
            let idle = ["aof_rewrite_in_progress", "aof_rewrite_scheduled"];
            let begun = !replica || count("aof_rewrites").is_some_and(|done| done > 0);
            (begun && idle.into_iter().all(|name| count(name) == Some(0))).then_some(())
        });
    }

    /// For a replica: (address of its master, whether its link is up).
    pub fn master_link(&self) -> Option<(String, bool)> {
        let info = self.info("replication");
        let is_up = info.get("master_link_status").is_some_and(|status| status == "up");
        if self.kind.is_ledisdb() {
            return info.get("slaveof").filter(|of| !of.is_empty()).map(|of| (of.clone(), is_up));
        }
        let (host, port) = (info.get("master_host")?, info.get("master_port")?);
        Some((format!("{host}:{port}"), is_up))
    }

    pub fn replica_of(&self, master: &Self) {
        self.cmd(&[self.follow_word(), &master.ip(), &master.port().to_string()]);
    }

    pub fn promote_by_hand(&self) {
        self.cmd(&[self.follow_word(), "NO", "ONE"]);
    }

    fn follow_word(&self) -> &'static str {
        if self.kind.is_ledisdb() { "SLAVEOF" } else { "REPLICAOF" }
    }

    #[track_caller]
    pub fn wait_for_role(&self, role: &str) {
        let what = format!("{} becomes {role}", self.addr());
        wait_until(&what, PATIENCE, || (self.role() == role).then_some(()));
    }

    /// Waits until it is a replica of `master` with its link up.
    #[track_caller]
    pub fn wait_for_link(&self, master: &Self) {
        let what = format!("{} follows {}", self.addr(), master.addr());
        let wanted = Some((master.addr(), true));
        wait_until(&what, PATIENCE, || (self.master_link() == wanted).then_some(()));
    }

    /// Waits until our own process answers; somebody else's on this port does not count.
    fn answer_first(&mut self) -> Result<(), StartError> {
        let what = format!("{:?} on port {} answers", self.kind, self.port());
        let pid = self.pid().to_string();
        wait_until(&what, PATIENCE, || {
            if self.process.ended().is_some() {
                let taken = self.log().contains("Address already in use");
                return Some(Err(if taken { StartError::PortTaken } else { StartError::Ended }));
            }
            let info = self.try_cmd(&["INFO", "server"]).ok()?;
            (parse_info(&info).get("process_id") == Some(&pid)).then_some(Ok(()))
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- {:?} on {} said last:\n{}", self.kind, self.addr(), tail.join("\n"));
        }
    }
}

#[derive(Debug)]
enum StartError {
    PortTaken,
    Ended,
}

fn config_path(dir: &Path) -> PathBuf {
    dir.join("conf/server.conf")
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("server.log")
}

/// What every server of the rig is told, before its own options.
fn base_directives(port: &Port, options: &Options, dir: &Path) -> Vec<(String, String)> {
    [
        ("port", port.number().to_string()),
        ("bind", options.ip()),
        ("protected-mode", "no".to_owned()),
        ("dir", dir.join("data").display().to_string()),
        ("daemonize", "no".to_owned()),
        ("save", "\"\"".to_owned()),
        ("appendonly", "no".to_owned()),
        ("repl-diskless-sync-delay", "0".to_owned()),
        ("enable-debug-command", "local".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn prepare(kind: ServerKind, dir: &Path, port: &Port, options: &Options) {
    fs::create_dir(dir.join("data")).expect("the directory is ours");
    if kind.is_ledisdb() {
        return;
    }
    if options.config_file == ConfigFile::Absent {
        return;
    }
    let path = config_path(dir);
    let conf_dir = dir.join("conf");
    fs::create_dir(&conf_dir).expect("the directory is ours");
    let mut text = String::new();
    for (name, value) in base_directives(port, options, dir).iter().chain(&options.directives) {
        text.push_str(&format!("{name} {value}\n"));
    }
    fs::write(&path, text).expect("the directory is ours");
    if options.config_file == ConfigFile::ReadOnly {
        let allow = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("the file is ours");
        };
        allow(&path, 0o444);
        allow(&conf_dir, 0o555);
        allow(&dir.join("data"), 0o777);
        allow(dir, 0o755);
    }
}

fn launch(kind: ServerKind, port: &Port, options: &Options, dir: &Path) -> Owned {
    let read_only = options.config_file == ConfigFile::ReadOnly;
    let mut command = if kind.is_ledisdb() {
        ledisdb_command(port, options, dir)
    } else if read_only && rustix::process::getuid().is_root() {
        child::command_as_nobody(kind.program())
    } else {
        match &options.host {
            Some(host) => host.command(kind.program()),
            None => child::command(kind.program()),
        }
    };
    if kind.is_ledisdb() {
        // Everything is said.
    } else if options.config_file == ConfigFile::Absent {
        for (name, value) in base_directives(port, options, dir).iter().chain(&options.directives) {
            command.arg(format!("--{name}"));
            if value == "\"\"" {
                command.arg("");
            } else {
                command.args(value.split_whitespace());
            }
        }
    } else {
        command.arg(config_path(dir));
    }
    let log = OpenOptions::new().create(true).append(true).open(log_path(dir));
    let log = log.expect("the directory is ours");
    command.args(&options.args).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
    Owned::start(command).unwrap_or_else(|error| {
        panic!("{} cannot be started ({error}): run scripts/install-deps.sh", kind.program())
    })
}

/// The test program itself, as a stand-in.
fn ledisdb_command(port: &Port, options: &Options, dir: &Path) -> Command {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = match &options.host {
        Some(host) => host.command(&program),
        None => child::command(&program),
    };
    let data = dir.join("data");
    let addr = format!("{}:{}", options.ip(), port.number());
    let mut settings = format!("-addr {addr}\n-data_dir {}\n-rpl\n", data.display());
    for (name, value) in &options.directives {
        let line = match name.as_str() {
            "replicaof" => format!("-slaveof {}\n", value.replacen(' ', ":", 1)),
            "requirepass" => format!("-auth_password {value}\n"),
            _ => format!("{name} {value}\n"),
        };
        settings.push_str(&line);
    }
    command.args(["--exact", ledisdb::ENTRY, "--nocapture"]).env(ledisdb::PROCESS, settings);
    command
}

fn command_to(
    addr: (&str, u16),
    password: Option<&str>,
    args: &[&str],
) -> redis::RedisResult<String> {
    let mut settings = redis::RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    let info = redis::IntoConnectionInfo::into_connection_info(addr)?.set_redis_settings(settings);
    let mut connection = redis::Client::open(info)?.get_connection_with_timeout(REPLY_LIMIT)?;
    connection.set_read_timeout(Some(REPLY_LIMIT))?;
    connection.set_write_timeout(Some(REPLY_LIMIT))?;
    let (name, rest) = args.split_first().expect("a command has a name");
    let reply: redis::Value = redis::cmd(name).arg(rest).query(&mut connection)?;
    Ok(text_of(&reply))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's open enum")]
fn text_of(reply: &redis::Value) -> String {
    match reply {
        redis::Value::Nil => "(nil)".to_owned(),
        redis::Value::Okay => "OK".to_owned(),
        redis::Value::Int(number) => number.to_string(),
        redis::Value::SimpleString(text) => text.clone(),
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        redis::Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join("\n"),
        // RESP3 and whatever comes later; the rig speaks RESP2.
        other => format!("{other:?}"),
    }
}

fn parse_info(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
