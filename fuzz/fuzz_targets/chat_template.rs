//! Whatever a template is, it renders or says why not, soon; and what is said never becomes a built-in template's
//! markup.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use halfbyte::{
    Gguf,
    chat::{ChatTemplate, Message, Value},
    text::Tokenizer,
};
use libfuzzer_sys::fuzz_target;

/// Pieces that make a template likely, with bars between them.
const PIECES: &[&str] = &[
    "{{ ¦ }}¦{% ¦ %}¦{%- ¦ -%}¦{# ¦ #}¦for m in messages¦endfor¦if ¦elif ¦else¦endif¦set x = ",
    "set ns.x = ¦set x¦endset¦macro f(a, b=1)¦endmacro¦call f(1)¦endcall¦filter upper¦endfilter¦raw",
    "endraw¦generation¦endgeneration¦break¦continue¦with x = ¦endwith¦x¦m¦ns¦m.content¦messages¦loop",
    "namespace(x=1)¦range(9)¦raise_exception('a')¦f(x)¦caller()¦ ~ ¦ + ¦ * 2¦ - ¦ == ¦ in ¦ and ",
    " is defined¦|tojson¦|join(x)¦|list¦|string¦|trim¦.split('a')¦.replace('a', x)¦.items()¦[1:]¦[0]",
    "[x, x]¦{'a': x}¦'a'",
];

#[derive(Arbitrary, Debug)]
struct Input {
    pieces: Vec<u8>,
    tail: String,
    messages: Vec<(u8, String)>,
    field: Option<(String, String)>,
    add_generation_prompt: bool,
}

fn tokenizers() -> &'static [(ChatTemplate, Tokenizer)] {
    static ALL: LazyLock<Vec<(ChatTemplate, Tokenizer)>> = LazyLock::new(|| {
        let files: [(&str, &[u8]); 4] = [
            ("mimo", include_bytes!("../../runtime/tests/data/text/qwen2.gguf")),
            ("phi-4", include_bytes!("../../runtime/tests/data/text/dbrx.gguf")),
            ("phi-4-mini", include_bytes!("../../runtime/tests/data/text/gpt-4o.gguf")),
            ("phi-moe", include_bytes!("../../runtime/tests/data/text/phi-3.gguf")),
        ];
        let load = |(name, file): (&str, &'static [u8])| {
            let file = Gguf::from_bytes(file).expect("a good file");
            let tokenizer = Tokenizer::from_metadata(file.metadata()).expect("a good vocabulary");
            (ChatTemplate::builtin(name).expect("built in").with_tokenizer(&tokenizer), tokenizer)
        };
        files.into_iter().map(load).collect()
    });
    &ALL
}

fn message(input: &Input, role: u8, text: &str) -> Message {
    let message = Message::new(["system", "user", "assistant"][usize::from(role) % 3], text);
    match &input.field {
        Some((name, value)) => message.with(name.clone(), Value::Text(value.clone())),
        None => message,
    }
}

fuzz_target!(|input: Input| {
    let messages: Vec<Message> = input.messages.iter().map(|(role, text)| message(&input, *role, text)).collect();
    let pieces: Vec<&str> = PIECES.iter().flat_map(|line| line.split('¦')).collect();
    let mut source: String = input.pieces.iter().map(|&piece| pieces[usize::from(piece) % pieces.len()]).collect();
    source.push_str(&input.tail);
    let rendered = ChatTemplate::from_source(&source).and_then(|t| t.render(&messages, input.add_generation_prompt));
    if let Err(error) = rendered {
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    let (template, tokenizer) = &tokenizers()[input.pieces.len() % 4];
    let control = |messages: &[Message]| -> Vec<u32> {
        let prompt = template.render(messages, input.add_generation_prompt).expect("a built-in template renders");
        prompt.tokens().unwrap_or(&[]).iter().copied().filter(|&id| tokenizer.is_control(id)).collect()
    };
    let harmless = |(role, text): &(u8, String)| {
        Message::new(["system", "user", "assistant"][usize::from(*role) % 3], if text.is_empty() { "" } else { "x" })
    };
    // Tools are markup of the application's own.
    let mut said = messages.clone();
    said.iter_mut().for_each(|message| message.fields.clear());
    assert_eq!(control(&said), control(&input.messages.iter().map(harmless).collect::<Vec<_>>()));
});
