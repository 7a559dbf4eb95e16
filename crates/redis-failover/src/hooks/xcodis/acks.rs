//! What proxies answer to an action: each makes a node of its own below it when it follows the new master.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, sleep_until, timeout};
use zookeeper_client::{Client, Error};

use super::super::tell::Licence;
use super::tree::{self, Sent};
use super::{ANSWER_LIMIT, Xcodis, silent, value};

/// How often it is looked whether a proxy that is waited for is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How many proxies are named in a sentence.
const NAMED_MAX: usize = 5;

impl Xcodis {
    /// Waits until every proxy follows that is there and takes part. One that does not within the limit is told to exit, as
    /// xcodis does: it would go on writing to the old master.
    ///
    /// # Errors
    /// A sentence that names the proxies that were told so, or says what else went wrong.
    pub(super) async fn acknowledged(
        &self,
        client: &Client,
        action: &Sent,
        (limit, licence): (Duration, &Licence<'_>),
    ) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        let mut look_at = Instant::now();
        loop {
            let listed = timeout(ANSWER_LIMIT, client.list_and_watch_children(&action.path)).await;
            let (answers, watch) = match listed {
                Ok(Ok(listed)) => listed,
                Ok(Err(error)) => {
                    return Err(format!("{} in ZooKeeper cannot be read: {error}", action.path));
                }
                Err(_) => return Err(silent()),
            };
            let answers: BTreeSet<String> = answers.into_iter().collect();
            let mut missing: Vec<String> =
                action.receivers.iter().filter(|id| !answers.contains(*id)).cloned().collect();
            if !missing.is_empty() && Instant::now() >= look_at {
                // One that is gone reads the tree anew when it comes back.
                missing = self.online_of(client, missing).await?;
                look_at = deadline.min(Instant::now() + LOOK_INTERVAL);
                if !missing.is_empty() && Instant::now() >= deadline {
                    licence.check()?;
                    return Err(self.give_up(client, &missing, limit).await);
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            tokio::select! {
                _ = watch.changed() => {}
                () = sleep_until(look_at) => {}
            }
        }
    }

    /// Whether a proxy takes part. What is not written as a proxy does is none, and holds nobody up.
    pub(super) async fn is_online(&self, client: &Client, id: &str) -> Result<bool, String> {
        let Some((value, _)) = value(client, &self.paths.proxy(id)).await? else {
            return Ok(false);
        };
        let proxy: Option<Map<String, Value>> = serde_json::from_slice(&value).ok();
        let state = proxy.as_ref().and_then(|proxy| proxy.get("state")?.as_str());
        Ok(state == Some(tree::ONLINE))
    }

    /// Tells proxies to exit, and says so.
    async fn give_up(&self, client: &Client, missing: &[String], limit: Duration) -> String {
        let named: Vec<&str> = missing.iter().take(NAMED_MAX).map(String::as_str).collect();
        let more = match missing.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = format!(
            "the proxies {}{more} did not follow the new master within {} s",
            named.join(", "),
            limit.as_secs_f64()
        );
        for id in missing {
            if let Err(why) = self.mark_offline(client, id).await {
                return format!("{what}, and {id} could not be told to exit: {why}");
            }
        }
        format!("{what} and were told to exit (mark_offline): start them again and set them online")
    }

    async fn mark_offline(&self, client: &Client, id: &str) -> Result<(), String> {
        let path = self.paths.proxy(id);
        let Some((value, version)) = value(client, &path).await? else { return Ok(()) };
        let mut proxy: Map<String, Value> = tree::read(&value, &path)?;
        proxy.insert("state".to_owned(), Value::from(tree::MARK_OFFLINE));
        match timeout(ANSWER_LIMIT, client.set_data(&path, &tree::text(&proxy), Some(version)))
            .await
        {
            // It is gone, which is what it was to be.
            Ok(Ok(_) | Err(Error::NoNode)) => Ok(()),
            Ok(Err(error)) => Err(format!("{path} in ZooKeeper cannot be written: {error}")),
            Err(_) => Err(silent()),
        }
    }
}
