//! Many seeds on few threads, and what they add up to.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gantry_journal::{BlobStore, SegmentStore};

use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::host::SimHost;
use crate::oracle::{Broken, broken};
use crate::server::Stores;
use crate::world::World;

/// Of every so many seeds one is run twice: the same seed is the same run.
const TWICE: u64 = 500;
/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    first: u64,
    seeds: u64,
    events: u64,
    threads: usize,
    trace: bool,
    /// Broken seeds that are enough to stop.
    stop_at: usize,
    /// Do not ask for every edge: too few seeds, or a build that is broken on purpose.
    any_coverage: bool,
}

fn number(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("`{text}` is not a number"))
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            first: 1,
            seeds: 20_000,
            events: 500,
            threads: 2,
            trace: false,
            stop_at: 3,
            any_coverage: false,
        };
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--trace" => options.trace = true,
                "--any-coverage" => options.any_coverage = true,
                _ => {
                    let value = number(&arguments.next().with_context(|| format!("{name} needs a value"))?)?;
                    match name.as_str() {
                        "--seed" => {
                            (options.first, options.seeds, options.threads, options.any_coverage) = (value, 1, 1, true)
                        }
                        "--seeds" => options.seeds = value,
                        "--first" => options.first = value,
                        "--events" => options.events = value,
                        "--broken" => options.stop_at = usize::try_from(value)?.max(1),
                        "--threads" => options.threads = usize::try_from(value)?.max(1),
                        _ => bail!("unknown option {name}"),
                    }
                }
            }
        }
        Ok(options)
    }
}

/// What a run came to.
struct Outcome {
    digest: u64,
    events: u64,
    records: u64,
    batches: u64,
    processes: u64,
    virtual_ms: u64,
    coverage: Coverage,
    broken: Option<Broken>,
}

fn one(seed: u64, options: &Options, stores: &Stores) -> Result<Outcome> {
    let dice = Dice::new(seed);
    let host = SimHost::new(dice.clone());
    gantry_journal::host::simulate(Some(host.clone() as Rc<dyn gantry_journal::host::Host>));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
    let runtime = builder.build()?;
    let _ = crate::panics::take();
    let (trace, stores) = (options.trace, stores.clone());
    let outcome = runtime.block_on(async move {
        let mut world = World::new(seed, host, dice, stores, trace);
        let mut broken = world.run(options.events).await.err();
        if let Some(panic) = crate::panics::take() {
            broken.get_or_insert(crate::oracle::broken("the shipped code does not panic", panic));
        }
        Outcome {
            digest: world.oracle.digest(),
            events: world.events,
            records: world.oracle.records,
            batches: world.oracle.batches,
            processes: world.processes,
            virtual_ms: world.now,
            coverage: world.oracle.coverage.clone(),
            broken,
        }
    });
    drop(runtime);
    gantry_journal::host::simulate(None);
    Ok(outcome)
}

/// Sums over all seeds.
#[derive(Default)]
pub(crate) struct Report {
    seeds: u64,
    events: u64,
    events_min: u64,
    records: u64,
    batches: u64,
    processes: u64,
    virtual_ms: u64,
    twice: u64,
    coverage: Coverage,
    elapsed: Duration,
    any_coverage: bool,
    pub(crate) broken: Vec<(u64, Broken)>,
}

impl Report {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.events_min = if self.seeds == 1 {
            outcome.events
        } else {
            self.events_min.min(outcome.events)
        };
        self.records += outcome.records;
        self.batches += outcome.batches;
        self.processes += outcome.processes;
        self.virtual_ms += outcome.virtual_ms;
        self.coverage.add(&outcome.coverage);
        self.broken.extend(outcome.broken.map(|broken| (seed, broken)));
    }

    fn join(&mut self, other: Self) {
        self.events_min = match (self.seeds, other.seeds) {
            (0, _) => other.events_min,
            (_, 0) => self.events_min,
            _ => self.events_min.min(other.events_min),
        };
        self.seeds += other.seeds;
        self.events += other.events;
        self.records += other.records;
        self.batches += other.batches;
        self.processes += other.processes;
        self.virtual_ms += other.virtual_ms;
        self.twice += other.twice;
        self.coverage.add(&other.coverage);
        self.broken.extend(other.broken);
    }

    fn missing(&self) -> bool {
        let exact = self.coverage.missing().is_empty() && self.coverage.surprising().is_empty();
        !self.any_coverage && !exact
    }

    pub(crate) fn failed(&self) -> bool {
        !self.broken.is_empty() || self.missing()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.coverage)?;
        if self.missing() {
            for (entity, from, to) in self.coverage.missing() {
                writeln!(
                    f,
                    "MISSING {entity} {from} -> {to}: no seed took this edge. Add an operation that does, or list it in unbuilt.in with its reason"
                )?;
            }
            for (entity, from, to) in self.coverage.surprising() {
                writeln!(
                    f,
                    "SURPRISE {entity} {from} -> {to}: it is taken now; remove it from unbuilt.in"
                )?;
            }
        }
        for (seed, broken) in &self.broken {
            writeln!(f, "BROKEN {}: {}", broken.invariant, broken.what)?;
            writeln!(f, "  replay: tests/run sim --seed {seed:#x}")?;
        }
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        #[allow(clippy::cast_precision_loss)]
        let rate = self.events as f64 / seconds;
        writeln!(
            f,
            "{} seeds ({} of them twice), {} events (at least {} each), {} records in {} batches, {} processes, {} virtual hours, in {seconds:.1} s: {rate:.0} events/s",
            self.seeds,
            self.twice,
            self.events,
            self.events_min,
            self.records,
            self.batches,
            self.processes,
            self.virtual_ms / 3_600_000
        )
    }
}

/// Runs all seeds.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let started = Instant::now();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let results: Vec<Result<Report>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|_| scope.spawn(|| work(options, &next, &stop)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("a thread of the simulation panicked"))
            })
            .collect()
    });
    let mut report = Report {
        any_coverage: options.any_coverage,
        ..Report::default()
    };
    for result in results {
        report.join(result?);
    }
    report.broken.sort_by_key(|(seed, _)| *seed);
    report.elapsed = started.elapsed();
    Ok(report)
}

fn work(options: &Options, next: &AtomicU64, stop: &AtomicBool) -> Result<Report> {
    let dir = tempfile::tempdir()?;
    let stores = Stores {
        segments: Arc::new(SegmentStore::open(&dir.path().join("segments"))?),
        blobs: Arc::new(BlobStore::memory()),
    };
    let mut report = Report::default();
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= options.seeds {
            break;
        }
        let seed = options.first.wrapping_add(number);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(seed, options, &stores)));
        let Ok(outcome) = run else {
            bail!(
                "seed {seed:#x}: the simulation panicked: {}",
                crate::panics::take().unwrap_or_default()
            );
        };
        let mut outcome = outcome?;
        if number.is_multiple_of(TWICE) && !options.trace {
            let again = one(seed, options, &stores)?;
            report.twice += 1;
            if (again.digest, again.events) != (outcome.digest, outcome.events) && outcome.broken.is_none() {
                let what = format!(
                    "journal {:x} after {} events, then {:x} after {}",
                    outcome.digest, outcome.events, again.digest, again.events
                );
                outcome.broken = Some(broken("the same seed is the same run", what));
            }
        }
        report.add(seed, outcome);
        if report.broken.len() >= options.stop_at {
            stop.store(true, Ordering::Relaxed);
        }
    }
    Ok(report)
}
