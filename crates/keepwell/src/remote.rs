//! `import --url`: the same files over the API of a server, by a small HTTP/1.1 client (a connection for each Bundle).
//!
//! Over the network it speaks TLS only and verifies whom it speaks to: a token and records go to nobody else.

use crate::load::Sink;
use crate::tls;
use anyhow::{Context as _, bail};
use keepwell_model::outcome::Issue;
use keepwell_record::Imported;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest answer that is read.
const ANSWER_MAX: u64 = 256 << 20;
/// Longest wait for the server to take or give something.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where a request goes.
pub struct Place {
    /// Host and port to connect to.
    pub address: String,
    /// Host as the URL has it, for `Host`.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Whom the certificate must name, and by which authorities; `None` for plain HTTP to this machine.
    pub tls: Option<(ServerName<'static>, Arc<rustls::ClientConfig>)>,
}

/// A server that takes transactions.
pub struct Remote {
    place: Place,
    token: String,
}

/// A connection, in clear or not.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

impl Place {
    /// The place of an address. `ca` names the authorities that may vouch for it; otherwise the system's may.
    ///
    /// # Errors
    /// The URL is neither https nor one to this machine, or there are no authorities.
    pub fn new(url: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        if !url.chars().all(|c| c.is_ascii_graphic()) {
            bail!("an address has no spaces");
        }
        let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => bail!("an address begins with https:// (or, for this machine, http://)"),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                (name, port.parse::<u16>().context("the address has a bad port")?)
            }
            _ => (host, if secure { 443 } else { 80 }),
        };
        if !secure && !matches!(name, "127.0.0.1" | "localhost" | "[::1]") {
            bail!("nothing is sent in clear to another machine: use https://");
        }
        let tls = if secure {
            let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(bare).context("the address names no host")?;
            Some((name, tls::client(ca)?))
        } else {
            None
        };
        Ok(Self {
            address: format!("{name}:{port}"),
            host: host.to_owned(),
            path: format!("/{path}"),
            tls,
        })
    }
}

impl Remote {
    /// A server by its FHIR base. `ca` names the authorities that may vouch for it; otherwise the system's may.
    ///
    /// # Errors
    /// The URL is neither https nor one to this machine, or there are no authorities.
    pub fn new(url: &str, token: String, ca: Option<&Path>) -> anyhow::Result<Self> {
        if !token.chars().all(|c| c.is_ascii_graphic()) || token.is_empty() {
            bail!("the token file holds one token, without spaces");
        }
        let place = Place::new(url.trim_end_matches('/'), ca)?;
        Ok(Self { place, token })
    }

    fn connect(&self) -> anyhow::Result<Box<dyn Wire>> {
        let stream =
            TcpStream::connect(&self.place.address).with_context(|| format!("cannot reach {}", self.place.address))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Some((name, config)) = &self.place.tls else {
            return Ok(Box::new(stream));
        };
        let session = rustls::ClientConnection::new(Arc::clone(config), name.clone())?;
        let mut stream = rustls::StreamOwned::new(session, stream);
        // The handshake now, so that a server nobody vouches for is told from one that breaks off.
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).with_context(|| {
                format!(
                    "{} could not be verified, so nothing was sent to it",
                    self.place.address
                )
            })?;
        }
        Ok(Box::new(stream))
    }

    fn post(&self, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut wire = self.connect()?;
        write!(
            wire,
            "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/fhir+json\r\n\
             Prefer: return=minimal\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.place.path,
            self.place.host,
            self.token,
            body.len()
        )?;
        // A server may refuse before it has read everything: its answer counts.
        let written = wire.write_all(body).and_then(|()| wire.flush());
        let mut reader = BufReader::new(wire);
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() {
            written?;
        }
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .context("the server's answer is not HTTP")?;
        let mut length = None;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        let mut answer = Vec::new();
        reader
            .take(length.unwrap_or(ANSWER_MAX).min(ANSWER_MAX))
            .read_to_end(&mut answer)?;
        Ok((status, answer))
    }
}

/// A Bundle of anything as a transaction that keeps the ids of the source.
fn transaction(text: &[u8]) -> anyhow::Result<(Vec<u8>, u32)> {
    let given: Value = serde_json::from_slice(text).context("not JSON")?;
    let entries = match given.get("entry").and_then(Value::as_array) {
        Some(e) if given.get("resourceType").and_then(Value::as_str) == Some("Bundle") => e.clone(),
        _ => vec![json!({ "resource": given })],
    };
    let mut out = Vec::with_capacity(entries.len());
    for mut e in entries {
        let Some(resource) = e.get("resource") else { continue };
        let t = resource
            .get("resourceType")
            .and_then(Value::as_str)
            .context("an entry has no resourceType")?
            .to_owned();
        let id = resource.get("id").and_then(Value::as_str);
        let request = match (id, e.get("request").and_then(|r| r.get("ifNoneExist"))) {
            (Some(id), _) => json!({ "method": "PUT", "url": format!("{t}/{id}") }),
            (None, Some(c)) => json!({ "method": "POST", "url": t, "ifNoneExist": c }),
            (None, None) => json!({ "method": "POST", "url": t }),
        };
        if let Some(entry) = e.as_object_mut() {
            entry.insert("request".to_owned(), request);
        }
        out.push(e);
    }
    let n = u32::try_from(out.len()).unwrap_or(u32::MAX);
    Ok((
        serde_json::to_vec(&json!({ "resourceType": "Bundle", "type": "transaction", "entry": out }))?,
        n,
    ))
}

impl Sink for Remote {
    async fn load(&self, text: Vec<u8>) -> anyhow::Result<Imported> {
        tokio::task::block_in_place(|| {
            let (body, n) = transaction(&text)?;
            let (status, answer) = self.post(&body)?;
            if status == 200 {
                return Ok(Imported {
                    written: n,
                    ..Imported::default()
                });
            }
            let outcome: Value = serde_json::from_slice(&answer).unwrap_or_default();
            if status == 401 || status == 403 || status >= 500 {
                bail!("the server refuses ({status}); nothing of this Bundle was stored");
            }
            let refused = outcome
                .get("issue")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(|i| {
                    let place = i
                        .pointer("/expression/0")
                        .and_then(Value::as_str)
                        .unwrap_or("Bundle")
                        .to_owned();
                    let why = i.get("diagnostics").and_then(Value::as_str).unwrap_or_default();
                    (place, vec![Issue::error("invalid", why)])
                })
                .collect();
            Ok(Imported {
                refused,
                ..Imported::default()
            })
        })
    }
}
