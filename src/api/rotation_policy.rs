use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Says when workloads of its namespace are rolled whose content has changed. A workload names it by the annotation
/// `keytide.dev/rotation-policy`. A field that is left out is as the cluster's default says (`rotation` in the chart's values).
#[derive(
    Clone, CustomResource, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "keytide.dev",
    version = "v1alpha1",
    kind = "RotationPolicy",
    plural = "rotationpolicies",
    singular = "rotationpolicy",
    shortname = "rotp",
    category = "keytide",
    namespaced,
    status = "RotationPolicyStatus",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Max","type":"integer","jsonPath":".spec.maxConcurrent"}"#,
    printcolumn = r#"{"name":"Windows","type":"string","jsonPath":".spec.windows[*].from"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct RotationPolicySpec {
    /// How long all that a workload uses must have stopped changing before it is rolled, such as `10s` or `2m`, so that Secrets
    /// that change together cause one rollout. Never less than 6 s, which new content needs to reach every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}(h|m|s)){1,3}$"))]
    pub settle: Option<String>,
    /// Least time between two rotations of one workload, such as `1m` or `12h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}(h|m|s)){1,3}$"))]
    pub min_interval: Option<String>,
    /// When rotations may begin: while any of these is open. An empty list is always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub windows: Option<Vec<RotationWindow>>,
    /// A workload that has waited for a window for this long since the content changed is rolled all the same, such as `72h`. Left
    /// out, here and in the cluster's default: windows are waited for however long it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}(h|m|s)){1,3}$"))]
    pub deadline: Option<String>,
    /// A window is not waited for where the content that the Pods have expires sooner: then the workload is rolled this long
    /// before the old version's expiry date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}(h|m|s)){1,3}$"))]
    pub before_expiry: Option<String>,
    /// Most workloads under this policy whose rollouts are under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent: Option<u32>,
    /// Workloads that are rolled before the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// What follows from a rollout that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// For which uses of a Secret workloads are rolled. Leave `volume` out where applications read files again by themselves;
    /// files mounted by `subPath` are never updated by Kubernetes, so they count as `env`. Left out: for all uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub on: Option<Vec<SecretUse>>,
}

/// A time of the week, by the clocks of a place.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.from != self.to").message("from and to are the same, so that the window would never be open; for the whole day write from: \"00:00\" and to: \"24:00\"")
)]
pub struct RotationWindow {
    /// Days on which the window opens. Left out: every day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 7))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub days: Option<Vec<Day>>,
    /// When it opens, such as `22:00`.
    #[schemars(length(max = 5), regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// When it closes, such as `04:00`; where that is not later than `from`, on the next day. `24:00` is the end of the day.
    #[schemars(
        length(max = 5),
        regex(pattern = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")
    )]
    pub to: String,
    /// Time zone by its IANA name, such as `Europe/Berlin`. Where clocks are put forward, a time that they skip does not come; where
    /// they are put back, a time comes twice.
    #[serde(default = "utc")]
    #[schemars(
        length(max = 64),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$")
    )]
    #[x_kube(
        validation = Rule::new("timestamp('2000-01-01T00:00:00Z').getHours(self) >= 0").message("timeZone must be the IANA name of a time zone, such as Europe/Berlin or UTC")
    )]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A day of the week.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, schemars::JsonSchema, Serialize,
)]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// Which workloads are rolled first, and for how long the others watch.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Canary {
    /// Labels of the workloads that are rolled first.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
    /// How long their rotation must be ago, and its rollout be finished, before the others follow, such as `10m`.
    #[serde(default = "zero")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}(h|m|s)){1,3}$"))]
    pub soak: String,
}

fn zero() -> String {
    "0s".to_owned()
}

/// What follows from a rollout that fails. `Hold`: the workloads that wait for the same content are held until the failed one is
/// mended, the content is replaced, or the failure is accepted by the annotation `keytide.dev/accept-failure` on the failed one.
/// `Continue`: they are rolled all the same. `Revert`: as `Hold`; and the mirrors whose new content the workload was rolled for go
/// back to the version before, if the vault still has it enabled and unexpired, until the vault has another version. All workloads
/// that use the Secret then go back with it.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, schemars::JsonSchema, Serialize,
)]
pub enum OnFailure {
    /// The workloads that wait for the same content are held until the failed one is mended, the content is replaced, or the
    /// failure is accepted by the annotation `keytide.dev/accept-failure` on the failed one.
    #[default]
    Hold,
    /// They are rolled all the same.
    Continue,
    /// As `Hold`; and the mirrors whose content the failed one was rolled for go back to the version before, once.
    Revert,
}

/// A way in which a container gets content.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, schemars::JsonSchema, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SecretUse {
    /// Environment variables, and files mounted by `subPath`: fixed when the container starts.
    Env,
    /// Files of a volume, which Kubernetes updates in running containers.
    Volume,
}

/// Whether the policy can be followed.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationPolicyStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the policy is followed. `Stalled`: it can't be, and workloads that name it are held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}
