//! The templates and what they are filled with. Each page is a function from typed data to HTML; Askama escapes every
//! value, and nothing here marks anything as safe.
//!
//! Titles carry no names: a browser writes them to its history.

use super::backend::{AccessLog, Checkpoint, Find, Group, Level, Mark, role_words};
use super::backend::{EMERGENCY_REASONS, Granted, Review, STATED_REASONS};
use super::chart::{Allergies, Banner, ChartView, Row, Vital};
use super::log::{self, Visit};
use askama::Template;
use keepwell_model::actor::{Actor, Assurance, Role};
use keepwell_model::time::Timestamp;

/// Rows of a list shown before the rest is folded.
pub const UNFOLDED: usize = 8;

/// What every page has around it.
pub struct Page {
    /// Title of the tab, without any patient.
    pub title: &'static str,
    /// Who is signed in.
    pub user: Option<User>,
    /// Say that this is the demo.
    pub demo: bool,
    /// Emergency accesses of the person that run.
    pub emergencies: Vec<Running>,
}

/// An emergency access that runs, as every page tells it.
pub struct Running {
    /// The record.
    pub patient: String,
    /// Until when, UTC.
    pub until: String,
}

impl Running {
    /// Of a grant.
    #[must_use]
    pub fn new(granted: &Granted) -> Self {
        Self {
            patient: granted.patient.clone(),
            until: clock(granted.until),
        }
    }
}

/// Hour and minute, UTC.
fn clock(at: Timestamp) -> String {
    at.to_string().get(11..16).unwrap_or_default().to_owned()
}

/// Day, hour and minute, UTC.
fn day_and_clock(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{} {}", text.get(..10).unwrap_or_default(), clock(at))
}

/// The signed-in person in the head of the page.
pub struct User {
    /// Name.
    pub display: String,
    /// Role in words.
    pub role: &'static str,
    /// Token for the sign-out form.
    pub csrf: String,
    /// Main links of the role.
    pub links: Vec<Link>,
}

/// A link.
pub struct Link {
    /// Address.
    pub href: &'static str,
    /// Text.
    pub text: &'static str,
    /// It is the page shown now.
    pub here: bool,
}

impl User {
    /// The head for an actor on the page `here`.
    #[must_use]
    pub fn new(actor: &Actor, csrf: &str, here: &str) -> Self {
        let links: &[(&'static str, &'static str)] = match actor.role {
            // Whoever is still to enrol has nothing else to do here.
            _ if actor.assurance < Assurance::TwoFactors => &[],
            Role::Patient => &[("/record", "My record"), ("/record/access", "Who looked at it")],
            Role::Administrator => &[
                ("/status", "System status"),
                ("/users", "Users"),
                ("/clients", "Clients"),
            ],
            Role::SecurityOfficer => &[
                ("/status", "System status"),
                ("/users", "Users"),
                ("/clients", "Clients"),
                ("/reviews", "Emergency access"),
            ],
            Role::PrivacyOfficer => &[("/find", "Find a patient"), ("/reviews", "Emergency access")],
            Role::Service => &[],
            _ => &[("/find", "Find a patient")],
        };
        Self {
            display: actor.display.clone(),
            role: role_words(actor.role),
            csrf: csrf.to_owned(),
            links: links
                .iter()
                .chain(&[("/security", "My security")])
                .map(|&(href, text)| Link {
                    href,
                    text,
                    here: href == here,
                })
                .collect(),
        }
    }
}

/// A rendered page. Askama can only fail on a failing writer, and a `String` is none.
pub(super) fn rendered(template: &impl Template) -> String {
    template.render().unwrap_or_default()
}

/// A patient in a list.
pub struct Hit {
    /// Where the name leads.
    pub href: String,
    /// Identity.
    pub banner: Banner,
}

#[derive(Template)]
#[template(path = "find.html")]
struct FindPage<'a> {
    page: &'a Page,
    csrf: &'a str,
    hint: &'a str,
    asked: &'a Find,
    problem: Option<&'a str>,
    found: Option<&'a [Hit]>,
    more: bool,
    alike: bool,
    recent: &'a [Hit],
    notice: &'a str,
}

/// Patients listed on one page.
#[derive(Default)]
pub struct Results {
    /// Best first.
    pub hits: Vec<Hit>,
    /// There are more than are listed.
    pub more: bool,
    /// What must be said with what is shown; empty for nothing.
    pub notice: &'static str,
}

/// The search page: form, results if there was a question, recent patients otherwise.
#[must_use]
pub fn render_find(
    page: &Page,
    csrf: &str,
    role: Role,
    asked: &Find,
    answer: Result<Option<&Results>, &str>,
    recent: &Results,
) -> String {
    let hint = match role {
        Role::FrontDesk => "Identity, contacts, insurance and appointments.",
        Role::Billing => "Coverage and claims.",
        Role::PrivacyOfficer => "Leads to the access log of that patient.",
        _ => "",
    };
    let results = answer.ok().flatten();
    rendered(&FindPage {
        page,
        csrf,
        hint,
        asked,
        problem: answer.err(),
        found: results.map(|r| r.hits.as_slice()),
        more: results.is_some_and(|r| r.more),
        alike: results.is_some_and(|r| alike(&r.hits)),
        recent: &recent.hits,
        // The template lists the results, or the recent ones where nothing was asked.
        notice: results.unwrap_or(recent).notice,
    })
}

/// Two hits with one birth date and a last or first name in common: easy to confuse.
fn alike(hits: &[Hit]) -> bool {
    let words = |h: &Hit| {
        h.banner
            .name
            .to_lowercase()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    hits.iter().enumerate().any(|(i, a)| {
        let names = words(a);
        hits.iter()
            .skip(i + 1)
            .any(|b| a.banner.birth == b.banner.birth && words(b).iter().any(|w| names.contains(w)))
    })
}

#[derive(Template)]
#[template(path = "chart.html")]
struct ChartPage<'a> {
    page: &'a Page,
    view: &'a ChartView,
    sections: Vec<(&'static str, &'static str)>,
    own: bool,
    log_href: Option<&'a str>,
    capped: &'a str,
    withheld: &'a str,
    notice: &'a str,
}

/// A patient's chart. `own`: the patient reads her own; `log_href`: where the access log is, for those who may see it;
/// `capped` and `withheld` name resource types; `notice` goes with what is shown.
#[must_use]
pub fn render_chart(
    page: &Page,
    view: &ChartView,
    own: bool,
    log_href: Option<&str>,
    capped: &str,
    withheld: &str,
    notice: &str,
) -> String {
    let sections = [
        (view.problems.is_some(), "problems", "Problems"),
        (view.medications.is_some(), "medicines", "Medicines"),
        (
            view.given.as_ref().is_some_and(|g| !g.is_empty()),
            "given",
            "Doses given",
        ),
        (view.coverage.is_some(), "coverage", "Insurance"),
        (view.appointments.is_some(), "appointments", "Appointments"),
        (view.vitals.is_some(), "vitals", "Vital signs"),
        (view.labs.is_some(), "labs", "Laboratory"),
        (view.claims.is_some(), "claims", "Claims"),
        (view.notes.is_some(), "notes", "Notes"),
        (view.encounters.is_some(), "encounters", "Visits"),
        (view.immunizations.is_some(), "vaccines", "Immunizations"),
        (view.procedures.is_some(), "procedures", "Procedures"),
    ];
    let sections = sections
        .into_iter()
        .filter(|s| s.0)
        .map(|(_, id, title)| (id, title))
        .collect();
    rendered(&ChartPage {
        page,
        view,
        sections,
        own,
        log_href,
        capped,
        withheld,
        notice,
    })
}

#[derive(Template)]
#[template(path = "access.html")]
struct AccessPage<'a> {
    page: &'a Page,
    banner: &'a Banner,
    own: bool,
    seal: Seal,
    checkpoint: Option<&'a Checkpoint>,
    visits: Vec<Visit>,
    shown: usize,
    more: bool,
    notice: &'a str,
}

/// What the marks of all entries together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seal {
    Proven,
    Failed,
    Unchecked,
}

impl Seal {
    fn of(log: &AccessLog) -> Self {
        let any = |m| log.entries.iter().any(|e| e.mark == m);
        match log.checkpoint {
            _ if any(Mark::Failed) => Seal::Failed,
            None => Seal::Unchecked,
            Some(_) => Seal::Proven,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Seal::Proven => "good",
            Seal::Failed => "bad",
            Seal::Unchecked => "warn",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Seal::Proven => "Verified.",
            Seal::Failed => "The log does not match its signed checkpoint.",
            Seal::Unchecked => "Not verified: there is no checkpoint yet.",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Seal::Proven => "Each line was proven to be in the signed log just now.",
            Seal::Failed => {
                "A line was changed, added or taken away. Keep the server running and call the security officer."
            }
            Seal::Unchecked => "",
        }
    }
}

/// Who looked at a record: for the privacy officer, and (`own`) for the patient, who is spared network addresses.
#[must_use]
pub fn render_access(page: &Page, banner: &Banner, log: &AccessLog, own: bool) -> String {
    rendered(&AccessPage {
        page,
        banner,
        own,
        seal: Seal::of(log),
        checkpoint: log.checkpoint.as_ref(),
        visits: log::visits(&log.entries, own),
        shown: log.entries.len(),
        more: log.more,
        notice: log.notice,
    })
}

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage<'a> {
    page: &'a Page,
    groups: &'a [Group],
}

/// Keys, log and storage.
#[must_use]
pub fn render_status(page: &Page, groups: &[Group]) -> String {
    rendered(&StatusPage { page, groups })
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    page: &'a Page,
    status: u16,
    heading: &'a str,
    text: &'a str,
    ways_out: &'a [Link],
    request_id: &'a str,
}

/// A page that says what went wrong and where to go on. `text` never quotes the request.
#[must_use]
pub fn render_error(
    page: &Page,
    status: u16,
    heading: &str,
    text: &str,
    ways_out: &[Link],
    request_id: &str,
) -> String {
    rendered(&ErrorPage {
        page,
        status,
        heading,
        text,
        ways_out,
        request_id,
    })
}

// ------------------------------------------------------------------ words the templates ask for

impl Row {
    /// Whether the status is worth a chip: the usual ones are not.
    fn shows_state(&self) -> bool {
        !matches!(self.state.as_str(), "" | "active" | "finished" | "completed" | "booked")
    }
}

impl ChartView {
    /// At least one allergy is severe.
    fn severe(&self) -> bool {
        matches!(&self.allergies, Allergies::Known(list) if list.iter().any(|a| a.severe))
    }
}

impl Vital {
    /// The plot in one sentence for those who do not see it.
    fn describe(&self) -> String {
        format!(
            "{} over time, {} values; newest {} on {}",
            self.title,
            self.values.len(),
            self.latest,
            self.when
        )
    }
}

impl Mark {
    fn class(self) -> &'static str {
        match self {
            Mark::Proven => "good",
            Mark::Failed => "bad",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Mark::Proven => "✓",
            Mark::Failed => "✗",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Mark::Proven => "proven to be in the signed log",
            Mark::Failed => "proof failed",
        }
    }
}

impl Level {
    fn class(self) -> &'static str {
        match self {
            Level::Plain => "plain",
            Level::Good => "good",
            Level::Warn => "warn",
            Level::Bad => "bad",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Level::Plain => "",
            Level::Good => "good",
            Level::Warn => "look at this",
            Level::Bad => "broken",
        }
    }
}

#[derive(Template)]
#[template(path = "offer.html")]
struct OfferPage<'a> {
    page: &'a Page,
    csrf: &'a str,
    banner: &'a Banner,
    stated: Option<&'static [(&'static str, &'static str)]>,
    reasons: &'static [(&'static str, &'static str)],
}

/// A patient whom a clinician may find but not open: who it is, and the ways to open the record.
#[must_use]
pub fn render_offer(page: &Page, csrf: &str, banner: &Banner, stated: bool) -> String {
    rendered(&OfferPage {
        page,
        csrf,
        banner,
        stated: stated.then_some(STATED_REASONS),
        reasons: EMERGENCY_REASONS,
    })
}

/// An emergency access that waits for review, in words.
struct Waiting<'a> {
    review: &'a Review,
    role: &'static str,
    reason: &'static str,
    from: String,
    until: String,
    due: String,
}

#[derive(Template)]
#[template(path = "reviews.html")]
struct ReviewsPage<'a> {
    page: &'a Page,
    csrf: &'a str,
    waiting: &'a [Waiting<'a>],
}

/// The emergency accesses that wait for review.
#[must_use]
pub fn render_reviews(page: &Page, csrf: &str, reviews: &[Review]) -> String {
    let reason = |code: &str| {
        EMERGENCY_REASONS
            .iter()
            .find(|(c, _)| *c == code)
            .map_or("", |(_, w)| *w)
    };
    let waiting: Vec<Waiting<'_>> = reviews
        .iter()
        .map(|review| Waiting {
            review,
            role: review.role.map_or("", role_words),
            reason: reason(&review.code),
            from: day_and_clock(review.from),
            until: clock(review.until),
            due: day_and_clock(review.due),
        })
        .collect();
    rendered(&ReviewsPage {
        page,
        csrf,
        waiting: &waiting,
    })
}
