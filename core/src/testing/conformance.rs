//! The rules that every plugin keeps, checked over the plugins that a crate registers.
//!
//! `evows::testing::conformance!();` beside the tests of a crate makes a test of each rule, for the plugins that this crate
//! registers; `evows::testing::conformance!(all);` for every plugin of the binary. Each plugin is tried with its example, so
//! that should not lead out into the world: an address on the loopback interface, a relative path. What runs plugins does so in
//! a process of its own, in an empty folder that is removed afterwards, with nothing on its standard input.
//!
//! | test | rule |
//! |---|---|
//! | [`names`] | name in `snake_case`, summary of one line, no two plugins of a kind with one name |
//! | [`examples`] | the example checks clean; where there is no default, the missing key is named |
//! | [`unknown_keys`] | an unknown key is refused, and the refusal points at it |
//! | [`options`] | every key is described, and no other is allowed |
//! | [`no_io`] | `check` and `build` need no runtime, read and write nothing, and leave no file, socket or thread |
//! | [`filters`] | no event is lost, flush included; ports exist, reasons are labels, envelopes stay envelopes |
//! | [`reloads`] | the same of a filter that is exchanged for one with the same keys between events |
//! | [`sources`] | a source stops within a second of being told |
//! | [`sinks`] | a sink that starts stops, and core has a time limit for it |
//! | [`transports`] | without clients a drain ends in time |
//! | [`policies`] | channels are added, each once, and the same ones each time |
//!
//! What they do not see: I/O that is done once in a process and not in each build; a system call that leaves nothing behind
//! (whether a file exists, a datagram sent); of the rest, where there is no `/proc`, all but new files in the current folder; and
//! whatever depends on keys that are not in the example.

mod apart;
mod described;
mod quiet;
mod running;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::config::{Place, Settings};
use crate::plugin::{BuildContext, BuildError, Lifecycle, Policy, Sink, Source, Transport};
use crate::registry::{self, Kind, Registration};
use crate::topology::BuiltFilter;

pub use self::apart::apart;
pub use self::described::options;
pub use self::quiet::no_io;
pub use self::running::{filters, policies, reloads, sinks, sources, transports};

/// The plugins that are looked at.
#[derive(Debug)]
pub struct Plugins(Vec<&'static Registration>);

/// A built plugin of any kind.
pub(super) enum Built {
    Source(Box<dyn Source>),
    Filter(BuiltFilter),
    Sink(Box<dyn Sink>),
    Transport(Arc<dyn Transport>),
    Policy(Arc<dyn Policy>),
    #[expect(dead_code, reason = "kept while others are built")]
    Lifecycle(Arc<dyn Lifecycle>),
}

/// Makes a test of each rule, in a module `conformance`: see [`testing::conformance`](mod@crate::testing::conformance).
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance {
    () => {
        $crate::__conformance!(@ of_package (::core::env!("CARGO_PKG_NAME")));
    };
    (all) => {
        $crate::__conformance!(@ all ());
    };
    (@ $select:ident $package:tt) => {
        #[cfg(test)]
        mod conformance {
            $crate::__conformance!(@ $select $package
                here names examples unknown_keys options policies;
                apart no_io sources filters reloads sinks transports;
            );
        }
    };
    (@ $select:ident $package:tt here $($here:ident)*; apart $($apart:ident)*;) => {
        $crate::__conformance!(@ here $select $package $($here)*);
        $crate::__conformance!(@ apart $select $package $($apart)*);
    };
    (@ here $select:ident $package:tt) => {};
    (@ here $select:ident $package:tt $rule:ident $($rest:ident)*) => {
        #[test]
        fn $rule() {
            use $crate::testing::conformance;
            conformance::$rule(&conformance::Plugins::$select $package);
        }
        $crate::__conformance!(@ here $select $package $($rest)*);
    };
    (@ apart $select:ident $package:tt) => {};
    (@ apart $select:ident $package:tt $rule:ident $($rest:ident)*) => {
        #[test]
        fn $rule() {
            use $crate::testing::conformance;
            conformance::apart(::core::module_path!(), ::core::stringify!($rule), || {
                conformance::$rule(&conformance::Plugins::$select $package);
            });
        }
        $crate::__conformance!(@ apart $select $package $($rest)*);
    };
}

/// Names are plain, summaries short, and no two plugins of one kind share a name.
///
/// # Panics
///
/// When a plugin does not keep to that. So do all the other checks.
pub fn names(plugins: &Plugins) {
    if let Err(duplicate) = registry::check_unique() {
        panic!("{duplicate}");
    }
    plugins.each(|plugin| {
        if !is_snake_case(plugin.name) {
            return Err("its NAME is not in `snake_case`".to_owned());
        }
        let summary = plugin.summary;
        if !(10..=100).contains(&summary.len()) || summary.contains('\n') || !summary.ends_with('.')
        {
            return Err(format!(
                "its summary is not one line of 10 to 100 characters with a full stop: {summary:?}"
            ));
        }
        Ok(())
    });
}

/// Examples check clean, and what an empty table lacks is named.
pub fn examples(plugins: &Plugins) {
    plugins.each(|plugin| {
        let problems = plugin.check(&Settings::from_text(plugin.example));
        if !problems.is_empty() {
            return Err(format!("its example has problems: {problems:#?}"));
        }
        let problems = plugin.check(&Settings::from_text(""));
        match problems.iter().find(|it| !it.message.contains("missing")) {
            Some(problem) => Err(format!(
                "without keys it has a problem that is not of a missing one: {problem:#?}"
            )),
            None => Ok(()),
        }
    });
}

/// An unknown key is refused where it stands.
pub fn unknown_keys(plugins: &Plugins) {
    const KEYS: &str = "no_such_key = 1\n";
    const KEY: &str = "no_such_key";
    plugins.each(|plugin| {
        let mut problems = plugin.check(&Settings::from_text(KEYS));
        problems.retain(|problem| problem.code != crate::config::codes::MISSING_KEY);
        let [problem] = problems.as_slice() else {
            return Err(format!(
                "an unknown key is not one problem; its Config needs #[serde(deny_unknown_fields)]: {problems:#?}"
            ));
        };
        let points = match &problem.place {
            Place::Span(span) => KEYS.get(span.clone()) == Some(KEY),
            _ => false,
        };
        if points && problem.message.contains(KEY) {
            Ok(())
        } else {
            Err(format!("an unknown key is not pointed at: {problem:#?}"))
        }
    });
}

// === impl Plugins ===

impl Plugins {
    /// Every plugin of this binary.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn all() -> Self {
        let plugins = registry::all();
        assert!(
            !plugins.is_empty(),
            "no plugin is linked: `use` the crate that registers them"
        );
        Self(plugins)
    }

    /// Those that the crate of this name registers.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn of_package(package: &str) -> Self {
        let mut plugins = registry::all();
        plugins.retain(|plugin| plugin.origin.package == package);
        assert!(
            !plugins.is_empty(),
            "{package} registers no plugin, or the linker dropped it: in a folder `tests`, write `use {} as _;`",
            package.replace('-', "_")
        );
        Self(plugins)
    }

    /// Checks each plugin, and fails with what is wrong with all of them.
    fn each(&self, check: impl Fn(&'static Registration) -> Result<(), String>) {
        let wrong: Vec<_> = self
            .0
            .iter()
            .filter_map(|&plugin| {
                let checked = catch_unwind(AssertUnwindSafe(|| check(plugin)));
                let wrong = match checked {
                    Ok(Ok(())) => return None,
                    Ok(Err(wrong)) => wrong,
                    Err(panic) => format!("it panics: {}", text_of(&*panic)),
                };
                Some(format!("the {plugin:?} of {}: {wrong}", plugin.origin))
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn of_kind(&self, kind: Kind) -> Self {
        let plugins = self.0.iter().copied();
        Self(plugins.filter(|plugin| plugin.kind == kind).collect())
    }
}

// === impl Built ===

impl Built {
    /// Builds a plugin from its example.
    pub(super) fn of(plugin: &Registration, cx: &BuildContext) -> Result<Self, BuildError> {
        let keys = Settings::from_text(plugin.example);
        Ok(match plugin.kind {
            Kind::Source => Self::Source(plugin.build_source(&keys, cx)?),
            Kind::Filter => Self::Filter(plugin.build_filter(&keys, cx)?),
            Kind::Sink => Self::Sink(plugin.build_sink(&keys, cx)?),
            Kind::Transport => Self::Transport(plugin.build_transport(&keys, cx)?),
            Kind::Policy => Self::Policy(plugin.build_policy(&keys, cx)?),
            Kind::Lifecycle => Self::Lifecycle(plugin.build_lifecycle(&keys, cx)?),
        })
    }
}

fn is_snake_case(word: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !word.is_empty() && word.chars().all(is_plain)
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("with something that is no text")
}
