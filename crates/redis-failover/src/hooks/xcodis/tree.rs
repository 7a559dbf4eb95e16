//! What stands where in the tree of a product, and what of it changes with a master. Nothing here asks anybody.
//!
//! Values are those of xcodis' own programs. What else they may have in them is kept.

use std::collections::BTreeMap;

use failover_core::addr::Addr;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub(super) const MASTER: &str = "master";
pub(super) const OFFLINE: &str = "offline";
pub(super) const GROUP_CHANGED: &str = "group_changed";
/// States of a proxy.
pub(super) const ONLINE: &str = "online";
pub(super) const MARK_OFFLINE: &str = "mark_offline";
const GROUP: &str = "group_";
const ACTION: &str = "action_";

/// Where everything of a product is.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) base: String,
}

impl Paths {
    pub(super) fn new(base: String) -> Self {
        Self { base }
    }

    pub(super) fn servers(&self) -> String {
        format!("{}/servers", self.base)
    }

    pub(super) fn group(&self, id: i64) -> String {
        format!("{}/servers/{GROUP}{id}", self.base)
    }

    pub(super) fn proxies(&self) -> String {
        format!("{}/proxy", self.base)
    }

    pub(super) fn proxy(&self, id: &str) -> String {
        format!("{}/proxy/{id}", self.base)
    }

    pub(super) fn actions(&self) -> String {
        format!("{}/actions", self.base)
    }

    /// What the name of an action begins with; ZooKeeper appends its number.
    pub(super) fn new_action(&self) -> String {
        format!("{}/actions/{ACTION}", self.base)
    }

    pub(super) fn locks(&self) -> String {
        format!("{}/LOCK", self.base)
    }

    /// Who lives, of those that may have a lock.
    pub(super) fn living(&self) -> String {
        format!("{}/living-codis-config", self.base)
    }
}

/// A server of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Server {
    /// `master`, `slave` or `offline`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    group_id: i64,
    pub(super) addr: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What proxies are told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Action {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) desc: String,
    pub(super) target: Target,
    /// Seconds since 1970, as a text.
    #[serde(default)]
    pub(super) ts: String,
    /// The proxies that are to do it. Older programs begin the key with a capital, and all of them write null for none.
    #[serde(default, alias = "Receivers", deserialize_with = "or_none")]
    pub(super) receivers: Vec<String>,
}

/// The group that an action is about, as it is from then on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) id: i64,
    #[serde(default)]
    pub(super) product_name: String,
    #[serde(default, deserialize_with = "or_none")]
    pub(super) servers: Vec<Server>,
}

/// An action that is in the tree.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) path: String,
    pub(super) receivers: Vec<String>,
}

impl Target {
    /// Whether it has this master and no other.
    pub(super) fn is_mastered_by(&self, master: &Addr) -> bool {
        let mut masters = self.servers.iter().filter(|server| server.kind == MASTER);
        masters.next().is_some_and(|server| is(&server.addr, master)) && masters.next().is_none()
    }
}

/// What is to be done to a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It has that master and no other.
    Done,
    /// These nodes get these values; one that is not there is made.
    Change(BTreeMap<String, Server>),
}

/// What changes in a group when one server takes the place of another. Whatever is called a master beside it goes offline,
/// since a proxy takes the first that it finds.
pub(super) fn plan(
    servers: BTreeMap<&str, &Server>,
    group_id: i64,
    (old, new): (&Addr, &Addr),
) -> Plan {
    let is_new = |node: &str| is(node, new);
    let mut masters = servers.iter().filter(|(_, server)| server.kind == MASTER);
    if masters.next().is_some_and(|(node, _)| is_new(node)) && masters.next().is_none() {
        return Plan::Done;
    }
    let mut set = BTreeMap::new();
    let mut to = |node: &str, server: &Server, kind: &str| {
        if server.kind != kind {
            set.insert(node.to_owned(), Server { kind: kind.to_owned(), ..server.clone() });
        }
    };
    let mut has_new = false;
    for (node, server) in &servers {
        if is_new(node) {
            has_new = true;
            to(node, server, MASTER);
        } else if server.kind == MASTER || is(node, old) {
            to(node, server, OFFLINE);
        }
    }
    if !has_new {
        // A replica that nobody told xcodis of: better known now than a group without master.
        let (kind, addr, rest) = (MASTER.to_owned(), new.to_string(), Map::new());
        set.insert(addr.clone(), Server { kind, group_id, addr, rest });
    }
    Plan::Change(set)
}

/// Whether a server that is written so is the one.
pub(super) fn is(written: &str, addr: &Addr) -> bool {
    written.parse::<Addr>().is_ok_and(|written| written == *addr)
}

/// The number of a group, by the name of its node.
pub(super) fn group_id(name: &str) -> Option<i64> {
    name.strip_prefix(GROUP)?.parse().ok()
}

pub(super) fn is_action(name: &str) -> bool {
    name.strip_prefix(ACTION).is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// What is written in a node.
///
/// # Errors
/// A sentence that names the node.
pub(super) fn read<T: DeserializeOwned>(value: &[u8], path: &str) -> Result<T, String> {
    serde_json::from_slice(value)
        .map_err(|error| format!("{path} in ZooKeeper is not what xcodis writes: {error}"))
}

pub(super) fn text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("its keys are texts")
}

fn or_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Addr {
        format!("127.0.0.1:{port}").parse().expect("an address")
    }

    fn server(port: u16, kind: &str) -> (String, Server) {
        let text = format!(r#"{{"type":"{kind}","group_id":1,"addr":"127.0.0.1:{port}"}}"#);
        (format!("127.0.0.1:{port}"), read(text.as_bytes(), "here").expect("a server"))
    }

    /// The kinds of the servers that change.
    fn changed(servers: &[(u16, &str)], old: u16, new: u16) -> Option<Vec<(String, String)>> {
        let servers: BTreeMap<String, Server> =
            servers.iter().map(|(port, kind)| server(*port, kind)).collect();
        let servers = servers.iter().map(|(node, server)| (node.as_str(), server)).collect();
        match plan(servers, 1, (&addr(old), &addr(new))) {
            Plan::Done => None,
            Plan::Change(set) => Some(
                set.into_iter()
                    .map(|(node, server)| {
                        (node.rsplit(':').next().unwrap_or("").to_owned(), server.kind)
                    })
                    .collect(),
            ),
        }
    }

    #[test]
    fn exactly_one_master_is_left() {
        let set = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())
        };
        let (m, s, o) = ("master", "slave", "offline");
        // The usual one, and again.
        assert_eq!(changed(&[(1, m), (2, s), (3, s)], 1, 2), set(&[("1", o), ("2", m)]));
        assert_eq!(changed(&[(1, o), (2, m), (3, s)], 1, 2), None);
        // Somebody added the old master again before that was told once more.
        assert_eq!(changed(&[(1, s), (2, m)], 1, 2), None);
        // One that was never told of lies between.
        assert_eq!(changed(&[(1, m), (2, s), (3, s)], 2, 3), set(&[("1", o), ("2", o), ("3", m)]));
        // Back to one that went offline before.
        assert_eq!(changed(&[(1, o), (2, m)], 2, 1), set(&[("1", m), ("2", o)]));
        // A replica that was never added, and a group whose master is gone.
        assert_eq!(changed(&[(1, m)], 1, 2), set(&[("1", o), ("2", m)]));
        assert_eq!(changed(&[(2, s)], 1, 2), set(&[("2", m)]));
        assert_eq!(changed(&[(1, m), (2, m)], 1, 2), set(&[("1", o)]));
    }

    #[test]
    fn values_are_those_of_xcodis() {
        let text = r#"{"type":"slave","group_id":7,"addr":"127.0.0.1:6381","note":"mine"}"#;
        let server: Server = read(text.as_bytes(), "x").expect("a server");
        assert_eq!(super::text(&server), text.as_bytes(), "what else is there is kept");
        let target = r#"{"id":1,"product_name":"test","servers":null}"#;
        for (receivers, count) in [
            (r#""receivers":["proxy_1"]"#, 1),
            (r#""Receivers":["a","b"]"#, 2),
            (r#""receivers":null"#, 0),
        ] {
            let text = format!(
                r#"{{"type":"group_changed","desc":"","target":{target},"ts":"1",{receivers}}}"#
            );
            let action: Action = read(text.as_bytes(), "x").expect("an action");
            assert_eq!(action.receivers.len(), count, "{text}");
        }
        let why = read::<Server>(b"{", "/zk/codis/x").expect_err("it is cut");
        assert!(why.starts_with("/zk/codis/x in ZooKeeper is not what xcodis writes"), "{why}");
    }

    #[test]
    fn names_are_told_apart() {
        assert_eq!(
            (group_id("group_12"), group_id("group_x"), group_id("12")),
            (Some(12), None, None)
        );
        assert!(is_action("action_0000000003"));
        assert!(!is_action("action_") && !is_action("action_1x") && !is_action("lock-1"));
        assert!(is("127.0.0.1:1", &addr(1)) && !is("127.0.0.1:2", &addr(1)) && !is("", &addr(1)));
    }
}
