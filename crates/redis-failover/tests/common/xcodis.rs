//! The tree of a product of xcodis in a real ZooKeeper, laid out as its own programs do, and proxies that stand in for its
//! own: they read the tree when an action tells them to, and say so below it.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use zookeeper_client::{Acls, Client, CreateMode, Error, Stat};

use super::store::Store;
use super::{PATIENCE, wait_until};

const SESSION: Duration = Duration::from_secs(2);
const ACLS: Acls<'static> = Acls::anyone_all();

/// One product.
#[derive(Debug)]
pub struct Tree {
    addrs: String,
    product: String,
    client: Client,
}

impl Tree {
    /// A product that nobody else has, with one group: its servers with their types.
    pub fn lay_out(store: &Store, id: u32, servers: &[(&str, &str)]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let product = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let tree = Self { addrs: store.addrs(), product, client: connect(&store.addrs()) };
        tree.make(&format!("servers/group_{id}"));
        for (addr, kind) in servers {
            tree.add_server(id, addr, kind);
        }
        tree
    }

    /// As `xcodis-config server add` does.
    pub fn add_server(&self, id: u32, addr: &str, kind: &str) {
        let value = json!({"type": kind, "group_id": id, "addr": addr});
        self.create(&format!("servers/group_{id}/{addr}"), &value, CreateMode::Persistent);
    }

    pub fn product(&self) -> &str {
        &self.product
    }

    /// The flags of a program that leads the proxies of this product for these groups.
    pub fn flags(&self, groups: &str) -> Vec<String> {
        vec![
            format!("-xcodis_addr={}", self.addrs),
            format!("-xcodis_product={}", self.product),
            format!("-xcodis_groups={groups}"),
            "-xcodis_session_timeout_ms=1000".to_owned(),
        ]
    }

    fn at(&self, path: &str) -> String {
        format!("/zk/codis/db_{}/{path}", self.product)
    }

    pub fn make(&self, path: &str) {
        let options = CreateMode::Persistent.with_acls(ACLS);
        run(self.client.mkdir(&self.at(path), &options)).expect("it can be made");
    }

    /// Makes a node, and gives its name.
    pub fn create(&self, path: &str, value: &Value, mode: CreateMode) -> String {
        let (path, value) = (self.at(path), value.to_string());
        let made = self.client.create(&path, value.as_bytes(), &mode.with_acls(ACLS));
        let (_, number) = run(made).expect("it can be made");
        let name = path.rsplit('/').next().expect("a path has a name");
        match mode {
            CreateMode::PersistentSequential | CreateMode::EphemeralSequential => {
                format!("{name}{number}")
            }
            CreateMode::Persistent | CreateMode::Ephemeral | CreateMode::Container => {
                name.to_owned()
            }
        }
    }

    pub fn delete(&self, path: &str) {
        run(self.client.delete(&self.at(path), None)).expect("it is there");
    }

    /// A value, and what ZooKeeper says of its node.
    pub fn get(&self, path: &str) -> Option<(Value, Stat)> {
        match run(self.client.get_data(&self.at(path))) {
            Ok((value, stat)) => Some((serde_json::from_slice(&value).expect("JSON"), stat)),
            Err(Error::NoNode) => None,
            Err(error) => panic!("{path} cannot be read: {error}"),
        }
    }

    /// The names below a node, in order; none when it is not there.
    pub fn children(&self, path: &str) -> Vec<String> {
        match run(self.client.list_children(&self.at(path))) {
            Ok(mut names) => {
                names.sort();
                names
            }
            Err(Error::NoNode) => Vec::new(),
            Err(error) => panic!("{path} cannot be read: {error}"),
        }
    }

    /// The type of a server in a group.
    pub fn kind(&self, id: u32, addr: &str) -> Option<String> {
        let (server, _) = self.get(&format!("servers/group_{id}/{addr}"))?;
        assert_eq!((&server["group_id"], &server["addr"]), (&json!(id), &json!(addr)), "{server}");
        server["type"].as_str().map(str::to_owned)
    }

    #[track_caller]
    pub fn wait_for_kind(&self, id: u32, addr: &str, kind: &str) {
        wait_until(&format!("{addr} is {kind} in xcodis"), PATIENCE, || {
            (self.kind(id, addr).as_deref() == Some(kind)).then_some(())
        });
    }

    /// All actions, in order.
    pub fn actions(&self) -> Vec<(String, Value)> {
        let names = self.children("actions").into_iter();
        names
            .filter_map(|name| Some((name.clone(), self.get(&format!("actions/{name}"))?.0)))
            .collect()
    }

    /// Waits until so many actions were announced and acknowledged by all their receivers, and gives the last.
    #[track_caller]
    pub fn wait_for_acknowledged(&self, count: usize) -> (String, Value) {
        wait_until(&format!("{count} actions are acknowledged"), PATIENCE, || {
            let mut actions = self.actions();
            assert!(actions.len() <= count, "too many: {actions:#?}");
            let (name, action) = actions.pop()?;
            let answers = self.children(&format!("actions/{name}"));
            let all = strings(&action["receivers"]).iter().all(|id| answers.contains(id));
            (actions.len() + 1 == count && all).then_some((name, action))
        })
    }

    /// Waits until nobody has the lock, nor is written down as one who may.
    #[track_caller]
    pub fn wait_until_unlocked(&self) {
        wait_until("nobody has the lock", PATIENCE, || {
            let all = [self.children("LOCK"), self.children("living-codis-config")];
            all.iter().all(Vec::is_empty).then_some(())
        });
    }

    /// Somebody has the lock: one who lives, or one who is dead. Gives the node of the lock and the one that says who lives.
    pub fn locked_by(&self, pid: u32, lives: bool) -> (String, String) {
        self.make("LOCK");
        self.make("living-codis-config");
        let living = format!("living-codis-config/other.example-{pid}");
        let owner = json!({"hostname": "other.example", "pid": pid, "desc": "slot range-set"});
        if lives {
            self.create(&living, &owner, CreateMode::Ephemeral);
        }
        let lock = self.create("LOCK/lock-", &owner, CreateMode::PersistentSequential);
        (format!("LOCK/{lock}"), living)
    }
}

/// How a proxy behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It does what it is told.
    Follows,
    /// It does not, and says nothing.
    Deaf,
}

/// A proxy. Dropping it ends its session.
#[derive(Debug)]
pub struct Proxy {
    id: String,
    manner: watch::Sender<Manner>,
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Where it sends writes.
    master: Option<String>,
    has_exited: bool,
}

impl Proxy {
    /// Returns when it is there and takes part, or, with the state `offline`, does not.
    pub fn start(tree: &Tree, id: &str, state: &str, manner: Manner) -> Self {
        tree.make("proxy");
        tree.make("actions");
        let client = connect(&tree.addrs);
        let node = json!({
            "id": id, "addr": "proxy.example:19000", "last_event": "", "last_event_ts": 0, "state": state,
            "description": "", "debug_var_addr": "proxy.example:11000", "pid": 1, "start_at": ""
        });
        let own = tree.at(&format!("proxy/{id}"));
        let options = CreateMode::Ephemeral.with_acls(ACLS);
        run(client.create(&own, node.to_string().as_bytes(), &options)).expect("it is the first");
        let (manner, manners) = watch::channel(manner);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let work = Work { client, base: tree.at(""), own, node, seen: Arc::clone(&seen) };
        let task = runtime().spawn(work.run(manners));
        Self { id: id.to_owned(), manner, seen, task }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// From now on it does what it is told, also what it was told before.
    pub fn follow(&self) {
        self.manner.send_replace(Manner::Follows);
    }

    /// Where it sends writes, once it was told.
    pub fn master(&self) -> Option<String> {
        lock(&self.seen).master.clone()
    }

    pub fn has_exited(&self) -> bool {
        lock(&self.seen).has_exited
    }

    #[track_caller]
    pub fn wait_for_master(&self, addr: &str) {
        wait_until(&format!("{} sends writes to {addr}", self.id), PATIENCE, || {
            (self.master().as_deref() == Some(addr)).then_some(())
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Work {
    client: Client,
    /// With a slash at its end.
    base: String,
    own: String,
    node: Value,
    seen: Arc<Mutex<Seen>>,
}

impl Work {
    async fn run(self, mut manner: watch::Receiver<Manner>) {
        let actions = format!("{}actions", self.base);
        let mut done: BTreeSet<String> =
            self.client.list_children(&actions).await.unwrap_or_default().into_iter().collect();
        loop {
            let Ok((value, _, told)) = self.client.get_and_watch_data(&self.own).await else {
                return;
            };
            let own: Value = serde_json::from_slice(&value).expect("its own node is JSON");
            if own["state"] == "mark_offline" {
                // As the real one: it takes its node away and ends.
                let _ = self.client.delete(&self.own, None).await;
                lock(&self.seen).has_exited = true;
                return;
            }
            let Ok((mut names, come)) = self.client.list_and_watch_children(&actions).await else {
                return;
            };
            names.sort();
            let follows = *manner.borrow_and_update() == Manner::Follows;
            for name in names.into_iter().filter(|_| follows) {
                if done.insert(name.clone()) {
                    self.act(&format!("{actions}/{name}")).await;
                }
            }
            tokio::select! {
                _ = told.changed() => {}
                _ = come.changed() => {}
                changed = manner.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn act(&self, path: &str) {
        let (value, _) = self.client.get_data(path).await.expect("the action is there");
        let action: Value = serde_json::from_slice(&value).expect("the action is JSON");
        let id = self.node["id"].as_str().expect("it has one");
        if !strings(&action["receivers"]).iter().any(|receiver| receiver == id) {
            return;
        }
        assert_eq!(action["type"], "group_changed", "{action}");
        let group = format!("{}servers/group_{}", self.base, action["target"]["id"]);
        let mut masters = Vec::new();
        for name in self.client.list_children(&group).await.expect("the group is there") {
            let (value, _) = self
                .client
                .get_data(&format!("{group}/{name}"))
                .await
                .expect("the server is there");
            let server: Value = serde_json::from_slice(&value).expect("the server is JSON");
            if server["type"] == "master" {
                masters.push(server["addr"].as_str().expect("a text").to_owned());
            }
        }
        assert_eq!(masters.len(), 1, "one master at every moment: {masters:?}");
        lock(&self.seen).master = masters.pop();
        let (answer, options) = (self.node.to_string(), CreateMode::Persistent.with_acls(ACLS));
        let answered =
            self.client.create(&format!("{path}/{id}"), answer.as_bytes(), &options).await;
        answered.expect("a proxy can answer");
    }
}

/// The texts of a list; none when it is null.
pub fn strings(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten();
    texts.map(|text| text.as_str().expect("a text").to_owned()).collect()
}

fn connect(addrs: &str) -> Client {
    let connector = Client::connector().with_session_timeout(SESSION);
    run(connector.connect(addrs)).expect("the store was started")
}

fn run<T>(what: impl Future<Output = T>) -> T {
    runtime().block_on(what)
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("threads can be started")
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
