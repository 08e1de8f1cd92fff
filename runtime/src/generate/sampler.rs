//! Choosing the next token.
//!
//! The order is the one most runtimes use: repetition penalty on the logits, then top-k, top-p, min-p, and last the
//! temperature. All buffers are made once; choosing a token allocates nothing. The generator is SplitMix64 (Steele,
//! Lea and Flood 2014), so a seed gives the same text on every machine that computes the same logits.

use std::cmp::Ordering;

use crate::{RuntimeError, memory::with_room};

/// Seed used when none is given, so that a first run can be repeated.
pub const DEFAULT_SEED: u64 = 42;

/// How the next token is chosen.
///
/// ```no_run
/// # fn surprise(session: &mut halfbyte::Session) -> Result<(), halfbyte::RuntimeError> {
/// let mut sampling = halfbyte::Sampling::default();
/// sampling.temperature = 1.0;
/// sampling.seed = 7;
/// session.set_sampling(sampling)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// 0 always takes the most likely token; 1 samples from the model's own distribution. 0 to 100.
    pub temperature: f32,
    /// Keep the `k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens whose probabilities reach `p`; 1 keeps all. Above 0, to 1.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the most likely one; 0 keeps all. 0 to 1.
    pub min_p: f32,
    /// Logits of recent tokens are divided (if positive) or multiplied by this; 1 leaves them. Above 0, to 100.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty looks at.
    pub repeat_last: usize,
    /// Seed of the random choice.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.0,
            repeat_penalty: 1.1,
            repeat_last: 64,
            seed: DEFAULT_SEED,
        }
    }
}

impl Sampling {
    /// Always the most likely token.
    #[must_use]
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repeat_penalty: 1.0, ..Self::default() }
    }

    fn check(&self) -> Result<(), RuntimeError> {
        let finite = |option, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            let expected = format!("{low} to {high}");
            Err(RuntimeError::InvalidOption { option, found: value.to_string(), expected })
        };
        finite("temperature", self.temperature, 0.0, 100.0)?;
        finite("top_p", self.top_p, f32::MIN_POSITIVE, 1.0)?;
        finite("min_p", self.min_p, 0.0, 1.0)?;
        finite("repeat_penalty", self.repeat_penalty, f32::MIN_POSITIVE, 100.0)
    }
}

/// Logits of one position, and where they are large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logits<'a> {
    /// (vocab).
    pub(crate) values: &'a [f32],
    /// The largest of each run of [`PEAK_RUN`] logits, by [`peak`].
    pub(crate) peaks: &'a [f32],
}

/// Room for recent tokens is made for so many at once; a longer memory grows with the history.
const MAX_RECENT: usize = 4096;

/// Logits that one peak stands for.
pub(crate) const PEAK_RUN: usize = 48;

/// The largest of some logits; NaN if one of them is NaN or positive infinity.
pub(crate) fn peak(logits: &[f32]) -> f32 {
    let (mut peak, mut finite) = (f32::NEG_INFINITY, true);
    for &logit in logits {
        peak = if logit > peak { logit } else { peak };
        finite &= logit < f32::INFINITY;
    }
    if finite { peak } else { f32::NAN }
}

/// A checked [`Sampling`] with the state and buffers it needs.
pub(crate) struct Sampler {
    options: Sampling,
    random: SplitMix64,
    /// (token, logit), then (token, probability), of the tokens still in the race.
    candidates: Vec<(u32, f32)>,
    /// Tokens under penalty, each once, ascending.
    penalised: Vec<u32>,
    /// Peaks, to be put in order.
    peaks: Vec<f32>,
}

impl Sampler {
    pub(crate) fn new(options: Sampling, vocab: usize) -> Result<Self, RuntimeError> {
        options.check()?;
        Ok(Self {
            random: SplitMix64(options.seed),
            candidates: with_room("candidates", vocab)?,
            penalised: with_room("recent tokens", options.repeat_last.min(MAX_RECENT))?,
            peaks: with_room("candidates", vocab.div_ceil(PEAK_RUN))?,
            options,
        })
    }

    /// One that goes on choosing as this one does, for the same vocabulary.
    pub(crate) fn fork(&self, vocab: usize) -> Result<Self, RuntimeError> {
        Ok(Self { random: self.random.clone(), ..Self::new(self.options.clone(), vocab)? })
    }

    /// Bytes of the buffers that grow with the vocabulary.
    pub(crate) fn buffer_bytes(vocab: usize) -> usize {
        vocab.saturating_mul(size_of::<(u32, f32)>()).saturating_add(vocab.div_ceil(PEAK_RUN) * size_of::<f32>())
    }

    pub(crate) fn seed(&self) -> u64 {
        self.options.seed
    }

    /// The next token for `logits` after `history`; `position` is only for the error.
    ///
    /// # Errors
    /// [`RuntimeError::NonFiniteLogits`] if no token can be chosen honestly.
    pub(crate) fn choose(&mut self, logits: Logits<'_>, history: &[u32], position: usize) -> Result<u32, RuntimeError> {
        if logits.values.is_empty() || logits.peaks.iter().any(|peak| peak.is_nan()) {
            return Err(RuntimeError::NonFiniteLogits { position });
        }
        self.collect(logits, history);
        let order = |a: &&(u32, f32), b: &&(u32, f32)| by_logit(b, a);
        let best = self.candidates.iter().max_by(order).filter(|(_, logit)| *logit > f32::NEG_INFINITY);
        let &(best, logit) = best.ok_or(RuntimeError::NonFiniteLogits { position })?;
        if self.options.temperature == 0.0 {
            return Ok(best);
        }
        self.narrow(logit);
        Ok(self.draw().unwrap_or(best))
    }

    /// Fills `candidates` with tokens and their logits under penalty, among them all that can be one of the best
    /// `top_k` (of all, for 0): so many of the others, those under penalty, and as many again as those may have pushed
    /// out.
    fn collect(&mut self, Logits { values, peaks }: Logits<'_>, history: &[u32]) {
        let Sampling { temperature, top_k, repeat_penalty, repeat_last, .. } = self.options;
        let recent = &history[history.len().saturating_sub(repeat_last)..];
        self.penalised.clear();
        if repeat_penalty != 1.0 {
            self.penalised.extend(recent.iter().filter(|&&token| (token as usize) < values.len()));
            self.penalised.sort_unstable();
            self.penalised.dedup();
        }
        let wanted = if temperature == 0.0 { 1 } else { top_k }.saturating_add(self.penalised.len());
        let all = temperature != 0.0 && top_k == 0 || wanted >= peaks.len();
        // So many logits reach the peak that so many peaks reach.
        let threshold = if all { f32::NEG_INFINITY } else { self.nth_peak(peaks, wanted) };
        self.candidates.clear();
        for (run, (values, _)) in
            values.chunks(PEAK_RUN).zip(peaks).enumerate().filter(|(_, (_, peak))| **peak >= threshold)
        {
            let tokens = (run * PEAK_RUN..).zip(values).filter(|(_, logit)| **logit >= threshold);
            self.candidates.extend(tokens.map(|(token, &logit)| (id(token), logit)));
        }
        // Each token of the recent history counts once, however often it occurred (Keskar et al. 2019, section 4.1).
        for &token in &self.penalised {
            let logit = values.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
            let under = if logit > 0.0 { logit / repeat_penalty } else { logit * repeat_penalty };
            match self.candidates.binary_search_by_key(&token, |candidate| candidate.0) {
                Ok(at) => self.candidates[at].1 = under,
                Err(at) => self.candidates.insert(at, (token, under)),
            }
        }
    }

    /// The `n`-th largest peak, counted from 1; there are more.
    fn nth_peak(&mut self, peaks: &[f32], n: usize) -> f32 {
        self.peaks.clear();
        self.peaks.extend_from_slice(peaks);
        *self.peaks.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1
    }

    /// Leaves in `candidates` the tokens that pass top-k, top-p and min-p, with their weights at the temperature.
    fn narrow(&mut self, best: f32) {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.options;
        let candidates = &mut self.candidates;
        let keep = if top_k == 0 { candidates.len() } else { top_k.min(candidates.len()) };
        if keep < candidates.len() {
            candidates.select_nth_unstable_by(keep - 1, by_logit);
            candidates.truncate(keep);
        }
        if top_p < 1.0 || min_p > 0.0 {
            candidates.sort_unstable_by(by_logit);
            let total: f32 = candidates.iter().map(|(_, logit)| (logit - best).exp()).sum();
            let mut reached = 0.0;
            let mut keep = 0;
            for (_, logit) in candidates.iter() {
                let weight = (logit - best).exp();
                // The most likely token always stays.
                if keep > 0 && (reached >= top_p * total || weight < min_p) {
                    break;
                }
                reached += weight;
                keep += 1;
            }
            candidates.truncate(keep);
        } else {
            // Independent of how the selection above happened to arrange them.
            candidates.sort_unstable_by_key(|candidate| candidate.0);
        }
        for (_, logit) in candidates.iter_mut() {
            *logit = ((*logit - best) / temperature).exp();
        }
    }

    fn draw(&mut self) -> Option<u32> {
        let total: f64 = self.candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let mut left = self.random.unit() * total;
        for &(token, weight) in &self.candidates {
            left -= f64::from(weight);
            if left.partial_cmp(&0.0) == Some(Ordering::Less) {
                return Some(token);
            }
        }
        self.candidates.iter().rev().find(|(_, weight)| *weight > 0.0).map(|&(token, _)| token)
    }
}

/// The likelier token first, of equals the lower one.
fn by_logit(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Vocabularies are far below 2^32 rows: their size is checked when the model is loaded.
fn id(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[derive(Clone)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 0.0];

    fn counts(options: Sampling, history: &[u32]) -> [usize; 5] {
        let mut sampler = Sampler::new(options, 5).expect("valid");
        let mut counts = [0; 5];
        for _ in 0..20_000 {
            counts[choose(&mut sampler, &LOGITS, history, 0).expect("finite") as usize] += 1;
        }
        counts
    }

    /// Chooses from bare logits.
    fn choose(sampler: &mut Sampler, values: &[f32], history: &[u32], position: usize) -> Result<u32, RuntimeError> {
        let peaks: Vec<f32> = values.chunks(PEAK_RUN).map(peak).collect();
        sampler.choose(Logits { values, peaks: &peaks }, history, position)
    }

    fn plain() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::greedy() }
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let total: f64 = LOGITS.iter().map(|&l| f64::from(l).exp()).sum();
        for (count, logit) in counts(plain(), &[]).iter().zip(LOGITS) {
            let expected = f64::from(logit).exp() / total;
            let sigma = (expected * (1.0 - expected) / 20_000.0).sqrt();
            assert!((*count as f64 / 20_000.0 - expected).abs() < 5.0 * sigma, "{count} {expected}");
        }
    }

    #[test]
    fn each_filter_keeps_what_it_says() {
        assert_eq!(counts(Sampling::greedy(), &[])[1], 20_000);
        assert_eq!(counts(Sampling { top_k: 2, ..plain() }, &[])[..].iter().filter(|&&c| c > 0).count(), 2);
        // Probabilities are 0.086 0.636 0.234 0.012 0.032.
        assert_eq!(counts(Sampling { top_p: 0.6, ..plain() }, &[])[1], 20_000);
        assert_eq!(counts(Sampling { top_p: 0.7, ..plain() }, &[]).iter().filter(|&&c| c > 0).count(), 2);
        assert_eq!(counts(Sampling { min_p: 0.13, ..plain() }, &[]).iter().filter(|&&c| c > 0).count(), 3);
        // 3 / 2 < 2: the penalty hands the first place to token 2, once however often token 1 occurred.
        let penalised = Sampling { repeat_penalty: 2.0, ..Sampling::greedy() };
        assert_eq!(counts(penalised.clone(), &[1, 1, 1])[2], 20_000);
        assert_eq!(counts(Sampling { repeat_last: 1, ..penalised }, &[1, 4])[1], 20_000);
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let draw = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..plain() }, 5).expect("valid");
            (0..64).map(|_| choose(&mut sampler, &LOGITS, &[], 0).expect("finite")).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, -1.0] {
            assert!(Sampler::new(Sampling { temperature: bad, ..plain() }, 5).is_err());
            assert!(Sampler::new(Sampling { min_p: bad, ..plain() }, 5).is_err());
            assert!(Sampler::new(Sampling { top_p: bad, ..plain() }, 5).is_err());
            assert!(Sampler::new(Sampling { repeat_penalty: bad, ..plain() }, 5).is_err());
        }
        let mut sampler = Sampler::new(plain(), 5).expect("valid");
        for bad in [[f32::NAN; 2], [0.0, f32::NAN], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            assert!(matches!(choose(&mut sampler, &bad, &[], 7), Err(RuntimeError::NonFiniteLogits { position: 7 })));
        }
        assert_eq!(choose(&mut sampler, &[f32::NEG_INFINITY, 0.0], &[], 0).ok(), Some(1));
    }

    /// The tokens in the race are those that sorting all logits under penalty would keep.
    #[test]
    fn peaks_lose_no_candidate() {
        let mut random = SplitMix64(5);
        for round in 0..400 {
            let vocab = [1, 47, 48, 49, 500, 5000][round % 6];
            // Few different values, so that there are ties.
            let values: Vec<f32> = (0..vocab).map(|_| (random.next() % 97) as f32 / 8.0 - 6.0).collect();
            let history: Vec<u32> = (0..round % 80).map(|_| (random.next() % (vocab as u64 + 2)) as u32).collect();
            let repeat_penalty = [1.0, 1.3, 0.7][round % 3];
            for top_k in [1, 2, 40, vocab] {
                let options = Sampling { top_k, repeat_penalty, ..plain() };
                let mut sampler = Sampler::new(options, vocab).expect("valid");
                choose(&mut sampler, &values, &history, 0).expect("finite");
                let mut found: Vec<u32> = sampler.candidates.iter().map(|candidate| candidate.0).collect();
                found.sort_unstable();

                let mut all: Vec<(u32, f32)> = (0..).zip(values.iter().copied()).collect();
                for (token, logit) in &mut all {
                    if history[history.len().saturating_sub(64)..].contains(token) {
                        *logit = if *logit > 0.0 { *logit / repeat_penalty } else { *logit * repeat_penalty };
                    }
                }
                all.sort_by(by_logit);
                let mut expected: Vec<u32> = all.iter().take(top_k).map(|candidate| candidate.0).collect();
                expected.sort_unstable();
                assert_eq!(found, expected, "round {round}, {vocab} tokens, top {top_k}");
            }
        }
    }
}
