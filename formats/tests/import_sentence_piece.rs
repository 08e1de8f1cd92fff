//! Import of SentencePiece vocabularies from `tokenizer.json`: kinds, scores, and what GGUF cannot say.
#![cfg(feature = "import")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod checkpoint;

use checkpoint::phi::VOCAB;
use checkpoint::{Fixture, assert_field};
use halfbyte_formats::FormatError;
use serde_json::{Value, json};

#[test]
fn sentence_pieces_get_kinds_and_scores() {
    let file = Fixture::phimoe().gguf("sentence-piece");
    let metadata = file.metadata();
    assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), Some("llama"));
    assert_eq!(metadata.str("tokenizer.ggml.pre").unwrap(), Some("default"));
    assert_eq!(metadata.bool("tokenizer.ggml.add_space_prefix").unwrap(), Some(true));
    assert_eq!(metadata.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
    assert_eq!(metadata.value("tokenizer.ggml.merges"), None);
    for (key, id) in [("bos", 1), ("eos", 266), ("padding", 266), ("unknown", 0)] {
        assert_eq!(metadata.usize(&format!("tokenizer.ggml.{key}_token_id")).unwrap(), Some(id), "{key}");
    }
    let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    let at = |id: usize| tokens.at(id).unwrap();
    assert_eq!(
        (tokens.len(), [at(2), at(3), at(259), at(268), at(269)]),
        (VOCAB, ["</s>", "<0x00>", "ab", "<|end|>", "[PAD269]"])
    );
    let types = metadata.usizes("tokenizer.ggml.token_type").unwrap().unwrap();
    // `</s>` is not special in the tokenizer.json files of these models: always matched.
    assert_eq!(types[..3], [2, 3, 4]);
    assert!(types[3..259].iter().all(|&ty| ty == 6));
    assert!(types[259..266].iter().all(|&ty| ty == 1));
    assert!(types[266..269].iter().all(|&ty| ty == 3));
    assert!(types[269..].iter().all(|&ty| ty == 5));
    let scores = metadata.f32s("tokenizer.ggml.scores").unwrap().unwrap();
    assert_eq!(scores[259..266], [0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
    let last = -(VOCAB as f32);
    assert!(scores[..3].iter().chain(&scores[266..]).all(|&score| score == last));
}

#[test]
fn sentence_piece_variants_are_understood() {
    // Without a flag the template decides whether a sequence begins with a special token.
    let mut fixture = Fixture::phimoe();
    fixture.settings = json!({});
    assert_eq!(fixture.gguf("template").metadata().bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    fixture.tokenizer["post_processor"] = json!(null);
    assert_eq!(fixture.gguf("no-template").metadata().bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));

    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
    let never = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false });
    for (normalizer, pre_tokenizer) in [
        (replace.clone(), json!(null)),
        (json!({ "type": "Sequence", "normalizers": [replace] }), json!(null)),
        (json!(null), never.clone()),
        (json!(null), json!({ "type": "Sequence", "pretokenizers": [never] })),
    ] {
        let mut fixture = Fixture::phimoe();
        fixture.tokenizer["normalizer"] = normalizer;
        fixture.tokenizer["pre_tokenizer"] = pre_tokenizer;
        let file = fixture.gguf("no-prefix");
        assert_eq!(file.metadata().bool("tokenizer.ggml.add_space_prefix").unwrap(), Some(false));
    }

    // Llama's runs of spaces: transformers lists their merges by length, a pair last.
    let mut fixture = Fixture::phimoe();
    for n in 2..5 {
        fixture.tokenizer["model"]["vocab"]["▁".repeat(n)] = json!(267 + n);
    }
    let merges = fixture.tokenizer["model"]["merges"].as_array_mut().unwrap();
    for (left, right) in [(3, 1), (2, 2), (2, 1), (1, 3), (1, 2), (1, 1)] {
        merges.push(json!(["▁".repeat(left), "▁".repeat(right)]));
    }
    let file = fixture.gguf("spaces");
    let scores = file.metadata().f32s("tokenizer.ggml.scores").unwrap().unwrap();
    assert_eq!(scores[269..272], [-5.0, -3.0, -3.0], "2, 3 and 4 spaces");
}

#[test]
fn broken_sentence_pieces_are_named() {
    type Spoil = fn(&mut Value);
    let cases: [(&str, Spoil, &str); 25] = [
        ("unigram", |t| t["model"]["type"] = json!("Unigram"), "model.type"),
        ("ignored merges", |t| t["model"]["ignore_merges"] = json!(true), "model.ignore_merges"),
        ("prefix", |t| t["model"]["continuing_subword_prefix"] = json!("##"), "model.continuing_subword_prefix"),
        ("suffix", |t| t["model"]["end_of_word_suffix"] = json!("</w>"), "model.end_of_word_suffix"),
        ("unknown unk", |t| t["model"]["unk_token"] = json!("<none>"), "model.unk_token"),
        ("unk is a number", |t| t["model"]["unk_token"] = json!(0), "model.unk_token"),
        ("no normaliser", |t| t["normalizer"] = json!(null), "normalizer"),
        ("other normaliser", |t| t["normalizer"] = json!({ "type": "NFKC" }), "normalizer"),
        ("other prefix", |t| t["normalizer"]["normalizers"][0]["prepend"] = json!("_"), "normalizer"),
        ("order", |t| t["normalizer"]["normalizers"].as_array_mut().unwrap().swap(0, 1), "normalizer"),
        ("both", |t| t["pre_tokenizer"] = json!({ "type": "Metaspace" }), "pre_tokenizer"),
        ("rstrip missing", |t| t["added_tokens"][4]["rstrip"] = json!(false), "added_tokens.4.rstrip"),
        ("rstrip too much", |t| t["added_tokens"][3]["rstrip"] = json!(true), "added_tokens.3.rstrip"),
        ("lstrip", |t| t["added_tokens"][5]["lstrip"] = json!(true), "added_tokens.5.lstrip"),
        ("single word", |t| t["added_tokens"][5]["single_word"] = json!(true), "added_tokens.5.single_word"),
        ("normalised", |t| t["added_tokens"][5]["normalized"] = json!(true), "added_tokens.5.normalized"),
        ("merge of nothing", |t| t["model"]["merges"][0] = json!("x b"), "model.merges.0"),
        ("merge of bytes", |t| t["model"]["merges"][0] = json!("<0x00> <0x01>"), "model.merges.0"),
        ("merge without space", |t| t["model"]["merges"][1] = json!("ab"), "model.merges.1"),
        ("no merges", |t| t["model"]["merges"] = json!(null), "model.merges"),
        ("a cut is missing", |t| t["model"]["vocab"]["bc"] = json!(270), "model.merges"),
        ("a character is missing", |t| t["model"]["vocab"]["abx"] = json!(270), "model.merges"),
        ("a long token", |t| t["model"]["vocab"]["x".repeat(1025)] = json!(270), "model.vocab"),
        ("unions mixed", |t| t["model"]["merges"] = json!(["a b", "▁ ab", "ab c", "a b"]), "model.merges.0"),
        ("added id taken", |t| t["added_tokens"][5]["id"] = json!(9), "added_tokens.5.id"),
    ];
    for (case, spoil, expected) in cases {
        let mut fixture = Fixture::phimoe();
        spoil(&mut fixture.tokenizer);
        match fixture.refusal("pieces") {
            FormatError::CheckpointField { field, .. } => assert_eq!(field, expected, "{case}"),
            other => panic!("{case}: {other:?}"),
        }
    }
    // GGUF cannot say that text gets a space only at the start, or only if it has none.
    for scheme in ["first", "always"] {
        let mut fixture = Fixture::phimoe();
        fixture.tokenizer["normalizer"] = json!(null);
        fixture.tokenizer["pre_tokenizer"] =
            json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false });
        assert_field(&fixture.refusal("metaspace"), "pre_tokenizer", "a map", scheme);
    }
    // Runs of spaces of one score whose order is another than transformers' one.
    let mut fixture = Fixture::phimoe();
    for n in 2..4 {
        fixture.tokenizer["model"]["vocab"]["▁".repeat(n)] = json!(267 + n);
    }
    let merges = fixture.tokenizer["model"]["merges"].as_array_mut().unwrap();
    for (left, right) in [(2, 1), (1, 1), (1, 2)] {
        merges.push(json!(["▁".repeat(left), "▁".repeat(right)]));
    }
    assert_field(&fixture.refusal("spaces-mixed"), "model.merges.3", "those of \"▁▁▁\" among others", "spaces");
}

/// In a model of another architecture no special token swallows white space.
#[test]
fn strip_flags_are_checked_by_architecture() {
    let mut fixture = Fixture::phi3();
    fixture.sentence_piece();
    fixture.gguf("phi3-pieces");
    let mut fixture = Fixture::phi3();
    fixture.sentence_piece();
    fixture.tokenizer["added_tokens"][2]["rstrip"] = json!(false);
    let error = fixture.refusal("phi3-pieces-spoilt");
    assert_field(&error, "added_tokens.2.rstrip", "false", "</s>");
    assert!(error.to_string().contains("phi3"), "{error}");
}
