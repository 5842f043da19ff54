//! Whether akv2k8s' AzureKeyVaultSecrets are mirrors too: for all that look at mirrors.

use clap::{ArgAction, Args};

#[derive(Clone, Copy, Debug, Args)]
pub struct Akv2k8sFlag {
    /// Read akv2k8s' AzureKeyVaultSecrets in place, instead of its controller, which must not run beside this
    #[arg(long, env = "KEYTIDE_AKV2K8S", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    akv2k8s: bool,
}

impl Akv2k8sFlag {
    /// Whether they are read in place.
    pub fn in_place(self) -> bool {
        self.akv2k8s
    }
}
