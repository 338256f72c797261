//! A small valid resource of each data class, of a patient or of none.

use serde_json::{Value, json};

/// Whose a resource is: a patient's, or nobody's.
pub fn subject(patient: Option<&str>) -> Value {
    match patient {
        Some(id) => json!({"reference": format!("Patient/{id}")}),
        None => json!({"display": "nobody in particular"}),
    }
}

/// The class and a resource for each class of patient data; its texts hold `mark`.
pub fn patient_data(patient: Option<&str>, mark: &str) -> Vec<(&'static str, Value)> {
    let whose = subject(patient);
    let text = json!({"text": mark});
    let coded = |system: &str, code: &str| json!({"coding": [{"system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code}]});
    vec![
        (
            "identity",
            json!({"resourceType": "RelatedPerson", "patient": whose, "name": [{"text": mark}]}),
        ),
        (
            "scheduling",
            json!({"resourceType": "Appointment", "status": "proposed", "description": mark,
            "participant": [{"actor": whose, "status": "accepted"}]}),
        ),
        (
            "coverage",
            json!({"resourceType": "Coverage", "status": "active", "beneficiary": whose, "payor": [{"display": mark}]}),
        ),
        (
            "claims",
            json!({"resourceType": "Account", "status": "active", "subject": [whose], "name": mark}),
        ),
        (
            "consents",
            json!({"resourceType": "Consent", "status": "active", "patient": whose, "scope": coded("consentscope", "patient-privacy"),
            "category": [text], "policyRule": text}),
        ),
        (
            "provenance",
            json!({"resourceType": "Provenance", "target": [whose], "recorded": "2024-05-01T10:00:00Z",
            "agent": [{"who": {"display": mark}}]}),
        ),
        (
            "audit",
            json!({"resourceType": "AuditEvent", "type": {"code": "rest", "system": "http://terminology.hl7.org/CodeSystem/audit-event-type"},
            "recorded": "2024-05-01T10:00:00Z", "agent": [{"requestor": true, "name": mark}], "source": {"observer": {"display": mark}},
            "entity": [{"what": whose}]}),
        ),
        (
            "visits",
            json!({"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}, "subject": whose, "type": [text]}),
        ),
        (
            "allergies",
            json!({"resourceType": "AllergyIntolerance", "patient": whose, "code": text,
            "clinicalStatus": coded("allergyintolerance-clinical", "active")}),
        ),
        (
            "problems",
            json!({"resourceType": "Condition", "subject": whose, "code": text, "clinicalStatus": coded("condition-clinical", "active")}),
        ),
        (
            "observations",
            json!({"resourceType": "Observation", "status": "final", "code": text, "subject": whose}),
        ),
        (
            "results",
            json!({"resourceType": "DiagnosticReport", "status": "final", "code": text, "subject": whose}),
        ),
        (
            "prescriptions",
            json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": whose,
            "medicationCodeableConcept": text}),
        ),
        (
            "medication-given",
            json!({"resourceType": "MedicationStatement", "status": "active", "subject": whose, "medicationCodeableConcept": text}),
        ),
        (
            "orders",
            json!({"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": whose, "code": text}),
        ),
        (
            "care-plans",
            json!({"resourceType": "CarePlan", "status": "active", "intent": "plan", "subject": whose, "title": mark}),
        ),
        (
            "notes",
            json!({"resourceType": "DocumentReference", "status": "current", "subject": whose, "description": mark,
            "content": [{"attachment": {"contentType": "text/plain", "data": "aGk="}}]}),
        ),
        (
            "containers",
            json!({"resourceType": "List", "status": "current", "mode": "working", "subject": whose, "title": mark}),
        ),
    ]
}

/// The class and a resource for each class that is about no patient.
pub fn reference_data(mark: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("directory", json!({"resourceType": "Organization", "name": mark})),
        (
            "catalogue",
            json!({"resourceType": "Medication", "code": {"text": mark}}),
        ),
        (
            "knowledge",
            json!({"resourceType": "Questionnaire", "status": "draft", "title": mark}),
        ),
        (
            "configuration",
            json!({"resourceType": "Subscription", "status": "requested", "reason": mark, "criteria": "Observation?code=1",
            "channel": {"type": "rest-hook", "endpoint": "https://clinic.example/hook"}}),
        ),
    ]
}
