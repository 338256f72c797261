//! What `keepwell policy table|check|explain` print: the authorization table, the decision cases, one decision in
//! words. The table is generated from the policies, kept in the repository, and compared: a policy change is reviewed
//! as the diff of who may do what (AZ-1).

use std::fmt::Write;

use keepwell_model::actor::Role;
use keepwell_model::types::ResourceType;

use crate::engine::Engine;
use crate::question::Question;
use crate::request::{Action, ActionGroup, Grant, Labels, Relation, Request, Target};

/// The authorization table as committed.
pub const GOLDEN_TABLE: &str = include_str!("../../../policies/authorization-table.txt");
/// The decision cases as committed.
pub const CASES: &str = include_str!("../../../policies/cases.txt");

/// A column of the table: a role, and for machines what narrows them.
struct Column {
    title: &'static str,
    role: Role,
    grant: Grant,
}

/// Every role is a column; a machine is four, since it is its scopes.
fn columns() -> Vec<Column> {
    let mut all: Vec<Column> = Role::ALL
        .into_iter()
        .filter(|r| *r != Role::Service)
        .map(|role| Column {
            title: role.name(),
            role,
            grant: Grant::WHOLE,
        })
        .collect();
    for (title, grant) in [
        ("system/*", Grant::SYSTEM),
        ("patient/*", Grant::PATIENT),
        ("user/*", Grant::USER),
        ("job", Grant::JOB),
    ] {
        all.push(Column {
            title,
            role: Role::Service,
            grant,
        });
    }
    all
}

const HEAD: &str = "\
# Who may do what. Generated from policies/*.cedar; do not edit: change a policy, run the tests of keepwell-policy with
# KEEPWELL_BLESS=1 and read the diff of this file.
#
# A cell lists the relations to the patient for which the act is permitted:
#   o  own        in the compartment of the patient whom the session or token names
#   r  related    a patient with a treatment or working relationship, or a stated reason on record
#   p  plausible  a patient of the own units, or formerly treated, before a reason is stated
#   e  emergency  a patient without a relationship, under an emergency access that is running
#   u  unrelated  a patient without one
#   n  no patient
#   .  never
# Columns are roles of signed-in persons, then machines by what their token holds: system/*.cruds, patient/*.cruds,
# user/*.cruds, and named jobs of the installation, which no token can be. Scopes on a person's token narrow the role.
";

/// Generates the authorization table.
#[must_use]
pub fn table(engine: &Engine) -> String {
    let mut out = HEAD.to_owned();
    let columns = columns();
    out.push_str("\n## Resources by data class\n\n");
    header(&mut out, "class", &columns, "actions");
    let acts: Vec<Action> = actions(|g| matches!(g, ActionGroup::View | ActionGroup::Write)).collect();
    class_rows(&mut out, engine, &columns, &acts, Labels::NONE);

    out.push_str("\n## Acts upon one patient's chart\n\n");
    header(&mut out, "", &columns, "actions");
    let patient = ResourceType::from_name("Patient");
    for action in actions(|g| g == ActionGroup::Chart) {
        let cells = patient
            .map(|t| cells(engine, &columns, action, Target::Type(t), Labels::NONE))
            .unwrap_or_default();
        row(&mut out, "Patient", &cells, action.name());
    }

    out.push_str("\n## Acts upon the installation\n\n");
    header(&mut out, "", &columns, "actions");
    for action in actions(|g| g == ActionGroup::System) {
        let cells = cells(engine, &columns, action, Target::Installation, Labels::NONE);
        let cells: Vec<String> = cells
            .into_iter()
            .map(|c| if c == "." { c } else { "yes".into() })
            .collect();
        row(&mut out, "", &cells, action.name());
    }

    for (label, name) in Labels::ALL {
        let _ = write!(out, "\n## Resources labelled `{name}`\n\n");
        header(&mut out, "class", &columns, "actions");
        class_rows(&mut out, engine, &columns, &acts, label);
    }

    out.push_str("\n## Types of each class\n\n");
    for (class, _) in engine.classes().all() {
        let types: Vec<_> = ResourceType::all()
            .filter(|t| engine.classes().of(*t) == class)
            .map(ResourceType::name)
            .collect();
        if !types.is_empty() {
            let _ = writeln!(out, "{class}: {}", types.join(" "));
        }
    }
    out
}

fn actions(wanted: impl Fn(ActionGroup) -> bool) -> impl Iterator<Item = Action> {
    Action::ALL.iter().copied().filter(move |a| wanted(a.group()))
}

/// The rows of all classes: types of a class and actions that decide alike share a row; a type that differs from its
/// class gets rows of its own.
fn class_rows(out: &mut String, engine: &Engine, columns: &[Column], actions: &[Action], labels: Labels) {
    for (class, _) in engine.classes().all() {
        let mut types: Vec<ResourceType> = ResourceType::all()
            .filter(|t| engine.classes().of(*t) == class)
            .collect();
        // Types that no policy names are decided by their class: one of them speaks for all.
        let mut spoken_for = false;
        types.retain(|t| engine.named_types().contains(t) || !std::mem::replace(&mut spoken_for, true));
        // Rows as (who it is about, cells, actions), in order of first appearance.
        let mut rows: Vec<(String, Vec<String>, Vec<&str>)> = Vec::new();
        for action in actions {
            let all: Vec<_> = types
                .iter()
                .map(|t| cells(engine, columns, *action, Target::Type(*t), labels))
                .collect();
            let alike = all.windows(2).all(|w| w.first() == w.last());
            for (cells, t) in all.into_iter().zip(&types).take(if alike { 1 } else { types.len() }) {
                let by_name = !alike && engine.named_types().contains(t);
                let about = if by_name {
                    format!("{class}: {t}")
                } else {
                    class.to_owned()
                };
                match rows.iter_mut().find(|(a, c, _)| *a == about && *c == cells) {
                    Some((_, _, acts)) => acts.push(action.name()),
                    None => rows.push((about, cells, vec![action.name()])),
                }
            }
        }
        for (about, cells, acts) in rows {
            row(out, &about, &cells, &acts.join(" "));
        }
    }
}

fn cells(engine: &Engine, columns: &[Column], action: Action, target: Target, labels: Labels) -> Vec<String> {
    columns
        .iter()
        .map(|column| {
            let letters: String = Relation::ALL
                .into_iter()
                .filter(|relation| {
                    let (role, grant, relation) = (column.role, column.grant, *relation);
                    let request = Request {
                        labels,
                        grant,
                        ..Request::plain(role, action, target, relation)
                    };
                    engine.decide(&request).permit
                })
                .filter_map(|r| r.name().chars().next())
                .collect();
            if letters.is_empty() { ".".into() } else { letters }
        })
        .collect()
}

fn header(out: &mut String, first: &str, columns: &[Column], last: &str) {
    let titles: Vec<String> = columns.iter().map(|c| c.title.to_owned()).collect();
    row(out, first, &titles, last);
}

fn row(out: &mut String, first: &str, cells: &[String], last: &str) {
    let _ = write!(out, "{first:<16}");
    for (cell, column) in cells.iter().zip(columns()) {
        let _ = write!(out, " {cell:<width$}", width = column.title.len().max(4));
    }
    let _ = writeln!(out, " {last}");
}

/// Runs the decision cases: lines of `permit|deny QUESTION`, `#` comments.
///
/// # Errors
/// Each case that is not understood or decided otherwise, one a line.
pub fn run_cases(engine: &Engine, cases: &str) -> Result<usize, String> {
    let (mut count, mut faults) = (0, String::new());
    for (number, line) in cases.lines().enumerate() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(expected) = words.next() else { continue };
        count += 1;
        let question = match (expected, Question::parse(words)) {
            ("permit" | "deny", Ok(q)) => q,
            (_, Err(fault)) => {
                let _ = writeln!(faults, "line {}: {fault}", number + 1);
                continue;
            }
            _ => {
                let _ = writeln!(faults, "line {}: `{expected}` is neither permit nor deny", number + 1);
                continue;
            }
        };
        for relation in question.relations() {
            let decision = engine.decide(&question.request(relation));
            if decision.permit != (expected == "permit") {
                let _ = writeln!(
                    faults,
                    "line {}: {} for {}: {line}",
                    number + 1,
                    decision.reason,
                    relation.name()
                );
            }
        }
    }
    if faults.is_empty() { Ok(count) } else { Err(faults) }
}

/// Checks everything that can be checked without a data directory: schema, table, cases.
///
/// # Errors
/// What is wrong, for people to read.
pub fn check() -> Result<String, String> {
    let engine = Engine::load().map_err(|e| e.to_string())?;
    let now = table(&engine);
    if let Some((was, is)) = first_difference(GOLDEN_TABLE, &now) {
        return Err(format!(
            "the authorization table differs from the policies:\n- {was}\n+ {is}"
        ));
    }
    let cases = run_cases(&engine, CASES)?;
    Ok(format!(
        "{} policies fit the schema, the authorization table is up to date, {cases} decision cases hold\n",
        engine.policy_count()
    ))
}

fn first_difference<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, &'a str)> {
    let (mut left, mut right) = (a.lines(), b.lines());
    loop {
        match (left.next(), right.next()) {
            (None, None) => return None,
            (l, r) if l == r => {}
            (l, r) => return Some((l.unwrap_or("(end)"), r.unwrap_or("(end)"))),
        }
    }
}

/// Explains one decision in words: verdict, reason, the policies that decided and what the record must do.
#[must_use]
pub fn explain(engine: &Engine, question: &Question) -> String {
    let mut out = String::new();
    let about = match question.target {
        Target::Type(t) => format!("{} of {t} ({})", question.action.name(), engine.classes().of(t)),
        Target::Installation => question.action.name().to_owned(),
    };
    for relation in question.relations() {
        let decision = engine.decide(&question.request(relation));
        let verdict = if decision.permit { "permit" } else { "deny  " };
        let _ = write!(out, "{verdict} {}: {about}", question.role.name());
        if matches!(question.target, Target::Type(_)) {
            let _ = write!(out, ", patient {}", relation.name());
        }
        let _ = writeln!(out, "\n       because: {}", decision.reason);
        if !decision.policies.is_empty() {
            let _ = writeln!(out, "       policies: {}", decision.policies.join(", "));
        }
        for obligation in decision.obligations {
            let _ = writeln!(out, "       obligation: {}", obligation.name());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorization_table_is_the_committed_one() {
        let now = table(&Engine::load().unwrap());
        if std::env::var_os("KEEPWELL_BLESS").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/authorization-table.txt");
            std::fs::write(path, &now).unwrap();
            return;
        }
        if let Some((was, is)) = first_difference(GOLDEN_TABLE, &now) {
            panic!("policies/authorization-table.txt differs; KEEPWELL_BLESS=1 rewrites it\n- {was}\n+ {is}");
        }
    }

    /// Coverage, read from the committed text itself: every action, role and type has its place, and nothing else has.
    #[test]
    fn the_committed_table_covers_every_action_role_and_type_and_nothing_else() {
        let known: Vec<&str> = Action::ALL.iter().map(|a| a.name()).collect();
        let sections: Vec<&str> = GOLDEN_TABLE.split("\n## ").skip(1).collect();
        let (types, tables) = sections.split_last().unwrap();
        let mut seen: Vec<&str> = Vec::new();
        for section in tables {
            let mut lines = section.lines().skip(2).filter(|l| !l.is_empty());
            let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
            for column in columns() {
                assert!(head.contains(&column.title), "no column for {}", column.title);
            }
            for line in lines {
                let acts: Vec<&str> = line.split_whitespace().filter(|w| known.contains(w)).collect();
                assert!(!acts.is_empty(), "a row without a known action: {line}");
                seen.extend(acts);
            }
        }
        for action in &known {
            assert!(seen.contains(action), "no row for {action}");
        }
        let mut listed: Vec<&str> = types
            .lines()
            .skip(2)
            .flat_map(|l| l.split_whitespace().skip(1))
            .collect();
        listed.sort_unstable();
        let all: Vec<&str> = ResourceType::all().map(ResourceType::name).collect();
        assert_eq!(listed, all);
        for role in Role::ALL {
            assert!(columns().iter().any(|c| c.role == role));
        }
    }

    #[test]
    fn the_decision_cases_hold() {
        match run_cases(&Engine::load().unwrap(), CASES) {
            Ok(count) => assert!(count >= 60, "only {count} cases"),
            Err(faults) => panic!("{faults}"),
        }
    }

    #[test]
    fn a_wrong_case_is_found() {
        let engine = Engine::load().unwrap();
        assert!(
            run_cases(&engine, "permit nurse read Claim related")
                .unwrap_err()
                .contains("line 1")
        );
        assert!(
            run_cases(&engine, "deny nurse peek Claim")
                .unwrap_err()
                .contains("`peek` is no action")
        );
        assert!(
            run_cases(&engine, "deny nurse read")
                .unwrap_err()
                .contains("needs a resource type")
        );
        assert!(
            run_cases(&engine, "maybe nurse read Claim")
                .unwrap_err()
                .contains("neither permit nor deny")
        );
        assert!(
            run_cases(&engine, "permit nurse read Observation scope=x")
                .unwrap_err()
                .contains("no scope")
        );
    }

    #[test]
    fn explains_in_words() {
        let engine = Engine::load().unwrap();
        let ask = |text: &str| explain(&engine, &Question::parse(text.split_whitespace()).unwrap());
        assert_eq!(
            ask("nurse read Claim related"),
            "deny   nurse: read of Claim (claims), patient related\n       because: no rule permits this\n"
        );
        assert_eq!(
            ask("physician read Condition related label=part-2"),
            "permit physician: read of Condition (problems), patient related\n       because: treatment by a physician\n\
             \x20      policies: physician-receives-part-2-notice, physician-views-the-chart\n\
             \x20      obligation: part-2-notice\n"
        );
        assert_eq!(
            ask("patient read Patient")
                .lines()
                .filter(|l| l.starts_with("permit"))
                .count(),
            1
        );
    }

    #[test]
    fn check_says_what_it_checked() {
        let said = check().unwrap();
        assert!(said.contains("authorization table is up to date"), "{said}");
    }
}
