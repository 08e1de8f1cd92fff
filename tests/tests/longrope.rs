//! Crossing the original context of a LongRoPE model: everything is rotated otherwise, and nothing else changes.
//!
//! That each set gives the reference's logits is tested with the golden values; here sessions that crossed are
//! compared, bit for bit, with sessions that never had to.

use std::sync::{Arc, Mutex};

use halfbyte::{Compat, Event, FactorSet, KvType, LoadOptions, Model, RopeFactors, RuntimeError, Sampling, Session};
use halfbyte_tests::{Golden, bits, logits_of, session_on};

/// Original context of the golden model.
const ORIGINAL: usize = 256;
const CONTEXT: usize = 300;
const BATCH: usize = 32;

fn load(set: impl FnOnce(&mut LoadOptions)) -> (Vec<u32>, Model) {
    let golden = Golden::named("phi4-mini");
    let mut options = LoadOptions::default();
    options.threads = Some(2);
    set(&mut options);
    let model = Model::from_gguf(&golden.gguf, None, &options).expect("a valid model");
    assert_eq!(model.config().original_context, ORIGINAL);
    (golden.case(600).tokens.clone(), model)
}

/// An empty session and the events it will tell.
fn session(model: &Model) -> (Session, Arc<Mutex<Vec<Event>>>) {
    let mut session = session_on(model, KvType::F32, BATCH, CONTEXT).expect("a session");
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    session.on_event(move |event| told.lock().expect("one thread").push(event.clone()));
    (session, events)
}

/// The logits of a session that was given `tokens` at once.
fn fresh(model: &Model, tokens: &[u32]) -> Vec<u32> {
    let (mut session, events) = session(model);
    session.push_tokens(tokens).expect("it fits");
    assert!(events.lock().expect("one thread").is_empty(), "there was nothing to run again");
    bits(session.logits().expect("logits"))
}

#[track_caller]
fn told(events: &Mutex<Vec<Event>>, expected: &[(usize, FactorSet)]) {
    let told = |event: &Event| match event {
        Event::Rerun { tokens, factors, .. } => (*tokens, *factors),
        other => panic!("{other:?}"),
    };
    assert_eq!(events.lock().expect("one thread").iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn a_push_across_the_boundary_runs_everything_again() {
    let (tokens, model) = load(|_| {});
    let (mut session, events) = session(&model);
    session.push_tokens(&tokens[..ORIGINAL]).expect("it fits");
    assert_eq!(bits(session.logits().expect("logits")), fresh(&model, &tokens[..ORIGINAL]));
    told(&events, &[]);
    session.push_tokens(&tokens[ORIGINAL..ORIGINAL + 3]).expect("it fits");
    assert_eq!(bits(session.logits().expect("logits")), fresh(&model, &tokens[..ORIGINAL + 3]));
    told(&events, &[(ORIGINAL, FactorSet::Long)]);
}

#[test]
fn logits_of_every_token_are_those_of_the_pushed_ones() {
    let (tokens, model) = load(|_| {});
    let all = logits_of(&model, KvType::F32, BATCH, &tokens[..ORIGINAL + 5]).expect("finite logits");
    let (mut session, _) = session(&model);
    let first = ORIGINAL - 3;
    session.push_tokens(&tokens[..first]).expect("it fits");
    let mut rows = Vec::new();
    let mut indices = Vec::new();
    let each = |index: usize, logits: &[f32]| {
        indices.push(index);
        rows.extend_from_slice(logits);
    };
    session.push_tokens_with(&tokens[first..ORIGINAL + 5], each).expect("it fits");
    assert_eq!(indices, (0..8).collect::<Vec<_>>());
    assert_eq!(bits(&rows), bits(&all[first * model.vocab()..]));
}

#[test]
fn going_back_returns_to_the_short_factors() {
    let (tokens, model) = load(|_| {});
    let (mut session, events) = session(&model);
    session.push_tokens(&tokens[..ORIGINAL + 4]).expect("it fits");
    session.truncate(ORIGINAL);
    assert_eq!(bits(session.logits().expect("logits")), fresh(&model, &tokens[..ORIGINAL]));
    told(&events, &[(ORIGINAL - 1, FactorSet::Short)]);
    session.truncate(10);
    assert_eq!(bits(session.logits().expect("logits")), fresh(&model, &tokens[..10]));
    assert_eq!(events.lock().expect("one thread").len(), 1, "no boundary was crossed");
}

#[test]
fn generated_tokens_are_those_of_each_prefix() {
    let (tokens, model) = load(|_| {});
    let (mut session, events) = session(&model);
    session.set_sampling(Sampling::greedy()).expect("valid");
    session.push_tokens(&tokens[..ORIGINAL - 4]).expect("it fits");
    for _ in 0..8 {
        let before = session.tokens().to_vec();
        let expected = fresh(&model, &before);
        assert_eq!(bits(session.logits().expect("logits")), expected, "after {} tokens", before.len());
        session.next_token().expect("finite logits").expect("room");
    }
    told(&events, &[(ORIGINAL, FactorSet::Long)]);
}

#[test]
fn a_cancelled_rerun_changes_nothing() {
    let (tokens, model) = load(|_| {});
    let (mut session, events) = session(&model);
    session.push_tokens(&tokens[..ORIGINAL]).expect("it fits");
    let token = session.cancel_token();
    session.on_progress(move |done, _| {
        if done >= 2 * BATCH {
            token.cancel();
        }
    });
    let error = session.push_tokens(&tokens[ORIGINAL..ORIGINAL + 1]).expect_err("cancelled");
    assert!(matches!(error, RuntimeError::Cancelled), "{error:?}");
    assert_eq!(session.tokens(), &tokens[..ORIGINAL]);
    session.on_progress(|_, _| {});
    session.cancel_token().reset();
    assert_eq!(bits(session.logits().expect("logits")), fresh(&model, &tokens[..ORIGINAL]));
    session.push_tokens(&tokens[ORIGINAL..ORIGINAL + 1]).expect("it fits");
    assert_eq!(bits(session.logits().expect("logits")), fresh(&model, &tokens[..=ORIGINAL]));
    // There, back (of what was run by then), and there again.
    told(&events, &[(ORIGINAL, FactorSet::Long), (2 * BATCH, FactorSet::Short), (ORIGINAL, FactorSet::Long)]);
}

#[test]
fn a_rerun_that_is_not_wanted_costs_nothing() {
    let (tokens, model) = load(|_| {});
    for before_the_call in [true, false] {
        let (mut session, _) = session(&model);
        session.push_tokens(&tokens[..ORIGINAL]).expect("it fits");
        let token = session.cancel_token();
        if before_the_call {
            token.cancel();
        } else {
            session.on_event(move |_| token.cancel());
        }
        let kept = session.kv_bytes();
        let error = session.push_tokens(&tokens[ORIGINAL..=ORIGINAL]).expect_err("cancelled");
        assert!(matches!(error, RuntimeError::Cancelled), "{error:?}");
        // Of the last token, whose logits were overwritten for all the session knows.
        assert!(session.kv_bytes() >= kept - kept / ORIGINAL, "{} of {kept} bytes", session.kv_bytes());
        session.cancel_token().reset();
        assert_eq!(bits(session.logits().expect("logits")), fresh(&model, &tokens[..ORIGINAL]));
    }
}

#[test]
fn a_forced_set_is_used_at_every_length() {
    let (tokens, auto) = load(|_| {});
    for (factors, same_at) in [(RopeFactors::Short, ORIGINAL), (RopeFactors::Long, ORIGINAL + 1)] {
        let (_, forced) = load(|options| options.rope_factors = factors);
        let (mut session, events) = session(&forced);
        for count in [ORIGINAL, ORIGINAL + 1] {
            session.push_tokens(&tokens[session.tokens().len()..count]).expect("it fits");
            let found = bits(session.logits().expect("logits"));
            assert_eq!(found == fresh(&auto, &tokens[..count]), count == same_at, "{factors:?}, {count} tokens");
        }
        told(&events, &[]);
    }
}

#[test]
fn llama_cpp_chooses_by_the_size_of_the_context() {
    let (tokens, model) = load(|options| options.compat = Compat::LlamaCpp);
    let short = load(|options| options.rope_factors = RopeFactors::Short).1;
    let long = load(|options| options.rope_factors = RopeFactors::Long).1;
    for (context, same) in [(ORIGINAL, &short), (ORIGINAL + 1, &long)] {
        let mut session = session_on(&model, KvType::F32, BATCH, context).expect("a session");
        session.push_tokens(&tokens[..20]).expect("it fits");
        assert_eq!(bits(session.logits().expect("logits")), fresh(same, &tokens[..20]), "context {context}");
    }
}

#[test]
fn a_model_without_factors_has_no_set_to_choose() {
    let golden = Golden::named("phi4");
    for factors in [RopeFactors::Short, RopeFactors::Long] {
        let mut options = LoadOptions::default();
        options.rope_factors = factors;
        match Model::from_gguf(&golden.gguf, None, &options).expect_err("no factors") {
            RuntimeError::InvalidOption { option, .. } => assert_eq!(option, "rope_factors"),
            other => panic!("{other:?}"),
        }
    }
}
