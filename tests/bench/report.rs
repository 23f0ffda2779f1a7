//! Printing a measure and keeping its samples.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use gantry_tests::paths;

/// The file with the raw samples of one suite: one JSON object for each measure.
pub(crate) struct Report {
    path: PathBuf,
    file: File,
}

impl Report {
    /// Starts the file anew.
    pub(crate) fn create(suite: &str) -> Result<Self> {
        let directory = paths::repository().join("tests/out/bench");
        std::fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{suite}.jsonl"));
        Ok(Self {
            file: File::create(&path).with_context(|| format!("create {}", path.display()))?,
            path,
        })
    }

    /// Prints the median of the samples, after keeping them all.
    pub(crate) fn measure(&mut self, name: &str, unit: &str, samples: &[f64]) -> Result<()> {
        let line = serde_json::json!({ "name": name, "unit": unit, "statistic": "median", "samples": samples });
        writeln!(self.file, "{line}")?;
        println!("BENCH {name} {} {unit}", shown(median(samples).context("no samples")?));
        Ok(())
    }

    /// Prints one value that is no median.
    pub(crate) fn single(&mut self, name: &str, unit: &str, statistic: &str, value: f64) -> Result<()> {
        let line = serde_json::json!({ "name": name, "unit": unit, "statistic": statistic, "samples": [value] });
        writeln!(self.file, "{line}")?;
        println!("BENCH {name} {} {unit}", shown(value));
        Ok(())
    }

    /// Prints the ratio of two medians, after keeping the ratio of each pair: rounds are interleaved.
    pub(crate) fn ratio(&mut self, name: &str, ours: &[f64], theirs: &[f64]) -> Result<()> {
        let pairs: Vec<f64> = ours.iter().zip(theirs).map(|(mine, other)| mine / other).collect();
        let line = serde_json::json!({ "name": name, "unit": "x", "statistic": "ratio of medians", "samples": pairs });
        writeln!(self.file, "{line}")?;
        let (mine, other) = (
            median(ours).context("no samples")?,
            median(theirs).context("no samples")?,
        );
        println!("BENCH {name} {:.2} x", mine / other);
        Ok(())
    }

    /// Says where the samples are.
    pub(crate) fn finish(self) {
        println!("samples: {}", self.path.display());
    }
}

/// Three digits that say something.
fn shown(value: f64) -> String {
    let decimals = match value.abs() {
        below if below < 10.0 => 2,
        below if below < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// The value that so many percent of the samples do not exceed.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get((sorted.len() * percent).div_ceil(100).saturating_sub(1))
        .copied()
}

pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(sorted[middle - 1], upper)
    })
}
