//! Steady generation allocates nothing: counted by an allocator around the system's, over all threads. The one
//! exception is the page of the cache that every 64th token begins: it takes one call, before the token is run.
//!
//! A phone that allocates per token fragments its heap and wakes its memory manager in the middle of a sentence. One
//! test alone in this binary, because the count is of the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use halfbyte::{KvType, Model, Sampling, Session, StopRules};
use halfbyte_formats::gguf::{Array, Strings, Value};
use halfbyte_kernels::KV_PAGE;
use halfbyte_tests::{Golden, Parts, bundled, experts_model, model_on, options_on, session_on};

/// Counts calls that may take memory from the system.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract; counting touches
// only an atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's `layout`, whose size is not 0 by the contract of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`, because every allocation here does.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as in `dealloc`, and `size` is not 0 by the contract of this function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM_UP: usize = 8;
const COUNTED: usize = 100;
/// A thread that starts allocates once or twice, whenever the system gives it its first moment.
const QUIET: Duration = Duration::from_millis(250);

/// The character that stands for `byte` in byte-level vocabularies: printable ones for themselves, the other 68 in
/// order from U+0100.
fn stand_in(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count();
    char::from_u32(0x100 + u32::try_from(before).expect("small")).expect("a character")
}

/// A vocabulary for `size` tokens: all bytes, then pairs of them, and one special token at the end.
fn add_vocabulary(parts: &mut Parts, size: usize) {
    let pairs: Vec<[char; 2]> = (0..size - 257)
        .map(|n| {
            [
                stand_in(b'a' + u8::try_from(n % 26).expect("a letter")),
                stand_in(b'a' + u8::try_from(n / 26).expect("a letter")),
            ]
        })
        .collect();
    let bytes = (0..=255).map(|byte| stand_in(byte).to_string());
    let merged = pairs.iter().map(|pair| pair.iter().collect());
    let tokens: Strings = bytes.chain(merged).chain(["<|end|>".to_owned()]).collect();
    assert_eq!(tokens.len(), size);
    let merges: Strings = pairs.iter().map(|[left, right]| format!("{left} {right}")).collect();
    let mut types = vec![1_i32; size];
    types[size - 1] = 3;
    parts
        .put("tokenizer.ggml.model", "gpt2")
        .put("tokenizer.ggml.pre", "qwen2")
        .put("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
        .put("tokenizer.ggml.token_type", types)
        .put("tokenizer.ggml.merges", Value::Array(Array::String(merges)))
        .put("tokenizer.ggml.eos_token_id", u32::try_from(size - 1).expect("small"));
}

/// Calls that a generation from a length of `start` tokens to one of `end` may make: one for each page of the cache
/// that it begins. The last token of a session is run only when the next one is asked for.
fn pages(start: usize, end: usize) -> usize {
    (end - 1).div_ceil(KV_PAGE) - (start - 1).div_ceil(KV_PAGE)
}

/// Generates until all buffers have their size, then more, which is to allocate nothing but pages of the cache; returns
/// the bytes of text that came of it.
fn generate(session: &mut Session, what: &str) -> usize {
    let mut text = 0;
    for counted in [WARM_UP, COUNTED] {
        text = 0;
        let (before, start) = (CALLS.load(Ordering::Relaxed), session.tokens().len());
        for _ in 0..counted {
            session.next_token().expect("finite logits").expect("room");
            text += session.text().len();
        }
        let calls = CALLS.load(Ordering::Relaxed) - before;
        assert!(counted == WARM_UP || calls == pages(start, session.tokens().len()), "{what}: {calls} calls");
    }
    text
}

/// Waits until no thread has allocated for a while.
fn wait_for_threads_to_start() {
    loop {
        let before = CALLS.load(Ordering::Relaxed);
        std::thread::sleep(QUIET);
        if CALLS.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Milliseconds for which helpers of thread teams have run, by the system's account.
fn helped() -> u64 {
    let ticks = |task: PathBuf| -> Option<u64> {
        let stat = fs::read_to_string(task.join("stat")).ok()?;
        let (name, rest) = stat.split_once(") ")?;
        // From the state on, which is the third field: user time is the 14th, system time the 15th.
        let times = rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().ok());
        name.contains("(halfbyte-").then_some(times.sum::<Option<u64>>()?)
    };
    let tasks = fs::read_dir("/proc/self/task").expect("threads").map(|task| task.expect("a thread").path());
    // Linux counts in hundredths of a second towards programs, whatever it does inside.
    tasks.filter_map(ticks).sum::<u64>() * 10
}

/// The steps of the models above are too small to be shared; those of this one are not.
fn the_team_allocates_nothing_either() {
    let model = Model::open_with(bundled("tiny-mimo"), &options_on(2, None)).expect("the bundled model");
    wait_for_threads_to_start();
    let mut rules = StopRules::default();
    rules.end_of_text = false;
    for _ in 0..50 {
        let mut session = session_on(&model, KvType::F16, 64, 256).expect("a session");
        session.set_stop(rules.clone()).expect("valid");
        session.push_tokens(&[1, 2, 3]).expect("it fits");
        generate(&mut session, "with helpers");
        // The system may be slow to give the helper a core; nothing is allocated meanwhile either.
        if !cfg!(target_os = "linux") || helped() >= 20 {
            return;
        }
    }
    panic!("no helper took part");
}

#[test]
fn generation_allocates_nothing_per_token() {
    let golden = Golden::named("tied");
    let mut parts = Parts::of(&golden.gguf);
    add_vocabulary(&mut parts, golden.vocab);
    let file = parts.gguf();

    let mut sampled = Sampling::default();
    (sampled.temperature, sampled.top_k, sampled.top_p, sampled.min_p) = (1.5, 100, 0.98, 0.001);
    let mut everything = Sampling::default();
    (everything.top_k, everything.top_p, everything.repeat_penalty) = (0, 1.0, 1.3);
    for threads in [1, 2] {
        let model = model_on(&file, threads, None).expect("a valid model");
        wait_for_threads_to_start();
        for kv in [KvType::F16, KvType::F32] {
            for sampling in [Sampling::greedy(), sampled.clone(), everything.clone()] {
                for strings in [vec![], vec!["\u{1}\u{2}\u{3}\u{4}".to_owned(), "never in it".to_owned()]] {
                    let mut rules = StopRules::default();
                    rules.end_of_text = false;
                    rules.strings = strings;
                    let mut session = session_on(&model, kv, 64, 256).expect("a session");
                    session.set_sampling(sampling.clone()).expect("valid");
                    session.set_stop(rules.clone()).expect("valid");
                    session.push_text("abbey abacus").expect("it fits");
                    let text = generate(&mut session, &format!("{threads} threads, {kv:?}, {sampling:?}, {rules:?}"));
                    assert!(text >= COUNTED / 2, "only {text} bytes of text: decoding was not part of this");
                }
            }
        }
    }
    // Experts: tokens of models without a vocabulary, in f32 and with 8-bit inputs.
    for file in [Golden::named("phimoe").gguf, experts_model(64, 96, 64, None).gguf()] {
        let model = model_on(&file, 2, None).expect("a valid model");
        wait_for_threads_to_start();
        let mut session = session_on(&model, KvType::F16, 64, 256).expect("a session");
        session.push_tokens(&[1, 2, 3]).expect("it fits");
        generate(&mut session, "experts");
    }
    the_team_allocates_nothing_either();
    // The counter counts: otherwise everything above would pass with no allocator at all.
    let before = CALLS.load(Ordering::Relaxed);
    let model = model_on(&file, 1, None).expect("a valid model");
    assert!(CALLS.load(Ordering::Relaxed) > before);
    drop(model);
}
