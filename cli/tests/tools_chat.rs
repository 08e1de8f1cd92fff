//! Conversations: `chat`, and `run --chat`.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
};

use serde_json::Value;
use support::{Done, file, halfbyte, model, on_model, run, run_with};
#[cfg(unix)]
use support::{code, heed_signals, kill};

/// `chat` on the tiny model with `input` on its stdin.
fn chat(arguments: &[&str], input: impl AsRef<[u8]>) -> Done {
    let model = model();
    let model = model.to_str().expect("UTF-8");
    run_with(["chat", model, "--temp", "0", "-n", "12"].iter().chain(arguments), input)
}

/// Numbers before ` of ` in the lines of `/stats`: how full the context was.
fn fill(done: &Done) -> Vec<usize> {
    let lines = done.stderr.lines().filter_map(|line| line.strip_prefix("context: "));
    lines.map(|line| line.split(' ').next().expect("a number").parse().expect("a number")).collect()
}

/// As `chat` on the bundled model, whose answers are text.
fn chat_bundled(arguments: &[&str], input: &str) -> Done {
    run_with(["chat", "tiny-mimo", "--temp", "0", "-n", "12"].iter().chain(arguments), input)
}

/// Numbers of the lines of `/stats` about the last turn: tokens of its prompt.
fn prompts(done: &Done) -> Vec<usize> {
    let parts = done.stderr.lines().filter_map(|line| line.split(" | prompt ").nth(1));
    parts.map(|part| part.split(' ').next().expect("a number").parse().expect("a number")).collect()
}

#[test]
fn a_conversation_keeps_its_session() {
    let done = chat_bundled(&[], "who?\n/stats\nwhy?\n/stats\n/reset\n/stats\nwho?\n/stats\n");
    // start us er newline who? end newline start assistant newline.
    let turn = 1 + 3 + 3 + 1 + 1 + 1 + 3 + 1;
    let next = 2 + turn;
    assert_eq!(fill(&done), [turn + 12, turn + 12 + next + 12, 0, turn + 12]);
    assert_eq!(prompts(&done), [turn, next, 0, turn], "only what is new is run");
    let first = chat_bundled(&[], "who?\n").ok();
    let both = done.ok();
    assert!(both.starts_with(&first) && both.ends_with(&first), "/reset starts anew: {both:?} {first:?}");

    // Bytes that are no text are said again as U+FFFD: the answer is not what it was, and its turn is run again.
    let done = chat(&[], "who?\n/stats\nwhy?\n/stats\n");
    assert_eq!(fill(&done)[0], 23 + 12);
    assert!(prompts(&done)[1] > 25 && fill(&done)[1] == 23 + 1 + prompts(&done)[1] + 12, "{}", done.stderr);
    let second = chat(&[], "why?\n").ok();
    let first = chat(&[], "who?\n").ok();
    assert!(!done.ok()[first.len()..].starts_with(&second), "the second answer depends on the first turn");
}

#[test]
fn what_the_user_types_is_text() {
    let plain = fill(&chat(&[], "0123456789\n/stats\n"));
    assert_eq!(plain, fill(&chat(&[], "<|im_end|>\n/stats\n")), "ten bytes, ten tokens");
    assert_eq!(fill(&chat(&["--system", "<|im_end|>"], "0123456789\n/stats\n"))[0], plain[0] + 1 + 7 + 10 + 2);
    let done = chat(&[], "//help\n/bogus\n/help\n/stats\n/quit\nnot read\n");
    assert!(done.stderr.contains("unknown command \"/bogus\"") && done.stderr.contains("/reset"), "{}", done.stderr);
    assert_eq!(fill(&done), [plain[0] - 10 + 5], "one turn: /help");
    done.ok();
}

#[test]
fn a_full_context_is_told_and_loses_nothing() {
    let long = "x".repeat(100);
    let done = chat_bundled(&["--ctx", "50"], &format!("who?\n{long}\n/stats\nwhy?\n/stats\n"));
    assert!(done.stderr.contains("not sent: it takes 107 tokens, and 4 of 50 are used"), "{}", done.stderr);
    assert!(done.stderr.contains("(cut short: the context of 50 tokens is full"), "{}", done.stderr);
    assert_eq!((fill(&done), prompts(&done)), (vec![26, 50], vec![14, 16]));
    assert!(done.code == Some(1) && done.stderr.ends_with("error: 1 of the turns got no answer\n"), "{done:?}");
}

/// The older half of the turns is, and what was said before them is not.
#[test]
fn turns_are_forgotten_where_the_context_ends() {
    let talk = |text: &str| chat_bundled(&["--system", "Be brief.", "--ctx", "110"], text);
    let done = talk("who?\nwhy?\nwhen?\n/stats\n");
    assert_eq!((fill(&done).len(), done.stderr.contains("forgotten")), (1, false), "{}", done.stderr);
    let long = "and where was it, and how?";
    let done = talk(&format!("who?\nwhy?\nwhen?\n{long}\n/stats\n"));
    assert!(done.stderr.contains("(the context is full: 2 of 3 turns are forgotten)"), "{}", done.stderr);
    assert!(prompts(&done)[0] > long.len(), "the rest is run again: {}", done.stderr);
    done.ok();
}

#[test]
fn a_line_that_is_no_text_ends_nothing() {
    let done = chat(&[], b"h\xff\xfe\nwho?\n/stats\n");
    assert!(done.stderr.contains("not sent: the line is not UTF-8"), "{}", done.stderr);
    assert_eq!((fill(&done).len(), done.code), (1, Some(1)), "{}", done.stderr);
}

#[test]
fn several_lines_can_be_one_turn() {
    let turn = |input: &str| fill(&chat(&[], format!("{input}\n/stats\n")));
    let ten = turn("0123456789");
    assert_eq!(turn("\"\"\"\n/quit\nfour\n\"\"\""), ten, "one turn of ten bytes");
    assert_eq!(turn("01234\\\n6789"), ten);
    let done = chat(&[], "\"\"\"\nwho?\n");
    assert!(done.stderr.contains("not sent: the text has no closing \"\"\""), "{}", done.stderr);
    done.fails(1);
}

#[test]
fn templates_are_files_or_built_in() {
    let turn = |template: &str| fill(&chat(&["--template", template], "who?\n/stats\n"))[0] - 12;
    assert_eq!(turn("mimo"), 23, "the model's own");
    assert_eq!(turn("phi-4"), 1 + 4 + 10 + 4 + 1 + 1 + 9 + 10, "whose <|im_sep|> is ten bytes of text here");
    let template = file("template.jinja", b"{% for m in messages %}[{{ m.content }}]{% endfor %}<|im_end|>");
    assert_eq!(turn(&template), 1 + 4 + 1 + 1);

    let model = model();
    let model = model.to_str().expect("UTF-8");
    let fails = |template: &str| run(["chat", model, "--template", template]).fails(1);
    let expected =
        "error: no file phi-5 and no chat template of that name (built-in: mimo, phi-4, phi-4-mini, phi-moe)\n";
    assert_eq!(fails("phi-5"), expected);
    let bad = file("bad.jinja", b"a\n{% include 'x' %}");
    let error = fails(&bad);
    assert!(
        error.contains("bad.jinja") && error.contains("there is no tag \"include\"") && error.contains("(line 2)"),
        "{error}"
    );
}

#[test]
fn a_template_can_refuse_a_turn() {
    let source = b"{% for m in messages %}{% if 'no' in m.content %}{{ raise_exception('not that') }}{% endif %}{{ m.content }}{% endfor %}";
    let template = file("refusing.jinja", source);
    let done = chat(&["--template", &template], "yes\n/stats\nno\n/stats\n");
    assert!(done.stderr.contains("not sent: the chat template refuses this conversation: not that"), "{}", done.stderr);
    assert_eq!((fill(&done), done.code), (vec![3 + 12, 3 + 12], Some(1)));
}

#[test]
fn run_can_ask_instead_of_continuing() {
    let ask = |arguments: &[&str]| {
        let mut all = vec!["--chat", "-p", "who?", "--temp", "0", "-n", "12"];
        all.extend(arguments);
        on_model("run", &all)
    };
    let json = ask(&["--json"]).json();
    assert_eq!((&json["prompt"], &json["stats"]["prompt_tokens"]), (&Value::from("who?"), &Value::from(23)));
    // The answer alone, and the one that `chat` gives.
    assert_eq!(ask(&[]).ok(), chat(&[], "who?\n").ok());
    let system = ask(&["--json", "--system", "<|im_end|>"]).json();
    assert_eq!(system["stats"]["prompt_tokens"], Value::from(23 + 1 + 7 + 10 + 2));
    assert_eq!(ask(&["--json", "--template", "phi-4"]).json()["stats"]["prompt_tokens"], Value::from(40));
    let error = on_model("run", &["-p", "x", "--system", "y"]).fails(2);
    assert!(error.contains("--chat"), "{error}");
    assert!(ask(&["--ctx", "20"]).fails(1).contains("too long for a context of 20 tokens"));
}

#[test]
fn every_bundled_model_can_chat() {
    for model in ["tiny-mimo", "tiny-phimoe"] {
        let done = run_with(["chat", model, "--temp", "0", "-n", "4"], "who?\nwhy?\n/stats\n");
        assert!(prompts(&done)[0] < fill(&done)[0] / 2 + 4, "{model}: {}", done.stderr);
        done.ok();
    }
}

#[test]
fn a_model_without_the_tags_cannot_chat() {
    let mut bytes = std::fs::read(model()).expect("the model");
    let at = bytes.windows(12).position(|part| part == b"<|im_start|>").expect("its tag");
    bytes[at + 2] = b'x';
    let path = file("untagged.gguf", &bytes);
    assert!(run(["chat", &path]).fails(1).contains("<|im_start|>"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_and_then_the_program() {
    let model = model();
    let model = model.to_str().expect("UTF-8");
    let arguments = ["chat", model, "--temp", "0", "--ctx", "16384"];
    heed_signals();
    let mut child = halfbyte(arguments).stdin(Stdio::piped()).spawn().expect("starts");
    let id = child.id();
    let interrupt = || kill("INT", id);
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut notes = BufReader::new(child.stderr.take().expect("a pipe")).lines().map(|line| line.expect("UTF-8"));

    writeln!(stdin, "who?").expect("written");
    stdout.read_exact(&mut [0]).expect("an answer begins");
    interrupt();
    assert_eq!(notes.next().as_deref(), Some("(stopped)"));
    // Nothing is running now, and the conversation goes on.
    writeln!(stdin, "/stats").expect("written");
    assert!(notes.next().is_some_and(|line| line.contains("tokens/s")));
    assert!(notes.next().is_some_and(|line| line.contains("of 16384 tokens")));
    interrupt();
    assert_eq!(code(child), 130);
}

#[cfg(unix)]
#[test]
fn what_ends_programs_ends_the_answer_and_the_text() {
    heed_signals();
    let model = model();
    let model = model.to_str().expect("UTF-8");
    for (signal, expected) in [("TERM", 143), ("HUP", 129)] {
        for arguments in [&["chat", model][..], &["run", model, "-n", "16000", "-p", "x"]] {
            let more = ["--temp", "0", "--ctx", "16384"];
            let mut child = halfbyte(arguments.iter().chain(&more)).stdin(Stdio::piped()).spawn().expect("starts");
            let mut stdin = child.stdin.take().expect("a pipe");
            let _ = writeln!(stdin, "who?\nand then?");
            let mut stdout = child.stdout.take().expect("a pipe");
            stdout.read_exact(&mut [0]).expect("an answer begins");
            kill(signal, child.id());
            // Nobody has to read what it still wants to say.
            std::io::copy(&mut stdout, &mut std::io::sink()).expect("read");
            assert_eq!(code(child), expected, "{arguments:?}");
        }
    }
}
