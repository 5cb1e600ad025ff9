//! The format of a block: records that were written at once, under a key that says where they belong.
//!
//! | key, big-endian | value, little-endian |
//! |---|---|
//! | u64 offset of the first record | u8 format, 1 |
//! | u32 number of records | u8 compression: 0 none, 1 LZ4 block |
//! | u64 milliseconds since 1970 | u64 XXH3 of the key and what follows |
//! | u32 bytes of the body, uncompressed | body: a u32 length for each record, then the records |
//! | u32 bytes of the value | |

use bytes::Bytes;
use fjall::Slice;

const FORMAT: u8 = 1;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;
/// Bytes of a value in front of its body.
const HEAD: usize = 10;
/// Bytes of a key.
const KEY: usize = 28;
/// Bodies below this are not worth it.
const LEAST: usize = 256;
/// Blocks that are not compressed after one that did not get smaller.
const PATIENCE: u32 = 15;

/// Names a block, and says about it what can be known without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) first: u64,
    pub(super) count: u32,
    /// When it was stored, in milliseconds since 1970.
    pub(super) at: u64,
    /// Bytes of the body, uncompressed.
    pub(super) raw: u32,
    /// Bytes of the value.
    pub(super) stored: u32,
}

/// Writes blocks; keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// The value as it is.
    plain: Vec<u8>,
    /// Room for the value compressed, longer than any was.
    small: Vec<u8>,
    /// Blocks that will not be compressed, because one did not get smaller.
    passed_over: u32,
}

/// A block that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is cut short")]
    Short,
    #[error("it has block format {0}, which this evows does not read")]
    Format(u8),
    #[error("it cannot be decompressed")]
    Compression,
}

// === impl Key ===

impl Key {
    pub(super) fn to_bytes(self) -> [u8; KEY] {
        let mut bytes = [0; KEY];
        bytes[..8].copy_from_slice(&self.first.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.at.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.raw.to_be_bytes());
        bytes[24..].copy_from_slice(&self.stored.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (raw, stored) = rest.split_first_chunk()?;
        Some(Self {
            first: u64::from_be_bytes(*first),
            count: u32::from_be_bytes(*count),
            at: u64::from_be_bytes(*at),
            raw: u32::from_be_bytes(*raw),
            stored: u32::from_be_bytes(stored.try_into().ok()?),
        })
    }

    /// The offset behind the last record.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Bytes of the records themselves.
    pub(super) fn records_bytes(&self) -> u64 {
        u64::from(self.raw).saturating_sub(4 * u64::from(self.count))
    }
}

// === impl Encoder ===

impl Encoder {
    /// The key and the value of a block, compressed if that is wanted and pays. Its records have less than 4 GiB, their lengths
    /// included.
    pub(super) fn encode(
        &mut self,
        first: u64,
        at: u64,
        records: &[Bytes],
        compressed: bool,
    ) -> (Key, Slice) {
        let plain = &mut self.plain;
        plain.clear();
        plain.resize(HEAD, 0);
        for record in records {
            plain.extend_from_slice(&length(record.len()).to_le_bytes());
        }
        for record in records {
            plain.extend_from_slice(record);
        }
        let body = &plain[HEAD..];
        let raw = length(body.len());
        let tries = compressed && body.len() >= LEAST && self.passed_over == 0;
        if compressed {
            self.passed_over = self.passed_over.saturating_sub(1);
        }
        let small = tries.then(|| compress(body, &mut self.small)).flatten();
        if tries && small.is_none() {
            self.passed_over = PATIENCE;
        }
        let (value, method) = match small {
            Some(length) => (&mut self.small[..HEAD + length], LZ4),
            None => (&mut plain[..], PLAIN),
        };
        (value[0], value[1]) = (FORMAT, method);
        let key = Key {
            first,
            count: length(records.len()),
            at,
            raw,
            stored: length(value.len()),
        };
        let sum = checksum(&key, value);
        value[2..HEAD].copy_from_slice(&sum.to_le_bytes());
        // fjall copies it in any case.
        let value = Slice::from(&*value);
        // A burst of large records must not hold its buffers for good.
        if self.plain.capacity() > 8 << 20 {
            (self.plain, self.small) = (Vec::new(), Vec::new());
        }
        (key, value)
    }
}

/// The records of a block; damaged ones never come through.
pub(super) fn decode(key: &Key, value: &[u8]) -> Result<Vec<Bytes>, Damage> {
    let (head, body) = value.split_at_checked(HEAD).ok_or(Damage::Short)?;
    if head[0] != FORMAT {
        return Err(Damage::Format(head[0]));
    }
    if head[2..] != checksum(key, value).to_le_bytes() {
        return Err(Damage::Checksum);
    }
    let raw = key.raw as usize;
    let body = if head[1] == LZ4 {
        let body = lz4_flex::block::decompress(body, raw);
        body.map_err(|_| Damage::Compression)?
    } else {
        body.to_vec()
    };
    if body.len() != raw {
        return Err(Damage::Compression);
    }
    let body = Bytes::from(body);
    let lengths = 4 * key.count as usize;
    if body.len() < lengths {
        return Err(Damage::Short);
    }
    let mut rest = body.slice(lengths..);
    let lengths = body[..lengths].as_chunks::<4>().0.iter();
    let records = lengths.map(|length| {
        let length = u32::from_le_bytes(*length) as usize;
        let whole = length <= rest.len();
        whole.then(|| rest.split_to(length)).ok_or(Damage::Short)
    });
    records.collect()
}

/// Compresses behind room for the head. Returns the length unless it does not pay.
fn compress(body: &[u8], value: &mut Vec<u8>) -> Option<usize> {
    let most = HEAD + lz4_flex::block::get_maximum_output_size(body.len());
    if value.len() < most {
        value.resize(most, 0);
    }
    let length = lz4_flex::block::compress_into(body, &mut value[HEAD..]).ok()?;
    (length < body.len() / 10 * 9).then_some(length)
}

fn checksum(key: &Key, value: &[u8]) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&key.to_bytes());
    hash.update(value.get(..2).unwrap_or_default());
    hash.update(value.get(HEAD..).unwrap_or_default());
    hash.digest()
}

/// A length that an append was checked for.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Bytes> {
        let text = |index: usize| Bytes::from(format!("{{\"text\":\"{}\"}}", "ab".repeat(index)));
        (0..40).map(text).collect()
    }

    #[test]
    fn a_block_is_read_as_it_was_written() {
        let mut encoder = Encoder::default();
        let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(999)
            .collect();
        for records in [
            records(),
            vec![Bytes::new()],
            vec![Bytes::from(random), Bytes::new()],
        ] {
            for compressed in [true, false] {
                let (key, value) = encoder.encode(7, 1_000, &records, compressed);
                assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key));
                assert_eq!(key.end(), 7 + records.len() as u64);
                assert_eq!(key.stored as usize, value.len());
                assert_eq!(decode(&key, &value).as_ref(), Ok(&records));
            }
        }
    }

    #[test]
    fn a_damaged_block_is_never_read() {
        let (key, value) = Encoder::default().encode(7, 1_000, &records(), true);
        for index in 0..value.len() {
            let mut damaged = value.to_vec();
            damaged[index] ^= 0x20;
            assert!(decode(&key, &damaged).is_err(), "{index}");
            assert!(decode(&key, &value[..index]).is_err(), "{index}");
        }
        let other = Key { first: 8, ..key };
        assert_eq!(decode(&other, &value), Err(Damage::Checksum));
    }
}
