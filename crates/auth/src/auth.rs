use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    path::Path,
};

use firehose_topic::{TopicFilter, TopicName};

use crate::{
    Acl, AnonymousMode, AuthConfig, Identity, LoadError, PasswordFile, Verdict, acl::Right, hash::Hash,
    load_error::read_file,
};

/// One generation of all rules: what the configuration and its two files said when it was loaded. Never changes;
/// [`crate::Access`] puts the next one in its place.
#[derive(Debug)]
pub struct Auth {
    users: HashMap<Box<str>, Hash>,
    names: Vec<Box<str>>,
    has_password_file: bool,
    acl: Option<Acl>,
    anonymous: AnonymousMode,
    /// Which user's hash stands in for that of a user who is not there; secret, so that nobody can compute it.
    stand_in: RandomState,
}

/// Why somebody is not let in. Both are told to the client as little as the protocol allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such user, or another password (5.0: 0x86; 3.x: 4).
    BadUserNameOrPassword,
    /// A user name is needed here (5.0: 0x87; 3.x: 5).
    NotAuthorized,
}

impl Auth {
    /// Reads the files that the configuration names. Any mistake in them is an error that says where.
    pub fn load(config: &AuthConfig) -> Result<Self, LoadError> {
        let passwords = config.password_file.as_deref().map(PasswordFile::read).transpose()?;
        let acl = config.acl_file.as_deref().map(read_acl).transpose()?;
        let mut names = Vec::new();
        let mut users = HashMap::new();
        let has_password_file = passwords.is_some();
        for (name, hash) in passwords.iter().flat_map(PasswordFile::entries) {
            names.push(Box::from(name));
            users.insert(Box::from(name), hash.clone());
        }
        let anonymous = config.anonymous;
        Ok(Self { users, names, has_password_file, acl, anonymous, stand_in: RandomState::new() })
    }

    /// Finds out who somebody is by what CONNECT (or HTTP Basic) said.
    ///
    /// Takes as long as a password hash does, some tens of milliseconds, and the same for a user who is not there:
    /// not for a shard's thread. Without a password file, `anonymous = "full"` takes any user name for nobody's, as
    /// a plain broker would; otherwise a user name needs a password that fits.
    pub fn authenticate(&self, user: Option<&str>, password: Option<&[u8]>) -> Result<Identity, Refused> {
        let full_without_users = self.anonymous == AnonymousMode::Full && !self.has_password_file;
        let Some(user) = user.filter(|_| !full_without_users) else {
            return match self.anonymous {
                AnonymousMode::None => Err(Refused::NotAuthorized),
                AnonymousMode::Read | AnonymousMode::Full => Ok(Identity::anonymous()),
            };
        };
        let known = self.users.get(user);
        let right =
            known.or_else(|| self.stand_in(user)).is_some_and(|hash| hash.verify(password.unwrap_or(b"")));
        if right && known.is_some() && password.is_some() {
            Ok(Identity::user(user))
        } else {
            Err(Refused::BadUserNameOrPassword)
        }
    }

    /// Whether `who` may publish to `topic`. Names of the broker's own are not looked at: see [`is_reserved`].
    pub fn may_publish(&self, who: &Identity, client_id: &str, topic: TopicName<'_>) -> bool {
        if who.is_anonymous() && self.anonymous != AnonymousMode::Full {
            return false;
        }
        match (&self.acl, who.name()) {
            (Some(acl), user) => acl.allows(user, client_id, topic, Right::Write),
            (None, None) => true,
            (None, Some(user)) => self.anonymous == AnonymousMode::Full || is_own(user, topic),
        }
    }

    /// Whether `who` may be given an event of `topic`.
    pub fn may_read(&self, who: &Identity, client_id: &str, topic: TopicName<'_>) -> bool {
        if who.is_anonymous() && self.anonymous == AnonymousMode::None {
            return false;
        }
        match &self.acl {
            Some(acl) => acl.allows(who.name(), client_id, topic, Right::Read),
            None => true,
        }
    }

    /// What `who` may read of all that `filter` matches: decided once per subscription and generation, so that the
    /// hot path has nothing to check for [`Verdict::All`].
    pub fn read_verdict(&self, who: &Identity, client_id: &str, filter: &TopicFilter) -> Verdict {
        if who.is_anonymous() && self.anonymous == AnonymousMode::None {
            return Verdict::Denied;
        }
        match &self.acl {
            Some(acl) => acl.read_verdict(who.name(), client_id, filter),
            None => Verdict::All,
        }
    }

    /// Whether the anonymous may do what a user may (`anonymous = "full"`), within the ACL file.
    pub fn is_open(&self) -> bool {
        self.anonymous == AnonymousMode::Full
    }

    /// Whether `who` may leave a will at all; where to is checked when it fires.
    pub fn may_have_will(&self, who: &Identity) -> bool {
        !who.is_anonymous() || self.is_open()
    }

    /// Whether what somebody may read can depend on their client id, so that one user's verdict is not another's of
    /// the same name.
    pub fn uses_client_id(&self) -> bool {
        self.acl.as_ref().is_some_and(Acl::has_patterns)
    }

    /// Whether this user is in the password file: those who are not after a reload are disconnected.
    pub fn knows_user(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// All users, in the password file's order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// What differs in `new`, in words for a log line.
    pub(crate) fn differences(&self, new: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for name in self.users().filter(|name| !new.knows_user(name)) {
            differences.push(format!("user `{name}` is gone"));
        }
        for (name, hash) in new.users().filter_map(|name| new.users.get(name).map(|hash| (name, hash))) {
            match self.users.get(name) {
                None => differences.push(format!("user `{name}` is new")),
                Some(old) if old != hash => {
                    differences.push(format!("the password of user `{name}` changed"))
                }
                Some(_) => {}
            }
        }
        if self.anonymous != new.anonymous {
            differences.push(format!("anonymous: {:?} became {:?}", self.anonymous, new.anonymous));
        }
        match (&self.acl, &new.acl) {
            (Some(old), Some(new)) => differences.extend(old.differences(new)),
            (Some(_), None) => differences.push("acl: there is no ACL file any more".to_owned()),
            (None, Some(_)) => differences.push("acl: there is an ACL file now".to_owned()),
            (None, None) => {}
        }
        differences
    }

    /// The hash that is checked in place of an unknown user's, always the same for one name. Because it is one of
    /// the file's own, the time that it takes says nothing even when the file mixes several kinds.
    fn stand_in(&self, user: &str) -> Option<&Hash> {
        let index = self.stand_in.hash_one(user) % u64::try_from(self.names.len().max(1)).ok()?;
        self.names.get(usize::try_from(index).ok()?).and_then(|name| self.users.get(name))
    }
}

/// Whether a name is the broker's own: `$SYS`, `$replay`, `$share` and `firehose`, and everything below them. No client
/// may publish there, whatever an ACL file says. (What were published below `$replay` and `$share` nobody could ask for.)
pub fn is_reserved(topic: TopicName<'_>) -> bool {
    matches!(topic.levels().next(), Some("$SYS" | "$replay" | "$share" | "firehose"))
}

fn read_acl(path: &Path) -> Result<Acl, LoadError> {
    Acl::parse(&read_file(path)?).map_err(|error| LoadError::at(path, error))
}

/// `<user>/#`. A name with a `/` would reach into another user's part, so it has none.
fn is_own(user: &str, topic: TopicName<'_>) -> bool {
    !user.contains('/') && topic.levels().next() == Some(user)
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
