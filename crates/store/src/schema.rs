//! The database file: its tables, its settings, and the refusal of anything that is not exactly that.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::StoreError;

/// "KWL1" in the file's header.
const APPLICATION_ID: i64 = 0x4b57_4c31;
/// Format number of the tables below.
const FORMAT: u32 = 1;

/// How long a connection waits for another program's lock on the file.
pub(crate) const BUSY: Duration = Duration::from_secs(2);

/// Name and text of each table, by name. `STRICT`, so that no value has another type than its column's.
const TABLES: [(&str, &str); 4] = [
    (
        "checkpoint",
        "CREATE TABLE checkpoint(size INTEGER PRIMARY KEY, note BLOB NOT NULL, frontier BLOB NOT NULL) STRICT",
    ),
    (
        "leaf",
        "CREATE TABLE leaf(seq INTEGER PRIMARY KEY, entry BLOB NOT NULL, sealed BLOB) STRICT",
    ),
    (
        "meta",
        "CREATE TABLE meta(key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (
        "row",
        "CREATE TABLE row(rid INTEGER PRIMARY KEY, key_ref BLOB NOT NULL, body BLOB NOT NULL) STRICT",
    ),
];

/// How a connection is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Commits; created the file if need be.
    Write,
    /// Only copies the WAL into the database.
    Checkpoint,
    /// Only reads.
    Read,
    /// Only reads a file that nobody can change: a read-only medium without a WAL.
    Immutable,
}

/// A connection with this store's settings. Does not look at the tables.
pub(crate) fn connect(path: &Path, purpose: Use) -> Result<Connection, StoreError> {
    let flags = match purpose {
        Use::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Use::Checkpoint => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Use::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Use::Immutable => OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
    } | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = if purpose == Use::Immutable {
        Connection::open_with_flags(immutable_uri(path)?, flags)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    connection.busy_timeout(BUSY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // mmap would leave no read error to map to `Corrupt` (a fault kills the process) and escapes memory limits.
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", if purpose == Use::Write { -8192 } else { -4096 })?;
    Ok(connection)
}

/// Creates the tables in an empty file, or checks that they are what this program would have created.
pub(crate) fn prepare(connection: &Connection) -> Result<(), StoreError> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let fresh = tables == 0 && application == 0;
    // FULL while creating: the file is complete on the device before anything relies on it.
    connection.pragma_update(None, "synchronous", "FULL")?;
    if fresh {
        connection.pragma_update(None, "page_size", 4096)?;
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::ReadOnly);
    }
    if fresh {
        let all: Vec<&str> = TABLES.iter().map(|(_, sql)| *sql).collect();
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT",
            all.join("; ")
        ))?;
    }
    check(connection)?;
    // From here on the WAL is synced by `Store::sync`; SQLite itself syncs around checkpoints and WAL resets.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // A blanked body is overwritten in its page, not only unlinked.
    connection.pragma_update(None, "secure_delete", true)?;
    Ok(())
}

/// Checks that the file has this program's format and exactly its tables: no trigger, view or index slipped in.
pub(crate) fn check(connection: &Connection) -> Result<(), StoreError> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(StoreError::Corrupt("not a Keepwell database".to_owned()));
    }
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > FORMAT {
        return Err(StoreError::Newer { found, known: FORMAT });
    }
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?;
    let found: Vec<(String, Option<String>)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let same = found.len() == TABLES.len()
        && found
            .iter()
            .zip(TABLES)
            .all(|((name, sql), (n, s))| name == n && sql.as_deref() == Some(s));
    if same {
        Ok(())
    } else {
        Err(StoreError::Corrupt("its tables are not as created".to_owned()))
    }
}

/// Copies the WAL into the database in one of SQLite's modes: `PASSIVE` as far as it gets without waiting, `RESTART`
/// and `TRUNCATE` wholly. False when others stood in the way.
pub(crate) fn checkpoint(connection: &Connection, mode: &str) -> Result<bool, StoreError> {
    let busy: i64 = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0))?;
    Ok(busy == 0)
}

fn immutable_uri(path: &Path) -> Result<String, StoreError> {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::path::absolute(path)?;
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(uri, "%{byte:02x}");
        }
    }
    uri.push_str("?immutable=1");
    Ok(uri)
}
