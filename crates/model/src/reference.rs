//! Literal references, and which of them lead to a resource of this server.
//!
//! A reference is local when it is relative (`Patient/1`, `Patient/1/_history/2`), or absolute with this server's own
//! service base in front. Everything that depends on where a reference leads asks [`Base`]: homes, redaction, the
//! index and the parsing of searches, so that they agree.
//!
//! Homes are a pure function of the log, so what counts as own may not change with a restart: neither the port nor
//! whether there is a certificate is looked at. See `docs/adr/0011-own-base.md`.

use crate::types::ResourceType;
use std::net::IpAddr;

/// The service base URL of this server, in every spelling that counts as its own: `http` or `https`, the name of the
/// site or of this machine (`localhost`, a loopback address), any port or none, and the path `/fhir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Name of the site, lower case.
    name: Box<str>,
}

/// The path of the FHIR API, with the slash that ends it.
const PATH: &str = "fhir/";

impl Base {
    /// The base of the site of that DNS name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_ascii_lowercase().into(),
        }
    }

    /// Where `reference` leads when it is to a resource of this server; a version is dropped. `urn:uuid:`, a contained
    /// `#x`, a search and every other server's URL lead elsewhere.
    #[must_use]
    pub fn local<'r>(&self, reference: &'r str) -> Option<(ResourceType, &'r str)> {
        relative(reference).or_else(|| relative(self.below(reference)?))
    }

    /// What follows this server's base in an absolute URL; `None` when the URL is not below it.
    #[must_use]
    pub fn below<'r>(&self, url: &'r str) -> Option<&'r str> {
        let (scheme, rest) = url.split_once("://")?;
        if !(scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")) {
            return None;
        }
        let (authority, path) = rest.split_once('/')?;
        let below = path.strip_prefix(PATH)?;
        self.is_own(authority).then_some(below)
    }

    /// `host`, `host:port`, `[address]` or `[address]:port` (RFC 3986 3.2); user information is nobody's.
    fn is_own(&self, authority: &str) -> bool {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let Some((address, rest)) = rest.split_once(']') else {
                    return false;
                };
                if !address.contains(':') {
                    return false;
                }
                match rest.strip_prefix(':') {
                    None if !rest.is_empty() => return false,
                    port => (address, port),
                }
            }
            None => match authority.split_once(':') {
                None => (authority, None),
                Some((host, port)) => (host, Some(port)),
            },
        };
        // An empty port is the scheme's own (RFC 3986 3.2.3).
        let number = |p: &str| p.is_empty() || p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok();
        port.is_none_or(number)
            && (host.eq_ignore_ascii_case(&self.name)
                || host.eq_ignore_ascii_case("localhost")
                || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
    }
}

/// `Type/id`, or `Type/id/_history/version`.
fn relative(text: &str) -> Option<(ResourceType, &str)> {
    let (name, rest) = text.split_once('/')?;
    let target = ResourceType::from_name(name)?;
    let (id, version) = match rest.split_once('/') {
        None => (rest, None),
        Some((id, tail)) => (id, Some(tail.strip_prefix("_history/")?)),
    };
    (is_id(id) && version.is_none_or(is_id)).then_some((target, id))
}

/// The `id` type of R4: `[A-Za-z0-9\-\.]{1,64}`.
#[must_use]
pub fn is_id(s: &str) -> bool {
    (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// References in the spellings that must and must not be this server's, for the tests of whatever follows references.
#[cfg(test)]
pub(crate) mod spellings {
    /// To `Patient/1` of the site `clinic.example`.
    pub(crate) const OWN: &[&str] = &[
        "Patient/1",
        "Patient/1/_history/2",
        "https://clinic.example/fhir/Patient/1",
        "http://clinic.example/fhir/Patient/1",
        "https://clinic.example:443/fhir/Patient/1",
        "https://clinic.example:8443/fhir/Patient/1",
        "http://clinic.example:65535/fhir/Patient/1",
        "https://clinic.example:/fhir/Patient/1",
        "HTTPS://Clinic.EXAMPLE/fhir/Patient/1",
        "hTTp://CLINIC.example:80/fhir/Patient/1",
        "https://clinic.example/fhir/Patient/1/_history/2",
        "https://clinic.example:8443/fhir/Patient/1/_history/2",
        "http://localhost/fhir/Patient/1",
        "http://LOCALHOST:8080/fhir/Patient/1",
        "http://127.0.0.1:40123/fhir/Patient/1",
        "https://127.0.0.1/fhir/Patient/1/_history/7",
        "http://127.1.2.3:80/fhir/Patient/1",
        "http://[::1]:8080/fhir/Patient/1",
        "http://[0:0::1]/fhir/Patient/1",
    ];

    /// To nobody here.
    pub(crate) const FOREIGN: &[&str] = &[
        "https://clinic.example.evil/fhir/Patient/1",
        "https://evil.clinic.example/fhir/Patient/1",
        "https://evilclinic.example/fhir/Patient/1",
        "https://clinic.example@evil/fhir/Patient/1",
        "https://clinic.example:443@evil/fhir/Patient/1",
        "https://evil@clinic.example/fhir/Patient/1",
        "https://evil:clinic.example/fhir/Patient/1",
        "https://clinic.example\\@evil/fhir/Patient/1",
        "https://clinic.example\\fhir/Patient/1",
        "https://clinic.example?/fhir/Patient/1",
        "https://clinic.example#/fhir/Patient/1",
        "https://clinic.example./fhir/Patient/1",
        "https://clinic.example%2f/fhir/Patient/1",
        "https://clinic%2eexample/fhir/Patient/1",
        "https://clinic.example:65536/fhir/Patient/1",
        "https://clinic.example:+80/fhir/Patient/1",
        "https://clinic.example:80:80/fhir/Patient/1",
        "https://clinic.example:8o/fhir/Patient/1",
        "https://clinic.example/Patient/1",
        "https://clinic.example/FHIR/Patient/1",
        "https://clinic.example/fhir2/Patient/1",
        "https://clinic.example/r4/fhir/Patient/1",
        "https://clinic.example//fhir/Patient/1",
        "https://clinic.example/fhir//Patient/1",
        "https://clinic.example/fhir/../fhir/Patient/1",
        "https://clinic.example/fhir/Patient/1/",
        "https://clinic.example/fhir/Patient/1?x",
        "https://clinic.example/fhir/Patient/1#x",
        "https://clinic.example/fhir/Patient/1/_history/",
        "https://clinic.example/fhir/Patient/1/x",
        "https://clinic.example/fhir/patient/1",
        "https://clinic.example/fhir/https://clinic.example/fhir/Patient/1",
        "https://evil/https://clinic.example/fhir/Patient/1",
        "https://evil/fhir/Patient/1?https://clinic.example/fhir/Patient/1",
        "ftp://clinic.example/fhir/Patient/1",
        " https://clinic.example/fhir/Patient/1",
        "//clinic.example/fhir/Patient/1",
        "clinic.example/fhir/Patient/1",
        "http://localhost.evil/fhir/Patient/1",
        "http://127.1/fhir/Patient/1",
        "http://128.0.0.1/fhir/Patient/1",
        "http://[::2]/fhir/Patient/1",
        "http://[::1/fhir/Patient/1",
        "http://[::1]x/fhir/Patient/1",
        "http://[clinic.example]/fhir/Patient/1",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(reference: &str) -> Option<(&'static str, String)> {
        let base = Base::new("Clinic.Example");
        base.local(reference).map(|(t, id)| (t.name(), id.to_owned()))
    }

    #[test]
    fn own_references_are_local_and_near_misses_are_not() {
        for text in spellings::OWN {
            assert_eq!(found(text), Some(("Patient", "1".to_owned())), "{text}");
        }
        for text in spellings::FOREIGN {
            assert_eq!(found(text), None, "{text}");
        }
        for text in [
            "",
            "Patient",
            "Patient/",
            "/Patient/1",
            "#1",
            "urn:uuid:1",
            "Patient/1?x",
            "Nobody/1",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn canonicals_lose_the_base_and_keep_the_rest() {
        let base = Base::new("clinic.example");
        let below = |url| base.below(url);
        assert_eq!(
            below("https://clinic.example/fhir/Questionnaire/q|3"),
            Some("Questionnaire/q|3")
        );
        assert_eq!(below("https://elsewhere/fhir/Questionnaire/q|3"), None);
        assert_eq!(below("Questionnaire/q|3"), None);
    }

    proptest! {
        /// The port and the scheme never matter; every other host does.
        #[test]
        fn only_the_host_decides(
            secure: bool,
            port in proptest::option::of(any::<u16>()),
            host in "[a-zA-Z0-9.-]{1,20}",
            id in "[A-Za-z0-9.-]{1,64}",
            version in proptest::option::of("[A-Za-z0-9.-]{1,64}"),
        ) {
            let url = |host: &str| {
                let port = port.map_or_else(String::new, |p| format!(":{p}"));
                let version = version.as_ref().map_or_else(String::new, |v| format!("/_history/{v}"));
                format!("http{}://{host}{port}/fhir/Patient/{id}{version}", if secure { "s" } else { "" })
            };
            let base = Base::new(&host);
            let patient = |text: &str| base.local(text).map(|(t, id)| (t.name(), id.to_owned()));
            let here = Some(("Patient", id.clone()));
            prop_assert_eq!(patient(&url(&host)), here.clone());
            prop_assert_eq!(patient(&url(&host.to_ascii_uppercase())), here);
            prop_assert_eq!(patient(&url(&format!("{host}x"))), None);
            prop_assert_eq!(patient(&url(&format!("x{host}"))), None);
            prop_assert_eq!(patient(&url(&format!("{host}@evil"))), None);
        }

        #[test]
        fn anything_is_taken_apart_without_a_fault(text: String) {
            let _ = Base::new("clinic.example").local(&text);
            let _ = Base::new("clinic.example").below(&format!("https://{text}"));
        }
    }
}
