//! The bundled models: what the reference computes with their weights, greedy text, and the cost of four bits.
//!
//! Golden values come from `scripts/golden_tiny_mimo.py`, which runs the training code on the committed F16 weights,
//! and from `scripts/golden_tiny_phimoe.py`, which runs transformers' Phi-MoE on them.

use std::fs;

use halfbyte::{KvType, LoadOptions, Model, Sampling, SessionOptions, StopRules, text::Special};
use halfbyte_formats::gguf::Gguf;
use halfbyte_tests::{bundled, committed, logits_of, nmse, session_on};
use serde_json::Value;

/// Both sides compute in f32.
const F32_NMSE: f64 = 1e-10;
/// Four bits may cost this much of the F16 file's bits per byte.
const Q4_COST: f64 = 1.03;
/// Each model, and what it must not be worse than in bits per byte.
const MODELS: [(&str, f64); 2] = [("tiny-mimo", 1.53), ("tiny-phimoe", 1.60)];

fn open(name: &str) -> Model {
    let (file, mtp) = match name {
        "tiny-mimo-f16" => {
            (committed!("../models/tiny-mimo-f16.gguf"), Some(committed!("../models/mtp-tiny-mimo-f16.gguf")))
        }
        "tiny-mimo-q4_0" => (bundled("tiny-mimo"), Some(bundled("mtp-tiny-mimo"))),
        "tiny-phimoe-f16" => (committed!("../models/tiny-phimoe-f16.gguf"), None),
        _ => (bundled("tiny-phimoe"), None),
    };
    let mut options = LoadOptions::default();
    (options.threads, options.mtp) = (Some(2), mtp);
    Model::open_with(file, &options).expect("the bundled model")
}

fn golden(name: &str) -> (Value, Vec<f32>) {
    macro_rules! files {
        ($name:literal) => {
            (
                include_str!(concat!("golden/", $name, ".json")),
                include_bytes!(concat!("golden/", $name, ".bin")).as_slice(),
            )
        };
    }
    let (index, rows) = if name == "tiny-mimo" { files!("tiny-mimo") } else { files!("tiny-phimoe") };
    let rows = rows.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (serde_json::from_str(index).expect("JSON"), rows)
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

#[test]
fn logits_are_those_of_the_reference() {
    for (name, ..) in MODELS {
        let (index, expected) = golden(name);
        let model = open(&format!("{name}-f16"));
        let prompt = ids(&index["prompt"]);
        let all = logits_of(&model, KvType::F32, 64, &prompt).expect("finite logits");
        let vocab = model.vocab();
        let row = |all: &[f32], at: u32| all[at as usize * vocab..][..vocab].to_vec();
        let mut found: Vec<_> = ids(&index["rows"]).into_iter().map(|position| row(&all, position)).collect();
        if model.config().mtp_layers > 0 {
            let mut mtp = Vec::new();
            let mut session = session_on(&model, KvType::F32, 64, prompt.len()).expect("a session");
            session.mtp_logits(&prompt, |_, row| mtp.extend_from_slice(row)).expect("an MTP layer");
            // The first MTP row is that of position 1.
            found.extend(ids(&index["mtp_rows"]).into_iter().map(|position| row(&mtp, position - 1)));
        }
        assert_eq!(found.len(), expected.len() / vocab, "{name}");
        for (found, expected) in found.iter().zip(expected.chunks_exact(vocab)) {
            let error = nmse(found, expected);
            assert!(error <= F32_NMSE, "{name}: nmse {error:.1e}");
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_the_reference() {
    for (name, ..) in MODELS {
        let (index, _) = golden(name);
        let model = open(&format!("{name}-f16"));
        let mut session = session_on(&model, KvType::F32, 64, 256).expect("a session");
        session.set_sampling(Sampling::greedy()).expect("valid");
        session.push_tokens(&ids(&index["prompt"])).expect("it fits");
        let expected = ids(&index["greedy"]);
        let found: Vec<u32> = (0..expected.len()).filter_map(|_| session.next_token().expect("a token")).collect();
        assert_eq!(found, expected, "{name}");
    }
}

/// Keys and values of 8 bits beside f16, over a full context of text that the model itself makes up.
///
/// A router turns the last bit of a number into another expert where two are about as good, at a few positions in a
/// hundred. So tiny-phimoe misses the aim for the mean: it is 0.002 with F16 weights, 0.0018 if nothing is rounded but
/// keys and values, and in Q4_0 caches of f32 and f16 are 0.002 apart already. Its median has to meet the aim; limits
/// of its own keep the mean, and the bits in Q4_0, from getting worse.
#[test]
fn a_cache_of_8_bits_keeps_the_distribution() {
    /// Of `Σ p · ln(p / q)`, p with f16.
    const DIVERGENCE: f64 = 0.001;
    /// Of the bits that the text takes.
    const BITS: f64 = 0.001;
    /// Both where there is a router.
    const ROUTED: f64 = 0.005;
    const ROUTED_BITS: f64 = 0.0025;
    for (name, ty) in MODELS.into_iter().flat_map(|(name, ..)| [(name, "f16"), (name, "q4_0")]) {
        let model = open(&format!("{name}-{ty}"));
        let context = model.config().context;
        let mut session = session_on(&model, KvType::F16, 64, context).expect("a session");
        let mut sampling = Sampling::default();
        (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) = (1.0, 0, 1.0, 0.0);
        session.set_sampling(sampling).expect("valid");
        session.push_text("Once upon a time").expect("it fits");
        while session.tokens().len() + 16 < context {
            if session.next_token().expect("finite logits").is_none() {
                session.push_text("\n\nOnce upon a time").expect("it fits");
            }
        }
        let tokens = session.tokens().to_vec();
        let [half, eight] = [KvType::F16, KvType::Int8].map(|kv| {
            let rows = logits_of(&model, kv, 64, &tokens).expect("finite logits");
            rows.chunks_exact(model.vocab()).map(log_softmax).collect::<Vec<_>>()
        });
        let divergence = |(p, q): (&Vec<f64>, &Vec<f64>)| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        let mut each: Vec<f64> = half.iter().zip(&eight).map(divergence).collect();
        let mean = each.iter().sum::<f64>() / tokens.len() as f64;
        each.sort_by(f64::total_cmp);
        let median = each[each.len() / 2];
        let bits =
            |rows: &[Vec<f64>]| rows.iter().zip(&tokens[1..]).map(|(row, next)| -row[*next as usize]).sum::<f64>();
        let cost = bits(&eight) / bits(&half) - 1.0;
        println!("{name}-{ty}: divergence {mean:.2e}, median {median:.2e}, {:+.4} % of the bits", 100.0 * cost);
        let routed = model.config().experts > 0;
        assert!(mean <= if routed { ROUTED } else { DIVERGENCE }, "{name}-{ty}: {mean}");
        assert!((0.0..=DIVERGENCE).contains(&median), "{name}-{ty}: {median}");
        assert!(cost.abs() <= if routed && ty == "q4_0" { ROUTED_BITS } else { BITS }, "{name}-{ty}: {cost}");
        assert!(mean > 1e-9, "{name}-{ty}: the caches are the same");
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum = logits.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>();
    logits.iter().map(|x| f64::from(*x) - max - sum.ln()).collect()
}

#[test]
fn text_held_back_for_a_stop_string_is_shown_or_forgotten() {
    let model = open("tiny-mimo-q4_0");
    let session = || {
        let mut session = session_on(&model, KvType::F16, 64, 256).expect("a session");
        session.set_sampling(Sampling::greedy()).expect("valid");
        session.push_text("Once upon a time").expect("it fits");
        session
    };
    let mut free = session();
    let first = free.next().expect("a piece").expect("finite logits");
    let id = free.tokens()[free.tokens().len() - 1];
    let mut rules = StopRules::default();
    rules.max_tokens = Some(8);
    rules.strings = vec![format!("{first}\u{1}")];

    let mut held = session();
    held.set_stop(rules.clone()).expect("valid");
    assert_eq!(held.next_token().expect("finite logits"), Some(id));
    assert_eq!(held.text(), "", "a stop string may have begun");
    held.set_stop(StopRules::default()).expect("valid");
    let second = free.next().expect("a piece").expect("finite logits");
    assert_eq!(held.next().expect("a piece").expect("finite logits"), format!("{first}{second}"));

    let mut held = session();
    held.set_stop(rules.clone()).expect("valid");
    held.next_token().expect("finite logits");
    held.push_text(" the king").expect("it fits");
    let mut fresh = session();
    fresh.set_stop(rules).expect("valid");
    fresh.push_tokens(&[id]).expect("it fits");
    fresh.push_text(" the king").expect("it fits");
    let text =
        |session: &mut halfbyte::Session| -> String { session.map(|piece| piece.expect("finite logits")).collect() };
    assert_eq!(text(&mut held), text(&mut fresh), "another generation starts with nothing held back");
}

#[test]
fn the_embedded_files_share_the_vocabulary() {
    for (name, ..) in MODELS {
        let [small, large] = ["q4_0", "f16"].map(|ty| open(&format!("{name}-{ty}")));
        let text = "Once upon a time there was a king’s daughter — 12 years old.\n";
        let encode = |model: &Model| model.tokenizer().expect("a vocabulary").encode(text, Special::AsText);
        assert_eq!(encode(&small), encode(&large), "{name}");
    }
}

#[test]
fn a_first_run_ends_and_reads_as_text() {
    for (name, ..) in MODELS {
        let file = Gguf::open(bundled(name));
        let model = Model::from_gguf(&file.expect("the file"), None, &LoadOptions::default()).expect("the model");
        let mut session = model.session(&SessionOptions::default()).expect("a session");
        let mut stop = StopRules::default();
        stop.max_tokens = Some(120);
        session.set_stop(stop).expect("valid");
        session.push_text("Once upon a time").expect("it fits");
        let text: String = session.by_ref().map(|piece| piece.expect("text")).collect();
        // Not a measure of quality: that words of the language come out, and not one of them over and over.
        let words: Vec<&str> = text.split_whitespace().collect();
        let common = ["the", "and", "to", "a", "he", "was", "of", "in", "his", "her", "she", "it", "that", "had"];
        let known = words.iter().filter(|word| common.contains(word)).count();
        let different = words.iter().collect::<std::collections::HashSet<_>>().len();
        assert!(words.len() > 50 && known * 5 > words.len() && different * 3 > words.len(), "{name}: {text}");
    }
}

/// Bits per byte of `text`, in windows of 512 tokens, each token but the first of a window scored.
fn bits_per_byte(model: &Model, text: &str) -> f64 {
    let tokens = model.tokenizer().expect("a vocabulary").encode(text, Special::AsText);
    let mut nll = 0.0;
    for window in tokens.chunks(512) {
        let mut session = session_on(model, KvType::F16, 64, 512).expect("a session");
        let score = |index: usize, logits: &[f32]| {
            if let Some(&next) = window.get(index + 1) {
                let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = logits.iter().map(|&logit| f64::from(logit - top).exp()).sum();
                nll += sum.ln() - f64::from(logits[next as usize] - top);
            }
        };
        session.push_tokens_with(window, score).expect("it fits");
    }
    nll / std::f64::consts::LN_2 / text.len() as f64
}

#[test]
fn four_bits_cost_little() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/tales/valid.txt");
    let Ok(text) = fs::read_to_string(path) else {
        println!("skipped: ../shared/data/tales/valid.txt is not there");
        return;
    };
    // From the middle: the book begins with a preface, which is no tale. The whole of it is measured in README.md.
    let boundary = |from: usize| (from..).find(|&at| text.is_char_boundary(at)).expect("a boundary");
    let part = &text[boundary(text.len() / 2)..boundary(text.len() / 2 + 20_000)];
    for (name, worst) in MODELS {
        let [full, four] = ["f16", "q4_0"].map(|ty| bits_per_byte(&open(&format!("{name}-{ty}")), part));
        println!("{name}: {full:.4} bits per byte in F16, {four:.4} in Q4_0");
        assert!(full <= worst, "{name}: {full}");
        assert!(four <= full * Q4_COST, "{name}: {four} over {full}");
        assert!(four != full, "{name}: the files are the same");
    }
}
