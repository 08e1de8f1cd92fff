//! `halfbyte bench`: what it reports, as text and as JSON. The numbers themselves are checked for sense only.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod folder;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use folder::Folder;
use halfbyte_formats::gguf::Gguf;
use serde_json::Value;
use support::run;

/// Linux tells how large caches are, but not in every container.
fn caches_are_known() -> bool {
    std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index0/size").is_ok()
}

fn rates(report: &Value, name: &str, reps: usize) -> f64 {
    let runs: Vec<f64> = report[name]["runs"].as_array().expect(name).iter().filter_map(Value::as_f64).collect();
    assert_eq!(runs.len(), reps, "{name}");
    assert!(runs.iter().all(|&rate| rate > 0.0 && rate.is_finite()), "{name}: {runs:?}");
    let median = report[name]["median"].as_f64().expect("a median");
    assert!(runs.iter().any(|&rate| rate <= median) && runs.iter().any(|&rate| rate >= median), "{name}");
    median
}

#[test]
fn json_has_every_repetition_and_says_what_was_measured() {
    let folder = Folder::new("bench-json");
    let model = folder.path("tiny.gguf");
    run(["synth", "qwen2-tiny", &model]).ok();
    let report = run(["bench", &model, "-p", "5", "-n", "4", "--depth", "6", "--threads", "2", "--reps", "2"]
        .iter()
        .chain(&["--kv", "f32", "--isa", "scalar", "--json"]))
    .json();
    rates(&report, "prefill", 2);
    rates(&report, "decode", 2);
    assert_eq!(report["prefill"]["tokens"], 5);
    let decode = &report["decode"];
    assert_eq!((&decode["tokens"], &decode["depth"]), (&4.into(), &6.into()));
    // Four tokens read 6 to 10 positions, 8 on average, of keys and values of 2 layers, 2 heads of 64, 4 bytes each.
    assert_eq!(decode["kv_bytes"], 8 * 2 * 2 * 2 * 64 * 4);
    let file = Gguf::open(&model).expect("opens");
    let bytes = |name: &str| file.tensor(name).map_or(0, |tensor| tensor.data.len());
    let all: usize = file.tensors().iter().map(|tensor| tensor.data.len()).sum();
    let weights = file.tensors().iter().filter(|tensor| tensor.dims.len() == 2).map(|tensor| tensor.data.len());
    assert_eq!(decode["weight_bytes"], weights.sum::<usize>() - bytes("token_embd.weight"));
    assert_eq!(report["model"]["tensor_bytes"], all);
    assert_eq!(report["model"]["architecture"], "qwen2");
    assert_eq!(report["model"]["source"], model);
    assert_eq!(report["model"]["formats"], serde_json::json!({ "f32": 11, "q4_0": 15, "q6_k": 1 }));
    assert_eq!((&report["isa"], &report["kv"]), (&"scalar".into(), &"f32".into()));
    assert_eq!((&report["threads"], &report["context"]), (&2.into(), &11.into()));
    assert!(report["load_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    if cfg!(target_os = "linux") {
        assert!(report["processors"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(Value::is_u64)));
        assert!(report["available_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    }

    let bandwidth = &report["bandwidth"];
    let best = bandwidth["best"].as_f64().expect("a number");
    let kinds = bandwidth["runs"].as_object().expect("kinds");
    assert_eq!(kinds.keys().collect::<Vec<_>>(), ["ahead", "plain", "wide"]);
    let runs: Vec<f64> =
        kinds.values().flat_map(|runs| runs.as_array().expect("runs")).filter_map(Value::as_f64).collect();
    assert_eq!((runs.len(), runs.iter().copied().fold(0.0, f64::max)), (6, best));
    if caches_are_known() {
        assert_eq!((&report["cache_resident"], &decode["bandwidth_share"]), (&true.into(), &Value::Null));
    }
    if cfg!(target_os = "linux") {
        let peak = &report["memory"]["peak"];
        let bytes = |name: &str| peak[name].as_u64().expect("a size");
        // The mapped file counts as mapped, not as memory of our own.
        assert!(bytes("mapped_bytes") as usize > all, "{peak}");
        assert!(bytes("anonymous_bytes") > 0 && bytes("resident_bytes") >= bytes("mapped_bytes"), "{peak}");
    }
}

#[test]
fn text_says_cache_resident_of_a_tiny_model() {
    let folder = Folder::new("bench-text");
    let model = folder.path("tiny.gguf");
    run(["synth", "qwen2-tiny", &model]).ok();
    let text = run(["bench", &model, "-p", "4", "-n", "2", "--reps", "1"]).ok();
    for line in ["model ", "machine ", "load ", "prefill ", "decode ", "reading ", "share "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "no {line}in:\n{text}");
    }
    if caches_are_known() {
        assert!(text.contains("cache-resident") && !text.contains('%'), "{text}");
    }
    let text = run(["bench", &model, "-p", "4", "-n", "0", "--reps", "1"]).ok();
    assert!(text.contains("prefill") && !text.contains("decode") && !text.contains("share"), "{text}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = Folder::new("bench-refused");
    let model = folder.path("tiny.gguf");
    run(["synth", "qwen2-tiny", &model]).ok();
    let text = run(["bench", &model, "--depth", "2000", "-n", "100"]).fails(1);
    assert!(text.contains("2101") && text.contains("2048"), "{text}");
    run(["bench", &model, "--reps", "0"]).fails(2);
    run(["bench", &model, "--isa", "abacus"]).fails(2);
    run(["bench", &folder.path("none.gguf")]).fails(1);
}

#[test]
fn latencies_are_times_that_something_took() {
    let folder = Folder::new("bench-latency");
    let model = folder.path("tiny.gguf");
    run(["synth", "qwen2-tiny", &model]).ok();
    let report = run(["bench", &model, "--latency", "-p", "16", "-n", "8", "--reps", "3", "--json"]).json();
    // Nothing reads the weights of a token, nearly all of the file, at 100 GB/s, and does 27 products besides.
    let bytes = std::fs::metadata(&model).expect("there").len();
    let per_token = report["per_token"].as_f64().expect("a time");
    assert!(per_token > bytes as f64 / 1e11, "{per_token}");
    assert!(["new", "known", "from_file", "load"].iter().all(|name| report[name].as_f64().is_some_and(|s| s > 0.0)));
    assert_eq!(report["cancel"]["count"], 100);
}
