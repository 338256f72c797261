//! The text of a row, made ready before the writer sees it: attachments cut out, the rest compressed.
//!
//! Compression is zstd level 3 with a dictionary trained on synthetic data only (`data/README.md`), one frame per
//! resource: nothing of two patients is ever compressed together.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::cell::RefCell;
use std::sync::LazyLock;
use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};
use zstd::zstd_safe::CParameter;

/// Base64 strings longer than this become rows of their own.
const CUT_OVER: usize = 32 << 10;
/// The largest text a row may unpack to.
const TEXT_MAX: usize = 256 << 20;

/// How a payload is stored; the number is part of the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Packing {
    /// As it is.
    #[default]
    Plain = 0,
    /// zstd with dictionary 1.
    Dictionary1 = 1,
    /// zstd without a dictionary.
    Zstd = 255,
}

impl Packing {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Plain, Self::Dictionary1, Self::Zstd]
            .into_iter()
            .find(|p| *p as u8 == code)
    }
}

static DICTIONARY_1: &[u8] = include_bytes!("../data/dictionary-1.zdict");
static ENCODER: LazyLock<EncoderDictionary<'static>> = LazyLock::new(|| EncoderDictionary::copy(DICTIONARY_1, 3));
static DECODER: LazyLock<DecoderDictionary<'static>> = LazyLock::new(|| DecoderDictionary::copy(DICTIONARY_1));

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compressor() -> std::io::Result<Compressor<'static>> {
    let mut made = Compressor::with_prepared_dictionary(&ENCODER)?;
    // The row's header holds the length and the dictionary's number.
    made.set_parameter(CParameter::DictIdFlag(false))?;
    made.set_parameter(CParameter::ContentSizeFlag(false))?;
    Ok(made)
}

fn pack(text: &[u8]) -> Payload {
    let packed = COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = compressor().ok();
        }
        slot.as_mut()?.compress(text).ok()
    });
    match packed {
        Some(bytes) if bytes.len() < text.len() => Payload {
            packing: Packing::Dictionary1,
            length: text.len(),
            bytes,
        },
        _ => Payload {
            packing: Packing::Plain,
            length: text.len(),
            bytes: text.to_vec(),
        },
    }
}

fn pack_blob(data: Vec<u8>) -> Payload {
    match zstd::bulk::compress(&data, 3) {
        // Images and PDFs hardly shrink: a few per cent are not worth the time of every read.
        Ok(bytes) if bytes.len() < data.len() - data.len() / 16 => Payload {
            packing: Packing::Zstd,
            length: data.len(),
            bytes,
        },
        _ => Payload {
            packing: Packing::Plain,
            length: data.len(),
            bytes: data,
        },
    }
}

/// Undoes packing; `None` when the bytes do not unpack to exactly `length`.
pub(crate) fn unpack(packing: Packing, length: usize, bytes: &[u8]) -> Option<Vec<u8>> {
    if length > TEXT_MAX {
        return None;
    }
    let text = match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Zstd => zstd::bulk::decompress(bytes, length).ok()?,
        Packing::Dictionary1 => DECOMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = Decompressor::with_prepared_dictionary(&DECODER).ok();
            }
            slot.as_mut()?.decompress(bytes, length).ok()
        })?,
    };
    (text.len() == length).then_some(text)
}

/// Packed bytes and how to unpack them.
#[derive(Clone, Default)]
pub(crate) struct Payload {
    pub(crate) packing: Packing,
    pub(crate) length: usize,
    pub(crate) bytes: Vec<u8>,
}

/// A compressed text with its attachments cut out.
#[derive(Clone, Default)]
pub struct Body {
    pub(crate) text: Payload,
    /// Where in the remaining text each attachment belongs, and its decoded bytes.
    pub(crate) cuts: Vec<(usize, Payload)>,
}

impl Body {
    /// Cuts base64 strings over 32 KB out of a JSON text and compresses the rest.
    #[must_use]
    pub fn compress(text: &[u8]) -> Self {
        if text.len() <= CUT_OVER {
            return Self {
                text: pack(text),
                cuts: Vec::new(),
            };
        }
        let (rest, cuts) = cut(text);
        Self {
            text: pack(&rest),
            cuts: cuts.into_iter().map(|(at, data)| (at, pack_blob(data))).collect(),
        }
    }

    /// No text, for deletions and left rows.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// How many attachments were cut out.
    #[must_use]
    pub fn blobs(&self) -> usize {
        self.cuts.len()
    }
}

/// Takes long canonical base64 strings out of a JSON text; what is left has empty strings in their places.
fn cut(text: &[u8]) -> (Vec<u8>, Vec<(usize, Vec<u8>)>) {
    let mut rest = Vec::with_capacity(text.len().min(64 << 10));
    let mut cuts = Vec::new();
    let mut todo = text;
    while let Some(open) = todo.iter().position(|b| *b == b'"') {
        let (before, from) = todo.split_at(open + 1);
        rest.extend_from_slice(before);
        let length = string_length(from);
        let (string, after) = from.split_at(length.min(from.len()));
        match (string.len() > CUT_OVER).then(|| BASE64.decode(string)) {
            // The engine accepts the one canonical encoding only, so encoding gives the same characters back.
            Some(Ok(data)) => cuts.push((rest.len(), data)),
            _ => rest.extend_from_slice(string),
        }
        let (quote, after) = after.split_at(after.len().min(1));
        rest.extend_from_slice(quote);
        todo = after;
    }
    rest.extend_from_slice(todo);
    (rest, cuts)
}

/// The length of a JSON string's inside, up to its closing quote.
fn string_length(inside: &[u8]) -> usize {
    let mut escaped = false;
    inside
        .iter()
        .position(|b| {
            let end = *b == b'"' && !escaped;
            escaped = *b == b'\\' && !escaped;
            end
        })
        .unwrap_or(inside.len())
}

/// Puts attachments back: `cuts` are offsets into `text`, ascending, with the decoded bytes.
pub(crate) fn splice(text: &[u8], cuts: &[(usize, Vec<u8>)]) -> Option<Vec<u8>> {
    let more: usize = cuts.iter().map(|(_, data)| data.len().div_ceil(3) * 4).sum();
    let mut out = String::with_capacity(text.len() + more);
    let text = std::str::from_utf8(text).ok()?;
    let mut done = 0;
    for (at, data) in cuts {
        out.push_str(text.get(done..*at)?);
        BASE64.encode_string(data, &mut out);
        done = *at;
    }
    out.push_str(text.get(done..)?);
    Some(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(body: &Body) -> Vec<u8> {
        let text = unpack(body.text.packing, body.text.length, &body.text.bytes).unwrap();
        let cuts: Vec<_> = body
            .cuts
            .iter()
            .map(|(at, p)| (*at, unpack(p.packing, p.length, &p.bytes).unwrap()))
            .collect();
        splice(&text, &cuts).unwrap()
    }

    #[test]
    fn texts_come_back_byte_for_byte() {
        let photo: String = BASE64.encode(
            (0..60_000_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8)
                .collect::<Vec<_>>(),
        );
        let zeros = BASE64.encode(vec![0; 50_000]);
        let long = "x y".repeat(20_000);
        for (text, blobs) in [
            (String::new(), 0),
            (r#"{"resourceType":"Patient","id":"a"}"#.to_owned(), 0),
            (format!(r#"{{"a":"{photo}"}}"#), 1),
            (
                format!(r#"{{"a":"{photo}","b":["{zeros}","\"","é"],"c":"{photo}"}}"#),
                3,
            ),
            (format!(r#"{{"div":"{long}"}}"#), 0),
            (format!(r#"{{"a":"\"{photo}"}}"#), 0),
            (format!(r#"{{"a":"{}"}}"#, &photo[..photo.len() - 1]), 0),
            (format!(r#""{photo}"#), 1),
        ] {
            let body = Body::compress(text.as_bytes());
            assert_eq!(body.blobs(), blobs);
            assert_eq!(back(&body), text.as_bytes());
        }
    }

    #[test]
    fn a_wrong_length_does_not_unpack() {
        let body = Body::compress(br#"{"resourceType":"Patient","id":"abcdefgh","active":true}"#);
        assert_eq!(body.text.packing, Packing::Dictionary1);
        for wrong in [0, body.text.length - 1, body.text.length + 1, usize::MAX] {
            assert!(unpack(body.text.packing, wrong, &body.text.bytes).is_none());
        }
        for at in 0..body.text.bytes.len() {
            // Damage below the seal cannot happen; it must still not panic.
            let mut bytes = body.text.bytes.clone();
            bytes[at] ^= 0x55;
            let _ = unpack(body.text.packing, body.text.length, &bytes);
        }
    }
}
