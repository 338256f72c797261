//! Bundles written as bytes: entries are spliced from stored text, never parsed.

use keepwell_model::json::write_string;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use std::fmt::Write as _;

/// Writes a searchset or history Bundle.
pub(crate) struct Page {
    out: Vec<u8>,
    first: bool,
    /// The base as a JSON string, used again for each entry.
    head: String,
}

impl Page {
    /// Opens a Bundle of `kind`; `total` where known; links as (relation, url).
    pub(crate) fn open(kind: &str, at: Timestamp, total: Option<u64>, links: &[(&str, String)]) -> Self {
        let mut head = String::with_capacity(256);
        let _ = write!(
            head,
            "{{\"resourceType\":\"Bundle\",\"type\":\"{kind}\",\"meta\":{{\"lastUpdated\":\"{at}\"}}"
        );
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

    /// The finished Bundle.
    pub(crate) fn close(mut self) -> Vec<u8> {
        self.out.extend_from_slice(if self.first { b"}" } else { b"]}" });
        self.out
    }
}
