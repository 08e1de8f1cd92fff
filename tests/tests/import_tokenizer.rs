//! A SentencePiece `tokenizer.json` through import and GGUF: the runtime gives the ids that Hugging Face gives.
//!
//! `golden/sentence-piece.json` was made by `scripts/make_tiny_phimoe.py`.

#[path = "../../formats/tests/scratch/mod.rs"]
mod scratch;

use std::{fs, path::Path, path::PathBuf};

use halfbyte::text::{Special, Tokenizer};
use halfbyte_formats::{QuantType, gguf::Gguf, import::Checkpoint, quant::Mix};
use serde_json::{Value, json};

const GOLDEN: &str = include_str!("golden/sentence-piece.json");
const ROWS: usize = 736;

/// The smallest model there can be around a tokenizer: every weight is 0.
fn write_model(dir: &Path) {
    let (hidden, experts) = (4, 2);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![ROWS, hidden]),
        ("lm_head.weight".to_owned(), vec![ROWS, hidden]),
        ("lm_head.bias".to_owned(), vec![ROWS]),
    ];
    let layer = "model.layers.0";
    for norm in ["model.norm", &format!("{layer}.input_layernorm"), &format!("{layer}.post_attention_layernorm")] {
        shapes.extend(["weight", "bias"].map(|part| (format!("{norm}.{part}"), vec![hidden])));
    }
    for part in ["q", "k", "v", "o"] {
        shapes.push((format!("{layer}.self_attn.{part}_proj.weight"), vec![hidden, hidden]));
        shapes.push((format!("{layer}.self_attn.{part}_proj.bias"), vec![hidden]));
    }
    let moe = format!("{layer}.block_sparse_moe");
    shapes.push((format!("{moe}.gate.weight"), vec![experts, hidden]));
    for expert in 0..experts {
        shapes.extend([1, 2, 3].map(|n| (format!("{moe}.experts.{expert}.w{n}.weight"), vec![hidden, hidden])));
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in shapes {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = Value::Object(header).to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; end]].concat();
    fs::write(dir.join("model.safetensors"), file).unwrap();
    let config = json!({
        "architectures": ["PhiMoEForCausalLM"], "hidden_size": hidden, "intermediate_size": hidden,
        "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 64, "vocab_size": ROWS,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "num_local_experts": experts, "attention_bias": true,
        "lm_head_bias": true
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

/// A directory that is removed with its owner.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn imported_sentence_pieces_are_those_of_hugging_face() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let dir = Dir(scratch::scratch().join(format!("tokenizer-{}", std::process::id())));
    fs::create_dir_all(&dir.0).unwrap();
    write_model(&dir.0);
    fs::write(dir.0.join("tokenizer.json"), golden["tokenizer"].to_string()).unwrap();
    let settings = json!({ "bos_token": "<s>", "eos_token": "<|endoftext|>", "add_bos_token": false });
    fs::write(dir.0.join("tokenizer_config.json"), settings.to_string()).unwrap();

    let out = dir.0.join("model.gguf");
    Checkpoint::open(&dir.0).unwrap().write(&out, Mix::Uniform(QuantType::F32), |_| {}).unwrap();
    let file = Gguf::from_bytes(fs::read(&out).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.add_bos()), (ROWS, Some(1), false));
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 400);
    for case in cases {
        let text = case[0].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case[1].clone()).unwrap();
        // Hugging Face always matches special tokens.
        assert_eq!(tokenizer.encode(text, Special::Parse), expected, "{text:?}");
    }
}
