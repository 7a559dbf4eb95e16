//! Who guards: three nodes of our program, or three of Sentinel, before the same faults with the same witnesses.

use std::time::{Duration, Instant};

use crate::common::child::Owned;
use crate::common::scenario::failovers;
use crate::common::{Cluster, Group, Server, ServerKind, Told, Writer};
use crate::scenario::{Bench, RECOVERY_LIMIT, SETTLE, progress};
use crate::sentinel::Sentinels;

pub(crate) const NODES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Ours,
    Sentinel,
}

pub(crate) enum Monitor {
    Ours(Cluster),
    Sentinel(Sentinels),
}

impl Monitor {
    pub(crate) fn start(bench: &Bench, who: Who, groups: &[Group]) -> Self {
        match who {
            Who::Ours => Self::through(plan(bench), groups),
            Who::Sentinel => Self::Sentinel(Sentinels::start(bench.kind, groups)),
        }
    }

    /// Nodes of ours that were planned.
    pub(crate) fn through(cluster: Cluster, groups: &[Group]) -> Self {
        let masters: Vec<String> = groups.iter().map(|group| group.master.addr()).collect();
        let mut cluster = cluster.set(&format!("-masters={}", masters.join(",")));
        cluster.start_all();
        for group in groups {
            cluster.wait_until_guarded(&group.master.addr(), &group.addrs());
        }
        cluster.leader_of_all();
        Self::Ours(cluster)
    }

    /// Asks one node each millisecond where the masters are.
    pub(crate) fn told(&self, node: usize, groups: &[Group]) -> Told {
        match self {
            Self::Ours(cluster) => Told::start(cluster.node(node).http()),
            Self::Sentinel(sentinels) => sentinels.told(node, groups),
        }
    }

    /// The node that acts; Sentinel chooses one only when it is needed.
    pub(crate) fn leader(&self) -> usize {
        match self {
            Self::Ours(cluster) => cluster.leader(),
            Self::Sentinel(_) => 0,
        }
    }

    pub(crate) fn process(&mut self, node: usize) -> &mut Owned {
        match self {
            Self::Ours(cluster) => cluster.node_mut(node).process(),
            Self::Sentinel(sentinels) => sentinels.process(node),
        }
    }

    /// Takes note of an end that the benchmark brought about itself.
    pub(crate) fn bury(&mut self, node: usize) {
        match self {
            Self::Ours(cluster) => cluster.bury(node),
            Self::Sentinel(_) => {}
        }
    }

    /// Asks for a planned change of master.
    pub(crate) fn switch(&self, name: &str) {
        match self {
            Self::Ours(cluster) => {
                let answer = cluster.node(0).post(&format!("/v1/groups/{name}/switchover"), "{}");
                assert_eq!(answer.json["outcome"], "done", "{}", answer.body);
            }
            Self::Sentinel(sentinels) => sentinels.switch(name),
        }
    }
}

/// Nodes of ours with the settings of the comparison.
pub(crate) fn plan(bench: &Bench) -> Cluster {
    let plan = Cluster::plan(NODES).with_binary(&bench.binary);
    plan.set("-check_interval=100").set("-max_down_time=1").set("-crash_down_time=0")
}

/// The same runs with each of them: ours, and what Sentinel did, which cannot guard a LedisDB.
pub(crate) fn both<T>(
    bench: &Bench,
    (ours, sentinel): (usize, usize),
    play: impl Fn(Who, usize) -> T,
) -> (Vec<T>, Vec<T>) {
    let ours = (0..bench.runs(ours)).map(|run| play(Who::Ours, run)).collect();
    let sentinel = match bench.kind {
        ServerKind::Redis | ServerKind::Valkey if !bench.alone => sentinel,
        ServerKind::Redis | ServerKind::Valkey | ServerKind::Ledisdb => 0,
    };
    let sentinel = if bench.quick { sentinel.min(1) } else { sentinel };
    (ours, (0..sentinel).map(|run| play(Who::Sentinel, run)).collect())
}

/// A group in step, guarded, written to, and each node asked each millisecond.
pub(crate) struct Stage {
    pub(crate) who: Who,
    pub(crate) monitor: Monitor,
    pub(crate) groups: [Group; 1],
    pub(crate) writer: Writer,
    told: Vec<Told>,
}

impl Stage {
    pub(crate) fn set(bench: &Bench, who: Who, run: usize) -> Self {
        let groups = [Group::start(bench.kind, 2)];
        let monitor = Monitor::start(bench, who, &groups);
        Self::of(who, monitor, groups, run)
    }

    /// With nodes of ours that were planned.
    pub(crate) fn through(bench: &Bench, cluster: Cluster, run: usize) -> Self {
        let groups = [Group::start(bench.kind, 2)];
        let monitor = Monitor::through(cluster, &groups);
        Self::of(Who::Ours, monitor, groups, run)
    }

    fn of(who: Who, monitor: Monitor, groups: [Group; 1], run: usize) -> Self {
        groups[0].wait_in_step();
        let writer = Writer::start(&groups[0]);
        let told = (0..NODES).map(|node| monitor.told(node, &groups)).collect();
        // The fault falls on another moment of the rhythm of probes and heartbeats in each run.
        let phase = Duration::from_millis(u64::try_from(run * 37 % 100).expect("below 100"));
        std::thread::sleep(SETTLE + phase);
        Self { who, monitor, groups, writer, told }
    }

    pub(crate) fn group(&self) -> &Group {
        &self.groups[0]
    }

    pub(crate) fn master(&mut self) -> &mut Server {
        &mut self.groups[0].master
    }

    /// When the first and when the last of these nodes named the new master.
    pub(crate) fn told_by(
        &self,
        nodes: &[usize],
        addr: &str,
        since: Instant,
    ) -> (Instant, Instant) {
        let told = nodes.iter().map(|node| self.told[*node].wait_for(addr, since, RECOVERY_LIMIT));
        let told: Vec<Instant> = told.collect();
        let first = told.iter().min().expect("a node is asked");
        (*first, *told.iter().max().expect("a node is asked"))
    }

    /// How often one of the servers was made a master, by their own logs; those of LedisDB do not tell.
    pub(crate) fn promotions(&self) -> usize {
        match &self.monitor {
            Monitor::Ours(cluster) if self.group().master.kind() == ServerKind::Ledisdb => {
                failovers(cluster.node(cluster.answering()[0]), &self.group().master.addr()).len()
            }
            Monitor::Ours(_) | Monitor::Sentinel(_) => {
                self.group().servers().map(Server::times_promoted).sum()
            }
        }
    }

    pub(crate) fn progress(&self, what: &str, run: usize, value: f64) {
        progress(&format!("{what}, {:?}", self.who), run, value);
    }
}
