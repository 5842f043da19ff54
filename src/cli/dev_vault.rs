//! `keytide dev-vault`

use clap::Args;

#[derive(Debug, Args)]
pub struct DevVault {}

impl DevVault {
    pub fn execute(self) -> Result<(), Box<dyn std::error::Error>> {
        Ok(())
    }
}
