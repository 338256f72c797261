//! Certificates: the local CA made by `init`, loading, expiry.

use anyhow::{Context as _, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

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

/// The server's TLS configuration: TLS 1.3 and 1.2, forward secret suites only, hybrid key exchange preferred.
///
/// # Errors
/// The files cannot be read or do not fit together.
pub fn load(certificate: &Path, key: &Path) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .with_context(|| format!("cannot read the certificate `{}`", certificate.display()))?
        .collect::<Result<_, _>>()
        .with_context(|| format!("`{}` is not a PEM certificate chain", certificate.display()))?;
    if chain.is_empty() {
        bail!("`{}` holds no certificate", certificate.display());
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read the certificate's key `{}`", key.display()))?;
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("certificate and key do not fit together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
