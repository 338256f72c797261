//! The part of FHIRPath that the official search parameters use, read into a tree.
//!
//! Paths, `|`, `as`, `is`, `as(T)`, `ofType(T)`, `where(...)`, `resolve()`, `exists()`, `and`, `=`, `!=`, `[n]`,
//! `%resource`, string and boolean literals; precedence as in FHIRPath 2.0, section 6.7 (`.` and `[]`, then `as`/`is`,
//! `|`, `=`, `and`). Whatever else stands in an expression is an error, so that a new definition cannot be half read.

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// The first name of a path: a type or a member of the context.
    Name(String),
    /// `%resource`
    Resource,
    /// `$this` of a function call without a source, for example `resolve()` inside `where`.
    This,
    /// `'text'`
    Text(String),
    /// `true`, `false`
    Bool(bool),
    /// `x.name`
    Member(Box<Expr>, String),
    /// `x as T`, `x.as(T)`, `x.ofType(T)`
    As(Box<Expr>, String),
    /// `x is T`
    Is(Box<Expr>, String),
    /// `x.where(y)`
    Where(Box<Expr>, Box<Expr>),
    /// `x.resolve()`
    Resolve(Box<Expr>),
    /// `x.exists()`
    Exists(Box<Expr>),
    /// `x[n]`
    Index(Box<Expr>, usize),
    /// `x | y`
    Union(Box<Expr>, Box<Expr>),
    /// `x = y`, and with `true` `x != y`
    Equal(Box<Expr>, Box<Expr>, bool),
    /// `x and y`
    And(Box<Expr>, Box<Expr>),
}

/// An expression outside the subset; the byte where it left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not in the FHIRPath subset at byte {0}")]
pub(crate) struct PathError(pub(crate) usize);

/// Reads one expression.
pub(crate) fn parse(text: &str) -> Result<Expr, PathError> {
    let mut p = Reader { text, at: 0, depth: 0 };
    let e = p.and()?;
    p.space();
    if p.at < text.len() { Err(PathError(p.at)) } else { Ok(e) }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, sign: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// Takes `word` only as a whole word.
    fn word(&mut self, word: &str) -> bool {
        self.space();
        let rest = self.rest();
        let whole = rest
            .strip_prefix(word)
            .is_some_and(|r| !r.starts_with(|c: char| c.is_ascii_alphanumeric()));
        if whole {
            self.at += word.len();
        }
        whole
    }

    fn name(&mut self) -> Result<String, PathError> {
        self.space();
        let rest = self.rest();
        let n = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let name = rest.get(..n).unwrap_or_default();
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(PathError(self.at));
        }
        let name = name.to_owned();
        self.at += n;
        Ok(name)
    }

    fn need(&mut self, sign: &str) -> Result<(), PathError> {
        if self.take(sign) {
            Ok(())
        } else {
            Err(PathError(self.at))
        }
    }

    fn and(&mut self) -> Result<Expr, PathError> {
        self.depth += 1;
        if self.depth > 16 {
            return Err(PathError(self.at));
        }
        let mut e = self.equal()?;
        while self.word("and") {
            e = Expr::And(Box::new(e), Box::new(self.equal()?));
        }
        self.depth -= 1;
        Ok(e)
    }

    fn equal(&mut self) -> Result<Expr, PathError> {
        let e = self.union()?;
        let not = self.take("!=");
        if !not && !self.take("=") {
            return Ok(e);
        }
        Ok(Expr::Equal(Box::new(e), Box::new(self.union()?), not))
    }

    fn union(&mut self) -> Result<Expr, PathError> {
        let mut e = self.typed()?;
        while self.take("|") {
            e = Expr::Union(Box::new(e), Box::new(self.typed()?));
        }
        Ok(e)
    }

    fn typed(&mut self) -> Result<Expr, PathError> {
        let e = self.postfix()?;
        if self.word("as") {
            return Ok(Expr::As(Box::new(e), self.name()?));
        }
        if self.word("is") {
            return Ok(Expr::Is(Box::new(e), self.name()?));
        }
        Ok(e)
    }

    fn postfix(&mut self) -> Result<Expr, PathError> {
        let mut e = self.first()?;
        loop {
            if self.take(".") {
                let name = self.name()?;
                e = if self.take("(") {
                    self.call(e, &name)?
                } else {
                    Expr::Member(Box::new(e), name)
                };
            } else if self.take("[") {
                let digits: String = self.rest().chars().take_while(char::is_ascii_digit).collect();
                let n = digits.parse().map_err(|_| PathError(self.at))?;
                self.at += digits.len();
                self.need("]")?;
                e = Expr::Index(Box::new(e), n);
            } else {
                return Ok(e);
            }
        }
    }

    fn call(&mut self, source: Expr, name: &str) -> Result<Expr, PathError> {
        let source = Box::new(source);
        let e = match name {
            "as" | "ofType" => Expr::As(source, self.name()?),
            "is" => Expr::Is(source, self.name()?),
            "where" => Expr::Where(source, Box::new(self.and()?)),
            "resolve" => Expr::Resolve(source),
            "exists" => Expr::Exists(source),
            _ => return Err(PathError(self.at)),
        };
        self.need(")")?;
        Ok(e)
    }

    fn first(&mut self) -> Result<Expr, PathError> {
        if self.take("(") {
            let e = self.and()?;
            self.need(")")?;
            return Ok(e);
        }
        if self.take("%resource") {
            return Ok(Expr::Resource);
        }
        if self.take("'") {
            let rest = self.rest();
            let n = rest.find('\'').ok_or(PathError(self.at))?;
            let text = rest.get(..n).unwrap_or_default().to_owned();
            self.at += n + 1;
            return Ok(Expr::Text(text));
        }
        if self.word("true") {
            return Ok(Expr::Bool(true));
        }
        if self.word("false") {
            return Ok(Expr::Bool(false));
        }
        let name = self.name()?;
        if self.take("(") {
            self.call(Expr::This, &name)
        } else {
            Ok(Expr::Name(name))
        }
    }
}

impl Expr {
    /// The branches of a union, left to right; anything else is one branch.
    pub(crate) fn branches(&self) -> Vec<&Expr> {
        match self {
            Expr::Union(a, b) => {
                let mut all = a.branches();
                all.extend(b.branches());
                all
            }
            other => vec![other],
        }
    }

    /// The name a path begins with.
    pub(crate) fn head(&self) -> Option<&str> {
        match self {
            Expr::Name(n) => Some(n),
            Expr::Member(e, _) | Expr::As(e, _) | Expr::Is(e, _) | Expr::Where(e, _) | Expr::Index(e, _) => e.head(),
            Expr::Resolve(e) | Expr::Exists(e) | Expr::Equal(e, _, _) | Expr::And(e, _) | Expr::Union(e, _) => e.head(),
            Expr::Resource | Expr::This | Expr::Text(_) | Expr::Bool(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(e: &Expr) -> String {
        match e {
            Expr::Name(n) => n.clone(),
            Expr::Resource => "%resource".into(),
            Expr::This => "$this".into(),
            Expr::Text(t) => format!("'{t}'"),
            Expr::Bool(b) => b.to_string(),
            Expr::Member(e, n) => format!("{}.{n}", show(e)),
            Expr::As(e, t) => format!("as({}, {t})", show(e)),
            Expr::Is(e, t) => format!("is({}, {t})", show(e)),
            Expr::Where(e, c) => format!("where({}, {})", show(e), show(c)),
            Expr::Resolve(e) => format!("resolve({})", show(e)),
            Expr::Exists(e) => format!("exists({})", show(e)),
            Expr::Index(e, n) => format!("{}[{n}]", show(e)),
            Expr::Union(a, b) => format!("({} | {})", show(a), show(b)),
            Expr::Equal(a, b, not) => format!("({} {} {})", show(a), if *not { "!=" } else { "=" }, show(b)),
            Expr::And(a, b) => format!("({} and {})", show(a), show(b)),
        }
    }

    #[test]
    fn precedence_is_fhirpaths() {
        for (text, tree) in [
            ("Patient.name.family", "Patient.name.family"),
            ("A.b as C | (D.e as F).g", "(as(A.b, C) | as(D.e, F).g)"),
            (
                "A.b.where(resolve() is Patient)",
                "where(A.b, is(resolve($this), Patient))",
            ),
            (
                "A.b.where(system='phone') | A.c[0].d",
                "(where(A.b, (system = 'phone')) | A.c[0].d)",
            ),
            ("P.d.exists() and P.d != false", "(exists(P.d) and (P.d != false))"),
            (
                "value.as(Quantity) | value.ofType(Range)",
                "(as(value, Quantity) | as(value, Range))",
            ),
            ("%resource.x.y", "%resource.x.y"),
            ("A.assertion.andMore", "A.assertion.andMore"),
        ] {
            assert_eq!(show(&parse(text).unwrap()), tree, "{text}");
        }
    }

    #[test]
    fn what_is_outside_the_subset_is_refused() {
        for text in [
            "",
            "A.b.first()",
            "A +1",
            "A.b)",
            "(A",
            "A.b[x]",
            "A.where(b",
            "A..b",
            "'open",
            "A as",
            "A.b[99999999999999999999]",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"(".repeat(100_000)).is_err());
    }
}
