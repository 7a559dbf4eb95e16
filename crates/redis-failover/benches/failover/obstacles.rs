//! A failover beside what is slow or never answers: a name server, a peer, hundreds of instances. And what is no reason for one.

use std::time::Duration;

use crate::common::child::{self, Owned};
use crate::common::scenario::failovers;
use crate::common::slow::{Mute, SlowNames};
use crate::common::{Cluster, Group, Writer};
use crate::monitor::plan;
use crate::scenario::{Bench, RECOVERY_LIMIT, SETTLE, count, ms, progress};
use crate::table::{Row, Target};

const RUNS: usize = 10;
const NAMES: usize = 100;
const MUTE: u16 = 500;

/// What stands in the way.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    Nothing,
    SlowNames,
    MutePeer,
    MuteInstances,
}

impl Obstacle {
    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "kill -9 of one of few, write gap",
            Self::SlowNames => "kill -9 beside 100 names that take 5 s to resolve, write gap",
            Self::MutePeer => "kill -9 with a peer that accepts and never answers, write gap",
            Self::MuteInstances => {
                "kill -9 beside 500 instances that accept and never answer, write gap"
            }
        }
    }
}

pub(crate) fn obstacles(bench: &Bench) -> Vec<Row> {
    let all = [Obstacle::Nothing, Obstacle::SlowNames, Obstacle::MutePeer, Obstacle::MuteInstances];
    let mut gaps = all.map(|_| Vec::new());
    // In turn, so that whatever else the machine does meanwhile falls on all of them.
    for run in 0..bench.runs(RUNS) {
        for (obstacle, gaps) in all.into_iter().zip(&mut gaps) {
            let Some(gap) = gap(bench, obstacle, run) else { continue };
            progress(&format!("{obstacle:?}"), run, gap);
            gaps.push(gap);
        }
    }
    let mut free = gaps[0].clone();
    free.sort_by(f64::total_cmp);
    let twice = (2.0 * free[free.len() / 2]).ceil();
    let rows = all.into_iter().zip(gaps).filter(|(_, gaps)| !gaps.is_empty());
    rows.map(|(obstacle, gaps)| {
        let target = match obstacle {
            Obstacle::Nothing => Target::None,
            Obstacle::SlowNames | Obstacle::MutePeer | Obstacle::MuteInstances => {
                Target::MedianAtMost(twice)
            }
        };
        bench.row(obstacle.words(), "ms", gaps, target, "")
    })
    .collect()
}

/// `None` where this obstacle cannot be put up.
fn gap(bench: &Bench, obstacle: Obstacle, run: usize) -> Option<f64> {
    let mut group = Group::start(bench.kind, 2);
    let name = group.master.addr();
    let mut masters = vec![name.clone()];
    let mut cluster: Cluster = plan(bench);
    let (mut names, mut mute) = (None, None);
    match obstacle {
        Obstacle::Nothing | Obstacle::MutePeer => {}
        Obstacle::SlowNames => {
            cluster.set_names(names.insert(SlowNames::start()?));
            masters.extend((0..NAMES).map(|number| format!("master-{number}.example:6379")));
        }
        Obstacle::MuteInstances => {
            masters.extend_from_slice(mute.insert(Mute::start(MUTE)).addrs());
        }
    }
    cluster.set_for_all(&format!("-masters={}", masters.join(",")));
    cluster.start_all();
    cluster.wait_until_guarded(&name, &group.addrs());
    let leader = cluster.leader_of_all();
    if matches!(obstacle, Obstacle::MutePeer) {
        cluster.freeze((leader + 1) % 3);
    }
    group.wait_in_step();
    let mut writer = Writer::start(&group);
    let phase = Duration::from_millis(u64::try_from(run * 37 % 100).expect("below 100"));
    std::thread::sleep(SETTLE + phase);
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, RECOVERY_LIMIT);
    writer.stop();
    Some(ms(gap.length))
}

/// Programs that need all of the processor are no reason to replace a master.
pub(crate) fn busy(bench: &Bench) -> Vec<Row> {
    const BUSY: Duration = Duration::from_secs(30);
    let group = Group::start(bench.kind, 2);
    let name = group.master.addr();
    let mut cluster = plan(bench).set(&format!("-masters={name}"));
    cluster.start_all();
    cluster.wait_until_guarded(&name, &group.addrs());
    let writer = Writer::start(&group);
    let _loops = [(); 2].map(|()| {
        let mut command = child::command("sh");
        command.args(["-c", "while :; do :; done"]);
        Owned::start(command).expect("a shell can be started")
    });
    std::thread::sleep(if bench.quick { BUSY / 10 } else { BUSY });
    writer.wait_for_write(&name);
    let made = count(failovers(cluster.node(cluster.leader()), &name).len());
    progress("two busy loops", 0, made);
    vec![bench.row(
        "two busy loops for 30 s, max_down_time 1, failovers",
        "count",
        vec![made],
        Target::MaxAtMost(0.0),
        "",
    )]
}
