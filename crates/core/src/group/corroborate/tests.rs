use super::*;
use crate::event::Probed;
use crate::instance::{Facts, Link};
use crate::sample::{addr, at, master, replica, reply};

const SIGN: u64 = 100;

struct Case {
    entry: GroupEntry,
    watches: Watches,
    policy: Policy,
}

impl Case {
    fn new() -> Self {
        Self {
            entry: GroupEntry::new(addr(1)),
            watches: Watches::default(),
            policy: Policy { max_down_time: Duration::from_secs(1), ..Policy::default() },
        }
    }

    fn hear(&mut self, port: u16, readings: &[Facts]) -> &mut Self {
        let addr = addr(port);
        let mut watch = Watch::new(at(0), &addr, &self.policy);
        for facts in readings {
            let (seq, _) = watch.due(facts.asked_at, &self.policy).unwrap_or((u64::MAX, false));
            watch.probed(facts.asked_at, seq, reply(facts.clone()), &self.policy);
            watch.update(facts.asked_at, &self.policy);
        }
        self.watches.insert(addr.clone(), watch);
        self.entry.instances.insert(addr, crate::record::Known::default());
        self
    }

    fn verdict(&self, death: Death, down: u64, now: u64) -> Verdict {
        hear(&Hearing {
            entry: &self.entry,
            watches: &self.watches,
            policy: &self.policy,
            peers: &Peers::default(),
            death,
            sign: at(SIGN),
            down: at(down),
            patient_until: at(down) + self.policy.corroboration_timeout,
            now: at(now),
        })
    }
}

fn up(ms: u64, last_io_secs: u64, offset: u64) -> Facts {
    Facts { offset, ..replica(at(ms), &addr(1), Link::Up { last_io_secs }) }
}

fn down(ms: u64) -> Facts {
    replica(at(ms), &addr(1), Link::Down { since_secs: Some(0) })
}

#[test]
fn a_refusing_master_is_dead_when_every_reachable_replica_lost_its_link() {
    let mut case = Case::new();
    case.hear(2, &[down(101)]).hear(3, &[down(102)]);
    assert_eq!(case.verdict(Death::Refusing, SIGN, 103), Verdict::Dead);
    case.hear(3, &[up(102, 0, 100)]);
    let Verdict::Ask(questions) = case.verdict(Death::Refusing, SIGN, 103) else {
        panic!("a link that is up is asked again");
    };
    assert_eq!((questions[0].addr.port(), questions[0].at), (3, at(103)));
}

#[test]
fn a_replica_that_contradicts_for_long_is_asked_less_often_also_when_everyone_is_asked_anew() {
    let mut case = Case::new();
    case.hear(2, &[down(600)]).hear(3, &[up(600, 0, 100)]);
    let Verdict::Ask(questions) = case.verdict(Death::Refusing, 599, 601) else {
        panic!("a link that is up is asked again");
    };
    assert_eq!((questions[0].addr.port(), questions[0].at), (3, at(625)));
}

#[test]
fn an_answer_from_before_does_not_count_and_one_that_never_comes_is_not_waited_for() {
    let mut case = Case::new();
    case.hear(2, &[down(99)]);
    assert!(matches!(case.verdict(Death::Refusing, SIGN, 103), Verdict::Ask(_)));
    assert_eq!(case.verdict(Death::Refusing, SIGN, SIGN + 200), Verdict::Dead);
}

#[test]
fn a_hung_master_needs_no_replicas_word_but_its_offsets() {
    let mut case = Case::new();
    case.hear(2, &[up(1100, 0, 100)]);
    assert_eq!(case.verdict(Death::Hung, 1100, 1101), Verdict::Dead);
    assert!(matches!(case.verdict(Death::Hung, 1101, 1102), Verdict::Ask(_)));
}

#[test]
fn news_of_an_unreachable_master_are_a_veto() {
    let mut case = Case::new();
    case.hear(2, &[up(1000, 0, 100), up(1200, 1, 150)]);
    let Verdict::Vetoed { why, .. } = case.verdict(Death::Unreachable, 1100, 1201) else {
        panic!("its offset grew after the silence began");
    };
    assert!(why.contains("127.0.0.1:2"), "{why}");
    // Heard a second ago, read five seconds into the silence.
    case.hear(2, &[up(5100, 1, 100)]);
    assert!(matches!(case.verdict(Death::Unreachable, 1100, 5101), Verdict::Vetoed { .. }));
}

#[test]
fn an_idle_unreachable_master_is_given_its_ping_period() {
    let mut case = Case::new();
    case.hear(2, &[up(6000, 9, 100)]);
    assert!(matches!(case.verdict(Death::Unreachable, 1100, 6001), Verdict::Vetoed { .. }));
    case.hear(2, &[up(12_200, 13, 100)]);
    assert_eq!(case.verdict(Death::Unreachable, 1100, 12_201), Verdict::Dead);
    // One that says how often it pings is believed.
    case.hear(1, &[Facts { ping_period_secs: Some(1), ..master(at(0)) }]);
    case.hear(2, &[up(3200, 4, 100)]);
    assert_eq!(case.verdict(Death::Unreachable, 1100, 3201), Verdict::Dead);
}

#[test]
fn a_link_that_is_down_needs_no_wait_and_strangers_have_no_say() {
    let mut case = Case::new();
    case.hear(2, &[down(1100)]);
    case.hear(3, &[replica(at(1100), &addr(9), Link::Up { last_io_secs: 0 })]);
    case.hear(4, &[master(at(1100))]);
    assert_eq!(case.verdict(Death::Unreachable, 1100, 1101), Verdict::Dead);
}

#[test]
fn a_refusal_that_a_replica_contradicts_for_long_is_judged_like_unreachable() {
    let mut case = Case::new();
    case.hear(2, &[up(1200, 0, 100)]);
    assert!(matches!(case.verdict(Death::Refusing, SIGN, 1201), Verdict::Vetoed { .. }));
}

#[test]
fn a_hung_master_that_cannot_be_reached_any_more_lives_while_a_replica_has_news_of_it() {
    let mut case = Case::new();
    let mut watch = Watch::new(at(0), &addr(1), &case.policy);
    watch.ended(at(SIGN));
    let (seq, _) = watch.due(at(SIGN), &case.policy).expect("it is asked at once");
    watch.accepted(at(SIGN + 1), &case.policy);
    case.entry.instances.insert(addr(1), crate::record::Known::default());
    case.watches.insert(addr(1), watch.clone());
    case.hear(2, &[up(9_000, 0, 900)]);
    assert_eq!(case.verdict(Death::Hung, 9_000, 9_001), Verdict::Dead, "it accepts and is silent");
    watch.probed(at(8_000), seq, Probed::Unreachable("no answer".to_owned()), &case.policy);
    case.watches.insert(addr(1), watch);
    assert!(matches!(case.verdict(Death::Hung, 9_000, 9_001), Verdict::Vetoed { .. }));
    case.hear(2, &[up(9_000, 9, 900)]);
    assert_eq!(case.verdict(Death::Hung, 9_000, 9_001), Verdict::Dead, "the news is older");
}
