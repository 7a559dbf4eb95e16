//! The embedding API: everything the daemon does, inside another program.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::{Answer, Event, GroupSpec, Request};
use failover_core::fleet::Policies;
use failover_core::journal::Recorded;
use failover_core::node::{GroupName, NodeId};
use failover_core::notice::Notice;
use failover_core::record::HookEvent;
use failover_core::view::GroupView;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{BrokerKind, Config, ConfigError, Credentials, ListenAddr, SavedState};
use crate::doctor::Doctor;
use crate::driver::{Driver, FIRST_REQUEST, Logins};
use crate::events::Events;
use crate::hooks::{
    self, Desk, FailoverPlan, HandlerError, HookCall, HookView, Hooks, MasterChange, Sights,
    Verdict,
};
#[cfg(feature = "http")]
use crate::http;
use crate::journal::Journal;
use crate::logged::Unsaid;
use crate::member::{self, Member, Surroundings};
use crate::redis::Login;
use crate::requests::Requests;
use crate::resolve::Resolver;
use crate::room::room;
use crate::shown::Shown;

mod requests;

pub use requests::Refused;

/// Notices that a slow subscriber may be behind before it loses the oldest.
const NOTICES_MAX: usize = 1024;

/// How long `stop` waits for hooks that are being told.
const HOOKS_STOP_LIMIT: Duration = Duration::from_secs(5);

/// Why the program could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address for HTTP cannot be listened on.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// The address that was asked for.
        addr: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// What is stored cannot be read or written, or is another node's.
    #[error("{0}")]
    Store(String),
    /// Scripts or webhooks cannot be set up.
    #[error("{0}")]
    Hooks(String),
    /// The configured groups were refused.
    #[error("the configured groups were refused: {0}")]
    Groups(String),
}

/// Collects settings and handlers before the start.
///
/// ```no_run
/// use redis_failover::{Guard, Verdict, config::Config};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config { addr: None, ..Config::default() };
/// let guard = Guard::builder(config)
///     .before_failover(|plan| async move {
///         println!("{} would replace {}", plan.candidate, plan.old_master);
///         Ok(Verdict::Allow)
///     })
///     .after_failover(|change| async move {
///         println!("{} is the master of {} now", change.new_master, change.group);
///         Ok(())
///     })
///     .start()
///     .await?;
/// guard.add_masters(vec!["127.0.0.1:6379".parse()?]).await?;
/// println!("{:?}", guard.masters());
/// guard.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Builder {
    config: Config,
    hooks: Hooks,
    notices: broadcast::Sender<Notice>,
}

impl Builder {
    /// Registers a handler that is asked on the leader before a failover is decided. Handlers are asked in the order of
    /// their registration, all together within `before_failover_timeout`. Only an explicit veto stops the failover; an
    /// error, a panic or a time-out is logged and passed over.
    #[must_use]
    pub fn before_failover<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(FailoverPlan) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Verdict, HandlerError>> + Send + 'static,
    {
        self.hooks.add_before(handler);
        self
    }

    /// Registers a handler that is told on the leader when a master was replaced, by a failover, a switchover or by hand:
    /// verified, recorded, and already shown to whoever asks. It is [`Builder::on`] for these; a host that has to know on
    /// every node subscribes.
    #[must_use]
    pub fn after_failover<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(MasterChange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.hooks.add_after(handler);
        self
    }

    /// Registers a handler that is told on the leader when something happened.
    ///
    /// At least once: an error, a panic or a time-out of 60 s is logged and the handler told again, after 1 s, 2 s, 4 s
    /// and so on up to every 5 minutes, for a day. What this node cannot tell the next leader does, and when the leader
    /// changes in between both may: [`HookCall::id`] is the same then. Of one group a handler is told one thing at a time
    /// and first in order; another try may come after something newer, which [`HookCall::epoch`] shows. No handler delays
    /// a failover or another handler.
    ///
    /// ```no_run
    /// # use redis_failover::{Guard, HookEvent, config::Config};
    /// let builder = Guard::builder(Config::default()).on(
    ///     [HookEvent::Halted, HookEvent::FailoverFailed],
    ///     |call| async move {
    ///         eprintln!("somebody has to look at {:?}: {}", call.group, call.reason);
    ///         Ok(())
    ///     },
    /// );
    /// ```
    #[must_use]
    pub fn on<F, Fut>(mut self, events: impl IntoIterator<Item = HookEvent>, handler: F) -> Self
    where
        F: Fn(HookCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.hooks.add(events, handler);
        self
    }

    /// Everything that is told from the very start on; [`Guard::subscribe`] misses what was told before it was called.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Starts to guard, inside the runtime of the caller. When it returns, the configured groups are guarded and shown,
    /// though no server may have answered yet.
    ///
    /// Each instance takes a connection, and a second one while it is in doubt. How many files and connections the process
    /// may have open belongs to the host, and is left as it is: raise it before (`RLIMIT_NOFILE`), as the program does.
    /// Groups that do not fit below it are refused.
    ///
    /// # Errors
    /// When the settings do not fit together, the configured groups do not fit into this process, or the address for HTTP
    /// cannot be listened on. Nothing goes on then.
    pub async fn start(self) -> Result<Guard, StartError> {
        let Self { mut config, mut hooks, notices } = self;
        config.validate()?;
        config.settle();
        hooks.add_configured(&config).map_err(StartError::Hooks)?;
        let listener = match &config.addr {
            Some(addr) => Some(listen(addr).await?),
            None => None,
        };
        let (events, lanes) = Events::lanes();
        let (requests, requests_end) = Requests::channel();
        let stop = Arc::new(watch::Sender::new(false));
        let around = Surroundings {
            clock: Clock::start(),
            resolver: Resolver::new(),
            events,
            requests,
            stop,
        };
        let wanted = wanted(&config)?;
        let http_addr = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let http = http_addr.filter(|addr| !addr.ip().is_unspecified()).map(Addr::from);
        let (member, mut tasks) = match config.broker {
            BrokerKind::None => (Member::alone(NodeId::new(&config.node), http), Vec::new()),
            BrokerKind::Raft | BrokerKind::Zk | BrokerKind::Etcd => {
                Member::of_several(&config, &around, http).await?
            }
        };
        let Member { node, broker, heard, inbound, talk, cluster } = member;
        let Surroundings { clock, resolver, events, requests, stop } = around;
        let shown = Arc::new(Shown::new(node.clone(), broker.clone(), clock));
        let (mut policies, logins) = (policies(&config)?, logins(&config)?);
        policies.told = hooks.wanted();
        let (desk, work) = Desk::open(
            hooks,
            hooks::Surroundings {
                node: node.clone(),
                clock,
                broker: broker.clone(),
                events: events.clone(),
                groups: Arc::clone(&shown),
                stop: stop.subscribe(),
            },
        );
        tasks.push(tokio::spawn(work));
        let doctor = Doctor::new(clock, resolver.clone(), logins.clone(), policies.clone());
        let mut first = broker.first_events();
        match wanted {
            None => {}
            // Whoever leads is to be found first.
            Some(wanted) if first.is_empty() => {
                let register = member::register(requests.clone(), wanted, Arc::clone(&stop));
                tasks.push(tokio::spawn(register));
            }
            Some(wanted) => first.push(Event::Request { id: FIRST_REQUEST, request: wanted }),
        }
        let journal = Journal::wanted(&config.journal).map_err(StartError::Store)?;
        let driver = Driver {
            fleet: Recorded::new(node, policies, journal),
            clock,
            broker,
            logins,
            resolver,
            events,
            lanes,
            requests: requests_end,
            heard,
            inbound,
            talk,
            shown: Arc::clone(&shown),
            hooks: desk.clone(),
            sights: Sights::default(),
            unsaid: Unsaid::default(),
            notices: notices.clone(),
        };
        let (answered, answer) = oneshot::channel();
        let (running, ended) = watch::channel(());
        let run = driver.run(first, answered, stop.subscribe());
        tasks.push(tokio::spawn(async move {
            // Dropped when the loop ends, also when something in it panics.
            let _running = running;
            run.await;
        }));
        // Whoever asks from here on finds the configured groups. A broker that has to be waited for gives no answer yet.
        if let Ok(Answer::Refused { message, .. }) = answer.await {
            return Err(StartError::Groups(message));
        }
        #[cfg(feature = "http")]
        let http = http::Context::new(Arc::clone(&shown), requests.clone(), cluster, doctor)
            .with_hooks(desk.shown().clone());
        #[cfg(feature = "http")]
        if let Some(listener) = listener {
            let mut stopped = stop.subscribe();
            tasks.push(tokio::spawn(http::serve(listener, http.clone(), async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            })));
        }
        // Without it there is no listener, see `Config::validate`.
        #[cfg(not(feature = "http"))]
        drop((listener, cluster, doctor));
        Ok(Guard {
            requests,
            shown,
            desk,
            notices,
            stop,
            tasks,
            ended,
            http_addr,
            #[cfg(feature = "http")]
            http,
        })
    }
}

/// A running guard.
#[derive(Debug)]
pub struct Guard {
    requests: Requests,
    shown: Arc<Shown>,
    desk: Desk,
    notices: broadcast::Sender<Notice>,
    stop: Arc<watch::Sender<bool>>,
    tasks: Vec<JoinHandle<()>>,
    ended: watch::Receiver<()>,
    http_addr: Option<SocketAddr>,
    #[cfg(feature = "http")]
    http: http::Context,
}

impl Guard {
    /// Begins to set one up.
    pub fn builder(config: Config) -> Builder {
        let (notices, _) = broadcast::channel(NOTICES_MAX);
        Builder { config, hooks: Hooks::default(), notices }
    }

    /// The recorded masters of all groups, in the order of the groups' names.
    pub fn masters(&self) -> Vec<Addr> {
        self.shown.groups().iter().map(|group| group.master.clone()).collect()
    }

    /// All groups as they are now; cheap, nothing is asked.
    pub fn groups(&self) -> Vec<Arc<GroupView>> {
        self.shown.groups()
    }

    /// One group, by its name or its master's address; cheap, nothing is asked.
    ///
    /// ```no_run
    /// # use redis_failover::{Addr, Guard};
    /// # fn dial(_: &Addr) {}
    /// # fn example(guard: &Guard) {
    /// if let Some(group) = guard.group("sessions") {
    ///     dial(&group.master);
    /// }
    /// # }
    /// ```
    pub fn group(&self, name_or_master: &str) -> Option<Arc<GroupView>> {
        self.shown.group(name_or_master)
    }

    /// Everything that is told from now on. A receiver that is too slow loses the oldest and is told how many.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Every hook of this node, and how it fares: handlers in the order of their registration, then scripts and
    /// webhooks. The same as `GET /v1/hooks`.
    pub fn hooks(&self) -> Vec<HookView> {
        self.desk.shown().views()
    }

    /// What is served at [`Config::addr`], to be mounted into a server of the host: `/master` and everything below `/v1`.
    /// It has no login of its own and can fail masters over.
    ///
    /// ```no_run
    /// # use redis_failover::Guard;
    /// # fn example(guard: &Guard) -> axum::Router {
    /// axum::Router::new().nest("/redis", guard.router())
    /// # }
    /// ```
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn router(&self) -> axum::Router {
        http::router(self.http.clone())
    }

    /// The node that acts, as far as this one knows; `None` while nobody is known to.
    pub fn leader(&self) -> Option<NodeId> {
        self.shown.leader()
    }

    /// The name of this node.
    pub fn node(&self) -> NodeId {
        self.shown.node().clone()
    }

    /// Where HTTP is served, with the real port.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Completes when the guard has ended without having been stopped, which it does only when something in it broke.
    /// Nothing is guarded from then on: start another, or end the process so that its supervisor does.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// Stops, and returns when everything has ended. The servers stay as they are. Hooks that are being told, or are
    /// to be for the first time, are waited for, at most 5 s.
    pub async fn stop(mut self) {
        self.desk.finish(HOOKS_STOP_LIMIT).await;
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
    }
}

impl Drop for Guard {
    /// A guard that is dropped without `stop` ends as well, a moment later.
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

async fn listen(addr: &ListenAddr) -> Result<TcpListener, StartError> {
    let mut failed = None;
    for candidate in addr.to_bind() {
        match TcpListener::bind(&candidate).await {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = Some(error),
        }
    }
    let error = failed.unwrap_or_else(|| std::io::Error::other("it names no address"));
    Err(StartError::Listen { addr: addr.to_string(), error })
}

/// What the configuration asks for: to guard its groups too, or no others. `None`: nothing.
fn wanted(config: &Config) -> Result<Option<Request>, StartError> {
    let specs = specs(config)?;
    if specs.is_empty() {
        // A list that was left out is no wish to guard nothing.
        return Ok(None);
    }
    Ok(Some(match config.masters_state {
        SavedState::New => Request::Replace(specs),
        SavedState::Existing => Request::Add(specs),
    }))
}

fn specs(config: &Config) -> Result<Vec<GroupSpec>, StartError> {
    config
        .all_groups()
        .map(|group| {
            let name = GroupName::new(&group.name).map_err(StartError::Groups)?;
            Ok(GroupSpec { name: Some(name), master: group.master, replicas: group.replicas })
        })
        .collect()
}

fn policies(config: &Config) -> Result<Policies, StartError> {
    let default = config.policy.clone();
    let mut policies = Policies { default, room: room(), ..Policies::default() };
    for group in &config.groups {
        if let Some(policy) = &group.policy {
            let name = GroupName::new(&group.name).map_err(StartError::Groups)?;
            policies.by_group.insert(name, policy.clone());
        }
    }
    Ok(policies)
}

fn logins(config: &Config) -> Result<Logins, StartError> {
    let login = |credentials: &Credentials| Login {
        user: credentials.user.clone(),
        password: credentials.password.clone(),
    };
    let mut logins = Logins { default: login(&config.credentials), ..Logins::default() };
    for group in &config.groups {
        if let Some(credentials) = &group.credentials {
            let name = GroupName::new(&group.name).map_err(StartError::Groups)?;
            logins.by_group.insert(name, login(credentials));
        }
    }
    Ok(logins)
}
