//! What `_summary` and `_elements` keep of a resource, by member name at its top level.

use super::table::{Element, TABLE};
use crate::types::ResourceType;

fn element(t: ResourceType, member: &str) -> Option<&'static Element> {
    let table = &*TABLE;
    let node = table.node(table.resource(t)?)?;
    table.element(node, table.prop(node, member)?.element)
}

/// The element a member belongs to: `value` for `valueQuantity`; the member's own name where it has one to itself.
#[must_use]
pub fn element_of(t: ResourceType, member: &str) -> Option<&'static str> {
    element(t, member).map(|e| e.name.trim_end_matches("[x]"))
}

/// Whether the element must be there (min 1): a subset keeps it, so that it stays a resource of its type.
#[must_use]
pub fn is_mandatory(t: ResourceType, member: &str) -> bool {
    element(t, member).is_some_and(|e| e.required)
}

/// Whether the element is in the summary (`ElementDefinition.isSummary`).
#[must_use]
pub fn is_summary(t: ResourceType, member: &str) -> bool {
    element(t, member).is_some_and(|e| e.summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observation_keeps_what_its_definition_marks() {
        let t = ResourceType::from_name("Observation").unwrap();
        assert!(is_summary(t, "code") && is_mandatory(t, "code") && is_mandatory(t, "status"));
        assert!(is_summary(t, "valueQuantity") && !is_summary(t, "note") && !is_mandatory(t, "subject"));
        assert_eq!(element_of(t, "valueQuantity"), Some("value"));
    }
}
