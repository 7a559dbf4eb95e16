//! What a hook is told: the same for handlers, scripts and webhooks.

use failover_core::addr::Addr;
use failover_core::node::{GroupName, NodeId};
use failover_core::record::{HookEvent, Occurrence};
use failover_core::time::{Time, rfc3339};
use serde::Serialize;

use super::{FailoverPlan, MasterChange};

/// What happened, as a hook is told it. Scripts and webhooks get it as JSON with these keys, every one of them present;
/// what is not known, or has no meaning for the event, is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HookCall {
    /// The same whenever the same is told again, by whichever node: what was done for it need not be done twice.
    pub id: String,
    /// What happened.
    pub event: HookEvent,
    /// To which group; `None`: to the node that tells it.
    pub group: Option<GroupName>,
    /// When, by the clock of the node that noticed or decided it.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub happened_at: Time,
    /// That node.
    pub node: NodeId,
    /// The last epoch that the group had taken: of two changes of a master the one with the higher epoch is the newer.
    pub epoch: Option<u64>,
    /// The entry of the history that says more.
    pub history_id: Option<String>,
    /// The master before, where it is another now or was to be.
    pub old_master: Option<Addr>,
    /// The master after; of a failover that is about to be or was just decided, the candidate.
    pub new_master: Option<Addr>,
    /// The instance concerned: the replica that went or came, the master that is down or returned.
    pub addr: Option<Addr>,
    /// What and why, one sentence.
    pub reason: String,
}

impl HookCall {
    /// What is recorded of a group.
    pub(super) fn of_record(group: &GroupName, told: &Occurrence) -> Self {
        Self {
            id: format!("{}-{}-{}", encoded(group.as_str()), told.number, told.at.as_micros()),
            event: told.event,
            group: Some(group.clone()),
            happened_at: told.at,
            node: told.leader.clone(),
            epoch: Some(told.epoch),
            history_id: told.history_id.clone(),
            old_master: told.old_master.clone(),
            new_master: told.new_master.clone(),
            addr: told.addr.clone(),
            reason: told.reason.clone(),
        }
    }

    /// What a node sees or knows by itself.
    pub(crate) fn seen(
        event: HookEvent,
        (at, node): (Time, &NodeId),
        group: Option<&GroupName>,
        reason: String,
    ) -> Self {
        let of = group.map_or_else(|| node.to_string(), ToString::to_string);
        Self {
            id: format!("{}-{}-{}", encoded(&of), event.name(), at.as_micros()),
            event,
            group: group.cloned(),
            happened_at: at,
            node: node.clone(),
            epoch: None,
            history_id: None,
            old_master: None,
            new_master: None,
            addr: None,
            reason,
        }
    }

    /// A failover that is about to be decided.
    pub(super) fn of_plan(plan: &FailoverPlan, at: (Time, &NodeId)) -> Self {
        Self {
            old_master: Some(plan.old_master.clone()),
            new_master: Some(plan.candidate.clone()),
            ..Self::seen(HookEvent::BeforeFailover, at, Some(&plan.group), plan.reason.clone())
        }
    }

    /// The change of a master that this tells of.
    pub fn master_change(&self) -> Option<MasterChange> {
        match self.event {
            HookEvent::AfterFailover | HookEvent::Switchover => Some(MasterChange {
                group: self.group.clone()?,
                old_master: self.old_master.clone()?,
                new_master: self.new_master.clone()?,
                epoch: self.epoch?,
            }),
            HookEvent::BeforeFailover
            | HookEvent::MasterDown
            | HookEvent::MasterUp
            | HookEvent::FailoverStarted
            | HookEvent::FailoverFailed
            | HookEvent::FailoverVetoed
            | HookEvent::MasterReturned
            | HookEvent::ReplicaDown
            | HookEvent::ReplicaUp
            | HookEvent::Halted
            | HookEvent::Paused
            | HookEvent::Resumed
            | HookEvent::QuorumLost
            | HookEvent::QuorumBack => None,
        }
    }

    /// As scripts and webhooks get it.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("its keys are texts")
    }
}

/// A name that can stand in a header.
fn encoded(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_and_the_id_fits_into_a_header() {
        let group = GroupName::new("sitzungen-ü").expect("a name");
        let node = NodeId::new("127.0.0.1:12000");
        let at = (Time::from_millis(1_764_000_000_123), &node);
        let call = HookCall::seen(HookEvent::MasterDown, at, Some(&group), "it is down".to_owned());
        assert!(call.id.is_ascii(), "{}", call.id);
        let json: serde_json::Value = serde_json::from_str(&call.json()).expect("JSON");
        let keys: Vec<&str> =
            json.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "addr",
                "epoch",
                "event",
                "group",
                "happened_at",
                "history_id",
                "id",
                "new_master",
                "node",
                "old_master",
                "reason"
            ]
        );
        assert_eq!(json["event"], "master_down");
        assert_eq!(json["happened_at"], "2025-11-24T16:00:00.123Z");
        assert_eq!(json["new_master"], serde_json::Value::Null);
    }
}
