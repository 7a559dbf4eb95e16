//! Members that go on without the others, with logs that do not agree.

use std::collections::BTreeMap;

use failover_core::node::Token;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, Membership};

use super::super::store::Opened;
use super::super::types::{Batch, Entry, LogId, Member, Proposal, Vote};
use super::*;

/// A store of a member of a cluster of five: the groups that were written, each in an entry, under which term by whom.
async fn write(
    addrs: &[Addr],
    own: usize,
    groups: &[(&str, u64, usize)],
    agreed: u64,
    dir: &TempDir,
) {
    let id = |at: usize| MemberId::first(&addrs[at]);
    let settings = settings(&addrs[own], addrs, dir);
    let Opened { mut store, thread, mut meta } =
        Store::open(&settings.data_dir, &addrs[own]).expect("open");
    meta.cluster = Some(Cluster { id: 7, list: addrs.to_vec(), founders: Vec::new() });
    store.save_meta(&meta).await.expect("saved");
    let members: BTreeMap<MemberId, Member> =
        addrs.iter().map(|addr| (MemberId::first(addr), Member { addr: addr.clone() })).collect();
    let membership = Membership::new(vec![members.keys().copied().collect()], members);
    let mut entries =
        vec![Entry { log_id: LogId::default(), payload: EntryPayload::Membership(membership) }];
    for (index, (name, term, leader)) in (1..).zip(groups) {
        let proposal = Proposal {
            origin: Origin(1),
            number: index,
            token: Token(*term),
            changes: vec![change(name, 0)],
        };
        entries.push(Entry {
            log_id: LogId::new(CommittedLeaderId::new(*term, id(*leader)), index),
            payload: EntryPayload::Normal(Batch { proposals: [proposal].into() }),
        });
    }
    let last = entries.iter().rfind(|entry| entry.log_id.index <= agreed);
    let last = last.map(|entry| entry.log_id);
    store.save_vote(&Vote::new(3, id(own))).await.expect("saved");
    store.blocking_append(entries).await.expect("appended");
    store.save_committed(last).await.expect("saved");
    drop(store);
    thread.join().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_agreed_does_not_outlast_what_was() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(5);
    // The last leader agreed the third entry with others; the one before it gave another third one to one member only.
    // Neither survivor was told how far that went.
    write(&addrs, 0, &[("a", 1, 2), ("b", 1, 2), ("agreed", 3, 3)], 1, &dir).await;
    write(&addrs, 1, &[("a", 1, 2), ("b", 1, 2), ("lost", 2, 4), ("lost-too", 2, 4)], 2, &dir)
        .await;
    let mut nodes = Vec::new();
    for addr in &addrs[..2] {
        let settings = Settings { cut_off: true, ..settings(addr, &addrs[..2], &dir) };
        nodes.push(start(settings).await);
    }
    until("both have the same", &mut nodes, |nodes| whole(nodes, 3)).await;
    let at = leader(&nodes).expect("leader");
    nodes[at].propose(1, change("later", 0));
    until("and go on", &mut nodes, |nodes| whole(nodes, 4)).await;
    for node in nodes {
        let names: Vec<String> = node.record.entries().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["a", "agreed", "b", "later"]);
        node.end().await;
    }

    let mut nodes = Vec::new();
    for addr in &addrs[..2] {
        nodes.push(start(settings(addr, &addrs[..2], &dir)).await);
    }
    until("it is stored so", &mut nodes, |nodes| whole(nodes, 4)).await;
}
