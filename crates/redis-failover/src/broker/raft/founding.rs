//! A cluster that was founded and does not begin.
//!
//! Whoever founds it writes its first entry, and can die before. Every other founder may write the same entry then, which
//! Raft allows: it is the same on all of them. And a founder that nobody heard of before the others founded another
//! cluster without it has one for itself, which no majority will ever join; it gives that up and is taken in by the
//! others.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::addr::Addr;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::bootstrap::{HELLO_TIMEOUT, Heard, Said};
use super::message::About;
use super::store::Cluster;
use super::types::{Member, MemberId, Raft, random, show};
use super::{RaftBroker, Running};

/// How long a founder waits until the first entry is agreed, each time before it does something about it. The one with
/// the lowest address does not wait to write it.
const BEGIN_WAIT: Duration = Duration::from_secs(1);

/// Writes the first entry, unless there is one.
///
/// # Errors
/// A sentence, when it cannot be written.
pub(super) async fn write_first(raft: &Raft, list: &[Addr]) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("Raft cannot be started: {error}");
    if raft.is_initialized().await.map_err(|error| failed(&error))? {
        return Ok(());
    }
    let member = |addr: &Addr| (MemberId::first(addr), Member { addr: addr.clone() });
    let members: BTreeMap<MemberId, Member> = list.iter().map(member).collect();
    raft.initialize(members).await.map_err(|error| failed(&error))
}

/// Why nothing happens in a cluster that did not begin.
fn not_begun(list: &[Addr]) -> String {
    format!(
        "the cluster of {} was founded and has not begun: most of them must be there at the same time. If one is gone for \
         ever, stop the others, remove their raft_data_dir, and start them with a raft_cluster without it",
        show(list)
    )
}

impl RaftBroker {
    /// Sees to it that the cluster which this node is a founder of begins, or is given up.
    pub(super) async fn see_it_begin(&self, running: Running, cluster: Cluster) {
        let mut applied = running.applied.last();
        let mut said = Said::default();
        loop {
            let agreed = timeout(BEGIN_WAIT, applied.wait_for(Option::is_some)).await.is_ok();
            // A log that goes on after its first entry was somebody's who led.
            if agreed || running.raft.metrics().borrow().last_log_index > Some(0) {
                return;
            }
            // Another one's vote can come in between; the next round sees what became of it.
            if let Err(why) = write_first(&running.raft, &cluster.list).await {
                tracing::debug!("{why}");
            }
            if self.is_left_alone(&cluster).await {
                self.give_up().await;
                return;
            }
            said.say(not_begun(&cluster.list), self.0.clock.now());
        }
    }

    /// Why nothing happens, when this node is a founder of a cluster that did not begin.
    pub(super) fn waits_for_founders(&self, running: &Running) -> Option<String> {
        let meta = self.meta();
        let cluster = meta.cluster?;
        let founder = cluster.founders.iter().any(|founder| founder.nonce == meta.nonce);
        let began = running.applied.last().borrow().is_some()
            || running.raft.metrics().borrow().last_log_index > Some(0);
        (founder && !began).then(|| not_begun(&cluster.list))
    }

    /// Whether so many of the first members are in another cluster, which counts on this node too, that this one never
    /// has a majority.
    async fn is_left_alone(&self, cluster: &Cluster) -> bool {
        let own = &self.0.settings.addr;
        let others = cluster.list.iter().filter(|addr| *addr != own);
        let answers = join_all(others.map(|addr| self.hello(addr, HELLO_TIMEOUT))).await;
        let elsewhere: Vec<About> = answers
            .into_iter()
            .flatten()
            .filter_map(|(_, heard)| match heard {
                Heard::Member(about) => Some(about),
                Heard::Fresh(_) => None,
            })
            .filter(|about| about.cluster.id != cluster.id)
            .collect();
        let counts = |about: &About| about.members.iter().any(|(_, addr)| addr == own);
        elsewhere.iter().any(counts) && elsewhere.len() * 2 >= cluster.list.len()
    }

    /// Makes the store a fresh one and ends.
    async fn give_up(&self) {
        let mut meta = self.meta();
        let (Some(store), Ok(nonce)) = (self.store(), random()) else { return };
        meta.nonce = nonce;
        meta.cluster = None;
        let why = "the cluster that this node founded never began, and the others are members of another one that counts on \
                   this node: what it stored, which was nothing, is put aside. Start it again, and they take it in";
        if let Err(why) = store.forget(&meta, why).await {
            tracing::error!("{why}");
        }
    }
}
