//! Who may do what: password files, access lists, identities. mosquitto's formats.
//!
//! A broker keeps one [`Access`]. The lobby asks its [`Auth`] once per connection who is there
//! ([`Auth::authenticate`], slow on purpose, so never on a shard); the answer is an [`Identity`], and the shards ask
//! per topic what it may do. [`Access::reload`] replaces the whole `Auth` or nothing: a file with a mistake leaves
//! the old one in force. [`Access::generation`] is what a cache of answers is keyed by.
//!
//! | | no ACL file | with an ACL file |
//! |---|---|---|
//! | user reads | everything | what the rules say |
//! | user writes | `<user>/#` (`full`: everything) | what the rules say |
//! | anonymous reads (`read`, `full`) | everything | what the rules say |
//! | anonymous writes (`read`) | nothing | nothing |
//! | anonymous writes (`full`) | everything | what the rules say |
//! | anonymous at all (`none`) | refused | refused |
//!
//! Names of the broker's own ([`is_reserved`]) are no client's to publish to, whatever the rules say; the broker
//! asks for that itself.

mod access;
mod acl;
mod auth;
mod config;
pub mod hash;
mod identity;
mod load_error;
pub mod password_file;

pub use access::Access;
pub use acl::{Acl, Verdict};
pub use auth::{Auth, Refused, is_reserved};
pub use config::{AnonymousMode, AuthConfig};
pub use hash::HashKind;
pub use identity::Identity;
pub use load_error::{LineError, LoadError};
pub use password_file::PasswordFile;
