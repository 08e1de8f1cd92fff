//! `halfbyte prefix`, `halfbyte bench --concurrent` and `--latency`: what they say, and that they are right about it.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod folder;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use folder::Folder;
use support::{Done, run, run_with};

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

/// `run` and `chat` go on as they would without the file, and need not run what is in it.
#[test]
fn texts_and_conversations_begin_with_a_file() {
    let folder = Folder::new("prefix-begin");
    let (story, brief) = (folder.path("story.prefix"), folder.path("brief.prefix"));
    let text = "Once upon a time there was a king who had three sons. ".repeat(5);
    let saved = run(["prefix", "save", "tiny-mimo", &story, "-p", &text, "--json"]).json();
    assert!(saved["file"] == story && saved["pages"].as_u64() > Some(1), "{saved}");
    assert_eq!(saved["bytes"], std::fs::metadata(&story).expect("the file").len());

    let longer = format!("{text}And then");
    let go = |more: &[&str]| {
        run(["run", "tiny-mimo", "-p", &longer, "-n", "20", "--temp", "0", "--json"].iter().chain(more))
    };
    let (alone, known) = (go(&[]).json(), go(&["--prefix", &story]).json());
    assert_eq!((&alone["text"], &alone["tokens"]), (&known["text"], &known["tokens"]));
    assert_eq!(alone["stats"]["cached_tokens"], 0);
    assert_eq!(alone["stats"]["prompt_tokens"], known["stats"]["prompt_tokens"]);
    let count = known["stats"]["cached_tokens"].as_u64().expect("a number");
    assert!(count > 64 && count < known["stats"]["prompt_tokens"].as_u64().expect("a number"), "{known}");
    let done = run(["run", "tiny-mimo", "-p", &longer, "-n", "2", "--prefix", &story]);
    assert!(done.stderr.contains(&format!(" ({count} known), ")) && !done.stderr.contains("note: "), "{done:?}");

    // Other keys and values: it is no error, and said.
    let other = go(&["--prefix", &story, "--kv", "f32"]);
    assert!(other.stderr.contains("story.prefix knows nothing of this prompt"), "{}", other.stderr);
    assert_eq!(other.json()["stats"]["cached_tokens"], 0);
    assert!(go(&["--prefix", &story, "--isa", "scalar"]).fails(1).contains("instruction set"));
    assert!(go(&["--prefix", &folder.path("none")]).fails(1).contains("cannot use"));

    // What a chat begins with is more than the text of its system message.
    let system = "Answer each question in one short sentence, as a king would. ".repeat(3);
    let beginning = ["--chat", "--system", &system];
    run(["prefix", "save", "tiny-mimo", &brief].iter().chain(&beginning)).ok();
    let listed = run(["prefix", "list", "tiny-mimo", &brief, "--json"]).json();
    let tokens = listed["prefixes"][0]["tokens"].as_u64().expect("a number");
    let ids = run(["tokenize", "tiny-mimo", "--text", &format!("system\n{system}")]).json();
    assert_eq!(tokens as usize, 1 + ids.as_array().expect("ids").len() + 2, "start, the text, end, newline: {listed}");
    assert_eq!((&listed["prefixes"][0]["kv"], &listed["prefixes"][0]["factors"]), (&"f16".into(), &"short".into()));
    let loaded = run(["prefix", "load", "tiny-mimo", &brief, "-p", "Who?", "--json"].iter().chain(&beginning)).json();
    assert_eq!((&loaded["pages"], &loaded["cached_tokens"]), (&tokens.div_ceil(64).into(), &tokens.into()), "{loaded}");
    assert!(loaded["load_s"].as_f64() > Some(0.0) && loaded["first_token_s"].as_f64() > Some(0.0), "{loaded}");

    let ask = |more: &[&str]| {
        let ask = ["run", "tiny-mimo", "-p", "Who?", "-n", "12", "--temp", "0", "--json"];
        run(ask.iter().chain(&beginning).chain(more)).json()
    };
    let (alone, known) = (ask(&[]), ask(&["--prefix", &brief]));
    assert_eq!((&alone["text"], &known["stats"]["cached_tokens"]), (&known["text"], &tokens.into()));
    assert_eq!(known["stats"]["prompt_tokens"], loaded["prompt_tokens"], "the same prompt");
    let chat = |more: &[&str]| {
        let chat = ["chat", "tiny-mimo", "-n", "12", "--temp", "0", "--system", &system];
        run_with(chat.iter().chain(more), "Who?\nWhy?\n/stats\n/reset\nWho?\n/stats\n")
    };
    let (alone, known) = (chat(&[]), chat(&["--prefix", &brief]));
    assert_eq!(known.stderr.matches(&format!(" ({tokens} known), ")).count(), 1, "after /reset: {}", known.stderr);
    let other = chat(&["--prefix", &story]);
    assert_eq!(other.stderr.matches("knows nothing").count(), 1, "{}", other.stderr);
    let texts = [alone, known, other].map(Done::ok);
    assert!(texts[0] == texts[1] && texts[0] == texts[2] && !texts[0].is_empty(), "{texts:?}");
}

#[test]
fn a_template_may_want_a_user() {
    let folder = Folder::new("prefix-template");
    let (file, template) = (folder.path("p"), folder.path("t.jinja"));
    let source = "{% for m in messages %}{% if m.role == 'user' %}[{{ messages[0].content }}|{{ m.content }}]\
                  {% endif %}{% endfor %}{% if messages|length < 2 %}{{ raise_exception('no user') }}{% endif %}";
    std::fs::write(&template, source).expect("written");
    let save = |more: &[&str]| {
        let save = ["prefix", "save", "tiny-mimo", &file, "--chat", "--system", "Be brief.", "--template", &template];
        run(save.iter().chain(more))
    };
    let said = save(&[]).fails(1);
    assert!(said.contains("-p adds a message of a user") && said.contains("no user"), "{said}");
    save(&["-p", "Who?"]).ok();
    let ask = ["--chat", "--system", "Be brief.", "--template", &template, "-p", "Why?", "--json"];
    let known = run(["prefix", "load", "tiny-mimo", &file].iter().chain(&ask)).json();
    assert!(known["cached_tokens"].as_u64() > Some(2), "{known}");
    for wrong in [
        &["--chat"][..],
        &["--system", "x"],
        &["--template", "mimo", "-p", "x"],
        &["--chat", "--special", "-p", "x"],
        &["-p", "x", "-f", "y"],
    ] {
        run(["prefix", "save", "tiny-mimo", &file].iter().chain(wrong)).fails(2);
    }
}

#[test]
fn markup_is_read_as_such_if_asked_for() {
    let folder = Folder::new("prefix-special");
    let (file, text) = (folder.path("p"), "<|im_start|>user\nHi<|im_end|>\n");
    let go = |more: &[&str]| run(["run", "tiny-mimo", "-p", text, "-n", "1", "--json"].iter().chain(more));
    let prompt = |report: &serde_json::Value| report["stats"]["prompt_tokens"].as_u64().expect("a number");
    let (plain, markup) = (go(&[]).json(), go(&["--special"]).json());
    let ids = run(["tokenize", "tiny-mimo", "--special", "--text", text]).json();
    assert_eq!(prompt(&markup) as usize, ids.as_array().expect("ids").len());
    assert!(prompt(&plain) > prompt(&markup), "{plain} {markup}");
    go(&["--special", "--chat"]).fails(2);
    run(["prefix", "save", "tiny-mimo", &file, "--special", "-p", text]).ok();
    let listed = run(["prefix", "list", "tiny-mimo", &file, "--json"]).json();
    assert_eq!(listed["prefixes"][0]["tokens"], prompt(&markup));
    assert_eq!(go(&["--special", "--prefix", &file]).json()["stats"]["cached_tokens"], prompt(&markup) - 1);
    let known = |more: &[&str]| {
        let load = ["prefix", "load", "tiny-mimo", &file, "-p", text, "--json"];
        run(load.iter().chain(more)).json()["cached_tokens"].clone()
    };
    assert_eq!((known(&[]), known(&["--special"])), (0.into(), (prompt(&markup) - 1).into()));
    for action in ["save", "load"] {
        let said = run(["prefix", action, "tiny-mimo", &file, "-p", ""]).fails(1);
        assert!(said.contains("the prompt is empty"), "{said}");
    }
}

/// Who saves waits for who does, and loses nothing of it. Not on Android, where the standard library locks no files.
#[cfg(not(target_os = "android"))]
#[test]
fn two_that_save_wait_for_each_other() {
    use std::{
        fs::File,
        io::{BufRead, BufReader},
    };

    let folder = Folder::new("prefix-wait");
    let file = folder.path("p");
    run(["prefix", "save", "tiny-mimo", &file, "-p", "The king said"]).ok();
    let lock = File::open(folder.path("p.lock")).expect("its lock");
    lock.lock().expect("nobody has it");
    let mut child =
        support::halfbyte(["prefix", "save", "tiny-mimo", &file, "-p", "Once upon a time"]).spawn().expect("starts");
    let mut said = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut said).expect("UTF-8");
    assert!(said.contains("another program is saving"), "{said}");
    // Meanwhile somebody else adds to the file.
    let other = folder.path("other");
    run(["prefix", "save", "tiny-mimo", &other, "-p", "The queen said"]).ok();
    std::fs::rename(&other, &file).expect("beside it");
    lock.unlock().expect("it was locked");
    assert!(child.wait().expect("ends").success());
    let list = run(["prefix", "list", "tiny-mimo", &file]).ok();
    assert!(
        list.lines().count() == 3
            && list.contains("The king")
            && list.contains("Once upon")
            && list.contains("The queen"),
        "{list}"
    );
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
