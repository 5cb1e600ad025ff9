//! Hides phone numbers, WhatsApp ids, message texts and other values.
//!
//! ```toml
//! [filters.private]
//! type = "redact"
//! inputs = ["evolution"]
//! phones = "hash"
//! jids = "hash"
//! message_text = "drop"
//! paths = ["data.pushName"]
//! mode = "mask"
//! secret = "${REDACT_SECRET}"
//! ```
//!
//! # Modes
//!
//! | mode | what becomes of it |
//! |---|---|
//! | `"mask"` | Letters and digits become `*`, all but the last 4 of 12 and more, the last 2 of 6 and more. A message text becomes `***`. |
//! | `"hash"` | 16 letters from `a` to `p`: HMAC-SHA256 with `secret`, its first 8 bytes. The same input gives the same letters, so that what belongs together can still be told. |
//! | `"drop"` | It is taken out: the member, or the element; of a text that says more, these characters. |
//!
//! `true` stands for `mode`.
//!
//! # What is found
//!
//! `jids`: in every string and in every member's name, digits in front of `@` and one of WhatsApp's servers: `s.whatsapp.net`,
//! `c.us`, `g.us`, `lid`, `hosted`, `hosted.lid`, `broadcast`, `newsletter`, `bot` (contract 1.5: `sender`, `remoteJid`,
//! `participant`, those that end with `Alt`, mentions, presences, and so on). In addresses `@` may be `%40`. Server and device
//! stay: `5511988887777:3@s.whatsapp.net` becomes `*********7777:3@s.whatsapp.net`. Ids of fewer than 5 digits are WhatsApp's
//! own. Members whose names look the same when hidden get a number in front, `2*`.
//!
//! `phones`: phone numbers in ids of the servers `s.whatsapp.net` and `c.us` and in those of old groups, unless `jids` is on; and
//! in every string 10 to 15 digits in a row with no letter or digit behind them, with or without `+`. In front of them may be a
//! word, `ID5511988887777` or `user_5511988887777`, but not letters and digits mixed, as in message ids; times that touch a word,
//! such as `IMG_20251021142039`, are none. Behind a `+` the digits may have spaces, dots, hyphens and brackets between them;
//! without a `+`, `(11) 98888-7777` is not found. The hash is that of the digits, and so the same as that of the id.
//! Numbers that are not strings are none, nor are the values of members whose name says that they are something else: `id`,
//! `keyId`, `url`, `base64`, times and the like; only ids, and the numbers of `wa.me/`, `phone=` and `tel:`, are looked for there.
//!
//! `message_text`: every string inside of `message`, `editedMessage`, `quotedMessage`, `pollUpdates` and `contextInfo`, and the
//! coordinates of places. What stays is what nobody wrote: ids and keys (`id`, `keyId`, `stanzaId`, `participant`, `voters`, what
//! ends with `Jid`, ...), hashes (`fileSha256`, `messageSecret`, ...), times, `mimetype`, `fileLength`, `status`, `type` and what
//! ends with `Type`, `directPath`, `mediaUrl`, and a `url` on one of WhatsApp's servers. So do media and their thumbnails: name
//! `data.message.base64` and so on in `paths`. A `message` that is text itself, as in errors, is none.
//!
//! `paths`: the values that are there, with all that is in them, by `mode`. Ids and phone numbers are treated as above.
//!
//! The members `event`, `instance` and `instanceName` are never changed: routing needs them. Other events keep their bytes; in one
//! that is changed, numbers elsewhere may be written another way (`1e2` as `100.0`), those beyond 64 bits with the precision of a
//! double, and half of a surrogate pair becomes U+FFFD. One whose envelope cannot be edited (nested more than 127 deep, or with a
//! number that no double holds, such as `1e400`) fails as `unreadable`, because nobody knows what is in it.

mod names;
mod scan;

use std::collections::HashMap;

use evows_core::config::Problem;
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use sha2::Sha256;

use self::scan::{Kind, Token};
use super::attached;
use super::path::Path;

/// A shorter key could be guessed, and with it every phone number.
const SHORTEST_SECRET: usize = 16;
/// What a masked text becomes.
const HIDDEN: &str = "***";

/// Hides phone numbers, WhatsApp ids, message texts and other values.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Paths of values that are hidden, such as `"data.pushName"`; `*` is every member or element.
    pub paths: Vec<Path>,
    /// Whether phone numbers are hidden, in any string: `true`, or a mode of their own.
    pub phones: Switch,
    /// Whether WhatsApp ids are hidden, such as `5511988887777@s.whatsapp.net`: `true`, or a mode of their own.
    pub jids: Switch,
    /// Whether what people wrote in messages is hidden: `true`, or a mode of its own.
    pub message_text: Switch,
    /// How, for `paths` and for what is `true`.
    pub mode: Mode,
    /// The key of `"hash"`, at least 16 characters. Who has it can find out which number a hash is of.
    pub secret: Option<String>,
}

/// How a value is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Mode {
    /// All but its last characters become `*`.
    #[default]
    Mask,
    /// It becomes letters that are the same for the same value.
    Hash,
    /// It is taken out.
    Drop,
}

/// Whether something is hidden, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    /// It is not.
    #[default]
    Off,
    /// It is, in the mode of the filter.
    On,
    /// It is, in this mode.
    As(Mode),
}

/// The running filter.
pub struct Redact {
    paths: Vec<Path>,
    phones: Option<Mode>,
    jids: Option<Mode>,
    text: Option<Mode>,
    mode: Mode,
    hash: Hmac<Sha256>,
}

/// What becomes of a string.
#[derive(Debug, PartialEq)]
enum Fate {
    Stays,
    Becomes(String),
    Goes,
}

register_filter!(
    Redact,
    summary = "Hides phone numbers, WhatsApp ids, message texts and other values.",
    example = "phones = \"hash\"\njids = \"hash\"\nmessage_text = true\npaths = [\"data.pushName\"]\nsecret = \"a-long-random-text\"\n",
);

// === impl Redact ===

impl FilterPlugin for Redact {
    const NAME: &'static str = "redact";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let reserved = config.paths.iter().filter(|path| path.is_reserved());
        if !config.hides() {
            let problem = Problem::new("missing-key", "nothing is hidden: what to hide is missing");
            let help = "write what is hidden: `phones = true`, `jids = true`, `message_text = true`, or paths such as \
                        `paths = [\"data.pushName\"]`";
            return vec![problem.help(help)];
        }
        let mut problems: Vec<_> = reserved
            .map(|path| {
                let message = format!("`{path}` would hide what routing needs");
                path.problem("paths", message, "`event` and `instance` stay as they are")
            })
            .collect();
        let length = config.secret.as_ref().map(String::len);
        let message = match length {
            None if config.hashes() => "`\"hash\"` needs a secret",
            Some(length) if length < SHORTEST_SECRET => "the secret is too short",
            _ => return problems,
        };
        let help = "at least 16 random characters, such as \"${REDACT_SECRET}\"";
        let problem = Problem::new("invalid-value", message).at_key("secret");
        problems.push(problem.help(help));
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let secret = config.secret.as_deref().unwrap_or_default();
        let hash = Hmac::new_from_slice(secret.as_bytes());
        let hash = hash.map_err(|error| BuildError::new(error.to_string()))?;
        let mode = |switch: Switch| switch.mode(config.mode);
        Ok(Self {
            phones: mode(config.phones),
            jids: mode(config.jids),
            text: mode(config.message_text),
            mode: config.mode,
            paths: config.paths,
            hash,
        })
    }
}

impl Filter for Redact {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        if !attached::is_readable(&event) {
            return out.fail(event, "unreadable");
        }
        let document = event.document();
        let is_hit = |path: &Path| path.any(document, &mut |value| self.touches_all(value));
        if !self.paths.iter().any(is_hit) && !self.touches_members(document, false) {
            return out.emit(event);
        }
        let event = attached::edit(event, |document| {
            for path in &self.paths {
                match self.mode {
                    Mode::Drop => {
                        path.remove(document);
                    }
                    _ => path.for_each_mut(document, &mut |value| self.hide_all(value)),
                }
            }
            self.hide_members(document, false);
        });
        out.emit(event);
    }
}

impl Redact {
    /// Whether anything in there has to change.
    fn touches_members(&self, members: &Map<String, Value>, inside: bool) -> bool {
        members.iter().any(|(key, value)| {
            let inside = inside || names::is_message(key, value);
            self.fate_of_name(key) != Fate::Stays || self.touches(key, value, inside)
        })
    }

    fn touches(&self, key: &str, value: &Value, inside: bool) -> bool {
        match value {
            Value::String(text) => self.fate(key, text, inside) != Fate::Stays,
            Value::Array(items) => items.iter().any(|item| self.touches(key, item, inside)),
            Value::Object(members) => self.touches_members(members, inside),
            Value::Number(number) => self.fate_of_number(key, number, inside) != Fate::Stays,
            _ => false,
        }
    }

    fn hide_members(&self, members: &mut Map<String, Value>, inside: bool) {
        members.retain(|key, value| {
            let inside = inside || names::is_message(key, value);
            self.hide(key, value, inside)
        });
        if members
            .keys()
            .all(|key| self.fate_of_name(key) == Fate::Stays)
        {
            return;
        }
        let mut same: HashMap<String, usize> = HashMap::new();
        for (key, value) in std::mem::take(members) {
            let key = match self.fate_of_name(&key) {
                Fate::Stays => key,
                Fate::Becomes(other) => other,
                Fate::Goes => continue,
            };
            if !members.contains_key(&key) {
                members.insert(key, value);
                continue;
            }
            // Two that look the same when masked are still two.
            let count = same.entry(key.clone()).or_insert(1);
            let numbered = loop {
                *count += 1;
                let numbered = format!("{count}*{key}");
                if !members.contains_key(&numbered) {
                    break numbered;
                }
            };
            members.insert(numbered, value);
        }
    }

    /// Hides what is in the value; `false` when it has to go.
    fn hide(&self, key: &str, value: &mut Value, inside: bool) -> bool {
        match value {
            Value::String(text) => match self.fate(key, text, inside) {
                Fate::Stays => {}
                Fate::Becomes(other) => *text = other,
                Fate::Goes => return false,
            },
            Value::Array(items) => items.retain_mut(|item| self.hide(key, item, inside)),
            Value::Object(members) => self.hide_members(members, inside),
            Value::Number(number) => match self.fate_of_number(key, number, inside) {
                Fate::Stays => {}
                Fate::Becomes(other) => *value = other.into(),
                Fate::Goes => return false,
            },
            _ => {}
        }
        true
    }

    fn fate(&self, key: &str, text: &str, inside: bool) -> Fate {
        if names::is_kept(key) || text.is_empty() {
            return Fate::Stays;
        }
        if let Some(mode) = self.text
            && inside
            && !names::is_technical(key, text)
        {
            return self.fate_of_text(text, mode);
        }
        let is_other = names::has_no_phones(key);
        self.replaced(text, |token| match token.kind {
            Kind::Phone { is_link } if is_other && !is_link => None,
            Kind::Phone { .. } => Some(self.phone(token.text, self.phones?)),
            Kind::Jid { .. } => self.jid(token.kind),
        })
    }

    fn fate_of_text(&self, text: &str, mode: Mode) -> Fate {
        match mode {
            Mode::Drop => Fate::Goes,
            Mode::Mask if text == HIDDEN => Fate::Stays,
            Mode::Mask => Fate::Becomes(HIDDEN.to_owned()),
            Mode::Hash => Fate::Becomes(self.hash(text)),
        }
    }

    /// Of numbers, only those that say where somebody is are like a text.
    fn fate_of_number(&self, key: &str, number: &Number, inside: bool) -> Fate {
        match self.text {
            Some(mode) if inside && names::is_place(key) => {
                self.fate_of_text(&number.to_string(), mode)
            }
            _ => Fate::Stays,
        }
    }

    /// Names of members hide ids only: `presences` has them.
    fn fate_of_name(&self, name: &str) -> Fate {
        if !name.contains('@') && !name.contains("%40") {
            return Fate::Stays;
        }
        self.replaced(name, |token| self.jid(token.kind))
    }

    /// The text with its ids and numbers replaced, where `replace` has something to put there.
    fn replaced(&self, text: &str, replace: impl Fn(&Token<'_>) -> Option<String>) -> Fate {
        if self.phones.is_none() && self.jids.is_none() {
            return Fate::Stays;
        }
        let (mut made, mut done) = (String::new(), 0);
        for token in scan::tokens(text) {
            let Some(other) = replace(&token) else {
                continue;
            };
            made.push_str(text.get(done..token.start).unwrap_or_default());
            made.push_str(&other);
            done = token.start + token.text.len();
        }
        if done == 0 {
            return Fate::Stays;
        }
        made.push_str(text.get(done..).unwrap_or_default());
        if made.is_empty() {
            return Fate::Goes;
        }
        Fate::Becomes(made)
    }

    /// What becomes of an id; `None` of what is none, or stays.
    fn jid(&self, kind: Kind<'_>) -> Option<String> {
        let Kind::Jid { user, at, server } = kind else {
            return None;
        };
        let (mut base, mut device) = scan::split_user(user);
        let mode = match (self.jids, self.phones) {
            (Some(mode), _) => mode,
            (None, Some(mode)) if matches!(server, "s.whatsapp.net" | "c.us") => mode,
            (None, Some(mode)) if server == "g.us" => {
                // The number of who made the group, and when.
                let hyphen = base.find('-')?;
                (base, device) = user.split_at(hyphen);
                mode
            }
            _ => return None,
        };
        if base.bytes().filter(u8::is_ascii_digit).count() < 5 {
            return None;
        }
        Some(match mode {
            Mode::Drop => String::new(),
            Mode::Mask => format!("{}{device}{at}{server}", mask(base)),
            Mode::Hash => format!("{}{device}{at}{server}", self.hash(base)),
        })
    }

    fn phone(&self, text: &str, mode: Mode) -> String {
        match mode {
            Mode::Drop => String::new(),
            Mode::Mask => mask(text),
            Mode::Hash => {
                let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                self.hash(&digits)
            }
        }
    }

    fn hash(&self, text: &str) -> String {
        let mut hash = self.hash.clone();
        hash.update(text.as_bytes());
        let bytes = hash.finalize().into_bytes();
        // Letters only: digits could be taken for a phone number by whoever looks next.
        let halves = bytes.iter().take(8).flat_map(|byte| [byte >> 4, byte & 15]);
        halves.map(|half| char::from(b'a' + half)).collect()
    }

    /// Whether a value that a path names has to change.
    fn touches_all(&self, value: &Value) -> bool {
        if self.mode == Mode::Drop {
            return true;
        }
        match value {
            Value::Array(items) => items.iter().any(|item| self.touches_all(item)),
            Value::Object(members) => members.values().any(|value| self.touches_all(value)),
            leaf => self.hidden(leaf).is_some(),
        }
    }

    /// Hides every string and number in the value.
    fn hide_all(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_all(item)),
            Value::Object(members) => members.values_mut().for_each(|value| self.hide_all(value)),
            leaf => {
                if let Some(other) = self.hidden(leaf) {
                    *leaf = other;
                }
            }
        }
    }

    /// What a string or a number that a path names becomes.
    fn hidden(&self, leaf: &Value) -> Option<Value> {
        let text = match leaf {
            Value::String(text) if !text.is_empty() => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let one = |text: &str| match self.mode {
            Mode::Hash => self.hash(text),
            _ => mask(text),
        };
        let whole = scan::tokens(&text).find(|token| token.text == text);
        let other = match whole.map(|token| token.kind) {
            Some(Kind::Jid { user, at, server }) => {
                let (base, device) = scan::split_user(user);
                format!("{}{device}{at}{server}", one(base))
            }
            Some(Kind::Phone { .. }) => self.phone(&text, self.mode),
            None => one(&text),
        };
        (leaf.is_number() || other != text).then(|| other.into())
    }
}

/// The text with stars for letters and digits, all but the last ones of a long one.
fn mask(text: &str) -> String {
    let count = text.chars().filter(|c| c.is_alphanumeric()).count();
    let shown = match count {
        0..=5 => 0,
        6..=11 => 2,
        _ => 4,
    };
    let mut left = count - shown;
    let star = |c: char| {
        if !c.is_alphanumeric() || left == 0 {
            return c;
        }
        left -= 1;
        '*'
    };
    text.chars().map(star).collect()
}

// === impl Config ===

impl Config {
    fn hides(&self) -> bool {
        let switches = [self.phones, self.jids, self.message_text];
        !self.paths.is_empty() || switches.iter().any(|switch| *switch != Switch::Off)
    }

    fn hashes(&self) -> bool {
        let switches = [self.phones, self.jids, self.message_text];
        let mut modes = switches.iter().filter_map(|switch| switch.mode(self.mode));
        modes.any(|mode| mode == Mode::Hash) || (self.mode == Mode::Hash && !self.paths.is_empty())
    }
}

// === impl Switch ===

impl Switch {
    fn mode(self, default: Mode) -> Option<Mode> {
        match self {
            Self::Off => None,
            Self::On => Some(default),
            Self::As(mode) => Some(mode),
        }
    }
}

#[cfg(test)]
mod tests;
