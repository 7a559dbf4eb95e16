use std::time::Duration;

use super::*;
use crate::cluster::pretended::Pretended;
use crate::cluster::{ClusterView, MemberView, NotChanged, Role};

const JSON: Option<&str> = Some("application/json");

fn addr(text: &str) -> failover_core::addr::Addr {
    text.parse().expect("an address")
}

/// Two members that vote, and one of which nothing is known yet.
fn view() -> ClusterView {
    let member = |n: u16, role| MemberView {
        id: NodeId::new(&format!("127.0.0.1:1200{n}")),
        addr: Some(addr(&format!("127.0.0.1:1200{n}"))),
        http: Some(addr(&format!("127.0.0.1:1100{n}"))),
        role,
        last_contact_ms: Some(u64::from(n)),
        log_index: Some(7),
        reachable: true,
    };
    let unknown = MemberView {
        id: NodeId::new("[::1]:12002~0badcafe"),
        addr: Some(addr("[::1]:12002")),
        http: None,
        role: Role::Learner,
        last_contact_ms: None,
        log_index: None,
        reachable: false,
    };
    let members = vec![member(0, Role::Leader), member(1, Role::Follower), unknown];
    ClusterView { broker: "raft", term: Some(3), members }
}

fn members_json() -> Value {
    json!([
        {"id": "127.0.0.1:12000", "addr": "127.0.0.1:12000", "http": "127.0.0.1:11000",
         "role": "leader", "last_contact_ms": 0, "log_index": 7, "reachable": true},
        {"id": "127.0.0.1:12001", "addr": "127.0.0.1:12001", "http": "127.0.0.1:11001",
         "role": "follower", "last_contact_ms": 1, "log_index": 7, "reachable": true},
        {"id": "[::1]:12002~0badcafe", "addr": "[::1]:12002", "http": null,
         "role": "learner", "last_contact_ms": null, "log_index": null, "reachable": false},
    ])
}

/// A member of a cluster that answers every change like this.
fn member(result: impl Into<Option<Result<(), NotChanged>>>) -> (Rig, Arc<Pretended>) {
    let pretended = Arc::new(Pretended {
        view: view(),
        leader_http: Some(addr("127.0.0.1:11000")),
        result: result.into(),
        asked: Mutex::default(),
    });
    let cluster = Cluster::Pretended(Arc::clone(&pretended));
    (Rig::new(Loop::Commits, &[]).within(cluster), pretended)
}

fn asked(pretended: &Pretended) -> Vec<String> {
    pretended.asked.lock().expect("not poisoned").clone()
}

#[tokio::test]
async fn a_cluster_has_exactly_the_keys_of_the_interface() {
    let (rig, _) = member(Ok(()));
    let expected = json!({"broker": "raft", "term": 3, "members": members_json()});
    assert_eq!(rig.get("/v1/cluster").await.read(), expected);
    let expected = json!({"members": members_json()});
    assert_eq!(rig.get("/v1/cluster/members").await.read(), expected);
}

#[tokio::test]
async fn a_node_that_is_alone_is_its_only_member_and_stays_so() {
    for http in [None, Some("127.0.0.1:11000")] {
        let cluster = Cluster::Alone { node: NodeId::new("a"), http: http.map(addr) };
        let rig = Rig::new(Loop::Commits, &[]).within(cluster);
        let members = json!([{
            "id": "a", "addr": null, "http": http, "role": "leader", "last_contact_ms": 0,
            "log_index": null, "reachable": true
        }]);
        let expected = json!({"broker": "none", "term": null, "members": members});
        assert_eq!(rig.get("/v1/cluster").await.read(), expected);
        assert_eq!(rig.get("/v1/cluster/members").await.read(), json!({"members": members}));
        for (method, uri, body) in [
            ("POST", "/v1/cluster/members", r#"{"addr":"127.0.0.1:12001"}"#),
            ("DELETE", "/v1/cluster/members/127.0.0.1:12001", ""),
        ] {
            let message = rig.send(method, uri, JSON, body).await.error(409, "refused");
            assert!(message.contains("alone") && message.contains("raft_addr"), "{message}");
        }
    }
}

#[tokio::test]
async fn members_are_taken_in_replaced_and_taken_out() {
    let (rig, pretended) = member(Ok(()));
    let uri = "/v1/cluster/members";
    for (method, uri, body) in [
        ("POST", uri, r#"{"addr":"127.0.0.1:12003"}"#),
        ("POST", uri, r#"{"addr":"Node-D:1","replaces":null}"#),
        ("POST", uri, r#"{"addr":"[::1]:1","replaces":"[::1]:12002~0badcafe"}"#),
        ("DELETE", "/v1/cluster/members/127.0.0.1:12001", ""),
        ("DELETE", "/v1/cluster/members/%5B%3A%3A1%5D%3A12002", ""),
        ("DELETE", "/v1/cluster/members/%5B::1%5D:12002~0badcafe", ""),
    ] {
        let reply = rig.send(method, uri, JSON, body).await;
        assert_eq!(reply.read(), json!({"members": members_json()}), "{method} {uri} {body}");
    }
    assert_eq!(
        asked(&pretended),
        [
            "add 127.0.0.1:12003 None",
            "add node-d:1 None",
            "add [::1]:1 Some(\"[::1]:12002~0badcafe\")",
            "remove 127.0.0.1:12001",
            "remove [::1]:12002",
            "remove [::1]:12002~0badcafe",
        ]
    );
}

#[tokio::test]
async fn a_change_of_members_that_is_no_change_is_explained() {
    let (rig, pretended) = member(Ok(()));
    for (body, why) in [
        ("", "EOF"),
        ("{}", "missing field `addr`"),
        ("[]", "JSON object"),
        (r#"{"addr":"127.0.0.1"}"#, "\"127.0.0.1\" is not an address: expected host:port"),
        (r#"{"addr":7}"#, "invalid type"),
        (r#"{"addr":"a:1","replace":"b:1"}"#, "unknown field `replace`"),
        (r#"{"addr":"a:1","replaces":"b"}"#, "\"b\" is not an address"),
        (r#"{"addr":"a:1","replaces":""}"#, "\"\" is not an address"),
    ] {
        let reply = rig.send("POST", "/v1/cluster/members", JSON, body).await;
        let message = reply.error(400, "bad_request");
        assert!(message.contains(why), "{body}: {message}");
    }
    for member in ["nobody", "127.0.0.1:0", "~0badcafe", "%FF", "a%2Fb:1"] {
        let uri = format!("/v1/cluster/members/{member}");
        rig.send("DELETE", &uri, None, "").await.error(400, "bad_request");
    }
    let long = format!(r#"{{"addr":"{}"}}"#, "a".repeat(70_000));
    rig.send("POST", "/v1/cluster/members", JSON, &long).await.error(413, "too_large");
    assert!(asked(&pretended).is_empty());
}

#[tokio::test]
async fn what_is_refused_names_the_leader_to_ask_instead() {
    for (code, status, name) in [
        (RefusalCode::Refused, 409, "refused"),
        (RefusalCode::Busy, 409, "busy"),
        (RefusalCode::NoLeader, 503, "no_leader"),
        (RefusalCode::NoQuorum, 503, "no_quorum"),
        (RefusalCode::UnknownOutcome, 504, "unknown_outcome"),
    ] {
        let message = "because of this".to_owned();
        let (rig, pretended) = member(Err(NotChanged { code, message }));
        let body = r#"{"addr":"127.0.0.1:12003"}"#;
        let reply = rig.send("POST", "/v1/cluster/members", JSON, body).await;
        assert_eq!(reply.status.as_u16(), status);
        let error = json!({
            "code": name, "message": "because of this", "leader": "127.0.0.1:11000"
        });
        assert_eq!(reply.json(), json!({"error": error}));
        assert_eq!(asked(&pretended).len(), 1);

        // So do changes of the groups.
        let cluster = Cluster::Pretended(pretended);
        let rig = Rig::new(Loop::Refuses(code), &[]).within(cluster);
        let reply = rig.send("POST", "/master?masters=127.0.0.1:1", None, "").await;
        assert_eq!((reply.status.as_u16(), reply.json()), (status, json!({"error": error})));
    }
    let (mut rig, pretended) = member(None);
    rig.context.limits.answer_timeout = Duration::from_millis(20);
    let reply = rig.send("DELETE", "/v1/cluster/members/127.0.0.1:12001", None, "").await;
    assert_eq!((reply.status.as_u16(), asked(&pretended).len()), (504, 1));
    let error = &reply.json()["error"];
    assert_eq!(
        (&error["code"], &error["leader"]),
        (&json!("unknown_outcome"), &json!("127.0.0.1:11000"))
    );
    assert!(error["message"].as_str().expect("a text").contains("read /v1/cluster"), "{error}");

    let mut hanging = Rig::new(Loop::Hangs, &[]).within(Cluster::Pretended(pretended));
    hanging.context.limits = rig.context.limits;
    let reply = hanging.send("POST", "/master?masters=127.0.0.1:1", None, "").await;
    assert_eq!(reply.status.as_u16(), 504);
    assert_eq!(reply.json()["error"]["leader"], "127.0.0.1:11000");
}
