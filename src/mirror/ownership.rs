//! Who owns what on a target, read from its managedFields
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>). Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Start of a mirror's name as a field manager; its UID follows.
const MANAGER_PREFIX: &str = "keytide/";

/// Name under which the mirror with this UID writes: every mirror is a manager of its own, so that several can fill one
/// target and each drops its own keys only.
pub fn manager(uid: &str) -> String {
    format!("{MANAGER_PREFIX}{uid}")
}

/// What one manager owns, as far as mirrors care.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fields {
    pub data: BTreeSet<String>,
    pub labels: BTreeSet<String>,
    pub annotations: BTreeSet<String>,
    /// UIDs of ownerReferences.
    pub owners: BTreeSet<String>,
}

/// Who owns what on a target.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ownership {
    managers: BTreeMap<String, Fields>,
}

impl Ownership {
    /// Reads managedFields, each entry as its manager and the JSON of its fields; entries of one manager (it may have several, by
    /// operation) are one.
    pub fn of(entries: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>) -> Self {
        let mut managers: BTreeMap<String, Fields> = BTreeMap::new();
        for (manager, tree) in entries {
            let fields = managers.entry(manager.as_ref().to_owned()).or_default();
            // The API server's own text: what can't be read would be owned by nobody, and written anew.
            let tree: Value = serde_json::from_str(tree.as_ref()).unwrap_or_default();
            fields.data.extend(names(&tree["f:data"], "f:"));
            fields
                .labels
                .extend(names(&tree["f:metadata"]["f:labels"], "f:"));
            fields
                .annotations
                .extend(names(&tree["f:metadata"]["f:annotations"], "f:"));
            fields.owners.extend(
                names(&tree["f:metadata"]["f:ownerReferences"], "k:").filter_map(|key| {
                    let key: Value = serde_json::from_str(&key).ok()?;
                    Some(key["uid"].as_str()?.to_owned())
                }),
            );
        }
        Self { managers }
    }

    /// What the mirror with this UID owns.
    pub fn mirror(&self, uid: &str) -> Option<&Fields> {
        self.managers.get(&manager(uid))
    }

    /// Takes in that the mirror with this UID owns nothing any more.
    pub fn forget(&mut self, uid: &str) {
        self.managers.remove(&manager(uid));
    }

    /// UIDs of the mirrors that put an ownerReference to themselves on the target.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.managers
            .iter()
            .filter_map(|(name, fields)| Some((name.strip_prefix(MANAGER_PREFIX)?, fields)))
            .filter(|(uid, fields)| fields.owners.contains(*uid))
            .map(|(uid, _)| uid)
    }

    /// Keys of the data that managers own which are no mirrors.
    pub fn keys_of_outsiders(&self) -> impl Iterator<Item = &String> {
        self.managers
            .iter()
            .filter(|(name, _)| !name.starts_with(MANAGER_PREFIX))
            .flat_map(|(_, fields)| &fields.data)
    }

    /// A manager that is no mirror and owns this key of the data.
    pub fn outsider(&self, key: &str) -> Option<&str> {
        self.managers
            .iter()
            .find(|(name, fields)| !name.starts_with(MANAGER_PREFIX) && fields.data.contains(key))
            .map(|(name, _)| name.as_str())
    }
}

fn names(tree: &Value, prefix: &str) -> impl Iterator<Item = String> {
    tree.as_object()
        .into_iter()
        .flat_map(|fields| fields.keys())
        .filter_map(move |name| name.strip_prefix(prefix).map(str::to_owned))
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, fields: Value) -> (String, String) {
        (manager.to_owned(), fields.to_string())
    }

    #[test]
    fn keys_and_owners_are_read() {
        let ownership = Ownership::of([
            entry(
                "keytide/u1",
                json!({"f:data": {".": {}, "f:token": {}}, "f:metadata": {"f:labels": {"f:l": {}}, "f:ownerReferences": {"k:{\"uid\":\"o\"}": {}}}}),
            ),
            entry("kubectl-edit", json!({"f:data": {"f:other": {}}})),
        ]);
        let ours = ownership.mirror("u1").expect("owned");
        assert_eq!(ours.data, BTreeSet::from(["token".to_owned()]));
        assert_eq!(ours.owners, BTreeSet::from(["o".to_owned()]));
        assert_eq!(ownership.outsider("other"), Some("kubectl-edit"));
        assert_eq!(ownership.outsider("token"), None);
        assert_eq!(ownership.keys_of_outsiders().collect::<Vec<_>>(), ["other"]);
    }
}
