//! The simulator's model of a server, compared with real Redis and Valkey.
//!
//! One script of commands and faults is played with the model and with real servers. After each step, when it has
//! settled, both must report the same: the same health, roles, links and histories, offsets that stand in the same
//! relation to each other, the same number of keys, and the same answers to the clients' writes. Servers are read and
//! changed by the very code that the program uses. The model is played first; the real servers are asked until they agree
//! with it, or have had every chance to.

#[path = "../../tests/common/mod.rs"]
mod common;
mod real;
mod script;
mod standing;

use std::time::Duration;

use failover_core::addr::Addr;
use failover_sim::model_redis::{Disk, Settings};
use failover_sim::stage::Stage;

use common::scenario::on_each_kind;
use common::{PATIENCE, ServerKind, now};
use real::Real;
use script::{Keeps, SCRIPTS, Script, Step};
use standing::{Names, Standing};

/// What the model needs to settle: two turns of every server, and what they lead to.
const SETTLES_IN: Duration = Duration::from_millis(2_500);
/// Between two looks at the real servers.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than any script.
const FOR_LONG: Duration = Duration::from_secs(3_600);

/// One test for each script, so that they are played at the same time.
macro_rules! plays {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            let script = SCRIPTS.iter().find(|script| script.name == $name).expect("a script");
            on_each_kind(|kind| play(kind, script));
        })*

        #[test]
        fn every_script_is_played() {
            let played = [$($name),*];
            assert!(SCRIPTS.iter().all(|script| played.contains(&script.name)));
        }
    };
}

plays! {
    a_chain_of_promotions: "promotions",
    restarts_with_a_log: "restarts with a log",
    restarts_with_what_was_saved: "restarts with what was saved",
    servers_that_hang: "hangs",
    copies_that_are_not_finished: "unfinished copies",
    what_writes_depend_on: "writes",
    servers_that_load: "loading",
    replicas_of_replicas: "chains",
}

fn play(kind: ServerKind, script: &Script) {
    let mut real = Real::start(kind, script.servers, script.keeps);
    let addrs = real.addrs();
    let settings = Settings {
        backlog_bytes_max: real::BACKLOG_BYTES,
        ping_period_secs: real::PING_PERIOD_SECS,
        ..Settings::default()
    };
    let mut model = Stage::new(&addrs, settings);
    let (mut names_of_model, mut names_of_real) = (Names::default(), Names::default());
    for (number, step) in (1..).zip(script.steps) {
        let place = format!("{kind:?}, {}, step {number}, {step:?}", script.name);
        assert_eq!(on_stage(&mut model, *step, script.keeps), real.take(*step), "{place}");
        model.pass(SETTLES_IN);
        let standing = Standing::of_model(&model, script.servers);
        let (wanted, after) = names_of_model.put(&standing, &addrs);
        names_of_model = after;
        names_of_real =
            settle(&mut real, &names_of_real, &addrs, &wanted).unwrap_or_else(|found| {
                let differ = wanted.iter().zip(&found).filter(|(wanted, found)| wanted != found);
                let differ: Vec<String> = differ
                    .map(|(wanted, found)| format!("model {wanted}\n   real {found}"))
                    .collect();
                panic!("{place}:\n{}", differ.join("\n"))
            });
    }
}

/// Asks the real servers until they report what is wanted; else what came nearest to it.
fn settle(
    real: &mut Real,
    names: &Names,
    addrs: &[Addr],
    wanted: &[String],
) -> Result<Names, Vec<String>> {
    let started = now();
    let mut nearest: Option<(usize, Vec<String>)> = None;
    loop {
        let (found, after) = names.clone().put(&real.standing(), addrs);
        if found == wanted {
            return Ok(after);
        }
        let wrong = wanted.iter().filter(|line| !found.contains(line)).count();
        match nearest {
            Some((_, nearest)) if started.elapsed() > PATIENCE => return Err(nearest),
            Some((least, _)) if least <= wrong => {}
            Some(_) | None => nearest = Some((wrong, found)),
        }
        std::thread::sleep(PAUSE);
    }
}

/// The same step on the stage. Returns the same as on real servers.
fn on_stage(stage: &mut Stage, step: Step, keeps: Keeps) -> Option<bool> {
    let addrs = stage.addrs();
    if let Some((who, command)) = step.command(&addrs) {
        let done = stage.order(who, &command).map(|done| done.is_ok());
        if let Step::PauseAndWrite(..) = step {
            stage.write(who);
        }
        return done;
    }
    let disk = match keeps {
        Keeps::Log => Disk::Log,
        Keeps::Saves => Disk::Saved,
    };
    match step {
        Step::Write(who, times) => (0..times).for_each(|_| stage.write(who)),
        Step::Kill(who) => stage.kill(who),
        Step::Start(who) => stage.start(who, disk, Duration::ZERO),
        Step::StartEmpty(who) => stage.start(who, Disk::Nothing, Duration::ZERO),
        Step::StartLoading(who) => stage.start(who, disk, FOR_LONG),
        Step::Loaded(who) => stage.load(who),
        Step::Save(who) => stage.save(who),
        Step::Hang(who) => stage.hang(who),
        Step::Wake(who) => stage.wake(who),
        Step::Priority(who, priority) => stage.set_priority(who, priority),
        Step::BreakDisk(who) => stage.set_misconfigured(who, true),
        Step::MendDisk(who) => {
            stage.set_misconfigured(who, false);
            stage.save(who);
        }
        Step::SlowCopies(who) => stage.slow_copies(who, FOR_LONG),
        Step::HideStaleData(_) => {}
        Step::Follow(..)
        | Step::Demote(..)
        | Step::Promote(_)
        | Step::Fence(..)
        | Step::Pause(..)
        | Step::PauseAndWrite(..)
        | Step::Unpause(_) => unreachable!("these are commands"),
    }
    None
}
