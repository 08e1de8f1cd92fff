//! Which instruction set the kernels use: found once on this CPU, then carried as a value.
//!
//! A [`Kernels`] can only be made for an [`Isa`] of [`Isa::available`]; holding one is the proof that its table may be
//! called. [`ops`](crate::ops) leans on exactly that.

use halfbyte_formats::{Bytes, QuantType};

use crate::dispatch::table::KernelTable;
use crate::{KernelError, PackedMatrix, portable, scalar};

/// An instruction-set tier: one folder of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust: the reference every other tier is tested against.
    Scalar,
    /// Plain Rust and portable SIMD: what runs where no other tier fits.
    Portable,
}

impl Isa {
    /// The lower-case name used on command lines and in reports; also the name of the folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Portable => "portable",
        }
    }

    /// The tier of that [`name`](Self::name), whether or not this CPU runs it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Scalar, Self::Portable].into_iter().find(|isa| isa.name() == name)
    }

    /// The tiers this CPU runs, best first; the last is always [`Isa::Scalar`].
    pub fn available() -> &'static [Self] {
        &[Self::Portable, Self::Scalar]
    }

    fn table(self) -> &'static KernelTable {
        match self {
            Self::Scalar => &scalar::TABLE,
            Self::Portable => &portable::TABLE,
        }
    }
}

/// The kernels of one instruction set, proved to run on this CPU.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    isa: Isa,
    table: &'static KernelTable,
}

impl Kernels {
    /// The best this CPU has.
    pub fn detect() -> Self {
        let isa = Isa::available().first().copied().unwrap_or(Isa::Scalar);
        Self { isa, table: isa.table() }
    }

    /// The kernels of `isa`.
    ///
    /// # Errors
    /// [`KernelError::UnsupportedIsa`] if this CPU lacks it.
    pub fn with_isa(isa: Isa) -> Result<Self, KernelError> {
        if !Isa::available().contains(&isa) {
            return Err(KernelError::UnsupportedIsa { isa });
        }
        Ok(Self { isa, table: isa.table() })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Makes a matrix `w: (rows, depth)` of row-major blocks of `ty` ready for [`ops::matmul`](crate::ops::matmul).
    /// The layout of this tier is the stored one, so `data` is kept, not copied.
    ///
    /// # Errors
    /// [`KernelError::UnsupportedType`] if nothing multiplies `ty`, [`KernelError::NotMultiple`] if `depth` is not a
    /// whole number of blocks, [`KernelError::ShapeMismatch`] if `data` has another length than the shape calls for.
    pub fn pack(&self, ty: QuantType, rows: usize, depth: usize, data: Bytes) -> Result<PackedMatrix, KernelError> {
        let entry = self.table.matmul(ty).ok_or(KernelError::UnsupportedType { ty })?;
        PackedMatrix::new(ty, rows, depth, entry.layout, data)
    }

    /// The functions of this instruction set.
    pub(crate) fn table(&self) -> &'static KernelTable {
        self.table
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::Isa;

    /// A tier wired to another one's table would pass every other test.
    #[test]
    fn each_tier_has_its_own_table() {
        let tiers = Isa::available();
        for (i, tier) in tiers.iter().enumerate() {
            assert!(tiers.iter().skip(i + 1).all(|other| !ptr::eq(tier.table(), other.table())), "{tier:?}");
        }
    }
}
