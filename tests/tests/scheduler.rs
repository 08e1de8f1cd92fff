//! Requests that run together get what each would get alone: bit for bit, whoever else is there, comes or goes.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use halfbyte::{
    Event, Finish, KvType, Model, Overflow, Priority, Request, RuntimeError, Sampling, Scheduler, SchedulerOptions,
    Update,
};
use halfbyte_tests::{Golden, Parts, Random, alone, model_on, random_request as request, read, rounds, tiny_mimo};

fn golden(name: &str, threads: usize) -> Model {
    model_on(&Golden::named(name).gguf, threads, None).expect("a valid model")
}

/// Options under which nobody waits for anything but a place.
fn options(max_concurrent: usize) -> SchedulerOptions {
    let mut options = SchedulerOptions::default();
    options.max_concurrent = max_concurrent;
    options.refill = Duration::ZERO;
    options.timeout = Duration::from_secs(600);
    options.chunk = 48;
    options
}

/// Runs all requests at once and compares each with what it gets alone.
fn compare(model: &Model, options: &SchedulerOptions, requests: &[Request]) -> halfbyte::SchedulerStats {
    let scheduler = Scheduler::new(model, options).expect("a scheduler");
    let generations: Vec<_> =
        requests.iter().map(|request| scheduler.submit(request.clone()).expect("a place in the queue")).collect();
    for (n, (mut generation, request)) in generations.into_iter().zip(requests).enumerate() {
        assert_eq!(read(&mut generation), alone(model, options.kv, request), "request {n}: {request:?}");
    }
    scheduler.stats()
}

#[test]
fn thirty_two_at_once_get_what_each_gets_alone() {
    for (threads, places, batching) in [(2, 8, true), (1, 2, true), (2, 32, true), (1, 3, false)] {
        let model = tiny_mimo(threads);
        let mut random = Random(places as u64);
        let mut requests: Vec<Request> = (0..32).map(|_| request(&model, &mut random, 120)).collect();
        // Some begin alike.
        for n in 0..8 {
            let (from, to) = (random.below(32), random.below(32));
            let shared = requests[from].tokens.clone();
            requests[to].tokens = [&shared[..], &[n]].concat();
        }
        let mut options = options(places);
        options.batching = batching;
        let stats = compare(&model, &options, &requests);
        assert_eq!((stats.finished, stats.cancelled, stats.failed, stats.active), (32, 0, 0, 0));
        let generated: usize = requests.iter().filter_map(|request| request.stop.max_tokens).sum();
        assert_eq!(stats.tokens, generated as u64);
        assert_eq!(stats.classes.map(|class| class.first_token.count).iter().sum::<u64>(), 32);
    }
}

#[test]
fn every_family_and_type_of_keys_and_values() {
    for name in ["mimo", "phi3-window", "phimoe", "phi4-mini"] {
        let model = golden(name, 2);
        for kv in [KvType::F16, KvType::F32, KvType::Int8] {
            let mut options = options(4);
            options.kv = kv;
            if matches!(Scheduler::new(&model, &options), Err(RuntimeError::InvalidOption { option: "kv", .. })) {
                continue;
            }
            let mut random = Random(3);
            let requests: Vec<Request> = (0..8).map(|_| request(&model, &mut random, 90)).collect();
            compare(&model, &options, &requests);
        }
    }
}

/// Sequences that cross LongRoPE's boundary beside others that do not.
#[test]
fn rotations_change_in_the_middle() {
    let model = golden("phi4-mini", 2);
    let mut random = Random(5);
    let requests: Vec<Request> = [250, 20, 255, 260, 1]
        .iter()
        .map(|&len| {
            let mut request = request(&model, &mut random, 2);
            request.tokens = (0..len).map(|_| u32::try_from(random.below(model.vocab())).expect("an id")).collect();
            request.stop.max_tokens = Some(12);
            request
        })
        .collect();
    compare(&model, &options(5), &requests);
    let scheduler = Scheduler::new(&model, &options(1)).expect("a scheduler");
    let mut generation = scheduler.submit(requests[0].clone()).expect("a place");
    read(&mut generation);
    let events: Vec<Event> = generation.events().collect();
    assert!(matches!(events[..], [Event::Rerun { tokens: 256, .. }]), "{events:?}");
}

#[test]
fn a_cached_prefix_leaves_no_trace() {
    let model = tiny_mimo(2);
    let options = options(2);
    let scheduler = Scheduler::new(&model, &options).expect("a scheduler");
    let mut random = Random(11);
    let mut known: Vec<Vec<u32>> = Vec::new();
    for n in 0..60 {
        let mut request = request(&model, &mut random, 150);
        // Begins like an earlier one, for any number of tokens.
        if n > 3 {
            let earlier = &known[random.below(known.len())];
            let len = 1 + random.below(earlier.len());
            request.tokens.splice(0..0, earlier[..len].iter().copied());
        }
        let found = read(&mut scheduler.submit(request.clone()).expect("a place"));
        assert_eq!(found, alone(&model, options.kv, &request), "request {n}");
        known.push([request.tokens, found.0].concat());
    }
    let stats = scheduler.stats();
    assert!(stats.cached_tokens > 1000, "{stats:?}");
    assert!(scheduler.prefixes().bytes() > 0 && stats.evicted == 0);
    // Without the cache nothing is kept, and the answer is the same.
    let before = scheduler.prefixes().bytes();
    let mut request = Request::new(known[0].clone());
    request.stop.max_tokens = Some(5);
    request.cached = false;
    let hits = scheduler.stats().cached_tokens;
    assert_eq!(read(&mut scheduler.submit(request.clone()).expect("a place")), alone(&model, options.kv, &request));
    assert_eq!((scheduler.stats().cached_tokens, scheduler.prefixes().bytes()), (hits, before));
}

#[test]
fn a_full_context_stops_fails_or_slides() {
    let model = golden("mimo", 1);
    let mut random = Random(2);
    let mut full = request(&model, &mut random, 1);
    full.tokens = (0..50).collect();
    (full.context, full.stop.max_tokens, full.sampling) = (Some(70), Some(100), Sampling::greedy());
    let scheduler = Scheduler::new(&model, &options(2)).expect("a scheduler");

    let mut stopping = scheduler.submit(full.clone()).expect("a place");
    let (tokens, ..) = read(&mut stopping);
    assert_eq!((tokens.len(), stopping.finish()), (20, Some(Finish::ContextFull)));

    full.overflow = Overflow::Error;
    let failing: Vec<_> = scheduler.submit(full.clone()).expect("a place").collect();
    assert_eq!(failing.len(), 21);
    assert!(matches!(failing[20], Err(RuntimeError::ContextFull { need: 1, context: 70, used: 70 })));

    full.overflow = Overflow::Slide { keep: 10 };
    let mut sliding = scheduler.submit(full.clone()).expect("a place");
    let found = read(&mut sliding);
    assert_eq!((found.0.len(), found.2), (100, Some(Finish::MaxTokens)));
    let dropped: Vec<_> = sliding.events().filter(|event| matches!(event, Event::Slid { dropped: 30, .. })).collect();
    assert_eq!(dropped.len(), 3);
    assert_eq!(found, alone(&model, KvType::F16, &full));
    // What is left after a slide is a prompt like any other.
    let mut session = halfbyte_tests::session_on(&model, KvType::F16, 64, 70).expect("a session");
    session.set_sampling(full.sampling.clone()).expect("valid");
    let kept: Vec<u32> = full.tokens[..10].iter().chain(&full.tokens[40..]).chain(&found.0[..20]).copied().collect();
    session.push_tokens(&kept).expect("it fits");
    assert_eq!(session.next_token().expect("finite logits"), Some(found.0[20]));

    full.overflow = Overflow::Slide { keep: 70 };
    let refused = scheduler.submit(full).expect_err("refused at once");
    assert!(matches!(refused, RuntimeError::InvalidOption { .. }), "{refused:?}");
}

/// Requests that are refused at once.
#[test]
fn requests_that_make_no_sense() {
    let model = golden("mimo", 1);
    let scheduler = Scheduler::new(&model, &options(1)).expect("a scheduler");
    let refused = |change: &dyn Fn(&mut Request)| {
        let mut request = Request::new(vec![1, 2, 3]);
        change(&mut request);
        scheduler.submit(request).expect_err("refused")
    };
    let vocab = u32::try_from(model.vocab()).expect("an id");
    assert!(matches!(refused(&|r| r.tokens.clear()), RuntimeError::EmptySession));
    assert!(matches!(refused(&|r| r.tokens.push(vocab)), RuntimeError::TokenOutOfRange { .. }));
    assert!(matches!(refused(&|r| r.context = Some(2)), RuntimeError::ContextFull { need: 3, context: 2, used: 0 }));
    assert!(matches!(refused(&|r| r.context = Some(0)), RuntimeError::InvalidOption { .. }));
    assert!(matches!(refused(&|r| r.context = Some(usize::MAX)), RuntimeError::InvalidOption { .. }));
    assert!(matches!(refused(&|r| r.sampling.temperature = f32::NAN), RuntimeError::InvalidOption { .. }));
    assert!(matches!(refused(&|r| r.stop.strings.push(String::new())), RuntimeError::InvalidOption { .. }));
    for change in [
        |o: &mut SchedulerOptions| o.max_concurrent = 0,
        |o: &mut SchedulerOptions| o.max_concurrent = 33,
        |o: &mut SchedulerOptions| o.chunk = 0,
        |o: &mut SchedulerOptions| o.chunk = 1025,
    ] {
        let mut options = options(1);
        change(&mut options);
        let refused = Scheduler::new(&model, &options).expect_err("refused");
        assert!(matches!(refused, RuntimeError::InvalidOption { .. }));
    }
    // Nothing to generate is no error.
    let mut request = Request::new(vec![1]);
    request.stop.max_tokens = Some(0);
    assert_eq!(
        read(&mut scheduler.submit(request).expect("a place")),
        (vec![], String::new(), Some(Finish::MaxTokens))
    );
}

/// A request that runs for a long time, and holds its place.
fn long(model: &Model) -> Request {
    let mut request = Request::new(vec![1, 2, 3]);
    request.stop.end_of_text = false;
    request.context = Some(model.config().context.min(4000));
    request.sampling = Sampling::greedy();
    request.overflow = Overflow::Slide { keep: 3 };
    request
}

#[test]
fn the_queue_has_an_end_and_a_timeout() {
    let model = tiny_mimo(1);
    let mut options = options(1);
    (options.queue, options.timeout) = (3, Duration::from_millis(300));
    let scheduler = Scheduler::new(&model, &options).expect("a scheduler");
    let mut holder = scheduler.submit(long(&model)).expect("a place");
    assert!(holder.next().expect("a token").is_ok());
    let start = Instant::now();
    let waiting: Vec<_> = (0..3).map(|_| scheduler.submit(long(&model)).expect("room")).collect();
    let full = scheduler.submit(long(&model)).expect_err("no room");
    assert!(matches!(full, RuntimeError::QueueFull { limit: 3 }));
    for mut waiting in waiting {
        match waiting.next() {
            Some(Err(RuntimeError::QueueTimeout { waited, limit })) => {
                assert!(waited >= limit && limit == options.timeout);
                assert!(start.elapsed() >= options.timeout);
            }
            other => panic!("{other:?}"),
        }
        assert!(waiting.next().is_none());
    }
    let stats = scheduler.stats();
    assert_eq!((stats.timed_out, stats.refused_queue, stats.active, stats.queued), (3, 1, 1, 0));
    assert!(holder.next().expect("it goes on").is_ok());
}

/// The rate limit: as many starts as the bucket has tokens, then one at a time.
#[test]
fn starts_keep_to_the_rate() {
    let model = golden("mimo", 1);
    let mut options = options(2);
    options.refill = Duration::from_millis(100);
    let scheduler = Scheduler::new(&model, &options).expect("a scheduler");
    let start = Instant::now();
    let mut short = Request::new(vec![1, 2]);
    short.stop.max_tokens = Some(1);
    let generations: Vec<_> = (0..8).map(|_| scheduler.submit(short.clone()).expect("room")).collect();
    generations.into_iter().for_each(|mut generation| {
        read(&mut generation);
    });
    // Four at once, four more after 100 ms each.
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    assert_eq!(scheduler.stats().bucket_capacity, 4);
}

#[test]
fn the_urgent_come_first() {
    let model = golden("mimo", 1);
    let mut options = options(1);
    options.ageing = Duration::from_secs(60);
    let scheduler = Scheduler::new(&model, &options).expect("a scheduler");
    let mut holder = scheduler.submit(long(&model)).expect("a place");
    assert!(holder.next().expect("a token").is_ok());
    let (order, ended) = mpsc::channel();
    for priority in [Priority::Batch, Priority::Normal, Priority::Realtime, Priority::Normal] {
        let mut short = Request::new(vec![1, 2]);
        (short.priority, short.stop.max_tokens) = (priority, Some(1));
        let order = order.clone();
        let each = move |update| {
            if let Update::Done(result) = update {
                result.expect("no error");
                order.send(priority).expect("a reader");
            }
        };
        scheduler.submit_with(short, each).expect("room");
    }
    drop((holder, order));
    let ended: Vec<Priority> = ended.iter().collect();
    assert_eq!(ended, [Priority::Realtime, Priority::Normal, Priority::Normal, Priority::Batch]);
}

#[test]
fn cancelled_and_dropped_requests_leave_nothing() {
    let model = tiny_mimo(2);
    let scheduler = Scheduler::new(&model, &options(3)).expect("a scheduler");
    let mut random = Random(77);
    let mut expected = Vec::new();
    for round in 0..150 {
        let request = request(&model, &mut random, 200);
        match random.below(4) {
            // Of whoever stays everything arrives.
            0 => expected.push((scheduler.submit(request.clone()).expect("room"), request)),
            1 => drop(scheduler.submit(request).expect("room")),
            2 => {
                let mut generation = scheduler.submit(request).expect("room");
                generation.by_ref().take(random.below(5)).for_each(|piece| assert!(piece.is_ok()));
                generation.cancel();
                let left: Vec<_> = generation.collect();
                assert!(matches!(left[..], [] | [Err(RuntimeError::Cancelled)]), "{left:?}");
            }
            _ => {
                let (done, ended) = mpsc::channel();
                let each = move |update| {
                    if let Update::Done(result) = update {
                        done.send(result).expect("a reader");
                    }
                };
                let handle = scheduler.submit_with(request, each).expect("room");
                if random.below(2) == 0 {
                    std::thread::sleep(Duration::from_micros(random.below(20_000) as u64));
                }
                handle.cancel();
                let result = ended.recv().expect("it is told");
                assert!(matches!(result, Ok(_) | Err(RuntimeError::Cancelled)), "{round}: {result:?}");
                assert!(ended.recv().is_err(), "told once");
            }
        }
    }
    for (mut generation, request) in expected {
        assert_eq!(read(&mut generation), alone(&model, KvType::F16, &request));
    }
    let start = Instant::now();
    while scheduler.stats().active > 0 && start.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
    let stats = scheduler.stats();
    assert_eq!((stats.active, stats.queued, stats.failed), (0, 0, 0));
    assert_eq!(stats.finished + stats.cancelled, 150);
    // All memory came back but for what is kept on purpose, and then that too.
    let kept = scheduler.prefixes().bytes();
    scheduler.prefixes().clear();
    assert_eq!(model.budget().used(), stats.memory_used - kept);
    drop(scheduler);
    assert_eq!(model.budget().used(), 0);
}

/// Whoever holds a generation of a scheduler that is gone is told so, and nobody hangs.
#[test]
fn a_scheduler_that_is_dropped_tells_everybody() {
    let model = tiny_mimo(2);
    let scheduler = Scheduler::new(&model, &options(2)).expect("a scheduler");
    let generations: Vec<_> = (0..5).map(|_| scheduler.submit(long(&model)).expect("room")).collect();
    let reader = std::thread::spawn(move || {
        generations.into_iter().map(|generation| generation.last().expect("an item")).collect::<Vec<_>>()
    });
    std::thread::sleep(Duration::from_millis(100));
    drop(scheduler);
    for last in reader.join().expect("no panic") {
        assert!(matches!(last, Err(RuntimeError::SchedulerClosed)), "{last:?}");
    }
}

#[test]
fn a_callback_that_panics_hurts_nobody_else() {
    let model = golden("mimo", 2);
    let scheduler = Scheduler::new(&model, &options(4)).expect("a scheduler");
    let mut other = request(&model, &mut Random(1), 60);
    other.stop.max_tokens = Some(20);
    let mut generation = scheduler.submit(other.clone()).expect("room");
    scheduler.submit_with(long(&model), |_| panic!("a bug of the application's")).expect("room");
    assert_eq!(read(&mut generation), alone(&model, KvType::F16, &other));
    assert_eq!(read(&mut scheduler.submit(other.clone()).expect("room")), alone(&model, KvType::F16, &other));
    assert_eq!(scheduler.stats().cancelled, 1);
}

/// Threads of an application submit, read and cancel as they like.
#[test]
fn from_any_thread() {
    let model = tiny_mimo(2);
    let scheduler = Scheduler::new(&model, &options(4)).expect("a scheduler");
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (model, scheduler) = (&model, &scheduler);
            scope.spawn(move || {
                let mut random = Random(1000 + thread);
                for _ in 0..6 {
                    let request = request(model, &mut random, 70);
                    let found = read(&mut scheduler.submit(request.clone()).expect("room"));
                    assert_eq!(found, alone(model, KvType::F16, &request));
                }
            });
        }
    });
    assert_eq!(scheduler.stats().finished, 36);
}

/// Every session is told a secret of its own, and prompts differ in the secret only: outputs are those of sessions
/// alone, and none has the secret of another. `HALFBYTE_TEST_ROUNDS=1000` is the full size.
#[test]
fn sixty_four_secrets_stay_where_they_are() {
    const SESSIONS: usize = 64;
    let model = tiny_mimo(2);
    let scheduler = Scheduler::new(&model, &options(16)).expect("a scheduler");
    let secret = |n: usize| format!("{:08x}", n.wrapping_mul(0x9e37_79b9) as u32);
    let prompt = |n: usize| {
        let text = format!("The password of user number {n} is {}. The password is", secret(n));
        let mut request = Request::text(&model, &text).expect("a vocabulary");
        request.sampling = Sampling::greedy();
        request.stop.max_tokens = Some(12);
        request
    };
    let expected: Vec<_> = (0..SESSIONS).map(|n| alone(&model, KvType::F16, &prompt(n))).collect();
    let mut random = Random(8);
    let rounds = rounds(12);
    for round in 0..rounds {
        let submit = |n| {
            let mut request = prompt(n);
            request.priority = Priority::ALL[random.below(3)];
            request.cached = random.below(3) > 0;
            (n, scheduler.submit(request).expect("room"))
        };
        let mut generations: Vec<_> = (0..SESSIONS).map(submit).collect();
        while !generations.is_empty() {
            let (n, mut generation) = generations.swap_remove(random.below(generations.len()));
            let found = read(&mut generation);
            assert_eq!(found, expected[n], "round {round}, session {n}");
            let leaked = (0..SESSIONS).find(|&other| other != n && found.1.contains(&secret(other)));
            assert_eq!(leaked, None, "round {round}, session {n}");
        }
    }
    println!("{rounds} rounds of {SESSIONS} sessions");
}

/// A loop is told of once: here that of a model whose head says the same whatever it sees.
#[test]
fn loops_are_noticed() {
    let mut parts = Parts::of(&Golden::named("phimoe").gguf);
    let bias = parts.tensors.iter_mut().find(|tensor| tensor.name == "output.bias").expect("phimoe has one");
    bias.data[4 * 7..][..4].copy_from_slice(&1e6_f32.to_le_bytes());
    let model = model_on(&parts.gguf(), 1, None).expect("a valid model");
    let scheduler = Scheduler::new(&model, &options(1)).expect("a scheduler");
    let mut request = Request::new(vec![1, 2, 3]);
    request.sampling = Sampling::greedy();
    (request.stop.max_tokens, request.stop.end_of_text) = (Some(150), false);
    let mut generation = scheduler.submit(request).expect("room");
    let (tokens, ..) = read(&mut generation);
    assert_eq!(tokens, [7; 150]);
    let told: Vec<Event> = generation.events().collect();
    assert!(matches!(told[..], [Event::Loop { period: 1, tokens: 96, .. }]), "{told:?}");
    assert_eq!(scheduler.stats().loops, 1);
}
