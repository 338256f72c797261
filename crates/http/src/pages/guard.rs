//! What stands around every page: where a request may come from, and the headers of every answer (APP-2, APP-3, CRY-9).

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// No inline script or style, nothing from elsewhere, no frames, forms only to ourselves; scripts cannot write HTML.
pub const CSP: &str = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; form-action 'self'; \
                       base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 8] = [
    (header::CONTENT_SECURITY_POLICY, CSP),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), microphone=(), geolocation=(), payment=(), usb=(), display-capture=(), browsing-topics=()",
    ),
    (HeaderName::from_static("x-permitted-cross-domain-policies"), "none"),
];

/// Adds the headers; an answer that says nothing about caching is never stored, by the browser or anything between.
pub fn protect(answer: &mut Response) {
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// Whether the request was made by a page of ours (or, for GET, typed or followed as a link).
///
/// Browsers say so themselves in `Sec-Fetch-Site` and no script can forge it; one that does not send it must send an
/// `Origin` equal to the `Host`. This comes before, and does not replace, the token in every form.
#[must_use]
pub fn made_by_us(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let site = text("sec-fetch-site");
    if matches!(*method, Method::GET | Method::HEAD) {
        // Another site may link to a page, not load one as an image, a frame or a script.
        return match site {
            None | Some("same-origin" | "none") => true,
            Some(_) => text("sec-fetch-mode") == Some("navigate") && text("sec-fetch-dest") == Some("document"),
        };
    }
    match (site, text("origin"), text("host")) {
        (Some(site), ..) => site == "same-origin",
        (None, Some(origin), Some(host)) => {
            origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"))
                == Some(host)
        }
        _ => false,
    }
}

/// Equality that takes as long wherever the texts differ.
#[must_use]
pub fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && !a.is_empty() && a.bytes().zip(b.bytes()).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

/// Where a page asked for at a numeric loopback address is to be fetched instead: WebAuthn needs a name, and cookies
/// then belong to one host only. `None` when it may be answered here.
#[must_use]
pub fn by_name(method: &Method, headers: &HeaderMap, uri: &Uri) -> Option<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let rest = host.strip_prefix("127.0.0.1").or_else(|| host.strip_prefix("[::1]"))?;
    let port = rest.strip_prefix(':').unwrap_or_default();
    if !port.chars().all(|c| c.is_ascii_digit()) || (!rest.is_empty() && port.is_empty()) {
        return None;
    }
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let to = format!("http://localhost{rest}{path}");
    let mut answer = StatusCode::TEMPORARY_REDIRECT.into_response();
    answer
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::try_from(to).ok()?);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn posts_come_from_our_own_pages() {
        for (pairs, expect) in [
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "same-site")], false),
            (
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "http://localhost:1"),
                    ("host", "localhost:1"),
                ],
                false,
            ),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("origin", "http://localhost:1"), ("host", "localhost:1")], true),
            (
                vec![("origin", "http://localhost:1.evil"), ("host", "localhost:1")],
                false,
            ),
            (vec![("origin", "http://localhost:2"), ("host", "localhost:1")], false),
            (vec![("origin", "null"), ("host", "localhost:1")], false),
            (vec![("host", "localhost:1")], false),
            (vec![], false),
        ] {
            assert_eq!(made_by_us(&Method::POST, &headers(&pairs)), expect, "{pairs:?}");
        }
    }

    #[test]
    fn other_sites_may_link_but_not_embed() {
        let cross = |mode, dest| {
            headers(&[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ])
        };
        assert!(made_by_us(&Method::GET, &cross("navigate", "document")));
        assert!(!made_by_us(&Method::GET, &cross("navigate", "iframe")));
        assert!(!made_by_us(&Method::GET, &cross("no-cors", "image")));
        assert!(made_by_us(&Method::GET, &headers(&[])));
    }

    #[test]
    fn numeric_loopback_goes_to_the_name() {
        let to = |host: &'static str, path: &str| {
            by_name(&Method::GET, &headers(&[("host", host)]), &path.parse().unwrap())
                .map(|r| r.headers()[header::LOCATION].to_str().unwrap().to_owned())
        };
        assert_eq!(
            to("127.0.0.1:8080", "/find?x=1").as_deref(),
            Some("http://localhost:8080/find?x=1")
        );
        assert_eq!(to("127.0.0.1", "/").as_deref(), Some("http://localhost/"));
        assert_eq!(to("[::1]:9", "/").as_deref(), Some("http://localhost:9/"));
        for host in [
            "localhost:8080",
            "clinic.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:80@evil.example",
            "127.0.0.1:",
        ] {
            assert_eq!(to(host, "/"), None, "{host}");
        }
        assert!(
            by_name(
                &Method::POST,
                &headers(&[("host", "127.0.0.1:1")]),
                &"/".parse().unwrap()
            )
            .is_none()
        );
    }

    #[test]
    fn tokens_compare() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd"));
        assert!(!same("abc", "ab"));
        assert!(!same("", ""));
    }
}
