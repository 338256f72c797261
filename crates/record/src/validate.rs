//! `$validate`: <https://hl7.org/fhir/R4/resource-operation-validate.html>.

use crate::answer::{Answer, Refusal};
use crate::door::Door;
use crate::event::Access;
use crate::write::parse_json;
use keepwell_ledger::Wait;
use keepwell_model::actor::Context;
use keepwell_model::json::Value;
use keepwell_model::outcome::{Issue, Severity, operation_outcome};
use keepwell_model::schema::{self, Mode};
use keepwell_model::types::ResourceType;
use keepwell_policy::Action;

impl Door {
    /// Says what the server would find wrong with a resource; nothing is stored.
    ///
    /// # Errors
    /// 400 where the body is no resource or the parameters cannot be followed, 403, 503.
    pub async fn validate(
        &self,
        ctx: &Context,
        t: Option<ResourceType>,
        id: Option<&str>,
        params: &[(String, String)],
        body: &[u8],
    ) -> Result<Answer, Refusal> {
        self.authorize_system(ctx, Action::Validate).await?;
        let mut access = Access::of(ctx, Action::Validate);
        access.resource_type = t;
        match Self::findings(t, id, params, body) {
            Ok(issues) => {
                self.log(access, &[], Wait::Wal).await?;
                Ok(Answer {
                    status: 200,
                    body: operation_outcome(&issues).to_string().into_bytes(),
                    ..Answer::default()
                })
            }
            Err(e) => Err(self.refuse(access, e).await),
        }
    }

    fn findings(
        t: Option<ResourceType>,
        id: Option<&str>,
        params: &[(String, String)],
        body: &[u8],
    ) -> Result<Vec<Issue>, Refusal> {
        let given = parse_json(body)?;
        let mut mode = None;
        let mut profile = None;
        for (name, value) in params {
            match name.as_str() {
                "mode" => mode = Some(value.clone()),
                "profile" => profile = Some(value.clone()),
                other => {
                    return Err(Refusal::new(
                        400,
                        "not-supported",
                        format!(
                            "$validate has no parameter `{}`",
                            other.chars().take(40).collect::<String>()
                        ),
                    ));
                }
            }
        }
        let parameters = given.str("resourceType") == Some("Parameters") && t.is_none_or(|t| t.name() != "Parameters");
        let resource: Option<&Value<'_>> = if parameters {
            let mut found = None;
            for p in given.get("parameter").and_then(Value::items).unwrap_or_default() {
                match p.str("name") {
                    Some("resource") => found = p.get("resource"),
                    Some("mode") => mode = p.str("valueCode").map(str::to_owned),
                    Some("profile") => {
                        profile = p.str("valueUri").or_else(|| p.str("valueCanonical")).map(str::to_owned);
                    }
                    _ => {}
                }
            }
            found
        } else {
            Some(&given)
        };
        let checks = match mode.as_deref() {
            None => Mode::Operation,
            Some("create") => Mode::Create,
            Some("update") => Mode::Update,
            Some("delete") => {
                return Ok(vec![said(Severity::Information, "a deletion has nothing to validate")]);
            }
            Some(_) => {
                return Err(Refusal::new(
                    400,
                    "value",
                    "mode is one of `create`, `update` and `delete`",
                ));
            }
        };
        let Some(resource) = resource else {
            return Err(Refusal::new(400, "required", "there is no resource to validate"));
        };
        let mut issues = Vec::new();
        match (resource.str("resourceType"), t) {
            (Some(name), Some(t)) if name != t.name() => {
                issues.push(Issue::error("invalid", format!("the resource is not of type {t}")));
            }
            _ => issues.extend(schema::validate(resource, checks)),
        }
        if let Some(id) = id
            && checks == Mode::Update
            && resource.str("id") != Some(id)
        {
            issues.push(Issue::error("value", "the resource's id is not the id in the URL"));
        }
        if profile.is_some() {
            issues.push(said(
                Severity::Warning,
                "profiles are not checked yet: only the base definition of the resource was",
            ));
        }
        if issues.is_empty() {
            issues.push(said(Severity::Information, "no fault was found"));
        }
        Ok(issues)
    }
}

fn said(severity: Severity, text: &str) -> Issue {
    Issue {
        severity,
        code: "informational",
        diagnostics: text.to_owned(),
        expression: None,
    }
}
