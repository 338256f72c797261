//! A JSON tree that borrows from its text: numbers stay as written, member order stays as received.
//!
//! RFC 8259, with FHIR's narrowing: one value per text, no duplicate member names, bounded depth.

use std::borrow::Cow;
use std::fmt;

/// A JSON value; strings without escapes and all numbers borrow from the parsed text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number exactly as written, for example `1.50`.
    Number(Cow<'a, str>),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object; members in the order received, names unique.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

/// Bounds on what a parse accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Deepest nesting of arrays and objects accepted.
    pub depth: usize,
    /// Most values accepted: a parsed value takes up to a hundred times the bytes of its text (`{"a":0}`), so that a bound on
    /// the text alone is none on memory.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 100,
            values: 5_000_000,
        }
    }
}

/// Why a text is not the JSON that is accepted here; `offset` is in bytes. Never quotes the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// Byte offset into the text.
    pub offset: usize,
    /// What is wrong there.
    pub kind: JsonErrorKind,
}

/// The kinds of [`JsonError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// The text ends inside a value.
    #[error("unexpected end of the text")]
    End,
    /// A character that cannot stand here.
    #[error("unexpected character")]
    Unexpected,
    /// A bad `\` escape or a lone surrogate.
    #[error("invalid escape in a string")]
    Escape,
    /// A control character inside a string.
    #[error("unescaped control character in a string")]
    Control,
    /// A number outside the JSON grammar.
    #[error("invalid number")]
    Number,
    /// More nesting than the limit.
    #[error("nesting is too deep")]
    Depth,
    /// More values than the limit.
    #[error("more values than are accepted in one text")]
    Values,
    /// The same member name twice in one object.
    #[error("duplicate member name")]
    Duplicate,
    /// Something follows the value.
    #[error("text after the value")]
    Trailing,
}

/// Parses one JSON text with the default limits.
///
/// # Errors
/// [`JsonError`] with the byte offset of the fault.
pub fn parse(text: &str) -> Result<Value<'_>, JsonError> {
    parse_with(text, Limits::default())
}

/// Parses one JSON text.
///
/// # Errors
/// [`JsonError`] with the byte offset of the fault.
pub fn parse_with(text: &str, limits: Limits) -> Result<Value<'_>, JsonError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut p = Parser {
        text,
        bytes: text.as_bytes(),
        at: 0,
        values: 0,
        limits,
    };
    p.space();
    let v = p.value(0)?;
    p.space();
    if p.at < p.bytes.len() {
        return Err(p.fail(JsonErrorKind::Trailing));
    }
    Ok(v)
}

/// How many bytes come before the first quote, backslash or control character: eight at a time, because strings are most
/// of a resource.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest byte found is right: a borrow out of a byte needs that byte to be found.
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGH;
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found =
            below(word, 0x20) | below(word ^ (ONES * u64::from(b'"')), 1) | below(word ^ (ONES * u64::from(b'\\')), 1);
        if found != 0 {
            return n * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let end = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
    words.len() * 8 + end.unwrap_or(rest.len())
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    values: usize,
    limits: Limits,
}

impl<'a> Parser<'a> {
    fn fail(&self, kind: JsonErrorKind) -> JsonError {
        JsonError { offset: self.at, kind }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        if self.values >= self.limits.values {
            return Err(self.fail(JsonErrorKind::Values));
        }
        self.values += 1;
        match self.peek() {
            None => Err(self.fail(JsonErrorKind::End)),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.fail(JsonErrorKind::Unexpected)),
        }
    }

    fn word(&mut self, word: &str, v: Value<'a>) -> Result<Value<'a>, JsonError> {
        if self.bytes.get(self.at..self.at + word.len()) == Some(word.as_bytes()) {
            self.at += word.len();
            Ok(v)
        } else {
            Err(self.fail(JsonErrorKind::Unexpected))
        }
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - from
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        let n = self.digits();
        if n == 0 || (zero && n > 1) {
            return Err(self.fail(JsonErrorKind::Number));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.fail(JsonErrorKind::Number));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.fail(JsonErrorKind::Number));
            }
        }
        Ok(Value::Number(Cow::Borrowed(
            self.text.get(from..self.at).unwrap_or_default(),
        )))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let run = self.run()?;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(run));
        }
        let mut out = String::from(run);
        loop {
            self.at += 1;
            out.push(self.escape()?);
            out.push_str(self.run()?);
            if self.peek() == Some(b'"') {
                self.at += 1;
                return Ok(Cow::Owned(out));
            }
        }
    }

    /// What stands before the next quote or backslash.
    fn run(&mut self) -> Result<&'a str, JsonError> {
        let from = self.at;
        self.at += plain(self.bytes.get(from..).unwrap_or_default());
        match self.peek() {
            None => Err(self.fail(JsonErrorKind::End)),
            Some(b'"' | b'\\') => Ok(self.text.get(from..self.at).unwrap_or_default()),
            Some(_) => Err(self.fail(JsonErrorKind::Control)),
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let c = match self.peek() {
            None => return Err(self.fail(JsonErrorKind::End)),
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let hi = self.hex4()?;
                if !(0xd800..0xe000).contains(&hi) {
                    return char::from_u32(hi).ok_or_else(|| self.fail(JsonErrorKind::Escape));
                }
                if hi >= 0xdc00 || self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                    return Err(self.fail(JsonErrorKind::Escape));
                }
                self.at += 2;
                let lo = self.hex4()?;
                if !(0xdc00..0xe000).contains(&lo) {
                    return Err(self.fail(JsonErrorKind::Escape));
                }
                let c = 0x10000 + ((hi - 0xd800) << 10) + (lo - 0xdc00);
                return char::from_u32(c).ok_or_else(|| self.fail(JsonErrorKind::Escape));
            }
            Some(_) => return Err(self.fail(JsonErrorKind::Escape)),
        };
        self.at += 1;
        Ok(c)
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let s = self
            .bytes
            .get(self.at..self.at + 4)
            .ok_or_else(|| self.fail(JsonErrorKind::End))?;
        let mut n = 0;
        for b in s {
            let d = (*b as char)
                .to_digit(16)
                .ok_or_else(|| self.fail(JsonErrorKind::Escape))?;
            n = n * 16 + d;
        }
        self.at += 4;
        Ok(n)
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        if depth >= self.limits.depth {
            return Err(self.fail(JsonErrorKind::Depth));
        }
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                None => return Err(self.fail(JsonErrorKind::End)),
                Some(_) => return Err(self.fail(JsonErrorKind::Unexpected)),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        if depth >= self.limits.depth {
            return Err(self.fail(JsonErrorKind::Depth));
        }
        self.at += 1;
        let mut members: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        // Few members: compare; many: a set, so that a hostile object costs n log n.
        let mut seen: Option<std::collections::BTreeSet<Cow<'a, str>>> = None;
        loop {
            self.space();
            match self.peek() {
                Some(b'"') => {}
                None => return Err(self.fail(JsonErrorKind::End)),
                Some(_) => return Err(self.fail(JsonErrorKind::Unexpected)),
            }
            let name = self.string()?;
            let twice = match &mut seen {
                Some(set) => !set.insert(name.clone()),
                None => members.iter().any(|(n, _)| *n == name),
            };
            if twice {
                return Err(self.fail(JsonErrorKind::Duplicate));
            }
            if seen.is_none() && members.len() >= 64 {
                let mut set: std::collections::BTreeSet<_> = members.iter().map(|(n, _)| n.clone()).collect();
                set.insert(name.clone());
                seen = Some(set);
            }
            self.space();
            match self.peek() {
                Some(b':') => self.at += 1,
                None => return Err(self.fail(JsonErrorKind::End)),
                Some(_) => return Err(self.fail(JsonErrorKind::Unexpected)),
            }
            self.space();
            let v = self.value(depth + 1)?;
            members.push((name, v));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Object(members));
                }
                None => return Err(self.fail(JsonErrorKind::End)),
                Some(_) => return Err(self.fail(JsonErrorKind::Unexpected)),
            }
        }
    }
}

impl<'a> Value<'a> {
    /// The member `name` of an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.members()?.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The member `name` of an object, for change.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value<'a>> {
        match self {
            Value::Object(m) => m.iter_mut().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Sets the member `name` of an object, in place or at the end; no effect on other values.
    pub fn set(&mut self, name: &'a str, value: Value<'a>) {
        if let Value::Object(m) = self {
            match m.iter_mut().find(|(n, _)| n == name) {
                Some((_, v)) => *v = value,
                None => m.push((Cow::Borrowed(name), value)),
            }
        }
    }

    /// Removes and returns the member `name` of an object.
    pub fn remove(&mut self, name: &str) -> Option<Value<'a>> {
        match self {
            Value::Object(m) => {
                let at = m.iter().position(|(n, _)| n == name)?;
                Some(m.remove(at).1)
            }
            _ => None,
        }
    }

    /// The members of an object.
    #[must_use]
    pub fn members(&self) -> Option<&[(Cow<'a, str>, Value<'a>)]> {
        match self {
            Value::Object(m) => Some(m),
            _ => None,
        }
    }

    /// The items of an array.
    #[must_use]
    pub fn items(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::Array(i) => Some(i),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// The number as written.
    #[must_use]
    pub fn as_number(&self) -> Option<&str> {
        match self {
            Value::Number(s) => Some(s),
            _ => None,
        }
    }

    /// The boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// Shorthand for `get(name)?.as_str()`.
    #[must_use]
    pub fn str(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Bool(b) => Value::Bool(b),
            Value::Number(n) => Value::Number(Cow::Owned(n.into_owned())),
            Value::String(s) => Value::String(Cow::Owned(s.into_owned())),
            Value::Array(a) => Value::Array(a.into_iter().map(Value::into_owned).collect()),
            Value::Object(m) => Value::Object(
                m.into_iter()
                    .map(|(n, v)| (Cow::Owned(n.into_owned()), v.into_owned()))
                    .collect(),
            ),
        }
    }

    /// Appends the value as compact JSON.
    pub fn write(&self, out: &mut String) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Number(n) => out.push_str(n),
            Value::String(s) => write_string(s, out),
            Value::Array(items) => {
                out.push('[');
                for (i, v) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    v.write(out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (i, (n, v)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_string(n, out);
                    out.push(':');
                    v.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Appends the value indented by two spaces a level.
    pub fn write_pretty(&self, out: &mut String, level: usize) {
        let pad = |out: &mut String, n: usize| {
            out.push('\n');
            for _ in 0..n {
                out.push_str("  ");
            }
        };
        match self {
            Value::Array(items) if !items.is_empty() => {
                out.push('[');
                for (i, v) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    pad(out, level + 1);
                    v.write_pretty(out, level + 1);
                }
                pad(out, level);
                out.push(']');
            }
            Value::Object(members) if !members.is_empty() => {
                out.push('{');
                for (i, (n, v)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    pad(out, level + 1);
                    write_string(n, out);
                    out.push_str(": ");
                    v.write_pretty(out, level + 1);
                }
                pad(out, level);
                out.push('}');
            }
            other => other.write(out),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = String::new();
        self.write(&mut s);
        f.write_str(&s)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(s: &'a str) -> Self {
        Value::String(Cow::Borrowed(s))
    }
}

impl From<String> for Value<'_> {
    fn from(s: String) -> Self {
        Value::String(Cow::Owned(s))
    }
}

/// An object from borrowed names and values, in order.
#[must_use]
pub fn object<'a, const N: usize>(members: [(&'a str, Value<'a>); N]) -> Value<'a> {
    Value::Object(members.into_iter().map(|(n, v)| (Cow::Borrowed(n), v)).collect())
}

/// Appends `s` as a JSON string with its quotes.
pub fn write_string(s: &str, out: &mut String) {
    out.push('"');
    let mut from = 0;
    for (i, b) in s.bytes().enumerate() {
        let esc = match b {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(s.get(from..i).unwrap_or_default());
        if esc.is_empty() {
            out.push_str(&format!("\\u{b:04x}"));
        } else {
            out.push_str(esc);
        }
        from = i + 1;
    }
    out.push_str(s.get(from..).unwrap_or_default());
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_a_time_find_what_one_at_a_time_finds() {
        let slow = |bytes: &[u8]| {
            let end = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
            end.unwrap_or(bytes.len())
        };
        let mut n = 1_u64;
        for length in 0..40 {
            for _ in 0..400 {
                let bytes: Vec<u8> = (0..length)
                    .map(|_| {
                        n = n
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let near = [0x1f, 0x20, 0x21, b'"', 0x23, 0x5b, b'\\', 0x5d, 0x7f, 0x80, 0xa2, 0xff];
                        // Mostly plain, so that long runs are met.
                        if n >> 40 & 15 == 0 {
                            near[(n >> 33) as usize % near.len()]
                        } else {
                            b'a' + (n >> 50) as u8 % 26
                        }
                    })
                    .collect();
                assert_eq!(plain(&bytes), slow(&bytes), "{bytes:?}");
            }
        }
    }

    #[test]
    fn numbers_stay_as_written() {
        let v = parse(r#"{"a":1.50,"b":[-0.0,1e+3]}"#).unwrap();
        assert_eq!(v.to_string(), r#"{"a":1.50,"b":[-0.0,1e+3]}"#);
    }

    #[test]
    fn strings_unescape_and_escape() {
        let v = parse(r#""a\u00e9\ud83d\ude00\n\"\/""#).unwrap();
        assert_eq!(v.as_str(), Some("a\u{e9}\u{1f600}\n\"/"));
        assert_eq!(v.to_string(), "\"a\u{e9}\u{1f600}\\n\\\"/\"");
    }

    #[test]
    fn refuses_what_is_not_json() {
        for (text, kind) in [
            ("", JsonErrorKind::End),
            ("{\"a\":1,\"a\":2}", JsonErrorKind::Duplicate),
            ("01", JsonErrorKind::Number),
            ("1.", JsonErrorKind::Number),
            ("[1,]", JsonErrorKind::Unexpected),
            ("\"\\ud800\"", JsonErrorKind::Escape),
            ("\"\u{1}\"", JsonErrorKind::Control),
            ("1 2", JsonErrorKind::Trailing),
            ("\"abc", JsonErrorKind::End),
            ("NaN", JsonErrorKind::Unexpected),
        ] {
            assert_eq!(parse(text).unwrap_err().kind, kind, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(&deep).unwrap_err().kind, JsonErrorKind::Depth);
        let few = Limits {
            values: 4,
            ..Limits::default()
        };
        assert!(parse_with("[0,{\"a\":0}]", few).is_ok());
        assert_eq!(
            parse_with("[0,{\"a\":0},0]", few).unwrap_err().kind,
            JsonErrorKind::Values
        );
    }
}
