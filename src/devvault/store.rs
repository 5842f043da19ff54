//! One vault's objects, living and deleted, and the rules by which secrets change.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::certificate_object::Certificate;
use super::exchange::Moment;
use super::key_object::Key;
use super::object::{Deleted, Shelf};
use super::operation::{Type, is_valid_name};
use super::refusal::Refusal;
use super::secret::{Changes, NewSecret, Secret, Version, Written};

/// Key Vault's limit for a secret's value.
pub const MAX_VALUE_BYTES: usize = 25 * 1024;

#[derive(Clone, Debug)]
pub struct Vault {
    /// The client IDs that may use this vault; everyone if nothing.
    pub access: Option<BTreeSet<String>>,
    secrets: Shelf<Version>,
    pub certificates: Shelf<Certificate>,
    pub keys: Shelf<Key>,
    /// How far its clock is ahead.
    ahead: SignedDuration,
    /// What the secrets were until which time, if that is remembered.
    past: Option<Vec<(Timestamp, Shelf<Version>)>>,
}

impl Default for Vault {
    fn default() -> Self {
        Self {
            access: None,
            secrets: Shelf::new(Type::Secret),
            certificates: Shelf::new(Type::Certificate),
            keys: Shelf::new(Type::Key),
            ahead: SignedDuration::ZERO,
            past: None,
        }
    }
}

impl Vault {
    /// What the vault's clock shows.
    pub fn clock(&self, moment: Moment) -> Timestamp {
        moment
            .now
            .saturating_add(self.ahead)
            .unwrap_or(Timestamp::MAX)
    }

    pub fn set_clock_ahead(&mut self, ahead: SignedDuration) {
        self.ahead = ahead;
    }

    /// Begins or ends remembering what was.
    pub fn remember(&mut self, remember: bool) {
        self.past = remember.then(|| self.past.take().unwrap_or_default());
    }

    /// The vault at some time since it remembers.
    pub fn as_it_was(&self, at: Timestamp) -> Self {
        let past = self.past.iter().flatten().find(|(until, _)| *until > at);
        Self {
            secrets: past.map_or_else(|| self.secrets.clone(), |(_, secrets)| secrets.clone()),
            past: None,
            ..self.clone()
        }
    }

    fn before_change(&mut self, moment: Moment) {
        if let Some(past) = &mut self.past {
            past.push((moment.now, self.secrets.clone()));
        }
    }

    pub fn set(
        &mut self,
        name: &str,
        secret: NewSecret,
        moment: Moment,
    ) -> Result<Written, Refusal> {
        if !is_valid_name(name) {
            return Err(Refusal::bad_parameter(format!(
                "{name} is not a valid secret name"
            )));
        }
        if secret.value.len() > MAX_VALUE_BYTES {
            return Err(Refusal::bad_parameter(format!(
                "The secret value is too long: at most {MAX_VALUE_BYTES} bytes are allowed."
            )));
        }
        check_period(secret.nbf, secret.exp)?;
        self.secrets.check(name)?;
        self.before_change(moment);
        let version = Version::new(secret, self.clock(moment).as_second());
        let written = written(moment.fresh, &version);
        self.secrets.add(name, moment.fresh, version)?;
        Ok(written)
    }

    /// A version that may be served: validity periods don't matter to Key Vault here, being enabled does.
    pub fn get(&self, name: &str, id: Option<Uuid>) -> Result<(&Secret, Uuid, &Version), Refusal> {
        let secret = self.secret(name)?;
        let (id, version) = secret.version(id).ok_or_else(|| not_found(name, id))?;
        if version.enabled {
            Ok((secret, id, version))
        } else {
            Err(Refusal::secret_disabled())
        }
    }

    pub fn secret(&self, name: &str) -> Result<&Secret, Refusal> {
        self.secrets.object(name)
    }

    pub fn update(
        &mut self,
        name: &str,
        id: Option<Uuid>,
        changes: Changes,
        moment: Moment,
    ) -> Result<Written, Refusal> {
        self.before_change(moment);
        let now = self.clock(moment).as_second();
        let (id, version) = self.secrets.version_mut(name, id)?;
        check_period(changes.nbf.or(version.nbf), changes.exp.or(version.exp))?;
        version.change(changes, now);
        Ok(written(id, version))
    }

    /// Leaves a secret as the restore of an older backup does: with the version that was current then, and none of those since.
    pub fn restore(&mut self, name: &str, id: &str, moment: Moment) -> Result<Written, Refusal> {
        self.before_change(moment);
        let absent = || Refusal::secret_not_found(&format!("{name}/{id}"));
        let id = Uuid::try_parse(id).map_err(|_| absent())?;
        let secret = self.secrets.object_mut(name)?;
        if !secret.restore(id) {
            return Err(absent());
        }
        Ok(written(secret.current_id, &secret.current))
    }

    pub fn delete(&mut self, name: &str, moment: Moment) -> Result<&Deleted<Version>, Refusal> {
        self.before_change(moment);
        let now = self.clock(moment).as_second();
        self.secrets.delete(name, now)
    }

    pub fn deleted(&self, name: &str) -> Result<&Deleted<Version>, Refusal> {
        self.secrets.deleted(name)
    }

    pub fn purge(&mut self, name: &str) -> Result<(), Refusal> {
        self.secrets.purge(name)
    }

    pub fn recover(&mut self, name: &str, moment: Moment) -> Result<&Secret, Refusal> {
        self.before_change(moment);
        self.secrets.recover(name)
    }

    /// Secrets in the order they are listed in, each with the key that a page can end on.
    pub fn list(&self) -> &BTreeMap<String, Secret> {
        self.secrets.list()
    }

    pub fn list_deleted(&self) -> &BTreeMap<String, Deleted<Version>> {
        self.secrets.list_deleted()
    }
}

fn written(id: Uuid, version: &Version) -> Written {
    Written {
        version: id.simple().to_string(),
        updated: version.updated,
    }
}

fn not_found(name: &str, id: Option<Uuid>) -> Refusal {
    match id {
        Some(id) => Refusal::secret_not_found(&format!("{name}/{}", id.simple())),
        None => Refusal::secret_not_found(name),
    }
}

fn check_period(nbf: Option<i64>, exp: Option<i64>) -> Result<(), Refusal> {
    match (nbf, exp) {
        (Some(nbf), Some(exp)) if nbf >= exp => Err(Refusal::bad_parameter(
            "The attribute 'exp' must be later than the attribute 'nbf'.",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Moment {
        Moment {
            now: Timestamp::from_second(second).unwrap(),
            fresh: Uuid::new_v4(),
        }
    }

    fn value(vault: &Vault, name: &str) -> String {
        vault.get(name, None).unwrap().2.value.expose().to_owned()
    }

    #[test]
    fn the_version_written_last_is_the_current_one() {
        let mut vault = Vault::default();
        let first = vault.set("a", "1".into(), at(10)).unwrap();
        let second = vault.set("a", "2".into(), at(11)).unwrap();
        assert_ne!(first.version, second.version);
        assert_eq!(second.updated, 11);
        assert_eq!(value(&vault, "a"), "2");
        let id = Uuid::try_parse(&first.version).unwrap();
        assert_eq!(vault.get("a", Some(id)).unwrap().2.value.expose(), "1");
    }

    #[test]
    fn names_ignore_case_and_keep_it() {
        let mut vault = Vault::default();
        vault.set("Db-Password", "1".into(), at(10)).unwrap();
        assert_eq!(
            vault.get("db-password", None).unwrap().0.name,
            "Db-Password"
        );
    }

    #[test]
    fn a_deleted_name_is_free_again_after_its_purge() {
        let mut vault = Vault::default();
        vault.set("a", "1".into(), at(10)).unwrap();
        assert_eq!(
            vault.delete("a", at(20)).unwrap().scheduled_purge,
            20 + 90 * 86_400
        );
        assert_eq!(vault.get("a", None).unwrap_err().code, "SecretNotFound");
        let conflict = vault.set("a", "2".into(), at(21)).unwrap_err();
        assert_eq!(conflict.status, 409);
        assert_eq!(
            conflict.inner.as_deref(),
            Some("ObjectIsDeletedButRecoverable")
        );
        vault.purge("a").unwrap();
        assert_eq!(vault.deleted("a").unwrap_err().status, 404);
        vault.set("a", "2".into(), at(22)).unwrap();
    }

    #[test]
    fn a_restore_brings_an_older_version_back_with_its_times() {
        let mut vault = Vault::default();
        let before = vault.set("a", "1".into(), at(10)).unwrap();
        vault.set("a", "2".into(), at(20)).unwrap();
        let restored = vault.restore("a", &before.version, at(30));
        assert_eq!(restored.unwrap(), before);
        assert_eq!(value(&vault, "a"), "1");
        assert_eq!(vault.secret("a").unwrap().versions().len(), 1);
        assert!(vault.restore("a", "no version", at(30)).is_err());
    }

    #[test]
    fn a_vault_that_remembers_can_be_asked_how_it_was() {
        let mut vault = Vault::default();
        vault.set("a", "1".into(), at(10)).unwrap();
        vault.remember(true);
        vault.set("a", "2".into(), at(20)).unwrap();
        vault.delete("a", at(30)).unwrap();
        assert_eq!(value(&vault.as_it_was(at(19).now), "a"), "1");
        assert_eq!(value(&vault.as_it_was(at(20).now), "a"), "2");
        assert!(vault.as_it_was(at(30).now).secret("a").is_err());
    }

    #[test]
    fn times_are_by_the_vaults_own_clock() {
        let mut vault = Vault::default();
        vault.set_clock_ahead(SignedDuration::from_secs(-100));
        assert_eq!(vault.set("a", "1".into(), at(1000)).unwrap().updated, 900);
        assert_eq!(vault.clock(at(1000)), at(900).now);
    }

    #[test]
    fn a_recovered_secret_has_its_old_times() {
        let mut vault = Vault::default();
        let before = vault.set("a", "1".into(), at(10)).unwrap();
        vault.delete("a", at(20)).unwrap();
        assert_eq!(
            vault.recover("a", at(21)).unwrap().current.updated,
            before.updated
        );
        assert_eq!(value(&vault, "a"), "1");
    }

    #[test]
    fn a_disabled_secret_is_refused_and_an_expired_one_served() {
        let mut vault = Vault::default();
        let mut expired = NewSecret::from("1");
        expired.exp = Some(5);
        vault.set("a", expired, at(10)).unwrap();
        assert_eq!(value(&vault, "a"), "1");
        let off = Changes {
            enabled: Some(false),
            ..Changes::default()
        };
        assert_eq!(vault.update("a", None, off, at(12)).unwrap().updated, 12);
        let refusal = vault.get("a", None).unwrap_err();
        assert_eq!(refusal.inner.as_deref(), Some("SecretDisabled"));
    }

    #[test]
    fn an_update_leaves_out_what_it_does_not_name() {
        let mut vault = Vault::default();
        let mut secret = NewSecret::from("1");
        secret.content_type = Some("text/plain".to_owned());
        secret.exp = Some(100);
        vault.set("a", secret, at(10)).unwrap();
        let tags = Changes {
            tags: Some([("k".to_owned(), "v".to_owned())].into()),
            ..Changes::default()
        };
        vault.update("a", None, tags, at(11)).unwrap();
        let (_, _, version) = vault.get("a", None).unwrap();
        assert_eq!(version.content_type.as_deref(), Some("text/plain"));
        assert_eq!(
            (version.exp, version.created, version.updated),
            (Some(100), 10, 11)
        );
        assert_eq!(version.tags.as_ref().unwrap()["k"], "v");
    }

    #[test]
    fn values_over_the_limit_and_periods_that_end_before_they_start_are_bad_parameters() {
        let mut vault = Vault::default();
        vault
            .set("a", "x".repeat(MAX_VALUE_BYTES).into(), at(1))
            .unwrap();
        let long = vault.set("a", "x".repeat(MAX_VALUE_BYTES + 1).into(), at(1));
        assert_eq!(long.unwrap_err().code, "BadParameter");
        let mut backwards = NewSecret::from("1");
        (backwards.nbf, backwards.exp) = (Some(9), Some(8));
        assert_eq!(vault.set("a", backwards, at(1)).unwrap_err().status, 400);
    }
}
