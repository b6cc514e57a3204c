use super::*;
use crate::HashKind;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn load(&self, passwords: &[(&str, &str)], acl: Option<&str>, anonymous: AnonymousMode) -> Auth {
        let mut config = AuthConfig { anonymous, ..AuthConfig::default() };
        if !passwords.is_empty() {
            let mut file = PasswordFile::default();
            for (user, password) in passwords {
                file.set(user, password.as_bytes(), HashKind::Argon2id).unwrap();
            }
            let path = self.0.path().join("passwd");
            file.write(&path).unwrap();
            config.password_file = Some(path);
        }
        if let Some(text) = acl {
            let path = self.0.path().join("acl");
            std::fs::write(&path, text).unwrap();
            config.acl_file = Some(path);
        }
        Auth::load(&config).unwrap()
    }
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

#[test]
fn a_user_needs_the_right_password_and_nobody_learns_why_it_was_wrong() {
    let folder = Folder::new();
    let auth = folder.load(&[("bob", "pw"), ("eve", "")], None, AnonymousMode::Full);
    assert_eq!(auth.authenticate(Some("bob"), Some(b"pw")), Ok(Identity::user("bob")));
    assert_eq!(auth.authenticate(Some("eve"), Some(b"")), Ok(Identity::user("eve")));
    for (user, password) in [
        ("bob", Some(&b"pW"[..])),
        ("bob", Some(b"")),
        ("bob", None),
        ("eve", None),
        ("nobody", Some(b"pw")),
        ("nobody", None),
        ("", Some(b"pw")),
    ] {
        assert_eq!(auth.authenticate(Some(user), password), Err(Refused::BadUserNameOrPassword), "{user}");
    }
    assert_eq!(auth.authenticate(None, None), Ok(Identity::anonymous()));
    assert_eq!(auth.authenticate(None, Some(b"pw")), Ok(Identity::anonymous()));
    assert_eq!(auth.users().collect::<Vec<_>>(), ["bob", "eve"]);
    assert!(auth.knows_user("bob") && !auth.knows_user("nobody"));
}

#[test]
fn an_unknown_user_costs_the_hash_of_a_known_one() {
    let folder = Folder::new();
    let auth = folder.load(&[("bob", "pw"), ("eve", "pw")], None, AnonymousMode::Read);
    let stood_in: Vec<_> = (0..64).map(|n| auth.stand_in(&n.to_string()).unwrap().to_string()).collect();
    assert_eq!(stood_in[7], auth.stand_in("7").unwrap().to_string());
    let distinct: std::collections::HashSet<_> = stood_in.iter().collect();
    assert_eq!(distinct.len(), 2);
}

#[test]
fn without_a_password_file_a_user_name_is_refused_unless_everybody_may_do_everything() {
    let folder = Folder::new();
    for mode in [AnonymousMode::Read, AnonymousMode::None] {
        let refused = folder.load(&[], None, mode).authenticate(Some("bob"), Some(b"pw"));
        assert_eq!(refused, Err(Refused::BadUserNameOrPassword));
    }
    let full = folder.load(&[], None, AnonymousMode::Full);
    assert_eq!(full.authenticate(Some("bob"), Some(b"pw")), Ok(Identity::anonymous()));
}

#[test]
fn without_an_acl_file_everybody_reads_everything_and_a_user_writes_below_its_own_name() {
    let auth = Folder::new().load(&[], None, AnonymousMode::Read);
    let (nobody, bob) = (Identity::anonymous(), Identity::user("bob"));
    for topic in ["a", "bob/x", "$SYS/x", "firehose/status/gerrit"] {
        assert!(auth.may_read(&nobody, "c", name(topic)) && auth.may_read(&bob, "c", name(topic)));
    }
    assert_eq!(auth.read_verdict(&nobody, "c", &TopicFilter::new("$SYS/#").unwrap()), Verdict::All);
    assert!(auth.may_publish(&bob, "c", name("bob")) && auth.may_publish(&bob, "c", name("bob/a/b")));
    assert!(!auth.may_publish(&bob, "c", name("bobby/a")) && !auth.may_publish(&bob, "c", name("/bob")));
    assert!(!auth.may_publish(&Identity::user("bob/a"), "c", name("bob/a/b")));
    assert!(!auth.may_publish(&nobody, "c", name("a")) && !auth.may_publish(&nobody, "bob", name("bob/x")));
}

#[test]
fn the_anonymous_publish_only_in_full_mode_and_then_as_the_acl_file_says() {
    let folder = Folder::new();
    let nobody = Identity::anonymous();
    let rules = Some("topic readwrite open/#\npattern write %c/#\n");
    let read = folder.load(&[], rules, AnonymousMode::Read);
    assert!(!read.may_publish(&nobody, "c", name("open/x")) && !read.may_publish(&nobody, "c", name("c/x")));
    assert!(read.may_read(&nobody, "c", name("open/x")) && !read.may_read(&nobody, "c", name("c/x")));
    let full = folder.load(&[], rules, AnonymousMode::Full);
    assert!(full.may_publish(&nobody, "c", name("open/x")) && full.may_publish(&nobody, "c", name("c/x")));
    assert!(!full.may_publish(&nobody, "c", name("d/x")));
    let full = folder.load(&[], None, AnonymousMode::Full);
    assert!(
        full.may_publish(&nobody, "c", name("x")) && full.may_publish(&Identity::user("u"), "c", name("x"))
    );
}

#[test]
fn without_the_anonymous_nothing_is_theirs_by_any_door() {
    let auth = Folder::new().load(&[], Some("topic readwrite #\n"), AnonymousMode::None);
    let nobody = Identity::anonymous();
    assert_eq!(auth.authenticate(None, None), Err(Refused::NotAuthorized));
    assert!(!auth.may_read(&nobody, "c", name("x")) && !auth.may_publish(&nobody, "c", name("x")));
    assert_eq!(auth.read_verdict(&nobody, "c", &TopicFilter::new("x").unwrap()), Verdict::Denied);
}

#[test]
fn names_of_the_brokers_own_are_known() {
    for topic in ["$SYS", "$SYS/x", "$replay/earliest/x", "$share/a/b", "firehose", "firehose/x"] {
        assert!(is_reserved(name(topic)), "{topic}");
    }
    for topic in ["$SYSx", "$sys/x", "/firehose", "firehose2/x", "a/firehose", "$other"] {
        assert!(!is_reserved(name(topic)), "{topic}");
    }
}
