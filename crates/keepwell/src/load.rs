//! `import`: finds, unpacks and loads, several Bundles at a time, with progress; a mark per file lets a second run go
//! on where the first was interrupted, and what is there already is left out in any case.

use crate::site::Site;
use crate::source::{self, Piece};
use anyhow::{Context as _, bail};
use keepwell_record::Imported;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// Bundles in work at a time: one per core and one waiting.
const AT_ONCE: usize = 3;

/// Refused resources told one by one; the rest are counted.
const TOLD: usize = 200;

/// What an import did.
#[derive(Debug, Default)]
pub struct Total {
    /// Resources written.
    pub written: u64,
    /// Resources that were there already.
    pub unchanged: u64,
    /// Resources refused.
    pub refused: u64,
    /// Bundles, lines or files with a fault that were not loaded.
    pub faulty: u64,
}

/// Where pieces go: into an open directory, or over the API.
pub trait Sink: Send + Sync + 'static {
    /// Loads one piece.
    fn load(&self, text: Vec<u8>) -> impl Future<Output = anyhow::Result<Imported>> + Send;
}

impl Sink for Site {
    async fn load(&self, text: Vec<u8>) -> anyhow::Result<Imported> {
        let ctx = self.job("import");
        self.door.import(&ctx, &text).await.map_err(|e| {
            let why: Vec<String> = e.issues.into_iter().map(|i| i.diagnostics).collect();
            anyhow::anyhow!(why.join("; "))
        })
    }
}

/// Loads all files; `tell` gets each refusal.
///
/// # Errors
/// A file cannot be read. Refused resources are no error here.
pub async fn files<S: Sink>(sink: &Arc<S>, paths: &[PathBuf], tell: impl Fn(&str)) -> anyhow::Result<Total> {
    let found = source::find(paths)?;
    let size: u64 = found
        .iter()
        .filter_map(|f| std::fs::metadata(f).ok())
        .map(|m| m.len())
        .sum();
    let bar = indicatif::ProgressBar::new(size);
    if let Ok(style) = indicatif::ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes} {msg} {elapsed_precise} ETA {eta_precise}",
    ) {
        bar.set_style(style);
    }
    let mut total = Total::default();
    let started = std::time::Instant::now();
    for file in found {
        let (send, mut receive) = tokio::sync::mpsc::channel::<Piece>(1);
        let path = file.clone();
        let reader =
            tokio::task::spawn_blocking(move || source::pieces(&path, |piece| Ok(send.blocking_send(piece).is_ok())));
        let mut running: VecDeque<tokio::task::JoinHandle<(PathBuf, u64, anyhow::Result<Imported>)>> = VecDeque::new();
        loop {
            let piece = if running.len() < AT_ONCE {
                receive.recv().await
            } else {
                None
            };
            if let Some(piece) = piece {
                let sink = Arc::clone(sink);
                running.push_back(tokio::spawn(async move {
                    let done = sink.load(piece.text).await;
                    (piece.file, piece.line, done)
                }));
                continue;
            }
            let Some(task) = running.pop_front() else { break };
            let (file, line, done) = task.await.context("an import task failed")?;
            note(&mut total, &file, line, done, &tell)?;
            let rate = total.written as f64 / started.elapsed().as_secs_f64().max(0.001);
            bar.set_message(format!("{} resources, {rate:.0}/s", total.written + total.unchanged));
        }
        reader.await.context("the reader failed")??;
        bar.inc(std::fs::metadata(&file).map(|m| m.len()).unwrap_or(0));
    }
    bar.finish_and_clear();
    Ok(total)
}

fn note(
    total: &mut Total,
    file: &std::path::Path,
    line: u64,
    done: anyhow::Result<Imported>,
    tell: &impl Fn(&str),
) -> anyhow::Result<()> {
    let place = if line == 0 {
        file.display().to_string()
    } else {
        format!("{}:{line}", file.display())
    };
    match done {
        Ok(i) => {
            total.written += u64::from(i.written);
            total.unchanged += u64::from(i.unchanged);
            if !i.refused.is_empty() {
                total.faulty += 1;
            }
            for (name, issues) in i.refused {
                total.refused += 1;
                if total.refused as usize > TOLD {
                    continue;
                }
                let why: Vec<String> = issues
                    .iter()
                    .map(|i| match &i.expression {
                        Some(e) => format!("{e}: {}", i.diagnostics),
                        None => i.diagnostics.clone(),
                    })
                    .collect();
                tell(&format!("{place}: {name}: {}", why.join("; ")));
            }
        }
        // Nothing more can be loaded: the log or the disk refuses.
        Err(e) if e.to_string().contains("recorded") || e.to_string().contains("stored") => bail!(e),
        Err(e) => {
            total.faulty += 1;
            tell(&format!("{place}: {e:#}"));
        }
    }
    Ok(())
}
