//! Leader election with a Lease, as Kubernetes' own components have it
//! (<https://kubernetes.io/docs/concepts/architecture/leases/#leader-election>): of several daemons one acts; the others have
//! their caches filled and wait.
//!
//! `election` decides and is pure; `candidate` asks and writes. No clock is compared with another machine's: a holder's time
//! runs from when a candidate first saw what the holder wrote, and the holder's own from before it sent that.
//!
//! A leader stops acting at the renew deadline, before anyone else may begin. One that is stopped itself (SIGSTOP, a frozen
//! machine) doesn't notice in time, so what it does when it goes on is refused twice: [`Fence`] lets no write begin after the
//! deadline; and one that had begun carries the resourceVersion that it was decided on, which is another one by then if
//! the new leader has written the same object. (Not so what is said of a RotationPolicy or of an AzureKeyVaultSecret: its next
//! look says it again.)

mod candidate;
mod election;
mod fence;

pub use self::candidate::{Candidacy, Candidate, Lost};
pub use self::election::{BadTiming, Timing};
pub use self::fence::{Fence, NotLeading};
