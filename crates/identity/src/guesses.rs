//! Limits on guessing (IAM-7; NIST SP 800-63B-4, 3.2.2) that lock no owner out.
//!
//! Tries at one secret of one account share a pool. Ten are evaluated at once; each further one waits, twice as long as
//! the one before, at most an hour; after a hundred without a full sign-in no more are evaluated from there. A device
//! that has completed a sign-in has a pool of its own, so that a stranger who uses up the account's pool does not
//! keep the owner out on a known device; passkeys, which cannot be guessed, pass by all this. Tries are counted when they begin,
//! so that any number in parallel count as many. Names without an account are counted like others: nothing to learn.
//! A source address has a pool as well, an IPv6 network of 64 bits like one address.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashMap;
use keepwell_model::time::Timestamp;
use parking_lot::Mutex;

/// Tries evaluated without a wait.
const FREE: u32 = 10;
/// Most consecutive failures at one pool.
pub const FAILURES_MAX: u32 = 100;
/// The longest wait between two tries.
const WAIT_MAX_S: i64 = 60 * 60;
/// Failures of one source address in an hour, over all accounts: a clinic behind one address has many people.
const ADDRESS_MAX: u32 = 300;
/// Length of an address's hour.
const ADDRESS_WINDOW_MS: i64 = 60 * 60 * 1000;
/// Pools kept; beyond it the ones with the fewest failures are forgotten.
const POOLS_MAX: usize = 65_536;

/// What is guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Secret {
    /// The password.
    Password,
    /// A one-time code as second factor.
    Code,
}

/// Whose tries count together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pool {
    /// The account, or the name that was tried.
    pub(crate) user: String,
    /// At what.
    pub(crate) secret: Secret,
    /// The known device, or all unknown ones.
    pub(crate) device: Option<[u8; 32]>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    failures: u32,
    /// No try is evaluated before.
    next: i64,
}

#[derive(Clone, Copy, Default)]
struct Address {
    failures: u32,
    since: i64,
}

#[derive(Default)]
struct State {
    pools: HashMap<Pool, Count>,
    addresses: HashMap<String, Address>,
}

/// The counts.
#[derive(Default)]
pub(crate) struct Guesses(Mutex<State>);

impl Guesses {
    /// Whether a try may be evaluated now; if so it counts as failed until [`Guesses::right`] says otherwise.
    pub(crate) fn admit(&self, pool: &Pool, network: &str, now: Timestamp) -> bool {
        let network = &*source(network);
        let mut state = self.0.lock();
        let known_device = pool.device.is_some();
        let address = state.addresses.get(network).copied().unwrap_or_default();
        let fresh = now.0.saturating_sub(address.since) >= ADDRESS_WINDOW_MS;
        if !known_device && !fresh && address.failures >= ADDRESS_MAX {
            return false;
        }
        let count = state.pools.get(pool).copied().unwrap_or_default();
        if count.failures >= FAILURES_MAX || now.0 < count.next {
            return false;
        }
        let failures = count.failures + 1;
        let over = failures.saturating_sub(FREE);
        let wait_s = match over {
            0 if failures < FREE => 0,
            n => (1_i64 << n.min(12)).min(WAIT_MAX_S),
        };
        let next = now.0.saturating_add(wait_s * 1000);
        if state.pools.len() >= POOLS_MAX {
            forget_few(&mut state.pools);
        }
        state.pools.insert(pool.clone(), Count { failures, next });
        if !known_device {
            if state.addresses.len() >= POOLS_MAX {
                state.addresses.clear();
            }
            let (failures, since) = if fresh {
                (1, now.0)
            } else {
                (address.failures + 1, address.since)
            };
            state.addresses.insert(network.to_owned(), Address { failures, since });
        }
        true
    }

    /// The try was right: it does not count. Earlier failures stay until the whole sign-in is done.
    pub(crate) fn right(&self, pool: &Pool, network: &str) {
        let mut state = self.0.lock();
        if let Some(count) = state.pools.get_mut(pool) {
            count.failures = count.failures.saturating_sub(1);
            if count.failures < FREE {
                count.next = 0;
            }
        }
        let network = &*source(network);
        if let Some(address) = state.addresses.get_mut(network).filter(|_| pool.device.is_none()) {
            address.failures = address.failures.saturating_sub(1);
        }
    }

    /// A full sign-in of the user ends all counts.
    pub(crate) fn clear(&self, user: &str) {
        self.0.lock().pools.retain(|pool, _| pool.user != user);
    }
}

/// What counts as one source: whoever has one IPv6 address has all of its network (RFC 6177).
fn source(network: &str) -> Cow<'_, str> {
    let Ok(IpAddr::V6(v6)) = network.parse() else {
        return Cow::Borrowed(network);
    };
    match v6.to_canonical() {
        IpAddr::V4(v4) => Cow::Owned(v4.to_string()),
        IpAddr::V6(v6) => Cow::Owned(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).to_string()),
    }
}

/// Makes room: pools with few failures have little to remember.
fn forget_few(pools: &mut HashMap<Pool, Count>) {
    let before = pools.len();
    pools.retain(|_, count| count.failures >= FREE);
    if pools.len() == before {
        pools.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(user: &str, device: Option<u8>) -> Pool {
        Pool {
            user: user.into(),
            secret: Secret::Password,
            device: device.map(|d| [d; 32]),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn ten_at_once_then_growing_waits_and_never_more_than_a_hundred() {
        let guesses = Guesses::default();
        let stranger = pool("nurse-1", None);
        let at_once = (0..10_000).filter(|_| guesses.admit(&stranger, "", at(0))).count();
        assert_eq!(at_once, 10);
        let mut evaluated = at_once;
        let mut waits = Vec::new();
        let mut last = 0;
        // A try each second for six days.
        for second in 1..500_000 {
            if guesses.admit(&stranger, "", at(second)) {
                evaluated += 1;
                waits.push(second - last);
                last = second;
            }
        }
        assert_eq!(evaluated, FAILURES_MAX as usize);
        assert!(waits.windows(2).all(|w| w[0] <= w[1]), "{waits:?}");
        assert_eq!(waits.last(), Some(&WAIT_MAX_S));
    }

    #[test]
    fn a_stranger_does_not_use_up_the_tries_of_a_known_device() {
        let guesses = Guesses::default();
        while guesses.admit(&pool("nurse-1", None), "", at(0)) {}
        assert!(guesses.admit(&pool("nurse-1", Some(1)), "", at(0)));
        assert!(guesses.admit(&pool("nurse-2", None), "", at(0)));
    }

    #[test]
    fn a_right_try_does_not_count_and_a_sign_in_ends_all_counts() {
        let guesses = Guesses::default();
        let mine = pool("nurse-1", None);
        for _ in 0..1000 {
            assert!(guesses.admit(&mine, "10.0.0.1", at(0)));
            guesses.right(&mine, "10.0.0.1");
        }
        while guesses.admit(&mine, "10.0.0.1", at(0)) {}
        guesses.clear("nurse-1");
        assert!(guesses.admit(&mine, "10.0.0.1", at(0)));
    }

    #[test]
    fn one_address_cannot_try_many_accounts() {
        let guesses = Guesses::default();
        let tries = |address: &str, seconds| {
            (0..1000)
                .filter(|n| {
                    guesses.admit(
                        &pool(&format!("user-{address}-{seconds}-{n}"), None),
                        address,
                        at(seconds),
                    )
                })
                .count()
        };
        assert_eq!(tries("10.0.0.1", 0), ADDRESS_MAX as usize);
        assert_eq!(tries("10.0.0.1", 3599), 0);
        assert_eq!(tries("10.0.0.2", 0), ADDRESS_MAX as usize);
        assert_eq!(tries("10.0.0.1", 3600), ADDRESS_MAX as usize);
        assert!(
            guesses.admit(&pool("user", Some(1)), "10.0.0.2", at(1)),
            "known devices pass"
        );
    }

    /// Whoever has one IPv6 address has a whole network of them.
    #[test]
    fn the_addresses_of_one_network_count_together() {
        let guesses = Guesses::default();
        let tries = |network: &str| {
            (0..1000)
                .filter(|n| {
                    guesses.admit(
                        &pool(&format!("{network}-{n}"), None),
                        &format!("{network}{n:x}"),
                        at(0),
                    )
                })
                .count()
        };
        assert_eq!(tries("2001:db8:1:2::"), ADDRESS_MAX as usize);
        assert_eq!(tries("2001:db8:1:3::"), ADDRESS_MAX as usize);
        assert!(guesses.admit(&pool("a", None), "::ffff:10.0.0.1", at(0)));
        assert!(guesses.0.lock().addresses.contains_key("10.0.0.1"));
    }

    #[test]
    fn memory_is_bounded_and_what_matters_is_kept() {
        let guesses = Guesses::default();
        while guesses.admit(&pool("nurse-1", None), "", at(0)) {}
        for n in 0..POOLS_MAX + 10 {
            guesses.admit(&pool(&format!("x{n}"), None), &format!("{n}"), at(0));
        }
        assert!(guesses.0.lock().pools.len() <= POOLS_MAX);
        assert!(!guesses.admit(&pool("nurse-1", None), "", at(0)), "not forgotten");
    }
}
