use failover_core::record::HookEvent;
use tokio::sync::watch;

use super::*;
use crate::events::Events;
use crate::hooks::{Desk, Hooks, Surroundings, Verdict};
use crate::http::HEALTH_PROBLEMS_MAX;

fn full_rig() -> Rig {
    let rig = Rig::new(Loop::Commits, &[("b", "127.0.0.1:7000")]);
    let full = full_group();
    rig.shown.publish([(full.name.clone(), Some(full))]);
    rig
}

fn bare_group_json(name: &str, master: &str) -> Value {
    json!({
        "name": name, "flavor": null, "epoch": 0, "master": master,
        "status": "active", "status_reason": null,
        "diagnosis": {
            "name": "Healthy", "reason": "all is well",
            "since_at": "1970-01-01T00:00:01.500Z", "not_acting_because": null
        },
        "quorum": 1, "instances": [], "fencing": {"mode": "none", "min_replicas": null},
        "last_history_id": null
    })
}

fn full_group_json() -> Value {
    json!({
        "name": "cache", "flavor": "redis", "epoch": 3, "master": "[::1]:6379",
        "status": "active", "status_reason": null,
        "diagnosis": {
            "name": "Healthy", "reason": "all is well",
            "since_at": "1970-01-01T00:00:01.500Z", "not_acting_because": null
        },
        "quorum": 1,
        "instances": [{
            "addr": "[::1]:6380", "role": "replica", "state": "up", "how": "replied",
            "since_at": "1970-01-01T00:00:02.000Z", "offset": 90, "lag_bytes": 10,
            "link": "up", "link_down_ms": 0, "priority": 100, "run_id": "run",
            "replication_id": "repl", "version": "7.0.15", "rule": "prefer", "location": "here",
            "eligible": true, "not_eligible_because": null,
            "views": [{"node": "a", "state": "up", "how": "replied", "age_ms": 12}]
        }],
        "fencing": {"mode": "none", "min_replicas": null},
        "last_history_id": "cache-1"
    })
}

fn entry_json() -> Value {
    json!({
        "id": "cache-1", "group": "cache", "kind": "failover", "epoch": 3,
        "old_master": "127.0.0.1:6379", "new_master": "[::1]:6379",
        "cause": "MasterCrashed", "reason": "it refuses connections", "outcome": "done",
        "started_at": "1970-01-01T00:00:10.000Z", "finished_at": "1970-01-01T00:00:10.020Z",
        "leader": "a", "write_gap_ms": 7.25, "bytes_possibly_lost": 0,
        "steps": [{
            "name": "first_sign", "addr": "127.0.0.1:6379", "at_ms": 0.0, "node": "a", "note": null
        }],
        "ranking": [{
            "addr": "[::1]:6379", "rank": 1, "priority": 100, "offset": 90, "refused": null
        }]
    })
}

#[tokio::test]
async fn masters_are_a_plain_list_sorted_by_group() {
    let rig =
        Rig::new(Loop::Commits, &[("z", "127.0.0.1:1"), ("a", "127.0.0.1:9"), ("m", "[::1]:6379")]);
    let reply = rig.get("/master").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(reply.text, "127.0.0.1:9,[::1]:6379,127.0.0.1:1");
    assert_eq!(Rig::new(Loop::Commits, &[]).get("/master").await.text, "");
    let head = rig.send("HEAD", "/master", None, "").await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn groups_have_exactly_the_keys_of_the_interface() {
    let rig = full_rig();
    let all = rig.get("/v1/groups").await.read();
    assert_eq!(all, json!({"groups": [bare_group_json("b", "127.0.0.1:7000"), full_group_json()]}));
    assert_eq!(Rig::new(Loop::Commits, &[]).get("/v1/groups").await.read(), json!({"groups": []}));
}

#[tokio::test]
async fn a_group_is_found_by_name_and_by_its_masters_address() {
    let rig = full_rig();
    let expected = json!({"group": full_group_json()});
    for which in [
        "cache",
        "%63ache",
        "%5B%3A%3A1%5D%3A6379",
        "[::1]:6379",
        "%5B0%3A0%3A0%3A0%3A0%3A0%3A0%3A1%5D%3A6379",
    ] {
        assert_eq!(rig.get(&format!("/v1/groups/{which}")).await.read(), expected, "{which}");
    }
    for which in ["nobody", "[::1]:6380", "127.0.0.1:1", "a%2Fb", "CACHE"] {
        let message = rig.get(&format!("/v1/groups/{which}")).await.error(404, "unknown_group");
        assert!(message.contains("no group is named"), "{message}");
    }
    rig.get("/v1/groups/%FF").await.error(400, "bad_request");
}

#[tokio::test]
async fn names_of_groups_are_percent_decoded() {
    let rig = Rig::new(Loop::Commits, &[("käse?#%&+=", "127.0.0.1:1")]);
    let encoded = "k%C3%A4se%3F%23%25%26%2B%3D";
    let group = rig.get(&format!("/v1/groups/{encoded}")).await.read();
    assert_eq!(group["group"]["name"], "käse?#%&+=");
    rig.get(&format!("/v1/history?group={encoded}")).await.read();
    let resumed = rig.send("POST", &format!("/v1/groups/{encoded}/resume"), None, "").await.read();
    assert_eq!(resumed["group"]["name"], "käse?#%&+=");
}

#[tokio::test]
async fn history_has_exactly_the_keys_of_the_interface() {
    let rig = full_rig();
    let expected = json!({"history": [entry_json()]});
    for query in ["", "?group=cache", "?group=%5B::1%5D:6379", "?group=&limit=1", "?limit=1000"] {
        assert_eq!(rig.get(&format!("/v1/history{query}")).await.read(), expected, "{query}");
    }
    assert_eq!(rig.get("/v1/history?group=b").await.read(), json!({"history": []}));

    // What is not known yet is null, and no key is missing.
    let mut running = full_group();
    let open = &mut running.history[0];
    (open.new_master, open.finished_at) = (None, None);
    (open.write_gap_ms, open.bytes_possibly_lost) = (None, None);
    open.outcome = Outcome::Running;
    open.steps[0].addr = None;
    let candidate = &mut open.ranking[0];
    (candidate.rank, candidate.priority, candidate.offset) = (None, None, None);
    rig.shown.publish([(running.name.clone(), Some(running))]);
    let mut expected = entry_json();
    for key in ["new_master", "finished_at", "write_gap_ms", "bytes_possibly_lost"] {
        expected[key] = Value::Null;
    }
    expected["outcome"] = json!("running");
    expected["steps"][0]["addr"] = Value::Null;
    for key in ["rank", "priority", "offset"] {
        expected["ranking"][0][key] = Value::Null;
    }
    assert_eq!(rig.get("/v1/history").await.read(), json!({"history": [expected]}));
}

#[tokio::test]
async fn history_is_newest_first_over_all_groups_and_limited() {
    let rig = Rig::new(Loop::Commits, &[]);
    for (name, step) in [("x", 0), ("y", 5)] {
        let mut view = group(name, &format!("127.0.0.1:{}", 7000 + step));
        view.history =
            (0..80).rev().map(|n| entry(&format!("{name}-{n}"), 1_000 + n * 10 + step)).collect();
        rig.shown.publish([(view.name.clone(), Some(view))]);
    }
    let ids = |json: Value| -> Vec<String> {
        let list = json["history"].as_array().expect("a list").clone();
        list.iter().map(|entry| entry["id"].as_str().expect("an id").to_owned()).collect()
    };
    let all = ids(rig.get("/v1/history").await.read());
    assert_eq!(all.len(), 100);
    assert_eq!(all[..4], ["y-79", "x-79", "y-78", "x-78"]);
    assert_eq!(ids(rig.get("/v1/history?limit=1000").await.read()).len(), 160);
    assert_eq!(ids(rig.get("/v1/history?limit=1").await.read()), ["y-79"]);
    assert_eq!(ids(rig.get("/v1/history?group=x&limit=2").await.read()), ["x-79", "x-78"]);
}

#[tokio::test]
async fn history_says_what_is_wrong_with_its_query() {
    let rig = full_rig();
    for limit in ["0", "1001", "-1", "ten", "", "1.5", "99999999999999999999999"] {
        let message =
            rig.get(&format!("/v1/history?limit={limit}")).await.error(400, "bad_request");
        assert!(message.contains(&format!("limit is \"{limit}\"")), "{message}");
    }
    let message = rig.get("/v1/history?limit=1&limit=2").await.error(400, "bad_request");
    assert!(message.contains("limit is given 2 times"), "{message}");
    rig.get("/v1/history?group=cache&group=b").await.error(400, "bad_request");
    rig.get("/v1/history?group=nobody").await.error(404, "unknown_group");
}

#[tokio::test]
async fn health_is_about_this_node_and_lists_what_ails_the_groups() {
    let rig = full_rig();
    let version = env!("CARGO_PKG_VERSION");
    let reply = rig.get("/v1/health").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(
        reply.json(),
        json!({
            "ok": true, "version": version, "node": "a", "leader": "a", "broker": "none",
            "groups": 2, "problems": []
        })
    );

    let mut sick = full_group();
    sick.diagnosis.name = "MasterHung";
    sick.diagnosis.reason = "it says nothing".to_owned();
    sick.diagnosis.not_acting_because = Some("this node only watches".to_owned());
    rig.shown.publish([(sick.name.clone(), Some(sick))]);
    let mut halted = group("b", "127.0.0.1:7000");
    halted.status = StatusView::Halted;
    halted.status_reason = Some("nobody was promoted".to_owned());
    rig.shown.publish([(halted.name.clone(), Some(halted))]);
    let reply = rig.get("/v1/health").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(
        (&reply.json()["ok"], &reply.json()["problems"]),
        (
            &json!(true),
            &json!([
                "the group b is halted until it is resumed: nobody was promoted",
                "the group cache is MasterHung: it says nothing; nothing is done: this node only watches",
            ])
        )
    );

    rig.shown.set_leadership(&Leadership::None);
    let reply = rig.get("/v1/health").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    let json = reply.json();
    assert_eq!((&json["ok"], &json["leader"]), (&json!(false), &Value::Null));
    assert_eq!(json["problems"][0], "no leader is known: nobody acts");
}

#[tokio::test]
async fn health_stays_readable_when_everything_is_broken() {
    let rig = Rig::new(Loop::Commits, &[]);
    for n in 0..150 {
        let mut view = group(&format!("g{n:03}"), &format!("127.0.0.1:{}", 7000 + n));
        view.diagnosis.name = "MasterCrashed";
        if n < 20 {
            view.status = StatusView::Halted;
        }
        rig.shown.publish([(view.name.clone(), Some(view))]);
    }
    let json = rig.get("/v1/health").await.json();
    let problems = json["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), HEALTH_PROBLEMS_MAX + 1);
    assert_eq!(problems[HEALTH_PROBLEMS_MAX], "70 more problems are not listed; see /v1/groups");
}

#[tokio::test]
async fn reads_say_when_there_is_no_leader_and_who_else_leads() {
    let rig = full_rig();
    rig.shown.set_leadership(&Leadership::None);
    assert_eq!(rig.get("/v1/groups").await.json()["leader"], Value::Null);
    rig.shown.set_leadership(&Leadership::Follower { leader: NodeId::new("b") });
    let json = rig.get("/v1/groups/cache").await.json();
    assert_eq!((&json["node"], &json["leader"]), (&json!("a"), &json!("b")));
}

#[tokio::test]
async fn what_is_not_served_is_said_in_json() {
    let rig = full_rig();
    for path in ["/", "/masters", "/master/", "/v1", "/v1/groups/", "/v1/groups/cache/nothing"] {
        let message = rig.get(path).await.error(404, "not_found");
        assert!(message.ends_with(path), "{message}");
    }
    for (path, methods, allow) in [
        ("/master", &["PATCH", "OPTIONS"][..], "GET,HEAD,POST,PUT,DELETE"),
        ("/v1/groups", &["POST", "PUT", "DELETE", "PATCH"], "GET,HEAD"),
        ("/v1/groups/cache", &["POST", "PUT", "DELETE"], "GET,HEAD"),
        ("/v1/groups/cache/resume", &["GET", "PUT", "DELETE"], "POST"),
        ("/v1/groups/cache/pause", &["GET", "PUT", "DELETE"], "POST"),
        ("/v1/groups/cache/rules/127.0.0.1:1", &["GET", "POST"], "PUT,DELETE"),
        ("/v1/pause", &["GET", "DELETE"], "POST"),
        ("/v1/resume", &["GET", "DELETE"], "POST"),
        ("/v1/groups/cache/replicas/127.0.0.1:1", &["GET", "PUT", "POST"], "DELETE"),
        ("/v1/history", &["POST"], "GET,HEAD"),
        ("/v1/cluster", &["POST", "DELETE"], "GET,HEAD"),
        ("/v1/cluster/members", &["PUT", "DELETE"], "GET,HEAD,POST"),
        ("/v1/cluster/members/127.0.0.1:1", &["GET", "POST", "PUT"], "DELETE"),
        ("/v1/health", &["POST"], "GET,HEAD"),
        ("/v1/hooks", &["POST", "DELETE"], "GET,HEAD"),
    ] {
        for method in methods {
            let reply = rig.send(method, path, None, "").await;
            let message = reply.error(405, "method_not_allowed");
            assert!(message.contains(method) && message.contains(path), "{message}");
            assert_eq!(reply.headers[header::ALLOW], allow, "{method} {path}");
        }
    }
    assert!(rig.asked().is_empty());
}

#[tokio::test]
async fn the_doctor_says_what_it_finds_and_every_key_is_there() {
    let rig = Rig::new(Loop::Commits, &[("b", "127.0.0.1:7000")]);
    let read = rig.get("/v1/groups/127.0.0.1:7000/doctor").await.read();
    assert_eq!(
        read,
        json!({
            "group": "b",
            "master": "127.0.0.1:7000",
            "findings": [
                {
                    "code": "no_replica",
                    "severity": "error",
                    "addr": null,
                    "message": "127.0.0.1:7000 has no replica: when it dies, nothing can take over",
                    "fix": "start another server with replicaof set to the master; it is found by itself"
                },
                {
                    "code": "single_node",
                    "severity": "info",
                    "addr": null,
                    "message": read["findings"][1]["message"],
                    "fix": read["findings"][1]["fix"]
                }
            ]
        })
    );
    rig.get("/v1/groups/nobody/doctor").await.error(404, "unknown_group");
    rig.send("POST", "/v1/groups/b/doctor", None, "").await.error(405, "method_not_allowed");
}

#[tokio::test]
async fn hooks_are_shown_with_every_key() {
    let mut rig = Rig::new(Loop::Commits, &[]);
    assert_eq!(rig.get("/v1/hooks").await.read(), json!({"hooks": []}));
    let mut hooks = Hooks::default();
    hooks.add([HookEvent::Halted], |_call| async { Ok(()) });
    hooks.add_before(|_plan| async { Ok(Verdict::Allow) });
    let (node, clock) = (NodeId::new("a"), Clock::start());
    let broker = Broker::Solo { node: node.clone() };
    let (events, _lanes) = Events::lanes();
    let (_stop, stop) = watch::channel(false);
    let groups = Shown::new(node.clone(), broker.clone(), clock).into();
    let around = Surroundings { node, clock, broker, events, groups, stop };
    let (desk, _work) = Desk::open(hooks, around);
    rig.context = rig.context.with_hooks(desk.shown().clone());
    let hook = |name: &str, event: &str| {
        json!({
            "name": name, "kind": "handler", "events": [event], "queued": 0, "delivered": 0,
            "failed": 0, "last_error": null, "last_at": null
        })
    };
    let expected =
        json!({"hooks": [hook("handler-1", "halted"), hook("handler-2", "before_failover")]});
    assert_eq!(rig.get("/v1/hooks").await.read(), expected);
}
