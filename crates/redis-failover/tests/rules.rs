//! Rules on candidates: whom people want promoted, or not.

mod common;

use common::daemon::instance;
use common::scenario::{
    guard, guard_by_file, on_each_kind, ranking, wait_for_failover, wait_until_guarded,
};
use common::{Group, PATIENCE};

#[test]
fn a_rule_set_on_request_is_shown_refuses_a_candidate_and_ends() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let (barred, other) = (group.replicas[0].addr(), group.replicas[1].addr());
        let daemon = guard(&group, &[]);
        let path = |addr: &str| format!("/v1/groups/{name}/rules/{addr}");
        for (body, code) in [
            (r#"{"rule":"always"}"#, "bad_request"),
            ("{}", "bad_request"),
            (r#"{"rule":"never","expires_at":"2020-01-01T00:00:00Z"}"#, "bad_request"),
        ] {
            assert_eq!(daemon.put(&path(&barred), body).error_code(), Some(code), "{body}");
        }
        let answer = daemon.put(&path("127.0.0.1:1"), r#"{"rule":"never"}"#);
        assert_eq!(answer.error_code(), Some("unknown_instance"));

        let answer = daemon.put(&path(&other), r#"{"rule":"never"}"#);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(daemon.delete(&path(&other)).status, 200);
        let answer = daemon.put(&path(&barred), r#"{"rule":"never"}"#);
        let shown =
            |addr: &str| instance(&answer.json["group"], addr).expect("it is shown").clone();
        assert_eq!(
            (&shown(&barred)["rule"], &shown(&barred)["eligible"]),
            (&"never".into(), &false.into())
        );
        assert!(shown(&other)["rule"].is_null());
        group.wait_in_step();
        group.master.kill9();
        daemon.wait_for_master(&other, PATIENCE);
        let entry = wait_for_failover(&daemon, &name);
        let places = ranking(&entry);
        let place = places.iter().find(|(addr, ..)| *addr == barred).expect("it is ranked");
        assert!(place.2.is_some_and(|why| why.contains("rule set on request")), "{places:?}");
    });
}

#[test]
fn what_the_file_says_of_instances_counts() {
    on_each_kind(|kind| {
        let mut group = Group::start(kind, 2);
        let name = group.master.addr();
        let (far, near) = (group.replicas[0].addr(), group.replicas[1].addr());
        let config = format!(
            "addr = '127.0.0.1:0'\ncheck_interval = 100\n[[group]]\nmaster = '{name}'\n\
             failover_across_locations = 'deny'\n\
             [[group.instance]]\naddr = '{name}'\nlocation = 'east'\n\
             [[group.instance]]\naddr = '{far}'\nlocation = 'west'\npriority = 1\n\
             [[group.instance]]\naddr = '{near}'\nlocation = 'east'\nrule = 'prefer_not'\n"
        );
        let daemon = guard_by_file(&config);
        let view = wait_until_guarded(&daemon, &name, &group.addrs());
        let far_away = instance(&view, &far).expect("it is shown");
        assert_eq!((&far_away["location"], &far_away["priority"]), (&"west".into(), &1.into()));
        assert_eq!(instance(&view, &near).expect("it is shown")["rule"], "prefer_not");
        group.wait_in_step();
        group.master.kill9();
        daemon.wait_for_master(&near, PATIENCE);
    });
}
