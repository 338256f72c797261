//! Passwords (NIST SP 800-63B-4, 3.1.1): what is accepted, and how they are kept.
//!
//! Accepted is anything of 8 to 256 characters that is not common, not made of words that belong to the site or the
//! person, and not a repetition or a sequence. No composition rules, no expiry, no hints; every character counts, after
//! NFC normalisation, so that one text typed on two keyboards is one password. Eight is enough because no account has
//! a password alone: without a second factor it opens nothing.
//!
//! Kept is an Argon2id hash with its parameters and a salt of its own (CRY-7); weaker ones are raised at the next
//! sign-in. Hashing takes memory and time on purpose, so it runs beside the server's own threads, a few at once.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use keepwell_model::time::Entropy;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

/// Fewest characters, with a second factor.
pub const PASSWORD_MIN: usize = 8;
/// Most characters; all of them count.
pub const PASSWORD_MAX: usize = 256;
/// Passwords hashed at once: bounds the memory that strangers can make the server use.
const AT_ONCE: usize = 4;

/// The sorted union of two lists of common passwords, lower case; see NOTICE.
const COMMON: &[u8] = include_bytes!("../data/common-passwords.txt.zst");

static BLOCKLIST: LazyLock<Blocklist> = LazyLock::new(Blocklist::load);

/// Common passwords in one text with the places of its lines: half the memory of a set.
struct Blocklist {
    text: String,
    lines: Vec<u32>,
}

impl Blocklist {
    fn load() -> Self {
        let bytes = zstd::decode_all(COMMON).unwrap_or_default();
        let text = String::from_utf8(bytes).unwrap_or_default();
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0)
            .chain(starts)
            .filter(|at| *at < text.len())
            .filter_map(|at| u32::try_from(at).ok())
            .collect();
        Self { text, lines }
    }

    fn line(&self, at: u32) -> &str {
        let rest = self.text.get(at as usize..).unwrap_or_default();
        rest.split('\n').next().unwrap_or_default()
    }

    fn contains(&self, word: &str) -> bool {
        self.lines.binary_search_by(|at| self.line(*at).cmp(word)).is_ok()
    }
}

/// Why a password is not accepted, in a sentence for the person who chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    /// Fewer than [`PASSWORD_MIN`] characters.
    #[error("It is too short: use at least 8 characters. A few unrelated words make a good one.")]
    Short,
    /// More than [`PASSWORD_MAX`] characters.
    #[error("It is too long: use at most 256 characters.")]
    Long,
    /// On the list of common passwords, or one of them with a little added.
    #[error("It is one of the passwords that people use most, and so one of the first that is tried.")]
    Common,
    /// Made of the site's or the person's own names.
    #[error("It is made of names that belong to you, to this clinic or to this program: those are tried first.")]
    Named,
    /// One piece repeated.
    #[error("It repeats one short piece, which is easy to guess.")]
    Repeated,
    /// A run of neighbours in the alphabet, in numbers or on the keyboard.
    #[error("It is a run of neighbouring letters, numbers or keys, which is easy to guess.")]
    Sequence,
}

/// How good an accepted password is, in a sentence.
#[must_use]
pub fn strength(password: &str) -> &'static str {
    let chars: Vec<char> = normal(password).chars().collect();
    let different = {
        let mut sorted = chars.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len()
    };
    match (chars.len(), different) {
        (20.., 10..) => "Very strong: long, and of many different characters.",
        (15.., 8..) => "Strong. It is long enough to stand on its own.",
        (12.., 7..) => "Good. A word or two more would make it strong.",
        _ => "Fair: enough together with your second factor. Longer is better than more complicated.",
    }
}

/// Checks a password for an account; `words` are the names of the site and the person.
///
/// # Errors
/// [`Weakness`].
pub fn check(password: &str, words: &[&str]) -> Result<(), Weakness> {
    let text = normal(password);
    let length = text.chars().count();
    if length < PASSWORD_MIN {
        return Err(Weakness::Short);
    }
    if length > PASSWORD_MAX {
        return Err(Weakness::Long);
    }
    let lower = Zeroizing::new(text.to_lowercase());
    // `Summer2026!` is `summer` to whoever tries.
    let bare = lower.trim_matches(|c: char| !c.is_alphabetic());
    let mostly_bare = bare.chars().count() + 5 >= length && bare.chars().count() >= 4;
    if BLOCKLIST.contains(&lower) || (mostly_bare && BLOCKLIST.contains(bare)) {
        return Err(Weakness::Common);
    }
    if is_named(&lower, words) {
        return Err(Weakness::Named);
    }
    let chars: Zeroizing<Vec<char>> = Zeroizing::new(lower.chars().collect());
    if is_repeated(&chars) {
        return Err(Weakness::Repeated);
    }
    if is_sequence(&chars) {
        return Err(Weakness::Sequence);
    }
    Ok(())
}

/// What is left without the words of the site and the person, and without digits and signs, is too little.
fn is_named(lower: &str, words: &[&str]) -> bool {
    let mut parts: Vec<String> = std::iter::once(&"keepwell")
        .chain(words)
        .flat_map(|w| {
            let w = w.nfc().collect::<String>().to_lowercase();
            let pieces: Vec<String> = w.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect();
            std::iter::once(w).chain(pieces)
        })
        .filter(|w| w.chars().count() >= 3)
        .collect();
    parts.sort_by_key(|w| std::cmp::Reverse(w.len()));
    let mut rest = Zeroizing::new(lower.to_owned());
    for part in &parts {
        rest = Zeroizing::new(rest.replace(part.as_str(), "\u{0}"));
    }
    rest.contains('\u{0}') && rest.chars().filter(|c| c.is_alphabetic()).count() < PASSWORD_MIN
}

/// One piece of a few characters makes the whole.
fn is_repeated(chars: &[char]) -> bool {
    const PIECE: usize = 8;
    (1..=PIECE.min(chars.len() / 2)).any(|n| {
        let piece = chars.get(..n).unwrap_or_default();
        chars.chunks(n).all(|c| piece.starts_with(c))
    })
}

/// Nearly every character is the neighbour of the one before.
fn is_sequence(chars: &[char]) -> bool {
    const ROWS: [&str; 4] = ["1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"];
    let next = |a: char, b: char| {
        let step = (b as i64) - (a as i64);
        let beside = |row: &str| {
            let place = |c| row.chars().position(|r| r == c);
            place(a).zip(place(b)).is_some_and(|(x, y)| x.abs_diff(y) == 1)
        };
        step.abs() == 1 || ROWS.iter().any(|row| beside(row))
    };
    let runs = chars.windows(2).filter(|w| matches!(w, [a, b] if next(*a, *b))).count();
    (runs + 1) * 10 >= chars.len() * 8
}

/// NFC: the same text from two keyboards is the same password.
fn normal(password: &str) -> Zeroizing<String> {
    Zeroizing::new(password.nfc().collect())
}

/// Parameters of Argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Cost {
    /// OWASP's first choice: 46 MiB, one pass.
    fn default() -> Self {
        Self {
            memory_kib: 47_104,
            passes: 1,
            lanes: 1,
        }
    }
}

impl Cost {
    fn params(self) -> Params {
        Params::new(self.memory_kib, self.passes, self.lanes, None).unwrap_or_default()
    }

    fn is_met_by(self, params: &Params) -> bool {
        params.m_cost() >= self.memory_kib && params.t_cost() >= self.passes && params.p_cost() >= self.lanes
    }
}

/// No hash could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a password cannot be hashed now")]
pub struct HashUnavailable;

/// Hashes and verifies, a few at once.
pub(crate) struct Hasher {
    cost: Cost,
    /// The hash of nothing anybody knows: verified for accounts that have no password or do not exist, so that they
    /// answer after the same work.
    dummy: String,
    places: Semaphore,
    evaluated: AtomicU64,
}

impl Hasher {
    pub(crate) fn new(cost: Cost, entropy: &dyn Entropy) -> Result<Self, HashUnavailable> {
        let mut secret = Zeroizing::new([0; 32]);
        entropy.fill(&mut *secret).map_err(|_| HashUnavailable)?;
        Ok(Self {
            cost,
            dummy: hash(cost, &*secret, &salt(entropy)?)?,
            places: Semaphore::new(AT_ONCE),
            evaluated: AtomicU64::new(0),
        })
    }

    /// How many passwords were compared with a hash.
    pub(crate) fn evaluated(&self) -> u64 {
        self.evaluated.load(Ordering::Relaxed)
    }

    /// The PHC string of a password or another secret that could be guessed.
    pub(crate) async fn hash(&self, secret: &str, entropy: &dyn Entropy) -> Result<String, HashUnavailable> {
        let (cost, secret, salt) = (self.cost, normal(secret), salt(entropy)?);
        self.run(move || hash(cost, secret.as_bytes(), &salt)).await?
    }

    /// Whether the secret fits the PHC string, or is compared with the dummy. The work is the same in each case.
    pub(crate) async fn verify(&self, secret: &str, phc: Option<&str>) -> Result<bool, HashUnavailable> {
        let known = phc.is_some();
        let (secret, phc) = (normal(secret), phc.unwrap_or(&self.dummy).to_owned());
        self.evaluated.fetch_add(1, Ordering::Relaxed);
        let fits = self
            .run(move || {
                PasswordHash::new(&phc)
                    .is_ok_and(|hash| Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok())
            })
            .await?;
        Ok(fits && known)
    }

    /// Whether a kept hash is weaker than today's.
    pub(crate) fn is_weak(&self, phc: &str) -> bool {
        let params = PasswordHash::new(phc).ok().and_then(|h| Params::try_from(&h).ok());
        params.is_none_or(|p| !self.cost.is_met_by(&p))
    }

    /// Runs beside the server's own threads, when a place is free.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, HashUnavailable> {
        let _place = self.places.acquire().await.map_err(|_| HashUnavailable)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| HashUnavailable)
    }
}

fn salt(entropy: &dyn Entropy) -> Result<[u8; 16], HashUnavailable> {
    let mut salt = [0; 16];
    entropy.fill(&mut salt).map_err(|_| HashUnavailable)?;
    Ok(salt)
}

fn hash(cost: Cost, secret: &[u8], salt: &[u8]) -> Result<String, HashUnavailable> {
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.params());
    let made: PasswordHash = hasher
        .hash_password_with_salt(secret, salt)
        .map_err(|_| HashUnavailable)?;
    Ok(made.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::Dice;

    fn accepts(password: &str) -> Result<(), Weakness> {
        check(password, &["harbour-clinic.example", "amara.okafor", "Dr Amara Okafor"])
    }

    #[test]
    fn length_is_the_one_rule_of_form() {
        for (password, expect) in [
            ("xkqvjwz", Err(Weakness::Short)),
            ("xkqvjwzb", Ok(())),
            ("quietly the herons leave", Ok(())),
            ("onlylowercaseletterz", Ok(())),
            ("пароль у синей двери", Ok(())),
            ("🦆🪴🚲🧵🎈🪁🧂🛶", Ok(())),
            ("🦆🪴🚲🧵🎈🪁🧂", Err(Weakness::Short)),
            ("        x y z q w e", Ok(())),
        ] {
            assert_eq!(accepts(password), expect, "{password}");
        }
        let long: String = ('a'..='z').chain('A'..='Z').cycle().step_by(7).take(256).collect();
        assert_eq!(accepts(&long), Ok(()));
        assert_eq!(accepts(&format!("{long}x")), Err(Weakness::Long));
    }

    #[test]
    fn every_common_password_is_refused() {
        let list = &*BLOCKLIST;
        assert_eq!(list.lines.len(), 40_101);
        for at in &list.lines {
            let word = list.line(*at);
            assert!(accepts(word).is_err(), "{word}");
        }
        assert!(!BLOCKLIST.contains("no such line of the list"));
    }

    #[test]
    fn what_everybody_tries_first_is_refused_with_its_reason() {
        for (password, expect) in [
            ("Password1!", Weakness::Common),
            ("PASSWORD", Weakness::Common),
            ("!!monkey99", Weakness::Common),
            ("Keepwell2026Keepwell", Weakness::Named),
            ("harbour-clinic", Weakness::Named),
            ("Amara1985Okafor", Weakness::Named),
            ("amara.okafor!", Weakness::Named),
            ("zkzkzkzkzkzkzk", Weakness::Repeated),
            ("abcdefghijklmnop", Weakness::Sequence),
            ("9876543210987", Weakness::Sequence),
            ("poiuytrewqasdfg", Weakness::Sequence),
        ] {
            assert_eq!(accepts(password), Err(expect), "{password}");
            assert!(expect.to_string().ends_with('.'), "a sentence");
        }
        assert_eq!(accepts("Amara feeds nine herons"), Ok(()));
    }

    #[tokio::test]
    async fn every_character_counts_and_one_text_is_one_password() {
        let dice = Dice::default();
        let hasher = Hasher::new(Cost::default(), &dice).unwrap();
        let long = format!("{}a", "é quite long ".repeat(18));
        let phc = hasher.hash(&long, &dice).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=47104,t=1,p=1$"), "{phc}");
        assert!(hasher.verify(&long, Some(&phc)).await.unwrap());
        // The last of 235 characters.
        let other = format!("{}b", long.strip_suffix('a').unwrap());
        assert!(!hasher.verify(&other, Some(&phc)).await.unwrap());
        // é as one character, and as e with an accent.
        let decomposed = long.replace('é', "e\u{301}");
        assert!(hasher.verify(&decomposed, Some(&phc)).await.unwrap());
        // The same password twice is two hashes.
        assert_ne!(hasher.hash(&long, &dice).await.unwrap(), phc);
    }

    #[tokio::test]
    async fn an_unknown_account_costs_the_same_work_and_never_fits() {
        let dice = Dice::default();
        let hasher = Hasher::new(Cost::default(), &dice).unwrap();
        assert!(!hasher.verify("anything", None).await.unwrap());
        assert_eq!(hasher.evaluated(), 1);
        let dummy = PasswordHash::new(&hasher.dummy).unwrap();
        assert_eq!(Params::try_from(&dummy).unwrap().m_cost(), Cost::default().memory_kib);
    }

    #[tokio::test]
    async fn a_weaker_hash_is_known_as_such() {
        let dice = Dice::default();
        let old = Cost {
            memory_kib: 19_456,
            passes: 1,
            lanes: 1,
        };
        let phc = Hasher::new(old, &dice).unwrap().hash("x", &dice).await.unwrap();
        assert!(Hasher::new(Cost::default(), &dice).unwrap().is_weak(&phc));
        assert!(!Hasher::new(old, &dice).unwrap().is_weak(&phc));
        assert!(Hasher::new(old, &dice).unwrap().is_weak("no hash"));
    }
}
