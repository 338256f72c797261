//! Cookies: HttpOnly, SameSite=Strict, for this host only; Lax is the one that must come back from an identity provider. Under TLS they carry the `__Host-` prefix and
//! `Secure` (RFC 6265bis 4.1.3.2), so that neither a subdomain nor a plain-HTTP page can set them; on loopback without
//! TLS the plain name is used, since browsers refuse the prefix there.

use crate::stage::STAGE_TTL_S;

/// What a cookie holds the secret of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A session. It has no lifetime of its own: the server decides when a session ends.
    Session,
    /// A sign-in under way.
    Stage,
    /// A device that completed a sign-in; it opens nothing, and only says whose tries count together.
    Device,
    /// A sign-in that is at an identity provider. It comes back with a link from there, hence `SameSite=Lax`; it opens
    /// nothing.
    Sso,
}

/// People whose secrets one device keeps: a workstation on a ward has many.
const DEVICE_PEOPLE: usize = 16;
/// A device is remembered for half a year.
const DEVICE_AGE_S: u32 = 180 * 24 * 60 * 60;

impl Kind {
    /// The cookie's name.
    #[must_use]
    pub fn name(self, tls: bool) -> &'static str {
        match (self, tls) {
            (Kind::Session, true) => "__Host-keepwell",
            (Kind::Session, false) => "keepwell",
            (Kind::Stage, true) => "__Host-keepwell-stage",
            (Kind::Stage, false) => "keepwell-stage",
            (Kind::Device, true) => "__Host-keepwell-device",
            (Kind::Device, false) => "keepwell-device",
            (Kind::Sso, true) => "__Host-keepwell-sso",
            (Kind::Sso, false) => "keepwell-sso",
        }
    }

    fn same_site(self) -> &'static str {
        match self {
            Kind::Sso => "Lax",
            Kind::Session | Kind::Stage | Kind::Device => "Strict",
        }
    }
}

/// The `Set-Cookie` value that hands a secret to the browser.
#[must_use]
pub fn set(kind: Kind, value: &str, tls: bool) -> String {
    let age = match kind {
        Kind::Device => format!("; Max-Age={DEVICE_AGE_S}"),
        Kind::Sso => format!("; Max-Age={STAGE_TTL_S}"),
        Kind::Session | Kind::Stage => String::new(),
    };
    format!(
        "{}={value}; Path=/; HttpOnly; SameSite={}{age}{}",
        kind.name(tls),
        kind.same_site(),
        if tls { "; Secure" } else { "" }
    )
}

/// The `Set-Cookie` value that removes the cookie.
#[must_use]
pub fn clear(kind: Kind, tls: bool) -> String {
    format!(
        "{}=; Path=/; HttpOnly; SameSite={}; Max-Age=0{}",
        kind.name(tls),
        kind.same_site(),
        if tls { "; Secure" } else { "" }
    )
}

/// The secret of that kind in a `Cookie` header. `None` also where the name stands twice: somebody has planted one.
#[must_use]
pub fn read(kind: Kind, header: &str, tls: bool) -> Option<&str> {
    let mut found = None;
    for pair in header.split(';') {
        let Some((n, value)) = pair.trim().split_once('=') else {
            continue;
        };
        if n == kind.name(tls) && found.replace(value).is_some() {
            return None;
        }
    }
    found.filter(|v| !v.is_empty())
}

/// The secrets in a device's cookie, one for each person who signed in there: no person's secret takes another's place.
pub(crate) fn devices(value: &str) -> impl Iterator<Item = &str> {
    let secret = |s: &&str| s.len() == 43 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    value.split('.').filter(secret)
}

/// The value of a device's cookie with one more secret; the oldest go.
#[must_use]
pub fn with_device(before: Option<&str>, new: &str) -> String {
    let mut all: Vec<&str> = before.map(|b| devices(b).collect()).unwrap_or_default();
    all.push(new);
    let over = all.len().saturating_sub(DEVICE_PEOPLE);
    all.drain(..over);
    all.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_for_this_host_and_out_of_reach_of_scripts() {
        assert_eq!(
            set(Kind::Session, "abc", true),
            "__Host-keepwell=abc; Path=/; HttpOnly; SameSite=Strict; Secure"
        );
        assert_eq!(
            set(Kind::Session, "abc", false),
            "keepwell=abc; Path=/; HttpOnly; SameSite=Strict"
        );
        assert_eq!(
            set(Kind::Sso, "abc", true),
            "__Host-keepwell-sso=abc; Path=/; HttpOnly; SameSite=Lax; Max-Age=300; Secure"
        );
        assert!(clear(Kind::Session, true).contains("Max-Age=0") && clear(Kind::Session, true).ends_with("; Secure"));
    }

    #[test]
    fn a_device_keeps_the_secrets_of_the_last_people_and_nothing_else() {
        let secret = |n: usize| format!("{n:a>43}");
        let mut value = with_device(Some("x.y; Path=/.\u{e9}"), &secret(0));
        assert_eq!(value, secret(0));
        for n in 1..DEVICE_PEOPLE + 3 {
            value = with_device(Some(&value), &secret(n));
        }
        let kept: Vec<String> = devices(&value).map(str::to_owned).collect();
        assert_eq!(kept, (3..DEVICE_PEOPLE + 3).map(secret).collect::<Vec<_>>());
    }

    #[test]
    fn reads_its_own_cookie_and_no_planted_one() {
        assert_eq!(read(Kind::Session, "a=1; keepwell=abc; b=2", false), Some("abc"));
        assert_eq!(read(Kind::Session, "keepwell=abc", true), None);
        assert_eq!(read(Kind::Session, "__Host-keepwell=abc", true), Some("abc"));
        assert_eq!(read(Kind::Session, "keepwell=mine; keepwell=planted", false), None);
        assert_eq!(
            read(Kind::Session, "xkeepwell=abc; Keepwell=abc; keepwell=", false),
            None
        );
        assert_eq!(read(Kind::Session, "", false), None);
        assert_eq!(read(Kind::Stage, "keepwell=abc; keepwell-device=d", false), None);
        assert_eq!(read(Kind::Device, "keepwell=abc; keepwell-device=d", false), Some("d"));
    }
}
