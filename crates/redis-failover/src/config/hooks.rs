//! What is run when something happens: scripts and webhooks.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use failover_core::policy::GROUP_NAME_BYTES_MAX;
use failover_core::record::HookEvent;
use secrecy::{ExposeSecret, SecretString};

use super::{Config, Problem};

/// Most webhooks of one node.
pub const WEBHOOKS_MAX: usize = 64;
/// Longest `timeout_ms` of a webhook, and longest `script_timeout`: beyond, it is no hook but a job.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The scripts of a group, or of all groups without their own. Each is a path to something executable; `None` is none. A
/// script is run without a shell, in a process group of its own, and waited for without a signal handler (Linux 5.3; before
/// that tokio takes SIGCHLD).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scripts {
    /// Told of everything that happens, with Sentinel's arguments: `TYPE MESSAGE`.
    pub notification: Option<PathBuf>,
    /// Told of a new master, with Sentinel's arguments: `GROUP leader|observer start FROM-IP FROM-PORT TO-IP TO-PORT`. It
    /// is run on every node; the one that leads says `leader`.
    pub client_reconfig: Option<PathBuf>,
    /// Asked before a failover, on the node that leads: `GROUP leader before FROM-IP FROM-PORT TO-IP TO-PORT`. An exit
    /// status other than 0 is a veto, and what it writes to standard error its reason.
    pub before_failover: Option<PathBuf>,
}

/// What holds for all scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptLimits {
    /// A script that runs longer is killed, with everything that it started.
    pub timeout: Duration,
    /// The pause until a script that failed is run again. Each is twice as long as the one before; after ten tries it is
    /// given up.
    pub retry_delay: Duration,
    /// The environment variables that scripts are given, beside PATH, HOME and a few that name the user and the language.
    /// Nothing else of the environment reaches them, since passwords of this program or its host may be there.
    pub env: Vec<String>,
}

impl Default for ScriptLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            retry_delay: Duration::from_secs(30),
            env: Vec::new(),
        }
    }
}

/// A service that is told by HTTP what happens.
///
/// It gets a POST with [`crate::HookCall`] as JSON and the headers `Idempotency-Key` (its `id`), `Redis-Failover-Event`,
/// `Redis-Failover-Attempt` (from 1) and, with a secret, `Redis-Failover-Signature`: `sha256=` and the HMAC-SHA256 of the
/// body in hexadecimal digits. A status of 200 to 299 says that it knows; everything else is tried again, for a day. Asked
/// before a failover (`before_failover` among its events), it vetoes with the status 409 and `{"reason": …}`. `Debug` shows neither its URL, which may have a password in it, nor its
/// secret.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// Names it in `GET /v1/hooks`, in logs and in the record, so that it must be the same on every node.
    pub name: String,
    /// Where it is: `http://` or `https://`.
    pub url: SecretString,
    /// What it is told.
    pub events: BTreeSet<HookEvent>,
    /// Of which groups, by name; none: of all.
    pub groups: BTreeSet<String>,
    /// Signs what is sent; `None`: it is not signed.
    pub secret: Option<SecretString>,
    /// How long one try may take.
    pub timeout: Duration,
}

impl WebhookConfig {
    /// One that is told everything of all groups, unsigned, and not asked before failovers.
    pub fn new(name: &str, url: &str) -> Self {
        let events = HookEvent::ALL.into_iter();
        Self {
            name: name.to_owned(),
            url: SecretString::from(url),
            events: events.filter(|event| *event != HookEvent::BeforeFailover).collect(),
            groups: BTreeSet::new(),
            secret: None,
            timeout: Duration::from_secs(5),
        }
    }
}

impl Scripts {
    /// With the name of the setting.
    fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [
            ("notification_script", &self.notification),
            ("client_reconfig_script", &self.client_reconfig),
            ("before_failover_script", &self.before_failover),
        ]
        .into_iter()
        .filter_map(|(key, path)| Some((key, path.as_deref()?)))
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, path) in self.paths() {
            let why = match std::fs::metadata(path) {
                Err(error) => format!("cannot be run: {error}"),
                Ok(file) if !file.is_file() => "is no file".to_owned(),
                Ok(file) if file.permissions().mode() & 0o111 == 0 => {
                    "is not executable; make it so with chmod +x".to_owned()
                }
                Ok(_) => continue,
            };
            return Err((key, format!("{key} {} {why}", path.display())));
        }
        Ok(())
    }
}

impl Config {
    /// The scripts of the group of that name.
    pub fn scripts_of(&self, group: &str) -> &Scripts {
        self.group(group).and_then(|group| group.scripts.as_ref()).unwrap_or(&self.scripts)
    }

    pub(super) fn check_hooks(&self) -> Result<(), Problem> {
        let whole = |key, message| Problem { group: None, keys: vec![key], message };
        self.scripts.check().map_err(|(key, message)| whole(key, message))?;
        for (index, group) in self.groups.iter().enumerate() {
            let Some(scripts) = &group.scripts else { continue };
            scripts.check().map_err(|(key, message)| Problem {
                group: Some(index),
                keys: vec![key],
                message: format!("group \"{}\": {message}", group.name),
            })?;
        }
        let limits = &self.script_limits;
        if limits.timeout.is_zero() || limits.timeout > TIMEOUT_MAX {
            let message = format!(
                "script_timeout is {} s, but must be more than 0 and at most an hour",
                limits.timeout.as_secs_f64()
            );
            return Err(whole("script_timeout", message));
        }
        if limits.retry_delay.is_zero() || limits.retry_delay > TIMEOUT_MAX {
            let message = format!(
                "script_retry_delay is {} s, but must be more than 0 and at most an hour",
                limits.retry_delay.as_secs_f64()
            );
            return Err(whole("script_retry_delay", message));
        }
        let of_program = |name: &&String| name.starts_with("REDIS_FAILOVER_");
        if let Some(name) = limits.env.iter().find(of_program) {
            let message =
                format!("script_env has {name}, which is this program's and may be a password");
            return Err(whole("script_env", message));
        }
        self.check_webhooks().map_err(|message| whole("webhook", message))
    }

    fn check_webhooks(&self) -> Result<(), String> {
        if self.webhooks.len() > WEBHOOKS_MAX {
            return Err(format!("a node has at most {WEBHOOKS_MAX} webhooks"));
        }
        let mut names = BTreeSet::new();
        for webhook in &self.webhooks {
            let name = &webhook.name;
            let bad = |c: char| c.is_whitespace() || c.is_control();
            if name.is_empty() || name.len() > GROUP_NAME_BYTES_MAX || name.chars().any(bad) {
                return Err(format!(
                    "the name of a webhook has 1 to {GROUP_NAME_BYTES_MAX} bytes and no spaces, unlike {name:?}"
                ));
            }
            let ours = name.starts_with("handler-")
                || name.ends_with("_script")
                || matches!(name.as_str(), "xcodis" | "codis");
            if ours || !names.insert(name) {
                return Err(format!(
                    "the webhook \"{name}\" needs another name: each hook has its own"
                ));
            }
            check_url(webhook.url.expose_secret())
                .map_err(|why| format!("the url of the webhook \"{name}\" {why}"))?;
            if webhook.timeout.is_zero() || webhook.timeout > TIMEOUT_MAX {
                return Err(format!(
                    "timeout_ms of the webhook \"{name}\" must be more than 0 and at most an hour"
                ));
            }
            if webhook.events.is_empty() {
                return Err(format!(
                    "the webhook \"{name}\" has no events, so that it would never be called"
                ));
            }
        }
        Ok(())
    }
}

/// Says what is wrong without repeating it.
fn check_url(url: &str) -> Result<(), String> {
    let url: hyper::Uri = url.parse().map_err(|_| "is no URL".to_owned())?;
    match url.scheme_str() {
        Some("http" | "https") => {}
        Some(_) | None => return Err("begins neither with http:// nor with https://".to_owned()),
    }
    match url.authority() {
        None => Err("names no host".to_owned()),
        Some(authority) if authority.as_str().contains('@') => {
            Err("has a login in it; sign what is sent with secret instead".to_owned())
        }
        Some(_) => Ok(()),
    }
}
