//! The flags that say how workloads are rolled, for who rolls them and for who tells how they stand.

use clap::{ArgAction, Args};

use crate::rotation::Policy;

#[derive(Debug, Args)]
pub struct RotationFlags {
    /// The policy of workloads that name none: the spec of a RotationPolicy in JSON
    #[arg(long, env = "KEYTIDE_ROTATION_POLICY", default_value = "{}", value_parser = rotation_policy)]
    rotation_policy: Policy,
    /// Most rotations whose rollouts are under way at once, in the whole cluster
    #[arg(long, env = "KEYTIDE_MAX_ROTATIONS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    max_rotations: u32,
    /// Whether annotations of Stakater Reloader and of wave opt in too
    #[arg(long, env = "KEYTIDE_ROTATION_COMPATIBILITY", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rotation_compatibility: bool,
}

impl RotationFlags {
    /// The policy of workloads that name none.
    pub fn policy(&self) -> Policy {
        self.rotation_policy.clone()
    }

    /// Most rotations whose rollouts are under way at once.
    pub fn max_rotations(&self) -> usize {
        usize::try_from(self.max_rotations).unwrap_or(usize::MAX)
    }

    /// Whether annotations of Reloader and wave opt in too.
    pub fn compatibility(&self) -> bool {
        self.rotation_compatibility
    }
}

fn rotation_policy(json: &str) -> std::result::Result<Policy, String> {
    let spec = serde_json::from_str(json)
        .map_err(|error| format!("this is no spec of a RotationPolicy in JSON: {error}"))?;
    Policy::default().with(&spec)
}
