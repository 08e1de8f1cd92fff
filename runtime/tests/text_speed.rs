//! Time: hostile texts must not take long, and what loading and encoding cost is printed.
//!
//! Limits are generous (a debug build on a busy machine must pass) but far below what anything quadratic would take.
//! For the figures: `cargo test --release -p halfbyte --test text_speed -- --nocapture --test-threads 1`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use halfbyte::{
    Gguf,
    text::{Special, Tokenizer},
};

/// A linear pass over 200 kB takes some 20 ms (release) or 300 ms (debug); a quadratic one minutes.
const LIMIT: Duration = if cfg!(debug_assertions) { Duration::from_secs(20) } else { Duration::from_secs(5) };

macro_rules! data {
    ($name:literal) => {
        ($name, include_bytes!(concat!("data/text/", $name, ".gguf")).as_slice())
    };
}

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
    }
    path.exists().then_some(path)
}

/// The cut-down vocabularies of this repository, and the whole ones if they are there.
fn vocabularies() -> Vec<(String, Tokenizer)> {
    let cut = [data!("qwen2"), data!("dbrx"), data!("gpt-4o"), data!("llama-bpe"), data!("phi-3")];
    let cut = cut.map(|(name, bytes)| (name.to_owned(), Gguf::from_bytes(bytes).unwrap()));
    let whole =
        ["qwen2", "llama-bpe", "phi-3"].map(|name| format!("ggml-vocab-{name}")).into_iter().filter_map(|name| {
            let file = shared(&format!("vocab/{name}.gguf"))?;
            Some((name, Gguf::open(file).unwrap()))
        });
    let all = cut.into_iter().chain(whole);
    all.map(|(name, file)| (name, Tokenizer::from_metadata(file.metadata()).unwrap())).collect()
}

#[test]
fn hostile_texts_take_linear_time() {
    let fragments = [
        "a",
        "A",
        "aA",
        "Aª",
        "ªA",
        "é",
        "É",
        "\u{301}",
        "\u{301}A",
        " ",
        "\t",
        "\n",
        "\r\n",
        " \n",
        "\n ",
        "  a",
        "'",
        "'s",
        "'l",
        "\"",
        "=",
        "/",
        "\n/",
        "0",
        "½",
        "🦙",
        "👨‍👩‍👧",
        "語",
        "ก็",
        "न्",
        "<",
        "<|",
        "<|im_end|>",
        "<|im_end",
        "[PAD",
        "</s",
        "▁",
        "\u{0}",
        "\u{10ffff}",
        "the ",
        "ab",
        "the",
    ];
    for (name, tokenizer) in vocabularies() {
        let mut slowest = (Duration::ZERO, "");
        for fragment in fragments {
            let text = fragment.repeat(200_000 / fragment.len());
            for special in [Special::AsText, Special::Parse] {
                let start = Instant::now();
                let ids = tokenizer.encode(&text, special);
                let time = start.elapsed();
                assert!(!ids.is_empty());
                assert!(time < LIMIT, "{name}, {fragment:?}: {time:?}");
                slowest = slowest.max((time, fragment));
            }
        }
        println!("{name}: slowest of {} hostile texts of 200 kB: {:?} ({:?})", fragments.len(), slowest.0, slowest.1);
    }
}

#[test]
fn loading_and_encoding_figures() {
    for name in ["qwen2", "llama-bpe", "phi-3"] {
        let (Some(vocabulary), Some(text)) =
            (shared(&format!("vocab/ggml-vocab-{name}.gguf")), shared("tales/valid.txt"))
        else {
            continue;
        };
        let file = Gguf::open(vocabulary).unwrap();
        let best = |f: &mut dyn FnMut()| {
            let time = |_| {
                let start = Instant::now();
                f();
                start.elapsed()
            };
            (0..5).map(time).min().unwrap_or_default()
        };
        let load = best(&mut || drop(Tokenizer::from_metadata(file.metadata()).unwrap()));
        let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
        let text = fs::read_to_string(text).unwrap();
        let mut ids = Vec::new();
        let encode = best(&mut || ids = tokenizer.encode(&text, Special::AsText));
        let mut decoded = String::new();
        let decode = best(&mut || {
            decoded.clear();
            let mut decoder = tokenizer.decoder();
            ids.iter().for_each(|&id| decoder.push(id, &mut decoded));
            decoder.finish(&mut decoded);
        });
        assert!(decoded == text, "{name}: decoding gives the text back");
        let speed = |time: Duration| text.len() as f64 / time.as_secs_f64() / 1e6;
        println!(
            "{name}: load {load:.1?} ({} tokens), encode {:.1} MB/s, streaming decode {:.1} MB/s ({} ids of {} bytes)",
            tokenizer.vocab_size(),
            speed(encode),
            speed(decode),
            ids.len(),
            text.len(),
        );
        assert!(load < LIMIT && encode < LIMIT && decode < LIMIT);
    }
}
