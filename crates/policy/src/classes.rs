//! Data classes: which FHIR type is which kind of data. Read from `policies/data-classes.txt`.

use keepwell_model::types::ResourceType;

/// The class of every resource type, and how classes nest.
#[derive(Clone, Debug)]
pub struct Classes {
    names: Vec<(String, Option<String>)>,
    of: Vec<String>,
}

impl Classes {
    /// Parses the table. Every type must stand in exactly one class, every class must be declared once and name a
    /// declared class as the wider one.
    ///
    /// # Errors
    /// What is wrong, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut names: Vec<(String, Option<String>)> = Vec::new();
        let mut of: Vec<Option<String>> = ResourceType::all().map(|_| None).collect();
        for (number, line) in text.lines().enumerate() {
            let at = |what: String| format!("line {}: {what}", number + 1);
            let body = line.split('#').next().unwrap_or_default();
            let mut words = body.split_whitespace();
            if body.starts_with(char::is_whitespace) {
                let Some((class, _)) = names.last() else {
                    if words.next().is_some() {
                        return Err(at("types before the first class".into()));
                    }
                    continue;
                };
                for word in words {
                    let t = ResourceType::from_name(word).ok_or_else(|| at(format!("`{word}` is no resource type")))?;
                    let slot = of
                        .get_mut(t.index())
                        .ok_or_else(|| at(format!("`{word}` is out of range")))?;
                    if let Some(other) = slot {
                        return Err(at(format!("`{word}` is already in `{other}`")));
                    }
                    *slot = Some(class.clone());
                }
            } else if let Some(name) = words.next() {
                let parent = match (words.next(), words.next(), words.next()) {
                    (None, _, _) => None,
                    (Some("in"), Some(parent), None) => Some(parent.to_owned()),
                    _ => return Err(at("expected `class` or `class in wider-class`".into())),
                };
                if names.iter().any(|(n, _)| n == name) {
                    return Err(at(format!("class `{name}` stands twice")));
                }
                if let Some(p) = parent.as_ref().filter(|p| !names.iter().any(|(n, _)| n == *p)) {
                    return Err(at(format!("the wider class `{p}` is not declared above")));
                }
                names.push((name.to_owned(), parent));
            }
        }
        let of = ResourceType::all()
            .zip(of)
            .map(|(t, class)| class.ok_or_else(|| format!("`{t}` has no data class")))
            .collect::<Result<_, _>>()?;
        Ok(Self { names, of })
    }

    /// All classes, wider ones before those in them, with the wider class.
    pub fn all(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.names.iter().map(|(n, p)| (n.as_str(), p.as_deref()))
    }

    /// The class of a type.
    #[must_use]
    pub fn of(&self, resource_type: ResourceType) -> &str {
        self.of.get(resource_type.index()).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_type_that_is_unknown_missing_or_in_two_classes() {
        let text = include_str!("../../../policies/data-classes.txt");
        Classes::parse(text).unwrap();
        assert!(
            Classes::parse(&text.replace("  Consent\n", "  Consent Patient\n"))
                .unwrap_err()
                .contains("already in")
        );
        assert!(
            Classes::parse(&text.replace("  Consent\n", "\n"))
                .unwrap_err()
                .contains("`Consent` has no data class")
        );
        assert!(
            Classes::parse(&text.replace("  Consent\n", "  Consent Wish\n"))
                .unwrap_err()
                .contains("no resource type")
        );
        assert!(
            Classes::parse(&text.replace("notes in clinical", "notes in cli"))
                .unwrap_err()
                .contains("not declared")
        );
        assert!(
            Classes::parse("  Patient\nidentity")
                .unwrap_err()
                .contains("before the first class")
        );
    }
}
