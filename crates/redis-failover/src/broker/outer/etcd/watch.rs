//! What changes in etcd: everything once, and then every change, from where it was heard last.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use super::super::feed::Feed;
use super::super::store::{News, Update};
use super::http::Http;
use super::{KeyValue, Keys, Range, decode, encode};

/// Longest message: etcd sends what was missed in few of them.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// The pause until a watch that ended begins again, the first and the longest.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether the server that is watched is still the one that answers.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Where news come from.
#[derive(Debug)]
pub(in super::super) struct EtcdWatch {
    http: Arc<Http>,
    keys: Keys,
    feed: Feed,
}

#[derive(Deserialize)]
struct Message {
    result: Option<Watched>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Watched {
    #[serde(default)]
    canceled: bool,
    #[serde(default, deserialize_with = "super::number")]
    compact_revision: u64,
    #[serde(default)]
    events: Vec<Happened>,
}

#[derive(Deserialize)]
struct Happened {
    #[serde(default, rename = "type")]
    kind: String,
    kv: KeyValue,
}

/// Why a watch ended.
enum End {
    /// It goes on from where it was.
    Broken,
    /// What was missed is not kept any more.
    Compacted,
    /// Nobody listens.
    Over,
}

impl EtcdWatch {
    pub(super) fn new(http: Arc<Http>, keys: Keys) -> Self {
        Self { http, keys, feed: Feed::default() }
    }

    pub(in super::super) async fn load(&mut self) -> Result<News, String> {
        self.feed.stop().await;
        let (news, index) = load(&self.http, &self.keys).await?;
        let (http, keys) = (Arc::clone(&self.http), self.keys.clone());
        self.feed.begin(|told| run(http, keys, index + 1, told));
        Ok(news)
    }

    pub(in super::super) async fn next(&mut self) -> News {
        self.feed.next().await
    }
}

async fn load(http: &Http, keys: &Keys) -> Result<(News, u64), String> {
    let (first, behind) = keys.below("");
    let body = json!({ "key": encode(first), "range_end": encode(behind) });
    let range: Range = http
        .call("/v3/kv/range", &body)
        .await
        .map_err(|error| format!("etcd cannot be read: {error}"))?;
    let index = range.header.revision;
    let item = |kv: &KeyValue| Some((keys.path(&decode(&kv.key))?, kv.item()));
    let items = range.kvs.iter().filter_map(item).collect();
    Ok((News::Whole { items, index }, index))
}

/// Watches for ever, from one server to the next.
async fn run(http: Arc<Http>, keys: Keys, mut next: u64, told: mpsc::Sender<News>) {
    let mut pause = RETRY_MIN;
    loop {
        let before = next;
        match watch(&http, &keys, &mut next, &told).await {
            End::Over => return,
            End::Broken => {}
            End::Compacted => {
                if let Ok((news, index)) = load(&http, &keys).await {
                    next = index + 1;
                    if told.send(news).await.is_err() {
                        return;
                    }
                }
            }
        }
        if next > before {
            pause = RETRY_MIN;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Watches until it ends.
async fn watch(http: &Http, keys: &Keys, next: &mut u64, told: &mpsc::Sender<News>) -> End {
    let (first, behind) = keys.below("");
    let body = json!({ "create_request": {
        "key": encode(first),
        "range_end": encode(behind),
        "start_revision": next.to_string(),
    } });
    let Ok(mut streamed) = http.stream("/v3/watch", &body).await else {
        return End::Broken;
    };
    let mut buffer = Vec::new();
    let mut look = interval(LOOK_INTERVAL);
    loop {
        let frame = tokio::select! {
            frame = streamed.body.frame() => frame,
            () = told.closed() => return End::Over,
            // One that hangs says nothing for ever; that it does is found out by whoever asks it something.
            _ = look.tick() => {
                if http.current() == streamed.server {
                    continue;
                }
                return End::Broken;
            }
        };
        let Some(Ok(frame)) = frame else { return End::Broken };
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        if buffer.len() > MESSAGE_BYTES_MAX {
            return End::Broken;
        }
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if let Some(end) = take(&line, keys, next, told).await {
                return end;
            }
        }
    }
}

async fn take(line: &[u8], keys: &Keys, next: &mut u64, told: &mpsc::Sender<News>) -> Option<End> {
    let Ok(Message { result, error }) = serde_json::from_slice(line) else {
        return Some(End::Broken);
    };
    let Some(watched) = result.filter(|_| error.is_none()) else { return Some(End::Broken) };
    if watched.compact_revision > 0 {
        return Some(End::Compacted);
    }
    if watched.canceled {
        return Some(End::Broken);
    }
    if watched.events.is_empty() {
        return None;
    }
    let update = |event: &Happened| -> Option<Update> {
        let path = keys.path(&decode(&event.kv.key))?;
        Some((path, (event.kind != "DELETE").then(|| event.kv.item())))
    };
    let updates: Vec<Update> = watched.events.iter().filter_map(update).collect();
    let last = watched.events.iter().map(|event| event.kv.mod_revision).max();
    let index = last.unwrap_or_default();
    *next = (*next).max(last.unwrap_or_default() + 1);
    told.send(News::Changed { updates, index }).await.is_err().then_some(End::Over)
}
