use std::path::PathBuf;

/// Where the rules are: the `[auth]` table of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// Users and their password hashes, as `mosquitto_passwd` or `firehose passwd` writes them. Without one, nobody
    /// is a user.
    pub password_file: Option<PathBuf>,
    /// Who may read and write which topics, in mosquitto's format. Without one: see the table in the crate's docs.
    pub acl_file: Option<PathBuf>,
    /// What somebody without a user name may do.
    pub anonymous: AnonymousMode,
}

/// What somebody without a user name may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnonymousMode {
    /// Read what the ACL file allows, never publish.
    #[default]
    Read,
    /// Nothing: the connection is refused.
    None,
    /// Read and write what the ACL file allows, or everything if there is none: a plain broker, for tests and
    /// private networks.
    Full,
}
