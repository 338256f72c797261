//! The formats of the primitive types (<https://hl7.org/fhir/R4/datatypes.html#primitive>).

use crate::json::Value;
use crate::time::days_in_month;

/// A primitive type of R4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are R4's own")]
pub enum Primitive {
    Base64Binary,
    Boolean,
    Canonical,
    Code,
    Date,
    DateTime,
    Decimal,
    Id,
    Instant,
    Integer,
    Markdown,
    Oid,
    PositiveInt,
    String,
    Time,
    UnsignedInt,
    Uri,
    Url,
    Uuid,
    Xhtml,
}

use Primitive as P;

impl Primitive {
    const NAMES: [(&'static str, Primitive); 20] = [
        ("base64Binary", P::Base64Binary),
        ("boolean", P::Boolean),
        ("canonical", P::Canonical),
        ("code", P::Code),
        ("date", P::Date),
        ("dateTime", P::DateTime),
        ("decimal", P::Decimal),
        ("id", P::Id),
        ("instant", P::Instant),
        ("integer", P::Integer),
        ("markdown", P::Markdown),
        ("oid", P::Oid),
        ("positiveInt", P::PositiveInt),
        ("string", P::String),
        ("time", P::Time),
        ("unsignedInt", P::UnsignedInt),
        ("uri", P::Uri),
        ("url", P::Url),
        ("uuid", P::Uuid),
        ("xhtml", P::Xhtml),
    ];

    /// The type of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, p)| *p)
    }

    /// The name, for example `dateTime`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, p)| *p == self).map_or("", |(n, _)| *n)
    }

    /// What a value must look like, for a client that sent another.
    pub(super) fn hint(self) -> &'static str {
        match self {
            P::Base64Binary => "base64 text in groups of four characters",
            P::Boolean => "true or false",
            P::Canonical | P::Uri | P::Url => "a URI without white space",
            P::Code => "a code without leading, trailing or doubled white space",
            P::Date => "a date of the calendar: YYYY, YYYY-MM or YYYY-MM-DD",
            P::DateTime => "YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss with a time zone, of the calendar",
            P::Decimal => "a JSON number",
            P::Id => "1 to 64 of the characters A-Z a-z 0-9 - .",
            P::Instant => "YYYY-MM-DDThh:mm:ss with optional fraction and a time zone",
            P::Integer => "a whole JSON number of 32 bits",
            P::Markdown | P::String => "a text of at least one and at most 1,048,576 characters",
            P::Oid => "urn:oid: and an OID",
            P::PositiveInt => "a whole JSON number from 1 to 2,147,483,647",
            P::Time => "hh:mm:ss with optional fraction",
            P::UnsignedInt => "a whole JSON number from 0 to 2,147,483,647",
            P::Uuid => "urn:uuid: and a UUID in lower case",
            P::Xhtml => "a narrative in XHTML",
        }
    }

    /// Whether the JSON kind is the one this type is written in.
    pub(super) fn written_in(self, v: &Value) -> bool {
        match self {
            P::Boolean => matches!(v, Value::Bool(_)),
            P::Decimal | P::Integer | P::PositiveInt | P::UnsignedInt => matches!(v, Value::Number(_)),
            _ => matches!(v, Value::String(_)),
        }
    }

    /// Whether `v` is a value of this type; the rules of [`Primitive::Xhtml`] are those of [`crate::narrative`].
    pub(super) fn accepts(self, v: &Value) -> bool {
        match v {
            Value::Bool(_) => self == P::Boolean,
            Value::Number(n) => match self {
                P::Decimal => true,
                P::Integer => integer(n).is_some(),
                P::PositiveInt => integer(n).is_some_and(|n| n >= 1),
                P::UnsignedInt => integer(n).is_some_and(|n| n >= 0),
                _ => false,
            },
            Value::String(s) => match self {
                P::Boolean | P::Decimal | P::Integer | P::PositiveInt | P::UnsignedInt => false,
                P::Base64Binary => base64(s.as_bytes()),
                P::Canonical | P::Url => no_space(s),
                P::Uri => uri(s),
                P::Code => code(s),
                P::Date => date(s.as_bytes()),
                P::DateTime => date_time(s.as_bytes()),
                P::Id => crate::reference::is_id(s),
                P::Instant => s.len() >= 20 && date_time(s.as_bytes()),
                P::Markdown | P::String => text(s),
                P::Oid => s.strip_prefix("urn:oid:").is_some_and(oid),
                P::Time => time(s.as_bytes()),
                P::Uuid => s.strip_prefix("urn:uuid:").is_some_and(uuid),
                P::Xhtml => !s.is_empty(),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        }
    }
}

/// A whole number of 32 bits, without leading zeros, fraction or exponent.
pub(crate) fn integer(text: &str) -> Option<i32> {
    if text == "-0" { None } else { text.parse().ok() }
}

fn text(s: &str) -> bool {
    const MOST: usize = 1 << 20;
    !s.is_empty() && (s.len() <= MOST || s.chars().count() <= MOST)
}

fn code(s: &str) -> bool {
    let mut space = true;
    for c in s.chars() {
        let now = c.is_whitespace();
        if now && space {
            return false;
        }
        space = now;
    }
    !space
}

fn no_space(s: &str) -> bool {
    !s.is_empty() && !s.bytes().any(|b| b <= b' ') && (s.is_ascii() || !s.chars().any(char::is_whitespace))
}

fn uri(s: &str) -> bool {
    if !no_space(s) {
        return false;
    }
    match s.strip_prefix("urn:") {
        None => true,
        Some(rest) => match rest.split_once(':') {
            Some(("oid", x)) => oid(x),
            Some(("uuid", x)) => uuid_any_case(x),
            _ => true,
        },
    }
}

fn oid(s: &str) -> bool {
    let mut arcs = s.split('.');
    matches!(arcs.next(), Some("0" | "1" | "2"))
        && s.contains('.')
        && arcs.all(|a| !a.is_empty() && a.bytes().all(|b| b.is_ascii_digit()) && (a == "0" || !a.starts_with('0')))
}

fn uuid_any_case(s: &str) -> bool {
    s.len() == 36
        && s.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

fn uuid(s: &str) -> bool {
    uuid_any_case(s) && !s.bytes().any(|b| b.is_ascii_uppercase())
}

/// Groups of four characters of the base64 alphabet, padded at the end only; white space may stand between.
fn base64(s: &[u8]) -> bool {
    let (mut n, mut pad) = (0usize, 0usize);
    for b in s {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if pad == 0 => n += 1,
            b'=' => pad += 1,
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => return false,
        }
    }
    n > 0 && pad <= 2 && (n + pad) % 4 == 0
}

/// `n` decimal digits at `at`.
fn digits(s: &[u8], at: usize, n: usize) -> Option<u32> {
    let mut out = 0;
    for b in s.get(at..at + n)? {
        if !b.is_ascii_digit() {
            return None;
        }
        out = out * 10 + u32::from(b - b'0');
    }
    Some(out)
}

fn date(s: &[u8]) -> bool {
    let Some(year) = digits(s, 0, 4).filter(|y| *y > 0) else {
        return false;
    };
    match s.len() {
        4 => true,
        7 | 10 => {
            let month = digits(s, 5, 2).filter(|m| (1..=12).contains(m) && s.get(4) == Some(&b'-'));
            let Some(month) = month else { return false };
            s.len() == 7
                || (s.get(7) == Some(&b'-')
                    && digits(s, 8, 2).is_some_and(|d| d >= 1 && d <= days_in_month(i64::from(year), month)))
        }
        _ => false,
    }
}

/// `hh:mm:ss` with an optional fraction; the length read. Second 60 is a leap second.
fn clock(s: &[u8]) -> Option<usize> {
    let (h, m, sec) = (digits(s, 0, 2)?, digits(s, 3, 2)?, digits(s, 6, 2)?);
    if s.get(2) != Some(&b':') || s.get(5) != Some(&b':') || h > 23 || m > 59 || sec > 60 {
        return None;
    }
    if s.get(8) != Some(&b'.') {
        return Some(8);
    }
    let n = s.get(9..)?.iter().take_while(|b| b.is_ascii_digit()).count();
    (n > 0).then_some(9 + n)
}

fn time(s: &[u8]) -> bool {
    clock(s) == Some(s.len())
}

fn date_time(s: &[u8]) -> bool {
    let Some((day, rest)) = s.split_at_checked(10) else {
        return date(s);
    };
    if !date(day) || rest.is_empty() {
        return rest.is_empty() && date(day);
    }
    let Some((b'T', rest)) = rest.split_first() else {
        return false;
    };
    let Some(zone) = clock(rest).and_then(|n| rest.get(n..)) else {
        return false;
    };
    match zone {
        b"Z" => true,
        [b'+' | b'-', _, _, b':', _, _] => match (digits(zone, 1, 2), digits(zone, 4, 2)) {
            (Some(14), Some(0)) => true,
            (Some(h), Some(m)) => h <= 13 && m <= 59,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(p: Primitive, good: &[&str], bad: &[&str]) {
        for (list, expect) in [(good, true), (bad, false)] {
            for text in list {
                assert_eq!(p.accepts(&Value::from(*text)), expect, "{} {text:?}", p.name());
            }
        }
    }

    #[test]
    fn text_formats() {
        check(
            P::Date,
            &["2024", "2024-02", "2024-02-29", "0001-01-01", "9999-12-31"],
            &[
                "",
                "24",
                "0000",
                "2024-2",
                "2024-13",
                "2023-02-29",
                "2024-04-31",
                "2024-02-00",
                "2024/02/01",
                "2024-02-29T",
                " 2024",
                "2024-02-2é",
                "２０２４",
            ],
        );
        check(
            P::DateTime,
            &[
                "2024",
                "2024-02-29T23:59:60Z",
                "2024-02-29T00:00:00.1234567890123+14:00",
                "2024-02-29T10:00:00-05:30",
            ],
            &[
                "2024-02-29T10:00Z",
                "2024-02-29T10:00:00",
                "2024-02-29T24:00:00Z",
                "2024-02-29T10:00:00.Z",
                "2024-02-29T10:00:00+14:01",
                "2024-02-29T10:00:61Z",
                "2024-02-29 10:00:00Z",
                "2024-02-30T10:00:00Z",
                "2024-02-29T10:00:00z",
                "2024-02-29T10:00:00+0100",
            ],
        );
        check(
            P::Instant,
            &["2024-02-29T10:00:00Z"],
            &["2024-02-29", "2024", "2024-02-29T10:00:00"],
        );
        check(
            P::Time,
            &["00:00:00", "23:59:59.5", "23:59:60"],
            &["24:00:00", "10:00", "10:00:00Z", "10:00:00.", "1:00:00"],
        );
        check(
            P::Code,
            &["a", "a b", "é"],
            &["", " a", "a ", "a  b", "a\tb\n", "\u{a0}a"],
        );
        check(P::Id, &["a", "A-1.b"], &["", "a_b", "a/b", "é", &"a".repeat(65)]);
        check(
            P::Uri,
            &[
                "a",
                "http://x",
                "urn:oid:1.2.3",
                "urn:uuid:C757873D-EC9A-4326-A141-556F43239520",
            ],
            &["", "a b", "a\u{2003}b", "urn:oid:1.02", "urn:oid:3.1", "urn:uuid:1"],
        );
        check(
            P::Oid,
            &["urn:oid:2.16.840"],
            &["2.16.840", "urn:oid:2", "urn:oid:2.", "urn:oid:4.1"],
        );
        check(
            P::Uuid,
            &["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
            &[
                "c757873d-ec9a-4326-a141-556f43239520",
                "urn:uuid:C757873D-ec9a-4326-a141-556f43239520",
            ],
        );
        check(
            P::Base64Binary,
            &["QQ==", "QUJD", "QU JD\nQQ=="],
            &["", " ", "QQ=", "Q", "QQ==QQ==", "QQ=A", "Q-__", "===="],
        );
        check(P::String, &["a", " ", "\n"], &["", &"a".repeat((1 << 20) + 1)]);
    }

    #[test]
    fn numbers() {
        for (p, good, bad) in [
            (
                P::Integer,
                vec!["0", "-1", "2147483647", "-2147483648"],
                vec!["2147483648", "-2147483649", "1.0", "1e2", "-0"],
            ),
            (P::PositiveInt, vec!["1"], vec!["0", "-1"]),
            (P::UnsignedInt, vec!["0"], vec!["-1", "4294967295"]),
            (
                P::Decimal,
                vec!["0", "-1.50", "1e-9", "123456789012345678901234567890.1"],
                vec![],
            ),
        ] {
            for (list, expect) in [(good, true), (bad, false)] {
                for n in list {
                    assert_eq!(p.accepts(&Value::Number(n.into())), expect, "{} {n}", p.name());
                }
            }
            assert!(!p.accepts(&Value::from("1")), "a number in quotes");
        }
        assert!(!P::String.accepts(&Value::Bool(true)));
    }
}
