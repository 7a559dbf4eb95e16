//! Handlers of the embedding host: asked before a failover is decided, told after a master changed.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::node::GroupName;

/// A failover that is about to be decided.
#[derive(Clone, Debug)]
pub struct FailoverPlan {
    /// The group concerned.
    pub group: GroupName,
    /// The dead master.
    pub old_master: Addr,
    /// The replica that would be promoted.
    pub candidate: Addr,
    /// Why, in one sentence.
    pub reason: String,
}

/// What a before-failover handler says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Do not fail over now, for this reason. The group is asked again after `failover_timeout`.
    Veto(String),
}

/// A master that was replaced: verified and recorded.
#[derive(Clone, Debug)]
pub struct MasterChange {
    /// The group concerned.
    pub group: GroupName,
    /// The master before.
    pub old_master: Addr,
    /// The master now.
    pub new_master: Addr,
    /// The epoch of the change: of two changes of one group the higher is the newer.
    pub epoch: u64,
}

/// Whatever went wrong inside a handler.
pub type HandlerError = Box<dyn Error + Send + Sync>;

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, HandlerError>> + Send>>;
type Before = Arc<dyn Fn(FailoverPlan) -> Boxed<Verdict> + Send + Sync>;
type After = Arc<dyn Fn(MasterChange) -> Boxed<()> + Send + Sync>;

/// An after-failover handler that takes longer is given up on.
const AFTER_TIMEOUT: Duration = Duration::from_secs(60);

/// All handlers, in the order in which they were registered.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    before: Vec<Before>,
    after: Vec<After>,
}

impl Hooks {
    pub(crate) fn add_before<F, Fut>(&mut self, handler: F)
    where
        F: Fn(FailoverPlan) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Verdict, HandlerError>> + Send + 'static,
    {
        self.before.push(Arc::new(move |plan| Box::pin(handler(plan))));
    }

    pub(crate) fn add_after<F, Fut>(&mut self, handler: F)
    where
        F: Fn(MasterChange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.after.push(Arc::new(move |change| Box::pin(handler(change))));
    }

    pub(crate) fn nobody_to_ask(&self) -> bool {
        self.before.is_empty()
    }

    /// Asks all handlers in order, until one says no or the time is over. Only an explicit veto counts: a handler that
    /// fails, panics or is late is logged and passed over, since a broken handler must not keep a group without master.
    pub(crate) async fn ask(
        &self,
        plan: FailoverPlan,
        deadline: tokio::time::Instant,
    ) -> Option<String> {
        for (index, handler) in self.before.iter().enumerate() {
            let group = plan.group.clone();
            // Called in a task of its own, so that a panic ends there, also one before the first await.
            let (handler, plan) = (Arc::clone(handler), plan.clone());
            let mut task = tokio::spawn(async move { handler(plan).await });
            match tokio::time::timeout_at(deadline, &mut task).await {
                Ok(Ok(Ok(Verdict::Allow))) => {}
                Ok(Ok(Ok(Verdict::Veto(reason)))) => return Some(reason),
                Ok(Ok(Err(error))) => {
                    tracing::warn!(%group, "before-failover handler {index} failed and is passed over: {error}");
                }
                Ok(Err(_)) => {
                    tracing::warn!(%group, "before-failover handler {index} panicked and is passed over");
                }
                Err(_) => {
                    task.abort();
                    tracing::warn!(%group, "before-failover handler {index} took too long and is passed over, with all after it");
                    return None;
                }
            }
        }
        None
    }

    /// Tells all handlers in order, beside everything else.
    pub(crate) fn tell(&self, change: &MasterChange) {
        if self.after.is_empty() {
            return;
        }
        let (handlers, change) = (self.after.clone(), change.clone());
        tokio::spawn(async move {
            for (index, handler) in handlers.iter().enumerate() {
                let group = &change.group;
                let (handler, change) = (Arc::clone(handler), change.clone());
                let mut task = tokio::spawn(async move { handler(change).await });
                match tokio::time::timeout(AFTER_TIMEOUT, &mut task).await {
                    Ok(Ok(Ok(()))) => {}
                    Ok(Ok(Err(error))) => {
                        tracing::warn!(%group, "after-failover handler {index} failed: {error}");
                    }
                    Ok(Err(_)) => tracing::warn!(%group, "after-failover handler {index} panicked"),
                    Err(_) => {
                        task.abort();
                        tracing::warn!(%group, "after-failover handler {index} took longer than {} s and was given up", AFTER_TIMEOUT.as_secs());
                    }
                }
            }
        });
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks")
            .field("before", &self.before.len())
            .field("after", &self.after.len())
            .finish()
    }
}
