//! A dashboard of codis that stands in for the real one: it has one group, and promotes by putting its servers in another
//! order, with the refusals of the real one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

/// What the real one wants to see for this product, as it was recorded.
pub const PRODUCT: &str = "codis-demo";
const XAUTH: &str = "95b62887719520f17e312eaa76d28f2b";

/// The running service; its thread ends with the test's process.
#[derive(Debug)]
pub struct Dashboard {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    gid: u32,
    /// The master first.
    servers: Vec<String>,
    /// Why it refuses to promote anybody.
    refuses: Option<String>,
    /// Method and path of everything that was asked.
    requests: Vec<String>,
}

impl Dashboard {
    pub fn start(gid: u32, servers: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let state = State { gid, servers: servers.to_vec(), refuses: None, requests: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { addr, state }
    }

    /// The flags of a program that tells it of these groups.
    pub fn flags(&self, groups: &str) -> Vec<String> {
        vec![
            format!("-codis_dashboard={}", self.addr),
            format!("-codis_product={PRODUCT}"),
            format!("-codis_groups={groups}"),
        ]
    }

    pub fn servers(&self) -> Vec<String> {
        self.lock().servers.clone()
    }

    pub fn add_server(&self, addr: &str) {
        self.lock().servers.push(addr.to_owned());
    }

    /// From now on it refuses to promote, for this reason, or does it.
    pub fn refuse(&self, why: Option<&str>) {
        self.lock().refuses = why.map(str::to_owned);
    }

    /// The promotions that it was asked for.
    pub fn promotions(&self) -> Vec<String> {
        let requests = self.lock().requests.clone();
        requests.into_iter().filter(|request| request.starts_with("PUT ")).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let _ = reader.read_line(&mut line);
    let mut length = 0;
    loop {
        let mut header = String::new();
        let _ = reader.read_line(&mut header);
        let Some((name, value)) = header.trim().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    let (status, body) = lock(state).answer(&line);
    let _ = write!(
        reader.get_mut(),
        "HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

impl State {
    fn answer(&mut self, line: &str) -> (u16, String) {
        let request = line.rsplit_once(' ').map_or(line, |(request, _)| request);
        self.requests.push(request.to_owned());
        let refused = |cause: &str| (800, json!({"Cause": cause, "Stack": []}).to_string());
        let words: Vec<&str> = request.split(['/', ' ']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            ["GET", "api", "topom", "stats", xauth] => match xauth {
                XAUTH => (200, self.stats()),
                _ => refused("invalid xauth"),
            },
            ["PUT", "api", "topom", "group", "promote", xauth, gid, addr] => {
                match self.promote(xauth, gid, addr) {
                    Ok(()) => (200, "\"OK\"".to_owned()),
                    Err(cause) => refused(&cause),
                }
            }
            _ => (404, "404 page not found".to_owned()),
        }
    }

    fn stats(&self) -> String {
        let server = |addr: &String| json!({"server": addr, "datacenter": "", "action": {}, "replica_group": false});
        let servers: Vec<_> = self.servers.iter().map(server).collect();
        let group =
            json!({"id": self.gid, "servers": servers, "promoting": {}, "out_of_sync": false});
        json!({"closed": false, "slots": [], "group": {"models": [group], "stats": {}}, "proxy": {"models": []}})
            .to_string()
    }

    fn promote(&mut self, xauth: &str, gid: &str, addr: &str) -> Result<(), String> {
        if xauth != XAUTH {
            return Err("invalid xauth".to_owned());
        }
        if let Some(why) = &self.refuses {
            return Err(why.clone());
        }
        if gid != self.gid.to_string() {
            return Err(format!("group-[{gid}] doesn't exist"));
        }
        let index = self.servers.iter().position(|server| server == addr);
        match index {
            None => Err(format!("group-[{gid}] doesn't have server-[{addr}]")),
            Some(0) => Err(format!("group-[{gid}] can't promote master")),
            Some(index) => {
                // The new one first, the old one last.
                let old = self.servers.remove(0);
                let new = self.servers.remove(index - 1);
                self.servers.insert(0, new);
                self.servers.push(old);
                Ok(())
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
