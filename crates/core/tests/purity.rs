//! What this crate must not depend on, and what no file of the repository may have in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Everything that the core is built from. A new name here is a decision: none of them may open a socket, read a clock
/// that decides something, or draw a random number.
const BUILT_FROM: [&str; 10] = [
    "failover-core",
    // Writes a time as people read it.
    "jiff",
    "jiff-core",
    // The record and the journal are data, and these make its code.
    "serde",
    "serde_core",
    "serde_derive",
    "proc-macro2",
    "quote",
    "syn",
    "unicode-ident",
];

/// Lines of a file of `src` without its tests.
const LINES_MAX: usize = 500;
/// Files above it, with a bound of their own until they are divided.
const LONG: [(&str, usize); 3] = [
    ("crates/core/src/group.rs", 600),
    ("crates/core/src/watch.rs", 600),
    ("crates/sim/src/world.rs", 550),
];

#[test]
fn the_core_is_built_from_no_runtime() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", "failover-core", "-e", "normal,build", "--prefix", "none"])
        .args(["--offline", "--locked", "-f", "{p}"])
        .current_dir(ROOT)
        .output()
        .expect("cargo runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    let names: BTreeSet<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains("failover-core"), "{tree}");
    for name in names {
        assert!(BUILT_FROM.contains(&name), "the core depends on {name}:\n{tree}");
    }
}

#[test]
fn the_core_reads_no_clock_and_has_no_mutex() {
    for file in files().filter(|file| file.starts_with(Path::new(ROOT).join("crates/core/src"))) {
        let text = read(&file);
        let banned = [
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "std::fs",
            "std::thread",
            "std::sync::Mutex",
            "async fn",
        ];
        for word in banned.into_iter().chain(["Instant::now", "SystemTime::now", "HashMap"]) {
            assert!(!text.contains(word), "{} has {word}", file.display());
        }
    }
}

#[test]
fn nothing_is_left_lying_about() {
    let banned =
        [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X"), concat!("HA", "CK")];
    let macros = [concat!("dbg", "!("), concat!("todo", "!("), concat!("unimplemented", "!(")];
    for file in files() {
        for (number, line) in (1..).zip(read(&file).lines()) {
            let place = format!("{}:{number}", file.display());
            let words = line.split(|c: char| !c.is_alphanumeric());
            let left = words.filter(|word| banned.contains(word)).count();
            assert_eq!(left, 0, "{place}: {line}");
            assert!(!macros.iter().any(|name| line.contains(name)), "{place}: {line}");
            assert_eq!(line, line.trim_end(), "{place} ends with a space");
        }
    }
}

#[test]
fn files_stay_short() {
    for file in files() {
        let name = file.strip_prefix(ROOT).expect("it is below the root").display().to_string();
        if !name.contains("/src/") || name.ends_with("tests.rs") || name.contains("/tests/") {
            continue;
        }
        let text = read(&file);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().count();
        let max = LONG.iter().find(|(long, _)| *long == name).map_or(LINES_MAX, |(_, max)| *max);
        assert!(
            lines <= max,
            "{name} has {lines} lines without tests, but may have {max}: divide it"
        );
    }
}

/// Every text that we write by hand.
fn files() -> impl Iterator<Item = PathBuf> {
    let mut found = Vec::new();
    for name in
        ["crates", "scripts", "etc", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "Makefile"]
    {
        collect(&Path::new(ROOT).join(name), &mut found);
    }
    assert!(found.len() > 50, "only {found:?}");
    found.into_iter()
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    let is_ours = |path: &Path| {
        let kind = path.extension().unwrap_or_default();
        ["rs", "toml", "sh", "md"].iter().any(|ours| kind == *ours) || path.ends_with("Makefile")
    };
    if path.is_dir() {
        // What servers said is kept as they said it.
        if path.ends_with("fixtures") || path.ends_with("target") {
            return;
        }
        let entries = fs::read_dir(path).expect("a directory of the repository");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        paths.sort();
        for path in paths {
            collect(&path, found);
        }
    } else if is_ours(path) {
        found.push(path.to_owned());
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
