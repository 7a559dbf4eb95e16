//! What a server says of itself.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::connection::bulk;
use super::{App, lock};

impl App {
    /// `INFO`, of one section or of all. A name that is none is repeated, and that is all.
    pub(super) fn info(&self, section: Option<&str>) -> String {
        let Some(section) = section else {
            let all = ["server", "store", "mem", "gc", "replication"];
            return all.map(|section| self.info(Some(section))).join("\r\n");
        };
        match section.to_ascii_lowercase().as_str() {
            "server" => self.server_info(),
            "replication" => self.replication_info(),
            "store" => "# Store\r\nname:goleveldb\r\n".to_owned(),
            "mem" => "# Mem\r\nmem_alloc:0M\r\n".to_owned(),
            "gc" => "# GC\r\ngc_num:0\r\n".to_owned(),
            other => format!("# {other}\r\n"),
        }
    }

    fn server_info(&self) -> String {
        format!(
            "# Server\r\nos:linux\r\nprocess_id:{}\r\naddr:{}\r\nhttp_addr:\r\nreadonly:{}\r\ngoroutine_num:18\r\n\
             cgo_call_num:1\r\nresp_client_num:{}\r\nledisdb_version:0.5\r\n",
            std::process::id(),
            self.settings.addr,
            self.is_readonly(),
            self.clients.load(Ordering::SeqCst)
        )
    }

    fn replication_info(&self) -> String {
        let following = lock(&self.following);
        let slaves: Vec<String> = lock(&self.slaves).keys().cloned().collect();
        let store = lock(&self.store);
        let role = if following.is_some() { "slave" } else { "master" };
        let slaveof = following.as_ref().map_or("", |following| &following.master);
        let mut text = format!(
            "# Replication\r\nrole:{role}\r\npub_log_num:0\r\npub_log_ack_per_time:0\r\nslaveof:{slaveof}\r\n"
        );
        if !slaves.is_empty() {
            let _ = write!(text, "slaves:{}\r\n", slaves.join(","));
        }
        let _ = write!(
            text,
            "last_log_id:{}\r\nfirst_log_id:{}\r\ncommit_log_id:{}\r\nmaster_last_log_id:{}\r\n",
            store.last_log_id,
            store.first_log_id,
            store.commit_log_id,
            lock(&self.master_last_log_id)
        );
        if let Some(following) = &*following {
            let link = if following.state() == "connect" { "down" } else { "up" };
            let _ = write!(
                text,
                "master_link_status:{link}\r\nslave_priority:100\r\nslave_repl_offset:{}\r\n",
                store.position()
            );
        }
        text
    }

    /// `ROLE`, whose ports are read as signed numbers of 16 bits, and whose offset is the last log id alone.
    pub(super) fn role(&self) -> Vec<u8> {
        let following = lock(&self.following);
        let last = lock(&self.store).last_log_id;
        let mut reply = Vec::new();
        let Some(following) = &*following else {
            let slaves = lock(&self.slaves);
            let _ = write_to(
                &mut reply,
                &format!("*3\r\n$6\r\nmaster\r\n:{last}\r\n*{}\r\n", slaves.len()),
            );
            for (addr, acknowledged) in slaves.iter() {
                let (host, port) = readable(addr);
                let acknowledged = if port == 0 { 0 } else { *acknowledged };
                reply.extend(b"*3\r\n");
                for part in [host, &port.to_string(), &acknowledged.to_string()] {
                    reply.extend(bulk(part.as_bytes()));
                }
            }
            return reply;
        };
        let (host, port) = readable(&following.master);
        reply.extend(b"*5\r\n$5\r\nslave\r\n");
        reply.extend(bulk(host.as_bytes()));
        let _ = write_to(&mut reply, &format!(":{port}\r\n"));
        reply.extend(bulk(following.state().as_bytes()));
        let _ = write_to(&mut reply, &format!(":{last}\r\n"));
        reply
    }
}

fn write_to(reply: &mut Vec<u8>, text: &str) -> std::io::Result<()> {
    std::io::Write::write_all(reply, text.as_bytes())
}

/// Host and port, or nothing where the port is too large to be read.
fn readable(addr: &str) -> (&str, i16) {
    let parts = addr.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parts.unwrap_or(("", 0))
}
