//! Our kernels.

use halfbyte_benches::{Product, Shape, kernels};
use halfbyte_formats::{Bytes, QuantType};
use halfbyte_kernels::{Isa, Kernels};

use crate::{Engine, Side};

/// One tier.
pub(crate) struct Tier {
    name: String,
    k: Kernels,
}

/// The best tier as `halfbyte`, the others by name; without those that are there for comparison only.
pub(crate) fn tiers() -> impl Iterator<Item = Tier> {
    kernels().enumerate().filter_map(|(n, k)| {
        let isa = k.isa();
        let name = if n == 0 { "halfbyte".to_owned() } else { format!("halfbyte-{}", isa.name()) };
        (n == 0 || !matches!(isa, Isa::Scalar | Isa::Portable)).then_some(Tier { name, k })
    })
}

impl Engine for Tier {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, ty: QuantType, shape: Shape, weights: &[u8], x: &[f32]) -> Option<Box<dyn Side>> {
        let product = Product::with_inputs(self.k, ty, shape, Bytes::from(weights.to_vec()), x.to_vec());
        Some(Box::new(product))
    }
}

impl Side for Product {
    fn run(&mut self) {
        self.round();
        Product::run(self);
    }

    fn result(&self) -> Vec<f32> {
        self.out().to_vec()
    }
}
