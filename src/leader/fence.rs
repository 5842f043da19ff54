//! What a daemon may only do while it leads.

use std::sync::{Arc, Mutex, PoisonError};

use http::Request;
use kube::client::Body;
use tokio::time::Instant;
use tower::BoxError;

/// A write that was not sent.
#[derive(Debug, thiserror::Error)]
#[error("not sent, because this daemon does not lead")]
pub struct NotLeading;

/// Lets requests that change something pass until the time to which the daemon surely leads. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Fence {
    /// The daemon leads until then; none: it does not.
    pub fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Passes a request on or refuses it: a filter for the client of what acts.
    pub fn check(&self, request: Request<Body>) -> Result<Request<Body>, BoxError> {
        if request.method().is_safe() || self.is_open(Instant::now()) {
            Ok(request)
        } else {
            Err(NotLeading.into())
        }
    }

    fn is_open(&self, now: Instant) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;

    const WRITES: [Method; 4] = [Method::PATCH, Method::POST, Method::PUT, Method::DELETE];

    fn passes(fence: &Fence, method: Method) -> bool {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        fence.check(request).is_ok()
    }

    #[test]
    fn it_is_open_until_the_deadline() {
        let (fence, now) = (Fence::default(), Instant::now());
        assert!(!fence.is_open(now), "nobody leads at first");
        fence.set(Some(now + Duration::from_secs(10)));
        assert!(fence.is_open(now + Duration::from_millis(9_999)));
        assert!(!fence.is_open(now + Duration::from_secs(10)));
        fence.set(None);
        assert!(!fence.is_open(now));
    }

    #[test]
    fn a_closed_fence_lets_only_reads_pass() {
        let fence = Fence::default();
        assert!(passes(&fence, Method::GET));
        assert!(WRITES.into_iter().all(|method| !passes(&fence, method)));
        fence.set(Some(Instant::now() + Duration::from_secs(60)));
        assert!(WRITES.into_iter().all(|method| passes(&fence, method)));
    }
}
