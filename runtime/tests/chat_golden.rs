//! Built-in chat templates against transformers, which has rendered 200 conversations with each of them, and with the
//! authors' own templates; and the language of templates against Python.
//!
//! `scripts/golden_chat.py` made `data/chat/`, and asserts that the authors' templates give the same prompts.

#![cfg(feature = "chat")]

use halfbyte::chat::{ChatError, ChatTemplate, Message, Value};

const CONVERSATIONS: &str = include_str!("data/chat/conversations.txt");
const PROMPTS: &str = include_str!("data/chat/prompts.txt");

/// Undoes `\u{hex}`.
fn unescape(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('}').unwrap();
        out.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
        out.push_str(rest);
    }
    out
}

fn conversations() -> Vec<Vec<Message>> {
    let conversation = |line: &str| {
        let mut fields = line.split('\t').map(unescape);
        let mut messages = Vec::new();
        while let Some(role) = fields.next().filter(|role| !role.is_empty()) {
            let message = Message::new(role.trim_end_matches("+tools"), fields.next().unwrap());
            messages.push(if role.ends_with("+tools") {
                message.with("tools", fields.next().unwrap())
            } else {
                message
            });
        }
        messages
    };
    CONVERSATIONS.lines().map(conversation).collect()
}

/// FNV-1a, 64 bits.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

fn as_transformers(name: &str) {
    let conversations = conversations();
    let end = "<|endoftext|>";
    let template = ChatTemplate::builtin(name).unwrap().with_variable("bos_token", end).with_variable("eos_token", end);
    let mut prompts = 0;
    for line in PROMPTS.lines() {
        let [template_name, number, add, len, golden] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        if template_name != name {
            continue;
        }
        let messages = &conversations[number.parse::<usize>().unwrap()];
        let prompt = template.render(messages, add == "1").unwrap();
        let found = format!("{}\t{:016x}", prompt.text().len(), hash(prompt.text()));
        assert_eq!(found, format!("{len}\t{golden}"), "{name}, {number}: {messages:?} became {:?}", prompt.text());
        prompts += 1;
    }
    assert_eq!((conversations.len(), prompts), (200, 400));
}

#[test]
fn mimo_as_transformers() {
    as_transformers("mimo");
}

#[test]
fn phi_4_as_transformers() {
    as_transformers("phi-4");
}

#[test]
fn phi_4_mini_as_transformers() {
    as_transformers("phi-4-mini");
}

#[test]
fn phi_moe_as_transformers() {
    as_transformers("phi-moe");
}

/// The formats of the model cards, to be read.
#[test]
fn formats_are_those_of_the_model_cards() {
    let messages =
        [Message::system("Be brief."), Message::user("Hi"), Message::assistant("Hello."), Message::user("Bye")];
    for (name, expected) in [
        (
            "mimo",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
             <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "phi-4",
            "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>\
             <|im_start|>assistant<|im_sep|>Hello.<|im_end|><|im_start|>user<|im_sep|>Bye<|im_end|>\
             <|im_start|>assistant<|im_sep|>",
        ),
        (
            "phi-4-mini",
            "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello.<|end|><|user|>Bye<|end|><|assistant|>",
        ),
        (
            "phi-moe",
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n\
             <|user|>\nBye<|end|>\n<|assistant|>\n",
        ),
    ] {
        let template = ChatTemplate::builtin(name).unwrap();
        assert_eq!(template.render(&messages, true).unwrap().text(), expected);
        assert_eq!(template.name(), Some(name));
    }
    assert_eq!(ChatTemplate::builtin_names().collect::<Vec<_>>(), ["mimo", "phi-4", "phi-4-mini", "phi-moe"]);
    let error = ChatTemplate::builtin("gpt-5").unwrap_err().to_string();
    assert_eq!(error, "there is no built-in chat template \"gpt-5\" (there are: mimo, phi-4, phi-4-mini, phi-moe)");
}

#[test]
fn tools_are_in_the_system_turn_of_phi_4_mini() {
    let template = ChatTemplate::builtin("phi-4-mini").unwrap();
    let with = |tools: Value| {
        let messages = [Message::system("S").with("tools", tools), Message::user("U").with("tools", "not these")];
        template.render(&messages, true).unwrap().text().to_owned()
    };
    let expected =
        "<|system|>S<|tool|>[{\"name\": \"f\", \"strict\": true}]<|/tool|><|end|><|user|>U<|end|><|assistant|>";
    assert_eq!(with("[{\"name\": \"f\", \"strict\": true}]".into()), expected);
    let tool = Value::Map(vec![("name".to_owned(), "f".into()), ("strict".to_owned(), true.into())]);
    assert_eq!(with(vec![tool].into()), expected);
    assert_eq!(with(Value::Null), "<|system|>S<|end|><|user|>U<|end|><|assistant|>");
}

/// What Python makes of expressions: expected texts are those of jinja2 3.1.6 as transformers 5.23 sets it up.
#[test]
fn expressions_are_those_of_python() {
    let map = Value::Map(vec![
        ("z".to_owned(), 1.into()),
        ("a".to_owned(), Value::List(vec![Value::Null, true.into(), 1.5.into(), "é\"'\n<".into()])),
    ]);
    for (expression, expected) in [
        ("m", "{'z': 1, 'a': [None, True, 1.5, 'é\"\\'\\n<']}"),
        ("m|tojson", "{\"z\": 1, \"a\": [null, true, 1.5, \"é\\\"'\\n<\"]}"),
        ("m|tojson(ensure_ascii=true)", "{\"z\": 1, \"a\": [null, true, 1.5, \"\\u00e9\\\"'\\n<\"]}"),
        ("m|tojson(sort_keys=true, separators=(',', ':'))", "{\"a\":[null,true,1.5,\"é\\\"'\\n<\"],\"z\":1}"),
        ("{'b': [], 'a': {}, 1: (2, )}|tojson(indent=2)", "{\n  \"b\": [],\n  \"a\": {},\n  \"1\": [\n    2\n  ]\n}"),
        ("[1e16, 1e-5, 0.1, 100.0, -2.5e-7, 1e300]", "[1e+16, 1e-05, 0.1, 100.0, -2.5e-07, 1e+300]"),
        ("none", "None"),
        ("'' ~ none ~ true ~ [1.0, 'a'] ~ m.z ~ undefined_name ~ 1.0 ~ 2 * 3 ~ ['b']|join", "NoneTrue[1.0, 'a']11.06b"),
        ("[1 == 1.0, 'b' in 'abc', 3 in [1, 2], 'z' in m]", "[True, True, False, True]"),
        ("((1,), ('a', \"it's\"), [])", "((1,), ('a', \"it's\"), [])"),
        ("undefined_name", ""),
        ("undefined_name is defined", "False"),
        ("m.missing is none", "False"),
        ("m.get('missing') is none", "True"),
        ("m.get('missing', 5) ~ m['z'] ~ m.a[-1][0]", "51é"),
        ("m|items|list", "[('z', 1), ('a', [None, True, 1.5, 'é\"\\'\\n<'])]"),
        ("m.items()|map('first')|join(',')", "z,a"),
        ("m|dictsort|map(attribute=0)|list", "['a', 'z']"),
        ("'  a b '|trim ~ '.' ~ '\\n\\t x'.lstrip() ~ 'x  '.rstrip()", "a b.xx"),
        ("'<think>x</think>y'.split('</think>')[-1].lstrip('\\n')", "y"),
        ("'a b'.split()[::-1]", "['b', 'a']"),
        ("'abc'.startswith(('x', 'ab')) and 'abc'.endswith('c')", "True"),
        ("'a.b.c'.replace('.', '/', 1)|upper", "A/B.C"),
        ("'hello world'|title ~ 'ABC'|capitalize ~ 'ß'.upper()", "Hello WorldAbcSS"),
        ("['a', none, 1]|join('-')", "a-None-1"),
        ("[{'r': 'a'}, {'r': 'b'}]|selectattr('r', 'equalto', 'b')|map(attribute='r')|list", "['b']"),
        ("[0, 1, '', none, 'x']|select|list|length", "2"),
        ("range(2, 9, 3)|list + [7 // 2, -7 // 2, 7 % 3, -7 % 3, 2 ** 10, 7 / 2]", "[2, 5, 8, 3, -4, 1, 2, 1024, 3.5]"),
        ("'a\\nb\\n\\nc'|indent(2) ~ '|' ~ 'a\\nb'|indent(1, true)", "a\n  b\n\n  c| a\n b"),
        ("'abcdef'[1:-1] ~ 'abc'[::-1] ~ [1, 2, 3][-2:]", "bcdecba[2, 3]"),
        ("('x' if m.z == 1 else 'y') ~ ('only' if false)", "x"),
        ("m is mapping and m.a is iterable and 'a' is string and 1 is number and m.a is sequence", "True"),
        ("1 is boolean or true is boolean and 2.0 is float", "True"),
        ("undefined_name|default('d') ~ ''|default('e', true)", "de"),
        ("dict(a=1)|tojson ~ namespace(x=2).x", "{\"a\": 1}2"),
        ("3 * 2 * 2 + 1", "13"),
    ] {
        let template = ChatTemplate::from_source(&format!("{{{{ {expression} }}}}")).and_then(|template| {
            template.with_variable("m", map.clone()).render(&[], false).map(|prompt| prompt.text().to_owned())
        });
        assert_eq!(
            template.as_deref().unwrap_or_else(|error| panic!("{expression}: {error}")),
            expected,
            "{expression}"
        );
    }
}

/// Statements and white space, likewise.
#[test]
fn statements_are_those_of_jinja() {
    for (source, expected) in [
        ("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"),
        ("a  {%- if true -%}  b  {%+ endif +%}\n", "ab  "),
        ("{# c #}\nx{#- d -#}  y", "xy"),
        (
            "{% for x in [1, 2, 3] if x != 2 %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% else %}no{% endfor %}",
            "1/2,2/2",
        ),
        ("{% for x in [] %}{% else %}none{% endfor %}", "none"),
        ("{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "b1a2"),
        ("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "1"),
        ("{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "6"),
        ("{% macro m(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}", "[1x][12]"),
        ("{% set s %}a{{ 1 }}\n{% endset %}{{ s|length }}{{ s }}", "3a1\n"),
        (
            "{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% elif x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
            "13",
        ),
        ("{% for x in 'ab' %}{{ loop.previtem }}{{ x }}{{ loop.nextitem }}|{% endfor %}", "ab|ab|"),
        ("{%- generation -%} x {%- endgeneration -%}", "x"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}c{% endcall %}", "<c>"),
        ("{% filter upper %}abc{% endfilter %}{% with a = 1 %}{{ a }}{% endwith %}", "ABC1"),
        ("{% macro m() %}{{ outer[1:] }}{% endmacro %}{% set outer = 'xyz' %}", ""),
        ("{% set outer = 'xyz' %}{% macro m() %}{{ outer[1:] }}{% endmacro %}{{ m() }}", "yz"),
    ] {
        let text = ChatTemplate::from_source(source).and_then(|template| template.render(&[], false));
        assert_eq!(text.unwrap_or_else(|error| panic!("{source}: {error}")).text(), expected, "{source}");
    }
}

#[test]
fn errors_say_what_and_where() {
    let fails = |source: &str| {
        let template = ChatTemplate::from_source(source);
        template.and_then(|template| template.render(&[Message::user("hi")], true)).unwrap_err().to_string()
    };
    assert_eq!(fails("\n{{ messages|nothing }}"), "chat template: unknown filter: filter nothing is unknown (line 2)");
    assert_eq!(fails("\n\n{% block a %}"), "chat template: there is no tag \"block\" in chat templates (line 3)");
    assert_eq!(
        fails("{{ raise_exception('Roles must\nalternate') }}"),
        "the chat template refuses this conversation: Roles must alternate"
    );
    assert!(fails("{% if %}{% endif %}").starts_with("chat template: syntax error: "));
    let template = ChatTemplate::builtin("phi-4").unwrap();
    let error = template.render(&[Message::new("tool", "x")], true).unwrap_err();
    assert!(matches!(&error, ChatError::Refused { message } if message.contains("not tool")), "{error}");
}
