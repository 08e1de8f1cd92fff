//! What an application can do wrong with a session, and that nothing it did wrong shows later.
//!
//! After every refused or cancelled call the session goes on exactly as one that never made the call: bit for bit.

use std::time::Duration;

use halfbyte::{Finish, Isa, KvType, LoadOptions, Model, RuntimeError, Sampling, Session, SessionOptions, StopRules};
use halfbyte_tests::{Golden, bits, logits_of, model_on, session_on};

const CONTEXT: usize = 96;
const GENERATED: usize = 12;

fn model() -> (Golden, Model) {
    let golden = Golden::named("mimo");
    let model = model_on(&golden.gguf, 2, None).expect("a valid model");
    (golden, model)
}

fn session(model: &Model) -> Session {
    session_on(model, KvType::F16, 8, CONTEXT).expect("a session")
}

/// The logits after `prompt`, and what a seeded generation does from there.
fn go_on(session: &mut Session, prompt: &[u32]) -> (Vec<u32>, Vec<u32>) {
    session.set_sampling(Sampling::default()).expect("valid");
    session.push_tokens(prompt).expect("it fits");
    let logits = bits(session.logits().expect("logits"));
    let tokens = (0..GENERATED).map(|_| session.next_token().expect("finite logits").expect("room")).collect();
    (logits, tokens)
}

#[track_caller]
fn invalid_option<T>(result: Result<T, RuntimeError>, name: &str) {
    match result.err().expect("the value was accepted") {
        RuntimeError::InvalidOption { option, .. } => assert_eq!(option, name),
        other => panic!("{other:?}"),
    }
}

// Options.

#[test]
fn context_zero() {
    invalid_option(session_on(&model().1, KvType::F16, 8, 0), "context");
}

#[test]
fn context_beyond_the_model() {
    invalid_option(session_on(&model().1, KvType::F16, 8, 4097), "context");
}

#[test]
fn context_huge() {
    invalid_option(session_on(&model().1, KvType::F16, 8, usize::MAX), "context");
}

#[test]
fn context_is_the_models_by_default() {
    assert_eq!(model().1.session(&SessionOptions::default()).expect("a session").context(), 4096);
}

#[test]
fn batch_zero() {
    invalid_option(session_on(&model().1, KvType::F16, 0, 8), "batch");
}

#[test]
fn batch_huge() {
    invalid_option(session_on(&model().1, KvType::F16, usize::MAX, 8), "batch");
}

#[test]
fn threads_zero() {
    invalid_option(model_on(&Golden::named("tied").gguf, 0, None), "threads");
}

#[test]
fn threads_a_million() {
    invalid_option(model_on(&Golden::named("tied").gguf, 1_000_000, None), "threads");
}

#[test]
fn a_model_file_that_is_not_there() {
    let error = Model::open("no such file.gguf").expect_err("not there");
    assert!(matches!(error, RuntimeError::Format(_)), "{error:?}");
}

#[test]
fn a_sidecar_file_that_is_not_there() {
    let mut options = LoadOptions::default();
    options.mtp = Some("no such file.gguf".into());
    let error = Model::open_with("neither this.gguf", &options).expect_err("not there");
    assert!(matches!(error, RuntimeError::Format(_)), "{error:?}");
}

#[test]
fn every_available_isa_can_be_forced() {
    for isa in Isa::available() {
        assert_eq!(model_on(&Golden::named("tied").gguf, 1, Some(isa)).expect("available").isa(), isa);
    }
}

#[test]
fn sampling_with_nonsense() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let expected = go_on(&mut session(&model), prompt);
    let nan = f32::NAN;
    let mut session = session(&model);
    for (option, values) in [
        ("temperature", [nan, -0.5, f32::INFINITY, f32::NEG_INFINITY, 1e30]),
        ("top_p", [nan, 0.0, -1.0, 1.5, f32::INFINITY]),
        ("min_p", [nan, -0.1, 1.5, f32::INFINITY, f32::NEG_INFINITY]),
        ("repeat_penalty", [nan, 0.0, -1.0, f32::INFINITY, 1e30]),
    ] {
        for value in values {
            let mut sampling = Sampling::default();
            let field = match option {
                "temperature" => &mut sampling.temperature,
                "top_p" => &mut sampling.top_p,
                "min_p" => &mut sampling.min_p,
                _ => &mut sampling.repeat_penalty,
            };
            *field = value;
            invalid_option(session.set_sampling(sampling), option);
        }
    }
    assert_eq!(go_on(&mut session, prompt), expected);
}

#[test]
fn sampling_with_extremes_that_are_fine() {
    let (golden, model) = model();
    let mut session = session(&model);
    session.push_tokens(&golden.case(64).tokens[..20]).expect("it fits");
    let extremes: [fn(&mut Sampling); 7] = [
        |s| s.top_k = usize::MAX,
        |s| s.top_k = 1,
        |s| s.top_p = f32::MIN_POSITIVE,
        |s| s.min_p = 1.0,
        |s| s.temperature = f32::MIN_POSITIVE,
        |s| s.temperature = 100.0,
        |s| {
            s.repeat_last = usize::MAX;
            s.repeat_penalty = f32::MIN_POSITIVE;
        },
    ];
    for set in extremes {
        let mut sampling = Sampling::default();
        set(&mut sampling);
        session.set_sampling(sampling.clone()).expect("valid");
        let token = session.next_token().expect("finite logits").expect("room");
        assert!((token as usize) < golden.vocab, "{sampling:?}");
    }
}

#[test]
fn stop_strings_empty_or_too_many() {
    let mut session = session(&model().1);
    for strings in [vec![String::new()], vec!["x".to_owned(); 100_000], vec!["x".repeat(1 << 20)]] {
        let mut rules = StopRules::default();
        rules.strings = strings;
        invalid_option(session.set_stop(rules), "stop strings");
    }
}

#[test]
fn no_tokens_are_generated_if_none_are_wanted() {
    let mut session = session(&model().1);
    let mut rules = StopRules::default();
    rules.max_tokens = Some(0);
    session.set_stop(rules).expect("valid");
    session.push_tokens(&[1]).expect("it fits");
    assert_eq!(session.next_token().expect("nothing to do"), None);
    assert_eq!(session.finish(), Some(Finish::MaxTokens));
    assert_eq!(session.tokens(), [1]);
}

#[test]
fn as_many_tokens_are_generated_as_are_wanted() {
    let mut session = session(&model().1);
    let mut rules = StopRules::default();
    rules.max_tokens = Some(3);
    session.set_stop(rules).expect("valid");
    for round in 1..=2 {
        session.push_tokens(&[1]).expect("it fits");
        let generated = std::iter::from_fn(|| session.next_token().expect("finite logits")).count();
        assert_eq!((generated, session.finish()), (3, Some(Finish::MaxTokens)));
        assert_eq!(session.tokens().len(), 4 * round);
    }
}

// Tokens.

#[test]
fn token_out_of_range() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let expected = go_on(&mut session(&model), prompt);
    for bad in [128, 129, u32::MAX] {
        let mut session = session(&model);
        let error = session.push_tokens(&[1, 2, bad, 3]).expect_err("not in the vocabulary");
        assert!(matches!(error, RuntimeError::TokenOutOfRange { id, vocab: 128 } if id == bad), "{error:?}");
        let error = session.mtp_logits(&[1, bad], |_, _| panic!("called")).expect_err("not in the vocabulary");
        assert!(matches!(error, RuntimeError::TokenOutOfRange { .. }), "{error:?}");
        assert!(session.tokens().is_empty());
        assert_eq!(go_on(&mut session, prompt), expected);
    }
}

#[test]
fn a_prompt_as_long_as_the_context_fits_and_leaves_no_room() {
    let (golden, model) = model();
    let tokens = &golden.case(600).tokens[..CONTEXT];
    let mut session = session(&model);
    session.push_tokens(tokens).expect("it fits");
    let rows = logits_of(&model, KvType::F16, 8, tokens).expect("finite logits");
    assert_eq!(bits(session.logits().expect("logits")), bits(&rows[(CONTEXT - 1) * golden.vocab..]));
    assert_eq!(session.next_token().expect("nothing to do"), None);
    assert_eq!(session.finish(), Some(Finish::ContextFull));
    let error = session.push_tokens(&[1]).expect_err("full");
    assert!(matches!(error, RuntimeError::ContextFull { need: 1, context: CONTEXT, used: CONTEXT }), "{error:?}");
}

#[test]
fn a_prompt_longer_than_the_context() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let expected = go_on(&mut session(&model), prompt);
    let mut session = session(&model);
    let tokens = &golden.case(600).tokens;
    for need in [CONTEXT + 1, 600] {
        let error = session.push_tokens(&tokens[..need]).expect_err("too long");
        assert!(matches!(error, RuntimeError::ContextFull { context: CONTEXT, used: 0, .. }), "{error:?}");
        let error = session.mtp_logits(&tokens[..need], |_, _| panic!("called")).expect_err("too long");
        assert!(matches!(error, RuntimeError::ContextFull { .. }), "{error:?}");
    }
    assert_eq!(go_on(&mut session, prompt), expected);
}

#[test]
fn a_generation_that_fills_the_context() {
    let (golden, model) = model();
    let mut session = session(&model);
    session.push_tokens(&golden.case(64).tokens).expect("it fits");
    let generated = std::iter::from_fn(|| session.next_token().expect("finite logits")).count();
    assert_eq!(generated, CONTEXT - 64);
    assert_eq!((session.finish(), session.tokens().len()), (Some(Finish::ContextFull), CONTEXT));
    // The last token was never run; its logits can be had all the same.
    let rows = logits_of(&model, KvType::F16, 8, session.tokens()).expect("finite logits");
    assert_eq!(bits(session.logits().expect("logits")), bits(&rows[(CONTEXT - 1) * golden.vocab..]));
}

#[test]
fn a_context_of_one() {
    let (_, model) = model();
    let mut session = session_on(&model, KvType::F16, 8, 1).expect("a session");
    session.push_tokens(&[7]).expect("it fits");
    assert_eq!(session.logits().expect("logits").len(), 128);
    assert_eq!(session.next_token().expect("nothing to do"), None);
    assert_eq!(session.finish(), Some(Finish::ContextFull));
}

#[test]
fn an_empty_prompt_does_nothing() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let expected = go_on(&mut session(&model), prompt);
    let mut session = session(&model);
    session.push_tokens(&[]).expect("nothing to do");
    session.push_tokens_with(&[], |_, _| panic!("called")).expect("nothing to do");
    assert!(matches!(session.next_token(), Err(RuntimeError::EmptySession)));
    assert!(matches!(session.logits(), Err(RuntimeError::EmptySession)));
    assert_eq!(go_on(&mut session, prompt), expected);
}

#[test]
fn text_without_a_vocabulary() {
    let mut session = session(&model().1);
    assert!(matches!(session.push_text("hello"), Err(RuntimeError::NoVocabulary)));
    assert!(matches!(session.push_markup("<|im_start|>"), Err(RuntimeError::NoVocabulary)));
    assert!(session.tokens().is_empty());
}

#[test]
fn mtp_logits_of_a_session_in_use() {
    let mut session = session(&model().1);
    session.push_tokens(&[1, 2]).expect("it fits");
    invalid_option(session.mtp_logits(&[3, 4], |_, _| panic!("called")), "session");
    assert_eq!(session.tokens(), [1, 2]);
}

#[test]
fn mtp_logits_leave_the_session_empty() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let expected = go_on(&mut session(&model), prompt);
    let mut session = session(&model);
    for len in [0, 1, 2, 33] {
        let mut rows = 0;
        session.mtp_logits(&golden.case(64).tokens[..len], |_, _| rows += 1).expect("an MTP layer");
        assert_eq!(rows, len.saturating_sub(1));
        assert!(session.tokens().is_empty());
    }
    assert_eq!(go_on(&mut session, prompt), expected);
}

// Going back.

#[test]
fn a_truncated_session_is_a_shorter_one() {
    let (golden, model) = model();
    let tokens = &golden.case(64).tokens;
    for (keep, more) in [(0, 20), (1, 5), (15, 1), (16, 17), (20, 0)] {
        let (before, after) = (&tokens[..keep], &tokens[32..32 + more]);
        let mut fresh = session(&model);
        fresh.push_tokens(before).expect("it fits");
        let mut used = session(&model);
        used.push_tokens(before).expect("it fits");
        used.push_tokens(&tokens[40..60]).expect("it fits");
        for _ in 0..5 {
            used.next_token().expect("finite logits").expect("room");
        }
        used.truncate(keep);
        assert_eq!(used.tokens(), before);
        assert_eq!(used.finish(), None);
        if keep + more > 0 {
            assert_eq!(go_on(&mut used, after), go_on(&mut fresh, after), "keep {keep}, then {more}");
        }
    }
}

#[test]
fn truncating_to_more_than_there_is_changes_nothing() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let mut session = session(&model);
    session.push_tokens(prompt).expect("it fits");
    let before = bits(session.logits().expect("logits"));
    for len in [20, 21, usize::MAX] {
        session.truncate(len);
        assert_eq!(session.tokens(), prompt);
        assert_eq!(bits(session.logits().expect("logits")), before);
    }
}

#[test]
fn a_refused_push_in_the_middle_of_a_generation_changes_nothing() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let (_, expected) = go_on(&mut session(&model), prompt);
    let mut session = session(&model);
    session.set_sampling(Sampling::default()).expect("valid");
    session.push_tokens(prompt).expect("it fits");
    let mut found = Vec::new();
    for _ in 0..GENERATED {
        assert!(session.push_tokens(&[u32::MAX]).is_err());
        assert!(session.push_tokens(&[1; CONTEXT]).is_err());
        assert!(session.push_tokens_with(&[u32::MAX], |_, _| panic!("called")).is_err());
        assert!(session.mtp_logits(&[1], |_, _| panic!("called")).is_err());
        found.push(session.next_token().expect("finite logits").expect("room"));
    }
    assert_eq!(found, expected);
}

#[test]
fn a_callback_that_panics_in_mtp_logits_leaves_nothing_behind() {
    let golden = Golden::named("mimo");
    let model = model_on(&golden.gguf, 1, None).expect("a valid model");
    let (prompt, other) = golden.case(64).tokens.split_at(20);
    let mut fresh = session(&model);
    fresh.push_tokens(prompt).expect("it fits");
    let rows = |session: &mut Session| {
        let mut rows = Vec::new();
        session.mtp_logits(prompt, |_, row| rows.extend(bits(row))).expect("an MTP layer");
        rows
    };
    let expected = rows(&mut session_on(&model, KvType::F16, 4, CONTEXT).expect("a session"));
    for again in [true, false] {
        let mut used = session_on(&model, KvType::F16, 4, CONTEXT).expect("a session");
        // Batches of 4: the panic comes when the first of them has been committed.
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            used.mtp_logits(&other[..12], |index, _| assert!(index < 9, "on purpose"))
        }));
        assert!(panicked.is_err());
        if again {
            assert_eq!(rows(&mut used), expected);
        }
        used.push_tokens(prompt).expect("it fits");
        assert_eq!(bits(used.logits().expect("logits")), bits(fresh.logits().expect("logits")));
    }
}

// Progress and statistics.

#[test]
fn a_prompt_in_parts_is_one_prompt() {
    let (golden, model) = model();
    let tokens = &golden.case(64).tokens;
    let mut session = session(&model);
    for part in [&tokens[..5], &tokens[5..6], &[], &tokens[6..20]] {
        session.push_tokens(part).expect("it fits");
    }
    let stats = session.stats();
    assert_eq!((stats.prompt_tokens, stats.tokens, stats.first_token), (20, 0, None));
    for count in 1..=3 {
        session.next_token().expect("finite logits").expect("room");
        assert_eq!((session.stats().prompt_tokens, session.stats().tokens), (20, count));
    }
    let stats = session.stats();
    assert!(stats.first_token.is_some_and(|first| first >= stats.prompt) && !stats.decode.is_zero());
    assert!(session.push_tokens(&[u32::MAX]).is_err());
    assert_eq!(session.stats(), stats, "a refused push changes nothing");
    session.push_tokens(&tokens[20..23]).expect("it fits");
    assert_eq!((session.stats().prompt_tokens, session.stats().tokens), (3, 0));
    session.truncate(4);
    assert_eq!((session.stats().prompt_tokens, session.stats().load), (0, model.load_time()));
}

#[test]
fn progress_is_told_after_each_batch_of_a_long_prompt() {
    let (golden, model) = model();
    let mut session = session(&model);
    let (tell, told) = std::sync::mpsc::channel();
    session.on_progress(move |done, total| tell.send((done, total)).expect("somebody listens"));
    let tokens = &golden.case(64).tokens;
    session.push_tokens(&tokens[..8]).expect("it fits");
    session.next_token().expect("finite logits").expect("room");
    session.next_token().expect("finite logits").expect("room");
    assert!(told.try_iter().next().is_none(), "nothing takes long");
    session.truncate(8);
    session.logits().expect("logits");
    session.push_tokens(&tokens[8..28]).expect("it fits");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [(8, 20), (16, 20), (20, 20)]);
}

#[test]
fn the_logits_of_every_row_leave_those_of_the_last_one() {
    let (golden, model) = model();
    let tokens = &golden.case(64).tokens;
    // Batches and groups of rows that end anywhere.
    for (batch, count) in [(1, 3), (5, 5), (8, 17), (20, 19), (64, 33), (64, 64)] {
        let mut session = session_on(&model, KvType::F16, batch, CONTEXT).expect("a session");
        let mut last = Vec::new();
        session.push_tokens_with(&tokens[..count], |_, row| last = bits(row)).expect("it fits");
        assert_eq!(bits(session.logits().expect("logits")), last, "{count} tokens in batches of {batch}");
    }
}

// Cancelling.

#[test]
fn cancelled_before_anything_is_called() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let expected = go_on(&mut session(&model), prompt);
    let mut session = session(&model);
    let cancel = session.cancel_token();
    cancel.cancel();
    cancel.cancel();
    for _ in 0..2 {
        assert!(matches!(session.push_tokens(prompt), Err(RuntimeError::Cancelled)));
        assert!(matches!(session.push_tokens_with(prompt, |_, _| ()), Err(RuntimeError::Cancelled)));
        assert!(matches!(session.mtp_logits(prompt, |_, _| ()), Err(RuntimeError::Cancelled)));
    }
    assert!(session.tokens().is_empty());
    cancel.reset();
    assert_eq!(go_on(&mut session, prompt), expected);
}

#[test]
fn cancelled_between_tokens() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let (_, expected) = go_on(&mut session(&model), prompt);
    let mut session = session(&model);
    session.set_sampling(Sampling::default()).expect("valid");
    session.push_tokens(prompt).expect("it fits");
    let cancel = session.cancel_token();
    let mut found = Vec::new();
    for _ in 0..GENERATED {
        cancel.cancel();
        assert!(matches!(session.next_token(), Err(RuntimeError::Cancelled)));
        assert!(matches!(session.push_tokens(&[1, 2]), Err(RuntimeError::Cancelled)));
        assert!(matches!(session.push_tokens_with(&[1, 2], |_, _| ()), Err(RuntimeError::Cancelled)));
        cancel.reset();
        found.push(session.next_token().expect("finite logits").expect("room"));
    }
    assert_eq!(found, expected);
}

#[test]
fn cancelled_within_a_prompt() {
    let (golden, model) = model();
    let tokens = &golden.case(600).tokens;
    let prompt = &tokens[..20];
    for keep in [0, 20] {
        let mut fresh = session(&model);
        fresh.push_tokens(&tokens[..keep]).expect("it fits");
        let expected = go_on(&mut fresh, prompt);
        // The callback runs after each batch of 8 tokens, so the cancellation falls between two batches.
        for cancelled_at in [0, 7, 8, 30] {
            let mut session = session(&model);
            session.push_tokens(&tokens[..keep]).expect("it fits");
            let cancel = session.cancel_token();
            let stopped = session.push_tokens_with(&tokens[100..160], |index, _| {
                if index == cancelled_at {
                    cancel.cancel();
                }
            });
            assert!(matches!(stopped, Err(RuntimeError::Cancelled)));
            assert_eq!(session.tokens(), &tokens[..keep]);
            cancel.reset();
            assert_eq!(go_on(&mut session, prompt), expected, "{keep} tokens kept, cancelled at {cancelled_at}");
        }
    }
}

#[test]
fn cancelled_from_another_thread_at_any_moment() {
    let (golden, model) = model();
    let (long, prompt) = (&golden.case(600).tokens[..512], &golden.case(64).tokens[..20]);
    let mut session = session_on(&model, KvType::F16, 8, 1024).expect("a session");
    let expected = go_on(&mut session, prompt);
    let cancel = session.cancel_token();
    let mut cancelled = 0;
    for round in 0..40_u64 {
        session.truncate(0);
        cancel.reset();
        let pushed = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(37 * round));
                cancel.cancel();
            });
            session.push_tokens(long)
        });
        cancel.reset();
        match pushed {
            Ok(()) => session.truncate(0),
            Err(RuntimeError::Cancelled) => cancelled += 1,
            Err(other) => panic!("{other:?}"),
        }
        assert!(session.tokens().is_empty());
        assert_eq!(go_on(&mut session, prompt), expected, "round {round}");
    }
    assert!(cancelled > 0, "every push was faster than its cancellation");
}

#[test]
fn cancelled_after_the_end() {
    let (golden, model) = model();
    let prompt = &golden.case(64).tokens[..20];
    let mut session = session(&model);
    let first = go_on(&mut session, prompt);
    session.cancel_token().cancel();
    assert_eq!(session.tokens().len(), 20 + GENERATED);
    session.cancel_token().reset();
    session.truncate(0);
    assert_eq!(go_on(&mut session, prompt), first);
}

// Sharing.

#[test]
fn sessions_do_not_see_each_other() {
    let (golden, model) = model();
    let tokens = &golden.case(600).tokens;
    let alone: Vec<_> = (0..6).map(|n| go_on(&mut session(&model), &tokens[50 * n..50 * n + 30])).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|n| {
                let model = &model;
                scope.spawn(move || {
                    let mut session = session(model);
                    go_on(&mut session, &tokens[50 * n..50 * n + 30])
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(alone == together);
}

#[test]
fn a_session_outlives_its_model_and_moves_between_threads() {
    let (golden, model) = model();
    let prompt = golden.case(64).tokens[..20].to_vec();
    let expected = go_on(&mut session(&model), &prompt);
    let mut session = session(&model);
    drop((model, golden));
    let found = std::thread::spawn(move || go_on(&mut session, &prompt)).join().expect("no panic");
    assert_eq!(found, expected);
}
