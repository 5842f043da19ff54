//! Who owns what on a target, read from its managedFields
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>). Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
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
    /// Of a ConfigMap also those of its `binaryData`.
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
            fields.data.extend(names(&tree["f:binaryData"], "f:"));
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

    /// UIDs of the ownerReferences that mirrors put on the target.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.managers
            .iter()
            .filter(|(name, _)| is_mirror(name))
            .flat_map(|(_, fields)| fields.owners.iter().map(String::as_str))
    }

    /// Keys of the data that managers own which are no mirrors.
    pub fn keys_of_outsiders(&self) -> impl Iterator<Item = &String> {
        self.managers
            .iter()
            .filter(|(name, _)| !is_mirror(name))
            .flat_map(|(_, fields)| &fields.data)
    }

    /// Whether somebody who is no mirror owns a part of what the mirror with this UID owns.
    pub fn is_shared_with_outsiders(&self, uid: &str) -> bool {
        let Some(ours) = self.mirror(uid) else {
            return false;
        };
        let mut others = self.managers.iter();
        others.any(|(name, theirs)| {
            !is_mirror(name)
                && (!theirs.data.is_disjoint(&ours.data)
                    || !theirs.labels.is_disjoint(&ours.labels)
                    || !theirs.annotations.is_disjoint(&ours.annotations))
        })
    }

    /// A manager that is no mirror and owns this key of the data.
    pub fn outsider(&self, key: &str) -> Option<&str> {
        self.managers
            .iter()
            .find(|(name, fields)| !is_mirror(name) && fields.data.contains(key))
            .map(|(name, _)| name.as_str())
    }
}

fn is_mirror(manager: &str) -> bool {
    manager.starts_with(MANAGER_PREFIX)
}

/// managedFields in which what the mirror with this UID owns is nobody's who is no mirror; none if it is so already. The API server
/// keeps a field that its applier drops for as long as another manager has it, and takes what is written into managedFields for true.
pub fn claimed(mut entries: Vec<ManagedFieldsEntry>, uid: &str) -> Option<Vec<ManagedFieldsEntry>> {
    let trees = entries.iter().filter_map(|entry| {
        let tree = entry.fields_v1.as_ref()?.0.to_string();
        Some((entry.manager.clone()?, tree))
    });
    let ownership = Ownership::of(trees);
    let ours = ownership.mirror(uid)?;
    let mut taken = false;
    for entry in &mut entries {
        let is_outsider = entry.manager.as_deref().is_none_or(|it| !is_mirror(it));
        if let Some(fields) = entry.fields_v1.as_mut().filter(|_| is_outsider) {
            taken |= take_out(&mut fields.0, ours);
        }
    }
    taken.then_some(entries)
}

/// Whether anything was taken out.
fn take_out(tree: &mut Value, fields: &Fields) -> bool {
    let mut taken = false;
    for (parent, branch, names) in [
        ("", "f:data", &fields.data),
        ("", "f:binaryData", &fields.data),
        ("/f:metadata", "f:labels", &fields.labels),
        ("/f:metadata", "f:annotations", &fields.annotations),
    ] {
        let Some(parent) = tree.pointer_mut(parent).and_then(Value::as_object_mut) else {
            continue;
        };
        let Some(leaves) = parent.get_mut(branch).and_then(Value::as_object_mut) else {
            continue;
        };
        let before = leaves.len();
        leaves.retain(|leaf, _| {
            leaf.strip_prefix("f:")
                .is_none_or(|name| !names.contains(name))
        });
        taken |= leaves.len() < before;
        // Without leaves it would mean the branch itself, and all that is on it.
        if leaves.is_empty() {
            parent.remove(branch);
        }
    }
    taken
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
    use proptest::prelude::*;
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

    fn api_entry(manager: &str, operation: &str, fields: Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({
            "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": "2026-01-01T00:00:00Z", "fieldsV1": fields,
        }))
        .expect("an entry")
    }

    fn fields(entries: &[ManagedFieldsEntry]) -> Vec<Value> {
        let fields = entries.iter().filter_map(|entry| entry.fields_v1.clone());
        fields.map(|fields| fields.0).collect()
    }

    #[test]
    fn what_a_mirror_owns_is_taken_from_all_who_are_no_mirrors_and_nothing_else_is() {
        let ours = json!({
            "f:data": {"f:tls.crt": {}, "f:token": {}},
            "f:metadata": {"f:labels": {"f:app": {}}, "f:annotations": {"f:a": {}}},
        });
        let entries = vec![
            api_entry("keytide/u", "Apply", ours.clone()),
            api_entry("keytide/w", "Apply", json!({"f:data": {"f:token": {}}})),
            api_entry(
                "flux",
                "Apply",
                json!({"f:data": {"f:token": {}}, "f:type": {}}),
            ),
            api_entry(
                "akv2k8s",
                "Update",
                json!({
                    "f:data": {".": {}, "f:tls.crt": {}, "f:more": {}},
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:annotations": {"f:b": {}}, "f:ownerReferences": {".": {}}},
                    "f:type": {},
                }),
            ),
        ];
        let claimed = claimed(entries.clone(), "u").expect("taken");
        let expected = [
            ours,
            json!({"f:data": {"f:token": {}}}),
            json!({"f:type": {}}),
            json!({
                "f:data": {".": {}, "f:more": {}},
                "f:metadata": {"f:labels": {".": {}}, "f:annotations": {"f:b": {}}, "f:ownerReferences": {".": {}}},
                "f:type": {},
            }),
        ];
        assert_eq!(fields(&claimed), expected);
        let times = |entries: &[ManagedFieldsEntry]| -> Vec<_> {
            entries
                .iter()
                .map(|entry| (entry.operation.clone(), entry.time.clone()))
                .collect()
        };
        assert_eq!(times(&claimed), times(&entries), "who did what when stays");
        assert_eq!(super::claimed(claimed, "u"), None, "once is enough");
        assert_eq!(super::claimed(entries, "unknown"), None);
    }

    fn tree(keys: &BTreeSet<String>) -> Value {
        let leaves = keys.iter().map(|key| (format!("f:{key}"), json!({})));
        json!({"f:data": leaves.collect::<serde_json::Map<_, _>>()})
    }

    proptest! {
        #[test]
        fn afterwards_outsiders_have_what_they_had_without_what_is_the_mirrors(
            ours in prop::collection::btree_set("[a-e.]{1,2}", 0..4),
            theirs in prop::collection::vec(prop::collection::btree_set("[a-e.]{1,2}", 1..4), 0..3),
        ) {
            let outsiders = theirs.iter().enumerate();
            let outsiders = outsiders.map(|(number, keys)| api_entry(&number.to_string(), "Update", tree(keys)));
            let mine = api_entry("keytide/u", "Apply", tree(&ours));
            let entries: Vec<_> = std::iter::once(mine).chain(outsiders).collect();
            let after = claimed(entries.clone(), "u").unwrap_or(entries);
            let after = after.into_iter().map(|it| {
                (it.manager.unwrap_or_default(), it.fields_v1.map(|it| it.0.to_string()).unwrap_or_default())
            });
            let after = Ownership::of(after);
            prop_assert_eq!(after.mirror("u").map(|it| &it.data), Some(&ours));
            for (number, keys) in theirs.iter().enumerate() {
                let left: BTreeSet<_> = keys.difference(&ours).cloned().collect();
                prop_assert_eq!(&after.managers[&number.to_string()].data, &left);
            }
        }
    }

    #[test]
    fn binary_data_of_a_config_map_is_data() {
        let both = json!({"f:data": {"f:a": {}}, "f:binaryData": {"f:b": {}}});
        let ownership = Ownership::of([entry("keytide/u", both.clone())]);
        let ours = ownership.mirror("u").expect("owned");
        assert_eq!(ours.data, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let theirs = api_entry("kubectl", "Update", both.clone());
        let claimed = claimed(
            vec![api_entry("keytide/u", "Apply", both.clone()), theirs],
            "u",
        );
        assert_eq!(fields(&claimed.expect("taken")), [both, json!({})]);
    }

    #[test]
    fn the_owners_that_mirrors_name_are_known_also_where_that_is_not_the_mirror() {
        let owners = |uid: &str| {
            let key = json!({"uid": uid}).to_string();
            json!({"f:metadata": {"f:ownerReferences": {format!("k:{key}"): {}}}})
        };
        let ownership = Ownership::of([
            entry("keytide/u.configmap", owners("u")),
            entry("keytide/w", owners("w")),
            entry("kubectl", owners("x")),
        ]);
        assert_eq!(ownership.owners().collect::<Vec<_>>(), ["u", "w"]);
    }

    #[test]
    fn only_managers_that_are_no_mirrors_share_with_one() {
        let ours = entry("keytide/u", json!({"f:data": {"f:token": {}}}));
        let with = |manager: &str, key: &str| {
            let theirs = entry(manager, json!({"f:data": {format!("f:{key}"): {}}}));
            Ownership::of([ours.clone(), theirs]).is_shared_with_outsiders("u")
        };
        assert!(with("kubectl", "token"));
        assert!(!with("kubectl", "other"));
        assert!(!with("keytide/w", "token"));
    }
}
