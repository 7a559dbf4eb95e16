//! The lock of a product, which all programs that change its tree share.
//!
//! Its nodes are persistent, so that one whose owner died would stop everybody. Therefore owners are written down in another
//! place, by nodes that go with their sessions, and whoever waits takes away a lock whose owner is not there. We are there
//! under a name that no other try of ours has, or what an earlier one left behind would look alive.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zookeeper_client::{Client, CreateMode, Error};

use super::tree::{self, Paths};
use super::{ACLS, ANSWER_LIMIT, PERSISTENT, answer, children, silent, value};

/// How often it is looked whether those live who are before us.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How many of those before us are looked at.
const WAITING_READ_MAX: usize = 64;
/// The pause until a lock is tried to be released again.
const RELEASE_RETRY: Duration = Duration::from_millis(200);
/// From this number on the programs of xcodis read one another way than they write it, and would take our lock away.
const PID_MISREAD: u32 = 1_000_000;
/// Longest description of a holder that is repeated, in characters.
const DESC_CHARS_MAX: usize = 100;

/// How many locks there are to be released.
#[derive(Clone, Default)]
pub(super) struct Held(Arc<watch::Sender<usize>>);

impl Held {
    /// Waits, at most so long, until there is none.
    pub(super) async fn none(&self, limit: Duration) {
        let mut count = self.0.subscribe();
        let _ = timeout(limit, count.wait_for(|count| *count == 0)).await;
    }
}

/// The lock, or our place in its queue. Dropping it releases it a moment later.
pub(super) struct Lock {
    client: Client,
    /// Our node in the queue, once it is there.
    path: Option<String>,
    /// The node that says that we live.
    living: String,
    held: Held,
    is_released: bool,
}

impl Lock {
    /// Takes the lock, for this purpose and within this time.
    ///
    /// # Errors
    /// A sentence that says who has it, or why else it could not be taken.
    pub(super) async fn take(
        client: &Client,
        paths: &Paths,
        held: &Held,
        (purpose, limit): (&str, Duration),
    ) -> Result<Self, String> {
        let deadline = Instant::now() + limit;
        let (locks, living) = (paths.locks(), paths.living());
        answer(client.mkdir(&locks, &PERSISTENT)).await?;
        answer(client.mkdir(&living, &PERSISTENT)).await?;
        let mut owner = new_owner()?;
        let living_node = format!("{living}/{}", name_of(&owner));
        held.0.send_modify(|count| *count += 1);
        let mut lock = Self {
            client: client.clone(),
            path: None,
            living: living_node,
            held: held.clone(),
            is_released: false,
        };
        // First that we live, so that no instant has our lock without it.
        let mode = CreateMode::Ephemeral.with_acls(ACLS);
        answer(client.create(&lock.living, &tree::text(&owner), &mode)).await?;
        owner.insert("desc".to_owned(), Value::from(format!("redis-failover: {purpose}")));
        let mode = CreateMode::PersistentSequential.with_acls(ACLS);
        let prefix = format!("{locks}/lock-");
        let (_, number) = answer(client.create(&prefix, &tree::text(&owner), &mode)).await?;
        lock.path = Some(format!("{prefix}{number}"));
        lock.wait(&locks, &living, deadline, limit).await?;
        Ok(lock)
    }

    /// The node that is there while the lock is ours.
    pub(super) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    /// Gives the lock back. What ZooKeeper does not take now is given back when it does.
    pub(super) async fn release(mut self) {
        let work = tokio::spawn(self.give_back());
        let _ = timeout(ANSWER_LIMIT, work).await;
    }

    fn give_back(&mut self) -> impl Future<Output = ()> + Send + 'static {
        self.is_released = true;
        let (client, held) = (self.client.clone(), self.held.clone());
        // The lock first, or somebody could take it for an orphan.
        let nodes: Vec<String> =
            self.path.take().into_iter().chain([std::mem::take(&mut self.living)]).collect();
        async move {
            for node in nodes {
                while !is_gone(&client, &node).await {
                    sleep(RELEASE_RETRY).await;
                }
            }
            held.0.send_modify(|count| *count = count.saturating_sub(1));
        }
    }

    /// Waits for our turn.
    async fn wait(
        &self,
        locks: &str,
        living: &str,
        deadline: Instant,
        limit: Duration,
    ) -> Result<(), String> {
        let mine = self.path().rsplit('/').next().unwrap_or_default();
        loop {
            let mut queue = children(&self.client, locks).await?;
            queue.sort();
            let before = queue.iter().position(|name| name == mine).ok_or_else(|| {
                format!("our place in {locks} was taken away while we waited for it")
            })?;
            let Some(last) = before.checked_sub(1) else { return Ok(()) };
            let holder = self.clear_orphans(locks, living, &queue[..before]).await?;
            let Some(holder) = holder else { continue };
            if Instant::now() >= deadline {
                return Err(format!(
                    "{holder} has the lock of xcodis ({locks}/{}) for longer than {} s",
                    queue[0],
                    limit.as_secs_f64()
                ));
            }
            let path = format!("{locks}/{}", queue[last]);
            let asked = timeout(ANSWER_LIMIT, self.client.check_and_watch_stat(&path)).await;
            let (stat, watch) = match asked {
                Ok(answer) => answer.map_err(|error| format!("{path} cannot be read: {error}"))?,
                Err(_) => return Err(silent()),
            };
            if stat.is_none() {
                continue;
            }
            let next_look = deadline.min(Instant::now() + LOOK_INTERVAL);
            tokio::select! {
                _ = watch.changed() => {}
                () = sleep_until(next_look) => {}
            }
        }
    }

    /// Takes locks away whose owners are gone. Gives the first whose owner is not; `None` when it has to be looked anew.
    async fn clear_orphans(
        &self,
        locks: &str,
        living: &str,
        before: &[String],
    ) -> Result<Option<String>, String> {
        let mut owners = Vec::new();
        for name in before.iter().take(WAITING_READ_MAX) {
            let path = format!("{locks}/{name}");
            let Some((value, version)) = value(&self.client, &path).await? else {
                return Ok(None);
            };
            owners.push((path, value, version));
        }
        // Asked for after the locks: whoever had one by then was written down before.
        let alive = children(&self.client, living).await?;
        let mut holder = None;
        for (path, value, version) in owners {
            // One that does not say whose it is may be anybody's.
            let owner: Option<Map<String, Value>> = serde_json::from_slice(&value).ok();
            let name = owner.as_ref().map(name_of);
            if name.as_ref().is_none_or(|name| alive.contains(name)) {
                holder.get_or_insert_with(|| in_words(owner.as_ref()));
                continue;
            }
            match timeout(ANSWER_LIMIT, self.client.delete(&path, Some(version))).await {
                Ok(Ok(())) => tracing::warn!(
                    "{path} was left by {}, which ended without releasing it, and was taken away",
                    in_words(owner.as_ref())
                ),
                Ok(Err(Error::NoNode)) => {}
                Ok(Err(error)) => return Err(format!("{path} cannot be taken away: {error}")),
                Err(_) => return Err(silent()),
            }
        }
        Ok(holder)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.is_released
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(self.give_back());
        }
    }
}

/// Whether a node is not there any more, or our say in it.
async fn is_gone(client: &Client, node: &str) -> bool {
    if node.is_empty() || client.state().is_terminated() {
        // What goes with the session is gone, and so our lock is an orphan to everybody.
        return true;
    }
    let deleted = timeout(ANSWER_LIMIT, client.delete(node, None)).await;
    matches!(deleted, Ok(Ok(()) | Err(Error::NoNode | Error::SessionExpired)))
}

/// Whom a lock belongs to, with a mark that makes this try another one than all before.
fn new_owner() -> Result<Map<String, Value>, String> {
    let mut mark = [0; 4];
    getrandom::fill(&mut mark).map_err(|error| format!("there is no randomness: {error}"))?;
    let mark = u32::from_be_bytes(mark);
    let host = rustix::system::uname().nodename().to_string_lossy().replace('/', "_");
    let pid = std::process::id();
    let pid = if pid < PID_MISREAD { json!(pid) } else { json!(pid.to_string()) };
    let hostname = format!("{host}.redis-failover-{mark:08x}");
    Ok(Map::from_iter([("hostname".to_owned(), Value::from(hostname)), ("pid".to_owned(), pid)]))
}

/// The name under which an owner lives.
fn name_of(owner: &Map<String, Value>) -> String {
    let word = |key: &str| match owner.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    format!("{}-{}", word("hostname"), word("pid"))
}

fn in_words(owner: Option<&Map<String, Value>>) -> String {
    let Some(owner) = owner else { return "somebody who does not say so".to_owned() };
    let clean = |text: &str| -> String {
        text.chars().filter(|c| !c.is_control()).take(DESC_CHARS_MAX).collect()
    };
    match owner.get("desc").and_then(Value::as_str).filter(|desc| !desc.is_empty()) {
        Some(desc) => format!("{} (\"{}\")", clean(&name_of(owner)), clean(desc)),
        None => clean(&name_of(owner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_named_as_xcodis_names_them() {
        let owner = |text: &str| serde_json::from_str::<Map<String, Value>>(text).expect("JSON");
        assert_eq!(name_of(&owner(r#"{"hostname": "h", "pid": 12}"#)), "h-12");
        assert_eq!(name_of(&owner(r#"{"hostname": "h", "pid": "1234567"}"#)), "h-1234567");
        let said = in_words(Some(&owner(r#"{"hostname":"h","pid":1,"desc":"promote server x"}"#)));
        assert_eq!(said, "h-1 (\"promote server x\")");
        let (one, other) = (new_owner().expect("an owner"), new_owner().expect("another"));
        assert_ne!(name_of(&one), name_of(&other));
        assert!(!name_of(&one).contains('/'));
    }
}
