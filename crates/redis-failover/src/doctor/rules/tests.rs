//! Each rule with answers made up, above all those that the servers of the integration tests cannot give.

use std::time::Duration;

use failover_core::event::Health;
use failover_core::instance::{Facts, Flavor, Link, Role};
use failover_core::node::{GroupName, NodeId};
use failover_core::policy::{AcrossLocations, Policy};
use failover_core::time::Time;
use failover_core::view::{
    DiagnosisView, FencingView, GroupView, How, InstanceView, State, StatusView,
};
use secrecy::SecretString;

use super::super::answers::{Account, Allowed, Answers, Growth, Parameter, Right, Topic};
use super::super::ask::Examined;
use super::super::finding::{Code, Finding, Severity};
use super::{Case, all, cli, common_host, listed, size};
use crate::cluster::{ClusterView, MemberView, Role as NodeRole};
use crate::redis::{Frame, Mute, ServerInfo};

/// A group with everything that rules look at, to be made worse.
struct Ward {
    group: GroupView,
    policy: Policy,
    cluster: ClusterView,
    examined: Vec<Examined>,
}

impl Ward {
    /// The master `10.0.0.1:1` and two replicas on Redis 7.0, all well, guarded by three nodes.
    fn healthy() -> Self {
        let addrs = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(addr);
        let instances = addrs.iter().map(|addr| instance(addr, &addrs[0])).collect();
        let group = GroupView {
            name: GroupName::new("g").expect("a name"),
            flavor: Some(Flavor::Redis),
            epoch: 0,
            master: addrs[0].clone(),
            status: StatusView::Active,
            status_reason: None,
            diagnosis: DiagnosisView {
                name: "Healthy",
                reason: "all is well".to_owned(),
                since_at: Time::from_millis(1),
                not_acting_because: None,
            },
            quorum: 2,
            instances,
            fencing: FencingView { mode: "none", min_replicas: None },
            last_history_id: None,
            history: Vec::new(),
        };
        let members = ["10.1.0.1:9", "10.1.0.2:9", "10.1.0.3:9"].map(|text| MemberView {
            id: NodeId::new(text),
            addr: Some(addr(text)),
            http: None,
            role: NodeRole::Follower,
            last_contact_ms: Some(1),
            log_index: None,
            reachable: true,
        });
        let cluster = ClusterView { broker: "raft", term: Some(1), members: members.into() };
        let examined = addrs
            .iter()
            .map(|addr| Examined { addr: addr.clone(), told: Ok(answers(addr, &addrs[0])) })
            .collect();
        Self { group, policy: Policy::default(), cluster, examined }
    }

    fn answers(&mut self, number: usize) -> &mut Answers {
        let Ok(answers) = &mut self.examined[number].told else { panic!("it told something") };
        answers
    }

    fn set(&mut self, number: usize, parameter: Parameter, value: &str) {
        self.answers(number).settings.insert(parameter, value.to_owned());
    }

    fn set_for_all(&mut self, parameter: Parameter, value: &str) {
        for number in 0..self.examined.len() {
            self.set(number, parameter, value);
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let Self { group, policy, cluster, examined } = self;
        all(&Case { group, policy, cluster, examined })
    }

    fn codes(&self) -> Vec<(Code, Severity, Option<String>)> {
        let brief = |finding: Finding| {
            (finding.code, finding.severity, finding.addr.map(|addr| addr.to_string()))
        };
        self.findings().into_iter().map(brief).collect()
    }

    #[track_caller]
    fn assert_only(&self, code: Code, severity: Severity, addr: Option<&str>) -> Finding {
        let findings = self.findings();
        let [finding] = findings.as_slice() else { panic!("{findings:#?}") };
        assert_eq!((finding.code, finding.severity), (code, severity));
        assert_eq!(finding.addr.as_ref().map(ToString::to_string).as_deref(), addr);
        finding.clone()
    }
}

fn addr(text: &str) -> failover_core::addr::Addr {
    text.parse().expect("an address")
}

fn instance(addr: &failover_core::addr::Addr, master: &failover_core::addr::Addr) -> InstanceView {
    let is_master = addr == master;
    InstanceView {
        addr: addr.clone(),
        role: if is_master { "master" } else { "replica" },
        state: State::Up,
        how: How::Replied,
        since_at: Time::from_millis(1),
        offset: Some(1),
        lag_bytes: Some(0),
        link: Some("up"),
        link_down_ms: None,
        priority: Some(100),
        run_id: None,
        replication_id: None,
        version: Some("7.0.15".to_owned()),
        rule: None,
        location: None,
        eligible: !is_master,
        not_eligible_because: is_master.then(|| "is the recorded master".to_owned()),
        views: Vec::new(),
    }
}

fn server(text: &str) -> ServerInfo {
    ServerInfo::parse(text.as_bytes()).expect("it names a server")
}

fn answers(addr: &failover_core::addr::Addr, master: &failover_core::addr::Addr) -> Answers {
    let server = server("redis_version:7.0.15\r\n");
    let role = if addr == master {
        Role::Master { replicas: vec![self::addr("10.0.0.2:1"), self::addr("10.0.0.3:1")] }
    } else {
        Role::Replica { master: master.clone(), link: Link::Up { last_io_secs: 0 } }
    };
    let text = match role {
        Role::Master { .. } => "role:master\r\nmaster_repl_offset:1\r\n".to_owned(),
        Role::Replica { .. } => format!(
            "role:slave\r\nmaster_host:{}\r\nmaster_port:{}\r\nmaster_repl_offset:1\r\n",
            master.host(),
            master.port()
        ),
    };
    let facts = crate::redis::replication(text.as_bytes(), &server, Time::from_millis(1));
    let facts = Facts { role, ..facts.expect("it is whole").0 };
    let mut answers = Answers::new(Health::Fine, Some(facts), Some(server));
    for (parameter, value) in [
        (Parameter::AppendOnly, "yes"),
        (Parameter::Save, ""),
        (Parameter::BacklogSize, "1048576"),
        (Parameter::PingPeriod, "10"),
        (Parameter::ReplTimeout, "60"),
        (Parameter::MaxMemory, "0"),
        (Parameter::MinReplicas, "0"),
        (Parameter::MasterUser, ""),
    ] {
        answers.settings.insert(parameter, value.to_owned());
    }
    for parameter in [Parameter::MasterAuth, Parameter::RequirePass] {
        answers.passwords.insert(parameter, SecretString::from("pass"));
    }
    answers.info.insert("config_file".to_owned(), "/etc/redis.conf".to_owned());
    answers.hello_subscribers = Some(0);
    answers.growth =
        (addr == master).then_some(Growth { bytes: 0, within: Duration::from_millis(500) });
    answers
}

#[test]
fn a_healthy_group_has_nothing() {
    assert_eq!(Ward::healthy().codes(), []);
}

#[test]
fn the_nodes_are_counted() {
    let mut ward = Ward::healthy();
    ward.group.quorum = 1;
    ward.assert_only(Code::QuorumBelowMajority, Severity::Info, None);
    ward.group.quorum = 3;
    ward.assert_only(Code::QuorumOfAll, Severity::Warning, None);
    ward.group.quorum = 2;
    // A learner decides nothing.
    ward.cluster.members[0].role = NodeRole::Learner;
    ward.assert_only(Code::TwoNodes, Severity::Warning, None);

    let mut ward = Ward::healthy();
    ward.cluster.members[0].reachable = false;
    let found = ward.assert_only(Code::NodeUnreachable, Severity::Warning, None);
    assert!(found.message.contains("when one more is down"), "{}", found.message);
    ward.cluster.members[1].reachable = false;
    ward.assert_only(Code::NodeUnreachable, Severity::Error, None);

    let mut ward = Ward::healthy();
    for (number, member) in ward.cluster.members.iter_mut().enumerate() {
        member.addr = Some(addr(&format!("10.1.0.1:{}", number + 1)));
    }
    ward.assert_only(Code::NodesOnOneHost, Severity::Warning, None);
}

#[test]
fn the_state_of_the_group_is_told() {
    let mut ward = Ward::healthy();
    ward.group.status = StatusView::Halted;
    ward.group.status_reason = Some("nobody could be promoted".to_owned());
    let found = ward.assert_only(Code::Halted, Severity::Error, None);
    assert!(found.message.contains("nobody could be promoted"), "{}", found.message);
    ward.group.status = StatusView::Active;
    ward.group.diagnosis.name = "TwoMasters";
    ward.group.diagnosis.not_acting_because = Some("it waits".to_owned());
    let found = ward.assert_only(Code::Diagnosis, Severity::Warning, None);
    assert!(found.message.ends_with("it waits"), "{}", found.message);
}

#[test]
fn who_could_not_take_over_is_told_unless_it_is_meant() {
    let mut ward = Ward::healthy();
    ward.group.instances[1].eligible = false;
    ward.group.instances[1].not_eligible_because = Some("has lost its link".to_owned());
    let found = ward.assert_only(Code::NotEligible, Severity::Warning, Some("10.0.0.2:1"));
    assert!(found.message.ends_with("it has lost its link"), "{}", found.message);
    ward.group.instances[1].priority = Some(0);
    assert_eq!(ward.codes(), []);
    ward.group.instances[1].priority = Some(100);
    ward.group.instances[1].rule = Some("never");
    assert_eq!(ward.codes(), []);
    ward.group.instances[2].eligible = false;
    ward.group.instances[2].not_eligible_because = Some("is loading".to_owned());
    let found = ward.assert_only(Code::NoCandidate, Severity::Error, None);
    assert!(found.message.contains("10.0.0.3:1 is loading"), "{}", found.message);

    let mut ward = Ward::healthy();
    ward.policy.across_locations = AcrossLocations::Deny;
    for (number, place) in ["east", "west", "north"].into_iter().enumerate() {
        ward.group.instances[number].location = Some(place.to_owned());
    }
    for number in [1, 2] {
        ward.group.instances[number].eligible = false;
    }
    ward.assert_only(Code::LocationsExcludeAll, Severity::Error, None);
}

#[test]
fn one_machine_for_all_is_told_unless_it_is_a_trial() {
    let of = |texts: &[&str]| {
        let addrs: Vec<_> = texts.iter().map(|text| addr(text)).collect();
        common_host(addrs.iter()).map(str::to_owned)
    };
    assert_eq!(of(&["10.0.0.1:1", "10.0.0.1:2"]).as_deref(), Some("10.0.0.1"));
    assert_eq!(of(&["10.0.0.1:1", "10.0.0.2:1"]), None);
    assert_eq!(of(&["10.0.0.1:1"]), None, "one alone has nothing in common");
    assert_eq!(of(&["127.0.0.1:1", "127.0.0.1:2"]), None);
    assert_eq!(of(&["localhost:1", "localhost:2"]), None);
    let mut ward = Ward::healthy();
    for number in 0..3 {
        ward.group.instances[number].addr = addr(&format!("10.0.0.1:{}", number + 1));
    }
    let codes = ward.codes();
    assert!(codes.contains(&(Code::InstancesOnOneHost, Severity::Warning, None)), "{codes:?}");
}

#[test]
fn a_replica_of_a_replica_is_told() {
    let mut ward = Ward::healthy();
    let facts = ward.answers(2).facts.as_mut().expect("it has facts");
    facts.role = Role::Replica { master: addr("10.0.0.2:1"), link: Link::Up { last_io_secs: 0 } };
    let found = ward.assert_only(Code::ChainedReplica, Severity::Warning, Some("10.0.0.3:1"));
    assert!(found.fix.contains("REPLICAOF 10.0.0.1 1"), "{}", found.fix);
}

#[test]
fn versions_apart_are_told_and_patches_are_not() {
    let mut ward = Ward::healthy();
    ward.answers(1).server = Some(server("redis_version:7.0.11\r\n"));
    assert_eq!(ward.codes(), []);
    ward.answers(1).server = Some(server("redis_version:7.2.4\r\nvalkey_version:8.0.1\r\n"));
    let found = ward.assert_only(Code::VersionsApart, Severity::Warning, None);
    for words in ["redis 7.0 at 10.0.0.1:1 and 10.0.0.3:1", "valkey 8.0 at 10.0.0.2:1"] {
        assert!(found.message.contains(words), "{}", found.message);
    }
}

#[test]
fn an_old_servers_buffer_may_not_be_smaller_than_its_backlog() {
    let mut ward = Ward::healthy();
    let limits = "normal 0 0 0 slave 500000 0 0 pubsub 33554432 8388608 60";
    ward.set_for_all(Parameter::OutputBufferLimit, limits);
    assert_eq!(ward.codes(), [], "Redis 7 takes the backlog's size for the limit then");
    for number in 0..3 {
        ward.answers(number).server = Some(server("redis_version:6.2.1\r\n"));
    }
    let codes = ward.codes();
    assert_eq!(codes.len(), 3, "{codes:?}");
    assert!(codes.iter().all(|(code, ..)| *code == Code::BufferBelowBacklog), "{codes:?}");
}

#[test]
fn a_backlog_is_measured_in_seconds_of_writes() {
    let mut ward = Ward::healthy();
    let growth = |bytes| Some(Growth { bytes, within: Duration::from_millis(500) });
    // 13 s at 80 KiB/s are 1040 KiB.
    ward.answers(0).growth = growth(39 * 1024);
    assert_eq!(ward.codes(), []);
    ward.answers(0).growth = growth(40 * 1024);
    let found = ward.findings();
    assert_eq!(found.len(), 3, "every one of them feeds the others after a failover: {found:#?}");
    assert_eq!((found[0].code, found[0].severity), (Code::BacklogTooSmall, Severity::Warning));
    assert!(found[0].message.contains("1.0 MiB) holds 12.8 s"), "{}", found[0].message);
    assert!(found[0].fix.contains("CONFIG SET repl-backlog-size 5mb"), "{}", found[0].fix);
    // The longer a silent master is waited for, the more is written meanwhile.
    ward.answers(0).growth = growth(30 * 1024);
    ward.policy.max_down_time = Duration::from_secs(10);
    assert_eq!(ward.codes().len(), 3);
}

#[test]
fn a_rare_ping_matters_only_when_nobody_writes() {
    let mut ward = Ward::healthy();
    ward.set(0, Parameter::PingPeriod, "30");
    ward.assert_only(Code::SlowPing, Severity::Warning, Some("10.0.0.1:1"));
    ward.answers(0).growth = Some(Growth { bytes: 1000, within: Duration::from_millis(500) });
    assert_eq!(ward.codes(), []);
    ward.answers(0).growth = None;
    assert_eq!(ward.codes(), [], "nothing is known");
}

#[test]
fn a_number_of_replicas_that_the_program_keeps_is_its_own_affair() {
    let mut ward = Ward::healthy();
    ward.set_for_all(Parameter::MinReplicas, "2");
    let codes = ward.codes();
    let of = |addr: &str| (Code::MinReplicasTooHigh, Severity::Error, Some(addr.to_owned()));
    assert_eq!(codes, [of("10.0.0.2:1"), of("10.0.0.3:1")], "the master has two");
    ward.group.fencing = FencingView { mode: "min-replicas", min_replicas: Some(2) };
    assert_eq!(ward.codes(), []);
    ward.group.fencing = FencingView { mode: "none", min_replicas: None };
    ward.set_for_all(Parameter::MinReplicasMaxLag, "0");
    assert_eq!(ward.codes(), [], "a lag of 0 switches it off");
}

#[test]
fn valkey_may_throw_its_data_away_before_a_copy() {
    let mut ward = Ward::healthy();
    ward.set(1, Parameter::DisklessLoad, "swapdb");
    assert_eq!(ward.codes(), []);
    ward.set(1, Parameter::DisklessLoad, "flush-before-load");
    ward.assert_only(Code::LoadFlushesFirst, Severity::Warning, Some("10.0.0.2:1"));
}

#[test]
fn passwords_are_compared_by_user_by_hash_and_by_text() {
    let account = |flags: &[&str], hash: &str| {
        let bulk = |text: &str| Frame::Bulk(text.to_owned().into());
        let hashes = if hash.is_empty() { Vec::new() } else { vec![bulk(hash)] };
        Frame::Array(vec![
            bulk("flags"),
            Frame::Array(flags.iter().map(|flag| bulk(flag)).collect()),
            bulk("passwords"),
            Frame::Array(hashes),
            bulk("commands"),
            bulk("+@all"),
        ])
    };
    // Of "pass".
    let hash = "d74ff0ee8da3b9806b18c877dbf29bbde50b5bd8e4dad7a3a725000feb82e8f1";
    let read = |frame: &Frame| Account::read(frame).expect("it is one");
    let (pass, other) = (SecretString::from("pass"), SecretString::from("other"));
    let known = read(&account(&["on"], hash));
    assert!(known.lets_in(&pass, false) && !known.lets_in(&other, true));
    assert!(!read(&account(&["off"], hash)).lets_in(&pass, true));
    let open = read(&account(&["on", "nopass"], ""));
    assert!(open.needs_no_password() && open.lets_in(&other, true));
    assert!(!open.lets_in(&other, false), "servers refuse a password that nobody asked for");
    assert!(Account::read(&Frame::Null).is_none());

    // Two passwords are set for the default user, and requirepass tells one of them only.
    let mut ward = Ward::healthy();
    for number in 0..3 {
        let answers = ward.answers(number);
        answers.passwords.insert(Parameter::RequirePass, other.clone());
        answers.read_account("default", &account(&["on"], hash));
    }
    assert_eq!(ward.codes(), []);
    // Without the right to read users the text decides.
    for number in 0..3 {
        ward.answers(number).accounts.clear();
    }
    let codes = ward.codes();
    assert_eq!(codes.len(), 3, "{codes:?}");
    assert!(codes.iter().all(|(code, ..)| *code == Code::PasswordMismatch), "{codes:?}");
    // A named user that the other servers do not have.
    let mut ward = Ward::healthy();
    ward.set(1, Parameter::MasterUser, "copier");
    for number in 0..3 {
        ward.answers(number).accounts.insert("copier".to_owned(), None);
    }
    ward.assert_only(Code::PasswordMismatch, Severity::Error, Some("10.0.0.2:1"));
    // Nothing is known of that user: no finding, and a note when that was refused.
    for number in 0..3 {
        ward.answers(number).accounts.clear();
    }
    assert_eq!(ward.codes(), []);
    ward.answers(0).unanswered.insert(Topic::Accounts, "the server answered \"NOPERM\"".to_owned());
    let found = ward.assert_only(Code::NotAsked, Severity::Info, None);
    assert!(found.fix.contains("+acl|getuser"), "{}", found.fix);
}

#[test]
fn protected_mode_matters_as_far_as_others_are_elsewhere() {
    let mut ward = Ward::healthy();
    ward.examined[1].told =
        Err(Mute::TurnedAway("the server answered \"DENIED Redis is running\"".to_owned()));
    ward.assert_only(Code::ProtectedMode, Severity::Error, Some("10.0.0.2:1"));

    let mut ward = Ward::healthy();
    ward.set(1, Parameter::ProtectedMode, "yes");
    ward.answers(1).by_loopback = true;
    assert_eq!(ward.codes(), [], "it has a password");
    for number in 0..3 {
        let answers = ward.answers(number);
        answers.passwords.insert(Parameter::MasterAuth, SecretString::from(""));
        answers.passwords.insert(Parameter::RequirePass, SecretString::from(""));
        let nobody = Frame::Array(
            ["flags", "passwords"]
                .into_iter()
                .flat_map(|name| {
                    let flags = if name == "flags" { vec!["on", "nopass"] } else { Vec::new() };
                    let bulk = |text: &str| Frame::Bulk(text.to_owned().into());
                    [bulk(name), Frame::Array(flags.into_iter().map(bulk).collect())]
                })
                .collect(),
        );
        answers.read_account("default", &nobody);
    }
    ward.assert_only(Code::ProtectedMode, Severity::Warning, Some("10.0.0.2:1"));
    ward.answers(1).by_loopback = false;
    assert_eq!(ward.codes(), [], "it let us in from elsewhere");
}

#[test]
fn what_is_silent_is_told_by_how_it_is_silent() {
    let mut ward = Ward::healthy();
    ward.examined[2].told = Err(Mute::Refused);
    let announced =
        ward.assert_only(Code::AnnouncedAddressUnreachable, Severity::Error, Some("10.0.0.3:1"));
    assert!(announced.message.contains("a replica of 10.0.0.1:1 announces"), "{announced:?}");
    ward.examined[2].told = Err(Mute::Broken("it is silent".to_owned()));
    ward.assert_only(Code::NoAnswer, Severity::Warning, Some("10.0.0.3:1"));
    ward.examined[2].told = Err(Mute::Ours("no descriptors".to_owned()));
    ward.assert_only(Code::NoAnswer, Severity::Warning, Some("10.0.0.3:1"));
    let mut ward = Ward::healthy();
    ward.examined[0].told = Err(Mute::Refused);
    ward.assert_only(Code::NoAnswer, Severity::Error, Some("10.0.0.1:1"));
}

#[test]
fn rights_are_told_once_a_severity() {
    let mut ward = Ward::healthy();
    for (right, allowed) in [
        (Right::Follow, Allowed::No),
        (Right::Transaction, Allowed::No),
        (Right::Execute, Allowed::No),
        (Right::Ping, Allowed::Yes),
        (Right::CutClients, Allowed::Unknown),
    ] {
        ward.answers(1).rights.insert(right, allowed);
    }
    let at = Some("10.0.0.2:1".to_owned());
    assert_eq!(
        ward.codes(),
        [
            (Code::MissingRights, Severity::Error, at.clone()),
            (Code::MissingRights, Severity::Warning, at.clone()),
            (Code::MissingCommand, Severity::Warning, at),
        ]
    );
    let mut ward = Ward::healthy();
    ward.answers(1).rights.insert(Right::Configure, Allowed::No);
    assert_eq!(ward.codes(), [], "the program sets nothing");
    ward.group.fencing.mode = "min-replicas";
    let found = ward.assert_only(Code::MissingRights, Severity::Error, Some("10.0.0.2:1"));
    assert!(found.fix.contains("ACL SETUSER USER +config|set"), "{}", found.fix);
}

#[test]
fn ledisdb_is_told_as_what_it_is() {
    let mut ward = Ward::healthy();
    for number in 0..3 {
        let old = ward.answers(number);
        let ledis = server("ledisdb_version:0.5\r\n");
        *old = Answers::new(Health::Fine, old.facts.clone(), Some(ledis));
    }
    let found = ward.assert_only(Code::NotAsked, Severity::Info, None);
    assert!(
        found.message.contains("10.0.0.1:1, 10.0.0.2:1 and 10.0.0.3:1 is LedisDB"),
        "{found:?}"
    );
}

#[test]
fn names_are_listed_and_sizes_are_readable() {
    let names: Vec<String> = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).into();
    assert_eq!(listed(&names[..1]), "a");
    assert_eq!(listed(&names[..3]), "a, b and c");
    assert_eq!(listed(&names), "a, b, c, d and 2 more");
    assert_eq!((size(17.0), size(1536.0)), ("17 B".to_owned(), "1.5 KiB".to_owned()));
    assert_eq!(size(500.0 * 1024.0 * 1024.0), "500 MiB");
    assert_eq!(cli(&addr("[::1]:7"), "PING"), "redis-cli -h ::1 -p 7 PING");
}

#[test]
fn old_servers_are_asked_in_their_words() {
    let old = server("redis_version:4.0.14\r\n").words();
    let new = server("redis_version:7.0.15\r\n").words();
    for (parameter, in_old, in_new) in [
        (Parameter::MinReplicas, "min-slaves-to-write", "min-replicas-to-write"),
        (Parameter::PingPeriod, "repl-ping-slave-period", "repl-ping-replica-period"),
        (Parameter::ReadOnly, "slave-read-only", "replica-read-only"),
        (Parameter::Save, "save", "save"),
    ] {
        assert_eq!(
            (parameter.name(&old).as_str(), parameter.name(&new).as_str()),
            (in_old, in_new)
        );
    }
    assert_eq!(Right::Follow.grant(&old), "+slaveof");
}

#[test]
fn nothing_that_a_server_says_breaks_a_rule_or_a_terminal() {
    let most = u64::MAX.to_string();
    for value in
        ["", "-1", "no", "yes", most.as_str(), "1 2 3", "\u{1b}[2J\r\n", "slave", "slave 1"]
    {
        let mut ward = Ward::healthy();
        for parameter in Parameter::ALL {
            for number in 0..3 {
                let pair = ["name", value].map(|text| Frame::Bulk(text.to_owned().into()));
                ward.answers(number).read_setting(parameter, &Frame::Array(pair.into()));
            }
        }
        ward.answers(0).server = Some(server("redis_version:2.8\r\n"));
        ward.answers(0).growth = Some(Growth { bytes: u64::MAX, within: Duration::ZERO });
        for field in ["used_memory", "connected_clients", "pubsub_channels"] {
            ward.answers(0).info.insert(field.to_owned(), value.to_owned());
        }
        for finding in ward.findings() {
            let shown = format!("{}{}", finding.message, finding.fix);
            assert!(!shown.contains(char::is_control), "{finding:?}");
        }
    }
}
