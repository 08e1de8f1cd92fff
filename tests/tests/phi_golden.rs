//! What is particular to `phi3` and `phimoe`: rope factors, windows, routers, and how files stack their tensors.
//!
//! That the logits are those of transformers is in `models_golden.rs`; here, that they are so one token at a time
//! across the original context, that they can be those of llama.cpp, and that each part of the graphs would be missed.

use halfbyte::{Compat, KvType, Model};
use halfbyte_formats::gguf::Value;
use halfbyte_tests::{
    Golden, Part, Parts, Truth, argmax, bits, isas, logits_of, model_on, nmse, options_on, session_on,
};

/// As in `models_golden.rs`.
const F32_NMSE: f64 = 1e-10;
const DIFFERENT: f64 = 1e-3;

/// Lengths of the golden cases around the original context, 256: the factors change between the second and the third.
const STEPS: [usize; 4] = [255, 256, 257, 258];
const LONGROPE: [&str; 2] = ["phi4-mini", "phimoe-35"];

/// The last row of a truth.
fn last<'a>(logits: &'a [f32], truth: &Truth) -> &'a [f32] {
    &logits[logits.len() - logits.len() / truth.positions.len()..]
}

#[test]
fn tokens_pushed_one_by_one_across_the_original_context_give_the_logits_of_single_prompts() {
    for golden in LONGROPE.map(Golden::named) {
        for isa in isas() {
            let model = model_on(&golden.gguf, 2, Some(isa)).expect("a valid model");
            assert_eq!(model.config().original_context, STEPS[1]);
            let mut session = session_on(&model, KvType::F32, 64, 300).expect("a session");
            let tokens = &golden.case(STEPS[3]).tokens;
            session.push_tokens(&tokens[..STEPS[0] - 1]).expect("it fits");
            for count in STEPS {
                session.push_tokens(&tokens[count - 1..count]).expect("it fits");
                let logits = session.logits().expect("logits");
                let truth = &golden.case(count).logits;
                assert_eq!(truth.positions.last(), Some(&(count - 1)));
                for expected in [&truth.exact, &truth.engine] {
                    let error = nmse(logits, last(expected, truth));
                    println!("{} {count} {}: nmse {error:.1e}", golden.name, isa.name());
                    assert!(error <= F32_NMSE, "{} {count} {}: nmse {error:.2e}", golden.name, isa.name());
                }
                assert_eq!(argmax(logits), truth.top1[count - 1], "{} {count}", golden.name);
            }
        }
    }
}

#[test]
fn threads_and_batches_change_no_bit_across_the_original_context() {
    for golden in LONGROPE.map(Golden::named) {
        let tokens = &golden.case(STEPS[3]).tokens;
        for isa in isas() {
            let run = |threads, batch| {
                let model = model_on(&golden.gguf, threads, Some(isa)).expect("a valid model");
                bits(&logits_of(&model, KvType::F32, batch, tokens).expect("finite logits"))
            };
            let expected = run(1, 64);
            for (threads, batch) in [(1, 7), (2, 64), (3, 1)] {
                let same = run(threads, batch) == expected;
                assert!(same, "{} {}: {threads} threads, batch {batch}", golden.name, isa.name());
            }
        }
    }
}

/// In the most likely token of Phi-MoE, llama.cpp and the reference agree at 30 % of positions (`golden_llama_cpp.py`).
#[test]
fn compat_gives_the_logits_of_llama_cpp_on_every_isa() {
    for golden in Golden::llama_cpp() {
        for case in &golden.cases {
            for isa in isas() {
                let mut options = options_on(2, Some(isa));
                options.compat = Compat::LlamaCpp;
                let model = Model::from_gguf(&golden.gguf, None, &options).expect("a valid model");
                let context = case.context.expect("the size of llama.cpp's context");
                let mut session = session_on(&model, KvType::F32, 64, context).expect("a session");
                let mut rows = Vec::new();
                session.push_tokens_with(&case.tokens, |_, logits| rows.extend_from_slice(logits)).expect("it fits");
                let row = |at: usize| &rows[at * golden.vocab..][..golden.vocab];
                let found: Vec<f32> = case.logits.positions.iter().flat_map(|&at| row(at)).copied().collect();
                let what = format!("{} {} of {context} {}", golden.name, case.tokens.len(), isa.name());
                for (name, expected) in [("llama.cpp", &case.logits.engine), ("float64", &case.logits.exact)] {
                    let error = nmse(&found, expected);
                    println!("{what} against {name}: nmse {error:.1e}");
                    assert!(error <= F32_NMSE, "{what} against {name}: nmse {error:.2e}");
                }
                let top1: Vec<u32> = (0..case.tokens.len()).map(|at| argmax(row(at))).collect();
                assert_eq!(top1, case.logits.top1, "{what}");
            }
        }
    }
}

/// Cuts the rows of a tensor into tensors of `parts` (name, rows).
fn cut(fused: &Part, parts: &[(&str, usize)]) -> Vec<Part> {
    let row = fused.data.len() / fused.dims[1];
    let mut rest = fused.data.as_slice();
    let mut take = |&(name, rows): &(&str, usize)| {
        let (data, after) = rest.split_at(rows * row);
        rest = after;
        Part { name: name.to_owned(), dims: vec![fused.dims[0], rows], ty: fused.ty, data: data.to_vec() }
    };
    let cut = parts.iter().map(&mut take).collect();
    assert!(rest.is_empty(), "all rows");
    cut
}

#[test]
fn separate_tensors_change_no_bit() {
    for golden in ["phi4", "phi4-mini"].map(Golden::named) {
        let stacked = model_on(&golden.gguf, 2, None).expect("a valid model");
        let config = stacked.config();
        let mut parts = Parts::of(&golden.gguf);
        for block in 0..config.layers {
            let [q, k, v, gate, up] =
                ["attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"].map(|part| format!("blk.{block}.{part}.weight"));
            let qkv = parts.take_tensor(&format!("blk.{block}.attn_qkv.weight"));
            let (q_rows, kv_rows) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
            parts.tensors.extend(cut(&qkv, &[(&q, q_rows), (&k, kv_rows), (&v, kv_rows)]));
            let gate_up = parts.take_tensor(&up);
            parts.tensors.extend(cut(&gate_up, &[(&gate, config.ffn), (&up, config.ffn)]));
        }
        let separate = model_on(&parts.gguf(), 2, None).expect("a valid model");
        let tokens = &golden.case(64).tokens;
        let [stacked, separate] =
            [stacked, separate].map(|model| bits(&logits_of(&model, KvType::F32, 64, tokens).expect("finite logits")));
        assert!(stacked == separate, "{}", golden.name);
    }
}

/// How far the logits of the first case move when `change` is made to the file.
fn effect(golden: &Golden, change: impl FnOnce(&mut Parts)) -> f64 {
    let mut parts = Parts::of(&golden.gguf);
    change(&mut parts);
    let case = golden.case(64);
    let model = model_on(&parts.gguf(), 2, None).expect("a valid model");
    nmse(&logits_of(&model, KvType::F32, 64, &case.tokens).expect("finite logits"), &case.logits.exact)
}

#[test]
fn each_part_of_the_graphs_shows_in_the_logits() {
    let parts: [(&str, &[&str]); 4] = [
        ("phi4", &["phi3.rope.freq_base", "blk.0.attn_qkv.weight", "blk.1.ffn_up.weight", "blk.1.ffn_norm.weight"]),
        ("phi4-mini", &["phi3.rope.dimension_count", "phi3.rope.scaling.attn_factor", "rope_factors_short.weight"]),
        (
            "phimoe",
            &[
                "blk.0.attn_norm.weight",
                "blk.0.attn_norm.bias",
                "blk.1.ffn_norm.bias",
                "output_norm.bias",
                "blk.0.attn_q.bias",
                "blk.1.attn_v.bias",
                "blk.0.attn_output.bias",
                "output.bias",
                "blk.0.ffn_gate_inp.weight",
                "blk.0.ffn_gate_exps.weight",
                "blk.1.ffn_up_exps.weight",
                "blk.1.ffn_down_exps.weight",
            ],
        ),
        ("phimoe-35", &["rope_factors_short.weight"]),
    ];
    for (name, parts) in parts {
        let golden = Golden::named(name);
        for &part in parts {
            let error = effect(&golden, |file| match part {
                "phi3.rope.dimension_count" => {
                    file.put(part, 8_u32);
                    for set in ["rope_factors_short.weight", "rope_factors_long.weight"] {
                        let factors = file.take_tensor(set).values();
                        file.add_tensor(set, &[4], &factors[..4]);
                    }
                }
                key if key.starts_with("phi3.") => _ = file.put(key, Value::from(1.0_f32)),
                bias if bias.ends_with(".bias") => file.tensor(bias).map(|_| 0.0),
                norm if norm.ends_with("norm.weight") || norm.starts_with("rope") => file.tensor(norm).map(|_| 1.0),
                weight => file.tensor(weight).map(|value| -value),
            });
            println!("{name} {part}: {error:.1e}");
            assert!(error > DIFFERENT, "{name} {part}: {error:.1e}");
        }
    }
}

#[test]
fn windows_one_position_wider_or_narrower_show() {
    for (name, key) in [
        ("phi3-window", "phi3.attention.sliding_window"),
        ("phimoe", "phimoe.attention.sliding_window"),
        ("phimoe-tiny", "phimoe.attention.sliding_window"),
    ] {
        let golden = Golden::named(name);
        for window in [19_u32, 21, 0] {
            let error = effect(&golden, |file| _ = file.put(key, window));
            println!("{name} window {window}: {error:.1e}");
            assert!(error > DIFFERENT, "{name} window {window}: {error:.1e}");
        }
        assert!(effect(&golden, |file| _ = file.put(key, 20_u32)) <= F32_NMSE, "{name}");
    }
}

/// Experts 3 and 11 of `phimoe-tiny` have the same router row, 4 and 12 one of zeros: the first of each has to win.
#[test]
fn router_ties_go_to_the_lowest_index() {
    let golden = Golden::named("phimoe-tiny");
    for (first, second) in [(3, 11), (4, 12)] {
        let error = effect(&golden, |file| {
            for part in ["gate", "up", "down"] {
                for block in 0..2 {
                    let experts = file.tensor(&format!("blk.{block}.ffn_{part}_exps.weight"));
                    let slab = experts.data.len() / experts.dims[2];
                    let (low, high) = experts.data.split_at_mut(second * slab);
                    low[first * slab..][..slab].swap_with_slice(&mut high[..slab]);
                }
            }
        });
        println!("experts {first} and {second}: {error:.1e}");
        assert!(error > DIFFERENT, "experts {first} and {second}: {error:.1e}");
    }
}

/// Converters store LongRoPE's factor for Phi-3.5-MoE too, but its authors scale by a constant of their own.
#[test]
fn the_stored_attention_factor_is_not_that_of_phi_moe() {
    let golden = Golden::named("phimoe-35");
    assert!(effect(&golden, |file| _ = file.put("phimoe.rope.scaling.attn_factor", 1.5_f32)) <= F32_NMSE);
}
