//! Who is there, who votes, who leads, and whether this node may act now.
//!
//! A session outlives a node that stands still only on the other side: there its time goes on, here nobody looks. So a
//! leader counts by its own clock, from when it *sent* what was acknowledged, and stops before its session can have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::node::{Leadership, NodeId, Token};
use failover_core::time::Time;

use super::layout::{CandidateInfo, MemberInfo, NodeInfo, Place};
use super::store::{Fence, Item};

/// What was confirmed of the leader counts for this long: a command takes no longer.
const CONFIRMED_MAX: Duration = Duration::from_millis(250);

/// Somebody who would lead.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    path: String,
    node: NodeId,
    /// Of which run of the node it is; not said by the original.
    run: Option<u64>,
}

/// What is known of the nodes.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// By when they came: the first leads.
    candidates: BTreeMap<u64, Candidate>,
    nodes: BTreeMap<NodeId, NodeInfo>,
    members: BTreeMap<NodeId, MemberInfo>,
    session: Option<SessionStanding>,
    /// When the store was last known to answer.
    contact: Option<Time>,
    confirmed: Option<(Token, Time)>,
}

/// This node's session.
#[derive(Debug)]
struct SessionStanding {
    own: Fence,
    lease: Duration,
    /// When the last renewal was sent that proves this node's place.
    renewed: Option<Time>,
    /// Whether everything that is stored was read.
    is_read: bool,
}

impl Standing {
    /// A session began, and what was known of the one before is over.
    pub(super) fn begin(&mut self, own: Fence, lease: Duration) {
        self.session = Some(SessionStanding { own, lease, renewed: None, is_read: false });
        self.confirmed = None;
    }

    /// The session is over.
    pub(super) fn end(&mut self) {
        self.session = None;
        self.confirmed = None;
        self.candidates.clear();
        self.nodes.clear();
    }

    /// Forgets what was stored, because all of it is about to be taken anew.
    pub(super) fn forget(&mut self) {
        self.candidates.clear();
        self.nodes.clear();
        self.members.clear();
    }

    /// Everything that is stored was read.
    pub(super) fn is_read(&mut self) {
        if let Some(session) = &mut self.session {
            session.is_read = true;
        }
    }

    /// What was read may be old: there was no connection.
    pub(super) fn is_unread(&mut self) {
        if let Some(session) = &mut self.session {
            session.is_read = false;
        }
    }

    /// Takes note of what is stored at a place. What is no node's is nothing here.
    pub(super) fn take(&mut self, path: &str, item: Option<&Item>) {
        fn read<T: serde::de::DeserializeOwned>(item: Option<&Item>) -> Option<T> {
            serde_json::from_slice(&item?.value).ok()
        }
        match Place::of(path) {
            Place::Candidate => {
                self.candidates.retain(|_, candidate| candidate.path != path);
                if let Some(item) = item {
                    // Whoever it is, it leads when it is the first.
                    let info: Option<CandidateInfo> = read(Some(item));
                    let run = info.as_ref().and_then(|info| info.run);
                    let node = info.map_or_else(|| NodeId::new(path), |info| info.name());
                    let candidate = Candidate { path: path.to_owned(), node, run };
                    self.candidates.insert(item.created, candidate);
                }
            }
            Place::Node(id) => match read(item) {
                Some(info) => drop(self.nodes.insert(id, info)),
                None => drop(self.nodes.remove(&id)),
            },
            Place::Member(id) => match read(item) {
                Some(info) => drop(self.members.insert(id, info)),
                None => drop(self.members.remove(&id)),
            },
            Place::Masters
            | Place::Secret
            | Place::Marker
            | Place::Group(_)
            | Place::History(..)
            | Place::Other => {}
        }
    }

    /// The store answered something that was asked then; `renewed`: and so proved this node's place.
    pub(super) fn answered(&mut self, sent: Time, renewed: Option<&Fence>) {
        self.contact = self.contact.max(Some(sent));
        if let Some(session) = &mut self.session
            && renewed == Some(&session.own)
        {
            session.renewed = session.renewed.max(Some(sent));
        }
    }

    /// Somebody made sure who leads.
    pub(super) fn confirm(&mut self, leader: Option<u64>, sent: Time) {
        self.confirmed = leader.map(|leader| (Token(leader), sent));
    }

    /// This node's candidacy, if it is the first.
    pub(super) fn leading(&self) -> Option<&Fence> {
        let own = &self.session.as_ref()?.own;
        let first = *self.candidates.first_key_value()?.0;
        (first == own.created).then_some(own)
    }

    /// Whether this node's candidacy is still there, as far as is known.
    pub(super) fn is_candidate(&self) -> bool {
        let Some(session) = &self.session else { return false };
        !session.is_read || self.candidates.contains_key(&session.own.created)
    }

    /// Under which token this node acts at this moment.
    pub(super) fn acting(&self, now: Time) -> Option<Token> {
        let own = self.leading()?;
        let session = self.session.as_ref().filter(|session| session.is_read)?;
        let age = now.since(session.renewed?);
        (age < session.lease).then_some(Token(own.created))
    }

    /// Whether a command may be written for a leader with this token: it was just made sure that it leads.
    pub(super) fn follows(&self, token: Token, now: Time) -> bool {
        let confirmed = self.confirmed.filter(|(leader, _)| *leader == token);
        confirmed.is_some_and(|(_, sent)| now.since(sent) < CONFIRMED_MAX)
    }

    /// Who leads, as far as this node can know.
    pub(super) fn leadership(&self, now: Time) -> Leadership {
        if let Some(token) = self.acting(now) {
            return Leadership::Leader(token);
        }
        let Some(session) = &self.session else { return Leadership::None };
        let is_fresh = self.contact.is_some_and(|contact| now.since(contact) < session.lease);
        match self.candidates.first_key_value() {
            Some((created, first))
                if is_fresh && *created != session.own.created && self.is_alive(first) =>
            {
                Leadership::Follower { leader: first.node.clone() }
            }
            Some(_) | None => Leadership::None,
        }
    }

    /// Whether the run of the node goes on that a candidate is of, as far as is known.
    fn is_alive(&self, candidate: &Candidate) -> bool {
        candidate
            .run
            .is_none_or(|run| self.nodes.get(&candidate.node).is_some_and(|node| node.run == run))
    }

    /// The newest token that is known of.
    pub(super) fn term(&self) -> Option<u64> {
        self.candidates.first_key_value().map(|(created, _)| *created)
    }

    pub(super) fn contact(&self) -> Option<Time> {
        self.contact
    }

    /// Who votes, sorted.
    pub(super) fn voters(&self) -> Vec<NodeId> {
        self.members.keys().cloned().collect()
    }

    pub(super) fn members(&self) -> &BTreeMap<NodeId, MemberInfo> {
        &self.members
    }

    /// A node that is there.
    pub(super) fn node(&self, id: &NodeId) -> Option<&NodeInfo> {
        self.nodes.get(id)
    }

    /// The members that have this name, or are or were reached at this address.
    pub(super) fn at(&self, addr: &Addr) -> BTreeSet<NodeId> {
        let name = NodeId::new(&addr.to_string());
        let is_it = |(id, member): &(&NodeId, &MemberInfo)| {
            **id == name || member.addr == *addr || self.is_at(id, addr)
        };
        self.members.iter().filter(is_it).map(|(id, _)| id.clone()).collect()
    }

    /// The node that is there and has this name or address.
    pub(super) fn present(&self, addr: &Addr) -> Option<(&NodeId, &NodeInfo)> {
        let name = NodeId::new(&addr.to_string());
        self.nodes.iter().find(|(id, _)| **id == name || self.is_at(id, addr))
    }

    fn is_at(&self, id: &NodeId, addr: &Addr) -> bool {
        self.nodes
            .get(id)
            .is_some_and(|node| node.addr == *addr || node.http.as_ref() == Some(addr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(1000);

    fn at(ms: u64) -> Time {
        Time::from_millis(1_000_000 + ms)
    }

    fn candidate(created: u64, node: &str) -> (String, Item) {
        let value = format!(r#"{{"addr":"x","node":"{node}"}}"#).into_bytes();
        (format!("candidates/{created}"), Item { value, created, version: 0, changed: created })
    }

    fn fence(created: u64) -> Fence {
        Fence { path: format!("candidates/{created}"), created }
    }

    /// The candidate 7, with these others.
    fn standing(others: &[u64]) -> Standing {
        let mut standing = Standing::default();
        standing.begin(fence(7), LEASE);
        for created in others.iter().chain(&[7]) {
            let (path, item) = candidate(*created, &format!("n{created}"));
            standing.take(&path, Some(&item));
        }
        standing.is_read();
        standing
    }

    #[test]
    fn the_first_candidate_acts_while_its_lease_holds() {
        let mut standing = standing(&[9]);
        assert_eq!(standing.leadership(at(0)), Leadership::None, "nothing was acknowledged");
        standing.answered(at(0), None);
        assert_eq!(standing.acting(at(1)), None, "an answer alone proves no place");
        standing.answered(at(0), Some(&fence(7)));
        assert_eq!(standing.acting(at(999)), Some(Token(7)));
        assert_eq!(standing.acting(at(1000)), None);
        standing.answered(at(500), Some(&fence(7)));
        standing.answered(at(100), Some(&fence(7)));
        assert_eq!(standing.acting(at(1499)), Some(Token(7)), "a late answer takes nothing back");
        standing.answered(at(1400), Some(&fence(3)));
        assert_eq!(standing.acting(at(1500)), None, "an answer to the session before");
    }

    #[test]
    fn nobody_acts_on_what_it_did_not_read() {
        let mut standing = standing(&[]);
        standing.answered(at(0), Some(&fence(7)));
        assert_eq!(standing.acting(at(1)), Some(Token(7)));
        standing.is_unread();
        assert_eq!(standing.acting(at(1)), None);
        standing.is_read();
        standing.end();
        assert_eq!(standing.leadership(at(1)), Leadership::None);
    }

    #[test]
    fn whoever_came_first_is_followed_while_the_store_answers() {
        let mut standing = standing(&[3, 5]);
        standing.answered(at(0), None);
        let leader = NodeId::new("n3");
        assert_eq!(standing.leadership(at(1)), Leadership::Follower { leader });
        assert_eq!(standing.leadership(at(1000)), Leadership::None, "it may have ended since");
        standing.answered(at(1000), None);
        standing.take("candidates/3", None);
        let leader = NodeId::new("n5");
        assert_eq!(standing.leadership(at(1001)), Leadership::Follower { leader });
        let item = |run: u64| Item {
            value: format!(r#"{{"addr":"a:1","http":null,"pid":1,"run":{run}}}"#).into_bytes(),
            created: 5,
            version: 0,
            changed: 5,
        };
        let mut of_run = item(3);
        of_run.value = br#"{"addr":"x","node":"n5","run":3}"#.to_vec();
        standing.take("candidates/5", Some(&of_run));
        assert_eq!(standing.leadership(at(1001)), Leadership::None, "its node is gone");
        standing.take("nodes/n5", Some(&item(4)));
        assert_eq!(standing.leadership(at(1001)), Leadership::None, "it was started again");
        standing.take("nodes/n5", Some(&item(3)));
        assert_ne!(standing.leadership(at(1001)), Leadership::None);
        standing.take("candidates/5", None);
        assert_eq!(standing.leadership(at(1001)), Leadership::None, "it is this one, unproved");
        standing.take("candidates/7", None);
        assert!(!standing.is_candidate());
    }

    #[test]
    fn a_command_is_written_for_a_leader_that_was_just_confirmed() {
        let mut standing = standing(&[3]);
        assert!(!standing.follows(Token(3), at(0)));
        standing.confirm(Some(3), at(0));
        assert!(standing.follows(Token(3), at(249)));
        assert!(!standing.follows(Token(3), at(250)));
        assert!(!standing.follows(Token(2), at(1)), "another one leads");
        standing.confirm(None, at(1));
        assert!(!standing.follows(Token(3), at(2)));
    }

    #[test]
    fn members_stay_when_their_node_goes() {
        let mut standing = standing(&[]);
        let item = |value: &str| Item { value: value.into(), created: 1, version: 1, changed: 1 };
        let node = item(r#"{"addr":"127.0.0.1:2","http":"127.0.0.1:1","pid":9}"#);
        standing.take("members/127.0.0.1:1", Some(&item(r#"{"addr":"127.0.0.1:2"}"#)));
        standing.take("nodes/127.0.0.1:1", Some(&node));
        let id = NodeId::new("127.0.0.1:1");
        for addr in ["127.0.0.1:1", "127.0.0.1:2"] {
            assert_eq!(standing.at(&addr.parse().expect("address")), [id.clone()].into());
        }
        standing.take("nodes/127.0.0.1:1", None);
        assert!(standing.node(&id).is_none());
        assert_eq!(standing.voters(), std::slice::from_ref(&id));
        standing.take("members/127.0.0.1:1", None);
        assert!(standing.voters().is_empty());
    }
}
