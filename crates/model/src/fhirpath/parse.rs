//! From text to a tree (grammar of FHIRPath N1, by precedence climbing).

use super::ParseError;
use super::temporal::TemporalKind;

/// A node of the tree. Where a part is `None`, it is the focus of the evaluation.
#[derive(Debug)]
pub(super) enum Expr {
    Empty,
    Bool(bool),
    Str(String),
    Int(i64),
    Dec(String),
    Temporal(String, TemporalKind),
    Quantity(String, String),
    This,
    Index,
    Env(String),
    Member(Option<Box<Expr>>, String),
    Item(Box<Expr>, Box<Expr>),
    Call(Option<Box<Expr>>, Func, Vec<Expr>),
    Negative(Box<Expr>),
    Binary(Op, Box<Expr>, Box<Expr>),
    Is(Box<Expr>, TypeName),
    As(Box<Expr>, TypeName),
}

/// `System.Boolean`, `FHIR.Patient` or without a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TypeName {
    pub space: Option<String>,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Times,
    Over,
    Div,
    Mod,
    Plus,
    Minus,
    Join,
    Union,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    Equivalent,
    NotEquivalent,
    In,
    Contains,
    And,
    Or,
    Xor,
    Implies,
}

macro_rules! functions {
    ($($variant:ident $name:literal $least:literal $most:literal,)*) => {
        /// The functions of this engine.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Func { $($variant),* }

        impl Func {
            /// The function, and the least and most number of its arguments.
            fn named(name: &str) -> Option<(Self, usize, usize)> {
                match name {
                    $($name => Some((Func::$variant, $least, $most)),)*
                    _ => None,
                }
            }
        }
    };
}

functions! {
    Empty "empty" 0 0,
    Exists "exists" 0 1,
    All "all" 1 1,
    AllTrue "allTrue" 0 0,
    AnyTrue "anyTrue" 0 0,
    AllFalse "allFalse" 0 0,
    AnyFalse "anyFalse" 0 0,
    SubsetOf "subsetOf" 1 1,
    SupersetOf "supersetOf" 1 1,
    Count "count" 0 0,
    Distinct "distinct" 0 0,
    IsDistinct "isDistinct" 0 0,
    Where "where" 1 1,
    Select "select" 1 1,
    Repeat "repeat" 1 1,
    OfType "ofType" 1 1,
    Single "single" 0 0,
    First "first" 0 0,
    Last "last" 0 0,
    Tail "tail" 0 0,
    Skip "skip" 1 1,
    Take "take" 1 1,
    Intersect "intersect" 1 1,
    Exclude "exclude" 1 1,
    Union "union" 1 1,
    Combine "combine" 1 1,
    Iif "iif" 2 3,
    ToBoolean "toBoolean" 0 0,
    ConvertsToBoolean "convertsToBoolean" 0 0,
    ToInteger "toInteger" 0 0,
    ConvertsToInteger "convertsToInteger" 0 0,
    ToDecimal "toDecimal" 0 0,
    ConvertsToDecimal "convertsToDecimal" 0 0,
    ToString "toString" 0 0,
    ConvertsToString "convertsToString" 0 0,
    IndexOf "indexOf" 1 1,
    Substring "substring" 1 2,
    StartsWith "startsWith" 1 1,
    EndsWith "endsWith" 1 1,
    Contains "contains" 1 1,
    Upper "upper" 0 0,
    Lower "lower" 0 0,
    Replace "replace" 2 2,
    Length "length" 0 0,
    ToChars "toChars" 0 0,
    Trim "trim" 0 0,
    Split "split" 1 1,
    Join "join" 0 1,
    Abs "abs" 0 0,
    Ceiling "ceiling" 0 0,
    Floor "floor" 0 0,
    Truncate "truncate" 0 0,
    Round "round" 0 1,
    Sqrt "sqrt" 0 0,
    Exp "exp" 0 0,
    Ln "ln" 0 0,
    Log "log" 1 1,
    Power "power" 1 1,
    Children "children" 0 0,
    Descendants "descendants" 0 0,
    Trace "trace" 1 2,
    Not "not" 0 0,
    Is "is" 1 1,
    As "as" 1 1,
    Extension "extension" 1 1,
    HasValue "hasValue" 0 0,
    GetValue "getValue" 0 0,
    Resolve "resolve" 0 0,
}

/// Deepest nesting of parentheses and operators.
const DEPTH: usize = 60;

/// Most operators, members and calls. The specification's own expressions have fewer than a hundred.
const LINKS: usize = 250;

pub(super) fn parse(text: &str) -> Result<Expr, ParseError> {
    let mut p = Parser {
        text,
        at: 0,
        depth: 0,
        links: 0,
    };
    let e = p.expression(0)?;
    p.space()?;
    if p.at < text.len() { Err(p.fail()) } else { Ok(e) }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    links: usize,
}

impl<'t> Parser<'t> {
    fn fail(&self) -> ParseError {
        ParseError::Syntax(self.at)
    }

    /// One more operator, member or call.
    fn link(&mut self) -> Result<(), ParseError> {
        self.links += 1;
        if self.links > LINKS {
            Err(ParseError::Long)
        } else {
            Ok(())
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Skips white space and comments.
    fn space(&mut self) -> Result<(), ParseError> {
        loop {
            let rest = self.rest();
            if rest.starts_with(char::is_whitespace) {
                self.at += rest.len() - rest.trim_start().len();
            } else if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                self.at += rest.find("*/").ok_or_else(|| self.fail())? + 2;
            } else {
                return Ok(());
            }
        }
    }

    /// Takes `symbol` if it comes next.
    fn eat(&mut self, symbol: &str) -> Result<bool, ParseError> {
        self.space()?;
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        Ok(found)
    }

    fn need(&mut self, symbol: &str) -> Result<(), ParseError> {
        if self.eat(symbol)? { Ok(()) } else { Err(self.fail()) }
    }

    /// The plain word that comes next, not taken.
    fn word(&mut self) -> Result<&'t str, ParseError> {
        self.space()?;
        let rest = self.rest();
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok("");
        }
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        Ok(rest.get(..end).unwrap_or_default())
    }

    /// The operator that comes next, its precedence and length.
    fn operator(&mut self) -> Result<Option<(Option<Op>, u8, usize)>, ParseError> {
        let word = self.word()?;
        let found = match word {
            "div" => (Some(Op::Div), 10),
            "mod" => (Some(Op::Mod), 10),
            "is" | "as" => (None, 8),
            "in" => (Some(Op::In), 4),
            "contains" => (Some(Op::Contains), 4),
            "and" => (Some(Op::And), 3),
            "or" => (Some(Op::Or), 2),
            "xor" => (Some(Op::Xor), 2),
            "implies" => (Some(Op::Implies), 1),
            "" => {
                const SYMBOLS: [(&str, Op, u8); 14] = [
                    ("<=", Op::LessOrEqual, 6),
                    (">=", Op::GreaterOrEqual, 6),
                    ("!=", Op::NotEqual, 5),
                    ("!~", Op::NotEquivalent, 5),
                    ("*", Op::Times, 10),
                    ("/", Op::Over, 10),
                    ("+", Op::Plus, 9),
                    ("-", Op::Minus, 9),
                    ("&", Op::Join, 9),
                    ("|", Op::Union, 7),
                    ("<", Op::Less, 6),
                    (">", Op::Greater, 6),
                    ("=", Op::Equal, 5),
                    ("~", Op::Equivalent, 5),
                ];
                let rest = self.rest();
                let symbol = SYMBOLS.iter().find(|(s, _, _)| rest.starts_with(s));
                return Ok(symbol.map(|(s, op, level)| (Some(*op), *level, s.len())));
            }
            _ => return Ok(None),
        };
        Ok(Some((found.0, found.1, word.len())))
    }

    fn expression(&mut self, least: u8) -> Result<Expr, ParseError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(ParseError::Depth);
        }
        let mut left = self.unary()?;
        while let Some((op, level, len)) = self.operator()? {
            if level <= least {
                break;
            }
            self.link()?;
            let is = self.rest().starts_with("is");
            self.at += len;
            left = match op {
                Some(op) => Expr::Binary(op, Box::new(left), Box::new(self.expression(level)?)),
                None => {
                    let t = self.type_name()?;
                    if is {
                        Expr::Is(Box::new(left), t)
                    } else {
                        Expr::As(Box::new(left), t)
                    }
                }
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn type_name(&mut self) -> Result<TypeName, ParseError> {
        self.space()?;
        let first = self.identifier()?;
        if self.eat(".")? {
            Ok(TypeName {
                space: Some(first),
                name: self.identifier()?,
            })
        } else {
            Ok(TypeName {
                space: None,
                name: first,
            })
        }
    }

    fn unary(&mut self) -> Result<Expr, ParseError> {
        if self.eat("-")? {
            self.depth += 1;
            if self.depth > DEPTH {
                return Err(ParseError::Depth);
            }
            let e = Expr::Negative(Box::new(self.unary()?));
            self.depth -= 1;
            return Ok(e);
        }
        self.eat("+")?;
        let mut e = self.term()?;
        loop {
            if self.eat("[")? {
                self.link()?;
                let index = self.expression(0)?;
                self.need("]")?;
                e = Expr::Item(Box::new(e), Box::new(index));
            } else if self.eat(".")? {
                self.link()?;
                self.space()?;
                e = self.invocation(Some(Box::new(e)))?;
            } else {
                return Ok(e);
            }
        }
    }

    /// A member or a function call on `base`.
    fn invocation(&mut self, base: Option<Box<Expr>>) -> Result<Expr, ParseError> {
        let quoted = self.peek() == Some('`');
        let name = self.identifier()?;
        if quoted || !self.eat("(")? {
            return Ok(Expr::Member(base, name));
        }
        let Some((func, least, most)) = Func::named(&name) else {
            return Err(ParseError::Unsupported(name));
        };
        let mut args = Vec::new();
        if !self.eat(")")? {
            loop {
                args.push(self.expression(0)?);
                if self.eat(")")? {
                    break;
                }
                self.need(",")?;
            }
        }
        if !(least..=most).contains(&args.len()) {
            return Err(self.fail());
        }
        if matches!(func, Func::Is | Func::As | Func::OfType) && args.first().and_then(as_type).is_none() {
            return Err(self.fail());
        }
        Ok(Expr::Call(base, func, args))
    }

    fn term(&mut self) -> Result<Expr, ParseError> {
        self.space()?;
        match self.peek().ok_or_else(|| self.fail())? {
            '(' => {
                self.at += 1;
                let e = self.expression(0)?;
                self.need(")")?;
                Ok(e)
            }
            '{' => {
                self.at += 1;
                self.need("}")?;
                Ok(Expr::Empty)
            }
            '\'' => Ok(Expr::Str(self.quoted('\'')?)),
            '@' => self.temporal(),
            '0'..='9' => self.number(),
            '$' => {
                self.at += 1;
                match self.identifier()?.as_str() {
                    "this" => Ok(Expr::This),
                    "index" => Ok(Expr::Index),
                    other => Err(ParseError::Unsupported(format!("${other}"))),
                }
            }
            '%' => {
                self.at += 1;
                let name = match self.peek() {
                    Some('\'') => self.quoted('\'')?,
                    _ => self.identifier()?,
                };
                Ok(Expr::Env(name))
            }
            _ => match self.word()? {
                w @ ("true" | "false") => {
                    self.at += w.len();
                    Ok(Expr::Bool(w == "true"))
                }
                _ => self.invocation(None),
            },
        }
    }

    fn identifier(&mut self) -> Result<String, ParseError> {
        if self.peek() == Some('`') {
            return self.quoted('`');
        }
        let word = self.word()?;
        if word.is_empty() {
            return Err(self.fail());
        }
        self.at += word.len();
        Ok(word.to_owned())
    }

    /// A string or delimited identifier, unescaped.
    fn quoted(&mut self, quote: char) -> Result<String, ParseError> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.at += i + 1;
                return Ok(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            let (_, escaped) = chars.next().ok_or_else(|| self.fail())?;
            let c = match escaped {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'f' => '\u{c}',
                'u' => {
                    let hex: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    u32::from_str_radix(&hex, 16)
                        .ok()
                        .and_then(char::from_u32)
                        .ok_or_else(|| self.fail())?
                }
                '\\' | '/' | '\'' | '"' | '`' => escaped,
                // Not an escape of the grammar; the specification's own expressions rely on it inside patterns.
                other => {
                    out.push('\\');
                    other
                }
            };
            out.push(c);
        }
        Err(self.fail())
    }

    fn temporal(&mut self) -> Result<Expr, ParseError> {
        let rest = self.rest().get(1..).unwrap_or_default();
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | ':' | 'T' | 'Z' | '+' | '.')))
            .unwrap_or(rest.len());
        let mut text = rest.get(..end).unwrap_or_default();
        // `@2015.toString()`: the point belongs to the invocation.
        for (at, _) in text.match_indices('.') {
            if !text
                .get(at + 1..)
                .is_some_and(|after| after.starts_with(|c: char| c.is_ascii_digit()))
            {
                text = text.get(..at).unwrap_or_default();
                break;
            }
        }
        self.at += 1 + text.len();
        let (text, kind) = match text.strip_prefix('T') {
            Some(time) => (time, TemporalKind::Time),
            None if text.contains('T') => (text.trim_end_matches('T'), TemporalKind::DateTime),
            None => (text, TemporalKind::Date),
        };
        match super::Temporal::parse(text, kind) {
            Some(_) => Ok(Expr::Temporal(text.to_owned(), kind)),
            None => Err(self.fail()),
        }
    }

    fn number(&mut self) -> Result<Expr, ParseError> {
        let rest = self.rest();
        let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let mut len = digits(rest);
        let mut whole = true;
        if rest.get(len..).is_some_and(|r| r.starts_with('.')) {
            let n = digits(rest.get(len + 1..).unwrap_or_default());
            if n > 0 {
                len += 1 + n;
                whole = false;
            }
        }
        let text = rest.get(..len).unwrap_or_default();
        self.at += len;
        self.space()?;
        if self.peek() == Some('\'') {
            return Ok(Expr::Quantity(text.to_owned(), self.quoted('\'')?));
        }
        const UNITS: [&str; 8] = [
            "year",
            "month",
            "week",
            "day",
            "hour",
            "minute",
            "second",
            "millisecond",
        ];
        let word = self.word()?;
        if UNITS.contains(&word.strip_suffix('s').unwrap_or(word)) {
            self.at += word.len();
            return Ok(Expr::Quantity(text.to_owned(), word.to_owned()));
        }
        if whole {
            text.parse().map(Expr::Int).map_err(|_| self.fail())
        } else {
            Ok(Expr::Dec(text.to_owned()))
        }
    }
}

/// A type name written as an argument: `Patient`, `FHIR.Patient`.
pub(super) fn as_type(e: &Expr) -> Option<TypeName> {
    match e {
        Expr::Member(None, name) => Some(TypeName {
            space: None,
            name: name.clone(),
        }),
        Expr::Member(Some(base), name) => match &**base {
            Expr::Member(None, space) => Some(TypeName {
                space: Some(space.clone()),
                name: name.clone(),
            }),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhirpath::Expression;
    use crate::json::parse as json;

    #[test]
    fn long_chains_are_refused_before_they_are_deep_trees() {
        let resource = json(r#"{"resourceType":"Patient","active":true}"#).unwrap();
        for (first, more) in [
            ("1", " + 1"),
            ("active", " | active"),
            ("true", " or true"),
            ("1", " & 'x'"),
            ("active", ".a"),
            ("active", "[0]"),
            ("active", ".first()"),
            ("active", " is boolean"),
            ("iif(true, active", ".a"),
        ] {
            let close = if first.contains('(') { ")" } else { "" };
            let chain = |n: usize| format!("{first}{}{close}", more.repeat(n));
            for n in [LINKS + 1, 1_000, 100_000] {
                assert_eq!(
                    Expression::parse(&chain(n)).err(),
                    Some(ParseError::Long),
                    "{n} of `{more}`"
                );
            }
            // Whatever the longest gives, it gives it within the stack of a thread.
            let _ = Expression::parse(&chain(LINKS)).unwrap().evaluate(&resource);
        }
    }
}
