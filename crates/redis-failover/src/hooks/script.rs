//! Scripts: run without a shell, with little in their environment, for a bounded time, and killed with all they started.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use failover_core::node::GroupName;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::printable;
use crate::config::ScriptLimits;

/// Of what a script writes to standard error, this much is kept; the rest is read and thrown away.
const STDERR_BYTES_MAX: usize = 4096;
/// How long the end of what a script wrote is waited for when something that it started keeps the pipe open.
const STDERR_END_LIMIT: Duration = Duration::from_millis(50);
/// What a script finds in its environment whatever is configured: what programs need to be found and to speak.
const ENVIRONMENT: [&str; 9] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_ALL"];
/// Where a script finds what happened, as JSON.
const EVENT_VARIABLE: &str = "REDIS_FAILOVER_EVENT";

/// Which of the scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScriptKind {
    Notification,
    ClientReconfig,
    BeforeFailover,
}

impl ScriptKind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Notification => "notification_script",
            Self::ClientReconfig => "client_reconfig_script",
            Self::BeforeFailover => "before_failover_script",
        }
    }
}

/// One kind of script, of all groups.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) kind: ScriptKind,
    pub(super) default: Option<PathBuf>,
    pub(super) by_group: BTreeMap<GroupName, Option<PathBuf>>,
    pub(super) limits: ScriptLimits,
}

/// How a script ended.
#[derive(Debug)]
pub(super) enum End {
    Exited {
        code: i32,
        stderr: String,
    },
    /// It was killed, for taking too long or by somebody else.
    Killed {
        why: String,
    },
    /// It could not even be started.
    NotStarted(io::Error),
}

impl Script {
    /// What is run for a group; `None` is the node itself.
    pub(super) fn path(&self, group: Option<&GroupName>) -> Option<&Path> {
        let own = group.and_then(|group| self.by_group.get(group));
        own.unwrap_or(&self.default).as_deref()
    }

    /// Runs it, at most until `deadline`.
    pub(super) async fn run(
        &self,
        path: &Path,
        args: &[String],
        event: &str,
        deadline: Instant,
    ) -> End {
        let child = self.command(path, args, event).spawn();
        let mut running = match child {
            Ok(child) => Running::new(child),
            Err(error) => return End::NotStarted(error),
        };
        match timeout_at(deadline, running.end()).await {
            Ok(Ok(status)) => {
                let stderr = running.said().await;
                ended(status, stderr)
            }
            Ok(Err(error)) => End::Killed { why: format!("it cannot be waited for: {error}") },
            Err(_) => {
                running.kill().await;
                End::Killed { why: "it took too long and was killed".to_owned() }
            }
        }
    }

    fn command(&self, path: &Path, args: &[String], event: &str) -> Command {
        let mut command = Command::new(path);
        command.args(args).env_clear().env(EVENT_VARIABLE, event);
        for name in ENVIRONMENT.into_iter().chain(self.limits.env.iter().map(String::as_str)) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // A group of its own, so that what it started ends with it.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

fn ended(status: ExitStatus, stderr: String) -> End {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited { code, stderr },
        (None, Some(signal)) => End::Killed { why: format!("it was killed by signal {signal}") },
        (None, None) => End::Killed { why: "it ended in an unknown way".to_owned() },
    }
}

/// A script that runs. Dropped before its end, it is killed with its group.
struct Running {
    child: Child,
    /// The group, until the script was waited for: its number may belong to another one after that.
    group: Option<Pid>,
    stderr: Option<ChildStderr>,
    said: Vec<u8>,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let stderr = child.stderr.take();
        Self { child, group, stderr, said: Vec::new() }
    }

    /// Waits for its end, and reads meanwhile what it writes, since a full pipe would stop it.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    self.group = None;
                    return status;
                }
                open = read(self.stderr.as_mut(), &mut self.said), if self.stderr.is_some() => {
                    if !open {
                        self.stderr = None;
                    }
                }
            }
        }
    }

    /// What it wrote, in one line.
    async fn said(&mut self) -> String {
        let rest = async { while read(self.stderr.as_mut(), &mut self.said).await {} };
        let _ = timeout(STDERR_END_LIMIT, rest).await;
        printable(&String::from_utf8_lossy(&self.said))
    }

    async fn kill(&mut self) {
        self.kill_group();
        let _ = self.child.wait().await;
    }

    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Reads some. Returns whether there may be more.
async fn read(stderr: Option<&mut ChildStderr>, said: &mut Vec<u8>) -> bool {
    let Some(stderr) = stderr else { return false };
    let mut bytes = [0; 1024];
    match stderr.read(&mut bytes).await {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            let room = STDERR_BYTES_MAX.saturating_sub(said.len());
            said.extend(bytes.iter().take(count.min(room)));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::write_script;
    use super::*;

    fn script(limits: ScriptLimits) -> Script {
        let kind = ScriptKind::Notification;
        Script { kind, default: None, by_group: BTreeMap::new(), limits }
    }

    async fn run(body: &str, limits: ScriptLimits) -> (End, Duration) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("script");
        write_script(&path, &format!("#!/bin/sh\n{body}\n"));
        let (timeout, begun) = (limits.timeout, Instant::now());
        let args = ["a b".to_owned(), "$(id)".to_owned()];
        let end = script(limits).run(&path, &args, "{}", begun + timeout).await;
        (end, begun.elapsed())
    }

    fn exited(end: End) -> (i32, String) {
        match end {
            End::Exited { code, stderr } => (code, stderr),
            End::Killed { why } => panic!("killed: {why}"),
            End::NotStarted(error) => panic!("not started: {error}"),
        }
    }

    #[tokio::test]
    async fn arguments_come_as_they_are_and_the_environment_has_no_secret() {
        let (end, _) = run(
            r#"printf '%s|%s|' "$@" >&2; env | cut -d= -f1 | sort | tr '\n' ' ' >&2; exit 3"#,
            ScriptLimits {
                env: vec!["CARGO_MANIFEST_DIR".to_owned(), "NOT_THERE".to_owned()],
                ..ScriptLimits::default()
            },
        )
        .await;
        let (code, stderr) = exited(end);
        assert_eq!(code, 3);
        let (args, names) = stderr.rsplit_once('|').expect("both were written");
        assert_eq!(args, "a b|$(id)");
        let names: Vec<&str> = names.split_whitespace().collect();
        assert!(names.contains(&EVENT_VARIABLE) && names.contains(&"CARGO_MANIFEST_DIR"));
        // The shell adds the last ones itself.
        let meant = |name: &&str| {
            ENVIRONMENT.contains(name)
                || [EVENT_VARIABLE, "CARGO_MANIFEST_DIR", "PWD", "OLDPWD", "SHLVL", "_"]
                    .contains(name)
        };
        assert!(names.iter().all(meant), "{names:?}");
    }

    #[tokio::test]
    async fn what_hangs_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid_file = dir.path().join("pid");
        let body = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let limits =
            ScriptLimits { timeout: Duration::from_millis(500), ..ScriptLimits::default() };
        let (end, took) = run(&body, limits).await;
        assert!(matches!(&end, End::Killed { why } if why.contains("too long")), "{end:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        let pid = std::fs::read_to_string(pid_file).expect("it was started");
        let stat = format!("/proc/{}/stat", pid.trim());
        // Whoever inherits it may take a moment to reap it.
        let dead = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..500 {
            if dead() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{pid} still runs");
    }

    #[tokio::test]
    async fn what_it_says_is_cut_and_printable_and_never_stops_it() {
        let body = r"printf 'no\033[31m: \n' >&2; yes | head -c 1000000 >&2; exit 1";
        let (code, stderr) = exited(run(body, ScriptLimits::default()).await.0);
        assert_eq!((code, stderr.chars().count()), (1, super::super::REASON_CHARS_MAX));
        assert!(stderr.starts_with("no [31m:  y y"), "{stderr}");
    }

    #[tokio::test]
    async fn a_background_child_that_keeps_the_pipe_holds_nobody_up() {
        let (end, took) = run("sleep 2 & echo done >&2; exit 0", ScriptLimits::default()).await;
        assert_eq!(exited(end), (0, "done".to_owned()));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_said() {
        let path = Path::new("/nonexistent/script");
        let deadline = Instant::now() + Duration::from_secs(5);
        let end = script(ScriptLimits::default()).run(path, &[], "{}", deadline).await;
        assert!(matches!(end, End::NotStarted(_)), "{end:?}");
    }
}
