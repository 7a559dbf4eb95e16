//! What is stored where: paths below the base, and the text behind each.
//!
//! `leader`, `masters` and `candidates` are as the original wrote them to ZooKeeper, so that what reads them goes on
//! working; etcd has them in its own election's layout. Whatever else is stored names its version.

use failover_core::addr::Addr;
use failover_core::node::{GroupName, NodeId};
use failover_core::record::{GroupEntry, HistoryEntry, Revision};
use serde::{Deserialize, Serialize};

/// Who leads, for people and tools; it stays when the leader dies, and decides nothing.
pub(super) const LEADER: &str = "leader";
/// The masters of all groups, a JSON array.
pub(super) const MASTERS: &str = "masters";
/// What the leader writes to show that it is there, where reading would prove nothing.
pub(super) const LEASE: &str = "lease";
/// What the nodes know and nobody else, when they were not given anything.
pub(super) const SECRET: &str = "secret";
/// Written with every change of the record, as its last part.
pub(super) const MARKER: &str = "groups";
/// The groups, by name, and below each its history by the revision that added it.
pub(super) const GROUPS: &str = "groups";
/// Who votes: stays until it is changed on request.
pub(super) const MEMBERS: &str = "members";
/// Who is there: goes with its session.
pub(super) const NODES: &str = "nodes";
/// Who would lead, in the order of their arrival: goes with its session.
pub(super) const CANDIDATES: &str = "candidates";

/// A path, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Masters,
    Secret,
    Marker,
    Group(GroupName),
    History(GroupName, Revision),
    Member(NodeId),
    Node(NodeId),
    Candidate,
    /// Nothing that is read back, or nothing of ours.
    Other,
}

impl Place {
    pub(super) fn of(path: &str) -> Self {
        let name = |text: &str| {
            let text = decode(text)?;
            GroupName::new(&text).ok()
        };
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            [MASTERS] => Self::Masters,
            [SECRET] => Self::Secret,
            [MARKER] => Self::Marker,
            [GROUPS, group] => name(group).map_or(Self::Other, Self::Group),
            [GROUPS, group, revision] => match (name(group), revision.parse()) {
                (Some(group), Ok(revision)) => Self::History(group, revision),
                (None, _) | (_, Err(_)) => Self::Other,
            },
            [MEMBERS, id] => decode(id).map_or(Self::Other, |id| Self::Member(NodeId::new(&id))),
            [NODES, id] => decode(id).map_or(Self::Other, |id| Self::Node(NodeId::new(&id))),
            [CANDIDATES, _] => Self::Candidate,
            _ => Self::Other,
        }
    }
}

pub(super) fn group(name: &GroupName) -> String {
    format!("{GROUPS}/{}", encode(name.as_str()))
}

/// Of one width, so that they are listed in their order.
pub(super) fn history(name: &GroupName, revision: Revision) -> String {
    format!("{}/{revision:020}", group(name))
}

pub(super) fn member(id: &NodeId) -> String {
    format!("{MEMBERS}/{}", encode(&id.to_string()))
}

pub(super) fn node(id: &NodeId) -> String {
    format!("{NODES}/{}", encode(&id.to_string()))
}

/// A name as a part of a path: ZooKeeper refuses some characters, and the names `.` and `..`.
fn encode(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_:@[]".contains(byte);
    let is_dots = name.bytes().all(|byte| byte == b'.');
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if plain(&byte) || (byte == b'.' && !is_dots) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// What is stored of all groups together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "version")]
pub(super) enum StoredMarker {
    #[serde(rename = "1")]
    V1 {
        /// The highest revision of a group that was removed.
        removed: Revision,
    },
}

/// What is stored of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "version")]
pub(super) enum StoredGroup {
    #[serde(rename = "1")]
    V1 {
        revision: Revision,
        /// The revision that added the newest entry of history, which is stored on its own.
        history_at: Option<Revision>,
        /// What was done last, a sentence for logs.
        #[serde(default)]
        what: String,
        entry: Box<GroupEntry>,
    },
}

/// One entry of a group's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "version")]
pub(super) enum StoredHistory {
    #[serde(rename = "1")]
    V1 { entry: Box<HistoryEntry> },
}

/// What a node says of itself while it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeInfo {
    /// Where the other nodes reach it.
    pub(super) addr: Addr,
    /// Where its HTTP is reached.
    pub(super) http: Option<Addr>,
    pub(super) pid: u32,
    /// Which run of the node this is: a candidate of an older one is dead, though its session goes on for a while.
    #[serde(default)]
    pub(super) run: u64,
}

/// What is known of a member that may not be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberInfo {
    /// Where the other nodes reached it last.
    pub(super) addr: Addr,
}

/// Who would lead. The original has the first three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CandidateInfo {
    pub(super) addr: String,
    #[serde(default)]
    pub(super) desc: String,
    #[serde(default)]
    pub(super) pid: u32,
    /// The node's name; one of the original has none.
    #[serde(default)]
    pub(super) node: Option<NodeId>,
    #[serde(default)]
    pub(super) run: Option<u64>,
}

impl CandidateInfo {
    pub(super) fn name(&self) -> NodeId {
        self.node.clone().unwrap_or_else(|| NodeId::new(&self.addr))
    }
}

/// Who leads, as the original wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeaderInfo {
    pub(super) addr: String,
    pub(super) pid: u32,
    pub(super) node: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_and_come_back() {
        for name in
            ["a", "127.0.0.1:6379", "[::1]:6379", ".", "..", "a.b", "100%", "käse", "\u{ffff}"]
        {
            let name = GroupName::new(name).expect("a valid name");
            let path = group(&name);
            assert!(!path.contains("/."), "{path}");
            assert!(path.is_ascii(), "{path}");
            assert_eq!(Place::of(&path), Place::Group(name.clone()));
            assert_eq!(Place::of(&history(&name, 7)), Place::History(name, 7));
        }
        let id = NodeId::new("127.0.0.1:12000");
        assert_eq!(Place::of(&member(&id)), Place::Member(id.clone()));
        assert_eq!(Place::of(&node(&id)), Place::Node(id));
    }

    #[test]
    fn strange_paths_are_nobodys() {
        for path in [
            "",
            "x",
            "groups/%",
            "groups/%zz",
            "groups/a/b",
            "groups/a/1/2",
            "masters/a",
            "groups/a%2Fb",
        ] {
            assert_eq!(Place::of(path), Place::Other, "{path}");
        }
    }

    #[test]
    fn what_the_original_wrote_is_understood() {
        let text = r#"{"addr":"127.0.0.1:11011","desc":"RunTask","pid":27626}"#;
        let info: CandidateInfo = serde_json::from_str(text).expect("the original's");
        assert_eq!(info.name(), NodeId::new("127.0.0.1:11011"));
    }
}
