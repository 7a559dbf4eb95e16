//! Fault points for tests: `REDIS_FAILOVER_FAULT="POINT=exit|stop|fail|sleep:MS[,…]"`.
//!
//! Each fires once. Without the variable every point is a look at an empty list. The variable belongs to the process,
//! and so does this list: it is the one piece of global state, and no setting.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The variable that switches faults on.
const VARIABLE: &str = "REDIS_FAILOVER_FAULT";

/// How long the system may take to stop this process.
const STOP_LIMIT: Duration = Duration::from_millis(100);

/// Every point there is.
const POINTS: [&str; 13] = [
    "before-decision-commit",
    "after-decision-commit",
    "before-promote-send",
    "after-promote-send",
    "after-promote-verify",
    "before-result-commit",
    "after-result-commit",
    "before-repoint",
    "after-first-repoint",
    "before-done-commit",
    "switchover-paused",
    "switchover-equal",
    "switchover-promoted",
];

#[derive(Debug)]
struct Fault {
    point: &'static str,
    kind: Kind,
    fired: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exit,
    Stop,
    Fail,
    Sleep(Duration),
}

static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();

/// Reads the variable. Returns a warning when faults are switched on.
///
/// # Errors
/// A sentence, when it names no point or no fault.
pub fn arm() -> Result<Option<String>, String> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(None) };
    let faults = parse(&text)?;
    if faults.is_empty() {
        return Ok(None);
    }
    let warning = format!(
        "{VARIABLE}={text}: this process is going to break on purpose; it is for tests only"
    );
    let _ = FAULTS.set(faults);
    Ok(Some(warning))
}

fn parse(text: &str) -> Result<Vec<Fault>, String> {
    text.split(',').filter(|part| !part.is_empty()).map(parse_one).collect()
}

fn parse_one(part: &str) -> Result<Fault, String> {
    let (name, kind) =
        part.split_once('=').ok_or_else(|| format!("{VARIABLE}: \"{part}\" is not POINT=FAULT"))?;
    let point = POINTS.into_iter().find(|point| *point == name).ok_or_else(|| {
        format!("{VARIABLE}: there is no point \"{name}\"; there are {}", POINTS.join(", "))
    })?;
    let kind = match kind.split_once(':') {
        None if kind == "exit" => Kind::Exit,
        None if kind == "stop" => Kind::Stop,
        None if kind == "fail" => Kind::Fail,
        Some(("sleep", ms)) => ms
            .parse()
            .map(|ms| Kind::Sleep(Duration::from_millis(ms)))
            .map_err(|_| format!("{VARIABLE}: \"{ms}\" is not a number of milliseconds"))?,
        Some(_) | None => {
            return Err(format!("{VARIABLE}: \"{kind}\" is not exit, stop, fail or sleep:MS"));
        }
    };
    Ok(Fault { point, kind, fired: AtomicBool::new(false) })
}

/// Fires the fault of this point, if it has one that did not fire yet.
///
/// # Errors
/// A sentence, when the fault is to fail.
pub(crate) async fn point(name: &'static str) -> Result<(), String> {
    let faults = FAULTS.get().map_or(&[][..], Vec::as_slice);
    for fault in faults.iter().filter(|fault| fault.point == name) {
        if fault.fired.swap(true, Ordering::SeqCst) {
            continue;
        }
        tracing::warn!("fault at {name}: {:?}", fault.kind);
        match fault.kind {
            Kind::Exit => std::process::exit(1),
            Kind::Stop => {
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::STOP,
                );
                // Any thread may take the signal, and this one would go on until it does.
                std::thread::sleep(STOP_LIMIT);
            }
            Kind::Fail => return Err(format!("the fault point {name} was told to fail")),
            Kind::Sleep(duration) => tokio::time::sleep(duration).await,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_points_and_faults() {
        let faults = parse("before-repoint=exit,after-result-commit=sleep:250").expect("valid");
        assert_eq!(faults[0].kind, Kind::Exit);
        assert_eq!(
            (faults[1].point, faults[1].kind),
            ("after-result-commit", Kind::Sleep(Duration::from_millis(250)))
        );
        assert!(parse("").expect("empty").is_empty());
        for wrong in [
            "x=exit",
            "before-repoint",
            "before-repoint=",
            "before-repoint=sleep:x",
            "before-repoint=nap:1",
        ] {
            assert!(parse(wrong).expect_err(wrong).contains(VARIABLE));
        }
    }
}
