//! The session with the ZooKeeper of xcodis, open from the start: a failover that asks must not wait for a handshake, nor at
//! all for servers that are known to be away.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use zookeeper_client::{Client, SessionState};

/// How long that may take, names of hosts included.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// The pause until a session is tried to be opened again.
const RETRY: Duration = Duration::from_millis(500);

/// The way to a session. Dropping it ends that.
pub(super) struct Link {
    state: watch::Receiver<State>,
    work: JoinHandle<()>,
}

#[derive(Clone)]
enum State {
    /// Nobody knows yet whether the servers are there.
    Beginning,
    Open(Client),
    /// They are not, for this reason.
    Away(String),
}

impl Link {
    pub(super) fn open(servers: String, session_timeout: Duration) -> Self {
        let (tell, state) = watch::channel(State::Beginning);
        Self { state, work: tokio::spawn(keep(servers, session_timeout, tell)) }
    }

    /// The session. Only the very first one is waited for.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub(super) async fn client(&self) -> Result<Client, String> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| !matches!(state, State::Beginning)).await;
        match known.map(|state| State::clone(&state)) {
            Ok(State::Open(client)) => Ok(client),
            Ok(State::Away(why)) => Err(why),
            Ok(State::Beginning) | Err(_) => Err("the node is stopping".to_owned()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// Opens a session, and another one whenever it has ended.
async fn keep(servers: String, session_timeout: Duration, tell: watch::Sender<State>) {
    let mut was_away = false;
    loop {
        // What follows tries again by itself.
        let connector =
            Client::connector().with_session_timeout(session_timeout).with_fail_eagerly();
        match timeout(OPEN_LIMIT, connector.connect(&servers)).await {
            Ok(Ok(client)) => {
                if std::mem::take(&mut was_away) {
                    tracing::info!("the ZooKeeper of xcodis at {servers} is back");
                }
                let why = follow(client, &tell).await;
                was_away = away(&tell, was_away, format!("{why} ({servers})"));
            }
            Ok(Err(error)) => {
                let why = format!("the ZooKeeper of xcodis at {servers} gives no session: {error}");
                was_away = away(&tell, was_away, why);
            }
            Err(_) => {
                let why = format!("the ZooKeeper of xcodis at {servers} gives no session in time");
                was_away = away(&tell, was_away, why);
            }
        }
        sleep(RETRY).await;
    }
}

/// Follows a session to its end, and says how it ended.
async fn follow(client: Client, tell: &watch::Sender<State>) -> String {
    let mut watcher = client.state_watcher();
    let mut state = watcher.peek_state();
    loop {
        match state {
            SessionState::SyncConnected | SessionState::ConnectedReadOnly => {
                tell.send_replace(State::Open(client.clone()));
            }
            // It comes back, or ends.
            SessionState::Disconnected => {
                let why = "the connection to the ZooKeeper of xcodis is lost".to_owned();
                tell.send_replace(State::Away(why));
            }
            SessionState::Expired | SessionState::AuthFailed | SessionState::Closed => {
                return format!("the session with the ZooKeeper of xcodis is {state}");
            }
        }
        state = watcher.changed().await;
    }
}

/// Tells why there is no session, and the log the first time.
fn away(tell: &watch::Sender<State>, was_away: bool, why: String) -> bool {
    if !was_away {
        tracing::warn!(
            "{why}: failovers go on without asking xcodis, and its proxies are told of new masters when it is back"
        );
    }
    tell.send_replace(State::Away(why));
    true
}
