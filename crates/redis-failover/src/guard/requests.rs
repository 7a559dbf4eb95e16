//! What a host asks of a guard: each is answered when it is agreed, or has ended.

use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{
    Answer, GroupSpec, RefusalCode, Replacement, Request, SWITCHOVER_TIMEOUTS,
};
use failover_core::node::GroupName;
use failover_core::record::GivenRule;
use failover_core::time::Time;

use super::Guard;

/// Why a request was not carried out. Nothing was changed, unless the code is [`RefusalCode::UnknownOutcome`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The kind, for programs.
    pub code: RefusalCode,
    /// The sentence, for people.
    pub message: String,
}

impl Guard {
    /// Guards these masters too; returns when that is agreed. An address that is known already, in whatever role, adds
    /// and changes nothing.
    ///
    /// # Errors
    /// When it was refused; nothing was changed.
    pub async fn add_masters(&self, masters: Vec<Addr>) -> Result<(), Refused> {
        let spec = |master| GroupSpec { name: None, master, replicas: Vec::new() };
        self.ask(Request::Add(masters.into_iter().map(spec).collect())).await
    }

    /// Stops to guard the groups of these masters; each may also be a group's name. An unknown one is ignored.
    ///
    /// # Errors
    /// When it was refused, for example during a failover; nothing was changed.
    pub async fn remove_masters(&self, which: Vec<String>) -> Result<(), Refused> {
        self.ask(Request::Remove(which)).await
    }

    /// Does nothing to a group until it is resumed, or until a moment; it is watched all the same.
    ///
    /// # Errors
    /// When there is no such group, something is being done to it, or it is halted; nothing was changed.
    pub async fn pause(
        &self,
        group: &GroupName,
        reason: Option<String>,
        until: Option<Time>,
    ) -> Result<(), Refused> {
        self.ask(Request::Pause { group: Some(group.clone()), reason, until }).await
    }

    /// Acts again on a group that was paused, or halted after a failed failover.
    ///
    /// # Errors
    /// When there is no such group.
    pub async fn resume(&self, group: &GroupName) -> Result<(), Refused> {
        self.ask(Request::Resume(group.clone())).await
    }

    /// Replaces a healthy master without losing a write, by `to` or by the best replica; returns when that has ended or was
    /// undone. Writes wait, for at most `timeout` (half a second to a minute) until the old master is demoted. With `dry_run`
    /// nothing is done, and the plan is in the answer.
    ///
    /// # Errors
    /// When it was refused; nothing was changed then, unless the code is [`RefusalCode::UnknownOutcome`].
    pub async fn switchover(
        &self,
        group: &GroupName,
        to: Option<Addr>,
        timeout: Duration,
        dry_run: bool,
    ) -> Result<Replacement, Refused> {
        if !SWITCHOVER_TIMEOUTS.contains(&timeout) {
            let (least, most) = (SWITCHOVER_TIMEOUTS.start(), SWITCHOVER_TIMEOUTS.end());
            let message = format!(
                "the time-out of a switchover must be between {} and {} ms: writes may wait as long",
                least.as_millis(),
                most.as_millis()
            );
            return Err(Refused { code: RefusalCode::Refused, message });
        }
        let group = group.clone();
        self.replace(Request::Switchover { group, to, timeout, dry_run }).await
    }

    /// Replaces a dead master at once, by `to` or by the best replica, and with `force` also one that is not down; returns
    /// when that has ended. With `dry_run` nothing is done, and the plan is in the answer.
    ///
    /// # Errors
    /// When it was refused; nothing was changed then, unless the code is [`RefusalCode::UnknownOutcome`].
    pub async fn failover(
        &self,
        group: &GroupName,
        to: Option<Addr>,
        force: bool,
        dry_run: bool,
    ) -> Result<Replacement, Refused> {
        let group = group.clone();
        self.replace(Request::Failover { group, to, force, dry_run }).await
    }

    /// Forgets a replica that is gone for good. One that is still attached to its master would be found again at once.
    ///
    /// # Errors
    /// When there is no such group or instance, it is the master, or it is attached; nothing was changed.
    pub async fn forget_replica(&self, group: &GroupName, addr: Addr) -> Result<(), Refused> {
        self.ask(Request::Forget { group: group.clone(), addr }).await
    }

    /// Sets a rule on the promotion of an instance, or takes it away.
    ///
    /// # Errors
    /// When there is no such group or instance; nothing was changed.
    pub async fn set_rule(
        &self,
        group: &GroupName,
        addr: Addr,
        rule: Option<GivenRule>,
    ) -> Result<(), Refused> {
        self.ask(Request::Rule { group: group.clone(), addr, rule }).await
    }

    async fn replace(&self, request: Request) -> Result<Replacement, Refused> {
        match self.requests.ask(request).await {
            Answer::Replaced(replaced) => Ok(*replaced),
            Answer::Refused { code, message } => Err(Refused { code, message }),
            Answer::Done => {
                let message = "the answer says nothing of its end: read the history".to_owned();
                Err(Refused { code: RefusalCode::UnknownOutcome, message })
            }
        }
    }

    async fn ask(&self, request: Request) -> Result<(), Refused> {
        match self.requests.ask(request).await {
            Answer::Done | Answer::Replaced(_) => Ok(()),
            Answer::Refused { code, message } => Err(Refused { code, message }),
        }
    }
}
