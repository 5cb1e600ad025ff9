//! When something happened, in UTC, and the forms in which that is written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// The first millisecond that has no four digits for its year.
const END: i64 = 253_402_300_800_000;

/// The minutes in an offset from UTC such as `-03:00`; `Z` has none.
pub(super) fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let number = |text: &str| {
        let is_pair = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_pair.then(|| text.parse::<i64>().ok())?
    };
    let (hours, minutes) = digits.split_once(':')?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// When the event happened: its `date_time`, which is of a clock at this offset, or else its message's time.
pub(super) fn utc(document: &Map<String, Value>, offset: Option<i64>) -> Option<Value> {
    let milliseconds = match offset {
        Some(minutes) => {
            let text = document.get("date_time")?.as_str()?;
            let local = humantime::parse_rfc3339(text).ok()?;
            let local = local.duration_since(UNIX_EPOCH).ok()?.as_millis();
            i64::try_from(local).ok()? - minutes * 60_000
        }
        None => seconds(document.get("data")?.get("messageTimestamp")?)?.checked_mul(1000)?,
    };
    // Others cannot be formatted: humantime panics.
    if !(0..END).contains(&milliseconds) {
        return None;
    }
    let since = Duration::from_millis(u64::try_from(milliseconds).ok()?);
    let time: SystemTime = UNIX_EPOCH.checked_add(since)?;
    Some(humantime::format_rfc3339_millis(time).to_string().into())
}

/// Seconds as a number, as digits, or as a [`long`].
fn seconds(value: &Value) -> Option<i64> {
    let number = value.as_i64();
    let digits = || value.as_str()?.parse().ok();
    let long = || i64::try_from(long(value)?).ok();
    number.or_else(digits).or_else(long)
}

/// The number that is written as `{"low":n,"high":n,"unsigned":b}`.
pub(super) fn long(value: &Value) -> Option<i128> {
    let members = value.as_object().filter(|members| members.len() == 3)?;
    let half = |key: &str| i32::try_from(members.get(key)?.as_i64()?).ok();
    let (low, high) = (half("low")?, half("high")?);
    let bits = i64::from(high) << 32 | i64::from(low.cast_unsigned());
    Some(if members.get("unsigned")?.as_bool()? {
        bits.cast_unsigned().into()
    } else {
        bits.into()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(document: &Value, offset: Option<i64>) -> Option<Value> {
        utc(document.as_object().unwrap(), offset)
    }

    #[test]
    fn reads_offsets() {
        for (text, minutes) in [
            ("Z", Some(0)),
            ("-03:00", Some(-180)),
            ("+05:30", Some(330)),
            ("+00:00", Some(0)),
            ("+14:00", Some(840)),
            ("", None),
            ("03:00", None),
            ("-3:00", None),
            ("-03", None),
            ("-03:60", None),
            ("+15:00", None),
            ("++3:00", None),
            ("é03:00", None),
            ("America/Sao_Paulo", None),
        ] {
            assert_eq!(offset(text), minutes, "{text}");
        }
    }

    #[test]
    fn knows_the_time() {
        let document = json!({"date_time": "2025-10-21T14:20:39.016Z", "data": {"messageTimestamp": 1_761_057_639}});
        let own = Some(json!("2025-10-21T17:20:39.016Z"));
        assert_eq!(at(&document, Some(-180)), own);
        let india = json!({"date_time": "2025-10-21T22:50:19.137Z"});
        assert_eq!(
            at(&india, Some(330)),
            Some(json!("2025-10-21T17:20:19.137Z"))
        );
        let message = Some(json!("2025-10-21T14:40:39.000Z"));
        assert_eq!(at(&document, None), message);
        for other in [
            json!("1761057639"),
            json!({"low": 1_761_057_639, "high": 0, "unsigned": true}),
        ] {
            let document = json!({"data": {"messageTimestamp": other}});
            assert_eq!(at(&document, None), message);
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "yesterday",
            "1970-01-01T00:00:00.000Z",
            "9999-12-31T23:59:59.999Z",
        ] {
            assert_eq!(
                at(&json!({ "date_time": text }), Some(180)).is_none(),
                !text.starts_with('9')
            );
            if text.starts_with('9') {
                assert_eq!(at(&json!({ "date_time": text }), Some(-180)), None);
            }
        }
        for other in [
            json!(-1),
            json!(1e300),
            json!(i64::MAX),
            json!("x"),
            json!(null),
            json!([]),
        ] {
            let document = json!({"data": {"messageTimestamp": other}});
            assert_eq!(at(&document, None), None, "{other}");
        }
        assert_eq!(at(&json!({"data": null}), None), None);
    }

    #[test]
    fn a_long_is_two_halves() {
        for (low, high, unsigned, number) in [
            (1_761_050_000, 0, true, 1_761_050_000),
            (-1, 0, true, 4_294_967_295),
            (-1, -1, false, -1),
            (-1, -1, true, i128::from(u64::MAX)),
            (0, 1, false, 1 << 32),
        ] {
            let value = json!({"low": low, "high": high, "unsigned": unsigned});
            assert_eq!(long(&value), Some(number), "{value}");
        }
        for value in [
            json!({"low": 1, "high": 0}),
            json!({"low": 1, "high": 0, "unsigned": true, "x": 1}),
            json!({"low": 1.5, "high": 0, "unsigned": true}),
            json!({"low": 1, "high": 0, "unsigned": 1}),
            json!(7),
        ] {
            assert_eq!(long(&value), None, "{value}");
        }
    }
}
