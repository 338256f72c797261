//! The effects everything else takes as parameters: the system's clock and randomness.

use keepwell_model::time::{Clock, Entropy, EntropyUnavailable, Timestamp};
use std::time::{SystemTime, UNIX_EPOCH};

/// The system's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the system's clock"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Random numbers of the one cryptography provider, seeded by the kernel.
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyUnavailable> {
        aws_lc_rs::rand::fill(out).map_err(|_| EntropyUnavailable)
    }
}
