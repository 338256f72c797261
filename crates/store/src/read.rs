//! Reading: a small pool of connections. A thread keeps to its own as long as it is free, so reads do not meet.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::error::StoreError;
use crate::record::{CheckpointRecord, EntryRef, RowRef};

/// Reading connections.
pub(crate) struct Pool {
    connections: Vec<Mutex<Connection>>,
}

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static THREAD: Cell<usize> = Cell::new(NEXT_THREAD.fetch_add(1, Ordering::Relaxed));
}

impl Pool {
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        Self {
            connections: connections.into_iter().map(Mutex::new).collect(),
        }
    }

    /// A free connection; waits for another reader, never for the writer, when all are in use.
    pub(crate) fn take(&self) -> Result<MutexGuard<'_, Connection>, StoreError> {
        let count = self.connections.len().max(1);
        let own = THREAD.with(Cell::get) % count;
        let (head, tail) = self
            .connections
            .split_at_checked(own)
            .unwrap_or((&[], &self.connections));
        if let Some(free) = tail.iter().chain(head).find_map(Mutex::try_lock) {
            return Ok(free);
        }
        tail.first().map(Mutex::lock).ok_or(StoreError::Missing)
    }
}

pub(crate) fn with_row<R>(
    connection: &Connection,
    rid: u64,
    read: impl FnOnce(RowRef<'_>) -> R,
) -> Result<Option<R>, StoreError> {
    // No row has a number that SQLite cannot hold.
    let Ok(number) = i64::try_from(rid) else {
        return Ok(None);
    };
    let mut statement = connection.prepare_cached("SELECT rid, key_ref, body FROM row WHERE rid = ?1")?;
    let mut rows = statement.query([number])?;
    match rows.next()? {
        Some(row) => Ok(Some(read(row_ref(row)?))),
        None => Ok(None),
    }
}

pub(crate) fn rows<E: From<StoreError>>(
    connection: &Connection,
    range: RangeInclusive<u64>,
    mut each: impl FnMut(RowRef<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let Some(range) = bounds(range) else {
        return Ok(());
    };
    let own = StoreError::from;
    let mut statement = connection
        .prepare_cached("SELECT rid, key_ref, body FROM row WHERE rid BETWEEN ?1 AND ?2 ORDER BY rid")
        .map_err(own)?;
    let mut rows = statement.query(range).map_err(own)?;
    while let Some(row) = rows.next().map_err(own)? {
        each(row_ref(row)?)?;
    }
    Ok(())
}

pub(crate) fn entries<E: From<StoreError>>(
    connection: &Connection,
    range: RangeInclusive<u64>,
    mut each: impl FnMut(EntryRef<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let Some(range) = bounds(range) else {
        return Ok(());
    };
    let own = StoreError::from;
    let mut statement = connection
        .prepare_cached("SELECT seq, entry, sealed FROM leaf WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq")
        .map_err(own)?;
    let mut rows = statement.query(range).map_err(own)?;
    while let Some(row) = rows.next().map_err(own)? {
        each(entry_ref(row).map_err(own)?)?;
    }
    Ok(())
}

pub(crate) fn last_rid(connection: &Connection) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT coalesce(max(rid), 0) FROM row")?;
    Ok(statement.query_row([], |row| unsigned(row, 0))?)
}

pub(crate) fn size(connection: &Connection) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT coalesce(max(seq) + 1, 0) FROM leaf")?;
    Ok(statement.query_row([], |row| unsigned(row, 0))?)
}

pub(crate) fn last_checkpoint(connection: &Connection) -> Result<Option<CheckpointRecord>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT size, note, frontier FROM checkpoint ORDER BY size DESC LIMIT 1")?;
    let record = statement
        .query_row([], |row| {
            Ok(CheckpointRecord {
                size: unsigned(row, 0)?,
                note: row.get(1)?,
                frontier: row.get(2)?,
            })
        })
        .optional()?;
    Ok(record)
}

pub(crate) fn checkpoints(connection: &Connection) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT size, note FROM checkpoint ORDER BY size")?;
    let rows = statement.query_map([], |row| Ok((unsigned(row, 0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn meta(connection: &Connection, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

pub(crate) fn all_meta(connection: &Connection) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT key, value FROM meta ORDER BY key")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let all: Vec<(String, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
    Ok(all
        .into_iter()
        .filter(|(key, _)| !key.starts_with(crate::DIRECTORY))
        .collect())
}

pub(crate) fn integrity(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let lines: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

fn row_ref<'a>(row: &'a Row<'_>) -> Result<RowRef<'a>, StoreError> {
    let blob = |i| {
        row.get_ref(i)
            .map_err(StoreError::from)
            .map(|value| value.as_blob().unwrap_or_default())
    };
    let key_ref = blob(1)?
        .try_into()
        .map_err(|_| StoreError::Corrupt("a row has no key reference".to_owned()))?;
    Ok(RowRef {
        rid: unsigned(row, 0)?,
        key_ref,
        body: blob(2)?,
    })
}

fn entry_ref<'a>(row: &'a Row<'_>) -> Result<EntryRef<'a>, rusqlite::Error> {
    Ok(EntryRef {
        seq: unsigned(row, 0)?,
        entry: row.get_ref(1)?.as_blob().unwrap_or_default(),
        sealed: row.get_ref(2)?.as_blob_or_null().unwrap_or_default(),
    })
}

/// The part of a range that SQLite's signed numbers can express; `None` when that is nothing.
fn bounds(range: RangeInclusive<u64>) -> Option<(i64, i64)> {
    let low = i64::try_from(*range.start()).ok()?;
    let high = i64::try_from(*range.end()).unwrap_or(i64::MAX);
    (low <= high).then_some((low, high))
}

/// A number that this store wrote, so it is not negative.
fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}
