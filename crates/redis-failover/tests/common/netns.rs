//! Hosts that can really be cut off from each other: network namespaces, from iproute2, as root.
//!
//! Each host is a namespace with one address, wired to a router, which is one more namespace. This
//! process is wired to the router, too, and reaches every host whatever is cut between them.
//!
//! A cut is a rule of the router that throws packets of one pair of addresses away without a word,
//! as a dead cable does: connections stay open and silent, and nobody is refused. (A route of the
//! sender's own would be an error of its `connect`, and bridges filter with what is not part of
//! iproute2.)
//!
//! Namespaces and links are named `rf-PID-NET…` and `rfPIDnNET`: what a killed test process left
//! behind is removed by the next one that starts a network.

use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use super::child;
use super::ports::lock_one;

/// The first two bytes of every address: of the range that RFC 2544 keeps for tests.
const PREFIX: [u8; 2] = [198, 18];
/// How many networks there can be at the same time; each has a third byte of its own.
const NETWORKS: u16 = 250;
/// Each link has four addresses: the router's end is the second, the host's end the third.
const HOSTS_MAX: usize = 60;

/// One host of a [`Network`]: where a server or the program is to be started.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: String,
    ip: Ipv4Addr,
}

impl Host {
    pub fn ip(&self) -> String {
        self.ip.to_string()
    }

    /// A command that runs in this host's network. The process is the program itself: its number
    /// is the one that is started.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = child::command("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }
}

/// Hosts and the router between them, removed when the value is dropped.
#[derive(Debug)]
pub struct Network {
    names: Names,
    hosts: Vec<Host>,
    /// Held open: the lock on the number is on the open file.
    _lock: File,
}

impl Network {
    /// `None`, said loudly, where this user cannot make namespaces: without root, or without `ip`.
    ///
    /// # Panics
    /// In that case where `CI` is set, where nothing is left out.
    pub fn start(hosts: usize) -> Option<Self> {
        if let Some(lack) = lack() {
            assert!(std::env::var_os("CI").is_none(), "network namespaces are missing: {lack}");
            eprintln!("SKIPPED, because network namespaces are missing: {lack}");
            return None;
        }
        assert!(hosts <= HOSTS_MAX, "the addresses of a network are a byte wide");
        let (net, lock) = lock_one("nets", NETWORKS).expect("a network is free on this machine");
        let names = Names { pid: std::process::id(), net };
        sweep(net);
        // From here on dropping the value removes what is there.
        let mut network = Self { names, hosts: Vec::new(), _lock: lock };
        network.add_router();
        network.add_ourselves();
        for number in 1..=hosts {
            network.add_host(number);
        }
        Some(network)
    }

    /// With what the names of its namespaces begin.
    pub fn mark(&self) -> String {
        format!("rf-{}-{}-", self.names.pid, self.names.net)
    }

    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    /// The address under which every host reaches this process.
    pub fn ours(&self) -> String {
        self.address(0, 2).to_string()
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// From now on nothing passes between the two, in either direction.
    pub fn cut(&self, one: &Host, other: &Host) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    pub fn heal(&self, one: &Host, other: &Host) {
        self.heal_one_way(one, other);
        self.heal_one_way(other, one);
    }

    /// What `from` sends does not reach `to`; the other direction is left as it is.
    pub fn cut_one_way(&self, from: &Host, to: &Host) {
        self.rule("add", from, to);
    }

    pub fn heal_one_way(&self, from: &Host, to: &Host) {
        self.rule("del", from, to);
    }

    /// Cuts every host of one side from every host of the other.
    pub fn split(&self, one_side: &[&Host], other_side: &[&Host]) {
        self.each_pair(one_side, other_side, Self::cut);
    }

    /// Takes a [`split`](Self::split) back.
    pub fn join(&self, one_side: &[&Host], other_side: &[&Host]) {
        self.each_pair(one_side, other_side, Self::heal);
    }

    fn each_pair(
        &self,
        one_side: &[&Host],
        other_side: &[&Host],
        act: impl Fn(&Self, &Host, &Host),
    ) {
        for one in one_side {
            for other in other_side {
                act(self, one, other);
            }
        }
    }

    fn rule(&self, verb: &str, from: &Host, to: &Host) {
        let (from, to) = (from.ip(), to.ip());
        let router = self.names.router();
        ip(&["-n", &router, "rule", verb, "from", &from, "to", &to, "blackhole"]);
    }

    fn add_router(&self) {
        let router = self.names.router();
        ip(&["netns", "add", &router]);
        // Without the filter by sender, which would turn a cut of one direction into one of both.
        let settings = "cd /proc/sys/net/ipv4 && echo 1 >ip_forward \
                        && echo 0 >conf/all/rp_filter && echo 0 >conf/default/rp_filter";
        ip(&["netns", "exec", &router, "sh", "-c", settings]);
        ip(&["-n", &router, "link", "set", "lo", "up"]);
    }

    /// The link to this process: number 0, and the way to all others.
    fn add_ourselves(&self) {
        let (link, router) = (self.names.link(), self.names.router());
        ip(&["link", "add", "r0", "netns", &router, "type", "veth", "peer", "name", &link]);
        self.set_up_router_end(0);
        let ours = format!("{}/30", self.address(0, 2));
        ip(&["addr", "add", &ours, "dev", &link]);
        ip(&["link", "set", &link, "up"]);
        let all = format!("{}/24", self.address(0, 0));
        ip(&["route", "add", &all, "via", &self.address(0, 1).to_string()]);
    }

    fn add_host(&mut self, number: usize) {
        let (namespace, router) = (self.names.host(number), self.names.router());
        let end = format!("r{number}");
        ip(&["netns", "add", &namespace]);
        ip(&[
            "link", "add", &end, "netns", &router, "type", "veth", "peer", "name", "eth0", "netns",
            &namespace,
        ]);
        self.set_up_router_end(number);
        let host = Host { namespace, ip: self.address(number, 2) };
        let inside = |args: &[&str]| ip(&[&["-n", &*host.namespace], args].concat());
        inside(&["addr", "add", &format!("{}/30", host.ip), "dev", "eth0"]);
        inside(&["link", "set", "eth0", "up"]);
        inside(&["link", "set", "lo", "up"]);
        inside(&["route", "add", "default", "via", &self.address(number, 1).to_string()]);
        self.hosts.push(host);
    }

    fn set_up_router_end(&self, number: usize) {
        let (router, end) = (self.names.router(), format!("r{number}"));
        let addr = format!("{}/30", self.address(number, 1));
        ip(&["-n", &router, "addr", "add", &addr, "dev", &end]);
        ip(&["-n", &router, "link", "set", &end, "up"]);
    }

    fn address(&self, link: usize, end: usize) -> Ipv4Addr {
        let byte = |n: usize| u8::try_from(n).expect("checked when the network was started");
        let net = u8::try_from(self.names.net).expect("at most NETWORKS");
        Ipv4Addr::new(PREFIX[0], PREFIX[1], net, byte(4 * link + end))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The link first: it goes at once, and with it the route. A namespace goes with its last
        // process. What fails here is swept later; a panic would hide the first one.
        let _ = try_ip(&["link", "del", &self.names.link()]);
        for host in &self.hosts {
            let _ = try_ip(&["netns", "del", &host.namespace]);
        }
        let _ = try_ip(&["netns", "del", &self.names.router()]);
    }
}

/// What everything of one network is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Names {
    pid: u32,
    net: u16,
}

impl Names {
    fn router(self) -> String {
        format!("rf-{}-{}-router", self.pid, self.net)
    }

    fn host(self, number: usize) -> String {
        format!("rf-{}-{}-h{number}", self.pid, self.net)
    }

    /// A link's name has at most 15 characters.
    fn link(self) -> String {
        format!("rf{}n{}", self.pid, self.net)
    }

    /// Whose a namespace or a link is, if it is of this rig.
    fn of(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("rf")?;
        let (pid, net) = match rest.strip_prefix('-') {
            Some(rest) => {
                let mut parts = rest.splitn(3, '-');
                (parts.next()?, parts.next()?)
            }
            None => rest.split_once('n')?,
        };
        Some(Self { pid: pid.parse().ok()?, net: net.parse().ok()? })
    }

    /// Its process has ended; or it has our number, on which we hold the lock.
    fn is_left_over(self, ours: u16) -> bool {
        self.net == ours || !Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

/// Removes what ended test processes left behind.
fn sweep(ours: u16) {
    for (dir, remove) in [("/sys/class/net", "link"), ("/run/netns", "netns")] {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            if Names::of(&name).is_some_and(|names| names.is_left_over(ours)) {
                // Another process may be sweeping, too.
                let _ = try_ip(&[remove, "del", &name]);
            }
        }
    }
}

/// Why there can be no namespaces here.
fn lack() -> Option<String> {
    if !rustix::process::getuid().is_root() {
        return Some("this is not root".to_owned());
    }
    let found = Command::new("ip").arg("-V").output();
    found.err().map(|error| format!("ip: {error} (scripts/install-deps.sh iproute2)"))
}

#[track_caller]
fn ip(args: &[&str]) {
    if let Err(error) = try_ip(args) {
        panic!("ip {}: {error}", args.join(" "));
    }
}

fn try_ip(args: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(args).output().map_err(|error| error.to_string())?;
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
    }
}
