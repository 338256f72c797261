//! Sealed rows in SQLite. Cannot decrypt: it does not link the vault.
