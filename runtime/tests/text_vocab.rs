//! llama.cpp's own vocabulary tests: every `.inp` case must give the ids of its `.out` line.
//!
//! The files are not part of this repository: they are looked for in `../shared/data/vocab` beside it. Cut-down
//! vocabularies that are part of it are tested in `text_golden.rs`.

use std::{fs, path::Path};

use halfbyte::{
    Gguf,
    text::{Special, Tokenizer},
};

/// The 46 cases of a vocabulary; none if the files are not there.
fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/vocab");
    let path = folder.join(format!("ggml-vocab-{name}.gguf"));
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let file = Gguf::open(&path).unwrap();
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    let texts = fs::read_to_string(path.with_extension("gguf.inp")).unwrap();
    let ids = fs::read_to_string(path.with_extension("gguf.out")).unwrap();
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    let ids: Vec<Vec<u32>> =
        ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    // The separator also ends the last case.
    assert_eq!((texts.len(), ids.len(), texts[46]), (47, 46, ""));
    for (text, expected) in texts.iter().zip(&ids) {
        assert_eq!(&tokenizer.encode(text, Special::AsText), expected, "{text:?}");
        assert_eq!(&tokenizer.decode_lossy(expected), text);
    }
    println!("{name}: {} of 46 cases", ids.len());
}

#[test]
fn qwen2_as_llama_cpp() {
    check("qwen2");
}

#[test]
fn llama_bpe_as_llama_cpp() {
    check("llama-bpe");
}

#[test]
fn phi_3_as_llama_cpp() {
    check("phi-3");
}
