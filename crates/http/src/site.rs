//! What the pages need, over the door and identity.

use crate::pages::backend::{
    Access, AccessLog, Backend, Checkpoint, Compartment, DemoLogin, Fact, Find, Group, Level, Mark, Patients, Refusal,
    Seen, Session, SignIn, Site,
};
use crate::{App, CERTIFICATE_WARNING_DAYS};
use axum::extract::connect_info::ConnectInfo;
use axum::http::request::Parts;
use keepwell_identity::{Activity, Denied, cookie};
use keepwell_model::actor::{Actor, Context, EntryPath, PurposeOfUse};
use keepwell_model::json::{self, Value};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_record::{Answer, PART_2_NOTICE, ReadOptions, SearchRequest};
use std::net::SocketAddr;
use std::sync::Arc;

/// The pages' way in.
pub(crate) struct PagesBackend {
    app: Arc<App>,
    site: Site,
}

impl PagesBackend {
    pub(crate) fn new(app: Arc<App>) -> Self {
        let logins = app
            .site
            .logins
            .iter()
            .map(|l| DemoLogin {
                user: l.user.clone(),
                display: l.display.clone(),
                role: l.role,
                try_this: l.try_this.clone(),
            })
            .collect();
        let site = Site {
            secure: app.secure,
            demo: app.site.demo,
            logins,
        };
        Self { app, site }
    }

    /// One search by the signed-in person.
    async fn search(
        &self,
        ctx: &Context,
        t: ResourceType,
        compartment: Option<(ResourceType, &str)>,
        params: &[(&str, String)],
    ) -> Result<Hits, Refusal> {
        let params: Vec<(String, String)> = params.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        let base = format!("{}/fhir", self.app.origin);
        let request = SearchRequest {
            resource_type: t,
            compartment,
            params: &params,
            lenient: false,
            base: &base,
        };
        let answer = self.app.door.search(ctx, &request).await.map_err(refusal)?;
        let notice = notice(&answer);
        let text = text(answer.body)?;
        let bundle = json::parse(&text).map_err(|_| Refusal::Failed)?;
        let more = bundle
            .get("link")
            .and_then(Value::items)
            .is_some_and(|l| l.iter().any(|x| x.str("relation") == Some("next")));
        let texts = bundle
            .get("entry")
            .and_then(Value::items)
            .unwrap_or_default()
            .iter()
            .filter(|e| e.get("search").and_then(|s| s.str("mode")) == Some("match"))
            .filter_map(|e| e.get("resource"))
            .map(Value::to_string)
            .collect();
        Ok(Hits { texts, more, notice })
    }

    /// A Patient, and what must be said with it.
    async fn patient(&self, ctx: &Context, id: &str) -> Result<(String, &'static str), Refusal> {
        let t = patient_type()?;
        let answer = self
            .app
            .door
            .read(ctx, t, id, &ReadOptions::default())
            .await
            .map_err(refusal)?;
        let notice = notice(&answer);
        Ok((text(answer.body)?, notice))
    }

    fn identity_seen(seen: &Seen) -> keepwell_identity::Seen {
        keepwell_identity::Seen {
            request_id: seen.request_id.clone(),
            network: seen.network.clone(),
        }
    }
}

/// What a search gave.
#[derive(Default)]
struct Hits {
    /// The matches as JSON.
    texts: Vec<String>,
    /// There are more.
    more: bool,
    /// What must be said with them; empty for nothing.
    notice: &'static str,
}

/// What must be said with an answer; empty for nothing.
fn notice(answer: &Answer) -> &'static str {
    if answer.part_2 { PART_2_NOTICE } else { "" }
}

fn text(body: Vec<u8>) -> Result<String, Refusal> {
    String::from_utf8(body).map_err(|_| Refusal::Failed)
}

/// The search parameter that dates a resource of this type for the person who reads a chart.
fn dated_by(t: ResourceType) -> &'static str {
    match t.name() {
        "Condition" => "recorded-date",
        "MedicationRequest" => "authoredon",
        "MedicationStatement" => "effective",
        "MedicationAdministration" => "effective-time",
        "Goal" => "start-date",
        "Claim" | "ClaimResponse" => "created",
        "RelatedPerson" | "Coverage" => "_lastUpdated",
        _ => "date",
    }
}

fn patient_type() -> Result<ResourceType, Refusal> {
    ResourceType::from_name("Patient").ok_or(Refusal::Failed)
}

fn refusal(e: keepwell_record::Refusal) -> Refusal {
    let text = e.issues.first().map(|i| i.diagnostics.clone()).unwrap_or_default();
    match e.status {
        403 => Refusal::Forbidden(text),
        404 | 410 => Refusal::NotFound,
        400 | 422 => Refusal::Invalid(text),
        503 => Refusal::Unavailable(text),
        _ => Refusal::Failed,
    }
}

/// A comma, bar, dollar sign or backslash is part of what a person types.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ',' | '|' | '$' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Backend for PagesBackend {
    fn site(&self) -> &Site {
        &self.site
    }

    fn now(&self) -> Timestamp {
        self.app.door.clock().now()
    }

    fn seen(&self, parts: &Parts) -> Seen {
        let network = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or_else(String::new, |c| c.0.ip().to_string());
        Seen {
            request_id: self.app.request_ids.give(),
            network,
        }
    }

    async fn session(&self, cookies: &str, _seen: &Seen) -> Option<Session> {
        let secret = cookie::read(cookies, self.app.secure)?;
        let s = self.app.identity.session(secret, Activity::Person)?;
        Some(Session {
            actor: s.actor,
            csrf: s.csrf.to_string(),
        })
    }

    async fn sign_in(&self, how: SignIn, cookies: &str, seen: &Seen) -> Result<String, Refusal> {
        let seen = Self::identity_seen(seen);
        let opened = match how {
            SignIn::Code(code) => self.app.identity.sign_in(code.trim(), &seen).await,
            SignIn::Demo(user) => self.app.identity.sign_in_demo(&user, self.app.loopback, &seen).await,
        };
        let opened = opened.map_err(|e| match e {
            Denied::SignIn => Refusal::SignIn,
            Denied::Unavailable(_) => {
                Refusal::Unavailable("Signing in is not possible now. Try again in a minute.".to_owned())
            }
        })?;
        if let Some(old) = cookie::read(cookies, self.app.secure) {
            self.app.identity.drop_session(old);
        }
        Ok(cookie::set(&opened.secret, self.app.secure))
    }

    async fn sign_out(&self, session: &Session, seen: &Seen) -> String {
        let ctx = context(&session.actor, seen, self.now());
        if let Err(e) = self.app.identity.sign_out(&ctx).await {
            tracing::error!(error = %e, "a sign-out could not be recorded");
        }
        cookie::clear(self.app.secure)
    }

    async fn find(&self, ctx: &Context, asked: &Find, limit: usize) -> Result<Patients, Refusal> {
        let t = patient_type()?;
        let mut params = vec![("_count", limit.to_string()), ("_sort", "family,given".to_owned())];
        for word in asked.name.split_whitespace() {
            params.push(("name", escaped(word)));
        }
        if !asked.birth_date.is_empty() {
            params.push(("birthdate", asked.birth_date.clone()));
        }
        let ctx = Context {
            entry: EntryPath::Search,
            ..ctx.clone()
        };
        if asked.identifier.is_empty() {
            let Hits { texts, notice, .. } = self.search(&ctx, t, None, &params).await?;
            return Ok(Patients { texts, notice });
        }
        // A number is one of the patient's own, or of an insurance. Whoever may not see insurances finds nobody by one.
        params.push(("identifier", escaped(&asked.identifier)));
        let Hits { texts, notice, .. } = self.search(&ctx, t, None, &params).await?;
        let mut found = Patients { texts, notice };
        params.pop();
        params.push(("_has:Coverage:beneficiary:identifier", escaped(&asked.identifier)));
        let insured = self.search(&ctx, t, None, &params).await?;
        for text in insured.texts {
            if !found.texts.contains(&text) {
                found.texts.push(text);
            }
        }
        if !insured.notice.is_empty() {
            found.notice = insured.notice;
        }
        found.texts.truncate(limit);
        Ok(found)
    }

    async fn patients(&self, ctx: &Context, ids: &[String]) -> Result<Patients, Refusal> {
        let mut out = Patients::default();
        for id in ids {
            match self.patient(ctx, id).await {
                Ok((text, notice)) => {
                    out.texts.push(text);
                    if !notice.is_empty() {
                        out.notice = notice;
                    }
                }
                Err(Refusal::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    async fn compartment(
        &self,
        ctx: &Context,
        id: &str,
        wanted: &[(ResourceType, usize)],
    ) -> Result<Compartment, Refusal> {
        let (patient, notice) = self.patient(ctx, id).await?;
        let mut out = Compartment {
            patient,
            notice,
            ..Compartment::default()
        };
        let owner = patient_type()?;
        for (t, most) in wanted {
            let params = [("_count", most.to_string()), ("_sort", format!("-{}", dated_by(*t)))];
            match self.search(ctx, *t, Some((owner, id)), &params).await {
                Ok(hits) => {
                    out.resources.extend(hits.texts);
                    if hits.more {
                        out.capped.push(*t);
                    }
                    if !hits.notice.is_empty() {
                        out.notice = hits.notice;
                    }
                }
                Err(Refusal::Forbidden(_)) => out.withheld.push(*t),
                Err(Refusal::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    async fn access_log(&self, ctx: &Context, id: &str, limit: usize) -> Result<AccessLog, Refusal> {
        let (lines, answer) = self.app.door.access_log_of(ctx, id, limit + 1).await.map_err(refusal)?;
        let notice = notice(&answer);
        let patient = text(answer.body)?;
        let more = lines.len() > limit;
        let entries = lines
            .into_iter()
            .take(limit)
            .map(|l| Access {
                number: l.seq,
                at: l.at,
                who: if l.access.display.is_empty() {
                    l.access.user.clone()
                } else {
                    l.access.display.clone()
                },
                role: l.access.role,
                purpose: l.access.purpose.code().to_owned(),
                reason: l.access.reason.clone(),
                what: match l.access.resource_type {
                    Some(t) => format!("{} {t}", l.access.action.name()),
                    None => l.access.action.name().to_owned(),
                },
                from: l.access.network.clone(),
                refused: l.access.status >= 400,
                mark: if l.verified { Mark::Proven } else { Mark::Failed },
            })
            .collect();
        let note = self.app.door.ledger().checkpoint();
        let mut rows = note.lines();
        let checkpoint = match (rows.next(), rows.next().and_then(|n| n.parse().ok()), rows.next()) {
            (Some(origin), Some(size), Some(root)) => Some(Checkpoint {
                origin: origin.to_owned(),
                size,
                root: root.to_owned(),
                at: String::new(),
            }),
            _ => None,
        };
        Ok(AccessLog {
            patient,
            entries,
            more,
            checkpoint,
            notice,
        })
    }

    async fn status(&self, ctx: &Context) -> Result<Vec<Group>, Refusal> {
        self.app.door.status_for(ctx).await.map_err(refusal)?;
        let s = self.app.door.ledger().status();
        let fact = |label: &str, value: String, level: Level| Fact {
            label: label.to_owned(),
            value,
            code: false,
            level,
        };
        let stopped = match &s.stopped {
            None => fact("Writing", "possible".to_owned(), Level::Good),
            Some(why) => fact("Writing", why.to_string(), Level::Bad),
        };
        let note = self.app.door.ledger().checkpoint();
        let root = note.lines().nth(2).unwrap_or_default().to_owned();
        let mut groups = vec![
            Group {
                title: "Record".to_owned(),
                facts: vec![
                    fact("Sealed rows", s.rows.to_string(), Level::Plain),
                    fact(
                        "Index in memory",
                        format!("{} kB", self.app.door.index_bytes() / 1024),
                        Level::Plain,
                    ),
                    stopped,
                ],
            },
            Group {
                title: "Access log".to_owned(),
                facts: vec![
                    fact("Entries", s.entries.to_string(), Level::Plain),
                    Fact {
                        label: "Newest signed root".to_owned(),
                        value: root,
                        code: true,
                        level: Level::Plain,
                    },
                ],
            },
            Group {
                title: "Keys".to_owned(),
                facts: vec![
                    fact(
                        "Patients and others with a key of their own",
                        s.slots_active.to_string(),
                        Level::Plain,
                    ),
                    fact("Keys made ahead", s.slots_free.to_string(), Level::Plain),
                    fact("Keys destroyed", s.slots_destroyed.to_string(), Level::Plain),
                    fact("Keyring revision", s.keyring_revision.to_string(), Level::Plain),
                    fact("Unlocked by", s.custody.join(", "), Level::Plain),
                ],
            },
        ];
        if let Some(ends) = &self.app.certificate_ends {
            let (value, level) = certificate(ends.get(), self.now());
            groups.push(Group {
                title: "Certificate".to_owned(),
                facts: vec![fact("Good until", value, level)],
            });
        }
        Ok(groups)
    }
}

/// How the certificate stands, in words.
fn certificate(ends: Timestamp, now: Timestamp) -> (String, Level) {
    let days = (ends.0 - now.0).div_euclid(86_400_000);
    let level = match days {
        ..0 => Level::Bad,
        d if d < CERTIFICATE_WARNING_DAYS => Level::Warn,
        _ => Level::Good,
    };
    let how = if days < 0 {
        "ended".to_owned()
    } else {
        format!("{days} days")
    };
    (format!("{ends} ({how})"), level)
}

fn context(actor: &Arc<Actor>, seen: &Seen, at: Timestamp) -> Context {
    Context {
        actor: Arc::clone(actor),
        purpose: PurposeOfUse::Operations,
        entry: EntryPath::Link,
        request_id: seen.request_id.clone(),
        network: seen.network.clone(),
        device: String::new(),
        unit: String::new(),
        roster: String::new(),
        reason: String::new(),
        print: false,
        export: false,
        at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_about_before_it_ends() {
        let now = Timestamp(1_795_381_200_000);
        let at = |days: i64| certificate(Timestamp(now.0 + days * 86_400_000), now).1;
        assert_eq!(
            [at(-1), at(0), at(29), at(30), at(400)],
            [Level::Bad, Level::Warn, Level::Warn, Level::Good, Level::Good]
        );
    }
}
