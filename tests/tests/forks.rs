//! A session that was appended to, truncated and forked is one that was given its tokens at once: bit for bit.

use halfbyte::{Isa, KvType, Model, Sampling, Session};
use halfbyte_kernels::{KV_PAGE, ops::KV_SPLIT};
use halfbyte_tests::{Golden, bits, logits_of, model_on, session_on};
use proptest::prelude::*;

const CONTEXT: usize = 300;

fn model(name: &str, threads: usize) -> Model {
    model_on(&Golden::named(name).gguf, threads, None).expect("a valid model")
}

/// `count` tokens, the same for the same seed.
fn tokens(model: &Model, seed: u64, count: usize) -> Vec<u32> {
    // SplitMix64 (Steele, Lea and Flood 2014).
    let mix = |state: u64| {
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let state = |n: usize| seed.wrapping_mul(n as u64 + 1).wrapping_add((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..count).map(|n| u32::try_from(mix(state(n)) % model.vocab() as u64).expect("an id")).collect()
}

/// What a session does next.
#[derive(Clone, Debug)]
enum Step {
    /// Appends so many tokens.
    Append(usize),
    /// Keeps so many per cent of the tokens.
    Truncate(usize),
    /// Generates so many tokens.
    Generate(usize),
    /// Is forked; what was there before goes on beside.
    Fork,
    /// Gives way to another session.
    Switch(usize),
    /// Is dropped, if it is not the only one.
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![1..5_usize, 50..80_usize, Just(KV_PAGE)].prop_map(Step::Append),
        2 => (0..=100_usize).prop_map(Step::Truncate),
        2 => (1..8_usize).prop_map(Step::Generate),
        3 => Just(Step::Fork),
        2 => (0..4_usize).prop_map(Step::Switch),
        1 => Just(Step::Drop),
    ]
}

/// The session and a fresh one with its tokens have the same logits.
fn check(model: &Model, kv: KvType, session: &mut Session, expected: &[u32]) {
    assert_eq!(session.tokens(), expected);
    if expected.is_empty() {
        return;
    }
    let mut fresh = session_on(model, kv, 64, CONTEXT).expect("a session");
    fresh.push_tokens(expected).expect("it fits");
    assert_eq!(bits(session.logits().expect("logits")), bits(fresh.logits().expect("logits")), "{}", expected.len());
    assert_eq!(session.kv_bytes(), fresh.kv_bytes());
}

/// Runs steps; each session is checked when it is left, and all of them at the end.
fn run(model: &Model, kv: KvType, seed: u64, steps: &[Step]) {
    let mut sessions = vec![(session_on(model, kv, 32, CONTEXT).expect("a session"), Vec::new())];
    for (n, step) in steps.iter().enumerate() {
        let count = sessions.len();
        let (session, expected) = sessions.last_mut().expect("one");
        match *step {
            Step::Append(more) => {
                let more = tokens(model, seed + n as u64, more.min(CONTEXT - expected.len()));
                session.push_tokens(&more).expect("it fits");
                expected.extend(more);
            }
            Step::Truncate(share) => {
                let keep = expected.len() * share / 100;
                session.truncate(keep);
                expected.truncate(keep);
            }
            Step::Generate(most) if !expected.is_empty() => {
                let generated = (0..most).map_while(|_| session.next_token().expect("finite logits"));
                expected.extend(generated);
            }
            Step::Fork if count < 4 => {
                let fork = (session.fork().expect("a fork"), expected.clone());
                sessions.push(fork);
            }
            Step::Switch(to) => {
                check(model, kv, session, &expected.clone());
                sessions.swap(to % count, count - 1);
            }
            Step::Drop if count > 1 => {
                sessions.pop();
            }
            _ => {}
        }
    }
    for (session, expected) in &mut sessions {
        check(model, kv, session, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_history(steps in prop::collection::vec(step(), 1..30), half: bool, window: bool, seed: u32) {
        let model = model(if window { "phi3-window" } else { "mimo" }, 2);
        run(&model, if half { KvType::F16 } else { KvType::F32 }, u64::from(seed), &steps);
    }
}

/// A fork continues as its original does: with its sampler, in the middle of a generation.
#[test]
fn a_fork_goes_on_as_its_original_would() {
    let model = model("mimo", 1);
    let mut sampling = Sampling::default();
    sampling.temperature = 1.0;
    for len in [1, KV_PAGE - 3, KV_PAGE, 2 * KV_PAGE + 1] {
        let mut session = session_on(&model, KvType::F16, 32, CONTEXT).expect("a session");
        session.set_sampling(sampling.clone()).expect("valid");
        session.push_tokens(&tokens(&model, 1, len)).expect("it fits");
        for _ in 0..5 {
            session.next_token().expect("finite logits").expect("room");
        }
        let mut fork = session.fork().expect("a fork");
        assert_eq!((fork.tokens(), fork.context(), fork.text()), (session.tokens(), CONTEXT, session.text()));
        let next = |session: &mut Session| -> Vec<u32> {
            (0..20).map(|_| session.next_token().expect("finite logits").expect("room")).collect()
        };
        // Neither sees what the other writes into the page they share.
        let mut third = session.fork().expect("a fork");
        third.push_tokens(&tokens(&model, 2, 90)).expect("it fits");
        assert_eq!(next(&mut fork), next(&mut session));
        drop(third);
        assert_eq!(next(&mut fork), next(&mut session));
    }
}

/// A fork of nothing, of a cancelled session, of a full one.
#[test]
fn forks_of_odd_sessions() {
    let model = model("mimo", 1);
    let mut session = session_on(&model, KvType::F16, 32, 70).expect("a session");
    let mut fork = session.fork().expect("a fork");
    assert!(fork.tokens().is_empty() && fork.next_token().is_err() && fork.kv_bytes() == 0);

    let all = tokens(&model, 3, 70);
    session.push_tokens(&all).expect("it fits");
    let mut fork = session.fork().expect("a fork");
    session.cancel_token().cancel();
    assert!(fork.push_tokens(&[1]).is_err());
    fork.truncate(69);
    fork.push_tokens(&all[69..]).expect("it fits, and is not cancelled");
    let mut cancelled = session.fork().expect("a fork");
    assert_eq!(bits(cancelled.logits().expect("its own token")), bits(fork.logits().expect("logits")));
}

/// Prompts and single tokens over several splits: the bits do not depend on how many threads share the heads.
#[test]
fn threads_share_long_sequences_without_a_trace() {
    let count = 2 * KV_SPLIT + 3;
    for name in ["mimo", "phi3-window"] {
        for isa in Isa::available().filter(|isa| !matches!(isa, Isa::Portable)) {
            let golden = Golden::named(name);
            let mut expected = None;
            for threads in [1, 2, 3] {
                let model = model_on(&golden.gguf, threads, Some(isa)).expect("a valid model");
                let tokens = tokens(&model, 5, count);
                let mut session = session_on(&model, KvType::F16, 512, count).expect("a session");
                let mut found = Vec::new();
                // One by one around the edges of splits.
                for edge in [KV_SPLIT, 2 * KV_SPLIT] {
                    session.push_tokens(&tokens[session.tokens().len()..edge - 2]).expect("it fits");
                    for n in edge - 2..edge + 3 {
                        session.push_tokens(&tokens[n..=n]).expect("it fits");
                        found.push((n, bits(session.logits().expect("logits"))));
                    }
                }
                let rows = expected.get_or_insert_with(|| {
                    let rows = logits_of(&model, KvType::F16, 512, &tokens).expect("finite logits");
                    rows.chunks(golden.vocab).map(bits).collect::<Vec<_>>()
                });
                for (n, found) in found {
                    assert_eq!(found, rows[n], "{name}, {isa:?}, {threads} threads, token {n}");
                }
            }
        }
    }
}
