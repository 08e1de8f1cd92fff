//! The committed models of `scripts/golden_qwen2.py` and `scripts/golden_phi.py`, and what they must compute.
//!
//! The files are part of the test binary, so it runs on any device without a file system or network. See the scripts
//! for how they were made and what the two truths are.

use halfbyte::RopeFactors;
use halfbyte_formats::gguf::Gguf;
use serde_json::Value;

const QWEN2: &str = include_str!("../tests/golden/index.json");
const PHI: &str = include_str!("../tests/golden/phi.json");
/// What llama.cpp computes for some of the same files: `scripts/golden_llama_cpp.py`.
const LLAMA: (&str, &[u8]) = (include_str!("../tests/golden/llama.json"), include_bytes!("../tests/golden/llama.bin"));

/// A model's name, the index it is in, its GGUF and its logits.
type Files = (&'static str, &'static str, &'static [u8], &'static [u8]);

macro_rules! files {
    ($index:expr, $name:literal) => {
        (
            $name,
            $index,
            include_bytes!(concat!("../tests/golden/", $name, ".gguf")),
            include_bytes!(concat!("../tests/golden/", $name, ".bin")),
        )
    };
}

const FILES: [Files; 9] = [
    files!(QWEN2, "untied"),
    files!(QWEN2, "tied"),
    files!(QWEN2, "mimo"),
    files!(PHI, "phi4"),
    files!(PHI, "phi4-mini"),
    files!(PHI, "phi3-window"),
    files!(PHI, "phimoe"),
    files!(PHI, "phimoe-tiny"),
    files!(PHI, "phimoe-35"),
];

/// A model and sequences with known logits.
pub struct Golden {
    /// As in the scripts.
    pub name: &'static str,
    /// The file, in memory.
    pub gguf: Gguf,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Sequences; the first of a length is the one without forced factors.
    pub cases: Vec<Case>,
}

/// A sequence and its logits.
pub struct Case {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Sliding window, if the truth was computed with one that is not in the file.
    pub window: Option<usize>,
    /// The rope factors it was computed with.
    pub factors: RopeFactors,
    /// The context it was computed in, where that matters.
    pub context: Option<usize>,
    /// Logits of the trunk.
    pub logits: Truth,
    /// Logits of the multi-token-prediction layer, if the model has one; its first position is 1.
    pub mtp: Option<Truth>,
}

/// Known logits of some positions.
pub struct Truth {
    /// The positions, ascending.
    pub positions: Vec<usize>,
    /// The most likely token at every position that has logits, not only at those above.
    pub top1: Vec<u32>,
    /// (positions, vocab), computed in float64.
    pub exact: Vec<f32>,
    /// (positions, vocab), computed in f32 by transformers, or by llama.cpp.
    pub engine: Vec<f32>,
}

impl Golden {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        FILES.iter().map(|(name, ..)| Self::named(name)).collect()
    }

    /// The one called `name`.
    ///
    /// # Panics
    /// If there is none, or the fixtures are damaged.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let file = FILES.iter().find(|(known, ..)| *known == name).expect("a golden model");
        Self::read(file, file.1, file.3).expect("in the index")
    }

    /// Those with logits of llama.cpp, which are the truth of their cases.
    #[must_use]
    pub fn llama_cpp() -> Vec<Self> {
        FILES.iter().filter_map(|file| Self::read(file, LLAMA.0, LLAMA.1)).collect()
    }

    fn read(&(name, _, gguf, _): &Files, index: &str, blob: &[u8]) -> Option<Self> {
        let index: Value = serde_json::from_str(index).expect("an index");
        let entry = array(&index["models"]).iter().find(|entry| entry["name"] == name)?;
        let vocab = number(&entry["vocab"]);
        Some(Self {
            name,
            gguf: Gguf::from_bytes(gguf.to_vec()).expect("a valid file"),
            vocab,
            cases: array(&entry["cases"]).iter().map(|case| Case::read(case, blob, vocab)).collect(),
        })
    }

    /// The case with `count` tokens.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn case(&self, count: usize) -> &Case {
        self.cases.iter().find(|case| case.tokens.len() == count).expect("a case of this length")
    }
}

impl Case {
    fn read(case: &Value, blob: &[u8], vocab: usize) -> Self {
        let count = number(&case["count"]);
        let truth = |what: &str, rows: usize| {
            let truth = case.get(what)?;
            let positions: Vec<usize> = array(&truth["positions"]).iter().map(number).collect();
            let logits = |at: &Value| words(blob, at, positions.len() * vocab, f32::from_le_bytes);
            Some(Truth {
                top1: words(blob, &truth["top1"], rows, u32::from_le_bytes),
                exact: logits(&truth["exact"]),
                engine: logits(truth.get("transformers").unwrap_or(&truth["llama.cpp"])),
                positions,
            })
        };
        let size = |value: &Value| value.as_u64().map(|size| usize::try_from(size).expect("small"));
        Self {
            tokens: words(blob, &case["tokens"], count, u32::from_le_bytes),
            window: size(&case["window"]),
            context: size(&case["context"]),
            factors: RopeFactors::from_name(case["factors"].as_str().unwrap_or("auto")).expect("a set of factors"),
            logits: truth("logits", count).expect("logits"),
            mtp: truth("mtp", count - 1),
        }
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn number(value: &Value) -> usize {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).expect("a number")
}

/// `count` words of `blob` from the byte offset `at`.
fn words<T>(blob: &[u8], at: &Value, count: usize, from: fn([u8; 4]) -> T) -> Vec<T> {
    let (words, _) = blob[number(at)..][..4 * count].as_chunks();
    words.iter().map(|&word| from(word)).collect()
}
