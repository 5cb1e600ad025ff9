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
