//! The library inside another program: this test's own runtime, real servers, no daemon.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Group, PATIENCE, Server, ServerKind, now, wait_until};
use redis_failover::config::{BrokerKind, Config, GroupConfig, WebhookConfig};
use redis_failover::policy::Policy;
use redis_failover::view::{GroupView, HistoryEntry, Outcome, State, StatusView};
use redis_failover::{
    Addr, FailoverPlan, GroupName, Guard, HookCall, HookEvent, MasterChange, Notice, RefusalCode,
    StartError, Verdict, What,
};
use tokio::sync::broadcast::Receiver;
use tokio::sync::mpsc;

/// How the guard names its connections.
const CLIENT: &str = "name=redis-failover ";

fn addr(text: &str) -> Addr {
    text.parse().expect("an address")
}

/// Quick to look, no HTTP.
fn config(masters: &[&Server]) -> Config {
    Config {
        addr: None,
        masters: masters.iter().map(|server| addr(&server.addr())).collect(),
        policy: Policy {
            check_interval: Duration::from_millis(100),
            max_down_time: Duration::from_secs(1),
            failover_timeout: Duration::from_secs(1),
            before_failover_timeout: Duration::from_secs(10),
            ..Policy::default()
        },
        ..Config::default()
    }
}

/// Asks until the group is as wanted.
#[track_caller]
fn wait_for(
    guard: &Guard,
    name: &str,
    mut holds: impl FnMut(&GroupView) -> bool,
) -> Arc<GroupView> {
    let started_at = now();
    loop {
        let view = guard.group(name);
        if let Some(view) = view.as_ref().filter(|view| holds(view)) {
            return Arc::clone(view);
        }
        assert!(started_at.elapsed() < PATIENCE, "in vain: {view:#?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn wait_until_healthy(guard: &Guard, group: &Group) -> Arc<GroupView> {
    wait_for(guard, &group.master.addr(), |view| {
        let is_up = |addr: &String| {
            let mut instances = view.instances.iter();
            instances
                .any(|i| i.addr.to_string() == *addr && i.state == State::Up && i.offset > Some(0))
        };
        view.diagnosis.name == "Healthy" && group.addrs().iter().all(is_up)
    })
}

/// The next notice that is wanted; the others are skipped.
async fn next(told: &mut Receiver<Notice>, wanted: impl Fn(&Notice) -> bool) -> Notice {
    let wait = async {
        loop {
            let notice = told.recv().await.expect("the guard runs, and we are not slow");
            if wanted(&notice) {
                return notice;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it is told in time")
}

async fn received<T>(told: &mut mpsc::UnboundedReceiver<T>) -> T {
    let next = tokio::time::timeout(PATIENCE, told.recv()).await;
    next.expect("it is called in time").expect("the handler lives as long as the guard")
}

fn failovers(view: &GroupView, outcome: Outcome) -> Vec<&HistoryEntry> {
    view.history.iter().filter(|entry| entry.outcome == outcome).collect()
}

/// How many connections of a guard the server has.
fn guards_of(server: &Server) -> usize {
    server.cmd(&["CLIENT", "LIST"]).lines().filter(|line| line.contains(CLIENT)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_come_and_go_and_are_seen() {
    let (one, two) = (Group::start(ServerKind::Redis, 1), Group::start(ServerKind::Redis, 1));
    let guard = Guard::builder(config(&[])).start().await.expect("it starts");
    assert_eq!((guard.masters(), guard.http_addr()), (Vec::new(), None));
    let mut told = guard.subscribe();

    let (first, second) = (addr(&one.master.addr()), addr(&two.master.addr()));
    guard.add_masters(vec![first.clone()]).await.expect("it is added");
    // What was answered is seen at once.
    assert_eq!(guard.masters(), std::slice::from_ref(&first));
    let notice = next(&mut told, |notice| notice.what == What::GroupAdded).await;
    assert_eq!(notice.group.to_string(), first.to_string());
    let replica = addr(&one.replicas[0].addr());
    let found = What::InstanceFound { addr: replica.clone() };
    next(&mut told, |notice| notice.what == found).await;

    let view = wait_until_healthy(&guard, &one);
    assert_eq!((&view.master, view.status, view.quorum), (&first, StatusView::Active, 1));
    let instance = view.instances.iter().find(|i| i.addr == replica).expect("it is known");
    assert_eq!((instance.role, instance.link, instance.eligible), ("replica", Some("up"), true));

    // Known ones, in whatever role, add nothing.
    guard.add_masters(vec![second.clone(), first.clone(), replica.clone()]).await.expect("added");
    let mut both = vec![first.clone(), second.clone()];
    both.sort_by_key(Addr::to_string);
    assert_eq!(guard.masters(), both);

    guard.remove_masters(vec![first.to_string(), "unknown:1".to_owned()]).await.expect("removed");
    assert_eq!(guard.masters(), std::slice::from_ref(&second));
    assert!(guard.group(&first.to_string()).is_none());
    let removed = |notice: &Notice| notice.what == What::GroupRemoved;
    assert_eq!(next(&mut told, removed).await.group.to_string(), first.to_string());
    wait_until("the servers of a removed group are left alone", PATIENCE, || {
        one.servers().all(|server| guards_of(server) == 0).then_some(())
    });
    wait_until("the servers of the other group are watched", PATIENCE, || {
        (guards_of(&two.master) > 0).then_some(())
    });

    let unknown = GroupName::new("no-such-group").expect("a name");
    let refused = guard.resume(&unknown).await.expect_err("there is no such group");
    assert_eq!(refused.code, RefusalCode::UnknownGroup);
    guard.stop().await;
    assert_eq!(one.replicas[0].master_link(), Some((one.master.addr(), true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_are_asked_in_order_and_each_is_told_what_changed() {
    let mut group = Group::start(ServerKind::Redis, 2);
    let order = Arc::new(Mutex::new(Vec::new()));
    let (asked, mut plans) = mpsc::unbounded_channel::<FailoverPlan>();
    let (told, mut changes) = mpsc::unbounded_channel::<(u32, MasterChange)>();
    let note = |number: u32| {
        let (order, asked) = (Arc::clone(&order), asked.clone());
        move |plan: FailoverPlan| {
            let (order, asked) = (Arc::clone(&order), asked.clone());
            async move {
                // A later handler is not asked before an earlier one has answered.
                tokio::time::sleep(Duration::from_millis(5)).await;
                order.lock().expect("nobody panics with it").push(number);
                let _ = asked.send(plan);
                Ok(Verdict::Allow)
            }
        }
    };
    let tell = |number: u32| {
        let told = told.clone();
        move |change: MasterChange| {
            let _ = told.send((number, change));
            async move { if number == 1 { Err("this one fails".into()) } else { Ok(()) } }
        }
    };
    let guard = Guard::builder(config(&[&group.master]))
        .before_failover(note(1))
        .after_failover(tell(1))
        .before_failover(note(2))
        .after_failover(tell(2))
        .before_failover(note(3))
        .start()
        .await
        .expect("it starts");
    let before = wait_until_healthy(&guard, &group);
    let mut notices = guard.subscribe();
    let old = addr(&group.master.addr());
    group.master.kill9();

    let plan = received(&mut plans).await;
    assert_eq!((&plan.group, &plan.old_master), (&before.name, &old));
    assert!(plan.reason.contains("refuses connections"), "{}", plan.reason);
    let mut changed = [received(&mut changes).await, received(&mut changes).await];
    changed.sort_by_key(|(number, _)| *number);
    for (number, (at, change)) in (1..).zip(&changed) {
        assert_eq!(*at, number, "one that fails is no other's affair");
        assert_eq!((&change.group, &change.old_master), (&before.name, &old));
        assert_eq!(change.new_master, plan.candidate);
        assert_eq!(change.epoch, before.epoch + 1);
    }
    // Whoever was told finds the new master when it asks.
    assert_eq!(guard.masters(), std::slice::from_ref(&plan.candidate));
    assert_eq!(*order.lock().expect("nobody panics with it"), [1, 2, 3]);
    let new_master = plan.candidate.clone();
    next(&mut notices, |n| n.what == What::FailoverDone { new_master: new_master.clone() }).await;
    let view = guard.group(&plan.candidate.to_string()).expect("found by its new master");
    assert_eq!(view.name, before.name);
    let done = failovers(&view, Outcome::Done);
    assert_eq!((done.len(), &done[0].new_master), (1, &Some(plan.candidate.clone())));
    let step = |name: &str| done[0].steps.iter().find(|step| step.name == name).expect("a step");
    assert!(step("vetted").at_ms - step("dead_agreed").at_ms >= 15.0, "{:?}", done[0].steps);
    assert_eq!(group.server(&plan.candidate.to_string()).role(), "master");
    guard.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_veto_stops_the_failover_until_it_is_asked_again() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let (asked, mut questions) = mpsc::unbounded_channel();
    let (asked_after, mut questions_after) = mpsc::unbounded_channel();
    let times = AtomicUsize::new(0);
    let guard = Guard::builder(config(&[&group.master]))
        .before_failover(move |plan| {
            let _ = asked.send((now(), plan));
            let first = times.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                Ok(if first { Verdict::Veto("a backup runs".to_owned()) } else { Verdict::Allow })
            }
        })
        .before_failover(move |_plan| {
            let _ = asked_after.send(());
            async { Ok(Verdict::Allow) }
        })
        .start()
        .await
        .expect("it starts");
    wait_until_healthy(&guard, &group);
    let mut told = guard.subscribe();
    let (old, new) = (addr(&group.master.addr()), addr(&group.replicas[0].addr()));
    group.master.kill9();

    let (first_at, _) = received(&mut questions).await;
    let notice = next(&mut told, |notice| notice.what == What::FailoverVetoed).await;
    assert!(notice.sentence.contains("a backup runs"), "{}", notice.sentence);
    let view = wait_for(&guard, &old.to_string(), |view| {
        view.diagnosis.not_acting_because.as_ref().is_some_and(|why| why.contains("a backup runs"))
    });
    assert_eq!((&view.master, view.status), (&old, StatusView::Active));
    assert_eq!(view.diagnosis.name, "MasterCrashed");
    let vetoed = failovers(&view, Outcome::Vetoed);
    assert_eq!(vetoed.len(), 1);
    assert_eq!((vetoed[0].new_master.as_ref(), vetoed[0].epoch), (None, view.epoch));
    assert!(vetoed[0].reason.contains("a backup runs"), "{}", vetoed[0].reason);
    assert_eq!(group.replicas[0].role(), "slave", "nothing was done");
    assert!(questions_after.try_recv().is_err(), "nobody is asked after a veto");

    let (again_at, plan) = received(&mut questions).await;
    let waited = again_at - first_at;
    assert!(waited >= Duration::from_millis(990), "failover_timeout is 1 s, not {waited:?}");
    assert!(waited < Duration::from_secs(5), "failover_timeout is 1 s, not {waited:?}");
    assert_eq!((&plan.old_master, &plan.candidate), (&old, &new));
    received(&mut questions_after).await;
    next(
        &mut told,
        |n| matches!(&n.what, What::MasterChanged { new_master, .. } if *new_master == new),
    )
    .await;
    assert_eq!(guard.masters(), [new]);
    guard.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_breaks_is_passed_over() {
    for (number, how) in
        ["an error", "a panic", "an early panic", "too late"].into_iter().enumerate()
    {
        let mut group = Group::start(ServerKind::Redis, 1);
        let (asked, mut questions) = mpsc::unbounded_channel();
        let mut settings = config(&[&group.master]);
        // Generous where it must not run out: a panic takes its time to print where it came from.
        let limit = Duration::from_millis(if how == "too late" { 300 } else { 10_000 });
        settings.policy.before_failover_timeout = limit;
        let guard = Guard::builder(settings)
            .before_failover(move |_plan| {
                assert!(number != 2, "this handler panics before its first await");
                async move {
                    match number {
                        0 => return Err("no connection to the inventory".into()),
                        1 => panic!("this handler panics"),
                        _ => tokio::time::sleep(PATIENCE * 2).await,
                    }
                    Ok(Verdict::Veto("never said in time".to_owned()))
                }
            })
            .before_failover(move |_plan| {
                let _ = asked.send(());
                async { Ok(Verdict::Allow) }
            })
            .start()
            .await
            .expect("it starts");
        let name = wait_until_healthy(&guard, &group).name.to_string();
        let killed_at = group.master.kill9();
        let view = wait_for(&guard, &name, |view| !failovers(view, Outcome::Done).is_empty());
        let took = killed_at.elapsed();
        assert_eq!(view.master.to_string(), group.replicas[0].addr(), "{how}");
        assert!(failovers(&view, Outcome::Vetoed).is_empty(), "{how}");
        // The late one has used up the time of all.
        assert_eq!(
            questions.try_recv().is_ok(),
            how != "too late",
            "{how}: was the next one asked?"
        );
        assert_eq!(took >= limit, how == "too late", "{how}: {took:?}");
        assert!(took < PATIENCE, "{how}: {took:?}");
        guard.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_guards_live_in_one_process() {
    let (mut one, two) = (Group::start(ServerKind::Redis, 1), Group::start(ServerKind::Redis, 1));
    let settings =
        Config { addr: Some("127.0.0.1:0".parse().expect("valid")), ..config(&[&one.master]) };
    let first = Guard::builder(settings).start().await.expect("it starts");
    let settings = Config {
        addr: Some("127.0.0.1:0".parse().expect("valid")),
        groups: vec![GroupConfig::new("two", addr(&two.master.addr()))],
        ..config(&[])
    };
    let second = Guard::builder(settings).start().await.expect("it starts");
    assert_ne!(first.http_addr().expect("HTTP").port(), second.http_addr().expect("HTTP").port());
    // What is configured is guarded when `start` returns.
    assert_eq!(first.masters(), [addr(&one.master.addr())]);
    wait_until_healthy(&first, &one);
    wait_until_healthy(&second, &two);
    assert_eq!(second.group("two").expect("by its name").master, addr(&two.master.addr()));

    one.master.kill9();
    let new = one.replicas[0].addr();
    wait_for(&first, &new, |view| view.master.to_string() == new);
    assert_eq!(second.masters(), [addr(&two.master.addr())]);
    // The end of one is not the end of the other.
    first.stop().await;
    second.add_masters(vec![addr(&new)]).await.expect("the other one goes on");
    wait_for(&second, &new, |view| view.diagnosis.name != "NotYetSeen");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_leaves_no_connection_and_the_servers_as_they_are() {
    let group = Group::start(ServerKind::Redis, 1);
    let settings =
        Config { addr: Some("127.0.0.1:0".parse().expect("valid")), ..config(&[&group.master]) };
    let guard = Guard::builder(settings).start().await.expect("it starts");
    wait_until_healthy(&guard, &group);
    assert!(group.servers().all(|server| guards_of(server) == 1));
    let http = guard.http_addr().expect("HTTP");
    let mut told = guard.subscribe();
    guard.stop().await;
    // It has ended when `stop` returns, not some time later; the server reads the end a moment after.
    assert!(std::net::TcpStream::connect(http).is_err(), "it still listens");
    wait_until("the connections are closed", PATIENCE, || {
        group.servers().all(|server| guards_of(server) == 0).then_some(())
    });
    let left = async { while told.recv().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, left).await.expect("a subscriber is told that it is over");
    assert_eq!(group.replicas[0].master_link(), Some((group.master.addr(), true)));
}

/// On a runtime that runs only while it is asked to, what `stop` leaves behind is never cleaned up.
#[test]
fn stop_has_closed_everything_when_it_returns() {
    let group = Group::start(ServerKind::Redis, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let guard = runtime.block_on(async {
        let builder = Guard::builder(config(&[&group.master]));
        let mut told = builder.subscribe();
        let guard = builder.start().await.expect("it starts");
        let added = |n: &Notice| n.what == What::GroupAdded;
        next(&mut told, added).await;
        let healthy = |n: &Notice| matches!(n.what, What::Diagnosed { healthy: true, .. });
        next(&mut told, healthy).await;
        guard
    });
    assert!(group.servers().all(|server| guards_of(server) > 0));
    runtime.block_on(guard.stop());
    wait_until("the connections are closed", PATIENCE, || {
        group.servers().all(|server| guards_of(server) == 0).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_guard_ends_as_well() {
    let group = Group::start(ServerKind::Redis, 1);
    let settings =
        Config { addr: Some("127.0.0.1:0".parse().expect("valid")), ..config(&[&group.master]) };
    let guard = Guard::builder(settings).start().await.expect("it starts");
    wait_until_healthy(&guard, &group);
    let http = guard.http_addr().expect("HTTP");
    drop(guard);
    wait_until("the connections are closed", PATIENCE, || {
        group.servers().all(|server| guards_of(server) == 0).then_some(())
    });
    wait_until("the port is free", PATIENCE, || std::net::TcpListener::bind(http).ok());
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_started() {
    let wrong = Config { policy: Policy { parallel_syncs: 0, ..Policy::default() }, ..config(&[]) };
    let error = Guard::builder(wrong).start().await.expect_err("zero at a time");
    assert!(
        matches!(&error, StartError::Config(_)) && error.to_string().contains("parallel_syncs")
    );
    let raft = Config { broker: BrokerKind::Raft, ..config(&[]) };
    let error = Guard::builder(raft).start().await.expect_err("it has no address");
    assert!(error.to_string().contains("\"raft\" needs raft_addr"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = taken.local_addr().expect("it is bound");
    let settings = Config { addr: Some(addr.into()), ..config(&[]) };
    let error = Guard::builder(settings).start().await.expect_err("taken");
    assert!(matches!(&error, StartError::Listen { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_told_again_until_it_succeeds_and_shown() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let (told, mut calls) = mpsc::unbounded_channel::<HookCall>();
    let times = AtomicUsize::new(0);
    let guard = Guard::builder(config(&[&group.master]))
        .on([HookEvent::AfterFailover, HookEvent::MasterReturned], move |call| {
            let _ = told.send(call);
            let first = times.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                assert!(!first, "this handler panics once");
                Ok(())
            }
        })
        .start()
        .await
        .expect("it starts");
    let name = wait_until_healthy(&guard, &group).name.clone();
    let (old, new) = (addr(&group.master.addr()), addr(&group.replicas[0].addr()));
    group.master.kill9();
    let first = received(&mut calls).await;
    assert_eq!((first.event, first.group.as_ref()), (HookEvent::AfterFailover, Some(&name)));
    assert_eq!((first.old_master.as_ref(), first.new_master.as_ref()), (Some(&old), Some(&new)));
    let shown = guard.hooks();
    assert_eq!((shown.len(), shown[0].name.as_str(), shown[0].kind), (1, "handler-1", "handler"));
    assert_eq!(received(&mut calls).await, first, "the same is told again");
    group.master.restart();
    let returned = received(&mut calls).await;
    assert_eq!((returned.event, returned.addr.as_ref()), (HookEvent::MasterReturned, Some(&old)));
    wait_until("both are counted", PATIENCE, || {
        let shown = guard.hooks().remove(0);
        (shown.delivered == 2 && shown.queued == 0).then_some(())
    });
    let shown = guard.hooks().remove(0);
    assert_eq!((shown.failed, shown.last_error.as_deref()), (0, Some("it panicked")));
    guard.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_waits_for_handlers_but_not_for_ever() {
    for hangs in [false, true] {
        let mut group = Group::start(ServerKind::Redis, 1);
        let (begun, mut begins) = mpsc::unbounded_channel();
        let ended = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ended);
        let guard = Guard::builder(config(&[&group.master]))
            .after_failover(move |_change| {
                let (begun, ended) = (begun.clone(), Arc::clone(&counted));
                async move {
                    let _ = begun.send(());
                    let long = if hangs { PATIENCE * 3 } else { Duration::from_millis(500) };
                    tokio::time::sleep(long).await;
                    ended.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }
            })
            .start()
            .await
            .expect("it starts");
        wait_until_healthy(&guard, &group);
        group.master.kill9();
        received(&mut begins).await;
        let stopped_at = now();
        guard.stop().await;
        let took = stopped_at.elapsed();
        assert_eq!(ended.load(Ordering::SeqCst), usize::from(!hangs), "{took:?}");
        assert!(took < PATIENCE, "{took:?}");
        assert_eq!(took >= Duration::from_secs(5), hangs, "the bound is 5 s: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_replaces_a_healthy_master_and_everyone_is_told() {
    let group = Group::start(ServerKind::Redis, 1);
    let (told, mut changes) = mpsc::unbounded_channel::<MasterChange>();
    let guard = Guard::builder(config(&[&group.master]))
        .after_failover(move |change| {
            let _ = told.send(change);
            async { Ok(()) }
        })
        .start()
        .await
        .expect("it starts");
    let name = wait_until_healthy(&guard, &group).name.clone();
    group.bring_in_step();
    let new = addr(&group.replicas[0].addr());
    let timeout = Duration::from_secs(5);
    let planned = guard.switchover(&name, None, timeout, true).await.expect("it could be done");
    assert!(planned.dry_run && planned.new_master == new && !planned.plan.is_empty());
    let done = guard.switchover(&name, Some(new.clone()), timeout, false).await.expect("done");
    assert_eq!((done.outcome, &done.new_master), (Some(Outcome::Done), &new));
    let change = received(&mut changes).await;
    assert_eq!((&change.new_master, change.epoch), (&new, done.epoch));
    let refused =
        guard.switchover(&name, None, Duration::ZERO, false).await.expect_err("too short");
    assert_eq!(refused.code, RefusalCode::Refused);
    let alive = guard.failover(&name, None, false, false).await.expect_err("it is alive");
    assert_eq!(alive.code, RefusalCode::Refused);
    assert_eq!(guard.leader(), Some(guard.node()));
    guard.stop().await;
}

/// The API in a server of the host's own, with an address before it.
#[cfg(feature = "http")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_is_mounted_where_the_host_wants_it() {
    use tower::ServiceExt as _;
    let group = Group::start(ServerKind::Redis, 0);
    let guard = Guard::builder(config(&[&group.master])).start().await.expect("it starts");
    assert_eq!(guard.http_addr(), None, "nothing is listened on");
    let app = axum::Router::new().nest("/redis", guard.router());
    let ask = |path: &str| {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty());
        app.clone().oneshot(request.expect("a request"))
    };
    let answer = ask("/redis/master").await.expect("infallible");
    let body = axum::body::to_bytes(answer.into_body(), 1024).await.expect("a body");
    assert_eq!(body, group.master.addr());
    assert_eq!(ask("/master").await.expect("infallible").status(), 404);
    guard.stop().await;
}

/// Logger, panic hook, signals and the TLS provider belong to the host, also when scripts and webhooks are run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_global_is_touched() {
    let caught = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("it is Linux");
        let line = status.lines().find(|line| line.starts_with("SigCgt:"));
        line.expect("Linux writes it").to_owned()
    };
    let before = caught();
    let mut group = Group::start(ServerKind::Redis, 1);
    let script = common::script::Script::new("");
    let mut settings = config(&[&group.master]);
    settings.scripts.notification = Some(script.path());
    // Nobody is there, and TLS is set up all the same.
    settings.webhooks = vec![WebhookConfig::new("nobody", "https://127.0.0.1:1/")];
    let guard = Guard::builder(settings).start().await.expect("it starts");
    wait_until_healthy(&guard, &group);
    group.master.kill9();
    let new = group.replicas[0].addr();
    wait_for(&guard, &new, |view| view.master.to_string() == new);
    script.wait_for_event("after_failover", 1);
    wait_until("the webhook was tried", PATIENCE, || {
        guard
            .hooks()
            .iter()
            .any(|hook| hook.name == "nobody" && hook.last_at.is_some())
            .then_some(())
    });
    assert_eq!(caught(), before);
    #[cfg(feature = "https")]
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    assert!(!tracing::dispatcher::has_been_set(), "no test of this file sets one either");
    guard.stop().await;
}
