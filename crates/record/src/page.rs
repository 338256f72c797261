//! Bundles written as bytes: entries are spliced from stored text, never parsed.

use crate::permit::Owed;
use keepwell_ledger::Opened;
use keepwell_model::json::write_string;
use keepwell_model::outcome::{Issue, operation_outcome};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_search::index::Version;
use std::fmt::Write as _;
use std::sync::Arc;

/// The handling caveat of a Bundle with records of a Part 2 programme (HL7 v3 ActCode, refrain policies; as in DS4P).
const NO_REDISCLOSURE: &str = ",\"security\":[{\"system\":\"http://terminology.hl7.org/CodeSystem/v3-ActCode\",\"code\":\"NORDSCLCD\",\"display\":\"no redisclosure without consent directive\"}]";

/// About what an entry takes beside the stored text: address, id, version and instant, links to the request.
const ENTRY: usize = 400;

/// Writes a searchset or history Bundle.
pub(crate) struct Page {
    out: Vec<u8>,
    first: bool,
    /// The base as a JSON string, used again for each entry.
    head: String,
}

impl Page {
    /// Opens a Bundle of `kind`; `total` where known; links as (relation, url). What it shows may be `owed` a mark.
    pub(crate) fn open(kind: &str, at: Timestamp, total: Option<u64>, links: &[(&str, String)], owed: Owed) -> Self {
        let mut head = String::with_capacity(256);
        let _ = write!(
            head,
            "{{\"resourceType\":\"Bundle\",\"type\":\"{kind}\",\"meta\":{{\"lastUpdated\":\"{at}\""
        );
        if owed.notice {
            head.push_str(NO_REDISCLOSURE);
        }
        head.push('}');
        if let Some(n) = total {
            let _ = write!(head, ",\"total\":{n}");
        }
        if !links.is_empty() {
            head.push_str(",\"link\":[");
            for (i, (relation, url)) in links.iter().enumerate() {
                if i > 0 {
                    head.push(',');
                }
                let _ = write!(head, "{{\"relation\":\"{relation}\",\"url\":");
                write_string(url, &mut head);
                head.push('}');
            }
            head.push(']');
        }
        Self {
            out: head.into_bytes(),
            first: true,
            head: String::new(),
        }
    }

    /// Makes room for the entries of these rows, so that the Bundle is written in one piece of memory.
    pub(crate) fn reserve<'a>(&mut self, rows: impl IntoIterator<Item = &'a (&'a Version, Arc<Opened>)>) {
        let sizes = rows.into_iter().map(|(_, opened)| opened.text.len() + ENTRY);
        self.out.reserve(sizes.sum());
    }

    fn next(&mut self) {
        let lead: &[u8] = if self.first { b",\"entry\":[" } else { b"," };
        self.out.extend_from_slice(lead);
        self.first = false;
    }

    /// One entry of a searchset; `resource` appends the resource.
    pub(crate) fn hit(
        &mut self,
        base: &str,
        t: ResourceType,
        id: &str,
        mode: &str,
        resource: impl FnOnce(&mut Vec<u8>),
    ) {
        self.next();
        // Names of types and ids have no character that JSON would escape.
        self.head.clear();
        write_string(base, &mut self.head);
        let base = self.head.strip_suffix('"').unwrap_or_default();
        for part in ["{\"fullUrl\":", base, "/", t.name(), "/", id, "\",\"resource\":"] {
            self.out.extend_from_slice(part.as_bytes());
        }
        resource(&mut self.out);
        self.out.extend_from_slice(b",\"search\":{\"mode\":\"");
        self.out.extend_from_slice(mode.as_bytes());
        self.out.extend_from_slice(b"\"}}");
    }

    /// An entry given as JSON text.
    pub(crate) fn raw(&mut self, entry: &[u8]) {
        self.next();
        self.out.extend_from_slice(entry);
    }

    /// The entry of a searchset that speaks about the search itself; none without issues.
    pub(crate) fn outcome(&mut self, issues: &[Issue]) {
        if !issues.is_empty() {
            let outcome = operation_outcome(issues);
            self.raw(format!("{{\"resource\":{outcome},\"search\":{{\"mode\":\"outcome\"}}}}").as_bytes());
        }
    }

    /// The finished Bundle.
    pub(crate) fn close(mut self) -> Vec<u8> {
        self.out.extend_from_slice(if self.first { b"}" } else { b"]}" });
        self.out
    }
}
