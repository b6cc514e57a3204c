//! `firehose passwd` and Debian's mosquitto_passwd write files that both understand.

mod process;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use firehose_auth::PasswordFile;
use process::{run, run_with_input};

fn verify(path: &Path, user: &str, password: &str) -> bool {
    PasswordFile::read(path).expect("it is a password file").verify(user, password.as_bytes())
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}

#[test]
fn users_are_added_changed_and_deleted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("passwd");
    let file = path_text(&path);
    assert_eq!(run(["passwd", file, "ann"]).code, Some(2), "without -c there must be a file");
    assert_eq!(run(["passwd", "-c", "-b", file, "ann", "one"]).code, Some(0));
    assert_eq!(run(["passwd", "-b", "-H", "argon2id", file, "bob", "two"]).code, Some(0));
    assert!(verify(&path, "ann", "one") && verify(&path, "bob", "two"));
    let text = fs::read_to_string(&path).expect("it is there");
    assert!(text.contains("ann:$7$") && text.contains("bob:$argon2id$"), "{text}");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o077, 0);
    assert_eq!(run_with_input(&["passwd", file, "ann"], b"three\n").code, Some(0));
    assert!(verify(&path, "ann", "three") && !verify(&path, "ann", "one"));
    assert_eq!(run(["passwd", "-D", file, "bob"]).code, Some(0));
    assert!(!verify(&path, "bob", "two"));
    assert_eq!(run(["passwd", "-D", file, "bob"]).code, Some(1));
    assert_eq!(run_with_input(&["passwd", file, "ann"], b"\n").code, Some(2));
    assert!(verify(&path, "ann", "three"));
}

#[test]
fn a_file_of_mosquitto_passwd_is_edited() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("passwd");
    let file = path_text(&path);
    let made = Command::new("mosquitto_passwd").args(["-c", "-b", file, "theirs", "one"]).status();
    assert!(made.expect("mosquitto_passwd is installed").success());
    assert_eq!(run(["passwd", "-b", file, "ours", "two"]).code, Some(0));
    let changed = Command::new("mosquitto_passwd").args(["-b", file, "third", "three"]).status();
    assert!(changed.expect("mosquitto_passwd is installed").success());
    for (user, password) in [("theirs", "one"), ("ours", "two"), ("third", "three")] {
        assert!(verify(&path, user, password), "{user}");
    }
}

#[test]
fn plain_passwords_are_hashed_as_mosquitto_passwd_hashes_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("passwd");
    fs::write(&path, "ann:one\nbob:two\n").expect("it can be written");
    assert_eq!(run(["passwd", "-U", path_text(&path)]).code, Some(0));
    assert!(verify(&path, "ann", "one") && verify(&path, "bob", "two"));
    assert!(!fs::read_to_string(&path).expect("it is there").contains(":one"));
}
