//! Tokens of several sequences in one pass have the bits that each would have alone.

use halfbyte_formats::gguf::Gguf;
use halfbyte_kernels::KvType;

use crate::{
    Budget, CancelToken, LoadOptions, Model, RuntimeError,
    exec::Scratch,
    kv::{KvCache, MAX_SEQUENCES},
    layers::{Exec, Want},
};

const CONTEXT: usize = 300;
const BATCH: usize = 96;

/// The file of a golden model: in the program, as phones have nothing else.
pub(crate) fn golden(name: &str) -> &'static [u8] {
    macro_rules! files {
        ($($name:literal),*) => {
            [$(($name, include_bytes!(concat!("../../../tests/tests/golden/", $name, ".gguf")).as_slice())),*]
        };
    }
    let files = files!("mimo", "tied", "phi3-window", "phi4-mini", "phimoe");
    files.into_iter().find(|(found, _)| *found == name).expect("a golden model").1
}

fn model(name: &str) -> Model {
    let options = LoadOptions { threads: Some(2), ..LoadOptions::default() };
    Model::from_gguf(&Gguf::from_bytes(golden(name)).expect("a golden model"), None, &options).expect("a valid model")
}

fn token(model: &Model, sequence: usize, position: usize) -> u32 {
    ((sequence * 7919 + position * 104_729 + position * position) % model.vocab()) as u32
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// Sequences of these lengths, the last of which gets a chunk at each step.
fn check(name: &str, kv: KvType, lengths: &[usize], chunk: usize) {
    let model = model(name);
    let never = CancelToken::default();
    let exec = Exec::new(model.kernels(), model.team(), &never);
    let mut scratch = Scratch::of(&mut model.budget().lease(), &model, BATCH, CONTEXT).expect("memory");
    let last = lengths.len() - 1;
    let mut caches = Vec::new();
    for (sequence, &length) in lengths.iter().enumerate() {
        let mut cache = KvCache::new(model.budget().lease(), model.config(), kv, CONTEXT).expect("memory");
        // Each keeps the rotations of its own length, as sequences on both sides of LongRoPE's boundary do.
        cache.rotate_with(model.graph().rotations().set(length + 4, CONTEXT));
        let tokens: Vec<u32> = (0..length).map(|position| token(&model, sequence, position)).collect();
        for part in tokens.chunks(BATCH) {
            model.graph().forward(exec, &mut scratch, &mut cache, part, &mut Want::Last).expect("a pass");
            cache.commit(part.len());
        }
        caches.push(cache);
    }
    let mut alone: Vec<KvCache> = caches.iter().map(|cache| cache.fork().expect("memory")).collect();
    for step in 0..4 {
        let counts: Vec<usize> = (0..lengths.len()).map(|n| if n == last { chunk } else { 1 }).collect();
        let tokens: Vec<Vec<u32>> = caches
            .iter()
            .zip(&counts)
            .enumerate()
            .map(|(n, (cache, &count))| (cache.len()..cache.len() + count).map(|p| token(&model, n, p)).collect())
            .collect();
        let mut found = vec![Vec::new(); lengths.len()];
        let mut borrowed: Vec<&mut KvCache> = caches.iter_mut().collect();
        let wants_last = step % 2 == 0;
        let each = &mut |n: usize, logits: &[f32]| found[n] = bits(logits);
        let all = tokens.concat();
        model.graph().forward_many(exec, &mut scratch, &mut borrowed, &all, wants_last, each).expect("a pass");
        for (n, cache) in alone.iter_mut().enumerate() {
            model.graph().forward(exec, &mut scratch, cache, &tokens[n], &mut Want::Last).expect("a pass");
            cache.commit(counts[n]);
            caches[n].commit(counts[n]);
            let expected = if n < last || wants_last { bits(scratch.last_logits().values) } else { Vec::new() };
            assert!(found[n] == expected, "{name} {kv:?} {lengths:?} chunk {chunk}, step {step}, sequence {n}");
        }
    }
}

#[test]
fn a_pass_of_many_has_the_bits_of_many_passes() {
    for name in ["mimo", "phi3-window", "phimoe", "phi4-mini"] {
        for kv in [KvType::F16, KvType::F32, KvType::Int8] {
            if kv == KvType::Int8 && KvCache::new(Budget::default().lease(), model(name).config(), kv, 64).is_err() {
                continue;
            }
            check(name, kv, &[1, 63, 64, 250, 20], 1);
            check(name, kv, &[5, 130, 254, 62], 37);
        }
    }
    check("mimo", KvType::F16, &[70], 60);
    check("mimo", KvType::F16, &(0..MAX_SEQUENCES).map(|n| 1 + 3 * n).collect::<Vec<_>>(), 33);
}

#[test]
fn a_pass_of_many_has_limits() {
    let model = model("mimo");
    let never = CancelToken::default();
    let exec = Exec::new(model.kernels(), model.team(), &never);
    let mut scratch = Scratch::of(&mut model.budget().lease(), &model, 40, CONTEXT).expect("memory");
    for (sequences, tokens) in [(0, 0), (0, 1), (2, 1), (1, 41), (MAX_SEQUENCES + 1, MAX_SEQUENCES + 1)] {
        let new = |_| KvCache::new(model.budget().lease(), model.config(), KvType::F16, CONTEXT).expect("memory");
        let mut caches: Vec<KvCache> = (0..sequences).map(new).collect();
        let mut borrowed: Vec<&mut KvCache> = caches.iter_mut().collect();
        let tokens = vec![1; tokens];
        let found = model.graph().forward_many(exec, &mut scratch, &mut borrowed, &tokens, true, &mut |_, _| ());
        assert!(matches!(found, Err(RuntimeError::InvalidOption { .. })), "{sequences}");
    }
}
