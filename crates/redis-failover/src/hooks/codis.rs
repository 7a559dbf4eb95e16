//! codis: its dashboard is told of a new master, and tells its proxies.
//!
//! The dashboard promotes by itself: it sends the server `SLAVEOF NO ONE`, which changes nothing of one that is a master
//! already, gives it the product's password for masters, has it write its configuration, and cuts its clients off. It refuses
//! to promote the one that it has as master, so that it is asked first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use failover_core::addr::Addr;
use failover_core::instance::Flavor;
use failover_core::view::GroupView;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};

use super::line::Ran;
use super::tell::Licence;
use super::webhook::{Connector, chain, connector};
use super::{MasterChange, printable};
use crate::config::{CodisConfig, GroupSet};

/// A thousand slots, a thousand groups and a hundred proxies, with what is counted of each.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The status with which the dashboard says why it refuses.
const REFUSED: u16 = 800;

const NOT_OF_LEDISDB: &str = "codis promotes with commands that LedisDB does not have: leave this group out of groups in \
                              [codis]; xcodis is for LedisDB";

/// The dashboard of a product.
pub(super) struct Codis {
    dashboard: Addr,
    /// What the dashboard wants to see in the path: made of the product's name, and never shown.
    xauth: String,
    pub(super) groups: GroupSet,
    timeout: Duration,
    client: Client<Connector, Full<Bytes>>,
}

/// What the dashboard knows, as far as it is of use.
#[derive(Deserialize)]
struct Stats {
    group: Groups,
}

#[derive(Deserialize)]
struct Groups {
    models: Option<Vec<Group>>,
}

#[derive(Deserialize)]
struct Group {
    id: i64,
    /// The master first.
    #[serde(default)]
    servers: Vec<Server>,
    #[serde(default)]
    promoting: Promoting,
}

#[derive(Deserialize)]
struct Server {
    #[serde(rename = "server")]
    addr: String,
}

#[derive(Default, Deserialize)]
struct Promoting {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    state: String,
}

/// Why the dashboard refused.
#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "Cause")]
    cause: String,
}

/// What is to be done there.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Done,
    /// In this group, this server as it is written there.
    Promote(i64, String),
}

impl Codis {
    /// `None` when it is off.
    ///
    /// # Errors
    /// A sentence, when there is no way to reach it.
    pub(super) fn new(config: &CodisConfig) -> Result<Option<Self>, String> {
        let Some(dashboard) = config.dashboard.clone().filter(|_| !config.groups.is_none()) else {
            return Ok(None);
        };
        let connector = connector(false)
            .map_err(|why| format!("the dashboard of codis cannot be reached: {why}"))?;
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Some(Self {
            dashboard,
            xauth: xauth(&config.product),
            groups: config.groups.clone(),
            timeout: config.timeout,
            client,
        }))
    }

    /// Tells the dashboard of a new master.
    pub(super) async fn tell(&self, licence: &Licence<'_>) -> Ran {
        let Some(change) = licence.call().master_change() else { return Ran::Done };
        if licence.group().is_some_and(|group| group.flavor == Some(Flavor::Ledisdb)) {
            return Ran::Failed { why: NOT_OF_LEDISDB.to_owned(), again: false };
        }
        match self.promote(&change, licence).await {
            Ok(()) => Ran::Done,
            Err(why) => Ran::Failed { why, again: true },
        }
    }

    /// What is wrong with these groups, a sentence each.
    pub(super) async fn objections(&self, groups: &[Arc<GroupView>]) -> Vec<String> {
        let stats = self.stats().await;
        let objection = |group: &Arc<GroupView>| {
            let (name, master) = (&group.name, &group.master);
            let not_followed =
                |why: &str| Some(format!("a failover of {name} would not be followed: {why}"));
            if group.flavor == Some(Flavor::Ledisdb) {
                return not_followed(NOT_OF_LEDISDB);
            }
            let stats = match &stats {
                Ok(stats) => stats,
                Err(why) => return not_followed(why),
            };
            let Some(known) = stats.with(master) else {
                return not_followed(&self.unknown(master, master));
            };
            // It changed while nobody looked after it, or without us.
            (known.position(master) != Some(0)).then(|| {
                format!(
                    "{master} is the master of {name}, but not of group {id} of codis: its proxies write elsewhere until \
                     somebody runs codis-admin --dashboard={} --promote-server --gid={id} --addr={master}",
                    self.dashboard,
                    id = known.id
                )
            })
        };
        groups.iter().filter_map(objection).collect()
    }

    async fn stats(&self) -> Result<Stats, String> {
        let stats = self.request(Method::GET, "stats", "").await?;
        serde_json::from_slice(&stats).map_err(|error| {
            format!("the dashboard of codis at {} is not understood: {error}", self.dashboard)
        })
    }

    async fn promote(&self, change: &MasterChange, licence: &Licence<'_>) -> Result<(), String> {
        let stats = self.stats().await?;
        let (id, addr) = match self.plan(&stats, change)? {
            Plan::Done => return Ok(()),
            Plan::Promote(id, addr) => (id, addr),
        };
        licence.check()?;
        self.request(Method::PUT, "group/promote", &format!("/{id}/{addr}")).await?;
        tracing::info!(
            group = %change.group,
            "the dashboard of codis at {} has {addr} as the master of its group {id}",
            self.dashboard
        );
        Ok(())
    }

    fn plan(&self, stats: &Stats, change: &MasterChange) -> Result<Plan, String> {
        let (old, new) = (&change.old_master, &change.new_master);
        let dashboard = &self.dashboard;
        let Some(group) = stats.with(new) else {
            return Err(match stats.with(old) {
                Some(group) => format!(
                    "codis has {old} in its group {id}, and {new} in none: run codis-admin --dashboard={dashboard} \
                     --group-add --gid={id} --addr={new}",
                    id = group.id
                ),
                None => self.unknown(old, new),
            });
        };
        if let Some(other) = stats.with(old).filter(|other| other.id != group.id) {
            return Err(format!(
                "codis has {old} in its group {} and {new} in its group {}, so that one cannot take the place of the other",
                other.id, group.id
            ));
        }
        let index = group.position(new).unwrap_or_default();
        let promoting = &group.promoting;
        if promoting.state.is_empty() && index == 0 {
            return Ok(Plan::Done);
        }
        if !promoting.state.is_empty() && promoting.index != index {
            return Err(format!(
                "codis is promoting another server of its group {}, and does one after the other",
                group.id
            ));
        }
        Ok(Plan::Promote(group.id, group.servers[index].addr.clone()))
    }

    fn unknown(&self, old: &Addr, new: &Addr) -> String {
        let whom =
            if old == new { format!("not {old}") } else { format!("neither {old} nor {new}") };
        format!(
            "codis (the dashboard at {}) knows {whom}: add what is missing there, written just so, or leave this group out \
             of groups in [codis]",
            self.dashboard
        )
    }

    /// Asks the dashboard, and gives what it answers.
    async fn request(&self, method: Method, what: &str, rest: &str) -> Result<Bytes, String> {
        let dashboard = &self.dashboard;
        let uri = format!("http://{dashboard}/api/topom/{what}/{}{rest}", self.xauth);
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(
                USER_AGENT,
                HeaderValue::from_static(concat!("redis-failover/", env!("CARGO_PKG_VERSION"))),
            )
            .body(Full::default())
            .map_err(|_| "the request to the dashboard of codis cannot be made".to_owned())?;
        let deadline = Instant::now() + self.timeout;
        let late = |_| {
            format!(
                "the dashboard of codis at {dashboard} did not answer within {} ms",
                self.timeout.as_millis()
            )
        };
        let answer = timeout_at(deadline, self.client.request(request)).await.map_err(late)?;
        let answer = answer.map_err(|error| {
            format!("the dashboard of codis at {dashboard} gives no answer: {}", chain(&error))
        })?;
        let (head, body) = answer.into_parts();
        let body = timeout_at(deadline, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let body = body.map_err(late)?.map_err(|error| {
            format!("the answer of the dashboard of codis at {dashboard} ended early: {error}")
        })?;
        let body = body.to_bytes();
        if head.status == StatusCode::OK {
            return Ok(body);
        }
        let cause = match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) if head.status.as_u16() == REFUSED => {
                // It may repeat what it was asked.
                printable(&refusal.cause.replace(&self.xauth, "…"))
            }
            Ok(_) | Err(_) => format!("HTTP status {}", head.status.as_u16()),
        };
        Err(format!("the dashboard of codis at {dashboard} refuses: {cause}"))
    }
}

impl Stats {
    /// The group that has a server.
    fn with(&self, addr: &Addr) -> Option<&Group> {
        let mut groups = self.group.models.iter().flatten();
        groups.find(|group| group.position(addr).is_some())
    }
}

impl Group {
    fn position(&self, addr: &Addr) -> Option<usize> {
        let is = |server: &Server| server.addr.parse::<Addr>().is_ok_and(|known| known == *addr);
        self.servers.iter().position(is)
    }
}

/// The first 32 hexadecimal digits of a digest of the product's name.
fn xauth(product: &str) -> String {
    let digest = Sha256::digest(format!("Codis-XAuth-[{product}]"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use failover_core::node::GroupName;

    #[test]
    fn the_dashboard_is_shown_what_it_wants_to_see() {
        assert_eq!(xauth("codis-demo"), "95b62887719520f17e312eaa76d28f2b");
    }

    fn planned(groups: &str) -> Result<Plan, String> {
        let config = CodisConfig {
            dashboard: Some("127.0.0.1:18080".parse().expect("an address")),
            product: "codis-demo".to_owned(),
            groups: GroupSet::All,
            ..CodisConfig::default()
        };
        let codis = Codis::new(&config).expect("plain HTTP").expect("it is on");
        let addr = |port: u16| format!("127.0.0.1:{port}").parse().expect("an address");
        let change = MasterChange {
            group: GroupName::new("g").expect("a name"),
            old_master: addr(7101),
            new_master: addr(7102),
            epoch: 1,
        };
        let text = format!(r#"{{"closed":false,"group":{{"models":{groups}}}}}"#);
        codis.plan(&serde_json::from_str(&text).expect("what a dashboard says"), &change)
    }

    #[test]
    fn what_is_done_is_not_done_again() {
        let group = |servers: &str, promoting: &str| {
            let servers: Vec<String> = servers
                .split(' ')
                .map(|port| {
                    format!(r#"{{"server":"127.0.0.1:{port}","datacenter":"","action":{{}},"replica_group":false}}"#)
                })
                .collect();
            let servers = servers.join(",");
            planned(&format!(
                r#"[{{"id":3,"servers":[{servers}],"promoting":{promoting},"out_of_sync":false}}]"#
            ))
        };
        let promote = Ok(Plan::Promote(3, "127.0.0.1:7102".to_owned()));
        assert_eq!(group("7101 7102", "{}"), promote);
        assert_eq!(group("7102 7101", "{}"), Ok(Plan::Done));
        // One that was begun is finished, also when the servers were put in their order already.
        assert_eq!(group("7101 7102", r#"{"index":1,"state":"preparing"}"#), promote);
        assert_eq!(group("7102 7101", r#"{"state":"finished"}"#), promote);
        let why = group("7101 7102 7103", r#"{"index":2,"state":"prepared"}"#);
        assert!(why.is_err_and(|why| why.contains("another server")));
        let why = group("7101 7103", "{}").expect_err("it is not there");
        assert!(why.contains("--group-add --gid=3 --addr=127.0.0.1:7102"), "{why}");
        assert!(planned("null").is_err_and(|why| why.contains("knows neither 127.0.0.1:7101 nor")));
    }
}
