//! Phi models that the container format allows and no graph can run, and the forms of a file that mean the same.
//!
//! What holds for every family is tested with qwen2 in `bad_models.rs`; here is what `phi3` and `phimoe` add.

use halfbyte::{Compat, KvType, LoadOptions, Model, RuntimeError, Sampling};
use halfbyte_formats::gguf::{Gguf, Value};
use halfbyte_tests::{Golden, Parts, bits, logits_of, model_on, session_on};

const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";
const TOKENS: [u32; 24] = [1, 5, 9, 2, 7, 7, 3, 0, 11, 6, 4, 8, 2, 2, 10, 12, 1, 3, 5, 13, 14, 6, 0, 9];

fn parts(name: &str) -> Parts {
    Parts::of(&Golden::named(name).gguf)
}

#[track_caller]
fn refused(parts: &Parts) -> RuntimeError {
    let error = model_on(&parts.gguf(), 1, None).expect_err("the model was accepted");
    assert!(!error.to_string().is_empty());
    error
}

#[track_caller]
fn invalid_key(name: &str, key: &str, value: impl Into<Value>) {
    let error = refused(parts(name).put(key, value));
    assert!(matches!(&error, RuntimeError::InvalidKey { key: named, .. } if named == key), "{error:?}");
}

fn logits(parts: &Parts) -> Vec<u32> {
    let model = model_on(&parts.gguf(), 2, None).expect("a valid model");
    bits(&logits_of(&model, KvType::F32, 7, &TOKENS).expect("finite logits"))
}

#[test]
fn the_unchanged_parts_load() {
    for name in ["phi4", "phi4-mini", "phimoe", "phimoe-tiny", "phimoe-35"] {
        model_on(&parts(name).gguf(), 1, None).expect("a valid model");
    }
}

// Experts.

#[test]
fn expert_count_zero_one_huge() {
    // None leave room for two that are used.
    for value in [0_u32, 1] {
        invalid_key("phimoe", "phimoe.expert_used_count", value);
    }
    let mut one = parts("phimoe");
    one.put("phimoe.expert_used_count", 1_u32);
    for (mut parts, value) in [(one, 1_u32), (parts("phimoe"), 1 << 20), (parts("phimoe"), u32::MAX)] {
        let error = refused(parts.put("phimoe.expert_count", value));
        assert!(matches!(&error, RuntimeError::InvalidKey { key, .. } if key == "phimoe.expert_count"), "{error:?}");
    }
}

#[test]
fn experts_where_there_are_none() {
    invalid_key("phi4", "phi3.expert_count", 16_u32);
    invalid_key("untied", "qwen2.expert_count", 2_u32);
}

#[test]
fn more_experts_than_any_model_has() {
    let mut parts = parts("phimoe");
    parts.put("phimoe.block_count", 4096_u32);
    let error = refused(parts.put("phimoe.expert_count", 1024_u32));
    assert!(
        matches!(&error, RuntimeError::InvalidKey { key, found, .. } if key == "phimoe.expert_count" && found == "1024"),
        "{error:?}"
    );
}

#[test]
fn scaled_positions() {
    for value in [4.0_f32, -1.0, f32::NAN] {
        invalid_key("phi4", "phi3.rope.scaling.factor", value);
        invalid_key("untied", "qwen2.rope.scaling.factor", value);
    }
    let mut plain = parts("phi4");
    assert_eq!(logits(plain.put("phi3.rope.scaling.factor", 1.0_f32)), logits(&parts("phi4")));
}

#[test]
fn expert_count_not_that_of_the_tensors() {
    let error = refused(parts("phimoe").put("phimoe.expert_count", 8_u32));
    assert!(matches!(&error, RuntimeError::TensorShape { name, .. } if name.contains("ffn_gate_inp")), "{error:?}");
}

#[test]
fn expert_used_count_is_two() {
    for value in [0_u32, 1, 3, 16, 17, u32::MAX] {
        invalid_key("phimoe", "phimoe.expert_used_count", value);
    }
}

#[test]
fn expert_counts_missing() {
    for key in ["phimoe.expert_count", "phimoe.expert_used_count"] {
        let error = refused(parts("phimoe").drop_key(key));
        assert!(matches!(&error, RuntimeError::InvalidKey { .. }) && error.to_string().contains("expert"), "{error:?}");
    }
}

#[test]
fn expert_stacks_of_other_extents() {
    for part in ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"] {
        let name = format!("blk.1.{part}.weight");
        for fewer in 0..3 {
            let mut parts = parts("phimoe");
            let tensor = parts.take_tensor(&name);
            let mut dims = tensor.dims.clone();
            dims[fewer] /= 2;
            let len = dims.iter().product();
            parts.add_tensor(&name, &dims, &tensor.values()[..len]);
            let error = refused(&parts);
            assert!(
                matches!(&error, RuntimeError::TensorShape { name: named, expected, found }
                    if *named == name && *expected == tensor.dims && *found == dims),
                "{error:?}"
            );
        }
    }
}

#[test]
fn every_tensor_of_phimoe_is_needed() {
    let names: Vec<String> = parts("phimoe-35").tensors.into_iter().map(|tensor| tensor.name).collect();
    for name in names.iter().filter(|name| *name != "output.weight" && !name.starts_with("blk.1")) {
        let mut parts = parts("phimoe-35");
        parts.take_tensor(name);
        let error = refused(&parts);
        let stack = name.ends_with("_exps.weight");
        assert!(
            matches!(&error, RuntimeError::MissingTensor { name: named } if named == name || stack && named.contains("ffn")),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn a_damaged_router_is_reported_when_a_token_is_chosen() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut parts = parts("phimoe");
        parts.tensor("blk.0.ffn_gate_inp.weight").map(|_| value);
        let model = model_on(&parts.gguf(), 2, None).expect("the metadata is fine");
        let mut session = session_on(&model, KvType::F32, 64, 16).expect("a session");
        session.push_tokens(&[1, 2, 3]).expect("running damaged weights is harmless");
        session.set_sampling(Sampling::greedy()).expect("valid");
        let error = session.next_token().expect_err("a token was chosen");
        assert!(matches!(error, RuntimeError::NonFiniteLogits { position: 2 }), "{value}: {error:?}");
    }
}

// Rotations.

#[test]
fn rope_factors_of_another_length() {
    for (name, model) in [(LONG, "phi4-mini"), (SHORT, "phi4-mini"), (LONG, "phimoe-35"), (SHORT, "phimoe-35")] {
        let mut parts = parts(model);
        let len = parts.take_tensor(name).dims[0];
        parts.add_tensor(name, &[len + 1], &vec![1.0; len + 1]);
        let error = refused(&parts);
        assert!(matches!(&error, RuntimeError::TensorShape { name: named, .. } if named == name), "{error:?}");
    }
}

#[test]
fn rope_factors_that_are_no_factors() {
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-45] {
        for name in [LONG, SHORT] {
            let mut parts = parts("phi4-mini");
            let mut values = parts.take_tensor(name).values();
            values[3] = value;
            parts.add_tensor(name, &[values.len()], &values);
            let error = refused(&parts);
            assert!(
                matches!(&error, RuntimeError::TensorValue { name: named, index: 3, .. } if named == name),
                "{value}: {error:?}"
            );
        }
    }
}

#[test]
fn one_set_of_rope_factors_without_the_other() {
    for (there, absent) in [(LONG, SHORT), (SHORT, LONG)] {
        let mut parts = parts("phi4-mini");
        parts.take_tensor(absent);
        let error = refused(&parts);
        assert!(matches!(&error, RuntimeError::MissingTensor { name } if name == absent), "with {there}: {error:?}");
    }
}

#[test]
fn original_context_zero_one_huge() {
    for model in ["phi4-mini", "phimoe-35"] {
        let key =
            format!("{}.rope.scaling.original_context_length", if model == "phi4-mini" { "phi3" } else { "phimoe" });
        for value in [Value::U32(0), Value::U32(1), Value::U64(1 << 40)] {
            invalid_key(model, &key, value);
        }
    }
}

#[test]
fn rope_magnitudes_that_are_none() {
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        invalid_key("phi4-mini", "phi3.rope.scaling.attn_factor", value);
        invalid_key("phimoe-35", "phimoe.rope.scaling.mscale", value);
    }
}

#[test]
fn rope_scaling_of_another_kind() {
    for scaling in ["yarn", "linear", "", "LongRoPE"] {
        invalid_key("phi4-mini", "phi3.rope.scaling.type", scaling);
        invalid_key("phimoe", "phimoe.rope.scaling.type", scaling);
    }
    // The converter writes the right name, or none.
    let mut named = parts("phi4-mini");
    assert_eq!(logits(named.put("phi3.rope.scaling.type", "longrope")), logits(&parts("phi4-mini")));
}

#[test]
fn rope_dimensions_beyond_the_head() {
    for value in [17_u32, 18, 7, 0, u32::MAX] {
        invalid_key("phi4-mini", "phi3.rope.dimension_count", value);
    }
}

// What these families do not have.

#[test]
fn multi_token_prediction_layers() {
    for (name, architecture) in [("phi4", "phi3"), ("phimoe", "phimoe")] {
        invalid_key(name, &format!("{architecture}.nextn_predict_layers"), 1_u32);
        let file = parts(name).gguf();
        let error = Model::from_gguf(&file, Some(&file), &LoadOptions::default()).expect_err("no such layer");
        assert!(matches!(&error, RuntimeError::InvalidOption { option: "mtp", .. }), "{error:?}");
    }
}

// Forms that mean the same.

#[test]
fn phimoe_with_a_tensor_for_each_expert_or_gate_and_up_in_one() {
    let whole = parts("phimoe");
    let expected = logits(&whole);
    let (mut single, mut joint) = (whole.clone(), whole);
    let layers = model_on(&single.gguf(), 1, None).expect("a valid model").config().layers;
    for n in 0..layers {
        for part in ["ffn_gate", "ffn_up", "ffn_down"] {
            let stack = single.take_tensor(&format!("blk.{n}.{part}_exps.weight"));
            let (dims, values) = (&stack.dims[..2], stack.values());
            for (e, expert) in values.chunks_exact(dims[0] * dims[1]).enumerate() {
                single.add_tensor(&format!("blk.{n}.{part}.{e}.weight"), dims, expert);
            }
        }
        let gate = joint.take_tensor(&format!("blk.{n}.ffn_gate_exps.weight"));
        let up = joint.take_tensor(&format!("blk.{n}.ffn_up_exps.weight"));
        let &[hidden, ffn, count] = &gate.dims[..] else { panic!("three extents") };
        let (gates, ups) = (gate.values(), up.values());
        let both = gates.chunks_exact(hidden * ffn).zip(ups.chunks_exact(hidden * ffn));
        let values: Vec<f32> = both.flat_map(|(gate, up)| [gate, up].concat()).collect();
        joint.add_tensor(&format!("blk.{n}.ffn_gate_up_exps.weight"), &[hidden, 2 * ffn, count], &values);
    }
    assert_eq!(logits(&single), expected, "one by one");
    assert_eq!(logits(&joint), expected, "gate and up in one");
}

#[test]
fn heads_smaller_than_hidden_over_heads_without_the_key() {
    let whole = parts("phimoe-tiny");
    let expected = logits(&whole);
    let mut bare = whole.clone();
    bare.drop_key("phimoe.attention.key_length").drop_key("phimoe.attention.value_length");
    // A converter that knows no better writes hidden / heads.
    let config = model_on(&whole.gguf(), 1, None).expect("a valid model").config().clone();
    let mut fused = bare.clone();
    for n in 0..config.layers {
        for kind in ["weight", "bias"] {
            let [q, k, v] = ["q", "k", "v"].map(|part| fused.take_tensor(&format!("blk.{n}.attn_{part}.{kind}")));
            let mut dims = q.dims.clone();
            *dims.last_mut().expect("an extent") = config.q_rows() + 2 * config.kv_rows();
            let values = [q.values(), k.values(), v.values()].concat();
            fused.add_tensor(&format!("blk.{n}.attn_qkv.{kind}"), &dims, &values);
        }
    }
    assert_eq!(logits(&fused), expected, "q, k and v in one");
    let wide = u32::try_from(config.hidden / config.heads).expect("small");
    assert!(wide as usize > config.head_dim, "the fixture is about small heads");
    assert_eq!(logits(bare.put("phimoe.rope.dimension_count", wide)), expected);
}

#[test]
fn compat_changes_what_it_says_and_nothing_else() {
    let run = |file: &Gguf, compat| {
        let mut options = LoadOptions::default();
        options.compat = compat;
        let model = Model::from_gguf(file, None, &options).expect("a valid model");
        bits(&logits_of(&model, KvType::F32, 7, &TOKENS).expect("finite logits"))
    };
    for (name, differs) in [("untied", false), ("phi4", false), ("phimoe", true), ("phi3-window", true)] {
        let file = Golden::named(name).gguf;
        assert_eq!(run(&file, Compat::Reference) != run(&file, Compat::LlamaCpp), differs, "{name}");
    }
}
