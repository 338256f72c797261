//! Sets of codes for `:in`, `:not-in`, `:above` and `:below`.
//!
//! [`Hl7`] knows HL7's own code systems and the value sets of R4 bindings that draw on them only; SNOMED CT, LOINC and
//! other systems are not here. Stored ValueSets join by [`Stored`], which asks the caller first.

use keepwell_model::json::Value;
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

/// System and code of each member of a set.
pub type Codes = Arc<HashSet<(String, String)>>;

const DATA: &[u8] = include_bytes!("../data/terminology.zst");

/// How deep value sets may import each other.
const DEPTH: usize = 8;

/// Answers what a search needs to know of terminologies. `None` always means: not known here, which refuses the search;
/// an answer is complete.
pub trait Terminology {
    /// The members of a value set, by canonical URL (with or without version) or, for stored ones, `ValueSet/id`.
    fn expansion(&self, value_set: &str) -> Option<Codes>;

    /// All codes of a code system.
    fn system(&self, system: &str) -> Option<Codes>;

    /// The code and all it subsumes.
    fn below(&self, system: &str, code: &str) -> Option<Codes>;

    /// The code and all that subsume it.
    fn above(&self, system: &str, code: &str) -> Option<Codes>;
}

/// HL7's own definitions, shipped with the program; unpacked when first asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hl7;

/// Value sets the caller finds, before those of HL7.
pub struct Stored<F>(pub F);

struct Tables {
    systems: Vec<System>,
    /// URL and parts, sorted by URL.
    sets: Vec<(&'static str, &'static str)>,
}

struct System {
    url: &'static str,
    /// Code and the places of its parents.
    codes: Vec<(&'static str, Vec<usize>)>,
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let text: &'static str = match zstd::decode_all(DATA).map(String::from_utf8) {
            Ok(Ok(text)) => text.leak(),
            // The data is part of the program; a test reads all of it.
            _ => "",
        };
        let mut t = Tables {
            systems: Vec::new(),
            sets: Vec::new(),
        };
        for line in text.lines() {
            let mut f = line.split('\t');
            match (f.next(), f.next(), f.next()) {
                (Some("S"), Some(url), _) => t.systems.push(System { url, codes: Vec::new() }),
                (Some("c"), Some(code), parents) => {
                    let parents = parents
                        .unwrap_or_default()
                        .split(' ')
                        .filter_map(|p| p.parse().ok())
                        .collect();
                    if let Some(s) = t.systems.last_mut() {
                        s.codes.push((code, parents));
                    }
                }
                (Some("V"), Some(url), Some(parts)) => t.sets.push((url, parts)),
                _ => {}
            }
        }
        t.sets.sort_unstable();
        t
    })
}

impl System {
    fn find(url: &str) -> Option<&'static System> {
        tables().systems.iter().find(|s| s.url == url)
    }

    fn place(&self, code: &str) -> Option<usize> {
        self.codes.iter().position(|(c, _)| *c == code)
    }

    fn pair(&self, place: usize) -> Option<(String, String)> {
        self.codes
            .get(place)
            .map(|(c, _)| (self.url.to_owned(), (*c).to_owned()))
    }

    fn pairs(&self, places: impl IntoIterator<Item = usize>) -> Codes {
        Arc::new(places.into_iter().filter_map(|p| self.pair(p)).collect())
    }
}

impl Terminology for Hl7 {
    fn expansion(&self, value_set: &str) -> Option<Codes> {
        let url = value_set.split('|').next()?;
        let tables = tables();
        let at = tables.sets.binary_search_by_key(&url, |(u, _)| u).ok()?;
        let mut out = HashSet::new();
        for part in tables.sets.get(at)?.1.split(' ') {
            let (system, places) = part.split_once(':').map_or((part, None), |(s, p)| (s, Some(p)));
            let system = tables.systems.get(system.parse::<usize>().ok()?)?;
            match places {
                None => out.extend((0..system.codes.len()).filter_map(|p| system.pair(p))),
                Some(runs) => {
                    for run in runs.split(',') {
                        let (from, to) = run.split_once('-').unwrap_or((run, run));
                        let run = from.parse::<usize>().ok()?..=to.parse().ok()?;
                        out.extend(run.filter_map(|p| system.pair(p)));
                    }
                }
            }
        }
        Some(Arc::new(out))
    }

    fn system(&self, system: &str) -> Option<Codes> {
        let s = System::find(system)?;
        Some(s.pairs(0..s.codes.len()))
    }

    fn below(&self, system: &str, code: &str) -> Option<Codes> {
        let s = System::find(system)?;
        let mut found = HashSet::from([s.place(code)?]);
        loop {
            let more: Vec<usize> = s
                .codes
                .iter()
                .enumerate()
                .filter(|(i, (_, parents))| !found.contains(i) && parents.iter().any(|p| found.contains(p)))
                .map(|(i, _)| i)
                .collect();
            if more.is_empty() {
                return Some(s.pairs(found));
            }
            found.extend(more);
        }
    }

    fn above(&self, system: &str, code: &str) -> Option<Codes> {
        let s = System::find(system)?;
        let mut found = HashSet::new();
        let mut open = vec![s.place(code)?];
        while let Some(at) = open.pop() {
            if found.insert(at) {
                open.extend(s.codes.get(at).map(|(_, p)| p.as_slice()).unwrap_or_default());
            }
        }
        Some(s.pairs(found))
    }
}

impl<F: Fn(&str) -> Option<Codes>> Terminology for Stored<F> {
    fn expansion(&self, value_set: &str) -> Option<Codes> {
        (self.0)(value_set).or_else(|| Hl7.expansion(value_set))
    }

    fn system(&self, system: &str) -> Option<Codes> {
        Hl7.system(system)
    }

    fn below(&self, system: &str, code: &str) -> Option<Codes> {
        Hl7.below(system, code)
    }

    fn above(&self, system: &str, code: &str) -> Option<Codes> {
        Hl7.above(system, code)
    }
}

/// The members of a ValueSet resource: its expansion if it carries a whole one, or else its definition, as far as
/// `known` can answer for what it refers to. `None`: it cannot be expanded completely.
#[must_use]
pub fn expand(value_set: &Value<'_>, known: &dyn Terminology) -> Option<Codes> {
    if let Some(whole) = value_set.get("expansion").and_then(expansion) {
        return Some(Arc::new(whole));
    }
    let compose = value_set.get("compose")?;
    let mut out = HashSet::new();
    for (name, add) in [("include", true), ("exclude", false)] {
        for part in compose.get(name).and_then(Value::items).unwrap_or_default() {
            let codes = component(part, known)?;
            if add {
                out.extend(codes);
            } else {
                out.retain(|c| !codes.contains(c));
            }
        }
    }
    Some(Arc::new(out))
}

/// The codes of an expansion, if it is not just a page of one.
fn expansion(expansion: &Value<'_>) -> Option<HashSet<(String, String)>> {
    let number = |name: &str| {
        expansion
            .get(name)
            .map_or(Some(0), |n| n.as_number()?.parse::<usize>().ok())
    };
    let mut out = HashSet::new();
    listed(expansion.get("contains")?, &mut out, 0)?;
    (number("offset")? == 0 && number("total")? <= out.len()).then_some(out)
}

fn listed(contains: &Value<'_>, out: &mut HashSet<(String, String)>, depth: usize) -> Option<()> {
    if depth > DEPTH {
        return None;
    }
    for c in contains.items()? {
        if let (Some(code), false) = (c.str("code"), c.get("abstract").and_then(Value::as_bool) == Some(true)) {
            out.insert((c.str("system").unwrap_or_default().to_owned(), code.to_owned()));
        }
        if let Some(inner) = c.get("contains") {
            listed(inner, out, depth + 1)?;
        }
    }
    Some(())
}

fn component(part: &Value<'_>, known: &dyn Terminology) -> Option<HashSet<(String, String)>> {
    let mut out: Option<HashSet<(String, String)>> = None;
    let mut narrow = |codes: HashSet<(String, String)>| {
        out = Some(match out.take() {
            None => codes,
            Some(before) => before.into_iter().filter(|c| codes.contains(c)).collect(),
        });
    };
    for other in part.get("valueSet").and_then(Value::items).unwrap_or_default() {
        narrow(known.expansion(other.as_str()?)?.as_ref().clone());
    }
    if let Some(system) = part.str("system") {
        if let Some(concepts) = part.get("concept").and_then(Value::items) {
            narrow(
                concepts
                    .iter()
                    .filter_map(|c| Some((system.to_owned(), c.str("code")?.to_owned())))
                    .collect(),
            );
        } else {
            let mut codes = known.system(system)?.as_ref().clone();
            for f in part.get("filter").and_then(Value::items).unwrap_or_default() {
                let value = f.str("value")?;
                let below = known.below(system, value)?;
                match (f.str("property")?, f.str("op")?) {
                    ("concept" | "code", "is-a") => codes.retain(|c| below.contains(c)),
                    ("concept" | "code", "descendent-of") => codes.retain(|c| below.contains(c) && c.1 != value),
                    ("concept" | "code", "is-not-a") => codes.retain(|c| !below.contains(c)),
                    _ => return None,
                }
            }
            narrow(codes);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepwell_model::json;

    fn codes(set: Option<Codes>) -> Vec<String> {
        let mut list: Vec<String> = set.unwrap().iter().map(|(_, c)| c.clone()).collect();
        list.sort();
        list
    }

    #[test]
    fn all_sets_of_the_data_expand() {
        assert!(tables().sets.len() > 400 && tables().systems.len() > 300);
        for (url, _) in &tables().sets {
            assert!(!Hl7.expansion(url).unwrap().is_empty(), "{url}");
        }
        for s in &tables().systems {
            assert!(
                s.codes
                    .iter()
                    .all(|(_, parents)| parents.iter().all(|p| *p < s.codes.len())),
                "{}",
                s.url
            );
        }
    }

    #[test]
    fn hl7s_own_sets() {
        let gender = "http://hl7.org/fhir/ValueSet/administrative-gender";
        assert_eq!(codes(Hl7.expansion(gender)), ["female", "male", "other", "unknown"]);
        assert_eq!(codes(Hl7.expansion(&format!("{gender}|4.0.1"))).len(), 4);
        assert!(
            Hl7.expansion("http://hl7.org/fhir/ValueSet/observation-codes")
                .is_none(),
            "LOINC is not ours"
        );
        let act = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
        assert!(codes(Hl7.below(act, "_ActEncounterCode")).contains(&"AMB".to_owned()));
        assert_eq!(
            codes(Hl7.above(act, "AMB")),
            ["AMB", "_ActCareProvisionCode", "_ActEncounterCode"]
        );
        assert!(Hl7.below(act, "no such code").is_none());
        assert!(Hl7.below("http://loinc.org", "8302-2").is_none());
    }

    #[test]
    fn stored_sets_expand_or_are_unknown() {
        let set = |text: &str| expand(&json::parse(text).unwrap(), &Hl7);
        assert_eq!(
            codes(set(
                r#"{"compose":{"include":[{"system":"urn:x","concept":[{"code":"a"},{"code":"b"}]},
              {"valueSet":["http://hl7.org/fhir/ValueSet/administrative-gender"]}],
              "exclude":[{"system":"urn:x","concept":[{"code":"b"}]}]}}"#
            )),
            ["a", "female", "male", "other", "unknown"]
        );
        let act = r#""system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","filter":[{"property":"concept","op":"descendent-of","value":"_ActEncounterCode"}]"#;
        let classes = codes(set(&format!(r#"{{"compose":{{"include":[{{{act}}}]}}}}"#)));
        assert!(classes.contains(&"IMP".to_owned()) && !classes.contains(&"_ActEncounterCode".to_owned()));
        assert_eq!(
            codes(set(
                r#"{"expansion":{"contains":[{"code":"top","abstract":true,"contains":[{"system":"s","code":"x"}]}]}}"#
            )),
            ["x"]
        );
        for unknown in [
            r#"{"compose":{"include":[{"system":"http://loinc.org"}]}}"#,
            r#"{"compose":{"include":[{"valueSet":["urn:other"]}]}}"#,
            r#"{"compose":{"include":[{}]}}"#,
            r#"{"expansion":{"total":2,"contains":[{"system":"s","code":"x"}]}}"#,
            r#"{}"#,
        ] {
            assert!(set(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn the_caller_is_asked_first() {
        let one: Codes = Arc::new(HashSet::from([("s".to_owned(), "c".to_owned())]));
        let t = Stored(|url: &str| (url == "ValueSet/mine").then(|| one.clone()));
        assert_eq!(codes(t.expansion("ValueSet/mine")), ["c"]);
        assert_eq!(
            codes(t.expansion("http://hl7.org/fhir/ValueSet/administrative-gender")).len(),
            4
        );
        assert!(t.expansion("ValueSet/other").is_none());
    }
}
