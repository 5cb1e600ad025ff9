//! `evows new`: a crate with a plugin of one's own.
//!
//! The files in `new/` are what is written, with the names replaced. `docs/plugins/` shows the same files, and
//! `tests/behaviour/new.rs` compiles them.

mod dependency;
mod name;

use std::path::{Path, PathBuf};
use std::{fs, io};

use self::dependency::Dependency;
use self::name::Name;
use super::{Exit, list, output};
use crate::registry::Kind;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// What to make: filter, sink, source, policy or transport.
    #[arg(value_parser = template)]
    kind: &'static Template,
    /// What it is called: the `type` in `evows.toml`, and the name of the crate.
    name: String,
    /// The folder of the crate, which must not be there yet; without it, the name.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Where evows comes from: a folder with its sources, the URL of a git repository, a version, or the keys of a Cargo
    /// dependency, such as 'git = "https://...", rev = "..."'. Without it, sources near the new crate are looked for.
    #[arg(long, value_name = "SOURCE")]
    evows: Option<String>,
}

/// The files of one kind.
#[derive(Debug)]
struct Template {
    kind: Kind,
    /// What is replaced by the name, and what by the type.
    name: &'static str,
    type_name: &'static str,
    plugin: &'static str,
    pipeline: &'static str,
    /// What the README says about the pipeline.
    trial: &'static str,
}

/// What is in every crate.
const MANIFEST: &str = include_str!("new/Cargo.toml.template");
const MAIN: &str = include_str!("new/main.rs");
const README: &str = include_str!("new/README.md");
const IGNORED: &str = "/target\n/data\n";

static TEMPLATES: [Template; 5] = [
    Template {
        kind: Kind::Filter,
        name: "my_filter",
        type_name: "MyFilter",
        plugin: include_str!("new/filter.rs"),
        pipeline: include_str!("new/filter.toml"),
        trial: include_str!("new/filter.md"),
    },
    Template {
        kind: Kind::Sink,
        name: "my_sink",
        type_name: "MySink",
        plugin: include_str!("new/sink.rs"),
        pipeline: include_str!("new/sink.toml"),
        trial: include_str!("new/sink.md"),
    },
    Template {
        kind: Kind::Source,
        name: "my_source",
        type_name: "MySource",
        plugin: include_str!("new/source.rs"),
        pipeline: include_str!("new/source.toml"),
        trial: include_str!("new/source.md"),
    },
    Template {
        kind: Kind::Policy,
        name: "my_policy",
        type_name: "MyPolicy",
        plugin: include_str!("new/policy.rs"),
        pipeline: include_str!("new/policy.toml"),
        trial: include_str!("new/policy.md"),
    },
    Template {
        kind: Kind::Transport,
        name: "my_transport",
        type_name: "MyTransport",
        plugin: include_str!("new/transport.rs"),
        pipeline: include_str!("new/transport.toml"),
        trial: include_str!("new/transport.md"),
    },
];

/// Makes the crate.
pub(super) fn run(options: &Options) -> io::Result<Exit> {
    match make(options) {
        Ok(folder) => {
            let (kind, folder) = (options.kind.kind, folder.display());
            output::print(&format!(
                "made the {kind} `{}` in {folder}\n\n  cd {folder}\n  cargo test\n  cargo run -- run\n",
                options.name
            ))?;
            Ok(Exit::Clean)
        }
        Err((exit, message)) => {
            output::complain(&message);
            Ok(exit)
        }
    }
}

fn make(options: &Options) -> Result<PathBuf, (Exit, String)> {
    let wrong = |message: String| (Exit::Usage, message);
    let name = Name::parse(&options.name, options.kind.kind).map_err(wrong)?;
    if options.kind.uses(&name.type_name()) {
        return Err(wrong(format!(
            "`{0}` would be the type `{1}`, which the code of a plugin uses for something else: write `my_{0}`, for example",
            name.as_str(),
            name.type_name()
        )));
    }
    let folder = options.path.clone();
    let folder = folder.unwrap_or_else(|| PathBuf::from(name.as_str()));
    let shown = folder.display();
    let taken = fs::read_dir(&folder).map_or(folder.exists(), |mut it| it.next().is_some());
    if taken {
        return Err(wrong(format!(
            "{shown} is there already, and nothing is overwritten: name another folder with `--path`"
        )));
    }
    let evows = Dependency::find(options.evows.as_deref(), &folder).map_err(wrong)?;
    let files = options.kind.files(&name, &evows, &folder);
    match write(&folder, &files) {
        Ok(()) => Ok(folder),
        Err(error) => Err((Exit::Failed, format!("cannot write to {shown}: {error}"))),
    }
}

fn write(folder: &Path, files: &[(String, String)]) -> io::Result<()> {
    fs::create_dir_all(folder.join("src"))?;
    for (path, text) in files {
        fs::write(folder.join(path), text)?;
    }
    Ok(())
}

/// The template of a kind.
fn template(word: &str) -> Result<&'static Template, String> {
    let kind = list::kind(word)?;
    let found = TEMPLATES.iter().find(|template| template.kind == kind);
    found.ok_or_else(|| {
        let kinds: Vec<_> = TEMPLATES.iter().map(|it| it.kind.as_str()).collect();
        format!("there is a template of each of {}", kinds.join(", "))
    })
}

// === impl Template ===

impl Template {
    /// Whether the plugin's code has a word in it already.
    fn uses(&self, word: &str) -> bool {
        let words = self
            .plugin
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words
            .into_iter()
            .any(|it| it == word && it != self.type_name)
    }

    /// Every file of a crate, with its path.
    fn files(&self, name: &Name, evows: &Dependency, folder: &Path) -> Vec<(String, String)> {
        let named = |text: &str| {
            // In two steps: a name may have one of the others in it.
            text.replace(self.type_name, "\u{1}")
                .replace(self.name, "\u{2}")
                .replace("my_plugin", "\u{2}")
                .replace('\u{1}', &name.type_name())
                .replace('\u{2}', name.as_str())
        };
        let mut manifest = named(MANIFEST).replace("EVOWS", evows.keys());
        if dependency::is_in_package(folder) {
            // Or else Cargo would take it for a part of the package around it.
            manifest.push_str("\n[workspace]\n");
        }
        let readme = named(README)
            .replace("KIND", self.kind.as_str())
            .replace("TRY", self.trial.trim_end());
        vec![
            ("Cargo.toml".to_owned(), manifest),
            ("README.md".to_owned(), readme),
            ("evows.toml".to_owned(), named(self.pipeline)),
            (".gitignore".to_owned(), IGNORED.to_owned()),
            ("src/main.rs".to_owned(), named(MAIN)),
            (format!("src/{}.rs", name.as_str()), named(self.plugin)),
        ]
    }
}
