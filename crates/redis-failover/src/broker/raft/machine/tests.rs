use failover_core::addr::Addr;
use failover_core::event::ProposalId;
use failover_core::node::{GroupName, Token};
use failover_core::record::{Change, GroupEntry, Revision};
use openraft::CommittedLeaderId;
use tempfile::TempDir;

use super::*;
use crate::broker::raft::store::Opened;
use crate::broker::raft::types::{Batch, Origin};

const OWN: Origin = Origin(1);

fn addr() -> Addr {
    "127.0.0.1:12000".parse().expect("address")
}

fn open(dir: &TempDir) -> (Machine, Applied, mpsc::Receiver<Event>) {
    let Opened { store, .. } = Store::open(dir.path(), &addr()).expect("open");
    let (sender, told) = mpsc::channel(16);
    let ours = Ours::new(OWN);
    for number in 1..4 {
        ours.begin(ProposalId::Fleet(number));
    }
    let (machine, applied) = Machine::restore(store, ours, sender).expect("restore");
    (machine, applied, told)
}

fn change(name: &str, expect: Revision) -> Change {
    Change {
        group: GroupName::new(name).expect("name"),
        expect,
        what: String::new(),
        entry: Some(GroupEntry::new(addr())),
        history: None,
    }
}

fn proposal(origin: Origin, number: u64, term: u64, changes: Vec<Change>) -> Proposal {
    Proposal { origin, number, token: Token(term), changes }
}

/// Begins to tell, and gives the record that this begins with.
fn go_live(machine: &Machine, applied: &Applied, told: &mut mpsc::Receiver<Event>) -> Record {
    applied.go_live(machine.told.try_reserve().expect("room"));
    match told.try_recv() {
        Ok(Event::Restored(record)) => record,
        other => panic!("{other:?}"),
    }
}

fn entry(term: u64, index: u64, proposals: Vec<Proposal>) -> Entry {
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(term, 7.into()), index),
        payload: EntryPayload::Normal(Batch { proposals: proposals.into() }),
    }
}

#[tokio::test]
async fn tells_what_happened_in_its_order_and_whose_it_was() {
    let dir = TempDir::new().expect("directory");
    let (mut machine, applied, mut told) = open(&dir);
    go_live(&machine, &applied, &mut told);
    let proposals = vec![
        proposal(OWN, 1, 5, vec![change("a", 0)]),
        proposal(Origin(2), 1, 5, vec![change("b", 0)]),
        proposal(OWN, 2, 5, vec![change("a", 0)]),
        proposal(Origin(2), 2, 5, vec![change("a", 0)]),
        proposal(OWN, 3, 4, vec![change("c", 0)]),
    ];
    machine.apply([entry(5, 1, proposals)]).await.expect("apply");
    let mut next = || told.try_recv().expect("told");
    let committed = |id: Option<u64>, name| Event::Committed {
        id: id.map(ProposalId::Fleet),
        changes: vec![change(name, 0)],
    };
    assert_eq!(next(), committed(Some(1), "a"));
    assert_eq!(next(), committed(None, "b"));
    let Event::NotCommitted { id, why } = next() else { panic!("conflict") };
    assert_eq!(id, ProposalId::Fleet(2));
    assert!(why.contains("another change of a came first"), "{why}");
    let Event::NotCommitted { id, why } = next() else { panic!("term") };
    assert_eq!(id, ProposalId::Fleet(3));
    assert!(why.contains("decided in term 4, and the cluster is in term 5"), "{why}");
    assert!(told.try_recv().is_err(), "what others proposed in vain is theirs");
    assert_eq!(applied.last().borrow().as_ref().map(|last| last.index), Some(1));
}

#[tokio::test]
async fn a_start_is_silent_and_ends_with_the_record() {
    let dir = TempDir::new().expect("directory");
    let (mut machine, applied, mut told) = open(&dir);
    machine
        .apply([entry(1, 1, vec![proposal(OWN, 1, 1, vec![change("a", 0)])])])
        .await
        .expect("apply");
    let record = go_live(&machine, &applied, &mut told);
    assert_eq!(record.len(), 1);
    assert!(told.try_recv().is_err());
    machine
        .apply([entry(1, 2, vec![proposal(OWN, 2, 1, vec![change("b", 0)])])])
        .await
        .expect("apply");
    assert!(told.try_recv().is_ok());
}

#[tokio::test]
async fn a_snapshot_is_the_record_also_after_a_restart_and_for_another_member() {
    let dir = TempDir::new().expect("directory");
    let (mut machine, applied, mut told) = open(&dir);
    machine
        .apply([entry(1, 1, vec![proposal(OWN, 1, 1, vec![change("a", 0)])])])
        .await
        .expect("apply");
    let record = go_live(&machine, &applied, &mut told);
    let built = machine.get_snapshot_builder().await.build_snapshot().await.expect("build");

    let other = TempDir::new().expect("directory");
    let (mut behind, applied, mut told) = open(&other);
    assert!(go_live(&behind, &applied, &mut told).is_empty());
    behind.install_snapshot(&built.meta, built.snapshot.clone()).await.expect("install");
    assert_eq!(told.try_recv(), Ok(Event::Restored(record.clone())));
    let current = behind.get_current_snapshot().await.expect("read").expect("there is one");
    assert_eq!((current.meta, current.snapshot), (built.meta.clone(), built.snapshot));

    let again = TempDir::new().expect("directory");
    let name = "record.redb";
    std::fs::copy(other.path().join(name), again.path().join(name)).expect("copy");
    let (mut restarted, applied, mut told) = open(&again);
    assert_eq!(go_live(&restarted, &applied, &mut told), record);
    assert_eq!(restarted.applied_state().await.expect("state").0, built.meta.last_log_id);
}

#[tokio::test]
async fn a_snapshot_that_is_none_changes_nothing() {
    let dir = TempDir::new().expect("directory");
    let (mut machine, applied, mut told) = open(&dir);
    let garbage = Box::new(Cursor::new(b"{}".to_vec()));
    let error = machine.install_snapshot(&SnapshotMeta::default(), garbage).await;
    assert!(error.expect_err("garbage").to_string().contains("cannot be read"));
    assert!(go_live(&machine, &applied, &mut told).is_empty());
}
