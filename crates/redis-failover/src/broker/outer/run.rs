//! The life of a node with its store: session after session, and what each of them hears.

use std::sync::Arc;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::event::Event;
use failover_core::node::{Leadership, NodeId};
use failover_core::time::Time;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::groups::{Groups, put};
use super::layout::{self, LeaderInfo, Place};
use super::store::{Expect, Fence, Item, News, NotWritten, Session, Update, Watch};
use super::write::{Proposal, Writer};
use super::{OuterBroker, lock};
use crate::broker::Ended;

/// How often it is looked whether this node may still act.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a session may take to begin.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long everything may take to be read.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause until a session is tried again, the first and the longest.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Most proposals that wait in parts; the others wait in their queue.
const WAITING_MAX: usize = 1024;
/// How long a single value may take to be written.
const NOTE_TIMEOUT: Duration = Duration::from_secs(2);
/// A trouble that lasts is said again after this.
const SAY_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes of a secret that nobody gave.
const SECRET_BYTES: usize = 32;

/// What outlasts a session.
struct Heard {
    groups: Groups,
    leadership: Leadership,
    voters: Vec<NodeId>,
    /// The last thing said of a trouble.
    said: Option<(String, Time)>,
    /// Whether this node saw to its place among the members in this run.
    joined: bool,
}

impl Heard {
    /// Nothing yet, which the driver knows.
    fn nothing() -> Self {
        Self {
            groups: Groups::default(),
            leadership: Leadership::None,
            voters: Vec::new(),
            said: None,
            joined: false,
        }
    }
}

/// A session, and what happens in it.
struct Served {
    session: Arc<Session>,
    watch: Watch,
    own: Fence,
    writer: Writer,
    /// Whether this node, which leads, has said so.
    is_announced: bool,
    /// Whether this node, which came first, is proving that it leads.
    is_proving: bool,
}

impl OuterBroker {
    /// Goes from session to session until it is told to stop.
    pub(super) async fn run(self, mut proposals: mpsc::Receiver<Proposal>) {
        let mut heard = Heard::nothing();
        let mut pause = RETRY_MIN;
        let mut stopping = self.0.stopping.subscribe();
        loop {
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = stopped(&mut stopping) => break,
            };
            match opened {
                Ok(mut served) => {
                    let began = self.0.clock.now();
                    let end = self.serve(&mut served, &mut heard, &mut proposals).await;
                    self.end_session(served, &mut heard, &mut proposals, &end).await;
                    // One that ends as soon as it has begun is no reason to hurry.
                    if self.0.clock.now().since(began) >= RETRY_MAX {
                        pause = RETRY_MIN;
                    }
                    match end {
                        Some(why) => self.say(&mut heard, why),
                        None => break,
                    }
                }
                Err(why) => self.say(&mut heard, why),
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                () = stopped(&mut stopping) => break,
            }
        }
        self.0.ended.send_replace(Some(Ended::Stopped));
    }

    async fn open(&self) -> Result<Served, String> {
        let settings = &self.0.settings;
        let late = |_| {
            let ms = OPEN_TIMEOUT.as_millis();
            format!("{} did not begin a session within {ms} ms", settings.place.name())
        };
        let open = Session::open(&settings.place);
        let (session, watch) = timeout(OPEN_TIMEOUT, open).await.map_err(late)??;
        let announce = session.announce(&settings.who);
        let own = timeout(OPEN_TIMEOUT, announce).await.map_err(late)??;
        let session = Arc::new(session);
        Ok(Served {
            session,
            watch,
            own,
            writer: Writer::default(),
            is_announced: false,
            is_proving: false,
        })
    }

    /// Lives through a session. `None`: this node is told to stop; else why the session is over.
    async fn serve(
        &self,
        served: &mut Served,
        heard: &mut Heard,
        proposals: &mut mpsc::Receiver<Proposal>,
    ) -> Option<String> {
        let session = Arc::clone(&served.session);
        self.standing().begin(served.own.clone(), session.lease());
        *lock(&self.0.session) = Some(Arc::clone(&session));
        let (lost, mut lose) = mpsc::channel(1);
        let renewing = self.clone().renew(Arc::clone(&session), lost);
        let _renewing = Aborted(tokio::spawn(renewing).abort_handle());
        let mut tasks = JoinSet::new();
        let mut stopping = self.0.stopping.subscribe();
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut news = Some(News::Reconnected);
        loop {
            if let Some(mut next) = news.take() {
                if matches!(next, News::Reconnected) {
                    self.standing().is_unread();
                    self.look(served, heard, &mut tasks).await;
                    next = tokio::select! {
                        loaded = self.load(&mut served.watch) => loaded,
                        () = stopped(&mut stopping) => return None,
                    };
                }
                if let Err(why) = self.take(next, heard, &mut tasks).await {
                    return Some(why);
                }
                if !self.standing().is_candidate() {
                    return Some("its place among the candidates was taken away".to_owned());
                }
            }
            self.look(served, heard, &mut tasks).await;
            tokio::select! {
                biased;
                () = stopped(&mut stopping) => return None,
                Some(why) = lose.recv() => return Some(why),
                end = served.writer.ended() => {
                    let (events, index) = served.writer.end(end, &mut heard.groups);
                    self.tell(events).await;
                    if let Some(index) = index {
                        self.reached(index);
                    }
                }
                // What is on its way is told under its own name, so nothing is read meanwhile.
                next = served.watch.next(), if !served.writer.is_writing() => news = Some(next),
                Some(proposal) = proposals.recv(), if served.writer.waiting() < WAITING_MAX => {
                    served.writer.add(proposal);
                    while served.writer.waiting() < WAITING_MAX
                        && let Ok(proposal) = proposals.try_recv()
                    {
                        served.writer.add(proposal);
                    }
                }
                _ = look.tick() => {}
            }
        }
    }

    async fn load(&self, watch: &mut Watch) -> News {
        match timeout(LOAD_TIMEOUT, watch.load()).await {
            Ok(Ok(news)) => news,
            Ok(Err(why)) => News::Lost(why),
            Err(_) => News::Lost(format!("it was not read within {} s", LOAD_TIMEOUT.as_secs())),
        }
    }

    /// Takes note of what happened, and tells it.
    async fn take(
        &self,
        news: News,
        heard: &mut Heard,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), String> {
        let (updates, index, is_whole): (Vec<Update>, u64, bool) = match news {
            News::Whole { items, index } => {
                heard.groups.forget();
                self.standing().forget();
                let updates = items.into_iter().map(|(path, item)| (path, Some(item)));
                (updates.collect(), index, true)
            }
            News::Changed { updates, index } => (updates, index, false),
            News::Reconnected => return Ok(()),
            News::Lost(why) => return Err(why),
        };
        let mut masters = None;
        for (path, item) in &updates {
            let value = item.as_ref().map(|item| (item.value.as_slice(), item.version));
            let as_of = item.as_ref().map_or(index, |item| item.changed);
            heard.groups.take(path, value, as_of)?;
            self.standing().take(path, item.as_ref());
            match Place::of(path) {
                Place::Secret => self.learn_secret(item.as_ref()),
                Place::Masters => masters = item.as_ref().map(|item| item.value.clone()),
                Place::Marker
                | Place::Group(_)
                | Place::History(..)
                | Place::Member(_)
                | Place::Node(_)
                | Place::Candidate
                | Place::Other => {}
            }
        }
        if let Some(count) = heard.groups.lost().filter(|_| is_whole) {
            // No failure forgets a group.
            return Err(format!(
                "nothing is stored there any more, and {count} groups were: put a backup back, or restart the nodes to \
                 begin anew"
            ));
        }
        heard.groups.is_complete_up_to(index);
        let events = heard.groups.news();
        self.tell(events).await;
        if is_whole {
            self.standing().is_read();
            self.inherit(&heard.groups, masters);
            self.settle(heard, tasks);
        }
        let voters = self.standing().voters();
        if voters != heard.voters {
            heard.voters.clone_from(&voters);
            self.tell(vec![Event::Voters(voters)]).await;
            self.0.joined.send_modify(|count| *count += 1);
        }
        self.reached(index);
        Ok(())
    }

    /// What a node does once it knows everything: it takes its place, and sees to a secret.
    fn settle(&self, heard: &mut Heard, tasks: &mut JoinSet<()>) {
        let Some(session) = self.session() else { return };
        let mut ops = Vec::new();
        // Only once: who was taken out while it ran is not to come back by itself.
        if !heard.joined || self.is_outside().is_none() {
            ops.extend(self.place_to_take());
            heard.joined = true;
        }
        if self.0.settings.needs_secret && self.0.secret.borrow().is_none() {
            match new_secret() {
                Ok(value) => ops.push(super::store::Op::Put {
                    path: layout::SECRET.to_owned(),
                    value,
                    expect: Expect::Nothing,
                }),
                Err(why) => tracing::error!("{why}"),
            }
        }
        for op in ops {
            let session = Arc::clone(&session);
            tasks.spawn(async move {
                let written = timeout(NOTE_TIMEOUT, session.write(None, &[op])).await;
                // That somebody else was first is as good.
                if let Ok(Err(NotWritten::Refused(why))) = written {
                    tracing::warn!("this node cannot write what belongs to it: {why}");
                }
            });
        }
    }

    /// The masters that the original left, where there is no record of ours.
    fn inherit(&self, groups: &Groups, masters: Option<Vec<u8>>) {
        if self.0.inherited.borrow().is_some() {
            return;
        }
        let masters = masters.filter(|_| groups.is_empty()).unwrap_or_default();
        let masters: Vec<String> = serde_json::from_slice(&masters).unwrap_or_default();
        let masters: Vec<Addr> = masters.iter().filter_map(|master| master.parse().ok()).collect();
        self.0.inherited.send_replace(Some(masters));
    }

    fn learn_secret(&self, item: Option<&Item>) {
        let text = item.and_then(|item| String::from_utf8(item.value.clone()).ok());
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.0.secret.send_replace(Some(SecretString::from(text)));
        }
    }

    /// Tells who leads when that is another, and lets what waits go on its way.
    async fn look(&self, served: &mut Served, heard: &mut Heard, tasks: &mut JoinSet<()>) {
        while tasks.try_join_next().is_some() {}
        let now = self.0.clock.now();
        let (leadership, is_first) = {
            let standing = self.standing();
            (standing.leadership(now), standing.leading().is_some())
        };
        self.announce(&leadership, served, tasks);
        if is_first && !std::mem::replace(&mut served.is_proving, is_first) {
            self.0.renew_now.notify_one();
        }
        if heard.leadership != leadership {
            heard.leadership = leadership.clone();
            self.tell(vec![Event::Leadership(leadership.clone())]).await;
        }
        let place = (&served.session, &served.own);
        let events = served.writer.begin(leadership.token(), &heard.groups, place);
        self.tell(events).await;
    }

    /// Writes down who leads, for people and for tools of the original.
    fn announce(&self, leadership: &Leadership, served: &mut Served, tasks: &mut JoinSet<()>) {
        if leadership.token().is_none() {
            return;
        }
        if std::mem::replace(&mut served.is_announced, true) {
            return;
        }
        let who = &self.0.settings.who;
        let addr = who.http.as_ref().unwrap_or(&who.addr).to_string();
        let info = LeaderInfo { addr, pid: std::process::id(), node: who.node.clone() };
        let Ok(op) = put(layout::LEADER, &info, Expect::Anything) else { return };
        let (session, own) = (Arc::clone(&served.session), served.own.clone());
        tasks.spawn(async move {
            let _ = timeout(NOTE_TIMEOUT, session.write(Some(&own), &[op])).await;
        });
    }

    /// Renews the session until it is over.
    async fn renew(self, session: Arc<Session>, lost: mpsc::Sender<String>) {
        let pause = session.renewal_interval();
        loop {
            let leading = self.standing().leading().cloned();
            let sent = self.0.clock.now();
            match timeout(session.lease() / 2, session.renew(leading.as_ref())).await {
                Ok(Ok(())) => {
                    self.standing().answered(sent, leading.as_ref());
                    *lock(&self.0.problem) = None;
                }
                Ok(Err(NotWritten::Fenced)) => {
                    let _ = lost.send("its session is over".to_owned()).await;
                    return;
                }
                Ok(Err(NotWritten::Refused(why) | NotWritten::Unknown(why))) => {
                    self.is_troubled(&why);
                }
                Ok(Err(NotWritten::Conflict)) => self.is_troubled("it contradicts itself"),
                Err(_) => self.is_troubled("it does not answer"),
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.0.renew_now.notified() => {}
            }
        }
    }

    async fn end_session(
        &self,
        mut served: Served,
        heard: &mut Heard,
        proposals: &mut mpsc::Receiver<Proposal>,
        end: &Option<String>,
    ) {
        // Nobody else may lead before this node knows that it does not.
        self.standing().end();
        *lock(&self.0.session) = None;
        while let Ok(proposal) = proposals.try_recv() {
            served.writer.add(proposal);
        }
        let why = end.as_deref().unwrap_or("the program is stopping");
        let events = served.writer.give_up(why);
        self.tell(events).await;
        if heard.leadership != Leadership::None {
            heard.leadership = Leadership::None;
            self.tell(vec![Event::Leadership(Leadership::None)]).await;
        }
        // Also a session that is over for this node may not be for the others.
        let _ = timeout(NOTE_TIMEOUT, served.session.close()).await;
    }

    /// A receiver that is gone is a driver that has ended.
    async fn tell(&self, events: Vec<Event>) {
        for event in events {
            let _ = self.0.told.send(event).await;
        }
    }

    fn reached(&self, index: u64) {
        self.0.applied.send_if_modified(|applied| {
            let is_later = index > *applied;
            *applied = (*applied).max(index);
            is_later
        });
    }

    fn is_troubled(&self, why: &str) {
        *lock(&self.0.problem) = Some(format!("nobody acts without {}: {why}", self.name()));
    }

    /// Says what is wrong when it is new, and again after a while.
    fn say(&self, heard: &mut Heard, why: String) {
        self.is_troubled(&why);
        let now = self.0.clock.now();
        let again = match &heard.said {
            Some((said, at)) => *said != why || now.since(*at) >= SAY_INTERVAL,
            None => true,
        };
        if again {
            tracing::warn!("{} is without a session: {why}; it is tried again", self.name());
            heard.said = Some((why, now));
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// A task that ends with the value.
struct Aborted(AbortHandle);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn new_secret() -> Result<Vec<u8>, String> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("this host gives no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes())
}
