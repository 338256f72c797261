//! The only code that joins keys, tree and rows: append, open, follow, snapshot, erase, verify.
