//! The program as a process: what it prints where, what it refuses, and how it ends.

mod common;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::child::{self, Owned};
use common::daemon::Ended;
use common::http::Client;
use common::ports::Port;
use common::{Daemon, Group, Options, PATIENCE, ServerKind, temporary_dir, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// Our own copy of what the repository ships.
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../etc/failover.toml");
const ORIGINAL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/original-failover.toml");

/// A program whose stdout and stderr are kept apart, in files.
struct Apart {
    process: Owned,
    dir: tempfile::TempDir,
}

impl Apart {
    fn start(args: &[&str]) -> Self {
        let dir = temporary_dir();
        let file = |name| File::create(dir.path().join(name)).expect("the directory is ours");
        let mut command = child::command(Daemon::binary());
        without_our_settings(&mut command);
        command.args(args).current_dir(fresh_dir(dir.path())).stdin(Stdio::null());
        command.stdout(file("stdout")).stderr(file("stderr"));
        let process = Owned::start(command).expect("the program can be started");
        Self { process, dir }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).expect("the file is ours")
    }

    fn wait_for_log(&self, words: &str) {
        let what = format!("stderr says {words:?}");
        wait_until(&what, PATIENCE, || self.read("stderr").contains(words).then_some(()));
    }
}

fn fresh_dir(parent: &Path) -> PathBuf {
    let dir = parent.join("cwd");
    fs::create_dir(&dir).expect("the directory is ours");
    dir
}

/// The settings of whoever runs the tests are not the test's.
fn without_our_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("REDIS_FAILOVER_") {
            command.env_remove(name);
        }
    }
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).expect("the directory is ours");
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn the_command_of_the_original_guards_a_master_and_its_replica() {
    let group = Group::start(ServerKind::Redis, 1);
    let port = Port::take();
    let addr = format!("-addr=127.0.0.1:{}", port.number());
    let masters = format!("-masters={}", group.master.addr());
    // Nothing but the two flags of the original's documents.
    let mut daemon = Daemon::start(&[&addr, &masters]);
    assert_eq!(daemon.http(), SocketAddr::from(([127, 0, 0, 1], port.number())));
    let view = daemon.wait_until_healthy(&group.master.addr(), &group.addrs());
    assert_eq!(view["diagnosis"]["name"], "Healthy");
    assert_eq!(daemon.get("/master").body, group.master.addr());
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn the_daemon_writes_nothing_to_stdout_and_keeps_nothing_on_disk() {
    let group = Group::start(ServerKind::Redis, 1);
    let masters = format!("-masters={}", group.master.addr());
    let mut program = Apart::start(&["-addr=127.0.0.1:0", &masters, "-log_level=trace"]);
    program.wait_for_log("belongs to the group");
    program.process.signal(Signal::TERM);
    assert_eq!(program.process.wait(PATIENCE).code(), Some(0));
    assert_eq!(program.read("stdout"), "");
    let log = program.read("stderr");
    assert!(log.contains("keeps nothing on disk"), "{log}");
    assert!(log.lines().last().is_some_and(|line| line.contains("stopped")), "{log}");
    let left = fs::read_dir(program.dir.path().join("cwd")).expect("the directory is ours").count();
    assert_eq!(left, 0, "it left files behind");
}

#[test]
fn help_and_version_are_output() {
    for (args, words) in [
        (&["--help"][..], "-raft_cluster_state"),
        (&["-h"], "-masters"),
        (&["-help"], "-check_interval"),
        (&["--version"], concat!("redis-failover ", env!("CARGO_PKG_VERSION"))),
        (&["-V"], env!("CARGO_PKG_VERSION")),
        // Whoever asks for help gets it, whatever else is on the line.
        (&["-masters=127.0.0.1:1", "-help"], "Usage: redis-failover"),
    ] {
        let ended = Daemon::run(args, &[]);
        assert_eq!(ended.code(), 0, "{args:?}");
        assert!(ended.stdout.contains(words), "{args:?}: {}", ended.stdout);
        assert_eq!(ended.stderr, "", "{args:?}");
    }
}

#[test]
fn nobody_reading_the_help_is_no_failure() {
    let mut command = child::command(Daemon::binary());
    command.arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Owned::start(command).expect("the program can be started");
    drop(process.child().stdout.take());
    let status = process.wait(PATIENCE);
    assert_eq!(status.code(), Some(0));
}

/// Runs it with a master that would hear of it if anything were started.
#[track_caller]
fn refused(args: &[&str], env: &[(&str, &str)], words: &[&str]) -> Ended {
    let master = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    master.set_nonblocking(true).expect("a listener can be asked");
    let addr = master.local_addr().expect("it is bound");
    let masters = addr.to_string();
    let mut env = env.to_vec();
    env.push(("REDIS_FAILOVER_MASTERS", &masters));
    let ended = Daemon::run(args, &env);
    assert_eq!(ended.code(), 2, "{args:?} {env:?}: {}", ended.stderr);
    assert_eq!(ended.stdout, "", "{args:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "one sentence: {}", ended.stderr);
    assert!(ended.stderr.starts_with("redis-failover: "), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{args:?} {env:?}: {word:?} in {}", ended.stderr);
    }
    assert!(master.accept().is_err(), "{args:?} {env:?}: the master was connected to");
    ended
}

#[test]
fn a_bad_setting_is_one_sentence_and_status_2() {
    let dir = temporary_dir();
    let unknown_key = write(dir.path(), "key.toml", "addr = \":0\"\nmax_downtime = 3\n");
    let bad_syntax = write(dir.path(), "syntax.toml", "addr = \n");
    let (unknown_key, bad_syntax) =
        (format!("-config={unknown_key}"), format!("-config={bad_syntax}"));
    for (args, words) in [
        (&["-no_such_flag=1"][..], &["no_such_flag"][..]),
        (&["-addr=127.0.0.1:0", "start"], &["start", "no commands"]),
        (&["-check_interval"], &["check_interval", "needs a value"]),
        (&["-check_interval=fast"], &["flag -check_interval", "fast"]),
        (&["-check_interval=-5"], &["flag -check_interval"]),
        (&["-max_down_time=1", "-crash_down_time=2"], &["crash_down_time (2 s)"]),
        (&["-addr=127.0.0.1:70000"], &["flag -addr", "127.0.0.1:70000"]),
        (&["-addr=11000"], &["flag -addr", "the port is missing"]),
        (&["-masters=127.0.0.1:6379,127.0.0.1"], &["flag -masters", "\"127.0.0.1\""]),
        (&["-masters=127.0.0.1:0"], &["flag -masters", "the port"]),
        (&["-masters=::1:6379"], &["flag -masters", "[address]:port"]),
        (&["-masters=a:1,a:1"], &["flag -masters", "a:1 twice"]),
        (&["-masters_state=old"], &["flag -masters_state", "existing or new"]),
        (&["-quorum=2"], &["quorum is 2", "1 voter"]),
        (&["-log_level=loud"], &["flag -log_level", "loud"]),
        (&["-config=/no/such/file.toml"], &["/no/such/file.toml", "cannot be read"]),
        (&[&unknown_key], &["key.toml:2:1", "max_downtime"]),
        (&[&bad_syntax], &["syntax.toml:1:"]),
    ] {
        refused(args, &[], words);
    }
    refused(
        &[],
        &[("REDIS_FAILOVER_MAX_DOWN_TIME", "soon")],
        &["environment variable REDIS_FAILOVER_MAX_DOWN_TIME", "soon"],
    );
    let ended = refused(&["-redis_password=hunter2"], &[], &["redis_password_file"]);
    assert!(!ended.stderr.contains("hunter2"));
}

#[test]
fn a_broker_that_lacks_something_is_named_and_never_a_single_node() {
    for (args, env, word) in [
        (&["-broker=zk"][..], &[][..], "zk_addr"),
        (&["-broker=etcd"], &[], "etcd_addr"),
        (&["-broker=consul"], &[], "\"consul\""),
        (&["-raft_addr=127.0.0.1:1", "-zk_addr=127.0.0.1:2"], &[], "zk_addr"),
        (&["-zk_addr=127.0.0.1:1", "-zk_path=redis"], &[], "zk_path"),
        (&["-etcd_addr=https://127.0.0.1:1"], &[], "TLS"),
        (&["-etcd_addr=127.0.0.1:1", "-addr="], &[], "node_addr"),
        (&[], &[("REDIS_FAILOVER_ZK_ADDR", "a"), ("REDIS_FAILOVER_ZK_USER", "b")], "zk_password"),
        (&["-zk_password=hunter2", "-zk_addr=a"], &[], "zk_password_file"),
        (&["-config", ORIGINAL, "-broker=etcd"], &[], "etcd_addr"),
    ] {
        let ended = refused(args, env, &[word]);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[test]
fn raft_without_what_it_needs_is_status_2_and_says_what_that_is() {
    const DIR: &str = "-raft_data_dir=/no/such/directory";
    for (args, env, words) in [
        (&["-broker=raft"][..], &[][..], &["raft_addr"][..]),
        (&[], &[("REDIS_FAILOVER_BROKER", "raft")], &["raft_addr"]),
        (&["-raft_addr=127.0.0.1:1"], &[], &["raft_data_dir"]),
        (&[], &[("REDIS_FAILOVER_NODE_ADDR", "127.0.0.1:1")], &["raft_data_dir"]),
        (&["-raft_addr=0.0.0.0:1", DIR], &[], &["flag -raft_addr", "0.0.0.0:1"]),
        (&["-raft_addr=[::]:1", DIR], &[], &["flag -raft_addr", "[::]:1"]),
        (&["-raft_addr=:1", DIR], &[], &["flag -raft_addr", "the host is missing"]),
        (&["-raft_addr=127.0.0.1:1", "-node_addr=127.0.0.1:2", DIR], &[], &["two names"]),
        (&["-raft_addr=10.0.0.1:1", DIR], &[], &["cluster_secret", "cluster_open = true"]),
        (&["-raft_addr=node-a:1", DIR], &[], &["cluster_secret", "cluster_open = true"]),
        (
            &["-raft_addr=127.0.0.1:1", DIR, "-raft_election_min_ms=60"],
            &[],
            &["raft_election_min_ms (60)", "raft_heartbeat_ms (50)"],
        ),
    ] {
        refused(args, env, words);
    }
    let ended = refused(&["-cluster_secret=hunter2"], &[], &["cluster_secret_file"]);
    assert!(!ended.stderr.contains("hunter2"));
}

#[test]
fn a_bad_fault_point_is_status_2_and_a_good_one_is_shouted() {
    for (value, word) in [
        ("no-such-point=exit", "no-such-point"),
        ("before-repoint=explode", "explode"),
        ("before-repoint", "POINT=FAULT"),
        ("before-repoint=sleep:long", "long"),
    ] {
        refused(&["-addr=127.0.0.1:0"], &[("REDIS_FAILOVER_FAULT", value)], &[word]);
    }
    let fault = ("REDIS_FAILOVER_FAULT", "before-promote-send=sleep:10,before-repoint=fail");
    let mut daemon = Daemon::start_with(&Daemon::binary(), &[], &[fault]);
    daemon.wait_for_log("this process is going to break on purpose", PATIENCE);
    let line = daemon.log().lines().next().expect("it logs").to_owned();
    assert!(line.contains("ERROR") && line.contains(fault.1), "it is the first line: {line}");
    assert_eq!(daemon.stop().code(), Some(0));

    let mut quiet = Daemon::start(&[]);
    assert_eq!(quiet.stop().code(), Some(0));
    assert!(!quiet.log().contains("break on purpose"));
}

#[test]
fn a_taken_port_is_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = taken.local_addr().expect("it is bound").to_string();
    for addr in [addr.clone(), format!(":{}", addr.rsplit(':').next().expect("a port"))] {
        let ended = Daemon::run(&[&format!("-addr={addr}")], &[]);
        assert_eq!(ended.code(), 1, "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
        let words = format!("cannot listen on {addr}");
        assert!(ended.stderr.contains(&words), "{}", ended.stderr);
    }
}

#[test]
fn a_directory_for_rafts_messages_that_cannot_be_written_is_status_1() {
    let raft = ["-raft_addr=127.0.0.1:1", "-raft_data_dir=/dev/null/data"];
    let ended = Daemon::run(&[&raft[..], &["-raft_log_dir=/dev/null/log"]].concat(), &[]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("raft_log_dir: /dev/null/log/raft.log"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "one sentence: {}", ended.stderr);
}

#[test]
fn every_signal_to_stop_stops_cleanly() {
    let group = Group::start(ServerKind::Redis, 1);
    let masters = format!("-masters={}", group.master.addr());
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT, Signal::HUP] {
        let mut daemon = Daemon::start(&[&masters]);
        // A client that stays connected holds nothing up.
        let mut client = Client::new(daemon.http());
        client.request("GET", "/v1/health", "").expect("it listens");
        // The first one may come the moment it says that it listens.
        let status = daemon.end_by(signal);
        assert_eq!(status.code(), Some(0), "{signal:?}: {status:?}");
        assert!(daemon.log().contains("stopped; the servers stay as they are"), "{}", daemon.log());
        assert!(client.request("GET", "/v1/health", "").is_err(), "{signal:?}: it still listens");
    }
    assert_eq!(group.master.role(), "master");
    assert_eq!(group.replicas[0].master_link(), Some((group.master.addr(), true)));
}

#[test]
fn the_shipped_file_starts_as_it_is_and_flags_win_over_it() {
    let config = format!("-config={SHIPPED}");
    let daemon = Daemon::start(&[&config, "-addr=127.0.0.1:0"]);
    let health = daemon.get("/v1/health");
    assert_eq!((health.status, &health.json["broker"]), (200, &Value::from("none")));
    assert_eq!(health.json["groups"], 0);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let dir = temporary_dir();
    let text = "addr = '127.0.0.1:1'\nmasters = ['127.0.0.1:1']\nlog_format = 'json'\n\
                [[group]]\nname = 'sessions'\nmaster = '127.0.0.1:4'\n";
    let path = write(dir.path(), "failover.toml", text);
    let env = [
        ("REDIS_FAILOVER_CONFIG", path.as_str()),
        ("REDIS_FAILOVER_ADDR", "127.0.0.1:2"),
        ("REDIS_FAILOVER_MASTERS", "127.0.0.1:2"),
        ("REDIS_FAILOVER_LOG_FORMAT", ""),
        // Kubernetes sets such ones for a service of this name.
        ("REDIS_FAILOVER_SERVICE_HOST", "10.0.0.1"),
    ];
    let args = ["-addr=127.0.0.1:0", "--masters", "127.0.0.1:3"];
    let daemon = Daemon::start_with(&Daemon::binary(), &args, &env);
    // Nobody listens there; they are guarded all the same.
    assert_eq!(daemon.get("/master").body, "127.0.0.1:3,127.0.0.1:4");
    assert!(daemon.log().starts_with('{'), "{}", daemon.log());
    // The environment's word holds where no flag is.
    let env = [env[0], env[2]];
    let daemon = Daemon::start_with(&Daemon::binary(), &args[..1], &env);
    assert_eq!(daemon.get("/master").body, "127.0.0.1:2,127.0.0.1:4");
}

#[test]
fn the_json_log_is_one_object_a_line() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let masters = format!("-masters={}", group.master.addr());
    let fault = ("REDIS_FAILOVER_FAULT", "before-repoint=sleep:1");
    let args = [&masters, "-check_interval=100", "-log_format=json", "-log_level=debug"];
    let mut daemon = Daemon::start_with(&Daemon::binary(), &args, &[fault]);
    let name = group.master.addr();
    daemon.wait_until_healthy(&name, &group.addrs());
    group.master.kill9();
    daemon.wait_for_master(&group.replicas[0].addr(), PATIENCE);
    assert_eq!(daemon.stop().code(), Some(0));
    let log = daemon.log();
    let mut told = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error}: {line}");
        });
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        let message = line["fields"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{line}");
        told += usize::from(
            line["fields"]["group"] == name && message.contains("verified and recorded"),
        );
    }
    assert_eq!(told, 1, "{log}");
}

#[test]
fn the_password_is_never_shown() {
    const PASSWORD: &str = "correct-horse-42";
    const WRONG: &str = "wrong-horse-43";
    let options = Options::new().requirepass(PASSWORD).masterauth(PASSWORD);
    let mut group = Group::start_with(ServerKind::Redis, 1, &options);
    let dir = temporary_dir();
    let file =
        format!("-redis_password_file={}", write(dir.path(), "secret", "correct-horse-42\n"));
    let config = format!(
        "-config={}",
        write(dir.path(), "failover.toml", &format!("redis_password = '{PASSWORD}'\n"))
    );
    let masters = format!("-masters={}", group.master.addr());
    let common = [masters.as_str(), "-log_level=trace", "-check_interval=50"];
    let name = group.master.addr();

    let mut by_file = Daemon::start(&[&common[..], &[&file]].concat());
    by_file.wait_until_healthy(&name, &group.addrs());
    let mut by_config = Daemon::start(&[&common[..], &[&config]].concat());
    by_config.wait_until_healthy(&name, &group.addrs());
    let mut wrong =
        Daemon::start_with(&Daemon::binary(), &common, &[("REDIS_FAILOVER_REDIS_PASSWORD", WRONG)]);
    wrong.wait_for(&name, PATIENCE, |view| view["diagnosis"]["name"] == "AuthenticationFailed");
    assert_eq!(by_config.stop().code(), Some(0));
    // The last one alone fails over, so that its commands are in the log too.
    let mut by_environment = Daemon::start_with(
        &Daemon::binary(),
        &common,
        &[("REDIS_FAILOVER_REDIS_PASSWORD", PASSWORD)],
    );
    by_environment.wait_until_healthy(&name, &group.addrs());
    assert_eq!(by_file.stop().code(), Some(0));
    group.master.kill9();
    by_environment.wait_for_master(&group.replicas[0].addr(), PATIENCE);

    for daemon in [&mut wrong, &mut by_environment] {
        for path in [
            "/master",
            "/v1/groups",
            "/v1/history",
            "/v1/health",
            &format!("/v1/groups/{name}"),
            "/v1/groups/correct-horse",
            "/nowhere",
        ] {
            let response = daemon.get(path);
            assert_no_password(path, &format!("{:?}{}", response.headers, response.body));
        }
        assert_eq!(daemon.stop().code(), Some(0));
    }
    for daemon in [&by_file, &by_config, &by_environment, &wrong] {
        assert_no_password("the log", &daemon.log());
    }
}

#[track_caller]
fn assert_no_password(place: &str, text: &str) {
    for secret in ["horse-42", "horse-43"] {
        assert!(!text.contains(secret), "{place} shows a password: {text}");
    }
}

#[test]
fn without_an_address_there_is_no_http() {
    let mut program = Apart::start(&["-addr="]);
    program.wait_for_log("started without HTTP");
    program.process.signal(Signal::INT);
    assert_eq!(program.process.wait(PATIENCE).code(), Some(0));
}
