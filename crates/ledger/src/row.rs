//! The bytes of a row: header, padding, sealing. `docs/formats/row.md`.

use crate::body::{self, Body, Packing, Payload};
use crate::error::ReadError;
use crate::follower::{Header, Kind};
use crate::varint::{Reader, put};
use keepwell_model::uuid;
use keepwell_vault::{NONCE, Place, SealKey, TAG, Vault, VaultError};

/// Suite 1: AES-256-GCM, nonce by HMAC.
const SUITE: u8 = 1;
const FORMAT: [u8; 4] = *b"row1";
/// Longest id in bytes.
pub(crate) const ID_MAX: usize = 0xfe;
/// suite, generation, packing, nonce.
const FRONT: usize = 1 + 2 + 1 + NONCE;

/// Length after padding: multiples of 32 up to 1 KB, Padmé (12 % at most) above.
pub(crate) fn padded(length: usize) -> usize {
    if length <= 1024 {
        return length.next_multiple_of(32).max(32);
    }
    let e = length.ilog2();
    let s = e.ilog2() + 1;
    let mask = (1_usize << (e - s)) - 1;
    (length + mask) & !mask
}

fn id_bytes(out: &mut Vec<u8>, id: &str) {
    if let Some(uuid) = uuid::parse(id) {
        out.push(0xff);
        out.extend_from_slice(&uuid);
    } else {
        out.push(id.len().min(ID_MAX) as u8);
        out.extend_from_slice(id.as_bytes().get(..id.len().min(ID_MAX)).unwrap_or_default());
    }
}

/// Everything under the seal but the padding.
fn plaintext(rid: u64, header: &Header, cuts: &[usize], payload: &Payload) -> Vec<u8> {
    let mut out = Vec::with_capacity(padded(payload.bytes.len() + 64) + TAG);
    out.push(header.kind as u8);
    out.extend_from_slice(&header.type_code.to_be_bytes());
    put(&mut out, u64::from(header.version));
    put(
        &mut out,
        if header.prev == 0 {
            0
        } else {
            rid.saturating_sub(header.prev)
        },
    );
    // Six bytes reach the year 6429.
    let ms = header.last_updated.clamp(-(1 << 47), (1 << 47) - 1);
    out.extend_from_slice(ms.to_be_bytes().get(2..).unwrap_or_default());
    id_bytes(&mut out, &header.id);
    put(&mut out, cuts.len() as u64);
    let mut last = 0;
    for at in cuts {
        put(&mut out, (at - last) as u64);
        last = *at;
    }
    put(&mut out, payload.length as u64);
    put(&mut out, payload.bytes.len() as u64);
    out.extend_from_slice(&payload.bytes);
    out
}

struct Unsealed {
    header: Header,
    cuts: Vec<usize>,
    payload: Vec<u8>,
}

fn parse(rid: u64, packing: Packing, text: &[u8]) -> Option<Unsealed> {
    let mut r = Reader(text);
    let kind = match r.byte()? {
        1 => Kind::Version,
        2 => Kind::Deleted,
        3 => Kind::Left,
        4 => Kind::Blob,
        _ => return None,
    };
    let type_code = u16::from_be_bytes(r.array()?);
    let version = u32::try_from(r.varint()?).ok()?;
    let prev = match r.varint()? {
        0 => 0,
        distance => rid.checked_sub(distance)?,
    };
    let [a, b, c, d, e, f] = r.array::<6>()?;
    let sign = if a & 0x80 == 0 { 0 } else { 0xff };
    let last_updated = i64::from_be_bytes([sign, sign, a, b, c, d, e, f]);
    let id = match r.byte()? {
        0xff => uuid::text(&r.array()?),
        length => String::from_utf8(r.bytes(usize::from(length))?.to_vec()).ok()?,
    };
    let mut cuts = Vec::new();
    let mut last = 0_usize;
    for _ in 0..r.varint()? {
        last = last.checked_add(r.length()?)?;
        cuts.push(last);
    }
    let length = r.length()?;
    let packed = r.length()?;
    let payload = body::unpack(packing, length, r.bytes(packed)?)?;
    if r.0.iter().any(|b| *b != 0) || padded(text.len() - r.0.len()) != text.len() {
        return None;
    }
    Some(Unsealed {
        header: Header {
            kind,
            type_code,
            id,
            version,
            prev,
            last_updated,
        },
        cuts,
        payload,
    })
}

fn place(rid: u64, associated: &[u8; 2]) -> Place<'_> {
    Place {
        format: FORMAT,
        number: rid,
        extra: associated,
    }
}

fn seal_one(key: &SealKey, random: &[u8; 16], rid: u64, packing: Packing, mut text: Vec<u8>) -> Option<Vec<u8>> {
    text.resize(padded(text.len()), 0);
    let nonce = key.nonce(random, rid, &[&text]);
    let associated = [SUITE, packing as u8];
    let tag = key.seal(place(rid, &associated), &nonce, &mut text).ok()?;
    let mut out = Vec::with_capacity(FRONT + text.len() + TAG);
    out.push(SUITE);
    out.extend_from_slice(&key.generation().to_be_bytes());
    out.push(packing as u8);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&text);
    out.extend_from_slice(&tag);
    Some(out)
}

/// Seals a planned row and its attachments: the bodies of rows `rid`, `rid + 1`, ...
pub(crate) fn seal(
    keys: &mut dyn FnMut(u64) -> Option<std::sync::Arc<SealKey>>,
    random: &mut dyn FnMut() -> Option<[u8; 16]>,
    rid: u64,
    header: &Header,
    body: &Body,
) -> Option<Vec<Vec<u8>>> {
    let cuts: Vec<usize> = body.cuts.iter().map(|(at, _)| *at).collect();
    let mut out = Vec::with_capacity(1 + cuts.len());
    let text = plaintext(rid, header, &cuts, &body.text);
    out.push(seal_one(keys(rid)?.as_ref(), &random()?, rid, body.text.packing, text)?);
    for ((_, blob), n) in body.cuts.iter().zip(rid + 1..) {
        let header = Header {
            kind: Kind::Blob,
            id: String::new(),
            prev: rid,
            ..header.clone()
        };
        let text = plaintext(n, &header, &[], blob);
        out.push(seal_one(keys(n)?.as_ref(), &random()?, n, blob.packing, text)?);
    }
    Some(out)
}

/// A row as it came out of its seal.
pub(crate) struct Row {
    pub(crate) slot: u32,
    pub(crate) header: Header,
    /// The payload; attachments are still missing at `cuts`.
    pub(crate) text: Vec<u8>,
    pub(crate) cuts: Vec<usize>,
}

/// Opens a stored row.
pub(crate) fn open(vault: &Vault, rid: u64, key_ref: &[u8; 16], body: &[u8]) -> Result<Row, ReadError> {
    let damaged = ReadError::Damaged(rid);
    let slot = vault.slot_of(key_ref, rid).ok_or(damaged.clone())?;
    if body.is_empty() {
        return Err(ReadError::Missing(rid));
    }
    let mut r = Reader(body);
    let front = (
        r.byte(),
        r.array().map(u16::from_be_bytes),
        r.byte().and_then(Packing::from_code),
        r.array::<NONCE>(),
    );
    let (Some(SUITE), Some(generation), Some(packing), Some(nonce)) = front else {
        // Even an erased row keeps its form: anything else is damage.
        return Err(damaged);
    };
    let key = match vault.open_key(slot, generation, rid) {
        Ok(key) => key,
        Err(VaultError::Destroyed) => return Err(ReadError::Erased(rid)),
        Err(_) => return Err(damaged),
    };
    let mut sealed = r.0.to_vec();
    let associated = [SUITE, packing as u8];
    let text = key
        .open(place(rid, &associated), &nonce, &mut sealed)
        .map_err(|_| damaged.clone())?;
    let row = parse(rid, packing, text).ok_or(damaged)?;
    Ok(Row {
        slot,
        header: row.header,
        text: row.payload,
        cuts: row.cuts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_hides_lengths_in_few_classes() {
        for (length, want) in [
            (0, 32),
            (1, 32),
            (32, 32),
            (33, 64),
            (1000, 1024),
            (1024, 1024),
            (1025, 1088),
            (9000, 9216),
        ] {
            assert_eq!(padded(length), want, "{length}");
        }
        let mut classes: Vec<usize> = (0..100_000).map(padded).collect();
        classes.dedup();
        assert!(classes.len() < 170, "{}", classes.len());
        assert!((1..100_000).all(|n| padded(n) >= n && padded(n) <= n + n / 8 + 32 && padded(padded(n)) == padded(n)));
    }

    #[test]
    fn headers_come_back() {
        for id in [
            "a",
            "",
            "0123-4",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c",
            &"x".repeat(64),
        ] {
            for (last_updated, prev) in [(0, 0), (1_700_000_000_123, 41), (-1, 1), ((1 << 47) - 1, 41)] {
                let header = Header {
                    kind: Kind::Version,
                    type_code: 0x8001,
                    id: id.to_owned(),
                    version: 7,
                    prev,
                    last_updated,
                };
                let body = Body::compress(b"{}");
                let mut text = plaintext(42, &header, &[5, 9], &body.text);
                text.resize(padded(text.len()), 0);
                let row = parse(42, body.text.packing, &text).unwrap();
                assert_eq!(
                    (row.header, row.cuts, row.payload),
                    (header, vec![5, 9], b"{}".to_vec())
                );
            }
        }
    }
}
