//! Our kernels, with weights as stored and in panels.

use halfbyte_benches::{Product, Shape, Weights, kernels};
use halfbyte_formats::{Bytes, QuantType};
use halfbyte_kernels::{Isa, Kernels};

use crate::{Engine, Side};

/// One tier.
pub(crate) struct Tier {
    name: String,
    k: Kernels,
    packed: bool,
}

/// The best tier as `halfbyte`, the others by name; without those that are there for comparison only.
pub(crate) fn tiers() -> impl Iterator<Item = Tier> {
    let fast = kernels().enumerate().filter(|(n, k)| *n == 0 || !matches!(k.isa(), Isa::Scalar | Isa::Portable));
    fast.flat_map(|(n, k)| {
        let name = if n == 0 { "halfbyte".to_owned() } else { format!("halfbyte-{}", k.isa().name()) };
        let packed = format!("{name}-packed");
        [Tier { name, k, packed: false }, Tier { name: packed, k, packed: true }]
    })
}

impl Engine for Tier {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, ty: QuantType, shape: Shape, weights: &[u8], x: &[f32]) -> Option<Box<dyn Side>> {
        let weights = Weights::row_major(ty, shape.rows, shape.depth, Bytes::from(weights.to_vec()));
        let weights = if self.packed { weights.packed()? } else { weights };
        Some(Box::new(Product::with_inputs(self.k, shape, &weights, x.to_vec())))
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
