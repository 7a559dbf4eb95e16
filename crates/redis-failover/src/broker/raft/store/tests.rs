use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::storage::RaftLogStorageExt;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload};
use tempfile::TempDir;

use super::*;
use crate::broker::raft::machine::Machine;
use crate::broker::raft::propose::Ours;
use crate::broker::raft::types::{MemberId, Origin};

fn addr() -> Addr {
    "127.0.0.1:12000".parse().expect("address")
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 7.into()), index)
}

fn entry(index: u64) -> Entry {
    Entry { log_id: log_id(index), payload: EntryPayload::Blank }
}

fn open(dir: &Path) -> Opened {
    Store::open(dir, &addr()).expect("open")
}

/// Why the store cannot be opened.
fn refused(dir: &Path) -> String {
    match Store::open(dir, &addr()) {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error.to_string(),
    }
}

/// A store with an entry, closed.
async fn filled() -> TempDir {
    let dir = TempDir::new().expect("directory");
    let Opened { mut store, thread, .. } = open(dir.path());
    store.blocking_append([entry(0)]).await.expect("append");
    drop(store);
    thread.join().await;
    dir
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("record.redb")
}

struct Conformance;

impl StoreBuilder<Types, Store, Machine, TempDir> for Conformance {
    async fn build(&self) -> Result<(TempDir, Store, Machine), StorageError> {
        let dir = TempDir::new().expect("directory");
        let store = open(dir.path()).store;
        let (told, _) = mpsc::channel(1);
        let (machine, _) =
            Machine::restore(store.clone(), Ours::new(Origin(1)), told).expect("restore");
        Ok((dir, store, machine))
    }
}

#[test]
fn conforms_to_what_raft_expects() {
    Suite::test_all(Conformance).expect("conformance");
}

#[tokio::test]
async fn keeps_everything_when_it_is_opened_again() {
    let dir = TempDir::new().expect("directory");
    let Opened { mut store, thread, mut meta } = open(dir.path());
    assert_eq!(meta.id, MemberId::first(&addr()));
    assert_eq!(meta.cluster, None);
    let founder = Founder { addr: addr(), nonce: meta.nonce };
    meta.cluster = Some(Cluster { id: u64::MAX, list: vec![addr()], founders: vec![founder] });
    meta.id = MemberId::another().expect("random");
    store.save_meta(&meta).await.expect("meta");
    let vote = Vote::new(3, 7.into());
    store.save_vote(&vote).await.expect("vote");
    store.blocking_append((0..10).map(entry)).await.expect("append");
    store.truncate(log_id(8)).await.expect("truncate");
    let covers = SnapshotMeta { last_log_id: Some(log_id(4)), ..SnapshotMeta::default() };
    store.save_snapshot(&covers, (*b"{}").into()).await.expect("snapshot");
    store.purge(log_id(2)).await.expect("purge");
    store.save_committed(Some(log_id(6))).await.expect("committed");
    drop(store);
    thread.join().await;

    let Opened { mut store, meta: read, .. } = open(dir.path());
    assert_eq!(read, meta);
    assert_eq!(store.read_vote().await.expect("vote"), Some(vote));
    assert_eq!(store.read_committed().await.expect("committed"), Some(log_id(6)));
    let state = store.get_log_state().await.expect("state");
    assert_eq!(state.last_purged_log_id, Some(log_id(2)));
    assert_eq!(state.last_log_id, Some(log_id(7)));
    let entries = store.try_get_log_entries(..).await.expect("entries");
    let indexes: Vec<u64> = entries.iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(indexes, [3, 4, 5, 6, 7]);
    assert_eq!(store.snapshot().expect("snapshot"), (covers, (*b"{}").into()));
}

#[tokio::test]
async fn what_was_acknowledged_outlasts_a_kill() {
    let (dir, after) = (TempDir::new().expect("directory"), TempDir::new().expect("directory"));
    let Opened { mut store, .. } = open(dir.path());
    store.save_vote(&Vote::new(2, 7.into())).await.expect("vote");
    for index in 0..50 {
        store.blocking_append([entry(index)]).await.expect("append");
    }
    // What a killed process leaves is the file as it is now: not closed.
    fs::copy(file(&dir), file(&after)).expect("copy");
    let Opened { mut store, .. } = open(after.path());
    assert_eq!(store.get_log_state().await.expect("state").last_log_id, Some(log_id(49)));
    assert_eq!(store.read_vote().await.expect("vote"), Some(Vote::new(2, 7.into())));
}

#[tokio::test]
async fn an_older_snapshot_never_follows_a_newer_one() {
    let dir = TempDir::new().expect("directory");
    let Opened { store, .. } = open(dir.path());
    let covers =
        |index| SnapshotMeta { last_log_id: Some(log_id(index)), ..SnapshotMeta::default() };
    store.save_snapshot(&covers(9), (*b"new").into()).await.expect("snapshot");
    store.save_snapshot(&covers(5), (*b"old").into()).await.expect("snapshot");
    assert_eq!(store.snapshot().expect("snapshot"), (covers(9), (*b"new").into()));
}

#[tokio::test]
async fn the_file_stays_small() {
    let dir = TempDir::new().expect("directory");
    let Opened { mut store, .. } = open(dir.path());
    for round in 0..100 {
        let from = round * 100;
        store.blocking_append((from..from + 100).map(entry)).await.expect("append");
        if let Some(upto) = from.checked_sub(200) {
            store.purge(log_id(upto)).await.expect("purge");
        }
    }
    let bytes = fs::metadata(file(&dir)).expect("metadata").len();
    assert!(bytes < 4 << 20, "{bytes} bytes after 10,000 entries of which 300 are kept");
}

#[tokio::test]
async fn a_follower_is_sent_no_more_than_fits() {
    let dir = TempDir::new().expect("directory");
    let Opened { mut store, .. } = open(dir.path());
    store.blocking_append((0..3).map(entry)).await.expect("append");
    for kept in store.mirror().log.values_mut() {
        kept.bytes = SENT_BYTES_MAX / 2;
    }
    assert_eq!(store.limited_get_log_entries(0, 3).await.expect("entries").len(), 2);
    for kept in store.mirror().log.values_mut() {
        kept.bytes = SENT_BYTES_MAX * 2;
    }
    assert_eq!(store.limited_get_log_entries(0, 3).await.expect("entries").len(), 1);
}

#[tokio::test]
async fn damage_is_an_error_and_never_a_fresh_start() {
    let dir = filled().await;
    let whole = fs::read(file(&dir)).expect("read");
    let mut flipped = whole.clone();
    // Everything but what redb reads first, so that only checksums can tell.
    for byte in flipped.iter_mut().skip(4096) {
        *byte ^= 0x55;
    }
    let damaged =
        [b"".to_vec(), b"this is no store\n".to_vec(), whole[..whole.len() / 2].to_vec(), flipped];
    for bytes in damaged {
        fs::write(file(&dir), &bytes).expect("write");
        let why = refused(dir.path());
        assert!(why.contains("record.redb is damaged ("), "{} bytes: {why}", bytes.len());
        assert!(why.contains("remove the directory"), "{why}");
    }
    fs::remove_file(file(&dir)).expect("remove");
    let why = refused(dir.path());
    assert!(why.contains("record.redb is missing"), "{why}");
    assert!(!file(&dir).exists());
}

#[tokio::test]
async fn what_a_kill_left_of_a_new_store_is_no_store() {
    let dir = TempDir::new().expect("directory");
    fs::write(dir.path().join("record.redb.new"), b"half").expect("write");
    open(dir.path());
}

#[tokio::test]
async fn a_part_that_cannot_be_read_is_named() {
    let dir = filled().await;
    let write = |bytes: &[u8]| {
        let database = Database::open(file(&dir)).expect("open");
        let transaction = database.begin_write().expect("write");
        transaction
            .open_table(disk::STATE)
            .expect("table")
            .insert(disk::META, bytes)
            .expect("insert");
        transaction.commit().expect("commit");
    };
    write(b"{\"version\":\"1\"}");
    let why = refused(dir.path());
    assert!(why.contains("its part \"meta\" cannot be read"), "{why}");
    write(b"{\"version\":\"2\",\"anything\":[]}");
    let why = refused(dir.path());
    assert!(why.contains("has the format \"2\""), "{why}");
}

#[tokio::test]
async fn two_cannot_have_one_store() {
    let dir = TempDir::new().expect("directory");
    let first = open(dir.path());
    let why = refused(dir.path());
    assert!(why.contains("is in use by another process"), "{why}");
    drop(first.store);
    first.thread.join().await;
    open(dir.path());
}

#[tokio::test]
async fn the_store_of_another_node_is_refused() {
    let dir = filled().await;
    let other = "127.0.0.1:12001".parse().expect("address");
    let Err(error) = Store::open(dir.path(), &other) else { panic!("the store was opened") };
    let why = error.to_string();
    assert!(why.contains("belongs to the node 127.0.0.1:12000"), "{why}");
    assert!(why.contains("raft_addr is 127.0.0.1:12001"), "{why}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = TempDir::new().expect("directory");
    let below = dir.path().join("a file");
    fs::write(&below, b"").expect("write");
    let why = refused(&below.join("data"));
    assert!(why.contains("a file/data cannot be created or written"), "{why}");
    assert!(why.contains("set raft_data_dir"), "{why}");
    // Permissions do not bind root, which tests often are; this directory binds everybody.
    let why = refused(Path::new("/proc/redis-failover"));
    assert!(why.contains("/proc/redis-failover cannot be created or written"), "{why}");
}

/// A disk that gets full.
#[derive(Debug)]
struct Disk {
    pages: redb::backends::InMemoryBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn space(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.pages.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.pages.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.space()?;
        self.pages.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.space()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.space()?;
        self.pages.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_is_the_end_and_says_so() {
    let full = Arc::new(AtomicBool::new(false));
    let disk = Disk { pages: redb::backends::InMemoryBackend::new(), full: full.clone() };
    let database = Database::builder().create_with_backend(disk).expect("create");
    let (mut store, _thread) =
        Store::start(database, Mirror::default(), "/data/record.redb".into());
    store.blocking_append([entry(0)]).await.expect("append");
    assert_eq!(store.failure().get(), None);
    full.store(true, Ordering::SeqCst);
    let error = store.blocking_append([entry(1)]).await.expect_err("append").to_string();
    assert!(error.contains("/data/record.redb cannot be written ("), "{error}");
    assert!(store.failure().get().is_some_and(|why| why.contains("see whether its disk is full")));
    // What the file holds now is not known, so that room alone does not help.
    full.store(false, Ordering::SeqCst);
    assert!(store.save_vote(&Vote::new(9, 7.into())).await.is_err());
    assert_eq!(store.read_vote().await.expect("vote"), None);
}
