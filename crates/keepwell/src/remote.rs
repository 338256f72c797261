//! `import --url`: the same files over the API of a server, by a small HTTP/1.1 client (one connection at a time).

use crate::load::Sink;
use anyhow::{Context as _, bail};
use keepwell_model::outcome::Issue;
use keepwell_record::Imported;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A server that takes transactions.
pub struct Remote {
    host: String,
    path: String,
    token: String,
}

impl Remote {
    /// A server by its FHIR base. Only plain HTTP to this machine is spoken; over the network, run `import` beside
    /// the server's data directory or put the files through a client with TLS.
    ///
    /// # Errors
    /// The URL is not one to loopback.
    pub fn new(url: &str, token: String) -> anyhow::Result<Self> {
        let Some(rest) = url.trim_end_matches('/').strip_prefix("http://") else {
            bail!("--url speaks plain HTTP to this machine only: http://127.0.0.1:PORT/fhir");
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let name = host.rsplit_once(':').map_or(host, |(h, _)| h);
        if !matches!(name, "127.0.0.1" | "localhost" | "[::1]") {
            bail!("a token and records are not sent in clear to another machine: use 127.0.0.1");
        }
        Ok(Self {
            host: host.to_owned(),
            path: format!("/{path}"),
            token,
        })
    }

    fn post(&self, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        let stream = TcpStream::connect(&self.host).with_context(|| format!("cannot reach {}", self.host))?;
        stream.set_read_timeout(Some(Duration::from_secs(300)))?;
        let mut out = &stream;
        write!(
            out,
            "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/fhir+json\r\n\
             Prefer: return=minimal\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.path,
            self.host,
            self.token,
            body.len()
        )?;
        out.write_all(body)?;
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .context("the server's answer is not HTTP")?;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
        }
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        Ok((status, body))
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
