//! Generations that have no end of their own: contexts that slide.

use std::time::Duration;

use halfbyte::{Finish, KvType, Model, Overflow, Request, RuntimeError, Sampling, Scheduler, SchedulerOptions};
use halfbyte_tests::{Golden, alone, model_on, read, session_on};

fn model() -> Model {
    model_on(&Golden::named("mimo").gguf, 1, None).expect("a valid model")
}

fn scheduler(model: &Model) -> Scheduler {
    let mut options = SchedulerOptions::default();
    (options.max_concurrent, options.chunk, options.refill) = (2, 16, Duration::ZERO);
    options.timeout = Duration::from_secs(600);
    Scheduler::new(model, &options).expect("a scheduler")
}

/// A request that goes on for ever, in a context of so many tokens.
fn endless(context: usize, keep: usize) -> Request {
    let mut request = Request::new(vec![1]);
    (request.context, request.overflow, request.sampling) =
        (Some(context), Overflow::Slide { keep }, Sampling::greedy());
    request.stop.end_of_text = false;
    request
}

/// A slide has to leave a token to run: the last logits are those of one that it may have dropped.
#[test]
fn what_is_kept_leaves_room_for_two_tokens() {
    let model = model();
    let scheduler = scheduler(&model);
    for (context, keep) in [(1, 0), (8, 7), (8, 8), (8, usize::MAX)] {
        let mut session = session_on(&model, KvType::F16, 16, context).expect("a session");
        let refused = session.set_overflow(Overflow::Slide { keep }).expect_err("too many");
        assert!(matches!(refused, RuntimeError::InvalidOption { option: "overflow: keep", .. }), "{refused}");
        // At once, not when it has a turn.
        let refused = scheduler.submit(endless(context, keep)).expect_err("too many");
        assert!(matches!(refused, RuntimeError::InvalidOption { option: "overflow: keep", .. }), "{refused}");
    }
    for (context, keep) in [(2, 0), (8, 6)] {
        let mut request = endless(context, keep);
        request.stop.max_tokens = Some(30);
        let found = read(&mut scheduler.submit(request.clone()).expect("a place"));
        assert_eq!((found.0.len(), found.2), (30, Some(Finish::MaxTokens)));
        assert_eq!(found, alone(&model, KvType::F16, &request));
        // Each token is what a session of the tokens that are left would choose.
        let mut held = request.tokens.clone();
        for token in found.0 {
            if held.len() == context {
                held.drain(keep..=keep);
            }
            let mut session = session_on(&model, KvType::F16, 16, context).expect("a session");
            session.set_sampling(Sampling::greedy()).expect("valid");
            session.push_tokens(&held).expect("it fits");
            assert_eq!(session.next_token().expect("finite logits"), Some(token));
            held.push(token);
        }
    }
}
