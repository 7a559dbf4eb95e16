//! What servers say of themselves in `INFO`, read into facts.
//!
//! Three sections are asked for: `server` once a connection, for the flavor, version and run id, `replication` with every
//! probe, and `keyspace` now and then. A text that leaves open who the server is or whom it follows is an error; anything less is read as the
//! safe side of what it may mean. Verdicts about what was read are not here.

use std::collections::BTreeSet;
use std::str;

use failover_core::addr::Addr;
use failover_core::instance::{Facts, Flavor, Link, ReplicationId, Role};
use failover_core::time::Time;

use super::flavor::{Version, Words, WritePause, shortened};
use super::resp::Frame;

/// The most attached replicas that are read. More in one group are beyond what this program manages.
pub(crate) const REPLICAS_MAX: usize = 1024;

/// The longest version, run id or replication id. Servers send 40 bytes at most.
const WORD_BYTES_MAX: usize = 64;

/// Stands for the version of a server that names none that is known here.
const VERSION_UNKNOWN: &str = "unknown";

/// A replica whose acknowledgement is older is not counted on.
const LAG_SECS_MAX: i64 = 1;

/// How much of a text that cannot be read is repeated.
const EXCERPT_BYTES_MAX: usize = 64;

/// Servers sort replicas by it, lower first; this is what they send when nobody set it.
const PRIORITY_DEFAULT: u32 = 100;

/// A link cannot be down for 30 years: older servers report the time since the epoch for a link that was
/// never up.
const DOWN_SECS_MAX: u64 = 1_000_000_000;

/// Who a server is. It does not change while a connection lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerInfo {
    /// Redis, Valkey or LedisDB.
    pub(crate) flavor: Flavor,
    /// The server's own version text.
    pub(crate) version: Box<str>,
    /// Random per start of the server; `None` where the flavor has none.
    pub(crate) run_id: Option<Box<str>>,
    /// It refuses writes because it was told to, where it says so here. It changes while the server runs.
    pub(crate) read_only: bool,
}

/// Why a text says too little to act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InfoError {
    /// The server section names no server that we know.
    #[error("INFO names no version that can be read")]
    NoVersion,
    /// A Sentinel keeps no data.
    #[error("this is a Redis Sentinel, not a server with data")]
    Sentinel,
    /// The replication section has no role.
    #[error("INFO names no role")]
    NoRole,
    /// The role is neither of the two.
    #[error("INFO names the role \"{0}\", which is neither master nor slave")]
    UnknownRole(Box<str>),
    /// A replica that does not say whom it follows.
    #[error("INFO says slave but names no master")]
    NoMaster,
    /// A replica whose master has no address.
    #[error("INFO names the master \"{0}\", which is not an address")]
    BadMaster(Box<str>),
    /// Without an offset it can be neither ranked nor compared.
    #[error("INFO names no replication offset")]
    NoOffset,
    /// An offset that is none.
    #[error("INFO names the replication offset \"{0}\", which is not a number")]
    BadOffset(Box<str>),
}

impl ServerInfo {
    /// Reads the answer to `INFO server`.
    ///
    /// # Errors
    /// When it is not from a server that this program can watch.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, InfoError> {
        let (mut redis, mut valkey, mut ledisdb, mut run_id) = (None, None, None, None);
        let (mut read_only, mut anything) = (false, false);
        for (key, value) in fields(text) {
            anything = true;
            match key {
                "redis_version" => redis = Some(value),
                "valkey_version" => valkey = Some(value),
                "ledisdb_version" => ledisdb = Some(value),
                "run_id" => run_id = word(value),
                "readonly" => read_only = value == "true",
                "redis_mode" | "server_mode" if value == "sentinel" => {
                    return Err(InfoError::Sentinel);
                }
                _ => {}
            }
        }
        // Valkey names a Redis version too, the one that it is compatible with.
        let (flavor, version) = match (ledisdb, valkey, redis) {
            (Some(version), _, _) => (Flavor::Ledisdb, version),
            (None, Some(version), _) => (Flavor::Valkey, version),
            (None, None, Some(version)) => (Flavor::Redis, version),
            // Whatever it is called, it speaks of itself as Redis does, and is told what the oldest Redis understands.
            (None, None, None) if anything => (Flavor::Redis, VERSION_UNKNOWN),
            (None, None, None) => return Err(InfoError::NoVersion),
        };
        let version = word(version).ok_or(InfoError::NoVersion)?;
        Ok(Self { flavor, version: version.into(), run_id: run_id.map(Into::into), read_only })
    }

    /// What it understands.
    #[must_use]
    pub(crate) fn words(&self) -> Words {
        Words::of(self.flavor, self.number())
    }

    /// The version as a number that can be compared.
    #[must_use]
    pub(crate) fn number(&self) -> Version {
        Version::parse(&self.version)
    }
}

/// The fields of the replication section, as they were written.
#[derive(Default)]
struct Fields<'a> {
    role: Option<&'a str>,
    master_host: Option<&'a str>,
    master_port: Option<&'a str>,
    master_link_status: Option<&'a str>,
    master_last_io_seconds_ago: Option<&'a str>,
    master_sync_in_progress: Option<&'a str>,
    master_link_down_since_seconds: Option<&'a str>,
    slave_priority: Option<&'a str>,
    master_replid: Option<&'a str>,
    master_replid2: Option<&'a str>,
    second_repl_offset: Option<&'a str>,
    master_repl_offset: Option<&'a str>,
    slave_repl_offset: Option<&'a str>,
    // From here on: LedisDB only.
    slaveof: Option<&'a str>,
    slaves: Option<&'a str>,
    last_log_id: Option<&'a str>,
    commit_log_id: Option<&'a str>,
    /// What is said of each attached replica, in the order in which they are listed.
    attached: Vec<&'a str>,
    /// It counts the replicas that are good enough.
    counts_good: bool,
}

impl<'a> Fields<'a> {
    fn parse(text: &'a [u8]) -> Self {
        let mut all = Self::default();
        for (key, value) in fields(text) {
            let slot = match key {
                "role" => &mut all.role,
                "master_host" | "primary_host" => &mut all.master_host,
                "master_port" | "primary_port" => &mut all.master_port,
                "master_link_status" | "primary_link_status" => &mut all.master_link_status,
                "master_last_io_seconds_ago" | "primary_last_io_seconds_ago" => {
                    &mut all.master_last_io_seconds_ago
                }
                "master_sync_in_progress" | "primary_sync_in_progress" => {
                    &mut all.master_sync_in_progress
                }
                "master_link_down_since_seconds" | "primary_link_down_since_seconds" => {
                    &mut all.master_link_down_since_seconds
                }
                "slave_priority" | "replica_priority" => &mut all.slave_priority,
                "master_replid" | "primary_replid" => &mut all.master_replid,
                "master_replid2" | "primary_replid2" => &mut all.master_replid2,
                "second_repl_offset" => &mut all.second_repl_offset,
                "master_repl_offset" | "primary_repl_offset" => &mut all.master_repl_offset,
                "slave_repl_offset" | "replica_repl_offset" => &mut all.slave_repl_offset,
                "slaveof" => &mut all.slaveof,
                "slaves" => &mut all.slaves,
                "last_log_id" => &mut all.last_log_id,
                "commit_log_id" => &mut all.commit_log_id,
                "min_slaves_good_slaves" | "min_replicas_good_replicas" => {
                    all.counts_good = true;
                    continue;
                }
                _ if names_attached(key) => {
                    all.attached.push(value);
                    continue;
                }
                _ => continue,
            };
            *slot = Some(value);
        }
        all
    }

    fn is_master(&self) -> Result<bool, InfoError> {
        match self.role {
            Some("master" | "primary") => Ok(true),
            Some("slave" | "replica") => Ok(false),
            Some(other) => Err(InfoError::UnknownRole(excerpt(other))),
            None => Err(InfoError::NoRole),
        }
    }

    fn link_is_up(&self) -> bool {
        self.master_link_status == Some("up")
    }

    fn dependence(&self) -> Dependence {
        let online = |value: &&&str| attached_replica(value).is_some() && acknowledges(value);
        let online = self.attached.iter().filter(online).count();
        Dependence { is_on: self.counts_good, online: u32::try_from(online).unwrap_or(u32::MAX) }
    }
}

/// Reads the answer to `INFO replication` of a server that is known already, and how its writes depend on its replicas.
///
/// # Errors
/// When the text does not say which role the server has, whom it follows or how far it is.
pub(crate) fn replication(
    text: &[u8],
    server: &ServerInfo,
    asked_at: Time,
) -> Result<(Facts, Dependence), InfoError> {
    // Once for both: this is done for every probe.
    let fields = Fields::parse(text);
    let is_master = fields.is_master()?;
    let (role, offset) = match server.flavor {
        Flavor::Redis | Flavor::Valkey => {
            (redis_role(&fields, is_master)?, redis_offset(&fields, is_master)?)
        }
        Flavor::Ledisdb => (ledisdb_role(&fields, is_master)?, ledisdb_offset(&fields)?),
    };
    let facts = Facts {
        // Not of this section: the connection asks for it once.
        ping_period_secs: None,
        can_pause_writes: server.words().write_pause != WritePause::None,
        read_only: is_master && server.read_only,
        log_is_empty: server.flavor == Flavor::Ledisdb && is_zero(fields.last_log_id) && offset > 0,
        keys: None,
        fence: None,
        asked_at,
        flavor: server.flavor,
        version: server.version.clone(),
        run_id: server.run_id.clone(),
        role,
        replication_id: replication_id(fields.master_replid),
        second_replication_id: replication_id(fields.master_replid2),
        // The first byte that is not of it any more; -1 when there is none.
        second_offset: fields
            .second_repl_offset
            .and_then(|text| text.parse::<u64>().ok())
            .and_then(|next| next.checked_sub(1)),
        offset,
        priority: fields
            .slave_priority
            .and_then(|text| text.parse().ok())
            .unwrap_or(PRIORITY_DEFAULT),
    };
    Ok((facts, fields.dependence()))
}

/// Reads the answer to `INFO keyspace`: how many keys there are in all databases; `None` when it is no such answer.
pub(crate) fn keys(text: &[u8]) -> Option<u64> {
    if !text.starts_with(b"# Keyspace") {
        return None;
    }
    let mut sum: u64 = 0;
    for (key, value) in fields(text) {
        if key.starts_with("db") {
            let count = value.split(',').find_map(|part| part.strip_prefix("keys="))?;
            sum = sum.saturating_add(count.parse().ok()?);
        }
    }
    Some(sum)
}

/// What an answer to `INFO replication` says of a server's dependence on its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dependence {
    /// Writes may be refused for want of replicas: it counts those that are good enough.
    pub(crate) is_on: bool,
    /// Replicas that have all data and acknowledged it a moment ago.
    pub(crate) online: u32,
}

/// Whether an attached replica is fed with what is new, and was heard within its last two seconds: it acknowledges once
/// a second.
fn acknowledges(value: &str) -> bool {
    let mut parts = value.split(',');
    if !value.contains('=') {
        return parts.nth(2) == Some("online");
    }
    let field = |name: &str| parts.clone().find_map(|part| part.strip_prefix(name));
    let lag = field("lag=").and_then(|lag| lag.parse::<i64>().ok());
    field("state=") == Some("online") && lag.is_none_or(|lag| (0..=LAG_SECS_MAX).contains(&lag))
}

fn redis_role(fields: &Fields<'_>, is_master: bool) -> Result<Role, InfoError> {
    if is_master {
        let attached = fields.attached.iter().filter_map(|value| attached_replica(value));
        return Ok(Role::Master { replicas: distinct(attached) });
    }
    let (Some(host), Some(port)) = (fields.master_host, fields.master_port) else {
        return Err(InfoError::NoMaster);
    };
    let master =
        addr(host, port).ok_or_else(|| InfoError::BadMaster(excerpt(&format!("{host}:{port}"))))?;
    Ok(Role::Replica { master, link: redis_link(fields) })
}

fn redis_link(fields: &Fields<'_>) -> Link {
    let seconds = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    if fields.master_sync_in_progress == Some("1") {
        Link::Syncing
    } else if fields.link_is_up() {
        // -1 stands for a link that was established this moment.
        Link::Up { last_io_secs: seconds(fields.master_last_io_seconds_ago).unwrap_or(0) }
    } else {
        Link::Down {
            since_secs: seconds(fields.master_link_down_since_seconds)
                .filter(|secs| *secs < DOWN_SECS_MAX),
        }
    }
}

/// Since Redis 4 `master_repl_offset` is how far a server is, whichever role it has. Before, a replica counted there
/// what it sent to its own replicas; such servers have no replication id.
fn redis_offset(fields: &Fields<'_>, is_master: bool) -> Result<u64, InfoError> {
    let text = if is_master || fields.master_replid.is_some() {
        fields.master_repl_offset
    } else {
        fields.slave_repl_offset.or(fields.master_repl_offset)
    };
    let text = text.ok_or(InfoError::NoOffset)?;
    let offset = text.parse::<i64>().map_err(|_| InfoError::BadOffset(excerpt(text)))?;
    // Old replicas say -1 when they never had one.
    Ok(offset.max(0).unsigned_abs())
}

fn ledisdb_role(fields: &Fields<'_>, is_master: bool) -> Result<Role, InfoError> {
    if is_master {
        let attached = fields.slaves.unwrap_or("").split(',').filter_map(joined_addr);
        return Ok(Role::Master { replicas: distinct(attached) });
    }
    let master = match fields.slaveof {
        None | Some("") => return Err(InfoError::NoMaster),
        Some(text) => joined_addr(text).ok_or_else(|| InfoError::BadMaster(excerpt(text)))?,
    };
    // During a full copy INFO says that the link is up, and every id is 0. Nothing tells this from a pair that was
    // never written to except `ROLE` (see `settle`), so it is read as a copy until that was asked. When the link is
    // down, an id means that a copy was finished once; INFO does not say when the link was lost.
    let has_data = ledisdb_offset(fields)? > 0;
    let link = match (fields.link_is_up(), has_data) {
        (true, true) => Link::Up { last_io_secs: 0 },
        (true, false) => Link::Syncing,
        (false, true) => Link::Down { since_secs: Some(0) },
        (false, false) => Link::Down { since_secs: None },
    };
    Ok(Role::Replica { master, link })
}

/// LedisDB counts write batches. After a full copy its last log id is 0 until the next write, and its position is the
/// commit id.
fn ledisdb_offset(fields: &Fields<'_>) -> Result<u64, InfoError> {
    let mut offset = None;
    for text in
        [fields.last_log_id, fields.commit_log_id, fields.slave_repl_offset].into_iter().flatten()
    {
        let id = text.parse::<u64>().map_err(|_| InfoError::BadOffset(excerpt(text)))?;
        offset = offset.max(Some(id));
    }
    offset.ok_or(InfoError::NoOffset)
}

fn is_zero(text: Option<&str>) -> bool {
    text.and_then(|text| text.parse::<u64>().ok()) == Some(0)
}

/// Corrects the link of a LedisDB replica with its answer to `ROLE`, which alone tells a full copy on its way from an
/// established link. Facts of other flavors, and of masters, stay as they are.
pub(crate) fn settle(facts: &mut Facts, role: &Frame) {
    let (Flavor::Ledisdb, Role::Replica { link, .. }) = (facts.flavor, &mut facts.role) else {
        return;
    };
    let Frame::Array(items) = role else {
        return;
    };
    match items.get(3).and_then(Frame::text) {
        Some(b"sync") => *link = Link::Syncing,
        Some(b"connected") => *link = Link::Up { last_io_secs: 0 },
        Some(_) | None => {}
    }
}

/// Whether a field is about an attached replica: `slave0`, `slave1` and so on.
fn names_attached(key: &str) -> bool {
    let index = key.strip_prefix("slave").or_else(|| key.strip_prefix("replica"));
    index.is_some_and(|index| !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `slave0:ip=10.0.0.1,port=6379,state=online,…`, and `slave0:10.0.0.1,6379,online` of old servers. A client that
/// only copies the data and listens nowhere has port 0 and is no replica.
fn attached_replica(value: &str) -> Option<Addr> {
    let mut parts = value.split(',');
    if !value.contains('=') {
        return addr(parts.next()?, parts.next()?);
    }
    let (mut host, mut port) = (None, None);
    for part in parts {
        match part.split_once('=') {
            Some(("ip", text)) => host = Some(text),
            Some(("port", text)) => port = Some(text),
            Some(_) | None => {}
        }
    }
    addr(host?, port?)
}

/// A replica that is being fed over two connections is listed twice.
fn distinct(replicas: impl Iterator<Item = Addr>) -> Vec<Addr> {
    let mut all: Vec<Addr> = replicas.collect();
    if all.len() > 1 {
        let mut seen = BTreeSet::new();
        all.retain(|replica| seen.insert(replica.clone()));
        all.truncate(REPLICAS_MAX);
    }
    all
}

fn addr(host: &str, port: &str) -> Option<Addr> {
    Addr::new(host, port.parse().ok()?).ok()
}

/// `host:port`, where an IPv6 address may lack its brackets.
fn joined_addr(text: &str) -> Option<Addr> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    addr(bare.unwrap_or(host), port)
}

/// Zeros stand for a history that there was not.
fn replication_id(text: Option<&str>) -> Option<ReplicationId> {
    word(text?).filter(|id| id.bytes().any(|byte| byte != b'0')).map(|id| ReplicationId(id.into()))
}

/// The `key:value` lines of an INFO text. Lines that are no text are none of those we read.
pub(crate) fn fields(text: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Searched as bytes: for lines this short, that takes a fraction of the search in a text.
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (key, value) = (&line[..colon], &line[colon + 1..]);
        Some((str::from_utf8(key).ok()?, str::from_utf8(value).ok()?))
    })
}

/// A value that is one short word, as versions and ids are.
fn word(value: &str) -> Option<&str> {
    let fits = (1..=WORD_BYTES_MAX).contains(&value.len());
    (fits && value.bytes().all(|byte| byte.is_ascii_graphic())).then_some(value)
}

/// The part of an unreadable value that an error repeats.
fn excerpt(value: &str) -> Box<str> {
    shortened(value, EXCERPT_BYTES_MAX).replace(char::is_control, " ").into()
}

#[cfg(test)]
mod tests;
