//! This node as one of several: the broker through which they agree, the port between them, and what is said on it.
//!
//! A node that is alone has none of that; its broker agrees with itself.

use std::sync::Arc;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{Answer, Event, RefusalCode, Request};
use failover_core::node::NodeId;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::broker::Broker;
use crate::broker::raft::{Ended, RaftBroker, Settings};
use crate::clock::Clock;
use crate::cluster::{Cluster, Several};
use crate::config::{Config, SavedState};
use crate::events::Events;
use crate::guard::StartError;
use crate::peers::{Lane, Peers};
use crate::requests::Requests;
use crate::resolve::Resolver;
use crate::talk::{self, Ask, Inbound, Listener, Reply, Talk};

/// The pause until the configured groups are registered again, when nobody could take them.
const REGISTER_RETRY: Duration = Duration::from_millis(200);

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

    /// A member of a Raft cluster. Returns its tasks besides.
    ///
    /// # Errors
    /// When its address cannot be listened on, or its store not be opened.
    pub(crate) async fn of_raft(
        config: &Config,
        around: &Surroundings,
        http: Option<Addr>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), StartError> {
        let addr = config
            .raft
            .addr
            .clone()
            .ok_or_else(|| StartError::Store("raft_addr is missing".to_owned()))?;
        let listener = TcpListener::bind((addr.host(), addr.port()))
            .await
            .map_err(|error| StartError::Listen { addr: addr.to_string(), error })?;
        let secret = config.cluster_secret.clone();
        let (clock, resolver) = (around.clock, around.resolver.clone());
        let peers = Peers::new(addr.clone(), secret.clone(), resolver, clock);
        let (node, me) = (NodeId::new(&addr.to_string()), addr.clone());
        let settings = settings(config, addr);
        let (raft, heard) =
            RaftBroker::start(settings, peers.clone(), clock).await.map_err(StartError::Store)?;
        let broker = Broker::Raft(raft.clone());
        let (inbox, inbound) = talk::inbox();
        let talk = Talk::new(peers, clock, around.events.clone(), broker.clone(), inbox.clone());
        let several = Several::new(raft.clone(), talk.clone(), clock, http);
        let requests = around.requests.clone();
        let listener_side = Listener::new(inbox, requests, clock, broker.clone(), several.clone());
        let answering = raft.clone();
        let answer = move |lane: Lane, body: Vec<u8>| {
            let (raft, listener) = (answering.clone(), listener_side.clone());
            async move {
                match lane {
                    Lane::Raft => raft.answer(&body).await,
                    Lane::Talk => answer_talk(&listener, &body).await,
                }
            }
        };
        let mut stopped = around.stop.subscribe();
        let shutdown = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let serve = tokio::spawn(Peers::serve(listener, me, secret, answer, shutdown));
        let end = tokio::spawn(end_with(raft, several.clone(), Arc::clone(&around.stop)));
        let cluster = Cluster::Several(several);
        Ok((Self { node, broker, heard, inbound, talk: Some(talk), cluster }, vec![serve, end]))
    }
}

async fn answer_talk(listener: &Listener, body: &[u8]) -> Vec<u8> {
    let reply = match serde_json::from_slice::<Ask>(body) {
        Ok(ask) => listener.answer(ask).await,
        Err(error) => Reply::Refused(format!("the message cannot be read: {error}")),
    };
    serde_json::to_vec(&reply).unwrap_or_default()
}

/// A node whose Raft broke down ends: it can neither act nor vote, and whoever supervises it starts it again.
async fn end_with(raft: RaftBroker, cluster: Several, stop: Arc<watch::Sender<bool>>) {
    let (mut ended, mut stopped) = (raft.ended(), stop.subscribe());
    tokio::select! {
        broken = ended.wait_for(Option::is_some) => {
            if let Ok(Some(Ended::Failed(why))) = broken.as_deref() {
                tracing::error!("{why}");
            }
        }
        _ = stopped.wait_for(|stop| *stop) => {}
        () = cluster.meet() => {}
    }
    stop.send_replace(true);
    raft.stop().await;
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
