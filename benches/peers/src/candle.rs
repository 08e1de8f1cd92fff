//! candle's quantised products. It allocates its result in each call, and repacks some weights in the first.
//!
//! candle reads its number of threads from the environment: `RAYON_NUM_THREADS=1`, which `CANDLE_NUM_THREADS` overrides
//! for quantised products.

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use halfbyte_benches::Shape;
use halfbyte_formats::QuantType;

use crate::{Engine, Side};

pub(crate) struct Candle;

struct Product {
    w: QMatMul,
    x: Tensor,
    out: Option<Tensor>,
}

impl Engine for Candle {
    fn name(&self) -> &str {
        "candle"
    }

    fn prepare(&self, ty: QuantType, shape: Shape, weights: &[u8], x: &[f32]) -> Option<Box<dyn Side>> {
        let one = |name, unset| std::env::var(name).map_or(unset, |n| n == "1");
        let single = one("RAYON_NUM_THREADS", false) && one("CANDLE_NUM_THREADS", true);
        assert!(single, "set RAYON_NUM_THREADS=1: a comparison needs one thread on all sides");
        let ty = match ty {
            QuantType::F32 => GgmlDType::F32,
            QuantType::Q4_0 => GgmlDType::Q4_0,
            QuantType::Q8_0 => GgmlDType::Q8_0,
            QuantType::Q4_K => GgmlDType::Q4K,
            QuantType::Q6_K => GgmlDType::Q6K,
            _ => return None,
        };
        let storage = QStorage::from_data(weights.into(), &Device::Cpu, ty).expect("the same format");
        let w = QTensor::new(storage, (shape.rows, shape.depth)).expect("valid shape");
        let w = QMatMul::from_qtensor(w).expect("valid tensor");
        let x = Tensor::from_slice(x, (shape.tokens, shape.depth), &Device::Cpu).expect("right length");
        Some(Box::new(Product { w, x, out: None }))
    }
}

impl Side for Product {
    fn run(&mut self) {
        self.out = Some(self.w.forward(&self.x).expect("right shapes"));
    }

    fn result(&self) -> Vec<f32> {
        let out = self.out.as_ref().expect("it ran");
        out.flatten_all().and_then(|out| out.to_vec1()).expect("floats")
    }
}
