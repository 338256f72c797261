//! The requests that leave this machine for identity providers: one connection each, bounded in time and size, verified by
//! the system's authorities, no redirects, no cookies, no proxy. Which addresses may be asked for `identity` decides.

use crate::remote::Place;
use anyhow::{Context as _, bail};
use keepwell_identity::BoxFuture;
use keepwell_identity::sso::{Call, Outbound, Reply, Unreachable};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// Longest answer that is read: a description, keys and tokens are a few kilobytes.
const ANSWER_MAX: usize = 256 << 10;
/// Longest wait for a whole answer, name look-up and handshake included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at a time; more are refused rather than queued.
const AT_ONCE: usize = 32;

/// The network.
pub struct Network(Semaphore);

impl Default for Network {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Outbound for Network {
    fn send<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Reply, Unreachable>> {
        Box::pin(async move {
            let _turn = self.0.try_acquire().map_err(|_| Unreachable)?;
            let failed = match tokio::time::timeout(PATIENCE, exchange(call)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(e)) => format!("{e:#}"),
                Err(_) => "it took too long".to_owned(),
            };
            // Without the address: what follows its host may be a secret.
            tracing::warn!(why = failed, "an identity provider could not be asked");
            Err(Unreachable)
        })
    }
}

async fn exchange(call: Call<'_>) -> anyhow::Result<Reply> {
    let place = Place::new(call.url, None)?;
    let body = call.form.unwrap_or_default();
    let (method, more) = match call.form {
        Some(form) => (
            "POST",
            format!(
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
                form.len()
            ),
        ),
        None => ("GET", String::new()),
    };
    let message = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nUser-Agent: keepwell\r\n\
         {more}Connection: close\r\n\r\n{body}",
        place.path, place.host,
    );
    let stream = TcpStream::connect(&place.address).await.context("no connection")?;
    match place.tls {
        Some((name, config)) => {
            let connector = TlsConnector::from(config);
            let wire = connector.connect(name, stream).await.context("not verified")?;
            talk(wire, message.as_bytes()).await
        }
        None => talk(stream, message.as_bytes()).await,
    }
}

async fn talk(mut wire: impl AsyncRead + AsyncWrite + Unpin, message: &[u8]) -> anyhow::Result<Reply> {
    wire.write_all(message).await?;
    wire.flush().await?;
    let mut raw = Vec::new();
    loop {
        let ended = wire.read_buf(&mut raw).await? == 0;
        if let Some(reply) = parsed(&raw, ended)? {
            return Ok(reply);
        }
        if ended {
            bail!("the answer broke off");
        }
        if raw.len() > ANSWER_MAX {
            bail!("the answer is too long");
        }
    }
}

/// The answer in `raw`; `None` while it is not whole.
fn parsed(raw: &[u8], ended: bool) -> anyhow::Result<Option<Reply>> {
    let Some(at) = raw.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, rest) = (raw.get(..at).unwrap_or_default(), raw.get(at + 4..).unwrap_or_default());
    let head = std::str::from_utf8(head).context("the answer is not HTTP")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .filter(|l| l.starts_with("HTTP/1."))
        .and_then(|l| l.split(' ').nth(1))
        .and_then(|s| s.parse::<u16>().ok())
        .context("the answer is not HTTP")?;
    let (mut length, mut chunked, mut max_age_s) = (None, false, None);
    for (name, value) in lines.filter_map(|l| l.split_once(':')) {
        let value = value.trim().to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.parse::<usize>().context("a bad length")?),
            "transfer-encoding" if value == "chunked" => chunked = true,
            "transfer-encoding" | "content-encoding" if value != "identity" => {
                bail!("an encoding that was not asked for")
            }
            "cache-control" => {
                for part in value.split(',').map(str::trim) {
                    if part == "no-store" || part == "no-cache" {
                        max_age_s = Some(0);
                    } else if let Some(age) = part.strip_prefix("max-age=") {
                        max_age_s = max_age_s.or(age.trim_matches('"').parse().ok());
                    }
                }
            }
            _ => {}
        }
    }
    let body = match (chunked, length) {
        (true, Some(_)) => bail!("a length beside chunks"),
        (true, None) => unchunked(rest)?,
        (false, Some(n)) => rest.get(..n).map(<[u8]>::to_vec),
        (false, None) => ended.then(|| rest.to_vec()),
    };
    Ok(body.map(|body| Reply {
        status,
        max_age_s,
        body,
    }))
}

/// A body that came in chunks; `None` while it is not whole.
fn unchunked(mut rest: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(at) = rest.windows(2).position(|w| w == b"\r\n") else {
            return Ok(None);
        };
        let line = std::str::from_utf8(rest.get(..at).unwrap_or_default())?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).context("a bad chunk")?;
        if size == 0 {
            return Ok(Some(body));
        }
        if size > ANSWER_MAX {
            bail!("the answer is too long");
        }
        let from = at + 2;
        let Some(chunk) = rest.get(from..from + size) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        match rest.get(from + size..from + size + 2) {
            None => return Ok(None),
            Some(b"\r\n") => rest = rest.get(from + size + 2..).unwrap_or_default(),
            Some(_) => bail!("a bad chunk"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, ended: bool) -> Option<(u16, Option<i64>, String)> {
        let reply = parsed(text.as_bytes(), ended).unwrap()?;
        Some((reply.status, reply.max_age_s, String::from_utf8(reply.body).unwrap()))
    }

    #[test]
    fn an_answer_is_read_when_it_is_whole() {
        let by_length = "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=300\r\nContent-Length: 2\r\n\r\n{}";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n";
        let bare = "HTTP/1.1 302 Found\r\nCache-Control: no-store\r\n\r\n{}";
        assert_eq!(read(by_length, false), Some((200, Some(300), "{}".into())));
        assert_eq!(read(chunked, false), Some((200, None, "{}".into())));
        assert_eq!(read(bare, true), Some((302, Some(0), "{}".into())));
        assert_eq!(read(bare, false), None);
        for n in 0..by_length.len() {
            assert_eq!(read(&by_length[..n], false), None);
        }
        for n in 0..chunked.len() - 4 {
            assert_eq!(read(&chunked[..n], true), None);
        }
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        for text in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(parsed(text.as_bytes(), true).is_err(), "{text}");
        }
    }
}
