//! What a server answers to a client, or to a slave.

use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::connection::{Connection, bulk};
use super::{App, lock};

/// How long a slave that has everything is kept waiting for news.
const SYNC_WAIT: Duration = Duration::from_secs(1);
const DATABASES: u8 = 16;
/// Its own words for this are not on record.
pub(super) const LOG_IS_GONE: &str = "the log is gone";
/// What the log says of each full copy that was asked for.
pub(super) const FULL_COPY: &str = "full copy";
const PARAM: &str = "invalid command param";
const COMMANDS: [&str; 17] = [
    "PING", "ECHO", "ROLE", "INFO", "SLAVEOF", "CONFIG", "AUTH", "SELECT", "FULLSYNC", "SYNC",
    "REPLCONF", "SHUTDOWN", "GET", "SET", "DEL", "INCR", "EXISTS",
];

type Reply = Result<Vec<u8>, String>;

/// A client's end of a server.
struct Client {
    app: &'static App,
    host: String,
    db: u8,
    is_in: bool,
    /// As which it registered.
    slave: Option<String>,
}

/// Answers until the client goes.
pub(super) fn serve(app: &'static App, stream: TcpStream) {
    let host = stream.peer_addr().map(|addr| addr.ip().to_string()).unwrap_or_default();
    let is_in = app.settings.auth_password.is_empty();
    let mut client = Client { app, host, db: 0, is_in, slave: None };
    let mut connection = Connection::new(stream);
    app.clients.fetch_add(1, Ordering::SeqCst);
    while let Some(command) = connection.command() {
        let reply = match client.answer(&command) {
            Ok(reply) => reply,
            Err(error) => format!("-{error}\r\n").into_bytes(),
        };
        if connection.send(&reply).is_err() {
            break;
        }
    }
    app.clients.fetch_sub(1, Ordering::SeqCst);
    if let Some(slave) = client.slave {
        // By its address, whoever registered under it meanwhile.
        lock(&app.slaves).remove(&slave);
    }
}

impl Client {
    fn answer(&mut self, command: &[Vec<u8>]) -> Reply {
        let words: Vec<String> =
            command.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (name, args) = words.split_first().ok_or("command not found")?;
        let name = name.to_ascii_uppercase();
        if !COMMANDS.contains(&&*name) {
            return Err("command not found".to_owned());
        }
        if !self.is_in && name != "AUTH" {
            return Err("not authenticated".to_owned());
        }
        match (&*name, args) {
            ("PING", _) => ok("PONG"),
            ("ECHO", [text]) => Ok(bulk(text.as_bytes())),
            ("ROLE", []) => Ok(self.app.role()),
            ("INFO", []) => Ok(bulk(self.app.info(None).as_bytes())),
            ("INFO", [section]) => Ok(bulk(self.app.info(Some(section)).as_bytes())),
            ("SLAVEOF", args) => self.slaveof(args),
            ("CONFIG", args) => config(args),
            ("AUTH", [password]) => self.login(password),
            ("SELECT", [index]) => self.select(index),
            ("FULLSYNC", [] | [_]) => {
                // For tests that count them.
                eprintln!("{FULL_COPY} for {}", self.host);
                std::thread::sleep(self.app.settings.full_copy);
                Ok(bulk(&lock(&self.app.store).snapshot()))
            }
            ("SYNC", [id]) => self.sync(id),
            ("REPLCONF", ["listening-port", port]) => {
                let addr = format!("{}:{port}", self.host);
                lock(&self.app.slaves).insert(addr.clone(), 0);
                self.slave = Some(addr);
                ok("OK")
            }
            ("REPLCONF", _) => Err("syntax error".to_owned()),
            ("SHUTDOWN", _) => std::process::exit(0),
            ("GET", [_]) => {
                let store = lock(&self.app.store);
                let value = store.get(self.db, &command[1]);
                Ok(value.map_or_else(|| b"$-1\r\n".to_vec(), |value| bulk(value)))
            }
            ("EXISTS", [_]) => {
                number(i64::from(lock(&self.app.store).get(self.db, &command[1]).is_some()))
            }
            ("SET", [_, _]) => {
                self.write(&command[1], |_| Ok((Some(command[2].clone()), b"+OK\r\n".to_vec())))
            }
            ("DEL", [_]) => self.write(&command[1], |old| {
                Ok((None, format!(":{}\r\n", u8::from(old.is_some())).into_bytes()))
            }),
            ("INCR", [_]) => self.write(&command[1], |old| {
                let old = old.map_or("0".into(), |old| String::from_utf8_lossy(old));
                let old: i64 = old.parse().map_err(|_| parse_error(&old))?;
                Ok((Some((old + 1).to_string().into_bytes()), format!(":{}\r\n", old + 1).into()))
            }),
            (_, _) => Err(PARAM.to_owned()),
        }
    }

    fn slaveof(&self, args: &[&str]) -> Reply {
        let no_one =
            |a: &str, b: &str| a.eq_ignore_ascii_case("no") && b.eq_ignore_ascii_case("one");
        match args {
            [a, b, rest @ ..] if rest.len() < 2 && no_one(a, b) => {
                let readonly =
                    rest.first().is_some_and(|word| word.eq_ignore_ascii_case("readonly"));
                self.app.follow_nobody(readonly);
            }
            [_, port, ..] if args.len() <= 3 => {
                port.parse::<i16>().map_err(|_| parse_error(port))?;
                if !self.app.settings.rpl {
                    return Err("slaveof must enable replication".to_owned());
                }
                let restart = args.get(2).is_some_and(|word| word.eq_ignore_ascii_case("restart"));
                self.app.follow(&format!("{}:{port}", args[0]), restart);
            }
            _ => return Err(PARAM.to_owned()),
        }
        ok("OK")
    }

    fn login(&mut self, password: &str) -> Reply {
        let wanted = &self.app.settings.auth_password;
        if wanted.is_empty() || password != wanted {
            return Err("authentication failure".to_owned());
        }
        self.is_in = true;
        ok("OK")
    }

    fn select(&mut self, index: &str) -> Reply {
        let number: i64 = index.parse().map_err(|_| parse_error(index))?;
        let db = u8::try_from(number).ok().filter(|db| *db < DATABASES);
        let range = || format!("invalid db index {number}, must in [0, {}]", DATABASES - 1);
        self.db = db.ok_or_else(range)?;
        ok("OK")
    }

    fn sync(&self, id: &str) -> Reply {
        let id: u64 = id.parse().map_err(|_| parse_error(id))?;
        let app = self.app;
        let mut store = lock(&app.store);
        if let Some(slave) = &self.slave {
            lock(&app.slaves).insert(slave.clone(), id.saturating_sub(1));
        }
        if id > store.last_log_id + 1 {
            return Err(format!("invalid sync logid {id} > {} + 1", store.last_log_id));
        }
        if id == store.last_log_id + 1 {
            let waited =
                app.logged.wait_timeout_while(store, SYNC_WAIT, |store| store.last_log_id < id);
            store = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        if id < store.first_log_id {
            return Err(LOG_IS_GONE.to_owned());
        }
        let mut bytes = store.last_log_id.to_be_bytes().to_vec();
        bytes.extend(store.logs_from(id));
        Ok(bulk(&bytes))
    }

    fn write(
        &self,
        key: &[u8],
        change: impl FnOnce(Option<&Vec<u8>>) -> Result<(Option<Vec<u8>>, Vec<u8>), String>,
    ) -> Reply {
        let mut store = lock(&self.app.store);
        if self.app.is_readonly() {
            return Err("write not support in readonly mode".to_owned());
        }
        let (value, reply) = change(store.get(self.db, key))?;
        store.write(self.db, key, value);
        self.app.logged.notify_all();
        Ok(reply)
    }
}

fn config(args: &[&str]) -> Reply {
    let upper: Vec<String> = args.iter().map(|word| word.to_ascii_uppercase()).collect();
    match upper.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["GET", "DATABASES"] => Ok(b"*2\r\n$9\r\ndatabases\r\n$2\r\n16\r\n".to_vec()),
        ["GET", _] => Ok(b"*0\r\n".to_vec()),
        ["REWRITE"] => Err("Running without a config file".to_owned()),
        _ => Err(PARAM.to_owned()),
    }
}

fn parse_error(text: &str) -> String {
    let is_number =
        text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    let why = if is_number && !text.is_empty() { "value out of range" } else { "invalid syntax" };
    format!("strconv.ParseInt: parsing {text:?}: {why}")
}

fn ok(word: &str) -> Reply {
    Ok(format!("+{word}\r\n").into_bytes())
}

fn number(number: i64) -> Reply {
    Ok(format!(":{number}\r\n").into_bytes())
}
