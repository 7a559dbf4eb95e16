//! etcd: leases, an election by who came first, and writes that compare the candidate's key.
//!
//! It is spoken to as JSON over HTTP (etcd's own gateway, version 3), which needs nothing that this program has not got
//! already: etcd's gRPC would bring its compiler into every build. A key that is written under a lease goes when the
//! lease was not renewed for its time.

mod http;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use self::http::{Failed, Http};
pub(super) use self::watch::EtcdWatch;
use super::Who;
use super::layout::{self, CandidateInfo, NodeInfo};
use super::store::{Expect, Fence, Item, NotWritten, Op};

/// This part of a lease is not used: the clocks of two hosts do not run alike.
const DRIFT_PART: u32 = 8;
/// Candidates are under the names of etcd's own election, so that its tools show them.
const ELECTION: &str = "leader/";
const CANDIDATES: &str = "candidates/";

/// A cluster, and a place in it.
#[derive(Clone, Debug)]
pub(crate) struct EtcdPlace {
    /// `host:port`, each.
    pub(crate) servers: Vec<String>,
    /// What all keys begin with, without the slash behind it.
    pub(crate) prefix: String,
    /// What is asked for; the servers may grant a longer one.
    pub(crate) lease_ttl: Duration,
    pub(crate) login: Option<(String, SecretString)>,
}

/// A session: a lease and what belongs to it.
#[derive(Debug)]
pub(super) struct EtcdSession {
    http: Arc<Http>,
    keys: Keys,
    ttl: Duration,
    lease: AtomicU64,
    granted_s: AtomicU64,
}

/// The names of keys.
#[derive(Clone, Debug)]
struct Keys {
    prefix: String,
}

impl Keys {
    fn of(&self, path: &str) -> String {
        match path.strip_prefix(CANDIDATES) {
            Some(candidate) => format!("{}/{ELECTION}{candidate}", self.prefix),
            None => format!("{}/{path}", self.prefix),
        }
    }

    fn path(&self, key: &[u8]) -> Option<String> {
        let key = std::str::from_utf8(key).ok()?;
        let path = key.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        Some(match path.strip_prefix(ELECTION) {
            Some(candidate) => format!("{CANDIDATES}{candidate}"),
            None => path.to_owned(),
        })
    }

    /// Everything below a path, or below the prefix: the first key and the one behind the last.
    fn below(&self, path: &str) -> (String, String) {
        let dir = format!("{}/{path}", self.prefix);
        // `0` comes behind `/`.
        let behind = format!("{}0", dir.trim_end_matches('/'));
        (format!("{}/", dir.trim_end_matches('/')), behind)
    }
}

fn encode(text: impl AsRef<[u8]>) -> String {
    STANDARD.encode(text)
}

fn decode(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap_or_default()
}

/// Numbers come as text, and not at all when they are zero.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Text(String),
        Number(u64),
    }
    match Number::deserialize(deserializer)? {
        Number::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Number::Number(number) => Ok(number),
    }
}

#[derive(Debug, Default, Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "number")]
    revision: u64,
}

#[derive(Debug, Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default, deserialize_with = "number")]
    create_revision: u64,
    #[serde(default, deserialize_with = "number")]
    mod_revision: u64,
}

impl KeyValue {
    fn item(&self) -> Item {
        Item {
            value: decode(&self.value),
            created: self.create_revision,
            version: self.mod_revision,
            changed: self.mod_revision,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Range {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Debug, Deserialize)]
struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: u64,
    #[serde(rename = "TTL", deserialize_with = "number")]
    ttl: u64,
}

#[derive(Debug, Deserialize)]
struct KeptAlive {
    result: KeptAliveResult,
}

#[derive(Debug, Deserialize)]
struct KeptAliveResult {
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    ttl: u64,
}

#[derive(Debug, Deserialize)]
struct Transaction {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<TransactionPart>,
}

#[derive(Debug, Default, Deserialize)]
struct TransactionPart {
    response_range: Option<Range>,
}

impl EtcdSession {
    pub(super) async fn open(place: &EtcdPlace) -> Result<(Self, EtcdWatch), String> {
        let http = Arc::new(Http::new(&place.servers, place.login.clone()));
        let keys = Keys { prefix: place.prefix.clone() };
        let watch = EtcdWatch::new(Arc::clone(&http), keys.clone());
        let session = Self {
            http,
            keys,
            ttl: place.lease_ttl,
            lease: AtomicU64::new(0),
            granted_s: AtomicU64::new(0),
        };
        session.leader_now().await?;
        Ok((session, watch))
    }

    pub(super) async fn announce(&self, who: &Who) -> Result<Fence, String> {
        let ttl_s = self.ttl.as_millis().div_ceil(1000);
        let broken = |error: Failed| format!("etcd takes no candidate: {error}");
        let granted = json!({ "TTL": ttl_s.to_string() });
        let granted: Granted = self.http.call("/v3/lease/grant", &granted).await.map_err(broken)?;
        self.lease.store(granted.id, Ordering::Relaxed);
        self.granted_s.store(granted.ttl, Ordering::Relaxed);
        let pid = std::process::id();
        let node = NodeInfo { addr: who.addr.clone(), http: who.http.clone(), pid, run: who.run };
        let shown = who.http.as_ref().unwrap_or(&who.addr).to_string();
        let desc = "RunTask".to_owned();
        let info = CandidateInfo {
            addr: shown,
            desc,
            pid,
            node: Some(who.node.clone()),
            run: Some(who.run),
        };
        let path = format!("{CANDIDATES}{:x}", granted.id);
        let put = |path: &str, value: &Value| {
            let (key, value) = (encode(self.keys.of(path)), encode(value.to_string()));
            json!({ "request_put": { "key": key, "value": value, "lease": granted.id.to_string() } })
        };
        let text = |error: serde_json::Error| error.to_string();
        let node = put(&layout::node(&who.node), &serde_json::to_value(&node).map_err(text)?);
        let candidate = put(&path, &serde_json::to_value(&info).map_err(text)?);
        let body = json!({ "compare": [], "success": [node, candidate] });
        let written: Transaction = self.http.call("/v3/kv/txn", &body).await.map_err(broken)?;
        Ok(Fence { path, created: written.header.revision })
    }

    pub(super) fn lease(&self) -> Duration {
        let granted = Duration::from_secs(self.granted_s.load(Ordering::Relaxed));
        granted - granted / DRIFT_PART
    }

    pub(super) fn renewal_interval(&self) -> Duration {
        Duration::from_secs(self.granted_s.load(Ordering::Relaxed)) / 6
    }

    pub(super) async fn renew(&self) -> Result<(), NotWritten> {
        let body = json!({ "ID": self.lease.load(Ordering::Relaxed).to_string() });
        let kept: KeptAlive = self
            .http
            .call("/v3/lease/keepalive", &body)
            .await
            .map_err(|error| NotWritten::Unknown(error.to_string()))?;
        // A lease that is gone is no error to etcd: it has no time left.
        if kept.result.ttl == 0 { Err(NotWritten::Fenced) } else { Ok(()) }
    }

    pub(super) async fn write(&self, fence: Option<&Fence>, ops: &[Op]) -> Result<u64, NotWritten> {
        let mut compare = Vec::new();
        let mut success = Vec::new();
        let mut failure = Vec::new();
        let equal = |path: &str, target: &str, name: &str, number: u64| {
            let key = encode(self.keys.of(path));
            json!({ "key": key, "target": target, "result": "EQUAL", name: number.to_string() })
        };
        if let Some(fence) = fence {
            compare.push(equal(&fence.path, "CREATE", "create_revision", fence.created));
            let key = encode(self.keys.of(&fence.path));
            failure.push(json!({ "request_range": { "key": key, "keys_only": true } }));
        }
        for op in ops {
            match op {
                // The candidate's own key says it here.
                Op::Put { path, .. } if path == layout::LEADER => {}
                Op::Put { path, value, expect } => {
                    match expect {
                        Expect::Nothing => {
                            compare.push(equal(path, "CREATE", "create_revision", 0));
                        }
                        Expect::Version(version) => {
                            compare.push(equal(path, "MOD", "mod_revision", *version));
                        }
                        Expect::Anything => {}
                    }
                    let (key, value) = (encode(self.keys.of(path)), encode(value));
                    success.push(json!({ "request_put": { "key": key, "value": value } }));
                }
                Op::Delete { path } => {
                    let key = encode(self.keys.of(path));
                    success.push(json!({ "request_delete_range": { "key": key } }));
                }
                Op::DeleteTree { path, .. } => {
                    let key = encode(self.keys.of(path));
                    let (first, behind) = self.keys.below(path);
                    let (first, behind) = (encode(first), encode(behind));
                    success.push(json!({ "request_delete_range": { "key": key } }));
                    success.push(json!({
                        "request_delete_range": { "key": first, "range_end": behind }
                    }));
                }
            }
        }
        let body = json!({ "compare": compare, "success": success, "failure": failure });
        let written = self.http.call::<Transaction>("/v3/kv/txn", &body).await;
        let written = written.map_err(|failed| match failed {
            Failed::NotSent(why) => NotWritten::Refused(why),
            Failed::Unknown(why) => NotWritten::Unknown(why),
            Failed::Refused { message, .. } => NotWritten::Refused(message),
        })?;
        if written.succeeded {
            return Ok(written.header.revision);
        }
        let found = written.responses.first().and_then(|part| part.response_range.as_ref());
        let leads = found.is_some_and(|range| {
            let created = range.kvs.first().map(|kv| kv.create_revision);
            fence.is_some_and(|fence| created == Some(fence.created))
        });
        Err(if fence.is_some() && !leads { NotWritten::Fenced } else { NotWritten::Conflict })
    }

    pub(super) async fn leader_now(&self) -> Result<Option<u64>, String> {
        let (first, behind) = self.keys.below(ELECTION);
        let body = json!({
            "key": encode(first),
            "range_end": encode(behind),
            "sort_order": "ASCEND",
            "sort_target": "CREATE",
            "limit": "1",
            "keys_only": true,
        });
        let found: Range = self
            .http
            .call("/v3/kv/range", &body)
            .await
            .map_err(|error| format!("etcd does not say who leads: {error}"))?;
        Ok(found.kvs.first().map(|kv| kv.create_revision))
    }

    pub(super) async fn close(&self) {
        let body = json!({ "ID": self.lease.load(Ordering::Relaxed).to_string() });
        let _ = self.http.call::<Value>("/v3/lease/revoke", &body).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_keys_and_come_back() {
        let keys = Keys { prefix: "/redis/failover".to_owned() };
        assert_eq!(keys.of("candidates/ab"), "/redis/failover/leader/ab");
        for path in ["candidates/ab", "groups", "groups/a", "nodes/127.0.0.1:1", "masters"] {
            assert_eq!(keys.path(keys.of(path).as_bytes()).as_deref(), Some(path));
        }
        assert_eq!(keys.path(b"/redis/failover2/groups"), None);
        let (first, behind) = keys.below("groups/a");
        assert_eq!(
            (first.as_str(), behind.as_str()),
            ("/redis/failover/groups/a/", "/redis/failover/groups/a0")
        );
        let (first, behind) = keys.below("");
        assert_eq!((first.as_str(), behind.as_str()), ("/redis/failover/", "/redis/failover0"));
        assert!(
            "/redis/failover/groups/a:1" > behind.as_str()
                || first.as_str() < "/redis/failover/groups"
        );
    }

    #[test]
    fn numbers_are_texts_or_absent() {
        let text = r#"{"header":{"revision":"7"},"kvs":[{"key":"YQ==","create_revision":"3"}]}"#;
        let range: Range = serde_json::from_str(text).expect("an answer");
        assert_eq!((range.header.revision, range.kvs[0].create_revision), (7, 3));
        assert_eq!(range.kvs[0].mod_revision, 0);
        let range: Range = serde_json::from_str("{}").expect("an empty answer");
        assert!(range.kvs.is_empty());
    }
}
