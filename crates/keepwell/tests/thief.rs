//! CRY-10: names, numbers and dates are found by their search, and by nobody who has the files: a dictionary of a million
//! words, as text, encoded or hashed, meets nothing in any stored file.
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

use aws_lc_rs::digest;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;
use support::{Folder, Server, base64, data};

/// Shortest text that is looked for as it is: what is shorter stands in any random bytes.
const SHORTEST: usize = 7;
/// Bytes of a text that are compared.
const LONGEST: usize = 12;
/// Bytes of a hash that are compared: whoever cuts a hash shorter keeps something else than a hash of a name.
const HASH: usize = 8;

/// The words a thief tries: dates, record numbers, names alone and given with family, in that order up to a number.
struct Dictionary {
    given: Vec<String>,
    family: Vec<String>,
}

impl Dictionary {
    /// Names of the data sets and of Synthea's patients; made-up ones where the data sets are not here.
    fn new() -> Self {
        let (mut given, mut family) = (Vec::new(), Vec::new());
        for n in 0..400 {
            let syllable = |n: usize| ["ka", "lo", "mi", "ren", "sa", "tu", "ve", "wil", "bor", "han"][n % 10];
            let name = format!("{}{}{}", syllable(n), syllable(n / 10), syllable(n / 100 + 3));
            let capital = name[..1].to_uppercase() + &name[1..];
            given.push(capital.clone());
            family.push(capital + "son");
        }
        if let Some(names) = data::set("names", 34_634, "names of 79 locales for the thief's dictionary") {
            for line in data::lines(&names.join("faker-names.ndjson.zst")) {
                let line: Value = serde_json::from_str(&line).expect("JSON");
                let names = |kind: &str| {
                    let names = line[kind].as_array().into_iter().flatten();
                    names
                        .filter_map(|name| Some(name.as_str()?.trim().to_owned()))
                        .collect::<Vec<_>>()
                };
                given.extend(names("given_male"));
                given.extend(names("given_female"));
                family.extend(names("family"));
            }
        }
        if let Some(synthea) = data::set("synthea", 1, "folder of Synthea names for the thief's dictionary") {
            let bundles = data::lines(&synthea.join("small-12.ndjson.zst")).concat();
            let after = |mark: &str| -> Vec<String> {
                let parts = bundles.split(mark).skip(1);
                parts
                    .filter_map(|rest| Some(rest.split('"').nth(1)?.to_owned()))
                    .collect()
            };
            family.extend(after("\"family\":"));
            given.extend(after("\"given\":"));
        }
        for list in [&mut given, &mut family] {
            let mut seen = HashSet::new();
            list.retain(|name| !name.is_empty() && seen.insert(name.clone()));
        }
        println!("{} given and {} family names", given.len(), family.len());
        Self { given, family }
    }

    /// The nth patient of the clinic that is robbed: everything about it is in the dictionary.
    fn patient(&self, n: usize) -> (String, String, String, String) {
        (
            self.given[n * 7 % self.given.len()].clone(),
            self.family[n * 11 % self.family.len()].clone(),
            format!("MRN-{:06}", 100 + n),
            format!("{}-{:02}-{:02}", 1930 + n % 90, 1 + n % 12, 1 + n % 28),
        )
    }

    fn each(&self, patients: usize, most: usize, mut see: impl FnMut(&str)) -> usize {
        let mut count = 0;
        let mut word = |text: &str| {
            count += 1;
            see(text);
            count < most
        };
        // Everything that is really there, whatever the size.
        for n in 0..patients {
            let (given, family, number, born) = self.patient(n);
            for text in [
                given.clone(),
                family.clone(),
                number,
                born,
                format!("{given} {family}"),
                format!("{family}, {given}"),
                format!("{family} {given}"),
                format!("{family}|{given}"),
            ] {
                word(&text);
            }
        }
        for name in self.given.iter().chain(&self.family) {
            if !word(name) {
                return count;
            }
        }
        for n in 0..10_000 {
            if !word(&format!("MRN-{n:06}")) {
                return count;
            }
        }
        for year in 1930..2020 {
            for day in 0..12 * 28 {
                if !word(&format!("{year}-{:02}-{:02}", 1 + day / 28, 1 + day % 28)) {
                    return count;
                }
            }
        }
        for step in 0..self.family.len() {
            for (at, given) in self.given.iter().enumerate() {
                let family = &self.family[(at * 31 + step) % self.family.len()];
                if !word(&format!("{given} {family}")) {
                    return count;
                }
            }
        }
        count
    }
}

/// Multiplies and folds: the keys are text and hashes already.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u128(u128::from(*byte));
        }
    }

    fn write_u128(&mut self, n: u128) {
        let n = (n as u64) ^ ((n >> 64) as u64).rotate_left(29) ^ self.0;
        let wide = u128::from(n) * 0x9E37_79B9_7F4A_7C15_u128;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

/// Beginnings of what is looked for, by their length.
#[derive(Default)]
struct Beginnings(BTreeMap<usize, HashSet<u128, BuildHasherDefault<Fold>>>);

fn key(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |key, byte| key << 8 | u128::from(*byte))
}

impl Beginnings {
    fn add(&mut self, bytes: &[u8], shortest: usize, longest: usize) {
        let length = bytes.len().min(longest);
        if length >= shortest {
            self.0.entry(length).or_default().insert(key(&bytes[..length]));
        }
    }

    /// One pass over `bytes` with a window for each length.
    fn hits(&self, bytes: &[u8]) -> usize {
        let mut hits = 0;
        for (length, set) in &self.0 {
            let mask = u128::MAX >> (128 - 8 * length);
            let mut window = 0_u128;
            for (at, byte) in bytes.iter().enumerate() {
                window = (window << 8 | u128::from(*byte)) & mask;
                hits += usize::from(at + 1 >= *length && set.contains(&window));
            }
        }
        hits
    }
}

/// What a word leaves behind where it is kept in the clear, encoded or hashed.
#[derive(Default)]
struct Traces {
    /// In lower case: compared with bytes folded to lower case.
    folded: Beginnings,
    exact: Beginnings,
}

impl Traces {
    fn add(&mut self, word: &str) {
        for text in [word.to_lowercase(), word.to_ascii_lowercase()] {
            self.folded.add(text.as_bytes(), SHORTEST, LONGEST);
        }
        let mut spellings = vec![word.to_owned(), word.to_lowercase(), word.to_uppercase()];
        spellings.dedup();
        for text in &spellings {
            // Base64 at each of the three offsets, without what depends on the neighbours.
            for shift in 0..3 {
                let coded = base64(format!("{}{text}", &"   "[..shift]));
                let from = [0, 2, 3][shift];
                let to = (4 * (shift + text.len()) / 3).min(coded.len());
                self.exact
                    .add(coded[from..to].trim_end_matches('=').as_bytes(), 10, LONGEST);
            }
            self.folded.add(hex(text.as_bytes()).as_bytes(), 2 * SHORTEST, 16);
            for hash in hashes(text) {
                self.exact.add(&hash, HASH, HASH);
                self.exact.add(&base64(&hash).as_bytes()[..4 * HASH / 3], 10, LONGEST);
                self.folded.add(hex(&hash).as_bytes(), 16, 16);
            }
        }
    }

    /// The files below a folder in which something was found, and how many bytes were looked at.
    fn found(&self, folder: &Path) -> (Vec<String>, usize) {
        let (mut found, mut looked) = (Vec::new(), 0);
        for file in support::files(folder) {
            let bytes = fs::read(&file).expect("file");
            looked += bytes.len();
            let hits = self.exact.hits(&bytes) + self.folded.hits(&bytes.to_ascii_lowercase());
            if hits > 0 {
                found.push(format!("{}: {hits}", file.display()));
            }
        }
        (found, looked)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hashes that lookup columns are made of.
fn hashes(text: &str) -> [Vec<u8>; 3] {
    [
        digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec(),
        digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes())
            .as_ref()
            .to_vec(),
        md5(text.as_bytes()).to_vec(),
    ]
}

/// RFC 1321: the library that seals does not have it any more, old databases do.
fn md5(text: &[u8]) -> [u8; 16] {
    const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let mut padded = text.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - text.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(text.len() as u64 * 8).to_le_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.chunks(64) {
        let word = |n: usize| u32::from_le_bytes([block[4 * n], block[4 * n + 1], block[4 * n + 2], block[4 * n + 3]]);
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..64 {
            let (mixed, from) = match step / 16 {
                0 => (b & c | !b & d, step),
                1 => (d & b | !d & c, (5 * step + 1) % 16),
                2 => (b ^ c ^ d, (3 * step + 5) % 16),
                _ => (c ^ (b | !d), 7 * step % 16),
            };
            let sine = ((step + 1) as f64).sin().abs() * f64::from(2_u32.pow(31)) * 2.0;
            let sum = a.wrapping_add(mixed).wrapping_add(sine as u32).wrapping_add(word(from));
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(TURNS[step / 16][step % 4]));
        }
        for (state, new) in state.iter_mut().zip([a, b, c, d]) {
            *state = state.wrapping_add(new);
        }
    }
    let mut out = [0; 16];
    for (to, word) in out.chunks_mut(4).zip(state) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    out
}

#[test]
fn the_search_finds_what_is_planted() {
    assert_eq!(hex(&md5(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(hex(&md5(&[b'a'; 62])), "24612f0ce2c9d2cf2b022ef1e027a54f");
    let mut traces = Traces::default();
    for word in ["Walburga", "MRN-004711", "1957-04-23", "Li"] {
        traces.add(word);
    }
    let [sha256, sha1, md5] = hashes("walburga");
    for (what, planted) in [
        ("text", b"Walburga".to_vec()),
        ("capitals", b"WALBURGA".to_vec()),
        ("number", b"mrn-004711".to_vec()),
        ("date", b"1957-04-23".to_vec()),
        ("base64", base64("Walburga").into_bytes()),
        ("base64 after one byte", base64("xWalburga").into_bytes()),
        ("base64 after two bytes", base64("xyWALBURGA").into_bytes()),
        ("hex", hex(b"Walburga").to_uppercase().into_bytes()),
        ("SHA-256", sha256.clone()),
        ("SHA-256 cut to 16 bytes", sha256[..16].to_vec()),
        ("SHA-256 in hex", hex(&sha256).into_bytes()),
        ("SHA-256 in base64", base64(&sha256).into_bytes()),
        ("SHA-1", sha1.clone()),
        ("SHA-1 in hex, capitals", hex(&sha1).to_uppercase().into_bytes()),
        ("MD5", md5.clone()),
        ("MD5 in base64", base64(&md5).into_bytes()),
        ("hash of a short name", hashes("LI")[0].clone()),
    ] {
        let folder = Folder::new();
        let mut bytes = vec![0xc3; 4099];
        bytes.extend_from_slice(&planted);
        bytes.extend_from_slice(&[0x9d; 511]);
        fs::write(folder.join("file"), &bytes).unwrap();
        assert_eq!(traces.found(folder.path()).0.len(), 1, "{what}");
    }
    let folder = Folder::new();
    fs::write(folder.join("file"), b"Walburg, 1957-04, MRN-00471").unwrap();
    assert!(traces.found(folder.path()).0.is_empty());
}

#[test]
fn a_dictionary_meets_nothing_in_the_files_of_a_stopped_server() {
    let size = usize::try_from(support::setting("KEEPWELL_WORDS", 100_000)).unwrap();
    let dictionary = Dictionary::new();
    let patients = 120;
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let entries: Vec<Value> = (0..patients)
        .map(|n| {
            let (given, family, number, born) = dictionary.patient(n);
            json!({"request": {"method": "POST", "url": "Patient"}, "resource": {
                "resourceType": "Patient", "birthDate": born, "name": [{"family": family, "given": [given]}],
                "identifier": [{"system": "http://clinic.example/mrn", "value": number}]}})
        })
        .collect();
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    server.client().post("/fhir", &bundle).expect(200);
    let search = |server: &Server| {
        let mut client = server.client();
        let mut found = 0;
        for n in (0..patients).step_by(7) {
            let (_, family, number, born) = dictionary.patient(n);
            let family = encoded(&family);
            let wanted = client.matches(&format!("Patient?identifier={number}"));
            assert_eq!(wanted.len(), 1, "{number}");
            for query in [
                format!("Patient?family={family}"),
                format!("Patient?family:exact={family}"),
                format!("Patient?name={family}"),
                format!("Patient?birthdate={born}"),
                format!("Patient?identifier=http%3A%2F%2Fclinic.example%2Fmrn%7C{number}"),
            ] {
                assert!(client.matches(&query).contains(&wanted[0]), "{query}");
                found += 1;
            }
        }
        found
    };
    search(&server);
    server.stop();

    // In portions, so that the traces of a million words need not be in memory at once.
    let (mut traces, mut waiting, mut hits, mut looked) = (Traces::default(), 0, Vec::new(), 0);
    let mut look = |traces: &mut Traces| {
        let (found, bytes) = std::mem::take(traces).found(&server.data);
        hits.extend(found);
        looked = bytes;
    };
    let words = dictionary.each(patients, size, |word| {
        traces.add(word);
        waiting += 1;
        if waiting == 100_000 {
            look(&mut traces);
            waiting = 0;
        }
    });
    look(&mut traces);
    println!("{words} words against {looked} stored bytes: {} recovered", hits.len());
    assert!(words >= size && looked > 100_000, "{words} words, {looked} bytes");
    assert!(hits.is_empty(), "{hits:#?}");

    // The same files, and a snapshot among them: nothing had to be left behind for the search to work again.
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    println!("{} searches answered after the restart", search(&server));
}

/// Percent-encoded, everything but letters and digits.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
