//! `halfbyte convert`: a checkpoint made from a synthetic model becomes that model again.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod folder;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::{fs, path::Path};

use folder::Folder;
use halfbyte::{LoadOptions, Model, text::Special};
use halfbyte_formats::{
    QuantType,
    gguf::{Gguf, Tensor},
};
use serde_json::{Value, json};
use support::run;

const HIDDEN: usize = 256;
const SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The name in a checkpoint of a tensor in a GGUF file.
fn checkpoint_name(name: &str) -> String {
    let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        let names = [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
        ];
        return names.iter().find(|(known, _)| *known == name).expect("a known name").1.to_owned();
    };
    let (stem, kind) = part.rsplit_once('.').expect("weight or bias");
    let module = match stem {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "nextn.eh_proj" => "input_proj",
        "nextn.enorm" => "token_layernorm",
        "nextn.hnorm" => "hidden_layernorm",
        "nextn.shared_head_norm" => "final_layernorm",
        other => panic!("{other}"),
    };
    let prefix = if layer == "2" { "model.mtp_layers.0".to_owned() } else { format!("model.layers.{layer}") };
    format!("{prefix}.{module}.{kind}")
}

/// The data of a tensor as a checkpoint has it: that of the joining projection with its halves the other way round.
fn checkpoint_data(tensor: &Tensor) -> Vec<u8> {
    let data = tensor.data.to_vec();
    if !tensor.name.ends_with("eh_proj.weight") {
        return data;
    }
    let half = 4 * HIDDEN;
    data.chunks_exact(2 * half).flat_map(|row| [&row[half..], &row[..half]].concat()).collect()
}

/// Writes the checkpoint of which `files` are the conversion.
fn write_checkpoint(folder: &Path, files: &[&Gguf]) {
    fs::create_dir_all(folder).expect("a folder");
    let config = json!({
        "architectures": [if files.len() > 1 { "MiMoForCausalLM" } else { "Qwen2ForCausalLM" }],
        "hidden_size": HIDDEN, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1024, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu",
        "eos_token_id": support::VOCAB - 3,
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("written");

    let metadata = files[0].metadata();
    let strings = |key: &str| metadata.strings(key).expect("strings").expect("there");
    let tokens: Vec<&str> = strings("tokenizer.ggml.tokens").iter().take(support::VOCAB).collect();
    let (plain, special) = tokens.split_at(support::VOCAB - 3);
    let vocab: serde_json::Map<String, Value> =
        plain.iter().enumerate().map(|(id, text)| ((*text).to_owned(), id.into())).collect();
    let added: Vec<Value> = (plain.len()..)
        .zip(special)
        .map(|(id, text)| json!({ "id": id, "content": text, "special": true, "normalized": false }))
        .collect();
    let tokenizer = json!({
        "added_tokens": added,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        ] },
        "model": { "type": "BPE", "vocab": vocab, "merges": strings("tokenizer.ggml.merges").iter().collect::<Vec<_>>() },
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("written");

    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in files.iter().flat_map(|file| file.tensors()) {
        let start = data.len();
        data.extend(checkpoint_data(tensor));
        let shape: Vec<usize> = tensor.dims.iter().rev().copied().collect();
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(checkpoint_name(&tensor.name), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    fs::write(folder.join("model.safetensors"), file).expect("written");
}

/// A synthetic model with its multi-token-prediction layer.
fn synthetic(folder: &Folder) -> (Gguf, Gguf) {
    let (trunk, mtp) = (folder.path("synthetic.gguf"), folder.path("synthetic-mtp.gguf"));
    let vocab = support::model();
    let vocab = vocab.to_str().expect("UTF-8");
    run(["synth", "qwen2-tiny", &trunk, "--mtp", &mtp, "--type", "f32", "--vocab", vocab]).ok();
    (Gguf::open(trunk).expect("opens"), Gguf::open(mtp).expect("opens"))
}

#[track_caller]
fn same_tensors(expected: &Gguf, found: &Gguf) {
    assert_eq!(expected.tensors().len(), found.tensors().len());
    for tensor in expected.tensors() {
        let twin = found.tensor(&tensor.name).unwrap_or_else(|| panic!("{} is missing", tensor.name));
        assert_eq!((&twin.dims, twin.ty), (&tensor.dims, tensor.ty), "{}", tensor.name);
        assert!(twin.data[..] == tensor.data[..], "{}", tensor.name);
    }
}

#[test]
fn a_checkpoint_becomes_the_model_it_was_made_from() {
    let folder = Folder::new("convert");
    let (trunk, mtp) = synthetic(&folder);
    let (dir, out) = (folder.path("MiMo-Tiny"), folder.path("mimo.gguf"));
    write_checkpoint(Path::new(&dir), &[&trunk, &mtp]);
    let text = run(["convert", &dir, &out, "--type", "f32"]).ok();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("mtp-mimo.gguf"), "{text}");
    let found = Gguf::open(&out).expect("opens");
    same_tensors(&trunk, &found);
    same_tensors(&mtp, &Gguf::open(folder.path("mtp-mimo.gguf")).expect("opens"));
    assert_eq!(found.metadata().str("general.name").expect("text"), Some("MiMo-Tiny"));

    let mut options = LoadOptions::default();
    options.mtp = Some(folder.path("mtp-mimo.gguf").into());
    let model = Model::open_with(&out, &options).expect("loads");
    assert_eq!(model.tokenizer().expect("a vocabulary").encode("the", Special::AsText), [257]);

    // Another format, other names, files in the way.
    let (other, layer) = (folder.path("q.gguf"), folder.path("layer.gguf"));
    run(["convert", &dir, &other, "--type", "q4_0", "--mtp", &layer]).ok();
    let ty = |path: &str, name: &str| Gguf::open(path).expect("opens").tensor(name).map(|tensor| tensor.ty);
    assert_eq!(ty(&other, "blk.0.attn_q.weight"), Some(QuantType::Q4_0));
    assert_eq!(ty(&layer, "blk.2.attn_q.weight"), Some(QuantType::Q4_0));
    let text = run(["convert", &dir, &folder.path("new.gguf"), "--mtp", &layer]).fails(1);
    assert!(text.contains("already there"), "{text}");
    assert!(!folder.names().contains(&"new.gguf".to_owned()));
}

#[test]
fn misuse_and_broken_checkpoints_leave_nothing_behind() {
    let folder = Folder::new("convert-refused");
    let (trunk, _) = synthetic(&folder);
    let (dir, out) = (folder.path("qwen"), folder.path("out.gguf"));
    write_checkpoint(Path::new(&dir), &[&trunk]);
    let fails = |code: i32, arguments: &[&str], says: &str| {
        let text = run(["convert"].iter().chain(arguments)).fails(code);
        assert!(text.contains(says), "{text}");
    };
    fails(1, &[&dir, &out, "--mtp", &folder.path("layer.gguf")], "no multi-token-prediction layer");
    fails(1, &[&folder.path("none"), &out], "none");
    fails(2, &[&dir, &out, "--type", "int3"], "q4_k_m");
    fails(1, &[&dir, &folder.path("no/folder/out.gguf")], "no/folder");
    let weights = Path::new(&dir).join("model.safetensors");
    let whole = fs::read(&weights).expect("there");
    fs::write(&weights, &whole[..whole.len() - 4]).expect("written");
    fails(1, &[&dir, &out], "model.safetensors");
    assert_eq!(folder.names(), ["qwen", "synthetic-mtp.gguf", "synthetic.gguf"]);
}
