//! Memory that the system refuses: every allocation whose size a prompt, a context, a batch or a file decides fails
//! once, when a model is loaded, in a session, a scheduler and a prefix cache. None may end the process, and nothing
//! may be left of it.
//!
//! Maps of anonymous memory are not made through the allocator: they fail in `budget.rs`, one after the other. One test
//! alone in this binary, because the allocator is the whole process's.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env, fs,
    io::ErrorKind,
    process,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use halfbyte::{
    FormatError, Load, LoadOptions, Model, PrefixCache, Request, RuntimeError, Sampling, Scheduler, SchedulerOptions,
    SessionOptions, StopRules, text::TokenizerError,
};
use halfbyte_tests::bundled;

/// Allocations from this size on may fail: what is smaller does not grow with anything that a caller gives.
const LARGE: usize = 8 << 10;
/// Fails no allocation.
const NEVER: usize = usize::MAX;

/// Refuses one large allocation, by number.
struct Failing;

/// Large allocations since [`FAIL_AT`] was set, and the number of the one to be refused.
static SEEN: AtomicUsize = AtomicUsize::new(0);
static FAIL_AT: AtomicUsize = AtomicUsize::new(NEVER);

fn refuses(size: usize) -> bool {
    let fail_at = FAIL_AT.load(Ordering::Relaxed);
    fail_at != NEVER && size >= LARGE && SEEN.fetch_add(1, Ordering::Relaxed) == fail_at
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract, or answered by a null
// pointer, which the contract allows.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's `layout`, whose size is not 0 by the contract of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`, because every allocation here does.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if refuses(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as in `dealloc`, and `size` is not 0 by the contract of this function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

fn model(name: &str, load: Load) -> Result<Model, RuntimeError> {
    let mut options = LoadOptions::default();
    (options.threads, options.load) = (Some(1), load);
    Model::open_with(bundled(name), &options)
}

fn prompt() -> Vec<u32> {
    (0..600).map(|n| n % 200).collect()
}

/// Whether memory is what was missing.
fn is_refusal(error: &RuntimeError) -> bool {
    use TokenizerError::Metadata;
    match error {
        RuntimeError::OutOfMemory { .. } | RuntimeError::Tokenizer(TokenizerError::OutOfMemory { .. }) => true,
        RuntimeError::Format(error) | RuntimeError::Tokenizer(Metadata(error)) => match error {
            FormatError::Io { source, .. } => source.kind() == ErrorKind::OutOfMemory,
            other => matches!(other, FormatError::OutOfMemory { .. }),
        },
        _ => false,
    }
}

/// Runs `scenario` with one large allocation refused, the first, the second and so on, until none is left that it
/// makes; and again without after each. How many there were.
fn refuse_each(name: &str, model: &Model, scenario: impl Fn() -> Result<u64, RuntimeError>) -> usize {
    let expected = scenario().expect("nothing is refused");
    let used = model.budget().used();
    for n in 0.. {
        SEEN.store(0, Ordering::Relaxed);
        FAIL_AT.store(n, Ordering::Relaxed);
        let found = scenario();
        let over = SEEN.load(Ordering::Relaxed) <= n;
        FAIL_AT.store(NEVER, Ordering::Relaxed);
        match found {
            Ok(found) => assert!(over && found == expected, "{name}: allocation {n} was refused and nobody noticed"),
            Err(error) if is_refusal(&error) => assert!(!over, "{name}"),
            Err(error) => panic!("{name}, allocation {n}: {error}"),
        }
        assert_eq!(model.budget().used(), used, "{name}, allocation {n}");
        if over {
            return n;
        }
        assert_eq!(scenario().expect("nothing is refused"), expected, "{name}, after allocation {n}");
    }
    unreachable!("it ends above")
}

/// Stands for what was generated.
fn hash(tokens: &[u32]) -> u64 {
    tokens.iter().fold(7, |hash, &token| (hash * 31 + u64::from(token)) % 1_000_003)
}

fn session(model: &Model) -> Result<u64, RuntimeError> {
    let mut options = SessionOptions::default();
    (options.context, options.batch) = (Some(1000), 64);
    let mut session = model.session(&options)?;
    let mut sampling = Sampling::default();
    sampling.seed = 5;
    session.set_sampling(sampling)?;
    session.push_tokens(&prompt())?;
    let mut rules = StopRules::default();
    rules.end_of_text = false;
    session.set_stop(rules)?;
    let mut tokens = Vec::with_capacity(64);
    for _ in 0..20 {
        tokens.extend(session.next_token()?);
    }
    let mut fork = session.fork()?;
    for _ in 0..10 {
        tokens.extend(fork.next_token()?);
    }
    Ok(hash(&tokens))
}

fn scheduled(scheduler: &Scheduler) -> Result<u64, RuntimeError> {
    let mut request = Request::new(prompt());
    request.sampling = Sampling::greedy();
    (request.stop.max_tokens, request.stop.end_of_text) = (Some(20), false);
    // What is kept would spare the next one the allocations.
    request.cached = false;
    let mut tokens = Vec::with_capacity(64);
    for piece in scheduler.submit(request)? {
        tokens.extend(piece?.token);
    }
    Ok(hash(&tokens))
}

#[test]
fn every_large_allocation_is_refused_once() {
    let model = model("tiny-mimo", Load::Map).expect("the bundled model");
    let mut refused = vec![("session", refuse_each("session", &model, || session(&model)))];
    // The table of Unicode that a byte-level vocabulary has is of one size, and not tried; this one has none.
    for (name, load) in [("map", Load::Map), ("copy", Load::Copy)] {
        let open = || Ok(self::model("tiny-phimoe", load)?.vocab() as u64);
        refused.push((name, refuse_each(name, &model, open)));
    }

    let mut options = SchedulerOptions::default();
    (options.refill, options.timeout, options.chunk) = (Duration::ZERO, Duration::from_secs(600), 64);
    let scheduler = Scheduler::new(&model, &options).expect("memory");
    refused.push(("scheduler", refuse_each("scheduler", &model, || scheduled(&scheduler))));
    drop(scheduler);

    let scheduler = Scheduler::new(&model, &options).expect("memory");
    // As many as make the lists of a file large.
    for first in 0..30 {
        let mut request = Request::new(prompt().into_iter().map(|token| (token + first) % 200).collect());
        request.stop.max_tokens = Some(1);
        scheduler.submit(request).expect("room").for_each(|piece| assert!(piece.is_ok()));
    }
    let path = env::temp_dir().join(format!("halfbyte-refused-{}", process::id()));
    let saved = || scheduler.prefixes().save(&path).map(|pages| pages as u64);
    refused.push(("save", refuse_each("save", &model, saved)));
    let added = || scheduler.prefixes().add_to(&path).map(|pages| pages as u64);
    refused.push(("add", refuse_each("add", &model, added)));
    let loaded = || {
        let prefixes = PrefixCache::new(&model, usize::MAX);
        let pages = prefixes.load(&path)?;
        Ok((pages + prefixes.bytes()) as u64)
    };
    refused.push(("load", refuse_each("load", &model, loaded)));
    for file in [path.clone(), path.with_extension("lock")] {
        let _ = fs::remove_file(file);
    }
    println!("refused: {refused:?}");
    let of = |name: &str| refused.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count);
    // The candidates of a sampler, twice: what a session starts with, and what is set.
    assert!(of("session") >= 3 && of("scheduler") >= 1, "{refused:?}");
    // Texts, scores and types of tokens, as they are read and as they are used; of the copy the file itself.
    assert!(of("map") >= 8 && of("copy") > of("map"), "{refused:?}");
    // The list of pages, and the tree that they go to.
    assert!(of("save") >= 1 && of("load") >= 2 && of("add") > of("save"), "{refused:?}");
}
