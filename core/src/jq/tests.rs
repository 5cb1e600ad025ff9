mod parts;

use super::*;

const TIME: Duration = Duration::from_millis(50);

fn run(program: &str, input: &str) -> Result<Vec<String>, RunError> {
    let program =
        Program::compile(program).unwrap_or_else(|faults| panic!("{program}: {faults:?}"));
    let mut values = Vec::new();
    let input = read(input.as_bytes()).unwrap();
    program.run(input, TIME, |value| values.push(value.to_string()))?;
    Ok(values)
}

#[test]
fn a_program_yields_any_number_of_values() {
    let input = r#"{"event":"call","data":{"n":[1,2,3]}}"#;
    assert_eq!(run(".data.n[]", input).unwrap(), ["1", "2", "3"]);
    assert_eq!(run("empty", input).unwrap(), [""; 0]);
    let changed = run(".data.n |= map(. * 2) | .x = \"y\"", input).unwrap();
    assert_eq!(
        changed,
        [r#"{"event":"call","data":{"n":[2,4,6]},"x":"y"}"#]
    );
    assert_eq!(run("[recurse | numbers] | add", input).unwrap(), ["6"]);
    assert_eq!(run("[range(0; 10; 3)]", "null").unwrap(), ["[0,3,6,9]"]);
    assert_eq!(run("[limit(3; repeat(1))]", "null").unwrap(), ["[1,1,1]"]);
    assert_eq!(run("del(.. | nulls)", "[1,null]").unwrap(), ["[1]"]);
    assert_eq!(
        run("def f: if . < 9 then . + 1 | f else . end; f", "0").unwrap(),
        ["9"]
    );
}

#[test]
fn a_program_without_an_end_is_ended() {
    for program in [
        "def f: f; f",
        "def f: .+1 | f; f",
        "[repeat(.)]",
        "last(repeat(.))",
        "range(0; infinite) | empty",
        "[range(0; 1; 0)] | length",
        "recurse(.) | empty",
        "until(false; .)",
        "def f: try f catch f; f",
        "def f: def g: f; g; f",
        "def f: (f // 1); f",
        "[recurse(.; true)] | length",
        "null | path(repeat(.a))",
        "reduce repeat(1) as $x (0; . + $x)",
        "first(repeat(.) | select(false)) // 5",
        "try (repeat(.) | empty) catch 1",
        "(repeat(.) | empty) |= 1",
        "def f($x): [f($x)]; f(1)",
        "def f: 1 + f; f",
        "def f: [., f]; f",
        "walk(def f: f; f)",
    ] {
        let ended = run(program, "0");
        assert!(
            matches!(ended, Err(RunError::Exceeded(_))),
            "{program}: {ended:?}"
        );
    }
}

#[test]
fn what_takes_long_is_ended() {
    let numbers = format!("[{}]", vec!["1"; 3_000].join(","));
    for program in [
        "[.[] as $a | .[] as $b | select($a == $b)] | length",
        "[.[] as $a | .. | select(. == $a)] | length",
        "any(.[]; . as $a | any(range(1000); . == -1))",
        "[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] | combinations(8)] | length",
        "reduce range(100) as $i (\"ab\"; . + .) | length",
        "reduce .[] as $i ([1, 2]; . + .) | length",
        "[.[] |= (. as $a | [range(1000)] | length)] | length",
    ] {
        let ended = run(program, &numbers);
        assert!(
            matches!(ended, Err(RunError::Exceeded(_))),
            "{program}: {:?}",
            ended.map(|values| values.len())
        );
    }
}

#[test]
fn what_makes_much_of_little_is_refused() {
    let nested = "[".repeat(20_000);
    let long = "1".repeat(100_000);
    for (program, input) in [
        ("fromjson", format!("\"{nested}\"")),
        ("fromjson", format!("\"{long}\"")),
        ("tonumber", format!("\"{long}\"")),
        ("\"ab\" * .", "1000000000000000000".to_owned()),
        (". * \"ab\"", "1e300".to_owned()),
        (
            "{a: \"ab\", n: .} | .a *= .n",
            "1000000000000000000".to_owned(),
        ),
    ] {
        let ended = run(program, &input);
        assert!(matches!(ended, Err(RunError::Raised(_))), "{program}");
    }
    assert!(read(nested.as_bytes()).is_none());
    assert!(read(long.as_bytes()).is_none());
    // The value that an error is about is not shown as a whole.
    let error = run(".a", &format!("[{}0]", "1,".repeat(10_000))).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
}

#[test]
fn multiplying_is_as_before() {
    for program in [
        "[(1, 2) * (10, 30)] == [10, 30, 20, 60]",
        "[(1, 2) + (10, 30)] == [11, 31, 12, 32]",
        "\"ab\" * (1 + 1) == \"abab\"",
        "{a: {b: 1}} * {a: {c: 2}} == {a: {b: 1, c: 2}}",
        "[{a: 3, b: 4} | .a *= .b] == [{a: 12, b: 4}]",
        "[1, 2] | map(. * .) == [1, 4]",
        "{a: [1, 2]} | [.a[] *= 2] == [{a: [2, 4]}]",
    ] {
        assert_eq!(run(program, "0").unwrap(), ["true"], "{program}");
    }
    let doubled = run("(.. | numbers) *= (1 + 1)", "{\"a\":[1,{\"b\":2}]}");
    assert_eq!(doubled.unwrap(), [r#"{"a":[2,{"b":4}]}"#]);
    let paths = run("[path(.a[], ..)]", "{\"a\":[1]}");
    assert_eq!(paths.unwrap(), [r#"[["a",0],[],["a"],["a",0]]"#]);
}

#[test]
fn half_a_character_is_replaced() {
    let event = crate::testing::event(
        r#"{"event":"e","instance":"i","data":{"n":"Ana \ud83d","m":[1,"\ud83d"]}}"#,
    );
    for program in [
        ".data.n == \"Ana \u{fffd}\"",
        ".data.n | length == 5",
        "[.data] | .[0].m[1] == \"\u{fffd}\"",
    ] {
        let program = Program::compile(program).unwrap();
        let input = Reader::of([&program]).read(event.envelope()).unwrap();
        assert_eq!(program.holds(input, TIME), Ok(true), "{program:?}");
        assert_ne!(program.tells(&event), Some(false), "{program:?}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    for (program, error) in [
        (".a", "index"),
        ("1 / 0 | error", ""),
        ("error(\"no\")", "no"),
        ("{} - 1", "cannot calculate"),
    ] {
        let raised = run(program, "5").unwrap_err();
        assert!(raised.to_string().contains(error), "{program}: {raised}");
    }
}

#[test]
fn faults_have_places() {
    for (program, place, message) in [
        (".a |", "", "term"),
        (".a | ]", "]", ""),
        (".a | foo(1)", "foo", "no filter `foo`"),
        (".a | slect(.b)", "slect", "did you mean `select`"),
        ("map", "map", "takes 1"),
        ("$x", "$x", "variable"),
        ("include \"a\"; .", "a", "modules"),
        ("\"a", "", "quote"),
        ("env", "env", "no filter"),
        ("input", "input", "no filter"),
    ] {
        let faults = Program::compile(program).unwrap_err();
        let fault = &faults[0];
        let span = fault.span.clone();
        assert_eq!(program.get(span), Some(place), "{program}: {faults:?}");
        assert!(fault.message.contains(message), "{program}: {faults:?}");
    }
}

/// Those that are native here do as they are defined in jaq.
#[test]
fn entries_are_those_of_jaq() {
    let to_entries = "[path_value(.[]) as [$p, $value] | $p[0] as $key | {$key, $value}]";
    let from_entries = "reduce (.[] | {(.key): .value}) as $x ({}; . + $x)";
    for (native, defined) in [
        ("to_entries", to_entries.to_owned()),
        ("from_entries", from_entries.to_owned()),
        (
            "with_entries(select(.value != null) | .key |= ascii_upcase)",
            format!(
                "{to_entries} | map(select(.value != null) | .key |= ascii_upcase) | {from_entries}"
            ),
        ),
    ] {
        let [native, defined] = [native, &defined].map(|it| Program::compile(it).unwrap());
        for input in [
            r#"{"a":1,"b":null,"A":2}"#,
            r#"[{"key":"a","value":1},{"key":"b"},{"value":2,"key":"a"}]"#,
            r#"{"x":{"key":"a","value":[]}}"#,
            r#"["a"]"#,
            "[null]",
            "[]",
            "null",
            "5",
            "\"text\"",
        ] {
            let run = |program: &Program| {
                let mut values = Vec::new();
                let input = read(input.as_bytes()).unwrap();
                let ended = program.run(input, TIME, |value| values.push(value.to_string()));
                (values, ended)
            };
            assert_eq!(run(&native), run(&defined), "{native:?} of {input}");
        }
    }
}

#[test]
fn parts_that_are_run_are_limited_in_time() {
    let event = crate::testing::event(r#"{"event":"e","instance":"i","a":1}"#);
    let endless = Program::compile(".b = 1 | .c = ([.a | while(true; .)] | length)").unwrap();
    let ended = endless.rewrites(&event, TIME);
    assert_eq!(ended, Err(RunError::Exceeded(Exceeded::Time(TIME))));
    for (program, rewritten) in [
        (".c = (.a | error)", None),
        (".c = (.a, .a)", None),
        (".c = (.a | select(false))", None),
        (
            "select(.a == 2) | .c = (.a | error)",
            Some(Rewritten::Nothing),
        ),
        // What is behind a condition is not run before that holds.
        (
            "select([.a] | any(. == 2)) | .c = ([.a | while(true; .)] | length)",
            Some(Rewritten::Nothing),
        ),
    ] {
        let program = Program::compile(program).unwrap();
        let known = match program.rewrites(&event, TIME).unwrap() {
            Rewritten::Unknown(left) => {
                assert!(left < TIME, "some was spent");
                None
            }
            known => Some(known),
        };
        assert_eq!(known, rewritten, "{program:?}");
    }
    // What is run would not see what is written in front of it.
    for program in [".a = 2 | .c = (.a | tojson)", ".a.b = 2 | .c = tojson"] {
        assert!(
            Program::compile(program).unwrap().rewrite.is_none(),
            "{program}"
        );
    }
}

#[test]
fn terms_do_not_double_with_each_pipe() {
    let link = "if startswith(\"0\") then ltrimstr(\"0\") else . end";
    let program = format!(".t |= ({})", [link; 40].join(" | "));
    let program = Program::compile(&program).unwrap();
    assert!(program.rewrite.is_none());
    let short = format!(".t |= ({})", [link; 3].join(" | "));
    assert!(Program::compile(&short).unwrap().rewrite.is_some());
}

#[test]
fn what_is_made_is_nested_no_deeper_than_what_is_read() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let program = Program::compile(".x = {a: .d}").unwrap();
    for (depth, fits) in [(125, true), (126, false)] {
        let json = format!(r#"{{"event":"e","instance":"i","d":{}}}"#, nested(depth));
        let rewritten = program.rewrites(&crate::testing::event(&json), TIME);
        let envelope = matches!(rewritten, Ok(Rewritten::Envelope(_)));
        assert_eq!(envelope, fits, "{depth}");
    }
}

#[test]
fn a_long_document_is_read_once_instead() {
    let fill = "[],".repeat(1 << 19);
    let json = format!(r#"{{"event":"e","instance":"i","fill":[{fill}0],"a":1,"b":2}}"#);
    let event = crate::testing::event(&json);
    let time = Duration::from_secs(5);
    let once = Program::compile("del(.a)").unwrap();
    assert!(matches!(
        once.rewrites(&event, time),
        Ok(Rewritten::Envelope(_))
    ));
    let often = Program::compile(".a = .b | .c = .b | del(.a)").unwrap();
    assert!(matches!(
        often.rewrites(&event, time),
        Ok(Rewritten::Unknown(_))
    ));
    assert_eq!(Program::compile(".a == .b").unwrap().tells(&event), None);
}

#[test]
fn values_do_not_grow_deep() {
    for program in [
        "reduce range(1000000) as $i (null; [.])",
        "reduce range(1000000) as $i (null; {a: [., $i]}) | length",
        "last(foreach range(1000000) as $i (null; [.]))",
        "last(limit(1000000; recurse([.])))",
        "until(false; [.])",
        "def f: [.] | f; f",
        "[limit(1000000; null | while(true; {a: .}))] | length",
    ] {
        let compiled = Program::compile(program).unwrap();
        let ended = compiled.run(Val::Null, Duration::from_secs(30), |_| {});
        assert_eq!(ended, Err(RunError::Exceeded(Exceeded::Depth)), "{program}");
    }
    let wide = "reduce range(300) as $i ([]; . + [{a: [$i]}]) | length";
    assert_eq!(run(wide, "null").unwrap(), ["300"]);
}

#[test]
fn conditions_hold_for_what_is_true() {
    for (program, holds) in [
        (".fromMe", true),
        (".no", false),
        ("empty", false),
        (".n == 3", true),
        (".n > 3", false),
        ("0", true),
    ] {
        let program = Program::compile(program).unwrap();
        let input = read(br#"{"fromMe":true,"n":3}"#).unwrap();
        assert_eq!(program.holds(input, TIME), Ok(holds), "{program:?}");
    }
}
