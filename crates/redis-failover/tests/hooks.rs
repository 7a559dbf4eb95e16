//! What one node runs when something happens: scripts and webhooks on real servers, and what they must never cost.

mod common;

use std::fs;
use std::time::Duration;

use common::scenario::{
    guard, guard_by_file, wait_for_demotion, wait_for_failover, wait_until_guarded,
};
use common::script::Script;
use common::webhook::{Answer, Webhook};
use common::{Daemon, Group, PATIENCE, ServerKind, Writer, now, wait_until};
use serde_json::Value;

/// Beside the bound of what is asked: a two-hundredth of what a hook that hangs would take.
const GAP_MAX: Duration = Duration::from_secs(3);

/// One hook as `GET /v1/hooks` shows it.
fn hook(daemon: &Daemon, name: &str) -> Value {
    let answer = daemon.get("/v1/hooks");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let hooks = answer.json["hooks"].as_array().expect("a list").clone();
    let found = hooks.into_iter().find(|hook| hook["name"] == name);
    found.unwrap_or_else(|| panic!("no hook {name} in {}", answer.body))
}

/// `host port` of `host:port`.
fn apart(addr: &str) -> String {
    addr.replace(':', " ")
}

#[test]
fn scripts_hear_of_a_failover_in_sentinels_words_and_once() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let (notify, reconfig) = (Script::new(""), Script::new(""));
    let args = [notify.flag("notification_script"), reconfig.flag("client_reconfig_script")];
    let daemon = guard(&group, &args.each_ref().map(String::as_str));
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    assert_eq!(hook(&daemon, "notification_script")["delivered"], 0);

    group.master.kill9();
    reconfig.wait_for(&format!("{old} leader start {} {}", apart(&old), apart(&new)));
    notify.wait_for(&format!("+sdown master {old} {}", apart(&old)));
    notify.wait_for(&format!("+odown master {old} {}", apart(&old)));
    notify.wait_for(&format!("+switch-master {old} {} {}", apart(&old), apart(&new)));
    let after = &notify.wait_for_event("after_failover", 1)[0];
    assert_eq!(
        (after["old_master"].as_str(), after["new_master"].as_str()),
        (Some(&*old), Some(&*new))
    );
    assert_eq!((&after["group"], &after["epoch"]), (&Value::from(old.clone()), &Value::from(1)));
    assert!(after["reason"].as_str().is_some_and(|why| why.contains("refuses connections")));
    assert!(after["happened_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{after}");
    assert_eq!(wait_for_failover(&daemon, &old)["id"], after["history_id"]);

    group.master.restart();
    wait_for_demotion(&daemon, &old);
    notify.wait_for(&format!(
        "+convert-to-slave slave {old} {} @ {old} {}",
        apart(&old),
        apart(&new)
    ));
    group.replicas[0].wait_for_role("master");
    assert_eq!(reconfig.args().len(), 1, "{:?}", reconfig.args());
    for event in ["failover_started", "after_failover", "master_returned"] {
        assert_eq!(notify.of_event(event).len(), 1, "{event}: {:?}", notify.args());
    }
    let shown = wait_until("what was told is counted", PATIENCE, || {
        let shown = hook(&daemon, "notification_script");
        (shown["delivered"].as_u64() >= Some(4)).then_some(shown)
    });
    assert_eq!((&shown["kind"], &shown["failed"]), (&Value::from("script"), &Value::from(0)));
    assert!(shown["last_at"].is_string(), "{shown}");
}

#[test]
fn an_exit_status_of_1_is_tried_again_and_any_other_is_not() {
    let mut group = Group::start(ServerKind::Redis, 1);
    // The first two runs fail.
    let again = Script::new("[ $(wc -l < args) -gt 2 ] || { echo not yet >&2; exit 1; }");
    let never = Script::new("exit 2");
    let args = [
        again.flag("client_reconfig_script"),
        never.flag("notification_script"),
        "-script_retry_delay=0.1".to_owned(),
    ];
    let daemon = guard(&group, &args.each_ref().map(String::as_str));
    group.master.kill9();
    wait_until("the third run succeeds", PATIENCE, || {
        (hook(&daemon, "client_reconfig_script")["delivered"] == 1).then_some(())
    });
    assert_eq!(again.args().len(), 3);
    let ids: Vec<Value> = again.events().into_iter().map(|event| event["id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let shown = hook(&daemon, "client_reconfig_script");
    assert!(
        shown["last_error"].as_str().is_some_and(|why| why.ends_with("exited with 1: not yet"))
    );
    assert_eq!((&shown["failed"], &shown["queued"]), (&Value::from(0), &Value::from(0)));
    never.wait_for("+switch-master");
    wait_until("what failed for good is counted", PATIENCE, || {
        let shown = hook(&daemon, "notification_script");
        (shown["failed"].as_u64() == Some(never.args().len() as u64)).then_some(())
    });
    assert_eq!(never.of_event("after_failover").len(), 1);
    daemon.wait_for_log("exited with 2; it is not told again", PATIENCE);
}

#[test]
fn a_before_failover_script_vetoes_with_its_words() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let before = Script::new("[ ! -e no ] || { echo a backup runs >&2; exit 3; }");
    fs::write(before.file("no"), "").expect("the directory is ours");
    let args = [before.flag("before_failover_script"), "-failover_timeout=1".to_owned()];
    let daemon = guard(&group, &args.each_ref().map(String::as_str));
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    group.master.kill9();
    before.wait_for(&format!("{old} leader before {} {}", apart(&old), apart(&new)));
    let view = daemon.wait_for(&old, PATIENCE, |view| {
        let why = view["diagnosis"]["not_acting_because"].as_str();
        why.is_some_and(|why| why.contains("vetoed the failover: a backup runs"))
    });
    assert_eq!(view["master"], old);
    assert_eq!(group.replicas[0].role(), "slave");
    fs::remove_file(before.file("no")).expect("it is there");
    daemon.wait_for_master(&new, PATIENCE);
    assert!(hook(&daemon, "before_failover_script")["delivered"].as_u64() >= Some(2));
}

/// The promise to whoever writes hooks in a hurry: at worst, the bound of what is asked is added.
#[test]
fn hooks_that_hang_cost_a_failover_no_more_than_the_bound() {
    let bound = Duration::from_millis(300);
    let mut group = Group::start(ServerKind::Redis, 2);
    let hang = "sleep 600 & wait";
    let (before, reconfig, notify) = (Script::new(hang), Script::new(hang), Script::new(hang));
    let args = [
        before.flag("before_failover_script"),
        reconfig.flag("client_reconfig_script"),
        notify.flag("notification_script"),
        format!("-before_failover_timeout_ms={}", bound.as_millis()),
        "-script_timeout=1".to_owned(),
        "-script_retry_delay=0.2".to_owned(),
    ];
    let mut daemon = guard(&group, &args.each_ref().map(String::as_str));
    let name = group.master.addr();
    let mut writer = Writer::start(&group);
    writer.wait_for_write(&name);
    let killed_at = group.master.kill9();
    let gap = writer.wait_for_gap(killed_at, &name, PATIENCE);
    writer.stop();
    assert!(gap.length >= bound, "it was asked: {gap:?}");
    assert!(gap.length < bound + GAP_MAX, "{gap:?}");
    let entry = wait_for_failover(&daemon, &name);
    assert_eq!(entry["outcome"], "done", "{entry:#}");
    let shown = hook(&daemon, "before_failover_script");
    assert!(shown["last_error"].as_str().is_some_and(|why| why.contains("too long")), "{shown}");
    // They are killed and run again, and the next failover is as quick while they hang.
    wait_until("the script is run again", PATIENCE, || (reconfig.args().len() > 1).then_some(()));
    let second = gap.addr;
    let mut writer = Writer::start_on(group.servers());
    writer.wait_for_write(&second);
    let killed_at = group.server_mut(&second).kill9();
    let gap = writer.wait_for_gap(killed_at, &second, PATIENCE);
    writer.stop();
    assert!(gap.length < bound + GAP_MAX, "{gap:?}");
    // The end waits for scripts, within a bound, and leaves none behind.
    let stopped_at = now();
    assert!(daemon.stop().success());
    let took = stopped_at.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    wait_until("no script is left", PATIENCE, || {
        let dirs = [before.dir(), reconfig.dir(), notify.dir()];
        let running = common::child::working_in(&dirs);
        running.is_empty().then_some(())
    });
}

/// A node with these webhooks, guarding the group.
fn guard_with_webhooks(group: &Group, settings: &str, webhooks: &str) -> Daemon {
    let name = group.master.addr();
    let daemon = guard_by_file(&format!(
        "addr = '127.0.0.1:0'\nmasters = '{name}'\ncheck_interval = 100\n{settings}\n{webhooks}"
    ));
    wait_until_guarded(&daemon, &name, &group.addrs());
    daemon
}

const OK: Answer = Answer::Status(204, "");

#[test]
fn a_webhook_is_told_what_it_chose_signed_and_until_it_listens() {
    let mut group = Group::start(ServerKind::Redis, 1);
    let (pager, deaf, other) =
        (Webhook::start(OK), Webhook::start(Answer::Status(503, "/T0KEN")), Webhook::start(OK));
    let daemon = guard_with_webhooks(
        &group,
        "",
        &format!(
            "[[webhook]]\nname = 'pager'\nurl = 'http://{}/v2/T0KEN?x=1'\nsecret = 's3cret'\n\
             events = ['after_failover']\n\
             [[webhook]]\nname = 'deaf'\nurl = 'http://{}/T0KEN'\n\
             [[webhook]]\nname = 'other'\nurl = 'http://{}'\ngroups = ['no-such-group']\n",
            pager.addr(),
            deaf.addr(),
            other.addr()
        ),
    );
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    group.master.kill9();
    let told = pager.wait_for("after_failover", 1).remove(0);
    assert_eq!(
        (told.path.as_str(), &told.json["new_master"]),
        ("/v2/T0KEN?x=1", &Value::from(new))
    );
    assert_eq!(told.json["old_master"], old);
    assert_eq!(told.header("content-type"), "application/json");
    assert_eq!(told.header("idempotency-key"), told.json["id"].as_str().expect("a text"));
    assert_eq!(
        (told.header("redis-failover-event"), told.header("redis-failover-attempt")),
        ("after_failover", "1")
    );
    assert_eq!(told.header("redis-failover-signature"), signed("s3cret", &told.body));

    let tries = deaf.wait_for("after_failover", 2);
    assert_eq!(tries[0].body, tries[1].body, "the same is told again");
    assert_eq!(tries[1].header("redis-failover-attempt"), "2");
    assert!(tries[1].at - tries[0].at >= Duration::from_secs(1), "after a pause");
    assert!(hook(&daemon, "deaf")["queued"].as_u64() >= Some(1));
    deaf.answer(OK);
    wait_until("nothing is left to be told", PATIENCE, || {
        (hook(&daemon, "deaf")["queued"] == 0).then_some(())
    });
    let shown = hook(&daemon, "deaf");
    assert_eq!(shown["last_error"], "it answered with HTTP status 503");
    assert_eq!(shown["failed"], 0, "{shown}");
    assert_eq!((pager.deliveries().len(), other.deliveries().len()), (1, 0));
    let said = daemon.log() + &daemon.get("/v1/hooks").body + &daemon.get("/v1/history").body;
    assert!(!said.contains("T0KEN") && !said.contains("s3cret"), "{said}");
}

/// As the receiver would check it.
fn signed(secret: &str, body: &str) -> String {
    use hmac::Mac as _;
    let mut mac =
        hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(body.as_bytes());
    let digits: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

#[test]
fn a_webhook_vetoes_and_one_that_hangs_does_not() {
    let bound = Duration::from_millis(400);
    let mut group = Group::start(ServerKind::Redis, 1);
    let no = Webhook::start(Answer::Status(409, r#"{"reason":"the inventory is locked"}"#));
    let hangs = Webhook::start(Answer::Nothing);
    let daemon = guard_with_webhooks(
        &group,
        &format!("failover_timeout = 1\nbefore_failover_timeout_ms = {}\n", bound.as_millis()),
        &format!(
            "[[webhook]]\nname = 'hangs'\nurl = 'http://{}'\nevents = ['before_failover', 'after_failover']\n\
             [[webhook]]\nname = 'inventory'\nurl = 'http://{}'\nevents = ['before_failover']\n",
            hangs.addr(),
            no.addr()
        ),
    );
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    group.master.kill9();
    daemon.wait_for(&old, PATIENCE, |view| {
        let why = view["diagnosis"]["not_acting_because"].as_str();
        why.is_some_and(|why| why.contains("vetoed the failover: the inventory is locked"))
    });
    assert_eq!(group.replicas[0].role(), "slave");
    let asked = &no.wait_for("before_failover", 1)[0];
    assert_eq!(asked.json["new_master"], new, "the candidate");
    no.answer(OK);
    let asked_again = no.wait_for("before_failover", 2)[1].at;
    daemon.wait_for_master(&new, PATIENCE);
    let took = asked_again.elapsed();
    assert!(took < bound + GAP_MAX, "{took:?}");
    hangs.wait_for("after_failover", 1);
    let shown = hook(&daemon, "hangs");
    // When it was asked: what it is told has time yet.
    assert!(shown["last_error"].as_str().is_some_and(|why| why.contains("in time")), "{shown}");
}

/// A service with a certificate of an authority that only this test knows.
#[cfg(feature = "https")]
#[test]
fn a_webhook_over_tls_is_told_when_its_certificate_is_trusted() {
    use std::sync::Arc;

    use common::scenario::guard_by_file_with;

    let mut group = Group::start(ServerKind::Redis, 1);
    let signed =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![signed.cert.der().clone()], key.expect("a key"))
        });
    let server = Arc::new(server.expect("it can be served"));
    let pager = Webhook::start_over(OK, move |stream, serve| {
        let connection = rustls::ServerConnection::new(Arc::clone(&server)).expect("it is valid");
        serve(&mut rustls::StreamOwned::new(connection, stream));
    });
    let dir = common::temporary_dir();
    let authority = dir.path().join("authority.pem");
    fs::write(&authority, signed.cert.pem()).expect("the directory is ours");
    let name = group.master.addr();
    let port = pager.addr().port();
    let daemon = guard_by_file_with(
        &format!(
            "addr = '127.0.0.1:0'\nmasters = '{name}'\ncheck_interval = 100\n\
             [[webhook]]\nname = 'trusted'\nurl = 'https://localhost:{port}/'\nevents = ['after_failover']\n\
             [[webhook]]\nname = 'stranger'\nurl = 'https://127.0.0.1:{port}/'\nevents = ['after_failover']\n"
        ),
        &[("SSL_CERT_FILE", &authority.display().to_string())],
    );
    wait_until_guarded(&daemon, &name, &group.addrs());
    group.master.kill9();
    assert_eq!(pager.wait_for("after_failover", 1)[0].json["old_master"], name);
    wait_until("the name in the certificate is looked at", PATIENCE, || {
        let shown = hook(&daemon, "stranger");
        shown["last_error"].as_str().is_some_and(|why| why.contains("certificate")).then_some(())
    });
    assert_eq!(hook(&daemon, "trusted")["delivered"], 1);
    assert_eq!(hook(&daemon, "stranger")["delivered"], 0);
}

/// Nothing is decided when nobody can take over, and somebody has to know all the same.
#[test]
fn a_master_that_nobody_replaces_is_told_of_when_it_goes_and_comes() {
    let mut group = Group::start(ServerKind::Redis, 0);
    let notify = Script::new("");
    let daemon = guard(&group, &[&notify.flag("notification_script")]);
    let name = group.master.addr();
    group.master.kill9();
    let down = notify.wait_for_event("master_down", 1).remove(0);
    assert!(
        down["reason"].as_str().is_some_and(|why| why.contains("refuses connections")),
        "{down}"
    );
    assert_eq!(
        (&down["group"], &down["addr"]),
        (&Value::from(name.clone()), &Value::from(name.clone()))
    );
    assert!(down["history_id"].is_null() && down["old_master"].is_null(), "{down}");
    group.master.restart();
    notify.wait_for(&format!("-sdown master {name} {}", apart(&name)));
    // It came back without its data, which is worth a call of its own.
    notify.wait_for_event("failover_failed", 1);
    drop(daemon);
    let kinds: Vec<Value> =
        notify.events().into_iter().map(|event| event["event"].clone()).collect();
    let seen: Vec<&Value> = kinds.iter().filter(|kind| **kind != "failover_failed").collect();
    assert_eq!(seen, ["master_down", "master_up"], "its first answer was no return");
}
