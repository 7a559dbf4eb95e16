//! Hooks: what is run when something happens to a group. Handlers of the host, scripts and webhooks are one thing here.
//!
//! Before a failover is decided the leader *asks*: [`ask`] does, within a bound, and only an explicit no counts. Everything
//! else is *told*: [`desk`] does, at least once, beside the loop, which never waits for it. What was committed and is still
//! to be told is in the record, so that the next leader tells what the last one could not; what a node only sees is told
//! by it while it lives.
//!
//! `call` is what every kind of hook is told, and `tell` how; `line` is one hook's queue; `shown` is what people see of it.
//! `script` runs scripts, `sights` is what a node tells of what it sees itself, `sentinel` has the words that Sentinel's
//! scripts are used to, `webhook` posts, and `xcodis` and `codis` lead the proxies of those to the new master.

mod ask;
mod call;
mod codis;
mod desk;
mod line;
mod script;
mod sentinel;
mod shown;
mod sights;
mod tell;
mod webhook;
mod xcodis;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::node::GroupName;
use failover_core::record::HookEvent;
use failover_core::view::GroupView;

use crate::config::{Config, Scripts};
pub use call::HookCall;
use codis::Codis;
pub(crate) use desk::{Desk, Surroundings};
use script::{Script, ScriptKind};
pub use shown::HookView;
#[cfg(feature = "http")]
pub(crate) use shown::Shown;
pub(crate) use sights::Sights;
use webhook::Webhook;
use xcodis::Xcodis;

/// Longest reason of a veto or a failure that is kept, in characters.
const REASON_CHARS_MAX: usize = 500;

/// A failover that is about to be decided.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
#[non_exhaustive]
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

/// Whatever went wrong inside a handler; its text is logged and shown, so that it must not have a secret in it.
pub type HandlerError = Box<dyn Error + Send + Sync>;

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, HandlerError>> + Send>>;
type Before = Arc<dyn Fn(FailoverPlan) -> Boxed<Verdict> + Send + Sync>;
type Handler = Arc<dyn Fn(HookCall) -> Boxed<()> + Send + Sync>;

/// One hook: on what it is run, and what is run.
pub(crate) struct Hook {
    /// Unique within the node, and the same on every node: the record knows hooks by it.
    name: String,
    events: BTreeSet<HookEvent>,
    target: Target,
}

enum Target {
    /// The host's, asked before a failover.
    Before(Before),
    /// The host's, told what happened.
    Handler(Handler),
    /// The operator's.
    Script(Script),
    /// Another service.
    Webhook(Webhook),
    /// The proxies of xcodis.
    Xcodis(Box<Xcodis>),
    /// The proxies of codis.
    Codis(Box<Codis>),
}

/// All hooks, in the order in which they were registered.
#[derive(Default)]
pub(crate) struct Hooks {
    all: Vec<Hook>,
}

impl Hooks {
    pub(crate) fn add_before<F, Fut>(&mut self, handler: F)
    where
        F: Fn(FailoverPlan) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Verdict, HandlerError>> + Send + 'static,
    {
        let handler: Before = Arc::new(move |plan| Box::pin(handler(plan)));
        self.add_handler(BTreeSet::from([HookEvent::BeforeFailover]), Target::Before(handler));
    }

    pub(crate) fn add_after<F, Fut>(&mut self, handler: F)
    where
        F: Fn(MasterChange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let events = [HookEvent::AfterFailover, HookEvent::Switchover];
        let handler = Arc::new(handler);
        self.add(events, move |call| {
            let handler = Arc::clone(&handler);
            async move {
                match call.master_change() {
                    Some(change) => handler(change).await,
                    None => Ok(()),
                }
            }
        });
    }

    pub(crate) fn add<F, Fut>(&mut self, events: impl IntoIterator<Item = HookEvent>, handler: F)
    where
        F: Fn(HookCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| Box::pin(handler(call)));
        self.add_handler(events.into_iter().collect(), Target::Handler(handler));
    }

    fn add_handler(&mut self, events: BTreeSet<HookEvent>, target: Target) {
        let name = format!("handler-{}", self.all.len() + 1);
        self.all.push(Hook { name, events, target });
    }

    /// Adds what is configured, behind the host's handlers. Inside a runtime, since some begin to connect.
    ///
    /// # Errors
    /// A sentence, when a group has a name that is none, or a webhook or dashboard cannot be reached from here.
    pub(crate) fn add_configured(&mut self, config: &Config) -> Result<(), String> {
        let of_kind = |kind: ScriptKind, scripts: &Scripts| match kind {
            ScriptKind::Notification => scripts.notification.clone(),
            ScriptKind::ClientReconfig => scripts.client_reconfig.clone(),
            ScriptKind::BeforeFailover => scripts.before_failover.clone(),
        };
        for kind in
            [ScriptKind::BeforeFailover, ScriptKind::ClientReconfig, ScriptKind::Notification]
        {
            let mut script = Script {
                kind,
                default: of_kind(kind, &config.scripts),
                by_group: BTreeMap::new(),
                limits: config.script_limits.clone(),
            };
            for group in &config.groups {
                if let Some(scripts) = &group.scripts {
                    let name = GroupName::new(&group.name)?;
                    script.by_group.insert(name, of_kind(kind, scripts));
                }
            }
            if script.default.is_some() || script.by_group.values().any(Option::is_some) {
                let events = match kind {
                    ScriptKind::BeforeFailover => BTreeSet::from([HookEvent::BeforeFailover]),
                    ScriptKind::ClientReconfig => {
                        BTreeSet::from([HookEvent::AfterFailover, HookEvent::Switchover])
                    }
                    ScriptKind::Notification => told(),
                };
                let name = kind.name().to_owned();
                self.all.push(Hook { name, events, target: Target::Script(script) });
            }
        }
        for webhook in &config.webhooks {
            self.all.push(Hook {
                name: webhook.name.clone(),
                events: webhook.events.clone(),
                target: Target::Webhook(Webhook::new(webhook)?),
            });
        }
        let changes = [HookEvent::AfterFailover, HookEvent::Switchover];
        if !config.xcodis.groups.is_none() {
            let mut events = BTreeSet::from(changes);
            events.extend([HookEvent::BeforeFailover, HookEvent::MasterReturned]);
            let target = Target::Xcodis(Box::new(Xcodis::new(&config.xcodis)));
            self.all.push(Hook { name: "xcodis".to_owned(), events, target });
        }
        if let Some(codis) = Codis::new(&config.codis)? {
            let target = Target::Codis(Box::new(codis));
            self.all.push(Hook { name: "codis".to_owned(), events: changes.into(), target });
        }
        Ok(())
    }

    /// What any of them is to be told.
    pub(crate) fn wanted(&self) -> BTreeSet<HookEvent> {
        self.all.iter().flat_map(|hook| hook.events.iter().copied()).collect()
    }
}

impl Hook {
    fn kind(&self) -> &'static str {
        match &self.target {
            Target::Before(_) | Target::Handler(_) => "handler",
            Target::Script(_) => "script",
            Target::Webhook(_) => "webhook",
            Target::Xcodis(_) => "xcodis",
            Target::Codis(_) => "codis",
        }
    }

    /// Whether it is to be told of this event of a group; `None` is the node itself.
    fn wants(&self, event: HookEvent, group: Option<&GroupName>) -> bool {
        self.events.contains(&event)
            && match &self.target {
                Target::Before(_) | Target::Handler(_) => true,
                Target::Script(script) => script.path(group).is_some(),
                Target::Webhook(webhook) => webhook.is_of(group),
                Target::Xcodis(xcodis) => group.is_some_and(|group| xcodis.groups.contains(group)),
                Target::Codis(codis) => group.is_some_and(|group| codis.groups.contains(group)),
            }
    }

    /// Whether it is run on every node that hears of a new master, as Sentinel's is, and not on the leader alone.
    fn observes(&self) -> bool {
        matches!(&self.target, Target::Script(script) if script.kind == ScriptKind::ClientReconfig)
    }

    /// Looks ahead for what is wrong with its groups, so that somebody knows by day. `None` when that cannot be said now, as
    /// when a master changed meanwhile.
    async fn objections(&self, groups: &crate::shown::Shown) -> Option<Vec<String>> {
        let look = || -> Vec<Arc<GroupView>> {
            let all = groups.groups().into_iter();
            all.filter(|group| self.wants(HookEvent::AfterFailover, Some(&group.name))).collect()
        };
        let before = look();
        let found = match &self.target {
            Target::Xcodis(xcodis) => xcodis.objections(&before).await?,
            Target::Codis(codis) => codis.objections(&before).await,
            Target::Before(_) | Target::Handler(_) | Target::Script(_) | Target::Webhook(_) => {
                return None;
            }
        };
        let after = look();
        let masters = before.iter().map(|group| (&group.name, &group.master));
        let are_same = masters.eq(after.iter().map(|group| (&group.name, &group.master)));
        are_same.then_some(found)
    }

    /// Ends what it has to do with others, within this time.
    async fn close(&self, limit: Duration) {
        match &self.target {
            Target::Xcodis(xcodis) => xcodis.close(limit).await,
            Target::Before(_)
            | Target::Handler(_)
            | Target::Script(_)
            | Target::Webhook(_)
            | Target::Codis(_) => {}
        }
    }

    /// Whether clients go on writing to the old master until it was told.
    fn leads_proxies(&self) -> bool {
        matches!(&self.target, Target::Xcodis(_) | Target::Codis(_))
    }

    fn is_script(&self) -> bool {
        matches!(&self.target, Target::Script(_))
    }
}

/// Everything that is told, and not asked.
fn told() -> BTreeSet<HookEvent> {
    HookEvent::ALL.into_iter().filter(|event| *event != HookEvent::BeforeFailover).collect()
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all.iter().map(|hook| &hook.name)).finish()
    }
}

/// A text that somebody else wrote, short and without what would garble a log.
fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(clean).take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
