//! Random weights, made in the format they are stored in.
//!
//! Plain numbers are nearly normal: a sum of four uniform ones. Of quantised blocks every bit is random but the block's
//! own scale, which is chosen so that the decoded numbers have the deviation asked for: the same bytes to read and the
//! same work to do as with real weights, and nothing to search. A row depends on seed, tensor and its own number only,
//! hence not on the number of threads.

use halfbyte_formats::{FormatError, QuantType, quant};

use super::layout::Init;

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Random(u64);

impl Random {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The stream of one row.
    pub(super) fn new(seed: u64, tensor: usize, row: usize) -> Self {
        let mut start = Self(seed);
        for key in [tensor, row] {
            start = Self(start.next().wrapping_add((key as u64).wrapping_mul(Self::STEP)));
        }
        Self(start.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Mean 0, deviation 1, never beyond 3.47.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u32 = [bits, bits >> 16, bits >> 32, bits >> 48].iter().map(|part| (part & 0xffff) as u32).sum();
        // Each of the four has mean 65535 / 2 and, in units of 65536, variance 1 / 12.
        (sum as f32 - 2.0 * 65_535.0) * (3.0f32.sqrt() / 65_536.0)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// How the rows of one tensor are made.
pub(super) struct Weights {
    ty: QuantType,
    source: Source,
}

/// Where numbers come from.
enum Source {
    /// Random ones, encoded.
    Normal { mean: f32, deviation: f32 },
    /// Random blocks.
    Blocks(Blocks),
    /// A row of these.
    Given(&'static [f32]),
}

/// What is not random in a quantised block.
struct Blocks {
    /// Where the f16 scale is, in bytes.
    scale_at: usize,
    /// Scales to choose from: 32 sizes around the right one, each twice (with both signs, if the numbers a block
    /// decodes to are not around 0 by themselves).
    scales: Vec<[u8; 2]>,
    /// The scale of the minima that stands behind each of them, if the format has one.
    minima: Option<Vec<[u8; 2]>>,
}

impl Weights {
    /// Rows of `depth` numbers of format `ty`.
    pub(super) fn new(ty: QuantType, init: Init, depth: usize) -> Result<Self, FormatError> {
        let (mean, deviation) = match init {
            Init::Matrix => (0.0, 1.0 / (depth as f32).sqrt()),
            Init::Bias => (0.0, 0.02),
            Init::Norm => (1.0, 0.1),
            Init::Given(values) => return Ok(Self { ty, source: Source::Given(values) }),
        };
        let source = match Blocks::new(ty, deviation)? {
            Some(blocks) => Source::Blocks(blocks),
            None => Source::Normal { mean, deviation },
        };
        Ok(Self { ty, source })
    }

    /// Fills `row`, whole blocks.
    pub(super) fn fill(&self, random: &mut Random, row: &mut [u8]) -> Result<(), FormatError> {
        let block_bytes = self.ty.block_bytes();
        match &self.source {
            Source::Normal { mean, deviation } => {
                let mut values = vec![0.0; row.len() / block_bytes * self.ty.block_len()];
                values.fill_with(|| mean + deviation * random.normal());
                quant::encode(self.ty, &values, row)
            }
            Source::Blocks(blocks) => {
                random.fill(row);
                for block in row.chunks_exact_mut(block_bytes) {
                    blocks.settle(random, block, self.ty);
                }
                Ok(())
            }
            Source::Given(values) => quant::encode(self.ty, values, row),
        }
    }
}

impl Blocks {
    /// `None` for formats that are encoded from numbers.
    fn new(ty: QuantType, deviation: f32) -> Result<Option<Self>, FormatError> {
        // Root mean squares of a block with scale 1 and random bits. q has variance (levels^2 - 1) / 12; an odd
        // scale byte in -128..128 has mean square 5461, an odd one of 6 bits 1365 and variance 341.
        let (scale_at, rms, signed) = match ty {
            QuantType::Q4_0 => (0, (21.25f32 + 0.25).sqrt(), true),
            QuantType::Q5_0 => (0, (85.25f32 + 0.25).sqrt(), true),
            QuantType::Q8_0 => (0, (5461.25f32 + 0.25).sqrt(), false),
            QuantType::Q6_K => (208, ((341.25f32 + 0.25) * 5461.0).sqrt(), false),
            // sc * q - 7.5 * m = sc * (q - 7.5) + 7.5 * (sc - m), see below.
            QuantType::Q4_K => (0, (1365.0 * 21.25 + 7.5f32 * 7.5 * 2.0 * 341.0).sqrt(), false),
            _ => return Ok(None),
        };
        let sizes = |unit: f32, signed: bool| {
            let sizes = (0..64).map(|n| {
                let size = unit * (0.75 + (n / 2) as f32 / 64.0);
                let mut scale = [0; 2];
                let sign = if signed && n % 2 == 1 { -1.0 } else { 1.0 };
                quant::encode(QuantType::F16, &[sign * size], &mut scale)?;
                Ok(scale)
            });
            sizes.collect::<Result<Vec<_>, FormatError>>()
        };
        let unit = deviation / rms;
        // A minimum of 7.5 scales, the mean of q, puts the numbers around 0.
        let minima = if ty == QuantType::Q4_K { Some(sizes(7.5 * unit, false)?) } else { None };
        Ok(Some(Self { scale_at, scales: sizes(unit, signed)?, minima }))
    }

    /// Puts the scale into a block of random bits.
    fn settle(&self, random: &mut Random, block: &mut [u8], ty: QuantType) {
        let choice = random.next() as usize % self.scales.len();
        block[self.scale_at..][..2].copy_from_slice(&self.scales[choice]);
        if let Some(minima) = &self.minima {
            block[self.scale_at + 2..][..2].copy_from_slice(&minima[choice]);
        }
        // Kernels are measured on what encoders write: never -128, and a scale of 0 only for a group of zeros.
        match ty {
            QuantType::Q8_0 => block[2..].iter_mut().for_each(|q| *q = (*q as i8).max(-127) as u8),
            QuantType::Q6_K => block[192..208].iter_mut().for_each(|scale| *scale |= 1),
            // Four scales, then four minima, are bits 0 to 5 of bytes 4 to 11; bits 0 to 3 of the other four of each
            // are a half of bytes 12 to 15. Minima have the mean of the scales.
            QuantType::Q4_K => {
                block[4..12].iter_mut().for_each(|pair| *pair |= 1);
                block[12..16].iter_mut().for_each(|pair| *pair |= 0x11);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_decodes_to_the_deviation_asked_for() {
        for ty in QuantType::ALL.into_iter().filter(|ty| ty.has_encoder()) {
            let (rows, depth) = (64, 4096);
            let weights = Weights::new(ty, Init::Matrix, depth).expect("weights");
            let mut row = vec![0; ty.row_bytes(depth).expect("whole blocks")];
            let mut values = vec![0.0; depth];
            let (mut sum, mut squares, mut largest) = (0.0f64, 0.0f64, 0.0f32);
            for n in 0..rows {
                weights.fill(&mut Random::new(7, 0, n), &mut row).expect("a row");
                quant::decode(ty, &row, &mut values).expect("whole blocks");
                for &x in &values {
                    sum += f64::from(x);
                    squares += f64::from(x) * f64::from(x);
                    largest = largest.max(x.abs());
                }
            }
            let count = (rows * depth) as f64;
            let deviation = (squares / count).sqrt() * (depth as f64).sqrt();
            let mean = sum / count * (depth as f64).sqrt();
            assert!((deviation - 1.0).abs() < 0.05, "{ty}: deviation {deviation}");
            assert!(mean.abs() < 0.02, "{ty}: mean {mean}");
            assert!(largest * 64.0 < 8.0, "{ty}: largest {largest}");
        }
    }

    #[test]
    fn rows_differ_by_seed_tensor_and_number() {
        let mut starts: Vec<u64> = Vec::new();
        for (seed, tensor, row) in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 1, 1)] {
            starts.push(Random::new(seed, tensor, row).next());
        }
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts.len(), 6);
    }
}
