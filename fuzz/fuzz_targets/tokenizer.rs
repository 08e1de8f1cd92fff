//! Whatever vocabulary is accepted encodes every text, never into control tokens unless asked, and decodes back to it.

#![no_main]

use arbitrary::Arbitrary;
use halfbyte::text::{Special, Tokenizer};
use halfbyte_formats::gguf::{Gguf, GgufWriter, Strings};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    sentence_piece: bool,
    pre: u8,
    /// Leaves the tokens for single bytes out, so that most such vocabularies are refused.
    no_bytes: bool,
    tokens: Vec<(String, i8, f32)>,
    merges: Vec<(u8, u8, String)>,
    space_prefix: Option<bool>,
    eos: Option<u32>,
    architecture: Option<String>,
    text: String,
    ids: Vec<u16>,
}

/// How byte-level vocabularies write single bytes, in order.
fn byte_texts() -> impl Iterator<Item = String> {
    let mut others = 0x100u32..;
    (0..256u32).map(move |b| {
        let printable = matches!(b, 33..=126 | 161..=172 | 174..=255);
        let code = if printable { b } else { others.next().unwrap_or(b) };
        char::from_u32(code).map(String::from).unwrap_or_default()
    })
}

fn build(input: &Input) -> Vec<u8> {
    let mut tokens: Vec<(String, i32, f32)> = Vec::new();
    if !input.no_bytes {
        if input.sentence_piece {
            tokens.extend((0..256).map(|b| (format!("<0x{b:02X}>"), 6, 0.0)));
        } else {
            tokens.extend(byte_texts().map(|text| (text, 1, 0.0)));
        }
    }
    tokens.extend(input.tokens.iter().map(|(text, kind, score)| (text.clone(), i32::from(*kind), *score)));
    // Merges of tokens that are there are likely to be accepted; the text alone rarely is.
    let mut merges = Vec::new();
    for (left, right, text) in &input.merges {
        let token = |n: u8| tokens.get(usize::from(n) % tokens.len().max(1)).map(|token| token.0.clone());
        match (token(*left), token(*right)) {
            (Some(left), Some(right)) if text.is_empty() => {
                merges.push(format!("{left} {right}"));
                if !tokens.iter().any(|token| token.0 == format!("{left}{right}")) {
                    tokens.push((format!("{left}{right}"), 1, 0.0));
                }
            }
            _ => merges.push(text.clone()),
        }
    }
    let mut writer = GgufWriter::new();
    let pre = ["qwen2", "dbrx", "gpt-4o", "llama-bpe", "other"][usize::from(input.pre) % 5];
    let mut put = |key: &str, value: halfbyte_formats::gguf::Value| writer.put(key, value).expect("a good key");
    put("tokenizer.ggml.model", if input.sentence_piece { "llama" } else { "gpt2" }.into());
    put("tokenizer.ggml.pre", pre.into());
    put("tokenizer.ggml.tokens", tokens.iter().map(|token| &token.0).collect::<Strings>().into());
    put("tokenizer.ggml.token_type", tokens.iter().map(|token| token.1).collect::<Vec<i32>>().into());
    put("tokenizer.ggml.scores", tokens.iter().map(|token| token.2).collect::<Vec<f32>>().into());
    put("tokenizer.ggml.merges", merges.iter().collect::<Strings>().into());
    if let Some(space_prefix) = input.space_prefix {
        put("tokenizer.ggml.add_space_prefix", space_prefix.into());
    }
    if let Some(eos) = input.eos {
        put("tokenizer.ggml.eos_token_id", eos.into());
    }
    if let Some(architecture) = &input.architecture {
        put("general.architecture", architecture.as_str().into());
    }
    writer.write_to(Vec::new()).and_then(|stream| stream.finish()).expect("written to memory")
}

fn check(tokenizer: &Tokenizer, input: &Input) {
    for special in [Special::AsText, Special::Parse] {
        for &id in &tokenizer.encode(&input.text, special) {
            assert!(tokenizer.token_bytes(id).is_some(), "{id} is in the vocabulary");
            assert!(special == Special::Parse || !tokenizer.is_control(id), "{id} is a control token");
        }
    }
    let ids = tokenizer.encode(&input.text, Special::AsText);
    let user_defined = input.tokens.iter().any(|token| token.1 == 4);
    if !input.sentence_piece {
        assert_eq!(tokenizer.decode(&ids), input.text.as_bytes());
    } else if !user_defined {
        assert_eq!(tokenizer.decode_lossy(&ids), input.text.replace('▁', " "));
    }
    let ids: Vec<u32> = input.ids.iter().map(|&id| u32::from(id) % 600).collect();
    let (mut decoder, mut streamed) = (tokenizer.decoder(), String::new());
    for &id in &ids {
        decoder.push(id, &mut streamed);
    }
    decoder.finish(&mut streamed);
    assert_eq!(streamed, tokenizer.decode_lossy(&ids));
}

fuzz_target!(|input: Input| {
    // Metadata the container refuses (a key too long, say) is another target's business.
    let Ok(file) = Gguf::from_bytes(build(&input)) else { return };
    match Tokenizer::from_metadata(file.metadata()) {
        Ok(tokenizer) => check(&tokenizer, &input),
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
});
