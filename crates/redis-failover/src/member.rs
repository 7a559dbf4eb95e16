//! This node as one of several: the broker through which they agree, the port between them, and what is said on it.
//!
//! A node that is alone has none of that; its broker agrees with itself.

use std::sync::Arc;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{Answer, Event, GroupSpec, RefusalCode, Request};
use failover_core::node::NodeId;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::broker::outer::{self, EtcdPlace, OuterBroker, Where, Who, ZkPlace};
use crate::broker::raft::{RaftBroker, Settings, random};
use crate::broker::{Broker, Ended};
use crate::clock::Clock;
use crate::cluster::{Cluster, Several};
use crate::config::{BrokerKind, Config, EtcdConfig, SavedState, ZkConfig};
use crate::events::Events;
use crate::guard::StartError;
use crate::peers::{Lane, Peers, Secret};
use crate::requests::Requests;
use crate::resolve::Resolver;
use crate::talk::{self, Ask, Inbound, Listener, Reply, Talk};

/// The pause until the configured groups are registered again, when nobody could take them.
const REGISTER_RETRY: Duration = Duration::from_millis(200);

/// Where a node listens for others when nothing says where.
const LOOPBACK: &str = "127.0.0.1";

/// What the loop needs of it.
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) broker: Broker,
    pub(crate) heard: mpsc::Receiver<Event>,
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    pub(crate) talk: Option<Talk>,
    pub(crate) cluster: Cluster,
}

/// What the whole program shares with it.
pub(crate) struct Surroundings {
    pub(crate) clock: Clock,
    pub(crate) resolver: Resolver,
    pub(crate) events: Events,
    pub(crate) requests: Requests,
    pub(crate) stop: Arc<watch::Sender<bool>>,
}

impl Member {
    /// A node that is alone. Its broker never says anything by itself, and nobody asks it.
    pub(crate) fn alone(node: NodeId, http: Option<Addr>) -> Self {
        let (_, heard) = mpsc::channel(1);
        let (_, inbound) = mpsc::channel(1);
        let cluster = Cluster::Alone { node: node.clone(), http };
        let broker = Broker::Solo { node: node.clone() };
        Self { node, broker, heard, inbound, talk: None, cluster }
    }

    /// One of several nodes. Returns its tasks besides.
    ///
    /// # Errors
    /// When its address cannot be listened on, or its store not be opened.
    pub(crate) async fn of_several(
        config: &Config,
        around: &Surroundings,
        http: Option<Addr>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), StartError> {
        let place = Place::take(config, http.as_ref()).await?;
        let (clock, resolver) = (around.clock, around.resolver.clone());
        let secret = Secret::default();
        let peers = Peers::sharing(place.addr.clone(), Arc::clone(&secret), resolver, clock);
        let is_raft = config.broker == BrokerKind::Raft;
        let shares = config.cluster_secret.is_some() || config.cluster_open || is_raft;
        if shares {
            let _ = secret.set(config.cluster_secret.clone());
        }
        let (broker, heard) = match config.broker {
            BrokerKind::None | BrokerKind::Raft => {
                let settings = settings(config, place.addr.clone());
                let started = RaftBroker::start(settings, peers.clone(), clock).await;
                let (raft, heard) = started.map_err(StartError::Store)?;
                (Broker::Raft(raft), heard)
            }
            BrokerKind::Zk => {
                outer(Where::Zk(zk(&config.zk)), &place, http.clone(), !shares, clock)
            }
            BrokerKind::Etcd => {
                outer(Where::Etcd(etcd(&config.etcd)), &place, http.clone(), !shares, clock)
            }
        };
        let (inbox, inbound) = talk::inbox();
        let events = around.events.clone();
        let talk = Talk::new(peers, clock, events, broker.clone(), inbox.clone());
        let several = Several::new(place.node.clone(), broker.clone(), talk.clone(), clock, http);
        let requests = around.requests.clone();
        let listener = Listener::new(inbox, requests, clock, broker.clone(), several.clone());
        let stopped = around.stop.subscribe();
        let here = (place.listener, place.addr);
        let serve = tokio::spawn(serve(here, secret, broker.clone(), listener, stopped));
        let end = end_with(broker.clone(), several.clone(), Arc::clone(&around.stop));
        let mut tasks = vec![serve, tokio::spawn(end)];
        if let Broker::Outer(outer) = &broker
            && config.masters_state == SavedState::Existing
        {
            let inherit = inherit(outer.clone(), around.requests.clone(), Arc::clone(&around.stop));
            tasks.push(tokio::spawn(inherit));
        }
        let (node, talk, cluster) = (place.node, Some(talk), Cluster::Several(several));
        Ok((Self { node, broker, heard, inbound, talk, cluster }, tasks))
    }
}

/// Where a node is, and under which name.
struct Place {
    node: NodeId,
    addr: Addr,
    listener: TcpListener,
    /// A number that no other run of it has.
    run: u64,
}

impl Place {
    /// Listens on the address that was given, else on a free port of the host that HTTP is on. Only a store knows where
    /// that is then; the name is the address that stays the same over all starts.
    async fn take(config: &Config, http: Option<&Addr>) -> Result<Self, StartError> {
        let listen = |addr: String, error| StartError::Listen { addr, error };
        let run = random().map_err(StartError::Store)?;
        if let Some(addr) = config.raft.addr.clone() {
            let listener = TcpListener::bind((addr.host(), addr.port()))
                .await
                .map_err(|error| listen(addr.to_string(), error))?;
            return Ok(Self { node: NodeId::new(&addr.to_string()), addr, listener, run });
        }
        let host = http.map_or(LOOPBACK, Addr::host);
        let bound = TcpListener::bind((host, 0)).await.and_then(|listener| {
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        });
        let (listener, port) = bound.map_err(|error| listen(format!("{host}:0"), error))?;
        let addr = Addr::new(host, port).map_err(|error| StartError::Store(error.to_string()))?;
        let name = match (http, &config.addr) {
            (Some(http), _) => http.to_string(),
            // On all interfaces: nobody else has the name of this host.
            (None, Some(given)) => format!("{}:{}", host_name(), given.port()),
            (None, None) => addr.to_string(),
        };
        if host == LOOPBACK {
            tracing::warn!(
                "this node is reached at {addr} by nodes on this host only: set node_addr where there are others"
            );
        }
        Ok(Self { node: NodeId::new(&name), addr, listener, run })
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // A name of a node is written like an address.
    if format!("{name}:1").parse::<Addr>().is_ok() { name } else { LOOPBACK.to_owned() }
}

fn outer(
    place: Where,
    here: &Place,
    http: Option<Addr>,
    needs_secret: bool,
    clock: Clock,
) -> (Broker, mpsc::Receiver<Event>) {
    let who = Who { node: here.node.clone(), addr: here.addr.clone(), http, run: here.run };
    let (outer, heard) = OuterBroker::start(outer::Settings { place, who, needs_secret }, clock);
    (Broker::Outer(outer), heard)
}

/// The ensemble that a configuration names.
pub(crate) fn zk(zk: &ZkConfig) -> ZkPlace {
    ZkPlace {
        servers: zk.servers(),
        base: zk.base(),
        session_timeout: zk.session_timeout,
        login: zk.user.clone().zip(zk.password.clone()),
    }
}

/// The etcd that a configuration names.
pub(crate) fn etcd(etcd: &EtcdConfig) -> EtcdPlace {
    EtcdPlace {
        servers: etcd.servers(),
        prefix: etcd.prefix(),
        lease_ttl: etcd.lease_ttl,
        login: etcd.user.clone().zip(etcd.password.clone()),
    }
}

/// Answers other nodes, as soon as it is known what the nodes share.
async fn serve(
    (listener, me): (TcpListener, Addr),
    known: Secret,
    broker: Broker,
    answering: Listener,
    mut stopped: watch::Receiver<bool>,
) {
    let secret = match (known.get(), &broker) {
        (Some(secret), _) => secret.clone(),
        (None, Broker::Solo { .. } | Broker::Raft(_)) => None,
        (None, Broker::Outer(outer)) => {
            let secret = tokio::select! {
                secret = outer.secret() => secret,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            let _ = known.set(secret.clone());
            secret
        }
    };
    let answer = move |lane: Lane, body: Vec<u8>| {
        let (broker, listener) = (broker.clone(), answering.clone());
        async move {
            match (lane, broker) {
                (Lane::Raft, Broker::Raft(raft)) => raft.answer(&body).await,
                (Lane::Raft, Broker::Solo { .. } | Broker::Outer(_)) => Vec::new(),
                (Lane::Talk, _) => answer_talk(&listener, &body).await,
            }
        }
    };
    let shutdown = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    Peers::serve(listener, me, secret, answer, shutdown).await;
}

/// Goes on guarding what the original guarded from the same place.
async fn inherit(broker: OuterBroker, requests: Requests, stop: Arc<watch::Sender<bool>>) {
    let mut stopped = stop.subscribe();
    let masters = tokio::select! {
        masters = broker.inherited() => masters,
        _ = stopped.wait_for(|stop| *stop) => return,
    };
    if masters.is_empty() {
        return;
    }
    tracing::info!("{} masters were guarded from here before, and still are", masters.len());
    let spec = |master| GroupSpec { name: None, master, replicas: Vec::new() };
    let request = Request::Add(masters.into_iter().map(spec).collect());
    register(requests, request, stop).await;
}

async fn answer_talk(listener: &Listener, body: &[u8]) -> Vec<u8> {
    let reply = match serde_json::from_slice::<Ask>(body) {
        Ok(ask) => listener.answer(ask).await,
        Err(error) => Reply::Refused(format!("the message cannot be read: {error}")),
    };
    serde_json::to_vec(&reply).unwrap_or_default()
}

/// A node whose broker broke down ends: it can neither act nor vote, and whoever supervises it starts it again.
async fn end_with(broker: Broker, cluster: Several, stop: Arc<watch::Sender<bool>>) {
    let mut stopped = stop.subscribe();
    tokio::select! {
        end = broker.ended() => {
            if let Ended::Failed(why) = end {
                tracing::error!("{why}");
            }
        }
        _ = stopped.wait_for(|stop| *stop) => {}
        () = cluster.meet() => {}
    }
    stop.send_replace(true);
    broker.stop().await;
}

/// Registers the configured groups as soon as somebody leads, once.
pub(crate) async fn register(requests: Requests, request: Request, stop: Arc<watch::Sender<bool>>) {
    let mut stopped = stop.subscribe();
    let registered = async {
        loop {
            match requests.ask(request.clone()).await {
                Answer::Done | Answer::Replaced(_) => return,
                Answer::Refused {
                    code:
                        RefusalCode::NoLeader
                        | RefusalCode::NoQuorum
                        | RefusalCode::Busy
                        | RefusalCode::UnknownOutcome,
                    message,
                } => tracing::debug!("the configured groups are not registered yet: {message}"),
                Answer::Refused { code: _, message } => {
                    tracing::error!("the configured groups were refused: {message}");
                    return;
                }
            }
            sleep(REGISTER_RETRY).await;
        }
    };
    tokio::select! {
        () = registered => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

fn settings(config: &Config, addr: Addr) -> Settings {
    Settings {
        addr,
        data_dir: config.raft.data_dir.clone().unwrap_or_default(),
        cluster: config.raft.cluster.clone(),
        cut_off: config.raft.cluster_state == SavedState::New,
        heartbeat_ms: millis(config.raft.heartbeat),
        election_min_ms: millis(config.raft.election_min),
        election_max_ms: millis(config.raft.election_max),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
