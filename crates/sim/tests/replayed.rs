//! Runs that once hurt an invariant, with what must come of them now. `BLESS=1` writes what does.

use std::path::PathBuf;

use failover_sim::scenario::Scenario;

fn files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn what_was_found_once_is_mended_and_stays_so() {
    let files = files();
    assert!(files.len() >= 4);
    let bless = std::env::var_os("BLESS").is_some();
    for file in files {
        let name = file.display();
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let mut scenario = Scenario::parse(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(!scenario.about.is_empty(), "{name} does not say why it is here");
        let outcome = scenario.run(false);
        assert_eq!(outcome.violation, None, "{name}");
        if bless {
            scenario.trace = outcome.trace;
            std::fs::write(&file, scenario.print()).expect("it can be written");
        } else {
            assert_eq!(outcome.trace, scenario.trace, "{name}: another trace; is it a better one?");
        }
    }
}
