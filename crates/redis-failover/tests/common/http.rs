//! An HTTP/1.1 client of the size that the tests need: one kept connection, deadlines, no magic.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A switchover may take its whole time-out of 5 s before it answers.
const REPLY_LIMIT: Duration = Duration::from_secs(15);
const BODY_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// The body as JSON, `null` when it is none.
    pub json: Value,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// `error.code` of the program's error shape.
    pub fn error_code(&self) -> Option<&str> {
        self.json["error"]["code"].as_str()
    }
}

#[derive(Debug)]
pub struct Client {
    addr: SocketAddr,
    limit: Duration,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, limit: REPLY_LIMIT, connection: None }
    }

    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends `body` as JSON when it looks like JSON, else as a form.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        let kept = self.connection.is_some();
        match self.attempt(method, path, body) {
            // A server may close an idle connection at any time: that is no answer.
            Err(_) if kept && method == "GET" => self.attempt(method, path, body),
            answer => answer,
        }
    }

    fn attempt(&mut self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        // Taken, and put back only after a whole answer: a half-read connection is not used again.
        // A change gets a fresh one: it must not be lost to a connection that was just closed.
        let kept = self.connection.take().filter(|_| method == "GET");
        let mut connection = kept.map_or_else(|| self.connect(), Ok)?;
        let kind = if body.starts_with(['{', '[']) {
            "application/json"
        } else {
            "application/x-www-form-urlencoded"
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.addr);
        if !body.is_empty() || method != "GET" {
            let length = body.len();
            request += &format!("content-type: {kind}\r\ncontent-length: {length}\r\n");
        }
        request += "\r\n";
        request += body;
        connection.get_mut().write_all(request.as_bytes())?;
        let response = read_response(&mut connection)?;
        if response.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.addr, self.limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.limit))?;
        stream.set_write_timeout(Some(self.limit))?;
        Ok(BufReader::new(stream))
    }
}

fn read_response(input: &mut BufReader<TcpStream>) -> io::Result<Response> {
    let status_line = read_line(input)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad(&format!("not HTTP: {status_line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(input)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header without a colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let find = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, v)| v);
    let body = if find("transfer-encoding").is_some_and(|v| v == "chunked") {
        read_chunks(input)?
    } else if let Some(length) = find("content-length") {
        read_exactly(input, length.parse().map_err(|_| bad("a length that is no number"))?)?
    } else {
        Vec::new()
    };
    let body = String::from_utf8(body).map_err(|_| bad("a body that is not UTF-8"))?;
    let json = serde_json::from_str(&body).unwrap_or(Value::Null);
    Ok(Response { status, headers, body, json })
}

fn read_chunks(input: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(input)?;
        let size = usize::from_str_radix(&line, 16).map_err(|_| bad("a bad chunk size"))?;
        body.extend(read_exactly(input, size)?);
        if !read_line(input)?.is_empty() {
            return Err(bad("a chunk longer than it says"));
        }
        if size == 0 {
            return Ok(body);
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(bad("a body without end"));
        }
    }
}

fn read_exactly(input: &mut BufReader<TcpStream>, length: usize) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(bad("a body without end"));
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(body)
}

fn read_line(input: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    input.take(64 << 10).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended")),
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
