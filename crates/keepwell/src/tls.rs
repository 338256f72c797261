//! Certificates: the local CA made by `init`, loading, renewal, expiry.

use anyhow::{Context as _, bail};
use keepwell_http::CertificateEnd;
use keepwell_model::time::{Clock, Timestamp, days_from_civil, days_in_month};
use parking_lot::{Mutex, RwLock};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;

/// Makes a local CA and a server certificate for `name` in `dir`: `ca.pem`, `server.pem`, `server.key`. The CA's key
/// is not kept: nobody can sign with it later.
///
/// # Errors
/// The files cannot be written.
pub fn make_local(dir: &Path, name: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::new(Vec::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, format!("Keepwell local CA of {name}"));
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key)?;
    let mut names = vec![name.to_owned()];
    for local in ["localhost", "127.0.0.1", "::1"] {
        if name != local {
            names.push(local.to_owned());
        }
    }
    let key = rcgen::KeyPair::generate()?;
    let mut server = rcgen::CertificateParams::new(names)?;
    server.distinguished_name.push(rcgen::DnType::CommonName, name);
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    server.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let certificate = server.signed_by(&key, &issuer)?;
    std::fs::write(dir.join("ca.pem"), ca_certificate.pem())?;
    std::fs::write(dir.join("server.pem"), certificate.pem())?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join("server.key"))?;
    file.write_all(key.serialize_pem().as_bytes())?;
    Ok(())
}

/// The certificate a server shows: read from its files, and again when they change.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    served: RwLock<Arc<CertifiedKey>>,
    ends: Arc<CertificateEnd>,
    /// Of the files last looked at, taken up or not.
    looked_at: Mutex<Option<[Stamp; 2]>>,
}

/// What changes when a file is written or replaced: device, inode, size, and the times of content and of the inode.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

fn stamp(file: &Path) -> Option<Stamp> {
    let m = std::fs::metadata(file).ok()?;
    Some((
        m.dev(),
        m.ino(),
        m.size(),
        (m.mtime(), m.mtime_nsec()),
        (m.ctime(), m.ctime_nsec()),
    ))
}

impl Certificate {
    /// Loads certificate chain and key.
    ///
    /// # Errors
    /// The files cannot be read or do not fit together.
    pub fn load(chain: &Path, key: &Path) -> anyhow::Result<Self> {
        // Before reading: what is written meanwhile is seen as another stamp.
        let stamps = stamp(chain).zip(stamp(key)).map(<[Stamp; 2]>::from);
        let (served, ends) = read(chain, key)?;
        Ok(Self {
            chain: chain.to_owned(),
            key: key.to_owned(),
            served: RwLock::new(Arc::new(served)),
            ends: Arc::new(CertificateEnd::new(ends)),
            looked_at: Mutex::new(stamps),
        })
    }

    /// The configuration of a server that shows it: TLS 1.3 and 1.2, forward secret suites only, hybrid key exchange
    /// preferred.
    ///
    /// # Errors
    /// The provider does not speak these versions.
    pub fn server(self: &Arc<Self>) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// When the first certificate of the chain to end ends.
    pub fn ends(&self) -> &Arc<CertificateEnd> {
        &self.ends
    }

    /// Takes up what lies in the files now, if they changed since the last look: `true` if another certificate is
    /// served from here on. What cannot be served leaves the one before in place, also where only one of the two files
    /// has been written so far.
    ///
    /// # Errors
    /// They changed, and do not fit together, cannot be read, or have ended. Told once for each change.
    pub fn renew(&self, now: Timestamp) -> anyhow::Result<bool> {
        let stamps = stamp(&self.chain).zip(stamp(&self.key)).map(<[Stamp; 2]>::from);
        let mut looked_at = self.looked_at.lock();
        if *looked_at == stamps {
            return Ok(false);
        }
        *looked_at = stamps;
        let (fresh, ends) = read(&self.chain, &self.key)?;
        if fresh.cert == self.served.read().cert {
            return Ok(false);
        }
        if ends <= now {
            bail!("`{}` has ended already", self.chain.display());
        }
        *self.served.write() = Arc::new(fresh);
        self.ends.set(ends);
        Ok(true)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.served.read()))
    }
}

/// Chain and key, which fit together, and when the first of the chain to end ends.
fn read(certificate: &Path, key: &Path) -> anyhow::Result<(CertifiedKey, Timestamp)> {
    let chain = chain(certificate)?;
    let ends = chain.iter().map(|c| not_after(c)).collect::<Option<Vec<_>>>();
    let ends = ends.and_then(|all| all.into_iter().min());
    let ends = ends.with_context(|| format!("`{}` is not a certificate of X.509", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read the certificate's key `{}`", key.display()))?;
    let served =
        CertifiedKey::from_der(chain, key, &default_provider()).context("certificate and key do not fit together")?;
    Ok((served, ends))
}

fn chain(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(file)
        .with_context(|| format!("cannot read the certificate `{}`", file.display()))?
        .collect::<Result<_, _>>()
        .with_context(|| format!("`{}` is not a PEM certificate chain", file.display()))?;
    if chain.is_empty() {
        bail!("`{}` holds no certificate", file.display());
    }
    Ok(chain)
}

/// Where Debian and its kin keep the certificates of public authorities.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A client's TLS configuration: servers are verified against the authorities of `ca`, or the system's.
///
/// # Errors
/// There are no authorities to trust.
pub fn client(ca: Option<&Path>) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let file = ca.unwrap_or(Path::new(SYSTEM_CA));
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(chain(file)?);
    if added == 0 {
        bail!("`{}` holds no certificate authority", file.display());
    }
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The end of a certificate's validity (RFC 5280 4.1.2.5); `None` when it is not a certificate. Whether it is a good one
/// is for those who connect to judge.
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    const SEQUENCE: u8 = 0x30;
    const EXPLICIT_VERSION: u8 = 0xa0;
    let (certificate, _) = der(certificate, SEQUENCE)?;
    let (mut to_be_signed, _) = der(certificate, SEQUENCE)?;
    if let Some((_, rest)) = der(to_be_signed, EXPLICIT_VERSION) {
        to_be_signed = rest;
    }
    // Serial number, signature algorithm, issuer; then the validity.
    let (_, rest) = der(to_be_signed, 0x02)?;
    let (_, rest) = der(rest, SEQUENCE)?;
    let (_, rest) = der(rest, SEQUENCE)?;
    let (validity, _) = der(rest, SEQUENCE)?;
    let (_, end) = time(validity)?;
    Some(time(end)?.0)
}

/// The content of the next value, which must have this tag, and what follows it.
fn der(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = input.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    if length < 0x80 {
        return rest.split_at_checked(usize::from(length));
    }
    // The long form: so many bytes of length, big-endian. No certificate needs more than four.
    let (bytes, rest) = rest
        .split_at_checked(usize::from(length & 0x7f))
        .filter(|(b, _)| b.len() <= 4)?;
    let length = bytes.iter().fold(0_usize, |n, b| (n << 8) | usize::from(*b));
    rest.split_at_checked(length)
}

/// A UTCTime (years 1950 to 2049) or GeneralizedTime in the one form that RFC 5280 allows, and what follows it.
fn time(input: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (text, rest, century) = match (der(input, 0x17), der(input, 0x18)) {
        (Some((text, rest)), _) => (text, rest, None),
        (None, Some((text, rest))) => {
            let (century, text) = text.split_first_chunk::<2>()?;
            (text, rest, Some(digits(century)?))
        }
        (None, None) => return None,
    };
    let (fields, []) = text.strip_suffix(b"Z")?.as_chunks::<2>() else {
        return None;
    };
    let [year, month, day, hour, minute, second] = fields else {
        return None;
    };
    let year = digits(year)?;
    let year = century.map_or(if year < 50 { 2000 } else { 1900 }, |c| c * 100) + year;
    let (month, day) = (u32::try_from(digits(month)?).ok()?, u32::try_from(digits(day)?).ok()?);
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let seconds = digits(hour)? * 3600 + digits(minute)? * 60 + digits(second)?;
    Some((
        Timestamp((days_from_civil(year, month, day) * 86_400 + seconds) * 1000),
        rest,
    ))
}

fn digits(pair: &[u8; 2]) -> Option<i64> {
    let [tens, ones] = pair.map(|b| b.is_ascii_digit().then(|| i64::from(b - b'0')));
    Some(tens? * 10 + ones?)
}

/// How often the certificate's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How many looks are between two words about an end that is near or past: a day.
const LOOKS_A_DAY: u32 = 24 * 60;

/// Serves a renewed certificate once it lies in its files, and tells the operator, at once and daily, when the end of
/// the one served is near or past. `asked` has the files looked at without waiting.
pub async fn watch(certificate: Arc<Certificate>, clock: Arc<dyn Clock>, mut asked: Signal) {
    let mut looks: u32 = 0;
    loop {
        match certificate.renew(clock.now()) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(ends = %certificate.ends().get(), "the renewed certificate is served from now on");
                looks = 0;
            }
            Err(e) => tracing::warn!(
                error = format!("{e:#}"),
                "the certificate's files changed and cannot be served: the one before stays"
            ),
        }
        if looks == 0 {
            tell(certificate.ends().get(), clock.now());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => looks = (looks + 1) % LOOKS_A_DAY,
            _ = asked.recv() => {}
        }
    }
}

fn tell(ends: Timestamp, now: Timestamp) {
    let days = (ends.0 - now.0).div_euclid(86_400_000);
    if days < 0 {
        tracing::error!(ended = %ends, "the certificate has ended: clients refuse to connect until it is replaced");
    } else if days < keepwell_http::CERTIFICATE_WARNING_DAYS {
        tracing::warn!(days, ends = %ends, "the certificate ends soon: put a new one in its place");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn made(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["clinic.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        // On both sides of the year in which the form of dates changes.
        for (year, month, day) in [(2027, 2, 28), (2049, 12, 31), (2050, 1, 1), (4096, 1, 1)] {
            let end = days_from_civil(i64::from(year), u32::from(month), u32::from(day)) * 86_400_000;
            assert_eq!(
                not_after(&made(year, month, day)),
                Some(Timestamp(end)),
                "{year}-{month}-{day}"
            );
        }
    }

    /// A certificate with its key, in the files of that name.
    fn put(dir: &Path, year: i32) -> (PathBuf, PathBuf) {
        let mut params = rcgen::CertificateParams::new(vec!["clinic.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap();
        let files = (dir.join("server.pem"), dir.join("server.key"));
        std::fs::write(&files.0, chain.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    fn year(certificate: &Certificate) -> String {
        certificate
            .ends()
            .get()
            .to_string()
            .split('-')
            .next()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn only_what_can_be_served_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp(days_from_civil(2030, 1, 1) * 86_400_000);
        let (chain, key) = put(dir.path(), 2031);
        let served = Certificate::load(&chain, &key).unwrap();
        assert!(!served.renew(now).unwrap(), "nothing changed");
        let first_key = std::fs::read(&key).unwrap();
        put(dir.path(), 2032);
        let second_key = std::fs::read(&key).unwrap();
        // Half of a renewal: told once, and the one before stays.
        std::fs::write(&key, &first_key).unwrap();
        assert!(served.renew(now).is_err());
        assert!(!served.renew(now).unwrap(), "told once");
        assert_eq!(year(&served), "2031");
        // The other half.
        std::fs::write(&key, &second_key).unwrap();
        assert!(served.renew(now).unwrap());
        assert_eq!(year(&served), "2032");
        // Rubbish, nothing, one that has ended.
        std::fs::write(&chain, "nonsense").unwrap();
        assert!(served.renew(now).is_err());
        std::fs::remove_file(&chain).unwrap();
        assert!(served.renew(now).is_err());
        put(dir.path(), 2029);
        assert!(served.renew(now).is_err());
        assert_eq!(year(&served), "2032");
        put(dir.path(), 2033);
        assert!(served.renew(now).unwrap());
        assert_eq!(year(&served), "2033");
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let good = made(2027, 2, 28);
        for cut in 0..good.len() {
            assert_eq!(not_after(&good[..cut]), None, "cut at {cut}");
        }
        for at in 0..good.len().min(200) {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                // Another end, or none; never a panic.
                let _ = not_after(&bad);
            }
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
