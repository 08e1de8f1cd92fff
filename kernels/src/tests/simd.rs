//! What is written once over sixteen lanes: every tier gives the bits that plain arrays give, and those are close to
//! scalar.
//!
//! Where the system can, inputs and outputs lie beside pages that cannot be touched.

use std::ops::DerefMut;

use halfbyte_formats::quant;
use halfbyte_formats::{Bytes, QuantType};
use proptest::prelude::*;

use super::arrays::Arrays;
#[cfg(all(unix, not(miri)))]
use super::guard::{Guarded, Side};
use super::{Rng, cases, is_emulated, tables};
use crate::dispatch::table::{Kernel, KernelTable, QuantizeFn};
use crate::dispatch::tier::{self, Floats};
use crate::ops::{AttentionGqa, Queries, part_len};
use crate::pack::{PackLayout, WeightRows};
use crate::panel::MicroFn;
use crate::simd::{self, Decode, Eight, Elements, Plain, TOKENS};
use crate::{ActivationType, Isa, KV_PAGE, KvLayout, KvPart, KvType, PackedMatrix, Tile, scalar};

/// A table of [`Arrays`].
static ARRAYS: KernelTable = KernelTable {
    kernel: |layout| match layout {
        PackLayout::RowMajor(ty) => tier::floats::<Plainly>(ty),
        PackLayout::Panels(_) => None,
    },
    rms_norm: |x, weight, eps, out| simd::rms_norm(Arrays, x, weight, eps, out),
    layer_norm: |x, weight, bias, eps, out| simd::layer_norm(Arrays, x, weight, bias, eps, out),
    rope_neox: |x, head_dim, cos, sin| simd::rope_neox(Arrays, x, head_dim, cos, sin),
    silu_mul: |gate, up| simd::silu_mul(Arrays, gate, up),
    add: |x, y| simd::add(Arrays, x, y),
    softmax: |x| simd::softmax(Arrays, x),
    kv_append: |layout, part, half, slot, row| simd::kv_append(Arrays, layout, part, half, slot, row),
    // SAFETY: called under the contract of the table.
    attention_gqa: |a, kv_head, q, out| unsafe { simd::attention_gqa::<_, Plainly>(Arrays, a, kv_head, q, out) },
    // SAFETY: as above.
    attention_part: |a, kv_head, split, q, part| unsafe {
        simd::attention_part::<_, Plainly>(Arrays, a, kv_head, split, q, part)
    },
    attention_merge: |head_dim, parts, out| simd::attention_merge(Arrays, head_dim, parts, out),
    ..scalar::TABLE
};

/// Products of [`Arrays`], and of 8 bits the scalar ones.
struct Plainly;

impl Eight for Plainly {
    const MICRO: MicroFn = scalar::panel::micro;
    const QUANTIZE: QuantizeFn = scalar::TABLE.quantize;
}

impl Floats for Plainly {
    fn plain<E: Plain>() -> Kernel {
        Kernel::Float { gemv: gemv::<E>, gemm: decoded::<Elements<E>, TOKENS> }
    }

    fn blocks<D: Decode>() -> Kernel {
        Kernel::Float { gemv: decoded::<D, 1>, gemm: decoded::<D, TOKENS> }
    }
}

/// # Safety
/// As [`simd::gemv`].
unsafe fn gemv<E: Plain>(w: WeightRows<'_>, _: usize, x: &[f32], out: &mut Tile<'_>) {
    // SAFETY: the same contract.
    unsafe { simd::gemv::<_, E>(Arrays, w, x, out) };
}

/// # Safety
/// As [`simd::decoded`].
unsafe fn decoded<D: Decode, const T: usize>(w: WeightRows<'_>, depth: usize, x: &[f32], out: &mut Tile<'_>) {
    // SAFETY: the same contract.
    unsafe { simd::decoded::<_, D, T>(Arrays, w, depth, x, out) };
}

#[cfg(not(all(unix, not(miri))))]
#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

/// A copy of `data` beside a page that cannot be touched, if the system has such.
fn beside<T: Copy + Send + Sync>(data: &[T], side: Side) -> impl DerefMut<Target = [T]> + AsRef<[T]> + Sync + use<T> {
    #[cfg(all(unix, not(miri)))]
    return Guarded::new(data, side);
    #[cfg(not(all(unix, not(miri))))]
    return {
        let _ = side;
        data.to_vec()
    };
}

/// Bits; NaN is NaN.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN } else { *x }.to_bits()).collect()
}

/// Runs `op` with each table. `op` changes the `f32` it is given.
fn check(what: &str, start: &[f32], op: impl Fn(&KernelTable, Side, &mut [f32])) {
    check_within(|_, largest| 1e-5 * largest, what, start, op);
}

/// As [`check`]. Scalar kernels may differ by `tolerance` of an element's number and of the largest result.
fn check_within(
    tolerance: impl Fn(usize, f32) -> f32,
    what: &str,
    start: &[f32],
    op: impl Fn(&KernelTable, Side, &mut [f32]),
) {
    let run = |table: &KernelTable, side| {
        let mut out = beside(start, side);
        op(table, side, &mut out);
        out.to_vec()
    };
    let expected = run(&ARRAYS, Side::After);
    let scalar = run(&scalar::TABLE, Side::After);
    let largest = scalar.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (i, (a, b)) in expected.iter().zip(&scalar).enumerate() {
        let close = (a - b).abs() <= tolerance(i, largest) || a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(close, "{what}, element {i}: {a} with lanes, {b} without");
    }
    for (isa, table) in tables().filter(|(isa, _)| !matches!(isa, Isa::Scalar | Isa::Portable)) {
        for side in [Side::Before, Side::After] {
            let found = run(table, side);
            assert_eq!(bits(&found), bits(&expected), "{what} on {isa:?}");
        }
    }
}

/// Uniform in -1..1.
fn floats(rng: &mut Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| (rng.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Sizes around one and several vectors.
fn sizes() -> impl Iterator<Item = usize> {
    [1, 17, 2, 15, 16, 31, 32, 33, 48, 63, 64, 65, 129, 300].into_iter().take(if cfg!(miri) { 2 } else { 14 })
}

#[test]
fn norms() {
    for n in sizes() {
        let mut rng = Rng(n as u64);
        let (x, w, b) = (floats(&mut rng, 2 * n), floats(&mut rng, n), floats(&mut rng, n));
        check("rms_norm", &vec![f32::NAN; 2 * n], |table, side, out| {
            // SAFETY: the table of a CPU that runs it, and right shapes, here and below.
            unsafe { (table.rms_norm)(&beside(&x, side), &beside(&w, side), 1e-5, out) };
        });
        check("layer_norm", &vec![f32::NAN; 2 * n], |table, side, out| {
            // SAFETY: as above.
            unsafe { (table.layer_norm)(&beside(&x, side), &beside(&w, side), &beside(&b, side), 1e-5, out) };
        });
    }
}

#[test]
fn element_wise() {
    for n in sizes() {
        let mut rng = Rng(n as u64);
        let (x, y) = (floats(&mut rng, n), floats(&mut rng, n));
        let wide: Vec<f32> = x.iter().map(|x| x * 95.0).collect();
        check("silu_mul", &wide, |table, side, x| {
            // SAFETY: the table of a CPU that runs it, and right shapes, here and below.
            unsafe { (table.silu_mul)(x, &beside(&y, side)) };
        });
        check("softmax", &wide, |table, _, x| {
            // SAFETY: as above.
            unsafe { (table.softmax)(x) };
        });
        check("add", &x, |table, side, x| {
            // SAFETY: as above.
            unsafe { (table.add)(x, &beside(&y, side)) };
        });
        // Heads of an odd size, with some dimensions that are not rotated.
        let heads = floats(&mut rng, 3 * (2 * n + 3));
        check("rope_neox", &heads, |table, side, heads| {
            // SAFETY: as above.
            unsafe { (table.rope_neox)(heads, 2 * n + 3, &beside(&x, side), &beside(&y, side)) };
        });
    }
}

/// Every element of a vector or a tail has the result of any other place.
/// Not under miri, which varies the last bit of `exp` on purpose.
#[cfg(not(miri))]
#[test]
fn place_does_not_matter() {
    let n = 67;
    let mut rng = Rng(3);
    let (x, y) = (floats(&mut rng, 2 * n), floats(&mut rng, n));
    let (cos, sin) = (floats(&mut rng, n), floats(&mut rng, n));
    let turned = |x: &[f32], by: usize| [&x[by..], &x[..by]].concat();
    for table in tables().map(|(_, table)| table).chain([&ARRAYS]) {
        let run = |by: usize| {
            let [a, b] = [&x[..n], &x[n..]].map(|x| turned(x, by));
            let mut silu = a.clone();
            // SAFETY: the table of a CPU that runs it, and right shapes, here and below.
            unsafe { (table.silu_mul)(&mut silu, &turned(&y, by)) };
            let mut rope = [a, b].concat();
            // SAFETY: as above.
            unsafe { (table.rope_neox)(&mut rope, 2 * n, &turned(&cos, by), &turned(&sin, by)) };
            let (first, second) = rope.split_at(n);
            [&silu, first, second].map(|x| turned(x, (n - by) % n))
        };
        let expected = run(0);
        for by in 1..n {
            assert_eq!(run(by), expected, "turned by {by}");
        }
    }
}

#[test]
fn cache() {
    for n in sizes() {
        let mut rng = Rng(n as u64);
        let any: Vec<f32> = (0..n).map(|_| rng.float()).collect();
        for ty in [KvType::F16, KvType::F32, KvType::Int8] {
            let layout = KvLayout { ty, kv_heads: 1, head_dim: n };
            if layout.check_head().is_err() {
                continue;
            }
            let bytes = layout.half_bytes().expect("small");
            let run = |table: &KernelTable, side| {
                let mut half = beside(&vec![0x5au8; bytes], side);
                for slot in [0, KV_PAGE - 1] {
                    // SAFETY: the table of a CPU that runs it, and right shapes.
                    unsafe { (table.kv_append)(&layout, KvPart::Keys, &mut half, slot, &beside(&any, side)) };
                }
                match ty {
                    KvType::F32 | KvType::Int8 => half.to_vec(),
                    // NaN is NaN.
                    KvType::F16 => {
                        let halves = half.as_chunks().0.iter().map(|x| half::f16::from_le_bytes(*x));
                        halves.flat_map(|x| if x.is_nan() { [0xff; 2] } else { x.to_le_bytes() }).collect()
                    }
                }
            };
            let expected = run(&scalar::TABLE, Side::After);
            for (isa, table) in tables().chain([(Isa::Scalar, &ARRAYS)]) {
                for side in [Side::Before, Side::After] {
                    assert_eq!(run(table, side), expected, "{isa:?}, {ty:?}, {n} elements");
                }
            }
        }
    }
}

/// `n` blocks that decode to ordinary numbers.
fn valid_blocks(ty: QuantType, n: usize, rng: &mut Rng) -> Vec<u8> {
    let mut values = vec![0.0f32; ty.block_len()];
    let mut data = Vec::new();
    while data.len() < n * ty.block_bytes() {
        let block = rng.bytes(ty.block_bytes());
        quant::decode(ty, &block, &mut values).expect("one block");
        if values.iter().all(|x| x.abs() < 8.0) {
            data.extend(block);
        }
    }
    data
}

fn check_matmul(ty: QuantType, rows: usize, depth: usize, tokens: usize, rng: &mut Rng) {
    let data = valid_blocks(ty, rows * depth / ty.block_len(), rng);
    let x = floats(rng, tokens * depth);
    let what = format!("{ty:?}: {rows} rows, {depth} deep, {tokens} tokens");
    // A sum may be much smaller than what it is of.
    let mut w = vec![0.0f32; rows * depth];
    quant::decode(ty, &data, &mut w).expect("whole blocks");
    let product = |(w, x): (&f32, &f32)| (w * x).abs();
    let sizes = x.chunks(depth).flat_map(|x| w.chunks(depth).map(move |w| w.iter().zip(x).map(product).sum::<f32>()));
    let sizes: Vec<f32> = sizes.collect();
    let tolerance = |i: usize, _| 1e-6 * sizes[i];
    check_within(tolerance, &what, &vec![f32::NAN; tokens * rows], |table, side, out| {
        let data = Bytes::from(data.clone());
        #[cfg(all(unix, not(miri)))]
        let data = Bytes::from_owner(Guarded::new(&data, side));
        let w = PackedMatrix::new([rows, depth], PackLayout::RowMajor(ty), ActivationType::F32, data);
        let w = w.expect("right shape");
        let mut out = Tile::new(out, tokens, rows).expect("right length");
        let Some(Kernel::Float { gemv, gemm }) = (table.kernel)(PackLayout::RowMajor(ty)) else {
            panic!("not a product with floats")
        };
        let kernel = if tokens == 1 { gemv } else { gemm };
        // SAFETY: the table of a CPU that runs it, and right shapes.
        unsafe { kernel(w.rows_in(0..rows).expect("all rows"), depth, &beside(&x, side), &mut out) };
    });
}

const FLOATS: [QuantType; 3] = [QuantType::F32, QuantType::F16, QuantType::BF16];

const BLOCKS: [QuantType; 7] = [
    QuantType::Q4_1,
    QuantType::Q5_1,
    QuantType::Q2_K,
    QuantType::Q3_K,
    QuantType::IQ4_NL,
    QuantType::IQ4_XS,
    QuantType::MXFP4,
];

#[test]
fn products() {
    let shapes = [(2, 1), (9, 2), (1, 1), (4, 1), (5, 1), (8, 6), (3, 7), (13, 37), (1, 80)];
    for (rows, tokens) in shapes.into_iter().take(if cfg!(miri) { 1 } else { 9 }) {
        let mut rng = Rng((rows + tokens) as u64);
        for ty in FLOATS {
            let depths = [19, 1, 16, 31, 512, 530, 1040];
            for depth in depths.into_iter().take(if cfg!(miri) { 1 } else { 7 }) {
                check_matmul(ty, rows, depth, tokens, &mut rng);
            }
        }
        for ty in BLOCKS {
            for blocks in [1, 2, 3, 5, 17].into_iter().take(if cfg!(miri) { 1 } else { 5 }) {
                check_matmul(ty, rows, blocks * ty.block_len(), tokens, &mut rng);
            }
        }
    }
}

struct Shape {
    ty: KvType,
    head_dim: usize,
    heads: usize,
    pos: usize,
    tokens: usize,
    window: Option<usize>,
}

fn check_attention(shape: &Shape, rng: &mut Rng) {
    let Shape { ty, head_dim, heads, pos, tokens, window } = *shape;
    let layout = KvLayout { ty, kv_heads: 2, head_dim };
    let half = layout.half_bytes().expect("small");
    let mut page = || {
        let mut page = vec![0; layout.page_bytes().expect("small")];
        for half in page.chunks_exact_mut(half) {
            for slot in 0..KV_PAGE {
                // SAFETY: right shapes.
                unsafe { (scalar::TABLE.kv_append)(&layout, KvPart::Keys, half, slot, &floats(rng, head_dim)) };
            }
        }
        page
    };
    // Scalar kernels do not round queries and weights.
    let tolerance = |_, largest: f32| if ty == KvType::Int8 { 0.08 * largest } else { 1e-5 * largest };
    let pages: Vec<Vec<u8>> = (0..(pos + tokens).div_ceil(KV_PAGE)).map(|_| page()).collect();
    let (row, stride) = (heads * head_dim, heads * head_dim + 5);
    let q = floats(rng, (tokens - 1) * stride + row);
    let what = format!("{ty:?}, {heads} heads of {head_dim}, {tokens} tokens from {pos}, window {window:?}");
    let guarded = |side| pages.iter().map(|page| beside(page, side)).collect::<Vec<_>>();
    // The values of the last head end where the page ends, the keys of the first begin where it begins.
    for kv_head in [0, 1] {
        check_within(tolerance, &what, &vec![f32::NAN; tokens * row], |table, side, out| {
            let pages = guarded(side);
            let a = AttentionGqa { layout: &layout, pages: &pages, pos, window, scale: 0.7 };
            let q = beside(&q, side);
            let mut out = Tile::new(out, tokens, row).expect("right length");
            // SAFETY: the table of a CPU that runs it, and right shapes.
            unsafe { (table.attention_gqa)(&a, kv_head, Queries { data: &q, stride }, &mut out) };
        });
        check_within(tolerance, &format!("{what}, in parts"), &vec![f32::NAN; row], |table, side, out| {
            let pages = guarded(side);
            let a = AttentionGqa { layout: &layout, pages: &pages, pos, window, scale: 0.7 };
            let q = beside(&q[..row], side);
            let mut parts = Vec::new();
            for split in a.splits() {
                let mut part = beside(&vec![f32::NAN; part_len(heads, head_dim).expect("small")], side);
                // SAFETY: as above.
                unsafe { (table.attention_part)(&a, kv_head, split, &q, &mut part) };
                parts.extend_from_slice(&part);
            }
            // SAFETY: as above.
            unsafe { (table.attention_merge)(head_dim, &beside(&parts, side), out) };
        });
    }
}

#[test]
fn attention() {
    let shapes = [
        (3usize, 2, 0, 2),
        (128, 4, 130, 20),
        (64, 7, 60, 9),
        (96, 1, 0, 70),
        (300, 2, 63, 3),
        (20, 13, 64, 11),
        (40, 5, 1020, 9),
        (16, 2, 2040, 12),
        (32, 3, 126, 5),
        (128, 1, 1023, 2),
        (256, 8, 0, 66),
    ];
    let windows = [None, Some(1), Some(40), Some(70)];
    for (i, (head_dim, heads, pos, tokens)) in shapes.into_iter().take(if cfg!(miri) { 1 } else { 11 }).enumerate() {
        for ty in [KvType::F32, KvType::F16, KvType::Int8] {
            let head_dim = if ty == KvType::Int8 { head_dim.next_multiple_of(32).min(256) } else { head_dim };
            for (n, window) in windows.into_iter().enumerate().take(if cfg!(miri) { 2 } else { 4 }) {
                // Half of them, other ones with the next shape.
                if is_emulated() && (i + n) % 2 != 0 {
                    continue;
                }
                let shape = Shape { ty, head_dim, heads, pos, tokens, window };
                check_attention(&shape, &mut Rng(i as u64));
            }
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_attention(
        head_dim in 1..140usize, heads in 1..9usize, pos in 0..140usize, tokens in 1..24usize, window in 0..150usize,
        ty in 0..3usize, seed: u64,
    ) {
        let ty = [KvType::F32, KvType::F16, KvType::Int8][ty];
        let window = (window > 0).then_some(window);
        let (head_dim, pos, tokens) = if cfg!(miri) { (head_dim % 20 + 1, pos % 3, 1) } else { (head_dim, pos, tokens) };
        let head_dim = if ty == KvType::Int8 { head_dim.next_multiple_of(32) } else { head_dim };
        check_attention(&Shape { ty, head_dim, heads, pos, tokens, window }, &mut Rng(seed));
    }

    #[test]
    fn any_product(ty in 0..10usize, rows in 1..20usize, blocks in 1..40usize, tokens in 1..40usize, seed: u64) {
        let ty = [&FLOATS[..], &BLOCKS].concat()[ty];
        let (rows, blocks, tokens) = if cfg!(miri) { (1, 1, tokens % 2 + 1) } else { (rows, blocks, tokens) };
        let depth = if ty.block_len() == 1 { 17 * blocks } else { ty.block_len() * (blocks % 5 + 1) };
        check_matmul(ty, rows, depth, tokens, &mut Rng(seed));
    }
}

/// Off by at most 0.9 units in the last place; tried here for one in 9973 of all numbers.
#[test]
fn exponential() {
    let step = if cfg!(miri) { 99_999_989 } else { 9973 };
    for bits in (0..=u32::MAX).step_by(step).chain([f32::MIN_POSITIVE, 88.72284, -103.97208].map(f32::to_bits)) {
        let x = f32::from_bits(bits);
        let [found, ..] = simd::exp(Arrays, [x; 16]);
        let expected = f64::from(x).exp();
        if x.is_nan() || expected.is_infinite() || expected > f64::from(f32::MAX) {
            assert!(if x.is_nan() { found.is_nan() } else { found >= f32::MAX }, "exp({x}) is {found}");
            continue;
        }
        // The distance of the two numbers around it.
        let nearest = expected as f32;
        let below = if f64::from(nearest) > expected { nearest.next_down() } else { nearest };
        let unit = f64::from(below.next_up()) - f64::from(below);
        let error = (f64::from(found) - expected).abs() / unit;
        assert!(error <= 0.9, "exp({x:e}) is {found:e}, {error} units from {expected:e}");
    }
    let [zero, one, infinity] = [f32::NEG_INFINITY, 0.0, f32::INFINITY].map(|x| simd::exp(Arrays, [x; 16])[0]);
    assert_eq!([zero, one, infinity], [0.0, 1.0, f32::INFINITY]);
}
