//! The names under which content is stored, and the types that it has.

use std::fmt::Write as _;

use evows_core::Event;
use sha2::{Digest, Sha256};

use super::find::Content;

/// The type of what is not known.
const UNKNOWN: &str = "application/octet-stream";

/// The types that WhatsApp knows, with the ends of their files. None of them is run by a browser.
const TYPES: [(&str, &str); 24] = [
    ("image/jpeg", "jpg"),
    ("image/png", "png"),
    ("image/webp", "webp"),
    ("image/gif", "gif"),
    ("image/heic", "heic"),
    ("video/mp4", "mp4"),
    ("video/3gpp", "3gp"),
    ("video/quicktime", "mov"),
    ("video/webm", "webm"),
    ("audio/ogg", "ogg"),
    ("audio/mpeg", "mp3"),
    ("audio/mp4", "m4a"),
    ("audio/aac", "aac"),
    ("audio/amr", "amr"),
    ("audio/wav", "wav"),
    ("application/pdf", "pdf"),
    ("application/zip", "zip"),
    ("application/msword", "doc"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.ms-powerpoint", "ppt"),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "docx",
    ),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xlsx",
    ),
    (
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "pptx",
    ),
    (UNKNOWN, "bin"),
];

/// What files of some types begin with, behind so many bytes.
const MAGIC: [(usize, &[u8], &str); 9] = [
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (8, b"WEBP", "image/webp"),
    (0, b"GIF8", "image/gif"),
    (4, b"ftyp", "video/mp4"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
];

/// How long what stands for an instance or an event may be in a name, in bytes.
const LONGEST: usize = 64;

/// How long a part between slashes may be, in bytes: what file systems have, less what unfinished files end with.
const LONGEST_PART: usize = 255 - 32;

/// What stands in front of the hash of what was cut. It is nowhere else, so that nothing else is named like what was cut.
const CUT: &str = "==";

/// How many bytes of that hash there are.
const HASH: usize = 8;

/// A name with places in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Instance,
    Event,
    Date,
    Sha256,
    Ext,
}

/// Why text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadTemplate {
    #[error(
        "there is no `{{{0}}}`: the places are `{{instance}}`, `{{event}}`, `{{date}}`, `{{sha256}}` and `{{ext}}`"
    )]
    Place(String),
    #[error("a `{{` is not closed")]
    Open,
    #[error("the name has no `{{sha256}}`, so that content would replace other content")]
    NoHash,
    #[error("{0:?} cannot be in a name: letters, digits, `-`, `_`, `.`, `=` and `/` can")]
    Character(char),
    #[error("the name has a part between slashes that is empty or begins with a dot")]
    Part,
    #[error("the name has a part between slashes that may be longer than {LONGEST_PART} bytes")]
    Long,
}

/// The type that content is stored with: its own, if nothing bad can come of that.
pub(super) fn content_type(mimetype: &str) -> &'static str {
    known(mimetype).0
}

/// The type that content has by how it begins.
pub(super) fn sniff(bytes: &[u8]) -> &'static str {
    let mut magic = MAGIC.iter();
    let found = magic.find(|(at, magic, _)| {
        let begin = bytes.get(*at..);
        begin.is_some_and(|begin| begin.starts_with(magic))
    });
    found.map_or(UNKNOWN, |(_, _, mimetype)| mimetype)
}

/// A type without its parameters, and the end of its files.
fn known(mimetype: &str) -> (&'static str, &'static str) {
    let bare = mimetype.split(';').next().unwrap_or_default().trim();
    let mut types = TYPES.iter();
    let found = types.find(|(known, _)| known.eq_ignore_ascii_case(bare));
    *found.unwrap_or(&(UNKNOWN, "bin"))
}

/// Whether this can be in a name as it is.
pub(super) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// What is wrong with the text of a name, its places being filled.
pub(super) fn check(text: &str) -> Result<(), BadTemplate> {
    let mut others = text
        .chars()
        .filter(|c| !(is_plain(*c) || matches!(c, '=' | '/')));
    if let Some(other) = others.next() {
        return Err(BadTemplate::Character(other));
    }
    let is_bad = |part: &str| part.is_empty() || part.starts_with('.');
    if text.split('/').any(is_bad) {
        return Err(BadTemplate::Part);
    }
    Ok(())
}

/// Text of others as a part of a name, from which that text can be told as long as it is not cut.
fn tamed(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let c = char::from(byte);
        if is_plain(c) && !(at == 0 && c == '.') {
            tamed.push(c);
        } else {
            // Writing into a string does not fail. Unlike `%`, `=` means nothing in a URL.
            write!(tamed, "={byte:02X}").ok();
        }
    }
    if tamed.is_empty() {
        tamed.push('=');
    }
    if tamed.len() > LONGEST {
        let hash = Sha256::digest(text);
        tamed.truncate(LONGEST - CUT.len() - 2 * HASH);
        tamed.push_str(CUT);
        for byte in hash.iter().take(HASH) {
            write!(tamed, "{byte:02x}").ok();
        }
    }
    tamed
}

// === impl Place ===

impl Place {
    /// How long what is put there may be, in bytes.
    fn longest(self) -> usize {
        match self {
            Self::Instance | Self::Event => LONGEST,
            Self::Date => "2026-01-02".len(),
            Self::Sha256 => 2 * 32,
            Self::Ext => "docx".len(),
        }
    }
}

// === impl Template ===

impl Template {
    pub(super) fn new(text: &str) -> Result<Self, BadTemplate> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((plain, behind)) = rest.split_once('{') {
            let (name, behind) = behind.split_once('}').ok_or(BadTemplate::Open)?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain.to_owned()));
            }
            pieces.push(Piece::Place(match name {
                "instance" => Place::Instance,
                "event" => Place::Event,
                "date" => Place::Date,
                "sha256" => Place::Sha256,
                "ext" => Place::Ext,
                other => return Err(BadTemplate::Place(other.to_owned())),
            }));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let template = Self(pieces);
        if !template.0.contains(&Piece::Place(Place::Sha256)) {
            return Err(BadTemplate::NoHash);
        }
        check(&template.fill(|_| "x".to_owned()))?;
        let longest = template.fill(|place| "x".repeat(place.longest()));
        if longest.split('/').any(|part| part.len() > LONGEST_PART) {
            return Err(BadTemplate::Long);
        }
        Ok(template)
    }

    /// The name of an event's content.
    pub(super) fn name(&self, event: &Event, content: &Content) -> String {
        self.fill(|place| match place {
            Place::Instance => tamed(event.instance()),
            Place::Event => tamed(event.name()),
            Place::Date => {
                let at = humantime::format_rfc3339_seconds(event.received_at()).to_string();
                at.chars().take("2026-01-02".len()).collect()
            }
            Place::Sha256 => content.sha256.clone(),
            Place::Ext => known(&content.mimetype).1.to_owned(),
        })
    }

    fn fill(&self, filled: impl Fn(Place) -> String) -> String {
        let pieces = self.0.iter();
        pieces
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Place(place) => filled(*place),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing;

    use super::*;

    fn content(mimetype: &str) -> Content {
        Content {
            bytes: "x".into(),
            sha256: "abc".to_owned(),
            mimetype: mimetype.to_owned(),
        }
    }

    #[test]
    fn a_name_stays_in_its_folder() {
        let template = Template::new("m/{instance}/{event}/{date}/{sha256}.{ext}").unwrap();
        for (instance, part) in [
            ("loja1", "loja1"),
            ("../../etc", "=2E.=2F..=2Fetc"),
            ("..", "=2E."),
            (".", "=2E"),
            ("/etc/passwd", "=2Fetc=2Fpasswd"),
            ("a\\\\b:c\\u0000é", "a=5Cb=3Ac=00=C3=A9"),
            ("loja 1", "loja=201"),
            ("loja_1", "loja_1"),
            ("loja=201", "loja=3D201"),
        ] {
            let text = format!(r#"{{"event":"messages.upsert","instance":"{instance}"}}"#);
            let name = template.name(&testing::event(&text), &content("image/jpeg"));
            assert_eq!(name, format!("m/{part}/messages.upsert/1970-01-01/abc.jpg"));
            assert_eq!(check(&name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_part_of_a_name_is_not_too_long_and_none_is_another_one() {
        let most = "{instance}-{event}-{date}-{sha256}.{ext}";
        assert_eq!(Template::new(most).map(drop), Ok(()));
        let ends = ["", "a", "b", "é"];
        let texts = [LONGEST - 1, LONGEST, LONGEST + 1, 5000];
        let texts = texts.iter().flat_map(|length| {
            let text = "a".repeat(*length);
            ends.map(|end| format!("{text}{end}"))
        });
        let mut names: Vec<_> = texts.map(|text| tamed(&text)).collect();
        names.push(tamed(""));
        names.push(tamed(&names[names.len() - 2]));
        assert!(names.iter().all(|name| name.len() <= LONGEST), "{names:?}");
        assert_eq!(check(&names.join("/")), Ok(()));
        let all = names.len();
        names.sort();
        names.dedup();
        // Two texts are there twice: 64 and 65 times `a`.
        assert_eq!(names.len(), all - 2);
    }

    #[test]
    fn says_what_is_no_template() {
        for (text, error) in [
            ("{sha256}/{x}", BadTemplate::Place("x".to_owned())),
            ("{sha256}/{", BadTemplate::Open),
            ("{date}", BadTemplate::NoHash),
            ("/{sha256}", BadTemplate::Part),
            ("../{sha256}", BadTemplate::Part),
            ("a/./{sha256}", BadTemplate::Part),
            ("a//{sha256}", BadTemplate::Part),
            ("{sha256}/", BadTemplate::Part),
            ("a b/{sha256}", BadTemplate::Character(' ')),
            ("a\\{sha256}", BadTemplate::Character('\\')),
            ("{instance}{event}{event}{sha256}", BadTemplate::Long),
        ] {
            assert_eq!(Template::new(text), Err(error), "{text}");
        }
    }

    #[test]
    fn types_are_known_by_name_or_by_how_they_begin() {
        for (mimetype, stored, ext) in [
            ("audio/ogg; codecs=opus", "audio/ogg", "ogg"),
            ("IMAGE/JPEG", "image/jpeg", "jpg"),
            ("text/html", UNKNOWN, "bin"),
            ("image/svg+xml", UNKNOWN, "bin"),
            ("", UNKNOWN, "bin"),
        ] {
            assert_eq!(known(mimetype), (stored, ext), "{mimetype}");
        }
        assert_eq!(sniff(b"\xff\xd8\xff\xe0"), "image/jpeg");
        assert_eq!(sniff(b"RIFF\0\0\0\0WEBPVP8 "), "image/webp");
        assert_eq!(sniff(b""), UNKNOWN);
    }
}
