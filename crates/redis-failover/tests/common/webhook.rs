//! A service that is told by HTTP what happened: it writes everything down, and answers as it is told to.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATIENCE, now, wait_until};

/// How long a request may take to come.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 1 << 20;

/// What it answers.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16, &'static str),
    /// Nothing, while the connection stays open.
    Nothing,
}

/// One request that came.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub at: Instant,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub json: Value,
}

impl Delivery {
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map_or_else(|| panic!("no {name} in {:?}", self.headers), |(_, value)| value)
    }
}

/// The running service; its thread ends with the test's process.
#[derive(Debug)]
pub struct Webhook {
    addr: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
}

impl Webhook {
    pub fn start(answer: Answer) -> Self {
        Self::start_over(answer, |stream, serve| serve(&mut { stream }))
    }

    /// The same over something that is put around each connection.
    pub fn start_over(
        answer: Answer,
        over: impl Fn(TcpStream, &dyn Fn(&mut dyn Connection)) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let answer = Arc::new(Mutex::new(answer));
        let deliveries = Arc::new(Mutex::new(Vec::new()));
        let (answers, written, over) =
            (Arc::clone(&answer), Arc::clone(&deliveries), Arc::new(over));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, written, over) =
                    (Arc::clone(&answers), Arc::clone(&written), Arc::clone(&over));
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(REQUEST_LIMIT));
                    over(stream, &|connection: &mut dyn Connection| {
                        let _ = serve(connection, &answers, &written);
                    });
                });
            }
        });
        Self { addr, answer, deliveries }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn answer(&self, answer: Answer) {
        *lock(&self.answer) = answer;
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.deliveries).clone()
    }

    pub fn of_event(&self, name: &str) -> Vec<Delivery> {
        self.deliveries().into_iter().filter(|one| one.json["event"] == name).collect()
    }

    /// Waits until it was told of this event so often.
    #[track_caller]
    pub fn wait_for(&self, event: &str, count: usize) -> Vec<Delivery> {
        wait_until(&format!("a webhook is told of {event} {count} times"), PATIENCE, || {
            let found = self.of_event(event);
            (found.len() >= count).then_some(found)
        })
    }
}

/// What a connection must be able to do.
pub trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}

fn serve(
    connection: &mut dyn Connection,
    answer: &Mutex<Answer>,
    deliveries: &Mutex<Vec<Delivery>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; BODY_BYTES_MAX.min(length)];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let json = serde_json::from_str(&body).unwrap_or_default();
    lock(deliveries).push(Delivery { at: now(), path, headers, body, json });
    let answer = lock(answer).clone();
    let connection = reader.into_inner();
    match answer {
        Answer::Status(status, body) => {
            let length = body.len();
            write!(
                connection,
                "HTTP/1.1 {status} Whatever\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )?;
            connection.flush()
        }
        // It ends when the other side does.
        Answer::Nothing => connection.read(&mut [0; 1]).map(drop),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
