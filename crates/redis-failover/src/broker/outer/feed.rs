//! News that a task of its own gathers.
//!
//! Whoever takes them waits for other things too and looks around many times a second; a reading that was broken off
//! each time would never end with a store that answers slowly.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::store::News;

/// Most news that wait to be taken; the task waits when there is no room.
const NEWS_MAX: usize = 256;

/// The news of one task, or of none.
#[derive(Debug, Default)]
pub(super) struct Feed(Option<(mpsc::Receiver<News>, JoinHandle<()>)>);

impl Feed {
    /// Lets this task tell the news, in the place of the one before.
    pub(super) fn begin<F>(&mut self, task: impl FnOnce(mpsc::Sender<News>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.abort();
        let (told, news) = mpsc::channel(NEWS_MAX);
        self.0 = Some((news, tokio::spawn(task(told))));
    }

    /// May be dropped while it waits. A feed without a task has no news.
    pub(super) async fn next(&mut self) -> News {
        let Some((news, _)) = &mut self.0 else { return std::future::pending().await };
        match news.recv().await {
            Some(news) => news,
            None => News::Lost("the task that listens to it has ended".to_owned()),
        }
    }

    /// Ends the task, and returns when what it held is gone.
    pub(super) async fn stop(&mut self) {
        if let Some((_, task)) = self.0.take() {
            task.abort();
            let _ = task.await;
        }
    }

    fn abort(&mut self) {
        if let Some((_, task)) = self.0.take() {
            task.abort();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.abort();
    }
}
