//! The index as bytes, in canonical form.
//!
//! Everything is numbered by its first mention (types in order, rows in the order of their rid, values in the order of
//! extraction), and only what surviving rows say is written: values of current versions, for the others what history
//! needs. So the bytes depend on the content alone: not on rows since forgotten, the order in which values were first
//! seen, or the hash seed. Postings, buckets, ordered lists and hash tables follow from the values and are made again.
//!
//! Layout: magic, format (4 bytes), sections of tag (1), length (8), content, checksum (8). For each type
//! sections of rows, then its keys; then resources, texts, classes and the end. Numbers are little-endian, inside sections seven bits a byte.

use super::hash::Keyed;
use super::intern::{Entities, Strings};
use super::keys::{Key, Kind};
use super::postings::{put, put64, take, take64, unzigzag, zigzag};
use super::shard::Shard;
use super::values::{Builder, Number, Part, put_tuple};
use super::{Index, LoadError, RowKind, thread};
use keepwell_model::types::ResourceType;
use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = *b"KWINDEX\n";
const FORMAT: u32 = 1;
const ROWS: u8 = 1;
const KEYS: u8 = 2;
const ENTITIES: u8 = 3;
const STRINGS: u8 = 4;
const CLASSES: u8 = 5;
const END: u8 = 6;

/// Rows in a section, so that neither side needs much memory beside the index.
const BLOCK: usize = 1 << 15;

/// New numbers by first mention.
struct Numbering {
    new: Vec<u32>,
    order: Vec<u32>,
}

impl Numbering {
    fn new(len: u32) -> Self {
        Self {
            new: vec![u32::MAX; len as usize],
            order: Vec::new(),
        }
    }

    fn of(&mut self, old: u32) -> u32 {
        match self.new.get_mut(old as usize) {
            Some(n) => {
                if *n == u32::MAX {
                    *n = self.order.len() as u32;
                    self.order.push(old);
                }
                *n
            }
            None => u32::MAX,
        }
    }
}

struct Numberings {
    entities: Numbering,
    strings: Numbering,
    classes: Numbering,
}

impl Index {
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&MAGIC)?;
        out.write_all(&FORMAT.to_le_bytes())?;
        let mut all = Numberings {
            entities: Numbering::new(self.entities.len()),
            strings: Numbering::new(self.strings.len()),
            classes: Numbering::new(self.classes.len() as u32),
        };
        let mut body = Vec::new();
        for resource_type in ResourceType::all() {
            if let Some(shard) = self
                .shard(resource_type)
                .filter(|s| s.forgotten.len() < u64::from(s.len()))
            {
                write_shard(shard, resource_type, &mut all, out)?;
            }
        }
        body.clear();
        put64(&mut body, all.entities.order.len() as u64);
        for entity in &all.entities.order {
            self.entities.put(*entity, &mut body);
        }
        section(out, ENTITIES, &body)?;
        body.clear();
        put64(&mut body, all.strings.order.len() as u64);
        for text in &all.strings.order {
            put_bytes(&mut body, self.strings.bytes_of(*text));
        }
        section(out, STRINGS, &body)?;
        body.clear();
        put64(&mut body, all.classes.order.len() as u64);
        for class in &all.classes.order {
            let (home, labels, kind) = self.classes.get(*class);
            put(&mut body, home);
            put(&mut body, u32::from(labels));
            body.push(kind as u8);
        }
        section(out, CLASSES, &body)?;
        section(out, END, &self.last_rid.to_le_bytes())
    }

    pub(super) fn read(seed: [u8; 16], from: &mut dyn Read) -> Result<Self, LoadError> {
        let mut index = Self::new(seed);
        let mut head = [0; 12];
        from.read_exact(&mut head)?;
        let (magic, format) = head.split_at(8);
        if magic != MAGIC {
            return Err(LoadError::Damaged("its first bytes"));
        }
        match format.try_into().map(u32::from_le_bytes) {
            Ok(FORMAT) => {}
            Ok(other) => return Err(LoadError::Format(other)),
            Err(_) => return Err(LoadError::Damaged("its first bytes")),
        }
        loop {
            let (tag, body) = read_section(from)?;
            let mut rest = body.as_slice();
            match tag {
                ROWS => {
                    shard_of(&mut index.shards, &mut rest)
                        .and_then(|shard| read_rows(&mut rest, shard))
                        .ok_or(LoadError::Damaged("rows"))?;
                }
                KEYS => {
                    shard_of(&mut index.shards, &mut rest)
                        .and_then(|shard| read_keys(&mut rest, shard))
                        .ok_or(LoadError::Damaged("keys"))?;
                }
                ENTITIES => {
                    read_entities(&mut rest, index.seed, &mut index.entities).ok_or(LoadError::Damaged("resources"))?;
                }
                STRINGS => {
                    read_strings(&mut rest, index.seed, &mut index.strings).ok_or(LoadError::Damaged("texts"))?;
                }
                CLASSES => read_classes(&mut rest, &mut index).ok_or(LoadError::Damaged("classes"))?,
                END => {
                    let (last, tail) = rest.split_first_chunk::<8>().ok_or(LoadError::Damaged("end"))?;
                    index.last_rid = u64::from_le_bytes(*last);
                    index.whole_from = index.last_rid;
                    rest = tail;
                }
                _ => return Err(LoadError::Damaged("a section's tag")),
            }
            if !rest.is_empty() {
                return Err(LoadError::Damaged("a section's length"));
            }
            if tag == END {
                break;
            }
        }
        index
            .link_rows()
            .ok_or(LoadError::Damaged("references between sections"))?;
        index.post_rows()?;
        index.entities.shrink();
        index.strings.shrink();
        Ok(index)
    }

    /// Joins each resource's rows and finds which are current.
    fn link_rows(&mut self) -> Option<()> {
        for (resource_type, shard) in ResourceType::all().zip(&mut self.shards) {
            let Some(shard) = shard.as_deref_mut() else { continue };
            for row in 0..shard.len() {
                let entity = *shard.entities.get(row)?;
                if self.entities.type_of(entity)? != resource_type {
                    return None;
                }
                let (_, _, kind) = self.classes.checked(*shard.classes.get(row)?)?;
                if kind != RowKind::Version {
                    shard.stale.insert(row);
                }
                thread(shard, &mut self.entities, &self.classes, entity, row);
            }
        }
        Some(())
    }

    /// Makes each type's postings, the types shared between threads.
    fn post_rows(&mut self) -> Result<(), LoadError> {
        let (seed, strings, entities) = (self.seed, &self.strings, self.entities.len());
        let mut shards: Vec<&mut Shard> = self.shards.iter_mut().flatten().map(Box::as_mut).collect();
        shards.sort_by_key(|s| s.values.bytes());
        let queue = parking_lot::Mutex::new(shards);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let next = || queue.lock().pop();
        let work = || {
            while let Some(shard) = next() {
                shard.post_all(seed, strings, entities)?;
            }
            Some(())
        };
        let whole = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mine = work();
            others
                .into_iter()
                .map(|t| t.join().ok().flatten())
                .fold(mine, Option::and)
        });
        whole.ok_or(LoadError::Damaged("values"))
    }
}

impl Shard {
    /// Enters all rows in the postings, after checking that what they name is there.
    fn post_all(&mut self, seed: Keyed, strings: &Strings, entities: u32) -> Option<()> {
        self.keys.fill(seed, strings)?;
        for row in 0..self.len() {
            if !self.post(seed, strings, entities, row) {
                return None;
            }
        }
        self.shrink();
        Some(())
    }
}

/// Writes a type's rows in sections of [`BLOCK`], then its keys.
fn write_shard(
    shard: &Shard,
    resource_type: ResourceType,
    all: &mut Numberings,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut keys = Numbering::new(shard.keys.len());
    let rows: Vec<u32> = (0..shard.len()).filter(|r| !shard.forgotten.contains(*r)).collect();
    let mut body = Vec::new();
    for block in rows.chunks(BLOCK) {
        body.clear();
        put(&mut body, u32::from(resource_type.code()));
        put64(&mut body, block.len() as u64);
        write_rows(shard, block, &mut keys, all, &mut body);
        section(out, ROWS, &body)?;
    }
    body.clear();
    put(&mut body, u32::from(resource_type.code()));
    put64(&mut body, keys.order.len() as u64);
    for key in &keys.order {
        let Some(k) = shard.keys.get(*key) else { continue };
        put(&mut body, u32::from(k.param));
        body.push(k.kind as u8);
        put(&mut body, all.strings.of(k.text));
        put(&mut body, k.second.checked_sub(1).map_or(0, |s| all.strings.of(s) + 1));
    }
    section(out, KEYS, &body)
}

fn write_rows(shard: &Shard, rows: &[u32], keys: &mut Numbering, all: &mut Numberings, out: &mut Vec<u8>) {
    let (mut rid, mut updated) = (0, 0_i64);
    let mut b = Builder::default();
    for row in rows.iter().copied() {
        let this = shard.rids.get(row).unwrap_or(0);
        put64(out, this.wrapping_sub(rid));
        rid = this;
        put(
            out,
            all.entities.of(shard.entities.get(row).copied().unwrap_or(u32::MAX)),
        );
        let this = shard.updated.get(row).unwrap_or(0) as i64;
        put64(out, zigzag(this.wrapping_sub(updated)));
        updated = this;
        put(out, all.classes.of(shard.classes.get(row).copied().unwrap_or(u32::MAX)));
        put(out, shard.version(row));
        b.clear();
        if !shard.stale.contains(row) {
            renumber(shard, row, keys, &mut all.entities, &mut b);
        }
        put_bytes(out, b.pack());
        put64(out, b.dates.len() as u64);
        for (param, lo, hi) in &b.dates {
            put(out, u32::from(*param));
            put64(out, zigzag(*lo));
            put64(out, zigzag(hi.wrapping_sub(*lo)));
        }
    }
}

fn renumber(shard: &Shard, row: u32, keys: &mut Numbering, entities: &mut Numbering, b: &mut Builder) {
    let values = shard.values(row);
    b.keys.extend(values.keys().map(|k| keys.of(k)));
    b.refs.extend(values.refs().map(|(p, e)| (p, entities.of(e))));
    b.numbers.extend(values.numbers().map(|n| Number {
        unit: n.unit.map(|u| keys.of(u)),
        ..n
    }));
    for (param, tuple) in values.tuples() {
        let components: Vec<Vec<Part>> = tuple
            .components()
            .map(|parts| {
                let new = parts.into_iter().map(|part| match part {
                    Part::Key(k) => Part::Key(keys.of(k)),
                    Part::Ref(e) => Part::Ref(entities.of(e)),
                    Part::Number(unit, lo, hi) => Part::Number(unit.map(|u| keys.of(u)), lo, hi),
                    Part::Date(..) => part,
                });
                new.collect()
            })
            .collect();
        put_tuple(&mut b.tuples, param, &components);
    }
    for (param, dates) in &shard.dates {
        dates.any(row, |lo, hi| {
            b.dates.push((*param, lo, hi));
            false
        });
    }
}

/// The shard a section of rows or keys is about.
fn shard_of<'a>(shards: &'a mut [Option<Box<Shard>>], rest: &mut &[u8]) -> Option<&'a mut Shard> {
    let shard = shards.get_mut(usize::try_from(take(rest)?).ok()?)?;
    Some(shard.get_or_insert_with(|| Box::new(Shard::new())))
}

fn read_rows(rest: &mut &[u8], shard: &mut Shard) -> Option<()> {
    let (mut rid, mut updated) = (0_u64, 0_i64);
    let mut dates: Vec<(u16, i64, i64)> = Vec::new();
    let mut last = shard.len().checked_sub(1).and_then(|row| shard.rids.get(row));
    for _ in 0..take64(rest)? {
        rid = rid.checked_add(take64(rest)?)?;
        if last.is_some_and(|before| rid <= before) {
            return None;
        }
        last = Some(rid);
        let entity = take(rest)?;
        updated = updated.wrapping_add(unzigzag(take64(rest)?));
        let class = take(rest)?;
        let version = take(rest)?;
        let row = shard.add(rid, entity, updated, class, version);
        shard.values.push(take_bytes(rest)?);
        dates.clear();
        for _ in 0..take64(rest)? {
            let param = u16::try_from(take(rest)?).ok()?;
            let lo = unzigzag(take64(rest)?);
            dates.push((param, lo, lo.wrapping_add(unzigzag(take64(rest)?))));
        }
        shard.post_dates(row, &mut dates);
    }
    Some(())
}

fn read_keys(rest: &mut &[u8], shard: &mut Shard) -> Option<()> {
    for _ in 0..take64(rest)? {
        let param = u16::try_from(take(rest)?).ok()?;
        let (kind, tail) = rest.split_first()?;
        *rest = tail;
        let kind = Kind::from_code(*kind).filter(|k| *k != Kind::Ref)?;
        shard.keys.hold(Key {
            param,
            kind,
            text: take(rest)?,
            second: take(rest)?,
        });
    }
    Some(())
}

fn read_entities(rest: &mut &[u8], seed: Keyed, entities: &mut Entities) -> Option<()> {
    let count = take64(rest)?;
    entities.reserve(seed, usize::try_from(count).ok()?.min(rest.len() / 4));
    for n in 0..count {
        if u64::from(entities.take(seed, rest)?) != n {
            return None;
        }
    }
    Some(())
}

fn read_strings(rest: &mut &[u8], seed: Keyed, strings: &mut Strings) -> Option<()> {
    for n in 0..take64(rest)? {
        let text = std::str::from_utf8(take_bytes(rest)?).ok()?;
        if u64::from(strings.intern(seed, text)) != n {
            return None;
        }
    }
    Some(())
}

fn read_classes(rest: &mut &[u8], index: &mut Index) -> Option<()> {
    for n in 0..take64(rest)? {
        let (home, labels) = (take(rest)?, u16::try_from(take(rest)?).ok()?);
        let (kind, tail) = rest.split_first()?;
        *rest = tail;
        let kind = [RowKind::Version, RowKind::Deleted, RowKind::Left]
            .into_iter()
            .find(|k| *k as u8 == *kind)?;
        if u64::from(index.classes.intern((home, labels, kind))) != n {
            return None;
        }
    }
    Some(())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take64(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

fn section(out: &mut dyn Write, tag: u8, body: &[u8]) -> io::Result<()> {
    let mut head = [tag; 9];
    for (to, from) in head.iter_mut().skip(1).zip((body.len() as u64).to_le_bytes()) {
        *to = from;
    }
    out.write_all(&head)?;
    out.write_all(body)?;
    out.write_all(&checksum(&head, body).to_le_bytes())
}

fn read_section(from: &mut dyn Read) -> Result<(u8, Vec<u8>), LoadError> {
    let mut head = [0; 9];
    from.read_exact(&mut head)?;
    let [tag, len @ ..] = head;
    let len = u64::from_le_bytes(len);
    // Read as it comes: a damaged length must not ask for memory that no data stands behind.
    let mut body = Vec::with_capacity(usize::try_from(len).unwrap_or(0).min(1 << 20));
    from.take(len).read_to_end(&mut body)?;
    let mut sum = [0; 8];
    if body.len() as u64 != len {
        return Err(LoadError::Damaged("its length"));
    }
    from.read_exact(&mut sum)?;
    if u64::from_le_bytes(sum) != checksum(&head, &body) {
        return Err(LoadError::Damaged("a checksum"));
    }
    Ok((tag, body))
}

/// Against accidents only: a snapshot at rest is sealed. Four lanes, so that it costs little beside reading.
fn checksum(head: &[u8; 9], body: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut lanes = [1_u64, 2, 3, 4];
    let (blocks, tail) = body.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(ODD).rotate_left(29);
        }
    }
    let key = Keyed::new(*b"snapshotofindex1");
    let sum = lanes.iter().fold(key.bytes(0, head), |sum, lane| key.words(sum, *lane));
    key.bytes(sum, tail)
}

/// A digest of what is written to it.
pub struct Digest {
    buffer: Vec<u8>,
    state: [u64; 2],
}

impl Digest {
    pub fn new() -> Self {
        Self {
            buffer: Vec::new(),
            state: [0, 1],
        }
    }

    pub fn finish(mut self) -> [u8; 16] {
        self.fold();
        let [a, b] = self.state;
        (u128::from(a) | u128::from(b) << 64).to_le_bytes()
    }

    fn fold(&mut self) {
        let keys = [Keyed::new([0x55; 16]), Keyed::new([0xaa; 16])];
        for (state, key) in self.state.iter_mut().zip(keys) {
            *state = key.bytes(*state, &self.buffer);
        }
        self.buffer.clear();
    }
}

impl Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // In pieces of one size, so that the digest does not depend on how the writes are cut.
        const PIECE: usize = 1 << 16;
        let n = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..n).unwrap_or_default());
        if self.buffer.len() == PIECE {
            self.fold();
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Limits, NewRow, Scope};
    use crate::query::{Clause, Query, SortBy, SortKey, Summary, Total};
    use crate::term::{Extracted, ParamNo, Term};

    fn sample() -> Vec<u8> {
        let mut index = Index::new([1; 16]);
        let [patient, observation] = ["Patient", "Observation"].map(|n| ResourceType::from_name(n).unwrap());
        for i in 0..30_u64 {
            let number = Term::Number { lo: i as f64, hi: 40.0 };
            let extracted = Extracted {
                terms: vec![
                    (
                        ParamNo(0),
                        Term::Token {
                            system: Some("s".into()),
                            code: format!("c{}", i % 3).into(),
                        },
                    ),
                    (ParamNo(1), Term::Str("Ann".into())),
                    (
                        ParamNo(2),
                        Term::Reference {
                            target: patient,
                            id: "p".into(),
                        },
                    ),
                    (
                        ParamNo(3),
                        Term::Date {
                            lo: i as i64 * 50_000_000,
                            hi: i64::MAX,
                        },
                    ),
                    (ParamNo(4), number.clone()),
                    (ParamNo(5), Term::Tuple(vec![vec![number], vec![Term::Str("x".into())]])),
                ],
            };
            index.apply(&NewRow {
                rid: 10 + i,
                resource_type: if i % 9 == 0 { patient } else { observation },
                id: if i % 9 == 0 {
                    "p"
                } else {
                    ["a", "b", "c"][i as usize % 3]
                },
                version: 1 + i as u32 / 9,
                last_updated: i as i64,
                kind: RowKind::Version,
                home: 1,
                labels: 0,
                extracted: Some(&extracted),
            });
        }
        let mut out = vec![];
        index.write(&mut out).unwrap();
        out
    }

    /// What a checksum does not catch (it is no secret) must still be refused or read as some index, never panic.
    #[test]
    fn sound_checksums_over_unsound_content_do_not_panic() {
        let good = sample();
        let mut sections = vec![];
        let mut from = &good[12..];
        while !from.is_empty() {
            sections.push(read_section(&mut from).unwrap());
        }
        let mut random = 1_u64;
        let mut next = |n: usize| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) as usize % n
        };
        let mut read = 0;
        for _ in 0..20_000 {
            let mut all = sections.clone();
            for _ in 0..1 + next(3) {
                let at = next(all.len());
                let body = &mut all[at].1;
                match next(4) {
                    0 if !body.is_empty() => {
                        let at = next(body.len());
                        body.remove(at);
                    }
                    1 => body.insert(next(body.len() + 1), [0, 0xff, 0x80, 0x7f][next(4)]),
                    _ if !body.is_empty() => {
                        let at = next(body.len());
                        body[at] = next(256) as u8;
                    }
                    _ => {}
                }
            }
            if next(20) == 0 {
                let (a, b) = (next(all.len()), next(all.len()));
                all.swap(a, b);
            }
            let mut bytes = good[..12].to_vec();
            for (tag, body) in all {
                section(&mut bytes, tag, &body).unwrap();
            }
            let Ok(index) = Index::read([2; 16], &mut bytes.as_slice()) else {
                continue;
            };
            read += 1;
            index.write(&mut Digest::new()).unwrap();
            assert!(index.history(Scope::System, u64::MAX, None).count() <= 40);
            for t in ResourceType::all() {
                let query = Query {
                    resource_type: t,
                    clauses: vec![Clause::Missing {
                        param: ParamNo(1),
                        missing: false,
                    }],
                    sort: vec![SortKey {
                        by: SortBy::Param(ParamNo(3)),
                        descending: true,
                    }],
                    count: None,
                    total: Total::Default,
                    includes: vec![],
                    summary: Summary::False,
                    elements: vec![],
                    processed: vec![],
                    ignored: vec![],
                };
                let _ = index.search(&query, u64::MAX, &|_| true, None, Limits { page: 10, includes: 10 });
            }
        }
        assert!(read > 100, "hardly any of the damaged snapshots was read: {read}");
    }

    #[test]
    fn the_digest_does_not_depend_on_how_writes_are_cut() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        let digest = |piece: usize| {
            let mut d = Digest::new();
            bytes.chunks(piece).for_each(|c| d.write_all(c).unwrap());
            d.finish()
        };
        assert_eq!(digest(1), digest(65_536));
        assert_eq!(digest(7), digest(300_000));
    }
}
