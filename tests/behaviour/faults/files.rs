//! Files of events, written and read over crashes and rotations.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{Poster, Setup, message, until};

/// Crashes of one test.
const CRASHES: u64 = 6;

/// The ids in the files that begin with `events.ndjson`, those put aside first. Each line must be whole.
fn ids(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.to_string_lossy().contains("events.ndjson"))
        .collect();
    // The one that is written to has the shortest name.
    paths.sort_by_key(|path| (path.ends_with("events.ndjson"), path.clone()));
    let texts = paths.iter().map(|path| fs::read_to_string(path).unwrap());
    let mut ids = Vec::new();
    for text in texts {
        // While it is written to, the last line may be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let event: Value = serde_json::from_str(line).expect("a whole line");
            ids.push(event["data"]["key"]["id"].as_str().unwrap().to_owned());
        }
    }
    ids
}

/// Each of `wanted` is there, and of each instance they come in order, what comes twice left out.
fn check(ids: &[String], wanted: &[String]) {
    let mut seen = HashSet::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for id in ids {
        let (instance, number) = id.rsplit_once('-').unwrap();
        let number = number.parse().unwrap();
        if seen.insert(id) {
            let before = last.insert(instance, number);
            assert!(before.is_none_or(|it| it < number), "{id} out of order");
        }
    }
    for id in wanted {
        assert!(seen.contains(id), "{id} is missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_a_whole_line_however_often_it_crashes() {
    let pipeline = "[sources.in]\ntype = \"webhook\"\n\
                    [sinks.out]\ntype = \"file\"\ninputs = [\"in\"]\npath = \"out/events.ndjson\"\n\
                    rotate = { size = \"20KiB\" }\n";
    let mut evows = Setup::pipeline(pipeline).start().await;
    let out = evows.data_dir().with_file_name("out");
    let poster = Poster::start(evows.address(), 4);
    for crash in 0..CRASHES {
        poster
            .go_on(usize::try_from(crash * 53 % 200).unwrap())
            .await;
        evows = evows.crash().await;
    }
    poster.go_on(100).await;
    let answered = poster.stop().await;
    check(&ids(&out), &answered);
    assert!(
        fs::read_dir(&out).unwrap().count() > 1,
        "none was put aside"
    );
    drop(evows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_a_file_arrives_over_crashes_and_rotations() {
    const LINES: usize = 3_000;

    let pipeline = "[sources.in]\ntype = \"file\"\npath = \"in/events.ndjson\"\nfollow = true\n\
                    [sinks.out]\ntype = \"file\"\ninputs = [\"in\"]\npath = \"out/events.ndjson\"\n";
    let mut evows = Setup::pipeline(pipeline).start().await;
    let folder = evows.data_dir().with_file_name("in");
    let out = evows.data_dir().with_file_name("out");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("events.ndjson");
    let wanted: Vec<String> = (0..LINES).map(|line| format!("i-{line}")).collect();
    let mut file = File::create(&path).unwrap();
    let mut crashes = 0;
    for (line, id) in wanted.iter().enumerate() {
        if line > 0 && line % 400 == 0 {
            let aside = folder.join(format!("events.ndjson.{}", line / 400));
            fs::rename(&path, aside).unwrap();
            file = File::create(&path).unwrap();
        }
        let text = format!("{}\n", message("i", id));
        // In two pieces: the reader may see half a line.
        let (front, back) = text.as_bytes().split_at(text.len() / 2);
        file.write_all(front).unwrap();
        file.write_all(back).unwrap();
        if line == 0 {
            // What was put aside before the source saw it is not its business.
            until("it has begun", || !ids(&out).is_empty()).await;
        }
        if line % 450 == 449 && crashes < CRASHES {
            crashes += 1;
            let some = ids(&out).len() + 1;
            until("it reads on", || ids(&out).len() >= some.min(line)).await;
            evows = evows.crash().await;
        }
    }
    until("everything has arrived", || {
        ids(&out).contains(wanted.last().unwrap())
    })
    .await;
    check(&ids(&out), &wanted);
    drop(evows);
}
