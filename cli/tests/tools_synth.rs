//! `halfbyte synth`: files that load and compute, are the same for the same seed, and have a vocabulary that fits.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod folder;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::{collections::HashSet, fs, path::Path};

use folder::Folder;
use halfbyte::{LoadOptions, Model, SessionOptions, text::Special};
use halfbyte_formats::{
    QuantType,
    gguf::{Gguf, GgufWriter, Strings},
    quant,
};
#[cfg(unix)]
use support::{code, heed_signals, kill};
use support::{halfbyte, run};

fn synth(out: &str, more: &[&str]) {
    let text = run(["synth", "qwen2-tiny", out].iter().chain(more)).ok();
    assert!(text.starts_with(&format!("wrote {out}: ")), "{text}");
}

#[test]
fn every_format_loads_and_computes_finite_logits() {
    use QuantType::*;
    let folder = Folder::new("synth-formats");
    for (name, head, up) in [
        ("f32", F32, F32),
        ("f16", F16, F16),
        ("bf16", BF16, BF16),
        ("q8_0", Q8_0, Q8_0),
        ("q6_k", Q6_K, Q6_K),
        ("q4_0", Q6_K, Q4_0),
        ("q4_k_m", Q6_K, Q4_K),
    ] {
        let out = folder.path(&format!("{name}.gguf"));
        synth(&out, &["--type", name]);
        let file = Gguf::open(&out).expect("opens");
        let ty = |tensor: &str| file.tensor(tensor).map(|tensor| tensor.ty);
        assert_eq!([ty("output.weight"), ty("blk.1.ffn_up.weight")], [Some(head), Some(up)], "{name}");
        assert_eq!([ty("blk.0.attn_norm.weight"), ty("blk.0.attn_q.bias")], [Some(F32); 2], "{name}");

        let model = Model::from_gguf(&file, None, &LoadOptions::default()).expect("loads");
        assert!(model.tokenizer().is_none(), "no vocabulary was asked for");
        let mut session = model.session(&SessionOptions::default()).expect("a session");
        session.push_tokens(&[1, 1000, 7]).expect("runs");
        let logits = session.logits().expect("logits");
        assert_eq!(logits.len(), 1024);
        assert!(logits.iter().all(|logit| logit.is_finite() && logit.abs() < 1e3), "{name}");
        assert!(logits.iter().any(|&logit| logit != logits[0]), "{name}");
    }
}

#[test]
fn phi_models_load_and_compute_finite_logits() {
    let folder = Folder::new("synth-phi");
    for (preset, tensors) in [("phi3-tiny", 2 * 6 + 4), ("phimoe-tiny", 2 * 16 + 5)] {
        for name in ["f32", "q8_0", "q4_0", "q4_k_m"] {
            let out = folder.path(&format!("{preset}-{name}.gguf"));
            run(["synth", preset, &out, "--type", name]).ok();
            assert_eq!(Gguf::open(&out).expect("opens").tensors().len(), tensors, "{preset}");
            let model = Model::open(&out).expect("loads");
            let mut session = model.session(&SessionOptions::default()).expect("a session");
            // Beyond the context that phi3-tiny's short factors are for.
            session.push_tokens(&(0..80).map(|n| n * 11 % 1024).collect::<Vec<_>>()).expect("runs");
            let logits = session.logits().expect("logits");
            assert!(logits.iter().all(|logit| logit.is_finite() && logit.abs() < 1e3), "{preset} {name}");
            assert!(logits.iter().any(|&logit| logit != logits[0]), "{preset} {name}");
        }
    }
}

#[test]
fn routers_choose_every_expert() {
    let folder = Folder::new("synth-router");
    let out = folder.path("out.gguf");
    run(["synth", "phimoe-tiny", &out, "--type", "q4_0"]).ok();
    let file = Gguf::open(&out).expect("opens");
    let values = |name: &str| {
        let tensor = file.tensor(name).expect("there");
        let mut values = vec![0.0f32; tensor.dims.iter().product()];
        quant::decode(tensor.ty, &tensor.data, &mut values).expect("whole blocks");
        values
    };
    // What the router would see of each token alone: its embedding, scaled to deviation 1 (the mean is near 0).
    let (embeddings, router) = (values("token_embd.weight"), values("blk.0.ffn_gate_inp.weight"));
    let mut chosen = [0; 16];
    for row in embeddings.chunks_exact(256) {
        let score = |expert: &[f32]| row.iter().zip(expert).map(|(x, w)| 16.0 * x * w).sum::<f32>();
        let scores: Vec<f32> = router.chunks_exact(256).map(score).collect();
        let best = (0..16).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).expect("an expert");
        chosen[best] += 1;
    }
    // 64 of 1024 each on average, with deviation 8 if all were alike.
    assert!(chosen.iter().all(|n| (16..192).contains(n)), "{chosen:?}");
}

#[test]
fn the_seed_decides_every_byte_and_threads_decide_none() {
    let folder = Folder::new("synth-seed");
    let bytes = |name: &str, threads: &str, seed: &str| {
        let out = folder.path(name);
        let mut command = halfbyte(["synth", "qwen2-tiny", &out, "--type", "q4_k_m", "--seed", seed]);
        assert!(command.env("RAYON_NUM_THREADS", threads).status().expect("runs").success());
        fs::read(out).expect("written")
    };
    let (first, again, other) = (bytes("a", "1", "5"), bytes("b", "3", "5"), bytes("c", "1", "6"));
    assert!(first == again);
    assert_eq!(first.len(), other.len());
    let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!(same < first.len() / 20, "{same} of {} bytes are equal", first.len());
}

#[test]
fn no_two_blocks_are_equal_and_no_hole_is_left() {
    let folder = Folder::new("synth-blocks");
    for name in ["q4_0", "q8_0", "q6_k", "q4_k_m"] {
        let out = folder.path(name);
        synth(&out, &["--type", name]);
        let file = Gguf::open(&out).expect("opens");
        let tensor = file.tensor("token_embd.weight").expect("an embedding");
        let blocks: HashSet<&[u8]> = tensor.data.chunks_exact(tensor.ty.block_bytes()).take(1000).collect();
        assert_eq!(blocks.len(), 1000, "{name}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = fs::metadata(&out).expect("there");
            assert!(metadata.blocks() * 512 >= metadata.len(), "{name} is sparse");
        }
    }
}

#[test]
fn a_small_vocabulary_is_padded() {
    let folder = Folder::new("synth-padded");
    let out = folder.path("out.gguf");
    let vocab = support::model();
    synth(&out, &["--vocab", vocab.to_str().expect("UTF-8")]);
    let file = Gguf::open(&out).expect("opens");
    let tokens = file.metadata().strings("tokenizer.ggml.tokens").expect("strings").expect("there");
    assert_eq!(tokens.len(), 1024);
    let padding: Vec<&str> = tokens.iter().skip(support::VOCAB).collect();
    assert_eq!((padding[0], padding.last()), ("[PAD261]", Some(&"[PAD1023]")));
    let types = file.metadata().usizes("tokenizer.ggml.token_type").expect("integers").expect("there");
    assert_eq!(types.len(), 1024);
    assert!(types[support::VOCAB..].iter().all(|&ty| ty == 5));
    // Everything else is as it was.
    let source = Gguf::open(&vocab).expect("opens");
    for key in ["model", "pre", "merges", "eos_token_id", "add_bos_token"].map(|key| format!("tokenizer.ggml.{key}")) {
        assert!(source.metadata().value(&key).is_some(), "{key}");
        assert_eq!(file.metadata().value(&key), source.metadata().value(&key), "{key}");
    }

    let model = Model::open(&out).expect("loads");
    let tokenizer = model.tokenizer().expect("a vocabulary");
    assert_eq!(tokenizer.encode("the", Special::AsText), [257]);
    assert!(tokenizer.encode("[PAD300]", Special::Parse).len() > 1, "padding is never matched");
}

#[test]
fn a_large_vocabulary_is_cut_with_all_that_speaks_of_it() {
    let folder = Folder::new("synth-cut");
    let vocab = folder.path("vocab.gguf");
    large_vocabulary(Path::new(&vocab));
    let out = folder.path("out.gguf");
    synth(&out, &["--vocab", &vocab]);
    let file = Gguf::open(&out).expect("opens");
    let metadata = file.metadata();
    let strings = |key: &str| -> Vec<&str> {
        metadata.strings(key).expect("strings").map(|strings| strings.iter().collect()).expect("there")
    };
    assert_eq!(strings("tokenizer.ggml.tokens").len(), 1024);
    assert_eq!(metadata.usizes("tokenizer.ggml.token_type").expect("integers").expect("there").len(), 1024);
    assert_eq!(metadata.f32s("tokenizer.ggml.scores").expect("floats").expect("there").len(), 1024);
    assert_eq!(strings("tokenizer.ggml.merges"), ["a b", "  b"]);
    assert_eq!(metadata.usize("tokenizer.ggml.bos_token_id").expect("an integer"), Some(1023));
    assert_eq!(metadata.value("tokenizer.ggml.eos_token_id"), None);
    assert_eq!(metadata.str("tokenizer.chat_template").expect("text"), Some("hi"));
}

/// 1500 tokens, and merges of which two are about the first 1024 of them only.
fn large_vocabulary(path: &Path) {
    let mut tokens: Vec<String> = (0..1500).map(|id| format!("t{id}")).collect();
    for (id, text) in [(0, "a"), (1, "b"), (2, "ab"), (3, " "), (4, " b"), (1100, "ba"), (1200, "c")] {
        text.clone_into(&mut tokens[id]);
    }
    let mut writer = GgufWriter::new();
    let put = |writer: &mut GgufWriter| {
        writer.put("general.architecture", "qwen2")?;
        writer.put("tokenizer.ggml.model", "gpt2")?;
        writer.put("tokenizer.ggml.tokens", tokens.iter().collect::<Strings>())?;
        writer.put("tokenizer.ggml.token_type", vec![1_i32; 1500])?;
        writer.put("tokenizer.ggml.scores", vec![0.5_f32; 1500])?;
        let merges = ["a b", "b a", "a c", "  b", "ab t1300", "odd"];
        writer.put("tokenizer.ggml.merges", merges.iter().collect::<Strings>())?;
        writer.put("tokenizer.ggml.bos_token_id", 1023_u32)?;
        writer.put("tokenizer.ggml.eos_token_id", 1024_u32)?;
        writer.put("tokenizer.chat_template", "hi")
    };
    put(&mut writer).expect("a vocabulary");
    writer.create(path).expect("a file").finish().expect("written");
}

#[test]
fn the_sidecar_goes_with_the_trunk() {
    let folder = Folder::new("synth-mtp");
    let (out, mtp) = (folder.path("tiny.gguf"), folder.path("mtp-tiny.gguf"));
    let text = run(["synth", "qwen2-tiny", &out, "--mtp", &mtp]).ok();
    assert_eq!(text.lines().count(), 2, "{text}");
    let (trunk, mtp) = (Gguf::open(&out).expect("opens"), Gguf::open(&mtp).expect("opens"));
    let model = Model::from_gguf(&trunk, Some(&mtp), &LoadOptions::default()).expect("loads");
    let mut session = model.session(&SessionOptions::default()).expect("a session");
    let mut rows = Vec::new();
    session
        .mtp_logits(&[5, 6, 7], |index, logits| {
            assert!(logits.iter().all(|logit| logit.is_finite()));
            rows.push(index);
        })
        .expect("runs");
    assert_eq!(rows, [1, 2]);
    // Layer 2 is not layer 0 again.
    let q = |file: &Gguf, name: &str| file.tensor(name).map(|tensor| tensor.data.to_vec());
    assert_ne!(q(&trunk, "blk.0.attn_q.weight"), q(&mtp, "blk.2.attn_q.weight"));
}

#[test]
fn misuse_is_refused_and_leaves_nothing_behind() {
    let folder = Folder::new("synth-refused");
    let out = folder.path("out.gguf");
    let fails = |code: i32, arguments: &[&str], says: &str| {
        let text = run(["synth"].iter().chain(arguments)).fails(code);
        assert!(text.contains(says), "{text}");
    };
    fails(2, &["gpt-17", &out], "mimo-7b, qwen2-0.5b, phi-4, phi-4-mini, phi-mini-moe, qwen2-tiny");
    fails(2, &["qwen2-tiny", &out, "--type", "q5_k"], "q4_k_m");
    fails(2, &["qwen2-tiny"], "OUT");
    fails(1, &["qwen2-tiny", &folder.path("no/such/folder/out.gguf")], "no/such/folder");
    fails(1, &["qwen2-tiny", folder.to_str().expect("UTF-8")], "is a directory");
    fails(1, &["qwen2-tiny", &out, "--vocab", &folder.path("none.gguf")], "none.gguf");
    fails(1, &["qwen2-tiny", &out, "--mtp", &out], "two files");
    fails(1, &["phi3-tiny", &out, "--mtp", &folder.path("mtp.gguf")], "no multi-token-prediction layer");
    let no_vocabulary = folder.path("mute.gguf");
    synth(&no_vocabulary, &[]);
    fails(1, &["qwen2-tiny", &out, "--vocab", &no_vocabulary], "no vocabulary");
    assert_eq!(folder.names(), ["mute.gguf"]);

    fs::write(&out, "precious").expect("written");
    fails(1, &["qwen2-tiny", &out], "already there");
    let second = folder.path("second.gguf");
    fails(1, &["qwen2-tiny", &second, "--mtp", &out], "already there");
    assert_eq!(folder.names(), ["mute.gguf", "out.gguf"]);
    assert_eq!(fs::read(&out).expect("there"), b"precious");
    synth(&out, &["--force"]);
    assert!(Gguf::open(&out).is_ok());
}

#[cfg(unix)]
#[test]
fn whatever_ends_it_leaves_nothing_behind() {
    heed_signals();
    for (signal, expected) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        interrupted_by(signal, expected, &[]);
    }
}

/// Like what `nohup` starts, or a script in the background.
#[cfg(target_os = "linux")]
#[test]
fn what_was_ignored_stays_ignored() {
    heed_signals();
    interrupted_by("TERM", 143, &["HUP", "INT"]);
}

/// Ends the program with a signal while it writes, after others that it was told to ignore.
#[cfg(unix)]
fn interrupted_by(signal: &str, expected: i32, ignored: &[&str]) {
    let folder = Folder::new(&format!("synth-{signal}-{}", ignored.len()));
    let other = folder.path(".big.gguf.tmp-0-0");
    fs::write(&other, "of another process").expect("written");
    // Takes seconds to write; the temporary file is there at once.
    let trap = if ignored.is_empty() { String::new() } else { format!("trap '' {}; ", ignored.join(" ")) };
    let mut child = std::process::Command::new("sh")
        .args(["-c", &format!("{trap}exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_halfbyte")])
        .args(["synth", "qwen2-0.5b", &folder.path("big.gguf"), "--type", "f32"])
        .spawn()
        .expect("starts");
    while folder.names().len() < 2 {
        assert!(child.try_wait().expect("a state").is_none(), "it ended before it wrote anything");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for signal in ignored {
        kill(signal, child.id());
    }
    if !ignored.is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(child.try_wait().expect("a state").is_none(), "{ignored:?} are ignored");
        assert_eq!(folder.names().len(), 2);
    }
    kill(signal, child.id());
    assert_eq!(code(child), expected);
    assert_eq!(folder.names(), [".big.gguf.tmp-0-0"]);
}

#[cfg(unix)]
#[test]
fn a_device_is_not_replaced() {
    for force in [&[][..], &["--force"]] {
        let error = run(["synth", "qwen2-tiny", "/dev/null"].iter().chain(force)).fails(1);
        assert_eq!(error, "error: /dev/null is not a regular file\n");
    }
}

/// And what it leads to is checked, replaced, and cleaned up after as if it had been named.
#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let folder = Folder::new("synth-link");
    let (link, real) = (folder.path("link.gguf"), folder.path("elsewhere/real.gguf"));
    fs::create_dir(folder.path("elsewhere")).expect("a folder");
    std::os::unix::fs::symlink("elsewhere/real.gguf", &link).expect("a link");
    for force in [&[][..], &["--force"]] {
        let error = run(["synth", "qwen2-tiny", &link].iter().chain(force)).fails(1);
        assert_eq!(error, format!("error: {link} is a link that leads nowhere\n"));
    }
    fs::write(&real, "precious").expect("written");
    assert!(run(["synth", "qwen2-tiny", &link]).fails(1).contains("already there"));
    let twice = run(["synth", "qwen2-tiny", &link, "--mtp", &real, "--force"]).fails(1);
    assert_eq!(twice, format!("error: {link} cannot be two files at once\n"));
    run(["synth", "qwen2-tiny", &link, "--force"]).ok();
    assert!(Path::new(&link).is_symlink() && Gguf::open(&real).is_ok());
    assert_eq!(folder.names(), ["elsewhere", "link.gguf"]);
    assert_eq!(fs::read_dir(folder.path("elsewhere")).expect("a folder").count(), 1);
}

#[test]
fn two_files_are_two() {
    let folder = Folder::new("synth-twice");
    let out = folder.path("a.gguf");
    for also in [out.clone(), out.replace("/a.gguf", "/./a.gguf")] {
        let error = run(["synth", "qwen2-tiny", &out, "--mtp", &also]).fails(1);
        assert_eq!(error, format!("error: {out} cannot be two files at once\n"));
    }
    assert!(folder.names().is_empty());
}
