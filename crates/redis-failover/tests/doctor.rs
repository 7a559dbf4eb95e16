//! The doctor: each finding provoked on real servers, and none where all is well.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::child::{self, Owned};
use common::ports::Port;
use common::scenario::{guard, guard_by_file, guard_with, on_each_kind};
use common::{
    Cluster, Daemon, Group, Network, Options, PATIENCE, Server, ServerKind, now, together,
    wait_until,
};
use serde_json::Value;

/// The node promises 2.5 s; a debug build on a machine that does much else may take longer.
const HUNG_MAX: Duration = Duration::from_secs(10);

fn findings(daemon: &Daemon, name: &str) -> Vec<Value> {
    let answer = daemon.get(&format!("/v1/groups/{name}/doctor"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json["findings"].as_array().expect("findings are a list").clone()
}

/// (code, severity, addr) of each, sorted.
fn brief(findings: &[Value]) -> Vec<(String, String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut brief: Vec<_> = findings
        .iter()
        .map(|finding| {
            let of = |key: &str| text(&finding[key]).expect("it is a text");
            (of("code"), of("severity"), text(&finding["addr"]))
        })
        .collect();
    brief.sort();
    brief
}

fn entry(code: &str, severity: &str, addr: Option<&str>) -> (String, String, Option<String>) {
    (code.to_owned(), severity.to_owned(), addr.map(str::to_owned))
}

/// Asks until this is found, since the picture of the group may lag behind by a probe.
#[track_caller]
fn wait_for_finding(daemon: &Daemon, name: &str, code: &str, addr: Option<&str>) -> Value {
    let mut last = Vec::new();
    for _ in 0..20 {
        last = findings(daemon, name);
        let is_it = |finding: &&Value| finding["code"] == code && finding["addr"].as_str() == addr;
        if let Some(found) = last.iter().find(is_it) {
            return found.clone();
        }
    }
    panic!("{code} at {addr:?} is not found: {last:#?}");
}

#[track_caller]
fn assert_has(finding: &Value, key: &str, words: &[&str]) {
    let text = finding[key].as_str().expect("it is a text");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

fn url(daemon: &Daemon) -> String {
    format!("http://{}", daemon.http())
}

fn saved() -> Options {
    Options::new().set("appendonly", "yes")
}

#[test]
fn a_healthy_group_of_three_nodes_has_nothing() {
    on_each_kind(|kind| {
        let group = Group::start_with(kind, 2, &saved());
        let name = group.master.addr();
        let cluster: Cluster = together::guard(&group, &["-check_interval=100"]);
        for number in 0..3 {
            let node = cluster.node(number);
            // A node knows a moment after its start that it reaches the others.
            let mut last = Vec::new();
            let well = (0..20).any(|_| {
                last = findings(node, &name);
                last.is_empty()
            });
            assert!(well, "{last:#?}");
        }
        let ended = Daemon::run(&["doctor", "--addr", &url(cluster.node(1)), &name], &[]);
        assert_eq!(ended.code(), 0, "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains(": nothing found\n"), "{}", ended.stdout);
        assert_eq!(ended.stderr, "");
    });
}

#[test]
fn a_small_group_on_one_node_is_told_what_it_lacks() {
    let group = Group::start(ServerKind::Redis, 1);
    let (name, replica) = (group.master.addr(), group.replicas[0].addr());
    let daemon = guard(&group, &[]);
    let answer = daemon.get(&format!("/v1/groups/{name}/doctor"));
    for key in ["node", "leader", "as_of", "stale_ms", "group", "master", "findings"] {
        assert!(!answer.json[key].is_null(), "{key}: {}", answer.body);
    }
    let found = findings(&daemon, &name);
    let mut wanted = [
        entry("nothing_on_disk", "warning", Some(&name)),
        entry("nothing_on_disk", "warning", Some(&replica)),
        entry("one_replica", "warning", None),
        entry("single_node", "info", None),
    ];
    wanted.sort();
    assert_eq!(brief(&found), wanted);
    for finding in &found {
        let keys: Vec<&String> = finding.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["addr", "code", "fix", "message", "severity"], "{finding}");
        for key in ["message", "fix"] {
            assert!(finding[key].as_str().is_some_and(|text| text.len() > 20), "{finding}");
        }
    }
    assert_has(&found[0], "message", &["one replica only"]);
    assert_eq!(daemon.get("/v1/groups/nobody/doctor").error_code(), Some("unknown_group"));
    assert_eq!(daemon.post(&format!("/v1/groups/{name}/doctor"), "").status, 405);

    // The command says the same to people: of the group that was asked for, or of all.
    let at = url(&daemon);
    for args in [&["doctor", "--addr", &at, &name][..], &["doctor", "-addr", &at]] {
        let ended = Daemon::run(args, &[]);
        assert_eq!(ended.code(), 3, "{}{}", ended.stdout, ended.stderr);
        let lines: Vec<&str> = ended.stdout.lines().collect();
        assert!(lines[0].starts_with(&format!("{name} (master {name}, as ")), "{lines:?}");
        assert!(lines[0].ends_with(": 3 warnings, 1 note"), "{lines:?}");
        assert_eq!(lines[1], "  the group as a whole");
        assert!(lines[2].starts_with("    warning: ") && lines[2].ends_with("(one_replica)"));
        assert!(lines[3].starts_with("      fix: "), "{lines:?}");
        assert!(ended.stdout.contains(&format!("\n  {replica}\n    warning: ")), "{lines:?}");
        assert_eq!(ended.stderr, "");
    }
    let env = [("REDIS_FAILOVER_ADDR", daemon.http().to_string())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(Daemon::run(&["doctor"], &env).code(), 3);
}

#[test]
fn what_goes_wrong_in_asking_is_a_sentence_and_a_status() {
    let daemon = Daemon::start(&[]);
    let at = url(&daemon);
    let ended = Daemon::run(&["doctor", "--addr", &at], &[]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("guards no group"), "{}", ended.stdout);

    // Nobody listens; somebody else does; somebody takes the connection and says something else.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let closed = silent.local_addr().expect("it is bound").to_string();
    drop(silent);
    let redis = Server::start(ServerKind::Redis, &Options::new());
    for (args, words) in [
        (&["doctor", "--addr", &closed][..], "cannot be asked: Connection refused"),
        (&["doctor", "--addr", &redis.addr()], "does not answer in HTTP"),
        (&["doctor", "--addr", &at, "nobody"], "no group is named \"nobody\""),
    ] {
        let ended = Daemon::run(args, &[]);
        assert_eq!(ended.code(), 1, "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{args:?}");
        assert!(ended.stderr.contains(words), "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    for (args, words) in [
        (&["doctor", "--nothing"][..], "no flag --nothing"),
        (&["doctor", "--masters=a:1"], "no flag --masters"),
        (&["doctor", "--addr"], "needs a value"),
        (&["doctor", "--addr", "https://a:1"], "no TLS"),
        (&["doctor", "--addr", "127.0.0.1"], "write http://host:port"),
        (&["doctor", "a", "b"], "one too many"),
        (&["-masters=127.0.0.1:1", "doctor"], "before the command doctor"),
    ] {
        let ended = Daemon::run(args, &[]);
        assert_eq!(ended.code(), 2, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{args:?}");
    }
    let ended = Daemon::run(&["doctor"], &[("REDIS_FAILOVER_ADDR", "11000")]);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("environment variable REDIS_FAILOVER_ADDR"), "{}", ended.stderr);
    let ended = Daemon::run(&["doctor", "--help"], &[]);
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.contains("Usage: redis-failover doctor"), "{}", ended.stdout);
}

#[test]
fn settings_of_servers_are_found_and_gone_when_set_right() {
    on_each_kind(|kind| {
        let group = Group::start_with(kind, 2, &saved());
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        let (master, replica) = (&group.master, &group.replicas[0]);
        let only = [entry("single_node", "info", None)];
        assert_eq!(brief(&findings(&daemon, &name)), only);
        for (server, setting, value, code, severity) in [
            (replica, "replica-read-only", "no", "writable_replica", "warning"),
            (master, "replica-read-only", "no", "writable_replica", "warning"),
            (replica, "replica-serve-stale-data", "no", "stale_data_refused", "info"),
            (replica, "min-replicas-to-write", "2", "min_replicas_too_high", "error"),
            (master, "min-replicas-to-write", "3", "min_replicas_too_high", "error"),
            (replica, "maxmemory", "500mb", "less_memory", "warning"),
            (replica, "maxmemory", "100kb", "less_memory", "error"),
            (replica, "maxmemory-policy", "allkeys-lru", "settings_differ", "warning"),
            (replica, "notify-keyspace-events", "KEA", "settings_differ", "warning"),
            (master, "repl-ping-replica-period", "50", "slow_ping", "warning"),
            (master, "repl-timeout", "10", "timeout_below_ping", "warning"),
            (replica, "maxclients", "1", "fewer_clients", "warning"),
            (replica, "protected-mode", "yes", "protected_mode", "info"),
            (replica, "appendonly", "no", "nothing_on_disk", "warning"),
        ] {
            let get = || server.cmd(&["CONFIG", "GET", setting]);
            let before = get().lines().nth(1).unwrap_or_default().to_owned();
            // With so few clients the rig itself may be one too many.
            let value = if setting == "maxclients" { "6" } else { value };
            let crowd = if setting == "maxclients" { crowd(master, 20) } else { Vec::new() };
            server.cmd(&["CONFIG", "SET", setting, value]);
            let found = wait_for_finding(&daemon, &name, code, Some(&server.addr()));
            assert_eq!(found["severity"], severity, "{found}");
            assert_has(&found, "message", &[&server.addr()]);
            let fix = if code == "protected_mode" { "protected-mode" } else { setting };
            assert_has(&found, "fix", &[fix, &server.port().to_string()]);
            server.cmd(&["CONFIG", "SET", setting, &before]);
            drop(crowd);
        }
        // A rewrite of the AOF may be on its way.
        let well = (0..20).any(|_| brief(&findings(&daemon, &name)) == only);
        assert!(well, "{:#?}", findings(&daemon, &name));
    });
}

/// Clients that stay connected.
fn crowd(server: &Server, count: usize) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect(server.addr()).expect("the server takes clients");
    let crowd: Vec<TcpStream> = (0..count).map(connect).collect();
    wait_until("all of them are in", PATIENCE, || {
        let clients = server.info("clients")["connected_clients"].parse::<usize>().ok()?;
        (clients > count).then_some(())
    });
    crowd
}

#[test]
fn a_replica_that_evicts_loses_keys() {
    let options = saved().set("maxmemory-policy", "allkeys-lru").set("maxmemory", "100mb");
    let group = Group::start_with(ServerKind::Redis, 1, &options);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let replica = &group.replicas[0];
    replica.cmd(&["CONFIG", "SET", "replica-ignore-maxmemory", "no"]);
    let found = wait_for_finding(&daemon, &name, "replica_evicts", Some(&replica.addr()));
    assert_has(&found, "fix", &["replica-ignore-maxmemory yes"]);
}

#[test]
fn nobody_who_may_be_promoted_is_an_error() {
    let group = Group::start_with(ServerKind::Redis, 2, &saved());
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    for replica in &group.replicas {
        replica.cmd(&["CONFIG", "SET", "replica-priority", "0"]);
    }
    let found = wait_for_finding(&daemon, &name, "all_priorities_zero", None);
    assert_eq!(found["severity"], "error");
    assert_has(&found, "fix", &["replica-priority"]);
    for replica in &group.replicas {
        replica.cmd(&["CONFIG", "SET", "replica-priority", "100"]);
        let rule = format!("/v1/groups/{name}/rules/{}", replica.addr());
        assert_eq!(daemon.put(&rule, r#"{"rule":"never"}"#).status, 200);
    }
    wait_for_finding(&daemon, &name, "rules_exclude_all", None);
    let alone = Group::start_with(ServerKind::Redis, 0, &saved());
    let other = alone.master.addr();
    assert_eq!(daemon.post("/master", &format!("masters={other}")).status, 200);
    let found = wait_for_finding(&daemon, &other, "no_replica", None);
    assert_eq!(found["severity"], "error");
    // Both groups are told by the command.
    let ended = Daemon::run(&["doctor", "--addr", &url(&daemon)], &[]);
    assert_eq!(ended.code(), 3);
    for name in [&name, &other] {
        assert!(ended.stdout.contains(&format!("{name} (master {name}")), "{}", ended.stdout);
    }
}

#[test]
fn replicas_of_another_place_that_may_not_be_promoted_are_found() {
    let group = Group::start_with(ServerKind::Redis, 1, &saved());
    let (name, far) = (group.master.addr(), group.replicas[0].addr());
    let daemon = guard_by_file(&format!(
        "addr = '127.0.0.1:0'\ncheck_interval = 100\n[[group]]\nmaster = '{name}'\n\
         failover_across_locations = 'deny'\n\
         [[group.instance]]\naddr = '{name}'\nlocation = 'east'\n\
         [[group.instance]]\naddr = '{far}'\nlocation = 'west'\n"
    ));
    daemon.wait_until_healthy(&name, &group.addrs());
    wait_for_finding(&daemon, &name, "locations_exclude_all", None);
}

#[test]
fn a_server_without_a_config_file_is_found() {
    let options = [saved().without_config(), saved()];
    let group = Group::start_each(ServerKind::Redis, &saved(), &options);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let found = findings(&daemon, &name);
    let without = group.replicas[0].addr();
    assert_eq!(
        brief(&found),
        [entry("no_config_file", "warning", Some(&without)), entry("single_node", "info", None)]
    );
}

#[test]
fn another_monitor_is_found_by_its_subscription() {
    on_each_kind(|kind| {
        let group = Group::start_with(kind, 2, &saved());
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        let mut sentinel = TcpStream::connect(&name).expect("the master takes clients");
        sentinel.write_all(b"SUBSCRIBE __sentinel__:hello\r\n").expect("it is open");
        let mut answer = [0; 64];
        assert!(sentinel.read(&mut answer).expect("it answers") > 0);
        let found = wait_for_finding(&daemon, &name, "other_monitor", Some(&name));
        assert_eq!(found["severity"], "warning");
        assert_has(&found, "message", &["1 subscribed to __sentinel__:hello"]);
    });
}

#[test]
fn a_real_sentinel_is_found_on_every_server_that_it_watches() {
    let group = Group::start_with(ServerKind::Redis, 2, &saved());
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let (dir, port) = (common::temporary_dir(), Port::take());
    let config = dir.path().join("sentinel.conf");
    let text = format!(
        "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor g 127.0.0.1 {} 1\n",
        port.number(),
        dir.path().display(),
        group.master.port()
    );
    std::fs::write(&config, text).expect("the directory is ours");
    let mut command = child::command("redis-server");
    command.arg(&config).arg("--sentinel").stdout(Stdio::null());
    let _sentinel = Owned::start(command).expect("Redis is installed");
    wait_until("the Sentinel listens on every server", PATIENCE, || {
        let found = wait_for_finding(&daemon, &name, "other_monitor", Some(&name));
        found["message"].as_str()?.contains("3 of 3 instances").then_some(())
    });
    let ended = Daemon::run(&["doctor", "--addr", &url(&daemon), &name], &[]);
    assert_eq!(ended.code(), 3);
    assert!(ended.stdout.contains("Redis Sentinel watches this group too"), "{}", ended.stdout);
}

#[test]
fn passwords_that_differ_are_found_and_not_shown() {
    on_each_kind(|kind| {
        const SECRET: &str = "correct-horse-42";
        // The classic: the first master was never told how to follow.
        let master = saved().requirepass(SECRET);
        let replica = saved().requirepass(SECRET).masterauth(SECRET);
        let group = Group::start_each(kind, &master, &[replica.clone(), replica]);
        let name = group.master.addr();
        let env = [("REDIS_FAILOVER_REDIS_PASSWORD", SECRET)];
        let daemon = guard_with(&group, &["-log_level=trace"], &env);
        let found = wait_for_finding(&daemon, &name, "password_mismatch", Some(&name));
        assert_eq!(found["severity"], "error");
        assert_has(&found, "message", &["has no masterauth", &group.replicas[0].addr()]);
        group.master.cmd(&["CONFIG", "SET", "masterauth", SECRET]);
        assert_eq!(brief(&findings(&daemon, &name)), [entry("single_node", "info", None)]);

        let wrong = &group.replicas[0];
        wrong.cmd(&["CONFIG", "SET", "masterauth", "wrong-horse-43"]);
        let found = wait_for_finding(&daemon, &name, "password_mismatch", Some(&wrong.addr()));
        assert_has(&found, "message", &["has another masterauth", &name]);
        let account = group.master.cmd(&["ACL", "GETUSER", "default"]);
        let hash = account.lines().find(|line| line.len() == 64).expect("its password has a hash");
        let body = daemon.get(&format!("/v1/groups/{name}/doctor")).body;
        let told = Daemon::run(&["doctor", "--addr", &url(&daemon)], &[]).stdout;
        for place in [&body, &told, &daemon.log()] {
            for secret in ["horse-42", "horse-43", hash] {
                assert!(!place.contains(secret), "{secret} in {place}");
            }
        }
    });
}

#[test]
fn a_server_that_does_not_let_the_program_in_is_found() {
    const SECRET: &str = "correct-horse-42";
    let options = saved().requirepass(SECRET).masterauth(SECRET);
    let group = Group::start_with(ServerKind::Redis, 2, &options);
    let name = group.master.addr();
    let daemon = guard_with(&group, &[], &[("REDIS_FAILOVER_REDIS_PASSWORD", SECRET)]);
    group.replicas[0].cmd(&["CONFIG", "SET", "requirepass", "another-43"]);
    let changed = group.replicas[0].addr();
    let found = wait_for_finding(&daemon, &name, "login_refused", Some(&changed));
    assert_eq!(found["severity"], "error");
    assert_has(&found, "fix", &["redis_password"]);
}

#[test]
fn missing_rights_are_found_with_the_line_that_grants_them() {
    on_each_kind(|kind| {
        let rules = "on >secret-42 resetkeys resetchannels -@all +ping +info +client|setname +config|get +acl|dryrun \
                     +acl|getuser +pubsub|numsub +command|info";
        let group = Group::start_with(kind, 2, &saved().user("failover", rules));
        let name = group.master.addr();
        let env = [("REDIS_FAILOVER_REDIS_PASSWORD", "secret-42")];
        let daemon = guard_with(&group, &["-redis_user=failover"], &env);
        let found = findings(&daemon, &name);
        let rights = |addr: &str| {
            let of =
                |finding: &&Value| finding["addr"] == addr && finding["code"] == "missing_rights";
            found.iter().filter(of).collect::<Vec<_>>()
        };
        for addr in group.addrs() {
            let [error, warning, info] = rights(&addr)[..] else { panic!("{found:#?}") };
            assert_eq!(error["severity"], "error");
            assert_has(error, "message", &["+replicaof", "promoted"]);
            assert_has(error, "fix", &["ACL SETUSER USER +replicaof"]);
            assert_eq!(warning["severity"], "warning");
            assert_has(warning, "fix", &["+config|rewrite +multi +exec +client|kill"]);
            assert_eq!(info["severity"], "info");
            assert_has(info, "fix", &["+client|pause +client|unpause"]);
        }
        for server in group.servers() {
            server.cmd(&["ACL", "SETUSER", "failover", "+@all"]);
        }
        assert_eq!(brief(&findings(&daemon, &name)), [entry("single_node", "info", None)]);
    });
}

#[test]
fn what_could_not_be_asked_is_one_note_and_no_finding() {
    let rules = "on >secret-42 resetkeys resetchannels -@all +ping +info +client|setname";
    let group = Group::start_with(ServerKind::Redis, 2, &saved().user("failover", rules));
    let name = group.master.addr();
    let env = [("REDIS_FAILOVER_REDIS_PASSWORD", "secret-42")];
    let daemon = guard_with(&group, &["-redis_user=failover"], &env);
    let found = findings(&daemon, &name);
    assert_eq!(
        brief(&found),
        [entry("not_asked", "info", None), entry("single_node", "info", None)]
    );
    let note = found.iter().find(|finding| finding["code"] == "not_asked").expect("it is there");
    assert_has(note, "message", &["CONFIG GET", "ACL DRYRUN", &name]);
    assert_has(note, "fix", &["+config|get", "+acl|dryrun"]);
    let ended = Daemon::run(&["doctor", "--addr", &url(&daemon)], &[]);
    assert_eq!(ended.code(), 0, "notes are no reason to act: {}", ended.stdout);
}

#[test]
fn a_command_that_was_renamed_is_found() {
    on_each_kind(|kind| {
        let renamed = saved().set("rename-command", "REPLICAOF HIDDEN");
        let group = Group::start_each(kind, &saved(), &[renamed, saved()]);
        let name = group.master.addr();
        let daemon = guard(&group, &[]);
        let addr = group.replicas[0].addr();
        let found = wait_for_finding(&daemon, &name, "missing_command", Some(&addr));
        assert_eq!(found["severity"], "error");
        assert_has(&found, "message", &["does not know REPLICAOF"]);
    });
}

#[test]
fn an_announced_address_that_leads_nowhere_is_found() {
    let announcing = saved().set("replica-announce-ip", "127.0.0.9");
    let group = Group::start_each(ServerKind::Redis, &saved(), &[announcing, saved()]);
    let (name, real) = (group.master.addr(), group.replicas[0].addr());
    let announced = format!("127.0.0.9:{}", group.replicas[0].port());
    let daemon = guard_by_file(&format!(
        "addr = '127.0.0.1:0'\ncheck_interval = 100\n[[group]]\nmaster = '{name}'\nreplicas = ['{real}']\n"
    ));
    daemon.wait_until_healthy(&name, &group.addrs());
    let found = wait_for_finding(&daemon, &name, "announced_address_unreachable", Some(&announced));
    assert_eq!(found["severity"], "error");
    assert_has(&found, "message", &[&format!("{real} announces itself as {announced}")]);
    assert_has(&found, "fix", &["replica-announce-ip 127.0.0.1"]);
    let found = findings(&daemon, &name);
    assert!(!brief(&found).iter().any(|(code, ..)| code == "no_answer"), "{found:#?}");
}

#[test]
fn a_backlog_that_is_too_small_for_what_is_written_is_found() {
    let group = Group::start_with(ServerKind::Redis, 2, &saved());
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let small = &group.replicas[0];
    small.cmd(&["CONFIG", "SET", "repl-backlog-size", "20000"]);
    assert_eq!(brief(&findings(&daemon, &name)), [entry("single_node", "info", None)], "idle");
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (master, enough) = (&group.master, &enough);
        scope.spawn(move || {
            let text = "x".repeat(4_000);
            while !enough.load(Ordering::Relaxed) {
                master.cmd(&["SET", "key", &text]);
            }
        });
        let found = wait_for_finding(&daemon, &name, "backlog_too_small", Some(&small.addr()));
        enough.store(true, Ordering::Relaxed);
        assert_has(&found, "message", &["19.5 KiB", "max_down_time is 3 s"]);
        assert_has(&found, "fix", &["CONFIG SET repl-backlog-size"]);
    });
}

#[test]
fn a_server_that_cannot_save_is_found() {
    let options = Options::new().set("save", "3600 1");
    let group = Group::start_with(ServerKind::Redis, 2, &options);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let broken = &group.replicas[0];
    std::fs::remove_dir_all(broken.dir().join("data")).expect("the directory is ours");
    broken.cmd(&["BGSAVE"]);
    let found = wait_for_finding(&daemon, &name, "cannot_save", Some(&broken.addr()));
    assert_eq!(found["severity"], "error");
}

#[test]
fn a_hung_instance_does_not_hold_the_answer() {
    let mut group = Group::start_with(ServerKind::Redis, 2, &saved());
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    group.master.cmd(&["CONFIG", "SET", "repl-ping-replica-period", "50"]);
    group.replicas[0].stop();
    let asked_at = now();
    let found = findings(&daemon, &name);
    assert!(asked_at.elapsed() < HUNG_MAX, "{:?}", asked_at.elapsed());
    let hung = group.replicas[0].addr();
    let brief = brief(&found);
    assert!(brief.contains(&entry("no_answer", "warning", Some(&hung))), "{found:#?}");
    // The others were asked everything, the second look at the master included.
    assert!(brief.contains(&entry("slow_ping", "warning", Some(&name))), "{found:#?}");
    assert!(!brief.iter().any(|(code, ..)| code == "not_asked"), "{found:#?}");
    group.replicas[0].kill9();
    let found = wait_for_finding(&daemon, &name, "no_answer", Some(&hung));
    assert_has(&found, "fix", &["DELETE /v1/groups/"]);
}

#[test]
fn the_state_of_the_group_is_part_of_it() {
    let group = Group::start_with(ServerKind::Redis, 2, &saved());
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let pause = format!("/v1/groups/{name}/pause");
    assert_eq!(daemon.post(&pause, r#"{"reason":"new switch"}"#).status, 200);
    let found = wait_for_finding(&daemon, &name, "paused", None);
    assert_has(&found, "message", &["new switch"]);
    assert_has(&found, "fix", &["/resume"]);
}

#[test]
fn two_nodes_and_a_quorum_of_all_are_found() {
    let group = Group::start_with(ServerKind::Redis, 2, &saved());
    let name = group.master.addr();
    let mut cluster = together::start_guard(Cluster::plan(2), &group, &[]);
    let found = wait_for_finding(cluster.node(0), &name, "two_nodes", None);
    assert_eq!(found["severity"], "warning");
    cluster = together::start_guard(Cluster::plan(3), &group, &["-quorum=3"]);
    wait_for_finding(cluster.node(2), &name, "quorum_of_all", None);
    cluster.kill9(0);
    let found = wait_until("the dead node is found", PATIENCE, || {
        let found = wait_for_finding(cluster.node(2), &name, "node_unreachable", None);
        found["message"].as_str().filter(|text| text.contains(cluster.id(0))).map(str::to_owned)
    });
    assert!(found.starts_with("1 of 3 nodes cannot be reached"), "{found}");
}

#[test]
fn a_server_in_protected_mode_turns_other_machines_away() {
    let Some(network) = Network::start(3) else { return };
    let on = |number: usize| saved().on(network.host(number));
    let group = Group::start_each(ServerKind::Redis, &on(0), &[on(1), on(2)]);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let replica = &group.replicas[1];
    // The connections that there are stay; the next one is turned away.
    replica.cmd(&["CONFIG", "SET", "protected-mode", "yes"]);
    let found = wait_for_finding(&daemon, &name, "protected_mode", Some(&replica.addr()));
    assert_eq!(found["severity"], "error");
    assert_has(&found, "fix", &["requirepass", "protected-mode no"]);
    let found = findings(&daemon, &name);
    assert!(!brief(&found).iter().any(|(code, ..)| code == "no_answer"), "{found:#?}");
}

#[test]
fn a_chained_replica_is_found() {
    let group = Group::start_with(ServerKind::Redis, 2, &saved());
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    // So that nobody sets it right meanwhile.
    assert_eq!(daemon.post(&format!("/v1/groups/{name}/pause"), "").status, 200);
    let (middle, last) = (&group.replicas[0], &group.replicas[1]);
    last.replica_of(middle);
    let found = wait_for_finding(&daemon, &name, "chained_replica", Some(&last.addr()));
    assert_has(&found, "message", &[&middle.addr()]);
    assert_has(&found, "fix", &[&format!("REPLICAOF 127.0.0.1 {}", group.master.port())]);
}

#[test]
fn servers_of_two_kinds_are_versions_apart() {
    if ServerKind::all().len() < 2 {
        return;
    }
    let mut group = Group::start_with(ServerKind::Redis, 1, &saved());
    let master = format!("{} {}", group.master.ip(), group.master.port());
    let newer = Server::start(ServerKind::Valkey, &saved().set("replicaof", &master));
    newer.wait_for_link(&group.master);
    group.replicas.push(newer);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let found = wait_for_finding(&daemon, &name, "versions_apart", None);
    assert_has(&found, "message", &["redis 7.", "valkey 8.", &group.replicas[1].addr()]);
}

#[test]
fn what_fencing_sets_is_no_finding() {
    let group = Group::start_with(ServerKind::Redis, 1, &saved());
    let name = group.master.addr();
    let daemon = guard(&group, &["-fencing=min-replicas"]);
    daemon.wait_for(&name, PATIENCE, |view| view["fencing"]["min_replicas"] == 1);
    // The replica alone could not fulfil it, if the program did not open it with its promotion.
    let replica = &group.replicas[0];
    wait_until("the replica is fenced too", PATIENCE, || {
        let set = replica.cmd(&["CONFIG", "GET", "min-replicas-to-write"]);
        set.ends_with("\n1").then_some(())
    });
    let wanted = [entry("one_replica", "warning", None), entry("single_node", "info", None)];
    assert_eq!(brief(&findings(&daemon, &name)), wanted);
}
