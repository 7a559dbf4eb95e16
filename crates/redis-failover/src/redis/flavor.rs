//! Where servers differ in words: the commands of each flavor and version, and what their refusals mean.
//!
//! Everything else in this program speaks of promoting and following; only this module knows how a given server is
//! told. It sends nothing and decides nothing.

use std::str;

use bytes::Bytes;
use failover_core::action::Keep;
use failover_core::addr::Addr;
use failover_core::instance::{Flavor, MinReplicas};

use super::resp::Frame;

/// The number of a server's release, as far as it decides which words the server understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    /// The first number.
    pub(crate) major: u16,
    /// The second.
    pub(crate) minor: u16,
    /// The third.
    pub(crate) patch: u16,
}

impl Version {
    /// Of these three numbers.
    #[must_use]
    pub(crate) const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Reads as many numbers as the text begins with (`8.0.1`, `8.0.0-rc1`, `0.5`). What cannot be read is 0, the
    /// oldest: old words are understood by new servers too.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let mut numbers = text.splitn(3, '.').map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            part[..digits].parse().unwrap_or(0)
        });
        let mut next = || numbers.next().unwrap_or(0);
        Self::new(next(), next(), next())
    }
}

/// What a server of one flavor and version understands. Fields are the commands that not all servers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    /// The command that changes whom a server follows.
    pub(crate) replicaof: &'static str,
    /// `MULTI` and `EXEC`.
    pub(crate) multi: bool,
    /// The types of clients that `CLIENT KILL TYPE` is asked to cut off after a change of roles; none without it.
    pub(crate) client_kill_types: &'static [&'static str],
    /// `CONFIG REWRITE` makes a change outlast a restart.
    pub(crate) config_rewrite: bool,
    /// `CLIENT SETNAME` shows whose connection it is.
    pub(crate) client_name: bool,
    /// How writes alone are held back, so that everything else goes on.
    pub(crate) write_pause: WritePause,
    /// The two settings by which a server refuses writes while too few replicas acknowledge them: how many, and how many
    /// seconds ago at most. `None` where there are none.
    pub(crate) min_replicas: Option<[&'static str; 2]>,
    /// What it is takes three answers: `INFO server` says whether a master takes writes, and only `ROLE` tells a full copy on
    /// its way from an established link.
    pub(crate) scattered: bool,
    /// Following takes a third word, by which a replica drops what it has and copies everything.
    pub(crate) restart: bool,
    /// `CONFIG GET`, `ACL` and `PUBSUB` tell how it is set up, who may do what, and who listens.
    pub(crate) tells_setup: bool,
    /// What a replica is called in the names of settings.
    pub(crate) replica: &'static str,
}

/// How writes are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WritePause {
    /// Not alone.
    None,
    /// `CLIENT PAUSE … WRITE` for a while, or until `CLIENT UNPAUSE`.
    Timed,
    /// A master is made read-only, until it is told otherwise; its replicas stay attached.
    ReadOnly,
}

/// Makes a replica drop its data and copy everything, at once and whenever it finds its master again.
const RESTART: &str = "RESTART";
/// Makes a server a master that refuses writes.
const READ_ONLY: [&str; 3] = ["NO", "ONE", "READONLY"];

const ALL_REDIS: Words = Words {
    replicaof: "REPLICAOF",
    multi: true,
    client_kill_types: &["normal", "pubsub"],
    config_rewrite: true,
    client_name: true,
    write_pause: WritePause::Timed,
    min_replicas: Some(["min-replicas-to-write", "min-replicas-max-lag"]),
    scattered: false,
    restart: false,
    tells_setup: true,
    replica: "replica",
};

const LEDISDB: Words = Words {
    replicaof: "SLAVEOF",
    multi: false,
    client_kill_types: &[],
    // It has the command, but roles are no part of what it writes.
    config_rewrite: false,
    client_name: false,
    write_pause: WritePause::ReadOnly,
    min_replicas: None,
    scattered: true,
    restart: true,
    tells_setup: false,
    replica: "slave",
};

impl Words {
    /// Of a server that reported this.
    #[must_use]
    pub(crate) fn of(flavor: Flavor, version: Version) -> Self {
        match flavor {
            Flavor::Valkey => ALL_REDIS,
            Flavor::Redis => Self::of_redis(version),
            Flavor::Ledisdb => LEDISDB,
        }
    }

    /// Makes a server a master.
    #[must_use]
    pub(crate) fn promote(&self) -> Vec<Bytes> {
        command(&[self.replicaof, "NO", "ONE"])
    }

    /// Makes a server follow `master` and keep so much of what it has.
    #[must_use]
    pub(crate) fn follow(&self, master: &Addr, keep: Keep) -> Vec<Bytes> {
        let port = master.port().to_string();
        let mut words = vec![self.replicaof, master.host(), &port];
        if self.restart && keep == Keep::Nothing {
            words.push(RESTART);
        }
        command(&words)
    }

    /// Makes a master take no writes any more, as a replica of `master` or as it is.
    #[must_use]
    pub(crate) fn demote(&self, master: &Addr) -> Vec<Bytes> {
        self.part().unwrap_or_else(|| self.follow(master, Keep::Common))
    }

    /// Makes a server follow nobody and take no writes, where there is such a state.
    #[must_use]
    pub(crate) fn part(&self) -> Option<Vec<Bytes>> {
        let is_there = self.write_pause == WritePause::ReadOnly;
        is_there.then(|| command(&[&[self.replicaof][..], &READ_ONLY].concat()))
    }

    /// Holds back all writes for at most so long, or until they are let go on. `None`: they cannot be held back alone.
    #[must_use]
    pub(crate) fn pause_writes(&self, ms: u64) -> Option<Vec<Bytes>> {
        match self.write_pause {
            WritePause::None => None,
            WritePause::Timed => Some(command(&["CLIENT", "PAUSE", &ms.to_string(), "WRITE"])),
            WritePause::ReadOnly => self.part(),
        }
    }

    /// The questions whose answers together say what a server is.
    #[must_use]
    pub(crate) fn standing(&self) -> Vec<Vec<Bytes>> {
        let replication = command(&["INFO", "replication"]);
        match self.scattered {
            true => vec![command(&["INFO", "server"]), replication, command(&["ROLE"])],
            false => vec![replication],
        }
    }

    /// Makes writes depend on replicas like this, in an order in which nothing between the two is stricter than both.
    /// Nothing, where there is no such setting.
    #[must_use]
    pub(crate) fn fence(&self, set: MinReplicas) -> Vec<Vec<Bytes>> {
        let Some([to_write, max_lag]) = self.min_replicas else { return Vec::new() };
        let mut commands = vec![
            command(&["CONFIG", "SET", max_lag, &set.max_lag_secs.to_string()]),
            command(&["CONFIG", "SET", to_write, &set.to_write.to_string()]),
        ];
        if !set.is_on() {
            commands.reverse();
        }
        commands
    }

    /// Lets writes go on that were held back.
    #[must_use]
    pub(crate) fn resume_writes(&self) -> Option<Vec<Bytes>> {
        match self.write_pause {
            WritePause::None => None,
            WritePause::Timed => Some(command(&["CLIENT", "UNPAUSE"])),
            WritePause::ReadOnly => Some(self.promote()),
        }
    }

    fn of_redis(version: Version) -> Self {
        let mut words = ALL_REDIS;
        if version < Version::new(5, 0, 0) {
            words.replicaof = "SLAVEOF";
            words.replica = "slave";
            words.min_replicas = Some(["min-slaves-to-write", "min-slaves-max-lag"]);
        }
        // `CLIENT PAUSE` of older servers has no `WRITE` and stops everybody, this program as well.
        if version < Version::new(6, 2, 0) {
            words.write_pause = WritePause::None;
        }
        if version < Version::new(2, 8, 12) {
            words.client_kill_types = &[];
        }
        words
    }
}

/// Whether a server is Valkey, or a Redis that is at least as new.
#[must_use]
pub(crate) fn is_from(flavor: Flavor, number: Version, version: Version) -> bool {
    match flavor {
        Flavor::Valkey => true,
        Flavor::Redis => number >= version,
        Flavor::Ledisdb => false,
    }
}

fn command(words: &[&str]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

/// Asks for the settings of [`Words::min_replicas`] by whichever names a server has for them; newer ones know both.
pub(crate) const MIN_REPLICAS_NAMES: &str = "min-*";

/// Reads the answer to that.
pub(crate) fn min_replicas(pairs: &[Frame]) -> Option<MinReplicas> {
    let text =
        |frame: &Frame| frame.text().and_then(|text| str::from_utf8(text).ok().map(str::to_owned));
    let value = |ending: &str| {
        let pair = pairs.chunks_exact(2).find(|pair| {
            text(&pair[0]).is_some_and(|name| {
                ["min-replicas-", "min-slaves-"]
                    .iter()
                    .any(|kind| name == format!("{kind}{ending}"))
            })
        })?;
        text(&pair[1])?.parse().ok()
    };
    Some(MinReplicas { to_write: value("to-write")?, max_lag_secs: value("max-lag")? })
}

/// What a refusal says of the server that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// It lives and reads its data from disk.
    Loading,
    /// It lives, is a replica without its master and was set up not to answer with old data. Answers `PING` too.
    MasterDown,
    /// It lives and refuses writes because it cannot save.
    Misconf,
    /// It lives and runs a script that takes long.
    Busy,
    /// It lives and does not let us in, or not do this.
    Auth,
    /// It lives and has as many clients as it may have.
    TooManyClients,
    /// Anything else.
    Other,
}

/// The longest sentence of a server that is kept.
pub(crate) const SENTENCE_BYTES_MAX: usize = 200;

/// A refusal: its kind and the server's own words, safe to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server answered \"{sentence}\"")]
pub(crate) struct ServerError {
    kind: ErrorKind,
    sentence: Box<str>,
}

impl ServerError {
    /// Of the text of an error reply.
    #[must_use]
    pub(crate) fn new(error: &[u8]) -> Self {
        Self { kind: classify(error), sentence: sentence(error) }
    }

    /// What it means.
    #[must_use]
    pub(crate) const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The server's words, shortened.
    #[must_use]
    pub(crate) fn sentence(&self) -> &str {
        &self.sentence
    }
}

/// What the text of an error reply means.
#[must_use]
pub(crate) fn classify(error: &[u8]) -> ErrorKind {
    let code = error.split(|byte| *byte == b' ').next().unwrap_or(error);
    match code {
        b"LOADING" => return ErrorKind::Loading,
        b"MASTERDOWN" | b"PRIMARYDOWN" => return ErrorKind::MasterDown,
        b"MISCONF" => return ErrorKind::Misconf,
        b"BUSY" => return ErrorKind::Busy,
        b"NOAUTH" | b"WRONGPASS" | b"NOPERM" | b"DENIED" => return ErrorKind::Auth,
        _ => {}
    }
    PHRASES
        .iter()
        .find(|(phrase, _)| error.starts_with(phrase.as_bytes()))
        .map_or(ErrorKind::Other, |(_, kind)| *kind)
}

/// Refusals without a code of their own. The first two stand for several endings each.
const PHRASES: [(&str, ErrorKind); 7] = [
    ("ERR max number of clients", ErrorKind::TooManyClients),
    ("ERR AUTH <password> called without any password", ErrorKind::Auth),
    ("ERR Client sent AUTH, but no password is set", ErrorKind::Auth),
    ("ERR invalid password", ErrorKind::Auth),
    ("ERR operation not permitted", ErrorKind::Auth),
    ("not authenticated", ErrorKind::Auth),
    ("authentication failure", ErrorKind::Auth),
];

/// Servers repeat the arguments of a command they do not know. When `AUTH` was renamed, these are the password.
const REPEATS_ARGUMENTS: &[u8] = b", with args beginning with";

fn sentence(error: &[u8]) -> Box<str> {
    let looked_at = &error[..error.len().min(SENTENCE_BYTES_MAX)];
    let cut =
        looked_at.windows(REPEATS_ARGUMENTS.len()).position(|window| window == REPEATS_ARGUMENTS);
    let text = String::from_utf8_lossy(&looked_at[..cut.unwrap_or(looked_at.len())])
        .replace(char::is_control, " ");
    // A byte that is no text became three bytes.
    shortened(text.trim(), SENTENCE_BYTES_MAX).into()
}

/// The beginning of a text, cut between characters.
pub(super) fn shortened(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
