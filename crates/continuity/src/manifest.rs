//! The manifest: a signed note that names every file of a backup with its digest.
//!
//! ```text
//! keepwell-backup/1
//! origin <name of the log>
//! tree <size> <root, base64>
//! last-rid <number>
//! checkpoint <SHA-256 of the checkpoint's note, base64>
//! meta <key, base64> <value, base64>
//! rows|entries <segment> full|<last number> <count> <bytes> <SHA-256, base64>
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keepwell_audit::Hash;

const HEADER: &str = "keepwell-backup/1";

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rows,
    Entries,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Entries => "entries",
        }
    }
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) kind: Kind,
    pub(crate) index: u64,
    /// For a segment that is not full yet: its last row or entry. Part of the name, so that no file is ever rewritten.
    pub(crate) last: Option<u64>,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    pub(crate) digest: Hash,
}

impl Segment {
    /// The file's path below the backup's folder.
    pub(crate) fn path(&self) -> String {
        path(self.kind, self.index, self.last)
    }
}

pub(crate) fn path(kind: Kind, index: u64, last: Option<u64>) -> String {
    match last {
        None => format!("{}/{index:08}", kind.name()),
        Some(last) => format!("{}/{index:08}-{last}", kind.name()),
    }
}

/// Everything a backup consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) origin: String,
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) last_rid: u64,
    pub(crate) checkpoint: Hash,
    pub(crate) meta: Vec<(String, Vec<u8>)>,
    /// Rows first, then entries, each ascending.
    pub(crate) segments: Vec<Segment>,
}

impl Manifest {
    pub(crate) fn to_text(&self) -> String {
        let mut out = format!(
            "{HEADER}\norigin {}\ntree {} {}\nlast-rid {}\ncheckpoint {}\n",
            self.origin,
            self.size,
            BASE64.encode(self.root),
            self.last_rid,
            BASE64.encode(self.checkpoint)
        );
        for (key, value) in &self.meta {
            out.push_str(&format!("meta {} {}\n", BASE64.encode(key), BASE64.encode(value)));
        }
        for s in &self.segments {
            let last = s.last.map_or_else(|| "full".to_owned(), |last| last.to_string());
            let digest = BASE64.encode(s.digest);
            out.push_str(&format!(
                "{} {} {last} {} {} {digest}\n",
                s.kind.name(),
                s.index,
                s.count,
                s.bytes
            ));
        }
        out
    }

    /// Reads [`Manifest::to_text`]; every accepted text is exactly what that writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != HEADER {
            return None;
        }
        let origin = lines.next()?.strip_prefix("origin ")?.to_owned();
        let (size, root) = lines.next()?.strip_prefix("tree ")?.split_once(' ')?;
        let last_rid = lines.next()?.strip_prefix("last-rid ")?;
        let checkpoint = lines.next()?.strip_prefix("checkpoint ")?;
        let mut manifest = Self {
            origin,
            size: size.parse().ok()?,
            root: hash(root)?,
            last_rid: last_rid.parse().ok()?,
            checkpoint: hash(checkpoint)?,
            meta: Vec::new(),
            segments: Vec::new(),
        };
        for line in lines {
            match line.strip_prefix("meta ") {
                Some(pair) => {
                    let (key, value) = pair.split_once(' ')?;
                    let key = String::from_utf8(BASE64.decode(key).ok()?).ok()?;
                    manifest.meta.push((key, BASE64.decode(value).ok()?));
                }
                None => manifest.segments.push(segment(line)?),
            }
        }
        (manifest.to_text() == text && manifest.is_complete()).then_some(manifest)
    }

    /// Whether the entry segments follow each other without a gap up to the size, and the row segments ascend. Segment
    /// numbers may be missing among rows, for a number that was never used; each row's own leaf finds a missing one.
    fn is_complete(&self) -> bool {
        let of = |kind| self.segments.iter().filter(move |s| s.kind == kind);
        let whole = |s: &Segment, end: u64| {
            let full = s.index.checked_add(1).and_then(|n| n.checked_mul(1 << 16));
            full.is_some_and(|full| match s.last {
                None => full <= end,
                Some(last) => last >> 16 == s.index && last.checked_add(1) == Some(end),
            }) && s.count <= 1 << 16
        };
        let entries_end = of(Kind::Entries).try_fold(0, |next, s| {
            let follows = s.index == next >> 16 && next & 0xffff == 0 && whole(s, self.size);
            follows.then_some(next + s.count)
        });
        let ascending = of(Kind::Rows)
            .zip(of(Kind::Rows).skip(1))
            .all(|(a, b)| a.index < b.index);
        let rows = of(Kind::Rows).all(|s| self.last_rid.checked_add(1).is_some_and(|end| whole(s, end)));
        entries_end == Some(self.size) && ascending && rows
    }
}

fn segment(line: &str) -> Option<Segment> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [kind, index, last, count, bytes, digest] = fields.as_slice() else {
        return None;
    };
    let kind = match *kind {
        "rows" => Kind::Rows,
        "entries" => Kind::Entries,
        _ => return None,
    };
    let last = if *last == "full" {
        None
    } else {
        Some(last.parse().ok()?)
    };
    Some(Segment {
        kind,
        index: index.parse().ok()?,
        last,
        count: count.parse().ok()?,
        bytes: bytes.parse().ok()?,
        digest: hash(digest)?,
    })
}

fn hash(text: &str) -> Option<Hash> {
    BASE64.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest(size: u64, last_rid: u64) -> Manifest {
        let of = |kind, last: u64, from_one: u64| {
            (0..=last >> 16).map(move |index| {
                let end = (index << 16) | 0xffff;
                let count = last.min(end) - (index << 16) + 1 - if index == 0 { from_one } else { 0 };
                Segment {
                    kind,
                    index,
                    last: (last < end).then_some(last),
                    count,
                    bytes: 8 + count,
                    digest: [7; 32],
                }
            })
        };
        let rows = of(Kind::Rows, last_rid, 1);
        Manifest {
            origin: "log".to_owned(),
            size,
            root: [1; 32],
            last_rid,
            checkpoint: [2; 32],
            meta: vec![("key".to_owned(), vec![0, 255])],
            segments: rows.chain(of(Kind::Entries, size - 1, 0)).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_manifest_reads_back(size in 1_u64..400_000, last_rid in 1_u64..400_000) {
            let manifest = manifest(size, last_rid);
            prop_assert_eq!(Manifest::parse(&manifest.to_text()), Some(manifest));
        }

        #[test]
        fn parsing_never_panics(
            text in "[\\PC\n]{0,100}",
            at in any::<prop::sample::Index>(),
            size in prop::sample::select(vec![1, 65_536, 200_000, u64::MAX - 1]),
        ) {
            let _ = Manifest::parse(&text);
            let mut good = manifest(200_000, 70_000).to_text();
            good = good.replace("200000", &size.to_string());
            let lines: Vec<&str> = good.lines().collect();
            let cut = at.index(lines.len());
            let _ = Manifest::parse(&good);
            let _ = Manifest::parse(&(lines[..cut].join("\n") + "\n" + &text + "\n" + &lines[cut..].join("\n") + "\n"));
        }
    }

    #[test]
    fn a_manifest_with_a_gap_is_not_one() {
        let whole = manifest(200_000, 70_000);
        assert!(Manifest::parse(&whole.to_text()).is_some());
        for (at, s) in whole.segments.iter().enumerate() {
            if s.kind == Kind::Entries {
                let mut gap = whole.clone();
                gap.segments.remove(at);
                assert!(Manifest::parse(&gap.to_text()).is_none());
            }
            let mut doubled = whole.clone();
            doubled.segments.insert(at, s.clone());
            assert!(Manifest::parse(&doubled.to_text()).is_none());
        }
    }
}
