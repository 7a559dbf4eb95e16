//! What a node writes down leads the core to the same decisions again.

mod common;

use std::fs::File;
use std::io::BufReader;

use common::scenario::wait_until_guarded;
use common::{Daemon, Group, PATIENCE, ServerKind, temporary_dir, wait_until};
use failover_sim::recording::{Replayed, replay};

/// Goes through a journal, and gives its readable lines.
fn gone_through(path: &std::path::Path) -> (Replayed, Vec<String>) {
    let file = BufReader::new(File::open(path).expect("there is a journal"));
    let mut lines = Vec::new();
    match replay(file, |line| lines.push(line.to_owned())) {
        Ok(replayed) => (replayed, lines),
        Err(stopped) => panic!("{stopped}\n{}", lines.join("\n")),
    }
}

#[test]
fn a_failover_is_gone_through_again() {
    let dir = temporary_dir();
    let path = dir.path().join("journal");
    let mut group = Group::start(ServerKind::Redis, 2);
    let name = group.master.addr();
    let journal = format!("-journal_file={}", path.display());
    let masters = format!("-masters={name}");
    let args = ["-check_interval=100", &masters, &journal];
    let mut node = Daemon::start_with(&Daemon::binary(), &args, &[]);
    wait_until_guarded(&node, &name, &group.addrs());
    group.master.kill9();
    let new = wait_until("the master is replaced", PATIENCE, || {
        let masters = node.get("/master").body;
        (masters != name && !masters.is_empty()).then_some(masters)
    });
    node.kill9();

    let (first, lines) = gone_through(&path);
    assert_eq!(first.runs, 1);
    let promoted = |line: &&String| line.contains("promote") && line.contains(&format!("-> {new}"));
    assert_eq!(lines.iter().filter(promoted).count(), 1, "{}", lines.join("\n"));

    // The next run goes on in the same file, behind what the killed one left.
    let masters = format!("-masters={new}");
    let args = ["-check_interval=100", &masters, &journal];
    let mut node = Daemon::start_with(&Daemon::binary(), &args, &[]);
    let replicas: Vec<String> = group.replicas.iter().map(common::Server::addr).collect();
    wait_until_guarded(&node, &new, &replicas);
    node.stop();
    let (both, _) = gone_through(&path);
    assert_eq!((both.runs, both.is_torn), (2, false));
    assert!(both.events > first.events && both.actions > first.actions, "{first:?} {both:?}");
}

#[test]
fn a_journal_that_is_full_ends_and_the_node_goes_on() {
    let dir = temporary_dir();
    let path = dir.path().join("journal");
    let group = Group::start(ServerKind::Redis, 1);
    let journal = format!("-journal_file={}", path.display());
    let masters = format!("-masters={}", group.master.addr());
    let args = ["-check_interval=10", &masters, &journal, "-journal_max_mb=1"];
    let node = Daemon::start_with(&Daemon::binary(), &args, &[]);
    node.wait_for_log("ends here", PATIENCE * 3);
    assert!(std::fs::metadata(&path).expect("it is there").len() <= 1 << 20);
    wait_until_guarded(&node, &group.master.addr(), &group.addrs());
    let (replayed, _) = gone_through(&path);
    assert_eq!((replayed.runs, replayed.is_torn), (1, false));
}

#[test]
fn a_journal_that_cannot_be_written_is_a_mistake_that_is_named() {
    let ended = Daemon::run(&["-masters=127.0.0.1:1", "-journal_file=/nowhere/journal"], &[]);
    assert_ne!(ended.status.code(), Some(0));
    assert!(
        ended.stderr.contains("the journal /nowhere/journal cannot be written"),
        "{}",
        ended.stderr
    );
}
