//! The socket of a running installation: `DIR/socket`, mode 0600 in a 0700 directory; one JSON line each way.

use crate::ops::Op;
use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use std::future::Future;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

const NAME: &str = "socket";

/// Longest command line, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// A path to the socket that is short whatever the directory's: socket addresses end at 108 bytes.
fn short(dir: &std::fs::File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()))
}

/// Binds the socket; one left by a killed process is replaced (the directory's lock says that it is dead).
///
/// # Errors
/// The directory cannot be written.
pub fn bind(dir: &Path) -> anyhow::Result<UnixListener> {
    let folder = std::fs::File::open(dir)?;
    let path = dir.join(NAME);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).context("cannot replace the socket"),
    }
    let listener = UnixListener::bind(short(&folder)).context("cannot make the socket in the data directory")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers commands until dropped.
pub async fn serve<F, Fut>(listener: UnixListener, answer: F)
where
    F: Fn(Op) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = anyhow::Result<Value>> + Send,
{
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let (read, mut write) = stream.split();
            let mut line = String::new();
            let mut reader = tokio::io::BufReader::new(read.take(LINE_MAX));
            if reader.read_line(&mut line).await.is_err() {
                return;
            }
            let said = match serde_json::from_str::<Op>(&line) {
                Ok(op) => answer(op).await,
                Err(_) => Err(anyhow!(
                    "the running server does not know this command: it is another version"
                )),
            };
            let text = match said {
                Ok(v) => json!({ "ok": v }),
                Err(e) => json!({ "error": format!("{e:#}") }),
            };
            let _ = write.write_all(format!("{text}\n").as_bytes()).await;
        });
    }
}

/// Asks the running server; `None` where none runs.
///
/// # Errors
/// What the server says.
pub fn ask(dir: &Path, op: &Op) -> anyhow::Result<Option<Value>> {
    let Ok(folder) = std::fs::File::open(dir) else {
        return Ok(None);
    };
    let Ok(mut stream) = UnixStream::connect(short(&folder)) else {
        return Ok(None);
    };
    stream.write_all(format!("{}\n", serde_json::to_string(op)?).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .context("the running server did not answer")?;
    let said: Value = serde_json::from_str(&line).context("the running server stopped before it answered")?;
    match (said.get("ok"), said.get("error").and_then(Value::as_str)) {
        (Some(v), _) => Ok(Some(v.clone())),
        (None, Some(e)) => Err(anyhow!("{e}")),
        (None, None) => Err(anyhow!("the running server gave no answer")),
    }
}
