//! The stored form of a resource's JSON, and the form a client reads.
//!
//! A row keeps what the client sent less what the server decides: `resourceType`, `id`, `meta.versionId` and
//! `meta.lastUpdated` stand in the sealed header and are spliced in front on read, so that a read never parses.
//! Stored form: members of `meta` (without braces), one line feed, the other members (without braces). Compact JSON
//! holds no raw line feed, so the first one is the border.

use keepwell_model::json::{Value, write_string};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use std::io::Write as _;

/// The stored form of `resource`, an object.
#[must_use]
pub fn stored(resource: &Value<'_>) -> String {
    let mut out = String::with_capacity(1024);
    if let Some(meta) = resource.get("meta").and_then(Value::members) {
        members(
            meta.iter().filter(|(n, _)| n != "versionId" && n != "lastUpdated"),
            &mut out,
        );
    }
    out.push('\n');
    let rest = resource.members().unwrap_or_default().iter();
    members(
        rest.filter(|(n, _)| n != "resourceType" && n != "id" && n != "meta"),
        &mut out,
    );
    out
}

fn members<'v, 'a: 'v>(list: impl Iterator<Item = &'v (std::borrow::Cow<'a, str>, Value<'a>)>, out: &mut String) {
    let mut first = true;
    for (name, value) in list {
        if !first {
            out.push(',');
        }
        first = false;
        write_string(name, out);
        out.push(':');
        value.write(out);
    }
}

/// Appends the resource as a client reads it.
pub fn assemble(
    resource_type: ResourceType,
    id: &str,
    version: u32,
    last_updated: Timestamp,
    stored: &[u8],
    out: &mut Vec<u8>,
) {
    let border = stored.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (meta, rest) = stored.split_at_checked(border).unwrap_or((&[], &[]));
    let rest = rest.get(1..).unwrap_or_default();
    out.reserve(stored.len() + 192);
    for part in [
        "{\"resourceType\":\"",
        resource_type.name(),
        "\",\"id\":\"",
        id,
        "\",\"meta\":{\"versionId\":\"",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    // Writing to memory cannot fail.
    let _ = write!(out, "{version}\",\"lastUpdated\":\"{last_updated}\"");
    if !meta.is_empty() {
        out.push(b',');
        out.extend_from_slice(meta);
    }
    out.push(b'}');
    if !rest.is_empty() {
        out.push(b',');
        out.extend_from_slice(rest);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepwell_model::json::parse;

    fn round(text: &str) -> String {
        let v = parse(text).unwrap();
        let t = ResourceType::from_name(v.str("resourceType").unwrap()).unwrap();
        let mut out = Vec::new();
        assemble(t, "x", 3, Timestamp(0), stored(&v).as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_the_server_decides_is_spliced_in() {
        assert_eq!(
            round(
                r#"{"resourceType":"Patient","id":"other","meta":{"versionId":"9","tag":[{"code":"a\nb"}]},"active":true}"#
            ),
            r#"{"resourceType":"Patient","id":"x","meta":{"versionId":"3","lastUpdated":"1970-01-01T00:00:00.000Z","tag":[{"code":"a\nb"}]},"active":true}"#
        );
        assert_eq!(
            round(r#"{"resourceType":"Patient"}"#),
            r#"{"resourceType":"Patient","id":"x","meta":{"versionId":"3","lastUpdated":"1970-01-01T00:00:00.000Z"}}"#
        );
    }
}
