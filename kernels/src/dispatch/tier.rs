//! What tiers written by hand have in common: a product for each format, of which they write three kinds.

use std::marker::PhantomData;

use halfbyte_formats::QuantType;
use halfbyte_formats::quant::{IQ4_NL, IQ4_XS, MXFP4, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};

use super::table::Kernel;
use crate::pack::{OfFormat, PackLayout, PanelFormat, of_format};
use crate::panel::PanelKernel;
use crate::panel::build::{RowMajor, Source, Stored};
use crate::scalar;
use crate::simd::{Brain, Decode, Half, Plain, Single};

/// A tier with products of its own.
pub(crate) trait Tier {
    /// The tier that has the products with activations as they are: itself, or one below.
    type Floats: Floats;

    /// The product of weights that become panels, with activations of 8 bits.
    fn panels<F: Source>() -> PanelKernel;
}

/// A tier with products of floats.
pub(crate) trait Floats {
    /// That of plain elements.
    fn plain<E: Plain>() -> Kernel;

    /// That of blocks without panels.
    fn blocks<D: Decode>() -> Kernel;
}

/// [`KernelTable::kernel`](super::table::KernelTable) of the tier `T`.
pub(crate) fn kernel<T: Tier>(layout: PackLayout) -> Option<Kernel> {
    struct Panels<T>(PhantomData<T>);
    impl<T: Tier> OfFormat for Panels<T> {
        type Output = PanelKernel;

        fn of<P: PanelFormat>(self) -> PanelKernel {
            T::panels::<Stored<P>>()
        }
    }
    Some(Kernel::Panels(match layout {
        PackLayout::Panels(ty) => of_format(ty, Panels::<T>(PhantomData)),
        PackLayout::RowMajor(QuantType::Q4_0) => T::panels::<RowMajor<Q4_0>>(),
        PackLayout::RowMajor(QuantType::Q5_0) => T::panels::<RowMajor<Q5_0>>(),
        PackLayout::RowMajor(QuantType::Q8_0) => T::panels::<RowMajor<Q8_0>>(),
        PackLayout::RowMajor(QuantType::Q4_K) => T::panels::<RowMajor<Q4_K>>(),
        PackLayout::RowMajor(QuantType::Q5_K) => T::panels::<RowMajor<Q5_K>>(),
        PackLayout::RowMajor(QuantType::Q6_K) => T::panels::<RowMajor<Q6_K>>(),
        PackLayout::RowMajor(ty) => return floats::<T::Floats>(ty),
    }))
}

/// The kernel of `T` for weights of `ty`, of which no panels are made; the scalar one if it has none.
pub(crate) fn floats<T: Floats>(ty: QuantType) -> Option<Kernel> {
    Some(match ty {
        QuantType::F32 => T::plain::<Single>(),
        QuantType::F16 => T::plain::<Half>(),
        QuantType::BF16 => T::plain::<Brain>(),
        QuantType::Q4_1 => T::blocks::<Q4_1>(),
        QuantType::Q5_1 => T::blocks::<Q5_1>(),
        QuantType::Q2_K => T::blocks::<Q2_K>(),
        QuantType::Q3_K => T::blocks::<Q3_K>(),
        QuantType::IQ4_NL => T::blocks::<IQ4_NL>(),
        QuantType::IQ4_XS => T::blocks::<IQ4_XS>(),
        QuantType::MXFP4 => T::blocks::<MXFP4>(),
        _ => return (scalar::TABLE.kernel)(PackLayout::RowMajor(ty)),
    })
}
