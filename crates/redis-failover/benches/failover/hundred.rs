//! A hundred masters that die in the same instant.

use std::time::Duration;

use crate::common::child::{Owned, kill9_together};
use crate::common::{Group, Writer, wait_until};
use crate::monitor::{Monitor, Who, both};
use crate::scenario::{Bench, SETTLE, ms, progress};
use crate::table::{Row, Target};

const GROUPS: usize = 100;
/// Two hundred servers written to each millisecond would be all that this machine does.
const PERIOD: Duration = Duration::from_millis(20);
/// Sentinel takes 20 s.
const LIMIT: Duration = Duration::from_secs(120);

struct Cost {
    /// From the kill until all servers were gone.
    dying: f64,
    /// From then to the first write: of the group in the middle, and of the slowest one.
    median: f64,
    slowest: f64,
    /// From then until a node tells of all.
    told: f64,
}

pub(crate) fn hundred(bench: &Bench) -> Vec<Row> {
    let (ours, sentinel) = both(bench, (5, 1), |who, _| kill_all(bench, who));
    let row = |name: &str, figure: fn(&Cost) -> f64, target| {
        let all = |costs: &[Cost]| costs.iter().map(figure).collect::<Vec<_>>();
        bench.row(name, "ms", all(&ours), target, "").beside(all(&sentinel))
    };
    vec![
        row(
            "100 masters at once, slowest first write after the last server's end",
            |c| c.slowest,
            Target::MaxAtMost(150.0),
        ),
        row(
            "100 masters at once, median first write after the last server's end",
            |c| c.median,
            Target::None,
        ),
        row("100 masters at once, a node tells of all after the last end", |c| c.told, {
            Target::MaxAtMost(150.0)
        }),
        row("100 masters at once, from the kill to the last server's end", |c| c.dying, {
            Target::None
        }),
    ]
}

fn kill_all(bench: &Bench, who: Who) -> Cost {
    let mut groups = start_groups(bench);
    let monitor = Monitor::start(bench, who, &groups);
    for group in &groups {
        group.wait_in_step();
    }
    let told = monitor.told(monitor.leader(), &groups);
    let mut writer = Writer::start_each(PERIOD, groups.iter().flat_map(Group::servers));
    for group in &groups {
        writer.wait_for_write(&group.master.addr());
    }
    std::thread::sleep(SETTLE);

    let mut processes: Vec<&mut Owned> =
        groups.iter_mut().map(|group| group.master.process()).collect();
    let (killed_at, ended_at) = kill9_together(&mut processes);
    let mut gaps: Vec<f64> = groups
        .iter()
        .map(|group| {
            let replica = group.replicas[0].addr();
            let what = format!("{replica} takes writes");
            let first =
                wait_until(&what, LIMIT, || writer.first_write(killed_at, |addr| addr == replica));
            ms(first.ended_at.saturating_duration_since(ended_at))
        })
        .collect();
    let told_at =
        groups.iter().map(|group| told.wait_for(&group.replicas[0].addr(), killed_at, LIMIT));
    let told_at = told_at.max().expect("there are groups");
    writer.stop();
    gaps.sort_by(f64::total_cmp);
    let cost = Cost {
        dying: ms(ended_at - killed_at),
        median: gaps[gaps.len() / 2],
        slowest: gaps[gaps.len() - 1],
        told: ms(told_at.saturating_duration_since(ended_at)),
    };
    progress(&format!("100 masters at once, {who:?}"), 0, cost.slowest);
    cost
}

/// Starting a server is waiting for it, so a few are started at the same time.
fn start_groups(bench: &Bench) -> Vec<Group> {
    const AT_ONCE: usize = 4;
    let kind = bench.kind;
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..AT_ONCE)
            .map(|part| {
                let share = (part..GROUPS).step_by(AT_ONCE).count();
                scope.spawn(move || (0..share).map(|_| Group::start(kind, 1)).collect::<Vec<_>>())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("servers start")).collect()
    })
}
