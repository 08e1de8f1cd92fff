//! `halfbyte prefix`, `halfbyte bench --concurrent` and `--latency`: what they say, and that they are right about it.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod folder;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use folder::Folder;
use support::run;

/// The number before `word` in `text`.
fn number(text: &str, word: &str) -> usize {
    let before = text.split(word).next().expect("some text").trim_end();
    let digits: String = before.chars().rev().take_while(char::is_ascii_digit).collect();
    digits.chars().rev().collect::<String>().parse().unwrap_or_else(|_| panic!("no number before {word:?} in {text}"))
}

#[test]
fn a_prompt_that_was_saved_is_known_after_a_restart() {
    let folder = Folder::new("prefix");
    let (file, prompt) = (folder.path("system.prefix"), folder.path("prompt.txt"));
    let text = "Once upon a time there was a king who had three sons. ".repeat(12);
    std::fs::write(&prompt, &text).expect("written");
    let said = run(["prefix", "save", "tiny-mimo", &file, "-f", &prompt, "--threads", "2"]).ok();
    let pages = number(&said, "pages");
    assert!(pages > 1, "{said}");
    assert_eq!(folder.names(), ["prompt.txt", "system.prefix", "system.prefix.lock"]);

    let longer = format!("{text}And then?");
    let said = run(["prefix", "load", "tiny-mimo", &file, "-p", &longer, "--threads", "1"]).ok();
    assert_eq!(number(&said, "pages loaded"), pages);
    let (known, all) = (number(&said, "of "), number(&said, "tokens of the prompt"));
    assert!(known > 64 * (pages - 1) && known < all && all - known < 20, "{said}");

    // A second one beside it.
    run(["prefix", "save", "tiny-mimo", &file, "-p", "The queen said", "--threads", "2"]).ok();
    let list = run(["prefix", "list", "tiny-mimo", &file]).ok();
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains("Once upon a time") && list.contains("The queen said"), "{list}");
    assert!(list.lines().all(|line| line.contains("f16") && line.contains("short factors")), "{list}");
}

#[test]
fn files_of_others_and_damaged_ones_are_refused() {
    let folder = Folder::new("prefix-refused");
    let file = folder.path("p");
    run(["prefix", "save", "tiny-mimo", &file, "-p", "Once"]).ok();
    let said = run(["prefix", "list", "tiny-phimoe", &file]).fails(1);
    assert!(said.contains("another model"), "{said}");
    let said = run(["prefix", "list", "tiny-mimo", &file, "--isa", "scalar"]).fails(1);
    assert!(said.contains("instruction set"), "{said}");
    let mut bytes = std::fs::read(&file).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let said = run(["prefix", "load", "tiny-mimo", &file, "-p", "Once"]).fails(1);
    assert!(said.contains("checksum") && said.contains("at offset"), "{said}");
    run(["prefix", "load", "tiny-mimo", &folder.path("none"), "-p", "x"]).fails(1);
    run(["prefix", "save", "tiny-mimo", &file]).fails(2);
}

#[test]
fn a_load_test_counts_every_token() {
    let report = run(["bench", "tiny-mimo", "--concurrent", "3", "--requests", "8", "-p", "20", "-n", "5"]
        .iter()
        .chain(&["--threads", "2", "--check", "--json"]))
    .json();
    assert_eq!(report["equal"], 8);
    assert_eq!((&report["concurrent"], &report["requests"], &report["threads"]), (&3.into(), &8.into(), &2.into()));
    let stats = &report["stats"];
    assert_eq!((&stats["finished"], &stats["tokens"]), (&8.into(), &40.into()));
    assert_eq!((&stats["failed"], &stats["timed_out"], &stats["active"]), (&0.into(), &0.into(), &0.into()));
    let classes = stats["classes"].as_array().expect("three");
    let of = |name: &str| classes.iter().find(|class| class["priority"] == name).expect(name);
    for (name, requests) in [("realtime", 2), ("normal", 4), ("batch", 2)] {
        assert_eq!(of(name)["first_token"]["count"], requests);
        assert_eq!(of(name)["per_token"]["count"], requests * 4);
        assert!(of(name)["per_token"]["p50"].as_f64().expect("a time") > 0.0);
    }
    for rate in ["tokens_per_second", "speedup", "seconds"] {
        assert!(report[rate].as_f64().is_some_and(|rate| rate > 0.0 && rate.is_finite()), "{rate}");
    }
    let load = ["bench", "tiny-mimo", "--concurrent", "2", "--requests", "2", "-p", "3", "-n", "2"];
    let text = run(load.iter().chain(&["--no-batching", "--check"])).ok();
    for line in ["machine ", "load ", "alone ", "together ", "equal ", "realtime ", "normal ", "batch ", "memory "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "no {line}in:\n{text}");
    }
    run(["bench", "tiny-mimo", "--concurrent", "33"]).fails(2);
    run(["bench", "tiny-mimo", "--requests", "2"]).fails(2);
    run(["bench", "tiny-mimo", "--check"]).fails(2);
    run(["bench", "tiny-mimo", "--concurrent", "2", "--depth", "1"]).fails(2);
}

#[test]
fn latencies_are_measured() {
    let bench = ["bench", "tiny-mimo", "--latency", "-p", "200", "-n", "5", "--reps", "2"];
    let report = run(bench.iter().chain(&["--threads", "2", "--json"])).json();
    assert_eq!((&report["prompt_tokens"], &report["cancel"]["count"]), (&200.into(), &100.into()));
    let time = |name: &str| report[name].as_f64().filter(|time| time.is_finite()).expect(name);
    for name in ["new", "per_token", "known", "from_file", "load", "file_bytes"] {
        assert!(time(name) > 0.0, "{name}");
    }
    let of = |name: &str| report["cancel"][name].as_f64().expect(name);
    assert!(0.0 < of("p50") && of("p50") <= of("p99") && of("p99") <= of("longest"), "{report}");
    let text = run(bench).ok();
    for line in ["machine ", "new ", "known ", "from file ", "cancelled "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "no {line}in:\n{text}");
    }
    run(["bench", "tiny-mimo", "--latency", "-n", "1"]).fails(1);
    run(["bench", "tiny-mimo", "--latency", "--concurrent", "2"]).fails(2);
}
