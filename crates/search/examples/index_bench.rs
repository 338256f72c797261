//! Memory and speed of the index at size: `index_bench grow COUNT DUMP`, then `index_bench load DUMP` in a fresh
//! process. Synthea patients of the shared test data, copied with new ids, names and dates until there are COUNT.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a tool run by hand"
)]

use keepwell_model::json::{self, Value};
use keepwell_model::reference::Base;
use keepwell_model::types::ResourceType;
use keepwell_search::definition;
use keepwell_search::extract::extract;
use keepwell_search::index::{Index, Limits, NewRow, RowKind};
use keepwell_search::query::{
    Clause, DateTest, Prefix, Query, SortBy, SortKey, StringTest, Summary, Test, TokenTest, Total,
};
use keepwell_search::term::{ParamNo, Term};
use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAY: i64 = 86_400_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "grow", count, dump] => grow(count.parse().unwrap(), dump),
        [_, "load", dump] => load(dump),
        _ => println!("index_bench grow COUNT DUMP | index_bench load DUMP"),
    }
}

fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

/// Time this thread has been on a processor: what the machine's other work does not lengthen.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|t| t.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1e9
}

/// Processor time of the whole process, in steps of 10 ms.
fn all_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: f64 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .skip(11)
        .take(2)
        .map(|t| t.parse::<f64>().unwrap())
        .sum();
    ticks / 100.0
}

/// Type, id and text of each resource of the base.
fn base(limit: usize) -> Vec<(ResourceType, String, String)> {
    let mut dir = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let data = loop {
        let there = std::env::var_os("KEEPWELL_SHARED")
            .map_or(dir.join("../shared"), Into::into)
            .join("data/synthea");
        if there.is_dir() {
            break there;
        }
        assert!(dir.pop(), "../shared is not here");
    };
    let files = [
        "v2.4-r4-2019/part-00",
        "v3-uscore-2021/part-00",
        "v2.4-r4-2019/part-01",
        "v2.4-r4-2019/part-02",
        "v3-uscore-2021/part-01",
        "v2.4-r4-2019/part-03",
    ];
    let mut out = Vec::new();
    let mut shared = HashSet::new();
    for file in files {
        let packed = std::fs::read(data.join(format!("{file}.ndjson.zst"))).unwrap();
        let text = String::from_utf8(zstd::stream::decode_all(packed.as_slice()).unwrap()).unwrap();
        for line in text.lines() {
            let bundle = json::parse(line).unwrap();
            let entries = bundle.get("entry").unwrap().items().unwrap();
            let mut local = line.to_owned();
            for e in entries {
                let r = e.get("resource").unwrap();
                if let Some(id) = e.str("fullUrl").and_then(|u| u.strip_prefix("urn:uuid:")) {
                    local = local.replace(
                        &format!("\"urn:uuid:{id}\""),
                        &format!("\"{}/{id}\"", r.str("resourceType").unwrap()),
                    );
                }
            }
            let bundle = json::parse(&local).unwrap();
            for e in bundle.get("entry").unwrap().items().unwrap() {
                let r = e.get("resource").unwrap();
                let t = ResourceType::from_name(r.str("resourceType").unwrap()).unwrap();
                let id = r
                    .str("id")
                    .unwrap_or_else(|| e.str("fullUrl").unwrap().rsplit('/').next().unwrap());
                if is_shared(t) && !shared.insert(id.to_owned()) {
                    continue;
                }
                let mut text = String::new();
                r.write(&mut text);
                out.push((t, id.to_owned(), text));
            }
            if out.len() >= limit {
                return out;
            }
        }
    }
    out
}

fn is_shared(t: ResourceType) -> bool {
    matches!(t.name(), "Practitioner" | "Organization" | "Location")
}

fn copy_id(id: &str, copy: u32) -> String {
    match u32::from_str_radix(id.get(..8).unwrap_or(""), 16) {
        Ok(head) if id.len() == 36 => format!("{:08x}{}", head ^ copy.wrapping_mul(0x9e37_79b1), &id[8..]),
        _ => format!("{id}{copy}"),
    }
}

fn grow(count: usize, dump: &str) {
    let own = Base::new("here");
    let base = base(count.min(90_000));
    let family = definition::find(ty("Patient"), "family").unwrap().0;
    let identifier = definition::find(ty("Patient"), "identifier").unwrap().0;
    let terms: usize = base
        .iter()
        .map(|(t, _, text)| extract(*t, &json::parse(text).unwrap(), &own).terms.len())
        .sum();
    println!(
        "base {} resources, {:.1} terms each",
        base.len(),
        terms as f64 / base.len() as f64
    );
    let before = resident();
    let mut index = Index::new([7; 16]);
    let mut rid = 0;
    let mut times: Vec<u32> = Vec::with_capacity(count);
    let mut before_apply = std::time::Duration::ZERO;
    let mut mark = Instant::now();
    let mut home = 0;
    'all: for copy in 0.. {
        for (t, id, text) in &base {
            if copy > 0 && is_shared(*t) {
                continue;
            }
            let value: Value<'_> = json::parse(text).unwrap();
            let mut e = extract(*t, &value, &own);
            if copy > 0 {
                for (param, term) in &mut e.terms {
                    match term {
                        Term::Reference { target, id } if !is_shared(*target) => *id = Cow::Owned(copy_id(id, copy)),
                        Term::Token { code, .. } | Term::OfType { value: code, .. }
                            if code.len() == 36 || (t.name() == "Patient" && *param == identifier) =>
                        {
                            *code = Cow::Owned(copy_id(code, copy));
                        }
                        Term::Date { lo, hi } => {
                            let shift = i64::from(copy) * 11 * DAY;
                            *lo = lo.saturating_sub(shift);
                            if *hi != i64::MAX {
                                *hi -= shift;
                            }
                        }
                        Term::Str(s) if t.name() == "Patient" && *param == family => {
                            *s = Cow::Owned(format!("{}{}", &s[1..], s.chars().next().unwrap()));
                        }
                        _ => {}
                    }
                }
            }
            if t.name() == "Patient" {
                home += 1;
            }
            rid += 1;
            let id = if copy > 0 { copy_id(id, copy) } else { id.clone() };
            let row = NewRow {
                rid,
                resource_type: *t,
                id: &id,
                version: 1,
                last_updated: 1_790_000_000_000 + rid as i64 / 30,
                kind: RowKind::Version,
                home,
                labels: 0,
                extracted: Some(&e),
            };
            let start = Instant::now();
            before_apply += start - mark;
            index.apply(&row);
            mark = Instant::now();
            times.push((mark - start).as_nanos() as u32);
            if rid as usize >= count {
                break 'all;
            }
        }
    }
    let n = rid as f64;
    let grown = (resident() - before) / n - 4.0;
    let sum = times.iter().map(|t| f64::from(*t)).sum::<f64>() / 1e3 / n;
    println!(
        "apply {sum:.2} us, parsing and extraction {:.2} us each on average",
        before_apply.as_secs_f64() * 1e6 / n
    );
    times.sort_unstable();
    let us = |p: f64| f64::from(times[((times.len() - 1) as f64 * p) as usize]) / 1e3;
    println!("grown: {rid} resources, RSS {grown:.0} B each");
    println!(
        "apply: p50 {:.2} us, p99 {:.1}, p99.9 {:.1}, p99.99 {:.0}, most {:.0}",
        us(0.5),
        us(0.99),
        us(0.999),
        us(0.9999),
        us(1.0)
    );
    drop(times);
    parts(&index, n);
    let (start, busy) = (Instant::now(), cpu());
    let mut out = std::io::BufWriter::new(std::fs::File::create(dump).unwrap());
    index.dump(&mut out).unwrap();
    drop(out);
    println!(
        "dump: {:.0} B each in (wall, CPU s) {:?}",
        std::fs::metadata(dump).unwrap().len() as f64 / n,
        (start.elapsed(), cpu() - busy)
    );
    queries(&index);
}

fn parts(index: &Index, n: f64) {
    print!("estimate {:.0} B each:", index.bytes() as f64 / n);
    for (name, bytes) in index.bytes_by_part() {
        print!(" {name} {:.1}", bytes as f64 / n);
    }
    println!();
}

fn load(dump: &str) {
    let before = resident();
    let start = Instant::now();
    let index = Index::load(
        [9; 16],
        &mut std::io::BufReader::new(std::fs::File::open(dump).unwrap()),
    )
    .unwrap();
    let took = start.elapsed();
    let n = ResourceType::all().map(|t| index.count(t)).sum::<u64>() as f64;
    println!(
        "load: {n} resources in {took:?} (CPU {:.2} s of all threads)",
        all_cpu()
    );
    std::thread::sleep(std::time::Duration::from_millis(300));
    println!("RSS {:.0} B each", (resident() - before) / n);
    parts(&index, n);
    queries(&index);
    println!("RSS {:.0} B each", (resident() - before) / n);
}

fn ty(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

fn param(t: &str, code: &str) -> ParamNo {
    definition::behind(ty(t), definition::find(ty(t), code).unwrap().0)[0].0
}

fn query(t: &str, clauses: Vec<Clause>) -> Query {
    Query {
        resource_type: ty(t),
        clauses,
        sort: vec![],
        count: None,
        total: Total::Default,
        includes: vec![],
        summary: Summary::False,
        elements: vec![],
        processed: vec![],
        ignored: vec![],
    }
}

fn refers(t: &str, code: &str, target: &str, id: &str) -> Clause {
    Clause::Match {
        param: param(t, code),
        test: Test::Reference {
            target: Some(ty(target)),
            id: id.into(),
        },
    }
}

fn queries(index: &Index) {
    let all = |t: &str| {
        let page = index.search(
            &query(t, vec![]),
            u64::MAX,
            &|_| true,
            None,
            Limits {
                page: 3000,
                includes: 0,
            },
        );
        page.matches
            .iter()
            .map(|v| index.id_of(v.resource_type, v.rid).unwrap())
            .collect::<Vec<_>>()
    };
    let (patients, practitioners) = (all("Patient"), all("Practitioner"));
    let loinc = |code: &str| Clause::Match {
        param: param("Observation", "code"),
        test: Test::Token(TokenTest::SystemCode("http://loinc.org".into(), code.into())),
    };
    let codes = ["8302-2", "29463-7", "8480-6", "2339-0", "85354-9", "4548-4", "72166-2"];
    let date = |t: &str, prefix, lo: i64| Clause::Match {
        param: param(t, "date"),
        test: Test::Date(DateTest {
            prefix,
            lo: lo * DAY,
            hi: (lo + 365) * DAY,
        }),
    };
    let run = |name: &str, n: usize, make: &dyn Fn(usize) -> Query| {
        let mut times = Vec::new();
        let (mut hits, mut total) = (0, 0);
        for i in 0..n {
            let q = make(i);
            let start = Instant::now();
            let page = index.search(
                &q,
                u64::MAX,
                &|f| f.labels == 0,
                None,
                Limits {
                    page: 50,
                    includes: 1000,
                },
            );
            times.push(start.elapsed());
            hits += page.matches.len();
            total += page.total.unwrap_or(0);
        }
        times.sort();
        let us = |p: usize| times[(n - 1) * p / 100].as_secs_f64() * 1e6;
        println!(
            "{name:40} p50 {:8.1} us  p99 {:8.1} us  hits {:.1} total {:.0}",
            us(50),
            us(99),
            hits as f64 / n as f64,
            total as f64 / n as f64
        );
    };
    let patient = |i: usize| patients[i * 7919 % patients.len()].as_str();
    run("Observation?patient&code", 3000, &|i| {
        query(
            "Observation",
            vec![
                refers("Observation", "patient", "Patient", patient(i)),
                loinc(codes[i % 7]),
            ],
        )
    });
    run("Observation?patient&code:text", 3000, &|i| {
        let text = Clause::Match {
            param: param("Observation", "code"),
            test: Test::Text("body".into()),
        };
        query(
            "Observation",
            vec![refers("Observation", "patient", "Patient", patient(i)), text],
        )
    });
    run("Observation?patient&date=ge&_sort=-date", 3000, &|i| {
        let mut q = query(
            "Observation",
            vec![
                refers("Observation", "patient", "Patient", patient(i)),
                date("Observation", Prefix::Ge, 14_600),
            ],
        );
        q.sort = vec![SortKey {
            by: SortBy::Param(param("Observation", "date")),
            descending: true,
        }];
        q
    });
    run("Patient?name=prefix(3)", 3000, &|i| {
        let text = ["abe", "mar", "joh", "sch", "kuh", "lor", "and"][i % 7];
        query(
            "Patient",
            vec![Clause::Match {
                param: param("Patient", "name"),
                test: Test::String(StringTest::Prefix(text.into())),
            }],
        )
    });
    run("Patient?birthdate=1 year", 1000, &|i| {
        let lo = (i as i64 % 60) * 365;
        query(
            "Patient",
            vec![Clause::Match {
                param: param("Patient", "birthdate"),
                test: Test::Date(DateTest {
                    prefix: Prefix::Eq,
                    lo: lo * DAY,
                    hi: (lo + 365) * DAY,
                }),
            }],
        )
    });
    run("Observation?code&date=1y&_total=accurate", 300, &|i| {
        let mut q = query(
            "Observation",
            vec![loinc(codes[i % 7]), date("Observation", Prefix::Eq, 15_000 + i as i64)],
        );
        q.total = Total::Accurate;
        q
    });
    run("Observation?code&_sort=-date", 100, &|i| {
        let mut q = query("Observation", vec![loinc(codes[i % 7])]);
        q.sort = vec![SortKey {
            by: SortBy::Param(param("Observation", "date")),
            descending: true,
        }];
        q
    });
    run("Observation?status=final", 300, &|_| {
        query(
            "Observation",
            vec![Clause::Match {
                param: param("Observation", "status"),
                test: Test::Token(TokenTest::Code("final".into())),
            }],
        )
    });
    run("Observation?status=final&_total=accurate", 20, &|_| {
        let mut q = query(
            "Observation",
            vec![Clause::Match {
                param: param("Observation", "status"),
                test: Test::Token(TokenTest::Code("final".into())),
            }],
        );
        q.total = Total::Accurate;
        q
    });
    run("Observation?_sort=-date", 20, &|_| {
        let mut q = query("Observation", vec![]);
        q.sort = vec![SortKey {
            by: SortBy::Param(param("Observation", "date")),
            descending: true,
        }];
        q
    });
    run("Encounter?practitioner&status", 1000, &|i| {
        query(
            "Encounter",
            vec![
                refers(
                    "Encounter",
                    "practitioner",
                    "Practitioner",
                    &practitioners[i % practitioners.len()],
                ),
                Clause::Match {
                    param: param("Encounter", "status"),
                    test: Test::Token(TokenTest::Code("finished".into())),
                },
            ],
        )
    });
    run("Observation?patient.name=prefix&code", 300, &|i| {
        let inner = Clause::Match {
            param: param("Patient", "name"),
            test: Test::String(StringTest::Prefix(["abe", "mar", "joh"][i % 3].into())),
        };
        query(
            "Observation",
            vec![
                Clause::Chain {
                    param: param("Observation", "patient"),
                    targets: vec![(ty("Patient"), inner)],
                },
                loinc(codes[i % 7]),
            ],
        )
    });
    run("Patient?_has:Observation:patient:code", 50, &|i| {
        query(
            "Patient",
            vec![Clause::Has {
                source: ty("Observation"),
                reference: param("Observation", "patient"),
                clause: Box::new(loinc(codes[i % 7])),
            }],
        )
    });
    run("Encounter?patient&_include", 3000, &|i| {
        let mut q = query("Encounter", vec![refers("Encounter", "patient", "Patient", patient(i))]);
        let include = |p: &str| keepwell_search::query::Include {
            reverse: false,
            iterate: false,
            source: ty("Encounter"),
            params: vec![param("Encounter", p)],
            target: None,
        };
        q.includes = vec![include("practitioner"), include("service-provider"), include("patient")];
        q
    });
    let start = Instant::now();
    for i in 0..100_000 {
        std::hint::black_box(index.head(ty("Patient"), patient(i), u64::MAX));
    }
    println!(
        "{:40} mean {:.2} us",
        "read head",
        start.elapsed().as_secs_f64() * 1e6 / 1e5
    );
}
