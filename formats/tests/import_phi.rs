//! Import of Phi-3, Phi-4 and Phi-MoE directories: each test writes a tiny checkpoint, imports it and reads the file.
#![cfg(feature = "import")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod checkpoint;

use std::fs;

use checkpoint::phi::{EXPERTS, FFN, HEADS, HIDDEN, KV_HEADS, LAYERS, VOCAB, factors};
use checkpoint::{Dir, Fixture, assert_field, bf16, decoded, tensor, values};
use halfbyte_formats::gguf::{Gguf, Metadata, Value as Meta};
use halfbyte_formats::import::Checkpoint;
use halfbyte_formats::quant::Mix;
use halfbyte_formats::{FormatError, QuantType};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

const F32: Mix = Mix::Uniform(QuantType::F32);

fn assert_values(file: &Gguf, name: &str, source: &str, dims: &[usize]) {
    let tensor = tensor(file, name);
    assert_eq!((tensor.dims.as_slice(), tensor.ty), (dims, QuantType::F32), "{name}");
    assert_eq!(decoded(tensor), values(source, dims.iter().product()), "{name}");
}

fn assert_counts(metadata: &Metadata, architecture: &str, counts: &[(&str, usize)]) {
    assert_eq!(metadata.str("general.architecture").unwrap(), Some(architecture));
    for (key, count) in counts {
        assert_eq!(metadata.usize(&format!("{architecture}.{key}")).unwrap(), Some(*count), "{key}");
    }
}

#[test]
fn phi3_keeps_its_fused_matrices() {
    let file = Fixture::phi3().gguf("phi3");
    assert_eq!(file.tensors().len(), LAYERS * 6 + 3);
    for (name, source, dims) in [
        ("token_embd.weight", "model.embed_tokens.weight", vec![HIDDEN, VOCAB]),
        ("output.weight", "lm_head.weight", vec![HIDDEN, VOCAB]),
        ("output_norm.weight", "model.norm.weight", vec![HIDDEN]),
        ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight", vec![HIDDEN]),
        ("blk.1.ffn_norm.weight", "model.layers.1.post_attention_layernorm.weight", vec![HIDDEN]),
        ("blk.0.attn_qkv.weight", "model.layers.0.self_attn.qkv_proj.weight", vec![HIDDEN, 128]),
        ("blk.1.attn_output.weight", "model.layers.1.self_attn.o_proj.weight", vec![64, HIDDEN]),
        ("blk.1.ffn_up.weight", "model.layers.1.mlp.gate_up_proj.weight", vec![HIDDEN, 2 * FFN]),
        ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight", vec![FFN, HIDDEN]),
    ] {
        assert_values(&file, name, source, &dims);
    }
    let counts = [
        ("block_count", LAYERS),
        ("context_length", 4096),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", FFN),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("attention.key_length", 16),
        ("attention.value_length", 16),
        ("attention.sliding_window", 0),
        ("rope.dimension_count", 16),
        ("rope.scaling.original_context_length", 4096),
    ];
    assert_counts(file.metadata(), "phi3", &counts);
    assert_eq!(file.metadata().f32("phi3.rope.freq_base").unwrap(), Some(10_000.0));
    assert_eq!(file.metadata().f32("phi3.attention.layer_norm_rms_epsilon").unwrap(), Some(1e-5));
    assert_eq!(file.metadata().value("phi3.rope.scaling.attn_factor"), None);
    assert_eq!(file.metadata().str("tokenizer.ggml.pre").unwrap(), Some("dbrx"));
}

/// Phi-4-mini as Microsoft published it, and as transformers 5 saves it.
#[test]
fn longrope_is_the_same_in_both_layouts() {
    let old = Fixture::phi4_mini();
    let mut new = Fixture::phi4_mini();
    let fields = new.config.as_object_mut().unwrap();
    fields.remove("rope_theta");
    fields.remove("original_max_position_embeddings");
    let mut parameters = fields.remove("rope_scaling").unwrap();
    let share = fields.remove("partial_rotary_factor").unwrap();
    for (name, value) in [
        ("rope_theta", json!(10000.0)),
        ("original_max_position_embeddings", json!(4096)),
        ("partial_rotary_factor", share),
        ("rope_type", json!("longrope")),
        ("factor", json!(32.0)),
    ] {
        parameters[name] = value;
    }
    new.set(&[("rope_parameters", parameters)]);
    for fixture in [old, new] {
        let file = fixture.gguf("longrope");
        assert_eq!(file.tensors().len(), LAYERS * 6 + 4, "no head, two lists of factors");
        for (name, step) in [("long", 1.5), ("short", 0.0)] {
            let list = tensor(&file, &format!("rope_factors_{name}.weight"));
            assert_eq!((list.dims.as_slice(), list.ty), (&[6][..], QuantType::F32));
            assert!(decoded(list).iter().map(|&x| f64::from(x)).eq(factors(6, step)), "{name}");
        }
        let counts = [
            ("context_length", 131_072),
            ("attention.sliding_window", 262_144),
            ("rope.dimension_count", 12),
            ("rope.scaling.original_context_length", 4096),
        ];
        assert_counts(file.metadata(), "phi3", &counts);
        // The value in Phi-4-mini's GGUF files.
        assert_eq!(file.metadata().f32("phi3.rope.scaling.attn_factor").unwrap(), Some(1.190_238_1));
        assert_eq!(file.metadata().str("tokenizer.ggml.pre").unwrap(), Some("gpt-4o"));
    }
}

#[test]
fn a_given_attention_factor_is_kept() {
    let mut fixture = Fixture::phi4_mini();
    fixture.config["rope_scaling"]["attention_factor"] = json!(1.25);
    let file = fixture.gguf("attention-factor");
    assert_eq!(file.metadata().f32("phi3.rope.scaling.attn_factor").unwrap(), Some(1.25));
    // A context that is not longer than the original one scales nothing.
    let mut fixture = Fixture::phi4_mini();
    fixture.config["max_position_embeddings"] = json!(4096);
    let file = fixture.gguf("attention-factor-1");
    assert_eq!(file.metadata().f32("phi3.rope.scaling.attn_factor").unwrap(), Some(1.0));
}

#[test]
fn phimoe_stacks_its_experts() {
    for name in ["PhiMoEForCausalLM", "PhimoeForCausalLM"] {
        let mut fixture = Fixture::phimoe();
        fixture.set(&[("architectures", json!([name]))]);
        let file = fixture.gguf("phimoe");
        assert_eq!(file.tensors().len(), LAYERS * 16 + 5, "{name}");
        assert_values(&file, "output.bias", "lm_head.bias", &[VOCAB]);
        assert_values(&file, "output_norm.bias", "model.norm.bias", &[HIDDEN]);
        assert_values(&file, "blk.1.attn_norm.bias", "model.layers.1.input_layernorm.bias", &[HIDDEN]);
        assert_values(&file, "blk.0.ffn_norm.bias", "model.layers.0.post_attention_layernorm.bias", &[HIDDEN]);
        for (part, dims) in [("q", [HIDDEN, 32]), ("k", [HIDDEN, 16]), ("v", [HIDDEN, 16]), ("o", [32, HIDDEN])] {
            let name = if part == "o" { "blk.1.attn_output".to_owned() } else { format!("blk.1.attn_{part}") };
            let source = format!("model.layers.1.self_attn.{part}_proj");
            assert_values(&file, &format!("{name}.weight"), &format!("{source}.weight"), &dims);
            assert_values(&file, &format!("{name}.bias"), &format!("{source}.bias"), &dims[1..]);
        }
        let moe = "model.layers.1.block_sparse_moe";
        assert_values(&file, "blk.1.ffn_gate_inp.weight", &format!("{moe}.gate.weight"), &[HIDDEN, EXPERTS]);
        for (name, part, [depth, rows]) in
            [("gate", "w1", [HIDDEN, FFN]), ("up", "w3", [HIDDEN, FFN]), ("down", "w2", [FFN, HIDDEN])]
        {
            let stacked = tensor(&file, &format!("blk.1.ffn_{name}_exps.weight"));
            assert_eq!(stacked.dims, [depth, rows, EXPERTS], "{name}");
            let expert = |e| values(&format!("{moe}.experts.{e}.{part}.weight"), depth * rows);
            assert_eq!(decoded(stacked), (0..EXPERTS).flat_map(expert).collect::<Vec<_>>(), "{name}");
        }
        let counts = [
            ("attention.key_length", 8),
            ("attention.value_length", 8),
            ("attention.sliding_window", 2047),
            ("rope.dimension_count", 8),
            ("rope.scaling.original_context_length", 4096),
            ("feed_forward_length", FFN),
            ("expert_count", EXPERTS),
            ("expert_used_count", 2),
        ];
        assert_counts(file.metadata(), "phimoe", &counts);
        assert_eq!(file.metadata().value("phimoe.rope.scaling.attn_factor"), None);
        assert_eq!(file.metadata().value("phimoe.rope.scaling.mscale"), None);
    }
}

#[test]
fn phi35_moe_has_a_magnitude_of_its_own() {
    let file = Fixture::phi35_moe().gguf("phi35-moe");
    assert_eq!(file.tensors().len(), LAYERS * 16 + 7);
    let metadata = file.metadata();
    assert_eq!(metadata.value("phimoe.rope.scaling.mscale"), Some(&Meta::F32(1.243_163_1)));
    assert_eq!(metadata.value("phimoe.rope.scaling.attn_factor"), Some(&Meta::F32(1.190_238_1)));
    assert_eq!(decoded(tensor(&file, "rope_factors_long.weight")), [1.0, 3.0, 5.0, 7.0]);
}

#[test]
fn experts_are_quantised_and_routers_are_not() {
    let (file, _) = Fixture::phimoe().import("quantised", Mix::Uniform(QuantType::Q8_0));
    for (name, ty) in [
        ("blk.0.ffn_gate_exps.weight", QuantType::Q8_0),
        ("blk.0.ffn_down_exps.weight", QuantType::Q8_0),
        ("blk.0.ffn_gate_inp.weight", QuantType::F32),
        ("blk.0.attn_q.bias", QuantType::F32),
        ("output.bias", QuantType::F32),
    ] {
        assert_eq!(tensor(&file, name).ty, ty, "{name}");
    }
    let original = (0..EXPERTS)
        .flat_map(|e| values(&format!("model.layers.0.block_sparse_moe.experts.{e}.w2.weight"), HIDDEN * FFN));
    let down = decoded(tensor(&file, "blk.0.ffn_down_exps.weight"));
    assert!(down.iter().zip(original).all(|(x, y)| (x - y).abs() <= 0.005));
}

#[test]
fn shards_give_the_same_file() {
    let fixture = Fixture::phimoe();
    let [single, sharded] = [Dir::new("phi-single"), Dir::new("phi-sharded")];
    fixture.write(&single);
    fixture.write_sharded(&sharded);
    let tensors = [single, sharded].map(|dir| {
        Checkpoint::open(&dir.0).unwrap().write(dir.file("m.gguf"), F32, |_| {}).unwrap();
        let file = Gguf::from_bytes(fs::read(dir.file("m.gguf")).unwrap()).unwrap();
        file.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.data.to_vec())).collect::<Vec<_>>()
    });
    assert!(tensors[0] == tensors[1]);
}

#[test]
fn nonsense_in_the_config_is_named() {
    let longrope = |field: &str, value: Value| {
        let mut section = Fixture::phi4_mini().config["rope_scaling"].clone();
        section[field] = value;
        section
    };
    for (field, value, expected, found) in [
        ("hidden_act", json!("gelu"), "hidden_act", "\"gelu\""),
        ("attention_bias", json!(true), "attention_bias", "true"),
        ("mlp_bias", json!(true), "mlp_bias", "true"),
        ("lm_head_bias", json!(true), "lm_head_bias", "true"),
        ("sliding_window", json!(0), "sliding_window", "0"),
        ("sliding_window", json!("all"), "sliding_window", "\"all\""),
        ("partial_rotary_factor", json!(0.0), "partial_rotary_factor", "0.0"),
        ("partial_rotary_factor", json!(1.5), "partial_rotary_factor", "1.5"),
        ("partial_rotary_factor", json!(0.7), "partial_rotary_factor", "0.7"),
        ("partial_rotary_factor", json!(-0.5), "partial_rotary_factor", "-0.5"),
        ("original_max_position_embeddings", json!(1), "original_max_position_embeddings", "1"),
        ("quantization_config", json!({}), "quantization_config", "a map"),
        ("rope_scaling", longrope("type", json!("yarn")), "rope_scaling.type", "\"yarn\""),
        ("rope_scaling", longrope("rope_type", json!("linear")), "rope_scaling.rope_type", "\"linear\""),
        ("rope_scaling", longrope("type", json!(7)), "rope_scaling.type", "7"),
        ("rope_scaling", longrope("long_factor", json!(null)), "rope_scaling.long_factor", "missing"),
        ("rope_scaling", longrope("long_factor", json!([1.0, 2.0])), "rope_scaling.long_factor", "a list of 2"),
        ("rope_scaling", longrope("short_factor", json!(vec![1.0; 7])), "rope_scaling.short_factor", "a list of 7"),
        ("rope_scaling", longrope("short_factor", json!([1, 1, 1, 0, 1, 1])), "rope_scaling.short_factor.3", "0"),
        ("rope_scaling", longrope("long_factor", json!([1, 1, 1, 1, 1, -2])), "rope_scaling.long_factor.5", "-2"),
        ("rope_scaling", longrope("long_factor", json!([1, "2", 1, 1, 1, 1])), "rope_scaling.long_factor.1", "\"2\""),
        ("rope_scaling", longrope("factor", json!(16.0)), "rope_scaling.factor", "16.0"),
        ("rope_scaling", longrope("attention_factor", json!(-1.0)), "rope_scaling.attention_factor", "-1.0"),
    ] {
        let mut fixture = Fixture::phi4_mini();
        fixture.config[field] = value;
        assert_field(&fixture.refusal("phi3-nonsense"), expected, found, expected);
    }

    let magnitude = |field: &str, value: Value| {
        let mut section = Fixture::phi35_moe().config["rope_scaling"].clone();
        section[field] = value;
        section
    };
    for (field, value, expected, found) in [
        ("attention_bias", json!(false), "attention_bias", "false"),
        ("attention_bias", json!(null), "attention_bias", "missing"),
        ("lm_head_bias", json!(false), "lm_head_bias", "false"),
        ("num_experts_per_tok", json!(1), "num_experts_per_tok", "1"),
        ("num_experts_per_tok", json!(3), "num_experts_per_tok", "3"),
        ("num_local_experts", json!(1), "num_local_experts", "1"),
        ("num_local_experts", json!(1u64 << 40), "num_local_experts", "1099511627776"),
        ("router_jitter_noise", json!(0.1), "router_jitter_noise", "0.1"),
        ("router_jitter_noise", json!(0.0), "router_jitter_noise", "0.0"),
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor", "0.5"),
        ("hidden_act", json!("relu"), "hidden_act", "\"relu\""),
        ("rope_scaling", magnitude("long_mscale", json!(1.5)), "rope_scaling.long_mscale", "1.5"),
        ("rope_scaling", magnitude("short_mscale", json!(null)), "rope_scaling.short_mscale", "missing"),
        ("rope_scaling", magnitude("short_mscale", json!(0)), "rope_scaling.short_mscale", "0"),
        ("rope_scaling", magnitude("long_factor", json!(vec![1.0; 6])), "rope_scaling.long_factor", "a list of 6"),
    ] {
        let mut fixture = Fixture::phi35_moe();
        if field == "partial_rotary_factor" {
            fixture.config["rope_scaling"] = json!(null);
        }
        fixture.config[field] = value;
        assert_field(&fixture.refusal("phimoe-nonsense"), expected, found, expected);
    }
}

#[test]
fn misshapen_and_missing_tensors_are_named() {
    let shape = |mut fixture: Fixture, name: &str, shape: &[usize], expected: &[usize]| {
        fixture.add(name, shape);
        match fixture.refusal("phi-shape") {
            FormatError::TensorShape { tensor, expected: e, found } => {
                assert_eq!((tensor.as_str(), e.as_slice(), found.as_slice()), (name, expected, shape))
            }
            other => panic!("{other:?}"),
        }
    };
    shape(Fixture::phi3(), "model.layers.0.self_attn.qkv_proj.weight", &[192, HIDDEN], &[128, HIDDEN]);
    shape(Fixture::phi3(), "model.layers.1.mlp.gate_up_proj.weight", &[FFN, HIDDEN], &[2 * FFN, HIDDEN]);
    shape(Fixture::phimoe(), "model.layers.1.self_attn.o_proj.weight", &[HIDDEN, HIDDEN], &[HIDDEN, 32]);
    let experts = "model.layers.0.block_sparse_moe";
    shape(Fixture::phimoe(), &format!("{experts}.gate.weight"), &[EXPERTS + 1, HIDDEN], &[EXPERTS, HIDDEN]);
    shape(Fixture::phimoe(), &format!("{experts}.experts.3.w2.weight"), &[FFN, HIDDEN], &[HIDDEN, FFN]);

    for missing in ["lm_head.bias", "model.norm.bias", "model.layers.1.block_sparse_moe.experts.3.w1.weight"] {
        let mut fixture = Fixture::phimoe();
        fixture.tensors.remove(missing);
        let error = fixture.refusal("phi-missing");
        assert!(matches!(&error, FormatError::MissingTensor { tensor } if tensor == missing), "{error:?}");
    }
    // More experts than the config counts, and biases that the graph does not add.
    let mut fixture = Fixture::phimoe();
    fixture.add(&format!("{experts}.experts.4.w1.weight"), &[FFN, HIDDEN]);
    let error = fixture.refusal("phi-extra");
    assert!(matches!(error, FormatError::UnusedTensors { count: 1, .. }), "{error:?}");
    let mut fixture = Fixture::phi3();
    fixture.add("model.layers.0.self_attn.qkv_proj.bias", &[128]);
    let error = fixture.refusal("phi-extra-bias");
    assert!(matches!(error, FormatError::UnusedTensors { count: 1, .. }), "{error:?}");
}

#[test]
fn a_weight_that_is_no_number_is_named_and_leaves_no_file() {
    let name = "model.layers.1.block_sparse_moe.experts.2.w2.weight";
    let mut fixture = Fixture::phimoe();
    let mut spoilt = values(name, HIDDEN * FFN);
    spoilt[77] = f32::INFINITY;
    fixture.tensors.insert(name.into(), (Dtype::BF16, vec![HIDDEN, FFN], bf16(&spoilt)));
    let dir = Dir::new("phi-infinite");
    fixture.write(&dir);
    let mix = Mix::Uniform(QuantType::Q8_0);
    let error = Checkpoint::open(&dir.0).unwrap().write(dir.file("m.gguf"), mix, |_| {}).unwrap_err();
    let FormatError::InTensor { tensor, source } = &error else { panic!("{error:?}") };
    assert_eq!(tensor, "blk.1.ffn_down_exps.weight");
    assert!(matches!(**source, FormatError::Unencodable { .. }), "{source:?}");
    let left = fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains("gguf")), "a partial file is left");
}
