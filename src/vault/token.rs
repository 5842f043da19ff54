//! Tokens that nobody has to wait for.
//!
//! The credentials of `azure_identity` renew a token in its last five minutes and hold a lock meanwhile, so that every request
//! waits, and an outage of Entra or IMDS of those five minutes is felt. Here a token is renewed in the background when half of its life
//! is over, by one request at a time; the old one is served until it expires.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::time::OffsetDateTime;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// First pause after a renewal that failed; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Least time between two renewals: IMDS gives the same token for hours, and a vault may reject every token.
const LEAST_AGE: Duration = Duration::from_secs(60);

/// Makes a credential. Each renewal takes a new one, because a credential gives its cached token until that has five minutes left.
pub type Source = dyn Fn() -> azure_core::Result<Arc<dyn TokenCredential>> + Send + Sync;

/// A credential that renews its tokens in the background.
pub struct RenewingCredential {
    this: Weak<Self>,
    source: Box<Source>,
    /// By scopes.
    tokens: Mutex<HashMap<Vec<String>, State>>,
}

type Fetch = Shared<BoxFuture<'static, Result<Held, Failure>>>;

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The one request that is under way.
    fetch: Option<Fetch>,
}

#[derive(Clone)]
struct Held {
    token: AccessToken,
    fetched: Instant,
    expires: Instant,
}

impl Held {
    fn new(token: AccessToken, now: Instant) -> Self {
        let life = token.expires_on - OffsetDateTime::now_utc();
        Self {
            token,
            fetched: now,
            expires: now + Duration::try_from(life).unwrap_or_default(),
        }
    }

    fn renew_at(&self) -> Instant {
        self.fetched + ((self.expires - self.fetched) / 2).max(LEAST_AGE)
    }
}

/// Why no token could be had, for all who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
struct Failure(Arc<azure_core::Error>);

impl fmt::Debug for RenewingCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenewingCredential")
    }
}

#[async_trait::async_trait]
impl TokenCredential for RenewingCredential {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let fetch = {
            let mut tokens = self.lock();
            let state = tokens.entry(scopes.clone()).or_default();
            match &state.held {
                Some(held) if held.expires > Instant::now() => return Ok(held.token.clone()),
                _ => self.fetch(&scopes, state),
            }
        };
        fetch
            .await
            .map(|held| held.token)
            .map_err(|failure| azure_core::Error::new(ErrorKind::Credential, failure))
    }
}

impl RenewingCredential {
    /// A credential whose tokens are those of what `source` makes.
    pub fn new(source: Box<Source>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            source,
            tokens: Mutex::default(),
        })
    }

    /// A vault did not accept a token: renews what is not quite new.
    pub fn rejected(&self) {
        let now = Instant::now();
        let mut tokens = self.lock();
        for (scopes, state) in tokens.iter_mut() {
            let held = state.held.as_ref();
            if held.is_some_and(|held| now.duration_since(held.fetched) >= LEAST_AGE) {
                drop(self.fetch(scopes, state));
            }
        }
    }

    /// The request that is under way, or one that begins now. It runs to its end even if nobody waits for it any more.
    fn fetch(&self, scopes: &[String], state: &mut State) -> Fetch {
        if let Some(fetch) = &state.fetch {
            return fetch.clone();
        }
        let credential = (self.source)();
        let (this, scopes, is_first) = (self.this.clone(), scopes.to_owned(), state.held.is_none());
        let fetch = async move {
            let names: Vec<&str> = scopes.iter().map(String::as_str).collect();
            let token = match credential {
                Ok(credential) => credential.get_token(&names, None).await,
                Err(error) => Err(error),
            };
            let held = token
                .map(|token| Held::new(token, Instant::now()))
                .map_err(|error| Failure(Arc::new(error)));
            if let Some(this) = this.upgrade() {
                this.fetched(&scopes, held.as_ref().ok().cloned());
                if is_first && held.is_ok() {
                    tokio::spawn(renew_for_ever(Arc::downgrade(&this), scopes));
                }
            }
            held
        };
        let fetch = fetch.boxed().shared();
        state.fetch = Some(fetch.clone());
        tokio::spawn(fetch.clone());
        fetch
    }

    fn fetched(&self, scopes: &[String], held: Option<Held>) {
        if let Some(state) = self.lock().get_mut(scopes) {
            state.fetch = None;
            state.held = held.or(state.held.take());
        }
    }

    fn renewal(&self, scopes: &[String]) -> Option<Fetch> {
        let mut tokens = self.lock();
        Some(self.fetch(scopes, tokens.get_mut(scopes)?))
    }

    fn renew_at(&self, scopes: &[String]) -> Option<Instant> {
        Some(self.lock().get(scopes)?.held.as_ref()?.renew_at())
    }

    /// A panic elsewhere leaves the map whole, so its poison means nothing.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<String>, State>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renews a token for as long as somebody has the credential.
async fn renew_for_ever(this: Weak<RenewingCredential>, scopes: Vec<String>) {
    let mut pause = FIRST_PAUSE;
    let Some(mut at) = this.upgrade().and_then(|this| this.renew_at(&scopes)) else {
        return;
    };
    loop {
        tokio::time::sleep_until(at).await;
        let Some(renewal) = this.upgrade().and_then(|this| this.renewal(&scopes)) else {
            return;
        };
        match renewal.await {
            Ok(held) => (at, pause) = (held.renew_at(), FIRST_PAUSE),
            Err(error) => {
                tracing::warn!(%error, "a token can't be renewed; that is tried again, and the old one serves until it expires");
                at = Instant::now() + pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SCOPE: &[&str] = &["https://vault.azure.net/.default"];

    /// Gives numbered tokens that live an hour, after a while; or fails.
    #[derive(Debug, Default)]
    struct Fake {
        requests: AtomicUsize,
        under_way: AtomicUsize,
        most_under_way: AtomicUsize,
        latency: AtomicU64,
        failures: Mutex<VecDeque<bool>>,
    }

    #[derive(Debug)]
    struct OfFake(Arc<Fake>);

    #[async_trait::async_trait]
    impl TokenCredential for OfFake {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            let fake = &self.0;
            let number = fake.requests.fetch_add(1, Ordering::SeqCst) + 1;
            let under_way = fake.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            fake.most_under_way.fetch_max(under_way, Ordering::SeqCst);
            let latency = Duration::from_secs(fake.latency.load(Ordering::SeqCst));
            tokio::time::sleep(latency).await;
            fake.under_way.fetch_sub(1, Ordering::SeqCst);
            if fake.failures.lock().expect("not poisoned").pop_front() == Some(true) {
                return Err(azure_core::Error::with_message(ErrorKind::Io, "no route"));
            }
            Ok(AccessToken::new(
                format!("token {number}"),
                OffsetDateTime::now_utc() + HOUR,
            ))
        }
    }

    fn credential() -> (Arc<Fake>, Arc<RenewingCredential>) {
        let fake = Arc::new(Fake::default());
        let source = Arc::clone(&fake);
        let make = move || Ok(Arc::new(OfFake(Arc::clone(&source))) as Arc<dyn TokenCredential>);
        (fake, RenewingCredential::new(Box::new(make)))
    }

    async fn token(credential: &RenewingCredential) -> Result<String, String> {
        match credential.get_token(SCOPE, None).await {
            Ok(token) => Ok(token.token.secret().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_share_one_request() {
        let (fake, credential) = credential();
        fake.latency.store(2, Ordering::SeqCst);
        let tokens = futures::future::join_all((0..10).map(|_| token(&credential))).await;
        assert!(tokens.iter().all(|token| token.as_deref() == Ok("token 1")));
        assert_eq!(fake.requests.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_at_half_its_life_and_nobody_waits() {
        let (fake, credential) = credential();
        assert_eq!(token(&credential).await.as_deref(), Ok("token 1"));
        fake.latency.store(60, Ordering::SeqCst);
        tokio::time::sleep(HOUR / 2 + Duration::from_secs(10)).await;
        let asked = Instant::now();
        assert_eq!(token(&credential).await.as_deref(), Ok("token 1"));
        assert_eq!(asked, Instant::now(), "the old one at once");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(token(&credential).await.as_deref(), Ok("token 2"));
        assert_eq!(fake.most_under_way.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_shorter_than_the_rest_of_its_life_is_not_felt() {
        let (fake, credential) = credential();
        token(&credential).await.expect("the first");
        fake.failures
            .lock()
            .expect("not poisoned")
            .extend([true; 6]);
        for _ in 0..120 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            token(&credential).await.expect("never without one");
        }
        assert!(fake.requests.load(Ordering::SeqCst) > 7);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_token_the_failure_is_told_to_all_and_the_next_tries_again() {
        let (fake, credential) = credential();
        fake.latency.store(1, Ordering::SeqCst);
        fake.failures.lock().expect("not poisoned").push_back(true);
        let failed = futures::future::join_all((0..3).map(|_| token(&credential))).await;
        assert_eq!(failed, vec![Err("no route".to_owned()); 3]);
        assert_eq!(token(&credential).await.as_deref(), Ok("token 2"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_token_is_renewed_but_not_again_and_again() {
        let (fake, credential) = credential();
        token(&credential).await.expect("the first");
        credential.rejected();
        assert_eq!(fake.requests.load(Ordering::SeqCst), 1, "it is new");
        tokio::time::sleep(LEAST_AGE).await;
        credential.rejected();
        credential.rejected();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(token(&credential).await.as_deref(), Ok("token 2"));
        assert_eq!(fake.requests.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_end_with_the_credential() {
        let (fake, credential) = credential();
        token(&credential).await.expect("the first");
        drop(credential);
        tokio::time::sleep(HOUR * 10).await;
        assert_eq!(fake.requests.load(Ordering::SeqCst), 1);
    }
}
