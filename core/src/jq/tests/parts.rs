//! A program yields the same whether it is given the whole document, or what it looks at.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use crate::testing::event;

const TIME: Duration = Duration::from_secs(5);

/// What a program yields, and whether it ends well.
type Result = (Vec<std::result::Result<Value, NotJson>>, bool);

fn run(program: &Program, input: Val, read_from: &[u8]) -> Result {
    let mut values = Vec::new();
    let ended = program.run(input, TIME, |value| {
        let mut json = Vec::new();
        let written = write(&value, read_from, &mut json);
        values.push(written.map(|()| serde_json::from_slice(&json).unwrap()));
    });
    (values, ended.is_ok())
}

/// The same values for the whole and for a part, and the same answer as a condition.
fn same(program: &str, document: &Value) {
    let Ok(program) = Program::compile(program) else {
        panic!("{program} is no program");
    };
    let mut document = document.clone();
    document["event"] = json!("e\u{e9}");
    document["instance"] = json!("i");
    // With spaces, so that what is kept differs from what is written.
    let json = Bytes::from(serde_json::to_vec_pretty(&document).unwrap());
    let whole = run(&program, read(&json).unwrap(), &[]);
    let part = Reader::keeping(&program).read(&json).unwrap();
    assert_eq!(
        run(&program, part, &json),
        whole,
        "{program:?} of {document}"
    );

    let expected = program.holds(read(&json).unwrap(), TIME);
    let part = Reader::of([&program]).read(&json).unwrap();
    let holds = program.holds(part, TIME);
    assert_eq!(holds.is_ok(), expected.is_ok(), "{program:?} of {document}");
    let (holds, expected) = (holds.ok(), expected.ok());
    assert_eq!(holds, expected, "{program:?} of {document}");
    let event = event(str::from_utf8(&json).unwrap());
    if let Some(tells) = program.tells(&event) {
        assert_eq!(Some(tells), expected, "{program:?} of {document}");
    }
    let yielded = match program.rewrites(&event, TIME).unwrap() {
        Rewritten::Envelope(envelope) => vec![Ok(serde_json::from_slice(&envelope).unwrap())],
        Rewritten::Nothing => Vec::new(),
        Rewritten::Unknown(_) => return,
    };
    assert_eq!((yielded, true), whole, "{program:?} of {document}");
}

fn path() -> impl Strategy<Value = String> {
    let names = prop::sample::select(&["a", "b", "c", "event"][..]);
    let plain =
        prop::collection::vec(names, 1..4).prop_map(|names| format!(".{}", names.join(".")));
    prop_oneof![
        6 => plain.clone(),
        1 => plain.clone().prop_map(|path| format!("{path}?")),
        1 => plain.clone().prop_map(|path| format!("{path}[0]")),
        1 => plain.clone().prop_map(|path| format!("{path}[]?")),
        1 => (plain.clone(), plain.clone()).prop_map(|(one, other)| format!("({one}, {other})")),
        1 => (plain.clone(), plain.clone()).prop_map(|(one, other)| format!("({one} | {other})")),
        1 => (plain.clone(), plain).prop_map(|(one, other)| format!("({one} | select({other}))")),
        1 => Just(".".to_owned()),
        1 => Just(".[\"a\"]".to_owned()),
    ]
}

fn program() -> impl Strategy<Value = String> {
    let leaves = &[
        "1",
        "\"t\"",
        "\"\"",
        "null",
        "true",
        "false",
        "empty",
        "{}",
        "[]",
        "{a}",
        "{a: .b, b}",
        "{$v}",
        "$v",
        "not",
        "length",
        "keys",
        "keys_unsorted",
        "null",
        "tojson",
        "type",
        "..",
        ".[]?",
        "has(\"a\")",
        "{\"a\": .c}",
        "startswith(\"t\")",
        "endswith(\"t\")",
        "to_entries",
        "tostring",
        "ascii_downcase",
        "add",
        "@json",
        "{(.a): 1}",
        "{\"x\\(.a)\": .b}",
        "error",
        "{a: {b: .c}}",
        ". as [$v] | $v",
        "label $x | .a, break $x",
    ];
    let leaf =
        prop_oneof![2 => path(), 1 => prop::sample::select(&leaves[..]).prop_map(str::to_owned)];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let (f, g, h) = (inner.clone(), inner.clone(), inner);
        let binary = ["|", ",", "//", "and", "or", "==", "!=", "<", ">=", "+", "-", "*", "as $v |"];
        let binary = prop::sample::select(binary.to_vec());
        let update = prop::sample::select(vec!["=", "|=", "+=", "//="]);
        let update_again = update.clone();
        prop_oneof![
            6 => (f.clone(), binary, g.clone()).prop_map(|(f, op, g)| format!("(({f}) {op} ({g}))")),
            4 => (path(), update, f.clone()).prop_map(|(p, op, f)| format!("({p} {op} ({f}))")),
            // What was written, or put somewhere, is looked into afterwards.
            4 => (path(), update_again, path(), path()).prop_map(|(p, op, q, r)| format!("({p} {op} ({q}) | {r})")),
            2 => (path(), path()).prop_map(|(p, q)| format!("({{a: {p}}} | {q})")),
            1 => path().prop_map(|p| format!("del({p})")),
            1 => f.clone().prop_map(|f| format!("select({f})")),
            1 => f.clone().prop_map(|f| format!("[{f}]")),
            1 => f.clone().prop_map(|f| format!("{{x: ({f}), a}}")),
            1 => f.clone().prop_map(|f| format!("map({f})?")),
            1 => f.clone().prop_map(|f| format!("first({f})")),
            1 => f.clone().prop_map(|f| format!("\"<\\({f})>\"")),
            1 => f.clone().prop_map(|f| format!("-({f})")),
            1 => f.clone().prop_map(|f| format!("path({f})?")),
            1 => (f.clone(), g.clone()).prop_map(|(f, g)| format!("try ({f}) catch ({g})")),
            1 => (f.clone(), g.clone()).prop_map(|(f, g)| format!("if {f} then {g} end")),
            1 => (f.clone(), g.clone(), h).prop_map(|(f, g, h)| format!("if {f} then {g} else {h} end")),
            1 => (f.clone(), g.clone()).prop_map(|(f, g)| format!("reduce ({f}) as $v (.; {g})")),
            1 => (f, g).prop_map(|(f, g)| format!("def f: {f}; {g} | f")),
        ]
    })
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
        prop::sample::select(vec![1.5, -0.0, 1.0, 1e30]).prop_map(Value::from),
        prop::sample::select(vec!["", "t", "tt", "a\"\\\n", "é", "]}"]).prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop::sample::select(vec!["a", "b", "c", "x\"y"]);
        let members = prop::collection::vec((name, inner.clone()), 0..4);
        let object = members.prop_map(|members| {
            let members = members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value));
            Value::Object(members.collect())
        });
        prop_oneof![3 => object, 1 => prop::collection::vec(inner, 0..3).prop_map(Value::Array)]
    });
    (value.clone(), value.clone(), value).prop_map(|(a, b, c)| json!({"a": a, "b": b, "c": c}))
}

/// Programs that need not be run; with `runs`, those of which a part is.
fn rewriting(runs: bool) -> impl Strategy<Value = String> {
    let names = prop::sample::select(&["a", "b", "c", "d", "x\"y"][..]);
    let names = prop::collection::vec(names, 1..4);
    let path = names.prop_map(|names| {
        let names = names.iter().map(|name| format!("[{}]", json!(name)));
        format!(".{}", names.collect::<String>())
    });
    let of_text = [
        "ascii_downcase",
        "ascii_upcase",
        "ltrimstr(\"t\")",
        "rtrimstr(\"\\n\")",
        "trim",
        "ltrim",
        "rtrim",
        "split(\"t\")[0]",
        "split(\"t\") | first",
        "split(\"t\") | last",
        "split(\"\\\"\") | .[1]",
        "split(\"t\")",
        "length",
        "tostring",
        "contains(\"t\")",
        "startswith(\"t\")",
        "endswith(\"t\")",
        "not",
        "has(\"a\")",
        "{a: ., b}",
        ".a",
        "if . then 1 end",
    ];
    let run = [
        "keys",
        "tojson",
        "test(\"t\")",
        "map(.)",
        "type",
        "to_entries",
        "select(.)",
        "[.]",
        "{a: keys}",
        ".[]?",
        "ascii_downcase | explode",
        "@base64",
        "if type == \"string\" then . else {} end",
        "tonumber",
    ];
    let functions = if runs {
        [&of_text[..], &run[..]].concat()
    } else {
        of_text.to_vec()
    };
    let function = prop::sample::select(functions);
    let more = function.clone();
    let value = prop_oneof![
        2 => path.clone(),
        3 => (path.clone(), function.clone()).prop_map(|(path, function)| format!("({path} | {function})")),
        1 => path.clone().prop_map(|path| format!("({path} // \"z\")")),
        1 => path.clone().prop_map(|path| format!("\"<\\({path})\\n>\"")),
        1 => path.clone().prop_map(|path| format!("({path} + \"!\")")),
        1 => (path.clone(), path.clone(), prop::sample::select(&["+", "-", "*"][..]))
            .prop_map(|(one, other, op)| format!("({one} {op} {other})")),
        1 => (path.clone(), path.clone(), path.clone())
            .prop_map(|(one, two, three)| format!("(if {one} then {two} elif {two} == 1 then {three} else -1 end)")),
        1 => (path.clone(), function.clone())
            .prop_map(|(path, function)| format!("{{a: {path}, n: {{e: .event, f: ({path} | {function})}}}}")),
        1 => prop::sample::select(&["1", "\"t\"", "null", "{}", ".event", "{c}", "."][..]).prop_map(str::to_owned),
    ];
    let edit = prop_oneof![
        3 => (path.clone(), value.clone()).prop_map(|(path, value)| format!("{path} = {value}")),
        2 => path.clone().prop_map(|path| format!("del({path})")),
        1 => (path.clone(), path.clone()).prop_map(|(one, other)| format!("del({one}, {other})")),
        1 => (path.clone(), path.clone()).prop_map(|(one, other)| format!("{one} |= del({other})")),
        1 => (path.clone(), path.clone(), path.clone())
            .prop_map(|(one, two, other)| format!("{one} |= ({two} = {other} | {other} = 1)")),
        1 => (path.clone(), more).prop_filter_map("not in the place of something", move |(path, function)| {
            (!runs || of_text.contains(&function)).then(|| format!("{path} |= ({function})"))
        }),
        1 => (path.clone(), value.clone()).prop_map(|(path, value)| format!("{path} += {value}")),
        1 => (path.clone(), value.clone()).prop_map(|(path, value)| format!("{path} //= {value}")),
        1 => value.clone().prop_map(|value| format!("select({value})")),
    ];
    let built = value.prop_map(|value| format!("{{event, instance, x: {value}}}"));
    let edits = prop::collection::vec(edit, 1..4).prop_map(|edits| edits.join(" | "));
    prop_oneof![
        3 => edits.clone(),
        1 => built.clone(),
        1 => (edits.clone(), built.clone()).prop_map(|(edits, built)| format!("{edits} | {built}")),
        1 => (edits, built).prop_map(|(edits, built)| format!("{built} | {edits}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn what_is_rewritten_is_what_the_program_yields(program in rewriting(false), document in document()) {
        prop_assert!(Program::compile(&program).unwrap().rewrite.is_some(), "{program}");
        same(&program, &document);
    }

    #[test]
    fn what_is_rewritten_with_parts_that_are_run_is_it_too(program in rewriting(true), document in document()) {
        same(&program, &document);
    }

    #[test]
    fn a_part_does_as_well_as_the_whole(program in program(), document in document()) {
        same(&format!("null as $v | ({program})"), &document);
        // A binding in front is not among what can be seen without running it.
        if !program.contains("$v") {
            same(&program, &document);
        }
    }
}

#[test]
fn what_is_seldom_made_up() {
    let document =
        json!({"a": {"b": {"c": 1, "x": [1]}, "c": "t", "d": 1.10}, "b": null, "c": [{"a": 1}]});
    for program in [
        ".a |= del(.b.x) | .c = (.a.c | split(\"t\")[0])",
        ".a.b = .c",
        ".a |= .b | .a.c",
        ".b = .a.b | .b.c",
        ".b += .a | .b.b.c",
        ".b //= .a | .b.b.c",
        "{x: .a} | .x.b.c",
        "[.a] | .[0].b.c",
        ".a as $x | {y: $x} | .y.b",
        ". + {n: .a} | .n.b.c",
        "(if .event then .a else .b end) | .b.c",
        "(.a, .b) | .b",
        "(.a // .b) | .b.c",
        ".a.b |= .c | .a.b.c",
        ". + {n: .a.b} | .n.x",
        ". as $d | .a = {} | $d.a.b",
        "(.a.b, .c) |= [.] | .a",
        ".a.b as {c: $v} | [$v, .a]",
        "{event, instance, data: .a}",
        ".a",
        "[.a, .c]",
        ".a.d",
        ".a + .a",
        ".a.c + \"!\" | . + \"?\"",
        ".a.b as $x | .c = $x | .c.x",
        "try error(.a) catch .b",
        ".a as $x | try error($x) catch .b",
        "with_entries(select(.value))",
        "walk(.)",
        ".a // .b",
        "to_entries[0].value",
        "@json",
        "@text \"x\\(.a)\"",
        "limit(1; .a)",
        "[paths] | length",
        "getpath([\"a\", \"b\"])",
        ".a.b.c == 1 and .event == \"eé\"",
        ".a.c | . == \"t\" or true",
        ".a.c.d | true",
        "(.a.q // \"z\") == \"z\"",
        ".a.d == 1.1",
        ".a == .a",
        ".a.c | tobytes",
        ".d = (.a.c | tobytes)",
        "[.a.c, .c] | .[0] |= tobytes",
        ".a.d |= tobytes",
        "{n: .c, x: 1} | del(.x)",
        ".x = (try (.a + 1) catch .)",
        ".x = (try (.a | del(has(\"b\"))) catch .)",
        ".x = (try ((.a | keys) = 2) catch .)",
        ".a as $d | {m: (try ($d + \"x\") catch .)}",
        "try (.a + 1) catch contains(\"\\\"b\\\"\")",
        ".d = (\"+1.5\" | tonumber)",
        ".d = (\"[01.5,1.e5]\" | fromjson)",
        ".d = (-(\"+1.5\" | tonumber) | floor)",
        ".c += [.a.c]",
        ".a += {n: [.c]}",
        ".x = {n: (.c | length), (.a.c): 1}",
    ] {
        same(program, &document);
    }
}

#[test]
fn little_is_looked_at() {
    let looks_at = |program: &str| {
        let program = Program::compile(program).unwrap();
        let mut text = Vec::new();
        describe(&program.looks_at, String::new(), &mut text);
        text.join(" ")
    };
    for (program, parts) in [
        (".event == \"call\"", "event*"),
        (".data.key.fromMe | not", "data.key.fromMe"),
        (".data.source = \"shop\"", "data.source"),
        (
            ".data |= del(.message.info) | .data.chat = (.data.key.jid | split(\"@\")[0])",
            "data.message.info data.chat data.key.jid*",
        ),
        ("{event, data: .data.key}", "event data.key"),
        ("select(.data.n[0] > 1)", "data.n*"),
        (". + {x: .data.n}", "data.n*"),
        (".data.n | keys", "data.n"),
        ("select(.data.n != null)", "data.n"),
        ("keys", ""),
        ("tojson", "*"),
        ("def f: .a; f", "*"),
        (".[.event]", "*"),
    ] {
        assert_eq!(looks_at(program), parts, "{program}");
    }
    let json = Bytes::from_static(br#"{"event":"call","data":{"s":[1],"t":2},"n":1.50}"#);
    let conditions = ["(.event)", ".data.s"].map(|it| Program::compile(it).unwrap());
    let part = Reader::of(&conditions).read(&json).unwrap();
    assert!(matches!(part, Val::Obj(members) if members.len() == 2));
    assert!(Reader::of(&conditions).read(&json.slice(..20)).is_none());
    // What nobody looks at is as it stands.
    let program = Program::compile(".data.t = 3").unwrap();
    let part = Reader::keeping(&program).read(&json).unwrap();
    let (mut written, changed) = (Vec::new(), &mut None);
    program
        .run(part, TIME, |value| *changed = Some(value))
        .unwrap();
    write(changed.as_ref().unwrap(), &json, &mut written).unwrap();
    assert_eq!(
        written,
        br#"{"event":"call","data":{"s":[1],"t":3},"n":1.50}"#
    );
}

fn describe(need: &Need, path: String, out: &mut Vec<String>) {
    match need {
        Need::All => out.push(format!("{path}*")),
        Need::Members { wanted, .. } if !wanted.is_empty() => {
            for (name, need) in wanted {
                let dot = if path.is_empty() { "" } else { "." };
                describe(need, format!("{path}{dot}{name}"), out);
            }
        }
        Need::Nothing | Need::Members { .. } => out.push(path),
    }
}
