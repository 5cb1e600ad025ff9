//! A report for people.

use std::fmt::Write as _;

use serde_json::Value;

/// One line per number, named as in JSON.
pub(super) fn text(report: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", report, &mut lines);
    let width = lines.iter().map(|(name, _)| name.len()).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for (name, value) in lines {
        // Writing to a string cannot fail.
        writeln!(text, "{name:width$}  {value:>14}").ok();
    }
    text
}

fn flatten(name: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    if let Value::Object(object) = value {
        for (key, value) in object {
            let key = key.replace('_', " ");
            let name = if name.is_empty() {
                key
            } else {
                format!("{name} {key}")
            };
            flatten(&name, value, lines);
        }
        return;
    }
    lines.push((name.to_owned(), shown(value)));
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(count), _) => grouped(count),
            (None, Some(value)) if value.abs() >= 1_000.0 => format!("{value:.0}"),
            (None, Some(value)) => format!("{value:.3}"),
            (None, None) => number.to_string(),
        },
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `1,234,567`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_have_names_and_nothing_is_a_dash() {
        let report =
            json!({"clients": 12_345, "latency_ms": {"p50": 0.25}, "cpu": null, "full": true});
        assert_eq!(
            text(&report),
            "clients                 12,345\n\
             latency ms p50           0.250\n\
             cpu                          -\n\
             full                       yes\n"
        );
    }
}
