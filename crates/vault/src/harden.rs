//! Keeps secrets of this process out of core dumps, debuggers and swap.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Hardens the process: not dumpable (also no attaching by others of the same user), no core files, memory locked as
/// it is touched where the limits allow. Returns what could not be done; call it first in `main`.
///
/// Memory is locked only without a limit on locked memory: under a limit every later allocation beyond it would fail.
#[must_use]
pub fn harden() -> Vec<&'static str> {
    let mut missed = Vec::new();
    if set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        missed.push("the process could not be made non-dumpable");
    }
    if setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .is_err()
    {
        missed.push("core dumps could not be switched off");
    }
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let free = getrlimit(Resource::Memlock).current.is_none() || setrlimit(Resource::Memlock, unlimited).is_ok();
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if !free || mlockall(flags).is_err() {
        missed.push("memory could not be locked: swap must be off or encrypted (or raise LimitMEMLOCK)");
    }
    missed
}
