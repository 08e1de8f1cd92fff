//! Which model a file of prefixes belongs to, and whether bytes are what they were: one 64-bit hash for both.

use std::sync::OnceLock;

use halfbyte_formats::{Bytes, gguf::Gguf};

use crate::{RuntimeError, config::ModelConfig, memory::with_room};

/// Bytes of a tensor that are hashed whole, and those of a piece of a larger one.
const WHOLE: usize = 64 << 10;
const PIECE: usize = 4 << 10;

/// FNV-1a (Fowler, Noll and Vo) over words of 8 bytes, whose upper half is folded into the lower after each: every step
/// is a bijection, so that two inputs of one length that differ in one word never have the same sum. No protection
/// against somebody who wants to deceive, only against accidents.
#[derive(Clone, Copy)]
pub(super) struct Hash(u64);

impl Hash {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds `bytes`, filled up with zeros to whole words, and their number.
    pub(super) fn add(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
        self
    }

    fn word(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 = mixed ^ (mixed >> 32);
    }

    pub(super) fn sum(self) -> u64 {
        self.0
    }
}

/// What a model's keys and values depend on: hyperparameters, whose arithmetic, instruction set, and the stored
/// weights. Of a tensor of more than 64 KiB, sixteen pieces of 4 KiB stand for all.
pub(crate) struct Fingerprint {
    head: u64,
    tensors: Vec<Bytes>,
    sum: OnceLock<u64>,
}

impl Fingerprint {
    /// Of the model in `file`; `arithmetic` says what else decides its numbers. Weights are looked at when it is asked
    /// for.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub(crate) fn new(file: &Gguf, config: &ModelConfig, arithmetic: &str) -> Result<Self, RuntimeError> {
        let mut head = Hash::new().add(format!("{config:?}").as_bytes()).add(arithmetic.as_bytes());
        for tensor in file.tensors() {
            head =
                head.add(format!("{} {:?} {:?} {:?}", tensor.name, tensor.dims, tensor.ty, tensor.panels()).as_bytes());
        }
        let mut tensors = with_room("tensors", file.tensors().len())?;
        tensors.extend(file.tensors().iter().map(|tensor| tensor.data.clone()));
        Ok(Self { head: head.sum(), tensors, sum: OnceLock::new() })
    }

    pub(super) fn sum(&self) -> u64 {
        *self.sum.get_or_init(|| {
            let mut hash = Hash::new().add(&self.head.to_le_bytes());
            for bytes in &self.tensors {
                if bytes.len() <= WHOLE {
                    hash = hash.add(bytes);
                    continue;
                }
                let pieces = WHOLE / PIECE;
                let last = bytes.len() - PIECE;
                for n in 0..pieces {
                    let start = (last as u128 * n as u128 / (pieces as u128 - 1)) as usize;
                    hash = hash.add(bytes.get(start..start + PIECE).unwrap_or(&[]));
                }
            }
            hash.sum()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_a_word_changes_the_sum() {
        let bytes: Vec<u8> = (0..100).collect();
        let sum = Hash::new().add(&bytes).sum();
        for n in 0..bytes.len() {
            for change in 1..=255 {
                let mut other = bytes.clone();
                other[n] ^= change;
                assert_ne!(Hash::new().add(&other).sum(), sum);
            }
        }
        let zeros = [0; 9];
        for n in 0..9 {
            assert_ne!(Hash::new().add(&zeros[..n]).sum(), Hash::new().add(&zeros[..n + 1]).sum());
        }
        assert_ne!(Hash::new().add(b"ab").add(b"c").sum(), Hash::new().add(b"a").add(b"bc").sum());
    }
}
