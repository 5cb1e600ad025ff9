//! `bench journal`: how fast records become durable, against the same bytes in a plain file.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{ValueEnum, value_parser};
use evows_core::bytes::Bytes;
use evows_core::cli::Format;
use evows_core::journal::{self, Durability, Journal, JournalError, Retention};
use serde_json::{Value, json};

use super::{Error, ratio};

/// Different records.
const RECORDS: usize = 8_192;
/// Bytes that the journal may keep.
const KEPT: u64 = 4 << 30;
const INTERVAL: Duration = Duration::from_millis(100);
/// Records that the plain file gets at once, unless each of the producers waits for the disk.
const CHUNK: usize = 256;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// When records are synced to the disk.
    #[arg(long, value_enum, default_value_t = Sync::Interval)]
    sync: Sync,
    /// Producers; each appends and waits.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=100_000))]
    producers: u32,
    /// Records of one append.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=4_096))]
    batch: u32,
    /// Bytes of a record.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    size: u32,
    /// Seconds of appending, and as many for the plain file.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// A folder for the files; the default is in the current one, not in memory as `/tmp` may be.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Random bytes instead of events.
    #[arg(long)]
    incompressible: bool,
    /// Leave the journal in the folder, as a killed process does.
    #[arg(long)]
    keep: bool,
    /// How to write the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sync {
    /// Each before it is reported as stored.
    Always,
    /// Every 100 ms.
    Interval,
    /// When the system likes.
    Os,
}

struct Rate {
    records: u64,
    bytes: u64,
    time: Duration,
}

/// Runs it; the result is the report.
pub(super) async fn run(options: &Options) -> Result<Value, Error> {
    let mut folder = tempfile::Builder::new();
    let folder = folder.prefix("bench-journal-").tempdir_in(&options.dir)?;
    let records = records(options);
    let time = Duration::from_secs(options.seconds.into());
    // Before and after the journal: other work on the machine is no constant.
    let before = plain(&folder.path().join("before"), &records, options, time / 2)?;
    let path = folder.path().join("journal");
    let journal = open(&path, options).await?;
    let rate = append(&journal, &records, options, time).await?;
    let bounds = journal.bounds();
    if !options.keep {
        let start = Instant::now();
        journal.close().await.map_err(failed)?;
        tracing::debug!(elapsed = ?start.elapsed(), "closed");
    }
    drop(journal);
    let start = Instant::now();
    let opened = open(&path, options).await?;
    let opening = start.elapsed();
    let found = opened.bounds();
    opened.close().await.map_err(failed)?;
    let after = plain(&folder.path().join("after"), &records, options, time / 2)?;
    let plain = Rate {
        records: before.records + after.records,
        bytes: before.bytes + after.bytes,
        time: before.time + after.time,
    };
    if options.keep {
        tracing::info!(folder = %folder.keep().display(), "kept");
    }
    Ok(json!({
        "records": rate.records,
        "appends_per_second": rate.per_second(rate.records),
        "mb_per_second": rate.per_second(rate.bytes) / 1e6,
        "plain_file": {
            "records_per_second": plain.per_second(plain.records),
            "mb_per_second": plain.per_second(plain.bytes) / 1e6,
        },
        "plain_file_is_faster_by": plain.per_second(plain.bytes) / rate.per_second(rate.bytes),
        "compressed_to": ratio(bounds.bytes, bounds.raw_bytes),
        "retained_mb": found.raw_bytes / 1_000_000,
        "opened_in_ms": opening.as_secs_f64() * 1e3,
    }))
}

async fn open(path: &Path, options: &Options) -> Result<Arc<dyn Journal>, Error> {
    let durability = match options.sync {
        Sync::Always => Durability::Always,
        Sync::Interval => Durability::Interval(INTERVAL),
        Sync::Os => Durability::Os,
    };
    let retention = Retention {
        bytes: KEPT,
        ..Retention::default()
    };
    let options = journal::Options {
        durability,
        retention,
    };
    journal::open(path.to_owned(), options)
        .await
        .map_err(failed)
}

async fn append(
    journal: &Arc<dyn Journal>,
    records: &Rc<Vec<Bytes>>,
    options: &Options,
    time: Duration,
) -> Result<Rate, Error> {
    let start = Instant::now();
    let batch = options.batch as usize;
    let lane = async |producer: usize| {
        let mut at = producer * 97;
        let mut rate = (0, 0);
        while start.elapsed() < time {
            let chosen = (at..at + batch).map(|at| records[at % RECORDS].clone());
            let chosen: Vec<_> = chosen.collect();
            at += batch;
            rate.0 += chosen.len() as u64;
            rate.1 += chosen.iter().map(Bytes::len).sum::<usize>() as u64;
            journal.append(chosen).await?;
        }
        Ok::<_, JournalError>(rate)
    };
    let lanes = (0..options.producers as usize).map(lane);
    let lanes: futures_util::stream::FuturesUnordered<_> = lanes.collect();
    let rates = futures_util::TryStreamExt::try_collect::<Vec<_>>(lanes).await;
    let rates = rates.map_err(failed)?;
    Ok(Rate {
        records: rates.iter().map(|it| it.0).sum(),
        bytes: rates.iter().map(|it| it.1).sum(),
        time: start.elapsed(),
    })
}

/// The same bytes to a plain file, synced alike.
fn plain(path: &Path, records: &[Bytes], options: &Options, time: Duration) -> Result<Rate, Error> {
    let chunk = match options.sync {
        Sync::Always => (options.producers * options.batch) as usize,
        Sync::Interval | Sync::Os => CHUNK,
    };
    let mut file = File::create(path)?;
    let mut buffer = Vec::new();
    let (mut at, mut bytes) = (0, 0);
    let start = Instant::now();
    let mut synced = start;
    while start.elapsed() < time {
        buffer.clear();
        for _ in 0..chunk {
            let record = &records[at % RECORDS];
            buffer.extend_from_slice(&record.len().to_le_bytes());
            buffer.extend_from_slice(record);
            bytes += record.len();
            at += 1;
        }
        file.write_all(&buffer)?;
        let due = match options.sync {
            Sync::Always => true,
            Sync::Interval => synced.elapsed() >= INTERVAL,
            Sync::Os => false,
        };
        if due {
            file.sync_data()?;
            synced = Instant::now();
        }
    }
    let time = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(Rate {
        records: at as u64,
        bytes: bytes as u64,
        time,
    })
}

/// Events as Evolution sends them: the same fields, other people, identifiers and words.
fn records(options: &Options) -> Rc<Vec<Bytes>> {
    let size = options.size as usize;
    let mut random = fastrand::Rng::with_seed(1);
    if options.incompressible {
        let mut record = || {
            let mut bytes = vec![0; size];
            random.fill(&mut bytes);
            Bytes::from(bytes)
        };
        return Rc::new((0..RECORDS).map(|_| record()).collect());
    }
    let words: Vec<String> = std::iter::repeat_with(|| {
        let length = random.usize(2..10);
        (0..length).map(|_| random.lowercase()).collect()
    })
    .take(4_000)
    .collect();
    let record = |random: &mut fastrand::Rng| {
        let instance = random.u16(..500);
        let number = random.u64(10_000_000_000..99_999_999_999);
        let id = format!("3EB0{:016X}", random.u64(..));
        let (name, time) = (&words[random.usize(..words.len())], random.u32(..));
        let mut text = format!(
            r#"{{"event":"messages.upsert","instance":"instance{instance}","data":{{"key":{{"remoteJid":"55{number}@s.whatsapp.net","fromMe":false,"id":"{id}"}},"pushName":"{name}","status":"DELIVERY_ACK","messageType":"conversation","messageTimestamp":{time},"instanceId":"{:016x}","source":"android"}},"server_url":"http://localhost:8080","date_time":"2026-11-25T10:{:02}:{:02}.{:03}Z","sender":"55{number}@s.whatsapp.net","apikey":"{:032X}","message":{{"conversation":""#,
            random.u64(..),
            random.u8(..60),
            random.u8(..60),
            random.u16(..1000),
            random.u128(..),
        );
        while text.len() + 12 < size {
            // Some words are common, most are rare.
            let common = random.f64().powi(3);
            let index = (common * 4_000.0).floor();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is an index below 4,000"
            )]
            let index = index as usize;
            text.push_str(&words[index.min(words.len() - 1)]);
            text.push(' ');
        }
        text.push_str("\"}}");
        Bytes::from(text)
    };
    Rc::new((0..RECORDS).map(|_| record(&mut random)).collect())
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn failed(error: JournalError) -> Error {
    Error::Failed(error.to_string())
}

// === impl Rate ===

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.time.as_secs_f64()
    }
}
