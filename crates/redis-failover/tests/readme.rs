//! What the README and the shipped file say, done: their commands run on real servers, with the addresses that they
//! name replaced by free ones.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::ports::Port;
use common::{Agree, Daemon, Group, Options, PATIENCE, Server, ServerKind, Store, wait_until};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn file(name: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{name}")).expect("the repository has it")
}

/// The lines of all blocks of one language, those in a list included.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut lines, mut inside) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("```") {
            Some(opened) => inside = opened == language,
            None if inside => lines.push(line.to_owned()),
            None => {}
        }
    }
    lines
}

/// The lines that begin with this command.
fn commands(name: &str) -> Vec<String> {
    let lines = blocks(&file("README.md"), "sh").into_iter();
    let found: Vec<_> = lines.filter(|line| line.split(' ').next() == Some(name)).collect();
    assert!(!found.is_empty(), "the README has no command {name}");
    found
}

/// The words of a line as a shell would see them, as far as the README's lines need it.
fn words(line: &str) -> Vec<String> {
    line.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect()
}

/// Whatever the README's addresses stand for.
fn with_ours(line: &str, group: &Group, http: &str) -> String {
    let port = http.rsplit(':').next().expect("an address has a port");
    line.replace("127.0.0.1:6379", &group.master.addr())
        .replace("127.0.0.1:6380", &group.replicas[0].addr())
        .replace(":11000", &format!(":{port}"))
        .replace("./etc/", &format!("{ROOT}/etc/"))
}

#[test]
fn the_commands_that_start_it_start_it() {
    let group = Group::start(ServerKind::Redis, 1);
    let others = ["-raft_addr", "-zk_addr", "-etcd_addr", " doctor ", " migrate "];
    let starts = |line: &&String| !others.iter().any(|other| line.contains(other));
    for line in commands("redis-failover").iter().filter(starts) {
        // Port 0: the system chooses one.
        let line = with_ours(line, &group, "127.0.0.1:0");
        let words = words(&line);
        let args: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let daemon = Daemon::start(&args);
        if line.contains("-masters=") {
            daemon.wait_until_healthy(&group.master.addr(), &group.addrs());
        }
        assert_eq!(daemon.get("/v1/health").status, 200, "{line}");
    }
}

#[test]
fn the_three_commands_make_a_cluster() {
    let group = Group::start(ServerKind::Redis, 1);
    let lines: Vec<String> =
        commands("redis-failover").into_iter().filter(|line| line.contains("-raft_addr")).collect();
    assert_eq!(lines.len(), 3);
    let ports: Vec<Port> = lines.iter().map(|_| Port::take()).collect();
    let dir = common::temporary_dir();
    let start = |line: &String| {
        let mut line = line
            .replace("127.0.0.1:6379", &group.master.addr())
            .replace("=./var", &format!("={}/var", dir.path().display()));
        for (number, port) in ports.iter().enumerate() {
            line = line
                .replace(
                    &format!("127.0.0.1:1200{number}"),
                    &format!("127.0.0.1:{}", port.number()),
                )
                .replace(&format!("127.0.0.1:1100{number}"), "127.0.0.1:0");
        }
        let words = words(&line);
        Daemon::start(&words.iter().skip(1).map(String::as_str).collect::<Vec<_>>())
    };
    let nodes: Vec<Daemon> = lines.iter().map(start).collect();
    for node in &nodes {
        node.wait_until_healthy(&group.master.addr(), &group.addrs());
        let members = wait_until("every node knows three members", PATIENCE, || {
            let members = node.get("/v1/cluster").json["members"].as_array().cloned()?;
            (members.len() == 3).then_some(members)
        });
        let known = |port: &Port| {
            let addr = format!("127.0.0.1:{}", port.number());
            members.iter().any(|member| member["addr"] == addr.as_str())
        };
        assert!(ports.iter().all(known), "{members:?}");
    }
}

/// The nodes of the README through a ZooKeeper and an etcd, and the way from one to the other.
#[test]
fn nodes_agree_through_a_store_and_move_to_another() {
    if Agree::outer().len() < 2 {
        return;
    }
    let (zk, etcd) = (Store::shared(Agree::Zk), Store::shared(Agree::Etcd));
    let group = Group::start(ServerKind::Redis, 1);
    let stores = [
        ("10.0.0.5:2181,10.0.0.6:2181,10.0.0.7:2181", zk),
        ("10.0.0.5:2379,10.0.0.6:2379,10.0.0.7:2379", etcd),
    ];
    let lines: Vec<String> = commands("redis-failover")
        .into_iter()
        .map(|line| {
            let line = with_ours(&line, &group, "127.0.0.1:0");
            stores.iter().fold(line, |line, (named, store)| line.replace(named, &store.addrs()))
        })
        .collect();
    let args = |line: &String| words(line).into_iter().skip(1).collect::<Vec<String>>();
    let start = |flag: &str| {
        let mut lines = lines.iter().filter(|line| line.contains(flag));
        let args = args(lines.next().expect("the README has it"));
        assert_eq!(lines.next(), None);
        Daemon::start(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut old = start("-zk_addr");
    old.wait_until_healthy(&group.master.addr(), &group.addrs());
    assert_eq!(old.post("/v1/pause", "{}").status, 200);
    let line = lines.iter().find(|line| line.contains(" migrate ")).expect("the README has it");
    let args = args(line);
    let ended = Daemon::run(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    assert!(ended.status.success(), "{line}: {}", ended.stderr);
    old.stop();
    let new = start("-etcd_addr");
    new.wait_for(&group.master.addr(), PATIENCE, |view| view["status"] == "paused");
}

#[test]
fn the_doctor_comes_when_it_is_called() {
    let group = Group::start(ServerKind::Redis, 1);
    let masters = format!("-masters={}", group.master.addr());
    let daemon = Daemon::start(&[&masters]);
    daemon.wait_until_healthy(&group.master.addr(), &group.addrs());
    let line = commands("redis-failover").into_iter().find(|line| line.contains(" doctor "));
    let line = with_ours(&line.expect("it is called"), &group, &daemon.http().to_string());
    let words = words(&line);
    let ended = Daemon::run(&words.iter().skip(1).map(String::as_str).collect::<Vec<_>>(), &[]);
    assert_eq!(ended.code(), 3, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("(one_replica)"), "{}", ended.stdout);
}

/// With both lines of the README the program's user may do what a failover needs, and ask what the doctor asks.
#[test]
fn the_second_acl_rule_lets_the_doctor_ask_everything() {
    let rules: Vec<Vec<String>> = commands("redis-cli")
        .iter()
        .filter(|line| line.contains("ACL SETUSER"))
        .map(|line| words(line)[1..].to_vec())
        .collect();
    assert_eq!(rules.len(), 2);
    for kind in ServerKind::all() {
        let options = Options::new().requirepass("admin").masterauth("admin");
        let group = Group::start_with(kind, 2, &options.set("appendonly", "yes"));
        let allow = |rule: &[String]| {
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            for server in group.servers() {
                server.cmd(&rule);
            }
        };
        let masters = format!("-masters={}", group.master.addr());
        let env = [("REDIS_FAILOVER_REDIS_PASSWORD", "PASSWORD")];
        allow(&rules[0]);
        let args = [&masters, "-redis_user=failover", "-check_interval=100"];
        let daemon = Daemon::start_with(&Daemon::binary(), &args, &env);
        let name = group.master.addr();
        daemon.wait_until_healthy(&name, &group.addrs());
        let found = || {
            let answer = daemon.get(&format!("/v1/groups/{name}/doctor"));
            let found = answer.json["findings"].as_array().expect("a list").clone();
            let code = |found: &serde_json::Value| {
                (found["code"].to_string(), found["severity"].to_string())
            };
            found.iter().map(code).collect::<BTreeSet<_>>()
        };
        let note = |code: &str| (format!("{code:?}"), "\"info\"".to_owned());
        assert_eq!(found(), BTreeSet::from([note("not_asked"), note("single_node")]), "{kind:?}");
        allow(&rules[1]);
        // A switchover could pause writes with another right, which the README says is not needed.
        let wanted = BTreeSet::from([note("missing_rights"), note("single_node")]);
        assert_eq!(found(), wanted, "{kind:?}");
    }
}

/// httpie and curl: one after the other, as a reader would type them.
#[test]
fn the_http_calls_are_answered() {
    let group = Group::start(ServerKind::Redis, 1);
    let daemon = Daemon::start(&[]);
    let http = daemon.http().to_string();
    let lines = blocks(&file("README.md"), "sh").into_iter();
    let calls: Vec<_> =
        lines.filter(|line| line.starts_with("http ") || line.starts_with("curl ")).collect();
    assert!(calls.len() >= 8, "{calls:?}");
    for call in calls {
        let words = words(&with_ours(&call, &group, &http));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (method, url, body) = match words[..] {
            // `name==value` of httpie is a field of the query.
            ["http", method, url] => (method, format!("http://127.0.0.1{url}"), ""),
            ["http", method, url, field] => {
                (method, format!("http://127.0.0.1{url}?{}", field.replace("==", "=")), "")
            }
            ["curl", "-X", method, url] => (method, url.to_owned(), ""),
            ["curl", "-X", method, url, "-d", body] => (method, url.to_owned(), body),
            ["curl", url] => ("GET", url.to_owned(), ""),
            _ => panic!("a call that this test does not understand: {call}"),
        };
        let path = url.strip_prefix(&format!("http://{http}")).expect("it goes to the program");
        if path.contains("/rules/") {
            // A reader types slower than replicas are found.
            daemon.wait_until_healthy(&group.master.addr(), &group.addrs());
        }
        let response = daemon.request(method, path, body);
        assert_eq!(response.status, 200, "{call}: {}", response.body);
        if (method, path) == ("GET", "/master") {
            assert_eq!(response.body, group.master.addr());
        }
    }
}

/// The user of the README may do what a failover needs, with a return and a repair, and nothing that it does not need.
#[test]
fn the_acl_rule_is_enough_and_no_more() {
    let line = commands("redis-cli").into_iter().find(|line| line.contains("ACL SETUSER"));
    let line = words(&line.expect("the README has the rule"));
    let setuser: Vec<&str> = line[1..].iter().map(String::as_str).collect();
    assert_eq!(setuser[..3], ["ACL", "SETUSER", "failover"]);
    for kind in ServerKind::all() {
        // Nobody else may do anything without a password, so that nothing works by accident.
        let options = Options::new().requirepass("admin").masterauth("admin");
        let mut group = Group::start_with(kind, 2, &options);
        for server in group.servers() {
            server.cmd(&setuser);
            server.cmd(&["CONFIG", "REWRITE"]);
        }
        let masters = format!("-masters={}", group.master.addr());
        let args = [&masters, "-redis_user=failover", "-check_interval=100", "-log_level=debug"];
        let env = [("REDIS_FAILOVER_REDIS_PASSWORD", "PASSWORD")];
        let daemon = Daemon::start_with(&Daemon::binary(), &args, &env);
        let name = group.master.addr();
        daemon.wait_until_healthy(&name, &group.addrs());
        group.master.kill9();
        daemon.wait_for(&name, PATIENCE, |view| {
            view["master"] != name.as_str() && view["status"] == "active"
        });
        group.master.restart();
        group.master.wait_for_role("slave");
        daemon.wait_for(&name, PATIENCE, |_| {
            daemon.history(&name).iter().all(|entry| entry["outcome"] == "done")
        });
        let mut used = BTreeSet::new();
        for server in group.servers() {
            assert_eq!(server.cmd(&["ACL", "LOG"]), "", "{kind:?} refused something");
            used.extend(commands_seen(server));
        }
        for allowed in setuser.iter().filter_map(|word| word.strip_prefix('+')) {
            assert!(
                used.contains(allowed),
                "{kind:?}: {allowed} is allowed and not used: {used:?}"
            );
        }
        assert!(!daemon.log().contains("refused:"), "{}", daemon.log());
    }
}

/// The commands that a server was sent since its start, in its own writing.
fn commands_seen(server: &Server) -> BTreeSet<String> {
    let stats = server.info("commandstats");
    stats.keys().filter_map(|key| key.strip_prefix("cmdstat_").map(str::to_owned)).collect()
}

#[test]
fn every_flag_that_is_named_exists() {
    let help = [&["--help"][..], &["migrate", "--help"]].map(|args| Daemon::run(args, &[]).stdout);
    let help = help.concat();
    let known: BTreeSet<&str> =
        help.split_whitespace().filter_map(|word| word.strip_prefix("--")).collect();
    let mut named = BTreeSet::new();
    for text in [file("README.md"), file("etc/failover.toml")] {
        for word in text.split(|c: char| c.is_whitespace() || "`(),;".contains(c)) {
            let Some(flag) = word.strip_prefix('-') else { continue };
            let flag = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
            let is_flag = |c: char| c.is_ascii_lowercase() || c == '_';
            if flag.len() > 1 && flag.chars().all(is_flag) {
                named.insert(flag.to_owned());
            }
        }
    }
    // Flags of cargo and of ledis-server.
    for flag in ["path", "rpl", "slaveof"] {
        named.remove(flag);
    }
    assert!(named.len() >= 8, "{named:?}");
    for flag in named {
        assert!(known.contains(flag.as_str()), "there is no flag {flag}:\n{help}");
    }
}

#[test]
fn every_key_of_the_file_is_a_flag() {
    let help = Daemon::run(&["--help"], &[]).stdout;
    let mut table = String::new();
    for line in file("etc/failover.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = format!("{name}_");
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let flag = format!("{table}{key}").replace("zk_base_dir", "zk_path");
            // A password on a command line is seen by everyone on the machine.
            let passwords = ["redis_password", "cluster_secret", "zk_password", "etcd_password"];
            let is_flag = !passwords.contains(&flag.as_str());
            assert_eq!(help.contains(&format!("--{flag} <")), is_flag, "{flag}");
        }
    }
}

#[test]
fn the_targets_of_make_and_the_paths_exist() {
    let makefile = file("Makefile");
    for text in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(file) {
        for target in text.split("make ").skip(1) {
            let Some((before, _)) = text.split_once(&format!("make {target}")) else { continue };
            // In prose, `make` is a verb as well.
            if !before.ends_with('`') && !before.ends_with('\n') {
                continue;
            }
            let target: String = target.chars().take_while(char::is_ascii_lowercase).collect();
            assert!(makefile.contains(&format!("\n{target}:")), "there is no target {target}");
        }
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if !link.starts_with("http") && !link.starts_with('#') {
                assert!(
                    fs::exists(format!("{ROOT}/{link}")).unwrap_or(false),
                    "{link} is not there"
                );
            }
        }
    }
    for line in commands("cargo") {
        let path = words(&line).pop().expect("a line has words");
        let manifest = Command::new("cargo")
            .args(["read-manifest", "--offline", "--manifest-path"])
            .arg(format!("{ROOT}/{path}/Cargo.toml"))
            .output()
            .expect("cargo runs this test");
        assert!(manifest.status.success(), "{line}");
    }
}
