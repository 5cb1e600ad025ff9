//! What is taken for a secret, and what is not.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[test]
fn secrets_are_masked_by_the_names_of_their_keys() {
    for (text, masked) in [
        ("secret_key = \"hunter2\" # x", "secret_key = \"****\" # x"),
        ("secretkey='hunter2'", "secretkey='****'"),
        ("\"Api-Key\" = \"hunter2\"", "\"Api-Key\" = \"****\""),
        ("a.password = 12345", "a.password = ****"),
        ("passwrod = \"hunter\\\"2\"", "passwrod = \"****\""),
        ("acces_key = \"hunter2", "acces_key = \"****"),
        (
            "tokn = \"\"\"\nhunter\n2\"\"\"\nb = 'c'",
            "tokn = \"\"\"****\"\"\"\nb = 'c'",
        ),
        ("password = hunter 2, or so # x", "password = **** # x"),
        ("password: hunter2", "password: ****"),
        ("api_key \"hunter2\"", "api_key \"****\""),
        ("secret = = \"hunter2\"", "secret = = \"****\""),
        (
            "s3 = { bucket = \"b\", secret = \"hunter2\", style = \"c\" }",
            "s3 = { bucket = \"b\", secret = \"****\", style = \"c\" }",
        ),
        (
            "h = { Authorization = \"Bearer x\", b = \"é\" }",
            "h = { Authorization = \"****\", b = \"é\" }",
        ),
        (
            "secrets = [\n  'hunter2', # one\n  'é',\n]\nb = 'c'",
            "secrets = [\n  '****', # one\n  '****',\n]\nb = 'c'",
        ),
        (
            "secrets = [ 'x'\n[a]\nb = 'c'",
            "secrets = [ '****'\n[a]\nb = 'c'",
        ),
    ] {
        assert_eq!(Masked::new(text).text(), masked, "{text}");
    }
    for plain in [
        "key = \"data.key.remoteJid\"",
        "api_key = \"${KEY}\"",
        "api_key = \"${KEY\"",
        "api_key = \"\"",
        "secret_header = \"x-secret\"",
        "require_token = true",
        "[sinks.token]\ntype = \"stdout\"",
        "# don't\na = \"b\" # it's\nurl = \"http://h:80/a@b?c=d\"",
    ] {
        assert_eq!(Masked::new(plain).text(), plain);
    }
    let default = Masked::new("api_key = \"${KEY:-hunter2}\"").text();
    assert_eq!(default, "api_key = \"****\"");
}

#[test]
fn passwords_in_urls_are_masked() {
    for (text, masked) in [
        ("url = 'http://u:p@h/a'", "url = 'http://u:****@h/a'"),
        (
            "url = 'http://u:p/x@h@h/a' # b",
            "url = 'http://u:****@h/a' # b",
        ),
        ("url = 'redis://:p@h'", "url = 'redis://:****@h'"),
        ("url = 'https://ghp_1@h/'", "url = 'https://****@h/'"),
        (
            "a = ['http://h/?a=b&apikey=x&c=d', 'http://u:p@h']",
            "a = ['http://h/?a=b&apikey=****&c=d', 'http://u:****@h']",
        ),
        (
            "url = 'http://u:${PASSWORD}@h'",
            "url = 'http://u:${PASSWORD}@h'",
        ),
    ] {
        assert_eq!(Masked::new(text).text(), masked, "{text}");
    }
}

#[test]
fn spans_stay_with_what_they_are_about() {
    let text = "secret = 'hunter2', a = 'b', token = 'x', c = 'd'";
    let masked = Masked::new(text);
    let shown = masked.text();
    let of = |part: &str| {
        let at = text.find(part).unwrap();
        let span = masked.span(&(at..at + part.len()));
        shown.get(span).unwrap().to_owned()
    };
    for same in ["secret", " = '", "a = 'b'", "c = 'd'"] {
        assert_eq!(of(same), same);
    }
    for (part, inside) in [
        ("'hunter2'", "'****'"),
        ("hunter2", "****"),
        ("unt", "****"),
    ] {
        assert_eq!(of(part), inside);
    }
    assert_eq!(
        of("'hunter2', a = 'b', token = 'x'"),
        "'****', a = 'b', token = '****'"
    );
    let all = masked.span(&(0..text.len()));
    assert_eq!(all, 0..shown.len());
    let end = masked.span(&(text.len()..text.len()));
    assert_eq!(end, shown.len()..shown.len());
}

proptest! {
    #[test]
    fn any_text_can_be_masked(
        pieces in vec(select(vec![
            "secret", "token_file", "a", "é", " ", "\n", "\"", "'", "'''", "\"\"\"", "[", "]", "{", "}", "=", ":",
            ",", "#", "\\", "://", "@", "/", "?", "&", "${", "}", "ab.cd",
        ]), 0..40),
        at in 0..200_usize,
        length in 0..50_usize,
    ) {
        let text = pieces.concat();
        let masked = Masked::new(&text);
        let shown = masked.text();
        let begin = at.min(text.len());
        let end = (begin + length).min(text.len());
        let span = masked.span(&(begin..end));
        prop_assert!(span.end <= shown.len() && span.start <= span.end);
        if text.is_char_boundary(begin) && text.is_char_boundary(end) {
            prop_assert!(shown.get(span).is_some(), "{text:?}");
        }
        masked.message("secret", &(begin..end));
    }
}

#[test]
fn messages_do_not_repeat_the_secrets_of_their_lines() {
    let text = "a = 'other'\nsecret = 'hunter2'\npin_token = 'ab'\n";
    let masked = Masked::new(text);
    let at = text.find("secret").unwrap();
    let said = masked.message("not hunter2, other or ab", &(at..at + 3));
    assert_eq!(said, "not ****, other or ab");
}
