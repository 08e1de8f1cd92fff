//! What was measured, as lines for people and as JSON for programs. Both say the same.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
};

use indicatif::{BinaryBytes, DecimalBytes};
use serde::Serialize;

use super::memory::Memory;

/// Everything there is to say about one run of `bench`.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) model: ModelReport,
    /// Instruction set of the kernels.
    pub(super) isa: &'static str,
    pub(super) threads: usize,
    /// Those that threads may run on; none if the system does not say.
    pub(super) processors: Vec<usize>,
    /// How keys and values are stored.
    pub(super) kv: String,
    /// Tokens a session could hold.
    pub(super) context: usize,
    /// From the path to a model that can be asked, in seconds.
    pub(super) load_seconds: f64,
    pub(super) prefill: Option<Rates>,
    pub(super) decode: Option<DecodeReport>,
    pub(super) bandwidth: Option<Bandwidth>,
    /// What was free before loading; `None` where the system does not say.
    pub(super) available_bytes: Option<u64>,
    /// `None` where the system does not say.
    pub(super) memory: Option<MemoryReport>,
    /// Size of the last-level cache, if known.
    pub(super) cache_bytes: Option<u64>,
    /// Whether the weights are so small that caches hold much of them.
    pub(super) cache_resident: bool,
}

/// The model that was measured.
#[derive(Serialize)]
pub(super) struct ModelReport {
    /// As on the command line.
    pub(super) source: String,
    pub(super) name: Option<String>,
    pub(super) architecture: String,
    pub(super) tensor_bytes: usize,
    /// Tensors of each number format.
    pub(super) formats: BTreeMap<String, usize>,
}

impl fmt::Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let formats: Vec<String> = self.formats.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let size = BinaryBytes(self.tensor_bytes as u64);
        write!(f, "{}: {}, {size} ({})", self.source, self.architecture, formats.join(", "))
    }
}

/// Repetitions of one measurement, in tokens per second.
#[derive(Serialize)]
pub(super) struct Rates {
    pub(super) tokens: usize,
    pub(super) median: f64,
    pub(super) runs: Vec<f64>,
}

impl Rates {
    pub(super) fn new(tokens: usize, runs: Vec<f64>) -> Self {
        Self { tokens, median: median(&runs), runs }
    }
}

/// Decoding, and what it reads.
#[derive(Serialize)]
pub(super) struct DecodeReport {
    #[serde(flatten)]
    pub(super) rates: Rates,
    /// Tokens in the cache before the first one.
    pub(super) depth: usize,
    /// Weights, scales included, that one token reads.
    pub(super) weight_bytes: usize,
    /// Keys and values that one token reads, half way through.
    pub(super) kv_bytes: usize,
    /// Part of the bandwidth that decoding uses; `None` if it was not measured or caches hold the weights.
    pub(super) bandwidth_share: Option<f64>,
}

/// How fast the weights can be read, in bytes per second.
#[derive(Serialize)]
pub(super) struct Bandwidth {
    /// The fastest run of any kind.
    pub(super) best: f64,
    /// All runs of each kind.
    pub(super) runs: BTreeMap<&'static str, Vec<f64>>,
}

/// Memory right after loading, and at most.
#[derive(Serialize)]
pub(super) struct MemoryReport {
    pub(super) loaded: Memory,
    pub(super) peak: Memory,
}

/// The middle value, or the mean of the two in the middle; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(low), Some(high)) if sorted.len().is_multiple_of(2) => (low + high) / 2.0,
        (_, Some(high)) => *high,
        _ => 0.0,
    }
}

impl Report {
    /// Prints the lines for people.
    pub(super) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let Self { model, isa, threads, processors, kv, context, .. } = self;
        writeln!(out, "model      {model}")?;
        let places = processors.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let places = if places.is_empty() { places } else { format!(" on processors {places}") };
        writeln!(out, "machine    {isa}, {threads} threads{places}, keys and values {kv}, context {context}")?;
        writeln!(out, "load       {:.3} s", self.load_seconds)?;
        if let Some(rates) = &self.prefill {
            writeln!(out, "prefill    {}, {} tokens", rate(rates), rates.tokens)?;
        }
        if let Some(decode) = &self.decode {
            writeln!(out, "decode     {}, {} tokens after {}", rate(&decode.rates), decode.rates.tokens, decode.depth)?;
        }
        if let Some(bandwidth) = &self.bandwidth {
            let best = |runs: &Vec<f64>| runs.iter().copied().fold(0.0, f64::max) / 1e9;
            let kinds = bandwidth.runs.iter().map(|(kind, runs)| format!("{kind} {:.1}", best(runs)));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            writeln!(out, "reading    {:.1} GB/s ({kinds})", bandwidth.best / 1e9)?;
        }
        if let Some(decode) = &self.decode {
            let (weights, kv) = (DecimalBytes(decode.weight_bytes as u64), DecimalBytes(decode.kv_bytes as u64));
            let share = match decode.bandwidth_share {
                Some(share) => format!("{:.0} % of reading", share * 100.0),
                None if self.cache_resident => "cache-resident".to_owned(),
                None => "unknown".to_owned(),
            };
            writeln!(out, "share      {share}: a token reads {weights} of weights and {kv} of keys and values")?;
        }
        if let Some(MemoryReport { loaded, peak }) = &self.memory {
            let size = BinaryBytes;
            writeln!(
                out,
                "memory     {} anonymous, {} mapped, {} resident at most; {} anonymous after loading",
                size(peak.anonymous_bytes),
                size(peak.mapped_bytes),
                size(peak.resident_bytes),
                size(loaded.anonymous_bytes)
            )?;
        }
        Ok(())
    }
}

fn rate(rates: &Rates) -> String {
    let low = rates.runs.iter().copied().fold(f64::INFINITY, f64::min);
    let high = rates.runs.iter().copied().fold(0.0, f64::max);
    format!("{:.2} tokens/s ({low:.2} to {high:.2})", rates.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[3.0, 1.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    }
}
