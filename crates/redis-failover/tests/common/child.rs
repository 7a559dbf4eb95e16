//! Children that end with the value that owns them, and with this process at the latest.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{now, wait_until};

/// How long a signal may take until the kernel shows its effect.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);

/// A process that this one started. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Owned {
    child: Child,
    status: Option<ExitStatus>,
}

impl Owned {
    pub fn start(command: Command) -> io::Result<Self> {
        Ok(Self { child: spawn(command)?, status: None })
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the child is ours to wait for");
        }
        self.status
    }

    /// Sends a signal and gives the moment just before. A process that has ended gets none: its
    /// number may be another's.
    pub fn signal(&mut self, signal: Signal) -> Instant {
        let sent_at = now();
        if self.ended().is_none() {
            kill_process(Pid::from_child(&self.child), signal).expect("the child is ours to kill");
        }
        sent_at
    }

    /// `kill -9`: gives the moment just before, and returns when the process is gone.
    pub fn kill9(&mut self) -> Instant {
        let killed_at = self.signal(Signal::KILL);
        self.wait(SIGNAL_LIMIT);
        killed_at
    }

    /// SIGSTOP: gives the moment just before, and returns when every thread has stopped.
    pub fn stop(&mut self) -> Instant {
        let stopped_at = self.signal(Signal::STOP);
        let pid = self.pid();
        wait_until("SIGSTOP takes effect", SIGNAL_LIMIT, || {
            matches!(state_of(pid), None | Some('T')).then_some(())
        });
        stopped_at
    }

    /// Whether it is stopped right now, by whomever.
    pub fn is_stopped(&self) -> bool {
        state_of(self.pid()) == Some('T')
    }

    /// SIGCONT: gives the moment just before.
    pub fn cont(&mut self) -> Instant {
        self.signal(Signal::CONT)
    }

    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("process {} ends", self.pid());
        wait_until(&what, limit, || self.ended())
    }
}

/// `kill -9` of all of them, in this order, before any of their ends is waited for. Gives the moment
/// just before the first signal, and the one at which all were gone.
pub fn kill9_together(processes: &mut [&mut Owned]) -> (Instant, Instant) {
    let killed_at = now();
    for process in processes.iter_mut() {
        process.signal(Signal::KILL);
    }
    for process in processes.iter_mut() {
        process.wait(SIGNAL_LIMIT);
    }
    (killed_at, now())
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.status.is_none() {
            // An error only says that it has ended meanwhile; a panic here would hide the first.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command whose process the kernel kills when this process dies, where `setpriv` (of
/// util-linux, on every Debian) is there to ask for it.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    wrapped(program, &[])
}

/// The same, as the user `nobody`: what root may not write can only be shown by somebody else.
pub fn command_as_nobody(program: impl AsRef<OsStr>) -> Command {
    assert!(has_setpriv(), "setpriv (util-linux) is needed to drop root's rights");
    wrapped(program, &["--reuid", "65534", "--regid", "65534", "--clear-groups"])
}

fn wrapped(program: impl AsRef<OsStr>, options: &[&str]) -> Command {
    if !has_setpriv() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(options).args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn has_setpriv() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| Command::new("setpriv").arg("--version").output().is_ok())
}

/// Starts the process from one thread that lives as long as this process: the kernel's
/// parent-death signal comes when the *thread* that started the child ends, and a test's threads
/// end earlier than the servers that they may have handed on.
fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static STARTER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, started) = mpsc::channel();
    starter.send((command, answer)).expect("the starter thread lives as long as we do");
    started.recv().expect("the starter thread answers each job")
}

/// The state letter of `/proc/PID/stat`: `T` is stopped. `None` when there is no such process.
fn state_of(pid: u32) -> Option<char> {
    stat_fields(pid)?.first()?.chars().next()
}

/// The fields of `/proc/PID/stat` after the name, which may itself hold spaces and brackets.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Processor time that the process has used so far, in user and in kernel mode.
pub fn cpu_time(pid: u32) -> Duration {
    let fields = stat_fields(pid).expect("the process is alive");
    let ticks: u64 = fields[11..13].iter().map(|f| f.parse::<u64>().expect("a number")).sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_millis(ticks * 1000 / per_second)
}

/// Resident memory in kilobytes: (now, highest so far).
pub fn memory_kb(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is alive");
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux writes it");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of kB")
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// The processes whose working directory is one of these.
pub fn working_in(dirs: &[&std::path::Path]) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter(|process| {
            std::fs::read_link(process.path().join("cwd"))
                .is_ok_and(|cwd| dirs.iter().any(|dir| cwd == *dir))
        })
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}
