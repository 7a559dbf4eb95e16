//! The protocol, as far as it is needed: commands as arrays of texts, and replies.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

#[derive(Debug)]
pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Without it replies come late, and no test fails for that.
        let _ = stream.set_nodelay(true);
        Self(BufReader::new(stream))
    }

    pub(super) fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// The next command; `None` when there is none any more, or it is no array: then the connection is to be closed.
    pub(super) fn command(&mut self) -> Option<Vec<Vec<u8>>> {
        let count = self.line().ok()?;
        let count: usize = count.strip_prefix('*')?.parse().ok()?;
        (0..count).map(|_| self.bulk().ok()).collect()
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Sends a command, and gives the bytes of a bulk or the text of a line.
    pub(super) fn ask(&mut self, words: &[&str]) -> io::Result<Vec<u8>> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.send(request.as_bytes())?;
        if self.0.fill_buf()?.first() == Some(&b'$') {
            return self.bulk();
        }
        let line = self.line()?;
        match line.strip_prefix('-') {
            Some(error) => Err(io::Error::other(error.to_owned())),
            None => Ok(line.into_bytes()),
        }
    }

    fn bulk(&mut self) -> io::Result<Vec<u8>> {
        let size = self.line()?;
        let size = size.strip_prefix('$').and_then(|size| size.parse::<usize>().ok());
        let mut bytes = vec![0; size.ok_or_else(unreadable)? + 2];
        self.0.read_exact(&mut bytes)?;
        bytes.truncate(bytes.len() - 2);
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(unreadable)
    }
}

fn unreadable() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

pub(super) fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}
