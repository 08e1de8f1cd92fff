//! Grouped-query attention.

use std::ops::Range;

use half::f16;
use halfbyte_kernels::ops::{AttentionGqa, KV_SPLIT, Queries};
use halfbyte_kernels::{Isa, KV_PAGE, Kernels, KvLayout, KvPages, KvPart, KvType, Tile, ops};
use proptest::prelude::*;

use crate::common::{ROUNDING, Rng, assert_close, bits, cases, for_each_isa, guarded, is_emulated};

/// A head size for tests that are not about it.
const SMALL_DIM: usize = if cfg!(miri) { 1 } else { 32 };

/// A cache: its pages, and the numbers of one head that they stand for.
#[derive(Clone)]
struct Cache {
    pages: Vec<Box<[u8]>>,
    /// Those that may be looked at.
    seen: Range<usize>,
    /// `(positions, head_dim)`
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Of the values of each position, if they have one.
    scales: Vec<f32>,
}

impl KvPages for Cache {
    fn page(&self, index: usize) -> &[u8] {
        assert!(self.seen.contains(&index), "page {index} is looked at, {:?} are seen", self.seen);
        &self.pages[index]
    }
}

impl Cache {
    /// Filled up to position `len`; all that lies behind is NaN, and so are the other heads.
    fn new(layout: &KvLayout, kv_head: usize, len: usize, spread: f32, rng: &mut Rng) -> Self {
        let bytes = layout.page_bytes().expect("small");
        // A quiet NaN of either format.
        let page = vec![0xff; bytes].into_boxed_slice();
        let pages = len.div_ceil(KV_PAGE);
        let (keys, values) = (vec![0.0; len * layout.head_dim], vec![0.0; len * layout.head_dim]);
        let mut cache = Self { pages: vec![page; pages], seen: 0..pages, keys, values, scales: vec![0.0; len] };
        for part in [0, 1] {
            for pos in 0..len {
                let row: Vec<f32> = (0..layout.head_dim).map(|_| rng.unit() * spread).collect();
                cache.put(layout, kv_head, part, pos, &row);
            }
        }
        cache
    }

    /// Sets the keys (part 0) or values (part 1) of a head at a position.
    fn put(&mut self, layout: &KvLayout, kv_head: usize, part: usize, pos: usize, row: &[f32]) {
        let dim = layout.head_dim;
        if layout.ty != KvType::Int8 {
            for (i, x) in (pos * dim..).zip(row) {
                self.set(layout, kv_head, part, i, *x);
            }
            return;
        }
        let half = layout.half_bytes().expect("small");
        let page = &mut self.pages[pos / KV_PAGE][(2 * kv_head + part) * half..][..half];
        let which = [KvPart::Keys, KvPart::Values][part];
        ops::kv_append(&Kernels::detect(), layout, which, page, pos % KV_PAGE, row).expect("right shapes");
        let largest = row.iter().fold(0.0f32, |max, x| if x.abs() > max || x.is_nan() { x.abs() } else { max });
        let scale = f16::from_f32(largest / 127.0).to_f32();
        for (to, x) in [&mut self.keys, &mut self.values][part][pos * dim..].iter_mut().zip(row) {
            *to = if scale == 0.0 { 0.0 } else { scale * (x / scale).round_ties_even().clamp(-127.0, 127.0) };
        }
        if part == 1 {
            self.scales[pos] = scale;
        }
    }

    /// Sets element `i` of the keys (part 0) or values (part 1) of a head, `(positions, head_dim)`.
    fn set(&mut self, layout: &KvLayout, kv_head: usize, part: usize, i: usize, x: f32) {
        let (dim, pos) = (layout.head_dim, i / layout.head_dim);
        let at = ((2 * kv_head + part) * KV_PAGE + pos % KV_PAGE) * dim + i % dim;
        let (bytes, x): (&[u8], f32) = match layout.ty {
            KvType::F32 => (&x.to_le_bytes(), x),
            _ => (&f16::from_f32(x).to_le_bytes(), f16::from_f32(x).to_f32()),
        };
        self.pages[pos / KV_PAGE][at * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
        [&mut self.keys, &mut self.values][part][i] = x;
    }
}

/// `x` in multiples of its largest magnitude over 127, times the smallest power of two with which 32 of them are within
/// ±127.
fn rounded(x: &[f32]) -> Vec<f64> {
    let unit = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
    let x: Vec<f32> = x.iter().map(|x| (x / unit).clamp(-127.0, 127.0)).collect();
    let round = |group: &[f32]| {
        let largest = group.iter().fold(0.0f64, |max, x| max.max(f64::from(x.abs())));
        let mut step = 2f64.powi(-96);
        while 127.0 * step < largest {
            step *= 2.0;
        }
        group.iter().map(|x| (f64::from(*x) / step).round_ties_even() * step * f64::from(unit)).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(round).collect()
}

/// A run of tokens, the last of which is the last one in the cache.
struct Case {
    layout: KvLayout,
    heads: usize,
    kv_head: usize,
    pos: usize,
    tokens: usize,
    window: Option<usize>,
    spread: f32,
    seed: u64,
}

/// The last `tokens` of `len` positions.
fn case(ty: KvType, head_dim: usize, heads: usize, len: usize, tokens: usize) -> Case {
    Case {
        layout: KvLayout { ty, kv_heads: 2, head_dim },
        heads,
        kv_head: 1,
        pos: len - tokens,
        tokens,
        window: None,
        spread: 2.0,
        seed: (head_dim + heads + len) as u64,
    }
}

/// The inputs of a case.
#[derive(Clone)]
struct Inputs {
    cache: Cache,
    q: Box<[f32]>,
}

impl Case {
    fn inputs(&self) -> Inputs {
        let mut rng = Rng(self.seed);
        let cache = Cache::new(&self.layout, self.kv_head, self.pos + self.tokens, self.spread, &mut rng);
        Inputs { cache, q: rng.floats(self.tokens * self.row()) }
    }

    /// What token `token` sees.
    fn visible(&self, token: usize) -> Range<usize> {
        let end = self.pos + token + 1;
        end.saturating_sub(self.window.unwrap_or(end))..end
    }

    /// Calls `test` with what tokens `tokens` attend to; only the pages may be looked at that they see.
    fn with(&self, inputs: &Inputs, tokens: &Range<usize>, test: impl FnOnce(&AttentionGqa<'_>)) {
        let mut cache = inputs.cache.clone();
        if !tokens.is_empty() {
            let (start, end) = (self.visible(tokens.start).start, self.visible(tokens.end - 1).end);
            cache.seen = start / KV_PAGE..end.div_ceil(KV_PAGE);
        }
        let (pos, window, scale) = (self.pos + tokens.start, self.window, self.scale());
        test(&AttentionGqa { layout: &self.layout, pages: &cache, pos, window, scale });
    }

    /// Elements of a token's queries, and of its results.
    fn row(&self) -> usize {
        self.heads * self.layout.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.layout.head_dim as f32).sqrt()
    }

    /// Tokens `tokens` of the run, in one call.
    fn attend(&self, k: &Kernels, inputs: &Inputs, tokens: Range<usize>) -> Vec<f32> {
        let (row, n) = (self.row(), tokens.len());
        let q = Queries { data: &inputs.q[tokens.start * row..tokens.end * row], stride: row };
        guarded(n * row, |out| {
            let mut out = Tile::new(out, n, row).expect("right length");
            self.with(inputs, &tokens, |a| ops::attention_gqa(k, a, self.kv_head, q, &mut out).expect("right shapes"));
        })
    }

    /// A token, each of its splits for itself.
    fn attend_in_parts(&self, k: &Kernels, inputs: &Inputs, token: usize) -> Vec<f32> {
        let (dim, row) = (self.layout.head_dim, self.row());
        let q = &inputs.q[token * row..(token + 1) * row];
        let len = ops::part_len(self.heads, dim).expect("small");
        let mut parts = Vec::new();
        self.with(inputs, &(token..token + 1), |a| {
            let Range { start, end } = self.visible(token);
            assert_eq!(a.splits(), start / KV_SPLIT..end.div_ceil(KV_SPLIT));
            // The last one first: they do not depend on each other.
            let parts_of = |split| {
                guarded(len, |part| ops::attention_part(k, a, self.kv_head, split, q, part).expect("right shapes"))
            };
            let mut each: Vec<_> = a.splits().rev().map(parts_of).collect();
            each.reverse();
            parts = each.concat();
        });
        guarded(row, |out| ops::attention_merge(k, dim, &parts, out).expect("right shapes"))
    }

    /// What `f64` gives for a token: for each element of its result the value and, of each term's share in the error,
    /// the magnitude; then the largest magnitude of a score.
    ///
    /// If `round`, queries are rounded to 8 bits, and the third number is what that of weights may change.
    fn oracle(&self, inputs: &Inputs, token: usize, round: bool) -> (Vec<(f64, f64, f64)>, f64) {
        let (dim, row) = (self.layout.head_dim, self.row());
        let visible = self.visible(token);
        let (mut results, mut largest) = (Vec::new(), 0.0f64);
        for q in inputs.q[token * row..(token + 1) * row].chunks(dim) {
            let mut scores = Vec::new();
            let q = if round { rounded(q) } else { q.iter().copied().map(f64::from).collect() };
            for j in visible.clone() {
                let key = &inputs.cache.keys[j * dim..][..dim];
                let products = q.iter().zip(key).map(|(q, k)| q * f64::from(*k));
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                scores.push(f64::from(self.scale()) * sum);
                largest = largest.max(f64::from(self.scale()) * size);
            }
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = powers.iter().sum();
            let mut sums = vec![(0.0, 0.0, 0.0); dim];
            for (j, power) in visible.clone().zip(&powers) {
                let value = &inputs.cache.values[j * dim..][..dim];
                for ((sum, size, _), v) in sums.iter_mut().zip(value) {
                    let term = power / total * f64::from(*v);
                    (*sum, *size) = (*sum + term, *size + term.abs());
                }
            }
            if round {
                // Weights times scales of values are multiples of the largest of a page over 254.
                let weight = |j: usize| powers[j - visible.start] / total * f64::from(inputs.cache.scales[j]);
                for first in (visible.start / KV_PAGE * KV_PAGE..visible.end).step_by(KV_PAGE) {
                    let page = visible.start.max(first)..visible.end.min(first + KV_PAGE);
                    let step = page.clone().map(weight).fold(0.0, f64::max) / 254.0;
                    for j in page.filter(|j| inputs.cache.scales[*j] > 0.0) {
                        let value = &inputs.cache.values[j * dim..][..dim];
                        for ((_, _, slack), v) in sums.iter_mut().zip(value) {
                            *slack += 0.5 * step * f64::from((v / inputs.cache.scales[j]).abs());
                        }
                    }
                }
            }
            results.extend(sums);
        }
        (results, largest)
    }

    /// Roundings between inputs and a result, relative to the magnitudes of the oracle.
    fn bound(&self, k: &Kernels, largest: f64) -> f64 {
        let (dim, len) = (self.layout.head_dim, self.pos + self.tokens);
        // Splits are merged as tiles are.
        let tiles = len.div_ceil(KV_PAGE) + 1 + len.div_ceil(KV_SPLIT) + 1;
        // A score is a dot product, a scaling and a difference; its absolute error is the relative one of its
        // exponential, in the numerator and in the sum. The dot product is sixteen chains and a tree, or one chain.
        let chain = if matches!(k.isa(), Isa::Scalar | Isa::Portable) { dim.div_ceil(16) } else { dim };
        let of_score = (chain + 10) as f64 * largest;
        // Sums within a tile; rescaling and adding per tile, of results and of the sum of the weights; exponentials,
        // the final scale.
        let of_sums = (len.min(64) + 6 * tiles + 14) as f64;
        (2.0 * of_score + of_sums) * ROUNDING
    }

    /// All tokens in one call give the bits of one call each, and of one call for each split of each, on every
    /// instruction set; the first and the last of them agree with `f64`.
    fn check(&self) {
        let inputs = self.inputs();
        let mut ends = vec![0, self.tokens - 1];
        ends.dedup();
        let int8 = self.layout.ty == KvType::Int8;
        let oracles = |token| [false, int8].map(|rounded| self.oracle(&inputs, token, rounded));
        let ends: Vec<_> = ends.into_iter().map(|token| (token, oracles(token))).collect();
        let Self { layout, heads, pos, tokens, window, .. } = self;
        for_each_isa(|k| {
            let what = format!("{layout:?}, {heads} heads, {tokens} tokens from {pos}, window {window:?}");
            let found = self.attend(k, &inputs, 0..self.tokens);
            for (token, found) in found.chunks(self.row().max(1)).enumerate() {
                let alone = self.attend(k, &inputs, token..token + 1);
                assert_eq!(bits(found), bits(&alone), "{}: {what}: token {token}", k.isa().name());
                let parts = self.attend_in_parts(k, &inputs, token);
                assert_eq!(bits(found), bits(&parts), "{}: {what}: token {token} in parts", k.isa().name());
            }
            // Only scalar kernels multiply with 8 bits what is not rounded.
            let rounds = usize::from(!matches!(k.isa(), Isa::Scalar | Isa::Portable));
            for (token, oracles) in &ends {
                let found = &found[token * self.row()..][..self.row()];
                let (results, largest) = &oracles[rounds];
                for (i, (found, (expected, size, slack))) in found.iter().zip(results).enumerate() {
                    assert_close(&what, i, *found, *expected, self.bound(k, *largest) * size + slack);
                }
            }
        });
    }
}

/// Every head size and group that models have, at lengths around the edges of tiles. Emulated, a third: every size with
/// every group, every length with every size and with every group.
#[test]
fn head_sizes_groups_and_lengths() {
    let dims: &[usize] = if cfg!(miri) { &[3] } else { &[32, 64, 80, 96, 128, 256] };
    let groups: &[usize] = if cfg!(miri) { &[2] } else { &[1, 2, 3, 4, 7, 8] };
    let lengths: &[usize] = if cfg!(miri) { &[1, 5] } else { &[1, 63, 64, 65, 127, 129, 500] };
    for (i, &head_dim) in dims.iter().enumerate() {
        for (j, &heads) in groups.iter().enumerate() {
            for (n, &len) in lengths.iter().enumerate() {
                if is_emulated() && (i + j + n) % 3 != 0 {
                    continue;
                }
                let ty = if (head_dim + heads + len) % 3 == 0 { KvType::F32 } else { KvType::F16 };
                let tokens = len.min(1 + (7 * heads + len) % 19);
                check_windows(case(ty, head_dim, heads, len, tokens));
                if head_dim % 32 == 0 {
                    check_windows(case(KvType::Int8, head_dim, heads, len, tokens));
                }
            }
        }
    }
}

/// Around the edges of splits, and with four of them; windows that start in an earlier split, at its first position, in
/// the same one.
#[test]
fn several_splits() {
    if cfg!(miri) {
        return;
    }
    let lengths = [KV_SPLIT - 1, KV_SPLIT, KV_SPLIT + 1, 4095, 4096, 4097];
    let windows = [None, Some(KV_SPLIT + 1), None, Some(2500), Some(KV_SPLIT), None, Some(70)];
    for (i, head_dim) in [32, 64, 96, 128].into_iter().enumerate() {
        for (j, heads) in [1, 2, 3, 4, 7, 8].into_iter().enumerate() {
            // Every length with every size and with every group.
            let (len, n) = (lengths[(i + j) % 6], 6 * i + j);
            let ty = if n % 3 == 0 { KvType::F32 } else { KvType::F16 };
            for ty in [ty, KvType::Int8] {
                Case { window: windows[n % 7], ..case(ty, head_dim, heads, len, 1 + n % 3) }.check();
            }
        }
    }
    // A block of rows over the edge of a split; heads so large that fewer rows go together.
    case(KvType::F16, SMALL_DIM, 4, KV_SPLIT + 9, 20).check();
    Case { window: Some(300), ..case(KvType::F16, SMALL_DIM, 3, 2 * KV_SPLIT + 100, 30) }.check();
    case(KvType::F32, 300, 3, KV_SPLIT + 2, 11).check();
}

#[test]
fn no_tokens() {
    for_each_isa(|k| {
        let case = case(KvType::F16, SMALL_DIM, 3, 5, 0);
        assert!(case.attend(k, &case.inputs(), 0..0).is_empty());
        let case = Case { tokens: 0, ..self::case(KvType::F16, SMALL_DIM, 3, 0, 0) };
        assert!(case.attend(k, &case.inputs(), 0..0).is_empty());
    });
}

/// Without a window, and with one whose start lies in an earlier tile, in the same one, or that holds one position.
fn check_windows(case: Case) {
    let sizes = [None, Some(100), Some(64), Some(5), Some(1)];
    // Each case takes two of them, all cases together all.
    let at = case.seed as usize;
    for window in [sizes[at % 5], sizes[(at / 5 + at + 1) % 5]] {
        Case { window, ..Case { layout: case.layout, ..case } }.check();
    }
}

/// Head sizes that are not whole vectors, or larger than a tile.
#[test]
fn odd_head_sizes() {
    let dims: &[usize] = if cfg!(miri) { &[1] } else { &[1, 15, 17, 20, 129, 300] };
    for ty in [KvType::F32, KvType::F16] {
        for &head_dim in dims {
            case(ty, head_dim, 3, if cfg!(miri) { 2 } else { 130 }, 2).check();
        }
    }
}

/// More rows than one block of a kernel has, cut within a token.
#[test]
fn many_rows() {
    for (heads, tokens) in [(0, 1), (0, 3), (9, 40), (70, 3), (1, 130), (64, 2), (3, 64)] {
        if !cfg!(miri) {
            case(KvType::F16, SMALL_DIM, heads, tokens + 50, tokens).check();
            case(KvType::Int8, SMALL_DIM, heads, tokens + 50, tokens).check();
        }
    }
}

/// Scores of several hundred: one key takes all.
#[test]
fn steep_scores() {
    for spread in [1e-20, 1e2, 1e4] {
        let len = if cfg!(miri) { 4 } else { 130 };
        Case { spread, ..case(KvType::F32, 2 * SMALL_DIM, 3, len, 2) }.check();
    }
}

/// A key or a value that is not a number, or infinite, shows in the tokens that see it and in no other.
#[test]
fn what_is_not_seen_does_not_show() {
    let (dim, heads) = (SMALL_DIM, 3);
    let sizes: &[_] = if cfg!(miri) { &[(3, 2)] } else { &[(20, 20), (70, 30), (200, 33), (KV_SPLIT + 5, 9)] };
    for &(len, tokens) in sizes {
        for window in [None, Some(1), Some(7), Some(66)] {
            let ty = if window == Some(7) && !cfg!(miri) { KvType::Int8 } else { KvType::F32 };
            let case = Case { window, ..case(ty, dim, heads, len, tokens) };
            let clean = case.inputs();
            let bad_at = [len - tokens, len - 1 - tokens / 2, len - 1, len - tokens - usize::from(len > tokens)];
            for (i, at) in bad_at.into_iter().enumerate() {
                let bad = [f32::INFINITY, f32::NAN, f32::NEG_INFINITY][i % 3];
                let with = |part: usize| {
                    let mut inputs = clean.clone();
                    let numbers = [&inputs.cache.keys, &inputs.cache.values][part];
                    let mut row = numbers[at * dim..(at + 1) * dim].to_vec();
                    row[dim / 2] = bad;
                    inputs.cache.put(&case.layout, case.kv_head, part, at, &row);
                    inputs
                };
                for_each_isa(|k| {
                    let expected = case.attend(k, &clean, 0..tokens);
                    for part in [0, 1] {
                        let found = case.attend(k, &with(part), 0..tokens);
                        let rows = found.chunks(case.row()).zip(expected.chunks(case.row()));
                        for (token, (found, expected)) in rows.enumerate() {
                            let pos = case.pos + token;
                            if at > pos || window.is_some_and(|window| at + window <= pos) {
                                assert_eq!(bits(found), bits(expected), "position {at}, token at {pos}");
                            } else if part == 1 {
                                assert!(found.iter().skip(dim / 2).step_by(dim).all(|x| !x.is_finite()));
                            } else if bad.is_nan() {
                                assert!(found.iter().all(|x| x.is_nan()), "position {at}, token at {pos}");
                            }
                        }
                    }
                });
            }
        }
    }
}

/// Queries and results that are columns of larger matrices.
#[test]
fn columns_of_a_matrix() {
    for_each_isa(|k| {
        let case = case(KvType::F16, SMALL_DIM, 2, 9, 4);
        let inputs = case.inputs();
        let (row, tokens) = (case.row(), case.tokens);
        let (stride, before) = (row + 7, 3);
        let mut q = vec![f32::NAN; before + (tokens - 1) * stride + row];
        for (token, from) in inputs.q.chunks(row).enumerate() {
            q[before + token * stride..][..row].copy_from_slice(from);
        }
        let mut out = vec![0.5; tokens * stride];
        let first = out[before..].as_mut_ptr();
        // SAFETY: `row` elements of `tokens` rows that lie `stride > row + before` apart in `out`, used only here.
        let mut tile = unsafe { Tile::from_raw(first, tokens, row, stride) };
        let q = Queries { data: &q[before..], stride };
        case.with(&inputs, &(0..tokens), |a| {
            ops::attention_gqa(k, a, case.kv_head, q, &mut tile).expect("right shapes");
        });
        let expected = case.attend(k, &inputs, 0..tokens);
        for (out, expected) in out.chunks(stride).zip(expected.chunks(row)) {
            assert_eq!(bits(&out[before..before + row]), bits(expected));
            assert!(out[..before].iter().chain(&out[before + row..]).all(|x| *x == 0.5), "written outside the output");
        }
    });
}

/// Normalised mean squared error over a long context.
#[test]
fn four_thousand_keys() {
    const NMSE: f64 = 1e-12;
    const LEN: usize = if cfg!(miri) { 66 } else { 4096 };
    let long = case(KvType::F32, 4 * SMALL_DIM, 2, LEN, 1);
    let inputs = long.inputs();
    let (expected, _) = long.oracle(&inputs, 0, false);
    for_each_isa(|k| {
        let (mut error, mut power) = (0.0, 0.0);
        for (found, (expected, ..)) in long.attend(k, &inputs, 0..1).iter().zip(&expected) {
            error += (f64::from(*found) - expected).powi(2);
            power += expected.powi(2);
        }
        println!("nmse {:e}", error / power);
        assert!(error / power < NMSE, "nmse {:e}", error / power);
    });
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_shape(
        head_dim in 1..70usize, heads in 1..6usize, before in 0..140usize, tokens in 1..20usize, window in 0..150usize,
        ty in 0..3usize, seed: u64,
    ) {
        let ty = [KvType::F32, KvType::F16, KvType::Int8][ty];
        let head_dim = if ty == KvType::Int8 { head_dim.next_multiple_of(32) } else { head_dim };
        let window = (window > 0).then_some(window);
        let (before, tokens) = if cfg!(miri) { (before % 3, tokens % 2 + 1) } else { (before, tokens) };
        Case { window, seed, ..case(ty, head_dim, heads, before + tokens, tokens) }.check();
    }
}
