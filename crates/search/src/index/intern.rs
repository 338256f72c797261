//! Texts and resources by number: each held once.

use super::columns::{Blobs, Column};
use super::hash::{Keyed, Table};
use keepwell_model::types::ResourceType;
use keepwell_model::uuid;

/// Texts by number.
pub struct Strings {
    texts: Blobs,
    table: Table<u32>,
}

impl Strings {
    pub fn new() -> Self {
        Self {
            texts: Blobs::default(),
            table: Table::new(16),
        }
    }

    pub fn bytes_of(&self, number: u32) -> &[u8] {
        self.texts.get(number).unwrap_or_default()
    }

    pub fn text(&self, number: u32) -> &str {
        std::str::from_utf8(self.bytes_of(number)).unwrap_or_default()
    }

    pub fn find(&self, key: Keyed, text: &str) -> Option<u32> {
        self.table
            .find(key.bytes(0, text.as_bytes()), |n| self.bytes_of(n) == text.as_bytes())
    }

    pub fn intern(&mut self, key: Keyed, text: &str) -> u32 {
        match self.find(key, text) {
            Some(n) => n,
            None => self.add(key, text),
        }
    }

    /// Adds a text known to be new.
    pub fn add(&mut self, key: Keyed, text: &str) -> u32 {
        let n = self.texts.push(text.as_bytes());
        let texts = &self.texts;
        self.table.insert(key.bytes(0, text.as_bytes()), n, |n| {
            key.bytes(0, texts.get(n).unwrap_or_default())
        });
        n
    }

    pub fn len(&self) -> u32 {
        self.texts.len()
    }

    pub fn shrink(&mut self) {
        self.texts.shrink();
    }

    pub fn bytes(&self) -> usize {
        self.texts.bytes() + self.table.bytes()
    }
}

/// Resources by number, whether present or only referred to.
pub struct Entities {
    /// How the id is held, and the type: see [`Form`].
    kinds: Column<u16>,
    ids: Column<[u8; 16]>,
    /// Newest row within the type, or [`NO_ROW`].
    heads: Column<u32>,
    /// Ids that do not fit in 16 bytes.
    long: Strings,
    table: Table<u32>,
}

/// No row.
pub const NO_ROW: u32 = u32::MAX;

/// How an id is held in 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A UUID in lower case.
    Uuid = 0,
    /// Up to 15 bytes and their number.
    Short = 1,
    /// The number of a text.
    Long = 2,
}

impl Entities {
    pub fn new() -> Self {
        Self {
            kinds: Column::default(),
            ids: Column::default(),
            heads: Column::default(),
            long: Strings::new(),
            table: Table::new(64),
        }
    }

    pub fn len(&self) -> u32 {
        self.kinds.len()
    }

    pub fn find(&self, key: Keyed, resource_type: ResourceType, id: &str) -> Option<u32> {
        let (form, packed) = self.pack(key, id)?;
        let kind = (form as u16) << 8 | resource_type.code();
        self.table.find(hash(key, form as u16, &packed), |n| {
            self.kinds.get(n) == Some(&kind) && self.ids.get(n) == Some(&packed)
        })
    }

    /// The resources of any type with that id.
    pub fn find_any(&self, key: Keyed, id: &str) -> Vec<u32> {
        let Some((form, packed)) = self.pack(key, id) else {
            return Vec::new();
        };
        self.table
            .candidates(hash(key, form as u16, &packed))
            .filter(|n| self.kinds.get(*n).is_some_and(|k| k >> 8 == form as u16) && self.ids.get(*n) == Some(&packed))
            .collect()
    }

    pub fn intern(&mut self, key: Keyed, resource_type: ResourceType, id: &str) -> u32 {
        if let Some(n) = self.find(key, resource_type, id) {
            return n;
        }
        let (form, packed) = match self.pack(key, id) {
            Some(p) => p,
            None => (Form::Long, long(self.long.add(key, id))),
        };
        self.add(key, resource_type, form, packed)
    }

    fn add(&mut self, key: Keyed, resource_type: ResourceType, form: Form, packed: [u8; 16]) -> u32 {
        let n = self.kinds.push((form as u16) << 8 | resource_type.code());
        self.ids.push(packed);
        self.heads.push(NO_ROW);
        let (kinds, ids) = (&self.kinds, &self.ids);
        self.table.insert(hash(key, form as u16, &packed), n, |n| {
            hash(key, kinds.get(n).map_or(0, |k| k >> 8), ids.get(n).unwrap_or(&[0; 16]))
        });
        n
    }

    pub fn type_of(&self, entity: u32) -> Option<ResourceType> {
        ResourceType::from_code(self.kinds.get(entity)? & 0xff)
    }

    pub fn head(&self, entity: u32) -> Option<u32> {
        self.heads.get(entity).copied().filter(|r| *r != NO_ROW)
    }

    pub fn set_head(&mut self, entity: u32, row: u32) {
        if let Some(h) = self.heads.get_mut(entity) {
            *h = row;
        }
    }

    pub fn id(&self, entity: u32) -> String {
        let (Some(kind), Some(packed)) = (self.kinds.get(entity), self.ids.get(entity)) else {
            return String::new();
        };
        match kind >> 8 {
            0 => uuid::text(packed),
            1 => {
                let len = usize::from(packed.last().copied().unwrap_or(0));
                String::from_utf8_lossy(packed.get(..len).unwrap_or_default()).into_owned()
            }
            _ => self
                .long
                .text(u32::from_le_bytes([packed[0], packed[1], packed[2], packed[3]]))
                .to_owned(),
        }
    }

    /// Writes type and id as held, for [`Entities::take`].
    pub fn put(&self, entity: u32, out: &mut Vec<u8>) {
        let (Some(kind), Some(packed)) = (self.kinds.get(entity), self.ids.get(entity)) else {
            return;
        };
        out.extend(kind.to_le_bytes());
        match kind >> 8 {
            0 => out.extend(packed),
            _ => {
                let id = self.id(entity);
                out.push(id.len() as u8);
                out.extend(id.as_bytes());
            }
        }
    }

    /// Adds what [`Entities::put`] wrote; the caller knows that it is new. Ids longer than 255 bytes do not exist.
    pub fn take(&mut self, key: Keyed, rest: &mut &[u8]) -> Option<u32> {
        let (kind, tail) = rest.split_first_chunk::<2>()?;
        let [code, form] = *kind;
        let resource_type = ResourceType::from_code(code.into())?;
        if form == Form::Uuid as u8 {
            let (packed, tail) = tail.split_first_chunk::<16>()?;
            *rest = tail;
            return Some(self.add(key, resource_type, Form::Uuid, *packed));
        }
        let (len, tail) = tail.split_first()?;
        let (id, tail) = tail.split_at_checked(usize::from(*len))?;
        *rest = tail;
        Some(self.intern(key, resource_type, std::str::from_utf8(id).ok()?))
    }

    fn pack(&self, key: Keyed, id: &str) -> Option<(Form, [u8; 16])> {
        if let Some(uuid) = uuid::parse(id) {
            return Some((Form::Uuid, uuid));
        }
        if id.len() < 16 {
            let mut packed = [0; 16];
            for (to, from) in packed.iter_mut().zip(id.as_bytes()) {
                *to = *from;
            }
            packed[15] = id.len() as u8;
            return Some((Form::Short, packed));
        }
        Some((Form::Long, long(self.long.find(key, id)?)))
    }

    pub fn reserve(&mut self, key: Keyed, more: usize) {
        let (kinds, ids) = (&self.kinds, &self.ids);
        self.table.reserve(more, |n| {
            hash(key, kinds.get(n).map_or(0, |k| k >> 8), ids.get(n).unwrap_or(&[0; 16]))
        });
    }

    pub fn shrink(&mut self) {
        self.kinds.shrink();
        self.ids.shrink();
        self.heads.shrink();
        self.long.shrink();
    }

    pub fn bytes(&self) -> usize {
        self.kinds.bytes() + self.ids.bytes() + self.heads.bytes() + self.long.bytes() + self.table.bytes()
    }
}

/// By id only, so that a reference without a type finds all.
fn hash(key: Keyed, form: u16, packed: &[u8; 16]) -> u64 {
    key.bytes(u64::from(form), packed)
}

fn long(number: u32) -> [u8; 16] {
    let mut packed = [0; 16];
    let [a, b, c, d] = number.to_le_bytes();
    (packed[0], packed[1], packed[2], packed[3]) = (a, b, c, d);
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_were() {
        let key = Keyed::new([9; 16]);
        let mut e = Entities::new();
        let ids = [
            "a",
            "f001",
            "123456789012345",
            "1234567890123456",
            "0a1b2c3d-4e5f-6789-abcd-ef0123456789",
            "0A1B2C3D-4E5F-6789-ABCD-EF0123456789",
            "0a1b2c3d-4e5f-6789-abcd_ef0123456789",
            "0a1b2c3d4e5f6789abcdef0123456789",
            "0000000000000000000000000000000000000000000000000000000000000000",
        ];
        let (patient, group) = (
            ResourceType::from_code(1).unwrap(),
            ResourceType::from_code(145).unwrap(),
        );
        let numbers: Vec<u32> = ids.iter().map(|id| e.intern(key, patient, id)).collect();
        for (id, n) in ids.iter().zip(&numbers) {
            assert_eq!(e.id(*n), *id);
            assert_eq!(e.find(key, patient, id), Some(*n));
            assert_eq!(e.find(key, group, id), None);
            assert_eq!(e.intern(key, patient, id), *n);
            let other = e.intern(key, group, id);
            assert_ne!(other, *n);
            assert_eq!(e.type_of(other), Some(group));
            let mut any = e.find_any(key, id);
            any.sort_unstable();
            assert_eq!(any, [*n, other]);
        }
        assert_eq!(e.find(key, patient, "not-there-but-quite-long"), None);
    }
}
