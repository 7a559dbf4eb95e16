//! The least that the same probes can cost: one thread, one `epoll`, and nothing made of the answers.
//!
//! It asks what the program asks, `PING` and `INFO replication` in one write, as often as the program does (a replica half
//! as often as a master), in as many batches, and throws the answers away. A process of its own, so that its processor time
//! can be read like the program's.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::common::child::{Owned, command};
use crate::common::now;
use crate::fake::Fleet;

/// Has how often a master is asked, in milliseconds; the instances come from its standard input.
const PROCESS: &str = "BENCH_BARE_LOOP";
/// Batches in one such interval.
const BATCHES: usize = 20;
const QUESTION: &[u8] = b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";

/// Starts to ask these servers.
pub(crate) fn start(fleet: &Fleet, interval: Duration) -> Owned {
    let myself = std::env::current_exe().expect("the program has a path");
    let mut command = command(myself);
    command.env(PROCESS, interval.as_millis().to_string());
    command.stdin(std::process::Stdio::piped());
    let mut process = Owned::start(command).expect("this program can be started again");
    let list: Vec<String> = fleet.instances().map(|addr| addr.to_string()).collect();
    let mut input = process.child().stdin.take().expect("it is piped");
    input.write_all(list.join("\n").as_bytes()).expect("it reads");
    process
}

/// Asks until it is killed, when this process was started for that.
pub(crate) fn probe_if_told() {
    let Ok(interval) = std::env::var(PROCESS) else { return };
    let interval = Duration::from_millis(interval.parse().expect("a number"));
    let list = std::io::read_to_string(std::io::stdin()).expect("it is text");
    let addrs = list.lines().map(|line| line.parse::<SocketAddr>().expect("an address"));
    let streams: Vec<TcpStream> = addrs
        .map(|addr| TcpStream::connect(addr).expect("the servers listen"))
        .inspect(|stream| stream.set_nonblocking(true).expect("a socket can be made so"))
        .collect();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll is there");
    for (number, stream) in (0..).zip(&streams) {
        let data = epoll::EventData::new_u64(number);
        epoll::add(&poll, stream, data, epoll::EventFlags::IN).expect("it can be watched");
    }
    ask(&poll, &streams, interval / u32::try_from(BATCHES).expect("a few"))
}

fn ask(poll: &OwnedFd, streams: &[TcpStream], tick: Duration) -> ! {
    let mut buffer = vec![0; 64 << 10];
    let mut events = Vec::with_capacity(1024);
    let mut next = now();
    for batch in 0.. {
        next += tick;
        for (number, mut stream) in streams.iter().enumerate() {
            let rounds = if number % 2 == 0 { BATCHES } else { 2 * BATCHES };
            if number / 2 % rounds == batch % rounds {
                stream.write_all(QUESTION).expect("the server reads");
            }
        }
        loop {
            let left = next.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            let left = Timespec::try_from(left).expect("below a second");
            events.clear();
            // An interruption is as good as a time-out.
            let _ = epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), Some(&left));
            for event in &events {
                let number = usize::try_from(event.data.u64()).expect("it was one");
                let mut stream = &streams[number];
                let _ = stream.read(&mut buffer);
            }
        }
    }
    unreachable!("there is always another batch")
}
