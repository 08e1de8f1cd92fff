//! Packed files compute what the originals do: the same bits on every tier that multiplies 8-bit activations, for every
//! family and mix of formats. And descriptions that are wrong, as a graph meets them.

use std::fs;

use halfbyte::{Isa, KvType, LoadOptions, Model, PackPlan, RuntimeError};
use halfbyte_formats::{
    FormatError, QuantType,
    gguf::{Array, Gguf, Value},
    quant::{Mix, PanelType},
};
use halfbyte_tests::{Golden, Part, Parts, bits, bundled, logits_of, model_on, nmse, options_on, session_on};

const MIXES: [&str; 6] = ["q4_0", "q4_k_m", "q4_mixed", "q6_k", "q8_0", "q5_0"];
const TOKENS: [u32; 21] = [1, 5, 9, 2, 7, 7, 3, 0, 11, 6, 4, 8, 2, 2, 10, 12, 1, 3, 5, 13, 14];
/// What 8-bit activations may cost: where row-major weights are multiplied with activations as they are, packed ones
/// are not. Measured are up to 3e-4.
const ROUNDED_NMSE: f64 = 1e-3;

fn mixes() -> impl Iterator<Item = Mix> {
    MIXES.into_iter().map(|name| Mix::from_name(name).expect("a mix"))
}

/// Tiers that round activations whatever the layout.
fn rounding_tiers() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|isa| !matches!(isa, Isa::Scalar | Isa::Portable))
}

fn packed(file: &Gguf) -> Gguf {
    let plan = PackPlan::new(file).expect("a model");
    let bytes = plan.write_to(Vec::new()).expect("in memory");
    let packed = Gguf::from_bytes(bytes).expect("what the packer wrote");
    for (tensor, step) in packed.tensors().iter().zip(plan.steps()) {
        let old = file.tensor(&tensor.name).expect("the names it had");
        assert_eq!((tensor.name.as_str(), tensor.panels()), (step.name(), step.panels()));
        assert_eq!(tensor.shape(), old.shape());
        if tensor.panels().is_none() {
            assert_eq!((tensor.ty, &tensor.data[..]), (old.ty, &old.data[..]), "{} is a copy", old.name);
        } else {
            assert_eq!(tensor.panels(), PanelType::of(old.ty));
        }
    }
    packed
}

/// Formats that tensors of a file are packed in.
fn panels(file: &Gguf) -> Vec<PanelType> {
    let mut found: Vec<PanelType> = file.tensors().iter().filter_map(|tensor| tensor.panels()).collect();
    found.sort_by_key(|ty| ty.name());
    found.dedup();
    found
}

fn logits(file: &Gguf, isa: Isa, tokens: &[u32]) -> Vec<f32> {
    let model = model_on(file, 2, Some(isa)).expect("a valid model");
    logits_of(&model, KvType::F16, 8, tokens).expect("finite logits")
}

/// A file in memory.
fn read(name: &str) -> Gguf {
    Gguf::from_bytes(fs::read(bundled(name)).expect("there")).expect("a model")
}

/// A bundled model of which two layers are left, decoded.
fn two_layers(name: &str) -> Parts {
    let mut parts = Parts::of(&read(name));
    let deep = |name: &str| (2..100).any(|n| name.starts_with(&format!("blk.{n}.")));
    parts.tensors.retain(|tensor| !deep(&tensor.name));
    parts
}

fn set_layers(parts: &mut Parts, architecture: &str) {
    parts.put(&format!("{architecture}.block_count"), 2_u32);
}

/// Tensors over the same input, stacked.
fn stack(parts: &mut Parts, names: &[String], into: &str) {
    let taken: Vec<Part> = names.iter().map(|name| parts.take_tensor(name)).collect();
    let rows = taken.iter().map(|part| part.dims[1]).sum();
    let data: Vec<u8> = taken.iter().flat_map(|part| part.data.clone()).collect();
    let dims = vec![taken[0].dims[0], rows];
    assert!(taken.iter().all(|part| part.ty == taken[0].ty));
    parts.tensors.push(Part { name: into.to_owned(), dims, ty: taken[0].ty, data });
}

/// Models large enough for every panel: each family, tied and untied heads, stacked tensors.
fn models() -> Vec<(&'static str, &'static str, Parts)> {
    let mut qwen2 = two_layers("tiny-mimo");
    set_layers(&mut qwen2, "qwen2");
    let mut tied = qwen2.clone();
    tied.take_tensor("output.weight");
    let mut phimoe = two_layers("tiny-phimoe");
    set_layers(&mut phimoe, "phimoe");
    // The same weights without biases, as phi3 has them.
    let mut phi3 = qwen2.clone();
    for (key, value) in &mut phi3.entries {
        *key = key.replace("qwen2.", "phi3.");
        if key == "general.architecture" {
            *value = "phi3".into();
        }
    }
    phi3.tensors.retain(|tensor| !tensor.name.ends_with(".bias"));
    for n in 0..2 {
        let name = |part: &str| format!("blk.{n}.{part}.weight");
        stack(&mut phi3, &["attn_q", "attn_k", "attn_v"].map(name), &name("attn_qkv"));
        stack(&mut phi3, &["ffn_gate", "ffn_up"].map(name), &name("ffn_up"));
    }
    vec![
        ("qwen2", "qwen2", qwen2),
        ("qwen2, tied", "qwen2", tied),
        ("phi3", "phi3", phi3),
        ("phimoe", "phimoe", phimoe),
    ]
}

#[test]
fn logits_are_those_of_the_original() {
    for (what, architecture, parts) in models() {
        for mix in mixes() {
            let file = parts.clone().quantise(mix, architecture).gguf();
            let packed = packed(&file);
            let what = format!("{what} {}", mix.name());
            // Everything but routers, and an embedding that is not the head.
            let untied = file.tensor("output.weight").is_some();
            for tensor in packed.tensors().iter().filter(|tensor| tensor.shape().len() > 1) {
                let plain =
                    tensor.name.ends_with("ffn_gate_inp.weight") || untied && tensor.name == "token_embd.weight";
                assert_eq!(tensor.panels().is_none(), plain, "{what}: {}", tensor.name);
            }
            assert!(!panels(&packed).is_empty());
            for isa in rounding_tiers() {
                let (found, expected) = (logits(&packed, isa, &TOKENS), logits(&file, isa, &TOKENS));
                assert_eq!(bits(&found), bits(&expected), "{what} {}", isa.name());
            }
            let error = nmse(&logits(&packed, Isa::Portable, &TOKENS), &logits(&file, Isa::Portable, &TOKENS));
            println!("{what}: {:?}, portable nmse {error:.1e}", panels(&packed));
            assert!(error <= ROUNDED_NMSE, "{what}: {error:.1e}");
        }
    }
}

#[test]
fn golden_models_are_packed_as_far_as_they_can_be() {
    let mut counted = 0;
    for golden in Golden::all() {
        let architecture = golden.gguf.metadata().str("general.architecture").expect("text").expect("there").to_owned();
        let tokens = &golden.case(600).tokens[..40];
        for mix in mixes() {
            let file = Parts::of(&golden.gguf).quantise(mix, &architecture).gguf();
            let packed = packed(&file);
            counted += packed.tensors().iter().filter(|tensor| tensor.panels().is_some()).count();
            for isa in rounding_tiers() {
                let (found, expected) = (logits(&packed, isa, tokens), logits(&file, isa, tokens));
                assert_eq!(bits(&found), bits(&expected), "{} {} {}", golden.name, mix.name(), isa.name());
            }
        }
    }
    assert!(counted > 200, "only {counted} tensors were packed");
}

#[test]
fn a_sidecar_is_packed_like_a_model() {
    let (trunk, sidecar) = (read("tiny-mimo"), read("mtp-tiny-mimo"));
    let (trunk_packed, sidecar_packed) = (packed(&trunk), packed(&sidecar));
    assert!(sidecar_packed.tensor("blk.8.nextn.eh_proj.weight").is_some_and(|tensor| tensor.panels().is_some()));
    for isa in rounding_tiers() {
        let rows = |trunk: &Gguf, sidecar: &Gguf| {
            let model = Model::from_gguf(trunk, Some(sidecar), &options_on(2, Some(isa))).expect("a model");
            let mut session = session_on(&model, KvType::F16, 8, TOKENS.len()).expect("a session");
            let mut rows = Vec::new();
            session.mtp_logits(&TOKENS, |_, row| rows.extend(bits(row))).expect("an MTP layer");
            rows
        };
        let expected = rows(&trunk, &sidecar);
        assert_eq!(rows(&trunk_packed, &sidecar_packed), expected);
        assert_eq!(rows(&trunk, &sidecar_packed), expected, "one of two");
    }
}

#[test]
fn threads_and_batches_change_no_bit() {
    let (_, architecture, parts) = models().remove(3);
    let mut parts = parts;
    let file = packed(&parts.quantise(Mix::from_name("q4_mixed").expect("a mix"), architecture).gguf());
    for isa in Isa::available() {
        let mut expected = None;
        for (threads, batch) in [(1, 1), (1, 21), (2, 7), (3, 8)] {
            let model = model_on(&file, threads, Some(isa)).expect("a valid model");
            let found = bits(&logits_of(&model, KvType::F16, batch, &TOKENS).expect("finite logits"));
            assert_eq!(*expected.get_or_insert_with(|| found.clone()), found, "{} {threads} {batch}", isa.name());
        }
    }
}

/// Weights are views of the file: nothing is copied, an embedding that is the head is there once.
#[test]
fn nothing_is_copied() {
    let (.., mut tied) = models().remove(1);
    let file = packed(&tied.quantise(Mix::from_name("q8_0").expect("a mix"), "qwen2").gguf());
    let embedding = file.tensor("token_embd.weight").expect("there");
    assert_eq!(embedding.panels(), Some(PanelType::Q8_0));
    let model = model_on(&file, 1, None).expect("a valid model");
    let stored: usize = file.tensors().iter().filter(|t| t.shape().len() > 1).map(|t| t.data.len()).sum();
    assert_eq!(model.decode_bytes(), stored, "every matrix is read once a token");
}

#[test]
fn a_packed_file_is_not_packed_again() {
    let (.., mut parts) = models().remove(0);
    let file = packed(&parts.quantise(Mix::from_name("q4_0").expect("a mix"), "qwen2").gguf());
    assert!(matches!(PackPlan::new(&file), Err(RuntimeError::AlreadyPacked)));
}

/// What stacks are cut into must be whole panels; where it is not, a tensor stays what it was.
#[test]
fn stacks_that_no_panel_fits_stay_row_major() {
    let (.., phi3) = models().remove(2);
    let name = "blk.0.attn_qkv.weight";
    let mut narrow = phi3.clone();
    // 8 heads of 24: 192 rows, then 4 of them for keys and for values: 96 each; fits. 3 of 8: 24, 8, 8: does not.
    for (heads, kv_heads, head_dim, fits) in [(8_u32, 4_u32, 24_usize, true), (3, 1, 8, false), (2, 1, 8, false)] {
        let rows = (heads + 2 * kv_heads) as usize * head_dim;
        let part = narrow.tensor(name);
        part.dims = vec![256, rows];
        part.ty = QuantType::Q4_0;
        part.data = vec![0x11; rows * 144];
        narrow.put("phi3.attention.head_count", heads).put("phi3.attention.head_count_kv", kv_heads);
        narrow.put("phi3.attention.key_length", head_dim as u32).put("phi3.attention.value_length", head_dim as u32);
        narrow.put("phi3.rope.dimension_count", head_dim as u32);
        let file = narrow.gguf();
        let plan = PackPlan::new(&file).expect("a model");
        let step = plan.steps().iter().find(|step| step.name() == name).expect("there");
        assert_eq!(step.panels().is_some(), fits, "{heads} {kv_heads} {head_dim}");
    }
    // Described as packed all the same, it is refused by name: 62 heads of 8, then one for keys and one for values.
    let mut parts = Parts::of(&packed(&phi3.gguf()));
    parts.put("phi3.attention.head_count", 62_u32).put("phi3.attention.head_count_kv", 1_u32);
    for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
        parts.put(&format!("phi3.{key}"), 8_u32);
    }
    let error = model_on(&parts.gguf(), 1, None).expect_err("a cut inside a panel");
    assert!(matches!(&error, RuntimeError::PackedCut { name: cut, row: 504 } if cut == name), "{error:?}");
}

/// The description of a good packed file with one thing changed.
#[test]
fn wrong_descriptions() {
    let (.., mut parts) = models().remove(0);
    let good = Parts::of(&packed(&parts.quantise(Mix::from_name("q4_0").expect("a mix"), "qwen2").gguf()));
    let load = |parts: &Parts| -> Result<(), RuntimeError> {
        Model::from_gguf(&Gguf::from_bytes(parts.bytes())?, None, &LoadOptions::default()).map(drop)
    };
    load(&good).expect("the unchanged one");
    let change = |key: &str, change: &dyn Fn(&mut Value)| {
        let mut parts = good.clone();
        let key = format!("halfbyte.pack.{key}");
        change(&mut parts.entries.iter_mut().find(|(known, _)| *known == key).expect("there").1);
        load(&parts).expect_err("a wrong description")
    };
    let first = |text: &'static str| {
        move |value: &mut Value| {
            let Value::Array(Array::String(strings)) = value else { panic!("strings") };
            *strings = std::iter::once(text).chain(strings.iter().skip(1)).collect();
        }
    };
    let shape = |at: usize, dim: u64| {
        move |value: &mut Value| {
            let Value::Array(Array::U64(shapes)) = value else { panic!("numbers") };
            shapes[at] = dim;
        }
    };
    let format = |error: RuntimeError| match error {
        RuntimeError::Format(error) => error,
        other => panic!("{other:?}"),
    };
    let error = format(change("version", &|value| *value = 2_u32.into()));
    assert!(matches!(error, FormatError::PackVersion { found: 2, known: 1 }), "{error:?}");
    let error = format(change("types", &first("q4_9")));
    assert!(matches!(error, FormatError::PackType { index: 0, .. }), "{error:?}");
    let error = format(change("types", &first("q8_0")));
    assert!(matches!(error, FormatError::PackShape { index: 0, .. }), "{error:?}");
    let error = format(change("names", &first("nothing")));
    assert!(matches!(error, FormatError::PackMissing { index: 0, .. }), "{error:?}");
    let error = format(change("names", &first("output_norm.weight")));
    assert!(matches!(error, FormatError::PackStored { index: 0, .. }), "{error:?}");
    let error = format(change("shapes", &shape(1, u64::MAX)));
    assert!(matches!(error, FormatError::PackShape { index: 0, .. }), "{error:?}");
    // The bytes of a matrix of another shape: the graph knows what it wants.
    let error = change("shapes", &|value| {
        let Value::Array(Array::U64(shapes)) = value else { panic!("numbers") };
        (shapes[0], shapes[1]) = (shapes[0] * 2, shapes[1] / 2);
    });
    assert!(matches!(error, RuntimeError::TensorShape { .. }), "{error:?}");
    let mut none = good.clone();
    none.entries.retain(|(key, _)| !key.starts_with("halfbyte.pack."));
    let error = load(&none).expect_err("bytes");
    assert!(matches!(error, RuntimeError::TensorShape { .. }), "{error:?}");
}
