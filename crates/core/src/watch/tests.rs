use super::*;
use crate::instance::Link;
use crate::policy::DENSE_INSTANCES_MAX;
use crate::sample::{addr, at, master, replica, reply};

fn policy() -> Policy {
    Policy {
        check_interval: Duration::from_millis(100),
        max_down_time: Duration::from_secs(1),
        ..Policy::default()
    }
}

/// Lets time pass in steps of a millisecond and counts the probes that were sent meanwhile.
fn pass(watch: &mut Watch, from: u64, to: u64) -> Vec<(ProbeSeq, bool)> {
    let mut sent = Vec::new();
    for ms in from..=to {
        watch.update(at(ms), &policy());
        sent.extend(watch.due(at(ms), &policy()));
    }
    sent
}

fn heard() -> Watch {
    let mut watch = Watch::new(at(0), &addr(1), &policy());
    let (seq, fresh) = watch.due(at(0), &policy()).expect("a new instance is asked at once");
    assert!(fresh);
    watch.probed(at(1), seq, reply(master(at(0))), &policy());
    assert!(watch.update(at(1), &policy()));
    assert_eq!(watch.state(), State::Up);
    watch
}

#[test]
fn a_refusal_is_down_at_once_and_an_accepted_connection_takes_it_back() {
    let mut watch = heard();
    watch.ended(at(10));
    let (seq, fresh) = watch.due(at(10), &policy()).expect("asked at once");
    assert!(fresh);
    assert!(!watch.update(at(10), &policy()), "an ended connection alone is no down view");
    watch.probed(at(11), seq, Probed::Refused, &policy());
    assert!(watch.update(at(11), &policy()));
    assert_eq!((watch.state(), watch.death()), (State::Down, Some(Death::Refusing)));
    assert_eq!(watch.since(), at(10), "it counts from the first sign");
    watch.accepted(at(12), &policy());
    watch.update(at(12), &policy());
    assert_eq!(watch.state(), State::Unknown, "a process listens again");
}

#[test]
fn a_refusal_waits_for_crash_down_time() {
    let policy = Policy { crash_down_time: Duration::from_millis(500), ..policy() };
    let mut watch = heard();
    watch.ended(at(10));
    let (seq, _) = watch.due(at(10), &policy).expect("asked");
    watch.probed(at(11), seq, Probed::Refused, &policy);
    watch.update(at(400), &policy);
    assert_eq!(watch.state(), State::Up);
    watch.update(at(511), &policy);
    assert_eq!(watch.state(), State::Down);
}

#[test]
fn silence_counts_from_the_first_unanswered_probe_and_only_after_a_fresh_connection() {
    let mut watch = heard();
    let sent = pass(&mut watch, 2, 1300);
    assert!(sent.iter().any(|(_, fresh)| *fresh), "a fresh connection is asked too");
    let first = watch.since();
    assert_eq!(watch.state(), State::Down);
    assert_eq!(watch.death(), Some(Death::Unreachable), "no connection was accepted");
    assert!(first.since(at(0)) <= Duration::from_millis(160), "{first}");
    watch.accepted(at(1300), &policy());
    watch.update(at(1300), &policy());
    assert_eq!(watch.state(), State::Unknown, "it is back, and gets the time to say so");
    watch.update(at(1500), &policy());
    assert_eq!(watch.death(), Some(Death::Hung));
    watch.accepted(at(1550), &policy());
    watch.update(at(1550), &policy());
    assert_eq!(watch.death(), Some(Death::Hung), "it accepts every connection");
    // One reply, also to an old question, and all is well.
    watch.probed(at(1600), sent[0].0, reply(master(at(1599))), &policy());
    watch.update(at(1600), &policy());
    assert_eq!(watch.state(), State::Up);
    assert!(watch.returned(), "it was away");
}

#[test]
fn silence_that_is_shorter_is_nothing() {
    let mut watch = heard();
    let sent = pass(&mut watch, 2, 900);
    assert_eq!(watch.state(), State::Up);
    let last = sent.last().expect("it was asked").0;
    watch.probed(at(901), last, reply(master(at(900))), &policy());
    pass(&mut watch, 902, 1100);
    assert_eq!(watch.state(), State::Up);
}

#[test]
fn silence_of_our_own_pause_proves_nothing() {
    let mut watch = heard();
    pass(&mut watch, 2, 200);
    watch.discard(Duration::from_secs(5), at(5200), &policy());
    watch.update(at(5200), &policy());
    assert_eq!(watch.state(), State::Up);
}

#[test]
fn reconnects_are_dense_and_bounded() {
    let mut watch = heard();
    watch.ended(at(10));
    let mut sent = Vec::new();
    for ms in 10..210 {
        if let Some((seq, _)) = watch.due(at(ms), &policy()) {
            sent.push(ms);
            watch.probed(at(ms), seq, Probed::Refused, &policy());
        }
    }
    assert_eq!(&sent[..6], &[10, 11, 13, 17, 25, 41], "1, 2, 4, 8, 16 ms, then 25");
    assert_eq!(sent[7] - sent[6], 25);
}

#[test]
fn reconnects_of_a_crowd_leave_room_for_what_is_to_be_done() {
    let reconnects = |crowd| {
        let mut watch = heard();
        watch.ended(at(10));
        let mut sent = Vec::new();
        for ms in 10..1010 {
            if let Some((seq, _)) = watch.due(at(ms), &policy()) {
                sent.push(ms);
                watch.probed(at(ms), seq, Probed::Refused, &policy());
                watch.make_room(at(ms), crowd, &policy());
            }
        }
        sent
    };
    assert_eq!(reconnects(DENSE_INSTANCES_MAX), reconnects(1), "a few are no crowd");
    let sent = reconnects(100);
    assert_eq!(&sent[..5], &[10, 16, 28, 52, 100], "6 times 1, 2, 4 and 8 ms");
    let pauses = sent.windows(2).map(|pair| pair[1] - pair[0]);
    assert_eq!(pauses.max(), Some(100), "and never less often than one that is well");
    assert!(reconnects(1_000_000).len() >= 10);
}

#[test]
fn a_refusal_that_only_repeats_changes_nothing() {
    let mut watch = heard();
    watch.ended(at(10));
    let mut changes = Vec::new();
    for ms in 10..100 {
        if let Some((seq, _)) = watch.due(at(ms), &policy()) {
            changes.push(watch.probed(at(ms), seq, Probed::Refused, &policy()));
        }
    }
    assert!(changes[0] && changes[1..].iter().all(|changed| !changed), "{changes:?}");
}

#[test]
fn regular_probes_keep_the_interval_and_their_place() {
    let mut watch = heard();
    let mut sent = Vec::new();
    for ms in 2..1002 {
        if let Some((seq, fresh)) = watch.due(at(ms), &policy()) {
            assert!(!fresh);
            sent.push(ms);
            watch.probed(at(ms), seq, reply(master(at(ms))), &policy());
        }
    }
    assert!((9..=10).contains(&sent.len()), "{sent:?}");
    assert!(sent.windows(2).all(|pair| pair[1] - pair[0] == 100), "{sent:?}");
}

#[test]
fn a_reply_that_was_overtaken_by_the_end_says_nothing() {
    let mut watch = heard();
    let sent = pass(&mut watch, 2, 160);
    watch.ended(at(161));
    assert!(!watch.probed(at(162), sent[0].0, reply(master(at(150))), &policy()));
    assert_eq!(watch.trouble_since(), Some(at(161)));
}

#[test]
fn loading_after_a_restart_is_told_from_loading() {
    let loading = |asked| Probed::Replied {
        health: Health::Loading,
        facts: Some(Box::new(Facts { run_id: Some("another".into()), ..master(asked) })),
        socket: None,
    };
    let mut watch = heard();
    watch.ended(at(10));
    let (seq, _) = watch.due(at(10), &policy()).expect("asked");
    watch.probed(at(12), seq, loading(at(11)), &policy());
    watch.update(at(12), &policy());
    assert_eq!((watch.state(), watch.how()), (State::Up, How::Loading));
    assert_eq!(watch.loading_since(), Some(at(12)));
    watch.discard(Duration::from_secs(5), at(5013), &policy());
    assert_eq!(watch.loading_since(), Some(at(5012)), "nobody looked meanwhile");
    let mut watch = Watch::new(at(0), &addr(1), &policy());
    let (seq, _) = watch.due(at(0), &policy()).expect("asked");
    watch.probed(at(1), seq, loading(at(0)), &policy());
    assert_eq!(watch.loading_since(), None, "it was loading when we came");
}

#[test]
fn keys_are_counted_anew_when_other_data_took_their_place() {
    let read = |watch: &mut Watch, ms, id: &str, second, keys| {
        let facts = Facts {
            replication_id: Some(crate::sample::id(id)),
            second_replication_id: second,
            second_offset: None,
            keys,
            ..replica(at(ms), &addr(9), Link::Up { last_io_secs: 0 })
        };
        watch.probed(at(ms), ms, reply(facts), &policy());
        watch.due(at(ms), &policy())
    };
    let mut watch = Watch::new(at(0), &addr(1), &policy());
    assert!(watch.due(at(0), &policy()).is_some());
    assert_eq!(read(&mut watch, 1, "one", None, Some(7)), None);
    assert_eq!(read(&mut watch, 2, "one", None, None), None);
    let went_on = read(&mut watch, 3, "two", Some(crate::sample::id("one")), None);
    assert_eq!(went_on, None, "it has what it had");
    let copied = read(&mut watch, 4, "three", None, None);
    assert!(copied.is_some_and(|(_, fresh)| fresh), "{copied:?}");
    assert_eq!((watch.keys_since(at(0)), watch.keys_now()), (Some(7), None), "until it is told");
    assert_eq!(read(&mut watch, 5, "three", None, Some(0)), None);
    assert_eq!((watch.keys_since(at(0)), watch.keys_now()), (Some(0), Some(0)));
}

#[test]
fn a_master_that_begins_another_history_by_itself_has_the_keys_that_it_had() {
    for (second, keys) in [(None, Some(7)), (Some("of another master"), None)] {
        let mut watch = Watch::new(at(0), &addr(1), &policy());
        watch.read(at(1), Facts { keys: Some(7), ..master(at(1)) });
        let began = Facts {
            replication_id: Some(crate::sample::id("for its replica")),
            second_replication_id: second.map(crate::sample::id),
            ..master(at(2))
        };
        watch.read(at(2), began);
        assert_eq!(watch.keys_now(), keys, "{second:?}");
    }
}

#[test]
fn a_copy_that_was_over_between_two_readings_is_noticed() {
    let facts = |ms, id: &str, link| Facts {
        replication_id: Some(crate::sample::id(id)),
        second_replication_id: None,
        run_id: Some("replica".into()),
        ..replica(at(ms), &addr(9), link)
    };
    let up = || Link::Up { last_io_secs: 0 };
    let mut watch = Watch::new(at(0), &addr(2), &policy());
    watch.read(at(1), facts(1, "old", Link::Down { since_secs: Some(0) }));
    watch.read(at(2), facts(2, "old", Link::Syncing));
    assert!(watch.copied().is_none(), "it is still on its way");
    for (ms, id, was_seen) in [(3, "seen coming", true), (4, "over in no time", false)] {
        watch.read(at(ms), facts(ms, id, up()));
        let copied = watch.copied().expect("it is of the same master and other data");
        let expected = (&addr(9), &crate::sample::id(id), was_seen, at(ms));
        assert_eq!((&copied.of, &copied.id, copied.was_seen, copied.at), expected);
    }
    let restarted = Facts { run_id: Some("another".into()), ..facts(5, "third", up()) };
    watch.read(at(5), restarted);
    assert!(watch.copied().is_none(), "another process may have read it from its disk");
}

#[test]
fn a_master_keeps_the_priority_that_it_named_as_a_replica() {
    let mut watch = heard();
    let link = Link::Up { last_io_secs: 0 };
    watch.read(at(2), Facts { priority: 0, ..replica(at(2), &addr(9), link.clone()) });
    // It reports none, which is read as the usual one.
    watch.read(at(3), Facts { priority: 100, ..master(at(3)) });
    assert_eq!(watch.facts().map(|facts| facts.priority), Some(0));
    watch.read(at(4), Facts { priority: 7, ..replica(at(4), &addr(9), link) });
    assert_eq!(watch.facts().map(|facts| facts.priority), Some(7));
}

#[test]
fn news_of_the_master_are_dated() {
    let mut watch = Watch::new(at(0), &addr(2), &policy());
    let facts = |ms, last_io_secs, offset| Facts {
        offset,
        ..replica(at(ms), &addr(1), Link::Up { last_io_secs })
    };
    watch.read(at(5000), facts(5000, 3, 100));
    assert_eq!(
        watch.heard_master(),
        Some(at(1000)),
        "whole seconds, and one more for the rounding"
    );
    watch.read(at(6000), facts(6000, 4, 120));
    assert_eq!(watch.heard_master(), Some(at(5000)), "its offset grew after the reading before");
    watch.read(at(7000), facts(7000, 5, 120));
    assert_eq!(watch.heard_master(), Some(at(5000)));
}

#[test]
fn unanswered_probes_are_bounded() {
    let mut watch = heard();
    pass(&mut watch, 2, 5000);
    assert!(watch.unanswered.len() <= UNANSWERED_MAX);
}

#[test]
fn what_was_down_before_our_own_pause_is_looked_at_again() {
    let mut watch = heard();
    watch.ended(at(10));
    let (seq, _) = watch.due(at(10), &policy()).expect("asked");
    watch.probed(at(11), seq, Probed::Refused, &policy());
    watch.update(at(11), &policy());
    watch.discard(Duration::from_secs(5), at(5011), &policy());
    watch.update(at(5011), &policy());
    assert_eq!(watch.state(), State::Unknown);
    let (seq, _) = watch.due(at(5011), &policy()).expect("asked at once");
    watch.probed(at(5012), seq, Probed::Refused, &policy());
    watch.update(at(5012), &policy());
    assert_eq!(watch.state(), State::Down);
}

#[test]
fn a_want_of_our_own_is_no_silence_of_theirs() {
    let mut watch = heard();
    for ms in 2..3000 {
        if let Some((seq, _)) = watch.due(at(ms), &policy()) {
            watch.probed(at(ms), seq, Probed::NotAsked("no descriptors".to_owned()), &policy());
        }
        watch.update(at(ms), &policy());
    }
    assert_eq!(watch.state(), State::Up);
}

#[test]
fn one_that_answers_without_a_word_about_itself_is_not_asked_as_fast_as_it_answers() {
    let mut watch = heard();
    let mut asked = 0;
    for ms in 2..=1_000 {
        watch.ask(at(ms), at(ms));
        if let Some((seq, _)) = watch.due(at(ms), &policy()) {
            let health = Health::Busy("BUSY a script runs".to_owned());
            let outcome = Probed::Replied { health, facts: None, socket: None };
            watch.probed(at(ms), seq, outcome, &policy());
            watch.update(at(ms), &policy());
            asked += 1;
        }
    }
    assert!((10..=25).contains(&asked), "{asked} times in a second");
}

#[test]
fn a_replica_with_its_link_up_is_asked_less_often() {
    let mut watch = Watch::new(at(0), &addr(2), &policy());
    let mut sent = 0;
    for ms in 0..2000 {
        if let Some((seq, _)) = watch.due(at(ms), &policy()) {
            sent += 1;
            let facts = replica(at(ms), &addr(1), Link::Up { last_io_secs: 0 });
            watch.probed(at(ms), seq, reply(facts), &policy());
        }
    }
    assert!((9..=12).contains(&sent), "{sent}");
}

#[test]
fn our_own_pause_is_taken_off_a_refusal_and_does_not_begin_it_anew() {
    let policy = Policy { crash_down_time: Duration::from_secs(1), ..policy() };
    let mut watch = heard();
    watch.ended(at(10));
    let (seq, _) = watch.due(at(10), &policy).expect("asked");
    watch.probed(at(10), seq, Probed::Refused, &policy);
    watch.discard(Duration::from_millis(100), at(600), &policy);
    let (seq, _) = watch.due(at(600), &policy).expect("asked at once");
    watch.probed(at(600), seq, Probed::Refused, &policy);
    watch.update(at(1109), &policy);
    assert_eq!(watch.state(), State::Up);
    watch.update(at(1110), &policy);
    assert_eq!(watch.state(), State::Down);
}
