//! A planned change of master under one write per millisecond to every server.

use std::time::Duration;

use crate::common::{Group, Server, ServerKind, now, wait_until};
use crate::monitor::{Stage, both};
use crate::scenario::{Bench, RECOVERY_LIMIT, count, ms};
use crate::table::{Row, Target};

/// How many replicas had to copy everything from the new master.
fn full_copies(group: &Group, new: &Server) -> f64 {
    match new.kind() {
        ServerKind::Redis | ServerKind::Valkey => {
            new.info("stats")["sync_full"].parse().expect("a number")
        }
        // It counts none, but who copied has an empty log, or one that begins later than everybody's.
        ServerKind::Ledisdb => {
            let began = |server: &&Server| server.info("replication")["first_log_id"] != "1";
            count(group.servers().filter(began).count())
        }
    }
}

struct Cost {
    gap: f64,
    told: f64,
    lost: f64,
    /// Of a client that writes where the monitor says the master is.
    lost_by_asking: f64,
    doubled: f64,
    copies: f64,
}

/// Sentinel goes on until the old master is a replica, so that what it takes meanwhile is counted.
const DEMOTED_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn switchover(bench: &Bench) -> Vec<Row> {
    let (ours, sentinel) = both(bench, (20, 3), |who, run| {
        let mut stage = Stage::set(bench, who, run);
        let old = stage.group().master.addr();
        let asked_at = now();
        stage.monitor.switch(&old);
        let gap = stage.writer.wait_for_gap(asked_at, &old, RECOVERY_LIMIT);
        let (told_at, _) = stage.told_by(&[0, 1, 2], &gap.addr, asked_at);
        let new = stage.group().server(&gap.addr);
        wait_until("the old master follows", DEMOTED_LIMIT, || {
            (stage.group().master.master_link()? == (gap.addr.clone(), true)).then_some(())
        });
        let doubled = stage.writer.two_masters(&old, &gap);
        let copies = full_copies(stage.group(), new);
        let lost = stage.writer.lost_writes(&old, new);
        // The last write of the old one that counts, to the first of the new one.
        let kept = stage.writer.acknowledged_after(&old, asked_at);
        let kept = kept.iter().rfind(|write| lost.iter().all(|l| l.number != write.number));
        let kept_at = kept.map_or(asked_at, |write| write.answered_at);
        let cost = Cost {
            gap: ms(gap.ended_at.saturating_duration_since(kept_at)),
            told: ms(told_at - asked_at),
            lost: count(lost.len()),
            lost_by_asking: count(lost.iter().filter(|write| write.sent_at < told_at).count()),
            doubled: ms(doubled),
            copies,
        };
        stage.writer.stop();
        stage.progress("switchover", run, cost.gap);
        cost
    });
    let row = |name: &str, unit, figure: fn(&Cost) -> f64, target| {
        let all = |costs: &[Cost]| costs.iter().map(figure).collect::<Vec<_>>();
        bench.row(name, unit, all(&ours), target, "").beside(all(&sentinel))
    };
    let none = Target::MaxAtMost(0.0);
    vec![
        row(
            "switchover, from the last write that counts to the next",
            "ms",
            |c| c.gap,
            Target::MedianAtMost(8.0),
        ),
        row("switchover, from the request until a node tells", "ms", |c| c.told, Target::None),
        row("switchover, acknowledged writes lost, of who stays", "writes", |c| c.lost, none),
        row(
            "switchover, acknowledged writes lost, of who asks",
            "writes",
            |c| c.lost_by_asking,
            none,
        ),
        row("switchover, two masters take writes", "ms", |c| c.doubled, none),
        row("switchover, full copies", "count", |c| c.copies, none),
    ]
}
