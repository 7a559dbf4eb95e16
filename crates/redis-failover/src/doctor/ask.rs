//! Asks every instance of a group, all at once and each on a connection of its own, within a bound.

use std::collections::BTreeSet;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::time::Time;
use futures_util::future::join_all;
use tokio::time::timeout_at;

use super::answers::{Answers, Growth, Parameter, Right, Topic, has_users, is_from};
use crate::clock::Clock;
use crate::redis::{Frame, Interview, Login, Mute, Version, fields};
use crate::resolve::Resolver;

/// How long an instance may take to let us in and to answer the first questions. It is longer than connecting takes.
const FIRST_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long the second ones may take, which wait for the slowest of the first: a server that hangs costs the others
/// nothing but that.
const SECOND_TIMEOUT: Duration = Duration::from_millis(1000);
/// How long a master is looked at to know how much is written. A longer look would know better and keep people waiting.
const GROWTH_TIME: Duration = Duration::from_millis(500);
/// Most users whose passwords are compared. A group has one, or one per instance while they are being changed.
const USERS_MAX: usize = 8;

/// What became of asking one instance.
pub(super) struct Examined {
    pub(super) addr: Addr,
    pub(super) told: Result<Answers, Mute>,
}

/// What it takes to ask.
pub(super) struct Asker<'a> {
    pub(super) login: &'a Login,
    pub(super) resolver: &'a Resolver,
    pub(super) clock: Clock,
}

/// An instance in the middle of being asked.
struct Patient {
    addr: Addr,
    /// Without the connection when an answer is still to come on it, which would be taken for one to a later question.
    told: Result<(Option<Interview>, Answers), Mute>,
    /// When its `INFO` was answered.
    informed_at: Time,
}

impl Asker<'_> {
    /// Asks them. The one that is `growing` is looked at twice.
    pub(super) async fn ask(&self, addrs: Vec<Addr>, growing: &Addr) -> Vec<Examined> {
        let deadline = self.clock.now() + FIRST_TIMEOUT;
        let first = addrs.into_iter().map(|addr| self.first(addr, deadline));
        let patients = join_all(first).await;
        // Whoever follows another server logs in there as one of its users: these are asked of all.
        let users: BTreeSet<String> = patients
            .iter()
            .filter_map(|patient| patient.told.as_ref().ok())
            .filter_map(|(_, answers)| answers.text(Parameter::MasterUser))
            .chain(["default", ""])
            .filter(|user| !user.is_empty())
            .map(str::to_owned)
            .take(USERS_MAX)
            .collect();
        let deadline = self.clock.now() + SECOND_TIMEOUT;
        let second =
            patients.into_iter().map(|patient| self.second(patient, &users, growing, deadline));
        join_all(second).await
    }

    async fn first(&self, addr: Addr, deadline: Time) -> Patient {
        let until = self.clock.instant(deadline);
        let begun = Interview::begin(&addr, self.login, self.resolver, self.clock);
        let begun = timeout_at(until, begun).await.unwrap_or_else(|_| Err(silent()));
        let mut interview = match begun {
            Ok(interview) => interview,
            Err(why) => return Patient { addr, told: Err(why), informed_at: Time::ZERO },
        };
        let mut answers = Answers::new(
            interview.health.clone(),
            interview.facts.clone(),
            interview.server().cloned(),
        );
        answers.by_loopback = interview.socket().ip().is_loopback();
        let questions = self.questions(&answers);
        let words: Vec<Vec<String>> =
            questions.iter().map(|question| question.words(self, &answers)).collect();
        let asked = timeout_at(until, interview.ask(&words)).await;
        let interview = match asked.unwrap_or_else(|_| Err(silent())) {
            Ok(frames) => {
                for (question, frame) in questions.iter().zip(&frames) {
                    question.read(&mut answers, frame);
                }
                Some(interview)
            }
            Err(why) => {
                for topic in questions.iter().filter_map(|question| question.topic()) {
                    answers.unanswered.insert(topic, in_words(&why));
                }
                None
            }
        };
        let informed_at = self.clock.now();
        Patient { addr, told: Ok((interview, answers)), informed_at }
    }

    async fn second(
        &self,
        patient: Patient,
        users: &BTreeSet<String>,
        growing: &Addr,
        deadline: Time,
    ) -> Examined {
        let Patient { addr, told, informed_at } = patient;
        let (mut interview, mut answers) = match told {
            Ok((Some(interview), answers)) => (interview, answers),
            Ok((None, answers)) => return Examined { addr, told: Ok(answers) },
            Err(why) => return Examined { addr, told: Err(why) },
        };
        let until = self.clock.instant(deadline);
        if answers.server.as_ref().is_some_and(has_users) {
            let questions: Vec<Vec<String>> =
                users.iter().map(|user| question(&["ACL", "GETUSER", user])).collect();
            let asked = timeout_at(until, interview.ask(&questions)).await;
            match asked.unwrap_or_else(|_| Err(silent())) {
                Ok(frames) => {
                    for (user, frame) in users.iter().zip(&frames) {
                        answers.read_account(user, frame);
                    }
                }
                Err(why) => {
                    answers.unanswered.insert(Topic::Accounts, in_words(&why));
                    return Examined { addr, told: Ok(answers) };
                }
            }
        }
        if addr == *growing {
            let looked = self.growth(&mut interview, &answers, informed_at);
            answers.growth = timeout_at(until, looked).await.ok().flatten();
        }
        Examined { addr, told: Ok(answers) }
    }

    /// How much a master grows, by a second look at its offset.
    async fn growth(
        &self,
        interview: &mut Interview,
        answers: &Answers,
        informed_at: Time,
    ) -> Option<Growth> {
        let before = answers.info_number("master_repl_offset")?;
        let history = answers.info_text("master_replid");
        tokio::time::sleep_until(self.clock.instant(informed_at + GROWTH_TIME)).await;
        let frames = interview.ask(&[question(&["INFO", "replication"])]).await.ok()?;
        let within = self.clock.now().since(informed_at);
        let text = frames.first()?.text()?;
        let find = |key: &str| fields(text).find(|(name, _)| *name == key).map(|(_, value)| value);
        let after = find("master_repl_offset")?.parse::<u64>().ok()?;
        // Offsets of two histories cannot be compared.
        let bytes = after.checked_sub(before).filter(|_| find("master_replid") == history)?;
        Some(Growth { bytes, within })
    }

    fn questions(&self, answers: &Answers) -> Vec<Question> {
        if answers.server.as_ref().is_some_and(|server| !server.words().tells_setup) {
            return Vec::new();
        }
        let mut questions = vec![Question::Info];
        questions.extend(Parameter::ALL.map(Question::Setting));
        questions.push(Question::Subscribers);
        let can_try = |server| is_from(server, Version::new(7, 0, 0));
        if answers.server.as_ref().is_none_or(can_try) {
            questions.extend(Right::ALL.map(Question::Right));
        }
        questions.extend(Right::ALL.map(Question::Command));
        questions
    }

    /// The name under which this program logs in.
    fn user(&self) -> &str {
        let user = self.login.user.as_deref().filter(|_| self.login.password.is_some());
        user.unwrap_or("default")
    }
}

/// One question of the first round.
#[derive(Clone, Copy)]
enum Question {
    Info,
    Setting(Parameter),
    Subscribers,
    Right(Right),
    Command(Right),
}

impl Question {
    fn words(self, asker: &Asker<'_>, answers: &Answers) -> Vec<String> {
        let known = answers.words();
        match self {
            Self::Info => question(&["INFO"]),
            Self::Setting(parameter) => question(&["CONFIG", "GET", &parameter.name(&known)]),
            // On this channel Sentinels tell each other of a master and find each other.
            Self::Subscribers => question(&["PUBSUB", "NUMSUB", "__sentinel__:hello"]),
            Self::Right(right) => {
                let dry = question(&["ACL", "DRYRUN", asker.user()]);
                [dry, question(&right.command(&known))].concat()
            }
            Self::Command(right) => question(&["COMMAND", "INFO", right.command(&known)[0]]),
        }
    }

    fn read(self, answers: &mut Answers, frame: &Frame) {
        match self {
            Self::Info => answers.read_info(frame),
            Self::Setting(parameter) => answers.read_setting(parameter, frame),
            Self::Subscribers => answers.read_subscribers(frame),
            Self::Right(right) => answers.read_right(right, frame),
            Self::Command(right) => answers.read_command(right, frame),
        }
    }

    /// What is missing when it is not answered.
    fn topic(self) -> Option<Topic> {
        match self {
            Self::Info => Some(Topic::Info),
            Self::Setting(_) => Some(Topic::Settings),
            Self::Subscribers => Some(Topic::Subscribers),
            Self::Right(_) => Some(Topic::Rights),
            Self::Command(_) => None,
        }
    }
}

fn question(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn silent() -> Mute {
    Mute::Broken(format!("it gave no whole answer within {} ms", FIRST_TIMEOUT.as_millis()))
}

/// Why it told nothing, or no more.
pub(super) fn in_words(why: &Mute) -> String {
    match why {
        Mute::Refused => "its host refuses connections".to_owned(),
        Mute::Unreachable(why) | Mute::TurnedAway(why) | Mute::Broken(why) | Mute::Ours(why) => {
            why.clone()
        }
    }
}
