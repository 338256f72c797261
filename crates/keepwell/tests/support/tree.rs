//! JSON trees for comparing what was sent with what came back: numbers as written, order of members without meaning.
//!
//! Written apart from the product's own parser, so that a fault there does not hide here.

use std::collections::BTreeMap;

/// A JSON value whose numbers keep their digits.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Tree>),
    Object(BTreeMap<String, Tree>),
}

impl Tree {
    /// Parses one JSON text; panics on anything else, since only tests call it.
    pub fn parse(text: &[u8]) -> Self {
        let mut at = 0;
        let tree = value(text, &mut at);
        space(text, &mut at);
        assert_eq!(at, text.len(), "text after the JSON value");
        tree
    }

    /// The tree without what a server sets itself: `meta.versionId`, `meta.lastUpdated`, and a `meta` left empty by that.
    pub fn without_server_meta(mut self) -> Self {
        if let Self::Object(members) = &mut self
            && let Some(Self::Object(meta)) = members.get_mut("meta")
        {
            meta.remove("versionId");
            meta.remove("lastUpdated");
            if meta.is_empty() {
                members.remove("meta");
            }
        }
        self
    }

    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(name),
            _ => None,
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }

    /// The first place where two trees differ, as a path.
    pub fn difference(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Object(a), Self::Object(b)) => {
                for name in a.keys().chain(b.keys()) {
                    match (a.get(name), b.get(name)) {
                        (Some(x), Some(y)) => {
                            if let Some(rest) = x.difference(y) {
                                return Some(format!(".{name}{rest}"));
                            }
                        }
                        (Some(_), None) => return Some(format!(".{name} is missing")),
                        _ => return Some(format!(".{name} was added")),
                    }
                }
                None
            }
            (Self::Array(a), Self::Array(b)) if a.len() == b.len() => a
                .iter()
                .zip(b)
                .enumerate()
                .find_map(|(i, (x, y))| x.difference(y).map(|rest| format!("[{i}]{rest}"))),
            (a, b) if a == b => None,
            (a, b) => Some(format!(": {a:?} became {b:?}")),
        }
    }
}

fn space(text: &[u8], at: &mut usize) {
    while text
        .get(*at)
        .is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
    {
        *at += 1;
    }
}

fn value(text: &[u8], at: &mut usize) -> Tree {
    space(text, at);
    match text[*at] {
        b'{' => {
            let mut members = BTreeMap::new();
            list(text, at, b'}', |text, at| {
                space(text, at);
                let name = string(text, at);
                space(text, at);
                assert_eq!(text[*at], b':');
                *at += 1;
                let member = value(text, at);
                assert!(members.insert(name, member).is_none(), "duplicate member");
            });
            Tree::Object(members)
        }
        b'[' => {
            let mut items = Vec::new();
            list(text, at, b']', |text, at| items.push(value(text, at)));
            Tree::Array(items)
        }
        b'"' => Tree::Text(string(text, at)),
        _ => {
            let from = *at;
            while text
                .get(*at)
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
            {
                *at += 1;
            }
            match &text[from..*at] {
                b"null" => Tree::Null,
                b"true" => Tree::Bool(true),
                b"false" => Tree::Bool(false),
                number => {
                    assert!(!number.is_empty(), "not JSON at byte {from}");
                    Tree::Number(String::from_utf8(number.to_vec()).expect("ASCII"))
                }
            }
        }
    }
}

fn list(text: &[u8], at: &mut usize, end: u8, mut item: impl FnMut(&[u8], &mut usize)) {
    *at += 1;
    space(text, at);
    if text[*at] == end {
        *at += 1;
        return;
    }
    loop {
        item(text, at);
        space(text, at);
        let byte = text[*at];
        *at += 1;
        if byte == end {
            return;
        }
        assert_eq!(byte, b',', "not JSON at byte {at}");
    }
}

fn string(text: &[u8], at: &mut usize) -> String {
    let from = *at;
    assert_eq!(text[from], b'"');
    *at += 1;
    while text[*at] != b'"' {
        *at += if text[*at] == b'\\' { 2 } else { 1 };
    }
    *at += 1;
    serde_json::from_slice(&text[from..*at]).expect("a JSON string")
}
