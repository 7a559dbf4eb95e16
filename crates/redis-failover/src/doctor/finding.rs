//! What the doctor finds, as it is served.

use failover_core::addr::Addr;
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// A failover fails, or loses what it need not lose, or writes are refused after it.
    Error,
    /// It may do so, or it surprises people.
    Warning,
    /// Worth knowing, and no reason to act.
    Info,
}

/// Names a finding for programs; people read its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    Halted,
    Paused,
    Diagnosis,
    SingleNode,
    TwoNodes,
    QuorumOfAll,
    QuorumBelowMajority,
    NodeUnreachable,
    NodesOnOneHost,
    NoReplica,
    OneReplica,
    AllPrioritiesZero,
    RulesExcludeAll,
    LocationsExcludeAll,
    NoCandidate,
    NotEligible,
    InstancesOnOneHost,
    ChainedReplica,
    NoAnswer,
    AnnouncedAddressUnreachable,
    LoginRefused,
    ProtectedMode,
    PasswordMismatch,
    MissingRights,
    MissingCommand,
    OtherMonitor,
    NothingOnDisk,
    CannotSave,
    NoConfigFile,
    BacklogTooSmall,
    BufferBelowBacklog,
    SlowPing,
    TimeoutBelowPing,
    WritableReplica,
    StaleDataRefused,
    MinReplicasTooHigh,
    LoadFlushesFirst,
    LessMemory,
    ReplicaEvicts,
    FewerClients,
    SettingsDiffer,
    VersionsApart,
    NotAsked,
}

/// One thing about a group that would make a failover fail, lose data or surprise, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    pub(crate) severity: Severity,
    /// The instance that it is about; `None`: the group or the nodes as a whole.
    pub(crate) addr: Option<Addr>,
    pub(crate) message: String,
    pub(crate) fix: String,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        code: Code,
        addr: Option<&Addr>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (message, fix) = (message.into(), fix.into());
        Self { code, severity, addr: addr.cloned(), message, fix }
    }

    pub(super) fn error(
        code: Code,
        addr: &Addr,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Error, code, Some(addr), message, fix)
    }

    pub(super) fn warning(
        code: Code,
        addr: &Addr,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, code, Some(addr), message, fix)
    }
}

/// The worst first, then the group as a whole, then by instance.
pub(super) fn sort(findings: &mut [Finding]) {
    findings.sort_by(|one, other| {
        let key = |finding: &Finding| (finding.severity, finding.addr.clone(), finding.code);
        key(one).cmp(&key(other))
    });
}
