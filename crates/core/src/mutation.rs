//! Deliberate mistakes, to prove that the simulator finds such mistakes. None can be made where the feature `mutations` is
//! off, and no program but the simulator turns it on.

/// A mistake in one decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// One voter less than a majority is enough.
    QuorumTooLow,
    /// What a voter said once counts for ever.
    StaleVotes,
    /// What a voter says of another master counts.
    VotesForAnother,
    /// The replicas are not asked whether their links are down.
    ReplicasUnheard,
    /// Silence counts after a tenth of the time that it has to last.
    Hasty,
    /// The replica that is behind is taken.
    OffsetsTurned,
    /// What replicas said before the master died counts as what they have.
    OldAnswers,
    /// Priority 0 is one like others.
    PriorityIgnored,
    /// A replica that never finished a sync can be promoted.
    UnfinishedSync,
    /// A replica of any history can be promoted.
    AnyHistory,
    /// A candidate that restarted since its election is promoted all the same.
    AnyProcess,
    /// A decision is carried out although the master came back since.
    DecisionsKeep,
    /// The next leader goes on as if the candidate had been promoted.
    ResumedBlindly,
    /// A promotion whose end is unknown did not happen.
    UnknownIsRefused,
    /// A promotion whose end is unknown did happen.
    UnknownIsDone,
    /// The next candidate is promoted under the epoch of the one before.
    EpochKept,
    /// A master that came back is left as it is.
    NobodyDemoted,
    /// Replicas of the wrong master are left there.
    NobodyRepointed,
    /// A master that came back with nothing is followed.
    EmptyIsFollowed,
    /// A halted group is acted on.
    HaltIgnored,
    /// A paused group is acted on.
    PauseIgnored,
    /// A switchover does not wait until the candidate has everything.
    SwitchoverRushed,
    /// A switchover promotes before the old master is known to be demoted.
    SwitchoverUnfenced,
    /// No instance is ever fenced.
    FenceForgotten,
    /// A master whose last replica is lost goes on waiting for it.
    FenceKept,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::QuorumTooLow,
        Self::StaleVotes,
        Self::VotesForAnother,
        Self::ReplicasUnheard,
        Self::Hasty,
        Self::OffsetsTurned,
        Self::OldAnswers,
        Self::PriorityIgnored,
        Self::UnfinishedSync,
        Self::AnyHistory,
        Self::AnyProcess,
        Self::DecisionsKeep,
        Self::ResumedBlindly,
        Self::UnknownIsRefused,
        Self::UnknownIsDone,
        Self::EpochKept,
        Self::NobodyDemoted,
        Self::NobodyRepointed,
        Self::EmptyIsFollowed,
        Self::HaltIgnored,
        Self::PauseIgnored,
        Self::SwitchoverRushed,
        Self::SwitchoverUnfenced,
        Self::FenceForgotten,
        Self::FenceKept,
    ];

    /// The name as it is written on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QuorumTooLow => "quorum-too-low",
            Self::StaleVotes => "stale-votes",
            Self::VotesForAnother => "votes-for-another",
            Self::ReplicasUnheard => "replicas-unheard",
            Self::Hasty => "hasty",
            Self::OffsetsTurned => "offsets-turned",
            Self::OldAnswers => "old-answers",
            Self::PriorityIgnored => "priority-ignored",
            Self::UnfinishedSync => "unfinished-sync",
            Self::AnyHistory => "any-history",
            Self::AnyProcess => "any-process",
            Self::DecisionsKeep => "decisions-keep",
            Self::ResumedBlindly => "resumed-blindly",
            Self::UnknownIsRefused => "unknown-is-refused",
            Self::UnknownIsDone => "unknown-is-done",
            Self::EpochKept => "epoch-kept",
            Self::NobodyDemoted => "nobody-demoted",
            Self::NobodyRepointed => "nobody-repointed",
            Self::EmptyIsFollowed => "empty-is-followed",
            Self::HaltIgnored => "halt-ignored",
            Self::PauseIgnored => "pause-ignored",
            Self::SwitchoverRushed => "switchover-rushed",
            Self::SwitchoverUnfenced => "switchover-unfenced",
            Self::FenceForgotten => "fence-forgotten",
            Self::FenceKept => "fence-kept",
        }
    }
}
