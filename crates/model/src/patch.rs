//! JSON Patch (RFC 6902) with JSON Pointers (RFC 6901).
//!
//! A patch applies whole or not at all. What comes out is an ordinary resource that goes through validation like any
//! other body. Members of the operations that the RFC does not name are ignored, as it says (section 4).

use crate::json::Value;
use std::borrow::Cow;

/// Why a patch did not apply; `operation` counts from 0. Never quotes the document or the patch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (operation {operation} of the patch)")]
pub struct PatchError {
    /// Which operation.
    pub operation: usize,
    /// What is wrong with it.
    pub kind: PatchErrorKind,
}

/// The kinds of [`PatchError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchErrorKind {
    /// The document is not a patch: no array of objects, an unknown `op`, a missing member, an ill-formed pointer.
    #[error("the JSON Patch is ill-formed")]
    Malformed,
    /// `path` or `from` points at nothing.
    #[error("the path does not exist in the resource")]
    NoTarget,
    /// A `test` found something else.
    #[error("the tested value differs")]
    TestFailed,
    /// A `move` into itself.
    #[error("a value cannot be moved into itself")]
    IntoItself,
    /// More operations, or a larger result, than is reasonable.
    #[error("the patch is too large")]
    TooLarge,
}

use PatchErrorKind as E;

/// A copy can double a document, and taking the first of a long array moves all others: one patch may add, move, shift
/// or search so many values in all (the last two count a sixteenth each).
const MOST_WORK: usize = 2_000_000;

/// Deepest nesting of the result, the parser's own limit: what is stored must parse again.
const DEPTH: usize = 100;

/// Applies `patch` to `document`; on error the document is as before.
///
/// # Errors
/// The first operation that fails, and why.
pub fn apply(document: &mut Value<'static>, patch: &Value) -> Result<(), PatchError> {
    let at = |operation, kind| PatchError { operation, kind };
    let operations = patch.items().ok_or_else(|| at(0, E::Malformed))?;
    let mut out = document.clone();
    let mut work = Work(0);
    for (i, operation) in operations.iter().enumerate() {
        step(&mut out, operation, &mut work).map_err(|kind| at(i, kind))?;
    }
    *document = out;
    Ok(())
}

/// What a patch has cost so far.
struct Work(usize);

impl Work {
    fn spend(&mut self, n: usize) -> Result<(), E> {
        self.0 += n;
        if self.0 > MOST_WORK { Err(E::TooLarge) } else { Ok(()) }
    }

    /// `v` is placed below `path`.
    fn place(&mut self, path: &[String], v: &Value) -> Result<(), E> {
        self.spend(size(v))?;
        if path.len() + depth(v) > DEPTH {
            Err(E::TooLarge)
        } else {
            Ok(())
        }
    }
}

fn step(document: &mut Value<'static>, operation: &Value, work: &mut Work) -> Result<(), E> {
    let text = |name| operation.get(name).and_then(Value::as_str).ok_or(E::Malformed);
    let value = || operation.get("value").ok_or(E::Malformed);
    let path = pointer(text("path")?)?;
    work.spend(1)?;
    match text("op")? {
        "add" => {
            let v = value()?;
            work.place(&path, v)?;
            add(document, &path, owned(v), work)
        }
        "remove" => remove(document, &path, work).map(drop),
        "replace" => {
            let v = value()?;
            work.place(&path, v)?;
            *find_mut(document, &path, work)? = owned(v);
            Ok(())
        }
        "move" => {
            let from = pointer(text("from")?)?;
            if path.len() > from.len() && path.starts_with(&from) {
                return Err(E::IntoItself);
            }
            let v = remove(document, &from, work)?;
            work.place(&path, &v)?;
            add(document, &path, v, work)
        }
        "copy" => {
            let v = find(document, &pointer(text("from")?)?, work)?;
            work.place(&path, v)?;
            let v = v.clone();
            add(document, &path, v, work)
        }
        "test" => {
            if equal(find(document, &path, work)?, value()?) {
                Ok(())
            } else {
                Err(E::TestFailed)
            }
        }
        _ => Err(E::Malformed),
    }
}

/// The reference tokens of a pointer, unescaped.
fn pointer(text: &str) -> Result<Vec<String>, E> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text.strip_prefix('/').ok_or(E::Malformed)?;
    let token = |t: &str| {
        let mut parts = t.split('~');
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (c, rest) = match part.as_bytes().first() {
                Some(b'0') => ('~', part.get(1..)),
                Some(b'1') => ('/', part.get(1..)),
                _ => return Err(E::Malformed),
            };
            out.push(c);
            out.push_str(rest.unwrap_or_default());
        }
        Ok(out)
    };
    rest.split('/').map(token).collect()
}

/// An array index: digits without a leading zero.
fn index(token: &str) -> Result<usize, E> {
    let digits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit());
    if !digits || (token.len() > 1 && token.starts_with('0')) {
        return Err(E::NoTarget);
    }
    token.parse().map_err(|_| E::NoTarget)
}

/// What looking a name up in `v` costs.
fn lookup(v: &Value) -> usize {
    1 + v.members().map_or(0, <[_]>::len) / 16
}

fn find<'d>(mut at: &'d Value<'static>, path: &[String], work: &mut Work) -> Result<&'d Value<'static>, E> {
    for token in path {
        work.spend(lookup(at))?;
        at = match at {
            Value::Array(items) => items.get(index(token)?),
            other => other.get(token),
        }
        .ok_or(E::NoTarget)?;
    }
    Ok(at)
}

fn find_mut<'d>(mut at: &'d mut Value<'static>, path: &[String], work: &mut Work) -> Result<&'d mut Value<'static>, E> {
    for token in path {
        work.spend(lookup(at))?;
        at = match at {
            Value::Array(items) => items.get_mut(index(token)?),
            other => other.get_mut(token),
        }
        .ok_or(E::NoTarget)?;
    }
    Ok(at)
}

fn add(document: &mut Value<'static>, path: &[String], value: Value<'static>, work: &mut Work) -> Result<(), E> {
    let Some((last, parent)) = path.split_last() else {
        *document = value;
        return Ok(());
    };
    let parent = find_mut(document, parent, work)?;
    work.spend(lookup(parent))?;
    match parent {
        Value::Array(items) => {
            let at = if last == "-" { items.len() } else { index(last)? };
            if at > items.len() {
                return Err(E::NoTarget);
            }
            work.spend((items.len() - at) / 16)?;
            items.insert(at, value);
        }
        Value::Object(members) => match members.iter_mut().find(|(n, _)| n == last) {
            Some((_, v)) => *v = value,
            None => members.push((Cow::Owned(last.clone()), value)),
        },
        _ => return Err(E::NoTarget),
    }
    Ok(())
}

fn remove(document: &mut Value<'static>, path: &[String], work: &mut Work) -> Result<Value<'static>, E> {
    let Some((last, parent)) = path.split_last() else {
        return Ok(std::mem::replace(document, Value::Null));
    };
    let parent = find_mut(document, parent, work)?;
    work.spend(lookup(parent))?;
    match parent {
        Value::Array(items) => {
            let at = index(last)?;
            work.spend(items.len().saturating_sub(at) / 16)?;
            if at < items.len() {
                Ok(items.remove(at))
            } else {
                Err(E::NoTarget)
            }
        }
        other => other.remove(last).ok_or(E::NoTarget),
    }
}

/// How many values `v` is made of.
fn size(v: &Value) -> usize {
    match v {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(members) => 1 + members.iter().map(|(_, v)| size(v)).sum::<usize>(),
        _ => 1,
    }
}

/// How deeply arrays and objects are nested in `v`.
fn depth(v: &Value) -> usize {
    match v {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.iter().map(|(_, v)| depth(v)).max().unwrap_or(0),
        _ => 0,
    }
}

/// A copy that borrows nothing.
fn owned(v: &Value) -> Value<'static> {
    v.clone().into_owned()
}

/// Equality of JSON values (RFC 6902 section 4.6): numbers by value, members in any order.
#[must_use]
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || normal(a) == normal(b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(m), Value::Object(n)) => {
            m.len() == n.len() && m.iter().all(|(name, v)| b.get(name).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}

/// A number as sign, digits without outer zeros, and the power of ten of the last digit.
fn normal(number: &str) -> (bool, String, i64) {
    let (sign, rest) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let exponent: i64 = exponent
        .parse()
        .unwrap_or(if exponent.starts_with('-') { -1 << 40 } else { 1 << 40 });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_end_matches('0');
    let power = exponent - fraction.len() as i64 + (all.len() - digits.len()) as i64;
    match digits.trim_start_matches('0') {
        "" => (false, String::new(), 0),
        d => (sign, d.to_owned(), power),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;

    fn run(document: &str, patch: &str) -> Result<String, PatchErrorKind> {
        let mut d = parse(document).unwrap().into_owned();
        let before = d.clone();
        match apply(&mut d, &parse(patch).unwrap()) {
            Ok(()) => Ok(d.to_string()),
            Err(e) => {
                assert_eq!(d, before, "a failed patch changes nothing");
                Err(e.kind)
            }
        }
    }

    #[test]
    fn operations_of_the_rfc() {
        for (document, patch, expect) in [
            (
                r#"{"a":[1,2]}"#,
                r#"[{"op":"add","path":"/a/-","value":3}]"#,
                Ok(r#"{"a":[1,2,3]}"#),
            ),
            (
                r#"{"a":[1,2]}"#,
                r#"[{"op":"add","path":"/a/3","value":3}]"#,
                Err(E::NoTarget),
            ),
            (
                r#"{"a":[1,2]}"#,
                r#"[{"op":"add","path":"/a/01","value":3}]"#,
                Err(E::NoTarget),
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"remove","path":"/a"},{"op":"test","path":"/b","value":1}]"#,
                Err(E::NoTarget),
            ),
            (
                r#"{"a":{"b":1}}"#,
                r#"[{"op":"move","from":"/a","path":"/a/b"}]"#,
                Err(E::IntoItself),
            ),
            (
                r#"{"a":{"b":1}}"#,
                r#"[{"op":"move","from":"/a/b","path":"/c"}]"#,
                Ok(r#"{"a":{},"c":1}"#),
            ),
            (
                r#"{"a":{"b":1}}"#,
                r#"[{"op":"copy","from":"/a","path":"/c"}]"#,
                Ok(r#"{"a":{"b":1},"c":{"b":1}}"#),
            ),
            (
                r#"{"a/b":1,"m~n":2}"#,
                r#"[{"op":"replace","path":"/a~1b","value":3},{"op":"test","path":"/m~0n","value":2.0e0}]"#,
                Ok(r#"{"a/b":3,"m~n":2}"#),
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"test","path":"/a","value":"1"}]"#,
                Err(E::TestFailed),
            ),
            (
                r#"{"a":{"x":1,"y":2}}"#,
                r#"[{"op":"test","path":"/a","value":{"y":2,"x":1}}]"#,
                Ok(r#"{"a":{"x":1,"y":2}}"#),
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"replace","path":"/b","value":1}]"#,
                Err(E::NoTarget),
            ),
            (r#"{"a":1}"#, r#"[{"op":"increment","path":"/a"}]"#, Err(E::Malformed)),
            (r#"{"a":1}"#, r#"[{"op":"add","path":"/a"}]"#, Err(E::Malformed)),
            (
                r#"{"a":1}"#,
                r#"[{"op":"add","path":"a","value":1}]"#,
                Err(E::Malformed),
            ),
            (r#"{"a":1}"#, r#"[{"op":"remove","path":"/a~2"}]"#, Err(E::Malformed)),
            (r#"{"a":1}"#, r#"{"op":"remove","path":"/a"}"#, Err(E::Malformed)),
        ] {
            assert_eq!(run(document, patch), expect.map(str::to_owned), "{patch}");
        }
    }

    #[test]
    fn doubling_ends() {
        let mut patch = String::from("[");
        for i in 0..64 {
            patch.push_str(&format!(
                "{}{{\"op\":\"copy\",\"from\":\"\",\"path\":\"/x{i}\"}}",
                if i > 0 { "," } else { "" }
            ));
        }
        patch.push(']');
        assert_eq!(run("{\"a\":1}", &patch), Err(E::TooLarge));
        let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
        let patch = format!(
            r#"[{{"op":"add","path":"/b","value":{deep}}},{{"op":"move","from":"/b","path":"/a{}/0"}}]"#,
            "/0".repeat(59)
        );
        assert_eq!(run(&format!("{{\"a\":{deep}}}"), &patch), Err(E::TooLarge));
    }

    #[test]
    fn a_long_array_is_not_shifted_without_end() {
        let document = format!("{{\"a\":[{}]}}", vec!["1"; 100_000].join(","));
        let patch = format!("[{}]", vec![r#"{"op":"remove","path":"/a/0"}"#; 1000].join(","));
        assert_eq!(run(&document, &patch), Err(E::TooLarge));
    }

    #[test]
    fn numbers_are_equal_by_value() {
        for (a, b, same) in [
            ("1", "1.0", true),
            ("100", "1e2", true),
            ("0.10", "1E-1", true),
            ("-0", "0.0", true),
            ("1", "-1", false),
            ("10", "1", false),
            ("1e99999999999999999999", "1e-99999999999999999999", false),
        ] {
            assert_eq!(
                equal(&Value::Number(a.into()), &Value::Number(b.into())),
                same,
                "{a} {b}"
            );
        }
    }
}
