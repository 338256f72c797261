//! The XHTML of a narrative: rules txt-1 and txt-2 of R4 Narrative (<https://hl7.org/fhir/R4/narrative.html>).
//!
//! A strict, hand-written reader: the text must be one well-formed `div` in the XHTML namespace that uses only the
//! basic formatting elements and attributes of HTML 4 (chapters 7 to 11 and 15). What is not in the lists below is
//! refused, so scripts, forms, frames, event attributes and style sheets have no way in. Links may only use harmless
//! schemes. Nothing is repaired: a narrative is stored as it came or not at all.
//!
//! The specification allows images from elsewhere, also as backgrounds in a style. Keepwell stores them, but a page that
//! shows a narrative asks [`check_shown`], which refuses them: opening a chart must not tell a stranger about it.

/// Why a narrative is refused. Names rules, never content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NarrativeError {
    /// The text does not start with `div` in the XHTML namespace, or something follows it.
    #[error("the narrative must be a single `div` element in the namespace http://www.w3.org/1999/xhtml")]
    Root,
    /// Not well-formed XML: an unclosed or crossed element, a bad attribute, a stray `<` or `&`.
    #[error("the narrative is not well-formed XHTML")]
    Malformed,
    /// An element outside the list.
    #[error("the narrative has an element that is not allowed there (only basic HTML formatting, txt-1)")]
    Element,
    /// An attribute outside the list.
    #[error("the narrative has an attribute that is not allowed there (no event handlers, txt-1)")]
    Attribute,
    /// A link with a scheme that could run something, or an image from elsewhere.
    #[error("the narrative has a link or image address that is not allowed")]
    Address,
    /// A style that loads or runs something.
    #[error("the narrative has a style that loads or runs something")]
    Style,
    /// No text and no image.
    #[error("the narrative has no content (txt-2)")]
    Empty,
    /// More nesting than any narrative needs.
    #[error("the narrative is nested too deeply")]
    Depth,
}

const NAMESPACE: &str = "http://www.w3.org/1999/xhtml";
const DEPTH: usize = 200;

const ELEMENTS: &[&str] = &[
    "a",
    "abbr",
    "acronym",
    "address",
    "area",
    "b",
    "bdo",
    "big",
    "blockquote",
    "br",
    "caption",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "img",
    "kbd",
    "li",
    "map",
    "ol",
    "p",
    "pre",
    "q",
    "samp",
    "small",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "ul",
    "var",
];

/// Attributes that any element may carry; sorted.
const ATTRIBUTES: &[&str] = &[
    "abbr",
    "accesskey",
    "align",
    "axis",
    "char",
    "charoff",
    "class",
    "colspan",
    "dir",
    "headers",
    "id",
    "lang",
    "rowspan",
    "scope",
    "span",
    "style",
    "tabindex",
    "title",
    "valign",
    "width",
    "xml:lang",
];

/// Attributes of one element only.
const OWN_ATTRIBUTES: &[(&str, &[&str])] = &[
    (
        "a",
        &[
            "charset", "coords", "href", "hreflang", "name", "rel", "rev", "shape", "type",
        ],
    ),
    ("area", &["alt", "coords", "href", "nohref", "shape"]),
    ("blockquote", &["cite"]),
    (
        "img",
        &["alt", "border", "height", "ismap", "longdesc", "src", "usemap"],
    ),
    ("map", &["name"]),
    ("pre", &["space", "xml:space"]),
    ("q", &["cite"]),
    (
        "table",
        &["border", "cellpadding", "cellspacing", "frame", "rules", "summary"],
    ),
    ("td", &["nowrap"]),
    ("th", &["nowrap"]),
];

/// Checks the text of `Narrative.div` for storing.
///
/// # Errors
/// The first rule broken.
pub fn check(div: &str) -> Result<(), NarrativeError> {
    read(div, Images::Anywhere)
}

/// Checks the text of `Narrative.div` for showing: as [`check`], and no image may come from elsewhere.
///
/// # Errors
/// The first rule broken.
pub fn check_shown(div: &str) -> Result<(), NarrativeError> {
    read(div, Images::Inside)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Images {
    Anywhere,
    Inside,
}

fn read(div: &str, images: Images) -> Result<(), NarrativeError> {
    let mut r = Reader { text: div, at: 0 };
    let mut open: Vec<&str> = Vec::new();
    let mut content = false;
    r.space();
    if r.rest().get(..4) != Some("<div") {
        return Err(NarrativeError::Root);
    }
    loop {
        let text = r.until('<')?;
        if open.is_empty() && r.at > text.len() && !text.is_empty() {
            return Err(NarrativeError::Root);
        }
        content |= check_text(text)?;
        if r.eat("<!--") {
            r.comment()?;
        } else if r.eat("</") {
            let name = r.name()?;
            r.space();
            if !r.eat(">") || open.pop() != Some(name) {
                return Err(NarrativeError::Malformed);
            }
        } else if r.eat("<") {
            let name = r.name()?;
            if ELEMENTS.binary_search(&name).is_err() {
                return Err(NarrativeError::Element);
            }
            let root = open.is_empty();
            if root && name != "div" {
                return Err(NarrativeError::Root);
            }
            let (closed, namespace) = attributes(&mut r, name, images)?;
            if root && !namespace {
                return Err(NarrativeError::Root);
            }
            content |= name == "img";
            if !closed {
                if open.len() >= DEPTH {
                    return Err(NarrativeError::Depth);
                }
                open.push(name);
            }
        }
        if open.is_empty() {
            break;
        }
    }
    r.space();
    if !r.rest().is_empty() {
        return Err(NarrativeError::Root);
    }
    if content { Ok(()) } else { Err(NarrativeError::Empty) }
}

/// Reads the attributes of `element` up to and with `>`; whether it closed itself and named the XHTML namespace.
fn attributes<'a>(r: &mut Reader<'a>, element: &str, images: Images) -> Result<(bool, bool), NarrativeError> {
    let mut seen: Vec<&'a str> = Vec::new();
    let mut namespace = false;
    loop {
        let spaced = r.space();
        if r.eat("/>") {
            return Ok((true, namespace));
        }
        if r.eat(">") {
            return Ok((false, namespace));
        }
        if !spaced {
            return Err(NarrativeError::Malformed);
        }
        let name = r.name()?;
        r.space();
        if !r.eat("=") {
            return Err(NarrativeError::Malformed);
        }
        r.space();
        let quote = if r.eat("\"") {
            '"'
        } else if r.eat("'") {
            '\''
        } else {
            return Err(NarrativeError::Malformed);
        };
        let value = r.until(quote)?;
        r.eat(if quote == '"' { "\"" } else { "'" });
        if value.contains('<') || seen.contains(&name) {
            return Err(NarrativeError::Malformed);
        }
        seen.push(name);
        if name == "xmlns" {
            if value != NAMESPACE {
                return Err(NarrativeError::Root);
            }
            namespace = true;
            continue;
        }
        let own = OWN_ATTRIBUTES
            .iter()
            .find(|(e, _)| *e == element)
            .is_some_and(|(_, list)| list.contains(&name));
        if !own && ATTRIBUTES.binary_search(&name).is_err() {
            return Err(NarrativeError::Attribute);
        }
        check_text(value)?;
        match name {
            "href" | "cite" | "longdesc" => check_link(value)?,
            "src" | "usemap" => check_image(value, images)?,
            "style" => check_style(value, images)?,
            _ => {}
        }
    }
}

/// Checks the character references of a run of text; whether it has anything but white space.
fn check_text(text: &str) -> Result<bool, NarrativeError> {
    let mut parts = text.split('&');
    let mut content = parts.next().is_some_and(|t| !is_blank(t));
    for part in parts {
        let (name, rest) = part.split_once(';').ok_or(NarrativeError::Malformed)?;
        content |= !reference(name)?.is_whitespace() || !is_blank(rest);
    }
    Ok(content)
}

fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// The character of a reference: XML's five names or a number. HTML's names (`&nbsp;`) are not XML, says the
/// specification; that also keeps `&colon;` out of addresses.
fn reference(name: &str) -> Result<char, NarrativeError> {
    let code = match name {
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "amp" => return Ok('&'),
        "quot" => return Ok('"'),
        "apos" => return Ok('\''),
        _ => match name.strip_prefix('#').ok_or(NarrativeError::Malformed)? {
            n if n.starts_with('x') => u32::from_str_radix(n.trim_start_matches('x'), 16),
            n => n.parse(),
        },
    };
    let c = code.ok().and_then(char::from_u32).ok_or(NarrativeError::Malformed)?;
    if c < ' ' && !['\t', '\n', '\r'].contains(&c) {
        Err(NarrativeError::Malformed)
    } else {
        Ok(c)
    }
}

/// An attribute's value with its references resolved.
fn resolved(value: &str) -> Result<String, NarrativeError> {
    let mut parts = value.split('&');
    let mut out = String::from(parts.next().unwrap_or_default());
    for part in parts {
        let (name, rest) = part.split_once(';').ok_or(NarrativeError::Malformed)?;
        out.push(reference(name)?);
        out.push_str(rest);
    }
    Ok(out)
}

/// The address as a browser reads it: without control characters and outer white space, and its scheme in lower case.
fn address(value: &str) -> Result<(String, Option<String>), NarrativeError> {
    let text: String = resolved(value)?.chars().filter(|c| !c.is_control()).collect();
    let text = text.trim().to_owned();
    let scheme = text
        .split(['/', '?', '#'])
        .next()
        .and_then(|head| head.split_once(':'))
        .map(|(s, _)| s.to_lowercase());
    Ok((text, scheme))
}

fn check_link(value: &str) -> Result<(), NarrativeError> {
    match address(value)?.1.as_deref() {
        None | Some("http" | "https" | "mailto" | "tel" | "urn" | "ftp") => Ok(()),
        Some(_) => Err(NarrativeError::Address),
    }
}

fn check_image(value: &str, images: Images) -> Result<(), NarrativeError> {
    let (text, scheme) = address(value)?;
    let outside = text.starts_with("//") || text.starts_with("\\") || text.starts_with("/\\");
    match scheme.as_deref() {
        None if !outside || images == Images::Anywhere => Ok(()),
        Some("http" | "https") if images == Images::Anywhere => Ok(()),
        Some("cid") => Ok(()),
        Some("data") => {
            let kind = text.get(5..).unwrap_or_default().trim_start().to_lowercase();
            let raster = ["image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"];
            if raster.iter().any(|k| kind.starts_with(k)) {
                Ok(())
            } else {
                Err(NarrativeError::Address)
            }
        }
        _ => Err(NarrativeError::Address),
    }
}

fn check_style(value: &str, images: Images) -> Result<(), NarrativeError> {
    let text = resolved(value)?.to_lowercase();
    let loads = ["url", "image-set", "src("];
    if images == Images::Inside && loads.iter().any(|b| text.contains(b)) {
        return Err(NarrativeError::Style);
    }
    // A backslash or a comment can spell any of these words otherwise.
    let bad = [
        "expression",
        "script:",
        "behavior",
        "-moz-binding",
        "import",
        "\\",
        "/*",
        "<",
    ];
    if bad.iter().any(|b| text.contains(b)) {
        Err(NarrativeError::Style)
    } else {
        Ok(())
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Skips white space; whether there was some.
    fn space(&mut self) -> bool {
        let n = self
            .rest()
            .bytes()
            .take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
            .count();
        self.at += n;
        n > 0
    }

    /// The text up to `end`, which stays.
    fn until(&mut self, end: char) -> Result<&'a str, NarrativeError> {
        let text = self.rest();
        let n = text.find(end).ok_or(NarrativeError::Malformed)?;
        self.at += n;
        Ok(text.get(..n).unwrap_or_default())
    }

    fn name(&mut self) -> Result<&'a str, NarrativeError> {
        let text = self.rest();
        let n = text
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || *b == b':' || *b == b'-' || *b == b'_')
            .count();
        self.at += n;
        if n == 0 {
            Err(NarrativeError::Malformed)
        } else {
            Ok(text.get(..n).unwrap_or_default())
        }
    }

    /// Skips a comment after its `<!--`.
    fn comment(&mut self) -> Result<(), NarrativeError> {
        let n = self.rest().find("--").ok_or(NarrativeError::Malformed)?;
        self.at += n;
        if self.eat("-->") {
            Ok(())
        } else {
            Err(NarrativeError::Malformed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn div(inner: &str) -> Result<(), NarrativeError> {
        check(&format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{inner}</div>"))
    }

    #[test]
    fn lists_are_sorted() {
        assert!(ELEMENTS.is_sorted() && ATTRIBUTES.is_sorted() && OWN_ATTRIBUTES.is_sorted());
    }

    #[test]
    fn accepts_plain_narrative() {
        for inner in [
            "text",
            "<p>a<br/>b &amp; c &#233; &#xA0;</p>",
            "<table border='1'><tr><td colspan=\"2\" style=\"color: red\">x</td></tr></table>",
            "<a href=\"https://example.org/x?a=b:c\">x</a>",
            "<a href=\"Patient/1\">x</a><a name=\"m\"/>",
            "<img src=\"data:image/png;base64,AAAA\" alt=\"\"/>",
            "<img src=\"data: image/png;base64,AAAA\"/>",
            "<img src=\"#pic\"/>",
            "<!-- note -->x",
            "&#65;",
        ] {
            assert_eq!(div(inner), Ok(()), "{inner}");
        }
        assert_eq!(check(" <div xmlns='http://www.w3.org/1999/xhtml'\n>x</div> \n"), Ok(()));
    }

    #[test]
    fn images_from_elsewhere_are_stored_and_not_shown() {
        for src in [
            "http://example.org/x.png",
            "https://x.org/y",
            "//example.org/x.png",
            "/\\example.org/x.png",
        ] {
            let text = format!("<div xmlns=\"http://www.w3.org/1999/xhtml\"><img src=\"{src}\"/></div>");
            assert_eq!(
                (check(&text), check_shown(&text)),
                (Ok(()), Err(NarrativeError::Address)),
                "{src}"
            );
        }
        for style in ["background: url(http://x)", "background: &#117;rl(http://x)"] {
            let text = format!("<div xmlns=\"http://www.w3.org/1999/xhtml\"><p style=\"{style}\">x</p></div>");
            assert_eq!(
                (check(&text), check_shown(&text)),
                (Ok(()), Err(NarrativeError::Style)),
                "{style}"
            );
        }
        let text = "<div xmlns=\"http://www.w3.org/1999/xhtml\"><img src=\"data:image/png;base64,AA\"/></div>";
        assert_eq!(check_shown(text), Ok(()));
    }

    #[test]
    fn refuses_what_could_act() {
        use NarrativeError as E;
        for (inner, error) in [
            ("<script>x</script>", E::Element),
            ("<SCRIPT>x</SCRIPT>", E::Element),
            ("<style>x</style>", E::Element),
            ("<iframe src=\"x\"/>", E::Element),
            ("<object data=\"x\"/>", E::Element),
            ("<form><input/></form>", E::Element),
            ("<svg onload=\"x\"/>", E::Element),
            (
                "<x:script xmlns:x=\"http://www.w3.org/1999/xhtml\">x</x:script>",
                E::Element,
            ),
            ("<link rel=\"stylesheet\" href=\"x\"/>", E::Element),
            ("<p onclick=\"x()\">x</p>", E::Attribute),
            ("<p onClick=\"x()\">x</p>", E::Attribute),
            ("<p xmlns:x=\"y\">x</p>", E::Attribute),
            ("<p href=\"x\">x</p>", E::Attribute),
            ("<a href=\"javascript:x\">x</a>", E::Address),
            ("<a href=\" JaVa&#x9;Script:x\">x</a>", E::Address),
            ("<a href=\"&#106;avascript:x\">x</a>", E::Address),
            ("<a href=\"javascript&colon;x\">x</a>", E::Malformed),
            ("<a href=\"data:text/html,x\">x</a>", E::Address),
            ("<a href=\"vbscript:x\">x</a>", E::Address),
            ("<img src=\"javascript:x\"/>", E::Address),
            ("<img src=\"data:image/svg+xml,x\"/>", E::Address),
            ("<p style=\"background: url(javascript:x)\">x</p>", E::Style),
            ("<p style=\"background: u\\72l(x)\">x</p>", E::Style),
            ("<p style=\"width: expr/**/ession(x)\">x</p>", E::Style),
            ("<p style=\"width: &#101;xpression(x)\">x</p>", E::Style),
            ("<p>x", E::Malformed),
            ("<p>x</b></p>", E::Malformed),
            ("<p class=x>x</p>", E::Malformed),
            ("<p class=\"a\" class=\"b\">x</p>", E::Malformed),
            ("<p title=\"a<b\">x</p>", E::Malformed),
            ("a & b", E::Malformed),
            ("a&nbsp;b", E::Malformed),
            ("&#0;", E::Malformed),
            ("&#xD800;", E::Malformed),
            ("<![CDATA[x]]>", E::Malformed),
            ("<?php x?>", E::Malformed),
            ("<!-- a -- b -->", E::Malformed),
            ("", E::Empty),
            (" \n <p> </p>&#32;", E::Empty),
            ("<!-- x -->", E::Empty),
        ] {
            assert_eq!(div(inner), Err(error), "{inner}");
        }
        for (text, error) in [
            ("", E::Root),
            ("text", E::Root),
            ("<p xmlns=\"http://www.w3.org/1999/xhtml\">x</p>", E::Root),
            ("<div>x</div>", E::Root),
            ("<div xmlns=\"http://example.org\">x</div>", E::Root),
            ("<divx xmlns=\"http://www.w3.org/1999/xhtml\">x</divx>", E::Element),
            ("<div xmlns=\"http://www.w3.org/1999/xhtml\">x</div><div/>", E::Root),
            (
                "<!DOCTYPE html><div xmlns=\"http://www.w3.org/1999/xhtml\">x</div>",
                E::Root,
            ),
            ("<div xmlns=\"http://www.w3.org/1999/xhtml\"/>", E::Empty),
        ] {
            assert_eq!(check(text), Err(error), "{text}");
        }
        let deep = format!("{}x{}", "<p>".repeat(5000), "</p>".repeat(5000));
        assert_eq!(div(&deep), Err(E::Depth));
    }
}
