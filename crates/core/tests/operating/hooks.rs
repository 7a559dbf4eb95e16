//! What hooks are told: once by a leader that goes on, again by the next one, and never at a failover's cost.

use failover_core::policy::UNTOLD_PER_GROUP_MAX;

use super::desk::*;

fn events(desk: &Desk) -> Vec<HookEvent> {
    desk.hooks_told.iter().map(|told| told.event).collect()
}

#[test]
fn a_failover_is_told_once_and_leaves_nothing_in_the_record() {
    let mut desk = Desk::new();
    desk.kill(1);
    assert_eq!(desk.master(), 2);
    assert_eq!(events(&desk), [HookEvent::FailoverStarted, HookEvent::AfterFailover]);
    let after = &desk.hooks_told[1];
    assert_eq!((&after.old_master, &after.new_master), (&Some(addr(1)), &Some(addr(2))));
    assert_eq!((after.epoch, after.number), (1, 2));
    assert_eq!(after.history_id, desk.of_kind(Kind::Failover).first().map(|of| of.id.clone()));
    assert!(after.reason.contains("refuses connections"), "{}", after.reason);
    desk.pass(5000);
    assert_eq!(desk.entry().untold, []);
    desk.start(1);
    desk.pass(20_000);
    assert_eq!(events(&desk)[2..], [HookEvent::MasterReturned], "{:?}", desk.hooks_told);
    assert_eq!(desk.hooks_told[2].addr, Some(addr(1)));
    assert_eq!(desk.hooks_told[2].new_master, Some(addr(2)));
}

#[test]
fn what_a_leader_could_not_tell_is_told_by_the_next_one() {
    let mut desk = Desk::new();
    desk.hooks_answer = false;
    desk.kill(1);
    desk.pass(5000);
    let untold = desk.entry().untold.clone();
    assert_eq!(untold.len(), 2, "{untold:?}");
    assert_eq!(desk.hooks_told, untold, "handed out once, however much happens");
    // One hook knows of the first, and the leader ends.
    let told = Event::Told { group: group(), number: 1, hook: Some("pager".to_owned()) };
    desk.handle(told);
    desk.hooks_told.clear();
    desk.hooks_answer = true;
    desk.restart();
    assert_eq!(events(&desk), [HookEvent::FailoverStarted, HookEvent::AfterFailover]);
    assert!(desk.hooks_told[0].told.contains("pager"), "{:?}", desk.hooks_told[0]);
    assert_eq!(desk.hooks_told[1], untold[1], "the same words, moment and number");
    desk.pass(2000);
    assert_eq!(desk.entry().untold, []);
}

#[test]
fn hooks_that_never_answer_hold_up_nothing_and_are_kept_within_a_bound() {
    let mut desk = Desk::new();
    desk.hooks_answer = false;
    for _ in 0..UNTOLD_PER_GROUP_MAX {
        desk.pause(None);
        desk.resume();
    }
    let untold = &desk.entry().untold;
    assert_eq!(untold.len(), UNTOLD_PER_GROUP_MAX);
    assert_eq!(untold.last().map(|news| news.number), Some(2 * UNTOLD_PER_GROUP_MAX as u64));
    assert_eq!(events(&desk)[..2], [HookEvent::Paused, HookEvent::Resumed]);
    assert!(desk.hooks_told[0].reason.contains("works on the switch"));
    desk.kill(1);
    assert_eq!(desk.master(), 2);
}

#[test]
fn a_failed_failover_is_told_and_recorded_as_told_while_the_next_one_waits() {
    let mut desk = Desk::new();
    for port in [2, 3] {
        desk.server(port).refuses_commands = true;
    }
    desk.kill(1);
    desk.pass(5000);
    assert_eq!(events(&desk), [HookEvent::FailoverStarted, HookEvent::FailoverFailed]);
    assert!(desk.hooks_told[1].reason.contains("-NOPERM"), "{}", desk.hooks_told[1].reason);
    assert_eq!(desk.entry().untold, []);
}

#[test]
fn replicas_that_go_and_come_are_told() {
    let mut desk = Desk::new();
    desk.kill(3);
    desk.pass(5000);
    desk.start(3);
    desk.pass(70_000);
    assert_eq!(events(&desk), [HookEvent::ReplicaDown, HookEvent::ReplicaUp]);
    assert!(desk.hooks_told.iter().all(|told| told.addr == Some(addr(3))));
}

#[test]
fn a_switchover_is_told_when_the_new_master_is_recorded() {
    let mut desk = Desk::new();
    let timeout = Duration::from_secs(5);
    let to = Some(addr(3));
    desk.handle(Event::Request {
        id: 1,
        request: Request::Switchover { group: group(), to, timeout, dry_run: false },
    });
    desk.pass(5000);
    assert_eq!(desk.master(), 3);
    assert_eq!(events(&desk), [HookEvent::Switchover]);
    assert_eq!(desk.hooks_told[0].new_master, Some(addr(3)));
}

#[test]
fn what_no_hook_wants_costs_no_record() {
    let mut desk = Desk::new();
    desk.fleet = Fleet::new(NodeId::new("me"), Policies::default());
    desk.lead();
    let spec = GroupSpec { name: None, master: addr(1), replicas: Vec::new() };
    assert_eq!(desk.ask(Request::Add(vec![spec])), Answer::Done);
    desk.pass(5000);
    desk.kill(1);
    assert_eq!(desk.master(), 2);
    assert_eq!((desk.entry().untold_next, desk.hooks_told.len()), (0, 0));
}
