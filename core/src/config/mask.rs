//! Secrets that are written into a file, which excerpts of it must not show.
//!
//! By the names of keys and not by what is known of them: a key that is misspelt, in the wrong table or in a line that does not
//! parse has a secret for its value just so. So this reads what may be no TOML.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use strsim::damerau_levenshtein;

/// What stands in the place of a secret.
const MASK: &str = "****";

/// What the names of keys with secrets have in them, without what separates words.
const WORDS: [&str; 14] = [
    "accesskey",
    "apikey",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "encryptionkey",
    "jwtkey",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "token",
];

/// What such names end with where the value says where the secret is.
const ABOUT: [&str; 5] = ["file", "header", "name", "path", "url"];

/// Secrets shorter than this are not looked for in messages: they may be parts of any word.
const SHORT: usize = 4;

/// A text and the places of its secrets, in order.
pub(super) struct Masked<'t> {
    text: &'t str,
    secrets: Vec<Range<usize>>,
}

/// A walk over a text.
struct Walk<'t> {
    text: &'t str,
    at: usize,
    /// For each open bracket, whether what is in it is secret.
    brackets: Vec<bool>,
    secrets: Vec<Range<usize>>,
}

// === impl Masked ===

impl<'t> Masked<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let mut walk = Walk {
            text,
            at: 0,
            brackets: Vec::new(),
            secrets: Vec::new(),
        };
        walk.run();
        let mut secrets = walk.secrets;
        in_urls(text, &mut secrets);
        secrets.sort_by_key(|secret| (secret.start, secret.end));
        // What is masked already is not masked again.
        let mut end = 0;
        secrets.retain(|secret| {
            let is_new = secret.start >= end;
            end = end.max(secret.end);
            is_new
        });
        Self { text, secrets }
    }

    /// The text without its secrets.
    pub(super) fn text(&self) -> String {
        let mut masked = String::with_capacity(self.text.len());
        let mut done = 0;
        for secret in &self.secrets {
            masked.push_str(self.text.get(done..secret.start).unwrap_or_default());
            masked.push_str(MASK);
            done = secret.end;
        }
        masked.push_str(self.text.get(done..).unwrap_or_default());
        masked
    }

    /// Where bytes of the text are in [`text`](Self::text). What is in a secret becomes all of its mask.
    pub(super) fn span(&self, span: &Range<usize>) -> Range<usize> {
        let at = |wanted: usize, is_end: bool| {
            let (mut before, mut written) = (0, 0);
            for secret in &self.secrets {
                let is_inside = secret.start < wanted && wanted < secret.end;
                if is_inside {
                    let begin = secret.start - before + written;
                    return begin + if is_end { MASK.len() } else { 0 };
                }
                if wanted < secret.end || wanted == secret.start {
                    break;
                }
                before += secret.len();
                written += MASK.len();
            }
            wanted - before + written
        };
        let start = at(span.start, false);
        start..at(span.end, true).max(start)
    }

    /// A message about bytes of the text, without the secrets of their lines.
    pub(super) fn message<'m>(&self, message: &'m str, span: &Range<usize>) -> Cow<'m, str> {
        let begin = self.text.get(..span.start).and_then(|it| it.rfind('\n'));
        let end = self.text.get(span.end..).and_then(|it| it.find('\n'));
        let begin = begin.unwrap_or_default();
        let end = end.map_or(self.text.len(), |end| span.end + end);
        let mut message = Cow::Borrowed(message);
        for secret in &self.secrets {
            let is_near = secret.start >= begin && secret.end <= end;
            let secret = self.text.get(secret.clone()).unwrap_or_default();
            if is_near && secret.len() >= SHORT && message.contains(secret) {
                message = message.replace(secret, MASK).into();
            }
        }
        message
    }
}

// === impl Walk ===

impl<'t> Walk<'t> {
    fn run(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            match c {
                '"' | '\'' => self.string(),
                '[' | '{' => {
                    // The head of a section: whatever was open before is not closed any more.
                    if c == '[' && self.line().trim().is_empty() {
                        self.brackets.clear();
                    }
                    let is_secret = self.in_secret() || self.has_secret_key();
                    self.brackets.push(is_secret);
                    self.at += 1;
                }
                ']' | '}' => {
                    self.brackets.pop();
                    self.at += 1;
                }
                '=' | ':' => self.bare(),
                other => self.at += other.len_utf8(),
            }
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// What stands in front on the same line.
    fn line(&self) -> &'t str {
        let before = self.text.get(..self.at).unwrap_or_default();
        before.rsplit('\n').next().unwrap_or_default()
    }

    fn in_secret(&self) -> bool {
        self.brackets.last().is_some_and(|is_secret| *is_secret)
    }

    /// Whether the key in front, on the same line, is that of a secret. Between them there may be a sign, or what was
    /// written in its place.
    fn has_secret_key(&self) -> bool {
        let before = self.line().trim_end_matches([' ', '\t', '=', ':', '>']);
        let key = before.rsplit(['{', ',', '[', '#']).next();
        key.is_some_and(|key| is_secret(key.trim()))
    }

    /// Passes over a string.
    fn string(&mut self) {
        let is_secret = self.in_secret() || self.has_secret_key();
        let rest = self.rest();
        let long = ["\"\"\"", "'''"]
            .into_iter()
            .find(|it| rest.starts_with(it));
        let quote = long.unwrap_or_else(|| rest.get(..1).unwrap_or_default());
        let body = rest.get(quote.len()..).unwrap_or_default();
        let mut end = None;
        let mut is_escaped = false;
        for (at, c) in body.char_indices() {
            let ends = body.get(at..).is_some_and(|it| it.starts_with(quote));
            if (ends && !is_escaped) || (c == '\n' && long.is_none()) {
                end = Some(at);
                break;
            }
            is_escaped = c == '\\' && !is_escaped && quote.starts_with('"');
        }
        let (begin, length) = (self.at + quote.len(), end.unwrap_or(body.len()));
        let value = body.get(..length).unwrap_or_default();
        if is_secret && !is_reference(value) {
            self.secrets.push(begin..begin + length);
        }
        let closed = body.get(length..).is_some_and(|it| it.starts_with(quote));
        self.at = begin + length + if closed { quote.len() } else { 0 };
    }

    /// Passes over a sign, and the value behind it that is neither a string nor in brackets.
    fn bare(&mut self) {
        let is_secret = self.in_secret() || self.has_secret_key();
        self.at += 1;
        let rest = self.rest();
        let value = rest.trim_start_matches([' ', '\t', '=', '>']);
        if value.starts_with(['"', '\'', '[', '{']) {
            return;
        }
        let ends: &[char] = if self.brackets.is_empty() {
            &['\n', '#']
        } else {
            &['\n', '#', ',', ']', '}']
        };
        let begin = self.at + rest.len() - value.len();
        let value = value.split(ends).next().unwrap_or_default().trim_end();
        if is_secret && !matches!(value, "" | "true" | "false") {
            self.secrets.push(begin..begin + value.len());
            self.at = begin + value.len();
        }
    }
}

/// Whether this is the name of a key whose value is a secret, as far as one can tell from it; or would be, were it
/// spelt right.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let words = key.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    if words.last().is_some_and(|last| ABOUT.contains(last)) {
        return false;
    }
    let all = words.concat();
    let is_like = |word: &str| {
        let mut candidates = words.iter().copied().chain([all.as_str()]);
        all.contains(word) || candidates.any(|it| damerau_levenshtein(it, word) <= 1)
    };
    WORDS.into_iter().any(is_like)
}

/// Whether a value holds no secret, but says where one is; or nothing.
fn is_reference(value: &str) -> bool {
    let Some(name) = value.strip_prefix("${") else {
        return value.is_empty();
    };
    match name.strip_suffix('}') {
        // What stands behind `:-` is the value where there is no other.
        Some(name) => !name.contains(":-") && !name.contains("${"),
        None => name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
    }
}

/// Finds who asks in `https://user:password@host` (without a password, the user is one), and what is secret in a query.
fn in_urls(text: &str, secrets: &mut Vec<Range<usize>>) {
    for (at, _) in text.match_indices("://") {
        let begin = at + "://".len();
        let rest = text.get(begin..).unwrap_or_default();
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
        let url = rest.split(ends).next().unwrap_or_default();
        let (before, query) = url.split_once('?').unwrap_or((url, ""));
        let host_ends = before.find('/').unwrap_or(before.len());
        let (authority, _) = before.split_at(host_ends);
        // A password may have a slash in it where somebody forgot to encode it; what is behind a port has none.
        let has_port = authority.split_once(':').is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        let user = match authority.rfind('@') {
            Some(end) => authority.get(..end),
            None if authority.contains(':') && !has_port => {
                before.rfind('@').and_then(|end| before.get(..end))
            }
            None => None,
        };
        if let Some(user) = user {
            let password = user.find(':').map_or(0, |colon| colon + 1);
            if password < user.len() && !is_reference(user.get(password..).unwrap_or_default()) {
                secrets.push(begin + password..begin + user.len());
            }
        }
        let mut from = begin + before.len() + 1;
        for pair in query.split('&') {
            if let Some((name, value)) = pair.split_once('=')
                && is_secret(name)
                && !is_reference(value)
            {
                let value = value.split('#').next().unwrap_or_default();
                let start = from + name.len() + 1;
                secrets.push(start..start + value.len());
            }
            from += pair.len() + 1;
        }
    }
}
