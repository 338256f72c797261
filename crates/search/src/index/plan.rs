//! A query's clauses made ready for one type's rows: texts looked up once, so that testing a row compares numbers.

use super::Index;
use super::intern::Strings;
use super::keys::{Key, Kind, Unit};
use super::shard::{Shard, type_text};
use crate::extract::tail_type;
use crate::query::{Clause, DateTest, NumberTest, StringTest, Test, TokenTest, UriTest};
use crate::term::fold;
use keepwell_model::types::ResourceType;

/// A condition on a row.
pub enum Node {
    Never,
    /// A value of the parameter meets the test.
    Match(u16, Check),
    /// The parameter has a value.
    Present(u16),
    /// One of these rows, in ascending order.
    Rows(Vec<u32>),
    LastUpdated(DateTest),
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    /// The parameter refers to a resource of a type that meets its condition.
    Chain(u16, Vec<(ResourceType, Node)>),
    /// A resource of the type refers here by the parameter and meets the condition.
    Has(ResourceType, u16, Box<Node>),
}

impl Node {
    /// Whether no row can meet it, as far as that is plain.
    fn is_nothing(&self) -> bool {
        match self {
            Self::Never => true,
            Self::Match(_, Check::Keys(list) | Check::Refs(list)) | Self::Rows(list) => list.is_empty(),
            _ => false,
        }
    }
}

/// A test on a value.
pub enum Check {
    /// One of these keys, in ascending order.
    Keys(Vec<u32>),
    /// One of these resources, in ascending order.
    Refs(Vec<u32>),
    /// A resource of this type, or one of these keys, in ascending order.
    RefsTo(ResourceType, Vec<u32>),
    Date(DateTest),
    Number(NumberTest),
    /// Number, and one of these units in ascending order.
    Quantity(NumberTest, Vec<u32>),
    Tuple(Vec<Check>),
}

impl Index {
    /// Makes a clause ready for the rows of a type.
    pub(super) fn plan(&self, resource_type: ResourceType, clause: &Clause) -> Node {
        let Some(shard) = self.shard(resource_type) else {
            return Node::Never;
        };
        match clause {
            Clause::Match { param, test } => Node::Match(param.0, self.check(shard, param.0, test)),
            Clause::Missing { param, missing: false } => Node::Present(param.0),
            Clause::Missing { param, missing: true } => Node::Not(Box::new(Node::Present(param.0))),
            Clause::Chain { param, targets } => {
                Node::Chain(param.0, targets.iter().map(|(t, c)| (*t, self.plan(*t, c))).collect())
            }
            Clause::Has {
                source,
                reference,
                clause,
            } => Node::Has(*source, reference.0, Box::new(self.plan(*source, clause))),
            Clause::Id(ids) => Node::Rows(sorted(ids.iter().flat_map(|id| self.rows_with_id(resource_type, id)))),
            Clause::LastUpdated(test) => Node::LastUpdated(*test),
            Clause::Any(list) => {
                // Values that nothing has: often all but one, and one alone is found faster.
                let mut some: Vec<Node> = list.iter().map(|c| self.plan(resource_type, c)).collect();
                some.retain(|node| !node.is_nothing());
                match some.len() {
                    1 => some.pop().unwrap_or(Node::Never),
                    _ => Node::Any(some),
                }
            }
            Clause::All(list) => Node::All(list.iter().map(|c| self.plan(resource_type, c)).collect()),
            Clause::Not(inner) => Node::Not(Box::new(self.plan(resource_type, inner))),
            Clause::Compartment {
                owner,
                id,
                params,
                itself,
            } => {
                let owner_number = self.entities.find(self.seed, *owner, id);
                let mut any: Vec<Node> = Vec::new();
                if let Some(e) = owner_number {
                    any.extend(params.iter().map(|p| Node::Match(p.0, Check::Refs(vec![e]))));
                }
                if *itself && resource_type == *owner {
                    any.push(Node::Rows(sorted(self.rows_with_id(resource_type, id))));
                }
                Node::Any(any)
            }
            Clause::Never => Node::Never,
        }
    }

    /// All rows of a resource, forgotten ones too.
    fn rows_with_id(&self, resource_type: ResourceType, id: &str) -> Vec<u32> {
        let head = self
            .entities
            .find(self.seed, resource_type, id)
            .and_then(|e| self.entities.head(e));
        std::iter::successors(head, |row| self.shard(resource_type)?.previous.get(row).copied()).collect()
    }

    fn check(&self, shard: &Shard, param: u16, test: &Test) -> Check {
        let keys = |kind: Kind, text: &str, is: &dyn Fn(Key) -> bool| {
            let with = shard.keys.with_text(self.seed, &self.strings, kind, param, text);
            Check::Keys(sorted(with.filter(|(_, k)| is(*k)).map(|(n, _)| n)))
        };
        let strings = &self.strings;
        match test {
            Test::Token(test) => self.token(shard, Kind::Token, param, test),
            Test::ReferenceIdentifier(test) => self.token(shard, Kind::RefIdentifier, param, test),
            Test::OneOf(set) => Check::Keys(sorted(set.iter().flat_map(|(system, code)| {
                let with = shard.keys.with_text(self.seed, strings, Kind::Token, param, code);
                let same = with.filter(move |(_, k)| k.second_text(strings).unwrap_or_default() == system);
                same.map(|(n, _)| n)
            }))),
            Test::Text(prefix) => Check::Keys(sorted(shard.keys.with_prefix(Kind::Text, param, prefix))),
            Test::OfType { system, code, value } => {
                let wanted = type_text(system, code);
                keys(Kind::OfType, value, &|k| k.second_text(strings) == Some(&wanted))
            }
            Test::String(StringTest::Prefix(p)) => Check::Keys(sorted(shard.keys.with_prefix(Kind::Str, param, p))),
            Test::String(StringTest::Contains(part)) => {
                let all = shard.keys.in_order(Kind::Str, param);
                Check::Keys(sorted(
                    all.filter(|(text, _)| text.contains(part.as_str())).map(|(_, n)| n),
                ))
            }
            Test::String(StringTest::Exact(text)) => keys(Kind::Str, text, &|_| true),
            Test::Reference {
                target: Some(target),
                id,
            } => Check::Refs(self.entities.find(self.seed, *target, id).into_iter().collect()),
            Test::Reference { target: None, id } => Check::Refs(sorted(self.entities.find_any(self.seed, id))),
            Test::ReferenceTo(target) => {
                let all = shard.keys.all(Kind::Url, param);
                let names = |k: Key| tail_type(strings.text(k.text)) == Some(*target);
                Check::RefsTo(*target, sorted(all.filter(|(_, k)| names(*k)).map(|(n, _)| n)))
            }
            Test::Url(url) => {
                let with = shard.keys.with_prefix(Kind::Url, param, url);
                let same = |n: &u32| {
                    let text = shard.keys.get(*n).map_or("", |k| strings.text(k.text));
                    text.get(url.len()..)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['|', '#']))
                };
                Check::Keys(sorted(with.filter(same)))
            }
            Test::Uri(UriTest::Exact(uri)) => keys(Kind::Uri, uri, &|_| true),
            Test::Uri(UriTest::Below(base)) => {
                let with = shard.keys.with_prefix(Kind::Uri, param, base);
                let text = |n: u32| shard.keys.get(n).map_or("", |k| strings.text(k.text));
                Check::Keys(sorted(with.filter(|n| below(text(*n), base))))
            }
            Test::Uri(UriTest::Above(uri)) => {
                let all = shard.keys.in_order(Kind::Uri, param);
                Check::Keys(sorted(all.filter(|(base, _)| below(uri, base)).map(|(_, n)| n)))
            }
            Test::Date(test) => Check::Date(*test),
            Test::Number(test) => Check::Number(*test),
            Test::Quantity {
                number,
                system: None,
                code: None,
            } => Check::Number(*number),
            Test::Quantity { number, system, code } => {
                let fits = |k: Key| {
                    let unit = Unit::split(strings.text(k.text));
                    match (system.as_deref(), code.as_deref()) {
                        (None, code) => unit.code == code || unit.unit == code,
                        (system, None) => unit.system == system,
                        (system, code) => unit.system == system && unit.code == code,
                    }
                };
                let all = shard.keys.all(Kind::Unit, param);
                Check::Quantity(*number, sorted(all.filter(|(_, k)| fits(*k)).map(|(n, _)| n)))
            }
            Test::Tuple(tests) => Check::Tuple(tests.iter().map(|t| self.check(shard, param, t)).collect()),
        }
    }

    fn token(&self, shard: &Shard, kind: Kind, param: u16, test: &TokenTest) -> Check {
        let strings = &self.strings;
        let with = |code: &str, is: &dyn Fn(Option<&str>) -> bool| {
            let all = shard.keys.with_text(self.seed, strings, kind, param, code);
            sorted(all.filter(|(_, k)| is(k.second_text(strings))).map(|(n, _)| n))
        };
        Check::Keys(match test {
            TokenTest::Code(code) => with(code, &|_| true),
            TokenTest::SystemCode(system, code) => with(code, &|s| s == Some(system)),
            TokenTest::NoSystemCode(code) => with(code, &|s| s.is_none()),
            TokenTest::System(system) => match strings.find(self.seed, system) {
                Some(number) => sorted(
                    shard
                        .keys
                        .all(kind, param)
                        .filter(|(_, k)| k.second == number + 1)
                        .map(|(n, _)| n),
                ),
                None => Vec::new(),
            },
        })
    }
}

/// `text` is `base` or continues it after a `/`, `#`, `?` or `|`.
fn below(text: &str, base: &str) -> bool {
    text.strip_prefix(base)
        .is_some_and(|rest| rest.is_empty() || base.ends_with('/') || rest.starts_with(['/', '#', '?', '|']))
}

fn sorted(numbers: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut list: Vec<u32> = numbers.into_iter().collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// The folded text of a string key, for ordering.
pub fn folded(strings: &Strings, key: Key) -> String {
    fold(strings.text(key.text))
}
