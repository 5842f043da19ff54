//! Reads that mirrors share.
//!
//! Mirrors that want the same object with the same identity at the same time share one GET: whoever comes first sends it,
//! who comes while it is under way waits for it, and who comes a moment later (see [`LINGER`]) takes the same answer. Then the
//! answer is dropped and wiped. A vault that throttles is left alone by everybody for as long as it asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::client::VaultClient;
use super::{
    CredentialKind, Identity, Transport, VaultError, VaultErrorKind, VaultHost, VaultSecret,
};
use crate::telemetry::Metrics;

/// How long an answer is there for those of the same cycle that come late.
pub const LINGER: Duration = Duration::from_secs(2);
/// Requests under way to one vault with one identity.
const CONCURRENCY: usize = 8;
/// A credential that is not older has a new token; see [`Clients::distrust`].
const TOKEN_TRIAL: Duration = Duration::from_secs(10);
/// What a vault gets that throttles without saying for how long.
const DEFAULT_PAUSE: Duration = Duration::from_secs(5);

/// What is read, and as whom. Reads are shared among equal keys, so never across identities.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ReadKey {
    pub vault: VaultHost,
    pub identity: Identity,
    /// Name of the secret.
    pub name: String,
    /// Its version; none is the latest.
    pub version: Option<String>,
}

type Answer = Result<Arc<VaultSecret>, VaultError>;
type VaultAndIdentity = (VaultHost, Identity);

struct Slot {
    asked: Instant,
    answer: Shared<BoxFuture<'static, Answer>>,
}

/// One vault as one identity sees it.
struct Vault {
    client: VaultClient,
    credential: Credential,
    permits: Semaphore,
    paused_until: Mutex<Option<Instant>>,
}

/// What is kept open.
#[derive(Default)]
struct Clients {
    vaults: HashMap<VaultAndIdentity, Arc<Vault>>,
    /// One per identity, not per vault: the token for one vault serves all of its cloud.
    credentials: HashMap<Identity, Credential>,
}

/// What gives tokens, and caches them.
#[derive(Clone)]
struct Credential {
    tokens: Arc<dyn TokenCredential>,
    made: Instant,
}

/// The reader of all vaults.
pub struct Reader {
    transport: Transport,
    credential: CredentialKind,
    metrics: Arc<Metrics>,
    clients: Arc<Mutex<Clients>>,
    slots: Arc<Mutex<HashMap<ReadKey, Slot>>>,
}

impl Reader {
    pub fn new(transport: Transport, credential: CredentialKind, metrics: Arc<Metrics>) -> Self {
        Self {
            transport,
            credential,
            metrics,
            clients: Arc::default(),
            slots: Arc::default(),
        }
    }

    /// The object as it is in the vault at `not_before` or later.
    pub async fn read(&self, key: &ReadKey, not_before: Instant) -> Answer {
        self.answer(key, not_before).await
    }

    fn answer(&self, key: &ReadKey, not_before: Instant) -> Shared<BoxFuture<'static, Answer>> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(key).filter(|slot| slot.asked >= not_before) {
            return slot.answer.clone();
        }
        let asked = Instant::now();
        let answer = self.start(key).boxed().shared();
        slots.insert(
            key.clone(),
            Slot {
                asked,
                answer: answer.clone(),
            },
        );
        // Driven to its end by a task of its own: the first to ask may lose interest, the others have not.
        let (slots, key, running) = (Arc::clone(&self.slots), key.clone(), answer.clone());
        tokio::spawn(async move {
            let _ = running.await;
            tokio::time::sleep(LINGER).await;
            let mut slots = lock(&slots);
            if slots.get(&key).is_some_and(|slot| slot.asked == asked) {
                slots.remove(&key);
            }
        });
        answer
    }

    fn start(&self, key: &ReadKey) -> impl Future<Output = Answer> + Send + use<> {
        let vault = self.vault(key);
        let (metrics, clients) = (Arc::clone(&self.metrics), Arc::clone(&self.clients));
        let key = key.clone();
        async move {
            let object = format!("secret {}", key.name);
            let vault = vault.map_err(|error| VaultError::classify(&error, &key.vault, &object))?;
            // The semaphore is never closed; were it, reading without a permit is no harm.
            let _permit = vault.permits.acquire().await.ok();
            // Only now: what waited for its turn meets the pause that those before it were told.
            let now = Instant::now();
            if let Some(until) = *lock(&vault.paused_until)
                && until > now
            {
                let kind = VaultErrorKind::Throttled {
                    retry_after: Some(until - now),
                };
                return Err(VaultError::new(kind, &key.vault, &object, ""));
            }
            let answer = vault
                .client
                .get_secret(&key.name, key.version.as_deref())
                .await;
            metrics.vault_read(
                &key.vault,
                answer
                    .as_ref()
                    .map_or_else(|error| error.kind.as_str(), |_| "ok"),
            );
            match answer.as_ref().map_err(|error| error.kind) {
                Err(VaultErrorKind::Throttled { retry_after }) => {
                    *lock(&vault.paused_until) =
                        Some(Instant::now() + retry_after.unwrap_or(DEFAULT_PAUSE));
                }
                Err(VaultErrorKind::Unauthorized) => lock(&clients).distrust(&key, &vault),
                _ => {}
            }
            answer.map(Arc::new)
        }
    }

    fn vault(&self, key: &ReadKey) -> azure_core::Result<Arc<Vault>> {
        let mut clients = lock(&self.clients);
        let id = (key.vault.clone(), key.identity.clone());
        if let Some(vault) = clients.vaults.get(&id) {
            return Ok(Arc::clone(vault));
        }
        let credential = match clients.credentials.get(&key.identity) {
            Some(credential) => credential.clone(),
            None => Credential {
                tokens: self
                    .credential
                    .credential(&key.identity, self.transport.options())?,
                made: Instant::now(),
            },
        };
        let tokens = Arc::clone(&credential.tokens);
        let vault = Arc::new(Vault {
            client: VaultClient::new(&self.transport, tokens, &key.vault)?,
            credential: credential.clone(),
            permits: Semaphore::new(CONCURRENCY),
            paused_until: Mutex::default(),
        });
        clients.credentials.insert(key.identity.clone(), credential);
        clients.vaults.insert(id, Arc::clone(&vault));
        Ok(vault)
    }
}

impl Clients {
    /// Forgets the client of a vault that does not accept its token, and the credential, which would give the same token until
    /// that expires, though it was revoked. One that is new gave a new token, so another is no better.
    fn distrust(&mut self, key: &ReadKey, vault: &Arc<Vault>) {
        if vault.credential.made.elapsed() < TOKEN_TRIAL {
            return;
        }
        let id = (key.vault.clone(), key.identity.clone());
        if self
            .vaults
            .get(&id)
            .is_some_and(|known| Arc::ptr_eq(known, vault))
        {
            self.vaults.remove(&id);
        }
        let same = |known: &Credential| Arc::ptr_eq(&known.tokens, &vault.credential.tokens);
        if self.credentials.get(&key.identity).is_some_and(same) {
            self.credentials.remove(&key.identity);
        }
    }
}

/// A panic elsewhere leaves these maps whole, so their poison means nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
