//! xcodis: proxies that learn from a tree in ZooKeeper which server of a group takes the writes.
//!
//! Before a failover it is asked whether xcodis knows the old master: a group that it does not know is left alone, since its
//! clients would go on writing to the old master. Afterwards the group is switched in that tree under the lock of xcodis, in one
//! transaction with the action that its proxies wait for, and their acknowledgements are awaited. Whatever ends in between is
//! done by the next try, which looks at what there is first: a group that is switched and acknowledged is done.
//!
//! `tree` is what is written there and means; `ask` what speaks against a failover; `link` the session; `lock` the lock,
//! which other programs share; `acks` what proxies answer.

mod acks;
mod ask;
mod link;
mod lock;
mod tree;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::node::GroupName;
use failover_core::record::HookEvent;
use failover_core::time::Time;
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error, MultiWriteResult};

use self::link::Link;
use self::lock::{Held, Lock};
use self::tree::{Action, Paths, Plan, Server, Target};
use super::MasterChange;
use super::tell::Licence;
use crate::config::{GroupSet, XcodisConfig};

/// How long ZooKeeper may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Most groups of a product, and most servers of one of them.
const GROUPS_MAX: usize = 10_000;
const SERVERS_PER_GROUP_MAX: usize = 256;
/// Most proxies of a product.
const PROXIES_MAX: usize = 4096;
/// How many of the newest actions are looked through for the one of a group.
const ACTIONS_READ_MAX: usize = 256;
/// How often a change is announced while more and more proxies take part.
const ANNOUNCED_MAX: usize = 5;
/// Longest value that is understood.
const VALUE_BYTES_MAX: usize = 256 * 1024;
/// Most values that are asked for at the same time.
const READS_MAX: usize = 64;
/// Anybody may do anything, as with everything that xcodis makes: its proxies write below the actions.
const ACLS: Acls<'static> = Acls::anyone_all();
const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(ACLS);

/// The product, and the way to it.
pub(super) struct Xcodis {
    product: String,
    paths: Paths,
    pub(super) groups: GroupSet,
    lock_timeout: Duration,
    ack_timeout: Duration,
    link: Link,
    held: Held,
}

/// A group as it stands in the tree.
#[derive(Debug)]
struct Found {
    id: i64,
    /// By the names of their nodes, with the versions of their values.
    servers: BTreeMap<String, (Server, i32)>,
}

impl Xcodis {
    /// Begins to connect, inside a runtime.
    pub(super) fn new(config: &XcodisConfig) -> Self {
        Self {
            product: config.product.clone(),
            paths: Paths::new(config.base()),
            groups: config.groups.clone(),
            lock_timeout: config.lock_timeout,
            ack_timeout: config.ack_timeout,
            link: Link::open(config.servers().join(","), config.session_timeout),
            held: Held::default(),
        }
    }

    /// Tells the proxies what happened.
    ///
    /// # Errors
    /// A sentence that says what is not done yet.
    pub(super) async fn tell(&self, licence: &Licence<'_>) -> Result<(), String> {
        let call = licence.call();
        if let Some(change) = call.master_change() {
            return self.switch(&change, licence).await;
        }
        match call.group.as_ref().zip(call.addr.as_ref()) {
            Some((group, addr)) if call.event == HookEvent::MasterReturned => {
                self.welcome(group, addr).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits, at most so long, until no lock of ours is left.
    pub(super) async fn close(&self, limit: Duration) {
        self.held.none(limit).await;
    }

    async fn switch(&self, change: &MasterChange, licence: &Licence<'_>) -> Result<(), String> {
        let client = self.link.client().await?;
        answer(client.sync(&self.paths.base)).await?;
        // Whoever is known nowhere needs no lock to learn that.
        self.find(&client, change).await?;
        let why = format!("{} is the master of {}", change.new_master, change.group);
        let lock = Lock::take(&client, &self.paths, &self.held, (&why, self.lock_timeout)).await?;
        let switched = self.switch_locked(&client, &lock, change, licence).await;
        lock.release().await;
        switched
    }

    /// Under the lock: whatever others did until then is done.
    async fn switch_locked(
        &self,
        client: &Client,
        lock: &Lock,
        change: &MasterChange,
        licence: &Licence<'_>,
    ) -> Result<(), String> {
        let mut found = self.find(client, change).await?;
        let mut known = match found.plan(change) {
            Plan::Done => self.newest_action(client, found.id, change).await?,
            Plan::Change(_) => None,
        };
        for _ in 0..ANNOUNCED_MAX {
            let action = match known.take() {
                Some(action) => action,
                None => self.announce(client, lock, &found, change, licence).await?,
            };
            self.acknowledged(client, &action, (self.ack_timeout, licence)).await?;
            found = self.read(client, found.id).await?;
            let online = self.online(client).await?;
            if online.iter().all(|proxy| action.receivers.contains(proxy)) {
                found.say_done(change, online.len());
                return Ok(());
            }
            // One that took part a moment after it was seen who does may have read the tree a moment before it changed.
        }
        Err(format!("proxies of xcodis came faster than they could be told of group {}", found.id))
    }

    /// Switches the group and tells its proxies so, both or neither.
    async fn announce(
        &self,
        client: &Client,
        lock: &Lock,
        found: &Found,
        change: &MasterChange,
        licence: &Licence<'_>,
    ) -> Result<tree::Sent, String> {
        let receivers = self.online(client).await?;
        let set = match found.plan(change) {
            Plan::Done => BTreeMap::new(),
            Plan::Change(set) => set,
        };
        let mut after: BTreeMap<&str, &Server> =
            found.servers.iter().map(|(node, (server, _))| (node.as_str(), server)).collect();
        after.extend(set.iter().map(|(node, server)| (node.as_str(), server)));
        let action = Action {
            kind: tree::GROUP_CHANGED.to_owned(),
            desc: format!(
                "redis-failover: {} to {} in epoch {}",
                change.old_master, change.new_master, change.epoch
            ),
            target: Target {
                id: found.id,
                product_name: self.product.clone(),
                servers: after.into_values().cloned().collect(),
            },
            ts: licence.now().since(Time::ZERO).as_secs().to_string(),
            receivers: receivers.clone(),
        };
        self.make(client, &self.paths.actions()).await?;
        let group = self.paths.group(found.id);
        let mut writer = client.new_multi_writer();
        let built = (|| {
            writer.add_check_version(lock.path(), 0)?;
            for (node, server) in &set {
                let (path, value) = (format!("{group}/{node}"), tree::text(server));
                match found.servers.get(node) {
                    Some((_, version)) => writer.add_set_data(&path, &value, Some(*version))?,
                    None => writer.add_create(&path, &value, &PERSISTENT)?,
                }
            }
            let mode = CreateMode::PersistentSequential.with_acls(ACLS);
            writer.add_create(&self.paths.new_action(), &tree::text(&action), &mode)
        })();
        built.map_err(|error| format!("{} cannot be switched: {error}", self.paths.base))?;
        // Others who lead would need the lock, which the transaction checks.
        licence.check()?;
        let results = match timeout(ANSWER_LIMIT, writer.commit()).await {
            Ok(results) => results.map_err(|error| {
                format!("group {} could not be switched in {}: {error}", found.id, self.paths.base)
            })?,
            Err(_) => return Err(silent()),
        };
        match results.into_iter().next_back() {
            Some(MultiWriteResult::Create { path, .. }) => Ok(tree::Sent { path, receivers }),
            Some(_) | None => {
                Err("ZooKeeper does not say under which name it has the action".to_owned())
            }
        }
    }

    /// What somebody has to do who wants an old master that came back to be of use.
    async fn welcome(&self, group: &GroupName, addr: &Addr) -> Result<(), String> {
        let client = self.link.client().await?;
        let Some(id) = self.group_of(&client, addr).await? else { return Ok(()) };
        let found = self.read(&client, id).await?;
        if found.node_of(addr).is_some_and(|(_, server)| server.kind == tree::OFFLINE) {
            tracing::warn!(
                %group,
                "{addr} is back as a replica and still offline in xcodis, which changes that for nobody: when it is in \
                 step, run xcodis-config server add {id} {addr} slave"
            );
        }
        Ok(())
    }

    /// The group that has the old master, or else the new one.
    async fn find(&self, client: &Client, change: &MasterChange) -> Result<Found, String> {
        let (old, new) = (&change.old_master, &change.new_master);
        let of_new = self.group_of(client, new).await?;
        let id = match (self.group_of(client, old).await?, of_new) {
            (Some(old_id), Some(new_id)) if old_id != new_id => {
                return Err(format!(
                    "{old} is in group {old_id} of xcodis and {new} in group {new_id}, so that one cannot take the place \
                     of the other ({})",
                    self.paths.servers()
                ));
            }
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => {
                return Err(format!(
                    "neither {old} nor {new} is in a group of xcodis ({}), so that its proxies cannot be told: add them \
                     there, written just so, or leave this group out of groups in [xcodis]",
                    self.paths.servers()
                ));
            }
        };
        self.read(client, id).await
    }

    /// The number of the group that has a server.
    async fn group_of(&self, client: &Client, addr: &Addr) -> Result<Option<i64>, String> {
        let ids = self.group_ids(client).await?;
        let has = |id: i64| async move {
            let nodes = children(client, &self.paths.group(id)).await?;
            Ok::<_, String>(nodes.iter().any(|node| tree::is(node, addr)).then_some(id))
        };
        let mut looks = stream::iter(ids).map(has).buffer_unordered(READS_MAX);
        while let Some(found) = looks.next().await {
            if let Some(id) = found? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    async fn group_ids(&self, client: &Client) -> Result<Vec<i64>, String> {
        let names = children(client, &self.paths.servers()).await?;
        let ids: Vec<i64> = names.iter().filter_map(|name| tree::group_id(name)).collect();
        limit(ids.len(), GROUPS_MAX, "groups", &self.paths.base)?;
        Ok(ids)
    }

    async fn read(&self, client: &Client, id: i64) -> Result<Found, String> {
        let group = self.paths.group(id);
        let nodes = children(client, &group).await?;
        limit(nodes.len(), SERVERS_PER_GROUP_MAX, "servers", &group)?;
        let mut servers = BTreeMap::new();
        for node in nodes {
            let path = format!("{group}/{node}");
            let Some((value, version)) = value(client, &path).await? else { continue };
            let server = tree::read(&value, &path)?;
            servers.insert(node, (server, version));
        }
        Ok(Found { id, servers })
    }

    /// The proxies that take part.
    async fn online(&self, client: &Client) -> Result<Vec<String>, String> {
        let ids = children(client, &self.paths.proxies()).await?;
        limit(ids.len(), PROXIES_MAX, "proxies", &self.paths.base)?;
        self.online_of(client, ids).await
    }

    /// Those of these proxies that take part, in order.
    async fn online_of(&self, client: &Client, ids: Vec<String>) -> Result<Vec<String>, String> {
        let looks = stream::iter(ids).map(|id| async move {
            let is_online = self.is_online(client, &id).await?;
            Ok::<_, String>(is_online.then_some(id))
        });
        let looks: Vec<_> = looks.buffer_unordered(READS_MAX).collect().await;
        let mut online: Vec<String> =
            looks.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
        online.sort();
        Ok(online)
    }

    /// The newest action of a group, if it says that the new master is one.
    async fn newest_action(
        &self,
        client: &Client,
        id: i64,
        change: &MasterChange,
    ) -> Result<Option<tree::Sent>, String> {
        let mut names = children(client, &self.paths.actions()).await?;
        names.retain(|name| tree::is_action(name));
        names.sort_by(|one, other| other.cmp(one));
        for name in names.iter().take(ACTIONS_READ_MAX) {
            let path = format!("{}/{name}", self.paths.actions());
            let Some((value, _)) = value(client, &path).await? else { continue };
            // Actions of slots have targets of another shape.
            let Ok(action) = serde_json::from_slice::<Action>(&value) else { continue };
            if action.kind == tree::GROUP_CHANGED && action.target.id == id {
                let says = action.target.is_mastered_by(&change.new_master);
                return Ok(says.then_some(tree::Sent { path, receivers: action.receivers }));
            }
        }
        Ok(None)
    }

    async fn make(&self, client: &Client, path: &str) -> Result<(), String> {
        answer(client.mkdir(path, &PERSISTENT)).await
    }
}

impl Found {
    fn plan(&self, change: &MasterChange) -> Plan {
        let servers = self.servers.iter().map(|(node, (server, _))| (node.as_str(), server));
        tree::plan(servers.collect(), self.id, (&change.old_master, &change.new_master))
    }

    fn say_done(&self, change: &MasterChange, proxies: usize) {
        let (id, old) = (self.id, &change.old_master);
        let is_offline = self.node_of(old).is_some_and(|(_, server)| server.kind == tree::OFFLINE);
        let what_is_left = if is_offline {
            format!(
                "; {old} is offline there until somebody adds it again (xcodis-config server add {id} {old} slave)"
            )
        } else {
            String::new()
        };
        tracing::info!(
            group = %change.group,
            "xcodis has {} as the master of its group {id}, and {proxies} proxies follow it{what_is_left}",
            change.new_master
        );
    }

    fn node_of(&self, addr: &Addr) -> Option<(&str, &Server)> {
        let found = self.servers.iter().find(|(node, _)| tree::is(node, addr));
        found.map(|(node, (server, _))| (node.as_str(), server))
    }
}

/// The names below a node; none when it is not there.
async fn children(client: &Client, path: &str) -> Result<Vec<String>, String> {
    match timeout(ANSWER_LIMIT, client.list_children(path)).await {
        Ok(Ok(names)) => Ok(names),
        Ok(Err(Error::NoNode)) => Ok(Vec::new()),
        Ok(Err(error)) => Err(format!("{path} in ZooKeeper cannot be read: {error}")),
        Err(_) => Err(silent()),
    }
}

/// The value of a node and its version; `None` when it is not there.
async fn value(client: &Client, path: &str) -> Result<Option<(Vec<u8>, i32)>, String> {
    match timeout(ANSWER_LIMIT, client.get_data(path)).await {
        Ok(Ok((value, stat))) => {
            limit(value.len(), VALUE_BYTES_MAX, "bytes", path)?;
            Ok(Some((value, stat.version)))
        }
        Ok(Err(Error::NoNode)) => Ok(None),
        Ok(Err(error)) => Err(format!("{path} in ZooKeeper cannot be read: {error}")),
        Err(_) => Err(silent()),
    }
}

async fn answer<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(ANSWER_LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| format!("ZooKeeper refuses: {error}")),
        Err(_) => Err(silent()),
    }
}

fn silent() -> String {
    format!("ZooKeeper does not answer within {} s", ANSWER_LIMIT.as_secs())
}

fn limit(count: usize, max: usize, what: &str, path: &str) -> Result<(), String> {
    if count <= max {
        return Ok(());
    }
    Err(format!("{path} has {count} {what}, and more than {max} are not understood"))
}
