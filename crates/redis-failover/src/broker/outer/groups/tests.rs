use failover_core::node::NodeId;
use failover_core::policy::HISTORY_PER_GROUP_MAX;
use failover_core::record::{Kind, Outcome};
use failover_core::time::Time;

use super::*;

fn name(text: &str) -> GroupName {
    GroupName::new(text).expect("a name")
}

fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("an address")
}

fn history(id: &str) -> HistoryEntry {
    HistoryEntry {
        id: id.to_owned(),
        kind: Kind::Failover,
        epoch: 1,
        old_master: addr(1),
        new_master: Some(addr(2)),
        cause: "MasterCrashed".to_owned(),
        reason: "it is gone".to_owned(),
        outcome: Outcome::Done,
        started_at: Time::from_millis(1),
        finished_at: Some(Time::from_millis(2)),
        leader: NodeId::new("n"),
        write_gap_ms: Some(1.5),
        bytes_possibly_lost: Some(0),
        steps: Vec::new(),
        ranking: Vec::new(),
    }
}

fn change(group: &str, expect: Revision, epoch: u64, id: Option<&str>) -> Change {
    let mut entry = GroupEntry::new(addr(1));
    entry.epoch = epoch;
    Change {
        group: name(group),
        expect,
        what: String::new(),
        entry: Some(entry),
        history: id.map(history),
    }
}

/// A store in memory: values with versions.
#[derive(Default)]
struct Shelf {
    values: BTreeMap<String, (Vec<u8>, u64)>,
    index: u64,
}

impl Shelf {
    /// Writes, and gives what a watch would say of it.
    fn write(&mut self, ops: &[Op]) -> Written {
        self.index += 1;
        let mut updates = Vec::new();
        for op in ops {
            let gone: Vec<&String> = match op {
                Op::Put { path, value, expect } => {
                    let found = self.values.get(path).map(|(_, version)| *version);
                    match expect {
                        Expect::Nothing => assert_eq!(found, None, "{path}"),
                        Expect::Version(version) => assert_eq!(found, Some(*version), "{path}"),
                        Expect::Anything => {}
                    }
                    self.values.insert(path.clone(), (value.clone(), self.index));
                    updates.push((path.clone(), Some((value.clone(), self.index))));
                    Vec::new()
                }
                Op::Delete { path } => vec![path],
                Op::DeleteTree { path, below } => below.iter().chain([path]).collect(),
            };
            for path in gone {
                assert!(self.values.remove(path).is_some(), "{path}");
                updates.push((path.clone(), None));
            }
        }
        updates
    }
}

type Written = Vec<(String, Option<(Vec<u8>, u64)>)>;

fn hear(groups: &mut Groups, updates: &Written) -> Vec<Event> {
    for (path, value) in updates {
        let value = value.as_ref().map(|(value, version)| (value.as_slice(), *version));
        let as_of = value.map_or(u64::MAX, |(_, version)| version);
        groups.take(path, value, as_of).expect("it is understood");
    }
    groups.news()
}

fn load(groups: &mut Groups, shelf: &Shelf) -> Vec<Event> {
    groups.forget();
    let all: Written =
        shelf.values.iter().map(|(path, value)| (path.clone(), Some(value.clone()))).collect();
    hear(groups, &all)
}

/// The leader's side: plans and writes, and hears of it as a follower would.
fn write(leader: &mut Groups, shelf: &mut Shelf, changes: &[Change]) -> Result<Written, String> {
    let mut plan = leader.plan(changes, &Plan::default())?;
    leader.complete(&mut plan)?;
    let updates = shelf.write(&plan.ops);
    hear(leader, &updates);
    Ok(updates)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is told by a follower")]
fn record_of(events: &[Event], mut record: Record) -> Record {
    for event in events {
        match event {
            Event::Restored(whole) => record = whole.clone(),
            Event::Committed { id: None, changes } => record.apply(changes).expect("in order"),
            other => panic!("{other:?}"),
        }
    }
    record
}

#[test]
fn followers_hear_every_change_as_the_leader_made_it() {
    let (mut leader, mut follower, mut shelf) =
        (Groups::default(), Groups::default(), Shelf::default());
    let mut record = record_of(&load(&mut follower, &shelf), Record::default());
    load(&mut leader, &shelf);
    let mut truth = Record::default();
    for changes in [
        vec![change("a", 0, 0, None), change("b", 0, 0, None)],
        vec![change("a", 1, 1, Some("a-1"))],
        vec![change("a", 2, 2, None)],
        vec![Change { entry: None, ..change("b", 1, 0, None) }],
        vec![change("b", 0, 5, None)],
    ] {
        truth.apply(&changes).expect("in order");
        let updates = write(&mut leader, &mut shelf, &changes).expect("it fits");
        let events = hear(&mut follower, &updates);
        assert!(matches!(events.first(), Some(Event::Committed { .. })), "{events:?}");
        record = record_of(&events, record);
        assert_eq!(record, truth);
        assert_eq!(leader.record(), truth);
    }
    let stale = write(&mut leader, &mut shelf, &[change("a", 1, 9, None)]);
    assert!(stale.expect_err("an older revision").contains("at revision 3"));
    let masters = &shelf.values["masters"].0;
    assert_eq!(masters, br#"["127.0.0.1:1","127.0.0.1:1"]"#);
}

#[test]
fn changes_that_were_missed_are_told_with_their_history() {
    let (mut leader, mut follower, mut shelf) =
        (Groups::default(), Groups::default(), Shelf::default());
    load(&mut leader, &shelf);
    write(&mut leader, &mut shelf, &[change("a", 0, 0, None)]).expect("it fits");
    let record = record_of(&load(&mut follower, &shelf), Record::default());
    let mut missed = Written::new();
    for revision in 1..5 {
        let id = format!("a-{revision}");
        let change = change("a", revision, revision, Some(&id));
        missed.extend(write(&mut leader, &mut shelf, &[change]).expect("it fits"));
    }
    // The entry as it was read last, and the history in any order.
    let entry = missed.iter().rfind(|(path, _)| path == "groups/a").expect("written").clone();
    let mut histories: Written =
        missed.into_iter().filter(|(path, _)| path.starts_with("groups/a/")).collect();
    assert_eq!(histories.len(), 4);
    let last = histories.pop().expect("there are four");
    assert!(hear(&mut follower, &vec![entry]).is_empty(), "its history is still to come");
    assert!(hear(&mut follower, &histories).is_empty());
    let events = hear(&mut follower, &vec![last]);
    assert_eq!(events.len(), 4, "one for each revision");
    assert_eq!(record_of(&events, record), leader.record());
}

#[test]
fn what_cannot_be_told_by_changes_is_told_as_a_whole() {
    let (mut leader, mut follower, mut shelf) =
        (Groups::default(), Groups::default(), Shelf::default());
    load(&mut leader, &shelf);
    for revision in 0..3 {
        write(&mut leader, &mut shelf, &[change("a", revision, revision, None)]).expect("it fits");
    }
    load(&mut follower, &shelf);
    // An older state, as after a backup was put back.
    let (mut other, mut old) = (Groups::default(), Shelf::default());
    load(&mut other, &old);
    write(&mut other, &mut old, &[change("a", 0, 7, None)]).expect("it fits");
    let events = load(&mut follower, &old);
    let [Event::Restored(record)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(record.entry(&name("a")).expect("kept").epoch, 7);
    assert!(load(&mut follower, &old).is_empty(), "nothing is new");
    assert_eq!(follower.lost(), None);
    // Another group only: the one before was removed.
    let (mut third, mut few) = (Groups::default(), Shelf::default());
    load(&mut third, &few);
    write(&mut third, &mut few, &[change("b", 0, 1, None)]).expect("it fits");
    let record = record_of(&load(&mut follower, &few), other.record());
    assert_eq!(record, third.record());
}

/// What a node writes it knows at once, and hears of afterwards, perhaps when it has written more.
#[test]
fn what_a_leader_hears_from_before_its_own_writes_changes_nothing() {
    let (mut leader, mut shelf) = (Groups::default(), Shelf::default());
    load(&mut leader, &shelf);
    let mut heard = Vec::new();
    let gone = Change { entry: None, ..change("a", 2, 0, None) };
    for change in [change("a", 0, 0, None), change("a", 1, 1, None), gone] {
        let mut plan = leader.plan(std::slice::from_ref(&change), &Plan::default()).expect("new");
        leader.complete(&mut plan).expect("small");
        heard.push(shelf.write(&plan.ops));
        leader.written(plan, shelf.index, |_| shelf.index, &[change]);
    }
    let truth = leader.record();
    for (index, updates) in (1..).zip(&heard) {
        for (path, value) in updates {
            let value = value.as_ref().map(|(value, version)| (value.as_slice(), *version));
            leader.take(path, value, index).expect("it is understood");
        }
        leader.is_complete_up_to(index);
        assert_eq!(leader.news(), [], "{index}");
        assert_eq!(leader.record(), truth);
    }
    write(&mut leader, &mut shelf, &[change("a", 0, 0, None)]).expect("it is free again");
}

#[test]
fn a_store_that_lost_everything_is_told_from_one_whose_groups_were_removed() {
    let (mut groups, mut shelf) = (Groups::default(), Shelf::default());
    load(&mut groups, &shelf);
    assert_eq!(groups.lost(), None, "there never was anything");
    write(&mut groups, &mut shelf, &[change("a", 0, 0, None)]).expect("it fits");
    groups.forget();
    assert_eq!(groups.lost(), Some(1));
    load(&mut groups, &shelf);
    assert_eq!(groups.lost(), None);
    let gone = Change { entry: None, ..change("a", 1, 0, None) };
    write(&mut groups, &mut shelf, &[gone]).expect("it fits");
    load(&mut groups, &shelf);
    assert_eq!(groups.lost(), None);
}

#[test]
fn the_history_is_a_ring_in_the_store_too() {
    let (mut leader, mut shelf) = (Groups::default(), Shelf::default());
    load(&mut leader, &shelf);
    write(&mut leader, &mut shelf, &[change("a", 0, 0, None)]).expect("it fits");
    let count = u64::try_from(HISTORY_PER_GROUP_MAX).expect("small");
    for revision in 1..count + 10 {
        let change = change("a", revision, 0, Some(&format!("a-{revision}")));
        write(&mut leader, &mut shelf, &[change]).expect("it fits");
    }
    let stored = shelf.values.keys().filter(|path| path.starts_with("groups/a/")).count();
    assert_eq!(stored, HISTORY_PER_GROUP_MAX);
    let mut again = Groups::default();
    load(&mut again, &shelf);
    assert_eq!(again.record(), leader.record());
    let gone = Change { entry: None, ..change("a", count + 10, 0, None) };
    write(&mut leader, &mut shelf, &[gone]).expect("it fits");
    let left: Vec<&String> = shelf.values.keys().collect();
    assert_eq!(left, ["groups", "masters"]);
}

#[test]
fn what_a_newer_release_wrote_is_not_guessed() {
    let mut groups = Groups::default();
    let why = groups.take("groups/a", Some((br#"{"version":"9"}"#, 1)), 1).expect_err("unknown");
    assert!(why.contains("newer release"), "{why}");
}
