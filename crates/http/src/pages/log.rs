//! The access log as people read it: who, when, why and what, in words, with the entries of one visit to a record
//! gathered in one line. Every entry keeps its number and its mark; nothing is left out.

use super::backend::{Access, Mark, role_words};
use super::read;

/// Entries of one person, in one purpose, close in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Visit {
    /// `8920` or `8920–8937`.
    pub numbers: String,
    /// How many entries.
    pub count: usize,
    /// When the newest was made.
    pub when: String,
    /// Name.
    pub who: String,
    /// Role in words.
    pub role: &'static str,
    /// Purpose in words.
    pub why: String,
    /// A stated reason.
    pub reason: String,
    /// What was done: `opened identity; looked up allergies, problems`.
    pub what: String,
    /// Source address; empty where it is not to be shown.
    pub from: String,
    /// Refused, all of them.
    pub refused: bool,
    /// The worst mark among them.
    pub mark: Mark,
}

/// Entries further apart than this are separate visits.
const GAP_MS: i64 = 30_000;

/// Gathers entries (newest first) into visits. `own`: the patient reads, who is spared network addresses.
#[must_use]
pub fn visits(entries: &[Access], own: bool) -> Vec<Visit> {
    let mut out: Vec<Vec<&Access>> = Vec::new();
    for e in entries {
        match out.last_mut() {
            Some(group) if group.last().is_some_and(|last| together(last, e)) => group.push(e),
            _ => out.push(vec![e]),
        }
    }
    out.iter().filter_map(|group| visit(group, own)).collect()
}

fn together(later: &Access, earlier: &Access) -> bool {
    let who = |a: &Access| {
        (
            a.who.clone(),
            a.role,
            a.purpose.clone(),
            a.reason.clone(),
            a.from.clone(),
            a.refused,
        )
    };
    who(later) == who(earlier) && (later.at.0 - earlier.at.0).abs() <= GAP_MS
}

fn visit(group: &[&Access], own: bool) -> Option<Visit> {
    let (newest, oldest) = (group.first()?, group.last()?);
    // Verb by verb in the order they were done, each thing once.
    let mut done: Vec<(String, Vec<String>)> = Vec::new();
    for e in group.iter().rev() {
        let (verb, thing) = deed(&e.what);
        match done.iter_mut().find(|(v, _)| *v == verb) {
            Some((_, things)) if things.contains(&thing) => {}
            Some((_, things)) => things.push(thing),
            None => done.push((verb, vec![thing])),
        }
    }
    let what: Vec<String> = done
        .iter()
        .map(|(verb, things)| format!("{verb} {}", things.join(", ")).trim().to_owned())
        .collect();
    let mark = if group.iter().any(|e| e.mark == Mark::Failed) {
        Mark::Failed
    } else {
        Mark::Proven
    };
    let numbers = if newest.number == oldest.number {
        newest.number.to_string()
    } else {
        format!(
            "{}–{}",
            oldest.number.min(newest.number),
            newest.number.max(oldest.number)
        )
    };
    Some(Visit {
        numbers,
        count: group.len(),
        when: read::instant(newest.at),
        who: if newest.who.is_empty() {
            "unknown".to_owned()
        } else {
            newest.who.clone()
        },
        role: newest.role.map(role_words).unwrap_or_default(),
        why: purpose(&newest.purpose),
        reason: newest.reason.clone(),
        what: what.join("; "),
        from: if own { String::new() } else { newest.from.clone() },
        refused: newest.refused,
        mark,
    })
}

/// `search Observation` as a verb and a thing in words; unknown words stay as they are.
fn deed(what: &str) -> (String, String) {
    let (verb, thing) = what.split_once(' ').unwrap_or((what, ""));
    let verb = match verb {
        "read" => "opened",
        "vread" => "opened an earlier version of",
        "search" => "looked up",
        "history-instance" | "history-type" | "history-system" => "opened the history of",
        "everything" => return ("opened".to_owned(), "the whole record".to_owned()),
        "access-log" => return ("read".to_owned(), "this access log".to_owned()),
        "lineage" => "asked who wrote",
        "create" => "wrote new",
        "update" | "patch" => "changed",
        "delete" => "deleted",
        "import" | "transaction" if thing.is_empty() => return ("loaded".to_owned(), "the record".to_owned()),
        "import" | "transaction" => "loaded",
        other => other,
    };
    let thing = match thing {
        "Patient" => "identity",
        "AllergyIntolerance" => "allergies",
        "Appointment" => "appointments",
        "CarePlan" => "care plans",
        "Claim" => "claims",
        "ClaimResponse" => "answers to claims",
        "Condition" => "problems",
        "Coverage" => "insurance",
        "DiagnosticReport" => "reports",
        "DocumentReference" => "notes",
        "Encounter" => "visits",
        "FamilyMemberHistory" => "family history",
        "Goal" => "goals",
        "Immunization" => "immunizations",
        "MedicationAdministration" => "doses given",
        "MedicationRequest" => "medicines ordered",
        "MedicationStatement" => "medicines taken",
        "Observation" => "measurements and results",
        "Procedure" => "procedures",
        "RelatedPerson" => "contacts",
        other => other,
    };
    (verb.to_owned(), thing.to_owned())
}

/// An ActReason code in words.
fn purpose(code: &str) -> String {
    let words = match code {
        "TREAT" => "treatment",
        "HPAYMT" => "payment",
        "HOPERAT" => "running the clinic",
        "ETREAT" => "emergency treatment",
        "BTG" => "emergency access (break the glass)",
        "PATRQT" => "asked for by the patient",
        "HSYSADMIN" => "system administration",
        "" => "not stated",
        other => other,
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepwell_model::actor::Role;
    use keepwell_model::time::Timestamp;

    fn entry(number: u64, s: i64, who: &str, what: &str, mark: Mark) -> Access {
        Access {
            number,
            at: Timestamp(s * 1000),
            who: who.to_owned(),
            role: Some(Role::Nurse),
            purpose: "TREAT".to_owned(),
            reason: String::new(),
            what: what.to_owned(),
            from: "::1".to_owned(),
            refused: false,
            mark,
        }
    }

    #[test]
    fn one_visit_is_one_line_and_keeps_every_number() {
        let log = [
            entry(9, 101, "A", "search Condition", Mark::Proven),
            entry(8, 100, "A", "search AllergyIntolerance", Mark::Failed),
            entry(7, 100, "A", "search AllergyIntolerance", Mark::Proven),
            entry(6, 99, "A", "read Patient", Mark::Proven),
            entry(5, 20, "A", "read Patient", Mark::Proven),
            entry(4, 20, "B", "everything Patient", Mark::Proven),
            entry(3, 1, "job", "import", Mark::Proven),
        ];
        let lines = visits(&log, false);
        let short: Vec<_> = lines
            .iter()
            .map(|v| (v.numbers.as_str(), v.what.as_str(), v.mark, v.count))
            .collect();
        assert_eq!(
            short,
            [
                ("6–9", "opened identity; looked up allergies, problems", Mark::Failed, 4),
                ("5", "opened identity", Mark::Proven, 1),
                ("4", "opened the whole record", Mark::Proven, 1),
                ("3", "loaded the record", Mark::Proven, 1),
            ]
        );
        assert_eq!(lines.iter().map(|v| v.count).sum::<usize>(), log.len());
    }

    #[test]
    fn what_differs_in_anything_that_matters_stays_apart() {
        let a = || entry(2, 10, "A", "read Patient", Mark::Proven);
        let changes: [fn(&mut Access); 6] = [
            |e| e.who = "B".to_owned(),
            |e| e.role = Some(Role::Physician),
            |e| e.purpose = "BTG".to_owned(),
            |e| e.reason = "because".to_owned(),
            |e| e.from = "10.0.0.1".to_owned(),
            |e| e.refused = true,
        ];
        assert_eq!(visits(&[a(), a()], false).len(), 1);
        for change in changes {
            let mut other = a();
            change(&mut other);
            assert_eq!(visits(&[a(), other], false).len(), 2);
        }
    }

    #[test]
    fn one_failed_proof_marks_the_line() {
        let log = [
            entry(2, 10, "A", "read Patient", Mark::Proven),
            entry(1, 10, "A", "read Patient", Mark::Failed),
        ];
        assert_eq!(visits(&log, false).first().map(|v| v.mark), Some(Mark::Failed));
    }
}
