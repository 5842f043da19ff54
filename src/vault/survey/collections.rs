//! One survey for each collection of a vault: each has a list of its own, and is listed only if somebody wants objects of it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Request, Settings, Survey};
use crate::vault::Collection;
use crate::vault::governor::Priority;

/// The surveys of one vault as one identity sees it. A method that [`Survey`] has too is that of all of them.
#[derive(Debug)]
pub struct Surveys {
    secrets: Survey,
    certificates: Survey,
    keys: Survey,
}

impl Surveys {
    pub fn new(settings: Settings, phase: f64, now: Instant) -> Self {
        let survey = |collection| Survey::new(collection, settings, phase, now);
        Self {
            secrets: survey(Collection::Secrets),
            certificates: survey(Collection::Certificates),
            keys: survey(Collection::Keys),
        }
    }

    /// The survey of one collection.
    pub fn of(&mut self, collection: Collection) -> &mut Survey {
        match collection {
            Collection::Secrets => &mut self.secrets,
            Collection::Certificates => &mut self.certificates,
            Collection::Keys => &mut self.keys,
        }
    }

    pub fn look_now(&mut self) {
        self.all_mut().for_each(Survey::look_now);
    }

    pub fn advance(&mut self, now: Instant) {
        self.all_mut().for_each(|survey| survey.advance(now));
    }

    pub fn wake(&self) -> Option<Instant> {
        self.all().filter_map(Survey::wake).min()
    }

    pub fn take_requests(&mut self) -> Vec<(Priority, Request)> {
        self.all_mut().flat_map(Survey::take_requests).collect()
    }

    pub fn start(&mut self, number: u64, request: &Request, now: Instant) -> bool {
        let collection = match request {
            Request::Page(collection, _) => *collection,
            Request::Get(id) => id.collection,
        };
        self.of(collection).start(number, request, now)
    }

    pub fn is_empty(&self) -> bool {
        self.all().all(Survey::is_empty)
    }

    pub fn shortest_interval(&self) -> Option<Duration> {
        self.all().filter_map(Survey::shortest_interval).min()
    }

    fn all(&self) -> impl Iterator<Item = &Survey> {
        [&self.secrets, &self.certificates, &self.keys].into_iter()
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Survey> {
        [&mut self.secrets, &mut self.certificates, &mut self.keys].into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ObjectId;
    use super::super::cost::Mode;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn only_collections_of_which_something_is_wanted_are_listed() {
        let settings = Settings {
            mode: Mode::Auto,
            full_sweep: Duration::from_secs(86_400),
            per_second: 100.0,
        };
        let start = Instant::now();
        let mut surveys = Surveys::new(settings, 0.0, start);
        for name in ["a", "b"] {
            for collection in [Collection::Keys, Collection::Certificates] {
                let id = ObjectId {
                    collection,
                    name: name.into(),
                    version: None,
                };
                surveys.of(collection).want(id, MINUTE, start);
            }
        }
        surveys.advance(start + MINUTE);
        let pages = surveys.take_requests().into_iter();
        let pages: Vec<Request> = pages.map(|(_, request)| request).collect();
        assert_eq!(
            pages,
            [Collection::Certificates, Collection::Keys]
                .map(|collection| Request::Page(collection, None))
        );
    }
}
