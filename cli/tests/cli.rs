//! The program from outside: arguments in, text and exit codes out.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::Read;

use serde_json::Value;
use support::{Done, VOCAB, file, halfbyte, model, on_model, run, run_with, vocabulary};

fn ids_in(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

/// `run` on the tiny model, as JSON.
fn generated(arguments: &[&str]) -> Value {
    let mut all = vec!["--json", "-p", "the king"];
    all.extend(arguments);
    on_model("run", &all).json()
}

/// The rows that `logits` prints.
fn rows(arguments: &[&str]) -> Vec<Vec<f32>> {
    let text = on_model("logits", arguments).ok();
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON array")).collect()
}

#[test]
fn every_command_explains_itself() {
    let help = run(["--help"]).ok();
    for command in [
        "run",
        "chat",
        "bench",
        "logits",
        "tokenize",
        "perplexity",
        "inspect",
        "synth",
        "quantize",
        "pack",
        "convert",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is listed");
        let help = run([command, "--help"]).ok();
        assert!(help.contains("Usage: halfbyte") && help.contains("Examples:\n  halfbyte"), "{command}: {help}");
    }
    assert_eq!(run(["--version"]).ok(), format!("halfbyte {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(["completions", shell]).ok();
        assert!(script.contains("perplexity") && script.contains("repeat-penalty"), "{shell}");
    }
    run(["completions", "cmd"]).fails(2);
}

#[test]
fn an_unknown_model_is_told_from_a_bad_file() {
    let error = run(["run", "no-such", "-p", "x"]).fails(1);
    assert_eq!(error, "error: no file no-such and no bundled model of that name (bundled: tiny-mimo, tiny-phimoe)\n");
    let bad = file("bad.gguf", b"GGUFnot really");
    for command in [&["run", &bad, "-p", "x"][..], &["inspect", &bad], &["tokenize", &bad, "--text", "x"]] {
        let error = run(command).fails(1);
        assert!(error.starts_with("error: cannot ") && error.contains(&bad) && error.contains("caused by:"), "{error}");
    }
    let folder = model().parent().expect("a folder").to_str().expect("UTF-8").to_owned();
    assert!(run(["inspect", &folder]).fails(1).contains(&folder));
}

#[test]
fn wrong_usage_exits_with_2() {
    let run_with = |arguments: &[&str]| {
        let mut all = vec!["-p", "x"];
        all.extend(arguments);
        on_model("run", &all).fails(2)
    };
    for (option, value) in [
        ("--temp", "NaN"),
        ("--temp", "inf"),
        ("--temp", "warm"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--min-p", "NaN"),
        ("--repeat-penalty", "0"),
        ("--top-k", "1.5"),
        ("--seed", "0x1"),
        ("-n", "99999999999999999999999"),
        ("--ctx", "0"),
        ("--ctx", "99999999999"),
        ("--threads", "0"),
        ("--threads", "257"),
        ("--isa", "mmx"),
        ("--kv", "q8_0"),
    ] {
        let error = run_with(&[option, value]);
        assert!(error.starts_with(&format!("error: invalid value '{value}'")), "{option} {value}: {error}");
    }
    assert!(run_with(&["--temp=-1"]).contains("0.0 to 100.0"), "the range is named");
    for option in ["-n", "--top-k", "--threads", "--ctx"] {
        assert!(run_with(&[option, "-1"]).contains("expected a whole number from "), "{option}");
    }
    assert!(run_with(&["--stop", &"x".repeat(1025)]).contains("for '--stop <TEXT>': expected 1 to 1024 bytes"));
    let stops: Vec<&str> = ["--stop", "x"].into_iter().cycle().take(130).collect();
    assert_eq!(run_with(&stops), "error: --stop is given 65 times: expected at most 64\n");
    assert!(run_with(&["--isa", "mmx"]).contains("scalar"), "what there is is named");
    run_with(&["-f", "both"]);
    assert!(run_with(&["--stop="]).contains("--stop"));
    for option in ["--temp", "--seed", "-n"] {
        // Not taken for an option.
        assert!(run_with(&[option, "-1"]).contains("invalid value '-1'"), "{option}");
    }
    run_with(&["--no-such-option"]);
    on_model("run", &[]).fails(2);
    for tokens in ["", "1,x", "-1", "4294967296", "@/no/such/file"] {
        on_model("logits", &[&format!("--tokens={tokens}")]).fails(2);
    }
    on_model("perplexity", &["--file", "x", "--ctx", "1"]).fails(2);
    on_model("tokenize", &[]).fails(2);
    run(["perplexity"]).fails(2);
    run(["sing"]).fails(2);
    run::<[&str; 0]>([]).fails(2);
}

#[test]
fn failures_exit_with_1_and_say_why() {
    for (command, arguments, why) in [
        ("run", &["-p", "x", "--ctx", "99999"][..], "context is 99999: expected 1 to 16384"),
        ("run", &["-p", "x", "--ctx", "99999"], "--ctx is too much for this model"),
        ("perplexity", &["--file", "-"], "stdin has fewer than two tokens"),
        ("run", &["-p", "xxxx", "--ctx", "3"], "4 tokens do not fit: the context holds 3, 0 are used"),
        ("run", &["-p", "xxxx", "--ctx", "3"], "(--ctx; this model has at most 16384)"),
        ("run", &["-p", ""], "the prompt is empty"),
        ("run", &["-f", "/no/such/file"], "cannot read /no/such/file"),
        ("logits", &["--tokens", "1,261"], "token 261 is outside the vocabulary of 261 tokens"),
        ("perplexity", &["--file", "/no/such/file"], "cannot read /no/such/file"),
        ("tokenize", &["--file", "/no/such/file"], "cannot read /no/such/file"),
    ] {
        let error = on_model(command, arguments).fails(1);
        assert!(error.starts_with("error: ") && error.contains(why), "{command} {arguments:?}: {error}");
    }
    let latin = file("latin1.txt", b"caf\xe9");
    assert!(on_model("run", &["-f", &latin]).fails(1).contains("it is not UTF-8 from byte 3 on"));
    let many = file("too-many.txt", "1 ".repeat(16_385).as_bytes());
    let error = on_model("logits", &["--tokens", &format!("@{many}")]).fails(1);
    assert_eq!(error, "error: 16385 tokens are too many: this model has a context of at most 16384\n");
    let short = file("short.txt", b"x");
    assert!(on_model("perplexity", &["--file", &short]).fails(1).contains("fewer than two tokens"));
}

#[test]
fn what_has_no_end_is_not_read_to_it() {
    let huge = file("huge.txt", b"");
    std::fs::File::options()
        .write(true)
        .open(&huge)
        .and_then(|file| file.set_len((1 << 30) + 1))
        .expect("a sparse file");
    let error = on_model("run", &["-f", &huge]).fails(1);
    assert!(error.contains(&huge) && error.contains("it is longer than 1073741824 bytes"), "{error}");
    let error = on_model("chat", &["--template", &huge]).fails(1);
    assert!(error.contains(&huge) && error.contains("it has 1073741825 bytes: expected at most 1048576"), "{error}");
    std::fs::remove_file(huge).expect("there");
    #[cfg(unix)]
    {
        let pipe = model().with_file_name("template.pipe").to_str().expect("UTF-8").to_owned();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("starts").success());
        for path in [&*pipe, "/dev/zero"] {
            assert!(on_model("chat", &["--template", path]).fails(1).contains(path));
        }
    }
}

/// What a shell completes is not always text.
#[cfg(target_os = "linux")]
#[test]
fn names_of_files_need_not_be_text() {
    use std::{
        ffi::{OsStr, OsString},
        os::unix::ffi::{OsStrExt, OsStringExt},
    };
    let name = |ending: &str| OsString::from_vec([b"caf\xe9", ending.as_bytes()].concat());
    let put = |ending: &str, bytes: &[u8]| {
        let path = model().with_file_name(name(ending));
        std::fs::write(&path, bytes).expect("written");
        path.into_os_string()
    };
    let tiny = put(".gguf", &std::fs::read(model()).expect("the model"));
    let template = put(".jinja", b"{{ messages[0].content }}");
    let ids = put(".ids", b"1,2");
    let at_ids = OsString::from_vec([b"@", ids.as_bytes()].concat());
    let out = model().with_file_name(name("-out.gguf"));
    let text = |text: &'static str| OsStr::new(text);
    run([text("tokenize"), &tiny, text("--text"), text("x")]).ok();
    run([text("run"), &tiny, text("--chat"), text("-p"), text("x"), text("-n1"), text("--template"), &template]).ok();
    assert_eq!(run([text("logits"), &tiny, text("--tokens"), &at_ids]).ok().lines().count(), 2);
    run([text("synth"), text("qwen2-tiny"), out.as_os_str(), text("--vocab"), &tiny]).ok();
    assert!(out.exists());
    let absent = name("-absent.gguf");
    assert!(
        run([text("run"), &absent, text("-p"), text("x")]).fails(1).starts_with("error: no file caf\u{fffd}-absent")
    );
}

#[test]
fn run_prints_the_prompt_then_what_it_made() {
    let report = generated(&["-n", "20"]);
    let text = report["text"].as_str().expect("text");
    let done = on_model("run", &["-p", "the king", "-n", "20"]);
    for part in ["prompt 6 tokens", "| 20 tokens", "seed 42", "max_tokens", "tokens/s", "first token", "load"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    assert_eq!(done.ok().trim_end_matches('\n'), format!("the king{text}").trim_end_matches('\n'));
    let bare = on_model("run", &["-p", "the king", "-n", "20", "--no-echo"]).ok();
    assert_eq!(bare.trim_end_matches('\n'), text.trim_end_matches('\n'));
    assert_eq!(on_model("run", &["-p", "the king", "-n", "0"]).ok(), "the king\n");
}

#[test]
fn without_a_model_the_bundled_one_runs() {
    let report = run(["run", "-p", "Once upon a time", "-n", "4", "--temp", "0", "--json"]).json();
    assert_eq!(report["model"], "tiny-mimo");
    let named = run(["run", "tiny-mimo", "-p", "Once upon a time", "-n", "4", "--temp", "0", "--json"]).json();
    assert_eq!((&report["text"], &report["tokens"]), (&named["text"], &named["tokens"]));
    for command in ["run", "logits", "bench"] {
        assert!(run([command, "--help"]).ok().contains("tiny-mimo"), "{command} names it");
    }
}

#[test]
fn run_json_has_its_shape() {
    let report = generated(&["-n", "7", "--threads", "2", "--seed", "9"]);
    let mut keys: Vec<&str> = report.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["finish", "model", "prompt", "stats", "text", "tokens"]);
    assert_eq!(report["model"], model().to_str().expect("UTF-8"));
    assert_eq!((&report["prompt"], &report["finish"]), (&Value::from("the king"), &Value::from("max_tokens")));
    assert_eq!(ids_in(&report["tokens"]).len(), 7);
    let stats = &report["stats"];
    assert_eq!((stats["prompt_tokens"].as_u64(), stats["tokens"].as_u64()), (Some(6), Some(7)));
    assert_eq!((stats["seed"].as_u64(), stats["threads"].as_u64()), (Some(9), Some(2)));
    assert_eq!(stats["cached_tokens"], 0);
    assert!(stats["isa"].is_string());
    for time in ["load_s", "prompt_s", "prompt_tokens_per_s", "first_token_s", "decode_s", "tokens_per_s"] {
        assert!(stats[time].as_f64().is_some_and(|value| value > 0.0), "{time}: {stats}");
    }
}

#[test]
fn a_seed_repeats_its_text() {
    let tokens = |arguments: &[&str]| ids_in(&generated(arguments)["tokens"]);
    let first = tokens(&["-n", "40", "--temp", "1"]);
    assert_eq!(first, tokens(&["-n", "40", "--temp", "1", "--seed", "42"]));
    assert_ne!(first, tokens(&["-n", "40", "--temp", "1", "--seed", "43"]));
    let greedy = tokens(&["-n", "40", "--temp", "0", "--threads", "1"]);
    assert_eq!(greedy, tokens(&["-n", "40", "--temp", "0", "--threads", "2", "--seed", "7"]));
}

#[test]
fn the_prompt_may_come_from_stdin_or_a_file() {
    let path = file("prompt.txt", b"the king\n");
    let model = model();
    let model = model.to_str().expect("UTF-8");
    let given = on_model("run", &["-n", "9", "-p", "the king"]).ok();
    assert_eq!(on_model("run", &["-n", "9", "-f", &path]).ok(), given);
    for input in ["the king", "the king\n", "the king\r\n"] {
        assert_eq!(run_with(["run", model, "-n", "9", "-p", "-"], input).ok(), given);
    }
}

#[test]
fn stop_strings_and_the_end_of_the_text_end_it() {
    let whole = generated(&["-n", "40", "--temp", "0"]);
    let whole = whole["text"].as_str().expect("text");
    let stop = whole.chars().rev().find(char::is_ascii_graphic).expect("some ASCII").to_string();
    let report = generated(&["-n", "40", "--temp", "0", "--stop", "never this", "--stop", &stop]);
    assert_eq!(report["finish"], "stop_string");
    assert_eq!(report["text"], whole[..whole.find(&stop).expect("it is in there")]);

    let any = ["-n", "200", "--temp", "100", "--top-k", "0", "--top-p", "1", "--seed"];
    let (seed, ended) = (0..40)
        .map(|seed: u32| (seed.to_string(), generated(&[&any[..], &[&seed.to_string()]].concat())))
        .find(|(_, report)| report["finish"] == "end_of_text")
        .expect("one of 40 nearly uniform texts ends by itself");
    let ignored = generated(&[&any[..], &[&seed, "--ignore-eos"]].concat());
    let (ended, ignored) = (ids_in(&ended["tokens"]), ids_in(&ignored["tokens"]));
    assert!(ended.len() < 200 && ignored.len() == 200 && ignored.starts_with(&ended));

    let full = generated(&["--ctx", "16", "-n", &usize::MAX.to_string()]);
    assert_eq!((&full["finish"], ids_in(&full["tokens"]).len()), (&Value::from("context_full"), 10));
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let model = model();
    let model = model.to_str().expect("UTF-8");
    let ids = file("many.txt", "1 ".repeat(500).as_bytes());
    let ids = format!("@{ids}");
    for arguments in [
        &["run", model, "-p", "the king", "-n", "9999", "--ctx", "16384", "--temp", "0"][..],
        &["logits", model, "--tokens", &ids],
        &["completions", "bash"],
        &["bench", model, "-p", "1", "-n", "1", "--reps", "1"],
        &["bench", model, "-p", "1", "-n", "1", "--reps", "1", "--json"],
    ] {
        let mut child = halfbyte(arguments).spawn().expect("starts");
        let mut byte = [0];
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut byte).expect("one byte");
        drop(stdout);
        let done: Done = child.wait_with_output().expect("ends").into();
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn logits_are_one_row_a_token_and_depend_on_the_past_only() {
    let all = rows(&["--tokens", "1,2,3,4,5"]);
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [VOCAB; 5]);
    let exact = |rows: &[Vec<f32>]| rows.iter().flatten().map(|logit| logit.to_bits()).collect::<Vec<_>>();
    assert_eq!(exact(&rows(&["--tokens", "1,2,3", "--threads", "2"])), exact(&all[..3]));
    assert_ne!(exact(&rows(&["--tokens", "9,2,3"])), exact(&all[..3]));
    let ids = file("ids.txt", b"[1, 2\n3]\n");
    assert_eq!(exact(&rows(&["--tokens", &format!("@{ids}")])), exact(&all[..3]));

    let single = rows(&["--tokens", "1,2,3,4,5", "--kv", "f32"]);
    assert_ne!(exact(&single), exact(&all), "another cache");
    for (a, b) in single.iter().flatten().zip(all.iter().flatten()) {
        assert!((a - b).abs() < 0.05, "{a} {b}");
    }
}

#[test]
fn mtp_rows_come_from_the_file_beside_the_model() {
    let trunk = rows(&["--tokens", "1,2,3,4"]);
    let mtp = rows(&["--tokens", "1,2,3,4", "--mtp"]);
    assert_eq!(mtp.iter().map(Vec::len).collect::<Vec<_>>(), [VOCAB; 3]);
    assert!(mtp.iter().all(|row| !trunk.contains(row)));
    let alone = file("alone.gguf", &std::fs::read(model()).expect("the model"));
    let error = run(["logits", &alone, "--tokens", "1,2", "--mtp"]).fails(1);
    assert!(error.contains("multi-token-prediction"), "{error}");
    assert_eq!(run(["logits", "tiny-mimo", "--tokens", "1,2", "--mtp"]).ok().lines().count(), 1);
}

#[test]
fn tokenize_needs_a_vocabulary_only() {
    for model in [model().to_str().expect("UTF-8").to_owned(), vocabulary()] {
        let ids = |arguments: &[&str]| run(["tokenize", &model].iter().chain(arguments)).ok();
        assert_eq!(ids(&["--text", "the cat"]), "[257,32,99,97,116]\n");
        assert_eq!(ids(&["--text", ""]), "[]\n");
        assert_eq!(ids(&["--text", "<|im_end|>", "--special"]), "[260]\n");
        assert_eq!(ids(&["--text", "<|im_end|>"]), "[60,124,105,109,95,101,110,100,124,62]\n");
        let path = file("cat.txt", "é\n".as_bytes());
        assert_eq!(ids(&["--file", &path]), "[195,169,10]\n");
    }
    let real = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/vocab/ggml-vocab-qwen2.gguf");
    if std::path::Path::new(real).exists() {
        assert_eq!(run(["tokenize", real, "--text", "Hello world"]).ok(), "[9707,1879]\n");
    } else {
        println!("skipped: {real} is absent");
    }
    let error = run(["run", &vocabulary(), "-p", "x"]).fails(1);
    assert!(error.contains("token_embd.weight"), "{error}");
}

/// Computes from `logits` what `perplexity` computes, one process a window.
fn expected_nll(tokens: &[u32], context: usize) -> f64 {
    let mut windows = std::collections::BTreeMap::new();
    (1..tokens.len())
        .map(|position| {
            // The first window that reaches the token scores it.
            let start = (0..).step_by(context / 2).find(|start| start + context > position).expect("one does");
            let rows = windows.entry(start).or_insert_with(|| {
                let window = &tokens[start..tokens.len().min(start + context)];
                let ids: Vec<String> = window.iter().map(u32::to_string).collect();
                rows(&["--tokens", &ids.join(",")])
            });
            let logits: Vec<f64> = rows[position - 1 - start].iter().map(|&logit| f64::from(logit)).collect();
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            sum.ln() - logits[tokens[position] as usize]
        })
        .sum()
}

#[test]
fn perplexity_agrees_with_the_logits() {
    let text = "Once upon a time there was a king who had the — no, three daughters.\n";
    let path = file("king.txt", text.as_bytes());
    let tokens = ids_in(&on_model("tokenize", &["--text", text]).json());
    for context in [2, 9, 16, 4096] {
        let report = on_model("perplexity", &["--file", &path, "--ctx", &context.to_string(), "--json"]).json();
        let number = |key: &str| report[key].as_f64().expect("a number");
        assert_eq!(report["bytes"], text.len());
        assert_eq!(report["tokens"], tokens.len() - 1);
        let nll = expected_nll(&tokens, context);
        assert!((number("nll") / nll - 1.0).abs() < 1e-9, "context {context}: {report}, expected {nll}");
        assert!((number("ppl") / (nll / (tokens.len() - 1) as f64).exp() - 1.0).abs() < 1e-9);
        assert!((number("bits_per_byte") / (nll / 2_f64.ln() / text.len() as f64) - 1.0).abs() < 1e-9);
        assert_eq!(report.as_object().expect("an object").len(), 5);
    }
    let line = on_model("perplexity", &["--file", &path]).ok();
    assert!(line.starts_with("perplexity ") && line.contains(" bits/byte") && line.lines().count() == 1, "{line}");
}

#[test]
fn inspect_adds_up() {
    let report = on_model("inspect", &["--json"]).json();
    assert_eq!(report["metadata"]["general.architecture"], "qwen2");
    assert_eq!(report["metadata"]["qwen2.rope.freq_base"], 1e4);
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"]["len"], VOCAB);
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"]["first"][0], "Ā");
    assert_eq!(report["file_type"]["name"], "f32");
    assert_eq!(report["bits_per_weight"], 32.0);
    let tensors = report["tensors"].as_array().expect("an array");
    assert_eq!(tensors[0]["name"], "token_embd.weight");
    assert_eq!(tensors[0]["shape"], serde_json::json!([32, VOCAB]));
    let bytes: u64 = tensors.iter().map(|tensor| tensor["bytes"].as_u64().expect("a number")).sum();
    assert_eq!(report["bytes"], bytes);
    assert_eq!(report["parameters"], bytes / 4);
    assert_eq!(report["totals"]["f32"]["tensors"], tensors.len());

    let text = on_model("inspect", &[]).ok();
    for part in ["general.name", "token_embd.weight", "32 x 261", "32.000 bits per weight", "(array of strings, 261"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(run(["inspect", &vocabulary()]).ok().contains("0 tensors"));
}

#[test]
fn a_file_cannot_write_to_the_terminal() {
    let mut bytes = std::fs::read(model()).expect("the model");
    let at = bytes.windows(4).position(|part| part == b"tiny").expect("its name");
    bytes[at] = 0x1b;
    let path = file("escape.gguf", &bytes);
    let text = run(["inspect", &path]).ok();
    assert!(text.contains("\\u{1b}iny") && !text.contains('\u{1b}'), "{text}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_text_where_it_is() {
    support::heed_signals();
    let model = model();
    let model = model.to_str().expect("UTF-8");
    let arguments = ["run", model, "-p", "x", "-n", "100000", "--ctx", "16384", "--ignore-eos"];
    for format in [&[][..], &["--json"]] {
        let mut child = halfbyte(arguments.iter().chain(format)).spawn().expect("starts");
        let mut stdout = child.stdout.take().expect("a pipe");
        let mut text = vec![0; 40];
        if format.is_empty() {
            stdout.read_exact(&mut text).expect("a text begins");
        } else {
            text.clear();
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        support::kill("INT", child.id());
        stdout.read_to_end(&mut text).expect("its end");
        let done = child.wait_with_output().expect("ends");
        let notes = String::from_utf8_lossy(&done.stderr);
        assert_eq!((done.status.code(), text.last()), (Some(130), Some(&b'\n')), "{notes}");
        if format.is_empty() {
            assert!(notes.contains("tokens/s"), "{notes}");
        } else {
            let report: Value = serde_json::from_slice(&text).expect("JSON");
            assert_eq!(report["finish"], "cancelled");
            assert!(report["tokens"].as_array().is_some_and(|tokens| !tokens.is_empty()));
        }
    }
}

#[test]
fn text_comes_from_stdin_too() {
    let ids = |done: Done| done.ok();
    let expected = ids(on_model("tokenize", &["--text", "the end\n"]));
    let model = model();
    let model = model.to_str().expect("UTF-8");
    assert_eq!(ids(run_with(["tokenize", model, "--file", "-"], "the end\n")), expected);
    let text = "the end, the very end";
    let expected = on_model("perplexity", &["--file", &file("end.txt", text.as_bytes())]).ok();
    assert_eq!(run_with(["perplexity", model, "--file", "-"], text).ok(), expected);
    let all = ["-n", "5", "--temp", "0", "-p", text];
    assert_eq!(run_with(["run", model, "-n", "5", "--temp", "0", "-f", "-"], text).ok(), on_model("run", &all).ok());
}

#[test]
fn a_file_that_names_no_pre_tokenizer_can_be_told_one() {
    let mut bytes = std::fs::read(model()).expect("the model");
    let at = bytes.windows(5).position(|part| part == b"qwen2").expect("the architecture");
    let pre = bytes[at + 5..].windows(5).rposition(|part| part == b"qwen2").expect("the pre-tokenizer") + at + 5;
    bytes[pre + 4] = b'9';
    let path = file("pre.gguf", &bytes);
    let all = ["-p", "the", "-n", "3", "--temp", "0"];
    let error = run(["run", &path].iter().chain(&all)).fails(1);
    assert!(error.contains("pre-tokenizer \"qwen9\"") && error.contains("--pre"), "{error}");
    let found = run(["run", &path, "--pre", "qwen2"].iter().chain(&all)).ok();
    assert_eq!(found, on_model("run", &all).ok());
    assert!(run(["tokenize", &path, "--text", "x", "--pre", "dbrx"]).ok().starts_with('['));
    run(["tokenize", &path, "--text", "x", "--pre", "other"]).fails(2);
}

#[test]
fn verbose_tells_what_happens_on_stderr() {
    let quiet = on_model("run", &["-p", "x", "-n", "2"]);
    let verbose = on_model("run", &["-p", "x", "-n", "2", "-v"]);
    assert!(verbose.stderr.contains("load{") && verbose.stderr.contains("prompt{tokens=1}"), "{}", verbose.stderr);
    assert!(!quiet.stderr.contains("load{"));
    assert!(on_model("run", &["-p", "x", "-n", "2", "-vv"]).stderr.contains("decode{"));
    assert_eq!(quiet.ok(), verbose.ok());
}
