//! C2SP tlog-proof: one text file that proves one entry to somebody who has the log's public key and nothing else.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64 of the entry>
//! index <decimal>
//! <base64 hash>          the inclusion path, leaf to root
//!
//! <the signed checkpoint>
//! ```
//! The `extra` line, which the format leaves to its user, carries the entry, so that nothing else has to be fetched.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::Hash;
use crate::checkpoint::Checkpoint;
use crate::merkle::leaf_hash;
use crate::note::{MAX_NOTE, NoteError, VerifierKey};
use crate::proof::{HashReader, ProofError, inclusion, verify_inclusion};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// No tree of 2^64 leaves is higher.
const MAX_PATH: usize = 64;

/// What a proof file proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Position of the entry in the log.
    pub index: u64,
    /// Its public bytes.
    pub entry: Vec<u8>,
    /// The checkpoint that a trusted key signed.
    pub checkpoint: Checkpoint,
}

/// Why a proof file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofFileError {
    /// Not in the form of a proof file.
    #[error("not a proof file")]
    Malformed,
    /// It carries another entry than the one given, or none was given and it carries none.
    #[error("not the proof of this entry")]
    OtherEntry,
    /// Its checkpoint is not accepted.
    #[error("its checkpoint is not accepted")]
    Checkpoint(#[source] NoteError),
    /// Its path does not lead from the entry to the checkpoint's root.
    #[error("its path is not accepted")]
    Path(#[source] ProofError),
}

/// Makes the proof file of an entry.
///
/// # Errors
/// When the checkpoint is not one, or the reader does not know the hashes of that size.
pub fn make<R: HashReader + ?Sized>(
    reader: &R,
    index: u64,
    entry: &[u8],
    checkpoint: &[u8],
) -> Result<String, ProofFileError> {
    let parsed = Checkpoint::read_unverified(checkpoint).map_err(ProofFileError::Checkpoint)?;
    let path = inclusion(reader, index, parsed.size).map_err(ProofFileError::Path)?;
    // A damaged tile gives a path that leads nowhere: better no file than a wrong one.
    verify_inclusion(&leaf_hash(entry), index, parsed.size, &path, &parsed.root).map_err(ProofFileError::Path)?;
    let note = std::str::from_utf8(checkpoint).map_err(|_| ProofFileError::Malformed)?;
    let mut out = format!("{HEADER}\nextra {}\nindex {index}\n", BASE64.encode(entry));
    for hash in path {
        out.push_str(&BASE64.encode(hash));
        out.push('\n');
    }
    out.push('\n');
    out.push_str(note);
    Ok(out)
}

/// Checks a proof file with the log's public keys. The entry is the one given, or that of the `extra` line; when there are
/// both they must be the same.
///
/// # Errors
/// See [`ProofFileError`].
pub fn verify(file: &[u8], entry: Option<&[u8]>, trusted: &[VerifierKey]) -> Result<Proven, ProofFileError> {
    let (index, extra, path, note) = parse(file).ok_or(ProofFileError::Malformed)?;
    let entry = match (entry, extra) {
        (Some(given), Some(extra)) if given != extra => return Err(ProofFileError::OtherEntry),
        (given, extra) => given.map(<[u8]>::to_vec).or(extra).ok_or(ProofFileError::OtherEntry)?,
    };
    let checkpoint = Checkpoint::open(note.as_bytes(), trusted).map_err(ProofFileError::Checkpoint)?;
    verify_inclusion(&leaf_hash(&entry), index, checkpoint.size, &path, &checkpoint.root)
        .map_err(ProofFileError::Path)?;
    Ok(Proven {
        index,
        entry,
        checkpoint,
    })
}

type Parts<'a> = (u64, Option<Vec<u8>>, Vec<Hash>, &'a str);

fn parse(file: &[u8]) -> Option<Parts<'_>> {
    if file.len() > 2 * MAX_NOTE {
        return None;
    }
    let (head, note) = std::str::from_utf8(file).ok()?.split_once("\n\n")?;
    let mut lines = head.split('\n');
    if lines.next()? != HEADER {
        return None;
    }
    let mut line = lines.next()?;
    let mut extra = None;
    if let Some(text) = line.strip_prefix("extra ") {
        extra = Some(BASE64.decode(text).ok()?);
        line = lines.next()?;
    }
    let digits = line.strip_prefix("index ")?;
    let index: u64 = digits.parse().ok()?;
    if index.to_string() != digits {
        return None;
    }
    let mut path = Vec::new();
    for line in lines {
        if path.len() == MAX_PATH {
            return None;
        }
        path.push(BASE64.decode(line).ok()?.try_into().ok()?);
    }
    Some((index, extra, path, note))
}
