//! Generations that have no end of their own: contexts that slide, and readers and callbacks that do not keep up.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use halfbyte::{
    Event, Finish, KvType, Model, Overflow, Request, RuntimeError, Sampling, Scheduler, SchedulerOptions, Update,
};
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

/// A context that nobody has asked for is never too small for what is to be kept, if the model has as much.
#[test]
fn a_context_by_default_has_room_for_what_is_kept() {
    let model = model();
    let scheduler = scheduler(&model);
    let most = model.config().context;
    for (keep, max) in [(1, Some(1)), (40, Some(30)), (most - 2, Some(3)), (usize::MAX, Some(1)), (most - 1, None)] {
        let mut request = endless(64, keep);
        (request.context, request.stop.max_tokens) = (None, max);
        let submitted = scheduler.submit(request);
        if keep > most - 2 {
            let refused = submitted.expect_err("the model has no such context");
            assert!(matches!(refused, RuntimeError::InvalidOption { option: "overflow: keep", .. }), "{refused}");
        } else {
            assert_eq!(read(&mut submitted.expect("room")).0.len(), max.expect("all that are let in have one"));
        }
    }
}

/// Waits until `done` says so.
#[track_caller]
fn wait(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What was not read takes no more memory than a context has tokens; others go on, and nothing is lost.
#[test]
fn who_does_not_read_is_waited_for() {
    const CONTEXT: usize = 64;
    let model = model();
    let scheduler = scheduler(&model);
    let mut stalled = scheduler.submit(endless(CONTEXT, 3)).expect("a place");
    wait("it stops", || {
        let before = scheduler.stats().tokens;
        thread::sleep(Duration::from_millis(200));
        let after = scheduler.stats().tokens;
        assert!(after <= 2 * CONTEXT as u64, "{after} tokens that nobody reads");
        after > 0 && after == before
    });
    // Others have the passes for themselves.
    let mut short = endless(CONTEXT, 3);
    short.stop.max_tokens = Some(100);
    assert_eq!(read(&mut scheduler.submit(short.clone()).expect("a place")), alone(&model, KvType::F16, &short));
    // It goes on where it was, from stall to stall.
    short.stop.max_tokens = Some(10 * CONTEXT);
    let expected = alone(&model, KvType::F16, &short).0;
    let found: Vec<u32> = stalled.by_ref().filter_map(|piece| piece.expect("no error").token).take(640).collect();
    assert_eq!(found, expected);
    // While it stands still it can be cancelled, dropped and closed.
    let handle = stalled.handle();
    thread::sleep(Duration::from_millis(100));
    handle.cancel();
    wait("it is over", || scheduler.stats().active == 0);
    assert!(matches!(stalled.next(), Some(Err(RuntimeError::Cancelled))));
    let dropped = scheduler.submit(endless(CONTEXT, 3)).expect("a place");
    thread::sleep(Duration::from_millis(100));
    drop(dropped);
    wait("it is over", || scheduler.stats().active == 0);
    let closed = scheduler.submit(endless(CONTEXT, 3)).expect("a place");
    thread::sleep(Duration::from_millis(100));
    drop(scheduler);
    assert!(matches!(closed.last(), Some(Err(RuntimeError::SchedulerClosed))));
}

/// A generation that has an end comes to it, whether it is read or not.
#[test]
fn who_reads_only_afterwards_finds_everything() {
    let model = model();
    let scheduler = scheduler(&model);
    let mut request = endless(64, 0);
    request.overflow = Overflow::Stop;
    let mut generation = scheduler.submit(request).expect("a place");
    wait("it is over", || scheduler.stats().finished == 1);
    assert_eq!(read(&mut generation).0.len(), 63);
}

#[test]
fn a_callback_that_panics_in_an_event_is_not_served_any_more() {
    let model = model();
    let scheduler = scheduler(&model);
    let (told, calls) = mpsc::channel();
    let each = move |update: Update| {
        let is_event = matches!(update, Update::Event(Event::Slid { .. }));
        told.send(is_event).expect("a reader");
        assert!(!is_event, "a bug of the application's");
    };
    scheduler.submit_with(endless(16, 3), each).expect("room");
    wait("it is over", || scheduler.stats().active == 0 && scheduler.stats().cancelled == 1);
    let calls: Vec<bool> = calls.iter().collect();
    assert!(calls.iter().position(|is_event| *is_event) == Some(calls.len() - 1), "that was the last call");
}

/// A scheduler that is closed between two looks at who runs tells all of them the same.
#[test]
fn who_runs_while_it_closes_is_told_that() {
    let model = model();
    let open = Arc::new(Mutex::new(Some(scheduler(&model))));
    let (done, ended) = mpsc::channel();
    let submit = |request, each: Box<dyn FnMut(Update) + Send>| {
        let open = open.lock().expect("no panic");
        open.as_ref().expect("still there").submit_with(request, each).expect("room")
    };
    let told = done.clone();
    let (start, runs) = mpsc::channel();
    submit(
        endless(256, 3),
        Box::new(move |update| match update {
            Update::Done(result) => told.send(result).expect("a reader"),
            _ => drop(start.send(())),
        }),
    );
    runs.recv().expect("it runs");
    // The one that came last is looked at first.
    let last = Arc::clone(&open);
    submit(
        endless(16, 3),
        Box::new(move |update| match update {
            Update::Done(result) => done.send(result).expect("a reader"),
            Update::Event(_) => drop(last.lock().expect("no panic").take()),
            _ => {}
        }),
    );
    for _ in 0..2 {
        let result = ended.recv_timeout(Duration::from_secs(20)).expect("it is told");
        assert!(matches!(result, Err(RuntimeError::SchedulerClosed)), "{result:?}");
    }
}
