//! What changes in ZooKeeper: everything once, and then whatever a watch says that it changed, read anew.
//!
//! A watch says where something happened and not what. Its events come before the answer to any question that was asked
//! later, so that what is read is at least as new as what was told.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use zookeeper_client::{
    AddWatchMode, Client, Error, EventType, PersistentWatcher, SessionState, WatchedEvent,
};

use super::super::feed::Feed;
use super::super::layout::{self, Place};
use super::super::store::{Item, News, Update};
use super::number;

/// Most values that are asked for at the same time.
const READS_MAX: usize = 64;
/// The pause until a reading is tried again that its connection broke.
const RETRY: Duration = Duration::from_millis(20);

/// What happens below the base.
#[derive(Debug)]
pub(in super::super) struct ZkWatch {
    client: Client,
    base: String,
    feed: Feed,
}

impl ZkWatch {
    pub(super) fn new(client: Client, base: String) -> Self {
        Self { client, base, feed: Feed::default() }
    }

    pub(in super::super) async fn load(&mut self) -> Result<News, String> {
        // Its watch goes before there is another one.
        self.feed.stop().await;
        let mut reader = Reader::new(self.client.clone(), self.base.clone());
        let news = reader.load().await?;
        self.feed.begin(|told| reader.run(told));
        Ok(news)
    }

    pub(in super::super) async fn next(&mut self) -> News {
        self.feed.next().await
    }
}

/// Reads everything, and then what changes.
struct Reader {
    client: Client,
    base: String,
    watcher: Option<PersistentWatcher>,
    /// Paths that changed and were not read since.
    dirty: BTreeSet<String>,
    /// The connection was lost, and what happened meanwhile is not told.
    is_cut_off: bool,
    index: u64,
}

/// What an event means.
enum Noted {
    Nothing,
    Back,
    Over(String),
}

impl Reader {
    fn new(client: Client, base: String) -> Self {
        Self { client, base, watcher: None, dirty: BTreeSet::new(), is_cut_off: false, index: 0 }
    }

    /// Tells what changes, until everything is to be read anew.
    async fn run(mut self, told: mpsc::Sender<News>) {
        loop {
            let news = self.next().await;
            let goes_on = matches!(news, News::Changed { .. });
            if told.send(news).await.is_err() || !goes_on {
                return;
            }
        }
    }

    async fn load(&mut self) -> Result<News, String> {
        let mut state = self.client.state_watcher();
        loop {
            match self.load_once().await {
                Ok(news) => return Ok(news),
                Err(Error::Unimplemented) => {
                    return Err("this ZooKeeper has no persistent watches: 3.6 or newer is needed"
                        .to_owned());
                }
                Err(error) if is_passing(&error) => {
                    // There may be a connection again by now.
                    while state.peek_state() == SessionState::Disconnected {
                        state.changed().await;
                    }
                    if state.peek_state().is_terminated() {
                        return Err(format!("its session is {}", state.peek_state()));
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    return Err(format!("{} in ZooKeeper cannot be read: {error}", self.base));
                }
            }
        }
    }

    async fn load_once(&mut self) -> Result<News, Error> {
        // A watch is not to be relied on over a change of the connection.
        self.watcher = None;
        self.dirty.clear();
        self.is_cut_off = false;
        match self.client.watch(&self.base, AddWatchMode::PersistentRecursive).await {
            Ok(watcher) => self.watcher = Some(watcher),
            // Before anybody wrote anything.
            Err(Error::NoNode) => return Ok(News::Whole { items: Vec::new(), index: 0 }),
            Err(error) => return Err(error),
        }
        // Whatever happened until then is in what is read after it.
        let marker = self.get(layout::MARKER).await?;
        self.index = marker.as_ref().map_or(0, |item| item.changed);
        let mut paths = vec![layout::MASTERS.to_owned(), layout::SECRET.to_owned()];
        for dir in [layout::MEMBERS, layout::NODES, layout::CANDIDATES] {
            paths.extend(self.children(dir).await?);
        }
        let groups = self.children(layout::GROUPS).await?;
        let this = &*self;
        let histories: Vec<_> = stream::iter(groups.clone())
            .map(|group| async move { this.children(&group).await })
            .buffer_unordered(READS_MAX)
            .collect()
            .await;
        paths.extend(groups);
        for history in histories {
            paths.extend(history?);
        }
        let updates = self.read(paths).await?;
        let mut items: Vec<(String, Item)> =
            updates.into_iter().filter_map(|(path, item)| Some((path, item?))).collect();
        if let Some(item) = marker {
            items.push((layout::MARKER.to_owned(), item));
        }
        Ok(News::Whole { items, index: self.index })
    }

    async fn next(&mut self) -> News {
        loop {
            if self.dirty.is_empty() || self.is_cut_off {
                let Some(watcher) = &mut self.watcher else { return std::future::pending().await };
                let event = watcher.changed().await;
                if let Some(news) = self.note(&event) {
                    return news;
                }
            }
            if let Some(news) = self.drain() {
                return news;
            }
            if self.is_cut_off || self.dirty.is_empty() {
                continue;
            }
            match self.read_dirty().await {
                Ok(Some(news)) => return news,
                Ok(None) => {}
                Err(error) if is_passing(&error) => self.is_cut_off = true,
                Err(error) => {
                    return News::Lost(format!(
                        "{} in ZooKeeper cannot be read: {error}",
                        self.base
                    ));
                }
            }
        }
    }

    async fn read_dirty(&mut self) -> Result<Option<News>, Error> {
        let mut updates = Vec::new();
        if self.dirty.contains(layout::MARKER) {
            // Every event up to what the mark says has come by the time that the mark has.
            let marker = self.get(layout::MARKER).await?;
            if let Some(news) = self.drain() {
                return Ok(Some(news));
            }
            if let Some(item) = marker {
                self.index = item.changed;
                updates.push((layout::MARKER.to_owned(), Some(item)));
            }
        }
        let paths: BTreeSet<String> =
            self.dirty.iter().filter(|path| *path != layout::MARKER).cloned().collect();
        updates.extend(self.read(paths).await?);
        self.dirty.clear();
        Ok(Some(News::Changed { updates, index: self.index }))
    }

    /// Takes note of the events that are there.
    fn drain(&mut self) -> Option<News> {
        while let Some(watcher) = &mut self.watcher
            && let Some(event) = watcher.changed().now_or_never()
        {
            if let Some(news) = self.note(&event) {
                return Some(news);
            }
        }
        None
    }

    fn note(&mut self, event: &WatchedEvent) -> Option<News> {
        match self.noted(event) {
            Noted::Nothing => None,
            Noted::Back => Some(News::Reconnected),
            Noted::Over(why) => Some(News::Lost(why)),
        }
    }

    fn noted(&mut self, event: &WatchedEvent) -> Noted {
        if event.event_type == EventType::Session {
            return match event.session_state {
                SessionState::Disconnected => {
                    self.is_cut_off = true;
                    Noted::Nothing
                }
                SessionState::SyncConnected => {
                    if std::mem::replace(&mut self.is_cut_off, false) {
                        Noted::Back
                    } else {
                        Noted::Nothing
                    }
                }
                SessionState::ConnectedReadOnly => Noted::Nothing,
                SessionState::Expired => Noted::Over("its session has expired".to_owned()),
                SessionState::AuthFailed => Noted::Over("it refuses the login".to_owned()),
                SessionState::Closed => Noted::Over("its session is closed".to_owned()),
            };
        }
        let below = event.path.strip_prefix(&self.base).and_then(|path| path.strip_prefix('/'));
        if let Some(path) = below.filter(|path| Place::of(path) != Place::Other) {
            self.dirty.insert(path.to_owned());
        }
        Noted::Nothing
    }

    async fn read(&self, paths: impl IntoIterator<Item = String>) -> Result<Vec<Update>, Error> {
        let reads: Vec<Result<Update, Error>> = stream::iter(paths)
            .map(|path| async move {
                let item = self.get(&path).await?;
                Ok((path, item))
            })
            .buffer_unordered(READS_MAX)
            .collect()
            .await;
        reads.into_iter().collect()
    }

    async fn get(&self, path: &str) -> Result<Option<Item>, Error> {
        match self.client.get_data(&format!("{}/{path}", self.base)).await {
            Ok((value, stat)) => {
                let version = u64::try_from(stat.version).unwrap_or_default();
                let (created, changed) = (number(stat.czxid), number(stat.mzxid));
                Ok(Some(Item { value, created, version, changed }))
            }
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, Error> {
        match self.client.list_children(&format!("{}/{path}", self.base)).await {
            Ok(names) => Ok(names.iter().map(|name| format!("{path}/{name}")).collect()),
            Err(Error::NoNode) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Whether an error is of the connection, and goes when there is another one.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::ConnectionLoss | Error::Timeout | Error::Custom(_))
}
