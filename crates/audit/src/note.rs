//! C2SP signed-note: a text, a blank line, and signature lines `— name base64(key id, signature)`. Ed25519 only;
//! signatures of other kinds or by unknown keys are passed over, as the specification asks.

use std::fmt::Write as _;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::merkle::sha256;

/// Longest note that is looked at.
pub const MAX_NOTE: usize = 1 << 20;
/// Most signature lines that are looked at.
const MAX_SIGNATURES: usize = 100;
/// The signature type of Ed25519 in signed-note.
const ED25519_TYPE: u8 = 1;

/// Signs notes with an Ed25519 key that it never gives away.
pub trait Signer: Send + Sync {
    /// The key's name in notes: not empty, no white space, no plus sign.
    fn name(&self) -> &str;
    /// The public key.
    fn public_key(&self) -> [u8; 32];
    /// An RFC 8032 signature over `message`.
    ///
    /// # Errors
    /// When the key is not available (for instance the server has been sealed).
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], CannotSign>;
}

/// The signing key is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signing key is not available")]
pub struct CannotSign;

/// Why a note is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not in signed-note form.
    #[error("not a signed note")]
    Malformed,
    /// No signature by a trusted key.
    #[error("no signature by a trusted key")]
    Unsigned,
    /// A trusted key's signature line does not verify.
    #[error("a signature is wrong")]
    WrongSignature,
}

/// A trusted public key and its name, written `name+keyid+base64` (a "vkey").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    /// A key by name; `None` when the name may not be used in notes.
    #[must_use]
    pub fn new(name: &str, public: [u8; 32]) -> Option<Self> {
        let good = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
        good.then(|| Self {
            name: name.to_owned(),
            public,
        })
    }

    /// The key of a signer; `None` when its name may not be used in notes.
    #[must_use]
    pub fn of(signer: &dyn Signer) -> Option<Self> {
        Self::new(signer.name(), signer.public_key())
    }

    /// Reads `name+keyid+base64`; `None` when the form or the key id is wrong, or it is no Ed25519 key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '+');
        let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
        let key = BASE64.decode(key).ok()?;
        let (kind, public) = key.split_first()?;
        let key = Self::new(name, public.try_into().ok()?)?;
        let good = *kind == ED25519_TYPE && id.len() == 8 && id == hex(&key.id());
        good.then_some(key)
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// First four bytes of `SHA-256(name, "\n", type, public key)`.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.as_bytes(), b"\n", &[ED25519_TYPE], &self.public]);
        let (id, _) = hash.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        *id
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, hex(&self.id()), BASE64.encode(key))
    }
}

/// Signs `text`, which must end in a line feed and hold no other control character.
///
/// # Errors
/// When the text or the signer's name is not fit for a note (reported as [`CannotSign`]) or the key is not available.
pub fn sign(text: &str, signers: &[&dyn Signer]) -> Result<String, CannotSign> {
    if !is_text(text) {
        return Err(CannotSign);
    }
    let mut note = format!("{text}\n");
    for signer in signers {
        let key = VerifierKey::of(*signer).ok_or(CannotSign)?;
        let mut line = key.id().to_vec();
        line.extend_from_slice(&signer.sign(text.as_bytes())?);
        // Writing to a String cannot fail.
        let _ = writeln!(note, "— {} {}", key.name, BASE64.encode(line));
    }
    Ok(note)
}

/// Checks the form of a note and that at least one of `trusted` signed it; gives its text and the keys that did.
///
/// # Errors
/// See [`NoteError`]. A wrong signature by one trusted key refuses the note even when another one is right.
pub fn open<'a, 'k>(note: &'a [u8], trusted: &'k [VerifierKey]) -> Result<(&'a str, Vec<&'k VerifierKey>), NoteError> {
    let (text, lines) = split(note)?;
    let mut signed: Vec<&VerifierKey> = Vec::new();
    for (name, id, signature) in lines {
        let Some(key) = trusted.iter().find(|k| k.name == name && k.id() == id) else {
            continue;
        };
        if signed.contains(&key) {
            continue;
        }
        UnparsedPublicKey::new(&ED25519, key.public)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| NoteError::WrongSignature)?;
        signed.push(key);
    }
    if signed.is_empty() {
        Err(NoteError::Unsigned)
    } else {
        Ok((text, signed))
    }
}

/// The text of a note whose signatures are not looked at, only their form.
///
/// # Errors
/// [`NoteError::Malformed`].
pub fn text(note: &[u8]) -> Result<&str, NoteError> {
    Ok(split(note)?.0)
}

type Line<'a> = (&'a str, [u8; 4], Vec<u8>);

fn split(note: &[u8]) -> Result<(&str, Vec<Line<'_>>), NoteError> {
    if note.len() > MAX_NOTE {
        return Err(NoteError::Malformed);
    }
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
    // The text keeps its last line feed; the blank line's own is the separator.
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, signatures) = (note.get(..=at), note.get(at + 2..));
    let (Some(text), Some(signatures)) = (text, signatures) else {
        return Err(NoteError::Malformed);
    };
    let Some(signatures) = signatures.strip_suffix('\n') else {
        return Err(NoteError::Malformed);
    };
    if !is_text(text) {
        return Err(NoteError::Malformed);
    }
    let mut lines = Vec::new();
    for line in signatures.split('\n') {
        if lines.len() == MAX_SIGNATURES {
            return Err(NoteError::Malformed);
        }
        lines.push(signature_line(line).ok_or(NoteError::Malformed)?);
    }
    Ok((text, lines))
}

fn signature_line(line: &str) -> Option<Line<'_>> {
    let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
    let good = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
    let signature = BASE64.decode(signature).ok()?;
    let (id, signature) = signature.split_first_chunk::<4>()?;
    (good && !signature.is_empty()).then(|| (name, *id, signature.to_vec()))
}

fn is_text(text: &str) -> bool {
    text.len() <= MAX_NOTE && text.ends_with('\n') && !text.chars().any(|c| c != '\n' && c < ' ')
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}
