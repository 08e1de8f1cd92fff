//! What is estimated of memory is what the system then counts: each configuration in a process of its own.

use std::{env, path::PathBuf, process::Command, thread};

use halfbyte::{KvType, Load, LoadOptions, Model, SessionOptions};
use halfbyte_tests::{bundled, committed, memory};

/// How far the estimate may be from what is measured, mapped files included.
const TOLERANCE: f64 = 0.03;
const CHILD: &str = "HALFBYTE_TEST_ESTIMATE";

/// Bytes of memory of this process's own.
fn private() -> usize {
    memory("Anonymous").expect("Linux")
}

fn configuration(n: usize) -> (PathBuf, LoadOptions, SessionOptions) {
    let name = ["tiny-mimo", "tiny-phimoe"][n % 2];
    let (mut load, mut session) = (LoadOptions::default(), SessionOptions::default());
    load.threads = Some(1 + n / 2 % 2);
    load.load = if n % 4 == 3 { Load::Copy } else { Load::Map };
    session.kv = [KvType::F16, KvType::F32, KvType::Int8][n / 4];
    session.context = Some([256, 1000, 700][n % 3]);
    session.batch = [512, 128][n % 2];
    (bundled(name), load, session)
}

/// Not a test of its own: loads a model, fills a session, and says what the estimate was and what that took.
#[test]
fn child() {
    let Ok(n) = env::var(CHILD) else { return };
    let (path, load, session) = configuration(n.parse().expect("a number"));
    // What any model brings with it, and what the allocator keeps; the stack it takes goes with its thread.
    let small = load.clone();
    let warm_up = move || {
        let path = committed!("tests/golden/phimoe.gguf");
        let session = Model::open_with(path, &small).and_then(|model| model.session(&SessionOptions::default()));
        session.expect("a session").push_tokens(&[1; 100]).expect("it fits");
    };
    thread::spawn(warm_up).join().expect("no panic");
    let estimate = Model::estimate(&path, &load, &session).expect("a model");
    let before = private();
    let model = Model::open_with(&path, &load).expect("a model");
    let mut filled = model.session(&session).expect("a session");
    let tokens: Vec<u32> = (0..filled.context()).map(|n| (n % 200) as u32).collect();
    // The logits of every token, so that all of each buffer is used; and a token chosen.
    filled.push_tokens_with(&tokens, |_, _| ()).expect("it fits");
    filled.truncate(tokens.len() - 1);
    filled.next_token().expect("finite logits");
    println!("{estimate:?}");
    println!("found {} {} {}", estimate.private(), private() - before, estimate.mapped);
}

#[test]
fn estimates_of_twelve_configurations() {
    if !cfg!(target_os = "linux") {
        return;
    }
    for n in 0..12 {
        let mut child = Command::new(env::current_exe().expect("this binary"));
        child.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CHILD, n.to_string());
        // glibc keeps what is freed for later; what is estimated is what is in use.
        child.env("MALLOC_MMAP_THRESHOLD_", "8192").env("MALLOC_TRIM_THRESHOLD_", "0").env("MALLOC_ARENA_MAX", "1");
        let output = child.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.split_once("found ")).unwrap_or_else(|| panic!("{output:?}")).1;
        let numbers: Vec<f64> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        let [estimated, measured, mapped] = numbers[..] else { panic!("{line}") };
        let error = (estimated - measured).abs() / (measured + mapped);
        println!(
            "configuration {n}: {estimated} of {measured} private bytes, {mapped} mapped, {:.2} % off",
            100.0 * error
        );
        assert!(error <= TOLERANCE, "configuration {n}: {estimated} for {measured}, {mapped} mapped: {error:.4}");
    }
}
