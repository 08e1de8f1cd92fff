//! Import of Hugging Face directories: each test writes a tiny checkpoint, imports it and reads the GGUF file.
#![cfg(feature = "import")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod checkpoint;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use checkpoint::{Dir, Fixture, assert_field, bf16, decoded, tensor, values};
use halfbyte_formats::gguf::{Gguf, Value as Meta};
use halfbyte_formats::import::Checkpoint;
use halfbyte_formats::quant::Mix;
use halfbyte_formats::{FormatError, QuantType};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

const HIDDEN: usize = 64;
const FFN: usize = 96;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
/// Rows of the embedding; the last ones belong to no token.
const VOCAB: usize = 266;
const SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Fixture {
    fn mimo() -> Self {
        let byte_token = |byte: u32| char::from_u32(if byte < 128 { byte + 0x100 } else { byte }).unwrap().to_string();
        let mut vocab: serde_json::Map<String, Value> = (0..256u32).map(|b| (byte_token(b), json!(b))).collect();
        vocab.insert("ab".into(), json!(256));
        vocab.insert("abc".into(), json!(257));
        for (id, letter) in (258..).zip(["a", "b", "c"]) {
            vocab.insert(letter.into(), json!(id));
        }
        let mut fixture = Self {
            config: json!({
                "architectures": ["MiMoForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": FFN,
                "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
                "head_dim": HEAD_DIM, "max_position_embeddings": 512, "vocab_size": VOCAB, "rms_norm_eps": 1e-5,
                "rope_theta": 640000, "rope_scaling": null, "tie_word_embeddings": false, "hidden_act": "silu",
                "num_nextn_predict_layers": 1, "use_sliding_window": false, "eos_token_id": 261
            }),
            tokenizer: json!({
                "added_tokens": [
                    { "id": 261, "content": "<|endoftext|>", "special": true },
                    { "id": 262, "content": "<|im_end|>", "special": true },
                    { "id": 263, "content": "<tool>", "special": false }
                ],
                "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                    { "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Isolated", "invert": false },
                    { "type": "ByteLevel", "add_prefix_space": false, "use_regex": false }
                ]},
                "model": { "type": "BPE", "byte_fallback": false, "vocab": vocab, "merges": ["a b", "ab c"] }
            }),
            settings: json!({
                "eos_token": { "content": "<|im_end|>" }, "pad_token": "<|endoftext|>", "add_bos_token": false,
                "chat_template": "{{ messages }}"
            }),
            tensors: BTreeMap::new(),
        };
        fixture.add("model.embed_tokens.weight", &[VOCAB, HIDDEN]);
        fixture.add("model.norm.weight", &[HIDDEN]);
        fixture.add("lm_head.weight", &[VOCAB, HIDDEN]);
        for n in 0..LAYERS {
            fixture.add_block(&format!("model.layers.{n}"));
        }
        let mtp = "model.mtp_layers.0";
        fixture.add_block(mtp);
        fixture.add(&format!("{mtp}.input_proj.weight"), &[HIDDEN, 2 * HIDDEN]);
        for norm in ["token_layernorm", "hidden_layernorm", "final_layernorm"] {
            fixture.add(&format!("{mtp}.{norm}.weight"), &[HIDDEN]);
        }
        fixture
    }

    fn qwen2() -> Self {
        let mut fixture = Self::mimo();
        fixture.config["architectures"] = json!(["Qwen2ForCausalLM"]);
        fixture.config.as_object_mut().unwrap().remove("num_nextn_predict_layers");
        fixture.tensors.retain(|name, _| !name.contains("mtp_layers"));
        fixture
    }

    fn add_block(&mut self, prefix: &str) {
        let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        for (name, shape) in [
            ("input_layernorm.weight", vec![HIDDEN]),
            ("post_attention_layernorm.weight", vec![HIDDEN]),
            ("self_attn.q_proj.weight", vec![q, HIDDEN]),
            ("self_attn.q_proj.bias", vec![q]),
            ("self_attn.k_proj.weight", vec![kv, HIDDEN]),
            ("self_attn.k_proj.bias", vec![kv]),
            ("self_attn.v_proj.weight", vec![kv, HIDDEN]),
            ("self_attn.v_proj.bias", vec![kv]),
            ("self_attn.o_proj.weight", vec![HIDDEN, q]),
            ("mlp.gate_proj.weight", vec![FFN, HIDDEN]),
            ("mlp.up_proj.weight", vec![FFN, HIDDEN]),
            ("mlp.down_proj.weight", vec![HIDDEN, FFN]),
        ] {
            self.add(&format!("{prefix}.{name}"), &shape);
        }
    }
}

#[test]
fn trunk_holds_the_checkpoints_values() {
    let (trunk, _) = Fixture::mimo().import("trunk", Mix::Uniform(QuantType::F32));
    assert_eq!(trunk.tensors().len(), LAYERS * 12 + 3);
    for (name, source, dims) in [
        ("token_embd.weight", "model.embed_tokens.weight", vec![HIDDEN, VOCAB]),
        ("output.weight", "lm_head.weight", vec![HIDDEN, VOCAB]),
        ("output_norm.weight", "model.norm.weight", vec![HIDDEN]),
        ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight", vec![HIDDEN]),
        ("blk.1.ffn_norm.weight", "model.layers.1.post_attention_layernorm.weight", vec![HIDDEN]),
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", vec![HIDDEN, HEADS * HEAD_DIM]),
        ("blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias", vec![HEADS * HEAD_DIM]),
        ("blk.1.attn_k.weight", "model.layers.1.self_attn.k_proj.weight", vec![HIDDEN, KV_HEADS * HEAD_DIM]),
        ("blk.1.attn_k.bias", "model.layers.1.self_attn.k_proj.bias", vec![KV_HEADS * HEAD_DIM]),
        ("blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight", vec![HIDDEN, KV_HEADS * HEAD_DIM]),
        ("blk.1.attn_v.bias", "model.layers.1.self_attn.v_proj.bias", vec![KV_HEADS * HEAD_DIM]),
        ("blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight", vec![HEADS * HEAD_DIM, HIDDEN]),
        ("blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight", vec![HIDDEN, FFN]),
        ("blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight", vec![HIDDEN, FFN]),
        ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight", vec![FFN, HIDDEN]),
    ] {
        let tensor = tensor(&trunk, name);
        assert_eq!((&tensor.dims, tensor.ty), (&dims, QuantType::F32), "{name}");
        assert_eq!(decoded(tensor), values(source, dims.iter().product()), "{name}");
    }
}

#[test]
fn trunk_metadata_is_that_of_qwen2() {
    let (trunk, _) = Fixture::mimo().import("metadata", Mix::Uniform(QuantType::F32));
    let metadata = trunk.metadata();
    assert_eq!(metadata.str("general.architecture").unwrap(), Some("qwen2"));
    assert!(metadata.str("general.name").unwrap().unwrap().ends_with("metadata"), "the directory's name");
    assert_eq!(metadata.usize("general.file_type").unwrap(), Some(0));
    for (key, count) in [
        ("block_count", LAYERS),
        ("context_length", 512),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", FFN),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("attention.key_length", HEAD_DIM),
        ("attention.value_length", HEAD_DIM),
    ] {
        assert_eq!(metadata.usize(&format!("qwen2.{key}")).unwrap(), Some(count), "{key}");
    }
    assert_eq!(metadata.f32("qwen2.rope.freq_base").unwrap(), Some(640_000.0));
    assert_eq!(metadata.f32("qwen2.attention.layer_norm_rms_epsilon").unwrap(), Some(1e-5));
    assert_eq!(metadata.value("qwen2.nextn_predict_layers"), None);
}

#[test]
fn mtp_layer_becomes_a_sidecar_with_swapped_columns() {
    let (_, mtp) = Fixture::mimo().import("mtp", Mix::Uniform(QuantType::BF16));
    let mtp = mtp.expect("a sidecar");
    assert_eq!(mtp.tensors().len(), 16);
    let metadata = mtp.metadata();
    assert_eq!(metadata.usize("qwen2.block_count").unwrap(), Some(LAYERS + 1));
    assert_eq!(metadata.usize("qwen2.nextn_predict_layers").unwrap(), Some(1));
    assert_eq!(metadata.usize("qwen2.embedding_length").unwrap(), Some(HIDDEN));
    assert_eq!(metadata.str("mimo.mtp.concat_order").unwrap(), Some("token_hidden"));
    assert!(metadata.iter().all(|(key, _)| !key.starts_with("tokenizer.")), "no vocabulary");

    let source = "model.mtp_layers.0";
    for (name, norm) in
        [("enorm", "token_layernorm"), ("hnorm", "hidden_layernorm"), ("shared_head_norm", "final_layernorm")]
    {
        let tensor = tensor(&mtp, &format!("blk.{LAYERS}.nextn.{name}.weight"));
        assert_eq!((tensor.ty, decoded(tensor)), (QuantType::F32, values(&format!("{source}.{norm}.weight"), HIDDEN)));
    }
    let joined = tensor(&mtp, &format!("blk.{LAYERS}.nextn.eh_proj.weight"));
    assert_eq!((joined.dims.as_slice(), joined.ty), (&[2 * HIDDEN, HIDDEN][..], QuantType::BF16));
    let original = values(&format!("{source}.input_proj.weight"), 2 * HIDDEN * HIDDEN);
    for (row, stored) in original.chunks_exact(2 * HIDDEN).zip(decoded(joined).chunks_exact(2 * HIDDEN)) {
        let (hidden, token) = row.split_at(HIDDEN);
        assert_eq!(stored, [token, hidden].concat());
    }
    let down = tensor(&mtp, &format!("blk.{LAYERS}.ffn_down.weight"));
    assert_eq!(decoded(down), values(&format!("{source}.mlp.down_proj.weight"), HIDDEN * FFN));
}

#[test]
fn vocabulary_is_complete_and_padded() {
    let (trunk, _) = Fixture::mimo().import("vocabulary", Mix::Uniform(QuantType::F32));
    let metadata = trunk.metadata();
    assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), Some("gpt2"));
    assert_eq!(metadata.str("tokenizer.ggml.pre").unwrap(), Some("qwen2"));
    let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!(tokens.len(), VOCAB);
    let at = |id: usize| tokens.at(id).unwrap();
    assert_eq!([at(256), at(257), at(258), at(261)], ["ab", "abc", "a", "<|endoftext|>"]);
    assert_eq!([at(264), at(265)], ["[PAD264]", "[PAD265]"]);
    let types = metadata.usizes("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!(types.len(), VOCAB);
    assert!(types[..261].iter().all(|&ty| ty == 1));
    assert_eq!(types[261..], [3, 3, 4, 5, 5]);
    let merges = metadata.strings("tokenizer.ggml.merges").unwrap().unwrap();
    assert_eq!(merges.iter().collect::<Vec<_>>(), ["a b", "ab c"]);
    assert_eq!(metadata.usize("tokenizer.ggml.eos_token_id").unwrap(), Some(262), "by text, before config.json");
    assert_eq!(metadata.usize("tokenizer.ggml.padding_token_id").unwrap(), Some(261));
    assert_eq!(metadata.value("tokenizer.ggml.bos_token_id"), None);
    assert_eq!(metadata.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
    assert_eq!(metadata.str("tokenizer.chat_template").unwrap(), Some("{{ messages }}"));
}

#[test]
fn tokenizer_variants_are_understood() {
    let mut fixture = Fixture::qwen2();
    fixture.tokenizer["model"]["merges"] = json!([["a", "b"], ["ab", "c"]]);
    fixture.settings = json!({});
    fixture.config["eos_token_id"] = json!([262, 261]);
    let (trunk, _) = fixture.import("pairs", Mix::Uniform(QuantType::F32));
    let merges = trunk.metadata().strings("tokenizer.ggml.merges").unwrap().unwrap();
    assert_eq!(merges.iter().collect::<Vec<_>>(), ["a b", "ab c"]);
    assert_eq!(trunk.metadata().usize("tokenizer.ggml.eos_token_id").unwrap(), Some(262), "first of the list");
    assert_eq!(trunk.metadata().value("tokenizer.chat_template"), None);

    for (ignore_merges, pre) in [(false, "dbrx"), (true, "llama-bpe")] {
        fixture.tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
            json!(SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|"));
        fixture.tokenizer["model"]["ignore_merges"] = json!(ignore_merges);
        let (trunk, _) = fixture.import("cl100k", Mix::Uniform(QuantType::F32));
        assert_eq!(trunk.metadata().str("tokenizer.ggml.pre").unwrap(), Some(pre));
    }

    let dir = Dir::new("template-file");
    Fixture::qwen2().write(&dir);
    fs::write(dir.file("chat_template.jinja"), "{{ own_file }}").unwrap();
    Checkpoint::open(&dir.0).unwrap().write(dir.file("m.gguf"), Mix::Uniform(QuantType::F32), |_| {}).unwrap();
    let trunk = Gguf::open(dir.file("m.gguf")).unwrap();
    assert_eq!(trunk.metadata().str("tokenizer.chat_template").unwrap(), Some("{{ own_file }}"));
}

#[test]
fn a_template_that_is_no_text_is_refused() {
    let dir = Dir::new("template-refused");
    Fixture::qwen2().write(&dir);
    let template = dir.file("chat_template.jinja");
    fs::write(&template, b"{{ \xFF }}").unwrap();
    let refused = || Checkpoint::open(&dir.0).unwrap_err();
    assert!(matches!(refused(), FormatError::NotUtf8 { what: "chat_template.jinja", offset: 0 }));
    File::create(&template).unwrap().set_len((1 << 20) + 1).unwrap();
    let too_long = |error| matches!(error, FormatError::OutOfRange { what: "length of chat_template.jinja", .. });
    assert!(too_long(refused()));
    fs::remove_file(&template).unwrap();
    fs::create_dir(&template).unwrap();
    assert!(matches!(refused(), FormatError::NotRegularFile { kind: "a directory", .. }));
}

/// Opening a FIFO would wait for its writer, and a device never ends.
#[cfg(unix)]
#[test]
fn a_template_that_is_a_device_or_a_fifo_is_refused_without_waiting() {
    let dir = Dir::new("template-special");
    Fixture::qwen2().write(&dir);
    let template = dir.file("chat_template.jinja");
    let refused = || Checkpoint::open(&dir.0).unwrap_err();
    std::os::unix::fs::symlink("/dev/zero", &template).unwrap();
    assert!(matches!(refused(), FormatError::NotRegularFile { kind: "a device", .. }));
    fs::remove_file(&template).unwrap();
    if std::process::Command::new("mkfifo").arg(&template).status().is_ok_and(|status| status.success()) {
        assert!(matches!(refused(), FormatError::NotRegularFile { kind: "a FIFO", .. }));
    }
}

#[test]
fn weights_are_quantised_and_vectors_kept() {
    let fixture = Fixture::mimo();
    for (mix, expected, bound) in [
        (Mix::Uniform(QuantType::F16), QuantType::F16, 0.0),
        (Mix::Uniform(QuantType::Q8_0), QuantType::Q8_0, 0.005),
        (Mix::Uniform(QuantType::Q4_0), QuantType::Q4_0, 0.126),
        // Rows of 64 and 96 are not whole blocks of 256.
        (Mix::Q4KM, QuantType::Q5_0, 0.063),
    ] {
        let (trunk, _) = fixture.import("quantised", mix);
        let gate = tensor(&trunk, "blk.0.ffn_gate.weight");
        assert_eq!(gate.ty, expected, "{}", mix.name());
        let original = values("model.layers.0.mlp.gate_proj.weight", HIDDEN * FFN);
        let worst = decoded(gate).iter().zip(&original).fold(0.0, |worst: f32, (x, y)| worst.max((x - y).abs()));
        assert!(worst <= bound, "{}: {worst}", mix.name());
        for name in ["blk.0.attn_norm.weight", "blk.0.attn_q.bias", "output_norm.weight"] {
            assert_eq!(tensor(&trunk, name).ty, QuantType::F32, "{name}");
        }
    }
}

#[test]
fn shards_give_the_same_file() {
    let fixture = Fixture::mimo();
    // One name, so that general.name is the same.
    let [single, sharded] = [Dir::new("shards-single"), Dir::new("shards-many")];
    let inner = |dir: &Dir| {
        let inner = Dir(dir.file("model"));
        fs::create_dir_all(&inner.0).unwrap();
        inner
    };
    let [a, b] = [inner(&single), inner(&sharded)];
    fixture.write(&a);
    fixture.write_sharded(&b);
    for dir in [&a, &b] {
        let checkpoint = Checkpoint::open(&dir.0).unwrap();
        checkpoint.write(dir.file("m.gguf"), Mix::Uniform(QuantType::Q8_0), |_| {}).unwrap();
    }
    assert!(fs::read(a.file("m.gguf")).unwrap() == fs::read(b.file("m.gguf")).unwrap());
}

#[test]
fn tied_embeddings_have_no_output_tensor() {
    let mut fixture = Fixture::qwen2();
    fixture.config["tie_word_embeddings"] = json!(true);
    for lm_head in [true, false] {
        if !lm_head {
            fixture.tensors.remove("lm_head.weight");
        }
        let (trunk, mtp) = fixture.import("tied", Mix::Uniform(QuantType::F32));
        assert!(trunk.tensor("output.weight").is_none() && mtp.is_none());
        assert_eq!(trunk.tensors().len(), LAYERS * 12 + 2);
    }
}

#[test]
fn rope_base_may_be_nested() {
    let mut fixture = Fixture::qwen2();
    fixture.config.as_object_mut().unwrap().remove("rope_theta");
    fixture.config["rope_parameters"] = json!({ "rope_type": "default", "rope_theta": 5000.0 });
    let (trunk, _) = fixture.import("nested-rope", Mix::Uniform(QuantType::F32));
    assert_eq!(trunk.metadata().value("qwen2.rope.freq_base"), Some(&Meta::F32(5000.0)));
}

#[test]
fn progress_counts_every_tensor() {
    let dir = Dir::new("progress");
    Fixture::mimo().write(&dir);
    let checkpoint = Checkpoint::open(&dir.0).unwrap();
    let mut steps = Vec::new();
    checkpoint
        .write(dir.file("m.gguf"), Mix::Uniform(QuantType::F16), |step| {
            steps.push((step.tensor.to_owned(), step.done, step.total));
        })
        .unwrap();
    let total = LAYERS * 12 + 3;
    assert!(steps.iter().map(|step| (step.1, step.2)).eq((1..=total).map(|done| (done, total))));
    assert_eq!(steps[0].0, "token_embd.weight");
}

#[test]
fn nonsense_in_the_config_is_named() {
    for (field, value) in [
        ("architectures", json!(["LlamaForCausalLM"])),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-64)),
        ("hidden_size", json!(64.5)),
        ("hidden_size", json!("64")),
        ("hidden_size", json!(1u64 << 62)),
        ("intermediate_size", json!(null)),
        ("num_hidden_layers", json!(1_000_000)),
        ("num_attention_heads", json!(65)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(31)),
        ("head_dim", json!(u64::MAX)),
        ("max_position_embeddings", json!(0)),
        ("vocab_size", json!(1u64 << 40)),
        ("rms_norm_eps", json!(0.0)),
        ("rms_norm_eps", json!(1e300)),
        ("rope_theta", json!(-1.0)),
        ("rope_theta", json!(null)),
        ("tie_word_embeddings", json!("no")),
        ("hidden_act", json!("gelu")),
        ("use_sliding_window", json!(true)),
        ("num_nextn_predict_layers", json!(2)),
        ("eos_token_id", json!(VOCAB)),
    ] {
        let mut fixture = Fixture::mimo();
        fixture.settings = json!({});
        let found = if value.is_null() { "missing".to_owned() } else { value.to_string() };
        fixture.config[field] = value;
        let error = fixture.refusal("nonsense");
        match field {
            "architectures" => assert_field(&error, "architectures.0", "\"LlamaForCausalLM\"", field),
            _ => assert_field(&error, field, &found, field),
        }
    }
    for (field, value) in
        [("rope_scaling", json!({ "type": "yarn" })), ("rope_parameters", json!({ "rope_type": "yarn" }))]
    {
        let mut fixture = Fixture::mimo();
        let (kind, _) = value.as_object().unwrap().iter().next().unwrap();
        let full = format!("{field}.{kind}");
        fixture.config[field] = value.clone();
        assert_field(&fixture.refusal("rope-scaling"), &full, "\"yarn\"", field);
    }
    let mut fixture = Fixture::mimo();
    fixture.config["quantization_config"] = json!({ "bits": 4 });
    assert_field(&fixture.refusal("already-quantised"), "quantization_config", "a map", "quantization_config");
}

#[test]
fn missing_extra_and_misshapen_tensors_are_named() {
    for missing in [
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.1.self_attn.q_proj.bias",
        "model.mtp_layers.0.final_layernorm.weight",
    ] {
        let mut fixture = Fixture::mimo();
        fixture.tensors.remove(missing);
        let error = fixture.refusal("missing");
        assert!(matches!(&error, FormatError::MissingTensor { tensor } if tensor == missing), "{error:?}");
    }
    let mut fixture = Fixture::mimo();
    fixture.config["num_nextn_predict_layers"] = json!(0);
    let error = fixture.refusal("extra");
    assert!(matches!(error, FormatError::UnusedTensors { count: 16, .. }), "{error:?}");

    let mut fixture = Fixture::mimo();
    fixture.add("model.layers.0.mlp.up_proj.weight", &[HIDDEN, FFN]);
    let error = fixture.refusal("shape");
    let FormatError::TensorShape { tensor, expected, found } = &error else { panic!("{error:?}") };
    assert_eq!(
        (tensor.as_str(), expected, found),
        ("model.layers.0.mlp.up_proj.weight", &vec![FFN, HIDDEN], &vec![HIDDEN, FFN])
    );

    let mut fixture = Fixture::mimo();
    fixture.tensors.insert("model.norm.weight".into(), (Dtype::I32, vec![HIDDEN], vec![0; 4 * HIDDEN]));
    let error = fixture.refusal("element");
    assert!(
        matches!(&error, FormatError::TensorElement { tensor, found } if tensor == "model.norm.weight" && found == "I32")
    );
}

#[test]
fn weights_that_are_no_numbers_are_named_and_leave_no_file() {
    let name = "model.layers.1.mlp.down_proj.weight";
    let mut fixture = Fixture::mimo();
    let mut spoilt = values(name, HIDDEN * FFN);
    spoilt[777] = f32::NAN;
    fixture.tensors.insert(name.into(), (Dtype::BF16, vec![HIDDEN, FFN], bf16(&spoilt)));
    let dir = Dir::new("not-a-number");
    fixture.write(&dir);
    let error = Checkpoint::open(&dir.0).unwrap().write(dir.file("m.gguf"), Mix::Q4KM, |_| {}).unwrap_err();
    let FormatError::InTensor { tensor, source } = &error else { panic!("{error:?}") };
    assert_eq!(tensor, "blk.1.ffn_down.weight");
    assert!(matches!(**source, FormatError::Unencodable { index: 777, .. }), "{source:?}");
    let left = fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains("gguf")), "a partial file is left");

    let error = Checkpoint::open(&dir.0).unwrap().write(dir.file("m.gguf"), Mix::Uniform(QuantType::Q5_K), |_| {});
    let Err(FormatError::InTensor { source, .. }) = &error else { panic!("{error:?}") };
    assert!(matches!(**source, FormatError::NoEncoder { ty: QuantType::Q5_1 | QuantType::Q5_K }), "{source:?}");
}

#[test]
fn a_checkpoint_without_mtp_says_so() {
    let dir = Dir::new("no-mtp");
    Fixture::qwen2().write(&dir);
    let checkpoint = Checkpoint::open(&dir.0).unwrap();
    assert!(!checkpoint.has_mtp());
    let error = checkpoint.write_mtp(dir.file("m.gguf"), Mix::Q4KM, |_| {}).unwrap_err();
    assert!(matches!(error, FormatError::NoMtpLayer));
}

#[test]
fn broken_tokenizers_are_named() {
    type Spoil = fn(&mut Value);
    let cases: [(&str, Spoil, &str); 11] = [
        ("no model", |t| t["model"] = json!(null), "model.vocab"),
        ("unigram", |t| t["model"]["type"] = json!("Unigram"), "model.type"),
        ("no byte tokens", |t| t["model"]["byte_fallback"] = json!(true), "model.vocab[\"<0x00>\"]"),
        ("id past the rows", |t| t["model"]["vocab"]["x"] = json!(VOCAB), "model.vocab[\"x\"]"),
        ("id twice", |t| t["model"]["vocab"]["x"] = json!(5), "model.vocab[\"x\"]"),
        ("negative id", |t| t["model"]["vocab"]["x"] = json!(-1), "model.vocab[\"x\"]"),
        ("added id taken", |t| t["added_tokens"][1]["id"] = json!(5), "added_tokens.1.id"),
        ("added without text", |t| t["added_tokens"][2]["content"] = json!(7), "added_tokens.2.content"),
        ("merge of unknown tokens", |t| t["model"]["merges"][1] = json!("x y"), "model.merges.1"),
        ("merge without space", |t| t["model"]["merges"][0] = json!("ab"), "model.merges.0"),
        ("merge of three", |t| t["model"]["merges"][0] = json!(["a", "b", "c"]), "model.merges.0"),
    ];
    for (case, spoil, expected) in cases {
        let mut fixture = Fixture::mimo();
        spoil(&mut fixture.tokenizer);
        match fixture.refusal("tokenizer") {
            FormatError::CheckpointField { field, .. } => assert_eq!(field, expected, "{case}"),
            other => panic!("{case}: {other:?}"),
        }
    }
    let mut fixture = Fixture::mimo();
    fixture.settings["eos_token"] = json!("<|nowhere|>");
    assert_field(&fixture.refusal("unknown-eos"), "eos_token", "\"<|nowhere|>\"", "eos");
}

#[test]
fn unknown_pre_tokenizers_are_refused() {
    let spoils: [fn(&mut Value); 4] = [
        |t| t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("[a-z]+"),
        |t| t["pre_tokenizer"]["pretokenizers"][1]["type"] = json!("Metaspace"),
        |t| t["pre_tokenizer"] = json!({ "type": "ByteLevel", "use_regex": true }),
        |t| t["pre_tokenizer"] = json!(null),
    ];
    for spoil in spoils {
        let mut fixture = Fixture::mimo();
        spoil(&mut fixture.tokenizer);
        let error = fixture.refusal("pre-tokenizer");
        assert!(matches!(error, FormatError::PreTokenizer { .. }), "{error:?}");
    }
}

#[test]
fn broken_files_are_named() {
    let open = |spoil: fn(&Dir)| {
        let dir = Dir::new("broken");
        Fixture::mimo().write_sharded(&dir);
        spoil(&dir);
        Checkpoint::open(&dir.0).unwrap_err()
    };
    let ends = |path: &Path, name: &str| path.ends_with(name);
    const FIRST: &str = "model-00001-of-00002.safetensors";
    const INDEX: &str = "model.safetensors.index.json";

    let error = open(|dir| fs::remove_file(dir.file("config.json")).unwrap());
    assert!(matches!(&error, FormatError::Io { path, .. } if ends(path, "config.json")), "{error:?}");
    let error = open(|dir| fs::write(dir.file("config.json"), "{\"hidden_size\": ").unwrap());
    assert!(matches!(&error, FormatError::Json { path, .. } if ends(path, "config.json")), "{error:?}");
    let error = open(|dir| fs::write(dir.file("tokenizer.json"), "[".repeat(100_000)).unwrap());
    assert!(matches!(&error, FormatError::Json { path, .. } if ends(path, "tokenizer.json")), "{error:?}");
    let error = open(|dir| fs::remove_file(dir.file(FIRST)).unwrap());
    assert!(matches!(&error, FormatError::Io { path, .. } if ends(path, FIRST)), "{error:?}");
    let error = open(|dir| {
        let bytes = fs::read(dir.file(FIRST)).unwrap();
        fs::write(dir.file(FIRST), &bytes[..bytes.len() - 1]).unwrap();
    });
    assert!(matches!(&error, FormatError::Safetensors { path, .. } if ends(path, FIRST)), "{error:?}");
    let error = open(|dir| fs::write(dir.file(FIRST), [0xFF; 64]).unwrap());
    assert!(matches!(&error, FormatError::Safetensors { path, .. } if ends(path, FIRST)), "{error:?}");
    let error = open(|dir| fs::write(dir.file(FIRST), "").unwrap());
    assert!(matches!(&error, FormatError::Safetensors { path, .. } if ends(path, FIRST)), "{error:?}");
    // A shard in the place of the other one has the same tensors again.
    let error = open(|dir| {
        fs::copy(dir.file("model-00002-of-00002.safetensors"), dir.file(FIRST)).unwrap();
    });
    assert!(matches!(error, FormatError::DuplicateTensor { .. }), "{error:?}");
    let error = open(|dir| fs::write(dir.file(INDEX), r#"{ "weight_map": { "a": "../a.safetensors" } }"#).unwrap());
    assert_field(&error, "weight_map.a", "\"../a.safetensors\"", "outside");
    let error = open(|dir| {
        let place = r#"{ "weight_map": { "a": "model-00001-of-00002.safetensors" } }"#;
        fs::write(dir.file(INDEX), place).unwrap();
    });
    assert!(matches!(&error, FormatError::MissingTensor { tensor } if tensor == "a"), "{error:?}");
    let error = open(|dir| fs::write(dir.file(INDEX), "[]").unwrap());
    assert_field(&error, "weight_map", "missing", "index");
}

/// Every prefix of a safetensors file is refused, never accepted and never a panic.
#[test]
fn every_truncation_is_an_error() {
    let dir = Dir::new("truncation");
    let fixture = Fixture::mimo();
    fixture.write(&dir);
    let bytes = fixture.shard(|_| true);
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    for len in (0..header + 8).step_by(61).chain([0, 7, 8, 9, header - 1, header, bytes.len() - 1]) {
        fs::write(dir.file("model.safetensors"), &bytes[..len]).unwrap();
        let error = Checkpoint::open(&dir.0).unwrap_err();
        assert!(matches!(error, FormatError::Safetensors { .. }), "{len}: {error:?}");
    }
}
