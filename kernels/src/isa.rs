//! Which instruction set the kernels use: found once on this CPU, then carried as a value.
//!
//! A [`Kernels`] can only be made for an [`Isa`] of [`Isa::available`]; holding one is the proof that its table may be
//! called. [`ops`](crate::ops) leans on exactly that.

use halfbyte_formats::quant::PanelType;
use halfbyte_formats::{Bytes, QuantType};

#[cfg(target_arch = "aarch64")]
use crate::aarch64 as arch;
use crate::dispatch::table::{Kernel, KernelTable};
use crate::pack::PackLayout;
#[cfg(target_arch = "x86_64")]
use crate::x86 as arch;
use crate::{ActivationType, KernelError, PackedMatrix, portable, scalar};

/// A tier of an architecture: what CPUs need for it, and its table.
pub(crate) type TierEntry = (Isa, &'static str, &'static KernelTable);

/// Any other architecture.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    pub(super) static TIERS: [super::TierEntry; 0] = [];

    pub(super) fn has(_feature: &str) -> bool {
        false
    }
}

/// An instruction-set tier: one folder of kernels.
///
/// [`Isa::Scalar`] and [`Isa::Portable`] multiply row-major weights with the activations as they are; the others round
/// activations to 8 bits where weights are quantised, and all do where they are packed ([`PackedMatrix::activations`]).
/// Products with rounded activations agree bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust: the reference every other tier is tested against.
    Scalar,
    /// Plain Rust and portable SIMD: what runs where no other tier fits.
    Portable,
    /// x86-64 with AVX2, FMA and F16C: every server and desktop since 2013.
    Avx2,
    /// AVX2 and the 256-bit dot products of AVX-VNNI: Alder Lake, Zen 5 and later.
    AvxVnni,
    /// AVX-512 with VNNI: Ice Lake, Zen 4 and later.
    Avx512Vnni,
    /// 64-bit Arm: Cortex-A53, A72 and all others.
    Neon,
    /// NEON and dot products of 8 bits: Cortex-A55, A76, Neoverse N1 and later.
    Dotprod,
    /// Those, and products of small matrices of 8 bits: Cortex-A510, A710, X2, Neoverse V1, N2 and later.
    I8mm,
    /// NEON, and dot products in vectors of SVE that have at least 256 bits: A64FX.
    Sve,
    /// Products of small matrices in vectors of SVE that have at least 256 bits: Neoverse V1.
    SveI8mm,
}

impl Isa {
    /// Every tier, best first.
    const ALL: [Self; 10] = [
        Self::Avx512Vnni,
        Self::AvxVnni,
        Self::Avx2,
        Self::SveI8mm,
        Self::I8mm,
        Self::Sve,
        Self::Dotprod,
        Self::Neon,
        Self::Portable,
        Self::Scalar,
    ];

    /// The lower-case name used on command lines and in reports; also the name of the folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512Vnni => "avx512vnni",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
            Self::Sve => "sve",
            Self::SveI8mm => "svei8mm",
        }
    }

    /// The tier of that [`name`](Self::name), whether or not this CPU runs it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// The tiers this CPU runs, best first; the last is always [`Isa::Scalar`].
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Whether this CPU runs the tier.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar | Self::Portable => true,
            _ => self.tier().is_some_and(|(_, features, _)| features.split(',').all(arch::has)),
        }
    }

    /// The functions of an available tier.
    fn table(self) -> &'static KernelTable {
        match self {
            Self::Portable => &portable::TABLE,
            Self::Scalar => &scalar::TABLE,
            _ => self.tier().map_or(&scalar::TABLE, |(.., table)| table),
        }
    }

    /// The tier of this architecture.
    fn tier(self) -> Option<&'static TierEntry> {
        arch::TIERS.iter().find(|(isa, ..)| *isa == self)
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
        let isa = Isa::available().next().unwrap_or(Isa::Scalar);
        Self { isa, table: isa.table() }
    }

    /// The kernels of `isa`.
    ///
    /// # Errors
    /// [`KernelError::UnsupportedIsa`] if this CPU lacks it.
    pub fn with_isa(isa: Isa) -> Result<Self, KernelError> {
        if !isa.is_available() {
            return Err(KernelError::UnsupportedIsa { isa });
        }
        Ok(Self { isa, table: isa.table() })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Makes a matrix `w: (rows, depth)` of row-major blocks of `ty` ready for [`ops::matmul`](crate::ops::matmul).
    /// `data` is kept, not copied.
    ///
    /// # Errors
    /// [`KernelError::UnsupportedType`] if nothing multiplies `ty`, [`KernelError::NotMultiple`] if `depth` is not a
    /// whole number of blocks, [`KernelError::ShapeMismatch`] if `data` has another length than the shape calls for.
    pub fn pack(&self, ty: QuantType, rows: usize, depth: usize, data: Bytes) -> Result<PackedMatrix, KernelError> {
        let activations = match (self.table.kernel)(PackLayout::RowMajor(ty)) {
            Some(Kernel::Float { .. }) => ActivationType::F32,
            Some(Kernel::Panels(_)) => ActivationType::Q8,
            None => return Err(KernelError::UnsupportedType { ty }),
        };
        PackedMatrix::new([rows, depth], PackLayout::RowMajor(ty), activations, data)
    }

    /// The same for a matrix that is stored in panels of 16 rows. It takes 8-bit activations on every instruction set.
    ///
    /// # Errors
    /// [`KernelError::NotMultiple`] if `depth` is not a whole number of [units](PanelType::unit_len),
    /// [`KernelError::ShapeMismatch`] if `data` has another length than the shape calls for.
    pub fn packed(&self, ty: PanelType, rows: usize, depth: usize, data: Bytes) -> Result<PackedMatrix, KernelError> {
        PackedMatrix::new([rows, depth], PackLayout::Panels(ty), ActivationType::Q8, data)
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
        let tiers: Vec<Isa> = Isa::available().collect();
        for (i, tier) in tiers.iter().enumerate() {
            assert!(tiers.iter().skip(i + 1).all(|other| !ptr::eq(tier.table(), other.table())), "{tier:?}");
        }
    }
}
