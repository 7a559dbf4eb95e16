//! The task of one instance: it owns the connections to it, asks when the core wants to know, and reports each outcome.
//!
//! It keeps no timer of its own but those of connecting and of a command: when to ask and when silence counts is the
//! core's. A probe is a wish that a newer one replaces; a command is an order that is carried out in turn.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use failover_core::action::Command;
use failover_core::addr::Addr;
use failover_core::event::{CommandId, CommandResult, Event, Health, ProbeSeq, Probed};
use failover_core::node::{GroupName, Token};
use failover_core::time::Time;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use super::command::{Answered, WARM, carry_out, fault_before};
use super::connection::{Broken, Connection, Login, Taken};
use super::dial::{ConnectError, connect};
use crate::broker::Broker;
use crate::clock::Clock;
use crate::events::Events;
use crate::fault;
use crate::resolve::Resolver;

/// How long a fresh connection may stay silent until another one is opened in its place; longer than connecting takes.
const FRESH_AGE_MAX: Duration = Duration::from_millis(1500);

/// A command for an instance.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) command: Command,
    pub(crate) token: Token,
    pub(crate) deadline: Time,
    pub(crate) by: OrderedBy,
}

/// Who ordered a command, and hears how it ended.
#[derive(Debug)]
pub(crate) enum OrderedBy {
    /// This node's own loop, for a group, under a number.
    Loop(GroupName, CommandId),
    /// The leader, which cannot reach the instance itself.
    Leader(oneshot::Sender<CommandResult>),
}

/// The driver's end of an instance's task; dropping it ends the task and its connections.
#[derive(Debug)]
pub(crate) struct Instance {
    slot: Arc<Slot>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Slot {
    wish: Mutex<Wish>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Wish {
    probe: Option<(ProbeSeq, bool)>,
    orders: VecDeque<Order>,
}

impl Instance {
    /// Starts the task. Nothing is asked yet.
    pub(crate) fn start(
        addr: Addr,
        login: Login,
        clock: Clock,
        events: Events,
        broker: Broker,
        resolver: Resolver,
    ) -> Self {
        let slot = Arc::new(Slot::default());
        let task = Task {
            addr,
            login,
            clock,
            events,
            broker,
            resolver,
            slot: Arc::clone(&slot),
            main: None,
            fresh: None,
        };
        Self { slot, task: tokio::spawn(task.run()).abort_handle() }
    }

    /// Asks how it is; a probe that was not sent yet is replaced.
    pub(crate) fn probe(&self, seq: ProbeSeq, fresh: bool) {
        let mut wish = self.slot.wish.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = fresh || wish.probe.is_some_and(|(_, fresh)| fresh);
        wish.probe = Some((seq, fresh));
        drop(wish);
        self.slot.wake.notify_one();
    }

    /// Whether its task ended, which it does only when something in it broke.
    pub(crate) fn ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Orders a change.
    pub(crate) fn order(&self, order: Order) {
        let mut wish = self.slot.wish.lock().unwrap_or_else(PoisonError::into_inner);
        wish.orders.push_back(order);
        drop(wish);
        self.slot.wake.notify_one();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    addr: Addr,
    login: Login,
    clock: Clock,
    events: Events,
    broker: Broker,
    resolver: Resolver,
    slot: Arc<Slot>,
    /// The connection on which it last replied.
    main: Option<Box<Connection>>,
    /// A younger one, asked beside it because it is silent, or before there is one.
    fresh: Option<Fresh>,
}

struct Fresh {
    seq: ProbeSeq,
    begun: Time,
    state: FreshState,
}

enum FreshState {
    Connecting(Pin<Box<dyn Future<Output = Result<Box<Connection>, ConnectError>> + Send>>),
    Open(Box<Connection>),
}

/// What a connection yielded.
enum Yield {
    Connected(Result<Box<Connection>, ConnectError>),
    Frame(Result<super::resp::Frame, Broken>),
}

impl Task {
    async fn run(mut self) {
        loop {
            let (probe, order) = {
                let mut wish = self.slot.wish.lock().unwrap_or_else(PoisonError::into_inner);
                (wish.probe.take(), wish.orders.pop_front())
            };
            if let Some((seq, fresh)) = probe {
                self.ask(seq, fresh).await;
            }
            if let Some(order) = order {
                // Commands are rare, and without the box each of thousands of tasks would keep room for one.
                Box::pin(self.obey(order)).await;
                continue;
            }
            tokio::select! {
                () = self.slot.wake.notified() => {}
                received = receive(&mut self.main) => self.main_yields(received).await,
                received = advance(&mut self.fresh) => self.fresh_yields(received).await,
            }
        }
    }

    async fn ask(&mut self, seq: ProbeSeq, fresh: bool) {
        if let Some(main) = self.main.as_mut().filter(|_| !fresh) {
            if main.ask(seq, self.clock.now()).await.is_err() {
                self.main = None;
                self.send(Event::Ended { addr: self.addr.clone() }).await;
            }
            return;
        }
        match &mut self.fresh {
            // One that is being opened, or was opened a moment ago, is as good as another: more of them would only fill
            // the server's backlog. One that is silent for long may have lost whoever was behind it.
            Some(fresh) if self.clock.now().since(fresh.begun) < FRESH_AGE_MAX => fresh.seq = seq,
            Some(_) | None => {
                let state = FreshState::Connecting(Box::pin(connect(
                    self.addr.clone(),
                    self.resolver.clone(),
                )));
                self.fresh = Some(Fresh { seq, begun: self.clock.now(), state });
            }
        }
    }

    async fn main_yields(&mut self, mut received: Result<super::resp::Frame, Broken>) {
        let taken = loop {
            let Some(main) = &mut self.main else { return };
            let taken = received.and_then(|frame| main.take(frame, self.clock.now()));
            if !matches!(taken, Ok(Taken::Nothing)) {
                break taken;
            }
            let Some(next) = main.received() else { return };
            received = next;
        };
        match taken {
            Ok(Taken::Probe(seq, outcome)) => {
                self.fresh = None;
                if !lets_us_in(&outcome) {
                    self.main = None;
                }
                self.probed(seq, outcome).await;
            }
            Ok(Taken::Nothing | Taken::Command(_)) => {}
            Err(Broken::Ended | Broken::TurnedAway(_)) => {
                self.main = None;
                self.send(Event::Ended { addr: self.addr.clone() }).await;
            }
            Err(Broken::Garbage(what)) => {
                self.main = None;
                // It stands for every question that is open on the connection.
                self.probed(ProbeSeq::MAX, Probed::Garbage(what)).await;
            }
        }
    }

    async fn fresh_yields(&mut self, received: Yield) {
        let Some(fresh) = &mut self.fresh else { return };
        let seq = fresh.seq;
        let outcome = match (received, &mut fresh.state) {
            (Yield::Connected(Ok(mut connection)), _) => {
                let greeted = connection.greet(&self.login, seq, self.clock.now()).await;
                fresh.state = FreshState::Open(connection);
                self.send(Event::Accepted { addr: self.addr.clone() }).await;
                match greeted {
                    Ok(()) => return,
                    Err(_) => Probed::Ended,
                }
            }
            // While an older connection stands, a refused new one says nothing of the process behind it.
            (Yield::Connected(Err(ConnectError::Refused)), _) if self.main.is_some() => {
                Probed::Unreachable(
                    "new connections are refused, while the old one has not ended".to_owned(),
                )
            }
            (Yield::Connected(Err(ConnectError::Refused)), _) => Probed::Refused,
            (Yield::Connected(Err(ConnectError::Ours(why))), _) => Probed::NotAsked(why),
            (Yield::Connected(Err(ConnectError::Unreachable(why))), _) => Probed::Unreachable(why),
            (Yield::Connected(Err(ConnectError::Unresolved(why))), _) => Probed::Unresolved(why),
            (Yield::Frame(frame), FreshState::Open(connection)) => {
                match frame.and_then(|frame| connection.take(frame, self.clock.now())) {
                    Ok(Taken::Probe(_, outcome)) => {
                        let younger = self.fresh.take();
                        self.main = None;
                        if let Some(Fresh { state: FreshState::Open(mut connection), .. }) = younger
                            && lets_us_in(&outcome)
                        {
                            // Its end is noticed by whoever reads next.
                            let _ = connection.introduce().await;
                            self.main = Some(connection);
                        }
                        self.probed(seq, outcome).await;
                        return;
                    }
                    Ok(Taken::Nothing | Taken::Command(_)) => return,
                    Err(Broken::Ended) => Probed::Ended,
                    Err(Broken::Garbage(what)) => Probed::Garbage(what),
                    Err(Broken::TurnedAway(health)) => {
                        Probed::Replied { health, facts: None, socket: None }
                    }
                }
            }
            (Yield::Frame(_), FreshState::Connecting(_)) => return,
        };
        self.fresh = None;
        self.probed(seq, outcome).await;
    }

    async fn obey(&mut self, order: Order) {
        let deadline = self.clock.instant(order.deadline);
        let mut answered = Answered::new();
        let mut written = false;
        let result =
            tokio::time::timeout_at(deadline, self.execute(&order, &mut answered, &mut written))
                .await;
        let result = match (result, written) {
            (Ok(result), _) => result,
            (Err(_), true) => {
                CommandResult::Unknown("no reply came before the deadline".to_owned())
            }
            (Err(_), false) => CommandResult::Refused(
                "the instance did not answer before the deadline; the command was not sent"
                    .to_owned(),
            ),
        };
        if matches!(result, CommandResult::Unknown(_)) {
            // Replies that come late would be taken for those to newer questions.
            self.main = None;
        }
        for taken in answered {
            if let Taken::Probe(seq, outcome) = taken {
                self.probed(seq, outcome).await;
            }
        }
        match order.by {
            OrderedBy::Loop(group, id) => self.send(Event::Commanded { group, id, result }).await,
            // A leader that waits no longer takes it for unknown.
            OrderedBy::Leader(waiting) => drop(waiting.send(result)),
        }
    }

    async fn execute(
        &mut self,
        order: &Order,
        answered: &mut Answered,
        written: &mut bool,
    ) -> CommandResult {
        let late = || CommandResult::NotSent("its time was over".to_owned());
        if self.clock.now() >= order.deadline {
            // It waited here, or this node stood still: the instance was not even asked.
            return late();
        }
        if let Err(why) = self.warm(answered).await {
            // What is left of it cannot be told from a connection that works.
            self.main = None;
            return CommandResult::Refused(format!("{why}; the command was not sent"));
        }
        let point = fault_before(&order.command);
        if let Err(why) = fault::point(point).await {
            return CommandResult::Refused(why);
        }
        let broker = self.broker.clone();
        let allowed = || match order.by {
            OrderedBy::Loop(..) => broker.allows(order.token),
            OrderedBy::Leader(_) => broker.allows_leader(order.token),
        };
        if !allowed() {
            let why = "the leadership under which it was decided is over, or its lease ran out";
            return CommandResult::NotSent(why.to_owned());
        }
        if self.clock.now() >= order.deadline {
            return late();
        }
        let Some(main) = &mut self.main else {
            let why = "the connection ended; the command was not sent";
            return CommandResult::Refused(why.to_owned());
        };
        *written = true;
        let result = carry_out(main, &order.command, &self.clock, &allowed, answered).await;
        if point != "before-repoint" {
            return result;
        }
        match fault::point("after-first-repoint").await {
            Ok(()) => result,
            Err(why) => CommandResult::Unknown(why),
        }
    }

    /// Makes sure that the connection answered a moment ago.
    async fn warm(&mut self, answered: &mut Answered) -> Result<(), String> {
        let now = self.clock.now();
        let last_reply = self.main.as_ref().and_then(|main| main.last_reply());
        if last_reply.is_some_and(|at| now.since(at) <= WARM) {
            return Ok(());
        }
        let broken = |broken| match broken {
            Broken::Ended => "the connection ended".to_owned(),
            Broken::Garbage(what) => what,
            Broken::TurnedAway(_) => "the server turns every client away".to_owned(),
        };
        let is_new = self.main.is_none();
        if is_new {
            let opened = connect(self.addr.clone(), self.resolver.clone()).await;
            let mut connection = opened.map_err(|error| match error {
                ConnectError::Refused => "its host refuses connections".to_owned(),
                ConnectError::Ours(why)
                | ConnectError::Unreachable(why)
                | ConnectError::Unresolved(why) => why,
            })?;
            connection.greet(&self.login, 0, now).await.map_err(broken)?;
            self.main = Some(connection);
        } else if let Some(main) = &mut self.main {
            main.ask(0, now).await.map_err(broken)?;
        }
        while let Some(main) = &mut self.main {
            let frame = main.receive().await.map_err(broken)?;
            let taken = main.take(frame, self.clock.now()).map_err(broken)?;
            let asked_here = matches!(taken, Taken::Probe(0, _));
            answered.push(taken);
            if asked_here {
                return if is_new { main.introduce().await.map_err(broken) } else { Ok(()) };
            }
        }
        Err("the connection ended".to_owned())
    }

    async fn probed(&mut self, seq: ProbeSeq, outcome: Probed) {
        self.send(Event::Probed { addr: self.addr.clone(), seq, outcome }).await;
    }

    async fn send(&mut self, event: Event) {
        self.events.send(event).await;
    }
}

/// A login holds for a connection: one that failed is tried again on another, or a password that was set right later
/// would never be noticed.
fn lets_us_in(outcome: &Probed) -> bool {
    !matches!(outcome, Probed::Replied { health: Health::Auth(_), .. })
}

async fn receive(main: &mut Option<Box<Connection>>) -> Result<super::resp::Frame, Broken> {
    match main {
        Some(main) => main.receive().await,
        None => std::future::pending().await,
    }
}

async fn advance(fresh: &mut Option<Fresh>) -> Yield {
    match fresh.as_mut().map(|fresh| &mut fresh.state) {
        Some(FreshState::Connecting(connecting)) => Yield::Connected(connecting.await),
        Some(FreshState::Open(connection)) => Yield::Frame(connection.receive().await),
        None => std::future::pending().await,
    }
}
