//! The one door to patient data.
//!
//! Every interaction, from whichever route, job or command, is a method of [`Door`]: it authorizes (policy), finds
//! (search), opens or appends (ledger), records the access in the log, and only then returns. One file per FHIR
//! interaction. There is no unchecked way in: a caller has an [`Actor`](keepwell_model::actor::Actor) from `identity`
//! or is a named job of the composition root.
//!
//! This crate knows no HTTP and no keys. To add an interaction: a file of its own, an `Action` in `policy` with its
//! rows in the authorization table, a method on [`Door`] that gates, asks for each row, and logs before it returns.

mod access_log;
mod answer;
mod bundle;
mod capabilities;
mod change;
mod cursor;
mod door;
mod erase;
mod event;
mod everything;
mod follower;
mod history;
mod import;
mod own;
mod page;
mod permit;
mod read;
mod search;
mod text;
mod validate;
mod view;
mod write;

pub use access_log::Line;
pub use answer::{Answer, PART_2_NOTICE, Refusal};
pub use change::{Change, Unmet, Written};
pub use cursor::CURSOR;
pub use door::{Door, Limits};
pub use erase::{Several, name_of};
pub use event::{Access, Shown};
pub use everything::EverythingOptions;
pub use follower::Records;
pub use history::{HistoryOf, HistoryOptions};
pub use import::Imported;
pub use keepwell_model::reference::is_id;
pub use keepwell_search::query::Summary;
pub use permit::Gate;
pub use read::ReadOptions;
pub use search::SearchRequest;
pub use view::View;
pub use write::{Return, Selector};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keepwell_model::types::ResourceType;
use std::sync::LazyLock;

/// The Patient type.
pub(crate) fn patient_type() -> ResourceType {
    static PATIENT: LazyLock<Option<ResourceType>> = LazyLock::new(|| ResourceType::from_name("Patient"));
    // The list of types is fixed and holds Patient; the fallback is never taken.
    PATIENT
        .or_else(|| ResourceType::all().next())
        .unwrap_or_else(|| unreachable!("there are resource types"))
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Appends `text` percent-encoded for a query (RFC 3986); what FHIR clients write raw stays raw.
pub fn percent_encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for b in text.bytes() {
        match b {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b':'
            | b'/'
            | b','
            | b'|'
            | b'$'
            | b'*' => {
                out.push(b as char);
            }
            _ => {
                out.push('%');
                for digit in [b >> 4, b & 15] {
                    out.push(HEX.get(usize::from(digit)).map_or('0', |c| *c as char));
                }
            }
        }
    }
}

/// Decodes a percent-encoded text; `+` is a space.
///
/// # Errors
/// A sentence for the client.
pub fn percent_decode(text: &str) -> Result<String, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => out.push(b' '),
            b'%' => {
                let mut digit = || bytes.next().and_then(|d| (d as char).to_digit(16));
                match (digit(), digit()) {
                    (Some(hi), Some(lo)) => out.push((hi * 16 + lo) as u8),
                    _ => return Err("a % in the URL is not followed by two hexadecimal digits"),
                }
            }
            _ => out.push(b),
        }
    }
    String::from_utf8(out).map_err(|_| "the URL does not decode to UTF-8")
}

/// The parameters of a query string or form body, in order, decoded.
///
/// # Errors
/// A sentence for the client.
pub fn parse_query(query: &str) -> Result<Vec<(String, String)>, &'static str> {
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            Ok((percent_decode(name)?, percent_decode(value)?))
        })
        .collect()
}

/// The instant a FHIR `instant` or `dateTime` begins at.
#[must_use]
pub fn instant(text: &str) -> Option<keepwell_model::time::Timestamp> {
    date_range(text).map(|(lo, _)| keepwell_model::time::Timestamp(lo))
}

/// The milliseconds a FHIR date or dateTime covers, the end exclusive.
#[must_use]
pub fn date_range(text: &str) -> Option<(i64, i64)> {
    keepwell_search::date_range(text)
}

/// The version in an ETag: `W/"3"`, also `"3"` and `3`.
#[must_use]
pub fn parse_etag(text: &str) -> Option<u32> {
    let text = text.trim();
    text.strip_prefix("W/").unwrap_or(text).trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_decode_and_encode() {
        assert_eq!(
            parse_query("code=http://loinc.org|1-2&name=a+b%26c&x").unwrap(),
            [("code", "http://loinc.org|1-2"), ("name", "a b&c"), ("x", "")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert!(parse_query("a=%zz").is_err());
        assert!(parse_query("a=%ff").is_err());
        let mut out = String::new();
        percent_encode("a b&c=é|$,", &mut out);
        assert_eq!(out, "a%20b%26c%3D%C3%A9|$,");
        assert_eq!(percent_decode(&out).unwrap(), "a b&c=é|$,");
        assert_eq!(parse_etag("W/\"12\""), Some(12));
        assert_eq!(parse_etag("x"), None);
    }
}
