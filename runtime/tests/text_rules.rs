//! Which metadata makes a tokenizer and which does not: one test per fault, named after it, and the meaning of keys.

use halfbyte::{
    Gguf,
    text::{Special, Tokenizer, TokenizerError, TokenizerOptions},
};
use halfbyte_formats::gguf::{GgufWriter, Metadata, Strings, Value};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// A vocabulary in the making; every part can be made wrong.
struct Draft {
    model: &'static str,
    pre: Option<&'static str>,
    tokens: Vec<(String, i32, f32)>,
    merges: Vec<String>,
    more: Vec<(&'static str, Value)>,
}

impl Draft {
    /// All 256 bytes (each its own id), three merges and two control tokens.
    fn byte_level() -> Self {
        let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
        let mut others = 0x100..;
        let written = (0..256u32).map(|b| if printable(b) { b } else { others.next().unwrap() });
        let bytes = written.map(|code| char::from_u32(code).unwrap().to_string());
        let tokens = bytes.chain(["he", "ll", "hell"].map(str::to_owned)).map(|text| (text, NORMAL, 0.0)).collect();
        let merges = ["h e", "l l", "he ll"].map(str::to_owned).into();
        let mut draft = Self { model: "gpt2", pre: Some("qwen2"), tokens, merges, more: Vec::new() };
        draft.push("<|endoftext|>", CONTROL);
        draft.push("<|im_end|>", CONTROL);
        draft
    }

    /// `<unk>`, `<s>`, `</s>`, all bytes as `<0xNN>`, a space and a few letters with two scored pieces.
    fn sentence_piece() -> Self {
        let mut draft = Self { model: "llama", pre: None, tokens: Vec::new(), merges: Vec::new(), more: Vec::new() };
        for (text, kind) in [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)] {
            draft.push(text, kind);
        }
        for byte in 0..256 {
            draft.push(&format!("<0x{byte:02X}>"), BYTE);
        }
        for (text, score) in [("▁a", -1.0), ("ab", -2.0), ("▁", -3.0), ("a", -4.0), ("b", -5.0)] {
            draft.tokens.push((text.to_owned(), NORMAL, score));
        }
        draft
    }

    fn push(&mut self, text: &str, kind: i32) -> u32 {
        self.tokens.push((text.to_owned(), kind, 0.0));
        self.tokens.len() as u32 - 1
    }

    fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.more.push((key, value.into()));
        self
    }

    /// Everything but the keys in `without`, and those in `more`.
    fn metadata_without(self, without: &[&str]) -> Metadata {
        let strings = |texts: &mut dyn Iterator<Item = &String>| Value::from(texts.collect::<Strings>());
        let mut entries = vec![
            ("tokenizer.ggml.model", Value::from(self.model)),
            ("tokenizer.ggml.tokens", strings(&mut self.tokens.iter().map(|(text, ..)| text))),
            ("tokenizer.ggml.token_type", self.tokens.iter().map(|&(_, kind, _)| kind).collect::<Vec<i32>>().into()),
        ];
        entries.extend(self.pre.map(|pre| ("tokenizer.ggml.pre", Value::from(pre))));
        if self.model == "llama" {
            entries.push((
                "tokenizer.ggml.scores",
                self.tokens.iter().map(|&(.., score)| score).collect::<Vec<f32>>().into(),
            ));
        } else {
            entries.push(("tokenizer.ggml.merges", strings(&mut self.merges.iter())));
        }
        entries.extend(self.more);
        let mut writer = GgufWriter::new();
        for (key, value) in entries {
            if !without.contains(&key) {
                writer.put(key, value).unwrap();
            }
        }
        let bytes = writer.write_to(Vec::new()).unwrap().finish().unwrap();
        Gguf::from_bytes(bytes).unwrap().metadata().clone()
    }

    fn build(self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_metadata(&self.metadata_without(&[]))
    }

    /// The message of the error it must be refused with.
    #[track_caller]
    fn refused(self) -> String {
        self.build().expect_err("refused").to_string()
    }
}

#[test]
fn the_drafts_are_good() {
    let tokenizer = Draft::byte_level().build().unwrap();
    assert_eq!(tokenizer.encode("hello", Special::AsText), [258, u32::from(b'o')]);
    let tokenizer = Draft::sentence_piece().build().unwrap();
    // Space and a merge first (-1), then b is alone; the second a has no space before it.
    assert_eq!(tokenizer.encode("abab", Special::AsText), [259, 263, 260]);
}

// Missing and unknown keys.

#[test]
fn missing_keys() {
    for (draft, keys) in [
        (Draft::byte_level as fn() -> Draft, ["model", "tokens", "token_type", "merges"]),
        (Draft::sentence_piece, ["model", "tokens", "token_type", "scores"]),
    ] {
        for key in keys.map(|key| format!("tokenizer.ggml.{key}")) {
            let error = Tokenizer::from_metadata(&draft().metadata_without(&[&key])).unwrap_err();
            assert!(matches!(error, TokenizerError::MissingKey { key: named } if named == key), "{key}: {error}");
        }
    }
    assert!(Tokenizer::from_metadata(&Metadata::default()).is_err());
}

#[test]
fn keys_of_the_wrong_kind() {
    for key in ["model", "pre", "tokens", "token_type", "merges"].map(|key| format!("tokenizer.ggml.{key}")) {
        for value in
            [Value::from(7u32), Value::from(1.5f32), Value::from(vec![1u8; 261]), Value::from(vec![0.5f32; 261])]
        {
            let whole = Draft::byte_level().metadata_without(&[&key]);
            let mut writer = GgufWriter::new();
            for (key, value) in whole.iter() {
                writer.put(key, value.clone()).unwrap();
            }
            // Numbers are what token types are.
            if key.ends_with("token_type") && matches!(&value, Value::Array(array) if array.kind() == "array of u8") {
                continue;
            }
            writer.put(&key, value).unwrap();
            let file = Gguf::from_bytes(writer.write_to(Vec::new()).unwrap().finish().unwrap()).unwrap();
            let error = Tokenizer::from_metadata(file.metadata()).unwrap_err();
            assert!(matches!(error, TokenizerError::Metadata(_)), "{key}: {error}");
            assert!(error.to_string().contains(&key), "{error}");
        }
    }
}

#[test]
fn unknown_model() {
    let mut draft = Draft::byte_level();
    draft.model = "bert";
    assert_eq!(draft.refused(), "tokenizer model \"bert\" is not supported (supported: gpt2, llama)");
}

#[test]
fn unknown_pre_and_missing_pre() {
    for (pre, named) in [(Some("falcon"), "\"falcon\""), (Some("default"), "\"default\""), (None, "no pre-tokenizer")] {
        let mut draft = Draft::byte_level();
        draft.pre = pre;
        let metadata = draft.metadata_without(&[]);
        let error = Tokenizer::from_metadata(&metadata).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("qwen2, dbrx, gpt-4o, llama-bpe"), "{error}");
        let mut options = TokenizerOptions::default();
        options.pre = Some("qwen2".to_owned());
        assert!(Tokenizer::from_metadata_with(&metadata, &options).is_ok(), "the option overrides it");
        options.pre = Some("nonsense".to_owned());
        assert!(Tokenizer::from_metadata_with(&metadata, &options).unwrap_err().to_string().contains("nonsense"));
    }
}

// Arrays that disagree.

#[test]
fn token_types_of_another_length() {
    for n in [0, 1, 260, 262] {
        let draft = Draft::byte_level().metadata_without(&["tokenizer.ggml.token_type"]);
        let error =
            Tokenizer::from_metadata(&replaced(&draft, "tokenizer.ggml.token_type", vec![1i32; n])).unwrap_err();
        assert!(matches!(error, TokenizerError::LengthMismatch { expected: 261, found, .. } if found == n), "{error}");
    }
}

#[test]
fn scores_of_another_length() {
    for n in [0, 1, 263, 265] {
        let draft = Draft::sentence_piece().metadata_without(&["tokenizer.ggml.scores"]);
        let error = Tokenizer::from_metadata(&replaced(&draft, "tokenizer.ggml.scores", vec![0f32; n])).unwrap_err();
        assert!(matches!(error, TokenizerError::LengthMismatch { expected: 264, found, .. } if found == n), "{error}");
    }
}

fn replaced(metadata: &Metadata, key: &str, value: impl Into<Value>) -> Metadata {
    let mut writer = GgufWriter::new();
    for (key, value) in metadata.iter() {
        writer.put(key, value.clone()).unwrap();
    }
    writer.put(key, value).unwrap();
    Gguf::from_bytes(writer.write_to(Vec::new()).unwrap().finish().unwrap()).unwrap().metadata().clone()
}

#[test]
fn token_type_out_of_range() {
    for stored in [0, 7, i32::MAX] {
        let mut draft = Draft::byte_level();
        draft.tokens[5].1 = stored;
        assert_eq!(draft.refused(), format!("token 5 has the unknown type {stored}"));
    }
    let mut draft = Draft::byte_level();
    draft.tokens[5].1 = -1;
    assert!(matches!(draft.build(), Err(TokenizerError::Metadata(_))));
}

#[test]
fn score_not_finite() {
    for score in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut draft = Draft::sentence_piece();
        draft.tokens[260].2 = score;
        assert!(matches!(draft.build(), Err(TokenizerError::InvalidScore { id: 260, .. })));
    }
}

// Tokens.

#[test]
fn no_tokens_at_all() {
    for mut draft in [Draft::byte_level(), Draft::sentence_piece()] {
        draft.tokens.clear();
        assert_eq!(draft.refused(), "no token stands for byte 0x00");
    }
}

#[test]
fn duplicate_tokens() {
    let mut draft = Draft::byte_level();
    let second = draft.push("hell", NORMAL);
    assert_eq!(draft.refused(), format!("tokens 258 and {second} are both \"hell\""));
    let mut draft = Draft::byte_level();
    draft.push("<|im_end|>", CONTROL);
    assert!(matches!(draft.build(), Err(TokenizerError::DuplicateToken { first: 260, second: 261, .. })));
    let mut draft = Draft::sentence_piece();
    draft.push("<0x41>", BYTE);
    assert!(matches!(draft.build(), Err(TokenizerError::DuplicateToken { first: 68, second: 264, .. })));
}

#[test]
fn a_control_token_may_look_like_a_normal_one() {
    let mut draft = Draft::byte_level();
    let control = draft.push("hell", CONTROL);
    let tokenizer = draft.build().unwrap();
    assert_eq!(tokenizer.encode("hell", Special::AsText), [258]);
    assert_eq!(tokenizer.encode("hell", Special::Parse), [control]);
}

#[test]
fn huge_token() {
    for mut draft in [Draft::byte_level(), Draft::sentence_piece()] {
        let id = draft.push(&"x".repeat(100_000_000), NORMAL);
        assert_eq!(draft.refused(), format!("token {id} is 100000000 bytes long, at most 1024 are supported"));
    }
    let mut draft = Draft::sentence_piece();
    draft.push(&"x".repeat(1024), NORMAL);
    assert!(draft.build().is_ok(), "the limit itself is fine");
}

#[test]
fn empty_tokens_are_never_matched() {
    let mut draft = Draft::byte_level();
    for kind in [NORMAL, NORMAL, CONTROL, USER_DEFINED, UNUSED] {
        draft.push("", kind);
    }
    let tokenizer = draft.build().unwrap();
    assert_eq!(tokenizer.encode("hell", Special::Parse), [258]);
    assert_eq!(tokenizer.token_id(""), None);
}

#[test]
fn byte_tokens_that_are_none() {
    for text in ["<0x-1>", "<0xZZ>", "<0x100>", "<0x>", "<0x4>", "<0x+4>", "0x41", "<0x41", "<0X41>", "", "A", "<0xé>"]
    {
        let mut draft = Draft::sentence_piece();
        draft.tokens[68].0 = text.to_owned();
        let error = draft.build().unwrap_err();
        assert!(
            matches!(&error, TokenizerError::InvalidByteToken { id: 68, text: named } if named == text),
            "{text}: {error}"
        );
    }
}

#[test]
fn no_byte_fallback() {
    for byte in [0u8, 0x41, 0xff] {
        let mut draft = Draft::sentence_piece();
        draft.tokens[3 + usize::from(byte)].1 = UNUSED;
        assert_eq!(draft.refused(), format!("no token stands for byte 0x{byte:02X}"));
    }
    let mut draft = Draft::byte_level();
    draft.tokens[0].1 = CONTROL;
    assert_eq!(draft.refused(), "no token stands for byte 0x00");
}

// Merges.

#[test]
fn merge_without_space() {
    for text in ["he", "", " ", " he", "é"] {
        let mut draft = Draft::byte_level();
        draft.merges[1] = text.to_owned();
        let error = draft.build().unwrap_err();
        assert!(
            matches!(&error, TokenizerError::InvalidMerge { index: 1, text: named } if named == text),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn merge_with_an_unknown_part() {
    for (text, missing) in [("hx e", "hx"), ("h ex", "ex"), ("h ", ""), ("h o", "ho"), ("h e l", "e l")] {
        let mut draft = Draft::byte_level();
        draft.merges[0] = text.to_owned();
        let error = draft.build().unwrap_err();
        assert!(
            matches!(&error, TokenizerError::UnknownMergePart { index: 0, part } if part == missing),
            "{text}: {error}"
        );
    }
}

#[test]
fn merge_into_a_control_token() {
    let mut draft = Draft::byte_level();
    draft.push("ho", CONTROL);
    draft.merges.push("h o".to_owned());
    assert_eq!(draft.refused(), "merge 3 needs \"ho\", which is not a normal token");
}

#[test]
fn cyclic_and_repeated_merges_are_harmless() {
    // Merging only ever shortens a text, so what looks like a circle in the list ends.
    let mut draft = Draft::byte_level();
    for text in ["aa", "aaa", "aaaa", "aaaaa"] {
        draft.push(text, NORMAL);
    }
    let circle = ["aaa aa", "aa aaa", "a aaaa", "aaaa a", "aaa a", "a aaa", "aa aa", "aa a", "a aa", "a a", "a a"];
    draft.merges = circle.map(str::to_owned).into();
    let tokenizer = draft.build().unwrap();
    for n in 0..200 {
        let text = "a".repeat(n);
        assert_eq!(tokenizer.decode_lossy(&tokenizer.encode(&text, Special::AsText)), text);
    }
}

#[test]
fn no_merges_means_single_bytes() {
    let mut draft = Draft::byte_level();
    draft.merges.clear();
    let tokenizer = draft.build().unwrap();
    assert_eq!(tokenizer.encode("hell", Special::AsText).len(), 4);
}

// Ids.

#[test]
fn special_ids_out_of_range() {
    for key in ["bos", "eos", "eot", "eom", "unknown", "padding", "fim_pad", "fim_rep", "fim_sep"] {
        let key: &'static str = format!("tokenizer.ggml.{key}_token_id").leak();
        for id in [261u32, u32::MAX] {
            let error = Draft::byte_level().with(key, id).build().unwrap_err();
            assert!(matches!(error, TokenizerError::IdOutOfRange { key: named, .. } if named == key), "{key}: {error}");
        }
        assert!(matches!(Draft::byte_level().with(key, u64::MAX).build(), Err(TokenizerError::IdOutOfRange { .. })));
        assert!(matches!(Draft::byte_level().with(key, -1i32).build(), Err(TokenizerError::Metadata(_))));
        assert!(Draft::byte_level().with(key, 260u32).build().is_ok());
    }
}

#[test]
fn what_ends_a_generation() {
    let mut draft = Draft::byte_level();
    let normal = draft.push("</s>", NORMAL);
    let turn = draft.push("<turn>", CONTROL);
    let tokenizer = draft
        .with("tokenizer.ggml.eos_token_id", 258u32)
        .with("tokenizer.ggml.eot_token_id", turn)
        .with("tokenizer.ggml.bos_token_id", 7u32)
        .build()
        .unwrap();
    let ends: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|&id| tokenizer.end_of_generation(id)).collect();
    // By key, by name (<|endoftext|>, <|im_end|>), by key; not the ordinary text `</s>`.
    assert_eq!(ends, [258, 259, 260, turn]);
    assert!(!tokenizer.end_of_generation(normal) && !tokenizer.end_of_generation(u32::MAX));
    assert_eq!((tokenizer.eos(), tokenizer.bos()), (Some(258), Some(7)));
}

#[test]
fn begin_of_sequence_by_default_and_by_key() {
    let add_bos = |draft: Draft| draft.build().unwrap().add_bos();
    let llama3 = || Draft { pre: Some("llama-bpe"), ..Draft::byte_level() };
    assert!(!add_bos(Draft::byte_level()) && add_bos(Draft::sentence_piece()) && add_bos(llama3()));
    for value in [true, false] {
        for draft in [Draft::byte_level(), Draft::sentence_piece(), llama3()] {
            assert_eq!(add_bos(draft.with("tokenizer.ggml.add_bos_token", value)), value);
        }
    }
}

// Special tokens.

#[test]
fn special_tokens_are_text_unless_asked() {
    let tokenizer = Draft::byte_level().build().unwrap();
    let text = "a<|im_end|>b";
    assert_eq!(tokenizer.encode(text, Special::Parse), [97, 260, 98]);
    let ids = tokenizer.encode(text, Special::AsText);
    assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
    assert_eq!(tokenizer.decode_lossy(&ids), text);
}

#[test]
fn user_defined_tokens_always_and_longest_first() {
    let mut draft = Draft::byte_level();
    let short = draft.push("<t>", USER_DEFINED);
    let long = draft.push("<t><t>", USER_DEFINED);
    let within = draft.push("t><", USER_DEFINED);
    let tokenizer = draft.build().unwrap();
    for special in [Special::AsText, Special::Parse] {
        assert_eq!(tokenizer.encode("<t><t><t>", special), [long, short]);
        assert_eq!(tokenizer.encode("t><t>", special), [within, u32::from(b't'), u32::from(b'>')]);
    }
    assert_eq!(tokenizer.decode_lossy(&[long]), "<t><t>");
}

#[test]
fn padding_rows_of_any_type_are_unused() {
    let mut draft = Draft::byte_level();
    let ids: Vec<u32> = [UNUSED, USER_DEFINED, UNKNOWN, CONTROL]
        .into_iter()
        .map(|kind| draft.push(&format!("[PAD{}]", draft.tokens.len()), kind))
        .collect();
    let other = draft.push("[PAD1]", USER_DEFINED);
    let tokenizer = draft.build().unwrap();
    for &id in &ids {
        let text = format!("[PAD{id}]");
        for special in [Special::AsText, Special::Parse] {
            assert!(tokenizer.encode(&text, special).iter().all(|&id| id < 256));
        }
        assert_eq!(tokenizer.decode_lossy(&[id]), "");
    }
    assert_eq!(tokenizer.encode("[PAD1]", Special::AsText), [other], "a number that is not its own id is no padding");
}

#[test]
fn control_tokens_print_only_when_asked() {
    let tokenizer = Draft::byte_level().build().unwrap();
    assert_eq!(tokenizer.decode_lossy(&[97, 260, 98, 5000]), "ab");
    let (mut decoder, mut out) = (tokenizer.decoder().show_control(), String::new());
    for id in [97, 260, 98, 5000] {
        decoder.push(id, &mut out);
    }
    assert_eq!(out, "a<|im_end|>b");
    assert!(tokenizer.is_control(260) && !tokenizer.is_control(97) && !tokenizer.is_control(5000));
    assert_eq!(tokenizer.token_bytes(258), Some(&b"hell"[..]));
    assert_eq!((tokenizer.token_bytes(5000), tokenizer.vocab_size()), (None, 261));
    assert_eq!(
        (tokenizer.token_id("<|im_end|>"), tokenizer.token_id("hell"), tokenizer.token_id("no")),
        (Some(260), Some(258), None)
    );
}

#[test]
fn chat_template() {
    let tokenizer = Draft::byte_level().with("tokenizer.chat_template", "{{ messages }}").build().unwrap();
    assert_eq!(tokenizer.chat_template(), Some("{{ messages }}"));
    assert_eq!(Draft::byte_level().build().unwrap().chat_template(), None);
}

// SentencePiece.

#[test]
fn sentence_piece_spaces() {
    let tokenizer = Draft::sentence_piece().build().unwrap();
    assert_eq!(tokenizer.encode("a", Special::AsText), [259]);
    assert_eq!(tokenizer.encode(" a", Special::AsText), [261, 259], "a space is put before a space, too");
    assert_eq!(tokenizer.encode("", Special::AsText), [0u32; 0]);
    assert_eq!(tokenizer.encode("▁a", Special::AsText), tokenizer.encode(" a", Special::AsText));
    assert_eq!(tokenizer.decode_lossy(&[259, 259]), "a a");
    assert_eq!(tokenizer.decode_lossy(&[1, 261, 259]), " a");
    let mut out = String::new();
    tokenizer.decoder().mid_text().push(259, &mut out);
    assert_eq!(out, " a", "in the middle of a text the space is text");

    let tokenizer = Draft::sentence_piece().with("tokenizer.ggml.add_space_prefix", false).build().unwrap();
    assert_eq!(tokenizer.encode("a", Special::AsText), [262]);
    assert_eq!(tokenizer.decode_lossy(&[259]), " a");
}

#[test]
fn sentence_piece_spaces_inside_tokens() {
    // A token that goes on after the end of a word: then words cannot be merged one by one.
    let mut draft = Draft::sentence_piece();
    draft.tokens.push(("b▁".to_owned(), NORMAL, -0.5));
    let tokenizer = draft.build().unwrap();
    assert_eq!(tokenizer.encode("b a", Special::AsText), [261, 264, 262]);
}

#[test]
fn sentence_piece_characters_that_are_no_tokens() {
    let mut draft = Draft::sentence_piece();
    draft.tokens.push(("éa".to_owned(), NORMAL, -0.5));
    let tokenizer = draft.build().unwrap();
    // Part of a token; alone it is its two bytes.
    assert_eq!(tokenizer.encode("éab", Special::AsText), [261, 264, 263]);
    assert_eq!(tokenizer.encode("éb", Special::AsText), [261, 3 + 0xc3, 3 + 0xa9, 263]);
    assert_eq!(tokenizer.decode_lossy(&tokenizer.encode("éb", Special::AsText)), "éb");
}

#[test]
fn equal_scores_merge_from_the_left() {
    let mut draft = Draft::sentence_piece();
    draft.tokens.push(("aa".to_owned(), NORMAL, -7.0));
    draft.tokens.push(("ba".to_owned(), NORMAL, -7.0));
    let tokenizer = draft.with("tokenizer.ggml.add_space_prefix", false).build().unwrap();
    assert_eq!(tokenizer.encode("aaa", Special::AsText), [264, 262]);
    assert_eq!(tokenizer.encode("baa", Special::AsText), [265, 262]);
}

#[test]
fn control_tokens_are_not_merged_out_of_text() {
    let mut draft = Draft::sentence_piece();
    for (text, score) in [("<", -6.0), ("s", -7.0), (">", -8.0), ("<s", -9.0)] {
        draft.tokens.push((text.to_owned(), NORMAL, score));
    }
    let tokenizer = draft.with("tokenizer.ggml.add_space_prefix", false).build().unwrap();
    assert_eq!(tokenizer.encode("<s>", Special::AsText), [267, 266], "<s and >");
    assert_eq!(tokenizer.encode("<s>", Special::Parse), [1]);
}

#[test]
fn special_tokens_of_phi_moe_swallow_white_space() {
    let build = |architecture: &'static str| {
        let mut draft = Draft::sentence_piece();
        let ids = ["<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>"].map(|text| draft.push(text, CONTROL));
        (draft.with("general.architecture", architecture).build().unwrap(), ids)
    };
    let text = "<|user|>\na<|end|>\u{a0}\n<|assistant|>\n";
    for architecture in ["phimoe", "phi3"] {
        let (tokenizer, [end_of_text, assistant, user, end]) = build(architecture);
        assert_eq!(tokenizer.encode(text, Special::Parse), [user, 259, end, assistant]);
        let kept = tokenizer.encode("<|endoftext|>\n<s>\n", Special::Parse);
        assert_eq!(kept, [end_of_text, 261, 3 + 10, 1, 261, 3 + 10], "these three are exempt");
        assert!([end_of_text, assistant, end].iter().all(|&id| tokenizer.end_of_generation(id)));
    }
    let (tokenizer, [_, assistant, user, end]) = build("llama");
    let (newline, space) = (3 + 10, 261);
    assert_eq!(
        tokenizer.encode("<|user|>\na<|end|>", Special::Parse),
        [user, space, newline, 262, end],
        "other models keep it"
    );
    assert!(!tokenizer.end_of_generation(assistant));
}

#[test]
fn tokenizers_can_be_shared() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    shared(&Draft::byte_level().build().unwrap());
    shared(&Draft::byte_level().build().unwrap().decoder());
}
