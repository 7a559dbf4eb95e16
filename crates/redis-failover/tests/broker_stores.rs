//! What others find in a ZooKeeper or an etcd that nodes agree through, who may change it, and moving from one broker to
//! another.

mod common;

use std::net::SocketAddr;

use serde_json::{Value, json};
use zookeeper_client::{Client as ZkClient, CreateMode, Error as ZkError};

use common::http::Client;
use common::scenario::wait_until_guarded;
use common::store::on_each_outer;
use common::together::{guard_by, register, start_guard, wait_until_settled};
use common::wire::Wire;
use common::{Agree, Cluster, Daemon, Group, PATIENCE, Server, ServerKind, Store, wait_until};

/// Asks a ZooKeeper as another program would.
struct Zk {
    runtime: tokio::runtime::Runtime,
    client: ZkClient,
}

impl Zk {
    fn connect(addrs: &str, login: Option<&str>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads can be started");
        let mut connector = ZkClient::connector();
        if let Some(login) = login {
            connector = connector.with_auth("digest", login.as_bytes());
        }
        let client = runtime.block_on(connector.connect(addrs)).expect("it answers");
        Self { runtime, client }
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, ZkError> {
        self.runtime.block_on(self.client.get_data(path)).map(|(value, _)| value)
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.get(path).expect("it is there")).expect("it is JSON")
    }

    fn set(&self, path: &str, value: &str) -> Result<(), ZkError> {
        self.runtime.block_on(self.client.set_data(path, value.as_bytes(), None)).map(drop)
    }

    fn create(&self, path: &str, value: &str) {
        let options = CreateMode::Persistent.with_acls(zookeeper_client::Acls::anyone_all());
        let parent = path.rsplit_once('/').expect("a path").0;
        self.runtime.block_on(self.client.mkdir(parent, &options)).expect("it is writable");
        let created = self.runtime.block_on(self.client.create(path, value.as_bytes(), &options));
        created.expect("it is writable");
    }

    fn children(&self, path: &str) -> Vec<String> {
        self.runtime.block_on(self.client.list_children(path)).expect("it is there")
    }
}

/// Asks an etcd as another program would.
fn etcd(addrs: &str, path: &str, body: &Value) -> Value {
    let addr: SocketAddr = addrs.parse().expect("one address");
    let answer = Client::new(addr).with_limit(PATIENCE).request("POST", path, &body.to_string());
    let answer = answer.expect("it answers");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json
}

/// Tools of the original read the list of masters, who leads and who would: they go on reading them. And what it
/// guarded is guarded on, without being named again.
#[test]
fn zookeeper_has_what_the_original_had_and_its_masters_are_taken_over() {
    if !Agree::Zk.is_there() {
        return;
    }
    let store = Store::shared(Agree::Zk);
    let mut group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let mut cluster = Cluster::plan_by(Agree::Zk, 2);
    let base = cluster.setting("-zk_path").expect("it was set").to_owned();
    let zk = Zk::connect(&store.addrs(), None);
    zk.create(&format!("{base}/masters"), &json!([name]).to_string());
    cluster.start_all();
    cluster.wait_masters(&[&name], PATIENCE);
    cluster.wait_until_guarded(&name, &group.addrs());

    assert_eq!(zk.json(&format!("{base}/masters")), json!([name]));
    let leader = cluster.leader_of_all();
    wait_until("it is written down who leads", PATIENCE, || {
        let written = zk.json(&format!("{base}/leader"));
        let http = cluster.node(leader).http().to_string();
        (written["addr"] == http && written["pid"].is_u64()).then_some(())
    });
    let candidates = zk.children(&format!("{base}/candidates"));
    assert_eq!(candidates.len(), 2, "{candidates:?}");
    let digits = |name: &str| name.strip_prefix("lock-").is_some_and(|digits| digits.len() == 10);
    assert!(candidates.iter().all(|name| digits(name)), "{candidates:?}");

    group.master.kill9();
    let new = group.replicas[0].addr();
    cluster.wait_masters(&[&new], PATIENCE);
    assert_eq!(zk.json(&format!("{base}/masters")), json!([new]));
    cluster.wait_for_failover(&name);
    let stored = zk.json(&format!("{base}/groups/{name}"));
    assert_eq!((&stored["version"], &stored["entry"]["epoch"]), (&"1".into(), &1.into()));
    assert!(stored["entry"]["instances"].is_object(), "{stored:#}");
    assert!(!zk.children(&format!("{base}/groups/{name}")).is_empty(), "its history is below it");
}

/// With a login everyone reads and only whoever has it writes; what the nodes share is read by none but them.
#[test]
fn zookeeper_lets_only_whoever_has_the_login_change_anything() {
    if !Agree::Zk.is_there() {
        return;
    }
    let store = Store::shared(Agree::Zk);
    let group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let base = Store::new_place();
    let flags = [
        format!("-zk_addr={}", store.addrs()),
        format!("-zk_path={base}"),
        "-zk_user=guard".to_owned(),
        format!("-masters={name}"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let password = "horse battery";
    let env = [("REDIS_FAILOVER_ZK_PASSWORD", password)];
    let node = Daemon::start_with(&Daemon::binary(), &flags, &env);
    wait_until_guarded(&node, &name, &group.addrs());
    assert!(!node.log().contains(password));

    let stranger = Zk::connect(&store.addrs(), None);
    assert_eq!(stranger.json(&format!("{base}/masters")), json!([name]));
    for path in ["masters", "groups", "leader", "lease", &format!("groups/{name}")] {
        let written = stranger.set(&format!("{base}/{path}"), "[]");
        assert_eq!(written, Err(ZkError::NoAuth), "{path}");
    }
    assert_eq!(stranger.get(&format!("{base}/secret")), Err(ZkError::NoAuth));
    let owner = Zk::connect(&store.addrs(), Some(&format!("guard:{password}")));
    assert!(owner.get(&format!("{base}/secret")).is_ok_and(|secret| secret.len() == 64));
}

/// An etcd that asks for a login gets it, also again after a token has run out, and without one says so.
#[test]
fn etcd_with_users_is_logged_in_to() {
    if !Agree::Etcd.is_there() {
        return;
    }
    let store = Store::start(Agree::Etcd, 1);
    let addrs = store.addrs();
    let prefix = Store::new_place();
    let call = |path: &str, body: Value| etcd(&addrs, path, &body);
    call("/v3/auth/user/add", json!({ "name": "root", "password": "top" }));
    call("/v3/auth/role/add", json!({ "name": "root" }));
    call("/v3/auth/user/grant", json!({ "user": "root", "role": "root" }));
    call("/v3/auth/user/add", json!({ "name": "guard", "password": "horse battery" }));
    call("/v3/auth/role/add", json!({ "name": "guards" }));
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let (key, range_end) = (base64(&format!("{prefix}/")), base64(&format!("{prefix}0")));
    let perm = json!({ "permType": "READWRITE", "key": key, "range_end": range_end });
    call("/v3/auth/role/grant", json!({ "name": "guards", "perm": perm }));
    call("/v3/auth/user/grant", json!({ "user": "guard", "role": "guards" }));
    call("/v3/auth/enable", json!({}));

    let group = Group::start(ServerKind::Redis, 1);
    let name = group.master.addr();
    let flags = [
        format!("-etcd_addr={addrs}"),
        format!("-etcd_prefix={prefix}"),
        format!("-masters={name}"),
    ];
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let stranger = Daemon::start(&flags);
    wait_until("it says why nobody acts", PATIENCE, || {
        let health = stranger.get("/v1/health").json;
        health["problems"].to_string().contains("etcd").then_some(())
    });
    assert_eq!(stranger.get("/v1/health").status, 503);
    flags.push("-etcd_user=guard");
    let env = [("REDIS_FAILOVER_ETCD_PASSWORD", "horse battery")];
    let node = Daemon::start_with(&Daemon::binary(), &flags, &env);
    wait_until_guarded(&node, &name, &group.addrs());
    assert!(!node.log().contains("horse battery"));
    let wrong = [("REDIS_FAILOVER_ETCD_PASSWORD", "stapler")];
    let node = Daemon::start_with(&Daemon::binary(), &flags, &wrong);
    node.wait_for_log("refuses the login of guard", PATIENCE);
    assert!(!node.log().contains("stapler"));
}

/// What a node did not hear while it had no connection is told from where it was; and when etcd does not keep that any
/// more, everything is read anew. Its session goes on all the while.
#[test]
fn a_node_of_etcd_catches_up_with_what_it_missed_also_when_that_was_compacted() {
    if !Agree::Etcd.is_there() {
        return;
    }
    let store = Store::shared(Agree::Etcd);
    let mut cluster = Cluster::plan_by(Agree::Etcd, 2);
    cluster.set_for_all("-etcd_lease_ttl_ms=20000");
    let wire = Wire::to(&store.addrs());
    cluster.set_for(1, &format!("-etcd_addr={}", wire.addr()));
    cluster.start_all();
    let servers: Vec<Server> =
        (0..3).map(|_| Server::start(ServerKind::Redis, &common::Options::new())).collect();
    let addrs: Vec<String> = servers.iter().map(Server::addr).collect();
    register(&cluster, 0, &addrs[0]);
    cluster.wait_masters(&[&addrs[0]], PATIENCE);
    for (addr, is_compacted) in [(&addrs[1], false), (&addrs[2], true)] {
        wire.break_off();
        wait_until("its connections end", PATIENCE, || {
            let health = cluster.node(1).get("/v1/health").json;
            health["problems"].to_string().contains("etcd").then_some(())
        });
        register(&cluster, 0, addr);
        if is_compacted {
            let range = json!({ "key": "AA==" });
            let now = etcd(&store.addrs(), "/v3/kv/range", &range)["header"]["revision"].clone();
            let compact = json!({ "revision": now, "physical": true });
            etcd(&store.addrs(), "/v3/kv/compaction", &compact);
        }
        assert!(!cluster.masters(1).contains(addr), "it cannot know");
        wire.mend();
        wait_until("it has caught up", PATIENCE, || {
            cluster.masters(1).contains(addr).then_some(())
        });
        assert_eq!(cluster.leader_of_all(), 0);
    }
    assert!(!cluster.log(1).contains("without a session"), "{}", cluster.log(1));
}

/// The record as a broker's URL.
fn url(cluster: &Cluster) -> String {
    let setting = |name| cluster.setting(name).expect("it was set");
    match cluster.agree() {
        Agree::Raft => format!("raft:{}?addr={}", cluster.data_dir(0).display(), cluster.id(0)),
        Agree::Zk => format!("zk://{}{}", setting("-zk_addr"), setting("-zk_path")),
        Agree::Etcd => format!("etcd://{}{}", setting("-etcd_addr"), setting("-etcd_prefix")),
    }
}

fn migrate(from: &str, to: &str) -> (i32, String) {
    let ended = Daemon::run(&["migrate", "--from", from, "--to", to], &[]);
    let code = ended.status.code().expect("it ended by itself");
    (code, format!("{}{}", ended.stdout, ended.stderr))
}

/// From a store to Raft and back to a store: what is known of a group goes along, with its epochs and its history, and
/// what would lose something is refused.
#[test]
fn a_record_moves_from_broker_to_broker_while_groups_are_paused() {
    on_each_outer(|agree| {
        let mut group = Group::start(ServerKind::Redis, 2);
        let name = group.master.addr();
        let mut old = guard_by(agree, &group, &[]);
        group.master.kill9();
        let entry = old.wait_for_failover(&name);
        let master = entry["new_master"].as_str().expect("there is one").to_owned();
        group.master.restart();
        let all: Vec<&Server> = group.servers().collect();
        wait_until_settled(&old, &name, &all, &master);
        let mut new = Cluster::plan(3);
        let (code, said) = migrate(&url(&old), &url(&new));
        assert!(code == 1 && said.contains("pause all groups first"), "{said}");

        let paused = old.node(0).post("/v1/pause", r#"{"reason":"it moves"}"#);
        assert_eq!(paused.status, 200, "{}", paused.body);
        let history = old.node(0).history(&name);
        let (code, said) = migrate(&url(&old), &url(&new));
        assert!(code == 0 && said.contains("1 groups"), "{said}");
        let (code, said) = migrate(&url(&old), &url(&new));
        assert!(code == 1 && said.contains("already"), "{said}");
        for node in 0..3 {
            old.stop(node);
        }
        new.start_all();
        new.wait_masters(&[&master], PATIENCE);
        wait_until("all three vote", PATIENCE, || (new.member_addrs(0).len() == 3).then_some(()));
        assert_eq!(new.node(1).history(&name), history);
        assert_eq!(new.node(1).group(&name).expect("it is there")["status"], "paused");
        let resumed = new.node(2).post("/v1/resume", "");
        assert_eq!(resumed.status, 200, "{}", resumed.body);

        // It goes on where it was: the next failover has the next epoch.
        group.server_mut(&master).process().kill9();
        let entry = new.wait_for_failovers(&name, 2);
        assert_eq!((&entry["outcome"], &entry["epoch"]), (&"done".into(), &2.into()), "{entry:#}");
        let master = entry["new_master"].as_str().expect("there is one").to_owned();

        // And back, into a place where nothing is; the one before still has groups.
        let paused = new.node(0).post("/v1/pause", "{}");
        assert_eq!(paused.status, 200, "{}", paused.body);
        let leader = new.leader_of_all();
        let history = new.node(leader).history(&name);
        let from = format!("raft:{}?addr={}", new.data_dir(leader).display(), new.id(leader));
        let (code, said) = migrate(&from, &url(&old));
        assert!(code == 1, "a node that runs has its store to itself: {said}");
        for node in 0..3 {
            new.stop(node);
        }
        let (code, said) = migrate(&from, &url(&old));
        assert!(code == 1 && said.contains("groups are there already"), "{said}");
        let mut back = Cluster::plan_by(agree, 1);
        let (code, said) = migrate(&from, &url(&back));
        assert!(code == 0, "{said}");
        back.start_all();
        back.wait_masters(&[&master], PATIENCE);
        assert_eq!(back.node(0).history(&name), history);
        assert_eq!(back.node(0).group(&name).expect("it is there")["epoch"], 2);
    });
}

#[test]
fn what_is_no_broker_is_no_place_to_move_to() {
    for (args, word) in [
        (&["migrate"][..], "--from and --to"),
        (&["migrate", "--from", "zk://a/b"], "--from and --to"),
        (&["migrate", "--from", "redis://a", "--to", "zk://a"], "flag -from"),
        (&["migrate", "--from", "zk://a", "--to", "zk://u:secret@a"], "flag -to"),
        (
            &["-broker=zk", "migrate", "--from", "zk://a", "--to", "raft:/x?addr=a:1"],
            "before the command",
        ),
    ] {
        let ended = Daemon::run(args, &[]);
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(word), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
    }
    let (code, said) = migrate("raft:/no/such/directory?addr=127.0.0.1:1", "zk://127.0.0.1:1/x");
    assert!(code == 1 && said.contains("there is no record in /no/such/directory"), "{said}");
}

/// Groups by the hundred are more than one write takes, and more than one value would hold.
#[test]
fn many_groups_are_registered_at_once() {
    on_each_outer(|agree| {
        let server = Server::start(ServerKind::Redis, &common::Options::new());
        let mut cluster = Cluster::plan_by(agree, 1);
        // They are not there, and nobody hurries to find that out.
        let config: Vec<String> =
            (0..300).map(|at| format!("no-such-host-{at}.invalid:6379")).collect();
        cluster.set_for_all(&format!("-masters={},{}", server.addr(), config.join(",")));
        cluster.set_for_all("-check_interval=60000");
        cluster.start_all();
        wait_until("all are guarded", PATIENCE, || (cluster.masters(0).len() == 301).then_some(()));
        let one_more = Server::start(ServerKind::Redis, &common::Options::new());
        register(&cluster, 0, &one_more.addr());
        cluster.kill9(0);
        cluster.unset("-masters");
        cluster.start(0);
        wait_until("all are remembered", PATIENCE, || {
            (cluster.masters(0).len() == 302).then_some(())
        });
        cluster.leader();
        let removed = cluster.node(0).put("/master", &format!("masters={}", server.addr()));
        assert_eq!(removed.status, 200, "{agree:?}: {}", removed.body);
        assert_eq!(cluster.masters(0), [server.addr()]);
    });
}

/// A leader of the store that is not the one nodes believe in writes nothing: a tool that takes the place of a
/// candidate away ends its leadership.
#[test]
fn a_candidate_that_is_taken_away_does_not_lead() {
    if !Agree::Zk.is_there() {
        return;
    }
    let store = Store::shared(Agree::Zk);
    let group = Group::start(ServerKind::Redis, 1);
    let cluster = start_guard(Cluster::plan_by(Agree::Zk, 2), &group, &[]);
    let base = cluster.setting("-zk_path").expect("it was set").to_owned();
    let leader = cluster.leader_of_all();
    let zk = Zk::connect(&store.addrs(), None);
    let mut candidates = zk.children(&format!("{base}/candidates"));
    candidates.sort();
    let first = format!("{base}/candidates/{}", candidates[0]);
    zk.runtime.block_on(zk.client.delete(&first, None)).expect("anybody may");
    wait_until("the other one leads", PATIENCE, || {
        let found = cluster.find_leader()?;
        (found != leader).then_some(())
    });
    wait_until("it is a candidate again, behind the other", PATIENCE, || {
        (zk.children(&format!("{base}/candidates")).len() == 2).then_some(())
    });
    cluster.leader_of_all();
}
