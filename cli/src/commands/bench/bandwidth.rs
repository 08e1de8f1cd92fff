//! How fast this machine reads the weights when it does nothing else: the limit of decoding.
//!
//! Every decoded token reads all weights once, so tokens per second times bytes per token, over this bandwidth, says
//! how much of the machine decoding uses. The same pages are read as the kernels read, by as many threads. Which way
//! of reading is fastest differs between machines; the best of three counts:
//!
//! - plain: one running sum of 8-byte words;
//! - ahead: the same, touching each cache line 2 KiB before it is its turn, a prefetch in safe code;
//! - wide: sixteen independent sums, which compile to vector loads. (Tried: the same with 32-byte vectors forced by
//!   `target_feature`. It was not faster here: memory is the limit, not the loads.)

use std::{
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use halfbyte::Gguf;

/// Bytes a thread takes at a time.
const PIECE_BYTES: usize = 1 << 20;
/// How far in front of the sum a line is touched.
const AHEAD_BYTES: usize = 2048;
const LINE_BYTES: usize = 64;

/// A way of reading: something that depends on every byte.
type Read = fn(&[u8]) -> u64;

/// Every way, with its name.
pub(super) const READS: [(&str, Read); 3] = [("plain", plain), ("ahead", ahead), ("wide", wide)];

/// Reads all tensor data of `file` once with `threads` threads; in bytes per second.
pub(super) fn measure(file: &Gguf, threads: usize, read: Read) -> f64 {
    let pieces: Vec<&[u8]> = file.tensors().iter().flat_map(|tensor| tensor.data.chunks(PIECE_BYTES)).collect();
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut sum = 0u64;
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            sum = sum.wrapping_add(read(piece));
        }
        black_box(sum);
    };
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    bytes as f64 / start.elapsed().as_secs_f64()
}

/// Words of `bytes`, up to seven bytes at the end left out.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

fn plain(bytes: &[u8]) -> u64 {
    words(bytes).fold(0, u64::wrapping_add)
}

fn ahead(bytes: &[u8]) -> u64 {
    let (lines, rest) = bytes.as_chunks::<LINE_BYTES>();
    lines.iter().enumerate().fold(plain(rest), |sum, (n, line)| {
        let touched = bytes.get(n * LINE_BYTES + AHEAD_BYTES).copied().unwrap_or(0);
        sum.wrapping_add(plain(line)).wrapping_add(touched.into())
    })
}

fn wide(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 16];
    let (rows, rest) = bytes.as_chunks::<128>();
    for row in rows {
        for (sum, word) in sums.iter_mut().zip(row.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.into_iter().fold(plain(rest), u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_read_sees_every_word() {
        for len in [0, 8, 64, 128, 136, 4096, 5000] {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 37 % 251) as u8).collect();
            let expected = words(&bytes).fold(0, u64::wrapping_add);
            let touched: u64 = bytes.iter().skip(AHEAD_BYTES).step_by(LINE_BYTES).map(|&byte| u64::from(byte)).sum();
            assert_eq!(wide(&bytes), expected, "wide, {len} bytes");
            assert_eq!(ahead(&bytes), expected.wrapping_add(touched), "ahead, {len} bytes");
        }
    }
}
