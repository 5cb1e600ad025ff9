//! Tables in files.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// What there is to find, by key.
pub(super) type Table = HashMap<String, Value>;

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

/// Why a file is no table.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `file` {}: {reason}", .path.display())]
pub(super) struct BadTable {
    path: PathBuf,
    reason: String,
}

/// Reads a table. Blocks.
pub(super) fn read(path: &Path, key: Option<&str>) -> Result<Table, BadTable> {
    let bad = |reason: String| BadTable {
        path: path.to_owned(),
        reason,
    };
    let bytes = fs::read(path).map_err(|error| bad(error.to_string()))?;
    let table = match Format::of(path) {
        Some(Format::Json) => json(&bytes, key),
        Some(Format::Csv) => csv(&bytes, key),
        None => Err("it ends neither with `.json` nor with `.csv`".to_owned()),
    };
    table.map_err(bad)
}

fn json(bytes: &[u8], key: Option<&str>) -> Result<Table, String> {
    let read: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match (read, key) {
        (Value::Object(members), None) => Ok(members.into_iter().collect()),
        (Value::Array(items), Some(key)) => {
            let mut table = Table::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                let name = match item.get(key) {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Number(number)) => number.to_string(),
                    _ => return Err(format!("element {index} has no text or number `{key}`")),
                };
                insert(&mut table, name, item)?;
            }
            Ok(table)
        }
        (_, None) => Err("without `file_key` it must be an object".to_owned()),
        (_, Some(_)) => Err("with `file_key` it must be an array of objects".to_owned()),
    }
}

fn csv(bytes: &[u8], key: Option<&str>) -> Result<Table, String> {
    // What spreadsheets put in front.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::Reader::from_reader(bytes);
    let names = reader.headers().map_err(|error| error.to_string())?.clone();
    let column = match key {
        Some(key) => names.iter().position(|name| name == key),
        None => (!names.is_empty()).then_some(0),
    };
    let column = column.ok_or_else(|| {
        let names: Vec<_> = names.iter().collect();
        let key = key.unwrap_or_default();
        format!(
            "it has no column `{key}`: the columns are {}",
            names.join(", ")
        )
    })?;
    let mut table = Table::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let members = names.iter().zip(&record);
        let members: Map<_, _> = members
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect();
        let name = record.get(column).unwrap_or_default().to_owned();
        insert(&mut table, name, Value::Object(members))?;
    }
    Ok(table)
}

fn insert(table: &mut Table, key: String, value: Value) -> Result<(), String> {
    if table.contains_key(&key) {
        return Err(format!("the key `{key}` is there twice"));
    }
    table.insert(key, value);
    Ok(())
}

// === impl Format ===

impl Format {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?;
        if extension.eq_ignore_ascii_case("json") {
            Some(Self::Json)
        } else if extension.eq_ignore_ascii_case("csv") {
            Some(Self::Csv)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(name: &str, text: &str, key: Option<&str>) -> Result<Table, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        read(&path, key).map_err(|error| error.reason)
    }

    #[test]
    fn every_form_is_read() {
        let expected: Table = [
            ("1".to_owned(), json!({"id": "1", "n": "a,b"})),
            ("2".to_owned(), json!({"id": "2", "n": ""})),
        ]
        .into();
        for (name, text, key) in [
            ("a.csv", "\u{feff}id,n\r\n1,\"a,b\"\r\n2,\r\n", None),
            ("a.CSV", "id,n\n1,\"a,b\"\n2,\n", Some("id")),
            (
                "a.json",
                r#"[{"id":"1","n":"a,b"},{"id":"2","n":""}]"#,
                Some("id"),
            ),
            (
                "a.json",
                r#"{"1":{"id":"1","n":"a,b"},"2":{"id":"2","n":""}}"#,
                None,
            ),
        ] {
            assert_eq!(table(name, text, key).as_ref(), Ok(&expected), "{text}");
        }
        let by_number = table("a.json", r#"[{"id":7}]"#, Some("id")).unwrap();
        assert_eq!(by_number["7"], json!({"id": 7}));
    }

    #[test]
    fn says_what_is_wrong() {
        for (name, text, key, part) in [
            ("a.json", "[1", None, "EOF"),
            ("a.json", "[]", None, "must be an object"),
            ("a.json", "{}", Some("id"), "must be an array"),
            (
                "a.json",
                r#"[{"id":"1"},{"n":1}]"#,
                Some("id"),
                "element 1 has no",
            ),
            (
                "a.json",
                r#"[{"id":"1"},{"id":1}]"#,
                Some("id"),
                "`1` is there twice",
            ),
            (
                "a.csv",
                "id,n\n1,2\n",
                Some("jid"),
                "no column `jid`: the columns are id, n",
            ),
            ("a.csv", "id,n\n1\n", None, "record 1"),
            ("a.csv", "id,n\n1,2\n1,3\n", None, "twice"),
            ("a.txt", "", None, "neither"),
        ] {
            let error = table(name, text, key).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let gone = read(Path::new("/nowhere/a.csv"), None).unwrap_err();
        assert!(gone.to_string().contains("/nowhere/a.csv"), "{gone}");
    }
}
