//! Walks over a parsed document: from spans to keys, and back.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// A value with its place in the text.
pub(super) type Node<'i> = Spanned<DeValue<'i>>;

/// The document as one value. Syntax errors are left out; see [`DeTable::parse_recoverable`].
pub(super) fn root(table: Spanned<DeTable<'_>>) -> Node<'_> {
    Spanned::new(table.span(), DeValue::Table(table.into_inner()))
}

/// The table at this path of keys.
pub(super) fn table_at<'t, 'i>(root: &'t Node<'i>, path: &[String]) -> Option<&'t Node<'i>> {
    path.iter().try_fold(root, |node, key| {
        node.get_ref()
            .as_table()
            .and_then(|table| table.get(&**key))
    })
}

/// Where the value at this path is; or, with `of_key`, its key. Falls back to the deepest part that exists.
pub(super) fn locate(start: &Node<'_>, path: &[String], of_key: bool) -> Range<usize> {
    let (mut node, mut span) = (start, start.span());
    for (index, key) in path.iter().enumerate() {
        let element = node.get_ref().as_array().zip(key.parse::<usize>().ok());
        if let Some(element) = element.and_then(|(array, index)| array.get(index)) {
            (node, span) = (element, element.span());
            continue;
        }
        let Some(table) = node.get_ref().as_table() else {
            break;
        };
        let Some((name, value)) = table.get_key_value(&**key) else {
            break;
        };
        let last = index + 1 == path.len();
        span = if last && of_key {
            name.span()
        } else {
            value.span()
        };
        node = value;
    }
    span
}

/// The path of keys to the value, or to the key, that has exactly this span. Elements of arrays are
/// reported under the key of the array.
pub(super) fn path_to(node: &Node<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    match node.get_ref() {
        DeValue::Table(table) => table.iter().find_map(|(key, value)| {
            let below = if key.span() == *span || value.span() == *span {
                Some(Vec::new())
            } else {
                path_to(value, span)
            };
            below.map(|mut path| {
                path.insert(0, key.get_ref().clone().into_owned());
                path
            })
        }),
        DeValue::Array(array) => array.iter().find_map(|value| {
            if value.span() == *span {
                Some(Vec::new())
            } else {
                path_to(value, span)
            }
        }),
        _ => None,
    }
}

/// Every string in the value.
pub(super) fn strings<'t>(node: &'t Node<'_>, visit: &mut impl FnMut(&'t str, Range<usize>)) {
    match node.get_ref() {
        DeValue::String(text) => visit(text, node.span()),
        DeValue::Array(array) => array.iter().for_each(|value| strings(value, visit)),
        DeValue::Table(table) => table.values().for_each(|value| strings(value, visit)),
        _ => {}
    }
}

/// The value that has exactly this span, for replacing it.
pub(super) fn value_mut<'t, 'i>(
    node: &'t mut Node<'i>,
    span: &Range<usize>,
) -> Option<&'t mut DeValue<'i>> {
    if node.span() == *span {
        return Some(node.get_mut());
    }
    match node.get_mut() {
        DeValue::Array(array) => array.iter_mut().find_map(|value| value_mut(value, span)),
        DeValue::Table(table) => table
            .iter_mut()
            .find_map(|(_, value)| value_mut(value, span)),
        _ => None,
    }
}

/// Takes out the entry, or the element, whose key or value has exactly this span, and returns its key.
pub(super) fn remove(node: &mut Node<'_>, span: &Range<usize>) -> Option<String> {
    match node.get_mut() {
        DeValue::Table(table) => {
            let hit = table
                .iter()
                .find(|(key, value)| key.span() == *span || value.span() == *span)
                .map(|(key, _)| key.get_ref().clone().into_owned());
            if let Some(key) = hit {
                table.remove(&*key);
                return Some(key);
            }
            table.iter_mut().find_map(|(_, value)| remove(value, span))
        }
        DeValue::Array(array) => {
            if array.iter().any(|value| value.span() == *span) {
                *array = std::mem::replace(array, DeArray::new())
                    .into_iter()
                    .filter(|value| value.span() != *span)
                    .collect();
                return Some(String::new());
            }
            array.iter_mut().find_map(|value| remove(value, span))
        }
        _ => None,
    }
}
