//! C2SP tlog-checkpoint: origin, tree size, root hash, one per line, in a signed note.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::Hash;
use crate::note::{self, CannotSign, NoteError, Signer, VerifierKey};

/// A commitment to a whole log: whoever holds it can check that a later log still contains this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log, unique in the world.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Merkle root over them.
    pub root: Hash,
    /// Further lines, kept as they are.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// A checkpoint without extension lines.
    #[must_use]
    pub fn new(origin: &str, size: u64, root: Hash) -> Self {
        Self {
            origin: origin.to_owned(),
            size,
            root,
            extensions: Vec::new(),
        }
    }

    /// The note text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root));
        for line in &self.extensions {
            out.push_str(line);
            out.push('\n');
        }
        out
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] for anything that [`Checkpoint::to_text`] would not write.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let text = text.strip_suffix('\n').ok_or(NoteError::Malformed)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoteError::Malformed);
        };
        let digits =
            !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if origin.is_empty() || !digits || extensions.iter().any(String::is_empty) {
            return Err(NoteError::Malformed);
        }
        let size = size.parse().map_err(|_| NoteError::Malformed)?;
        let root = BASE64.decode(root).map_err(|_| NoteError::Malformed)?;
        let root = root.try_into().map_err(|_| NoteError::Malformed)?;
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
            extensions,
        })
    }

    /// The signed note.
    ///
    /// # Errors
    /// When the key is not available.
    pub fn sign(&self, signer: &dyn Signer) -> Result<Vec<u8>, CannotSign> {
        note::sign(&self.to_text(), &[signer]).map(String::into_bytes)
    }

    /// Reads a signed note that at least one trusted key signed.
    ///
    /// # Errors
    /// See [`NoteError`].
    pub fn open(note: &[u8], trusted: &[VerifierKey]) -> Result<Self, NoteError> {
        let (text, _) = note::open(note, trusted)?;
        Self::parse(text)
    }

    /// Reads a signed note without checking who signed it.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn read_unverified(note: &[u8]) -> Result<Self, NoteError> {
        Self::parse(note::text(note)?)
    }
}
