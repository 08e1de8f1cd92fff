//! Conversations in sessions: which template a model gets, and turns that run only what is new.

use halfbyte::{
    KvType, Model, RuntimeError, Session,
    chat::{ChatError, ChatTemplate, Message},
};
use halfbyte_formats::gguf::Strings;
use halfbyte_tests::{Golden, Parts, bits, model_on, session_on};

const CONTEXT: usize = 400;
const BATCH: usize = 16;
const CHATML: &[&str] = &["<|im_start|>", "<|im_end|>"];
const PHI_4: &[&str] = &["<|im_start|>", "<|im_end|>", "<|im_sep|>"];
const PHI_4_MINI: &[&str] = &["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>", "<|/tool|>"];
const PHI_MOE: &[&str] = &["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"];

/// A golden model with a vocabulary of all bytes and `control` tokens, byte-level or SentencePiece; it has as many rows
/// of embedding and head as that takes, the same again and again.
fn parts(name: &str, control: &[&str], sentence_piece: bool) -> Parts {
    let mut parts = Parts::of(&Golden::named(name).gguf);
    let mut others = 0x100u32..;
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let byte =
        |b: u32| char::from_u32(if printable(b) { b } else { others.next().expect("a code") }).expect("a character");
    let mut tokens: Vec<String> = match sentence_piece {
        true => (0..256).map(|b| format!("<0x{b:02X}>")).collect(),
        false => (0..256).map(byte).map(String::from).collect(),
    };
    tokens.extend(control.iter().map(|&name| name.to_owned()));
    let kinds: Vec<i32> = (0..tokens.len())
        .map(|id| {
            if id >= 256 {
                3
            } else if sentence_piece {
                6
            } else {
                1
            }
        })
        .collect();
    let rows = tokens.len();
    parts.put("tokenizer.ggml.model", if sentence_piece { "llama" } else { "gpt2" });
    parts.put("tokenizer.ggml.pre", "qwen2");
    parts.put("tokenizer.ggml.add_bos_token", false);
    parts.put("tokenizer.ggml.scores", vec![0.0_f32; rows]);
    parts.put("tokenizer.ggml.merges", Strings::default());
    parts.put("tokenizer.ggml.token_type", kinds);
    parts.put("tokenizer.ggml.tokens", tokens.iter().collect::<Strings>());
    for tensor in &mut parts.tensors {
        if ["token_embd.weight", "output.weight", "output.bias"].contains(&tensor.name.as_str()) {
            let last = tensor.dims.last_mut().expect("an extent");
            let row_bytes = tensor.data.len() / *last;
            *last = rows;
            tensor.data = tensor.data.iter().copied().cycle().take(rows * row_bytes).collect();
        }
    }
    parts
}

fn load(parts: &Parts) -> Model {
    model_on(&parts.gguf(), 2, None).expect("a valid model")
}

fn chosen(name: &str, control: &[&str], sentence_piece: bool) -> Result<Option<&'static str>, ChatError> {
    let model = load(&parts(name, control, sentence_piece));
    ChatTemplate::for_model(&model).map(|template| template.name())
}

#[test]
fn a_model_without_a_template_gets_the_one_of_its_family() {
    assert_eq!(chosen("untied", CHATML, false).expect("a template"), Some("mimo"));
    assert_eq!(chosen("phi4", PHI_4, false).expect("a template"), Some("phi-4"));
    assert_eq!(chosen("phi4-mini", PHI_4_MINI, false).expect("a template"), Some("phi-4-mini"));
    assert_eq!(chosen("phimoe", PHI_MOE, true).expect("a template"), Some("phi-moe"));
    assert_eq!(chosen("phi4", PHI_MOE, true).expect("a template"), Some("phi-moe"), "Phi-3");
}

#[test]
fn a_template_without_its_tokens_is_refused() {
    for (name, control, missing, template) in [
        ("untied", &CHATML[..1], "<|im_end|>", "mimo"),
        ("phi4", &PHI_4[1..], "<|im_start|>", "phi-4"),
        ("phi4-mini", &PHI_4_MINI[1..], "<|system|>", "phi-4-mini"),
        ("phimoe", &PHI_MOE[..3], "<|end|>", "phi-moe"),
    ] {
        match chosen(name, control, false) {
            Err(ChatError::MissingToken { token, template: found }) => assert_eq!((token, found), (missing, template)),
            other => panic!("{name}: {other:?}"),
        }
    }
    let model = model_on(&Golden::named("phi4").gguf, 1, None).expect("a valid model");
    assert!(
        matches!(ChatTemplate::for_model(&model), Err(ChatError::NoTemplate { architecture, .. }) if architecture == "phi3")
    );
}

#[test]
fn the_files_template_goes_first() {
    let mut parts = parts("untied", CHATML, false);
    parts.put(
        "tokenizer.chat_template",
        "{% for m in messages %}{{ bos_token }}{{ m.content }}{{ eos_token }}{% endfor %}",
    );
    parts.put("tokenizer.ggml.bos_token_id", 256_u32).put("tokenizer.ggml.eos_token_id", 257_u32);
    let model = load(&parts);
    let template = ChatTemplate::for_model(&model).expect("a template");
    assert_eq!(template.name(), None);
    let prompt = template.render(&[Message::user("a<|im_end|>")], true).expect("a prompt");
    assert_eq!(prompt.text(), "<|im_start|>a<|im_end|><|im_end|>");
    assert_eq!(prompt.tokens().map(|tokens| (tokens[0], tokens.len(), tokens[tokens.len() - 1])), Some((256, 13, 257)));

    // The begin-of-sequence token comes first, once, whoever writes it.
    parts.put("tokenizer.ggml.add_bos_token", true);
    let prompt =
        ChatTemplate::for_model(&load(&parts)).and_then(|template| template.render(&[Message::user("a")], true));
    assert_eq!(prompt.expect("a prompt").tokens(), Some(&[256, 97, 257][..]));
    parts.put("tokenizer.chat_template", "{{ messages[0].content }}");
    let prompt =
        ChatTemplate::for_model(&load(&parts)).and_then(|template| template.render(&[Message::user("a")], true));
    assert_eq!(prompt.expect("a prompt").tokens(), Some(&[256, 97][..]));

    parts.put("tokenizer.chat_template", "{% include 'x' %}");
    assert!(matches!(ChatTemplate::for_model(&load(&parts)), Err(ChatError::Syntax { line: 1, .. })));
}

/// A conversation's model, template and empty session.
fn conversation(name: &str, control: &[&str]) -> (Model, ChatTemplate, Session) {
    let model = load(&parts(name, control, false));
    let template = ChatTemplate::for_model(&model).expect("a template");
    let session = session_on(&model, KvType::F32, BATCH, CONTEXT).expect("a session");
    (model, template, session)
}

/// Tokens and logits of a new session that is given `messages` at once.
fn fresh(model: &Model, template: &ChatTemplate, messages: &[Message]) -> (Vec<u32>, Vec<u32>) {
    let mut session = session_on(model, KvType::F32, BATCH, CONTEXT).expect("a session");
    session.push_chat(template, messages).expect("it fits");
    state(&mut session)
}

fn state(session: &mut Session) -> (Vec<u32>, Vec<u32>) {
    let logits = bits(session.logits().expect("logits"));
    (session.tokens().to_vec(), logits)
}

#[test]
fn a_turn_runs_only_what_is_new() {
    let (model, template, mut session) = conversation("untied", CHATML);
    let mut messages = vec![Message::system("s"), Message::user("Hello")];
    // start, system, newline, s, end, newline; start, user, newline, Hello, end, newline; start, assistant, newline
    let first = (3 + 6 + 1) + (1 + 4 + 1 + 5 + 2) + (1 + 9 + 1) + 1;
    assert_eq!(session.push_chat(&template, &messages).expect("it fits"), first);
    assert_eq!(state(&mut session), fresh(&model, &template, &messages));

    // An answer, as if the model had given it.
    session.push_markup("Hi.").expect("it fits");
    messages.extend([Message::assistant("Hi."), Message::user("Bye")]);
    let second = 2 + (1 + 4 + 1 + 3 + 2) + (1 + 9 + 1);
    assert_eq!(session.push_chat(&template, &messages).expect("it fits"), second);
    assert_eq!(session.tokens().len(), first + 3 + second);
    assert_eq!(state(&mut session), fresh(&model, &template, &messages));

    // The same again: only the token whose logits are needed.
    assert_eq!(session.push_chat(&template, &messages).expect("it fits"), 1);
    assert_eq!(state(&mut session), fresh(&model, &template, &messages));

    // Another question instead of the last: back to where they differ.
    messages[3] = Message::user("Boo");
    assert_eq!(session.push_chat(&template, &messages).expect("it fits"), 2 + 2 + (1 + 9 + 1));
    assert_eq!(state(&mut session), fresh(&model, &template, &messages));
}

#[test]
fn answers_continue_their_prompt() {
    let (_, template, mut session) = conversation("phi4", PHI_4);
    let mut stop = halfbyte::StopRules::default();
    stop.max_tokens = Some(5);
    session.set_stop(stop).expect("good rules");
    let mut messages = Vec::new();
    for text in ["a", "b", "c"] {
        messages.push(Message::user(text));
        session.push_chat(&template, &messages).expect("it fits");
        let answer = session.by_ref().collect::<Result<String, _>>().expect("an answer");
        messages.push(Message::assistant(answer));
    }
    assert_eq!(messages.len(), 6);
}

#[test]
fn a_turn_that_does_not_fit_changes_nothing() {
    let (model, template, mut session) = conversation("untied", CHATML);
    let messages = [Message::user("Hello")];
    session.push_chat(&template, &messages).expect("it fits");
    let before = state(&mut session);
    let long = [Message::user("Hello"), Message::assistant("x"), Message::user("y".repeat(CONTEXT))];
    match session.push_chat(&template, &long) {
        Err(RuntimeError::ContextFull { need, context: CONTEXT, used }) => {
            assert_eq!(used, before.0.len());
            assert_eq!(need, 1 + 2 + (1 + 4 + 1 + CONTEXT + 2) + (1 + 9 + 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(state(&mut session), before);

    let refused = session.push_chat(&template, &[Message::new("<|im_end|>", "x")]);
    assert!(matches!(refused, Err(RuntimeError::Chat(ChatError::UnknownRole { .. }))), "{refused:?}");
    assert_eq!(state(&mut session), before);
    assert_eq!(before, fresh(&model, &template, &messages));

    let without = model_on(&Golden::named("untied").gguf, 1, None).expect("a valid model");
    let mut session = session_on(&without, KvType::F32, BATCH, CONTEXT).expect("a session");
    assert!(matches!(session.push_chat(&template, &messages), Err(RuntimeError::NoVocabulary)));
}

/// Cancels a turn in the middle of its prompt, and checks that nothing has changed.
fn cancelled(name: &str, control: &[&str], held: usize) {
    let (model, template, mut session) = conversation(name, control);
    let before = [Message::user("a".repeat(held))];
    session.push_chat(&template, &before).expect("it fits");
    let expected = state(&mut session);

    // Unlike what is held from the third token of the text on, so that tokens are forgotten and have to come back.
    let after = [Message::user(format!("aa{}", "b".repeat(300)))];
    let cancel = session.cancel_token();
    session.on_progress(move |done, _| {
        if done >= 3 * BATCH {
            cancel.cancel();
        }
    });
    let result = session.push_chat(&template, &after);
    assert!(matches!(result, Err(RuntimeError::Cancelled)), "{result:?}");
    session.cancel_token().reset();
    session.on_progress(|_, _| {});
    assert_eq!(session.tokens(), expected.0);
    assert_eq!(state(&mut session), expected);
    // And it goes on from there.
    session.push_chat(&template, &after).expect("it fits");
    assert_eq!(state(&mut session), fresh(&model, &template, &after));
}

#[test]
fn a_cancelled_turn_changes_nothing() {
    cancelled("untied", CHATML, 50);
}

/// The original context of this model has 256 tokens: the turn that is cancelled has passed it, or comes back from
/// there.
#[test]
fn a_cancelled_turn_across_the_original_context_changes_nothing() {
    cancelled("phi4-mini", PHI_4_MINI, 50);
    cancelled("phi4-mini", PHI_4_MINI, 320);
}
