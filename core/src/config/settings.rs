//! The keys of one table, before anybody knows their type.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::Problem;

/// A plugin's keys, less the ones that core reads: a view on the file's text, read again each time, so
/// that nothing here borrows and every error knows where it is.
#[derive(Debug, Clone)]
pub struct Settings {
    text: Arc<str>,
}

// === impl Settings ===

impl Settings {
    /// Keys that come from no file.
    pub fn from_table(table: &toml::Table) -> Self {
        // Any table can be written as TOML.
        Self {
            text: toml::to_string(table).unwrap_or_default().into(),
        }
    }

    /// Keys written as TOML text: an example, or a test.
    pub fn from_text(text: &str) -> Self {
        Self { text: text.into() }
    }

    /// Reads the keys into `T`. A key that `T` does not have is a problem, as is a value of another type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        let problem = |error: &toml::de::Error| {
            let problem = Problem::new("invalid", error.message().to_owned());
            match error.span() {
                Some(span) => problem.at_span(span),
                None => problem,
            }
        };
        let table = DeTable::parse(&self.text).map_err(|error| vec![problem(&error)])?;
        let value = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        T::deserialize(ValueDeserializer::from(value)).map_err(|error| vec![problem(&error)])
    }
}
