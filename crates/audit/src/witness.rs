//! A witness remembers the newest checkpoint it has seen of a log, outside the log's reach, and accepts a newer one only
//! with proof that nothing before has been changed (C2SP tlog-witness, the checking half of `add-checkpoint`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::Hash;
use crate::checkpoint::Checkpoint;
use crate::merkle::empty_root;
use crate::note::{MAX_NOTE, NoteError, VerifierKey};
use crate::proof::{HashReader, ProofError, root, verify_consistency};

/// The specification's limit on the lines of a consistency proof.
const MAX_PROOF: usize = 63;

/// Why a witness does not accept a checkpoint. Every one but `Malformed` calls for a person.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The request has not the right form.
    #[error("not an add-checkpoint request")]
    Malformed,
    /// The checkpoint is not accepted.
    #[error("the checkpoint is not accepted")]
    Note(#[source] NoteError),
    /// It is of another log.
    #[error("the checkpoint is of another log")]
    OtherLog,
    /// The log has become shorter.
    #[error("the log was rolled back: {known} entries were known, now there are {offered}")]
    Rollback {
        /// Size in the remembered checkpoint.
        known: u64,
        /// Size offered.
        offered: u64,
    },
    /// What was known is no longer the beginning of the log.
    #[error("the log's history was changed")]
    Fork(#[source] ProofError),
}

/// What a witness remembers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    latest: Option<Checkpoint>,
}

impl Witness {
    /// A witness that has seen this checkpoint; `None` trusts the first it is shown.
    #[must_use]
    pub fn new(latest: Option<Checkpoint>) -> Self {
        Self { latest }
    }

    /// The newest checkpoint accepted.
    #[must_use]
    pub fn latest(&self) -> Option<&Checkpoint> {
        self.latest.as_ref()
    }

    /// Accepts a newer checkpoint with its consistency proof, or keeps what it has.
    ///
    /// # Errors
    /// See [`WitnessError`].
    pub fn advance(&mut self, note: &[u8], trusted: &[VerifierKey], proof: &[Hash]) -> Result<(), WitnessError> {
        let offered = Checkpoint::open(note, trusted).map_err(WitnessError::Note)?;
        if let Some(known) = &self.latest {
            if known.origin != offered.origin {
                return Err(WitnessError::OtherLog);
            }
            if offered.size < known.size {
                return Err(WitnessError::Rollback {
                    known: known.size,
                    offered: offered.size,
                });
            }
            let grown = match known.size {
                // Every log begins with the empty one; there is nothing to prove.
                0 if proof.is_empty() && known.root == empty_root() => Ok(()),
                0 => Err(ProofError::Wrong),
                old => verify_consistency(old, offered.size, &known.root, &offered.root, proof),
            };
            grown.map_err(WitnessError::Fork)?;
        }
        self.latest = Some(offered);
        Ok(())
    }
}

/// Checks that the log behind `reader`, which has `size` entries, still begins with an outside checkpoint: the check
/// that finds a rolled-back directory and a history signed again with a stolen key.
///
/// # Errors
/// See [`WitnessError`].
pub fn check_outside<R: HashReader + ?Sized>(
    outside: &Checkpoint,
    origin: &str,
    size: u64,
    reader: &R,
) -> Result<(), WitnessError> {
    if outside.origin != origin {
        return Err(WitnessError::OtherLog);
    }
    if outside.size > size {
        return Err(WitnessError::Rollback {
            known: outside.size,
            offered: size,
        });
    }
    let now = root(reader, outside.size).map_err(WitnessError::Fork)?;
    if now == outside.root {
        Ok(())
    } else {
        Err(WitnessError::Fork(ProofError::Wrong))
    }
}

/// The body of an `add-checkpoint` request: the size the witness knows, the proof from there, the checkpoint.
#[must_use]
pub fn request(old: u64, proof: &[Hash], note: &str) -> String {
    let mut out = format!("old {old}\n");
    for hash in proof {
        out.push_str(&BASE64.encode(hash));
        out.push('\n');
    }
    out.push('\n');
    out.push_str(note);
    out
}

/// Reads the body of an `add-checkpoint` request: old size, proof, signed checkpoint.
///
/// # Errors
/// [`WitnessError::Malformed`].
pub fn parse_request(body: &[u8]) -> Result<(u64, Vec<Hash>, &str), WitnessError> {
    parse(body).ok_or(WitnessError::Malformed)
}

fn parse(body: &[u8]) -> Option<(u64, Vec<Hash>, &str)> {
    if body.len() > 2 * MAX_NOTE {
        return None;
    }
    let (head, note) = std::str::from_utf8(body).ok()?.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let digits = lines.next()?.strip_prefix("old ")?;
    let old: u64 = digits.parse().ok()?;
    if old.to_string() != digits {
        return None;
    }
    let mut proof = Vec::new();
    for line in lines {
        if proof.len() == MAX_PROOF {
            return None;
        }
        proof.push(BASE64.decode(line).ok()?.try_into().ok()?);
    }
    Some((old, proof, note))
}
