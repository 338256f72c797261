//! A search as it stands in a URL or form, into a [`Query`] over stored parameters (R4 search, sections 2.1 and 3.1.1).
//!
//! Derived parameters ([`Storage`]) are rewritten here into the stored ones. What is not understood is refused, or under
//! `Prefer: handling=lenient` left out and named in [`Query::ignored`]; no text that comes from here repeats a value of
//! the search, because values are often about a patient.

use crate::date;
use crate::definition::{self, Column, Kind, Param, Storage};
use crate::extract::tail_type;
use crate::number;
use crate::query::{
    Clause, DateTest, Include, NumberTest, Prefix, Query, SortBy, SortKey, StringTest, Summary, Test, TokenTest, Total,
    UriTest,
};
use crate::term::{ParamNo, fold};
use crate::terminology::Terminology;
use keepwell_model::outcome::Issue;
use keepwell_model::reference::{Base, is_id};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;

/// What parsing needs to know beside the parameters.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Leave out what is not understood instead of refusing.
    pub lenient: bool,
    /// For `ap` on dates.
    pub now: Timestamp,
    /// The server's own FHIR base: references to it are local.
    pub base: &'a Base,
    /// For `:in`, `:not-in`, `:above`, `:below`.
    pub terminology: &'a dyn Terminology,
}

/// Links of chains and reverse chains in one parameter.
const DEPTH: usize = 8;

/// Clauses one search may come to; only chains that leave the type open get anywhere near.
const CLAUSES: u32 = 2_000;

/// Values of all OR lists of one search, counted for each type a chain may lead to.
const VALUES: u32 = 50_000;

/// Parses the parameters of a search over one type: decoded names and values in order, without `_format` and `_pretty`.
///
/// # Errors
/// An issue for each parameter that is not understood.
pub fn parse(
    resource_type: ResourceType,
    parameters: &[(String, String)],
    options: &Options<'_>,
) -> Result<Query, Vec<Issue>> {
    let mut parser = Parser {
        options,
        clauses: CLAUSES,
        values: VALUES,
    };
    let mut query = Query {
        resource_type,
        clauses: Vec::new(),
        sort: Vec::new(),
        count: None,
        total: Total::Default,
        includes: Vec::new(),
        summary: Summary::False,
        elements: Vec::new(),
        processed: Vec::new(),
        ignored: Vec::new(),
    };
    let mut issues = Vec::new();
    for (name, value) in parameters {
        match parser.parameter(&mut query, name, value) {
            Ok(Processed::Another) => query.processed.push((name.clone(), value.clone())),
            Ok(Processed::Last) => {
                query.processed.retain(|(n, _)| n != name);
                query.processed.push((name.clone(), value.clone()));
            }
            // Too much stays too much, however kindly it is asked for.
            Err(issue) if options.lenient && issue.code != TOO_COSTLY => {
                query.ignored.push((shown(name), issue.diagnostics));
            }
            Err(issue) => issues.push(issue),
        }
    }
    if query.summary == Summary::Count || query.count == Some(0) {
        // R4 search, 2.1.1.5.3: `_count=0` is treated the same as `_summary=count`.
        query.summary = Summary::Count;
        query.total = Total::Accurate;
    }
    if issues.is_empty() { Ok(query) } else { Err(issues) }
}

/// The clause for `[owner]/[id]/[member]`: membership by CompartmentDefinition. `None`: not a compartment, or `member` is
/// never in it.
#[must_use]
pub fn compartment(owner: ResourceType, id: &str, member: ResourceType) -> Option<Clause> {
    let params = definition::compartment(owner, member)?.to_vec();
    Some(Clause::Compartment {
        owner,
        id: id.to_owned(),
        params,
        itself: owner == member,
    })
}

enum Processed {
    /// Counts beside others of its name.
    Another,
    /// Takes the place of those before it.
    Last,
}

const TOO_COSTLY: &str = "too-costly";

/// A name as it may stand in a text: R4 names have these characters only.
fn shown(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.' | '*');
    if !name.is_empty() && name.len() <= 100 && name.chars().all(plain) {
        name.to_owned()
    } else {
        "(not a parameter name)".to_owned()
    }
}

fn unknown(t: ResourceType, name: &str) -> Issue {
    Issue::error(
        "not-supported",
        format!("`{}` is not a search parameter of {t}", shown(name)),
    )
}

fn bad(name: &str, need: &str) -> Issue {
    Issue::error("value", format!("the value of `{}` is not {need}", shown(name)))
}

fn modifier_refused(name: &str, modifier: &str, kind: Kind) -> Issue {
    let kind = format!("{kind:?}").to_lowercase();
    let name = shown(name);
    match ResourceType::from_name(modifier) {
        Some(t) if kind == "reference" => Issue::error("not-supported", format!("`{name}` does not refer to {t}")),
        _ => Issue::error(
            "not-supported",
            format!("the modifier of `{name}` is not one of {kind} parameters here"),
        ),
    }
}

/// A fault of one component of a composite.
fn inside(composite: &Param, mut issue: Issue) -> Issue {
    issue.diagnostics = format!("in `{}`: {}", composite.code, issue.diagnostics);
    issue
}

struct Parser<'o> {
    options: &'o Options<'o>,
    clauses: u32,
    values: u32,
}

impl Parser<'_> {
    fn parameter(&mut self, q: &mut Query, name: &str, value: &str) -> Result<Processed, Issue> {
        match name {
            "_sort" => q.sort = sort(q.resource_type, value)?,
            "_count" => {
                let digits = !value.is_empty() && value.len() <= 18 && value.bytes().all(|b| b.is_ascii_digit());
                let n: u64 = value
                    .parse()
                    .ok()
                    .filter(|_| digits)
                    .ok_or_else(|| bad(name, "a whole number"))?;
                q.count = Some(u32::try_from(n).unwrap_or(u32::MAX));
            }
            "_total" => {
                q.total = match value {
                    "none" => Total::None,
                    "estimate" => Total::Estimate,
                    "accurate" => Total::Accurate,
                    _ => return Err(bad(name, "`none`, `estimate` or `accurate`")),
                }
            }
            "_summary" => {
                q.summary = match value {
                    "true" => Summary::True,
                    "text" => Summary::Text,
                    "data" => Summary::Data,
                    "count" => Summary::Count,
                    "false" => Summary::False,
                    _ => return Err(bad(name, "`true`, `text`, `data`, `count` or `false`")),
                }
            }
            "_elements" => {
                let names: Vec<String> = value.split(',').map(|e| e.trim().to_owned()).collect();
                let plain = |e: &String| !e.is_empty() && e.bytes().all(|b| b.is_ascii_alphanumeric());
                if !names.iter().all(plain) {
                    return Err(bad(name, "a list of top-level element names"));
                }
                q.elements = names;
            }
            "_include" | "_include:iterate" | "_revinclude" | "_revinclude:iterate" => {
                q.includes.extend(include(q.resource_type, name, value)?);
                return Ok(Processed::Another);
            }
            _ => {
                q.clauses.push(self.clause(q.resource_type, name, value, 0)?);
                return Ok(Processed::Another);
            }
        }
        Ok(Processed::Last)
    }

    /// One condition: a name with modifiers and chains, and its value.
    fn clause(&mut self, t: ResourceType, name: &str, value: &str, depth: usize) -> Result<Clause, Issue> {
        self.clauses = self.clauses.checked_sub(1).ok_or_else(|| {
            Issue::error(
                TOO_COSTLY,
                "the search has too many conditions; name the types that its chains lead to",
            )
        })?;
        if depth > DEPTH {
            return Err(Issue::error(
                TOO_COSTLY,
                format!("a chain may have at most {DEPTH} links"),
            ));
        }
        if let Some(rest) = name.strip_prefix("_has:") {
            return self.has(t, rest, value, depth);
        }
        let (head, tail) = name.split_once('.').map_or((name, None), |(h, t)| (h, Some(t)));
        let (code, modifier) = head.split_once(':').map_or((head, None), |(c, m)| (c, Some(m)));
        let Some((no, param)) = definition::find(t, code) else {
            return Err(match code {
                "_sort" | "_count" | "_total" | "_summary" | "_elements" | "_include" | "_revinclude" => {
                    Issue::error("not-supported", format!("`{code}` takes no such modifier here"))
                }
                "_list" | "_filter" | "_contained" | "_containedType" | "_type" | "_has" => not_offered(code),
                _ => unknown(t, code),
            });
        };
        if param.storage == Storage::Unsupported {
            return Err(not_offered(code));
        }
        match tail {
            Some(tail) => self.chain(t, no, param, modifier, tail, value, depth),
            None => self.plain(t, no, param, modifier, value),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one parameter")]
    fn chain(
        &mut self,
        t: ResourceType,
        no: ParamNo,
        param: &Param,
        modifier: Option<&str>,
        tail: &str,
        value: &str,
        depth: usize,
    ) -> Result<Clause, Issue> {
        if param.kind != Kind::Reference {
            return Err(Issue::error(
                "not-supported",
                format!(
                    "`{}` of {t} is not a reference, so nothing can be chained to it",
                    param.code
                ),
            ));
        }
        if !param.literal {
            return Err(canonical_link(t, param));
        }
        let targets: Vec<ResourceType> = match modifier {
            None => param.targets.to_vec(),
            Some(m) => match ResourceType::from_name(m).filter(|m| param.targets.contains(m)) {
                Some(one) => vec![one],
                None => return Err(modifier_refused(param.code, m, param.kind)),
            },
        };
        // A type that has no such parameter is no match; only when none has it is the chain a mistake.
        let mut clauses = Vec::new();
        let mut error: Option<Issue> = None;
        for target in targets {
            match self.clause(target, tail, value, depth + 1) {
                Ok(c) => clauses.push((target, c)),
                Err(e) if e.code == TOO_COSTLY => return Err(e),
                Err(e) => {
                    if error
                        .as_ref()
                        .is_none_or(|before| before.code != "value" && e.code == "value")
                    {
                        error = Some(e);
                    }
                }
            }
        }
        if clauses.is_empty() {
            let nowhere = || {
                let what = format!(
                    "no type that `{}` of {t} refers to has what is chained to it",
                    param.code
                );
                Issue::error("not-supported", what)
            };
            // With one target its own words say more.
            let several = modifier.is_none() && param.targets.len() > 1;
            return Err(error.filter(|e| !several || e.code == "value").unwrap_or_else(nowhere));
        }
        let views = definition::behind(t, no).into_iter().map(|(param, narrowed)| {
            let here = |target: &ResourceType| narrowed.is_none_or(|n| n == *target);
            let targets: Vec<_> = clauses.iter().filter(|(t, _)| here(t)).cloned().collect();
            if targets.is_empty() {
                Clause::Never
            } else {
                Clause::Chain { param, targets }
            }
        });
        Ok(any(views.collect()))
    }

    /// `_has:Observation:patient:code=x`, after `_has:`.
    fn has(&mut self, t: ResourceType, rest: &str, value: &str, depth: usize) -> Result<Clause, Issue> {
        let mut parts = rest.splitn(3, ':');
        let (Some(source), Some(reference), Some(tail)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Issue::error(
                "value",
                "`_has` is written `_has:[type]:[reference]:[parameter]=[value]`",
            ));
        };
        let source = ResourceType::from_name(source)
            .ok_or_else(|| Issue::error("value", "`_has` names a type that R4 does not have"))?;
        let (no, param) = definition::find(source, reference).ok_or_else(|| unknown(source, reference))?;
        if param.kind != Kind::Reference || !param.targets.contains(&t) {
            return Err(Issue::error(
                "value",
                format!("`{}` of {source} does not refer to {t}", param.code),
            ));
        }
        if !param.literal {
            return Err(canonical_link(source, param));
        }
        let clause = self.clause(source, tail, value, depth + 1)?;
        let views = definition::behind(source, no)
            .into_iter()
            .filter(|(_, n)| n.is_none_or(|n| n == t));
        Ok(any(views
            .map(|(reference, _)| Clause::Has {
                source,
                reference,
                clause: Box::new(clause.clone()),
            })
            .collect()))
    }

    /// A parameter without a chain.
    fn plain(
        &mut self,
        t: ResourceType,
        no: ParamNo,
        param: &Param,
        modifier: Option<&str>,
        value: &str,
    ) -> Result<Clause, Issue> {
        if modifier == Some("missing") {
            return match value {
                "true" => Ok(match param.storage {
                    Storage::Stored | Storage::Tuple(_) => Clause::Missing {
                        param: no,
                        missing: true,
                    },
                    _ => not(present(t, no)),
                }),
                "false" => Ok(present(t, no)),
                _ => Err(bad(&format!("{}:missing", param.code), "`true` or `false`")),
            };
        }
        let (negative, modifier) = match modifier {
            Some("not") if param.kind == Kind::Token => (true, None),
            Some("not-in") if param.kind == Kind::Token => (true, Some("in")),
            other => (false, other),
        };
        let clause = if param.storage == Storage::Column(Column::Id) {
            if modifier.is_some() {
                return Err(modifier_refused(param.code, modifier.unwrap_or_default(), param.kind));
            }
            let ids: Vec<String> = split(value, ',').iter().map(|v| unescape(v)).collect();
            // Whatever is not an id is the id of nothing; an empty one is a mistake.
            if ids.iter().any(String::is_empty) {
                return Err(bad(param.code, "an id or a list of them"));
            }
            Clause::Id(ids)
        } else {
            let mut list = Vec::new();
            for part in split(value, ',') {
                self.values = self
                    .values
                    .checked_sub(1)
                    .ok_or_else(|| Issue::error(TOO_COSTLY, "the search has too many values"))?;
                list.push(self.value(t, no, param, modifier, part)?);
            }
            any(list)
        };
        Ok(if negative { not(clause) } else { clause })
    }

    /// One value of an OR list, still escaped.
    fn value(
        &mut self,
        t: ResourceType,
        no: ParamNo,
        param: &Param,
        modifier: Option<&str>,
        raw: &str,
    ) -> Result<Clause, Issue> {
        match &param.storage {
            Storage::Column(_) => {
                let test = self.date(param, modifier, raw)?;
                return Ok(Clause::LastUpdated(test));
            }
            Storage::Root(parts) => {
                let mut all = Vec::new();
                for (part, raw) in components(param, modifier, parts, raw)? {
                    let p = definition::param(t, part).ok_or_else(|| unknown(t, param.code))?;
                    all.push(self.value(t, part, p, None, raw).map_err(|e| inside(param, e))?);
                }
                return Ok(Clause::All(all));
            }
            Storage::Tuple(parts) => {
                let mut tests = Vec::new();
                for (part, raw) in components(param, modifier, parts, raw)? {
                    let p = definition::param(t, part).ok_or_else(|| unknown(t, param.code))?;
                    let mut list = self.tests(p, None, raw).map_err(|e| inside(param, e))?;
                    // Only a reference by the server's own URL has a second reading; inside a tuple the first counts.
                    list.truncate(1);
                    tests.extend(list);
                }
                return Ok(Clause::Match {
                    param: no,
                    test: Test::Tuple(tests),
                });
            }
            Storage::Union(list) if param.kind == Kind::Composite => {
                let mut some = Vec::new();
                for (part, _) in list {
                    let p = definition::param(t, *part).ok_or_else(|| unknown(t, param.code))?;
                    some.push(self.value(t, *part, p, modifier, raw).map_err(|e| inside(param, e))?);
                }
                return Ok(any(some));
            }
            _ => {}
        }
        if let (Kind::Reference, Some(up @ ("above" | "below"))) = (param.kind, modifier) {
            return self.hierarchy(t, no, param, up == "above", raw);
        }
        let tests = self.tests(param, modifier, raw)?;
        let mut some = Vec::new();
        for (stored, narrowed) in definition::behind(t, no) {
            for test in &tests {
                some.push(match (test, narrowed) {
                    (Test::Reference { target: Some(t), .. }, Some(n)) if *t != n => Clause::Never,
                    (Test::Url(url), Some(n)) if tail_type(url).is_some_and(|t| t != n) => Clause::Never,
                    (Test::Reference { target: None, id }, Some(n)) => {
                        let test = Test::Reference {
                            target: Some(n),
                            id: id.clone(),
                        };
                        Clause::Match { param: stored, test }
                    }
                    _ => Clause::Match {
                        param: stored,
                        test: test.clone(),
                    },
                });
            }
        }
        Ok(any(some))
    }

    /// The test for one value, or several of which one must hold.
    fn tests(&self, param: &Param, modifier: Option<&str>, raw: &str) -> Result<Vec<Test>, Issue> {
        let refused = || Err(modifier_refused(param.code, modifier.unwrap_or_default(), param.kind));
        let one = match (param.kind, modifier) {
            (Kind::Number, None) => Test::Number(number(param, raw)?),
            (Kind::Date, None) => Test::Date(self.date(param, None, raw)?),
            (Kind::String, None) => Test::String(StringTest::Prefix(folded(param, raw)?)),
            (Kind::String, Some("contains")) => Test::String(StringTest::Contains(folded(param, raw)?)),
            (Kind::String, Some("exact")) => Test::String(StringTest::Exact(text(param, raw)?)),
            (Kind::Token, None) => Test::Token(token(param, raw)?),
            (Kind::Token, Some("text")) => Test::Text(folded(param, raw)?),
            (Kind::Token, Some("of-type")) => {
                let parts: Vec<String> = split(raw, '|').iter().map(|p| unescape(p)).collect();
                match <[String; 3]>::try_from(parts) {
                    Ok([system, code, value]) if ![&system, &code, &value].iter().any(|s| s.is_empty()) => {
                        Test::OfType { system, code, value }
                    }
                    _ => {
                        return Err(bad(
                            &format!("{}:of-type", param.code),
                            "of the form `system|code|value`",
                        ));
                    }
                }
            }
            (Kind::Token, Some("in")) => {
                let set = self.options.terminology.expansion(&text(param, raw)?);
                Test::OneOf(set.ok_or_else(|| {
                    Issue::error(
                        "not-found",
                        format!("the value set that `{}` names is not known here", param.code),
                    )
                })?)
            }
            (Kind::Token, Some(side @ ("above" | "below"))) => {
                let (system, code) = match token(param, raw)? {
                    TokenTest::SystemCode(s, c) => (s, c),
                    TokenTest::Code(c) if param.system.is_some() => (param.system.unwrap_or_default().to_owned(), c),
                    _ => return Err(bad(&format!("{}:{side}", param.code), "of the form `system|code`")),
                };
                let t = self.options.terminology;
                let set = if side == "above" {
                    t.above(&system, &code)
                } else {
                    t.below(&system, &code)
                };
                Test::OneOf(set.ok_or_else(|| {
                    let what = "the code that it names has no hierarchy known here";
                    Issue::error("not-found", format!("`{}:{side}`: {what}", param.code))
                })?)
            }
            (Kind::Reference, Some("identifier")) if param.literal => Test::ReferenceIdentifier(token(param, raw)?),
            (Kind::Reference, modifier) => {
                let narrowed = match modifier {
                    None => None,
                    Some(m) => {
                        match ResourceType::from_name(m).filter(|t| param.literal && param.targets.contains(t)) {
                            Some(t) => Some(t),
                            None => return refused(),
                        }
                    }
                };
                return self.reference(param, narrowed, raw);
            }
            (Kind::Quantity, None) => quantity(param, raw)?,
            (Kind::Uri, None) => Test::Uri(UriTest::Exact(text(param, raw)?)),
            (Kind::Uri, Some("below")) => Test::Uri(UriTest::Below(text(param, raw)?)),
            (Kind::Uri, Some("above")) => Test::Uri(UriTest::Above(text(param, raw)?)),
            _ => return refused(),
        };
        Ok(vec![one])
    }

    /// A reference by id, `Type/id` or URL.
    fn reference(&self, param: &Param, narrowed: Option<ResourceType>, raw: &str) -> Result<Vec<Test>, Issue> {
        let value = text(param, raw)?;
        let base = self.options.base;
        if !param.literal {
            // As extracted.
            return Ok(vec![Test::Url(base.below(&value).unwrap_or(&value).to_owned())]);
        }
        if let Some((target, id)) = base.local(&value) {
            if narrowed.is_some_and(|n| n != target) {
                return Err(bad(param.code, "a reference to the type that its modifier names"));
            }
            return Ok(vec![Test::Reference {
                target: Some(target),
                id: id.to_owned(),
            }]);
        }
        if is_id(&value) {
            let only = match &*param.targets {
                [one] => Some(*one),
                _ => None,
            };
            return Ok(vec![Test::Reference {
                target: narrowed.or(only),
                id: value,
            }]);
        }
        let scheme = value.split(':').next().unwrap_or_default();
        let absolute = scheme.len() < value.len()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if absolute && !value.contains(char::is_whitespace) {
            return Ok(vec![Test::Url(value)]);
        }
        Err(bad(param.code, "an id, `Type/id` or an absolute URL"))
    }

    /// `:below` and `:above` on a reference: the target or what is part of it, or what it is part of, by the `partof`
    /// parameter of the target's type (R4 search, 2.1.1.4.11), to the depth chains have.
    fn hierarchy(&self, t: ResourceType, no: ParamNo, param: &Param, above: bool, raw: &str) -> Result<Clause, Issue> {
        let mut list = Vec::new();
        let mut known = false;
        for test in self.reference(param, None, raw)? {
            let Test::Reference { target, id } = &test else {
                continue;
            };
            for (stored, narrowed) in definition::behind(t, no) {
                for kind in param
                    .targets
                    .iter()
                    .filter(|k| narrowed.or(*target).is_none_or(|n| n == **k))
                {
                    let Some(part_of) = part_of(*kind) else { continue };
                    known = true;
                    let itself = Test::Reference {
                        target: Some(*kind),
                        id: id.clone(),
                    };
                    let mut clause = match above {
                        true => Clause::Id(vec![id.clone()]),
                        false => Clause::Match {
                            param: part_of,
                            test: itself.clone(),
                        },
                    };
                    for _ in 1..DEPTH {
                        let link = if above {
                            Clause::Has {
                                source: *kind,
                                reference: part_of,
                                clause: Box::new(clause.clone()),
                            }
                        } else {
                            Clause::Chain {
                                param: part_of,
                                targets: vec![(*kind, clause.clone())],
                            }
                        };
                        clause = any(vec![first(above, part_of, id, *kind), link]);
                    }
                    if above {
                        clause = Clause::Has {
                            source: *kind,
                            reference: part_of,
                            clause: Box::new(clause),
                        };
                    }
                    list.push(Clause::Match {
                        param: stored,
                        test: itself,
                    });
                    list.push(Clause::Chain {
                        param: stored,
                        targets: vec![(*kind, clause)],
                    });
                }
            }
        }
        if known {
            Ok(any(list))
        } else {
            Err(Issue::error(
                "not-supported",
                format!(
                    "`{}` does not refer to a type with a hierarchy, so `:above` and `:below` have no meaning",
                    param.code
                ),
            ))
        }
    }

    fn date(&self, param: &Param, modifier: Option<&str>, raw: &str) -> Result<DateTest, Issue> {
        if let Some(m) = modifier {
            return Err(modifier_refused(param.code, m, Kind::Date));
        }
        let (prefix, rest) = prefix(param, raw)?;
        let need = "a date such as 2013, 2013-01, 2013-01-14 or 2013-01-14T10:00:00Z, with a prefix or without";
        let (mut lo, mut hi) = date::range(&unescape(rest)).ok_or_else(|| bad(param.code, need))?;
        if prefix == Prefix::Ap {
            // R4 search, 2.1.1.4.1: a tenth of the gap between now and the date.
            let now = self.options.now.0;
            let gap = if now < lo { lo - now } else { (now - hi).max(0) };
            lo -= gap / 10;
            hi += gap / 10;
        }
        Ok(DateTest { prefix, lo, hi })
    }
}

/// A canonical names a resource by its URL, not by its place on this server.
fn canonical_link(t: ResourceType, param: &Param) -> Issue {
    Issue::error(
        "not-supported",
        format!(
            "`{}` of {t} holds canonical URLs; chains, `_has` and includes follow references only",
            param.code
        ),
    )
}

fn not_offered(code: &str) -> Issue {
    Issue::error(
        "not-supported",
        format!("`{}` is not offered by this server", shown(code)),
    )
}

/// The last link of a hierarchy.
fn first(above: bool, part_of: ParamNo, id: &str, kind: ResourceType) -> Clause {
    if above {
        Clause::Id(vec![id.to_owned()])
    } else {
        Clause::Match {
            param: part_of,
            test: Test::Reference {
                target: Some(kind),
                id: id.to_owned(),
            },
        }
    }
}

/// The parameter by which resources of a type are part of others of it.
fn part_of(t: ResourceType) -> Option<ParamNo> {
    let (no, param) = definition::find(t, "partof").or_else(|| definition::find(t, "part-of"))?;
    (param.storage == Storage::Stored && param.targets.contains(&t)).then_some(no)
}

fn any(mut list: Vec<Clause>) -> Clause {
    list.retain(|c| *c != Clause::Never);
    match list.len() {
        0 => Clause::Never,
        1 => list.pop().unwrap_or(Clause::Never),
        _ => Clause::Any(list),
    }
}

fn not(c: Clause) -> Clause {
    Clause::Not(Box::new(c))
}

/// The parameter has a value.
fn present(t: ResourceType, no: ParamNo) -> Clause {
    match definition::param(t, no).map(|p| &p.storage) {
        Some(Storage::Stored | Storage::Tuple(_)) => Clause::Missing {
            param: no,
            missing: false,
        },
        Some(Storage::Alias { .. } | Storage::Union(_)) => {
            let one = |(param, narrowed): (ParamNo, Option<ResourceType>)| match narrowed {
                None => Clause::Missing { param, missing: false },
                Some(target) => Clause::Match {
                    param,
                    test: Test::ReferenceTo(target),
                },
            };
            any(definition::behind(t, no).into_iter().map(one).collect())
        }
        Some(Storage::Root(list)) => Clause::All(list.iter().map(|n| present(t, *n)).collect()),
        Some(Storage::Column(_)) => Clause::All(Vec::new()),
        Some(Storage::Unsupported) | None => Clause::Never,
    }
}

fn components<'r>(
    param: &Param,
    modifier: Option<&str>,
    parts: &[ParamNo],
    raw: &'r str,
) -> Result<Vec<(ParamNo, &'r str)>, Issue> {
    if let Some(m) = modifier {
        return Err(modifier_refused(param.code, m, Kind::Composite));
    }
    let values = split(raw, '$');
    if values.len() != parts.len() {
        return Err(bad(
            param.code,
            &format!("{} components with `$` between them", parts.len()),
        ));
    }
    Ok(parts.iter().copied().zip(values).collect())
}

fn text(param: &Param, raw: &str) -> Result<String, Issue> {
    if raw.is_empty() {
        Err(bad(param.code, "there: it is empty"))
    } else {
        Ok(unescape(raw))
    }
}

fn folded(param: &Param, raw: &str) -> Result<String, Issue> {
    let folded = fold(&unescape(raw));
    // Nothing but combining marks would be a prefix of every value.
    if folded.is_empty() {
        Err(bad(param.code, "a text with at least one letter"))
    } else {
        Ok(folded)
    }
}

fn token(param: &Param, raw: &str) -> Result<TokenTest, Issue> {
    let parts: Vec<String> = split(raw, '|').iter().map(|p| unescape(p)).collect();
    let test = match parts.as_slice() {
        [code] if !code.is_empty() => TokenTest::Code(code.clone()),
        [system, code] => match (system.is_empty(), code.is_empty()) {
            (false, false) => TokenTest::SystemCode(system.clone(), code.clone()),
            (true, false) => TokenTest::NoSystemCode(code.clone()),
            (false, true) => TokenTest::System(system.clone()),
            (true, true) => return Err(bad(param.code, "a code or `system|code`")),
        },
        _ => return Err(bad(param.code, "a code or `system|code`")),
    };
    if param.boolean {
        // Stored without a system; R4 names one for booleans that nobody writes.
        return match test {
            TokenTest::Code(c) | TokenTest::NoSystemCode(c) if c == "true" || c == "false" => Ok(TokenTest::Code(c)),
            TokenTest::SystemCode(s, c)
                if s == "http://terminology.hl7.org/CodeSystem/special-values" && (c == "true" || c == "false") =>
            {
                Ok(TokenTest::Code(c))
            }
            _ => Err(bad(param.code, "`true` or `false`")),
        };
    }
    Ok(test)
}

fn prefix<'r>(param: &Param, raw: &'r str) -> Result<(Prefix, &'r str), Issue> {
    let letters = raw.len() - raw.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
    if letters == 0 {
        return Ok((Prefix::Eq, raw));
    }
    let (name, rest) = raw.split_at_checked(letters).unwrap_or_default();
    let prefix = match name {
        "eq" => Prefix::Eq,
        "ne" => Prefix::Ne,
        "gt" => Prefix::Gt,
        "lt" => Prefix::Lt,
        "ge" => Prefix::Ge,
        "le" => Prefix::Le,
        "sa" => Prefix::Sa,
        "eb" => Prefix::Eb,
        "ap" => Prefix::Ap,
        _ => {
            return Err(bad(
                param.code,
                "one with a known prefix (`eq ne gt lt ge le sa eb ap`)",
            ));
        }
    };
    Ok((prefix, rest))
}

fn number(param: &Param, raw: &str) -> Result<NumberTest, Issue> {
    let (prefix, rest) = prefix(param, raw)?;
    let d = number::decimal(&unescape(rest)).ok_or_else(|| bad(param.code, "a decimal number of up to 32 digits"))?;
    let (lo, hi) = match prefix {
        // R4 search, 2.1.1.4.1: a tenth of the value.
        Prefix::Ap => (d.value - d.value.abs() / 10.0, d.value + d.value.abs() / 10.0),
        _ => (d.lo, d.hi),
    };
    Ok(NumberTest {
        prefix,
        value: d.value,
        lo,
        hi,
    })
}

fn quantity(param: &Param, raw: &str) -> Result<Test, Issue> {
    let parts = split(raw, '|');
    let (value, system, code) = match parts.as_slice() {
        [value] => (*value, "", ""),
        [value, system, code] => (*value, *system, *code),
        _ => return Err(bad(param.code, "a number, `number|system|code` or `number||unit`")),
    };
    let filled = |s: &str| (!s.is_empty()).then(|| unescape(s));
    Ok(Test::Quantity {
        number: number(param, value)?,
        system: filled(system),
        code: filled(code),
    })
}

fn sort(t: ResourceType, value: &str) -> Result<Vec<SortKey>, Issue> {
    let mut keys = Vec::new();
    for key in value.split(',').map(str::trim) {
        let (code, descending) = key.strip_prefix('-').map_or((key, false), |k| (k, true));
        let list = || bad("_sort", &format!("a list of search parameters of {t}"));
        let (no, param) = definition::find(t, code).ok_or_else(list)?;
        let by = match (&param.storage, definition::behind(t, no).as_slice()) {
            (Storage::Column(Column::Id), _) => SortBy::Id,
            (Storage::Column(Column::LastUpdated), _) => SortBy::LastUpdated,
            (_, [(one, _)]) if param.kind != Kind::Composite => SortBy::Param(*one),
            _ => {
                return Err(Issue::error(
                    "not-supported",
                    format!("matches cannot be sorted by `{code}`"),
                ));
            }
        };
        keys.push(SortKey { by, descending });
    }
    Ok(keys)
}

/// `_include` and `_revinclude`: `Type:parameter`, `Type:parameter:Target`, `Type:*`, `*`.
fn include(t: ResourceType, name: &str, value: &str) -> Result<Vec<Include>, Issue> {
    let reverse = name.starts_with("_revinclude");
    let iterate = name.ends_with(":iterate");
    let mut parts = value.split(':');
    let (source, code, target) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let form = || {
        bad(
            name,
            "of the form `Type:parameter`, `Type:parameter:Target`, `Type:*` or `*`",
        )
    };
    if parts.next().is_some() {
        return Err(form());
    }
    let target = match target {
        None | Some("") => None,
        Some(name) => Some(ResourceType::from_name(name).ok_or_else(form)?),
    };
    // Where the references must be able to lead: for `_revinclude` to the type searched, unless it goes on from there.
    let wanted = target.or((reverse && !iterate).then_some(t));
    if source == "*" && code.is_none() {
        let sources = ResourceType::all().filter(|s| reverse || iterate || *s == t);
        return Ok(sources
            .filter_map(|s| every(s, reverse, iterate, target, wanted))
            .collect());
    }
    let source = ResourceType::from_name(source).ok_or_else(form)?;
    match code {
        Some("*") => Ok(every(source, reverse, iterate, target, wanted).into_iter().collect()),
        Some(code) if !code.is_empty() => {
            let reference = || bad(name, &format!("a reference parameter of {source}"));
            let (no, param) = definition::find(source, code).ok_or_else(reference)?;
            if param.kind != Kind::Reference || wanted.is_some_and(|w| !param.targets.contains(&w)) {
                let to = wanted.map_or("another resource", ResourceType::name);
                return Err(Issue::error(
                    "value",
                    format!("`{}` of {source} does not refer to {to}", param.code),
                ));
            }
            if !param.literal {
                return Err(canonical_link(source, param));
            }
            let views = definition::behind(source, no).into_iter();
            let views = views.map(|(param, narrowed)| (param, target.or(narrowed)));
            let mut list: Vec<Include> = Vec::new();
            for (param, target) in views {
                match list.iter_mut().find(|i| i.target == target) {
                    Some(i) => i.params.push(param),
                    None => list.push(Include {
                        reverse,
                        iterate,
                        source,
                        params: vec![param],
                        target,
                    }),
                }
            }
            Ok(list)
        }
        _ => Err(form()),
    }
}

/// All reference parameters of a type that can lead where they are wanted.
fn every(
    source: ResourceType,
    reverse: bool,
    iterate: bool,
    target: Option<ResourceType>,
    wanted: Option<ResourceType>,
) -> Option<Include> {
    let params: Vec<ParamNo> = definition::params(source)
        .iter()
        .enumerate()
        .filter(|(_, p)| p.kind == Kind::Reference && p.storage == Storage::Stored)
        .filter(|(_, p)| wanted.is_none_or(|w| p.targets.contains(&w)))
        .map(|(i, _)| ParamNo(i as u16))
        .collect();
    (!params.is_empty()).then_some(Include {
        reverse,
        iterate,
        source,
        params,
        target,
    })
}

/// Splits at a sign that has no `\` before it (R4 search, 2.1.1.4.2); the parts stay escaped.
fn split(raw: &str, sign: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut escaped = false;
    for (i, c) in raw.char_indices() {
        if c == sign && !escaped {
            parts.push(raw.get(from..i).unwrap_or_default());
            from = i + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(raw.get(from..).unwrap_or_default());
    parts
}

/// Takes the `\` away before `,`, `|`, `$` and `\`; any other `\` stands for itself.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw.chars().peekable();
    while let Some(c) = rest.next() {
        match rest.peek() {
            Some(next @ (',' | '|' | '$' | '\\')) if c == '\\' => {
                out.push(*next);
                rest.next();
            }
            _ => out.push(c),
        }
    }
    out
}
