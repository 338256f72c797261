//! capabilities: <https://hl7.org/fhir/R4/http.html#capabilities>. Built from the tables that do the work, so that it
//! promises what is there.

use crate::door::Door;
use keepwell_model::json::{Value, object};
use keepwell_model::types::ResourceType;
use keepwell_search::definition::{Kind, Storage, params};
use std::borrow::Cow;

fn list(items: impl IntoIterator<Item = Value<'static>>) -> Value<'static> {
    Value::Array(items.into_iter().collect())
}

fn codes(codes: &[&'static str]) -> Value<'static> {
    list(codes.iter().map(|c| object([("code", Value::from(*c))])))
}

fn operation(name: &'static str, definition: &'static str) -> Value<'static> {
    object([("name", Value::from(name)), ("definition", Value::from(definition))])
}

fn resource(t: ResourceType) -> Value<'static> {
    let mut search = Vec::new();
    let mut include = vec![Value::from("*")];
    for p in params(t) {
        let kind = match (&p.storage, p.kind) {
            (Storage::Unsupported, _) | (_, Kind::Special) => continue,
            (_, Kind::Number) => "number",
            (_, Kind::Date) => "date",
            (_, Kind::String) => "string",
            (_, Kind::Token) => "token",
            (_, Kind::Reference) => "reference",
            (_, Kind::Composite) => "composite",
            (_, Kind::Quantity) => "quantity",
            (_, Kind::Uri) => "uri",
        };
        if p.kind == Kind::Reference {
            include.push(Value::from(format!("{t}:{}", p.code)));
        }
        search.push(object([
            ("name", Value::from(p.code)),
            (
                "definition",
                Value::from(format!("http://hl7.org/fhir/SearchParameter/{}", p.id)),
            ),
            ("type", Value::from(kind)),
        ]));
    }
    let mut operations = vec![operation(
        "validate",
        "http://hl7.org/fhir/OperationDefinition/Resource-validate",
    )];
    if t == crate::patient_type() {
        operations.push(operation(
            "everything",
            "http://hl7.org/fhir/OperationDefinition/Patient-everything",
        ));
    }
    object([
        ("type", Value::from(t.name())),
        (
            "profile",
            Value::from(format!("http://hl7.org/fhir/StructureDefinition/{t}")),
        ),
        (
            "interaction",
            codes(&[
                "read",
                "vread",
                "update",
                "patch",
                "delete",
                "history-instance",
                "history-type",
                "create",
                "search-type",
            ]),
        ),
        ("versioning", Value::from("versioned-update")),
        ("readHistory", Value::Bool(true)),
        ("updateCreate", Value::Bool(true)),
        ("conditionalCreate", Value::Bool(true)),
        ("conditionalRead", Value::from("full-support")),
        ("conditionalUpdate", Value::Bool(true)),
        ("conditionalDelete", Value::from("single")),
        (
            "referencePolicy",
            list([Value::from("literal"), Value::from("logical")]),
        ),
        ("searchInclude", Value::Array(include)),
        ("searchParam", Value::Array(search)),
        ("operation", Value::Array(operations)),
    ])
}

/// Where clients get, void and ask about tokens.
#[derive(Clone, Debug)]
pub struct OAuthUris {
    /// The token endpoint.
    pub token: String,
    /// The introspection endpoint.
    pub introspect: String,
    /// The revocation endpoint.
    pub revoke: String,
}

/// The security part: tokens, and where SMART clients get them
/// (<https://hl7.org/fhir/smart-app-launch/conformance.html>).
fn security(oauth: &OAuthUris) -> Value<'static> {
    let uri =
        |name: &'static str, at: &str| object([("url", Value::from(name)), ("valueUri", Value::from(at.to_owned()))]);
    let uris = object([
        (
            "url",
            Value::from("http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"),
        ),
        (
            "extension",
            list([
                uri("token", &oauth.token),
                uri("introspect", &oauth.introspect),
                uri("revoke", &oauth.revoke),
            ]),
        ),
    ]);
    let service = object([
        (
            "system",
            Value::from("http://terminology.hl7.org/CodeSystem/restful-security-service"),
        ),
        ("code", Value::from("SMART-on-FHIR")),
    ]);
    object([
        ("extension", list([uris])),
        ("cors", Value::Bool(false)),
        ("service", list([object([("coding", list([service]))])])),
        (
            "description",
            Value::from("Bearer tokens over TLS; every access is recorded in a tamper-evident log."),
        ),
    ])
}

impl Door {
    /// The CapabilityStatement. Anyone may read it: it says nothing about patients.
    #[must_use]
    pub fn capabilities(&self, base: &str, oauth: &OAuthUris) -> Vec<u8> {
        let own = |s: &str| Value::String(Cow::Owned(s.to_owned()));
        let statement = object([
            ("resourceType", Value::from("CapabilityStatement")),
            ("status", Value::from("active")),
            ("date", own(&self.clock.now().to_string())),
            ("kind", Value::from("instance")),
            ("software", object([("name", Value::from("Keepwell"))])),
            (
                "implementation",
                object([
                    ("description", Value::from("Keepwell: medical records sealed at rest")),
                    ("url", own(base)),
                ]),
            ),
            ("fhirVersion", Value::from("4.0.1")),
            (
                "format",
                list([Value::from("json"), Value::from("application/fhir+json")]),
            ),
            ("patchFormat", list([Value::from("application/json-patch+json")])),
            (
                "rest",
                list([object([
                    ("mode", Value::from("server")),
                    ("security", security(oauth)),
                    ("resource", list(ResourceType::all().map(resource))),
                    ("interaction", codes(&["transaction", "batch", "history-system"])),
                    (
                        "operation",
                        list([operation(
                            "validate",
                            "http://hl7.org/fhir/OperationDefinition/Resource-validate",
                        )]),
                    ),
                ])]),
            ),
        ]);
        statement.to_string().into_bytes()
    }
}
