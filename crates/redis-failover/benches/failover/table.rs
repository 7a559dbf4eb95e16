//! The rows of the benchmark: figures, what they have to be, and what the peers do.

use std::path::Path;

use serde_json::json;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
    pub(crate) target: Target,
    /// The same figure of others.
    pub(crate) peer: &'static str,
}

/// What the figures have to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Shown for its own sake.
    None,
    MedianBelow(f64),
    /// Every run.
    MaxBelow(f64),
    MaxAtMost(f64),
}

impl Target {
    fn is_met(self, row: &Row) -> Option<bool> {
        match self {
            Self::None => None,
            Self::MedianBelow(limit) => Some(row.median() < limit),
            Self::MaxBelow(limit) => Some(row.max() < limit),
            Self::MaxAtMost(limit) => Some(row.max() <= limit),
        }
    }

    fn words(self) -> String {
        match self {
            Self::None => String::new(),
            Self::MedianBelow(limit) => format!("median < {limit}"),
            Self::MaxBelow(limit) => format!("max < {limit}"),
            Self::MaxAtMost(limit) => format!("max <= {limit}"),
        }
    }
}

impl Row {
    fn sorted(&self) -> Vec<f64> {
        assert!(!self.values.is_empty(), "{} has at least one run", self.name);
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    fn min(&self) -> f64 {
        self.sorted()[0]
    }

    fn max(&self) -> f64 {
        self.sorted()[self.values.len() - 1]
    }

    fn median(&self) -> f64 {
        let values = self.sorted();
        let middle = values.len() / 2;
        if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        }
    }
}

pub(crate) fn print(rows: &[Row]) {
    let head = ["", "unit", "runs", "min", "median", "max", "target", "", "peers"];
    let mut cells = vec![head.map(str::to_owned)];
    for row in rows {
        let verdict = match row.target.is_met(row) {
            None => "",
            Some(true) => "ok",
            Some(false) => "MISSED",
        };
        cells.push([
            row.name.clone(),
            row.unit.to_owned(),
            row.values.len().to_string(),
            format!("{:.1}", row.min()),
            format!("{:.1}", row.median()),
            format!("{:.1}", row.max()),
            row.target.words(),
            verdict.to_owned(),
            row.peer.to_owned(),
        ]);
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|column| cells.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    println!();
    for line in cells {
        let is_number = |column: usize| (2..6).contains(&column);
        let padded = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if is_number(column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// Writes `target/bench.json` of the workspace, wherever Cargo builds.
pub(crate) fn write_json(rows: &[Row]) {
    let list: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name,
                "unit": row.unit,
                "runs": row.values.len(),
                "min": row.min(),
                "median": row.median(),
                "max": row.max(),
                "target": row.target.words(),
                "peer": row.peer,
                "ok": row.target.is_met(row),
                "values": row.values,
            })
        })
        .collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::create_dir_all(&dir).expect("the workspace is writable");
    let text = serde_json::to_string_pretty(&list).expect("figures can be written as JSON");
    std::fs::write(dir.join("bench.json"), text + "\n").expect("the workspace is writable");
}
