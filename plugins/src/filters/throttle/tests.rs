use evows_core::testing::{FilterHarness, event};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::advance;

use super::*;

type Bench = FilterHarness<Throttle>;

const MS: Duration = Duration::from_millis(1);

fn numbered(instance: &str, number: usize) -> Event {
    event(&format!(
        r#"{{"event":"call","instance":"{instance}","data":{number}}}"#
    ))
}

fn number(event: &Event) -> usize {
    let number = event.document()["data"].as_u64().unwrap();
    usize::try_from(number).unwrap()
}

fn emitted(bench: &mut Bench) -> Vec<usize> {
    bench.emitted().iter().map(number).collect()
}

fn discarded(bench: &mut Bench) -> Vec<(usize, &'static str)> {
    let discarded = bench.discarded();
    let numbers = discarded.iter();
    numbers
        .map(|(event, reason)| (number(event), *reason))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_burst_and_then_the_rate() {
    let mut bench = Bench::from_toml("rate = 2\nburst = 3");
    for number in 0..5 {
        bench.send(numbered("a", number));
    }
    assert_eq!(emitted(&mut bench), [0, 1, 2]);
    assert_eq!(discarded(&mut bench), [(3, "throttled"), (4, "throttled")]);
    advance(499 * MS).await;
    bench.send(numbered("a", 5)).send(numbered("b", 6));
    assert_eq!(emitted(&mut bench), [6]);
    advance(MS).await;
    bench.send(numbered("a", 7)).send(numbered("a", 8));
    assert_eq!(emitted(&mut bench), [7]);
    assert_eq!(bench.filter().unwrap().tick(), None);
}

#[tokio::test(start_paused = true)]
async fn delay_keeps_the_order_and_the_rate() {
    let mut bench = Bench::from_toml("rate = 10\nburst = 1\nexcess = \"delay\"");
    for number in 0..4 {
        bench.send(numbered("a", number));
    }
    assert_eq!(emitted(&mut bench), [0]);
    advance(99 * MS).await;
    assert!(emitted(bench.tick()).is_empty());
    // The next ones are charged to when they were due, not to the tick.
    advance(51 * MS).await;
    assert_eq!(emitted(bench.tick()), [1]);
    advance(50 * MS).await;
    assert_eq!(emitted(bench.tick()), [2]);
    advance(100 * MS).await;
    bench.send(numbered("a", 4));
    assert_eq!(emitted(&mut bench), [3]);
    assert_eq!(emitted(bench.flush()), [4]);
    assert_eq!(bench.filter().unwrap().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn there_is_no_burst_after_a_long_wait() {
    let mut bench = Bench::from_toml("rate = 10\nburst = 1\nexcess = \"delay\"");
    for number in 0..100 {
        bench.send(numbered("a", number));
    }
    advance(5000 * MS).await;
    // The one that is due, and the one of the tick that is late.
    assert_eq!(emitted(bench.tick()), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn only_so_much_is_held() {
    let keys = "rate = 1\nexcess = \"delay\"\nmax_held = 2\nmax_bytes = 1800";
    let mut bench = Bench::from_toml(keys);
    for number in 0..4 {
        bench.send(numbered("a", number));
    }
    assert_eq!(discarded(&mut bench), [(3, "held_too_many")]);
    for number in 4..7 {
        bench.send(numbered("b", number));
    }
    assert_eq!(discarded(&mut bench), [(6, "held_too_much")]);
    assert_eq!(emitted(&mut bench), [0, 4]);
    let mut held = emitted(bench.flush());
    held.sort_unstable();
    assert_eq!(held, [1, 2, 5]);
    bench.send(numbered("b", 7));
    assert_eq!(emitted(bench.flush()), [7]);
}

#[tokio::test(start_paused = true)]
async fn latest_holds_the_newest_of_each_key() {
    let mut bench = Bench::from_toml("rate = 1\nexcess = \"latest\"");
    for number in 0..4 {
        bench.send(numbered("a", number));
    }
    bench.send(numbered("b", 4)).send(numbered("b", 5));
    assert_eq!(emitted(&mut bench), [0, 4]);
    assert_eq!(discarded(&mut bench), [(1, "replaced"), (2, "replaced")]);
    advance(1000 * MS).await;
    let mut now = emitted(bench.tick());
    now.sort_unstable();
    assert_eq!(now, [3, 5]);
    assert_eq!(bench.filter().unwrap().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn the_key_unused_for_longest_lets_go_and_starts_anew() {
    let keys = "rate = 1\nper = \"1h\"\nexcess = \"delay\"\nmax_keys = 2";
    let mut bench = Bench::from_toml(keys);
    for (instance, number) in [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 4)] {
        bench.send(numbered(instance, number));
    }
    assert_eq!(emitted(&mut bench), [0, 3]);
    bench.send(numbered("c", 5));
    assert_eq!(emitted(&mut bench), [1, 2, 5]);
    bench.send(numbered("a", 6));
    assert_eq!(emitted(&mut bench), [4, 6]);
    let filter = bench.filter().unwrap();
    assert_eq!((filter.bytes, filter.due.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_key_there_is_one_limit() {
    let mut bench = Bench::from_toml("rate = 1\nkey = []");
    bench.send(numbered("a", 0)).send(numbered("b", 1));
    assert_eq!(emitted(&mut bench), [0]);
}

#[test]
fn says_what_is_wrong() {
    for (keys, message) in [
        ("rate = 0", "`rate` is 0"),
        ("rate = 1.5", "write `rate = 3` and `per = \"2s\"`"),
        ("rate = -1", "must be a whole number"),
        ("per = \"0s\"", "`per` is 0"),
        ("burst = 0", "`burst` is 0"),
        ("max_held = 0", "`max_held` is 0"),
        ("max_keys = 0", "`max_keys` is 0"),
        ("key = [\"\"]", "is not a path"),
        ("excess = \"wait\"", "wait"),
    ] {
        let problems = Bench::problems(keys);
        assert!(problems.contains(message), "{keys}: {problems}");
    }
}

/// Sends numbered events after these pauses, ticking as asked for, and says when which of them passed.
fn run(keys: &str, steps: &[(u64, usize)]) -> Vec<(u64, usize)> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let mut bench = Bench::from_toml(keys);
        let tick = bench.filter().unwrap().tick();
        let mut next = tick.map(|tick| start + tick);
        let mut passed = Vec::new();
        let mut discarded = 0;
        let mut note = |bench: &mut Bench| {
            let micros = u64::try_from(start.elapsed().as_micros()).unwrap();
            passed.extend(emitted(bench).into_iter().map(|number| (micros, number)));
            discarded += bench.discarded().len();
        };
        for (number, (pause, instance)) in steps.iter().enumerate() {
            let until = Instant::now() + Duration::from_micros(*pause);
            while let (Some(at), Some(tick)) = (next, tick)
                && at <= until
            {
                advance(at - Instant::now()).await;
                note(bench.tick());
                next = Some(at + tick);
            }
            advance(until - Instant::now()).await;
            note(bench.send(numbered(&instance.to_string(), number)));
        }
        note(bench.flush());
        assert_eq!(passed.len() + discarded, steps.len());
        passed
    })
}

proptest! {
    #[test]
    fn no_more_than_the_burst_and_the_rate_pass(
        steps in vec((0_u64..30_000, 0_usize..3), 1..200),
        rate in 1_u64..400,
        burst in 1_u64..10,
        delay: bool,
    ) {
        let excess = if delay { "delay" } else { "drop" };
        let keys = format!("rate = {rate}\nburst = {burst}\nexcess = \"{excess}\"");
        let passed = run(&keys, &steps);
        let limit = Limit::new(rate, Duration::from_secs(1), burst);
        let late = if delay { nanos(limit.tick()) } else { 0 };
        let end: u64 = steps.iter().map(|(pause, _)| pause).sum();
        for key in 0..3 {
            let of_key = passed.iter().filter(|(_, number)| steps[*number].1 == key);
            let of_key: Vec<_> = of_key.collect();
            prop_assert!(of_key.is_sorted_by(|one, other| one.1 < other.1));
            // What the flush lets go of comes last, and has no limit.
            let times: Vec<_> = of_key.iter().map(|(at, _)| *at).filter(|at| *at < end).collect();
            for (first, from) in times.iter().enumerate() {
                for (last, to) in times.iter().enumerate().skip(first) {
                    let most = burst + ((to - from) * 1000 + late) / limit.interval;
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_goes_on_with_another_rate() {
    let mut bench = Bench::from_toml("rate = 1\nburst = 2");
    bench.send(numbered("a", 0)).send(numbered("a", 1));
    bench.reload("rate = 10\nburst = 2");
    bench.send(numbered("a", 2));
    assert_eq!(discarded(&mut bench), [(2, "throttled")]);
    // Two tokens are missing, which come ten times as fast.
    advance(100 * MS).await;
    bench.send(numbered("a", 3)).send(numbered("a", 4));
    assert_eq!(emitted(&mut bench), [0, 1, 3]);
    assert_eq!(discarded(&mut bench), [(4, "throttled")]);
    bench.reload("rate = 10\nburst = 2\nkey = ['event']");
    bench.send(numbered("a", 5));
    assert_eq!(emitted(&mut bench), [5], "another key");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_waits_on_or_goes() {
    let mut bench = Bench::from_toml("rate = 1\nburst = 1\nexcess = 'delay'");
    for number in 0..4 {
        bench.send(numbered("a", number));
    }
    bench.reload("rate = 10\nburst = 1\nexcess = 'delay'");
    assert_eq!(emitted(&mut bench), [0]);
    advance(99 * MS).await;
    assert!(emitted(bench.tick()).is_empty());
    advance(MS).await;
    assert_eq!(emitted(bench.tick()), [1]);
    bench.send(numbered("a", 4));
    // It holds nothing, so what is held goes.
    bench.reload("rate = 10\nexcess = 'drop'");
    assert_eq!(emitted(&mut bench), [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_smaller_bucket_is_empty_at_most() {
    let mut bench = Bench::from_toml("rate = 10\nburst = 100");
    for number in 0..60 {
        bench.send(numbered("a", number));
    }
    assert_eq!(emitted(&mut bench).len(), 60);
    bench.reload("rate = 10\nburst = 10");
    bench.send(numbered("a", 60));
    assert_eq!(discarded(&mut bench), [(60, "throttled")]);
    advance(100 * MS).await;
    bench.send(numbered("a", 61)).send(numbered("a", 62));
    assert_eq!(emitted(&mut bench), [61]);
    assert_eq!(discarded(&mut bench), [(62, "throttled")]);
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_is_spent_whatever_becomes_of_the_excess() {
    let mut bench = Bench::from_toml("rate = 10\nburst = 1");
    bench.send(numbered("a", 0));
    bench.reload("rate = 10\nburst = 1\nexcess = 'delay'");
    bench.send(numbered("a", 1));
    assert_eq!(emitted(&mut bench), [0]);
    advance(100 * MS).await;
    assert_eq!(emitted(bench.tick()), [1]);
    bench.reload("rate = 10\nburst = 1\nexcess = 'drop'");
    bench.send(numbered("a", 2));
    assert_eq!(discarded(&mut bench), [(2, "throttled")]);
}
