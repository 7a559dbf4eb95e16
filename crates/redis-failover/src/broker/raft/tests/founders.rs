//! Clusters whose founders end in the middle of it.

use super::super::store::Opened;
use super::*;

/// Makes stores of nodes that know of a cluster, and ended before it began.
async fn founded(members: &[&Addr], list: &[Addr], dir: &TempDir) {
    let mut stores = Vec::new();
    for addr in members {
        let settings = settings(addr, list, dir);
        stores.push(Store::open(&settings.data_dir, addr).expect("open"));
    }
    let founder =
        |opened: &Opened| Founder { addr: opened.meta.addr.clone(), nonce: opened.meta.nonce };
    let founders: Vec<Founder> = stores.iter().map(founder).collect();
    for Opened { store, thread, mut meta } in stores {
        meta.cluster = Some(Cluster { id: 7, list: list.to_vec(), founders: founders.clone() });
        store.save_meta(&meta).await.expect("saved");
        drop(store);
        thread.join().await;
    }
}

fn sorted(count: usize) -> Vec<Addr> {
    let mut addrs = addrs(count);
    addrs.sort();
    addrs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_begin_what_the_founder_did_not() {
    let dir = TempDir::new().expect("directory");
    let addrs = sorted(3);
    founded(&[&addrs[0], &addrs[1], &addrs[2]], &addrs, &dir).await;
    // The first is gone, with its store.
    wipe(&addrs[0], &dir);
    let mut nodes = Vec::new();
    for addr in &addrs[1..] {
        nodes.push(start(settings(addr, &addrs, &dir)).await);
    }
    until("two lead themselves", &mut nodes, settled).await;
    nodes.push(start(settings(&addrs[0], &addrs, &dir)).await);
    until("it is another member now", &mut nodes, |nodes| whole(nodes, 0)).await;
    assert_ne!(nodes[2].id(), MemberId::first(&addrs[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_nobody_heard_of_gives_its_cluster_up() {
    let dir = TempDir::new().expect("directory");
    let addrs = sorted(3);
    founded(&[&addrs[0]], &addrs, &dir).await;
    let mut nodes = Vec::new();
    for addr in &addrs[1..] {
        nodes.push(start(settings(addr, &addrs, &dir)).await);
    }
    until("the others found another", &mut nodes, settled).await;
    let at = leader(&nodes).expect("leader");
    nodes[at].propose(1, change("a", 0));

    let alone = start(settings(&addrs[0], &addrs, &dir)).await;
    let mut ended = alone.broker.ended();
    let why = timeout(PATIENCE, ended.wait_for(Option::is_some)).await.expect("it ends");
    let why = why.expect("it says why").clone();
    let Some(Ended::Failed(why)) = why else { panic!("{why:?}") };
    assert!(why.contains("Start it again"), "{why}");
    alone.end().await;
    nodes.push(start(settings(&addrs[0], &addrs, &dir)).await);
    until("it is taken in", &mut nodes, |nodes| whole(nodes, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_the_others_may_still_follow_gives_nothing_up() {
    let dir = TempDir::new().expect("directory");
    let addrs = sorted(3);
    founded(&[&addrs[0], &addrs[1]], &addrs, &dir).await;
    let mut nodes = vec![start(settings(&addrs[0], &addrs, &dir)).await];
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(*nodes[0].broker.ended().borrow(), None);
    let why = nodes[0].broker.problem().unwrap_or_default();
    assert!(why.contains("was founded and has not begun"), "{why}");
    nodes.push(start(settings(&addrs[1], &addrs, &dir)).await);
    until("they begin", &mut nodes, settled).await;
    assert_eq!(nodes[0].broker.meta().cluster.expect("cluster").id, 7);
    assert_eq!(nodes[0].broker.problem(), None);
}
