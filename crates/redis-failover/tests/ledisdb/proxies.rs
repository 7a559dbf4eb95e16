//! LedisDB behind the proxies of xcodis, which were made for it, and those of codis, which cannot lead to it.

use serde_json::Value;

use crate::common::dashboard::Dashboard;
use crate::common::scenario::{guard, wait_for_failover};
use crate::common::xcodis::{Manner, Proxy, Tree};
use crate::common::{Agree, Daemon, Group, PATIENCE, ServerKind, Store, wait_until};

const KIND: ServerKind = ServerKind::Ledisdb;

fn guard_with(group: &Group, flags: &[String]) -> Daemon {
    guard(group, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The only hook as `GET /v1/hooks` shows it.
fn hook(daemon: &Daemon) -> Value {
    daemon.get("/v1/hooks").json["hooks"][0].clone()
}

#[test]
fn proxies_of_xcodis_follow() {
    if !Agree::Zk.is_there() {
        return;
    }
    let mut group = Group::start(KIND, 1);
    let (old, new) = (group.master.addr(), group.replicas[0].addr());
    let servers = [(old.as_str(), "master"), (new.as_str(), "slave")];
    let tree = Tree::lay_out(Store::shared(Agree::Zk), 1, &servers);
    let proxy = Proxy::start(&tree, "proxy_1", "online", Manner::Follows);
    let daemon = guard_with(&group, &tree.flags("all"));
    group.master.kill9();
    assert_eq!(wait_for_failover(&daemon, &old)["outcome"], "done");
    proxy.wait_for_master(&new);
    tree.wait_for_acknowledged(1);
    assert_eq!(tree.kind(1, &old).as_deref(), Some("offline"));
    tree.wait_until_unlocked();
}

/// Its dashboard would send what LedisDB does not understand.
#[test]
fn codis_is_refused_in_words() {
    let mut group = Group::start(KIND, 1);
    let addrs = group.addrs();
    let dashboard = Dashboard::start(1, &addrs);
    let daemon = guard_with(&group, &dashboard.flags("all"));
    let says = "codis promotes with commands that LedisDB does not have";
    wait_until("it is said by day", PATIENCE, || {
        hook(&daemon)["last_error"].as_str().is_some_and(|why| why.contains(says)).then_some(())
    });
    group.master.kill9();
    assert_eq!(wait_for_failover(&daemon, &addrs[0])["outcome"], "done");
    wait_until("it is given up", PATIENCE, || {
        let shown = hook(&daemon);
        (shown["failed"] == 1 && shown["queued"] == 0).then_some(())
    });
    assert_eq!((dashboard.servers(), dashboard.promotions().len()), (addrs, 0));
}
