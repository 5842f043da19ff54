use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Keys of the target that are made of the keys that `data` and `dataFrom` give.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Whether the target also has the keys that `data` and `dataFrom` give.
    #[serde(default)]
    pub merge_policy: MergePolicy,
    /// Keys of the target and the text of each, in the syntax of Jinja: `{{ data.password }}` or `{{ data["tls.crt"] }}` is
    /// what a key has that `data` or `dataFrom` gives. The text itself is not secret. At most 64 KiB each.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 50))]
    #[x_kube(validation = Rule::new("self.all(key, size(key) <= 253 && key.matches('^[-._a-zA-Z0-9]+$') && key != '.' && !key.startsWith('..'))").message("a key of a Secret consists of letters, digits, '-', '_' and '.', and is not '.' or starts with '..'"))]
    pub data: BTreeMap<String, String>,
}

/// What becomes of the keys that a template's keys are made of.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize,
)]
pub enum MergePolicy {
    /// The target has them too. A template's key takes the place of one of the same name.
    #[default]
    Merge,
    /// The target has the template's keys alone.
    Replace,
}
