//! The steps, in the order in which they are played: the first ones install and remove the daemon, the others find it
//! running. Those about [`runners`] are played by themselves.

pub mod figures;
mod install;
mod lifecycle;
mod rotation;
pub mod runners;

use futures::future::LocalBoxFuture;

use crate::scene::Scene;
use crate::testbed::Result;

/// What is done on a stage `S`, and what must be seen there.
pub type Step<S> = for<'a> fn(&'a S) -> LocalBoxFuture<'a, Result<()>>;

/// The steps that others can't be played without.
pub const INSTALLS: [&str; 3] = [BY_CHART, runners::DAEMON, runners::KEDA];

/// The step after which the daemon runs.
const BY_CHART: &str = "the chart is installed and the daemon gets ready";

/// Name and step.
pub const ALL: [(&str, Step<Scene>); 10] = [
    (
        "a daemon without its CRDs is not ready until they come",
        |s| Box::pin(install::without_crds(s)),
    ),
    (
        "daemon, mirror and Deployment in one release restart nothing",
        |s| Box::pin(install::in_one_release(s)),
    ),
    (BY_CHART, |s| Box::pin(install::by_chart(s))),
    (
        "the pre-upgrade hook brings a changed CRD up to date",
        |s| Box::pin(install::upgrade(s)),
    ),
    ("a container gets the new token", |s| {
        Box::pin(rotation::gets_the_new_token(s))
    }),
    (
        "a container waits for its Secret and is not restarted",
        |s| Box::pin(rotation::waits_for_its_secret(s)),
    ),
    (
        "a container that crashes until the change is not rolled for it",
        |s| Box::pin(rotation::crashes_until_the_change(s)),
    ),
    (
        "rotations in a row leave no container with an old token",
        |s| Box::pin(rotation::many_in_a_row(s)),
    ),
    ("SIGTERM ends the daemon in order", |s| {
        Box::pin(lifecycle::ends_on_sigterm(s))
    }),
    ("a wedged daemon is restarted", |s| {
        Box::pin(lifecycle::wedged_is_restarted(s))
    }),
];
