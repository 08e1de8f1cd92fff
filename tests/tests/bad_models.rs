//! Models that the container format allows and no graph can run: each is refused with an error that names the fault.
//!
//! Every test starts from a golden model that loads and changes one thing. Over 600 lines, because there is a named
//! test for each fault and nothing else.

use halfbyte::{KvType, LoadOptions, Model, RuntimeError, Sampling};
use halfbyte_formats::{
    FormatError, QuantType,
    gguf::{Array, Gguf, Strings, Value},
};
use halfbyte_tests::{Golden, Parts, logits_of, model_on, session_on};

const HEADS: &str = "qwen2.attention.head_count";
const KV_HEADS: &str = "qwen2.attention.head_count_kv";
const KEY_LENGTH: &str = "qwen2.attention.key_length";
const VALUE_LENGTH: &str = "qwen2.attention.value_length";
const WINDOW: &str = "qwen2.attention.sliding_window";
const EPS: &str = "qwen2.attention.layer_norm_rms_epsilon";
const ROPE_DIM: &str = "qwen2.rope.dimension_count";
const ROPE_BASE: &str = "qwen2.rope.freq_base";
const BLOCKS: &str = "qwen2.block_count";
const CONTEXT: &str = "qwen2.context_length";
const HIDDEN: &str = "qwen2.embedding_length";
const FFN: &str = "qwen2.feed_forward_length";
const NEXTN: &str = "qwen2.nextn_predict_layers";

fn untied() -> Parts {
    Parts::of(&Golden::named("untied").gguf)
}

fn mimo() -> Parts {
    Parts::of(&Golden::named("mimo").gguf)
}

#[track_caller]
fn refused(parts: &Parts) -> RuntimeError {
    let error = model_on(&parts.gguf(), 1, None).expect_err("the model was accepted");
    assert!(!error.to_string().is_empty());
    error
}

/// Sets `key` in a good model and expects an error about it.
#[track_caller]
fn invalid_key(key: &str, value: impl Into<Value>) {
    let error = refused(untied().put(key, value));
    assert!(matches!(&error, RuntimeError::InvalidKey { key: named, .. } if named == key), "{error:?}");
}

#[track_caller]
fn missing_key(key: &str) {
    let error = refused(untied().drop_key(key));
    assert!(matches!(&error, RuntimeError::MissingKey { key: named } if named == key), "{error:?}");
}

#[track_caller]
fn missing_tensor(parts: &Parts, name: &str) {
    let error = refused(parts);
    assert!(matches!(&error, RuntimeError::MissingTensor { name: named } if named == name), "{error:?}");
}

#[track_caller]
fn wrong_shape(parts: &Parts, name: &str, wanted: &[usize], there: &[usize]) {
    let error = refused(parts);
    assert!(
        matches!(&error, RuntimeError::TensorShape { name: named, expected, found }
            if named == name && expected == wanted && found == there),
        "{error:?}"
    );
}

/// Expects that the model loads, and that choosing a token reports its damage.
#[track_caller]
fn not_finite(parts: &Parts) {
    let model = model_on(&parts.gguf(), 2, None).expect("the metadata is fine");
    let mut session = session_on(&model, KvType::F32, 64, 16).expect("a session");
    session.push_tokens(&[1, 2, 3]).expect("running damaged weights is harmless");
    for sampling in [Sampling::greedy(), Sampling::default()] {
        session.set_sampling(sampling).expect("valid");
        let error = session.next_token().expect_err("a token was chosen");
        assert!(matches!(error, RuntimeError::NonFiniteLogits { position: 2 }), "{error:?}");
    }
    assert_eq!(session.tokens(), [1, 2, 3]);
}

#[test]
fn the_unchanged_parts_load() {
    for parts in [untied(), mimo()] {
        model_on(&parts.gguf(), 1, None).expect("a valid model");
    }
}

// Architecture.

#[test]
fn architecture_missing() {
    missing_key("general.architecture");
}

#[test]
fn architecture_unknown() {
    let mut parts = untied();
    for (key, _) in &mut parts.entries {
        *key = key.replace("qwen2.", "qwen9.");
    }
    let error = refused(parts.put("general.architecture", "qwen9"));
    assert!(
        matches!(&error, RuntimeError::UnsupportedArchitecture { found, supported }
            if found == "qwen9" && supported.contains("qwen2")),
        "{error:?}"
    );
}

#[test]
fn architecture_is_a_number() {
    let error = Gguf::from_bytes(untied().put("general.architecture", 2_u32).bytes()).expect_err("not text");
    assert!(matches!(error, FormatError::MetadataKind { .. }), "{error:?}");
}

// Counts.

#[test]
fn head_count_zero() {
    invalid_key(HEADS, 0_u32);
}

#[test]
fn head_count_more_than_hidden() {
    invalid_key(HEADS, u32::MAX);
}

#[test]
fn head_count_missing() {
    missing_key(HEADS);
}

#[test]
fn head_count_negative() {
    let error = refused(untied().put(HEADS, -4_i32));
    assert!(matches!(error, RuntimeError::Format(FormatError::MetadataRange { found: -4, .. })), "{error:?}");
}

#[test]
fn head_count_is_text() {
    let error = refused(untied().put(HEADS, "4"));
    assert!(matches!(error, RuntimeError::Format(FormatError::MetadataKind { .. })), "{error:?}");
}

#[test]
fn head_count_differs_between_layers() {
    invalid_key(HEADS, Value::Array(Array::U32(vec![4, 2])));
}

#[test]
fn head_count_is_an_empty_array() {
    invalid_key(HEADS, Value::Array(Array::U32(Vec::new())));
}

#[test]
fn head_count_as_an_array_of_equal_values_is_fine() {
    let golden = Golden::named("untied");
    let mut parts = untied();
    parts.put(HEADS, Value::Array(Array::U32(vec![4, 4])));
    let model = model_on(&parts.gguf(), 1, None).expect("a valid model");
    assert_eq!(model.config().heads, 4);
    logits_of(&model, KvType::F32, 64, &golden.case(64).tokens).expect("finite logits");
}

#[test]
fn head_count_kv_zero() {
    invalid_key(KV_HEADS, 0_u32);
}

#[test]
fn head_count_kv_does_not_divide_head_count() {
    invalid_key(KV_HEADS, 3_u32);
}

#[test]
fn head_count_kv_more_than_head_count() {
    invalid_key(KV_HEADS, 8_u32);
}

#[test]
fn head_count_kv_missing_means_head_count() {
    wrong_shape(untied().drop_key(KV_HEADS), "blk.0.attn_k.weight", &[64, 64], &[64, 32]);
}

#[test]
fn key_length_zero() {
    invalid_key(KEY_LENGTH, 0_u32);
}

#[test]
fn key_length_huge() {
    let error = refused(untied().put(KEY_LENGTH, 1_u32 << 24).put(VALUE_LENGTH, 1_u32 << 24));
    assert!(matches!(&error, RuntimeError::InvalidKey { key, .. } if key == KEY_LENGTH), "{error:?}");
}

#[test]
fn key_length_odd_cannot_be_rotated() {
    let error = refused(untied().put(KEY_LENGTH, 15_u32).put(VALUE_LENGTH, 15_u32).drop_key(ROPE_DIM));
    assert!(matches!(&error, RuntimeError::InvalidKey { key, .. } if key == ROPE_DIM), "{error:?}");
}

#[test]
fn key_length_one_cannot_be_rotated() {
    let error = refused(untied().put(KEY_LENGTH, 1_u32).put(VALUE_LENGTH, 1_u32).drop_key(ROPE_DIM));
    assert!(matches!(&error, RuntimeError::InvalidKey { key, .. } if key == ROPE_DIM), "{error:?}");
}

#[test]
fn value_length_differs_from_key_length() {
    invalid_key(VALUE_LENGTH, 8_u32);
}

#[test]
fn rope_dimension_count_zero() {
    invalid_key(ROPE_DIM, 0_u32);
}

#[test]
fn rope_dimension_count_odd() {
    invalid_key(ROPE_DIM, 7_u32);
}

#[test]
fn rope_dimension_count_more_than_the_head() {
    invalid_key(ROPE_DIM, 18_u32);
}

#[test]
fn block_count_zero() {
    invalid_key(BLOCKS, 0_u32);
}

#[test]
fn block_count_a_million() {
    invalid_key(BLOCKS, 1_000_000_u32);
}

#[test]
fn block_count_missing() {
    missing_key(BLOCKS);
}

#[test]
fn block_count_one_more_than_there_are() {
    missing_tensor(untied().put(BLOCKS, 3_u32), "blk.2.attn_norm.weight");
}

#[test]
fn block_count_one_less_than_there_are() {
    let error = refused(untied().put(BLOCKS, 1_u32));
    assert!(
        matches!(&error, RuntimeError::UnexpectedTensors { count: 12, names } if names.contains("blk.1.")),
        "{error:?}"
    );
}

#[test]
fn context_length_zero() {
    invalid_key(CONTEXT, 0_u32);
}

#[test]
fn context_length_two_to_the_31() {
    invalid_key(CONTEXT, 1_u32 << 31);
}

#[test]
fn context_length_two_to_the_63() {
    invalid_key(CONTEXT, 1_u64 << 63);
}

#[test]
fn context_length_missing() {
    missing_key(CONTEXT);
}

#[test]
fn embedding_length_zero() {
    invalid_key(HIDDEN, 0_u32);
}

#[test]
fn embedding_length_not_that_of_the_tensors() {
    wrong_shape(untied().put(HIDDEN, 128_u32), "token_embd.weight", &[128, 256], &[64, 256]);
}

#[test]
fn feed_forward_length_zero() {
    invalid_key(FFN, 0_u32);
}

#[test]
fn feed_forward_length_missing() {
    missing_key(FFN);
}

#[test]
fn feed_forward_length_not_that_of_the_tensors() {
    wrong_shape(untied().put(FFN, 64_u32), "blk.0.ffn_gate.weight", &[64, 64], &[64, 96]);
}

#[test]
fn sliding_window_negative() {
    let error = refused(untied().put(WINDOW, -1_i64));
    assert!(matches!(error, RuntimeError::Format(FormatError::MetadataRange { found: -1, .. })), "{error:?}");
}

// Real numbers.

#[test]
fn epsilon_zero() {
    invalid_key(EPS, 0.0_f32);
}

#[test]
fn epsilon_negative() {
    invalid_key(EPS, -1e-5_f32);
}

#[test]
fn epsilon_nan() {
    invalid_key(EPS, f32::NAN);
}

#[test]
fn epsilon_infinite() {
    invalid_key(EPS, f32::INFINITY);
}

#[test]
fn epsilon_underflows_as_f32() {
    invalid_key(EPS, 1e-300_f64);
}

#[test]
fn epsilon_missing() {
    missing_key(EPS);
}

#[test]
fn rope_base_zero() {
    invalid_key(ROPE_BASE, 0.0_f32);
}

#[test]
fn rope_base_negative() {
    invalid_key(ROPE_BASE, -10_000.0_f32);
}

#[test]
fn rope_base_nan() {
    invalid_key(ROPE_BASE, f32::NAN);
}

#[test]
fn rope_base_infinite() {
    invalid_key(ROPE_BASE, f64::MAX);
}

#[test]
fn rope_scaling_is_not_this_graph() {
    invalid_key("qwen2.rope.scaling.type", "yarn");
}

// Tensors.

#[test]
fn tensor_missing_in_each_role() {
    for parts in [untied(), mimo()] {
        for tensor in &parts.tensors {
            let name = tensor.name.as_str();
            // Without it the model is a tied one.
            if name == "output.weight" {
                continue;
            }
            let mut parts = parts.clone();
            parts.take_tensor(name);
            missing_tensor(&parts, name);
        }
    }
}

#[test]
fn tensor_with_other_extents_in_each_role() {
    for parts in [untied(), mimo()] {
        for at in 0..parts.tensors.len() {
            let mut parts = parts.clone();
            let tensor = &mut parts.tensors[at];
            let name = tensor.name.clone();
            // Half of the rows, or of the elements of a vector; the vocabulary has as many rows as its embedding.
            let rows = tensor.dims.len() - 1;
            tensor.dims[rows] /= 2;
            tensor.data.truncate(tensor.data.len() / 2);
            let blamed = if name == "token_embd.weight" { "output.weight" } else { name.as_str() };
            let error = refused(&parts);
            assert!(matches!(&error, RuntimeError::TensorShape { name, .. } if name == blamed), "{name}: {error:?}");
        }
    }
}

#[test]
fn tensor_transposed() {
    let mut parts = untied();
    parts.tensor("blk.1.ffn_down.weight").dims.reverse();
    wrong_shape(&parts, "blk.1.ffn_down.weight", &[96, 64], &[64, 96]);
}

#[test]
fn tensor_with_an_extent_too_many() {
    let mut parts = untied();
    parts.tensor("output.weight").dims = vec![64, 128, 2];
    wrong_shape(&parts, "output.weight", &[64, 256], &[64, 128, 2]);
}

#[test]
fn tensor_nobody_asked_for() {
    let mut parts = untied();
    parts.add_tensor("blk.0.attn_output.bias", &[64], &[0.0; 64]);
    let error = refused(&parts);
    assert!(
        matches!(&error, RuntimeError::UnexpectedTensors { count: 1, names } if names == "blk.0.attn_output.bias"),
        "{error:?}"
    );
}

#[test]
fn separate_tensors_beside_fused_ones() {
    let mut parts = untied();
    parts.add_tensor("blk.0.attn_qkv.bias", &[128], &[0.0; 128]);
    let error = refused(&parts);
    assert!(matches!(&error, RuntimeError::UnexpectedTensors { count: 3, .. }), "{error:?}");
}

#[test]
fn norm_in_a_block_format() {
    let mut parts = untied();
    parts.tensor("blk.1.ffn_norm.weight").encode(QuantType::Q8_0);
    let error = refused(&parts);
    assert!(
        matches!(&error, RuntimeError::TensorType { name, found: QuantType::Q8_0, .. }
            if name == "blk.1.ffn_norm.weight"),
        "{error:?}"
    );
}

#[test]
fn matrix_of_plain_bytes() {
    let mut parts = untied();
    let tensor = parts.tensor("blk.0.ffn_up.weight");
    tensor.ty = QuantType::I8;
    tensor.data.truncate(64 * 96);
    let error = refused(&parts);
    assert!(
        matches!(&error, RuntimeError::TensorType { name, found: QuantType::I8, .. } if name == "blk.0.ffn_up.weight"),
        "{error:?}"
    );
}

#[test]
fn embedding_of_plain_bytes() {
    let mut parts = untied();
    let tensor = parts.tensor("token_embd.weight");
    tensor.ty = QuantType::I8;
    tensor.data.truncate(64 * 256);
    let error = refused(&parts);
    assert!(matches!(&error, RuntimeError::TensorType { found: QuantType::I8, .. }), "{error:?}");
}

#[test]
fn vocabulary_longer_than_the_embedding() {
    let tokens: Strings = (0..257).map(|id| format!("t{id}")).collect();
    let mut parts = untied();
    parts.put("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    wrong_shape(&parts, "token_embd.weight", &[64, 257], &[64, 256]);
}

#[test]
fn vocabulary_is_an_array_of_numbers() {
    let error = refused(untied().put("tokenizer.ggml.tokens", Value::Array(Array::U8(vec![0; 256]))));
    assert!(matches!(error, RuntimeError::Format(FormatError::MetadataKind { .. })), "{error:?}");
}

#[test]
fn no_tensors_at_all() {
    let mut parts = untied();
    parts.tensors.clear();
    missing_tensor(&parts, "token_embd.weight");
}

#[test]
fn no_metadata_at_all() {
    let error = refused(&Parts { entries: Vec::new(), tensors: Vec::new() });
    assert!(matches!(error, RuntimeError::MissingKey { .. }), "{error:?}");
}

// Values.

#[test]
fn all_weights_nan() {
    let mut parts = untied();
    parts.tensors.iter_mut().for_each(|tensor| tensor.map(|_| f32::NAN));
    not_finite(&parts);
}

#[test]
fn all_weights_infinite() {
    let mut parts = untied();
    parts.tensors.iter_mut().for_each(|tensor| tensor.map(|_| f32::INFINITY));
    not_finite(&parts);
}

#[test]
fn each_tensor_nan() {
    let names: Vec<String> = untied().tensors.iter().map(|tensor| tensor.name.clone()).collect();
    for name in names {
        let mut parts = untied();
        parts.tensor(&name).map(|_| f32::NAN);
        not_finite(&parts);
    }
}

#[test]
fn one_logit_nan() {
    let mut parts = untied();
    let mut values = parts.tensor("output.weight").values();
    values[64 * 200] = f32::NAN;
    let tensor = parts.tensor("output.weight");
    tensor.data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    not_finite(&parts);
}

#[test]
fn weights_that_overflow() {
    let mut parts = untied();
    parts.tensor("output.weight").map(|value| value * 1e38);
    not_finite(&parts);
}

#[test]
fn all_weights_zero_is_a_model_that_likes_every_token_the_same() {
    let mut parts = untied();
    parts.tensors.iter_mut().for_each(|tensor| tensor.map(|_| 0.0));
    let model = model_on(&parts.gguf(), 2, None).expect("a valid model");
    let mut session = session_on(&model, KvType::F32, 64, 16).expect("a session");
    session.set_sampling(Sampling::greedy()).expect("valid");
    session.push_tokens(&[1, 2, 3]).expect("it fits");
    assert_eq!(session.next_token().expect("finite logits"), Some(0));
}

// Multi-token prediction.

#[test]
fn nextn_as_many_as_blocks() {
    invalid_key(NEXTN, 2_u32);
}

#[test]
fn nextn_more_than_blocks() {
    invalid_key(NEXTN, u32::MAX);
}

#[test]
fn nextn_two() {
    let error = refused(mimo().put(NEXTN, 2_u32));
    assert!(matches!(&error, RuntimeError::InvalidKey { key, .. } if key == NEXTN), "{error:?}");
}

#[test]
fn nextn_one_without_its_tensors() {
    let error = refused(untied().put(BLOCKS, 3_u32).put(NEXTN, 1_u32));
    assert!(matches!(&error, RuntimeError::MissingTensor { name } if name.starts_with("blk.2.")), "{error:?}");
}

#[test]
fn nextn_zero_with_its_tensors() {
    let error = refused(mimo().put(BLOCKS, 2_u32).put(NEXTN, 0_u32));
    assert!(matches!(&error, RuntimeError::UnexpectedTensors { count: 16, .. }), "{error:?}");
}

#[test]
fn nextn_with_columns_in_the_other_order() {
    let error = refused(mimo().put("mimo.mtp.concat_order", "hidden_token"));
    assert!(matches!(&error, RuntimeError::InvalidKey { key, .. } if key == "mimo.mtp.concat_order"), "{error:?}");
}

fn trunk_and_sidecar() -> (Parts, Parts) {
    let (mut trunk, mut sidecar) = (mimo(), mimo());
    trunk.tensors.retain(|tensor| !tensor.name.starts_with("blk.2."));
    trunk.put(BLOCKS, 2_u32).drop_key(NEXTN);
    sidecar.tensors.retain(|tensor| tensor.name.starts_with("blk.2."));
    (trunk, sidecar)
}

fn pair(trunk: &Gguf, sidecar: &Gguf) -> Result<Model, RuntimeError> {
    Model::from_gguf(trunk, Some(sidecar), &LoadOptions::default())
}

#[test]
fn sidecar_of_another_model() {
    for (key, value) in [
        (HEADS, Value::U32(2)),
        (ROPE_BASE, Value::F32(10_000.0)),
        (EPS, Value::F32(1e-6)),
        (CONTEXT, Value::U32(1024)),
        (BLOCKS, Value::U32(5)),
    ] {
        let (trunk, mut sidecar) = trunk_and_sidecar();
        sidecar.put(key, value);
        let error = pair(&trunk.gguf(), &sidecar.gguf()).expect_err("they differ");
        let named = format!("{key} of the multi-token-prediction file");
        assert!(matches!(&error, RuntimeError::InvalidKey { key, .. } if *key == named), "{key}: {error:?}");
    }
}

#[test]
fn sidecar_without_a_tensor() {
    let (trunk, mut sidecar) = trunk_and_sidecar();
    sidecar.take_tensor("blk.2.nextn.eh_proj.weight");
    let error = pair(&trunk.gguf(), &sidecar.gguf()).expect_err("incomplete");
    assert!(matches!(error, RuntimeError::MissingTensor { .. }), "{error:?}");
}

#[test]
fn sidecar_with_a_tensor_too_many() {
    let (trunk, mut sidecar) = trunk_and_sidecar();
    sidecar.add_tensor("blk.3.attn_norm.weight", &[64], &[0.0; 64]);
    let error = pair(&trunk.gguf(), &sidecar.gguf()).expect_err("too much");
    assert!(matches!(error, RuntimeError::UnexpectedTensors { count: 1, .. }), "{error:?}");
}

#[test]
fn sidecar_that_repeats_the_head_is_fine() {
    let (trunk, mut sidecar) = trunk_and_sidecar();
    for name in ["token_embd.weight", "output_norm.weight", "output.weight"] {
        sidecar.tensors.push(mimo().take_tensor(name));
    }
    assert_eq!(pair(&trunk.gguf(), &sidecar.gguf()).expect("a valid pair").config().mtp_layers, 1);
}

#[test]
fn sidecar_that_is_the_trunk() {
    let (trunk, _) = trunk_and_sidecar();
    let error = pair(&trunk.gguf(), &trunk.gguf()).expect_err("no MTP layer in there");
    assert!(matches!(error, RuntimeError::InvalidKey { .. }), "{error:?}");
}

#[test]
fn sidecar_for_a_model_that_has_the_layer_inside() {
    let (_, sidecar) = trunk_and_sidecar();
    let error = pair(&mimo().gguf(), &sidecar.gguf()).expect_err("two MTP layers");
    assert!(matches!(error, RuntimeError::UnexpectedTensors { count: 16, .. }), "{error:?}");
}
