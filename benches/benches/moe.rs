//! A layer of experts of Phi-mini-MoE's size, from tokens to logits: one token (bytes of its experts per second) and a
//! prompt (products per second), by where the router sends them.

use std::cell::{Cell, LazyCell};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use halfbyte::{Isa, KvType, Model, Session};
use halfbyte_benches::{ROUNDED, nmse, size};
use halfbyte_tests::{bits, experts_model, logits_of, model_on, session_on};

const HIDDEN: usize = size(4096, 64);
const FFN: usize = size(960, 96);
const TOKENS: usize = size(512, 40);
/// Experts of a token.
const USED: usize = 2;
/// Different tokens.
const VOCAB: usize = 64;

/// Where tokens go: here and there, or all to the same experts.
const ROUTERS: [(&str, Option<[usize; USED]>); 2] = [("even", None), ("same", Some([3, 11]))];

fn session(model: &Model) -> Session {
    session_on(model, KvType::F16, TOKENS, TOKENS + 1).expect("memory")
}

/// Tokens of which results are checked.
const CHECKED: usize = 20;

fn logits(model: &Model, batch: usize, tokens: &[u32]) -> Vec<f32> {
    logits_of(model, KvType::F16, batch, &tokens[..CHECKED]).expect("finite logits")
}

/// The rows of a prompt have the bits of its tokens one by one. Those of scalar kernels are `truth`: where a last bit
/// of a norm differs an input may be rounded the other way, which is less than what rounding changes.
fn check(model: &Model, isa: Isa, truth: &[f32], tokens: &[u32]) {
    let [found, expected] = [TOKENS, 1].map(|batch| logits(model, batch, tokens));
    assert!(bits(&found) == bits(&expected), "{}: a batch is its tokens one by one", isa.name());
    let error = nmse(&found, truth);
    assert!(error <= ROUNDED, "{}: NMSE {error:.1e} is above {ROUNDED:.0e}", isa.name());
}

fn moe(c: &mut Criterion) {
    let tokens: Vec<u32> = (0..TOKENS).map(|i| (i * 29 % VOCAB) as u32).collect();
    let mut group = c.benchmark_group("moe");
    for (router, forced) in ROUTERS {
        let file = experts_model(HIDDEN, FFN, VOCAB, forced).gguf();
        let truth =
            LazyCell::new(|| logits(&model_on(&file, 1, Some(Isa::Scalar)).expect("a valid model"), CHECKED, &tokens));
        for (isa, threads) in Isa::available().flat_map(|isa| [(isa, 1), (isa, 2)]) {
            let model = model_on(&file, threads, Some(isa)).expect("a valid model");
            let checked = Cell::new(false);
            let check = || {
                if !checked.replace(true) {
                    check(&model, isa, &truth, &tokens);
                }
            };
            let shape = format!("router={router},hidden={HIDDEN},ffn={FFN},threads={threads}");
            let products = 3 * USED * HIDDEN * FFN;

            // Q4_0: 18 bytes for 32 weights.
            group.throughput(Throughput::Bytes((products / 32 * 18) as u64));
            group.bench_function(BenchmarkId::new(format!("decode_q4_0/{}", isa.name()), &shape), |b| {
                check();
                let (mut session, mut next) = (session(&model), tokens.iter().cycle());
                b.iter(|| {
                    session.truncate(0);
                    session.push_tokens(next.next().map(std::slice::from_ref).unwrap_or_default()).expect("it fits");
                });
            });
            group.throughput(Throughput::Elements((products * TOKENS) as u64));
            let shape = format!("{shape},tokens={TOKENS}");
            group.bench_function(BenchmarkId::new(format!("prefill_q4_0/{}", isa.name()), shape), |b| {
                check();
                let mut session = session(&model);
                b.iter(|| {
                    session.truncate(0);
                    // With the logits of all of them, or the layer would run for the last one only.
                    session.push_tokens_with(&tokens, |_, _| {}).expect("it fits");
                });
            });
        }
    }
}

criterion_group!(benches, moe);
criterion_main!(benches);
