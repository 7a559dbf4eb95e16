//! The doctor: what about a group would make a failover fail, lose data or surprise, each with its fix.
//!
//! `ask` opens a connection of its own to every instance and asks; `answers` is what came back; `rules` are pure functions
//! from that, the published picture and the settings to findings; `finding` is what is served. Nothing here changes a
//! server, and nothing here is known to the loop: what this node cannot reach, it cannot judge, and says so.

mod answers;
mod ask;
mod finding;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::flavor::Flavor;
use failover_core::fleet::Policies;
use failover_core::view::GroupView;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::cluster::ClusterView;
use crate::driver::Logins;
use crate::redis::Interview;
use crate::resolve::Resolver;
pub(crate) use finding::Finding;

/// How many groups are examined at the same time: each takes a connection per instance.
const GROUPS_AT_ONCE_MAX: usize = 4;
/// So many addresses are asked what they are before they are guarded, and for so long.
const LOOKED_AT_MAX: usize = 32;
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a group waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// Examines groups.
#[derive(Clone, Debug)]
pub(crate) struct Doctor {
    clock: Clock,
    resolver: Resolver,
    logins: Arc<Logins>,
    policies: Arc<Policies>,
    turns: Arc<Semaphore>,
}

impl Doctor {
    pub(crate) fn new(
        clock: Clock,
        resolver: Resolver,
        logins: Logins,
        policies: Policies,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(GROUPS_AT_ONCE_MAX));
        Self { clock, resolver, logins: Arc::new(logins), policies: Arc::new(policies), turns }
    }

    /// Why one of these addresses cannot be the master of a group, as far as its port says: a kind of server that cannot
    /// serve there is asked for what it is. One that does not answer in time is left to be judged when it does.
    pub(crate) async fn unfit(&self, addrs: impl Iterator<Item = &Addr>) -> Option<String> {
        let is_doubtful = |addr: &&Addr| {
            Flavor::ALL.into_iter().any(|flavor| flavor.unfit_port(addr.port()).is_some())
        };
        let asked = addrs.filter(is_doubtful).take(LOOKED_AT_MAX).map(|addr| async move {
            let interview =
                Interview::begin(addr, &self.logins.default, &self.resolver, self.clock);
            let interview = timeout(LOOK_TIMEOUT, interview).await.ok()?.ok()?;
            let why = interview.server()?.flavor.unfit_port(addr.port())?;
            Some(format!("{addr} {why}"))
        });
        join_all(asked).await.into_iter().flatten().next()
    }

    /// What is found about a group, the worst first; `None` when too many others are being examined.
    pub(crate) async fn examine(
        &self,
        group: &GroupView,
        cluster: &ClusterView,
    ) -> Option<Vec<Finding>> {
        let _turn = timeout(TURN_TIMEOUT, self.turns.acquire()).await.ok()?.ok()?;
        let addrs = group.instances.iter().map(|instance| instance.addr.clone()).collect();
        let asker = ask::Asker {
            login: self.logins.of(&group.name),
            resolver: &self.resolver,
            clock: self.clock,
        };
        let examined = asker.ask(addrs, &group.master).await;
        let policy = self.policies.of(&group.name);
        let mut findings = rules::all(&rules::Case { group, policy, cluster, examined: &examined });
        finding::sort(&mut findings);
        Some(findings)
    }
}
