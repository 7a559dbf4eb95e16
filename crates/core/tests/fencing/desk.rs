//! A node that leads, alone or with two others, whose servers, broker and colleagues are played by the test. The servers
//! have the setting, and each command is checked against the record and against what it does to a master.

pub(crate) use std::collections::{BTreeMap, VecDeque};
pub(crate) use std::time::Duration;

pub(crate) use failover_core::action::{Action, Command};
pub(crate) use failover_core::addr::Addr;
pub(crate) use failover_core::event::{
    Answer, CommandResult, Event, GroupSpec, Health, Probed, Request, Sight, Testimony,
};
pub(crate) use failover_core::fleet::{Fleet, Policies};
pub(crate) use failover_core::instance::{
    Facts, Fence, Flavor, Link, MinReplicas, ReplicationId, Role,
};
pub(crate) use failover_core::node::{GroupName, Leadership, NodeId, Token};
pub(crate) use failover_core::policy::{Fencing, Policy};
pub(crate) use failover_core::record::{GroupEntry, HistoryEntry, Kind, Known, Outcome};
pub(crate) use failover_core::time::Time;
pub(crate) use failover_core::view::{GroupView, How, State};

/// What servers are set to when nobody did anything.
pub(crate) const FORMER: MinReplicas = MinReplicas { to_write: 0, max_lag_secs: 10 };
pub(crate) const ON: MinReplicas = MinReplicas { to_write: 1, max_lag_secs: 2 };
pub(crate) const OPEN: MinReplicas = MinReplicas { to_write: 0, max_lag_secs: 2 };

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    Serves,
    Refuses,
    Silent,
}

/// A server that does what it is told and replicates in no time.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) mood: Mood,
    pub(crate) follows: Option<u16>,
    /// It is copying everything, and does not come to an end.
    pub(crate) copies: bool,
    pub(crate) history: String,
    /// `None`: it has no such setting.
    pub(crate) set: Option<MinReplicas>,
    /// What its file says; `None`: it cannot write one.
    pub(crate) file: Option<MinReplicas>,
    pub(crate) may_be_set: bool,
    starts: u32,
}

/// What becomes of a proposal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Commit,
    Lose,
    /// Nobody hears what became of it, and it is lost.
    Forget,
    /// Nobody hears that it was committed, until it is seen in the record.
    CommitUnheard,
}

pub(crate) struct Desk {
    pub(crate) fleet: Fleet,
    pub(crate) policy: Policy,
    pub(crate) now: Time,
    pub(crate) servers: BTreeMap<u16, Server>,
    pub(crate) commands: Vec<(u16, Command)>,
    pub(crate) told: Vec<String>,
    pub(crate) fates: VecDeque<Fate>,
    /// What the other voters see, by name; one that is not there does not answer.
    pub(crate) voters: BTreeMap<&'static str, BTreeMap<u16, State>>,
    leaders: u64,
    /// So many proposals and commands are carried out yet; the leader that asks for the next is dead.
    pub(crate) dies_after: Option<usize>,
    pub(crate) dead: bool,
    /// Commands are carried out, and their ends are not heard.
    pub(crate) unheard: bool,
    promotions: u32,
    answers: Vec<Answer>,
}

pub(crate) fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("an address")
}

pub(crate) fn group() -> GroupName {
    GroupName::from(&addr(1))
}

pub(crate) fn fenced() -> Policy {
    Policy {
        max_down_time: Duration::from_secs(1),
        fencing: Fencing::MinReplicas,
        ..Policy::default()
    }
}

impl Desk {
    /// A group that nobody fences.
    pub(crate) fn new(replicas: u16) -> Self {
        let policy = Policy { fencing: Fencing::None, ..fenced() };
        let server = |follows| Server {
            mood: Mood::Serves,
            follows,
            copies: false,
            history: "h0".to_owned(),
            set: Some(FORMER),
            file: Some(FORMER),
            may_be_set: true,
            starts: 0,
        };
        let others = (2..2 + replicas).map(|port| (port, server(Some(1))));
        let mut desk = Self {
            fleet: fleet(&policy),
            policy,
            now: Time::from_millis(1_000_000),
            servers: others.chain([(1, server(None))]).collect(),
            commands: Vec::new(),
            told: Vec::new(),
            fates: VecDeque::new(),
            voters: BTreeMap::new(),
            leaders: 0,
            dies_after: None,
            dead: false,
            unheard: false,
            promotions: 0,
            answers: Vec::new(),
        };
        desk.lead();
        desk.ask(Request::Add(vec![spec()]));
        desk.pass(5000);
        assert_eq!(desk.view().diagnosis.name, "Healthy");
        desk
    }

    /// One that is fenced by now.
    pub(crate) fn fenced(replicas: u16) -> Self {
        let mut desk = Self::new(replicas);
        desk.configure(fenced());
        desk.pass(5000);
        assert_eq!(desk.settings(), vec![ON; usize::from(replicas) + 1]);
        assert_eq!(desk.view().diagnosis.name, "Healthy");
        desk.told.clear();
        desk.commands.clear();
        desk
    }

    fn lead(&mut self) {
        self.leaders += 1;
        let names = std::iter::once("a").chain(self.voters.keys().copied());
        let voters = names.map(NodeId::new).collect();
        self.handle(Event::Voters(voters));
        self.handle(Event::Leadership(Leadership::Leader(Token(self.leaders))));
    }

    /// Another node leads, with the record as it stands.
    pub(crate) fn succeed(&mut self) {
        (self.dead, self.dies_after) = (false, None);
        self.configure(self.policy.clone());
    }

    /// The program is started again with this configuration.
    pub(crate) fn configure(&mut self, policy: Policy) {
        let record = self.fleet.record().clone();
        self.policy = policy;
        self.fleet = fleet(&self.policy);
        self.handle(Event::Restored(record));
        self.lead();
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.fleet.handle(self.now, event);
        self.drain();
    }

    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        self.handle(Event::Request { id: 1, request });
        self.answers.pop().expect("an answer")
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        let mut rounds = 0;
        while let Some(at) = self.fleet.poll_timeout().filter(|at| *at <= end) {
            rounds += 1;
            assert!(rounds < 1_000_000, "a busy loop at {at}");
            self.now = self.now.max(at);
            self.fleet.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.fleet.handle_timeout(self.now);
        self.drain();
    }

    /// Whether the leader lives to see what it asks for carried out.
    fn dies(&mut self) -> bool {
        match &mut self.dies_after {
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.dead
    }

    fn drain(&mut self) {
        while let Some(action) = self.fleet.poll() {
            let event = match action {
                _ if self.dead => continue,
                Action::Propose { .. } | Action::Command { .. } if self.dies() => continue,
                Action::Propose { id, changes, .. } => {
                    let why = "as the test wants it".to_owned();
                    match self.fates.pop_front().unwrap_or(Fate::Commit) {
                        Fate::Commit => Event::Committed { id: Some(id), changes },
                        Fate::Lose => Event::NotCommitted { id, why },
                        Fate::Forget => Event::Unsettled { id, why },
                        Fate::CommitUnheard => {
                            self.fleet.handle(self.now, Event::Unsettled { id, why });
                            Event::Committed { id: None, changes }
                        }
                    }
                }
                Action::Probe { addr, fresh: true, .. }
                    if self.servers[&addr.port()].mood == Mood::Silent =>
                {
                    Event::Accepted { addr }
                }
                Action::Probe { addr, seq, .. } => {
                    let Some(outcome) = self.probe(addr.port()) else { continue };
                    Event::Probed { addr, seq, outcome }
                }
                Action::Command { group, id, addr, command, .. } => {
                    let result = self.obey(addr.port(), &command);
                    self.commands.push((addr.port(), command));
                    if self.unheard {
                        continue;
                    }
                    Event::Commanded { group, id, result }
                }
                Action::Vet { group, id, .. } => Event::Vetted { group, id, veto: None },
                Action::Answer { answer, .. } => {
                    self.answers.push(answer);
                    continue;
                }
                Action::Tell { .. } => continue,
                Action::Publish(notice) => {
                    self.told.push(notice.sentence);
                    continue;
                }
                Action::AskPeer { node, token, .. } => {
                    let Some(testimony) = self.testimony(&node) else { continue };
                    let (group, asked_at) = (group(), self.now);
                    Event::Testified { node, token, group, asked_at, testimony }
                }
                Action::Hint { .. } | Action::Forget { .. } => continue,
            };
            self.fleet.handle(self.now, event);
        }
    }

    fn testimony(&self, node: &NodeId) -> Option<Testimony> {
        let (_, states) = self.voters.iter().find(|(name, _)| NodeId::new(name) == *node)?;
        let sight = |(port, state): (&u16, &State)| Sight {
            addr: addr(*port),
            state: *state,
            how: How::Replied,
            age_ms: 0,
            facts: (*state == State::Up).then(|| (Box::new(self.facts(*port)), 0)),
        };
        let sights = states.iter().map(sight).collect();
        Some(Testimony { master: self.entry().master.clone(), dead: None, sights })
    }

    pub(crate) fn server(&mut self, port: u16) -> &mut Server {
        self.servers.get_mut(&port).expect("there is one")
    }

    /// Replicas that acknowledge what this server writes.
    fn online(&self, port: u16) -> Vec<u16> {
        let of = |server: &Server| {
            server.follows == Some(port) && server.mood == Mood::Serves && !server.copies
        };
        self.servers.iter().filter(|(_, server)| of(server)).map(|(port, _)| *port).collect()
    }

    /// Whether it takes a write now.
    pub(crate) fn takes_writes(&self, port: u16) -> bool {
        let server = &self.servers[&port];
        let enough = server.set.is_none_or(|set| {
            !set.is_on() || self.online(port).len() >= usize::try_from(set.to_write).expect("few")
        });
        server.mood == Mood::Serves && server.follows.is_none() && enough
    }

    fn facts(&self, port: u16) -> Facts {
        let server = &self.servers[&port];
        let online = self.online(port);
        let role = match server.follows {
            None => Role::Master { replicas: online.iter().map(|port| addr(*port)).collect() },
            Some(of) => {
                let up = self.servers.get(&of).is_some_and(|of| of.mood == Mood::Serves);
                let link = match (up, server.copies) {
                    (true, false) => Link::Up { last_io_secs: 0 },
                    (true, true) => Link::Syncing,
                    (false, _) => Link::Down { since_secs: Some(0) },
                };
                Role::Replica { master: addr(of), link }
            }
        };
        Facts {
            asked_at: self.now,
            flavor: if server.set.is_some() { Flavor::Redis } else { Flavor::Ledisdb },
            version: "7.0.15".into(),
            run_id: Some(format!("{port}-{}", server.starts).into()),
            role,
            replication_id: Some(ReplicationId(server.history.clone().into())),
            second_replication_id: None,
            second_offset: None,
            offset: 100,
            priority: 100,
            ping_period_secs: Some(10),
            can_pause_writes: true,
            read_only: false,
            log_is_empty: false,
            keys: Some(10),
            fence: server
                .set
                .map(|set| Fence { set, online: u32::try_from(online.len()).expect("few") }),
        }
    }

    fn probe(&mut self, port: u16) -> Option<Probed> {
        match self.servers[&port].mood {
            Mood::Serves => Some(Probed::Replied {
                health: Health::Fine,
                facts: Some(Box::new(self.facts(port))),
                socket: None,
            }),
            Mood::Silent => None,
            Mood::Refuses => Some(Probed::Refused),
        }
    }

    fn obey(&mut self, port: u16, command: &Command) -> CommandResult {
        if self.servers[&port].mood != Mood::Serves {
            return CommandResult::Refused("it does not listen".to_owned());
        }
        let mut warnings = Vec::new();
        match command {
            Command::Promote { fence, .. } => {
                if let Some(set) = fence {
                    self.set(port, *set);
                }
                self.promotions += 1;
                let history = format!("h{}", self.promotions);
                let server = self.server(port);
                server.follows = None;
                server.history = history;
                assert!(self.takes_writes(port), "a master that was promoted is open");
            }
            Command::Follow { master, .. } | Command::Demote { master, .. } => {
                let history = self.servers[&master.port()].history.clone();
                let server = self.server(port);
                server.follows = Some(master.port());
                server.history = history;
            }
            Command::Fence { .. } if !self.servers[&port].may_be_set => {
                return CommandResult::Refused("-NOPERM".to_owned());
            }
            Command::Fence { set } => {
                let before = self.takes_writes(port);
                self.set(port, *set);
                assert!(!before || self.takes_writes(port), "a healthy master was stopped");
                match &mut self.server(port).file {
                    Some(file) => *file = *set,
                    None => warnings.push("no file".to_owned()),
                }
            }
            Command::Part | Command::Pause { .. } | Command::Unpause => {}
        }
        CommandResult::Done { facts: Box::new(self.facts(port)), warnings }
    }

    fn set(&mut self, port: u16, set: MinReplicas) {
        let decided = self.known(port).fenced.as_ref().map(|fenced| fenced.set);
        assert_eq!(decided, Some(set), "what {port} is told is in the record");
        self.server(port).set = Some(set);
    }

    pub(crate) fn kill(&mut self, port: u16) {
        self.server(port).mood = Mood::Refuses;
        self.handle(Event::Ended { addr: addr(port) });
        self.pass(20);
    }

    /// It starts again as what it was told to be at last, with what is in its file.
    pub(crate) fn start(&mut self, port: u16) {
        let server = self.server(port);
        server.mood = Mood::Serves;
        server.starts += 1;
        server.set = server.set.map(|_| server.file.unwrap_or(FORMER));
    }

    pub(crate) fn settings(&self) -> Vec<MinReplicas> {
        self.servers.values().map(|server| server.set.unwrap_or(FORMER)).collect()
    }

    pub(crate) fn view(&self) -> GroupView {
        self.fleet.view(self.now, &group()).expect("it is guarded")
    }

    pub(crate) fn entry(&self) -> &GroupEntry {
        self.fleet.record().entry(&group()).expect("it is in the record")
    }

    pub(crate) fn known(&self, port: u16) -> &Known {
        &self.entry().instances[&addr(port)]
    }

    pub(crate) fn master(&self) -> u16 {
        self.entry().master.port()
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<&HistoryEntry> {
        let history = self.fleet.record().history(&group());
        history.iter().filter(|entry| entry.kind == kind).collect()
    }

    pub(crate) fn fences(&self) -> Vec<(u16, MinReplicas)> {
        let fence = |(port, command): &(u16, Command)| match command {
            Command::Fence { set } => Some((*port, *set)),
            Command::Promote { .. }
            | Command::Follow { .. }
            | Command::Demote { .. }
            | Command::Part
            | Command::Pause { .. }
            | Command::Unpause => None,
        };
        self.commands.iter().filter_map(fence).collect()
    }
}

pub(crate) fn spec() -> GroupSpec {
    GroupSpec { name: None, master: addr(1), replicas: Vec::new() }
}

fn fleet(policy: &Policy) -> Fleet {
    let policies = Policies { default: policy.clone(), ..Policies::default() };
    Fleet::new(NodeId::new("a"), policies)
}
