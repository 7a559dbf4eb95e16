//! Every address with a loop that is a map: what is asked of it is written down, what it does is published.

mod changes;
mod cluster;
mod connections;
mod reads;

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use failover_core::event::{self, Answer, GroupSpec, RefusalCode};
use failover_core::fleet::Policies;
use failover_core::instance::Flavor;
use failover_core::node::{GroupName, Leadership, NodeId, Token};
use failover_core::record::{HistoryEntry, Kind, Outcome, RankedCandidate, Step};
use failover_core::time::Time;
use failover_core::view::{
    DiagnosisView, FencingView, GroupView, How, InstanceView, NodeView, State, StatusView,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Context, router};
use crate::broker::Broker;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::doctor::Doctor;
use crate::driver::Logins;
use crate::requests::{Requests, Waiting};
use crate::resolve::Resolver;
use crate::shown::Shown;

/// What the loop does with a request.
#[derive(Clone, Copy)]
enum Loop {
    Commits,
    Refuses(RefusalCode),
    /// Takes the request and never answers.
    Hangs,
    /// Takes the request and ends.
    Ends,
}

struct Rig {
    context: Context,
    shown: Arc<Shown>,
    asked: Arc<Mutex<Vec<event::Request>>>,
}

/// What came back.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Rig {
    /// A node `a` that leads, with groups of these names and masters.
    fn new(kind: Loop, groups: &[(&str, &str)]) -> Self {
        let alone = Broker::Solo { node: NodeId::new("a") };
        let shown = Arc::new(Shown::new(NodeId::new("a"), alone, Clock::start()));
        shown.set_leadership(&Leadership::Leader(Token(1)));
        for (name, master) in groups {
            let view = group(name, master);
            shown.publish([(view.name.clone(), Some(view))]);
        }
        let (requests, mut waiting) = Requests::channel();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (for_loop, heard) = (Arc::clone(&shown), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut held: Vec<Waiting> = Vec::new();
            while let Some(next) = waiting.recv().await {
                let Waiting { request, .. } = &next;
                heard.lock().expect("not poisoned").push(request.clone());
                match kind {
                    Loop::Commits => {
                        commit(&for_loop, request);
                        let _ = next.answer.send(Answer::Done);
                    }
                    Loop::Refuses(code) => {
                        let message = "because of this".to_owned();
                        let _ = next.answer.send(Answer::Refused { code, message });
                    }
                    Loop::Hangs => held.push(next),
                    Loop::Ends => return,
                }
            }
        });
        let cluster = Cluster::Alone { node: NodeId::new("a"), http: None };
        let (logins, policies) = (Logins::default(), Policies::default());
        let doctor = Doctor::new(Clock::start(), Resolver::new(), logins, policies);
        Self { context: Context::new(Arc::clone(&shown), requests, cluster, doctor), shown, asked }
    }

    /// The same in this cluster.
    fn within(mut self, cluster: Cluster) -> Self {
        self.context.cluster = cluster;
        self
    }

    async fn get(&self, uri: &str) -> Reply {
        self.send("GET", uri, None, "").await
    }

    async fn send(&self, method: &str, uri: &str, kind: Option<&str>, body: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let response = router(self.context.clone()).oneshot(request).await.expect("infallible");
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Reply { status: head.status, headers: head.headers, text }
    }

    fn asked(&self) -> Vec<event::Request> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl Reply {
    fn json(&self) -> Value {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json", "{}", self.text);
        serde_json::from_str(&self.text).expect("JSON")
    }

    /// The content of a read, after its envelope was checked.
    fn read(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        let mut json = self.json();
        let object = json.as_object_mut().expect("an object");
        assert_eq!(object.remove("node"), Some(json!("a")));
        assert_eq!(object.remove("leader"), Some(json!("a")));
        assert_eq!(object.remove("stale_ms"), Some(json!(0)));
        let as_of = object.remove("as_of").expect("as_of");
        let as_of = as_of.as_str().expect("a text");
        assert_eq!((as_of.len(), &as_of[10..11], &as_of[23..]), (24, "T", "Z"), "{as_of}");
        json
    }

    /// The message of an error of this status and code, after its shape was checked.
    fn error(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let json = self.json();
        let message = json["error"]["message"].as_str().expect("a message").to_owned();
        assert_eq!(json, json!({"error": {"code": code, "message": message, "leader": null}}));
        message
    }
}

fn commit(shown: &Shown, request: &event::Request) {
    let add = |specs: &[GroupSpec]| {
        for spec in specs {
            let master = spec.master.to_string();
            if shown.group(&master).is_none() {
                let view = group(&master, &master);
                shown.publish([(view.name.clone(), Some(view))]);
            }
        }
    };
    match request {
        event::Request::Switchover { .. } | event::Request::Failover { .. } => {}
        event::Request::Add(specs) => add(specs),
        event::Request::Replace(specs) => {
            for gone in shown.groups() {
                if specs.iter().all(|spec| spec.master != gone.master) {
                    shown.publish([(gone.name.clone(), None)]);
                }
            }
            add(specs);
        }
        event::Request::Remove(which) => {
            for gone in which.iter().filter_map(|which| shown.group(which)) {
                shown.publish([(gone.name.clone(), None)]);
            }
        }
        event::Request::Resume(name) => {
            let mut view = GroupView::clone(&shown.group(name.as_str()).expect("it is known"));
            (view.status, view.status_reason) = (StatusView::Active, None);
            shown.publish([(name.clone(), Some(view))]);
        }
        // What becomes of these is the loop's; tests/pause.rs asks the whole program.
        event::Request::Pause { .. }
        | event::Request::ResumeAll
        | event::Request::Forget { .. }
        | event::Request::Rule { .. } => {}
    }
}

/// A healthy group without replicas and without history.
fn group(name: &str, master: &str) -> GroupView {
    GroupView {
        name: GroupName::new(name).expect("a name"),
        flavor: None,
        epoch: 0,
        master: master.parse().expect("an address"),
        status: StatusView::Active,
        status_reason: None,
        diagnosis: DiagnosisView {
            name: "Healthy",
            reason: "all is well".to_owned(),
            since_at: Time::from_millis(1_500),
            not_acting_because: None,
        },
        quorum: 1,
        instances: Vec::new(),
        fencing: FencingView { mode: "none", min_replicas: None },
        last_history_id: None,
        history: Vec::new(),
    }
}

/// A group of which everything that can be known is known.
fn full_group() -> GroupView {
    let replica = InstanceView {
        addr: "[::1]:6380".parse().expect("an address"),
        role: "replica",
        state: State::Up,
        how: How::Replied,
        since_at: Time::from_millis(2_000),
        offset: Some(90),
        lag_bytes: Some(10),
        link: Some("up"),
        link_down_ms: Some(0),
        priority: Some(100),
        run_id: Some("run".to_owned()),
        replication_id: Some("repl".to_owned()),
        version: Some("7.0.15".to_owned()),
        rule: Some("prefer"),
        location: Some("here".to_owned()),
        eligible: true,
        not_eligible_because: None,
        views: vec![NodeView {
            node: NodeId::new("a"),
            state: State::Up,
            how: How::Replied,
            age_ms: 12,
        }],
    };
    GroupView {
        flavor: Some(Flavor::Redis),
        epoch: 3,
        instances: vec![replica],
        last_history_id: Some("cache-1".to_owned()),
        history: vec![entry("cache-1", 10_000)],
        ..group("cache", "[::1]:6379")
    }
}

fn entry(id: &str, started_at_ms: u64) -> HistoryEntry {
    HistoryEntry {
        id: id.to_owned(),
        kind: Kind::Failover,
        epoch: 3,
        old_master: "127.0.0.1:6379".parse().expect("an address"),
        new_master: Some("[::1]:6379".parse().expect("an address")),
        cause: "MasterCrashed".to_owned(),
        reason: "it refuses connections".to_owned(),
        outcome: Outcome::Done,
        started_at: Time::from_millis(started_at_ms),
        finished_at: Some(Time::from_millis(started_at_ms + 20)),
        leader: NodeId::new("a"),
        write_gap_ms: Some(7.25),
        bytes_possibly_lost: Some(0),
        steps: vec![Step {
            name: "first_sign".to_owned(),
            addr: Some("127.0.0.1:6379".parse().expect("an address")),
            at_ms: 0.0,
            node: NodeId::new("a"),
            note: None,
        }],
        ranking: vec![RankedCandidate {
            addr: "[::1]:6379".parse().expect("an address"),
            rank: Some(1),
            priority: Some(100),
            offset: Some(90),
            refused: None,
        }],
    }
}
