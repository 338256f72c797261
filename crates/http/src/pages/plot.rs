//! Plots drawn on the server as SVG: no script, prints, and every value is in a table beside it too.
//!
//! A plot is data (coordinates and labels); `templates/plot.html` writes it. Colour never carries meaning alone: a value
//! outside its band has a square mark, one inside a round one.

use super::read::Day;
use keepwell_model::time::civil_from_days;

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Day of the measurement.
    pub day: Day,
    /// The number.
    pub value: f64,
    /// What the pointer shows: value with unit and date.
    pub label: String,
}

/// A named line of samples, for example systolic pressure.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend; empty when the plot has one line.
    pub name: &'static str,
    /// In any order.
    pub samples: Vec<Sample>,
    /// The usual range, either side open.
    pub band: (Option<f64>, Option<f64>),
}

/// A mark at a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Horizontal place.
    pub x: String,
    /// Vertical place.
    pub y: String,
    /// Outside the band.
    pub outside: bool,
    /// Shown by the pointer.
    pub label: String,
}

/// A line with its marks, ready to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Name in the legend.
    pub name: &'static str,
    /// 1, 2, ... : the style sheet gives each a colour and a dash.
    pub number: usize,
    /// The `d` of an SVG path.
    pub path: String,
    /// The samples.
    pub marks: Vec<Mark>,
}

/// A shaded range.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// Upper edge.
    pub y: String,
    /// Height.
    pub height: String,
}

/// A label on an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Place along the axis.
    pub at: String,
    /// Text.
    pub text: String,
    /// `start`, `middle` or `end`.
    pub anchor: &'static str,
}

/// A drawing of one or more series over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Width of the view box.
    pub width: u32,
    /// Height of the view box.
    pub height: u32,
    /// Left edge of the field.
    pub left: u32,
    /// Right edge of the field.
    pub right: u32,
    /// Shaded usual ranges.
    pub bands: Vec<Band>,
    /// Labels of the vertical axis, each with a grid line.
    pub levels: Vec<Tick>,
    /// Labels of the horizontal axis.
    pub days: Vec<Tick>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// More samples than this are drawn as a line without marks, the last one excepted.
const MARKS: usize = 80;

impl Plot {
    /// A plot with axes, 340 by 150.
    #[must_use]
    pub fn large(series: &[Series]) -> Option<Self> {
        Self::draw(
            series,
            Field {
                width: 340,
                height: 150,
                left: 34,
                right: 332,
                top: 10,
                bottom: 128,
                axes: true,
            },
        )
    }

    /// A sparkline for a table cell, 130 by 30.
    #[must_use]
    pub fn small(series: &[Series]) -> Option<Self> {
        Self::draw(
            series,
            Field {
                width: 130,
                height: 30,
                left: 4,
                right: 126,
                top: 4,
                bottom: 26,
                axes: false,
            },
        )
    }

    fn draw(series: &[Series], f: Field) -> Option<Self> {
        let samples = || series.iter().flat_map(|s| &s.samples);
        let (first, last) = (samples().map(|s| s.day.0).min()?, samples().map(|s| s.day.0).max()?);
        let low = samples().map(|s| s.value).fold(f64::INFINITY, f64::min);
        let high = samples().map(|s| s.value).fold(f64::NEG_INFINITY, f64::max);
        if !low.is_finite() || !high.is_finite() {
            return None;
        }
        // Some of the band shows even when all values lie on one side of it.
        let bounds = || series.iter().flat_map(|s| [s.band.0, s.band.1]).flatten();
        let room = ((high - low) * 0.6).max(high.abs() * 0.08).max(1e-6);
        let low = bounds().filter(|b| *b < low && low - b < room).fold(low, f64::min);
        let high = bounds().filter(|b| *b > high && b - high < room).fold(high, f64::max);
        let (low, high, step) = scale(low, high);
        let span = (last - first) as f64;
        let x = |day: Day| {
            let part = if span > 0.0 { (day.0 - first) as f64 / span } else { 0.5 };
            f64::from(f.left + 6) + part * f64::from(f.right - f.left - 12)
        };
        let y = |v: f64| f64::from(f.bottom) - (v - low) / (high - low) * f64::from(f.bottom - f.top);

        let bands = series
            .iter()
            .filter(|s| s.band.0.is_some() || s.band.1.is_some())
            .filter_map(|s| {
                let (from, to) = (s.band.0.unwrap_or(low).max(low), s.band.1.unwrap_or(high).min(high));
                (from < to).then(|| Band {
                    y: place(y(to)),
                    height: place(y(from) - y(to)),
                })
            })
            .collect();
        let lines = series
            .iter()
            .enumerate()
            .map(|(i, s)| {
                let mut sorted: Vec<&Sample> = s.samples.iter().collect();
                sorted.sort_by_key(|s| s.day);
                let skip = if sorted.len() > MARKS || !f.axes {
                    sorted.len().saturating_sub(1)
                } else {
                    0
                };
                let path = sorted
                    .iter()
                    .enumerate()
                    .map(|(n, p)| {
                        format!(
                            "{}{} {}",
                            if n == 0 { 'M' } else { 'L' },
                            place(x(p.day)),
                            place(y(p.value))
                        )
                    })
                    .collect();
                let outside = |v: f64| s.band.0.is_some_and(|b| v < b) || s.band.1.is_some_and(|b| v > b);
                let marks = sorted
                    .iter()
                    .skip(skip)
                    .map(|p| Mark {
                        x: place(x(p.day)),
                        y: place(y(p.value)),
                        outside: outside(p.value),
                        label: p.label.clone(),
                    })
                    .collect();
                Line {
                    name: s.name,
                    number: i + 1,
                    path,
                    marks,
                }
            })
            .collect();
        let (levels, days) = if f.axes {
            (levels(low, high, step, y), days(first, last, f.left + 6, f.right - 6))
        } else {
            (Vec::new(), Vec::new())
        };
        Some(Self {
            width: f.width,
            height: f.height,
            left: f.left,
            right: f.right,
            bands,
            levels,
            days,
            lines,
        })
    }
}

struct Field {
    width: u32,
    height: u32,
    left: u32,
    right: u32,
    top: u32,
    bottom: u32,
    axes: bool,
}

/// One decimal, no trailing zero: short and the same everywhere.
fn place(v: f64) -> String {
    let text = format!("{v:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// A round step and the round limits around `low..high`: 1, 2 or 5 times a power of ten, two to five steps.
fn scale(low: f64, high: f64) -> (f64, f64, f64) {
    let span = (high - low).max(high.abs() * 0.05).max(1e-9);
    let rough = span / 3.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= rough)
        .unwrap_or(power);
    let from = (low / step).floor() * step;
    let to = (high / step).ceil() * step;
    if to - from < step / 2.0 {
        (from - step, to + step, step)
    } else {
        (from, to, step)
    }
}

fn levels(low: f64, high: f64, step: f64, y: impl Fn(f64) -> f64) -> Vec<Tick> {
    let decimals = if step >= 1.0 {
        0
    } else {
        (-step.log10()).ceil() as usize
    };
    let count = ((high - low) / step).round() as u32;
    (0..=count.min(12))
        .map(|i| low + f64::from(i) * step)
        .map(|v| Tick {
            at: place(y(v)),
            text: format!("{v:.decimals$}"),
            anchor: "end",
        })
        .collect()
}

fn days(first: i64, last: i64, left: u32, right: u32) -> Vec<Tick> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = |days| {
        let (y, m, d) = civil_from_days(days);
        let month = MONTHS.get(m as usize - 1).copied().unwrap_or_default();
        if last - first > 120 {
            format!("{month} {y}")
        } else {
            format!("{d} {month} {y}")
        }
    };
    if first == last {
        let middle = f64::from(left + right) / 2.0;
        return vec![Tick {
            at: place(middle),
            text: text(first),
            anchor: "middle",
        }];
    }
    vec![
        Tick {
            at: left.to_string(),
            text: text(first),
            anchor: "start",
        },
        Tick {
            at: right.to_string(),
            text: text(last),
            anchor: "end",
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[(i64, f64)], band: (Option<f64>, Option<f64>)) -> Series {
        let samples = values
            .iter()
            .map(|(d, v)| Sample {
                day: Day(*d),
                value: *v,
                label: v.to_string(),
            })
            .collect();
        Series {
            name: "",
            samples,
            band,
        }
    }

    #[test]
    fn nothing_to_draw_is_no_plot() {
        assert_eq!(Plot::large(&[]), None);
        assert_eq!(Plot::large(&[series(&[], (None, None))]), None);
        assert_eq!(Plot::small(&[series(&[(0, f64::NAN)], (None, None))]), None);
    }

    #[test]
    fn every_mark_lies_in_the_field() {
        for values in [
            vec![(0, 1.0)],
            vec![(0, 0.0), (9, 0.0)],
            vec![(0, -5.0), (1, 5e9), (40_000, 3.0)],
            vec![(3, 1e-7), (4, 2e-7)],
            (0..300).map(|i| (i, (i % 17) as f64)).collect(),
        ] {
            let plot = Plot::large(&[series(&values, (Some(2.0), Some(3.0)))]).unwrap();
            for m in &plot.lines[0].marks {
                let (x, y): (f64, f64) = (m.x.parse().unwrap(), m.y.parse().unwrap());
                assert!(
                    (34.0..=332.0).contains(&x) && (9.9..=128.1).contains(&y),
                    "{values:?} {m:?}"
                );
            }
            assert!((2..=13).contains(&plot.levels.len()), "{:?}", plot.levels);
        }
    }

    #[test]
    fn values_outside_their_band_are_marked() {
        let plot = Plot::large(&[series(&[(0, 95.0), (10, 80.0)], (Some(94.0), None))]).unwrap();
        let outside: Vec<bool> = plot.lines[0].marks.iter().map(|m| m.outside).collect();
        assert_eq!(outside, [false, true]);
    }

    #[test]
    fn many_samples_keep_only_the_last_mark() {
        let values: Vec<(i64, f64)> = (0..200).map(|i| (i, i as f64)).collect();
        let plot = Plot::large(&[series(&values, (None, None))]).unwrap();
        assert_eq!(plot.lines[0].marks.len(), 1);
        assert_eq!(plot.lines[0].path.matches('L').count(), 199);
    }

    #[test]
    fn the_axis_is_round() {
        assert_eq!(scale(122.0, 151.0), (120.0, 160.0, 10.0));
        assert_eq!(scale(6.6, 8.1), (6.5, 8.5, 0.5));
    }
}
