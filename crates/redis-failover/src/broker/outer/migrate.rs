//! The record as a whole, for moving it between brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::node::NodeId;
use failover_core::record::Record;
use tokio::time::timeout;

use super::Where;
use super::groups::{Groups, put};
use super::layout::{self, Place, StoredGroup, StoredHistory, StoredMarker};
use super::store::{Expect, News, NotWritten, OPS_MAX, Op, Session, WRITE_BYTES_MAX};

/// How long reading or writing everything may take.
const COPY_TIMEOUT: Duration = Duration::from_secs(60);

/// A store, as whoever copies it sees it.
pub(crate) struct Copy {
    session: Session,
    watch: super::store::Watch,
}

/// What is in a store.
pub(crate) struct Found {
    pub(crate) record: Record,
    /// The nodes that are there now.
    pub(crate) nodes: Vec<NodeId>,
}

impl Copy {
    /// # Errors
    /// A sentence, when the store is not reached.
    pub(crate) async fn open(place: &Where) -> Result<Self, String> {
        let opened = timeout(COPY_TIMEOUT, Session::open(place)).await;
        let (session, watch) =
            opened.map_err(|_| format!("{} does not answer", place.name()))??;
        Ok(Self { session, watch })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// A sentence, when it cannot be read.
    pub(crate) async fn read(&mut self) -> Result<Found, String> {
        let loaded = timeout(COPY_TIMEOUT, self.watch.load()).await;
        let loaded = loaded.map_err(|_| "it was not read in time".to_owned())??;
        let items = match loaded {
            News::Whole { items, .. } => items,
            News::Changed { .. } | News::Reconnected | News::Lost(_) => Vec::new(),
        };
        let (mut groups, mut nodes) = (Groups::default(), Vec::new());
        for (path, item) in items {
            groups.take(&path, Some((&item.value, item.version)), item.changed)?;
            match Place::of(&path) {
                Place::Node(id) => nodes.push(id),
                Place::Masters
                | Place::Secret
                | Place::Marker
                | Place::Group(_)
                | Place::History(..)
                | Place::Member(_)
                | Place::Candidate
                | Place::Other => {}
            }
        }
        Ok(Found { record: groups.record(), nodes })
    }

    /// Writes a record where there is none.
    ///
    /// # Errors
    /// A sentence, when something was not written; what was written before is said in it.
    pub(crate) async fn write(&self, record: &Record, base: &str) -> Result<(), String> {
        let writes = writes(record)?;
        let count = writes.len();
        self.session.prepare().await?;
        for (at, ops) in writes.iter().enumerate() {
            let written = timeout(COPY_TIMEOUT, self.session.write(None, ops)).await;
            let why = match written {
                Ok(Ok(_)) => continue,
                Ok(Err(NotWritten::Fenced | NotWritten::Conflict)) => {
                    "something else is there already".to_owned()
                }
                Ok(Err(NotWritten::Refused(why) | NotWritten::Unknown(why))) => why,
                Err(_) => "it was not written in time".to_owned(),
            };
            return Err(format!(
                "part {} of {count} was not written: {why}. Remove {base} there before it is tried again",
                at + 1
            ));
        }
        Ok(())
    }
}

/// What is to be written, in parts that a store takes. The mark is the last.
fn writes(record: &Record) -> Result<Vec<Vec<Op>>, String> {
    let mut all: Vec<Op> = Vec::new();
    for (name, entry) in record.entries() {
        let Some(group) = record.group(name) else { continue };
        // Each entry of history has the revision of a change; which it was does not matter any more.
        let count = u64::try_from(group.history.len()).unwrap_or_default();
        let first = group.revision.saturating_sub(count) + 1;
        let stored = StoredGroup::V1 {
            revision: group.revision,
            history_at: (count > 0).then_some(group.revision),
            what: format!("{name} was copied from another broker"),
            entry: Box::new(entry.clone()),
        };
        all.push(put(&layout::group(name), &stored, Expect::Nothing)?);
        for (at, entry) in (first..).zip(&group.history) {
            let stored = StoredHistory::V1 { entry: Box::new(entry.clone()) };
            all.push(put(&layout::history(name, at), &stored, Expect::Nothing)?);
        }
    }
    let mut writes = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for op in all {
        if part.len() >= OPS_MAX || (bytes + op.bytes() > WRITE_BYTES_MAX && !part.is_empty()) {
            writes.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += op.bytes();
        part.push(op);
    }
    writes.push(part);
    let masters: BTreeMap<_, _> =
        record.entries().filter(|(_, entry)| entry.leaving.is_none()).collect();
    let masters: Vec<_> = masters.values().map(|entry| &entry.master).collect();
    let marker = StoredMarker::V1 { removed: record.removed() };
    writes.push(vec![
        put(layout::MASTERS, &masters, Expect::Anything)?,
        put(layout::MARKER, &marker, Expect::Anything)?,
    ]);
    writes.retain(|part| !part.is_empty());
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use failover_core::addr::Addr;
    use failover_core::node::GroupName;
    use failover_core::record::{Change, GroupEntry};

    use super::*;

    #[test]
    fn a_record_that_is_larger_than_a_write_is_written_in_parts_and_is_the_same() {
        let mut record = Record::default();
        for number in 0..4000_u16 {
            let addr = Addr::new("redis.example", number + 1).expect("an address");
            let change = Change {
                group: GroupName::new(&format!("group-{number}")).expect("a name"),
                expect: 0,
                what: String::new(),
                entry: Some(GroupEntry::new(addr)),
                history: None,
            };
            record.apply(&[change]).expect("new");
        }
        let writes = writes(&record).expect("it can be written down");
        let bytes = |ops: &Vec<Op>| ops.iter().map(Op::bytes).sum::<usize>();
        assert!(writes.iter().map(bytes).sum::<usize>() > WRITE_BYTES_MAX);
        assert!(writes.iter().all(|ops| bytes(ops) <= WRITE_BYTES_MAX && ops.len() <= OPS_MAX));
        let mut groups = Groups::default();
        for op in writes.iter().flatten() {
            let Op::Put { path, value, .. } = op else { panic!("{op:?}") };
            groups.take(path, Some((value, 1)), 1).expect("it is understood");
        }
        assert_eq!(groups.record(), record);
    }
}
