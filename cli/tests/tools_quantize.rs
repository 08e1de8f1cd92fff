//! `halfbyte quantize`: formats, sizes and errors of the weights it writes, and what it keeps.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod folder;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::fs;

use folder::Folder;
use halfbyte::{LoadOptions, Model, SessionOptions};
use halfbyte_formats::{
    QuantType,
    gguf::{Gguf, GgufWriter, Tensor, Value},
    quant::{self, Mix, ModelTraits},
};
use support::run;

fn quantize(input: &str, out: &str, ty: &str) -> Gguf {
    let text = run(["quantize", input, out, ty]).ok();
    assert!(text.starts_with(&format!("wrote {out}: ")), "{text}");
    Gguf::open(out).expect("opens")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.dims.iter().product()];
    quant::decode(tensor.ty, &tensor.data, &mut values).expect("whole blocks");
    values
}

/// Mean squared difference over mean square.
fn error(expected: &[f32], found: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
    let difference = &mut expected.iter().zip(found).map(|(a, b)| a - b);
    squares(difference) / squares(&mut expected.iter().copied())
}

fn entries(file: &Gguf) -> Vec<(String, Value)> {
    file.metadata().iter().map(|(key, value)| (key.to_owned(), value.clone())).collect()
}

#[test]
fn every_format_keeps_the_model_within_its_error() {
    let folder = Folder::new("quantize-formats");
    let input = folder.path("in.gguf");
    run(["synth", "qwen2-tiny", &input, "--type", "f32", "--vocab", support::model().to_str().expect("UTF-8")]).ok();
    let source = Gguf::open(&input).expect("opens");
    let traits = ModelTraits { architecture: "qwen2", layers: 2, tied: false };
    // Twice what normally distributed weights lose.
    for (name, bound) in [
        ("f32", 0.0),
        ("f16", 1e-7),
        ("bf16", 6e-6),
        ("q8_0", 6e-5),
        ("q6_k", 1e-3),
        ("q5_0", 4e-3),
        ("q4_0", 1.6e-2),
        ("q4_k_m", 1.2e-2),
        ("q4_mixed", 1.6e-2),
    ] {
        let mix = Mix::from_name(name).expect("a mix");
        let file = quantize(&input, &folder.path(&format!("{name}.gguf")), name);
        let mut expected = entries(&source);
        for (key, value) in &mut expected {
            if key == "general.file_type" {
                *value = mix.file_type().expect("a number").into();
            }
        }
        assert_eq!(entries(&file), expected, "{name}: metadata in order");
        assert_eq!(file.tensors().len(), source.tensors().len());
        for (old, new) in source.tensors().iter().zip(file.tensors()) {
            assert_eq!((&old.name, &old.dims), (&new.name, &new.dims), "{name}");
            assert_eq!(new.ty, mix.tensor_type(&old.name, &old.dims, traits), "{name}: {}", old.name);
            if old.dims.len() == 1 || new.ty == old.ty {
                assert_eq!(&old.data[..], &new.data[..], "{name}: {} is a copy", old.name);
            } else {
                let error = error(&values(old), &values(new));
                assert!(error > 0.0 && error <= bound, "{name}: {} has error {error:e}", old.name);
            }
        }
        let model = Model::from_gguf(&file, None, &LoadOptions::default()).expect("loads");
        let mut session = model.session(&SessionOptions::default()).expect("a session");
        session.push_text("the cat").expect("runs");
        assert!(session.logits().expect("logits").iter().all(|logit| logit.is_finite()), "{name}");
    }
    let size = |name: &str| fs::metadata(folder.path(&format!("{name}.gguf"))).expect("there").len();
    let sizes = ["f32", "f16", "q8_0", "q6_k", "q5_0", "q4_k_m", "q4_0"].map(size);
    assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
    assert_eq!(size("bf16"), size("f16"));
    let default = folder.path("default.gguf");
    run(["quantize", &input, &default]).ok();
    assert!(fs::read(&default).expect("there") == fs::read(folder.path("q4_mixed.gguf")).expect("there"));
}

#[test]
fn quantised_input_is_decoded_first() {
    let folder = Folder::new("quantize-again");
    let (input, plain) = (folder.path("q4_k_m.gguf"), folder.path("f32.gguf"));
    run(["synth", "qwen2-tiny", &input, "--type", "q4_k_m"]).ok();
    let (source, file) = (Gguf::open(&input).expect("opens"), quantize(&input, &plain, "f32"));
    for (old, new) in source.tensors().iter().zip(file.tensors()) {
        assert_eq!(new.ty, QuantType::F32);
        assert_eq!(values(old), values(new), "{}", old.name);
    }
    // The head is in q6_k either way.
    let note = |ty: &str| run(["quantize", &input, &folder.path(&format!("{ty}-note.gguf")), ty]).stderr;
    assert!(note("q4_0").starts_with(&format!("note: 15 matrices of {input} are quantised already")));
    assert_eq!(note("q4_k_m"), "");
    let unpacked = run(["quantize", &plain, &folder.path("none.gguf"), "q4_0"]);
    assert_eq!(unpacked.stderr, "");
    // Numbers that a format can hold stay what they are.
    let (q8, q8_again) = (folder.path("q8.gguf"), folder.path("q8-again.gguf"));
    quantize(&plain, &q8, "q8_0");
    quantize(&q8, &q8_again, "q8_0");
    assert!(fs::read(&q8).expect("there") == fs::read(&q8_again).expect("there"));
}

#[test]
fn rows_of_other_lengths_fall_back_to_finer_formats() {
    let folder = Folder::new("quantize-fallback");
    let input = support::model();
    let input = input.to_str().expect("UTF-8");
    // Its rows have 32 and 64 elements, and its embedding is the head.
    let file = quantize(input, &folder.path("k.gguf"), "q4_k_m");
    let ty = |name: &str| file.tensor(name).map(|tensor| tensor.ty);
    assert_eq!(ty("token_embd.weight"), Some(QuantType::Q8_0));
    assert_eq!(ty("blk.0.ffn_up.weight"), Some(QuantType::Q5_0));
    let expected = Value::U32(15);
    assert_eq!(file.metadata().value("general.file_type"), Some(&expected));
    let version = file.metadata().iter().last();
    assert_eq!(version, Some(("general.quantization_version", &Value::U32(2))), "added at the end");
}

/// The experts of a layer are one tensor of three extents: every row of every one of them is encoded.
#[test]
fn experts_are_quantised_row_by_row() {
    let folder = Folder::new("quantize-experts");
    let (input, out) = (folder.path("in.gguf"), folder.path("out.gguf"));
    let (depth, rows, experts) = (96, 5, 16);
    let weights: Vec<f32> =
        (0..depth * rows * experts).map(|i| ((i * i + 7 * i) % 1009) as f32 / 504.0 - 1.0).collect();
    let mut writer = GgufWriter::new();
    writer.put("general.architecture", "phimoe").expect("a key");
    writer.put("phimoe.block_count", 8u32).expect("a key");
    for (name, dims) in [
        ("blk.3.ffn_down_exps.weight", &[depth, rows, experts][..]),
        ("blk.4.ffn_down_exps.weight", &[depth, rows, experts]),
        ("blk.3.ffn_gate_inp.weight", &[depth, experts]),
    ] {
        writer.declare(name, dims, QuantType::F32).expect("a tensor");
    }
    let mut file = writer.create(&input).expect("a file");
    let bytes: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
    file.write_tensor("blk.3.ffn_down_exps.weight", &bytes).expect("written");
    file.write_tensor("blk.4.ffn_down_exps.weight", &bytes).expect("written");
    file.write_tensor("blk.3.ffn_gate_inp.weight", &bytes[..4 * depth * experts]).expect("written");
    file.finish().expect("complete");

    let file = quantize(&input, &out, "q4_k_m");
    // Of 8 layers, 3 has more bits and 4 has not; rows of 96 are no whole blocks of a K-quant.
    for (name, expected) in
        [("blk.3.ffn_down_exps.weight", QuantType::Q8_0), ("blk.4.ffn_down_exps.weight", QuantType::Q5_0)]
    {
        let tensor = file.tensor(name).expect("a tensor");
        assert_eq!((tensor.ty, &tensor.dims[..]), (expected, &[depth, rows, experts][..]));
        let mut blocks = vec![0; expected.row_bytes(weights.len()).expect("whole blocks")];
        quant::encode(expected, &weights, &mut blocks).expect("encodes");
        assert!(tensor.data[..] == blocks, "{name}");
    }
    assert_eq!(file.tensor("blk.3.ffn_gate_inp.weight").map(|tensor| tensor.ty), Some(QuantType::F32));
}

#[test]
fn a_sidecar_is_quantised_like_its_trunk() {
    let folder = Folder::new("quantize-mtp");
    let paths = ["tiny.gguf", "mtp-tiny.gguf", "q.gguf", "mtp-q.gguf"].map(|name| folder.path(name));
    let [trunk, mtp, small_trunk, small_mtp] = &paths;
    run(["synth", "qwen2-tiny", trunk, "--mtp", mtp, "--type", "f16"]).ok();
    let trunk = quantize(trunk, small_trunk, "q4_0");
    let mtp = quantize(mtp, small_mtp, "q4_0");
    let ty = |name: &str| mtp.tensor(name).map(|tensor| tensor.ty);
    assert_eq!(ty("blk.2.nextn.eh_proj.weight"), Some(QuantType::Q4_0));
    assert_eq!(ty("blk.2.nextn.enorm.weight"), Some(QuantType::F32));
    let model = Model::from_gguf(&trunk, Some(&mtp), &LoadOptions::default()).expect("loads");
    assert_eq!(model.config().mtp_layers, 1);
}

#[test]
fn misuse_and_broken_input_leave_nothing_behind() {
    let folder = Folder::new("quantize-refused");
    let (input, out) = (folder.path("in.gguf"), folder.path("out.gguf"));
    run(["synth", "qwen2-tiny", &input, "--type", "f16"]).ok();
    let fails = |code: i32, arguments: &[&str], says: &str| {
        let text = run(["quantize"].iter().chain(arguments)).fails(code);
        assert!(text.contains(says), "{text}");
        assert!(!fs::exists(&out).expect("readable"));
    };
    fails(2, &[&input, &out, "q2_k"], "q4_k_m");
    fails(1, &[&input, &input, "q4_0", "--force"], "is the input");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&input, folder.path("link.gguf")).expect("a link");
        fails(1, &[&input, &folder.path("link.gguf"), "q4_0", "--force"], "is the input");
        fs::remove_file(folder.path("link.gguf")).expect("removed");
    }
    fails(1, &[&folder.path("none.gguf"), &out, "q4_0"], "none.gguf");
    fails(1, &[&input, &folder.path("no/folder/out.gguf"), "q4_0"], "no/folder");
    let whole = fs::read(&input).expect("there");
    let cut = folder.path("cut.gguf");
    fs::write(&cut, &whole[..whole.len() - 100]).expect("written");
    fails(1, &[&cut, &out, "q4_0"], "cut short");

    let bad = folder.path("nan.gguf");
    let mut writer = GgufWriter::new();
    writer.put("general.architecture", "qwen2").expect("a key");
    writer.declare("blk.0.attn_q.weight", &[32, 2], QuantType::F32).expect("a tensor");
    let mut file = writer.create(&bad).expect("a file");
    let data: Vec<u8> = (0..64).flat_map(|n| if n == 40 { f32::NAN } else { 1.0 }.to_le_bytes()).collect();
    file.write_tensor("blk.0.attn_q.weight", &data).expect("written");
    file.finish().expect("complete");
    fails(1, &[&bad, &out, "q8_0"], "blk.0.attn_q.weight");
    assert_eq!(folder.names(), ["cut.gguf", "in.gguf", "nan.gguf"], "no temporary file either");

    fs::write(&out, "precious").expect("written");
    let text = run(["quantize", &input, &out, "q4_0"]).fails(1);
    assert!(text.contains("already there"), "{text}");
    assert_eq!(fs::read(&out).expect("there"), b"precious");
    run(["quantize", &input, &out, "q4_0", "--force"]).ok();
    assert!(Gguf::open(&out).is_ok());
}
