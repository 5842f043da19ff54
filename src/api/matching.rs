use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Which secrets of the vault are mirrored, beside those that are named. Secrets that back certificates are not among them.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.namePattern) || size(self.?tags.orValue({})) > 0").message("say which secrets are meant, by namePattern, by tags, or by both; namePattern: '.*' is every one that is granted"),
    validation = Rule::new("!has(self.rename) || has(self.namePattern)").message("rename goes with namePattern, whose groups it names")
)]
pub struct Match {
    /// A regular expression that the whole name of a secret fits, whatever its case, such as `team-a-(.*)`. Left out: any name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub name_pattern: Option<String>,
    /// Tags that a secret has, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 15))]
    pub tags: BTreeMap<String, String>,
    /// Key in the target's data: `$1` is the first group of `namePattern`, `${name}` the one that is called `name`, `$$` a dollar
    /// sign. Left out: the name of the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub rename: Option<String>,
}
