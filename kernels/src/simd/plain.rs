//! Elements that are read straight into lanes.

use super::{LANES, Simd};

/// A format of one element a number.
pub(crate) trait Plain {
    const BYTES: usize;

    /// Sixteen elements, exactly.
    ///
    /// # Safety
    /// They are there, at any address, and initialised.
    unsafe fn load_at<S: Simd>(s: S, at: *const u8) -> S::F32;

    /// At most sixteen elements, then zeros.
    #[inline(always)]
    fn load_part<S: Simd>(s: S, bytes: &[u8]) -> S::F32 {
        let mut lanes = [0; 4 * LANES];
        for (lane, byte) in lanes.iter_mut().zip(bytes) {
            *lane = *byte;
        }
        // SAFETY: sixteen elements of at most four bytes.
        unsafe { Self::load_at(s, lanes.as_ptr()) }
    }
}

/// `f32`
pub(crate) struct Single;
/// `f16`
pub(crate) struct Half;
/// `bf16`
pub(crate) struct Brain;

impl Plain for Single {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load_at<S: Simd>(s: S, at: *const u8) -> S::F32 {
        // SAFETY: the same contract.
        unsafe { s.load_at(at.cast()) }
    }
}

impl Plain for Half {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load_at<S: Simd>(s: S, at: *const u8) -> S::F32 {
        // SAFETY: the same contract.
        s.load_f16(unsafe { &*at.cast() })
    }
}

impl Plain for Brain {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load_at<S: Simd>(s: S, at: *const u8) -> S::F32 {
        // SAFETY: the same contract.
        s.load_bf16(unsafe { &*at.cast() })
    }
}
