//! The reference as a folder: a page for each plugin, one for tests, and an index.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use super::{cases, example, keys_of, table};
use crate::cli::list;
use crate::registry::{self, Kind, Registration};

/// Writes `README.md`, `tests.md` and `<kind>/<name>.md` below `folder`. With the sources at hand, a page begins with what the plugin's file says
/// of it. Pages of plugins that are gone are left alone.
pub(super) fn write(folder: &Path, sources: Option<&Path>) -> io::Result<()> {
    let mut index = String::from(
        "# Plugins\n\nWritten by `evows explain --markdown --out`; `.ci/run` checks that it is fresh. How to write one:\n\
         [Writing a plugin](../plugins.md). The keys that every sink has beside its own: [`evows.toml`](../../evows.toml).\n",
    );
    for kind in Kind::ALL {
        let title = list::title(kind);
        // Writing to a string cannot fail, here and below.
        writeln!(index, "\n## The {title}\n").ok();
        for plugin in registry::all() {
            if plugin.kind != kind {
                continue;
            }
            let (name, summary) = (plugin.name, plugin.summary);
            writeln!(index, "- [`{name}`]({kind}/{name}.md): {summary}").ok();
            fs::create_dir_all(folder.join(kind.as_str()))?;
            let path = folder.join(kind.as_str()).join(format!("{name}.md"));
            fs::write(path, page(plugin, sources)?)?;
        }
    }
    let tests = cases::SUMMARY;
    writeln!(
        index,
        "\n## Beside plugins\n\n- [`[[tests]]`](tests.md): {tests}"
    )
    .ok();
    fs::write(folder.join("tests.md"), cases::page("#"))?;
    fs::write(folder.join("README.md"), index)
}

fn page(plugin: &Registration, sources: Option<&Path>) -> io::Result<String> {
    let Registration { kind, name, .. } = plugin;
    let mut about = String::new();
    if let Some(sources) = sources {
        about = described(&fs::read_to_string(sources.join(plugin.origin.file))?);
    }
    if about.is_empty() {
        plugin.summary.clone_into(&mut about);
    }
    let mut text = format!("# {kind} `{name}`\n\n{about}\n");
    let keys = keys_of(plugin);
    if keys.is_empty() {
        text.push_str("\nIt has no keys of its own.\n");
    } else {
        text.push_str("\n## Keys\n\n");
        table(keys, &mut text);
    }
    text.push_str("\n## Example\n\n```toml\n");
    writeln!(text, "{}\n```", example(plugin).trim_end()).ok();
    Ok(text)
}

/// The documentation at the top of a source file, less links into code, its headings one level down.
fn described(source: &str) -> String {
    let (mut text, mut in_code) = (String::new(), false);
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    for line in lines {
        let line = line.strip_prefix(' ').unwrap_or(line);
        in_code ^= line.starts_with("```");
        if !in_code && line.starts_with('#') {
            text.push('#');
        }
        text.push_str(line);
        text.push('\n');
    }
    unlinked(text.trim())
}

/// The text of `[text](code::path)` and ``[`code`]`` in place of these.
fn unlinked(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        let link = after.split_once(']').and_then(|(shown, behind)| {
            let target = behind
                .strip_prefix('(')
                .and_then(|behind| behind.split_once(')'));
            match target {
                Some((target, behind)) if target.contains("::") => Some((shown, behind)),
                None if shown.starts_with('`') && shown.ends_with('`') => Some((shown, behind)),
                _ => None,
            }
        });
        rest = if let Some((shown, behind)) = link {
            plain.push_str(shown);
            behind
        } else {
            plain.push('[');
            after
        };
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_into_code_is_text() {
        for (linked, plain) in [
            ("as [`both`](super::both) does", "as `both` does"),
            ("as [`Filter`] does", "as `Filter` does"),
            (
                "see [jq](https://jqlang.org)",
                "see [jq](https://jqlang.org)",
            ),
            ("`[server]` and ['a', 'b'", "`[server]` and ['a', 'b'"),
        ] {
            assert_eq!(unlinked(linked), plain);
        }
    }

    #[test]
    fn a_page_has_what_its_file_says() {
        let source =
            "//! One.\n//!\n//! # Two\n//!\n//! ```toml\n//! # three\n//! ```\n\nuse four;\n";
        assert_eq!(described(source), "One.\n\n## Two\n\n```toml\n# three\n```");
    }

    #[test]
    fn every_plugin_has_a_page_and_a_line() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), None).unwrap();
        let index = fs::read_to_string(folder.path().join("README.md")).unwrap();
        for plugin in registry::all() {
            let path = format!("{}/{}.md", plugin.kind, plugin.name);
            assert!(index.contains(&format!("({path})")), "{index}");
            let page = fs::read_to_string(folder.path().join(path)).unwrap();
            assert!(page.contains("## Example"), "{page}");
        }
    }
}
