//! What a server holds: its keys, and the log of its last writes. Both outlast `kill -9`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

type Key = (u8, Vec<u8>);

/// One write.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) id: u64,
    pub(super) key: Key,
    /// `None`: it was deleted.
    pub(super) value: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    file: File,
    keys: BTreeMap<Key, Vec<u8>>,
    logs: Vec<Log>,
    pub(super) last_log_id: u64,
    pub(super) first_log_id: u64,
    pub(super) commit_log_id: u64,
}

impl Log {
    fn write_to(&self, out: &mut Vec<u8>) {
        let value = self.value.as_deref();
        out.extend(self.id.to_be_bytes());
        out.push(self.key.0);
        out.push(u8::from(value.is_some()));
        for part in [&self.key.1, value.unwrap_or_default()] {
            out.extend(u32::try_from(part.len()).expect("a short part").to_be_bytes());
            out.extend(part);
        }
    }

    /// Takes one from the beginning; `None` when there is no whole one.
    fn read_from(bytes: &mut &[u8]) -> Option<Self> {
        let mut rest = *bytes;
        let mut take = |count: usize| {
            let (part, after) = rest.split_at_checked(count)?;
            rest = after;
            Some(part)
        };
        let id = u64::from_be_bytes(take(8)?.try_into().ok()?);
        let (db, is_set) = (take(1)?[0], take(1)?[0] == 1);
        let mut part = || {
            let length = u32::from_be_bytes(take(4)?.try_into().ok()?);
            Some(take(usize::try_from(length).ok()?)?.to_vec())
        };
        let (key, value) = (part()?, part()?);
        *bytes = rest;
        Some(Self { id, key: (db, key), value: is_set.then_some(value) })
    }
}

impl Store {
    pub(super) fn open(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("the directory is ours");
        let path = dir.join("stand-in.data");
        let bytes = fs::read(&path).unwrap_or_default();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut store = Self {
            file: file.expect("the file is ours"),
            path,
            keys: BTreeMap::new(),
            logs: Vec::new(),
            last_log_id: 0,
            first_log_id: 0,
            commit_log_id: 0,
        };
        // First the copy that it began with, if there was one, then what was logged since.
        if let Some((snapshot, mut logs)) = bytes.split_at_checked(8).and_then(|(size, rest)| {
            let size = u64::from_be_bytes(size.try_into().ok()?);
            rest.split_at_checked(usize::try_from(size).ok()?)
        }) {
            store.load(snapshot);
            while let Some(log) = Log::read_from(&mut logs) {
                store.apply(log);
            }
        } else {
            store.begin_file(&[]);
        }
        store
    }

    pub(super) fn get(&self, db: u8, key: &[u8]) -> Option<&Vec<u8>> {
        self.keys.get(&(db, key.to_vec()))
    }

    /// Its position, as `INFO` gives it for a slave.
    pub(super) fn position(&self) -> u64 {
        if self.last_log_id > 0 { self.last_log_id } else { self.commit_log_id }
    }

    pub(super) fn write(&mut self, db: u8, key: &[u8], value: Option<Vec<u8>>) {
        let id = self.last_log_id.max(self.commit_log_id) + 1;
        self.log(Log { id, key: (db, key.to_vec()), value });
    }

    fn log(&mut self, log: Log) {
        let mut bytes = Vec::new();
        log.write_to(&mut bytes);
        self.file.write_all(&bytes).expect("there is room on the disk");
        self.apply(log);
    }

    fn apply(&mut self, log: Log) {
        match &log.value {
            Some(value) => self.keys.insert(log.key.clone(), value.clone()),
            None => self.keys.remove(&log.key),
        };
        if self.first_log_id == 0 {
            self.first_log_id = log.id;
        }
        self.last_log_id = log.id;
        self.commit_log_id = log.id;
        self.logs.push(log);
    }

    /// The log from an id on, as `SYNC` sends it.
    pub(super) fn logs_from(&self, id: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for log in self.logs.iter().skip_while(|log| log.id < id) {
            log.write_to(&mut bytes);
        }
        bytes
    }

    /// Takes over what `SYNC` sent.
    pub(super) fn take_logs(&mut self, mut bytes: &[u8]) {
        while let Some(log) = Log::read_from(&mut bytes) {
            self.log(log);
        }
    }

    /// Everything, as `FULLSYNC` sends it: the commit id first.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.commit_log_id.to_be_bytes().to_vec();
        for (key, value) in &self.keys {
            Log { id: 0, key: key.clone(), value: Some(value.clone()) }.write_to(&mut bytes);
        }
        bytes
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.begin_file(&[]);
        self.load(&[]);
    }

    /// Takes over a snapshot. It has no log until the next write.
    pub(super) fn take_snapshot(&mut self, snapshot: &[u8]) {
        self.begin_file(snapshot);
        self.load(snapshot);
    }

    fn load(&mut self, snapshot: &[u8]) {
        self.keys.clear();
        self.logs.clear();
        (self.last_log_id, self.first_log_id, self.commit_log_id) = (0, 0, 0);
        let Some((commit, mut rest)) = snapshot.split_at_checked(8) else { return };
        self.commit_log_id = u64::from_be_bytes(commit.try_into().expect("eight bytes"));
        while let Some(Log { key, value: Some(value), .. }) = Log::read_from(&mut rest) {
            self.keys.insert(key, value);
        }
    }

    fn begin_file(&mut self, snapshot: &[u8]) {
        let fresh = self.path.with_extension("fresh");
        let size = u64::try_from(snapshot.len()).expect("a small number");
        let bytes = [&size.to_be_bytes(), snapshot].concat();
        fs::write(&fresh, bytes).expect("there is room on the disk");
        fs::rename(&fresh, &self.path).expect("the directory is ours");
        let file = OpenOptions::new().append(true).open(&self.path);
        self.file = file.expect("the file is ours");
    }
}
