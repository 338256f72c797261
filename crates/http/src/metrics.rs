//! Counters in the Prometheus text format, on a listener of their own. Labels are interactions and statuses, never
//! anything a request carried.

use crate::routes::{Interaction, ROUTES};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0, 10.0];

/// Requests by interaction and class of status, and their time.
pub struct Metrics {
    cells: Vec<Cell>,
    refused_tokens: AtomicU64,
}

#[derive(Default)]
struct Cell {
    by_class: [AtomicU64; 4],
    buckets: [AtomicU64; 9],
    micros: AtomicU64,
    count: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            cells: ROUTES.iter().map(|_| Cell::default()).collect(),
            refused_tokens: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Counts one request.
    pub fn count(&self, interaction: Interaction, status: u16, micros: u64) {
        let Some(cell) = ROUTES
            .iter()
            .position(|r| r.interaction == interaction)
            .and_then(|i| self.cells.get(i))
        else {
            return;
        };
        let class = usize::from(status / 100).saturating_sub(2).min(3);
        if let Some(c) = cell.by_class.get(class) {
            c.fetch_add(1, Ordering::Relaxed);
        }
        let seconds = micros as f64 / 1e6;
        if let Some(b) = BUCKETS
            .iter()
            .position(|limit| seconds <= *limit)
            .and_then(|i| cell.buckets.get(i))
        {
            b.fetch_add(1, Ordering::Relaxed);
        }
        cell.micros.fetch_add(micros, Ordering::Relaxed);
        cell.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request without a valid token.
    pub fn count_refused_token(&self) {
        self.refused_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// The text of `/metrics`; `gauges` are name, help and value of what others know.
    #[must_use]
    pub fn render(&self, gauges: &[(&str, &str, f64)]) -> String {
        let mut out = String::new();
        out.push_str("# HELP keepwell_requests_total FHIR requests by interaction and class of status.\n");
        out.push_str("# TYPE keepwell_requests_total counter\n");
        let mut seen = Vec::new();
        for (route, cell) in ROUTES.iter().zip(&self.cells) {
            if seen.contains(&route.interaction) {
                continue;
            }
            seen.push(route.interaction);
            for (class, n) in ["2xx", "3xx", "4xx", "5xx"].iter().zip(&cell.by_class) {
                let n = n.load(Ordering::Relaxed);
                if n > 0 {
                    let _ = writeln!(
                        out,
                        "keepwell_requests_total{{interaction=\"{:?}\",status=\"{class}\"}} {n}",
                        route.interaction
                    );
                }
            }
        }
        out.push_str("# HELP keepwell_request_seconds Time from the request's head to the answer's.\n");
        out.push_str("# TYPE keepwell_request_seconds histogram\n");
        seen.clear();
        for (route, cell) in ROUTES.iter().zip(&self.cells) {
            let count = cell.count.load(Ordering::Relaxed);
            if seen.contains(&route.interaction) || count == 0 {
                continue;
            }
            seen.push(route.interaction);
            let mut sum = 0;
            for (limit, n) in BUCKETS.iter().zip(&cell.buckets) {
                sum += n.load(Ordering::Relaxed);
                let _ = writeln!(
                    out,
                    "keepwell_request_seconds_bucket{{interaction=\"{:?}\",le=\"{limit}\"}} {sum}",
                    route.interaction
                );
            }
            let micros = cell.micros.load(Ordering::Relaxed) as f64 / 1e6;
            let _ = writeln!(
                out,
                "keepwell_request_seconds_bucket{{interaction=\"{0:?}\",le=\"+Inf\"}} {count}\nkeepwell_request_seconds_sum{{interaction=\"{0:?}\"}} {micros}\nkeepwell_request_seconds_count{{interaction=\"{0:?}\"}} {count}",
                route.interaction
            );
        }
        let _ = writeln!(
            out,
            "# HELP keepwell_refused_tokens_total Requests without a valid token.\n# TYPE keepwell_refused_tokens_total counter\nkeepwell_refused_tokens_total {}",
            self.refused_tokens.load(Ordering::Relaxed)
        );
        for (name, help, value) in gauges {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        out
    }
}
