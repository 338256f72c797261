//! The session cookie: HttpOnly, SameSite=Strict, for this host only. Under TLS it carries the `__Host-` prefix and
//! `Secure` (RFC 6265bis 4.1.3.2), so that neither a subdomain nor a plain-HTTP page can set it; on loopback without
//! TLS the plain name is used, since browsers refuse the prefix there.

/// The cookie's name.
#[must_use]
pub fn name(tls: bool) -> &'static str {
    if tls { "__Host-keepwell" } else { "keepwell" }
}

/// The `Set-Cookie` value of a new session. It has no lifetime of its own: the server decides when a session ends.
#[must_use]
pub fn set(value: &str, tls: bool) -> String {
    format!(
        "{}={value}; Path=/; HttpOnly; SameSite=Strict{}",
        name(tls),
        if tls { "; Secure" } else { "" }
    )
}

/// The `Set-Cookie` value that removes the cookie.
#[must_use]
pub fn clear(tls: bool) -> String {
    format!(
        "{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{}",
        name(tls),
        if tls { "; Secure" } else { "" }
    )
}

/// The session's secret in a `Cookie` header. `None` also where the name stands twice: somebody has planted one.
#[must_use]
pub fn read(header: &str, tls: bool) -> Option<&str> {
    let mut found = None;
    for pair in header.split(';') {
        let Some((n, value)) = pair.trim().split_once('=') else {
            continue;
        };
        if n == name(tls) && found.replace(value).is_some() {
            return None;
        }
    }
    found.filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_for_this_host_and_out_of_reach_of_scripts() {
        assert_eq!(
            set("abc", true),
            "__Host-keepwell=abc; Path=/; HttpOnly; SameSite=Strict; Secure"
        );
        assert_eq!(set("abc", false), "keepwell=abc; Path=/; HttpOnly; SameSite=Strict");
        assert!(clear(true).contains("Max-Age=0") && clear(true).ends_with("; Secure"));
    }

    #[test]
    fn reads_its_own_cookie_and_no_planted_one() {
        assert_eq!(read("a=1; keepwell=abc; b=2", false), Some("abc"));
        assert_eq!(read("keepwell=abc", true), None);
        assert_eq!(read("__Host-keepwell=abc", true), Some("abc"));
        assert_eq!(read("keepwell=mine; keepwell=planted", false), None);
        assert_eq!(read("xkeepwell=abc; Keepwell=abc; keepwell=", false), None);
        assert_eq!(read("", false), None);
    }
}
