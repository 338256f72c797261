//! Backup and restore of sealed bytes; never holds a key.
