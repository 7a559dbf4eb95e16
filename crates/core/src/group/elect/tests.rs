use super::*;
use crate::event::Probed;
use crate::instance::ReplicationId;
use crate::policy::{AcrossLocations, InstancePolicy};
use crate::record::{GivenRule, Known, Rule};
use crate::sample::{addr, at, id, master, replica, reply};

const DOWN: Link = Link::Down { since_secs: Some(1) };

struct Case {
    entry: GroupEntry,
    watches: Watches,
    policy: Policy,
    peers: Peers,
    tried: Vec<Attempt>,
    emptied: bool,
}

impl Case {
    /// A dead master on port 1, last seen at offset 100.
    fn new() -> Self {
        let mut entry = GroupEntry::new(addr(1));
        entry.lineage = vec![id("h")];
        let mut case = Self {
            entry,
            watches: Watches::default(),
            policy: Policy::default(),
            peers: Peers::default(),
            tried: Vec::new(),
            emptied: false,
        };
        case.hear(1, master(at(0)));
        case
    }

    fn hear(&mut self, port: u16, facts: Facts) {
        let addr = addr(port);
        let now = facts.asked_at;
        let mut watch = Watch::new(at(0), &addr, &self.policy);
        let (seq, _) = watch.due(at(0), &self.policy).expect("asked");
        watch.probed(now, seq, reply(facts), &self.policy);
        watch.update(now, &self.policy);
        self.entry.instances.insert(addr.clone(), Known { attached: true, ..Known::default() });
        self.watches.insert(addr, watch);
    }

    fn replica(&mut self, port: u16, change: impl FnOnce(&mut Facts)) -> &mut Self {
        let mut facts = replica(at(10), &addr(1), DOWN);
        facts.run_id = Some(format!("run-{port}").into());
        change(&mut facts);
        self.hear(port, facts);
        self
    }

    fn elect(&self) -> Election {
        elect(&Contest {
            entry: &self.entry,
            watches: &self.watches,
            policy: &self.policy,
            peers: &self.peers,
            tried: &self.tried,
            dead_since: at(5),
            emptied: self.emptied,
            read_after: Some(at(6)),
            now: at(11),
        })
    }

    fn chosen(&self) -> Option<u16> {
        self.elect().chosen.map(|addr| addr.port())
    }

    fn refusal(&self, port: u16) -> String {
        let places = self.elect().ranking;
        let place = places.into_iter().find(|place| place.addr == addr(port)).expect("is ranked");
        place.refused.unwrap_or_default()
    }
}

#[test]
fn among_equals_the_lower_priority_wins_then_the_run_id() {
    let mut case = Case::new();
    case.replica(2, |facts| facts.priority = 20).replica(3, |facts| facts.priority = 10);
    assert_eq!(case.chosen(), Some(3));
    let mut case = Case::new();
    case.replica(2, |_| ()).replica(3, |facts| facts.run_id = Some("run-0".into()));
    assert_eq!(case.chosen(), Some(3));
}

#[test]
fn the_most_advanced_wins_over_a_better_priority_and_says_so() {
    let mut case = Case::new();
    case.replica(2, |facts| facts.priority = 1).replica(3, |facts| facts.offset = 150);
    let election = case.elect();
    assert_eq!(election.chosen, Some(addr(3)));
    assert_eq!(election.ranking[0].addr, addr(2), "the ranking is by priority");
    assert!(election.note.expect("a note").contains("50 bytes behind"));
}

#[test]
fn priority_0_is_never_promoted() {
    let mut case = Case::new();
    case.replica(2, |facts| {
        facts.priority = 0;
        facts.offset = 999;
    });
    assert_eq!(case.chosen(), None);
    assert!(case.refusal(2).contains("priority 0"));
    case.replica(3, |_| ());
    assert_eq!(case.chosen(), Some(3));
}

#[test]
fn another_history_is_refused_and_an_older_one_of_ours_is_not() {
    let mut case = Case::new();
    case.replica(2, |facts| facts.replication_id = Some(id("other")));
    assert!(case.refusal(2).contains("another history"));
    case.replica(2, |facts| {
        facts.replication_id = Some(id("other"));
        facts.second_replication_id = Some(id("h"));
    });
    assert_eq!(case.chosen(), Some(2));
    case.entry.lineage.insert(0, id("newer"));
    assert_eq!(case.chosen(), Some(2));
}

/// A master that restarted begins a history when its first replica comes, and is gone before it is read again.
#[test]
fn whoever_ended_a_copy_of_a_master_that_is_gone_has_its_history() {
    // The master is gone since 5.
    for (seen_to_go, link, asked_at, chosen) in [
        (true, Link::Syncing, 11, 3),
        (true, Link::Syncing, 91, 3),
        (false, Link::Syncing, 11, 2),
        (true, DOWN, 11, 3),
        // It got it from nobody knows which process.
        (true, DOWN, 91, 2),
    ] {
        let mut case = Case::new();
        case.replica(2, |facts| facts.offset = 90);
        case.replica(3, |facts| {
            facts.role = Role::Replica { master: addr(1), link: link.clone() };
        });
        let watch = case.watches.get_mut(&addr(3)).expect("it was heard");
        let mut has = watch.facts().expect("it was read").clone();
        has.asked_at = at(asked_at);
        has.role = Role::Replica { master: addr(1), link: DOWN };
        has.replication_id = Some(id("begun"));
        has.offset = 5;
        watch.read(at(asked_at), has);
        if seen_to_go {
            let master = case.watches.get_mut(&addr(1)).expect("it was heard");
            master.ended(at(5));
            let (seq, _) = master.due(at(5), &case.policy).expect("asked at once");
            master.probed(at(6), seq, Probed::Refused, &case.policy);
            master.update(at(6), &case.policy);
        }
        assert_eq!(case.chosen(), Some(chosen), "{seen_to_go} {link:?} {asked_at}");
    }
}

/// A master that restarted, and was lost again before it said what it has: whoever follows it may have a copy of it.
#[test]
fn what_a_restarted_master_has_is_told_by_a_whole_copy_that_came_from_it() {
    let up = || Link::Up { last_io_secs: 0 };
    for (link, keys, chosen) in [
        (up(), 10, 3),
        (up(), 2, 2),
        (Link::Down { since_secs: Some(0) }, 10, 3),
        // It was pointed at this master for nine seconds when it was read, and lost its link to another one before.
        (Link::Down { since_secs: Some(9) }, 10, 2),
    ] {
        let mut case = Case::new();
        case.entry.master_run_id = Some("before".into());
        case.hear(1, Facts { run_id: Some("before".into()), keys: Some(10), ..master(at(0)) });
        let watch = case.watches.get_mut(&addr(1)).expect("it was heard");
        watch.read(at(1), Facts { replication_id: Some(id("new")), ..master(at(1)) });
        case.replica(2, |facts| facts.offset = 90);
        case.replica(3, |facts| facts.role = Role::Replica { master: addr(1), link: up() });
        let watch = case.watches.get_mut(&addr(3)).expect("it was heard");
        let mut facts = watch.facts().expect("it was read").clone();
        facts.role = Role::Replica { master: addr(4), link: up() };
        facts.replication_id = Some(id("of 4"));
        watch.read(at(11), facts.clone());
        facts.asked_at = at(1_000);
        facts.role = Role::Replica { master: addr(1), link: DOWN };
        watch.read(at(1_000), facts.clone());
        facts.asked_at = at(10_000);
        facts.role = Role::Replica { master: addr(1), link: link.clone() };
        facts.keys = Some(keys);
        watch.read(at(10_000), facts);
        assert_eq!(case.chosen(), Some(chosen), "{link:?} {keys}");
    }
}

#[test]
fn a_copy_of_what_a_master_without_its_data_has_now_is_no_rescue() {
    let mut case = Case { emptied: true, ..Case::new() };
    case.hear(1, Facts { replication_id: Some(id("new")), ..master(at(9)) });
    case.entry.lineage.insert(0, id("new"));
    case.replica(2, |facts| {
        facts.replication_id = Some(id("new"));
        facts.role = Role::Replica { master: addr(1), link: Link::Up { last_io_secs: 0 } };
    });
    case.replica(3, |facts| facts.offset = 50);
    assert_eq!(case.chosen(), Some(3));
    assert!(case.refusal(2).contains("has copied"), "{}", case.refusal(2));
}

#[test]
fn without_ids_the_address_decides() {
    let none: Option<ReplicationId> = None;
    let mut case = Case::new();
    case.entry.lineage.clear();
    case.replica(2, |facts| facts.replication_id.clone_from(&none));
    assert_eq!(case.chosen(), Some(2));
    case.replica(2, |facts| {
        facts.replication_id.clone_from(&none);
        facts.role = Role::Replica { master: addr(9), link: DOWN };
    });
    assert!(case.refusal(2).contains("does not follow the recorded master"));
}

#[test]
fn a_former_master_that_came_back_is_no_candidate_but_one_promoted_by_hand_is() {
    let mut case = Case::new();
    case.entry.lineage = vec![id("new"), id("h")];
    case.hear(1, Facts { replication_id: Some(id("new")), ..master(at(0)) });
    case.replica(2, |facts| facts.role = Role::Master { replicas: Vec::new() });
    assert!(case.refusal(2).contains("a master of another history"));
    case.replica(2, |facts| {
        facts.role = Role::Master { replicas: Vec::new() };
        facts.replication_id = Some(id("newest"));
        facts.second_replication_id = Some(id("new"));
    });
    assert_eq!(case.chosen(), Some(2));
}

#[test]
fn what_a_master_made_by_hand_took_does_not_count_for_what_the_group_acknowledged() {
    let mut case = Case::new();
    let by_hand = |facts: &mut Facts, offset| {
        facts.role = Role::Master { replicas: Vec::new() };
        facts.replication_id = Some(id("its own"));
        facts.second_replication_id = Some(id("h"));
        facts.second_offset = Some(700);
        facts.offset = offset;
    };
    case.replica(2, |facts| by_hand(facts, 5_000));
    case.replica(3, |facts| facts.offset = 800);
    assert_eq!(case.chosen(), Some(3));
    case.replica(3, |facts| facts.offset = 700);
    assert_eq!(case.chosen(), Some(2), "the other one has nothing that it has not");
    case.replica(2, |facts| by_hand(facts, 700));
    case.replica(3, |facts| facts.offset = 699);
    assert_eq!(case.chosen(), Some(2));
}

#[test]
fn never_synced_syncing_and_long_lost_links_are_refused() {
    let mut case = Case::new();
    let link = |link| move |facts: &mut Facts| facts.role = Role::Replica { master: addr(1), link };
    case.replica(2, link(Link::Down { since_secs: None }));
    assert!(case.refusal(2).contains("never finished a sync"));
    case.replica(2, link(Link::Syncing));
    assert!(case.refusal(2).contains("full sync"));
    case.replica(2, link(Link::Down { since_secs: Some(31) }));
    assert!(case.refusal(2).contains("long before the master died"));
    case.replica(2, link(Link::Down { since_secs: Some(29) }));
    assert_eq!(case.chosen(), Some(2));
}

#[test]
fn one_that_was_not_read_since_the_death_or_was_tried_is_refused() {
    let mut case = Case::new();
    case.replica(2, |facts| facts.asked_at = at(3));
    assert!(case.refusal(2).contains("gave no answer"));
    case.replica(2, |_| ());
    case.tried.push(Attempt { addr: addr(2), epoch: 1, changed: true, reason: "x".to_owned() });
    assert!(case.refusal(2).contains("given up: x"));
}

#[test]
fn max_lag_bytes_is_measured_against_the_last_known_offset() {
    let mut case = Case::new();
    case.policy.max_lag_bytes = 10;
    case.replica(2, |facts| facts.offset = 89);
    assert!(case.refusal(2).contains("11 bytes behind"));
    case.replica(2, |facts| facts.offset = 90);
    let election = case.elect();
    assert_eq!((election.chosen, election.behind_bytes), (Some(addr(2)), Some(10)));
}

#[test]
fn the_newest_history_comes_before_a_larger_offset_in_an_older_one() {
    let mut case = Case::new();
    case.entry.lineage = vec![id("new"), id("h")];
    case.hear(1, Facts { replication_id: Some(id("new")), ..master(at(0)) });
    case.replica(2, |facts| facts.offset = 9_000);
    for (port, offset) in [(3, 50), (4, 70)] {
        case.replica(port, |facts| {
            facts.replication_id = Some(id("new"));
            facts.offset = offset;
        });
    }
    let order: Vec<u16> = case.elect().ranking.iter().map(|place| place.addr.port()).collect();
    assert_eq!((case.chosen(), order), (Some(4), vec![4, 3, 2]));
}

#[test]
fn the_history_that_the_dead_master_last_reported_is_the_newest_also_before_it_is_committed() {
    let mut case = Case::new();
    case.entry.lineage = vec![id("old")];
    case.replica(2, |facts| {
        facts.replication_id = Some(id("old"));
        facts.offset = 9_000;
    });
    case.replica(3, |facts| facts.offset = 50);
    assert_eq!(case.chosen(), Some(3), "it followed the master after its restart");
}

impl Case {
    fn rule(&mut self, port: u16, rule: Rule, expires_at: Option<Time>) {
        let known = self.entry.instances.get_mut(&addr(port)).expect("it is known");
        known.rule = Some(GivenRule { rule, expires_at });
    }

    fn set(&mut self, port: u16, set: InstancePolicy) {
        self.policy.instances.insert(addr(port), set);
    }
}

#[test]
fn a_rule_refuses_or_orders_equals_and_counts_before_the_priority() {
    let mut case = Case::new();
    case.replica(2, |facts| facts.priority = 1).replica(3, |_| ());
    case.rule(3, Rule::Prefer, None);
    assert_eq!(case.chosen(), Some(3));
    case.rule(3, Rule::PreferNot, None);
    assert_eq!(case.chosen(), Some(2));
    case.rule(2, Rule::Never, None);
    assert_eq!(case.chosen(), Some(3), "the last one is better than none");
    assert!(case.refusal(2).contains("rule set on request"), "{}", case.refusal(2));
    case.rule(3, Rule::Never, None);
    assert_eq!(case.chosen(), None);
}

#[test]
fn a_preferred_one_that_is_behind_is_not_promoted() {
    let mut case = Case::new();
    case.replica(2, |facts| facts.offset = 90).replica(3, |_| ());
    case.rule(2, Rule::Prefer, None);
    assert_eq!(case.chosen(), Some(3));
    assert!(case.elect().note.expect("a sentence").contains("preferred"));
}

#[test]
fn a_rule_of_the_configuration_counts_until_one_is_set_and_after_that_expired() {
    let mut case = Case::new();
    case.replica(2, |_| ()).replica(3, |facts| facts.priority = 200);
    case.set(2, InstancePolicy { rule: Some(Rule::Never), ..InstancePolicy::default() });
    assert_eq!(case.chosen(), Some(3));
    assert!(case.refusal(2).contains("rule of the configuration"), "{}", case.refusal(2));
    case.rule(2, Rule::Prefer, Some(at(12)));
    assert_eq!(case.chosen(), Some(2));
    case.rule(2, Rule::Prefer, Some(at(11)));
    assert_eq!(case.chosen(), Some(3));
}

#[test]
fn a_priority_of_the_configuration_is_the_one_that_counts() {
    let mut case = Case::new();
    case.replica(2, |facts| facts.priority = 0).replica(3, |_| ());
    assert_eq!(case.chosen(), Some(3));
    case.set(2, InstancePolicy { priority: Some(10), ..InstancePolicy::default() });
    assert_eq!(case.chosen(), Some(2));
    assert_eq!(case.elect().ranking[0].priority, Some(10));
    case.set(2, InstancePolicy { priority: Some(0), ..InstancePolicy::default() });
    assert!(case.refusal(2).contains("priority 0"));
}

#[test]
fn another_location_is_refused_or_comes_last_when_both_are_known() {
    let at_place =
        |place: &str| InstancePolicy { location: Some(place.to_owned()), ..Default::default() };
    let mut case = Case::new();
    case.replica(2, |facts| facts.priority = 1).replica(3, |_| ());
    case.set(1, at_place("east"));
    case.set(2, at_place("west"));
    assert_eq!(case.chosen(), Some(2));
    case.policy.across_locations = AcrossLocations::Last;
    assert_eq!(case.chosen(), Some(3), "nobody knows that it stands elsewhere");
    case.policy.across_locations = AcrossLocations::Deny;
    assert_eq!(case.chosen(), Some(3));
    assert!(case.refusal(2).contains("stands at west"), "{}", case.refusal(2));
    case.policy.instances.remove(&addr(1));
    assert_eq!(case.chosen(), Some(2));
}
