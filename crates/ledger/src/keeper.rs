//! The keeper: fsyncs what waits in the write-ahead log within 50 ms, has the head signed, and keeps the newest
//! checkpoint in a file beside the database.

use crate::core::Core;
use crate::follower::Follower;
use crate::writer::Job;
use keepwell_vault::replace_file;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// How long an entry may wait in the write-ahead log for its fsync; the fsync itself comes on top.
const SYNC_WITHIN: Duration = Duration::from_millis(40);
/// How often the checkpoint file is written at most.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// What the writer tells the keeper.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Something in the write-ahead log is not fsynced.
    unsynced: bool,
    /// Something was written since the checkpoint file.
    newer: bool,
    stop: bool,
}

impl Signal {
    pub(crate) fn wrote(&self, fsynced: bool) {
        let mut state = self.state.lock();
        let wake = !state.newer || (!fsynced && !state.unsynced);
        state.newer = true;
        state.unsynced = !fsynced;
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }
}

/// The keeper's life.
pub(crate) fn run<F: Follower>(core: &Arc<Core<F>>, signal: &Signal, jobs: &Sender<Job<F>>) {
    let mut next_checkpoint = std::time::Instant::now() + CHECKPOINT_EVERY;
    loop {
        let unsynced = {
            let mut state = signal.state.lock();
            while !state.stop && !state.unsynced && !state.newer {
                signal.changed.wait(&mut state);
            }
            // Gather: whatever comes within the time shares the fsync.
            let until = std::time::Instant::now() + SYNC_WITHIN;
            while !state.stop && !signal.changed.wait_until(&mut state, until).timed_out() {}
            if state.stop {
                return;
            }
            std::mem::take(&mut state.unsynced)
        };
        if unsynced && let Err(e) = core.store.sync() {
            // The store accepts nothing from here on: every later append fails, nothing is disclosed.
            tracing::error!(error = %e, "audit entries could not be fsynced");
        }
        let now = std::time::Instant::now();
        if now >= next_checkpoint {
            next_checkpoint = now + CHECKPOINT_EVERY;
            signal.state.lock().newer = false;
            let (done, wait) = std::sync::mpsc::channel();
            let act = Box::new(move |log: &mut crate::writer::Log<F>| drop(done.send(log.sign_head())));
            if jobs.send(Job::Alone(act)).is_err() || wait.recv().is_err() {
                return;
            }
            write_checkpoint(core);
            crate::snapshot::when_due(core, jobs);
        }
    }
}

/// Writes the newest fsynced checkpoint beside the database and to its outside place.
pub(crate) fn write_checkpoint<F: Follower>(core: &Core<F>) {
    let head = core.head.read().clone();
    if head.note.is_empty() {
        return;
    }
    for path in std::iter::once(&core.config.dir.join("checkpoint")).chain(&core.config.checkpoint_copy) {
        if let Err(e) = replace_file(path, &head.note) {
            tracing::warn!(error = %e, "the checkpoint file could not be written");
        }
    }
}

/// Runs the keeper on a thread of its own.
pub(crate) fn spawn<F: Follower>(
    core: Arc<Core<F>>,
    signal: Arc<Signal>,
    jobs: Sender<Job<F>>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || run(&core, &signal, &jobs))
}
