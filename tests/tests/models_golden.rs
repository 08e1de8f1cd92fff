//! What the models compute, against transformers and a float64 twin (see `scripts/golden_qwen2.py`, `golden_phi.py`).
//!
//! Weights and cache are f32 unless a test says otherwise, so the only differences are summation order, `exp` and the
//! rotation angles. Every bound is a named constant. Bit equality is asked for wherever the split of the work must
//! not matter: threads, batches, fused or separate tensors, one file or two.

use halfbyte::{Isa, KvType, LoadOptions, Model, RopeFactors};
use halfbyte_formats::gguf::{Gguf, Value};
use halfbyte_tests::{
    Case, Golden, Parts, Truth, argmax, bits, isas, logits_of, model_on, nmse, options_on, session_on,
};

/// Against either truth; measured are 1e-13 at first and 7e-12 where angles are large.
const F32_NMSE: f64 = 1e-10;
/// With keys and values rounded to f16.
const F16_KV_NMSE: f64 = 1e-6;
/// A change of the graph that matters is at least this far off.
const DIFFERENT: f64 = 1e-3;

/// Tokens in tests of bit equality: a few batches of 64, and no multiple of it.
const SPLIT_TOKENS: usize = 150;

/// Compares rows of logits, the first one being that of position `first`, with the truth.
fn check(what: &str, vocab: usize, first: usize, rows: &[f32], truth: &Truth) {
    let found: Vec<f32> =
        truth.positions.iter().flat_map(|at| &rows[(at - first) * vocab..][..vocab]).copied().collect();
    for (name, expected) in [("transformers", &truth.engine), ("float64", &truth.exact)] {
        let error = nmse(&found, expected);
        println!("{what} against {name}: nmse {error:.1e}");
        assert!(error <= F32_NMSE, "{what} against {name}: nmse {error:.2e} > {F32_NMSE:.0e}");
    }
    assert_eq!(rows.len() / vocab, truth.top1.len(), "{what}: one row for each position");
    let wrong = (0..truth.top1.len()).find(|&at| argmax(&rows[at * vocab..][..vocab]) != truth.top1[at]);
    assert_eq!(wrong, None, "{what}: the most likely token differs at this row");
}

/// The model with the sliding window and the rope factors of `case`.
fn model_for(golden: &Golden, case: &Case, isa: Option<Isa>) -> Model {
    let mut parts = Parts::of(&golden.gguf);
    if let Some(window) = case.window {
        parts.put("qwen2.attention.sliding_window", u32::try_from(window).expect("small"));
    }
    let mut options = options_on(2, isa);
    options.rope_factors = case.factors;
    Model::from_gguf(&parts.gguf(), None, &options).expect("a valid model")
}

fn mtp_logits_of(model: &Model, batch: usize, tokens: &[u32]) -> Vec<f32> {
    let mut session = session_on(model, KvType::F32, batch, tokens.len()).expect("a session");
    let mut rows = Vec::new();
    session
        .mtp_logits(tokens, |index, logits| {
            assert_eq!(rows.len(), (index - 1) * logits.len(), "rows come in order, from position 1");
            rows.extend_from_slice(logits);
        })
        .expect("an MTP layer");
    rows
}

#[test]
fn logits_are_those_of_transformers_on_every_isa() {
    for golden in Golden::all() {
        for case in &golden.cases {
            for isa in isas() {
                let model = model_for(&golden, case, Some(isa));
                let rows = logits_of(&model, KvType::F32, 64, &case.tokens).expect("finite logits");
                let what = format!("{} {} {:?} {}", golden.name, case.tokens.len(), case.factors, isa.name());
                check(&what, golden.vocab, 0, &rows, &case.logits);
            }
        }
    }
}

#[test]
fn mtp_logits_are_those_of_the_reference_on_every_isa() {
    let golden = Golden::named("mimo");
    for case in &golden.cases {
        for isa in isas() {
            let model = model_on(&golden.gguf, 2, Some(isa)).expect("a valid model");
            let rows = mtp_logits_of(&model, 64, &case.tokens);
            let what = format!("mimo mtp {} {}", case.tokens.len(), isa.name());
            check(&what, golden.vocab, 1, &rows, case.mtp.as_ref().expect("MTP logits"));
        }
    }
}

#[test]
fn a_cache_of_f16_costs_no_more_than_its_rounding() {
    for golden in Golden::all() {
        // Rounding may tip a near-tie of a router, and then it costs an expert: a forced case of phimoe-35 has one.
        for case in golden.cases.iter().filter(|case| case.factors == RopeFactors::Auto) {
            let model = model_for(&golden, case, None);
            let rows = logits_of(&model, KvType::F16, 64, &case.tokens).expect("finite logits");
            let found: Vec<f32> = case
                .logits
                .positions
                .iter()
                .flat_map(|&position| &rows[position * golden.vocab..][..golden.vocab])
                .copied()
                .collect();
            let error = nmse(&found, &case.logits.exact);
            println!("{} {} f16 cache: nmse {error:.1e}", golden.name, case.tokens.len());
            assert!(error <= F16_KV_NMSE, "{} {}: {error:.2e}", golden.name, case.tokens.len());
            assert!(error > 0.0, "the cache was not rounded at all");
        }
    }
}

#[test]
fn threads_and_batches_change_no_bit() {
    for golden in Golden::all() {
        let tokens = &golden.case(600).tokens[..SPLIT_TOKENS];
        for isa in isas() {
            let mut first = None;
            for (threads, batch) in [(1, 64), (1, 1), (1, 7), (2, 64), (2, 7), (3, 64), (3, 1)] {
                let model = model_on(&golden.gguf, threads, Some(isa)).expect("a valid model");
                for kv in [KvType::F32, KvType::F16] {
                    let rows = logits_of(&model, kv, batch, tokens).expect("finite logits");
                    let mtp = (model.config().mtp_layers > 0).then(|| mtp_logits_of(&model, batch, tokens));
                    let found = (bits(&rows), mtp.map(|rows| bits(&rows)));
                    let slot = usize::from(kv == KvType::F16);
                    let expected = &mut *first.get_or_insert([None, None]);
                    let same = expected[slot].get_or_insert_with(|| found.clone()) == &found;
                    assert!(same, "{} {} {kv:?}: {threads} threads, batch {batch}", golden.name, isa.name());
                }
            }
        }
    }
}

#[test]
fn tokens_pushed_one_by_one_give_the_logits_of_one_prompt() {
    for golden in Golden::all() {
        let tokens = &golden.case(600).tokens[..SPLIT_TOKENS];
        let model = model_on(&golden.gguf, 2, None).expect("a valid model");
        let at_once = logits_of(&model, KvType::F32, 64, tokens).expect("finite logits");
        let mut session = session_on(&model, KvType::F32, 64, SPLIT_TOKENS).expect("a session");
        for (position, token) in tokens.iter().enumerate() {
            session.push_tokens(&[*token]).expect("it fits");
            let expected = &at_once[position * golden.vocab..][..golden.vocab];
            let found = session.logits().expect("logits");
            assert_eq!(bits(found), bits(expected), "{} position {position}", golden.name);
        }
    }
}

#[test]
fn greedy_tokens_are_the_most_likely_ones_and_fed_back() {
    for golden in Golden::all() {
        let model = model_on(&golden.gguf, 2, None).expect("a valid model");
        let prompt = &golden.case(64).tokens;
        let mut session = session_on(&model, KvType::F32, 64, 128).expect("a session");
        session.set_sampling(halfbyte::Sampling::greedy()).expect("valid");
        session.push_tokens(prompt).expect("it fits");
        for _ in 0..48 {
            session.next_token().expect("finite logits").expect("room");
        }
        let tokens = session.tokens().to_vec();
        assert_eq!(tokens.len(), 112);
        let rows = logits_of(&model, KvType::F32, 64, &tokens).expect("finite logits");
        for position in prompt.len()..tokens.len() {
            let before = &rows[(position - 1) * golden.vocab..][..golden.vocab];
            assert_eq!(tokens[position], argmax(before), "{} position {position}", golden.name);
        }
    }
}

#[test]
fn fused_attention_tensors_change_no_bit() {
    for golden in Golden::all() {
        let mut parts = Parts::of(&golden.gguf);
        let blocks = parts.tensors.iter().filter(|tensor| tensor.name.ends_with("attn_q.weight")).count();
        for block in 0..blocks {
            for kind in ["weight", "bias"] {
                let [mut q, k, v] =
                    ["q", "k", "v"].map(|part| parts.take_tensor(&format!("blk.{block}.attn_{part}.{kind}")));
                let rows = q.dims.len() - 1;
                q.dims[rows] += k.dims[rows] + v.dims[rows];
                q.data.extend(k.data.into_iter().chain(v.data));
                q.name = format!("blk.{block}.attn_qkv.{kind}");
                parts.tensors.push(q);
            }
        }
        let tokens = &golden.case(64).tokens;
        let separate = model_on(&golden.gguf, 2, None).expect("a valid model");
        let fused = model_on(&parts.gguf(), 2, None).expect("a valid model");
        let [separate, fused] =
            [separate, fused].map(|model| bits(&logits_of(&model, KvType::F32, 64, tokens).expect("finite logits")));
        assert!(separate == fused, "{}", golden.name);
    }
}

#[test]
fn weights_at_odd_addresses_change_no_bit() {
    let golden = Golden::named("untied");
    let tokens = &golden.case(64).tokens;
    let bytes = Parts::of(&golden.gguf).bytes();
    for offset in [1, 2, 3, 4] {
        let mut moved = vec![0; offset];
        moved.extend_from_slice(&bytes);
        let view = halfbyte_formats::Bytes::from(moved).slice(offset..offset + bytes.len()).expect("inside");
        let file = Gguf::from_bytes(view).expect("a valid file");
        for isa in isas() {
            let [aligned, odd] = [&golden.gguf, &file].map(|file| {
                let model = model_on(file, 1, Some(isa)).expect("a valid model");
                bits(&logits_of(&model, KvType::F32, 64, tokens).expect("finite logits"))
            });
            assert!(aligned == odd, "{} bytes off, {}", offset, isa.name());
        }
    }
}

#[test]
fn a_sidecar_gives_the_logits_of_an_embedded_mtp_layer() {
    let golden = Golden::named("mimo");
    let mut trunk = Parts::of(&golden.gguf);
    let mut sidecar = trunk.clone();
    trunk.tensors.retain(|tensor| !tensor.name.starts_with("blk.2."));
    trunk.put("qwen2.block_count", 2_u32).drop_key("qwen2.nextn_predict_layers");
    sidecar.tensors.retain(|tensor| tensor.name.starts_with("blk.2."));
    sidecar.put("general.name", "another".to_owned());
    let (trunk, sidecar) = (trunk.gguf(), sidecar.gguf());

    let tokens = &golden.case(64).tokens;
    let embedded = model_on(&golden.gguf, 2, None).expect("a valid model");
    let two_files = Model::from_gguf(&trunk, Some(&sidecar), &LoadOptions::default()).expect("a valid pair");
    assert_eq!(two_files.config().mtp_layers, 1);
    assert_eq!(bits(&mtp_logits_of(&embedded, 7, tokens)), bits(&mtp_logits_of(&two_files, 64, tokens)));

    let alone = model_on(&trunk, 1, None).expect("a valid model");
    let mut session = session_on(&alone, KvType::F32, 64, 64).expect("a session");
    assert!(matches!(session.mtp_logits(tokens, |_, _| ()), Err(halfbyte::RuntimeError::NoMtp)));
}

#[test]
fn an_untied_model_without_its_head_runs_as_a_tied_one() {
    let golden = Golden::named("untied");
    let tokens = &golden.case(64).tokens;
    let mut tied = Parts::of(&golden.gguf);
    tied.take_tensor("output.weight");
    let mut copied = tied.clone();
    let embedding = copied.tensor("token_embd.weight").clone();
    copied.add_tensor("output.weight", &embedding.dims, &embedding.values());
    let [tied, copied] = [tied, copied].map(|parts| {
        let model = model_on(&parts.gguf(), 2, None).expect("a valid model");
        logits_of(&model, KvType::F32, 64, tokens).expect("finite logits")
    });
    assert_eq!(bits(&tied), bits(&copied));
}

#[test]
fn a_window_of_zero_or_of_the_context_hides_nothing() {
    let golden = Golden::named("untied");
    let tokens = &golden.case(64).tokens;
    let run = |window: u64| {
        let mut parts = Parts::of(&golden.gguf);
        parts.put("qwen2.attention.sliding_window", window);
        let model = model_on(&parts.gguf(), 2, None).expect("a valid model");
        logits_of(&model, KvType::F32, 64, tokens).expect("finite logits")
    };
    let model = model_on(&golden.gguf, 2, None).expect("a valid model");
    let open = bits(&logits_of(&model, KvType::F32, 64, tokens).expect("finite logits"));
    for window in [0, 64, 4096, 1 << 40, u64::MAX >> 1] {
        assert!(bits(&run(window)) == open, "window {window}");
    }
    // A window of one hides everything but the position itself; the first position has nothing to hide.
    let blind = run(1);
    assert_eq!(bits(&blind[..golden.vocab]), open[..golden.vocab]);
    assert!(bits(&blind[golden.vocab..2 * golden.vocab]) != open[golden.vocab..2 * golden.vocab]);
}

/// The truths above would be worthless if they did not depend on each part of the graph.
#[test]
fn each_part_of_the_graph_shows_in_the_logits() {
    let golden = Golden::named("untied");
    let case = golden.case(64);
    let change = |name: &str| {
        let mut parts = Parts::of(&golden.gguf);
        match name {
            key if key.starts_with("qwen2.") => {
                let value: Value = if key.ends_with("dimension_count") { 8_u32.into() } else { 0.1_f32.into() };
                parts.put(key, value);
            }
            bias if bias.ends_with(".bias") => parts.tensor(bias).map(|_| 0.0),
            norm if norm.ends_with("norm.weight") => parts.tensor(norm).map(|_| 1.0),
            weight => parts.tensor(weight).map(|value| -value),
        }
        let model = model_on(&parts.gguf(), 2, None).expect("a valid model");
        let rows = logits_of(&model, KvType::F32, 64, &case.tokens).expect("finite logits");
        nmse(&rows, &case.logits.exact)
    };
    let names = [
        "qwen2.rope.freq_base",
        "qwen2.rope.dimension_count",
        "qwen2.attention.layer_norm_rms_epsilon",
        "output_norm.weight",
        "blk.0.attn_norm.weight",
        "blk.1.ffn_norm.weight",
        "blk.0.attn_q.weight",
        "blk.1.attn_k.weight",
        "blk.0.attn_v.weight",
        "blk.1.attn_output.weight",
        "blk.0.attn_q.bias",
        "blk.1.attn_v.bias",
        "blk.0.ffn_gate.weight",
        "blk.1.ffn_up.weight",
    ];
    for name in names {
        let error = change(name);
        assert!(error > DIFFERENT, "{name}: {error:.1e}");
    }
}
