//! A master that restarts within its down time, with its data or without.

use super::desk::*;

/// A desk whose master restarted at once, as a supervisor would do it: without a refusal that anyone saw, under another
/// run id, on another history. Its replicas have not found back to it yet.
fn restarted(keys: u64, change: impl FnOnce(&mut Desk)) -> Desk {
    let policy = Policy {
        max_down_time: Duration::from_secs(1),
        crash_down_time: Duration::from_secs(1),
        ..Policy::default()
    };
    let mut desk = Desk::with(policy);
    desk.commands.clear();
    let master = desk.server(1);
    master.keys = keys;
    master.offset = 0;
    master.life += 1;
    master.history = "restarted".to_owned();
    for port in [2, 3] {
        desk.server(port).broken = true;
    }
    change(&mut desk);
    desk.handle(Event::Ended { addr: addr(1) });
    desk
}

/// The same with no data left: one replica was wiped, the other does not answer.
fn wiped_or_gone() -> Desk {
    let mut desk = restarted(0, |desk| {
        desk.server(2).keys = 0;
        desk.server(2).broken = false;
        desk.server(3).mood = Mood::Refuses;
    });
    desk.handle(Event::Ended { addr: addr(3) });
    desk
}

#[test]
fn the_most_advanced_replica_replaces_a_master_that_restarted_empty_before_it_is_wiped() {
    let mut desk = restarted(0, |desk| desk.server(3).offset = 101);
    desk.pass(20);
    assert_eq!(desk.master(), 3);
    assert_eq!(desk.commands.first().map(|(port, _)| *port), Some(3), "{:?}", desk.commands);
    for port in [2, 3] {
        desk.server(port).broken = false;
    }
    desk.pass(3000);
    let [failover] = desk.of_kind(Kind::Failover)[..] else { panic!("one failover") };
    assert_eq!(failover.cause, "MasterRestartedEmpty");
    assert!(failover.reason.contains("restarted") && failover.reason.contains("no keys"));
    assert_eq!(failover.bytes_possibly_lost, None, "it cannot be known");
    assert_eq!((desk.servers[&1].follows, desk.servers[&2].follows), (Some(3), Some(3)));
    assert!(desk.servers.values().all(|server| server.keys == 10));
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

#[test]
fn a_master_that_restarted_with_its_data_goes_on() {
    // From an append-only file: the same keys, a new history, counted from zero.
    let mut desk = restarted(10, |_| {});
    desk.pass(20);
    for port in [2, 3] {
        desk.server(port).broken = false;
    }
    desk.pass(3000);
    assert_eq!((desk.master(), desk.commands.len()), (1, 0));
    assert_eq!(desk.view().diagnosis.name, "Healthy");
    assert_eq!(desk.entry().master_run_id.as_deref(), Some("1-1"));

    // Now that this is known of it, its next death is as any other.
    desk.kill(1);
    desk.pass(2000);
    assert_eq!(desk.entry().epoch, 1);
}

#[test]
fn whoever_has_the_history_that_a_restarted_master_began_last_takes_over_from_it() {
    let mut desk = restarted(10, |_| {});
    desk.pass(20);
    // It begins another history when its first replica comes, and hangs before it is read again.
    desk.server(1).history = "counted for its replica".to_owned();
    desk.server(1).offset = 7;
    desk.server(3).broken = false;
    desk.server(3).offset = 7;
    desk.hang(1);
    desk.pass(3000);
    assert_eq!(desk.master(), 3, "2 has more bytes, and of an older history");
}

#[test]
fn what_a_replica_was_before_it_hung_is_no_news_of_its_masters_history() {
    let mut desk = restarted(10, |desk| desk.hang(3));
    // Its history is so old by now that the record has forgotten it.
    for history in ["one", "two", "three", "four"] {
        desk.server(1).history = history.to_owned();
        desk.server(2).broken = false;
        desk.pass(3000);
    }
    assert!(!desk.entry().lineage.contains(&ReplicationId("h0".into())));
    desk.hang(1);
    while desk.view().instances[0].how == How::Replied {
        desk.pass(10);
    }
    // It wakes, and answers what it was asked before it reads that its link is gone.
    let (seq, asked_at) = desk.unanswered[&3];
    let mut facts = Facts { asked_at, ..desk.facts(3) };
    facts.role = Role::Replica { master: addr(1), link: Link::Up { last_io_secs: 0 } };
    facts.replication_id = Some(ReplicationId("h0".into()));
    let outcome =
        Probed::Replied { health: Health::Fine, facts: Some(Box::new(facts)), socket: None };
    let awake = Server {
        mood: Mood::Serves,
        broken: true,
        history: "h0".to_owned(),
        ..desk.servers[&3].clone()
    };
    desk.servers.insert(3, Server { offset: 200, ..awake });
    desk.handle(Event::Probed { addr: addr(3), seq, outcome });
    desk.pass(3000);
    assert_eq!(desk.master(), 2, "3 has more bytes, and of a history that was over long ago");
}

#[test]
fn a_master_that_went_back_to_an_old_snapshot_is_replaced_and_one_that_lacks_nothing_is_not() {
    for (offset, master) in [(100, 1), (60, 2)] {
        let mut desk = restarted(10, |desk| {
            desk.server(1).second = Some("h0".to_owned());
            desk.server(1).offset = offset;
        });
        desk.pass(20);
        assert_eq!(desk.master(), master, "restarted at offset {offset}");
    }
}

#[test]
fn nobody_is_promoted_for_data_that_everybody_lost_and_the_history_says_so() {
    let mut desk = restarted(0, |desk| {
        for port in [2, 3] {
            desk.server(port).broken = false;
        }
    });
    desk.pass(3000);
    assert_eq!((desk.master(), desk.commands.len()), (1, 0));
    let [lost] = desk.of_kind(Kind::Failover)[..] else { panic!("one entry") };
    assert_eq!((lost.outcome, lost.cause.as_str()), (Outcome::Failed, "MasterRestartedEmpty"));
    assert!(lost.reason.contains("10 keys") && lost.reason.contains("backup"), "{}", lost.reason);
    assert_eq!(desk.view().diagnosis.name, "Healthy", "there is nothing left to be done");
}

#[test]
fn an_empty_master_is_not_followed_while_somebody_who_may_have_the_data_is_away() {
    let mut desk = wiped_or_gone();
    desk.pass(3000);
    assert_eq!((desk.master(), desk.commands.len()), (1, 0));
    let view = desk.view();
    assert_eq!(view.diagnosis.name, "MasterRestartedEmpty");
    assert!(view.diagnosis.reason.contains("127.0.0.1:3 may have it"), "{}", view.diagnosis.reason);
    desk.server(3).mood = Mood::Serves;
    desk.pass(500);
    assert_eq!(desk.master(), 3, "it came back with the data, and before it was wiped");
}

#[test]
fn a_master_that_was_filled_again_meanwhile_is_counted_before_it_is_replaced() {
    for (filled, master) in [(0, 3), (100, 1)] {
        let mut desk = wiped_or_gone();
        desk.counting_always = false;
        desk.pass(3000);
        assert_eq!(desk.view().diagnosis.name, "MasterRestartedEmpty");
        desk.server(1).keys = filled;
        desk.server(3).mood = Mood::Serves;
        desk.pass(500);
        assert_eq!(desk.master(), master, "with {filled} keys");
    }
}

#[test]
fn a_master_that_is_silent_for_a_moment_is_not_replaced_for_what_it_held_long_ago() {
    let mut desk = wiped_or_gone();
    desk.counting_always = false;
    // It was counted half a second ago, and is counted once a second.
    desk.pass(3700);
    desk.server(1).keys = 100;
    desk.hang(1);
    desk.pass(600);
    desk.server(3).mood = Mood::Serves;
    desk.pass(380);
    desk.server(1).mood = Mood::Serves;
    desk.pass(3000);
    assert_eq!((desk.master(), desk.entry().epoch), (1, 0));
}

#[test]
fn a_master_that_was_filled_again_before_it_could_be_replaced_stays() {
    let mut desk = restarted(0, |desk| {
        desk.counting_always = false;
        desk.committing = false;
    });
    desk.pass(20);
    assert_eq!(desk.view().diagnosis.name, "MasterRestartedEmpty");
    desk.server(1).keys = 100;
    desk.pass(3000);
    desk.committing = true;
    desk.pass(3000);
    assert_eq!(desk.master(), 1);
    assert_eq!(desk.entry().epoch, 0);
}

#[test]
fn a_master_that_came_back_with_nothing_is_counted_while_others_are_waited_for() {
    let mut desk = wiped_or_gone();
    desk.counting_always = false;
    desk.pass(3000);
    desk.server(1).keys = 100;
    desk.pass(3000);
    let view = desk.view();
    assert_eq!(view.diagnosis.name, "MasterRestartedEmpty", "they are waited for all the same");
    assert!(view.diagnosis.reason.contains("with 100 keys"), "{}", view.diagnosis.reason);
}

#[test]
fn nobody_is_wiped_by_a_candidate_that_was_wiped_right_before_it_was_promoted() {
    let mut desk = restarted(0, |desk| {
        desk.counting_always = false;
        for (port, keys) in [(2, 6000), (3, 5000)] {
            let kept = desk.server(port);
            kept.life += 1;
            kept.history = format!("from an append-only file of {port}");
            kept.keys = keys;
        }
        desk.server(2).copies_late = true;
    });
    for port in [2, 3] {
        desk.handle(Event::Ended { addr: addr(port) });
    }
    desk.pass(3000);
    assert_eq!((desk.master(), desk.servers[&2].keys), (2, 0));
    assert_eq!(desk.servers[&3].keys, 5000);
    let view = desk.view();
    let why = view.diagnosis.not_acting_because.unwrap_or_default();
    assert!(why.contains("5000 keys") && why.contains("force"), "{why}");
}

#[test]
fn whoever_is_away_for_too_long_is_not_waited_for() {
    let mut desk = wiped_or_gone();
    desk.pass(62_000);
    assert_eq!(desk.master(), 1);
    assert_ne!(desk.view().diagnosis.name, "MasterRestartedEmpty");
    assert_eq!(desk.entry().master_run_id.as_deref(), Some("1-1"));
}

#[test]
fn an_old_master_with_data_is_not_demoted_to_one_that_came_back_empty() {
    // 1 dies, 2 takes over, 2 dies with 3, 1 comes back with the data of then, and 2 with nothing.
    let mut desk = Desk::new();
    desk.kill(1);
    desk.pass(1000);
    assert_eq!(desk.master(), 2);
    desk.kill(3);
    desk.kill(2);
    desk.pass(2000);
    desk.commands.clear();
    desk.server(1).life += 1;
    desk.start(1);
    assert_eq!(desk.commands, [], "its history lacks what 2 took: a person has to say so");
    assert_eq!(desk.view().diagnosis.name, "NoEligibleReplica");
    let empty = desk.server(2);
    empty.life += 1;
    empty.keys = 0;
    empty.history = "new".to_owned();
    empty.second = None;
    desk.start(2);
    assert_eq!(desk.master(), 1, "what 2 had is gone: the data of 1 is the best there is");
    assert_eq!(desk.servers[&2].follows, Some(1));
    assert_eq!(desk.servers[&2].keys, 10);
}

#[test]
fn one_that_returned_is_not_left_alone_for_an_old_count_of_the_master() {
    for (filled, demoted) in [(5000, true), (10, false)] {
        let mut desk = Desk::new();
        // They were counted with ten keys each, and say how many there are on new connections only from here on.
        desk.counting_always = false;
        for port in [1, 2, 3] {
            desk.server(port).keys = filled;
        }
        desk.pass(3000);
        desk.kill(1);
        desk.pass(500);
        let master = desk.master();
        assert_ne!(master, 1);
        desk.server(1).keys = 5000;
        desk.server(1).life += 1;
        desk.start(1);
        let view = desk.view();
        let follows = desk.servers[&1].follows;
        assert_eq!(follows, demoted.then_some(master), "{:?}", view.diagnosis);
    }
}

#[test]
fn an_old_master_that_was_filled_before_it_hung_is_counted_before_it_is_demoted() {
    for (filled, demoted) in [(5000, false), (20, true)] {
        let mut desk = Desk::new();
        // They were counted with ten keys each, and say how many there are on new connections only from here on.
        desk.counting_always = false;
        desk.pass(3000);
        for port in [2, 3] {
            desk.server(port).broken = true;
        }
        desk.server(1).keys = filled;
        desk.hang(1);
        // Its newest question is open still: the next one need not be on a new connection.
        desk.pass(2700);
        for port in [2, 3] {
            desk.server(port).broken = false;
        }
        let master = desk.master();
        assert_ne!(master, 1);
        // What it was asked on the connection that it had is answered first, without a count.
        let (seq, asked_at) = desk.unanswered.remove(&1).expect("it was asked");
        let facts = Facts { asked_at, keys: None, ..desk.facts(1) };
        let outcome =
            Probed::Replied { health: Health::Fine, facts: Some(Box::new(facts)), socket: None };
        desk.server(1).mood = Mood::Serves;
        desk.handle(Event::Probed { addr: addr(1), seq, outcome });
        desk.pass(3000);
        let view = desk.view();
        let follows = desk.servers[&1].follows;
        assert_eq!(follows, demoted.then_some(master), "{:?}", view.diagnosis);
    }
}

#[test]
fn one_with_data_of_no_known_history_is_neither_promoted_nor_wiped() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.pass(1000);
    desk.kill(3);
    desk.kill(2);
    desk.pass(2000);
    desk.commands.clear();
    let old = desk.server(1);
    old.life += 1;
    old.history = "from an append-only file".to_owned();
    desk.start(1);
    let empty = desk.server(2);
    empty.life += 1;
    empty.keys = 0;
    empty.history = "new".to_owned();
    empty.second = None;
    desk.start(2);
    assert_eq!((desk.master(), desk.commands.len()), (2, 0));
    let view = desk.view();
    assert_eq!(view.diagnosis.name, "MasterRestartedEmpty");
    assert!(view.diagnosis.reason.contains("force"), "{}", view.diagnosis.reason);
    desk.server(2).keys = 3;
    desk.pass(3000);
    assert_eq!((desk.master(), desk.commands.len()), (2, 0), "clients wrote a little to it");
    let to = Request::Failover { group: group(), to: Some(addr(1)), force: true, dry_run: false };
    desk.handle(Event::Request { id: 9, request: to });
    desk.pass(1000);
    assert_eq!((desk.master(), desk.servers[&2].keys), (1, 10), "{:?}", desk.answers);
}

#[test]
fn a_master_with_nothing_is_counted_anew_when_it_has_read_its_data() {
    let policy = Policy { check_interval: Duration::from_millis(250), ..Policy::default() };
    let mut desk = Desk::with(policy);
    desk.kill(1);
    desk.pass(1000);
    assert_eq!(desk.master(), 2);
    desk.kill(3);
    desk.kill(2);
    desk.pass(2000);
    // Both came up again as replicas of the one that is dead, by their configuration files; one has its data.
    desk.counting_always = false;
    for (port, keys, history) in [(3, 10, "from an append-only file"), (2, 0, "new")] {
        let again = desk.server(port);
        again.life += 1;
        again.follows = Some(1);
        (again.keys, again.history, again.second) = (keys, history.to_owned(), None);
        desk.start(port);
    }
    desk.pass(1000);
    assert_eq!(desk.view().diagnosis.name, "MasterRestartedEmpty");
    // It reads its nothing for longer than others are asked, and is not heard of in between.
    let again = desk.server(2);
    again.life += 1;
    again.mood = Mood::Loads;
    desk.handle(Event::Ended { addr: addr(2) });
    desk.pass(2000);
    desk.server(2).mood = Mood::Serves;
    desk.commands.clear();
    desk.pass(2000);
    assert_eq!(desk.commands, [], "nobody is to follow it");
    assert_eq!(desk.view().diagnosis.name, "MasterRestartedEmpty");
}

#[test]
fn a_replica_that_read_its_own_disk_replaces_a_master_that_came_back_with_nothing() {
    // The power failed for all: what an append-only file held has no name that the group would know.
    let mut desk = restarted(0, |desk| {
        for (port, keys, offset) in [(2, 10, 0), (3, 7, 900)] {
            let kept = desk.server(port);
            kept.life += 1;
            kept.history = format!("from an append-only file of {port}");
            kept.keys = keys;
            kept.offset = offset;
        }
    });
    for port in [2, 3] {
        desk.handle(Event::Ended { addr: addr(port) });
    }
    desk.pass(500);
    assert_eq!(desk.master(), 2, "it holds the most");
    for port in [2, 3] {
        desk.server(port).broken = false;
    }
    desk.pass(3000);
    assert!(desk.servers.values().all(|server| server.keys == 10), "{:?}", desk.servers);
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

#[test]
fn a_replica_that_read_its_own_disk_does_not_replace_a_master_that_has_some_of_it() {
    let mut desk = restarted(4, |desk| {
        for port in [2, 3] {
            let kept = desk.server(port);
            kept.life += 1;
            kept.history = "from an append-only file".to_owned();
        }
    });
    for port in [2, 3] {
        desk.handle(Event::Ended { addr: addr(port) });
    }
    desk.pass(3000);
    assert_eq!((desk.master(), desk.entry().epoch), (1, 0), "whose data is newer is not known");
}

#[test]
fn a_master_with_an_old_snapshot_that_is_seen_a_moment_before_its_replicas_is_replaced() {
    let mut desk = restarted(10, |desk| {
        desk.server(1).second = Some("h0".to_owned());
        desk.server(1).offset = 60;
        for port in [2, 3] {
            desk.server(port).mood = Mood::Refuses;
            desk.handle(Event::Ended { addr: addr(port) });
        }
        desk.pass(5);
    });
    desk.pass(50);
    for port in [2, 3] {
        desk.server(port).mood = Mood::Serves;
    }
    desk.pass(100);
    assert_eq!(desk.master(), 2);
    for port in [2, 3] {
        desk.server(port).broken = false;
    }
    desk.pass(3000);
    assert_eq!(desk.of_kind(Kind::Failover)[0].cause, "MasterRestartedEmpty");
}

#[test]
fn a_master_that_restarted_with_data_waits_only_a_moment_for_who_is_away() {
    let mut desk = restarted(10, |desk| {
        for port in [2, 3] {
            desk.server(port).mood = Mood::Refuses;
            desk.handle(Event::Ended { addr: addr(port) });
        }
    });
    desk.pass(500);
    assert_eq!(desk.entry().master_run_id.as_deref(), Some("1-1"));
    assert_eq!((desk.master(), desk.commands.len()), (1, 0));
}

#[test]
fn a_pause_is_kept_also_by_a_master_that_restarts_empty() {
    let mut desk = Desk::new();
    desk.pause(None);
    let master = desk.server(1);
    master.keys = 0;
    master.life += 1;
    master.history = "restarted".to_owned();
    for port in [2, 3] {
        desk.server(port).broken = true;
    }
    desk.handle(Event::Ended { addr: addr(1) });
    desk.pass(3000);
    assert_eq!((desk.master(), desk.commands.len()), (1, 0));
    assert_eq!(desk.view().diagnosis.name, "MasterRestartedEmpty");
    desk.resume();
    assert_eq!(desk.master(), 2, "it was not too late");
}

#[test]
fn a_master_that_was_filled_while_a_pause_lasted_is_counted_when_it_ends() {
    for (filled, master) in [(100, 1), (0, 2)] {
        let mut desk = Desk::new();
        desk.pause(None);
        let emptied = desk.server(1);
        emptied.keys = 0;
        emptied.life += 1;
        emptied.history = "restarted".to_owned();
        for port in [2, 3] {
            desk.server(port).broken = true;
        }
        desk.handle(Event::Ended { addr: addr(1) });
        desk.pass(3000);
        assert_eq!(desk.view().diagnosis.name, "MasterRestartedEmpty");
        desk.counting_always = false;
        desk.pass(3000);
        desk.server(1).keys = filled;
        desk.resume();
        assert_eq!(desk.master(), master, "with {filled} keys");
    }
}

#[test]
fn whoever_was_wiped_while_nothing_could_be_decided_is_not_promoted_any_more() {
    let mut desk = restarted(0, |desk| desk.committing = false);
    desk.pass(20);
    assert_eq!(desk.master(), 1);
    for port in [2, 3] {
        desk.server(port).broken = false;
    }
    desk.committing = true;
    desk.pass(3_000);
    assert_eq!((desk.master(), desk.commands.len()), (1, 0), "{:?}", desk.commands);
}

#[test]
fn replicas_that_take_a_moment_to_answer_are_waited_for() {
    let mut desk = restarted(0, |desk| {
        for port in [2, 3] {
            desk.server(port).mood = Mood::Silent;
        }
    });
    desk.pass(400);
    assert_eq!(desk.entry().master_run_id.as_deref(), Some("1-0"), "it is not accepted as it is");
    assert_eq!(desk.of_kind(Kind::Failover).len(), 0, "nothing is known to be lost");
    for port in [2, 3] {
        desk.server(port).mood = Mood::Serves;
    }
    desk.pass(3000);
    assert_ne!(desk.master(), 1);
    assert_eq!(desk.servers[&desk.master()].keys, 10);
}

#[test]
fn a_replica_of_long_ago_does_not_replace_a_master_that_lost_nothing() {
    // A cache: what the stale one holds expired long ago, and its link is broken since then.
    let mut desk = Desk::new();
    desk.server(2).mood = Mood::Refuses;
    desk.handle(Event::Ended { addr: addr(2) });
    let stale = desk.server(3);
    stale.broken = true;
    stale.broken_secs = 86_400;
    stale.keys = 100;
    stale.offset = 50;
    desk.pass(5000);
    let master = desk.server(1);
    master.keys = 10;
    master.offset = 100;
    master.life += 1;
    master.history = "restarted".to_owned();
    master.second = Some("h0".to_owned());
    desk.handle(Event::Ended { addr: addr(1) });
    desk.pass(3000);
    assert_eq!((desk.master(), desk.commands.len()), (1, 0), "it has all of its history");
}

#[test]
fn a_master_with_next_to_nothing_waits_for_who_may_have_more() {
    // Clients wrote a key before its replicas were back from the power cut.
    let mut desk = Desk::new();
    for port in [1, 2, 3] {
        desk.server(port).keys = 1000;
    }
    // It is counted when a connection is new.
    for port in [1, 2, 3] {
        desk.handle(Event::Ended { addr: addr(port) });
    }
    desk.pass(3000);
    let master = desk.server(1);
    master.keys = 1;
    master.offset = 0;
    master.life += 1;
    master.history = "restarted".to_owned();
    for port in [2, 3] {
        desk.server(port).broken = true;
        desk.server(port).mood = Mood::Refuses;
    }
    for port in [1, 2, 3] {
        desk.handle(Event::Ended { addr: addr(port) });
    }
    desk.pass(2000);
    assert_eq!(desk.master(), 1);
    for port in [2, 3] {
        desk.server(port).mood = Mood::Serves;
    }
    desk.pass(500);
    assert_ne!(desk.master(), 1, "{}", desk.view().diagnosis.reason);
    assert_eq!(desk.servers[&desk.master()].keys, 1000);
}

#[test]
fn one_that_has_the_data_comes_before_one_that_took_over_nothing_when_the_empty_master_dies() {
    let mut desk = restarted(0, |desk| {
        let wiped = desk.server(3);
        wiped.broken = false;
        desk.server(2).mood = Mood::Refuses;
    });
    desk.handle(Event::Ended { addr: addr(2) });
    desk.pass(3000);
    assert_eq!(desk.servers[&3].keys, 0);
    assert_eq!(desk.view().diagnosis.name, "MasterRestartedEmpty");
    // It crashes again, and the one with the data is back before its end is proven.
    desk.server(1).mood = Mood::Refuses;
    desk.handle(Event::Ended { addr: addr(1) });
    desk.server(2).mood = Mood::Serves;
    desk.pass(3000);
    assert_eq!(desk.master(), 2);
    desk.server(2).broken = false;
    desk.pass(5000);
    assert_eq!(desk.servers[&2].keys, 10);
}

#[test]
fn replicas_are_asked_about_a_master_that_died_while_the_group_was_held_up() {
    for later in (0..1000).step_by(50) {
        let mut desk = Desk::with(Policy {
            max_down_time: Duration::from_secs(1),
            crash_down_time: Duration::from_millis(500),
            ..Policy::default()
        });
        // There is something to be recorded, and it is not committed: the group waits a second after each try.
        desk.committing = false;
        for port in [1, 2, 3] {
            desk.server(port).history = "another".to_owned();
        }
        desk.pass(1100 + later);
        desk.committing = true;
        // It has more, and has not said so yet.
        desk.server(3).offset = 120;
        desk.kill(1);
        let killed = desk.now;
        while desk.master() == 1 {
            desk.pass(10);
            let took = desk.now.since(killed);
            assert!(took < Duration::from_millis(1700), "{took:?}, killed after {later} ms");
        }
        assert_eq!(desk.master(), 3, "killed after {later} ms");
    }
}

#[test]
fn an_old_master_that_loads_is_demoted_when_it_serves_although_another_replica_still_syncs() {
    let policy = Policy { parallel_syncs: 2, ..Policy::default() };
    let mut desk = Desk::with(policy);
    desk.server(3).broken = true;
    let old = desk.server(1);
    old.life += 1;
    old.mood = Mood::Loads;
    desk.handle(Event::Ended { addr: addr(1) });
    desk.pass(5000);
    assert_eq!(desk.master(), 2);
    assert!(desk.entry().saga.is_some(), "3 has no link to its new master yet");
    desk.server(1).mood = Mood::Serves;
    desk.pass(2000);
    assert_eq!(desk.servers[&1].follows, Some(2));
    assert!(desk.entry().saga.is_some());
}

#[test]
fn a_repair_that_was_decided_of_one_that_reads_its_data_now_keeps_no_old_master_up() {
    let mut desk = Desk::new();
    desk.counting_always = false;
    desk.server(3).refuses_commands = true;
    desk.kill(1);
    desk.pass(1000);
    let repair = desk.of_kind(Kind::Repair).last().copied().cloned().expect("3 lags behind");
    assert_eq!((desk.master(), repair.old_master.clone()), (2, addr(3)));
    // It was not known whether the end of the last repair was recorded, and its instance has restarted.
    let again = desk.server(3);
    again.life += 1;
    again.mood = Mood::Loads;
    desk.handle(Event::Ended { addr: addr(3) });
    desk.pass(100);
    desk.commit(|entry| {
        entry.saga = Some(Saga {
            phase: Phase::Decided,
            target: addr(3),
            target_run_id: None,
            deadline: None,
            forced: false,
            promoted_at: None,
            attempts: Vec::new(),
            history: repair,
        });
    });
    let old = desk.server(1);
    old.life += 1;
    desk.start(1);
    desk.pass(1000);
    assert_eq!(desk.servers[&1].follows, Some(2), "{}", desk.view().diagnosis.reason);
}
