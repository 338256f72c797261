//! Time-based one-time passwords (RFC 6238): six digits of HMAC-SHA-1 over steps of 30 seconds, as every authenticator
//! app makes them. The server's clock decides; one step either side is accepted, for phones that are a little wrong; a
//! step is good once (RFC 6238, 5.2).

use aws_lc_rs::hmac;
use keepwell_model::time::Timestamp;
use subtle::ConstantTimeEq as _;

use crate::secret::base32;

/// Length of a step in seconds.
pub const STEP_S: i64 = 30;
/// Steps either side of the present one that are accepted.
const WINDOW: i64 = 1;
/// Bytes of a secret: the length of the hash (RFC 4226, 4).
pub(crate) const SECRET_BYTES: usize = 20;

/// The step of an instant.
fn step(at: Timestamp) -> i64 {
    at.0.div_euclid(STEP_S * 1000)
}

/// The digits of a step (RFC 4226, 5.3).
fn digits(secret: &[u8], step: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag.last().copied().unwrap_or_default() & 0xf);
    let word = tag
        .get(offset..offset + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_be_bytes);
    format!("{:06}", (word & 0x7fff_ffff) % 1_000_000)
}

/// The code that an app shows now.
#[must_use]
pub fn code_at(secret: &[u8], at: Timestamp) -> String {
    digits(secret, step(at))
}

/// The first code that would be accepted now, or soon: whoever has just used one need not wait for the next.
pub(crate) fn unused_code(secret: &[u8], last_used: i64, at: Timestamp) -> String {
    digits(secret, step(at).max(last_used + 1))
}

/// The step whose code this is, if it is one of the window and later than `last_used`.
pub(crate) fn accepted_step(secret: &[u8], code: &str, last_used: i64, at: Timestamp) -> Option<i64> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let now = step(at);
    let mut found = None;
    // All of the window, whatever fits: the time says nothing.
    for step in now - WINDOW..=now + WINDOW {
        let fits: bool = digits(secret, step).as_bytes().ct_eq(code.as_bytes()).into();
        if fits && step > last_used {
            found = Some(step);
        }
    }
    found
}

/// The address that authenticator apps take from a QR code (Key Uri Format).
pub(crate) fn uri(site: &str, user: &str, secret: &[u8]) -> String {
    let plain = |text: &str| -> String {
        let keep = |c: char| {
            if c.is_ascii_alphanumeric() || "-._".contains(c) {
                c
            } else {
                '-'
            }
        };
        text.chars().map(keep).collect()
    };
    let (site, user) = (plain(site), plain(user));
    format!(
        "otpauth://totp/Keepwell-{site}:{user}?secret={}&issuer=Keepwell-{site}",
        base32(secret)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC: &[u8] = b"12345678901234567890";

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    #[test]
    fn the_vectors_of_rfc_6238() {
        // Appendix B gives eight digits; six are their end.
        for (seconds, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(code_at(RFC, at(seconds)), code[2..]);
        }
    }

    #[test]
    fn a_code_is_good_in_its_window_and_once() {
        let now = at(1_234_567_890);
        let step = step(now);
        for (n, good) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let code = digits(RFC, step + n);
            assert_eq!(accepted_step(RFC, &code, 0, now), good.then_some(step + n), "{n}");
        }
        let code = digits(RFC, step);
        assert_eq!(
            accepted_step(RFC, &format!("{} {}", &code[..3], &code[3..]), 0, now),
            Some(step)
        );
        assert_eq!(accepted_step(RFC, &code, step, now), None, "used");
        assert_eq!(
            accepted_step(RFC, &digits(RFC, step - 1), step, now),
            None,
            "older than the one used"
        );
        assert_eq!(unused_code(RFC, 0, now), digits(RFC, step));
        assert_eq!(unused_code(RFC, step, now), digits(RFC, step + 1));
        for wrong in ["", "0", "1234567", "abcdef"] {
            assert_eq!(accepted_step(RFC, wrong, 0, now), None);
        }
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a skipped case is told to the test run")]
    fn another_program_shows_the_same_codes() {
        use std::process::Command;
        if Command::new("oathtool").arg("--version").output().is_err() {
            println!("SKIPPED 1 oathtool is not installed (apt-get install oathtool)");
            return;
        }
        for n in 0..20_i64 {
            let secret: Vec<u8> = (0..SECRET_BYTES)
                .map(|i| (i as u8).wrapping_mul(37).wrapping_add(n as u8))
                .collect();
            let seconds = 1_700_000_000 + n * 1_234_567;
            let out = Command::new("oathtool")
                .args(["--totp", "-b", &base32(&secret), "-N", &format!("@{seconds}")])
                .output()
                .unwrap();
            assert_eq!(
                String::from_utf8_lossy(&out.stdout).trim(),
                code_at(&secret, at(seconds))
            );
        }
    }

    #[test]
    fn the_address_holds_what_an_app_needs_and_no_markup() {
        let text = uri("clinic.example", "a&b=\"c", RFC);
        assert_eq!(
            text,
            "otpauth://totp/Keepwell-clinic.example:a-b--c?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Keepwell-clinic.example"
        );
    }
}
