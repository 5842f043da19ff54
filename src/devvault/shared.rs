//! What a dev vault's connections and its owner hold together.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::certificates::Certificates;
use super::world::World;

pub struct Shared {
    world: Mutex<World>,
    pub certificates: Certificates,
}

impl Shared {
    pub fn new(world: World, certificates: Certificates) -> Self {
        Self {
            world: Mutex::new(world),
            certificates,
        }
    }

    /// Never hold this across an await. A panic elsewhere leaves a world that is good enough for a test to report.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
