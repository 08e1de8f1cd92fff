//! Sessions that begin with what a prefix cache knows: bit for bit those that ran everything themselves.

use halfbyte::{
    Budget, BudgetMode, Event, FactorSet, KvType, LoadOptions, Model, PrefixCache, Request, RuntimeError, Sampling,
    Scheduler, SchedulerOptions, Session,
};
use halfbyte_kernels::KV_PAGE;
use halfbyte_tests::{Golden, bits, logits_of, model_on, session_on};

const CONTEXT: usize = 300;
const BATCH: usize = 32;

fn model(name: &str) -> Model {
    model_on(&Golden::named(name).gguf, 2, None).expect("a valid model")
}

/// Tokens that differ between seeds at every place.
fn tokens(model: &Model, seed: usize, len: usize) -> Vec<u32> {
    (0..len).map(|n| u32::try_from((n * 31 + n / 7 + seed) % model.vocab()).expect("an id")).collect()
}

/// What a scheduler has made of `prompts`.
fn cache(model: &Model, kv: KvType, prompts: &[&[u32]]) -> PrefixCache {
    let mut options = SchedulerOptions::default();
    (options.max_concurrent, options.kv, options.prefix_bytes) = (1, kv, usize::MAX);
    let scheduler = Scheduler::new(model, &options).expect("a scheduler");
    for prompt in prompts {
        let mut request = Request::new(prompt.to_vec());
        (request.sampling, request.stop.max_tokens) = (Sampling::greedy(), Some(1));
        request.stop.end_of_text = false;
        assert_eq!(scheduler.submit(request).expect("a place").filter(Result::is_ok).count(), 1);
    }
    scheduler.prefixes().clone()
}

fn session(model: &Model, kv: KvType, prefixes: Option<&PrefixCache>) -> Session {
    let mut session = session_on(model, kv, BATCH, CONTEXT).expect("a session");
    session.set_sampling(Sampling::greedy()).expect("valid");
    prefixes.map_or(Ok(()), |prefixes| session.set_prefixes(prefixes)).expect("of the same model");
    session
}

/// The logits after `tokens`, and after each of some more.
fn goes_on(session: &mut Session, tokens: &[u32]) -> Vec<Vec<u32>> {
    session.push_tokens(tokens).expect("it fits");
    let next = |_| {
        let logits = bits(session.logits().expect("logits"));
        session.next_token().expect("finite logits").expect("room");
        logits
    };
    (0..4).map(next).collect()
}

#[test]
fn what_is_known_is_not_run_and_leaves_no_trace() {
    for (name, kv) in [("mimo", KvType::F16), ("phi3-window", KvType::F32)] {
        let model = model(name);
        for saved in [1, KV_PAGE - 1, KV_PAGE, KV_PAGE + 1, 2 * KV_PAGE + 5] {
            let first = tokens(&model, 0, saved);
            let prefixes = cache(&model, kv, &[&first]);
            for common in [0, 1, KV_PAGE - 1, KV_PAGE, KV_PAGE + 1, saved].into_iter().filter(|&len| len <= saved) {
                for more in [0, 1, 70].into_iter().filter(|more| common + more > 0) {
                    let prompt = [&first[..common], &tokens(&model, 1, common + more)[common..]].concat();
                    let expected = goes_on(&mut session(&model, kv, None), &prompt);
                    let known = common.min(prompt.len() - 1);
                    let mut session = session(&model, kv, Some(&prefixes));
                    // Not only once: pages that are shared were not written.
                    for _ in 0..2 {
                        assert_eq!(goes_on(&mut session, &prompt), expected, "{name}, {saved}, {common}, {more}");
                        let stats = session.stats();
                        assert_eq!((stats.prompt_tokens, stats.cached_tokens), (prompt.len(), known));
                        session.truncate(0);
                        assert_eq!(session.stats().cached_tokens, 0);
                    }
                }
            }
        }
    }
}

/// A prompt in parts: what is known counts for the part that it saved.
#[test]
fn only_tokens_of_the_push_count() {
    let model = model("mimo");
    let all = tokens(&model, 0, 150);
    let prefixes = cache(&model, KvType::F16, &[&all[..140]]);
    let mut session = session(&model, KvType::F16, Some(&prefixes));
    session.push_tokens(&all[..100]).expect("it fits");
    session.push_tokens(&all[100..]).expect("it fits");
    assert_eq!((session.stats().prompt_tokens, session.stats().cached_tokens), (150, 99));
    let rate = 51.0 / session.stats().prompt.as_secs_f64();
    assert!((session.stats().prompt_rate() - rate).abs() < 1e-6 * rate);
    session.truncate(1);
    session.push_tokens(&all[1..]).expect("it fits");
    assert_eq!((session.stats().prompt_tokens, session.stats().cached_tokens), (149, 139));
    let mut fresh = session_on(&model, KvType::F16, BATCH, CONTEXT).expect("a session");
    fresh.push_tokens(&all).expect("it fits");
    assert_eq!(bits(session.logits().expect("logits")), bits(fresh.logits().expect("logits")));
}

#[test]
fn logits_of_every_token_are_still_made() {
    let model = model("mimo");
    let all = tokens(&model, 0, 150);
    let prefixes = cache(&model, KvType::F16, &[&all]);
    let expected = logits_of(&model, KvType::F16, BATCH, &all).expect("finite logits");
    let mut session = session(&model, KvType::F16, Some(&prefixes));
    // Before the first push, and after a token that has to be run again or is known.
    for held in [0, 1] {
        session.truncate(held);
        let mut rows = Vec::new();
        let each = |index: usize, logits: &[f32]| {
            assert_eq!(rows.len(), index * logits.len(), "rows come in order");
            rows.extend_from_slice(logits);
        };
        session.push_tokens_with(&all[held..], each).expect("it fits");
        assert_eq!(bits(&rows), bits(&expected[held * model.vocab()..]), "{held} tokens held");
        assert_eq!(session.stats().cached_tokens, 0);
    }
}

#[test]
fn forks_begin_with_it_too() {
    let model = model("mimo");
    let all = tokens(&model, 0, 150);
    let prefixes = cache(&model, KvType::F16, &[&all[..100]]);
    let expected = goes_on(&mut session(&model, KvType::F16, None), &all);
    let mut session = session(&model, KvType::F16, Some(&prefixes));
    let mut fork = session.fork().expect("a fork");
    assert_eq!(goes_on(&mut fork, &all), expected);
    assert_eq!(fork.stats().cached_tokens, 100);
    // Of one that shares its pages with the cache, too.
    assert_eq!(goes_on(&mut session, &all), expected);
    let mut fork = session.fork().expect("a fork");
    prefixes.clear();
    fork.truncate(100);
    assert_eq!(goes_on(&mut fork, &all[100..]), expected);
    session.truncate(0);
    assert_eq!(goes_on(&mut session, &all), expected);
    assert_eq!(session.stats().cached_tokens, 0, "it was cleared");
}

#[test]
fn other_models_and_other_kinds_of_keys_and_values() {
    let (model, twin) = (model("mimo"), model("mimo"));
    let all = tokens(&model, 0, 100);
    let prefixes = cache(&model, KvType::F16, &[&all]);
    let mut other = session(&twin, KvType::F16, None);
    match other.set_prefixes(&prefixes) {
        Err(RuntimeError::InvalidOption { option: "prefixes", .. }) => {}
        found => panic!("{found:?}"),
    }
    let expected = goes_on(&mut session(&model, KvType::F32, None), &all);
    let mut session = session(&model, KvType::F32, Some(&prefixes));
    assert_eq!((goes_on(&mut session, &all), session.stats().cached_tokens), (expected, 0));
}

#[test]
fn a_cancelled_push_changes_nothing() {
    let model = model("mimo");
    let all = tokens(&model, 0, 150);
    let prefixes = cache(&model, KvType::F16, &[&all[..100]]);
    let expected = goes_on(&mut session(&model, KvType::F16, None), &all);
    let mut session = session(&model, KvType::F16, Some(&prefixes));
    session.cancel_token().cancel();
    assert!(matches!(session.push_tokens(&all), Err(RuntimeError::Cancelled)));
    assert_eq!((session.tokens().len(), session.kv_bytes(), session.stats().cached_tokens), (0, 0, 0));
    session.cancel_token().reset();
    assert_eq!((goes_on(&mut session, &all), session.stats().cached_tokens), (expected, 100));
}

/// Whatever is shared counts once, and as long as anybody has it.
#[test]
fn shared_pages_count_once() {
    let budget = Budget::new(usize::MAX, BudgetMode::Enforce);
    let mut options = LoadOptions::default();
    (options.threads, options.budget) = (Some(1), budget.clone());
    let model = Model::from_gguf(&Golden::named("mimo").gguf, None, &options).expect("a valid model");
    let all = tokens(&model, 0, 150);
    let prefixes = cache(&model, KvType::F16, &[&all[..140]]);
    let page = prefixes.bytes() / 140_usize.div_ceil(KV_PAGE);
    let mut session = session(&model, KvType::F16, Some(&prefixes));
    let before = budget.used();
    session.push_tokens(&all).expect("it fits");
    assert_eq!(budget.used(), before + page, "a copy of the last page");
    prefixes.clear();
    assert_eq!(budget.used(), before, "which goes; the session has the others");
    session.truncate(0);
    assert_eq!(budget.used(), before - 3 * page);
}

/// Which entries count is decided anew when other rotation factors are.
#[test]
fn factors_of_long_sequences() {
    let model = model("phi4-mini");
    let original = model.config().original_context;
    let all = tokens(&model, 0, CONTEXT);
    let (short, long) = (&all[..original - 6], &all[..original + 20]);
    let prefixes = cache(&model, KvType::F16, &[short, long]);
    let factors: Vec<FactorSet> = prefixes.entries().expect("memory").iter().map(|entry| entry.factors).collect();
    assert_eq!(factors, [FactorSet::Short, FactorSet::Long]);
    let mut found = session(&model, KvType::F16, Some(&prefixes));
    let (send, events) = std::sync::mpsc::channel();
    found.on_event(move |event| send.send(event.clone()).expect("it is read"));
    found.push_tokens(&all[..original - 2]).expect("it fits");
    assert_eq!(found.stats().cached_tokens, original - 6);
    found.push_tokens(&all[original - 2..original + 30]).expect("it fits");
    assert_eq!(found.stats().cached_tokens, original - 6 + 22, "and what is run again is known, too");
    let rerun = |event: Event| matches!(event, Event::Rerun { factors: FactorSet::Long, .. });
    assert_eq!(events.try_iter().filter(|event| rerun(event.clone())).count(), 1);
    let mut fresh = session(&model, KvType::F16, None);
    fresh.push_tokens(&all[..original + 30]).expect("it fits");
    assert_eq!(bits(found.logits().expect("logits")), bits(fresh.logits().expect("logits")));
    found.truncate(original - 3);
    fresh.truncate(0);
    fresh.push_tokens(&all[..original - 3]).expect("it fits");
    assert_eq!(bits(found.logits().expect("logits")), bits(fresh.logits().expect("logits")));
}
