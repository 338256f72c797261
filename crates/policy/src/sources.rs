//! The files the engine is built from. `Sources::embedded` is what the product runs; tests add to it.

/// The text of every policy file.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `schema.cedarschema`.
    pub schema: String,
    /// `data-classes.txt`.
    pub classes: String,
    /// File name and text of each `.cedar` file.
    pub policies: Vec<(String, String)>,
}

macro_rules! cedar_files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../policies/", $name)))),*]
    };
}

impl Sources {
    /// The files in `policies/` as they were when the binary was built.
    #[must_use]
    pub fn embedded() -> Self {
        let files = cedar_files![
            "administrator.cedar",
            "assurance.cedar",
            "billing.cedar",
            "everyone.cedar",
            "front-desk.cedar",
            "labels.cedar",
            "nurse.cedar",
            "officers.cedar",
            "patient.cedar",
            "physician.cedar",
            "records-clerk.cedar",
            "relations.cedar",
            "scopes.cedar",
            "service.cedar",
        ];
        Self {
            schema: include_str!("../../../policies/schema.cedarschema").to_owned(),
            classes: include_str!("../../../policies/data-classes.txt").to_owned(),
            policies: files.into_iter().map(|(n, t)| (n.to_owned(), t.to_owned())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_file_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies");
        let mut on_disk: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.ends_with(".cedar"))
            .collect();
        on_disk.sort();
        let embedded: Vec<String> = Sources::embedded().policies.into_iter().map(|(n, _)| n).collect();
        assert_eq!(embedded, on_disk);
    }
}
