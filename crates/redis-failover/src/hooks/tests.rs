//! Queues and their bounds, with a desk whose node leads alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use failover_core::node::{GroupName, NodeId, Token};
use failover_core::record::HookEvent;
use failover_core::time::Time;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::line::{Job, Line, Next, Ran};
use super::script::{Script, ScriptKind};
use super::*;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::ScriptLimits;
use crate::events::Events;

/// Writes a script that can be run at once. A file that is open for writing cannot, and other tests fork at any time: it is
/// written by another process, and closed when that one has ended.
pub(super) fn write_script(path: &Path, text: &str) {
    let written = std::process::Command::new("/bin/sh")
        .args(["-c", "printf '%s' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", text])
        .arg(path)
        .status();
    assert!(written.expect("there is a shell").success());
}

fn call(group: &str, number: u64) -> HookCall {
    let group = GroupName::new(group).expect("a name");
    let at = (Time::from_millis(number), &NodeId::new("a"));
    HookCall::seen(HookEvent::Halted, at, Some(&group), "because".to_owned())
}

fn job(group: &str, number: u64) -> Job {
    let call = Arc::new(call(group, number));
    Job { call, token: Some(Token(1)), number: Some(number), observer: false, tries: 0 }
}

fn script(path: &Path) -> Hook {
    let script = Script {
        kind: ScriptKind::Notification,
        default: Some(path.to_owned()),
        by_group: BTreeMap::new(),
        limits: ScriptLimits::default(),
    };
    Hook { name: "script".to_owned(), events: told(), target: Target::Script(script) }
}

fn handler() -> Hook {
    let handler: Handler = Arc::new(|_call| Box::pin(async { Ok(()) }));
    Hook { name: "handler".to_owned(), events: told(), target: Target::Handler(handler) }
}

fn failed() -> Ran {
    Ran::Failed { why: "no".to_owned(), again: true }
}

#[test]
fn a_handler_is_told_of_one_group_in_order_and_of_others_meanwhile() {
    let mut line = Line::new(Arc::new(handler()));
    for (group, number) in [("a", 1), ("a", 2), ("b", 3)] {
        assert!(line.push(job(group, number)).is_none());
    }
    let (first, other) = (line.begin(Instant::now(), true), line.begin(Instant::now(), true));
    let first = first.expect("there is room");
    assert_eq!((first.number, other.expect("another group").number), (Some(1), Some(3)));
    assert!(line.begin(Instant::now(), true).is_none(), "the group is busy");
    assert_eq!(line.ended(&first, Ran::Done, Time::ZERO), Next::Told);
    assert_eq!(line.begin(Instant::now(), true).expect("now").number, Some(2));
}

#[test]
fn pauses_grow_and_end() {
    let mut line = Line::new(Arc::new(script(Path::new("/bin/true"))));
    let mut pauses = Vec::new();
    for tries in 0..10 {
        assert!(line.push(job("a", 1)).is_none());
        let mut job = line.begin(Instant::now(), true).expect("there is room");
        job.tries = tries;
        match line.ended(&job, failed(), Time::ZERO) {
            Next::Again(pause) => pauses.push(pause.as_secs()),
            end @ (Next::Told | Next::GivenUp(_)) => {
                assert_eq!((tries, end), (9, Next::GivenUp("no".to_owned())));
            }
        }
    }
    assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1920, 3840, 7680], "as Sentinel's");

    let mut line = Line::new(Arc::new(handler()));
    let mut end = |tries: u32, hours: u64| {
        assert!(line.push(job("a", 1)).is_none());
        let mut job = line.begin(Instant::now(), true).expect("there is room");
        job.tries = tries;
        line.ended(&job, failed(), Time::ZERO + Duration::from_secs(hours * 3600))
    };
    assert_eq!(end(0, 0), Next::Again(Duration::from_secs(1)));
    assert_eq!(end(3, 0), Next::Again(Duration::from_secs(8)));
    assert_eq!(end(100, 23), Next::Again(Duration::from_secs(300)));
    assert_eq!(end(100, 24), Next::GivenUp("no".to_owned()), "a day is enough");
}

#[test]
fn what_needs_another_leadership_is_dropped() {
    let mut line = Line::new(Arc::new(handler()));
    assert!(line.push(job("a", 1)).is_none());
    let of_node = Job { token: None, ..job("b", 2) };
    assert!(line.push(of_node).is_none());
    line.put_off(job("c", 3), Instant::now());
    line.keep(Some(Token(2)));
    let left: Vec<_> =
        std::iter::from_fn(|| line.begin(Instant::now(), true)).map(|job| job.number).collect();
    assert_eq!(left, [Some(2)]);
}

/// Sentinel's bounds, with a real script.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_scripts_run_at_once_and_256_wait() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("script");
    let text = format!(
        "#!/bin/sh\ncd {}\necho >> runs\nwhile [ ! -e go ]; do sleep 0.02; done\n",
        dir.path().display()
    );
    write_script(&path, &text);
    let runs = || std::fs::read(dir.path().join("runs")).map_or(0, |lines| lines.len());
    let hooks = Hooks { all: vec![script(&path)] };
    let (node, clock) = (NodeId::new("a"), Clock::start());
    let broker = Broker::Solo { node: node.clone() };
    let (events, _lanes) = Events::lanes();
    let (stop, stopped) = watch::channel(false);
    let groups = crate::shown::Shown::new(node.clone(), broker.clone(), clock).into();
    let around = Surroundings { node, clock, broker, events, groups, stop: stopped };
    let (desk, work) = Desk::open(hooks, around);
    let work = tokio::spawn(work);
    for number in 0..300 {
        desk.seen(call("a", number), None);
    }
    let limit = Instant::now() + Duration::from_secs(20);
    while runs() != 16 || desk.shown().views()[0].queued != 16 + 256 {
        assert!(Instant::now() < limit, "{} run: {:?}", runs(), desk.shown().views());
        sleep(Duration::from_millis(5)).await;
    }
    // The time of another run or two, in which none may begin.
    sleep(Duration::from_millis(100)).await;
    assert_eq!(runs(), 16);
    let shown = desk.shown().views().remove(0);
    assert_eq!((shown.failed, shown.delivered), (300 - 16 - 256, 0), "the oldest went");
    std::fs::write(dir.path().join("go"), "").expect("the directory is ours");
    let limit = Instant::now() + Duration::from_secs(60);
    while desk.shown().views()[0].delivered < 16 + 256 {
        assert!(Instant::now() < limit, "{:?}", desk.shown().views());
        sleep(Duration::from_millis(5)).await;
    }
    stop.send_replace(true);
    timeout(Duration::from_secs(5), work).await.expect("it ends").expect("it does not panic");
}
