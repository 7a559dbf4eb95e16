//! `redis-failover doctor`: asks a running node what would make failovers fail, lose data or surprise, and tells people.
//!
//! The node has the passwords and the sight that a failover would have, so it does the examining; here is only a client of
//! its HTTP, which asks for one small document after the other and takes HTTP/1.0 for what it is good at: an answer that
//! ends with its connection.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use failover_core::addr::Addr;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{ConfigError, Origin};

/// The name of the command.
pub(super) const NAME: &str = "doctor";
const ADDR: &str = "addr";
const GROUP: &str = "group";
/// Where the node listens that this command is for, as that node was told.
const ADDR_ENVIRONMENT: &str = "REDIS_FAILOVER_ADDR";
/// Where a node listens that was not told.
const ADDR_DEFAULT: &str = "127.0.0.1:11000";

/// How long an answer may take; the node itself waits less for its turn and for its servers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer. A list of ten thousand groups with a replica each takes about a third of it.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Groups that are asked about at the same time, as many as a node examines.
const GROUPS_AT_ONCE_MAX: usize = 4;

const AFTER_HELP: &str = "\
Without GROUP, which is a name or the address of a master, all groups are examined. A node says what it
sees itself: where nodes stand apart, ask each of them.
Exit status: 0 nothing but notes (info) was found, 1 the node could not be asked, 2 bad flag, 3 something
was found.";

pub(super) fn command() -> Command {
    Command::new(NAME)
        .about(
            "Says what would make a failover fail, lose data or surprise, and what to do about it",
        )
        .after_help(AFTER_HELP)
        .args_override_self(true)
        .arg(
            Arg::new(ADDR)
                .long(ADDR)
                .value_name("URL")
                .help(
                    "HTTP address of a running node [default: what REDIS_FAILOVER_ADDR says, else http://127.0.0.1:11000]",
                ),
        )
        .arg(Arg::new(GROUP).value_name("GROUP").help("the group to examine"))
}

/// What is to be examined, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doctor {
    node: Addr,
    group: Option<String>,
}

/// Whether anything was found that a person should see to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or only notes.
    Nothing,
    /// At least one error or warning.
    Something,
}

/// A group as the node lists it.
#[derive(Deserialize)]
struct Group {
    name: String,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

/// What the node says of one group. What it says beside is left for others.
#[derive(Deserialize)]
struct Report {
    node: String,
    group: String,
    master: String,
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    code: String,
    severity: Severity,
    addr: Option<String>,
    message: String,
    fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Error,
    Warning,
    /// Also whatever a later version thinks of.
    #[serde(other)]
    Info,
}

#[derive(Deserialize)]
struct Problem {
    error: ProblemText,
}

#[derive(Deserialize)]
struct ProblemText {
    message: String,
}

impl Doctor {
    /// From the flags of the command, else from the environment of the node beside it.
    pub(super) fn read(
        matches: &ArgMatches,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let of_node = environment(ADDR_ENVIRONMENT).and_then(|value| value.into_string().ok());
        let (given, origin) = match (matches.get_one::<String>(ADDR), of_node) {
            (Some(given), _) => (given.clone(), Origin::Flag { name: ADDR }),
            (None, Some(given)) if !given.is_empty() => {
                (given, Origin::Environment { name: ADDR_ENVIRONMENT.to_owned() })
            }
            (None, _) => (ADDR_DEFAULT.to_owned(), Origin::Flag { name: ADDR }),
        };
        let node = node_at(&given).map_err(|why| origin.error(why))?;
        Ok(Self { node, group: matches.get_one::<String>(GROUP).cloned() })
    }

    /// Examines one group after the other and says each as soon as it is known.
    ///
    /// # Errors
    /// A sentence, when the node or a group could not be asked; the other groups were told then.
    pub async fn run(&self, mut say: impl FnMut(&str)) -> Result<Found, String> {
        let names = match &self.group {
            Some(group) => vec![group.clone()],
            None => self.groups().await?,
        };
        if names.is_empty() {
            say(&format!("the node at {} guards no group", self.node));
        }
        let (mut found, mut failed) = (Found::Nothing, Vec::new());
        let asked = names.iter().map(|name| self.report(name));
        let mut reports = futures_util::stream::iter(asked).buffered(GROUPS_AT_ONCE_MAX);
        let mut gap = "";
        while let Some(report) = reports.next().await {
            match report {
                Ok(report) => {
                    say(&format!("{gap}{}", in_words(&report)));
                    gap = "\n";
                    if report.findings.iter().any(|finding| finding.severity < Severity::Info) {
                        found = Found::Something;
                    }
                }
                Err(why) => failed.push(why),
            }
        }
        match failed.as_slice() {
            [] => Ok(found),
            [why] => Err(why.clone()),
            [why, ..] => Err(format!("{} of {} groups: {why}, for one", failed.len(), names.len())),
        }
    }

    async fn groups(&self) -> Result<Vec<String>, String> {
        let Groups { groups } = self.get("/v1/groups").await?;
        Ok(groups.into_iter().map(|group| group.name).collect())
    }

    async fn report(&self, group: &str) -> Result<Report, String> {
        self.get(&format!("/v1/groups/{}/doctor", segment(group))).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let node = &self.node;
        let answer = timeout(ANSWER_TIMEOUT, self.fetch(path)).await.unwrap_or_else(|_| {
            Err(format!("it did not answer within {} s", ANSWER_TIMEOUT.as_secs()))
        });
        let (status, body) = answer.map_err(|why| {
            format!(
                "the node at {node} cannot be asked: {why}; start the daemon, or name a node that runs with --addr"
            )
        })?;
        if status == 200 {
            return serde_json::from_slice(&body).map_err(|_| {
                format!("what listens at {node} is no redis-failover of this version: its answer cannot be read")
            });
        }
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => format!("the node at {node} says: {}", problem.error.message),
            Err(_) => {
                format!(
                    "what listens at {node} is no redis-failover: it answers {path} with status {status}"
                )
            }
        })
    }

    async fn fetch(&self, path: &str) -> Result<(u16, Vec<u8>), String> {
        let text = |error: std::io::Error| error.to_string();
        let target = (self.node.host(), self.node.port());
        let mut stream = TcpStream::connect(target).await.map_err(text)?;
        let request = format!(
            "GET {path} HTTP/1.0\r\nhost: {}\r\naccept: application/json\r\n\r\n",
            self.node
        );
        stream.write_all(request.as_bytes()).await.map_err(text)?;
        let mut answer = Vec::new();
        let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.map_err(text)?;
        if u64::try_from(read).is_ok_and(|read| read == ANSWER_BYTES_MAX) {
            return Err(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"));
        }
        parse(&answer).ok_or_else(|| "it does not answer in HTTP".to_owned())
    }
}

/// The status and the body of an answer that ended with its connection.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    const END: &[u8] = b"\r\n\r\n";
    let at = answer.windows(END.len()).position(|window| window == END)?;
    let head = std::str::from_utf8(&answer[..at]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    let status = words.next().filter(|version| version.starts_with("HTTP/")).and(words.next())?;
    Some((status.parse().ok()?, answer[at + END.len()..].to_vec()))
}

/// The node that people name by a URL, or by an address to listen on.
fn node_at(given: &str) -> Result<Addr, String> {
    let fail = |why: &str| Err(format!("{why}: write http://host:port"));
    if given.contains('@') {
        return fail("an address has no login in it");
    }
    if given.starts_with("https://") {
        return fail("nodes serve no TLS");
    }
    let bare = given.strip_prefix("http://").unwrap_or(given);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let bare = if bare.starts_with(':') { format!("127.0.0.1{bare}") } else { bare.to_owned() };
    let addr: Addr = match bare.parse() {
        Ok(addr) => addr,
        Err(error) => return fail(&format!("{error}")),
    };
    // A node that listens everywhere listens here too.
    let everywhere = addr.socket().is_some_and(|socket| socket.ip().is_unspecified());
    let here = || Addr::new("127.0.0.1", addr.port()).map_err(|error| error.to_string());
    if everywhere { here() } else { Ok(addr) }
}

/// A name as a segment of a path.
fn segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A report as people read it: by instance, the worst first, each with its fix.
fn in_words(report: &Report) -> String {
    let count = |severity, name: &str| {
        let count = report.findings.iter().filter(|found| found.severity == severity).count();
        match count {
            0 => None,
            1 => Some(format!("1 {name}")),
            _ => Some(format!("{count} {name}s")),
        }
    };
    let counts: Vec<String> = [
        count(Severity::Error, "error"),
        count(Severity::Warning, "warning"),
        count(Severity::Info, "note"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let summary = if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") };
    let Report { node, group, master, findings } = report;
    let mut text = format!("{group} (master {master}, as {node} sees it): {summary}\n");
    let mut places: BTreeMap<Option<&str>, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        places.entry(finding.addr.as_deref()).or_default().push(finding);
    }
    let mut places: Vec<_> = places.into_iter().collect();
    for (_, findings) in &mut places {
        findings.sort_by_key(|finding| finding.severity);
    }
    places.sort_by_key(|(place, findings)| (findings.first().map(|worst| worst.severity), *place));
    for (place, findings) in places {
        let _ = writeln!(text, "  {}", place.unwrap_or("the group as a whole"));
        for finding in findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Info => "note",
            };
            let Finding { code, message, fix, .. } = finding;
            let _ = writeln!(text, "    {severity}: {message}. ({code})\n      fix: {fix}.");
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_url_or_by_what_it_listens_on() {
        for (given, addr) in [
            ("http://10.0.0.1:11000", "10.0.0.1:11000"),
            ("http://node-a:11000/", "node-a:11000"),
            ("node-a:80", "node-a:80"),
            (":11000", "127.0.0.1:11000"),
            ("0.0.0.0:7", "127.0.0.1:7"),
            ("[::]:7", "127.0.0.1:7"),
            ("http://[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(node_at(given).expect(given).to_string(), addr);
        }
        for given in ["https://a:1", "http://a", "http://a:1/v1", "a", "http://u:p@a:1", "a:0", ""]
        {
            let error = node_at(given).expect_err(given);
            assert!(error.ends_with("write http://host:port"), "{error}");
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn a_name_is_one_segment_of_the_path() {
        assert_eq!(segment("127.0.0.1:6379"), "127.0.0.1:6379");
        assert_eq!(segment("[::1]:6379"), "%5B::1%5D:6379");
        assert_eq!(segment("a%b?c#d\u{e9}"), "a%25b%3Fc%23d%C3%A9");
    }

    #[test]
    fn an_answer_is_read_or_is_none() {
        let read = |text: &str| parse(text.as_bytes());
        assert_eq!(read("HTTP/1.0 200 OK\r\na: b\r\n\r\n{}"), Some((200, b"{}".to_vec())));
        assert_eq!(read("HTTP/1.1 404 Not Found\r\n\r\n"), Some((404, Vec::new())));
        for text in ["", "HTTP/1.0 200 OK\r\n", "-ERR unknown\r\n\r\n", "HTTP/1.0 x\r\n\r\n"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_worst_instance_is_told_first() {
        let finding = |severity, addr: Option<&str>, message: &str| Finding {
            code: "a_code".to_owned(),
            severity,
            addr: addr.map(str::to_owned),
            message: message.to_owned(),
            fix: "do this".to_owned(),
        };
        let report = Report {
            node: "n".to_owned(),
            group: "g".to_owned(),
            master: "a:1".to_owned(),
            findings: vec![
                finding(Severity::Info, None, "a note"),
                finding(Severity::Warning, Some("a:1"), "a warning"),
                finding(Severity::Warning, Some("b:1"), "another"),
                finding(Severity::Error, Some("b:1"), "an error"),
            ],
        };
        assert_eq!(
            in_words(&report),
            "g (master a:1, as n sees it): 1 error, 2 warnings, 1 note\n  b:1\n    error: an error. (a_code)\n      fix: do \
             this.\n    warning: another. (a_code)\n      fix: do this.\n  a:1\n    warning: a warning. (a_code)\n      fix: do \
             this.\n  the group as a whole\n    note: a note. (a_code)\n      fix: do this."
        );
    }
}
