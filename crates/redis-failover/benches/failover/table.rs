//! The rows of the benchmark: figures, what they have to be, and what the peers do.

use std::path::Path;

use serde_json::json;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
    pub(crate) target: Target,
    /// The same figure of others, as it was measured elsewhere.
    pub(crate) peer: &'static str,
    /// The same figure of Sentinel in this run, on this machine; none where it does nothing of the kind.
    pub(crate) sentinel: Vec<f64>,
}

/// What the figures have to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Shown for its own sake.
    None,
    MedianBelow(f64),
    MedianAtMost(f64),
    /// Both at most.
    MedianAndMax(f64, f64),
    /// Every run.
    MaxBelow(f64),
    MaxAtMost(f64),
    /// Every run, and not less either.
    Always(f64),
}

impl Target {
    fn is_met(self, ours: Figures) -> Option<bool> {
        match self {
            Self::None => None,
            Self::MedianBelow(limit) => Some(ours.median < limit),
            Self::MedianAtMost(limit) => Some(ours.median <= limit),
            Self::MedianAndMax(median, max) => Some(ours.median <= median && ours.max <= max),
            Self::MaxBelow(limit) => Some(ours.max < limit),
            Self::MaxAtMost(limit) => Some(ours.max <= limit),
            Self::Always(value) => Some(ours.min >= value && ours.max <= value),
        }
    }

    fn words(self) -> String {
        match self {
            Self::None => String::new(),
            Self::MedianBelow(limit) => format!("median < {limit}"),
            Self::MedianAtMost(limit) => format!("median <= {limit}"),
            Self::MedianAndMax(median, max) => format!("median <= {median}, max <= {max}"),
            Self::MaxBelow(limit) => format!("max < {limit}"),
            Self::MaxAtMost(limit) => format!("max <= {limit}"),
            Self::Always(value) => format!("always {value}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Figures {
    runs: usize,
    min: f64,
    median: f64,
    max: f64,
}

impl Figures {
    /// None of no runs.
    fn of(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let (runs, middle) = (values.len(), values.len() / 2);
        let median = match runs {
            0 => return None,
            _ if runs % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { runs, min: values[0], median, max: values[runs - 1] })
    }
}

impl Row {
    /// With what Sentinel did.
    pub(crate) fn beside(mut self, sentinel: Vec<f64>) -> Self {
        self.sentinel = sentinel;
        self
    }

    fn figures(&self) -> (Figures, Option<Figures>) {
        let ours = Figures::of(&self.values);
        let ours = ours.unwrap_or_else(|| panic!("{} has at least one run", self.name));
        (ours, Figures::of(&self.sentinel))
    }

    /// How many times Sentinel's median is ours; nothing can be said of it beside a zero.
    fn ratio(&self) -> Option<f64> {
        let (ours, sentinel) = self.figures();
        sentinel.map(|peer| peer.median / ours.median).filter(|ratio| ratio.is_finite())
    }
}

const HEAD: [&str; 12] = [
    "", "unit", "runs", "median", "worst", "Sentinel", "median", "worst", "ratio", "target", "",
    "others",
];

pub(crate) fn print(rows: &[Row]) {
    let mut cells = vec![HEAD.map(str::to_owned)];
    for row in rows {
        let (ours, sentinel) = row.figures();
        let verdict = match row.target.is_met(ours) {
            None => "",
            Some(true) => "ok",
            Some(false) => "MISSED",
        };
        let peer = |figure: fn(Figures) -> String| sentinel.map(figure).unwrap_or_default();
        cells.push([
            row.name.clone(),
            row.unit.to_owned(),
            ours.runs.to_string(),
            format!("{:.1}", ours.median),
            format!("{:.1}", ours.max),
            peer(|figures| figures.runs.to_string()),
            peer(|figures| format!("{:.1}", figures.median)),
            peer(|figures| format!("{:.1}", figures.max)),
            row.ratio().map(|ratio| format!("{ratio:.1}")).unwrap_or_default(),
            row.target.words(),
            verdict.to_owned(),
            row.peer.to_owned(),
        ]);
    }
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| cells.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    println!();
    for line in cells {
        let is_number = |column: usize| (2..9).contains(&column);
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
            let (ours, sentinel) = row.figures();
            json!({
                "name": row.name,
                "unit": row.unit,
                "runs": ours.runs,
                "min": ours.min,
                "median": ours.median,
                "max": ours.max,
                "target": row.target.words(),
                "peer": row.peer,
                "ok": row.target.is_met(ours),
                "values": row.values,
                "ratio": row.ratio(),
                "sentinel": sentinel.map(|peer| json!({
                    "runs": peer.runs,
                    "min": peer.min,
                    "median": peer.median,
                    "max": peer.max,
                    "values": row.sentinel,
                })),
            })
        })
        .collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::create_dir_all(&dir).expect("the workspace is writable");
    let text = serde_json::to_string_pretty(&list).expect("figures can be written as JSON");
    std::fs::write(dir.join("bench.json"), text + "\n").expect("the workspace is writable");
}
