//! A budget that is too small, by a byte or by far: always a typed error, never a trace of it, and all memory comes
//! back.

use std::{
    env, fs,
    path::PathBuf,
    process,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use halfbyte::{
    Budget, BudgetMode, ContextPolicy, Event, Finish, Load, LoadOptions, Model, Overflow, Pressure, Request,
    RuntimeError, Sampling, Scheduler, SchedulerOptions, SessionOptions, StopRules, Update,
};
use halfbyte_tests::{Golden, Parts, bundled};

fn path() -> PathBuf {
    bundled("tiny-mimo")
}

fn model(budget: &Budget, load: Load) -> Result<Model, RuntimeError> {
    let mut options = LoadOptions::default();
    (options.threads, options.budget, options.load) = (Some(1), budget.clone(), load);
    Model::open_with(path(), &options)
}

/// Runs `scenario` with a budget of nothing, then with as much more each time as the request that failed was short of:
/// so every request for memory fails once. How many there were.
fn fail_each(scenario: impl Fn(&Budget) -> Result<(), RuntimeError>) -> usize {
    let (mut limit, mut failures) = (0, 0);
    loop {
        let budget = Budget::new(limit, BudgetMode::Enforce);
        let result = scenario(&budget);
        assert_eq!(budget.used(), 0, "all came back, with a limit of {limit}");
        assert!(budget.peak() <= limit);
        match result {
            Ok(()) => {
                assert_eq!(budget.peak(), limit, "not a byte too many");
                return failures;
            }
            Err(RuntimeError::BudgetExceeded { need, have }) => {
                assert!(need > have);
                limit += need - have;
            }
            Err(error) => panic!("{error}"),
        }
        failures += 1;
    }
}

fn prompt() -> Vec<u32> {
    (0..150).map(|n| n % 200).collect()
}

/// The tokens that a session generates after the prompt.
fn generate(model: &Model) -> Result<Vec<u32>, RuntimeError> {
    let mut options = SessionOptions::default();
    (options.context, options.batch) = (Some(300), 64);
    let mut session = model.session(&options)?;
    session.set_sampling(Sampling::greedy())?;
    session.push_tokens(&prompt())?;
    let mut rules = StopRules::default();
    rules.end_of_text = false;
    session.set_stop(rules)?;
    let mut tokens = Vec::new();
    for _ in 0..50 {
        tokens.extend(session.next_token()?);
    }
    // A page more than the session has, for what they do not share.
    let mut fork = session.fork()?;
    for _ in 0..20 {
        fork.next_token()?;
        tokens.extend(session.next_token()?);
    }
    Ok(tokens)
}

#[test]
fn every_request_for_memory_fails_once() {
    let expected = generate(&model(&Budget::default(), Load::Map).expect("a model")).expect("no limit");
    assert_eq!(expected.len(), 70);
    let failures = fail_each(|budget| {
        let model = model(budget, Load::Copy)?;
        assert_eq!(generate(&model)?, expected);
        Ok(())
    });
    // The file, a buffer for each activation of a session and of its fork, and their pages.
    assert!(failures > 30, "{failures}");
}

#[test]
fn a_session_that_was_refused_goes_on_once_there_is_memory() {
    let free = model(&Budget::default(), Load::Map).expect("a model");
    let mut options = SessionOptions::default();
    (options.context, options.batch) = (Some(300), 64);
    let mut other = free.session(&options).expect("a session");
    let empty = free.budget().used();
    other.push_tokens(&prompt()[..128]).expect("it fits");
    let pages = free.budget().used() - empty;

    // Room for two sessions and the pages of one.
    let budget = Budget::new(2 * empty + pages, BudgetMode::Enforce);
    let model = model(&budget, Load::Map).expect("a model");
    let (mut first, mut second) =
        (model.session(&options).expect("a session"), model.session(&options).expect("a session"));
    first.push_tokens(&prompt()[..128]).expect("it fits");
    let refused = second.push_tokens(&prompt()[..100]).expect_err("no page left");
    assert!(matches!(refused, RuntimeError::BudgetExceeded { .. }), "{refused}");
    assert!(second.tokens().is_empty());
    let refused = first.push_tokens(&[1]).expect_err("no page left");
    assert!(matches!(refused, RuntimeError::BudgetExceeded { .. }), "{refused}");
    assert_eq!(first.tokens().len(), 128);
    first.truncate(64);
    second.push_tokens(&prompt()[..64]).expect("a page came back");
    drop(first);
    second.push_tokens(&prompt()[64..128]).expect("another");
    let logits: Vec<u32> = second.logits().expect("logits").iter().map(|logit| logit.to_bits()).collect();
    let expected: Vec<u32> = other.logits().expect("logits").iter().map(|logit| logit.to_bits()).collect();
    assert_eq!(logits, expected);
}

fn options(max_concurrent: usize) -> SchedulerOptions {
    let mut options = SchedulerOptions::default();
    (options.max_concurrent, options.refill, options.chunk) = (max_concurrent, Duration::ZERO, 64);
    options.timeout = Duration::from_secs(600);
    options
}

fn request(context: usize) -> Request {
    let mut request = Request::new(prompt());
    (request.sampling, request.context) = (Sampling::greedy(), Some(context));
    (request.stop.max_tokens, request.stop.end_of_text) = (Some(70), false);
    request
}

/// The tokens that a scheduler generates.
fn schedule(scheduler: &Scheduler, request: Request) -> Result<Vec<u32>, RuntimeError> {
    let mut tokens = Vec::new();
    for piece in scheduler.submit(request)? {
        tokens.extend(piece?.token);
    }
    Ok(tokens)
}

#[test]
fn a_scheduler_refuses_and_never_fails_later() {
    let expected = {
        let model = model(&Budget::default(), Load::Map).expect("a model");
        schedule(&Scheduler::new(&model, &options(2)).expect("a scheduler"), request(300)).expect("no limit")
    };
    assert_eq!(expected.len(), 70);
    let failures = fail_each(|budget| {
        let model = model(budget, Load::Map)?;
        let scheduler = Scheduler::new(&model, &options(2))?;
        match schedule(&scheduler, request(300)) {
            Ok(tokens) => assert_eq!(tokens, expected),
            Err(error) => {
                // Before the first token, and as counted; the scheduler goes on.
                let stats = scheduler.stats();
                assert_eq!((stats.refused_budget, stats.failed, stats.tokens, stats.active), (1, 0, 0, 0));
                return Err(error);
            }
        }
        Ok(())
    });
    assert!(failures > 15, "{failures}");
}

/// Bytes that a scheduler takes by itself, and with a request of this context.
fn sizes(context: usize) -> (usize, usize) {
    let model = model(&Budget::default(), Load::Map).expect("a model");
    let scheduler = Scheduler::new(&model, &options(2)).expect("a scheduler");
    let alone = model.budget().used();
    let mut generation = scheduler.submit(request(context)).expect("room");
    assert!(generation.next().expect("a token").is_ok());
    let with = model.budget().peak();
    (alone, with - alone)
}

/// Two that fit one at a time only: the second waits, and is not refused.
#[test]
fn who_does_not_fit_beside_others_waits() {
    let (alone, share) = sizes(300);
    let budget = Budget::new(alone + share + share / 2, BudgetMode::Enforce);
    let model = model(&budget, Load::Map).expect("a model");
    let scheduler = Scheduler::new(&model, &options(2)).expect("a scheduler");
    let generations: Vec<_> = (0..4).map(|_| scheduler.submit(request(300)).expect("room")).collect();
    let mut found = generations.into_iter().map(|g| g.map(|piece| piece.expect("no error").token).collect::<Vec<_>>());
    let first = found.next().expect("four");
    assert_eq!(first.len(), 70);
    assert!(found.all(|tokens| tokens == first));
    assert!(budget.peak() <= budget.limit());
}

/// Who waits needs less once its prompt is known: it starts then, and not when who made that known is over.
#[test]
fn who_waits_is_served_when_its_prompt_is_known() {
    let (alone, share) = sizes(1000);
    let budget = Budget::new(alone + share + share * 3 / 4, BudgetMode::Enforce);
    let model = model(&budget, Load::Map).expect("a model");
    let scheduler = Scheduler::new(&model, &options(2)).expect("a scheduler");
    // One that holds the passes up, until both are in the queue.
    let (queued, both) = mpsc::channel::<()>();
    let mut small = request(151);
    small.tokens[0] = 7;
    scheduler
        .submit_with(small, move |_| {
            let _ = both.recv();
        })
        .expect("room");
    let (told, over) = mpsc::channel();
    for max in [100, 1] {
        let mut long = request(1000);
        (long.tokens, long.stop.max_tokens) = ((0..640).map(|n| n % 200).collect(), Some(max));
        let told = told.clone();
        let each = move |update| {
            if let Update::Done(result) = update {
                told.send((max, result)).expect("a reader");
            }
        };
        scheduler.submit_with(long, each).expect("room");
    }
    drop(queued);
    let order: Vec<_> = over.iter().take(2).map(|(max, result)| (max, result.expect("no error"))).collect();
    assert!(budget.refused() > 0, "there was too little memory for both");
    assert_eq!(order, [(1, Finish::MaxTokens), (100, Finish::MaxTokens)]);
}

/// Prefixes that nobody uses go before anybody is refused.
#[test]
fn prefixes_go_first() {
    let (alone, share) = sizes(300);
    let budget = Budget::new(alone + share + share / 4, BudgetMode::Enforce);
    let model = model(&budget, Load::Map).expect("a model");
    let scheduler = Scheduler::new(&model, &options(1)).expect("a scheduler");
    for n in 0..6 {
        let mut request = request(300);
        request.tokens[0] = n;
        assert_eq!(schedule(&scheduler, request).expect("what is kept goes").len(), 70);
        assert!(scheduler.prefixes().bytes() > 0, "and not more than has to");
    }
    let stats = scheduler.stats();
    assert!(stats.evicted > 0 && stats.refused_budget == 0);
    assert!(stats.memory_peak <= budget.limit());
}

/// What a request takes over does not stand in its way where there is memory for it alone: neither the pages of one
/// that has all of its context set aside, nor a last one that it would go on in otherwise.
#[test]
fn who_comes_again_is_not_refused() {
    let (alone, share) = sizes(1000);
    let mut slides = request(1000);
    (slides.overflow, slides.stop.max_tokens) = (Overflow::Slide { keep: 0 }, None);
    for (request, known) in [(slides, 0), (request(1000), 128)] {
        let budget = Budget::new(alone + share, BudgetMode::Enforce);
        let model = model(&budget, Load::Map).expect("a model");
        let scheduler = Scheduler::new(&model, &options(2)).expect("a scheduler");
        let run = || -> Vec<Option<u32>> {
            let generation = scheduler.submit(request.clone()).expect("room");
            generation.take(70).map(|piece| piece.expect("it is not refused").token).collect()
        };
        let first = run();
        // It is over, by itself or because it was dropped.
        while scheduler.stats().active > 0 {
            thread::yield_now();
        }
        assert!(scheduler.prefixes().bytes() > 0);
        assert_eq!(run(), first);
        assert_eq!((scheduler.stats().refused_budget, scheduler.stats().cached_tokens), (0, known));
    }
}

/// Gives so many tokens.
#[derive(Debug)]
struct Give(usize);

impl ContextPolicy for Give {
    fn context(&self, asked: usize, least: usize, pressure: Pressure) -> Option<usize> {
        assert!((asked, least) == (1000, 151) && pressure.used <= pressure.limit && pressure.page > 0);
        Some(self.0)
    }
}

#[test]
fn a_shorter_context_is_given_where_that_is_wanted_and_told() {
    let (alone, share) = sizes(300);
    let budget = Budget::new(alone + share, BudgetMode::Enforce);
    let model = model(&budget, Load::Map).expect("a model");
    let long = || {
        let mut long = request(1000);
        long.stop.max_tokens = None;
        long
    };
    {
        let scheduler = Scheduler::new(&model, &options(1)).expect("a scheduler");
        let refused = schedule(&scheduler, long()).expect_err("too much");
        assert!(matches!(refused, RuntimeError::BudgetExceeded { .. }), "{refused}");
        assert_eq!(scheduler.stats().refused_budget, 1);
    }
    // What is given is at least the prompt and a token, and it has to fit as well.
    for (give, given) in [(200, Some(200)), (0, Some(151)), (usize::MAX, None), (900, None)] {
        let mut options = options(1);
        options.policy = Some(Arc::new(Give(give)));
        let scheduler = Scheduler::new(&model, &options).expect("a scheduler");
        let mut generation = scheduler.submit(long()).expect("room");
        let pieces: Vec<_> = generation.by_ref().collect();
        let Some(given) = given else {
            assert!(matches!(pieces[..], [Err(RuntimeError::BudgetExceeded { .. })]), "{give}: {pieces:?}");
            continue;
        };
        assert_eq!(pieces.len(), given - 150, "the context that was given is filled, and not more");
        let events: Vec<Event> = generation.events().collect();
        assert!(
            matches!(events[..], [Event::ContextShortened { asked: 1000, given: g, .. }] if g == given),
            "{events:?}"
        );
        assert_eq!(scheduler.stats().shortened, 1);
    }
}

/// What is kept for later only is not in anybody's way: it does not count as in use.
#[test]
fn who_decides_about_contexts_sees_what_could_go_as_free() {
    #[derive(Debug, Default)]
    struct Fit(Mutex<Vec<usize>>);
    impl ContextPolicy for Fit {
        fn context(&self, _: usize, _: usize, pressure: Pressure) -> Option<usize> {
            self.0.lock().expect("no panic").push(pressure.used);
            Some(151)
        }
    }
    let (alone, share) = sizes(300);
    let budget = Budget::new(alone + share, BudgetMode::Enforce);
    let model = model(&budget, Load::Map).expect("a model");
    let (mut options, fit) = (options(1), Arc::new(Fit::default()));
    options.policy = Some(fit.clone());
    let scheduler = Scheduler::new(&model, &options).expect("a scheduler");
    let idle = budget.used();
    for first in [0, 1, 0] {
        let mut long = request(1000);
        (long.tokens[0], long.stop.max_tokens) = (first, None);
        assert_eq!(schedule(&scheduler, long).expect("it fits").len(), 1);
        assert!(scheduler.prefixes().bytes() > 0);
    }
    assert_eq!(*fit.0.lock().expect("no panic"), [idle; 3]);
}

/// Counting only, and warning, grant everything.
#[test]
fn modes_that_grant() {
    for mode in [BudgetMode::Warn, BudgetMode::Off] {
        let budget = Budget::new(1000, mode);
        let model = model(&budget, Load::Map).expect("a model");
        let scheduler = Scheduler::new(&model, &options(1)).expect("a scheduler");
        assert_eq!(schedule(&scheduler, request(300)).expect("granted").len(), 70);
        assert!(budget.peak() > budget.limit() && budget.refused() > 0);
        drop(scheduler);
        assert_eq!(budget.used(), 0);
    }
    let machine = Budget::of_machine(BudgetMode::Enforce);
    assert!(machine.limit() > 1 << 20);
    let model = model(&machine, Load::Map).expect("a model");
    generate(&model).expect("a machine that runs this test has as much");
}

/// What is kept at the head of a context that slides is part of the least that makes sense.
#[test]
fn a_shorter_context_still_slides() {
    #[derive(Debug)]
    struct Least;
    impl ContextPolicy for Least {
        fn context(&self, _: usize, least: usize, _: Pressure) -> Option<usize> {
            assert_eq!(least, 202);
            Some(0)
        }
    }
    let (alone, share) = sizes(300);
    let model = model(&Budget::new(alone + share, BudgetMode::Enforce), Load::Map).expect("a model");
    let mut options = options(1);
    options.policy = Some(Arc::new(Least));
    let scheduler = Scheduler::new(&model, &options).expect("a scheduler");
    let mut request = request(1000);
    request.overflow = Overflow::Slide { keep: 200 };
    assert_eq!(schedule(&scheduler, request).expect("it fits").len(), 70);
}

/// Runs `request` twice at a time with memory for so many halves of its share, which is more than it takes if prompts
/// are shared, and compares with what it gets with no limit.
fn two_that_begin_alike(load: impl Fn(&Budget) -> Model, request: &Request, halves: usize) {
    let run = |budget: &Budget| {
        let model = load(budget);
        let scheduler = Scheduler::new(&model, &options(2)).expect("a scheduler");
        let alone = budget.used();
        let mut first = scheduler.submit(request.clone()).expect("room");
        let mut tokens = vec![Vec::new(), Vec::new()];
        // The prompt of the first is known now.
        tokens[0].extend(first.next().expect("a token").expect("no error").token);
        let share = budget.peak() - alone;
        let second = scheduler.submit(request.clone()).expect("room");
        for (tokens, generation) in tokens.iter_mut().zip([first, second]) {
            tokens.extend(generation.filter_map(|piece| piece.expect("it is not refused later").token));
        }
        let stats = scheduler.stats();
        assert_eq!((stats.finished, stats.failed, stats.refused_budget), (2, 0, 0));
        (alone, share, tokens)
    };
    let (alone, share, expected) = run(&Budget::default());
    assert!(expected.iter().all(|tokens| Some(tokens.len()) == request.stop.max_tokens));
    let budget = Budget::new(alone + share * halves / 2, BudgetMode::Enforce);
    assert_eq!(run(&budget).2, expected);
    assert!(budget.peak() <= budget.limit());
}

/// Pages that were taken over, or given to others, do not come back when a sequence drops them.
#[test]
fn who_slides_is_not_refused_later() {
    let mut request = request(1024);
    request.tokens = (0..640).map(|n| n % 200).collect();
    (request.overflow, request.stop.max_tokens) = (Overflow::Slide { keep: 0 }, Some(400));
    for halves in [3, 4] {
        two_that_begin_alike(|budget| model(budget, Load::Map).expect("a model"), &request, halves);
    }
}

/// Neither do they when rotations change.
#[test]
fn who_crosses_the_original_context_is_not_refused_later() {
    let golden = Golden::named("phi4-mini");
    let load = |budget: &Budget| {
        let mut options = LoadOptions::default();
        (options.threads, options.budget) = (Some(1), budget.clone());
        Model::from_gguf(&golden.gguf, None, &options).expect("a valid model")
    };
    let mut request = request(300);
    request.tokens = golden.case(600).tokens[..230].to_vec();
    for halves in [3, 4] {
        two_that_begin_alike(load, &request, halves);
    }
}

/// Who waits for memory that a session has, and not a request.
#[test]
fn who_waits_is_served_when_a_session_goes() {
    let (alone, share) = sizes(1000);
    let (_, small) = sizes(200);
    let budget = Budget::new(usize::MAX, BudgetMode::Enforce);
    let free = model(&budget, Load::Map).expect("a model");
    let mut session = free.session(&SessionOptions::default()).expect("a session");
    session.push_tokens(&prompt()).expect("it fits");
    let held = budget.used();
    drop((session, free));
    let budget = Budget::new(alone + small + held + share / 2, BudgetMode::Enforce);
    let model = model(&budget, Load::Map).expect("a model");
    let mut session = model.session(&SessionOptions::default()).expect("a session");
    session.push_tokens(&prompt()).expect("it fits");
    let scheduler = Scheduler::new(&model, &options(2)).expect("a scheduler");
    // One that goes on for ever, of which nobody reads more than a token.
    let mut endless = request(200);
    (endless.overflow, endless.stop.max_tokens) = (Overflow::Slide { keep: 3 }, None);
    let mut first = scheduler.submit(endless).expect("room");
    assert!(first.next().expect("a token").is_ok());
    let mut other = request(1000);
    other.cached = false;
    let second = scheduler.submit(other).expect("room");
    // It stands still: there is no pass after which somebody would look.
    loop {
        let before = scheduler.stats().tokens;
        thread::sleep(Duration::from_millis(200));
        // Twice its context, of which a token was read and some are events.
        if scheduler.stats().tokens == before && before > 300 {
            break;
        }
    }
    assert_eq!(scheduler.stats().queued, 1);
    drop(session);
    assert_eq!(second.filter(Result::is_ok).count(), 70);
}

/// Who has to wait for others anyway takes nothing from what is kept, and asks again only if something came back.
#[test]
fn who_waits_leaves_prefixes_alone() {
    let (alone, share) = sizes(1000);
    let budget = Budget::new(alone + share + share / 2, BudgetMode::Enforce);
    let model = model(&budget, Load::Map).expect("a model");
    let scheduler = Scheduler::new(&model, &options(2)).expect("a scheduler");
    let mut kept = request(300);
    (kept.tokens[0], kept.stop.max_tokens) = (7, Some(1));
    schedule(&scheduler, kept.clone()).expect("it fits");
    let bytes = scheduler.prefixes().bytes();
    assert!(bytes > 0 && bytes < share / 2);
    let mut long = request(1000);
    long.cached = false;
    let mut endless = long.clone();
    (endless.overflow, endless.stop.max_tokens) = (Overflow::Slide { keep: 3 }, None);
    let mut first = scheduler.submit(endless).expect("room");
    assert!(first.next().expect("a token").is_ok());
    let second = scheduler.submit(long).expect("room");
    let mut read_until = |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(first.next().expect("it has no end").is_ok());
        }
    };
    read_until(&|| budget.refused() > 0);
    let tokens = scheduler.stats().tokens + 150;
    read_until(&|| scheduler.stats().tokens >= tokens);
    assert_eq!((scheduler.stats().queued, scheduler.stats().evicted), (1, 0));
    assert_eq!((scheduler.prefixes().bytes(), budget.refused()), (bytes, 1));
    // Nor is it forgotten.
    drop(first);
    assert_eq!(second.filter(Result::is_ok).count(), 70);
    let cached = scheduler.stats().cached_tokens;
    schedule(&scheduler, kept).expect("it fits");
    assert!(scheduler.stats().cached_tokens > cached);
}

/// A model in two files, which are copied: both count.
#[test]
fn all_files_of_a_copy_are_asked_for() {
    let folder = env::temp_dir().join(format!("halfbyte-split-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let whole = Parts::of(&Golden::named("mimo").gguf);
    let count = whole.tensors.len();
    let mut bytes = 0;
    let paths = [0, 1].map(|no: usize| {
        let mut shard = whole.clone();
        let middle = count / 2;
        shard.tensors = if no == 0 { whole.tensors[..middle].to_vec() } else { whole.tensors[middle..].to_vec() };
        if no > 0 {
            shard.entries.clear();
        }
        shard.put("split.no", no as u16).put("split.count", 2_u16).put("split.tensors.count", count as i32);
        let path = folder.join(format!("model-0000{}-of-00002.gguf", no + 1));
        let file = shard.bytes();
        bytes += file.len();
        fs::write(&path, file).expect("a file");
        path
    });
    for path in &paths {
        let open = |limit| {
            let budget = Budget::new(limit, BudgetMode::Enforce);
            let mut options = LoadOptions::default();
            (options.threads, options.budget, options.load) = (Some(1), budget.clone(), Load::Copy);
            (Model::open_with(path, &options), budget)
        };
        let (model, budget) = open(bytes);
        assert!(model.is_ok() && budget.used() == bytes, "{} of {bytes}", budget.used());
        let (refused, budget) = open(bytes - 1);
        let refused = refused.expect_err("too little");
        assert!(matches!(refused, RuntimeError::BudgetExceeded { need, .. } if need == bytes), "{refused}");
        assert_eq!(budget.used(), 0);
        let mut options = LoadOptions::default();
        (options.threads, options.load) = (Some(1), Load::Copy);
        let estimate = Model::estimate(path, &options, &SessionOptions::default()).expect("a valid model");
        assert_eq!(estimate.copied, bytes);
    }
    let _ = fs::remove_dir_all(&folder);
}
