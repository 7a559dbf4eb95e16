//! Scripts that the program runs, and what they write down.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{PATIENCE, temporary_dir, wait_until};

/// A script in a directory of its own. What it is run with goes to a file before anything else.
#[derive(Debug)]
pub struct Script {
    dir: tempfile::TempDir,
}

impl Script {
    /// One that writes down its arguments, a line each time, and the event, and then does this.
    #[track_caller]
    pub fn new(body: &str) -> Self {
        let dir = temporary_dir();
        let script = Self { dir };
        let text = format!(
            "#!/bin/sh\ncd '{}'\necho \"$*\" >> args\nprintf '%s\\n' \"$REDIS_FAILOVER_EVENT\" >> events\n{body}\n",
            script.dir.path().display()
        );
        // A program that is being written cannot be run, and other tests fork at any time: written by another process, it
        // is closed when that one has ended.
        let path = script.path();
        let written = std::process::Command::new("/bin/sh")
            .args(["-c", "printf '%s' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &text])
            .arg(&path)
            .status()
            .expect("there is a shell");
        assert!(written.success());
        assert!(fs::metadata(path).expect("it is there").permissions().mode() & 0o111 != 0);
        script
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("script")
    }

    /// As a flag of the program.
    pub fn flag(&self, name: &str) -> String {
        format!("-{name}={}", self.path().display())
    }

    /// A file beside it, where it is run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The arguments of each run, in order.
    pub fn args(&self) -> Vec<String> {
        self.lines("args")
    }

    /// The event of each run, in order.
    pub fn events(&self) -> Vec<Value> {
        self.lines("events").iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The runs of this event so far.
    pub fn of_event(&self, name: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == name).collect()
    }

    /// Waits until it was run with arguments that begin so.
    #[track_caller]
    pub fn wait_for(&self, args: &str) -> String {
        wait_until(&format!("a script is run with {args}"), PATIENCE, || {
            self.args().into_iter().find(|run| run.starts_with(args))
        })
    }

    /// Waits until it was run so often on this event.
    #[track_caller]
    pub fn wait_for_event(&self, name: &str, count: usize) -> Vec<Value> {
        wait_until(&format!("a script is run on {name} {count} times"), PATIENCE, || {
            let events = self.of_event(name);
            (events.len() >= count).then_some(events)
        })
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.file(file)).unwrap_or_default();
        // The last line may be only half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }
}
