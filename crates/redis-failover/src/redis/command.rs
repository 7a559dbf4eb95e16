//! Changing a server: what is written, and what its replies mean.
//!
//! A command goes only over a connection that answered a moment ago, and only while this node may still act. Before the
//! write everything that goes wrong is a refusal, after it everything is unknown.

use std::time::Duration;

use bytes::Bytes;
use failover_core::action::{Command, Keep};
use failover_core::addr::Addr;
use failover_core::event::CommandResult;
use failover_core::instance::{Facts, MinReplicas};
use failover_core::time::Time;

use super::connection::{Broken, Connection, Taken};
use super::flavor::Words;
use super::info::{self, ServerInfo};
use super::resp::Frame;
use crate::clock::Clock;
use crate::fault;

/// A connection whose last valid reply is older than this is asked again before anything is changed over it.
pub(super) const WARM: Duration = Duration::from_millis(200);

/// Replies to probes that came in between.
pub(super) type Answered = Vec<Taken>;

/// The fault point before a command is written; those without one have a name that is never armed.
pub(super) fn fault_before(command: &Command) -> &'static str {
    match command {
        Command::Promote { .. } => "before-promote-send",
        Command::Follow { .. } => "before-repoint",
        Command::Pause { .. }
        | Command::Unpause
        | Command::Demote { .. }
        | Command::Part
        | Command::Fence { .. } => "",
    }
}

/// Writes the command and reads what became of it. The caller keeps the deadline, and has asked whether this node is
/// allowed to; where a second write is needed, that is asked again.
pub(super) async fn carry_out(
    connection: &mut Connection,
    command: &Command,
    clock: &Clock,
    allowed: &(dyn Fn() -> bool + Sync),
    answered: &mut Answered,
) -> CommandResult {
    let Some(server) = connection.server().cloned() else {
        return CommandResult::Refused(
            "the server does not say what it is (INFO server), so no command was sent".to_owned(),
        );
    };
    let known = server.words();
    if let Command::Promote { run_id: Some(run_id), .. } = command
        && server.run_id.as_ref() != Some(run_id)
    {
        return CommandResult::Refused(
            "it restarted after it was elected and may have lost its data; it was not promoted"
                .to_owned(),
        );
    }
    let mut talk = Talk { connection, clock, allowed, answered };
    let done = match command {
        Command::Promote { at_least, fence, .. } => {
            talk.promote(&server, &known, (*at_least, *fence)).await
        }
        Command::Fence { .. } if known.min_replicas.is_none() => {
            return CommandResult::Refused(format!(
                "{} {} has no setting for how many replicas must acknowledge a write",
                server.flavor.name(),
                server.version
            ));
        }
        Command::Fence { set } => talk.fence(&known, *set).await,
        Command::Pause { ms } => match known.pause_writes(*ms) {
            Some(pause) => talk.pause(&known, &pause).await,
            None => Ok(Err(cannot(&server, "pause writes alone"))),
        },
        Command::Unpause => match known.resume_writes() {
            Some(resume) => talk.change(&known, &resume).await,
            None => Ok(Err(cannot(&server, "pause writes alone"))),
        },
        Command::Part => match known.part() {
            Some(part) => talk.change(&known, &part).await,
            None => Ok(Err(cannot(&server, "be a master that refuses writes"))),
        },
        Command::Follow { master_run_id: Some(run_id), .. }
        | Command::Demote { master_run_id: Some(run_id), .. }
            if server.run_id.as_ref() == Some(run_id) =>
        {
            return CommandResult::Refused(
                "it is the master itself under another address; it was not told to follow itself"
                    .to_owned(),
            );
        }
        Command::Demote { master, .. } => talk.change(&known, &known.demote(master)).await,
        Command::Follow { master, keep, .. } => talk.follow(&known, master, *keep).await,
    };
    match done {
        Ok(Ok((facts, warnings))) => CommandResult::Done { facts: Box::new(facts), warnings },
        Ok(Err(refused)) => CommandResult::Refused(refused),
        Err(Broken::Ended | Broken::TurnedAway(_)) => {
            CommandResult::Unknown("the connection ended after the command was sent".to_owned())
        }
        Err(Broken::Garbage(what)) => {
            CommandResult::Unknown(format!("the reply to the command cannot be read: {what}"))
        }
    }
}

type Done = Result<Result<(Facts, Vec<String>), String>, Broken>;

struct Talk<'a> {
    connection: &'a mut Connection,
    clock: &'a Clock,
    allowed: &'a (dyn Fn() -> bool + Sync),
    answered: &'a mut Answered,
}

impl Talk<'_> {
    async fn promote(
        &mut self,
        server: &ServerInfo,
        known: &Words,
        (at_least, fence): (Option<u64>, Option<MinReplicas>),
    ) -> Done {
        let asked_at = self.clock.now();
        let mut commands = fence.map(|set| known.fence(set)).unwrap_or_default();
        let before = commands.len();
        commands.push(known.promote());
        commands.extend(known.standing());
        // Where the server itself does not remember how far it was as a replica, it is asked right before. One whose process has
        // no name may be another by now.
        let mut was = None;
        if !server.flavor.manners().finds_common {
            let replies = self.exchange(&[words(&["INFO", "replication"])]).await?;
            let Some(text) = replies.first().and_then(Frame::text) else {
                return Ok(Err("it does not say how far it is; it was not promoted".to_owned()));
            };
            let (facts, _) = info::replication(text, server, asked_at)
                .map_err(|error| Broken::Garbage(error.to_string()))?;
            if let Some(least) = at_least.filter(|least| facts.offset < *least) {
                return Ok(Err(format!(
                    "it is at {}, and was at {least} when it was elected: it restarted, or took over something else, and may have \
                     lost its data; it was not promoted",
                    facts.offset
                )));
            }
            if !(self.allowed)() {
                return Ok(Err(
                    "the leadership was over before the command could be sent".to_owned()
                ));
            }
            was = Some(facts.offset).filter(|_| !facts.is_master());
        }
        self.connection.command(&commands).await?;
        fault::point("after-promote-send").await.map_err(Broken::Garbage)?;
        let replies = self.collect(commands.len()).await?;
        if let Some(refusal) = refusal(&replies[before]) {
            return Ok(Err(refusal));
        }
        // A master that waits for its replicas is better than none.
        let warnings = warnings_of(&commands[..before], &replies[..before]);
        if fence.is_some() {
            self.connection.note_min_replicas(fence.filter(|_| warnings.is_empty()));
        }
        let mut facts = self.facts(known, &replies[before + 1..], asked_at)?;
        if !server.flavor.manners().finds_common {
            facts.second_offset = was;
        }
        fault::point("after-promote-verify").await.map_err(Broken::Garbage)?;
        if known.config_rewrite {
            // Not waited for: the file is written to disk, and the group waits for its master.
            self.connection.rewrite().await?;
        }
        Ok(Ok((facts, warnings)))
    }

    /// Sets what writes depend on, and has it written down. That this failed is the only warning.
    async fn fence(&mut self, known: &Words, set: MinReplicas) -> Done {
        let asked_at = self.clock.now();
        let mut commands = known.fence(set);
        let settings = commands.len();
        commands.push(words(&["INFO", "replication"]));
        commands.push(words(&["CONFIG", "REWRITE"]));
        let replies = self.exchange(&commands).await?;
        if let Some(refusal) = replies[..settings].iter().find_map(refusal) {
            self.connection.note_min_replicas(None);
            return Ok(Err(refusal));
        }
        self.connection.note_min_replicas(Some(set));
        let facts = self.facts(known, &replies[settings..=settings], asked_at)?;
        Ok(Ok((facts, warnings_of(&commands[settings + 1..], &replies[settings + 1..]))))
    }

    /// Changes one thing and nothing beside it, and reads what the server is then, all in one write.
    async fn change(&mut self, known: &Words, change: &[Bytes]) -> Done {
        let asked_at = self.clock.now();
        let mut commands = vec![change.to_vec()];
        commands.extend(known.standing());
        let replies = self.exchange(&commands).await?;
        if let Some(refusal) = refusal(&replies[0]) {
            return Ok(Err(refusal));
        }
        Ok(Ok((self.facts(known, &replies[1..], asked_at)?, Vec::new())))
    }

    async fn pause(&mut self, known: &Words, pause: &[Bytes]) -> Done {
        let done = self.change(known, pause).await?;
        fault::point("switchover-paused").await.map_err(Broken::Garbage)?;
        Ok(done)
    }

    async fn follow(&mut self, known: &Words, master: &Addr, keep: Keep) -> Done {
        let mut was = None;
        if keep != Keep::Common && known.restart {
            let asked_at = self.clock.now();
            let replies = self.exchange(&known.standing()).await?;
            let facts = self.facts(known, &replies, asked_at)?;
            was = Some(facts.offset);
            if let Keep::UpTo(at) = keep
                && facts.offset > at
            {
                let offset = facts.offset;
                return Ok(Err(format!(
                    "it is at {offset} and its new master began at {at}: what it holds beyond that has to go, so it was not told \
                     to follow before it takes over a full copy"
                )));
            }
            if keep != Keep::Nothing && facts.follows() == Some(master) {
                // Told once more, a replica could vanish from its master's list.
                return Ok(Ok((facts, Vec::new())));
            }
            if !(self.allowed)() {
                return Ok(Err(
                    "the leadership was over before the command could be sent".to_owned()
                ));
            }
        }
        let follow = &known.follow(master, keep);
        if known.scattered {
            // There is nothing beside it, and each further round trip would be within the deadline.
            let done = self.change(known, follow).await?;
            return Ok(
                done.map(|(facts, warnings)| (Facts { second_offset: was, ..facts }, warnings))
            );
        }
        let mut warnings = Vec::new();
        let mut done = None;
        if known.multi {
            done = self.follow_at_once(follow, known, &mut warnings).await?;
        }
        let facts = if let Some(facts) = done {
            facts
        } else {
            // The transaction was refused as a whole, or there is none: the roles first, the rest as far as it goes.
            if !(self.allowed)() {
                let why = "its transaction was refused, and the leadership was over before it could be sent without one";
                return Ok(Err(why.to_owned()));
            }
            let replies = self.exchange(&[follow.to_vec()]).await?;
            if let Some(refusal) = refusal(&replies[0]) {
                return Ok(Err(refusal));
            }
            let rest = beside(known);
            let replies = self.exchange(&rest).await?;
            warnings = warnings_of(&rest, &replies);
            let asked_at = self.clock.now();
            let replies = self.exchange(&known.standing()).await?;
            self.facts(known, &replies, asked_at)?
        };
        Ok(Ok((facts, warnings)))
    }

    /// One transaction: the new master, the file, and the clients that believe in the old role. What the server is then is
    /// asked in the same write: it answers with the offset at which it stopped taking writes, before it takes anything over.
    async fn follow_at_once(
        &mut self,
        follow: &[Bytes],
        known: &Words,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Facts>, Broken> {
        let mut body = vec![follow.to_vec()];
        body.extend(beside(known));
        let mut commands = vec![words(&["MULTI"])];
        commands.extend(body.iter().cloned());
        commands.push(words(&["EXEC"]));
        commands.push(words(&["INFO", "replication"]));
        let asked_at = self.clock.now();
        let replies = self.exchange(&commands).await?;
        let [.., Frame::Array(results), _] = replies.as_slice() else { return Ok(None) };
        if results.first().is_none_or(|first| matches!(first, Frame::Error(_))) {
            return Ok(None);
        }
        *warnings = warnings_of(&body, results);
        Ok(Some(self.facts(known, &replies[replies.len() - 1..], asked_at)?))
    }

    async fn exchange(&mut self, commands: &[Vec<Bytes>]) -> Result<Vec<Frame>, Broken> {
        self.connection.command(commands).await?;
        self.collect(commands.len()).await
    }

    async fn collect(&mut self, count: usize) -> Result<Vec<Frame>, Broken> {
        let mut replies = Vec::with_capacity(count);
        while replies.len() < count {
            let frame = self.connection.receive().await?;
            match self.connection.take(frame, self.clock.now())? {
                Taken::Nothing => {}
                Taken::Command(frame) => replies.push(frame),
                probe @ Taken::Probe(..) => self.answered.push(probe),
            }
        }
        Ok(replies)
    }

    /// What a server is, by its answers to [`Words::standing`].
    fn facts(&mut self, known: &Words, replies: &[Frame], asked_at: Time) -> Result<Facts, Broken> {
        let refused = || Broken::Garbage("INFO was refused after the command".to_owned());
        let (replication, role) = match replies {
            [server, replication, role] if known.scattered => {
                self.connection.note_server(server.text().ok_or_else(refused)?)?;
                (replication, Some(role))
            }
            [replication, ..] => (replication, None),
            [] => return Err(refused()),
        };
        let (Some(server), Some(text)) = (self.connection.server(), replication.text()) else {
            return Err(refused());
        };
        let (mut facts, dependence) = info::replication(text, server, asked_at)
            .map_err(|error| Broken::Garbage(error.to_string()))?;
        self.connection.complete(&mut facts, dependence);
        if let Some(role) = role {
            info::settle(&mut facts, role);
        }
        Ok(facts)
    }
}

/// What is done beside a change of master: remember it, and cut the clients off so that they look again.
fn beside(known: &Words) -> Vec<Vec<Bytes>> {
    let mut commands = Vec::new();
    if known.config_rewrite {
        commands.push(words(&["CONFIG", "REWRITE"]));
    }
    for kind in known.client_kill_types {
        commands.push(words(&["CLIENT", "KILL", "TYPE", kind]));
    }
    commands
}

fn words(words: &[&str]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn cannot(server: &ServerInfo, what: &str) -> String {
    format!("{} {} cannot {what}", server.flavor.name(), server.version)
}

fn refusal(reply: &Frame) -> Option<String> {
    reply.refusal().map(|refusal| refusal.to_string())
}

fn warnings_of(commands: &[Vec<Bytes>], replies: &[Frame]) -> Vec<String> {
    let named = |command: &Vec<Bytes>| {
        let words: Vec<_> = command.iter().map(|word| String::from_utf8_lossy(word)).collect();
        words.join(" ")
    };
    commands
        .iter()
        .zip(replies)
        .filter_map(|(command, reply)| {
            refusal(reply).map(|why| format!("{} was refused: {why}", named(command)))
        })
        .collect()
}
