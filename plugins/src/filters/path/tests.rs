use proptest::prelude::*;
use serde_json::json;

use super::*;

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn document(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else {
        panic!("{value} is no object");
    };
    members
}

fn sample() -> Map<String, Value> {
    document(json!({
        "event": "messages.upsert",
        "data": {
            "key": {"remoteJid": "1@lid", "0": "zero"},
            "a.b": 1,
            "none": null,
            "list": [{"id": "x", "n": 1}, {"id": "y", "n": 2}, 3],
            "*": "star",
        },
    }))
}

/// Every value that the path leads to.
fn all(text: &str) -> Vec<Value> {
    let document = sample();
    let mut values = Vec::new();
    path(text).any(&document, &mut |value| {
        values.push(value.clone());
        false
    });
    values
}

#[test]
fn leads_to_values() {
    for (text, expected) in [
        ("event", json!("messages.upsert")),
        ("data.key.remoteJid", json!("1@lid")),
        ("data.\"key\".remoteJid", json!("1@lid")),
        ("data.\"a.b\"", json!(1)),
        ("data.\"*\"", json!("star")),
        ("data.none", Value::Null),
        ("data.list.1.id", json!("y")),
        ("data.list.2", json!(3)),
        ("data.key.0", json!("zero")),
        ("data.key.\"0\"", json!("zero")),
    ] {
        assert_eq!(all(text), std::slice::from_ref(&expected), "{text}");
        let sample = sample();
        assert_eq!(path(text).get(&sample), Some(&expected), "{text}");
        assert_eq!(path(text).place(&sample), Place::Taken(&expected), "{text}");
    }
}

#[test]
fn leads_to_nothing() {
    for text in [
        "date",
        "data.x.y",
        "event.x",
        "data.none.x",
        "data.list.3",
        "data.list.id",
        "data.list.\"0\"",
        "data.list.2.id",
        "event.*",
    ] {
        assert_eq!(all(text), [] as [Value; 0], "{text}");
        assert_eq!(path(text).get(&sample()), None, "{text}");
    }
}

#[test]
fn a_star_is_every_member_and_every_element() {
    assert_eq!(all("data.list.*.id"), [json!("x"), json!("y")]);
    assert_eq!(all("data.key.*"), [json!("1@lid"), json!("zero")]);
    assert_eq!(all("*.list.0.n"), [json!(1)]);
    assert_eq!(path("data.list.*.n").get(&sample()), Some(&json!(1)));
    assert!(path("data.*").has_every() && !path("data.\"*\"").has_every());
    assert_eq!(path("data.*").place(&sample()), Place::Blocked);
    assert_eq!(path("*").place(&sample()), Place::Blocked);
}

#[test]
fn sets_in_place_and_makes_objects_on_the_way() {
    for (text, expected) in [
        ("a", json!({"a": 7})),
        ("a.b.c", json!({"a": {"b": {"c": 7}}})),
        ("a.0", json!({"a": {"0": 7}})),
        ("a.\"b.c\"", json!({"a": {"b.c": 7}})),
    ] {
        let mut made = Map::new();
        assert_eq!(path(text).place(&made), Place::Free, "{text}");
        assert_eq!(path(text).set(&mut made, json!(7)), Ok(()));
        assert_eq!(Value::Object(made), expected, "{text}");
    }
    let mut list = document(json!({"x": 1, "list": [{"n": 1}, 2], "y": 2}));
    assert_eq!(path("list.0.m").set(&mut list, json!(7)), Ok(()));
    assert_eq!(path("list.1").set(&mut list, json!(7)), Ok(()));
    assert_eq!(path("x").set(&mut list, json!(7)), Ok(()));
    assert_eq!(
        Value::Object(list).to_string(),
        r#"{"x":7,"list":[{"n":1,"m":7},7],"y":2}"#
    );
}

#[test]
fn what_is_in_the_way_stays() {
    for text in [
        "event.x",
        "event.x.y",
        "data.none.x",
        "data.list.3",
        "data.list.x",
        "data.list.2.x",
        "data.list.\"0\"",
        "data.*",
        "new.*.x",
        "*",
    ] {
        let mut document = sample();
        assert_eq!(path(text).place(&document), Place::Blocked, "{text}");
        assert_eq!(path(text).set(&mut document, json!(7)), Err(json!(7)));
        assert_eq!(document, sample(), "{text}");
    }
}

#[test]
fn removes_and_keeps_the_order() {
    for (text, expected) in [
        ("b", r#"{"a":1,"c":[{"x":1,"y":2},{"x":3},4]}"#),
        ("a", r#"{"b":{"x":1},"c":[{"x":1,"y":2},{"x":3},4]}"#),
        ("b.x", r#"{"a":1,"b":{},"c":[{"x":1,"y":2},{"x":3},4]}"#),
        ("c.0", r#"{"a":1,"b":{"x":1},"c":[{"x":3},4]}"#),
        ("c.*.x", r#"{"a":1,"b":{"x":1},"c":[{"y":2},{},4]}"#),
        ("c.*", r#"{"a":1,"b":{"x":1},"c":[]}"#),
        ("*.x", r#"{"a":1,"b":{},"c":[{"x":1,"y":2},{"x":3},4]}"#),
        ("*.*", r#"{"a":1,"b":{},"c":[]}"#),
        ("*", "{}"),
    ] {
        let text_of = r#"{"a":1,"b":{"x":1},"c":[{"x":1,"y":2},{"x":3},4]}"#;
        let mut document: Map<String, Value> = serde_json::from_str(text_of).unwrap();
        assert!(path(text).remove(&mut document), "{text}");
        assert_eq!(Value::Object(document.clone()).to_string(), expected);
        assert!(text == "c.0" || !path(text).remove(&mut document), "{text}");
    }
    let mut document = sample();
    for text in ["x", "event.x", "data.none.x", "data.list.3", "data.list.x"] {
        assert!(!path(text).remove(&mut document), "{text}");
    }
    assert_eq!(document, sample());
}

#[test]
fn changes_each_value_once() {
    let mut document = sample();
    for text in ["data.list.*.n", "data.list.2", "data.\"a.b\"", "data.*.x"] {
        path(text).for_each_mut(&mut document, &mut |value| {
            *value = json!(value.as_i64().unwrap() * 10);
        });
    }
    assert_eq!(
        document["data"]["list"],
        json!([{"id": "x", "n": 10}, {"id": "y", "n": 20}, 30])
    );
    assert_eq!(document["data"]["a.b"], 10);
}

#[test]
fn says_what_is_wrong_with_text() {
    for (text, reason) in [
        ("", "it is empty"),
        (".", "no dot stands in front"),
        ("data.", "a part of it is empty"),
        ("data..x", "a part of it is empty"),
        (".data", "no dot stands in front"),
        ("data.\"x", "a quote is not closed"),
        ("data.\"x\"y", "behind a quoted part"),
        ("data.\"x\\y\"", "behind a backslash"),
        ("data.x\"y\"", "are quoted"),
        ("data. x", "are quoted"),
        ("data.x*", "stands alone"),
        ("data.list[0]", "as in `list.0`"),
    ] {
        let error = text.parse::<Path>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
        assert!(error.contains(&format!("`{text}`")), "{error}");
    }
}

#[test]
fn one_path_lies_within_another() {
    assert!(path("data.key.id").is_within(&path("data.key")));
    assert!(path("data.key").is_within(&path("data.\"key\"")));
    assert!(!path("data.key").is_within(&path("data.key.id")));
    assert!(!path("data.keys").is_within(&path("data.key")));
    assert!(path("event").is_reserved() && path("instance.x").is_reserved());
    assert!(path("*.x").is_reserved() && !path("data.event").is_reserved());
    assert_eq!(path("a").join(&path("b.\"c.d\"")), path("a.b.\"c.d\""));
}

#[test]
fn a_table_of_paths_keeps_its_order_and_says_which_key_is_wrong() {
    let text = "z = 1\n\"a.b\" = 2\nm = 3";
    let table: ByPath<i64> = toml::from_str(text).unwrap();
    let keys: Vec<_> = table.0.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(keys, ["z", "a.b", "m"]);
    let error = toml::from_str::<ByPath<i64>>("a = 1\n\"b..c\" = 2").unwrap_err();
    assert!(error.message().contains("`b..c` is not a path"), "{error}");
    assert_eq!(error.span(), Some(6..12));
}

proptest! {
    #[test]
    fn any_text_is_a_path_that_reads_back_or_an_error(text in r#"[a-c0"\\.*\[ é]{0,12}"#) {
        if let Ok(path) = text.parse::<Path>() {
            prop_assert_eq!(path.to_string().parse::<Path>().unwrap(), path);
        }
    }

    #[test]
    fn what_is_set_is_there_and_can_be_removed(names in proptest::collection::vec(".{0,4}", 1..4)) {
        let path = Path(names.into_iter().map(|name| Part::Name(name, None)).collect());
        prop_assert_eq!(&path.to_string().parse::<Path>().unwrap(), &path);
        let mut document = Map::new();
        prop_assert_eq!(path.set(&mut document, json!(7)), Ok(()));
        prop_assert_eq!(path.get(&document), Some(&json!(7)));
        prop_assert!(path.remove(&mut document));
        prop_assert_eq!(path.get(&document), None);
    }
}
