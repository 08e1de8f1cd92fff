//! Requests that are cancelled at any moment leave nothing: no memory, and no trace in what others get.
//!
//! One test alone in this binary, because the memory is the whole process's.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use halfbyte::{KvType, Model, RuntimeError, Scheduler, SchedulerOptions, SchedulerStats, Update};
use halfbyte_tests::{Random, alone, memory, random_request, read, rounds, tiny_mimo};

/// How much more the process may hold, between two requests, in the second half of them than in the first.
const GROWTH: f64 = 0.01;
/// As long as a prompt takes, about.
const MICROS: usize = 4000;

/// Submits a request and cancels it: at once, after some time, after some tokens, by dropping it, or from a callback's
/// handle. Returns for how long it went on, where that is told.
fn cancel_one(model: &Model, scheduler: &Scheduler, random: &mut Random) -> Option<Duration> {
    let mut request = random_request(model, random, 200);
    request.cached = random.below(2) == 0;
    let pause = Duration::from_micros(random.below(MICROS) as u64);
    match random.below(4) {
        0 => drop(scheduler.submit(request).expect("room")),
        1 => {
            let generation = scheduler.submit(request).expect("room");
            thread::sleep(pause);
            generation.cancel();
            let left: Vec<_> = generation.filter(Result::is_err).collect();
            assert!(matches!(left[..], [] | [Err(RuntimeError::Cancelled)]), "{left:?}");
        }
        2 => {
            let mut generation = scheduler.submit(request).expect("room");
            generation.by_ref().take(random.below(8)).for_each(|piece| assert!(piece.is_ok()));
        }
        _ => {
            let (done, ended) = mpsc::channel();
            let each = move |update| {
                if let Update::Done(result) = update {
                    done.send(result).expect("a reader");
                }
            };
            let handle = scheduler.submit_with(request, each).expect("room");
            thread::sleep(pause);
            let start = Instant::now();
            handle.cancel();
            let result = ended.recv().expect("it is told");
            assert!(matches!(result, Ok(_) | Err(RuntimeError::Cancelled)), "{result:?}");
            assert!(ended.recv().is_err(), "told once");
            return Some(start.elapsed());
        }
    }
    None
}

/// Waits until nothing runs or waits.
fn idle(scheduler: &Scheduler) -> SchedulerStats {
    loop {
        let stats = scheduler.stats();
        if stats.active + stats.queued == 0 {
            return stats;
        }
        thread::yield_now();
    }
}

/// `HALFBYTE_TEST_ROUNDS=10000` is the full size.
#[test]
fn memory_does_not_grow_however_many_are_cancelled() {
    let model = tiny_mimo(2);
    let mut options = SchedulerOptions::default();
    (options.max_concurrent, options.chunk, options.prefix_bytes) = (3, 48, 1 << 20);
    (options.refill, options.timeout) = (Duration::ZERO, Duration::from_secs(600));
    let scheduler = Scheduler::new(&model, &options).expect("a scheduler");
    let (mut random, rounds) = (Random(42), rounds(1000));
    let (mut held, mut times) = (Vec::with_capacity(40), Vec::with_capacity(rounds));
    for round in 0..rounds {
        if round % 50 == 0 {
            let request = random_request(&model, &mut random, 200);
            let found = read(&mut scheduler.submit(request.clone()).expect("room"));
            assert_eq!(found, alone(&model, KvType::F16, &request), "round {round}");
        }
        times.extend(cancel_one(&model, &scheduler, &mut random));
        // The first tenth fills what is kept.
        if round >= rounds / 10 && round % (rounds / 40).max(1) == 0 {
            idle(&scheduler);
            held.extend(memory("Rss"));
        }
    }
    let stats = idle(&scheduler);
    assert_eq!((stats.failed, stats.timed_out, stats.refused_budget), (0, 0, 0));
    assert_eq!(stats.finished + stats.cancelled, (rounds + rounds.div_ceil(50)) as u64);
    times.sort();
    let p99 = times.get(times.len() * 99 / 100);
    println!("{rounds} requests, {} of them cancelled while they ran or waited; p99 {p99:?}", stats.cancelled);
    let (first, second) = held.split_at(held.len() / 2);
    if let (Some(&before), Some(&after)) = (first.iter().max(), second.iter().max()) {
        let growth = after as f64 / before as f64 - 1.0;
        println!("at most {before} bytes in the first half, {after} in the second: {:+.3} %", 100.0 * growth);
        assert!(growth <= GROWTH, "{before} bytes became {after}: {held:?}");
    }
    // All memory comes back but for what is kept on purpose, and then that too.
    let kept = scheduler.prefixes().bytes();
    scheduler.prefixes().clear();
    assert_eq!(model.budget().used(), stats.memory_used - kept);
    drop(scheduler);
    assert_eq!(model.budget().used(), 0);
}
