//! What a world is made with.

use firehose_auth::{Access, AnonymousMode, AuthConfig};
use firehose_broker::Limits;
use firehose_broker::sequencer::{Durability, Role};
use firehose_topic::TopicFilter;

/// What a world is made with.
#[derive(Clone)]
pub struct Setup {
    pub shards: usize,
    pub durability: Durability,
    pub role: Role,
    pub limits: Limits,
    pub unlogged: Vec<TopicFilter>,
    pub anonymous: AnonymousMode,
    /// Lines of an ACL file; none: no such file.
    pub acl: Option<&'static str>,
    /// Users of the password file; none: no such file.
    pub users: Vec<&'static str>,
    pub tail_bytes: usize,
    pub segment_bytes: u64,
    pub retention_bytes: Option<u64>,
    pub disk_reserve_bytes: u64,
    pub disk_check_secs: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            shards: 1,
            durability: Durability::Os,
            role: Role::Depositor,
            limits: Limits::default(),
            unlogged: Vec::new(),
            anonymous: AnonymousMode::Full,
            acl: None,
            users: Vec::new(),
            tail_bytes: 1 << 20,
            segment_bytes: 1 << 20,
            retention_bytes: None,
            disk_reserve_bytes: 0,
            disk_check_secs: 1,
        }
    }
}

/// The rules of a world, from files in the folder.
pub fn access(setup: &Setup, folder: &tempfile::TempDir) -> Access {
    let acl_file = setup.acl.map(|lines| {
        let path = folder.path().join("acl");
        std::fs::write(&path, lines).expect("written");
        path
    });
    let password_file = (!setup.users.is_empty()).then(|| {
        let path = folder.path().join("passwd");
        let mut file = firehose_auth::PasswordFile::default();
        for user in &setup.users {
            file.set(user, b"secret", firehose_auth::HashKind::Sha512Pbkdf2).expect("set");
        }
        file.write(&path).expect("written");
        path
    });
    Access::new(AuthConfig { password_file, acl_file, anonymous: setup.anonymous }).expect("loads")
}
