//! `raft_cluster_state = "new"`: the survivors of a cluster go on without the others.
//!
//! Each survivor replaces the members it saved by those of them that are in its list, before its Raft starts, and keeps
//! its record. What it knows to be agreed becomes a snapshot, and the rest of its log stays one, so that the survivor with
//! the newest log is elected, and the others get what they lack and lose what was never agreed. The cluster gets another number, the same on every survivor: those that are cut off are not heard
//! any more, should they come back.

use std::collections::{BTreeMap, BTreeSet};

use failover_core::addr::Addr;
use openraft::{EntryPayload, Membership};
use sha2::{Digest, Sha256};

use super::machine::{Replayed, replay};
use super::store::{Meta, Store};
use super::types::{Member, MemberId, SnapshotMeta, StoredMembership, Vote, show};

/// Makes the members that are in the list the only ones. Nothing is done when all of them are.
///
/// # Errors
/// A sentence, when the store cannot be read or written.
pub(super) async fn recover(store: &Store, meta: &mut Meta, list: &[Addr]) -> Result<(), String> {
    let Replayed { record, last, mut rest, all, membership: saved } = replay(store)?;
    let Some(cluster) = &mut meta.cluster else { return Ok(()) };
    let voters: BTreeMap<MemberId, Member> = saved
        .voter_ids()
        .filter_map(|id| Some((id, saved.membership().get_node(&id)?.clone())))
        .collect();
    let cut_off: Vec<&Addr> =
        voters.values().map(|member| &member.addr).filter(|addr| !list.contains(addr)).collect();
    if cut_off.is_empty() {
        return Ok(());
    }
    let mut members: BTreeMap<MemberId, Member> = voters
        .iter()
        .filter(|(_, member)| list.contains(&member.addr))
        .map(|(id, member)| (*id, member.clone()))
        .collect();
    members.insert(meta.id, Member { addr: meta.addr.clone() });
    tracing::warn!(
        groups = all.len(),
        "raft_cluster_state = new: the record is kept, {} are cut off, and the members are {} now",
        show(cut_off),
        show(members.values().map(|member| &member.addr)),
    );

    cluster.id = next_id(cluster.id, list);
    // Nobody else is a founder of this one.
    cluster.founders.clear();
    let ids: BTreeSet<MemberId> = members.keys().copied().collect();
    let covers = SnapshotMeta {
        last_log_id: last,
        last_membership: StoredMembership::new(last, Membership::new(vec![ids], members)),
        snapshot_id: format!("{:016x}", cluster.id),
    };
    let record = serde_json::to_vec(&record)
        .map_err(|error| format!("the record cannot be written down: {error}"))?;
    // Who the members were to be is over, whether or not it was agreed.
    for entry in &mut rest {
        if let EntryPayload::Membership(_) = entry.payload {
            entry.payload = EntryPayload::Blank;
        }
    }
    let (_, vote) = store.log_and_vote();
    let vote = Vote::new(vote.leader_id.term + 1, meta.id);
    store.replace(&covers, record.into(), rest, &vote, meta).await
}

/// The number of the cluster that this list makes of another.
fn next_id(id: u64, list: &[Addr]) -> u64 {
    let mut digest = Sha256::new_with_prefix(id.to_be_bytes());
    for addr in list {
        digest.update(addr.to_string());
        digest.update([0]);
    }
    digest.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
