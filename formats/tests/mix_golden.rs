//! The mixes `q4_0` and `q4_k_m` against the formats that llama.cpp chose, tensor by tensor
//! (`scripts/mix_golden.py`).

use halfbyte_formats::{
    QuantType,
    quant::{Mix, ModelTraits},
};

const GOLDEN: &str = include_str!("golden/mix.txt");

#[test]
fn mixes_give_each_tensor_the_format_llama_cpp_gives_it() {
    let mut checked = 0;
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [mix, architecture, tied, layers, part, dims, formats @ ..] = &fields[..] else { panic!("{line}") };
        let mix = Mix::from_name(mix).unwrap();
        let model = ModelTraits { architecture, layers: layers.parse().unwrap(), tied: *tied == "true" };
        let dims: Vec<usize> = dims.split('x').map(|extent| extent.parse().unwrap()).collect();
        for (layer, format) in formats.iter().enumerate() {
            let name = if formats.len() == 1 { (*part).to_owned() } else { format!("blk.{layer}.{part}") };
            let expected = QuantType::from_name(format).unwrap();
            assert_eq!(mix.tensor_type(&name, &dims, model), expected, "{} {architecture} {name}", mix.name());
            checked += 1;
        }
    }
    assert_eq!(checked, 934, "four models: 20 layers of 23 matrices, 7 matrices in no layer, in two mixes");
}
