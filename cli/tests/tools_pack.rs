//! `halfbyte pack`: the file it writes runs like the original, and what it refuses.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod folder;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::fs;

use folder::Folder;
use halfbyte::Isa;
use halfbyte_formats::gguf::{Gguf, GgufWriter};
use serde_json::Value;
use support::run;

fn pack(input: &str, out: &str) -> Gguf {
    let text = run(["pack", input, out]).ok();
    assert!(text.starts_with(&format!("wrote {out}: ")), "{text}");
    Gguf::open(out).expect("opens")
}

#[test]
fn a_packed_model_says_the_same() {
    let folder = Folder::new("pack-run");
    for name in ["tiny-mimo", "tiny-phimoe"] {
        let out = folder.path(&format!("{name}.gguf"));
        let file = pack(name, &out);
        assert!(file.is_packed());
        assert!(file.tensors().iter().all(|tensor| (tensor.data.as_ptr() as usize).is_multiple_of(1 << 12)), "mapped");
        let text = |model: &str, isa: Option<&str>| {
            let isa = isa.map_or(Vec::new(), |isa| vec!["--isa", isa]);
            run(["run", model, "-p", "Once upon a time", "-n", "40", "--temp", "0"].iter().chain(&isa)).ok()
        };
        // The last two, portable and scalar, round activations only where weights are packed.
        for isa in Isa::available().filter(|isa| !matches!(isa, Isa::Portable | Isa::Scalar)) {
            assert_eq!(text(&out, Some(isa.name())), text(name, Some(isa.name())), "{name} {}", isa.name());
        }
        // What is asked of the metadata does not change.
        let tokens = |model: &str| run(["tokenize", model, "--text", "Once upon a time"]).ok();
        assert_eq!(tokens(&out), tokens(name));
    }
}

#[test]
fn a_sidecar_is_packed_like_its_trunk() {
    let folder = Folder::new("pack-mtp");
    let paths = ["tiny.gguf", "mtp-tiny.gguf", "p.gguf", "mtp-p.gguf"].map(|name| folder.path(name));
    let [trunk, mtp, packed_trunk, packed_mtp] = &paths;
    run(["synth", "qwen2-tiny", trunk, "--mtp", mtp, "--type", "q8_0"]).ok();
    pack(trunk, packed_trunk);
    let sidecar = pack(mtp, packed_mtp);
    assert!(sidecar.tensor("blk.2.nextn.eh_proj.weight").is_some_and(|tensor| tensor.panels().is_some()));
    let rows = |model: &str| run(["logits", model, "--mtp", "--tokens", "1,2,3,4", "--isa", best()]).ok();
    if best() != "portable" {
        assert_eq!(rows(packed_trunk), rows(trunk));
    }
}

/// The best tier of this machine.
fn best() -> &'static str {
    Isa::available().next().map_or("scalar", |isa| isa.name())
}

#[test]
fn inspect_shows_matrices_not_bytes() {
    let folder = Folder::new("pack-inspect");
    let out = folder.path("out.gguf");
    pack("tiny-mimo", &out);
    let json = |model: &str| -> Value { serde_json::from_str(&run(["inspect", model, "--json"]).ok()).expect("JSON") };
    let (old, new) = (json("tiny-mimo"), json(&out));
    assert_eq!(old["parameters"], new["parameters"]);
    let shapes = |file: &Value| -> Vec<(Value, Value)> {
        let tensors = file["tensors"].as_array().expect("an array");
        tensors.iter().map(|tensor| (tensor["name"].clone(), tensor["shape"].clone())).collect()
    };
    assert_eq!(shapes(&old), shapes(&new));
    assert_eq!(new["totals"]["q4_0 (packed)"]["tensors"].as_u64(), Some(56));
    assert_eq!(old["bytes"], new["bytes"], "whole panels: the same bytes");
    let text = run(["inspect", &out]).ok();
    assert!(text.contains("q6_k (packed) 256 x 4096"), "{text}");
    assert!(text.contains("halfbyte.pack.version"), "{text}");
}

#[test]
fn misuse_and_broken_input_leave_nothing_behind() {
    let folder = Folder::new("pack-refused");
    let (input, out, packed) = (folder.path("in.gguf"), folder.path("out.gguf"), folder.path("packed.gguf"));
    run(["synth", "qwen2-tiny", &input, "--type", "q8_0"]).ok();
    pack(&input, &packed);
    let fails = |arguments: &[&str], says: &str| {
        let text = run(arguments).fails(1);
        assert!(text.contains(says), "{text}");
        assert!(!fs::exists(&out).expect("readable"));
    };
    fails(&["pack", &packed, &out], "packed already");
    fails(&["quantize", &packed, &out, "q4_0"], "is packed: quantize the file it was made from");
    fails(&["pack", &input, &input, "--force"], "is the input");
    fails(&["pack", &folder.path("none.gguf"), &out], "none.gguf");
    let plain = folder.path("f16.gguf");
    run(["synth", "qwen2-tiny", &plain, "--type", "f16"]).ok();
    fails(&["pack", &plain, &out], "quantize it first");
    let other = folder.path("other.gguf");
    let mut writer = GgufWriter::new();
    writer.put("general.architecture", "qwen2").expect("a key");
    writer.create(&other).expect("a file").finish().expect("complete");
    fails(&["pack", &other, &out], "qwen2.block_count");
    let whole = fs::read(&packed).expect("there");
    let cut = folder.path("cut.gguf");
    fs::write(&cut, &whole[..whole.len() - 100_000]).expect("written");
    for arguments in [&["pack", &cut, &out][..], &["logits", &cut, "--tokens", "1"], &["inspect", &cut]] {
        fails(arguments, "cut short");
    }

    fs::write(&out, "precious").expect("written");
    let text = run(["pack", &input, &out]).fails(1);
    assert!(text.contains("already there"), "{text}");
    assert_eq!(fs::read(&out).expect("there"), b"precious");
    run(["pack", &input, &out, "--force"]).ok();
    assert!(fs::read(&out).expect("there") == fs::read(&packed).expect("there"), "the same file every time");
    assert_eq!(
        folder.names(),
        ["cut.gguf", "f16.gguf", "in.gguf", "other.gguf", "out.gguf", "packed.gguf"],
        "no temporary file"
    );
}
