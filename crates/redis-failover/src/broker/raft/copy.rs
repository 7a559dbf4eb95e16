//! The record of a node that does not run, for moving it between brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use failover_core::addr::Addr;
use failover_core::record::Record;
use openraft::{CommittedLeaderId, EntryPayload, Membership};

use super::machine::replay;
use super::store::{Cluster, Opened, Store, exists};
use super::types::{LogId, Member, MemberId, SnapshotMeta, StoredMembership, Vote, random};

/// The term and the entry in which a record that was copied begins.
const FIRST: u64 = 1;

/// Reads the record that a node stored.
///
/// # Errors
/// A sentence, when there is none, it is in use, or it is not known whether all of it was agreed.
pub(crate) async fn read(dir: &Path, addr: &Addr) -> Result<Record, String> {
    if !exists(dir) {
        return Err(format!("there is no record in {}", dir.display()));
    }
    let opened = open(dir, addr).await?;
    let replayed = replay(&opened.store);
    close(opened).await;
    let replayed = replayed?;
    let is_decision = |payload: &EntryPayload<_>| matches!(payload, EntryPayload::Normal(_));
    let open = replayed.rest.iter().filter(|entry| is_decision(&entry.payload)).count();
    // What a member that votes alone wrote down is agreed.
    if open > 0 && replayed.membership.voter_ids().count() > 1 {
        return Err(format!(
            "the node {addr} does not know whether its last {open} decisions were agreed: take the directory of the node \
             that led when the last of them was made, or start the nodes, wait until one leads, and stop them again"
        ));
    }
    Ok(replayed.all)
}

/// Makes a directory for a node that begins with this record, as the only member of a new cluster. Nodes that are
/// named in its `raft_cluster` are taken in when they come.
///
/// # Errors
/// A sentence, when there is a record already, or it cannot be written.
pub(crate) async fn write(dir: &Path, addr: &Addr, record: &Record) -> Result<(), String> {
    if exists(dir) {
        return Err(format!("there is a record in {} already", dir.display()));
    }
    let bytes = serde_json::to_vec(record)
        .map_err(|error| format!("the record cannot be written down: {error}"))?;
    let opened = open(dir, addr).await?;
    let id = MemberId::first(addr);
    let last = LogId::new(CommittedLeaderId::new(FIRST, id), FIRST);
    let members = BTreeMap::from([(id, Member { addr: addr.clone() })]);
    let membership = Membership::new(vec![BTreeSet::from([id])], members);
    let cluster = Cluster { id: random()?, list: vec![addr.clone()], founders: Vec::new() };
    let covers = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
        snapshot_id: format!("{:016x}", cluster.id),
    };
    let mut meta = opened.meta.clone();
    (meta.id, meta.cluster) = (id, Some(cluster));
    let vote = Vote::new(FIRST, id);
    let written = opened.store.replace(&covers, bytes.into(), Vec::new(), &vote, &meta).await;
    close(opened).await;
    written
}

async fn open(dir: &Path, addr: &Addr) -> Result<Opened, String> {
    let (dir, addr) = (dir.to_owned(), addr.clone());
    let opened = tokio::task::spawn_blocking(move || Store::open(&dir, &addr)).await;
    opened
        .map_err(|error| format!("the store was not opened: {error}"))?
        .map_err(|error| error.to_string())
}

/// Waits until everything is on disk and the directory is free.
async fn close(opened: Opened) {
    let Opened { store, thread, .. } = opened;
    drop(store);
    thread.join().await;
}
