//! What Raft agrees on here: its members, and batches of proposals.
//!
//! The shapes in this file are stored and sent, so that a change of one is a change of a format. The log's payload names
//! its version; the store names the version of everything around it.

use std::fmt;
use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::Arc;

use failover_core::addr::Addr;
use failover_core::node::{NodeId, Token};
use failover_core::record::Change;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

openraft::declare_raft_types!(
    /// The types that Raft is used with here.
    ///
    /// Raft's leaders are told apart by term *and* member (openraft's default): two that campaign for the same term need
    /// not both lose. Two leaders of one term can exist in turn, but only the last of them can have committed anything,
    /// and a leader acts here only once it has: so a term is still a fencing token.
    pub(crate) Types:
        D = Batch,
        R = (),
        NodeId = MemberId,
        Node = Member,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
);

/// One entry of the log.
pub(crate) type Entry = openraft::Entry<Types>;
/// The place of an entry in the log.
pub(crate) type LogId = openraft::LogId<MemberId>;
/// Whom a member voted for, or follows.
pub(crate) type Vote = openraft::Vote<MemberId>;
/// Who the members are, and where in the log that was said.
pub(crate) type StoredMembership = openraft::StoredMembership<MemberId, Member>;
/// A wish to be voted for.
pub(crate) type VoteRequest = openraft::raft::VoteRequest<MemberId>;
/// What a snapshot covers.
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<MemberId, Member>;
/// What a broken store means to Raft: its end.
pub(crate) type StorageError = openraft::StorageError<MemberId>;
/// A running member.
pub(crate) type Raft = openraft::Raft<Types>;

/// Who a member is: a number made from the address it advertises, and a random one after it lost its store.
///
/// A member that lost its store does not know whom it voted for, so it must not go on under the name that voted. What
/// people see instead of the number is [`name`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct MemberId(u64);

impl MemberId {
    /// The first name of a member that advertises this address. Every node finds the same.
    pub(crate) fn first(addr: &Addr) -> Self {
        let digest = Sha256::digest(addr.to_string());
        Self(digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A name that nobody had before, for a member that lost its store.
    ///
    /// # Errors
    /// A sentence, when this host has no randomness.
    pub(crate) fn another() -> Result<Self, String> {
        random().map(Self)
    }
}

impl MemberId {}

/// How a member is called: by its address, which stays the same when it gets another number.
pub(crate) fn name(member: &Member) -> NodeId {
    NodeId::new(&member.addr.to_string())
}

/// Addresses in a sentence.
pub(crate) fn show<'a>(addrs: impl IntoIterator<Item = &'a Addr>) -> String {
    let texts: Vec<String> = addrs.into_iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// A random number.
///
/// # Errors
/// A sentence, when this host has no randomness.
pub(crate) fn random() -> Result<u64, String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("this host gives no random numbers: {error}"))?;
    Ok(u64::from_be_bytes(bytes))
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<MemberId> for String {
    fn from(id: MemberId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for MemberId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        u64::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|_| format!("\"{text}\" is not the number of a member"))
    }
}

/// The conformance suite numbers its members.
#[cfg(test)]
impl From<u64> for MemberId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// What is known of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where the other nodes reach it.
    pub(crate) addr: Addr,
}

/// openraft wants a default where nobody is meant.
impl Default for Member {
    fn default() -> Self {
        Self { addr: Addr::from(SocketAddr::from(([0, 0, 0, 0], 1))) }
    }
}

/// One run of one process. Only the run that made a proposal knows its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Origin(pub(crate) u64);

/// Changes that are to be agreed, all or none of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    /// Which run of which process proposed them.
    pub(crate) origin: Origin,
    /// Numbered by that one.
    pub(crate) number: u64,
    /// Under which leadership they were decided.
    pub(crate) token: Token,
    /// What is to be changed.
    pub(crate) changes: Vec<Change>,
}

/// What one entry of the log holds: the proposals that waited when it was made, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredBatch", into = "StoredBatch")]
pub(crate) struct Batch {
    /// Shared, since an entry is read once per follower.
    pub(crate) proposals: Arc<[Proposal]>,
}

/// A field and not a tag of an enum: to find a tag, everything beside it would be kept in an intermediate form first, for
/// every entry that a follower gets.
#[derive(Serialize, Deserialize)]
struct StoredBatch {
    version: BatchVersion,
    proposals: Arc<[Proposal]>,
}

#[derive(Serialize, Deserialize)]
enum BatchVersion {
    #[serde(rename = "1")]
    V1,
}

impl From<StoredBatch> for Batch {
    fn from(stored: StoredBatch) -> Self {
        match stored.version {
            BatchVersion::V1 => Self { proposals: stored.proposals },
        }
    }
}

impl From<Batch> for StoredBatch {
    fn from(batch: Batch) -> Self {
        Self { version: BatchVersion::V1, proposals: batch.proposals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_lost_its_store_gets_another_number() {
        let addr: Addr = "127.0.0.1:12000".parse().expect("address");
        let first = MemberId::first(&addr);
        assert_eq!(first, MemberId::first(&addr), "every node finds the same");
        let another = MemberId::another().expect("random");
        assert_ne!(another, first);
        assert_ne!(another, MemberId::another().expect("random"));
    }

    #[test]
    fn a_number_is_stored_as_text() {
        let id = MemberId(u64::MAX);
        let text = serde_json::to_string(&id).expect("to text");
        assert_eq!(text, r#""ffffffffffffffff""#);
        assert_eq!(serde_json::from_str::<MemberId>(&text).expect("from text"), id);
        assert!(serde_json::from_str::<MemberId>(r#""x""#).is_err());
    }

    #[test]
    fn a_batch_names_its_version() {
        let proposal =
            Proposal { origin: Origin(u64::MAX), number: 7, token: Token(3), changes: Vec::new() };
        let batch = Batch { proposals: [proposal].into() };
        let text = serde_json::to_string(&batch).expect("to text");
        assert!(text.starts_with(r#"{"version":"1","proposals":["#), "{text}");
        assert_eq!(serde_json::from_str::<Batch>(&text).expect("from text"), batch);
        assert!(serde_json::from_str::<Batch>(r#"{"version":"9","proposals":[]}"#).is_err());
    }
}
