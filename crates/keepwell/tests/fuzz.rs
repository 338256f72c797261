//! APP-11: every parser is fed mutated input. Deterministic mutation rather than coverage guidance, so that it runs on stable Rust with
//! nothing installed: seeds from `fuzz/corpus/PARSER/`, damaged by bit flips, cuts, copies, splices and tokens of the format.
//!
//! Two seconds a parser by default; `KEEPWELL_FUZZ_SECONDS` says how long. A failure prints the seed of the run and the input; an input that once failed becomes
//! a file of the corpus.
#![allow(
    clippy::print_stdout,
    reason = "skipped cases and seeds are told on stdout, which the test run collects"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program"
)]

mod support;

use keepwell_audit::{checkpoint::Checkpoint, leaf::Leaf, merkle::Frontier, note};
use keepwell_model::reference::Base;
use keepwell_model::schema::Mode;
use keepwell_model::types::ResourceType;
use keepwell_model::{home, json, narrative, patch, schema};
use keepwell_search::index::Index;
use keepwell_search::parse;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use support::Rng;

/// The longest input that is made.
const LONGEST: usize = 20_000;

/// No single input may keep a parser longer than this, even in a debug build on a busy machine.
const SLOWEST: Duration = Duration::from_secs(30);

/// Runs `target` on mutations of the corpus `name` and of `seeds`.
fn fuzz(name: &str, seeds: &[&[u8]], tokens: &[&str], target: impl Fn(&[u8])) {
    let mut rng = Rng::seeded();
    let mut corpus: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    if folder.is_dir() {
        corpus.extend(
            support::files(&folder)
                .iter()
                .map(|file| std::fs::read(file).expect("corpus")),
        );
    }
    assert!(!corpus.is_empty(), "no corpus for {name}");
    for input in &corpus {
        run(name, input, &target);
    }
    let end = Instant::now() + Duration::from_secs(support::setting("KEEPWELL_FUZZ_SECONDS", 2));
    let mut inputs = 0_u64;
    while Instant::now() < end {
        let mut input = corpus[rng.below(corpus.len())].clone();
        for _ in 0..=rng.below(6) {
            mutate(&mut input, &corpus, tokens, &mut rng);
        }
        input.truncate(LONGEST);
        run(name, &input, &target);
        inputs += 1;
    }
    println!("{name}: {inputs} inputs");
}

fn run(name: &str, input: &[u8], target: &impl Fn(&[u8])) {
    let at = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    let took = at.elapsed();
    assert!(outcome.is_ok(), "{name} panicked on {}", support::base64(input));
    assert!(took < SLOWEST, "{name} took {took:?} for {}", support::base64(input));
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], tokens: &[&str], rng: &mut Rng) {
    let at = rng.below(input.len() + 1);
    let length = rng.below(input.len().saturating_sub(at).min(64) + 1);
    match rng.below(9) {
        0 if at < input.len() => input[at] ^= 1 << rng.below(8),
        1 if at < input.len() => input[at] = b"\0\xff\"{}[],:0-9eE.\\/$|& "[rng.below(21)],
        2 => drop(input.drain(at..at + length)),
        3 => {
            let copy = input[at..at + length].to_vec();
            let to = rng.below(input.len() + 1);
            input.splice(to..to, copy);
        }
        4 => {
            let other = &corpus[rng.below(corpus.len())];
            let from = rng.below(other.len() + 1);
            let to = (from + rng.below(200)).min(other.len());
            input.splice(at..at + length, other[from..to].iter().copied());
        }
        5 if !tokens.is_empty() => {
            let token = tokens[rng.below(tokens.len())].as_bytes();
            input.splice(at..at + length, token.iter().copied());
        }
        6 => input.truncate(at),
        7 => {
            // Repetition: what is quadratic or recursive shows.
            let piece = input[at..at + length.min(8)].to_vec();
            let many = piece.repeat(rng.below(400));
            input.splice(at..at, many);
        }
        _ => input
            .splice(at..at, rng.next().to_le_bytes()[..rng.below(9)].iter().copied())
            .for_each(drop),
    }
}

/// The input as text; what is not UTF-8 never reaches these parsers.
fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

const PATIENT: &[u8] = br#"{"resourceType":"Patient","id":"p1","meta":{"versionId":"1","profile":["http://x"]},"text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>Ada</p></div>"},"identifier":[{"system":"urn:s","value":"1"}],"name":[{"family":"Quill","given":["Ada",null],"_given":[null,{"extension":[{"url":"http://e","valueCode":"x"}]}]}],"birthDate":"1980-02-29","multipleBirthInteger":2,"contact":[{"name":{"family":"C"}}]}"#;
const OBSERVATION: &[u8] = br#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"1-1"}]},"subject":{"reference":"Patient/p1"},"effectivePeriod":{"start":"2024-05-01T10:00:00.123+02:00","end":"2024-05-02"},"valueQuantity":{"value":1.50e-3,"unit":"mg","system":"http://unitsofmeasure.org","code":"mg"},"component":[{"code":{"text":"a"},"valueRange":{"low":{"value":1},"high":{"value":2}}}],"contained":[{"resourceType":"Device","id":"d"}]}"#;

const JSON_TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"\"",
    "null",
    "true",
    "1e999",
    "-0",
    "0.10",
    "\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "\"resourceType\":\"Bundle\"",
    "\"extension\":[{\"url\":\"x\"}]",
    "\"contained\":[",
    "99999999999999999999",
    "\u{feff}",
];

#[test]
fn json() {
    fuzz(
        "json",
        &[PATIENT, OBSERVATION, b"[1,-0.0,1E+2,\"\\u00e9\",null]"],
        JSON_TOKENS,
        |input| {
            let text = text(input);
            let Ok(tree) = json::parse(&text) else { return };
            // What is accepted can be written, read again, and is the same.
            let mut written = String::new();
            tree.write(&mut written);
            let again = json::parse(&written).expect("own output is JSON");
            assert!(again == tree, "a tree changed on its way through text");
            // Another parser agrees that it is JSON; a byte order mark may be ignored (RFC 8259, section 8.1).
            let other: Result<serde_json::Value, _> = serde_json::from_str(text.trim_start_matches('\u{feff}'));
            assert!(
                other.is_ok() || other.is_err_and(|error| error.to_string().contains("out of range")),
                "accepted what serde_json refuses"
            );
        },
    );
}

#[test]
fn validation_extraction_and_homes() {
    let base = Base::new("localhost");
    fuzz("json", &[PATIENT, OBSERVATION], JSON_TOKENS, |input| {
        let text = text(input);
        let Ok(tree) = json::parse(&text) else { return };
        let issues = schema::validate(&tree, Mode::Create);
        let _ = home::patients(&tree, &base);
        let Some(kind) = tree.str("resourceType").and_then(ResourceType::from_name) else {
            assert!(!issues.is_empty(), "a resource without a type was accepted");
            return;
        };
        // Extraction and homes must stand anything, not only what was validated.
        let _ = home::home(kind, &tree, &base);
        let _ = keepwell_search::extract::extract(kind, &tree, &base);
    });
}

#[test]
fn json_patch() {
    let document = text(PATIENT).into_owned();
    fuzz(
        "patch",
        &[
            br#"[{"op":"add","path":"/name/-","value":{"family":"x"}},{"op":"remove","path":"/name/0"},{"op":"test","path":"/gender","value":null}]"#,
            br#"[{"op":"move","from":"/name","path":"/a~0b~1c"},{"op":"copy","from":"/name/0/given","path":"/name/0/given/1"},{"op":"replace","path":"","value":{}}]"#,
        ],
        &["/name/0/given/0", "/-", "~0", "~1", "/00", "/18446744073709551616", "\"op\":\"copy\"", "\"from\":\"\"", "\"path\":\"\""],
        |input| {
            let text = text(input);
            let Ok(operations) = json::parse(&text) else { return };
            let mut target = json::parse(&document).expect("JSON").into_owned();
            if patch::apply(&mut target, &operations).is_ok() {
                let mut written = String::new();
                target.write(&mut written);
            }
        },
    );
}

#[test]
fn narrative_markup() {
    fuzz(
        "narrative",
        &[br##"<div xmlns="http://www.w3.org/1999/xhtml"><p class="a">x &amp; &#233; <b>y</b><br/><img src="#i" alt="z"/><a href="http://h">l</a></p><table><tr><td>1</td></tr></table></div>"##],
        &["<script>", "<!--", "-->", "<![CDATA[", "]]>", "<?x?>", "&#x0;", "&lt;", "onclick=\"x\"", "javascript:", "<div>", "</div>", "<p", "'", "<!DOCTYPE a [<!ENTITY b \"c\">]>"],
        |input| {
            let text = text(input);
            if narrative::check(&text).is_ok() {
                let folded = text.to_ascii_lowercase();
                for forbidden in ["<script", "<iframe", "<object", "<form", "<input", "<!doctype", "<?", "onclick=", "onerror="] {
                    // In text the opening bracket is escaped, so any of these is markup; attributes only count inside a tag.
                    if forbidden.starts_with('<') {
                        assert!(!folded.contains(forbidden) || folded.contains("<!--") || folded.contains("<![cdata["), "accepted {forbidden}");
                    }
                }
            }
        },
    );
}

#[test]
fn notes_checkpoints_leaves_and_frontiers() {
    let checkpoint: &[u8] = b"keepwell.test/log\n12\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo=\n\n\xe2\x80\x94 keepwell.test/log AAAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/\n";
    let mut tree = Frontier::new();
    for leaf in 0_u8..21 {
        tree.append([leaf; 32]);
    }
    let frontier = tree.to_bytes();
    fuzz(
        "note",
        &[checkpoint, &frontier, &[1; 90], &[0; 40]],
        &[
            "\n\n",
            "\u{2014} ",
            "\n",
            "18446744073709551616",
            "00",
            "=",
            "+",
            "\r\n",
        ],
        |input| {
            let _ = note::text(input);
            let _ = note::open(input, &[]);
            if let Ok(read) = Checkpoint::read_unverified(input) {
                drop(read);
            }
            let _ = Checkpoint::parse(&text(input));
            if let Ok(leaf) = Leaf::from_bytes(input) {
                assert_eq!(leaf.to_bytes(), input, "a leaf has one form only");
            }
            if let Ok(tree) = Frontier::from_bytes(input) {
                assert_eq!(tree.to_bytes(), input, "a frontier has one form only");
                let _ = tree.root();
            }
        },
    );
}

#[test]
fn queries() {
    let base = Base::new("localhost");
    let options = parse::Options {
        lenient: false,
        now: keepwell_model::time::Timestamp::default(),
        base: &base,
        terminology: &keepwell_search::terminology::Hl7,
    };
    fuzz(
        "query",
        &[
            b"Patient\nname:exact=a,b\\,c&birthdate=ge1980-02-29T10:00:00.5-05:00&_sort=-birthdate,name&_count=5&_total=accurate",
            b"Observation\ncode=http://loinc.org|1-1,|x,y|&value-quantity=lt5.4e-3|http://unitsofmeasure.org|mg&subject:Patient.name=x&_has:Provenance:target:agent=Practitioner/1",
            b"Encounter\n_include=Encounter:patient:Patient&_include:iterate=*&_revinclude=Observation:encounter&_elements=id,status&_summary=count&_lastUpdated=sa2020",
            b"Observation\ncode-value-quantity=1-1$gt5,2-2$lt6&combo-code:not=x&date=ap2020&_id=a,b&_tag:above=http://a|b&patient:identifier=urn:x|1&status:missing=true",
        ],
        &["_has:", ":", ".", "$", "|", ",", "\\", "eb", "ap", ":iterate", ":of-type", ":in", "http://hl7.org/fhir/ValueSet/observation-status", "subject:Patient.", "9999-12-31", "1e9999", "_sort", "-", "\u{1F600}"],
        |input| {
            let text = text(input);
            let (kind, rest) = text.split_once('\n').unwrap_or(("Patient", &text));
            let Some(kind) = ResourceType::from_name(kind) else { return };
            let parameters: Vec<(String, String)> = rest
                .split('&')
                .take(200)
                .map(|pair| pair.split_once('=').map_or((pair.to_owned(), String::new()), |(name, value)| (name.to_owned(), value.to_owned())))
                .collect();
            let strict = parse::parse(kind, &parameters, &options);
            let lenient = parse::parse(kind, &parameters, &parse::Options { lenient: true, ..options });
            if let (Ok(strict), Ok(lenient)) = (strict, lenient) {
                assert_eq!(strict.clauses.len(), lenient.clauses.len(), "what is accepted strictly is accepted leniently");
                assert!(lenient.ignored.is_empty());
            }
        },
    );
}

#[test]
fn snapshots_of_the_index() {
    let index = Index::new([7; 16]);
    let mut dump = Vec::new();
    index.dump(&mut dump).expect("dump");
    fuzz(
        "index",
        &[&dump],
        &["\u{7f}", "\0\0\0\0", "\u{1}\0\0\0\0\0\0\0"],
        |input| {
            if let Ok(index) = Index::load([7; 16], &mut &input[..]) {
                let mut again = Vec::new();
                index.dump(&mut again).expect("dump");
            }
        },
    );
}

#[test]
fn fhirpath_expressions() {
    let resource = text(PATIENT).into_owned();
    let tree = json::parse(&resource).expect("JSON");
    fuzz(
        "fhirpath",
        &[
            b"Patient.name.where(use = 'official' or given.exists()).given.first() & ' ' & family",
            b"contact.all(name.exists() or telecom.exists() or address.exists() or organization.exists())",
            b"(birthDate <= today() implies deceased.empty()) and identifier.select(system & '|' & value).isDistinct()",
            b"descendants().where($this is Reference).reference.matches('^[A-Z][a-z]+/[0-9]+$').not() xor 1.50 + 2 * -3 div 4 mod 5 > @2020-01-01T10:00:00.000Z",
            b"iterate(a).repeat(children()).count() > 10 and name[0].given[1].length() = 3 and %resource.id.toString().startsWith('p')",
        ],
        &["descendants()", "repeat(", "where(", "$this", "%resource", "''", "`a`", "@T12:00", "1 'mg'", "((((((((", "))))", " or ", " implies ", "ofType(", "matches('(a+)+$')", "replaceMatches('", "\\u0041", "/*", "//", "[0]", "9999999999999999999"],
        |input| {
            if let Ok(expression) = keepwell_model::fhirpath::Expression::parse(&text(input)) {
                let _ = expression.evaluate(&tree);
            }
        },
    );
}
