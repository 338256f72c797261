//! OpenAPI 3.1 of what is not FHIR: health and readiness. The FHIR API describes itself by its CapabilityStatement.

use keepwell_model::json::{Value, object};

fn plain(description: &'static str) -> Value<'static> {
    object([
        ("description", Value::from(description)),
        (
            "content",
            object([(
                "text/plain",
                object([("schema", object([("type", Value::from("string"))]))]),
            )]),
        ),
    ])
}

fn get(id: &'static str, summary: &'static str, responses: Value<'static>) -> Value<'static> {
    object([(
        "get",
        object([
            ("operationId", Value::from(id)),
            ("summary", Value::from(summary)),
            ("security", Value::Array(Vec::new())),
            ("responses", responses),
        ]),
    )])
}

/// The document.
#[must_use]
pub fn document() -> String {
    let doc = object([
        ("openapi", Value::from("3.1.0")),
        (
            "info",
            object([
                ("title", Value::from("Keepwell, beside FHIR")),
                ("version", Value::from(env!("CARGO_PKG_VERSION"))),
                (
                    "description",
                    Value::from("The FHIR API is described by GET /fhir/metadata."),
                ),
            ]),
        ),
        (
            "paths",
            object([
                (
                    "/health",
                    get("health", "The process runs.", object([("200", plain("It runs."))])),
                ),
                (
                    "/ready",
                    get(
                        "ready",
                        "The record is open.",
                        object([("200", plain("It is.")), ("503", plain("It is not, or it is sealed."))]),
                    ),
                ),
            ]),
        ),
    ]);
    let mut out = String::new();
    doc.write_pretty(&mut out, 0);
    out.push('\n');
    out
}
