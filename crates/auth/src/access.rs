use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use crate::{Auth, AuthConfig, LoadError};

/// The rules in force, shared by everything that asks. A clone is one more handle on the same.
#[derive(Clone, Debug)]
pub struct Access(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Held during a reload, so that two of them cannot overtake each other.
    config: Mutex<AuthConfig>,
    current: RwLock<Arc<Auth>>,
    generation: AtomicU64,
}

impl Access {
    /// Loads the rules for the first time, as generation 1.
    pub fn new(config: AuthConfig) -> Result<Self, LoadError> {
        let current = RwLock::new(Arc::new(Auth::load(&config)?));
        Ok(Self(Arc::new(Shared { config: Mutex::new(config), current, generation: AtomicU64::new(1) })))
    }

    /// The rules in force. Any thread; a short lock that only a reload ever holds for writing.
    pub fn current(&self) -> Arc<Auth> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many times the rules were replaced, plus one. One atomic load: what a cache of answers is checked
    /// against before each use. Who takes the generation first and [`Access::current`] after it never keeps an
    /// old answer under a new generation.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Reads the same files again and puts the result in force; says what changed (nothing: an empty list, yet a
    /// new generation). If any file has a mistake, the old rules stay and the error says where.
    pub fn reload(&self) -> Result<Vec<String>, LoadError> {
        let config = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(&config)
    }

    /// The same with another configuration, which later reloads use too.
    pub fn reload_with(&self, config: AuthConfig) -> Result<Vec<String>, LoadError> {
        let mut current = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.replace(&config)?;
        *current = config;
        Ok(changed)
    }

    /// Only with `config` locked, so that nothing else replaces the rules meanwhile.
    fn replace(&self, config: &AuthConfig) -> Result<Vec<String>, LoadError> {
        let new = Arc::new(Auth::load(config)?);
        let changed = self.current().differences(&new);
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.0.generation.fetch_add(1, Ordering::Release);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use firehose_topic::TopicName;

    use super::*;
    use crate::{AnonymousMode, HashKind, Identity, PasswordFile};

    #[test]
    fn a_reload_says_what_changed_and_a_broken_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (passwords, acl) = (folder.path().join("passwd"), folder.path().join("acl"));
        let mut file = PasswordFile::default();
        file.set("a", b"1", HashKind::Argon2id).unwrap();
        file.set("b", b"2", HashKind::Argon2id).unwrap();
        file.write(&passwords).unwrap();
        fs::write(&acl, "topic read #\nuser a\ntopic a/#\n").unwrap();
        let access = Access::new(AuthConfig {
            password_file: Some(passwords.clone()),
            acl_file: Some(acl.clone()),
            anonymous: AnonymousMode::Read,
        })
        .unwrap();
        assert_eq!((access.generation(), access.reload().unwrap()), (1, vec![]));

        file.delete("b");
        file.set("a", b"3", HashKind::Argon2id).unwrap();
        file.set("c", b"4", HashKind::Argon2id).unwrap();
        file.write(&passwords).unwrap();
        fs::write(&acl, "topic read open/#\nuser a\ntopic a/#\npattern read %u/x\n").unwrap();
        let changed = access.clone().reload().unwrap();
        assert_eq!(
            changed,
            [
                "user `b` is gone",
                "the password of user `a` changed",
                "user `c` is new",
                "acl: the rules of the anonymous changed",
                "acl: the patterns changed"
            ]
        );
        assert_eq!(access.generation(), 3);
        assert!(access.current().knows_user("c") && !access.current().knows_user("b"));

        fs::write(&acl, "topic read #\ntopik read #\n").unwrap();
        let error = access.reload().unwrap_err();
        assert_eq!((error.path.as_path(), error.line), (acl.as_path(), Some(2)));
        assert_eq!(access.generation(), 3);
        let topic = TopicName::new("closed/x").unwrap();
        assert!(!access.current().may_read(&Identity::anonymous(), "c", topic));
        fs::remove_file(&passwords).unwrap();
        assert_eq!(access.reload().unwrap_err().path, passwords);
    }

    #[test]
    fn another_configuration_is_taken_whole_or_not_at_all() {
        let access = Access::new(AuthConfig::default()).unwrap();
        let broken = AuthConfig { acl_file: Some("/no/such/file".into()), ..AuthConfig::default() };
        assert!(access.reload_with(broken).is_err());
        assert!(access.reload().is_ok());
        let none = AuthConfig { anonymous: AnonymousMode::None, ..AuthConfig::default() };
        assert_eq!(access.reload_with(none).unwrap(), ["anonymous: Read became None"]);
        assert!(access.current().authenticate(None, None).is_err());
    }
}
