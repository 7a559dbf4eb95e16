//! What scenarios begin with, wait for and assert.

use std::time::Duration;

use serde_json::Value;

use super::daemon::instance;
use super::{Daemon, Group, PATIENCE, Server, ServerKind, now, wait_until};

/// Ten times the promised write gap after `kill -9`, from the program's first sign to the verified promotion, for a debug
/// build on a machine that does much else.
pub const DECISION_MAX: Duration = Duration::from_millis(200);
/// What a client may see of it, which is also the end of the killed process and the disk: a promoted server writes its
/// configuration before it takes the first write.
pub const CRASH_GAP_MAX: Duration = Duration::from_millis(500);
/// About three times the promise after SIGSTOP with `max_down_time` 1.
pub const HANG_GAP_MAX: Duration = Duration::from_secs(3);
/// Long enough for a decision that must not be taken to be seen: decisions take milliseconds.
const WATCHED: Duration = Duration::from_millis(300);

/// Plays a scenario on every kind of server, at the same time.
pub fn on_each_kind(play: impl Fn(ServerKind) + Sync) {
    std::thread::scope(|scope| {
        for kind in ServerKind::all() {
            let play = &play;
            scope.spawn(move || play(kind));
        }
    });
}

/// The program, guarding the group, once it sees everything that there is: the group's name is its master's address.
#[track_caller]
pub fn guard(group: &Group, args: &[&str]) -> Daemon {
    guard_with(group, args, &[])
}

/// The same with environment variables.
#[track_caller]
pub fn guard_with(group: &Group, args: &[&str], env: &[(&str, &str)]) -> Daemon {
    let masters = format!("-masters={}", group.master.addr());
    let mut all = vec!["-check_interval=100", &masters];
    all.extend(args);
    let daemon = Daemon::start_with(&Daemon::binary(), &all, env);
    wait_until_guarded(&daemon, &group.master.addr(), &group.addrs());
    daemon
}

/// The program with a config file of its own.
#[track_caller]
pub fn guard_by_file(config: &str) -> Daemon {
    guard_by_file_with(config, &[])
}

/// The same with environment variables.
#[track_caller]
pub fn guard_by_file_with(config: &str, env: &[(&str, &str)]) -> Daemon {
    let dir = super::temporary_dir();
    let path = dir.path().join("failover.toml");
    std::fs::write(&path, config).expect("the directory is ours");
    Daemon::start_with(&Daemon::binary(), &[&format!("-config={}", path.display())], env)
}

/// Returns when all instances are up, and each but the master has its link up.
#[track_caller]
pub fn wait_until_guarded(daemon: &Daemon, name: &str, addrs: &[String]) -> Value {
    daemon.wait_for(name, PATIENCE, |view| {
        let is_seen = |addr: &String| {
            instance(view, addr).is_some_and(|seen| {
                let settled = seen["role"] == "master" || seen["link"] == "up";
                seen["state"] == "up" && settled
            })
        };
        view["status"] == "active" && addrs.iter().all(is_seen)
    })
}

/// Brings a group that was restarted in step, and returns when the program has read the history that it is on now.
#[track_caller]
pub fn settle(daemon: &Daemon, name: &str, group: &Group) {
    wait_until_guarded(daemon, name, &group.addrs());
    group.bring_in_step();
    let id = group.master.info("replication")["master_replid"].clone();
    daemon.wait_for(name, PATIENCE, |view| {
        let knows =
            |addr: &String| instance(view, addr).is_some_and(|seen| seen["replication_id"] == *id);
        group.addrs().iter().all(knows)
    });
}

/// Polls until the group has this diagnosis.
#[track_caller]
pub fn wait_for_diagnosis(daemon: &Daemon, name: &str, diagnosis: &str) -> Value {
    daemon.wait_for(name, PATIENCE, |view| view["diagnosis"]["name"] == diagnosis)
}

/// The failovers of a group, newest first.
#[track_caller]
pub fn failovers(daemon: &Daemon, name: &str) -> Vec<Value> {
    daemon.history(name).into_iter().filter(|entry| entry["kind"] == "failover").collect()
}

/// Waits until the newest failover has ended, and gives its entry of history.
#[track_caller]
pub fn wait_for_failover(daemon: &Daemon, name: &str) -> Value {
    wait_until("the failover has ended", PATIENCE, || {
        let newest = failovers(daemon, name).into_iter().next()?;
        (newest["outcome"] != "running").then_some(newest)
    })
}

/// Waits until an entry of this kind about this instance has ended as `outcome`.
#[track_caller]
pub fn wait_for_entry(
    daemon: &Daemon,
    name: &str,
    (kind, addr, outcome): (&str, &str, &str),
) -> Value {
    let what = format!("a {kind} of {addr} is {outcome}");
    wait_until(&what, PATIENCE, || {
        daemon.history(name).into_iter().find(|entry| {
            entry["kind"] == kind && entry["old_master"] == addr && entry["outcome"] == outcome
        })
    })
}

/// Waits until an old master that came back was made a replica, and gives the entry of history.
#[track_caller]
pub fn wait_for_demotion(daemon: &Daemon, name: &str) -> Value {
    wait_for_entry(daemon, name, ("demotion", name, "done"))
}

/// The demotions of a group, newest first.
pub fn demotions(daemon: &Daemon, name: &str) -> Vec<Value> {
    daemon.history(name).into_iter().filter(|entry| entry["kind"] == "demotion").collect()
}

/// A demotion that did what it should, and says how long and how much the old master took.
#[track_caller]
pub fn assert_demoted(entry: &Value, new: &str) {
    assert_eq!(entry["new_master"], new, "{entry:#}");
    assert_eq!(step_names(entry), ["returned", "committed", "demoted", "clients_cut"], "{entry:#}");
    let window = entry["steps"][2]["note"].as_str().expect("the window is told");
    assert!(window.contains("it took writes for"), "{entry:#}");
    assert!(entry["reason"].as_str().is_some_and(|reason| reason.contains(window)), "{entry:#}");
    assert!(entry["finished_at"].is_string(), "{entry:#}");
}

/// Looks for a while and fails at once when it does not hold.
#[track_caller]
pub fn holds(what: &str, mut ask: impl FnMut() -> bool) {
    holds_for(WATCHED, what, &mut ask);
}

#[track_caller]
pub fn holds_for(span: Duration, what: &str, mut ask: impl FnMut() -> bool) {
    let started_at = now();
    while started_at.elapsed() < span {
        assert!(ask(), "after {:?} not so any more: {what}", started_at.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Nothing was decided to the group, and nothing is.
#[track_caller]
pub fn assert_left_alone(daemon: &Daemon, name: &str) {
    holds("nothing is done to the group", || {
        let view = daemon.group(name).expect("a group stays");
        view["epoch"] == 0 && failovers(daemon, name).is_empty()
    });
}

/// The one failover stays the only one.
#[track_caller]
pub fn assert_no_other_failover(daemon: &Daemon, name: &str, master: &str) {
    holds("one failover, one master", || {
        let view = daemon.group(name).expect("a group stays");
        view["epoch"] == 1 && view["master"] == master && failovers(daemon, name).len() == 1
    });
}

/// The server is a replica of the other, with its link up, and the program shows it so.
#[track_caller]
pub fn wait_until_follows(daemon: &Daemon, name: &str, replica: &Server, master: &Server) {
    replica.wait_for_link(master);
    daemon.wait_for(name, PATIENCE, |view| {
        instance(view, &replica.addr())
            .is_some_and(|seen| seen["role"] == "replica" && seen["link"] == "up")
    });
}

/// The names of an entry's steps, in order.
pub fn step_names(entry: &Value) -> Vec<&str> {
    let steps = entry["steps"].as_array().expect("the steps are a list");
    steps.iter().map(|step| step["name"].as_str().expect("a step has a name")).collect()
}

/// The candidates of an entry as (address, rank, why it was refused).
pub fn ranking(entry: &Value) -> Vec<(&str, Option<u64>, Option<&str>)> {
    let places = entry["ranking"].as_array().expect("the ranking is a list");
    places
        .iter()
        .map(|place| {
            let addr = place["addr"].as_str().expect("a candidate has an address");
            (addr, place["rank"].as_u64(), place["refused"].as_str())
        })
        .collect()
}

/// A failover that did what it should: every key is there, every step in its place and its time.
#[track_caller]
pub fn assert_whole(entry: &Value, (old, new, cause): (&str, &str, &str), repointed: usize) {
    let shown = || serde_json::to_string_pretty(entry).expect("JSON can be printed");
    for (key, wanted) in [("outcome", "done"), ("old_master", old), ("new_master", new)] {
        assert_eq!(entry[key], wanted, "{key} in {}", shown());
    }
    assert_eq!(entry["cause"], cause, "{}", shown());
    for key in ["id", "group", "leader", "reason", "started_at", "finished_at"] {
        assert!(entry[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {}", shown());
    }
    assert!(entry["write_gap_ms"].is_number(), "{}", shown());
    assert!(entry["bytes_possibly_lost"].is_u64(), "{}", shown());
    let before = [
        "first_sign",
        "down",
        "dead_agreed",
        "vetted",
        "committed",
        "promote_sent",
        "promoted",
        "recorded",
        "told",
    ];
    let names = step_names(entry);
    assert_eq!(names[..before.len().min(names.len())], before, "{}", shown());
    let count = |name| names.iter().filter(|step| **step == name).count();
    assert_eq!((count("repointed"), count("link_verified")), (repointed, repointed), "{}", shown());
    assert_eq!(names.len(), before.len() + 2 * repointed, "{}", shown());
    let steps = entry["steps"].as_array().expect("the steps are a list");
    let times: Vec<f64> =
        steps.iter().map(|step| step["at_ms"].as_f64().expect("a step has a time")).collect();
    assert!(times.is_sorted() && times[0] == 0.0, "{}", shown());
    for (number, place) in (1..).zip(entry["ranking"].as_array().expect("a list")) {
        if place["refused"].is_null() {
            assert_eq!(place["rank"], number, "{}", shown());
            assert!(place["offset"].as_u64().is_some_and(|offset| offset > 0), "{}", shown());
            assert!(place["priority"].is_u64(), "{}", shown());
        }
    }
}

/// How often the server was told to follow somebody, or nobody.
pub fn times_told(server: &Server) -> u64 {
    let stats = server.info("commandstats");
    let calls = |name: &str| {
        let stat = stats.get(&format!("cmdstat_{name}"))?;
        stat.strip_prefix("calls=")?.split(',').next()?.parse::<u64>().ok()
    };
    calls("replicaof").unwrap_or(0) + calls("slaveof").unwrap_or(0)
}
