//! Dates, times and their partial precision.

use crate::time::days_from_civil;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// A date, a date with time, or a time of day, to the precision it was written in.
#[derive(Clone, Debug)]
pub struct Temporal<'v> {
    text: Cow<'v, str>,
    kind: TemporalKind,
    /// Year, month, day, hour, minute, microseconds of the minute; the first `len` are given. A time starts at hour.
    fields: [i64; 6],
    len: usize,
    /// Minutes east of UTC.
    zone: Option<i64>,
}

/// The three types of FHIRPath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemporalKind {
    /// `System.Date`
    Date,
    /// `System.DateTime`
    DateTime,
    /// `System.Time`
    Time,
}

impl<'v> Temporal<'v> {
    /// Reads `2024-02`, `2024-02-29T10:00Z`, or with [`TemporalKind::Time`] `10:00:00.5`.
    #[must_use]
    pub fn parse(text: &'v str, kind: TemporalKind) -> Option<Self> {
        let mut out = Self {
            text: Cow::Borrowed(text),
            kind,
            fields: [0, 1, 1, 0, 0, 0],
            len: 0,
            zone: None,
        };
        let (date, clock) = match kind {
            TemporalKind::Time => ("", text),
            _ => text.split_once('T').unwrap_or((text, "")),
        };
        if kind == TemporalKind::Time {
            out.len = 3;
        } else {
            for (i, part) in date.split('-').enumerate() {
                let width = if i == 0 { 4 } else { 2 };
                if i > 2 || part.len() != width {
                    return None;
                }
                out.put(part)?;
            }
        }
        if !clock.is_empty() {
            if out.len != 3 {
                return None;
            }
            let (clock, zone) = match clock.find(['Z', '+', '-']) {
                Some(at) => (clock.get(..at)?, Some(clock.get(at..)?)),
                None => (clock, None),
            };
            let mut parts = clock.split(':');
            for part in parts.by_ref().take(2) {
                if part.len() != 2 {
                    return None;
                }
                out.put(part)?;
            }
            if let Some(seconds) = parts.next() {
                let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
                let fraction: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
                if whole.len() != 2 {
                    return None;
                }
                out.put(whole)?;
                if let Some(f) = out.fields.get_mut(5) {
                    *f = *f * 1_000_000 + fraction;
                }
            }
            out.zone = match zone {
                None => None,
                Some(_) if kind == TemporalKind::Time => return None,
                Some("Z") => Some(0),
                Some(z) => {
                    let (h, m) = z.get(1..)?.split_once(':')?;
                    let minutes = h.parse::<i64>().ok()? * 60 + m.parse::<i64>().ok()?;
                    Some(if z.starts_with('-') { -minutes } else { minutes })
                }
            };
        }
        (out.len > 0).then_some(out)
    }

    fn put(&mut self, digits: &str) -> Option<()> {
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *self.fields.get_mut(self.len)? = digits.parse().ok()?;
        self.len += 1;
        Some(())
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Temporal<'static> {
        Temporal {
            text: Cow::Owned(self.text.into_owned()),
            ..self
        }
    }

    /// Which of the three types it is.
    #[must_use]
    pub fn kind(&self) -> TemporalKind {
        self.kind
    }

    /// Microseconds since 1970 in UTC, of a value with a time zone.
    fn instant(&self) -> Option<i64> {
        let [y, m, d, h, min, us] = self.fields;
        let days = days_from_civil(y, u32::try_from(m).ok()?, u32::try_from(d).ok()?);
        Some((days * 1440 + h * 60 + min - self.zone?) * 60_000_000 + us)
    }

    /// The order of two values; `None` when their precision leaves it open, or they are of different kinds.
    #[must_use]
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        if (self.kind == TemporalKind::Time) != (other.kind == TemporalKind::Time) {
            return None;
        }
        if self.len > 4
            && other.len > 4
            && let (Some(a), Some(b)) = (self.instant(), other.instant())
        {
            // Whole minutes against seconds stay open where the minutes are equal.
            let minute = 60_000_000;
            let open = self.len != other.len && a.div_euclid(minute) == b.div_euclid(minute);
            return if open { None } else { Some(a.cmp(&b)) };
        }
        for (a, b) in self.fields.iter().zip(&other.fields).take(self.len.min(other.len)) {
            if a != b {
                // Around midnight a missing zone could turn the order of two days.
                let unsure = self.zone.is_some() != other.zone.is_some() && self.len > 3 && other.len > 3;
                return if unsure { None } else { Some(a.cmp(b)) };
            }
        }
        (self.len == other.len && self.zone.is_some() == other.zone.is_some()).then_some(Ordering::Equal)
    }
}

impl fmt::Display for Temporal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_knows_precision() {
        use Ordering::{Equal, Greater, Less};
        for (a, b, expect) in [
            ("2024", "2024", Some(Equal)),
            ("2024", "2025-01", Some(Less)),
            ("2024", "2024-05", None),
            ("2024-05-02", "2024-05-01T10:00:00Z", Some(Greater)),
            ("2024-05-01", "2024-05-01T10:00:00Z", None),
            ("2024-05-01T10:00:00Z", "2024-05-01T12:00:00+02:00", Some(Equal)),
            ("2024-05-01T10:00:00.1Z", "2024-05-01T10:00:00.10Z", Some(Equal)),
            ("2024-05-01T23:59:60Z", "2024-05-02T00:00:00Z", Some(Equal)),
            ("2024-05-01T10:00Z", "2024-05-01T10:00:30Z", None),
        ] {
            let t = |s| Temporal::parse(s, TemporalKind::DateTime).unwrap();
            assert_eq!(t(a).order(&t(b)), expect, "{a} {b}");
        }
        for bad in ["", "x", "2024-1", "2024-05-01T1", "20é4", "2024-05-01Té"] {
            assert!(Temporal::parse(bad, TemporalKind::DateTime).is_none(), "{bad}");
        }
    }
}
