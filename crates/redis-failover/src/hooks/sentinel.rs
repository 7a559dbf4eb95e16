//! What happened, in the words and arguments that Redis Sentinel gives its scripts.

use failover_core::addr::Addr;
use failover_core::record::HookEvent;

use super::{FailoverPlan, HookCall};

/// The event type and the message of a notification script. What Sentinel has no word for has one of ours, made like
/// its own.
pub(super) fn notification(call: &HookCall) -> (&'static str, String) {
    let name = call.group.as_ref().map_or_else(String::new, ToString::to_string);
    let master = |addr: &Option<Addr>| match addr {
        Some(addr) => format!("master {name} {} {}", addr.host(), addr.port()),
        None => format!("master {name}"),
    };
    let replica = || match (&call.addr, &call.new_master) {
        (Some(addr), Some(master)) => format!(
            "slave {addr} {} {} @ {name} {} {}",
            addr.host(),
            addr.port(),
            master.host(),
            master.port()
        ),
        (Some(addr), None) => format!("slave {addr} {} {}", addr.host(), addr.port()),
        (None, _) => format!("slave {name}"),
    };
    let with_reason = |what: String| format!("{what} #{}", call.reason);
    match call.event {
        HookEvent::MasterDown => ("+sdown", master(&call.addr)),
        HookEvent::MasterUp => ("-sdown", master(&call.addr)),
        HookEvent::FailoverStarted => ("+odown", master(&call.old_master)),
        HookEvent::AfterFailover | HookEvent::Switchover => ("+switch-master", switch(call)),
        HookEvent::FailoverFailed => ("-failover-abort-slave-timeout", master(&call.old_master)),
        HookEvent::BeforeFailover => ("+try-failover", master(&call.old_master)),
        HookEvent::FailoverVetoed => {
            ("-failover-abort-vetoed", with_reason(master(&call.old_master)))
        }
        HookEvent::MasterReturned => ("+convert-to-slave", replica()),
        HookEvent::ReplicaDown => ("+sdown", replica()),
        HookEvent::ReplicaUp => ("-sdown", replica()),
        HookEvent::Halted => ("+halted", with_reason(master(&call.new_master))),
        HookEvent::Paused => ("+paused", with_reason(master(&call.new_master))),
        HookEvent::Resumed => ("+resumed", with_reason(master(&call.new_master))),
        HookEvent::QuorumLost => ("+quorum-lost", with_reason(call.node.to_string())),
        HookEvent::QuorumBack => ("+quorum-back", with_reason(call.node.to_string())),
    }
}

/// The message of `+switch-master`.
fn switch(call: &HookCall) -> String {
    call.master_change().map_or_else(String::new, |change| {
        let (from, to) = (change.old_master, change.new_master);
        let name = change.group;
        format!("{name} {} {} {} {}", from.host(), from.port(), to.host(), to.port())
    })
}

/// The arguments of a client-reconfig script; `None` for what it is not run on.
pub(super) fn reconfiguration(call: &HookCall, observer: bool) -> Option<Vec<String>> {
    let change = call.master_change()?;
    let role = if observer { "observer" } else { "leader" };
    let words = [change.group.to_string(), role.to_owned(), "start".to_owned()];
    Some(words.into_iter().chain(ends(&change.old_master, &change.new_master)).collect())
}

/// The arguments of a before-failover script: those of a client-reconfig script, and another state.
pub(super) fn before(plan: &FailoverPlan) -> Vec<String> {
    let words = [plan.group.to_string(), "leader".to_owned(), "before".to_owned()];
    words.into_iter().chain(ends(&plan.old_master, &plan.candidate)).collect()
}

fn ends(from: &Addr, to: &Addr) -> [String; 4] {
    let port = |addr: &Addr| addr.port().to_string();
    [from.host().to_owned(), port(from), to.host().to_owned(), port(to)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use failover_core::node::{GroupName, NodeId};
    use failover_core::time::Time;

    fn call(event: HookEvent) -> HookCall {
        let (group, node) = (GroupName::new("cache").expect("a name"), NodeId::new("n"));
        let addr = |text: &str| Some(text.parse().expect("an address"));
        HookCall {
            old_master: addr("10.0.0.1:6379"),
            new_master: addr("[::1]:6380"),
            addr: addr("10.0.0.1:6379"),
            epoch: Some(7),
            ..HookCall::seen(event, (Time::ZERO, &node), Some(&group), "because".to_owned())
        }
    }

    #[test]
    fn words_and_messages_are_sentinels() {
        let said = |event| notification(&call(event));
        let switched = "cache 10.0.0.1 6379 ::1 6380".to_owned();
        assert_eq!(said(HookEvent::AfterFailover), ("+switch-master", switched));
        let master = "master cache 10.0.0.1 6379".to_owned();
        assert_eq!(said(HookEvent::MasterDown), ("+sdown", master.clone()));
        assert_eq!(said(HookEvent::FailoverStarted), ("+odown", master));
        let slave = "slave 10.0.0.1:6379 10.0.0.1 6379 @ cache ::1 6380".to_owned();
        assert_eq!(said(HookEvent::ReplicaDown), ("+sdown", slave));
        for event in HookEvent::ALL {
            let (kind, message) = said(event);
            assert!(kind.starts_with(['+', '-']) && !message.is_empty(), "{event:?}");
        }
    }

    #[test]
    fn a_client_is_reconfigured_with_sentinels_arguments() {
        let changed = call(HookEvent::Switchover);
        let words = ["cache", "leader", "start", "10.0.0.1", "6379", "::1", "6380"];
        assert_eq!(reconfiguration(&changed, false).expect("it changed"), words);
        assert_eq!(reconfiguration(&changed, true).expect("it changed")[1], "observer");
        assert_eq!(reconfiguration(&call(HookEvent::Halted), false), None);
    }
}
