//! FHIR elements as words for a screen: names, codes, dates, quantities. Total functions: whatever a resource holds,
//! something readable or nothing comes out. Escaping is the templates' business, never done here.

use keepwell_model::json::Value;
use keepwell_model::time::{Timestamp, civil_from_days, days_from_civil, days_in_month};
use std::borrow::Cow;

/// A calendar day, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i64);

impl Day {
    /// The UTC day of an instant.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(at.0.div_euclid(86_400_000))
    }
}

/// A FHIR date or dateTime as far as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct When {
    year: i64,
    month: Option<u32>,
    day: Option<u32>,
    clock: Option<(u32, u32)>,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl When {
    /// Reads `YYYY`, `YYYY-MM`, `YYYY-MM-DD` or a dateTime; the clock time stays the local one that was written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, clock) = text.split_once('T').map_or((text, None), |(d, c)| (d, Some(c)));
        let mut parts = date.split('-');
        let year = parts.next().filter(|y| y.len() == 4)?.parse().ok()?;
        let month = parts.next().map(str::parse::<u32>).transpose().ok()?;
        let day = parts.next().map(str::parse::<u32>).transpose().ok()?;
        let valid = month.is_none_or(|m| (1..=12).contains(&m))
            && day.is_none_or(|d| d >= 1 && d <= days_in_month(year, month.unwrap_or(1)));
        let clock = clock.and_then(|c| {
            let mut hm = c.split(':');
            Some((hm.next()?.parse().ok()?, hm.next()?.get(..2)?.parse().ok()?))
        });
        valid.then_some(Self {
            year,
            month,
            day,
            clock,
        })
    }

    /// The day, where missing parts count as the first.
    #[must_use]
    pub fn day(self) -> Day {
        Day(days_from_civil(
            self.year,
            self.month.unwrap_or(1),
            self.day.unwrap_or(1),
        ))
    }

    /// `14 Nov 2026`, `Nov 2026` or `2026`.
    #[must_use]
    pub fn date(self) -> String {
        let month = self.month.and_then(|m| MONTHS.get(m as usize - 1));
        match (month, self.day) {
            (Some(m), Some(d)) => format!("{d} {m} {}", self.year),
            (Some(m), None) => format!("{m} {}", self.year),
            _ => self.year.to_string(),
        }
    }

    /// The date with the clock time where there is one.
    #[must_use]
    pub fn full(self) -> String {
        match self.clock {
            Some((h, m)) => format!("{}, {h:02}:{m:02}", self.date()),
            None => self.date(),
        }
    }
}

/// `14 Nov 2026` of a FHIR date text; empty when it is none.
#[must_use]
pub fn date(text: &str) -> String {
    When::parse(text).map(When::date).unwrap_or_default()
}

/// An instant for the access log: `14 Nov 2026, 09:52:07 UTC`.
#[must_use]
pub fn instant(at: Timestamp) -> String {
    let (y, m, d) = civil_from_days(at.0.div_euclid(86_400_000));
    let s = at.0.rem_euclid(86_400_000) / 1000;
    let month = MONTHS.get(m as usize - 1).copied().unwrap_or_default();
    format!("{d} {month} {y}, {:02}:{:02}:{:02} UTC", s / 3600, s / 60 % 60, s % 60)
}

/// The age on a day: days in the first month, then weeks, months, years as clinicians say them.
#[must_use]
pub fn age(birth: &str, on: Day) -> String {
    let Some(born) = When::parse(birth) else {
        return String::new();
    };
    let days = on.0 - born.day().0;
    if days < 0 {
        return String::new();
    }
    let (year, month, day) = civil_from_days(on.0);
    let Some(birth_month) = born.month else {
        return format!("about {} years", year - born.year);
    };
    let behind = i64::from(day < born.day.unwrap_or(1));
    let months = (year - born.year) * 12 + i64::from(month) - i64::from(birth_month) - behind;
    let plural = |n: i64, unit: &str| {
        if n == 1 {
            format!("1 {unit}")
        } else {
            format!("{n} {unit}s")
        }
    };
    match (days, months) {
        (0..=28, _) => plural(days, "day"),
        (29..=90, _) => plural(days / 7, "week"),
        (_, 0..=23) => plural(months, "month"),
        _ => plural(months / 12, "year"),
    }
}

/// Whole years of age, `None` when the birth date is not known.
#[must_use]
pub fn years(birth: &str, on: Day) -> Option<i64> {
    let born = When::parse(birth)?.day().0;
    Some((on.0 - born) * 400 / 146_097)
}

/// The first string among `names` that `v` has.
#[must_use]
pub fn first<'v>(v: &'v Value<'_>, names: &[&str]) -> &'v str {
    names.iter().find_map(|n| v.str(n)).unwrap_or_default()
}

/// The items of the array `name`; none when it is missing.
#[must_use]
pub fn items<'v, 'a>(v: &'v Value<'a>, name: &str) -> &'v [Value<'a>] {
    v.get(name).and_then(Value::items).unwrap_or_default()
}

/// A HumanName as one line.
#[must_use]
pub fn human_name(v: &Value<'_>) -> String {
    if let Some(text) = v.str("text").map(str::trim).filter(|t| !t.is_empty()) {
        return text.to_owned();
    }
    let strings = |name| items(v, name).iter().filter_map(Value::as_str);
    let parts: Vec<&str> = strings("prefix")
        .chain(strings("given"))
        .chain(v.str("family"))
        .chain(strings("suffix"))
        .collect();
    parts.join(" ")
}

/// The names of a Patient: the one to call by (official, else usual, else the first), then the others.
#[must_use]
pub fn names(patient: &Value<'_>) -> (String, Vec<String>) {
    let all = items(patient, "name");
    let rank = |n: &Value<'_>| match n.str("use") {
        Some("official") => 0,
        Some("usual") => 1,
        Some("old" | "maiden") => 3,
        _ => 2,
    };
    let main = all
        .iter()
        .enumerate()
        .min_by_key(|(i, n)| (rank(n), *i))
        .map(|(i, _)| i);
    let mut others = Vec::new();
    let mut called = String::new();
    for (i, n) in all.iter().enumerate() {
        let text = human_name(n);
        if Some(i) == main {
            called = text;
        } else if !text.is_empty() {
            let known = match n.str("use") {
                Some("maiden") => " (maiden name)",
                Some("old") => " (former name)",
                Some("nickname") => " (nickname)",
                _ => "",
            };
            others.push(text + known);
        }
    }
    (
        if called.is_empty() {
            "Name not recorded".to_owned()
        } else {
            called
        },
        others,
    )
}

/// A CodeableConcept in words: its text, else a display, else a code.
#[must_use]
pub fn concept(v: &Value<'_>) -> String {
    let coding = items(v, "coding");
    v.str("text")
        .or_else(|| coding.iter().find_map(|c| c.str("display")))
        .or_else(|| coding.iter().find_map(|c| c.str("code")))
        .unwrap_or_default()
        .to_owned()
}

/// The element `name` of `v` as a concept in words.
#[must_use]
pub fn concept_of(v: &Value<'_>, name: &str) -> String {
    v.get(name).map(concept).unwrap_or_default()
}

/// The first code of `v`'s concept `name` in `system`, or in any system when that is empty.
#[must_use]
pub fn code_of<'v>(v: &'v Value<'_>, name: &str, system: &str) -> &'v str {
    let coding = v.get(name).map(|c| items(c, "coding")).unwrap_or_default();
    coding
        .iter()
        .find(|c| system.is_empty() || c.str("system") == Some(system))
        .and_then(|c| c.str("code"))
        .unwrap_or_default()
}

/// Whether the repeating concept `name` of `v` has the code.
#[must_use]
pub fn has_code(v: &Value<'_>, name: &str, code: &str) -> bool {
    items(v, name)
        .iter()
        .any(|c| items(c, "coding").iter().any(|c| c.str("code") == Some(code)))
}

/// A Quantity as `6.8 %`.
#[must_use]
pub fn quantity(v: &Value<'_>) -> String {
    let Some(value) = v.get("value").and_then(Value::as_number) else {
        return String::new();
    };
    let sign = v.str("comparator").unwrap_or_default();
    let unit = match first(v, &["unit", "code"]) {
        annotation if annotation.starts_with('{') => "",
        "Cel" => "°C",
        "mm[Hg]" => "mmHg",
        unit => unit,
    };
    let gap = if unit.is_empty() { "" } else { " " };
    format!("{sign}{}{gap}{unit}", legible(value))
}

/// A number as written; one with more than four decimals is computed, not measured, and is shown with two.
fn legible(number: &str) -> Cow<'_, str> {
    match (number.split_once('.'), number.parse::<f64>()) {
        (Some((_, decimals)), Ok(n)) if decimals.len() > 4 && n.abs() >= 0.1 && n.is_finite() => {
            Cow::Owned(format!("{n:.2}"))
        }
        _ => Cow::Borrowed(number),
    }
}

/// A LOINC long name without its brackets and the usual method: `Hemoglobin in Blood`.
#[must_use]
pub fn short_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut depth = 0_u32;
    for c in name.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    let words: Vec<&str> = out.split_whitespace().collect();
    let short = words.join(" ");
    let short = [" by Automated count", " by calculation"]
        .iter()
        .fold(short.as_str(), |s, m| s.strip_suffix(m).unwrap_or(s));
    if short.is_empty() {
        name.to_owned()
    } else {
        short.to_owned()
    }
}

/// The number of a Quantity.
#[must_use]
pub fn number(v: &Value<'_>) -> Option<f64> {
    v.get("value")?
        .as_number()?
        .parse()
        .ok()
        .filter(|n: &f64| n.is_finite())
}

/// The display of a Reference, else what it points at.
#[must_use]
pub fn reference(v: &Value<'_>) -> String {
    first(v, &["display", "reference"]).to_owned()
}

/// The logical id of a reference to `kind/id`.
#[must_use]
pub fn target<'v>(v: &'v Value<'_>, kind: &str) -> Option<&'v str> {
    v.str("reference")?.strip_prefix(kind)?.strip_prefix('/')
}

/// The value of an Observation (or a component) in words.
#[must_use]
pub fn observed(v: &Value<'_>) -> String {
    let direct = v.members().unwrap_or_default().iter().find_map(|(n, x)| {
        let text = match n.strip_prefix("value")? {
            "Quantity" => quantity(x),
            "CodeableConcept" => concept(x),
            "String" | "Time" => x.as_str()?.to_owned(),
            "DateTime" => When::parse(x.as_str()?).map(When::full)?,
            "Boolean" => if x.as_bool()? { "yes" } else { "no" }.to_owned(),
            "Integer" => x.as_number()?.to_owned(),
            "Range" => range(x),
            "Ratio" => format!(
                "{} / {}",
                x.get("numerator").map(quantity)?,
                x.get("denominator").map(quantity)?
            ),
            "Period" => period(x),
            _ => return None,
        };
        Some(text)
    });
    if let Some(text) = direct {
        return text;
    }
    let parts: Vec<String> = items(v, "component")
        .iter()
        .map(|c| format!("{} {}", concept_of(c, "code"), observed(c)))
        .collect();
    if parts.is_empty() {
        concept_of(v, "dataAbsentReason")
    } else {
        parts.join(", ")
    }
}

/// A Range as `70 to 99 mg/dL`, `up to 5.6 %` or `from 40 mg/dL`.
#[must_use]
pub fn range(v: &Value<'_>) -> String {
    let bound = |n| v.get(n).map(quantity).filter(|q| !q.is_empty());
    match (bound("low"), bound("high")) {
        (Some(low), Some(high)) => format!("{} to {high}", low.split(' ').next().unwrap_or_default()),
        (None, Some(high)) => format!("up to {high}"),
        (Some(low), None) => format!("from {low}"),
        (None, None) => v.str("text").unwrap_or_default().to_owned(),
    }
}

/// A Period as `1 Jan 2020 to 4 Feb 2021`.
#[must_use]
pub fn period(v: &Value<'_>) -> String {
    let (start, end) = (date(first(v, &["start"])), date(first(v, &["end"])));
    match (start.is_empty(), end.is_empty()) {
        (false, false) if start == end => start,
        (false, false) => format!("{start} to {end}"),
        (false, true) => format!("since {start}"),
        (true, false) => format!("until {end}"),
        (true, true) => String::new(),
    }
}

/// A Money as `148.00 USD`.
#[must_use]
pub fn money(v: &Value<'_>) -> String {
    let Some(amount) = number(v) else { return String::new() };
    format!("{amount:.2} {}", v.str("currency").unwrap_or_default())
        .trim_end()
        .to_owned()
}

/// One line of an Address.
#[must_use]
pub fn address(v: &Value<'_>) -> String {
    if let Some(text) = v.str("text") {
        return text.to_owned();
    }
    let lines = items(v, "line").iter().filter_map(Value::as_str);
    let rest = ["city", "state", "postalCode"].into_iter().filter_map(|n| v.str(n));
    lines.chain(rest).collect::<Vec<_>>().join(", ")
}

/// A resource whose status says that it should never have been written is not shown.
#[must_use]
pub fn in_error(v: &Value<'_>) -> bool {
    v.str("status") == Some("entered-in-error") || code_of(v, "verificationStatus", "") == "entered-in-error"
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepwell_model::json::parse;

    fn day(text: &str) -> Day {
        When::parse(text).unwrap().day()
    }

    #[test]
    fn dates_stay_as_precise_as_written() {
        for (text, expect) in [
            ("1990", "1990"),
            ("1990-05", "May 1990"),
            ("1990-05-07", "7 May 1990"),
            ("2026-11-14T09:52:00-05:00", "14 Nov 2026, 09:52"),
        ] {
            assert_eq!(When::parse(text).unwrap().full(), expect);
        }
        for text in ["", "19", "1990-13", "1990-02-30", "yesterday", "1990-5x"] {
            assert_eq!(When::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ages_are_said_as_clinicians_say_them() {
        for (birth, on, expect) in [
            ("2026-11-14", "2026-11-14", "0 days"),
            ("2026-11-14", "2026-11-15", "1 day"),
            ("2026-11-14", "2026-12-20", "5 weeks"),
            ("2025-11-23", "2026-11-22", "11 months"),
            ("2025-11-22", "2026-11-22", "12 months"),
            ("2015-03-09", "2026-11-22", "11 years"),
            ("1957-11-23", "2026-11-22", "68 years"),
            ("1957-11-22", "2026-11-22", "69 years"),
            ("2000-02-29", "2026-02-28", "25 years"),
            ("1990", "2026-11-22", "about 36 years"),
            ("2027-01-01", "2026-11-22", ""),
            ("", "2026-11-22", ""),
        ] {
            assert_eq!(age(birth, day(on)), expect, "{birth}");
        }
    }

    #[test]
    fn names_prefer_the_official_one() {
        let p = parse(
            r#"{"name":[{"use":"usual","text":"Thordis"},{"use":"official","given":["Þórdís"],"family":"Ásgeirsdóttir"},{"use":"maiden","family":"X"}]}"#,
        )
        .unwrap();
        let (called, others) = names(&p);
        assert_eq!(called, "Þórdís Ásgeirsdóttir");
        assert_eq!(others, ["Thordis", "X (maiden name)"]);
        assert_eq!(names(&parse("{}").unwrap()).0, "Name not recorded");
    }

    #[test]
    fn values_in_words() {
        for (json, expect) in [
            (r#"{"valueQuantity":{"value":6.80,"unit":"%"}}"#, "6.80 %"),
            (
                r#"{"valueQuantity":{"value":5,"comparator":"<","unit":"{score}"}}"#,
                "<5",
            ),
            (
                r#"{"valueCodeableConcept":{"coding":[{"code":"a","display":"B"}]}}"#,
                "B",
            ),
            (
                r#"{"component":[{"code":{"text":"Systolic"},"valueQuantity":{"value":120,"unit":"mmHg"}}]}"#,
                "Systolic 120 mmHg",
            ),
            (r#"{"dataAbsentReason":{"text":"refused"}}"#, "refused"),
            (r#"{"valueBoolean":true}"#, "yes"),
            ("{}", ""),
        ] {
            assert_eq!(observed(&parse(json).unwrap()), expect);
        }
        let q = |t| quantity(&parse(t).unwrap());
        assert_eq!(q(r#"{"value":37.79522515750604,"unit":"Cel"}"#), "37.80 °C");
        assert_eq!(q(r#"{"value":0.00012345,"unit":"g"}"#), "0.00012345 g");
        assert_eq!(short_name("Hemoglobin [Mass/volume] in Blood"), "Hemoglobin in Blood");
        assert_eq!(
            short_name("Platelets [#/volume] in Blood by Automated count"),
            "Platelets in Blood"
        );
        assert_eq!(short_name("[x]"), "[x]");
        let r = |t| range(&parse(t).unwrap());
        assert_eq!(
            r(r#"{"low":{"value":70,"unit":"mg/dL"},"high":{"value":99,"unit":"mg/dL"}}"#),
            "70 to 99 mg/dL"
        );
        assert_eq!(r(r#"{"high":{"value":5.6,"unit":"%"}}"#), "up to 5.6 %");
    }
}
