//! FHIR dates as ranges of milliseconds, with the precision they are written in.
//!
//! R4 search, section 2.1.1.4.7: a date is the whole day, a month the whole month, a time the whole second; a time
//! without zone is taken as UTC, as is a date.

use keepwell_model::time::{days_from_civil, days_in_month};

const DAY: i64 = 86_400_000;

/// The range of a `date`, `dateTime`, `instant` or search value: first millisecond and one past the last.
///
/// Accepts `YYYY`, `YYYY-MM`, `YYYY-MM-DD` and these with `Thh:mm`, seconds, fraction and zone as optional parts. A
/// blank for the plus of a zone is accepted too: that is what a plus becomes in a query string that was not escaped.
pub fn range(text: &str) -> Option<(i64, i64)> {
    let b = text.as_bytes();
    let year = i64::from(number(b.get(0..4)?)?);
    if year == 0 {
        return None;
    }
    if b.len() == 4 {
        return Some((days_from_civil(year, 1, 1) * DAY, days_from_civil(year + 1, 1, 1) * DAY));
    }
    let month = number(b.get(5..7)?)?;
    if b.get(4) != Some(&b'-') || !(1..=12).contains(&month) {
        return None;
    }
    let first = days_from_civil(year, month, 1);
    if b.len() == 7 {
        return Some((first * DAY, (first + i64::from(days_in_month(year, month))) * DAY));
    }
    let day = number(b.get(8..10)?)?;
    if b.get(7) != Some(&b'-') || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let midnight = (first + i64::from(day) - 1) * DAY;
    if b.len() == 10 {
        return Some((midnight, midnight + DAY));
    }
    let (hour, minute) = (number(b.get(11..13)?)?, number(b.get(14..16)?)?);
    if b.get(10) != Some(&b'T') || b.get(13) != Some(&b':') || hour > 23 || minute > 59 {
        return None;
    }
    let mut lo = midnight + i64::from(hour) * 3_600_000 + i64::from(minute) * 60_000;
    let mut width = 60_000;
    let mut rest = b.get(16..)?;
    if let [b':', s1, s2, tail @ ..] = rest {
        let second = number(&[*s1, *s2])?;
        if second > 60 {
            return None;
        }
        lo += i64::from(second) * 1000;
        width = 1000;
        rest = tail;
        if let [b'.', digits @ ..] = rest {
            let n = digits.iter().take_while(|d| d.is_ascii_digit()).count();
            if n == 0 {
                return None;
            }
            // Finer than a millisecond: the millisecond that holds it.
            for d in digits.get(..n)?.iter().take(3) {
                width /= 10;
                lo += i64::from(d - b'0') * width;
            }
            rest = digits.get(n..)?;
        }
    }
    lo -= match rest {
        [] | [b'Z'] => 0,
        [sign @ (b'+' | b'-' | b' '), h1, h2, b':', m1, m2] => {
            let (h, m) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if h > 14 || m > 59 {
                return None;
            }
            let offset = i64::from(h) * 3_600_000 + i64::from(m) * 60_000;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    Some((lo, lo + width))
}

fn number(digits: &[u8]) -> Option<u32> {
    let mut n = 0;
    for d in digits {
        if !d.is_ascii_digit() {
            return None;
        }
        n = n * 10 + u32::from(d - b'0');
    }
    Some(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepwell_model::time::Timestamp;

    fn check(text: &str, lo: &str, hi: &str) {
        let (a, b) = range(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(
            (Timestamp(a).to_string().as_str(), Timestamp(b).to_string().as_str()),
            (lo, hi),
            "{text}"
        );
    }

    #[test]
    fn the_precision_is_the_range() {
        check("2013", "2013-01-01T00:00:00.000Z", "2014-01-01T00:00:00.000Z");
        check("2012-02", "2012-02-01T00:00:00.000Z", "2012-03-01T00:00:00.000Z");
        check("2013-12", "2013-12-01T00:00:00.000Z", "2014-01-01T00:00:00.000Z");
        check("2013-12-31", "2013-12-31T00:00:00.000Z", "2014-01-01T00:00:00.000Z");
        check(
            "2013-01-14T10:00",
            "2013-01-14T10:00:00.000Z",
            "2013-01-14T10:01:00.000Z",
        );
        check(
            "2013-01-14T10:00:05",
            "2013-01-14T10:00:05.000Z",
            "2013-01-14T10:00:06.000Z",
        );
        check(
            "2013-01-14T10:00:05Z",
            "2013-01-14T10:00:05.000Z",
            "2013-01-14T10:00:06.000Z",
        );
        check(
            "2013-01-14T10:00:05.5Z",
            "2013-01-14T10:00:05.500Z",
            "2013-01-14T10:00:05.600Z",
        );
        check(
            "2013-01-14T10:00:05.123456Z",
            "2013-01-14T10:00:05.123Z",
            "2013-01-14T10:00:05.124Z",
        );
        check(
            "2013-01-14T00:30:00+01:00",
            "2013-01-13T23:30:00.000Z",
            "2013-01-13T23:30:01.000Z",
        );
        check(
            "2013-01-14T00:30:00 01:00",
            "2013-01-13T23:30:00.000Z",
            "2013-01-13T23:30:01.000Z",
        );
        check(
            "2013-12-31T23:30:00-05:00",
            "2014-01-01T04:30:00.000Z",
            "2014-01-01T04:30:01.000Z",
        );
        check(
            "2016-12-31T23:59:60Z",
            "2017-01-01T00:00:00.000Z",
            "2017-01-01T00:00:01.000Z",
        );
        check("0001", "0001-01-01T00:00:00.000Z", "0002-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2",
            "201",
            "0000",
            "20134",
            "2013-",
            "2013-13",
            "2013-00",
            "2013-1",
            "2013-02-29",
            "2013-02-00",
            "2013-2-1",
            "2013-01-01T",
            "2013-01-01T10",
            "2013-01-01T24:00",
            "2013-01-01T10:60",
            "2013-01-01T10:00:61Z",
            "2013-01-01T10:00:00.Z",
            "2013-01-01T10:00:00+1:00",
            "2013-01-01T10:00:00+15:00",
            "2013-01-01 10:00",
            "2013-01-01T10:00:00Zx",
            "13-01-2013",
            "+013",
            "２０１３",
            "now",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
