//! A Key Vault, Entra and IMDS double on loopback, for tests and demos. It must never be in the release image.
//!
//! ```text
//! client ──CONNECT──▶ proxy ──TLS, as the host named──▶ ┌───────┐
//! client ──http://169.254.169.254/…──▶ proxy ─────────▶ │ world │ ──▶ keyvault, entra, imds
//! test ──/control/… or DevVault's methods─────────────▶ └───────┘
//! ```
//!
//! Clients reach it under real names with `HTTPS_PROXY` and `HTTP_PROXY` pointed at it and its CA trusted, so neither
//! the daemon nor Microsoft's SDKs know the difference; `tests/conformance` holds it to that.
//!
//! [`world`] decides everything from values (time and randomness among them); [`proxy`] and [`control`] only carry.

mod certificate_object;
mod certificates;
mod control;
mod entra;
mod exchange;
mod faults;
mod identity;
mod imds;
mod key_object;
mod keyvault;
mod object;
mod object_attributes;
mod operation;
mod proxy;
mod refusal;
mod requests;
mod secret;
mod seed;
mod shared;
mod store;
mod tokens;
mod world;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::net::TcpListener;
use tokio::sync::watch;

use certificate_object::Issued;
use shared::Shared;

pub use faults::{Fault, Match};
pub use identity::{FederatedCredential, Identity};
pub use operation::Kind as Operation;
pub use refusal::Refusal;
pub use requests::Requests;
pub use secret::{Changes, NewSecret, Tags, Value, Written};
pub use seed::{SecretSeed, Seed, SeedError, VaultSeed};

/// The host that Entra is asked under, and that its requests are counted by.
pub const ENTRA_HOST: &str = entra::HOST;

/// The host that IMDS is asked under, and that its requests are counted by.
pub const IMDS_HOST: &str = imds::HOST;

/// How a dev vault starts.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: SocketAddr,
    /// Listen on an address that isn't loopback too, for Pods of a network that ends on this machine.
    pub beyond_loopback: bool,
    pub seed: Seed,
}

impl Default for Options {
    /// An empty seed on a free loopback port.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            beyond_loopback: false,
            seed: Seed::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("{address} is not loopback: the dev vault asks nobody who they are")]
    NotLoopback { address: SocketAddr },
    #[error("the seed can't be used: {0}")]
    Seed(#[from] Refusal),
    #[error("can't make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("can't set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A running dev vault. It stops, and cuts its connections, when dropped.
///
/// Vaults are named by name (`contoso`, meaning `contoso.vault.azure.net`) or by full host name.
pub struct DevVault {
    address: SocketAddr,
    shared: Arc<Shared>,
    _running: watch::Sender<()>,
}

impl DevVault {
    /// Starts on the caller's tokio runtime, and lives no longer than that does.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let address = options.listen;
        if !address.ip().is_loopback() && !options.beyond_loopback {
            return Err(StartError::NotLoopback { address });
        }
        let world = world::World::from_seed(options.seed, jiff::Timestamp::now())?;
        let shared = Arc::new(Shared::new(world, certificates::Certificates::generate()?));
        let listening = async {
            let listener = TcpListener::bind(address).await?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) = listening
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        let (running, shutdown) = watch::channel(());
        tokio::spawn(proxy::serve(listener, shared.clone(), shutdown));
        tracing::info!(%address, "the dev vault listens");
        Ok(Self {
            address,
            shared,
            _running: running,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `HTTPS_PROXY` and `HTTP_PROXY`.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The certificate that clients are to trust.
    pub fn ca_pem(&self) -> &str {
        self.shared.certificates.ca_pem()
    }

    /// Creates a vault, or changes who may use it: these client IDs, or everyone.
    pub fn create_vault(&self, vault: &str, access: Option<Vec<String>>) -> Result<(), Refusal> {
        self.shared.world().create_vault(vault, access)
    }

    pub fn set_secret(
        &self,
        vault: &str,
        name: &str,
        secret: impl Into<NewSecret>,
    ) -> Result<Written, Refusal> {
        let moment = exchange::Moment::current();
        self.shared
            .world()
            .vault(vault)?
            .set(name, secret.into(), moment)
    }

    /// Changes the current version.
    pub fn update_secret(
        &self,
        vault: &str,
        name: &str,
        changes: Changes,
    ) -> Result<Written, Refusal> {
        let moment = exchange::Moment::current();
        self.shared
            .world()
            .vault(vault)?
            .update(name, None, changes, moment)
    }

    /// Deletes softly, as Key Vault does.
    pub fn delete_secret(&self, vault: &str, name: &str) -> Result<(), Refusal> {
        let moment = exchange::Moment::current();
        self.shared
            .world()
            .vault(vault)?
            .delete(name, moment)
            .map(|_| ())
    }

    pub fn recover_secret(&self, vault: &str, name: &str) -> Result<(), Refusal> {
        let moment = exchange::Moment::current();
        self.shared
            .world()
            .vault(vault)?
            .recover(name, moment)
            .map(|_| ())
    }

    pub fn purge_secret(&self, vault: &str, name: &str) -> Result<(), Refusal> {
        self.shared.world().vault(vault)?.purge(name)
    }

    /// Leaves a secret as the restore of a backup does that was made when this version was current.
    pub fn restore_secret(
        &self,
        vault: &str,
        name: &str,
        written: &Written,
    ) -> Result<Written, Refusal> {
        let moment = exchange::Moment::current();
        let mut world = self.shared.world();
        world.vault(vault)?.restore(name, &written.version, moment)
    }

    /// Imports a certificate with its key: PEM, or a PFX in base64 without a password. The chain keeps its order.
    pub fn import_certificate(&self, vault: &str, name: &str, value: &str) -> Result<(), Refusal> {
        let moment = exchange::Moment::current();
        let mut world = self.shared.world();
        let vault = world.vault(vault)?;
        let (policy, attributes) = Default::default();
        let now = vault.clock(moment);
        let issued = Issued::imported(value, "", policy, attributes, None, now)?;
        keyvault::certificates::add(vault, name, issued, moment)
    }

    /// Sets a vault's clock ahead, or back.
    pub fn set_clock_ahead(&self, vault: &str, ahead: SignedDuration) -> Result<(), Refusal> {
        self.shared.world().vault(vault)?.set_clock_ahead(ahead);
        Ok(())
    }

    /// Replaces the faults of a vault, of `entra` or of `imds`.
    pub fn set_faults(&self, host: &str, faults: Vec<Fault>) -> Result<(), Refusal> {
        self.shared.world().set_faults(host, faults)
    }

    pub fn clear_faults(&self, host: &str) -> Result<(), Refusal> {
        self.set_faults(host, Vec::new())
    }

    /// Has tunnels to `host` lead to `address`, where something else of Azure's is doubled, such as a storage account. TLS ends there.
    pub fn forward(&self, host: &str, address: SocketAddr) {
        self.shared.world().forward(host, address);
    }

    /// Ends all tokens issued so far.
    pub fn expire_tokens(&self) {
        self.shared.world().expire_tokens(jiff::Timestamp::now());
    }

    /// For tokens issued from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        let lifetime = SignedDuration::try_from(lifetime).unwrap_or(SignedDuration::MAX);
        self.shared.world().set_token_lifetime(lifetime);
    }

    /// What was asked since the start or the last reset.
    pub fn requests(&self) -> Requests {
        self.shared.world().requests().clone()
    }

    pub fn reset_requests(&self) {
        self.shared.world().reset_requests();
    }
}
