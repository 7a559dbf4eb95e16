//! What LedisDB cannot do, and what is said about it.

use serde_json::Value;

use crate::common::daemon::instance;
use crate::common::scenario::{
    guard, guard_by_file, guard_by_file_with, wait_for_diagnosis, wait_for_failover,
    wait_until_guarded,
};
use crate::common::{Daemon, Group, Options, PATIENCE, Server, ServerKind};

const KIND: ServerKind = ServerKind::Ledisdb;

#[test]
fn a_master_on_a_port_that_nobody_can_follow_is_refused_with_a_sentence() {
    let server = Server::start(KIND, &Options::new().high_port());
    let addr = server.addr();
    let daemon = Daemon::start(&["-check_interval=100"]);
    for refused in [
        daemon.post(&format!("/master?masters={addr}"), ""),
        daemon.put(&format!("/master?masters={addr}"), ""),
    ] {
        assert_eq!(
            (refused.status, refused.error_code()),
            (409, Some("refused")),
            "{}",
            refused.body
        );
        let why = refused.json["error"]["message"].as_str().expect("a sentence");
        for words in [&*addr, "LedisDB", "above 32767", "nothing was changed"] {
            assert!(why.contains(words), "{words:?} is not in {why:?}");
        }
    }
    assert_eq!(daemon.get("/master").body, "");
    // A master of the flags is guarded, and the diagnosis says the same.
    let daemon = Daemon::start(&["-check_interval=100", &format!("-masters={addr}")]);
    let view = wait_for_diagnosis(&daemon, &addr, "MasterMisconfigured");
    let why = view["diagnosis"]["reason"].as_str().expect("a sentence");
    assert!(why.contains("above 32767"), "{why}");
    // Redis listens wherever it likes.
    let redis = Server::start(ServerKind::Redis, &Options::new().high_port());
    let answer = daemon.post(&format!("/master?masters={}", redis.addr()), "");
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[test]
fn a_slave_on_such_a_port_is_never_promoted() {
    let mut group =
        Group::start_each(KIND, &Options::new(), &[Options::new(), Options::new().high_port()]);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let high = group.replicas[1].addr();
    let view = daemon.group(&name).expect("it is guarded");
    let why = instance(&view, &high).expect("it is known")["not_eligible_because"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("32767")), "{view:#}");
    group.master.kill9();
    let entry = wait_for_failover(&daemon, &name);
    assert_eq!(entry["new_master"], group.replicas[0].addr(), "{entry:#}");
}

#[test]
fn the_priorities_are_those_of_our_configuration() {
    let mut group = Group::start(KIND, 2);
    let name = group.master.addr();
    // By address the other one would be chosen.
    let mut addrs = group.replicas.iter().map(Server::addr).collect::<Vec<_>>();
    addrs.sort();
    let config = format!(
        "addr = \"127.0.0.1:0\"\ncheck_interval = 100\n[[group]]\nmaster = \"{name}\"\n\
         [[group.instance]]\naddr = \"{}\"\npriority = 10\n",
        addrs[1]
    );
    let daemon = guard_by_file(&config);
    wait_until_guarded(&daemon, &name, &group.addrs());
    group.wait_in_step();
    group.master.kill9();
    let entry = wait_for_failover(&daemon, &name);
    assert_eq!(
        (&entry["new_master"], &entry["ranking"][0]["priority"]),
        (&(*addrs[1]).into(), &10.into())
    );
}

#[test]
fn a_password_lets_us_in_and_a_wrong_one_is_told() {
    let server = Server::start(KIND, &Options::new().requirepass("right"));
    let addr = server.addr();
    let config = format!("addr = \"127.0.0.1:0\"\ncheck_interval = 100\nmasters = [\"{addr}\"]\n");
    let let_in = guard_by_file_with(&config, &[("REDIS_FAILOVER_REDIS_PASSWORD", "right")]);
    let view = wait_for_diagnosis(&let_in, &addr, "NoReplicas");
    assert_eq!(view["flavor"], "ledisdb");
    let users = [("REDIS_FAILOVER_REDIS_PASSWORD", "right"), ("REDIS_FAILOVER_REDIS_USER", "me")];
    for (env, words) in [
        (&[][..], "not authenticated"),
        (&[("REDIS_FAILOVER_REDIS_PASSWORD", "wrong")], "authentication failure"),
        // It knows no users.
        (&users, "invalid command param"),
    ] {
        let daemon = guard_by_file_with(&config, env);
        let view = wait_for_diagnosis(&daemon, &addr, "AuthenticationFailed");
        let why = view["diagnosis"]["reason"].as_str().expect("a sentence");
        assert!(why.contains(words) && !why.contains("wrong"), "{why}");
    }
}

#[test]
fn the_doctor_says_what_is_true_and_what_it_cannot_know() {
    let group = Group::start(KIND, 2);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let answer = daemon.get(&format!("/v1/groups/{name}/doctor"));
    let findings = answer.json["findings"].as_array().expect("a list").clone();
    let codes: Vec<&Value> = findings.iter().map(|finding| &finding["code"]).collect();
    assert_eq!(codes, ["single_node", "not_asked"], "{}", answer.body);
    let not_asked = findings[1]["message"].as_str().expect("a sentence");
    assert!(not_asked.contains("LedisDB"), "{not_asked}");
    // Nothing that it does not know was sent to it in vain: it would be in no log of ours, and every one is asked again.
    wait_until_guarded(&daemon, &name, &group.addrs());
    let alone = Server::start(KIND, &Options::new().high_port());
    let daemon = Daemon::start(&["-check_interval=100", &format!("-masters={}", alone.addr())]);
    wait_for_diagnosis(&daemon, &alone.addr(), "MasterMisconfigured");
    let answer = daemon.get(&format!("/v1/groups/{}/doctor", alone.addr()));
    assert!(answer.body.contains("above 32767"), "{}", answer.body);
}

#[test]
fn a_plan_says_what_will_be_done_here() {
    let group = Group::start(KIND, 1);
    let name = group.master.addr();
    let daemon = guard(&group, &[]);
    let path = format!("/v1/groups/{name}/switchover");
    let dry = daemon.post(&path, r#"{"dry_run":true}"#);
    let plan = dry.json["plan"].to_string();
    assert!(plan.contains("refuses writes") && plan.contains("log entries behind"), "{plan}");
    assert_eq!(dry.json["warnings"], Value::Array(Vec::new()), "{}", dry.body);
    daemon.wait_for(&name, PATIENCE, |view| view["epoch"] == 0);
    assert_eq!(group.master.info("server")["readonly"], "false");
}
