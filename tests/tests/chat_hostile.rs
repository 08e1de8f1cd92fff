//! Templates that mean harm: each ends in the error that names what it did, soon, and in little memory.

#[path = "../../formats/tests/support/alloc.rs"]
#[expect(unreachable_pub, reason = "shared with crates that reach it")]
mod alloc;

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use halfbyte::chat::{ChatError, ChatTemplate, Message, Value};
use halfbyte_tests::is_emulated;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting::new();

/// Most memory that rendering any template may take, for a conversation of a few bytes: the 32 MiB of all that may be
/// made, twice while a text grows and is copied, and the engine's own.
const MAX_BYTES: usize = 96 << 20;
/// The time limit is 2 s; a tag begun before it may go on, and the machine may be busy.
const MAX_TIME: Duration = Duration::from_secs(20);

/// What `source` ends in, within the limits.
#[track_caller]
fn error(source: &str) -> ChatError {
    // The allocator counts for all threads.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let start = Instant::now();
    let (result, peak) = ALLOCATOR.peak_during(|| {
        let template = ChatTemplate::from_source(source)?;
        template.render(&[Message::system("s"), Message::user("hello")], true)
    });
    let time = start.elapsed();
    assert!(peak <= MAX_BYTES, "{} MiB", peak >> 20);
    assert!(time <= MAX_TIME, "{time:?}");
    match result {
        Ok(prompt) => panic!("no error, but {} bytes", prompt.text().len()),
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() < 4096 && !message.contains(char::is_control), "{message:?}");
            error
        }
    }
}

/// A test for each: `name: template => error`.
macro_rules! hostile {
    ($($name:ident: $source:expr => $expected:pat,)+) => {
        $(
            #[test]
            fn $name() {
                let error = error(&String::from($source));
                // Where it is emulated, time may end before any other limit is reached.
                let late = is_emulated() && matches!(error, OutOfTime { .. });
                assert!(late || matches!(error, $expected), "{error:?}");
            }
        )+
    };
}

use ChatError::{OutOfFuel, OutOfTime, Refused, Render, SourceTooLong, Syntax, TooLarge};

/// `{% for %}` over 100,000 numbers.
fn endless(body: &str) -> String {
    format!("{{% for i in range(100000) %}}{body}{{% endfor %}}")
}

/// A namespace whose `x` is `start`, and `body` again and again.
fn growing(start: &str, body: &str) -> String {
    format!("{{% set ns = namespace(x={start}) %}}{}", endless(body))
}

/// A variable with a text of almost a MiB.
const MEGABYTE: &str = "{% set a = '0123456789abcdef'.replace('', '0123456789abcdef') %}\
                        {% set a = a.replace('', a) %}{% set a = a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a %}";

/// A variable `letter` with a text of so many of it.
fn letters(letter: char) -> String {
    MEGABYTE
        .replace("0123456789abcdef", &letter.to_string().repeat(16))
        .replace("set a", &format!("set {letter}"))
        .replace("a.replace('', a)", &format!("{letter}.replace('', {letter})"))
        .replace("a ~ a", &format!("{letter} ~ {letter}"))
        .replace("~ a", &format!("~ {letter}"))
}

/// What `filter` makes of a list in which a text of almost a MiB is 16,000 times.
fn again(filter: &str) -> String {
    format!("{MEGABYTE}{{{{ range(16000)|map(attribute='x', default=a)|{filter}|list|length }}}}")
}

/// What `filter` makes of each of 16,000 maps.
fn again_a_map(filter: &str) -> String {
    let entries: String = (0..240).map(|n| format!("a{n}=0,")).collect();
    format!("{{{{ range(16000)|map(attribute='x', default=dict({entries}))|map('{filter}')|list|length }}}}")
}

/// `open` again and again around `inner`, as much as fits.
fn nested(open: &str, inner: &str, close: &str) -> String {
    let n = (32_000 - inner.len()) / (open.len() + close.len());
    format!("{}{inner}{}", open.repeat(n), close.repeat(n))
}

/// The tag `{{ before part part .. after }}`, as long as can be.
fn chain(before: &str, part: &str, after: &str) -> String {
    format!("{{{{ {before}{}{after} }}}}", part.repeat(32_000 / part.len()))
}

// What is no template.
hostile! {
    a_quarter_megabyte_of_braces: "{{".repeat(128 << 10) => SourceTooLong { bytes: 0x40000, limit: 0x8000 },
    as_many_braces_as_fit: "{{".repeat(16 << 10) => Syntax { line: 1, .. },
    closing_braces: "{{ a }}".to_owned() + &"}}".repeat(100) + "{{ ) }}" => Syntax { .. },
    a_tag_without_end: "{{ messages" => Syntax { line: 1, .. },
    a_block_tag_without_end: "\n{% if messages" => Syntax { line: 2, .. },
    a_comment_without_end: "{# {{ messages }}" => Syntax { line: 1, .. },
    a_raw_block_without_end: "{% raw %}{% endra %}" => Syntax { line: 1, .. },
    a_string_without_end: "{{ 'a }}" => Syntax { line: 1, .. },
    a_loop_without_end: "\n\n{% for m in messages %}{{ m }}" => Syntax { line: 3, .. },
    a_condition_without_end: "{% if messages %}" => Syntax { line: 1, .. },
    a_capture_without_end: "{% set x %}a" => Syntax { line: 1, .. },
    ends_in_the_wrong_order: "{% for m in messages %}{% if m %}{% endfor %}{% endif %}" => Syntax { line: 1, .. },
    a_lone_surrogate: "{{ '\\ud800' }}" => Syntax { line: 1, .. },
    names_in_other_scripts: "{{ \u{2067}ｌｉｐｓｕｍ\u{2066} }}" => Syntax { line: 1, .. },
    bytes_of_zero: "{{ \0 }}" => Syntax { line: 1, .. },
}

// What reaches outside.
hostile! {
    include: "{% include '/etc/passwd' %}" => Syntax { line: 1, .. },
    include_what_a_user_says: "{% include messages[1].content %}" => Syntax { line: 1, .. },
    import: "{% import 'os' as os %}" => Syntax { line: 1, .. },
    import_from: "{% from 'os' import system %}" => Syntax { line: 1, .. },
    extends: "{% extends 'x' %}" => Syntax { line: 1, .. },
    block: "{% block a %}{{ self.a() }}{% endblock %}" => Syntax { line: 1, .. },
    the_classes_of_a_text: "{{ ''.__class__.__mro__[1].__subclasses__() }}" => Render { line: 1, .. },
    the_globals_of_lipsum: "\n{{ lipsum.__globals__['os'].popen('id').read() }}" => Render { line: 2, .. },
    the_globals_of_cycler: "{{ cycler.__init__.__globals__.os.popen('id').read() }}" => Render { line: 1, .. },
    the_globals_of_a_macro: "{% macro f() %}{% endmacro %}{{ f.__globals__['x'] }}" => Render { line: 1, .. },
    the_inside_of_a_namespace: "{{ namespace.__init__.__globals__['sys'] }}" => Render { line: 1, .. },
    the_inside_of_a_message: "{{ messages[0].__class__.__base__ }}" => Render { line: 1, .. },
    attributes_by_filter: "{{ ''|attr('__class__')|attr('__base__')|attr('__subclasses__') }}" => Render { line: 1, .. },
    attributes_by_map: "{{ messages|map(attribute='__class__.__base__.x')|list }}" => Render { line: 1, .. },
    super_of_nothing: "{{ super() }}" => Render { line: 1, .. },
    debug_of_everything: "{{ debug() }}" => Render { line: 1, .. },
    unknown_filter: "{{ messages|shell }}" => Render { line: 1, .. },
    unknown_test: "{{ messages is evil }}" => Render { line: 1, .. },
    unknown_function: "{{ open('/etc/passwd') }}" => Render { line: 1, .. },
    unknown_method: "{{ 'a'.encode() }}" => Render { line: 1, .. },
    changing_the_messages: "{{ messages.append(1) }}" => Render { line: 1, .. },
    calling_the_checks: "{{ __hb_keep(messages) }}" => Syntax { line: 1, .. },
    replacing_the_checks: "{% set __hb_tick = 1 %}" => Syntax { line: 1, .. },
    its_own_exception: "{{ raise_exception('no\nsystem\u{1b}[2J message') }}" => Refused { .. },
    an_exception_of_a_megabyte: format!("{MEGABYTE}{{{{ raise_exception(a) }}}}") => Refused { .. },
    a_message_of_a_megabyte: format!("{MEGABYTE}{{{{ messages.x.y }}}}{{{{ range(a) }}}}") => Render { .. },
}

// What has no end.
hostile! {
    ten_billion_turns: endless(&endless("")) => OutOfFuel { limit: 1_000_000 },
    a_range_of_everything: "{% for i in range(10 ** 18) %}{% endfor %}" => Render { .. },
    a_macro_in_itself: "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" => Render { .. },
    macros_in_each_other: "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}" => Render { .. },
    a_loop_in_itself: "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}" => Render { .. },
    a_macro_that_holds_copies: format!("{MEGABYTE}{{% macro f() %}}{{{{ [{} f()] }}}}{{% endmacro %}}{{{{ f() }}}}", "a[1:], ".repeat(100)) => TooLarge { .. } | OutOfTime { .. },
    a_method_that_holds_copies: format!("{MEGABYTE}{{% macro f() %}}{{{{ a[1:].replace('a', f()) ~ a.lower().replace('', f()) }}}}{{% endmacro %}}{{{{ f() }}}}") => TooLarge { .. } | Render { .. },
    loops_that_hold_copies: format!("{MEGABYTE}{{% macro f() %}}{{% for x in [{}] %}}{{{{ f() }}}}{{% endfor %}}{{% endmacro %}}{{{{ f() }}}}", "a ~ '', ".repeat(100)) => TooLarge { .. } | OutOfTime { .. },
    arguments_that_are_copies: format!("{MEGABYTE}{{% macro f(x) %}}{{{{ f([{}]) }}}}{{% endmacro %}}{{{{ f(0) }}}}", "a|reverse, ".repeat(100)) => TooLarge { .. } | OutOfTime { .. },
    copies_by_maps: format!("{MEGABYTE}{}", growing("[]", "{% set ns.x = ns.x + [{'a': '' ~ a, 'b': a|upper}] %}")) => TooLarge { .. } | OutOfTime { .. },
    a_caller_in_itself: "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}" => Render { .. },
    a_macro_for_each_number: format!("{{% macro f(x) %}}{}{{% endmacro %}}{{{{ f(f(f(1))) }}}}", endless("{{ x }}")) => TooLarge { .. } | OutOfFuel { .. },
    comparing_megabytes: format!("{MEGABYTE}{{% set b = a ~ '' %}}{}", endless(&"{% if a == b %}{% endif %}".repeat(100))) => OutOfTime { .. } | OutOfFuel { .. },
    searching_megabytes: format!("{MEGABYTE}{}", endless("{% if 'gg' in a %}{% endif %}")) => OutOfTime { .. } | OutOfFuel { .. },
    asking_for_the_last_character: format!("{MEGABYTE}{}", endless("{% set x = a[-1] %}")) => OutOfTime { .. } | OutOfFuel { .. },
    comparing_lists: format!("{{% set a = range(10000)|list %}}{{% set b = range(10000)|list %}}{}", endless("{% if a == b %}{% endif %}")) => OutOfTime { .. } | OutOfFuel { .. },
    comparing_lists_of_megabytes: format!("{MEGABYTE}{{% set l = [a, a, a, a, a, a, a, a] %}}{}", endless("{% if l == l|reverse %}{% endif %}")) => TooLarge { .. },
    sorting_megabytes: format!("{MEGABYTE}{}", endless(&format!("{{% if [{}]|sort %}}{{% endif %}}", "a, ".repeat(100)))) => OutOfTime { .. } | TooLarge { .. },
    sorting_again: format!("{{% set a = range(10000)|list %}}{}", endless("{% if a|sort|unique %}{% endif %}")) => TooLarge { .. },
    filtering_by_maps: "{% for x in range(100000) if dict(range(100000)) %}{% endfor %}" => Render { .. },
    filtering_by_a_search: "{% for x in range(90000) if -1 in range(100000) %}{% endfor %}" => TooLarge { .. },
    filtering_by_lists: "{% set a = range(10000)|list %}{% set b = range(10000)|list %}{% for x in range(90000) if a!=b %}{% endfor %}" => OutOfTime { .. },
    filtering_by_characters: format!("{MEGABYTE}{{% for x in range(90000) if(a[1:][-1] if a[-1] == 'x' else a[-2] == 'x') %}}{{% endfor %}}") => OutOfTime { .. },
    maps_of_numbers: "{% if dict(range(100000)) %}{% endif %}".repeat(800) => Render { .. },
    a_namespace_of_numbers: "{% set x = namespace(range(100000)) %}" => Render { .. },
    a_list_of_namespaces: "{% set n = namespace() %}{% set x = [n, n] %}" => Render { .. },
    searching_again: "{% if -1 in range(100000) %}{% endif %}".repeat(800) => TooLarge { .. },
    selecting_by_a_search: "{{ range(100000)|select('in', range(100000))|list|length }}" => TooLarge { .. },
    rejecting_by_a_search: "{{ range(100000)|reject('in', range(100000))|list|length }}" => TooLarge { .. },
    rejecting_by_shorter_searches: "{{ range(100000)|reject('in', range(-15000, 0))|list|length }}" => OutOfTime { .. },
    a_long_path: format!("{}{{{{ e[980000:].replace('ee', 'e ').split()|map(attribute='0' ~ e[500000:].replace('ee', '.0'))|list }}}}", letters('e')) => TooLarge { .. },
    a_long_path_to_select_by: format!("{MEGABYTE}{{{{ a.split('0')|selectattr(a)|list }}}}") => TooLarge { .. },
    a_path_for_many: format!("{MEGABYTE}{{{{ a.split('0')|sort(attribute='{}')|list }}}}", "0,".repeat(120)) => TooLarge { .. },
    sorting_maps_by_many_paths: format!("{MEGABYTE}{{% set m = {{'x': a}} %}}{{{{ [{}]|sort(attribute='{}')|list }}}}", "m,".repeat(500), "x,".repeat(120)) => TooLarge { .. },
    sorting_few_maps_by_many_paths: format!("{MEGABYTE}{{% set m = {{'x': a}} %}}{{{{ [m, m, m]|sort(attribute='{}')|list }}}}", "x,".repeat(120)) => TooLarge { .. },
    sorting_a_text_again: again("sort") => TooLarge { .. },
    telling_a_text_from_itself_again: again("unique") => TooLarge { .. },
    the_least_of_a_text_again: again("min") => TooLarge { .. },
    the_most_of_a_text_again: again("max") => TooLarge { .. },
    the_case_of_a_text_again: again("select('lower')") => TooLarge { .. } | OutOfTime { .. },
    the_other_case_of_a_text_again: again("reject('upper')") => TooLarge { .. } | OutOfTime { .. },
    the_same_text_again: again("select('sameas', a)") => TooLarge { .. } | OutOfTime { .. },
    a_character_of_a_text_again: again("map(attribute='900000')") => TooLarge { .. },
    the_items_of_a_map_again: again_a_map("items") => TooLarge { .. },
    sorting_a_map_again: again_a_map("dictsort") => TooLarge { .. },
    stripping_many_characters: format!("{}{}{{{{ raise_exception(e.strip(f ~ 'e')) }}}}", letters('e'), letters('f')) => Refused { .. },
    splitting_again: format!("{MEGABYTE}{}", endless("{% if a.split('0') %}{% endif %}")) => TooLarge { .. } | OutOfTime { .. },
}

// What grows.
hostile! {
    a_billion_letters: "{{ 'A' * 1000000000 }}" => Render { .. },
    a_billion_letters_backwards: "{{ 1000000000 * 'A' }}" => Syntax { .. },
    a_billion_zeros: "{% for x in [0] * 1000000000 %}{% endfor %}" => Render { .. },
    a_constant_for_the_compiler: "{{ ('A' ~ 'B') * 99999999 }}".repeat(1000) => Render { .. },
    a_tuple_for_the_compiler: "{{ (1, 2) * 99999999 }}".repeat(1000) => Render { .. },
    a_number_with_a_billion_digits: "{{ 9 ** 999999999 }}" => Render { .. },
    towers_of_powers: "{{ 9 ** 9 ** 9 ** 9 }}" => Render { .. },
    doubling_by_tilde: growing("'A'", "{% set ns.x = ns.x ~ ns.x %}") => TooLarge { .. },
    doubling_by_plus: growing("'A'", "{% set ns.x = ns.x + ns.x %}") => TooLarge { .. },
    doubling_by_writing: growing("'A'", "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}") => TooLarge { .. },
    doubling_by_a_filter_block: growing("'A'", "{% set x %}{% filter trim %}{{ ns.x }}{{ ns.x }}{% endfilter %}{% endset %}{% set ns.x = x %}") => TooLarge { .. },
    doubling_by_a_macro: format!("{{% macro f(x) %}}{{{{ x }}}}{{{{ x }}}}{{% endmacro %}}{}", growing("'A'", "{% set ns.x = f(ns.x) %}")) => TooLarge { .. },
    doubling_by_arguments: "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('A') }}" => TooLarge { .. },
    doubling_by_default_arguments: "{% macro f(x, y=x ~ x) %}{{ f(y) }}{% endmacro %}{{ f('A') }}" => TooLarge { .. } | Render { .. },
    doubling_by_loop_variables: nested("{% for x in [x ~ x ~ x ~ x ~ x ~ x ~ x ~ x] %}", "", "{% endfor %}") => Syntax { .. },
    doubling_by_few_loop_variables: format!("{{% set x = 'A' %}}{}{}", "{% for x in [x ~ x ~ x ~ x ~ x ~ x ~ x ~ x] %}".repeat(20), "{% endfor %}".repeat(20)) => TooLarge { .. },
    doubling_by_with: format!("{{% set x = 'A' %}}{}{}", "{% with x = x ~ x ~ x ~ x ~ x ~ x ~ x ~ x %}".repeat(20), "{% endwith %}".repeat(20)) => TooLarge { .. },
    doubling_by_recursion: "{% for x in ['A'] recursive %}{{ loop([x ~ x]) }}{% endfor %}" => TooLarge { .. },
    doubling_by_join: growing("'A'", "{% set ns.x = [ns.x, ns.x]|join %}") => TooLarge { .. },
    doubling_by_the_join_method: growing("'A'", "{% set ns.x = ns.x.join(['', '', '']) %}") => TooLarge { .. },
    doubling_by_replace: growing("'A'", "{% set ns.x = ns.x|replace('A', 'AA') %}") => TooLarge { .. },
    squaring_by_the_replace_method: growing("'AA'", "{% set ns.x = ns.x.replace('A', ns.x) %}") => TooLarge { .. },
    doubling_by_json: growing("'\"'", "{% set ns.x = ns.x|tojson %}") => TooLarge { .. },
    doubling_by_repr: growing("'\\\\'", "{% set ns.x = [ns.x]|string %}") => TooLarge { .. },
    doubling_a_list: growing("[0]", "{% set ns.x = ns.x + ns.x %}") => TooLarge { .. },
    doubling_a_tree: growing("[0]", "{% set ns.x = [ns.x, ns.x] %}") => TooLarge { .. },
    doubling_a_tree_of_pairs: growing("[0]", "{% set ns.x = (ns.x, ns.x) %}") => TooLarge { .. },
    doubling_a_tree_of_maps: growing("{}", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}") => TooLarge { .. },
    doubling_a_tree_by_dict: growing("{}", "{% set ns.x = dict(a=ns.x, b=ns.x) %}") => TooLarge { .. },
    doubling_a_tree_by_arguments: "{% macro f(x) %}{% if x == x %}{{ f([x, x]) }}{% endif %}{% endmacro %}{{ f([0]) }}" => TooLarge { .. },
    a_deep_list: growing("[0]", "{% set ns.x = [ns.x] %}") => TooLarge { .. },
    a_deep_map: growing("{}", "{% set ns.x = {'a': ns.x} %}") => TooLarge { .. },
    a_namespace_in_itself: "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}" => Render { .. },
    a_namespace_in_a_list_in_itself: "{% set ns = namespace() %}{% set ns.x = [{'a': (ns, 1)}] %}" => Render { .. },
    a_namespace_in_a_new_one: "{% set ns = namespace() %}{% set ns = namespace(a=ns) %}" => Render { .. },
    a_loop_in_a_namespace: "{% set ns = namespace() %}{% for x in [ns] %}{% set ns.x = loop %}{% endfor %}" => Render { .. },
    a_macro_in_a_namespace: "{% set ns = namespace() %}{% macro f() %}{% endmacro %}{% set ns.x = f %}" => Render { .. },
    a_loop_that_remembers_itself: "{% for x in [1] %}{{ loop.changed(loop) }}{% endfor %}" => Syntax { .. },
    slices_of_slices: growing("range(100000)", "{% set ns.x = ns.x[1:] %}") => TooLarge { .. },
    a_deep_list_beside_a_sign: growing("[0]", "{%set ns.x=[][0:]+[ns.x, ns.x]%}") => TooLarge { .. },
    a_list_of_slices: format!("{MEGABYTE}{}", growing("[]", &format!("{}{{% set ns.x = ns.x + [a[1:]] %}}", MEGABYTE))) => TooLarge { .. } | OutOfTime { .. },
    many_long_variables: format!("{MEGABYTE}{}", (0..900).map(|n| format!("{{% set b{n} = a[1:] %}}")).collect::<String>()) => TooLarge { .. } | OutOfTime { .. },
    a_flood_of_text: endless(&"x".repeat(30_000)) => TooLarge { .. },
    a_flood_of_captured_text: format!("{{% set x %}}{}{{% endset %}}", endless(&"x".repeat(30_000))) => TooLarge { .. },
    a_flood_of_macros: format!("{{% macro f() %}}{}{{% endmacro %}}{}", "x".repeat(30_000), endless("{{ f() }}")) => TooLarge { .. },
    a_flood_of_raw_text: format!("{{% set x %}}{}{{% endset %}}", endless(&format!("{{% raw %}}{}{{% endraw %}}", "{".repeat(30_000)))) => TooLarge { .. },
    a_list_of_megabytes_as_text: format!("{MEGABYTE}{{{{ '' ~ [{}] }}}}", "a, ".repeat(400)) => TooLarge { .. },
    a_flood_of_json: endless("{{ messages|tojson(indent=64) }}") => TooLarge { .. },
    indenting_by_a_billion: "{{ 'a\nb'|indent(1000000000) }}" => TooLarge { .. },
    json_indented_by_a_billion: "{{ messages|tojson(indent=3000000000) }}" => TooLarge { .. },
    json_with_long_separators: format!("{MEGABYTE}{{{{ range(1000)|list|tojson(separators=[a, a]) }}}}") => TooLarge { .. } | OutOfTime { .. },
    json_with_many_separators: format!("{MEGABYTE}{{{{ 1|tojson(separators=[{}]) }}}}", "a, ".repeat(400)) => Render { .. },
    a_list_of_megabytes_as_a_part: format!("{MEGABYTE}{{% if [{}] in 'x' %}}{{% endif %}}", "a, ".repeat(400)) => TooLarge { .. },
    joining_with_megabytes: format!("{MEGABYTE}{{{{ range(100000)|join(a) }}}}") => TooLarge { .. } | OutOfTime { .. },
    a_wide_number: "{{ '%3000000000d'|format(1) }}" => Render { .. },
    a_wide_format: "{{ '{:3000000000}'.format(1) }}" => Render { .. },
    a_wide_center: "{{ 'a'.center(3000000000) }}{{ 'a'|center(3000000000) }}" => Render { .. },
    a_wide_date: format!("{MEGABYTE}{{{{ strftime_now(a) }}}}") => Render { .. },
    letters_that_grow: growing("'\u{390}\u{1fb7}\u{fb03}'", "{% set ns.x = (ns.x|upper) ~ (ns.x|title) %}") => TooLarge { .. },
    combining_marks: growing("'e\u{301}\u{20dd}\u{200d}\u{fdfa}'", "{% set ns.x = ns.x ~ ns.x|capitalize %}") => TooLarge { .. },
    unpacking_too_many: "{% set a, b = range(100000) %}" => Render { .. } | TooLarge { .. },
}

// What is deep: the engine recurses, so each of these would be a stack overflow if it were let through.
hostile! {
    a_chain_of_not: chain("", "not ", "x") => Syntax { .. },
    a_chain_of_minus: chain("", "- ", "1") => Syntax { .. },
    a_chain_of_attributes: chain("x", ".a", "") => Syntax { .. },
    a_chain_of_indices: chain("x", "[0]", "") => Syntax { .. },
    a_chain_of_slices: chain("x", "[:]", "") => Syntax { .. },
    a_chain_of_sums: chain("1", "+1", "") => Syntax { .. },
    a_chain_of_differences: chain("1", "-1", "") => Syntax { .. },
    a_chain_of_products: chain("1", "*1", "") => Syntax { .. },
    a_chain_of_powers: chain("1", "**1", "") => Syntax { .. },
    a_chain_of_joined_texts: chain("1", "~1", "") => Syntax { .. },
    a_chain_of_filters: chain("1", "|d", "") => Syntax { .. },
    a_chain_of_mixed_sums: chain("1", " ~ 1 - 1 + 1", "") => Syntax { .. },
    a_chain_of_tests: chain("1", " is defined", "") => Syntax { .. },
    a_chain_of_calls: chain("x", "()", "") => Syntax { .. },
    a_chain_of_and: chain("1", " and 1", "") => Syntax { .. },
    a_chain_of_or: chain("1", " or 1", "") => Syntax { .. },
    a_chain_of_comparisons: chain("1", "<1", "") => Syntax { .. },
    a_chain_of_conditions: chain("1", " if 1 else 1", "") => Syntax { .. },
    a_chain_of_elif: format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(2600)) => Syntax { .. },
    deep_parentheses: format!("{{{{ {} }}}}", nested("(", "1", ")")) => Syntax { .. },
    deep_brackets: format!("{{{{ {} }}}}", nested("[", "1", "]")) => Syntax { .. },
    deep_braces: format!("{{{{ {} }}}}", nested("{1:", "1", "}")) => Syntax { .. },
    deep_calls: format!("{{{{ {} }}}}", nested("dict(", "", ")")) => Syntax { .. },
    deep_conditions: nested("{% if x %}", "", "{% endif %}") => Syntax { .. },
    deep_loops: nested("{% for x in y %}", "", "{% endfor %}") => Syntax { .. },
    deep_macros: nested("{% macro f() %}", "", "{% endmacro %}") => Syntax { .. },
    deep_filter_blocks: nested("{% filter trim %}", "", "{% endfilter %}") => Syntax { .. },
    deep_captures: nested("{% set x %}", "", "{% endset %}") => Syntax { .. },
    deep_generation_marks: nested("{% generation %}", "", "{% endgeneration %}") => Syntax { .. },
}

#[test]
fn what_the_limits_let_through_needs_no_more_stack_than_there_is() {
    // As long and as deep as `guard` allows, all at once; in a debug build frames are largest.
    let expressions = [
        format!("{}x", "not ".repeat(1020)),
        format!("{}1", "- ".repeat(1020)),
        format!("1{}", "-1".repeat(500)),
        format!("1{}", "*1".repeat(500)),
        format!("1{}", "/1".repeat(500)),
        format!("'x'{}", "|d".repeat(500)),
        format!("'x'{}", "~1".repeat(500)),
        format!("'x'{}", "[0:]".repeat(32)),
        format!("1{}", " and 1".repeat(500)),
        format!("0{}", " or 0".repeat(500)),
        format!("1{}", " if 1 else 1".repeat(200)),
        format!("1{}", " is defined".repeat(500)),
        format!("1{}", "<=1".repeat(500)),
        format!("{}1{}", "[".repeat(32), "]".repeat(32)),
        format!("{}0{}", "'x'[".repeat(32), "]".repeat(32)),
        format!("{}1{}", "(".repeat(32), ")".repeat(32)),
        format!("{}1{}", "{1:".repeat(16), "}".repeat(16)),
    ];
    for expression in expressions {
        let (open, close) = ("{% if 1 %}".repeat(32), "{% endif %}".repeat(32));
        let source = format!("{open}{{{{ {expression} }}}}{close}");
        let rendered = ChatTemplate::from_source(&source).and_then(|template| template.render(&[], false));
        assert!(rendered.is_ok(), "{expression}: {rendered:?}");
    }
    let source = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(128));
    assert!(ChatTemplate::from_source(&source).unwrap().render(&[], false).is_ok());
}

#[test]
fn what_a_conversation_may_be() {
    let template = ChatTemplate::builtin("mimo").unwrap();
    let most = "x".repeat((4 << 20) - 15);
    assert!(template.render(&[Message::user(most.clone())], true).is_ok());
    let error = template.render(&[Message::user(most + "x")], true).unwrap_err();
    assert!(matches!(error, TooLarge { what: "the conversation", limit: 0x40_0000, unit: "bytes" }), "{error:?}");

    let mut deep = Value::Null;
    for _ in 0..22 {
        deep = Value::List(vec![deep]);
    }
    assert!(template.render(&[Message::user("x").with("a", deep.clone())], true).is_ok());
    let deeper = Message::user("x").with("a", Value::List(vec![deep]));
    assert!(matches!(template.render(&[deeper], true), Err(TooLarge { what: "the conversation", limit: 24, .. })));

    let many = Value::List(vec![Value::Null; 1 << 20]);
    let error = template.clone().with_variable("tools", many).render(&[], true).unwrap_err();
    assert!(matches!(error, TooLarge { what: "the conversation", unit: "values", .. }), "{error:?}");
}

#[test]
fn long_maps_are_compared_soon() {
    let names: Vec<_> = (0..50_000).map(|n| (format!("name {n}"), Value::Null)).collect();
    let messages = [names.clone(), names].map(|names| Message::user("x").with("a", Value::Map(names)));
    let template = ChatTemplate::from_source("{{ messages[0].a == messages[1].a }}").unwrap();
    let start = Instant::now();
    assert_eq!(template.render(&messages, true).unwrap().text(), "True");
    assert!(start.elapsed() <= MAX_TIME, "{:?}", start.elapsed());
}
