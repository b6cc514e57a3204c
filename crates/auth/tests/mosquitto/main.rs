//! The same files given to Debian's mosquitto and to us must mean the same: random ACL files, users, client ids and
//! topics, what mosquitto delivered against what [`Auth`] says. `FIREHOSE_ACL_FILES` sets how many ACL files are
//! tried (120), `FIREHOSE_SEED` another seed than the fixed one.

mod broker;
mod client;
mod random;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use broker::Broker;
use client::Client;
use firehose_auth::{Acl, AnonymousMode, Auth, AuthConfig, HashKind, Identity, PasswordFile, Verdict};
use firehose_topic::{TopicFilter, TopicName};
use random::Random;

/// Sees and may do everything: its own rules come before all patterns.
const OBSERVER: &str = "observer";
const USERS: [&str; 5] = ["bob", "eve", "a/b", "w+", "h#"];
const PASSWORD: &str = "pw";
const FILTERS: [&str; 8] = ["#", "#", "a/#", "+/bob", "$other/#", "bob/+/#", "c d/#", "$other/a/+"];
const TOPICS_PER_CLIENT: usize = 24;

#[test]
fn acl_files_mean_what_mosquitto_makes_of_them() {
    let mut random = Random::new(number("FIREHOSE_SEED", 20_261_123));
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwd");
    for user in USERS.iter().chain([&OBSERVER]) {
        mosquitto_passwd(&["-b"], &passwords, &[user, PASSWORD]);
    }
    let (mut allowed, mut denied) = (0, 0);
    for _ in 0..number("FIREHOSE_ACL_FILES", 120) {
        let text = acl_text(&mut random);
        let acl = folder.path().join("acl");
        fs::write(&acl, &text).unwrap();
        let auth = Auth::load(&AuthConfig {
            password_file: Some(passwords.clone()),
            acl_file: Some(acl.clone()),
            anonymous: AnonymousMode::Full,
        })
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
        let broker = Broker::start(folder.path(), Some(&passwords), Some(&acl))
            .unwrap_or_else(|output| panic!("mosquitto does not take this ACL file: {output}\n{text}"));
        for _ in 0..4 {
            let asker = Asker {
                user: random.user(&["bob", "bob", "bob", "eve", "w+", "a/b", "h#"]),
                client_id: random.one(&["c1", "c1", "bob", "eve", "x/y", "c+", "#"]),
            };
            let topics: Vec<String> =
                (0..TOPICS_PER_CLIENT).map(|_| topic(&text, asker, &mut random)).collect();
            compare(&broker, &auth, asker, &topics, random.one(&FILTERS), &mut |what, theirs, ours| {
                assert!(
                    asker.agree(theirs, ours),
                    "{what}: mosquitto {theirs}, we {ours}, {asker:?}\n{text}"
                );
                *(if theirs { &mut allowed } else { &mut denied }) += 1;
            });
        }
    }
    assert!(allowed > 500 && denied > 500, "too few cases of a kind: {allowed} allowed, {denied} denied");
}

#[test]
fn acl_files_that_mosquitto_refuses_are_refused_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    for text in [
        "",
        "\n\n",
        "# c\n",
        " # c\n",
        "\t# c\n",
        "topic",
        "topic \n",
        "topic read\n",
        "topic read \n",
        "topic a b\n",
        "topic  read   a b \r\n",
        "topic deny #\n",
        "topic readwrite a/+/#\n",
        "topic read a/#/b\n",
        "topic read a+\n",
        "topic read +a\n",
        "topic read #a\n",
        "topic read a#\n",
        "Topic read a\n",
        "topic Read a\n",
        "user\n",
        "user \n",
        "user a b\n",
        "user  bob  \ntopic a\n",
        "pattern\n",
        "pattern %u/%c\n",
        "pattern write a%ub/#\n",
        "pattern read %u+\n",
        "   topic read a\n",
        "\ttopic read a\n",
        "topic\tread a\n",
        "topic read\ta\n",
        "topic read a\ttopic b\n",
        "use bob\n",
        "  \t \n",
        "topic read /\n",
        "topic read a\u{a0}\n",
        "user \tbob\t\ntopic a\n",
        "user \x0b\ntopic a\n",
        "topic read //+\n",
    ] {
        fs::write(&acl, text).unwrap();
        let theirs = Broker::start(folder.path(), None, Some(&acl)).is_ok();
        let ours = Acl::parse(text.as_bytes());
        assert_eq!(theirs, ours.is_ok(), "{text:?}: mosquitto takes it: {theirs}, we: {ours:?}");
    }
}

#[test]
fn password_files_work_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passwd");
    fs::write(&path, "# people\n\n").unwrap();
    mosquitto_passwd(&["-b"], &path, &["plain", "let me in"]);
    mosquitto_passwd(&["-H", "sha512", "-b"], &path, &["old", "päss wörd"]);
    mosquitto_passwd(&["-H", "sha512-pbkdf2", "-b"], &path, &["new", "x"]);
    let mut file = PasswordFile::read(&path).unwrap();
    file.set("ours", b"o:u$r s", HashKind::Sha512Pbkdf2).unwrap();
    file.write(&path).unwrap();
    mosquitto_passwd(&["-b"], &path, &["gone", "x"]);
    mosquitto_passwd(&["-D"], &path, &["gone"]);

    let config = AuthConfig { password_file: Some(path.clone()), ..AuthConfig::default() };
    let auth = Auth::load(&config).unwrap();
    let broker = Broker::start(folder.path(), Some(&path), None).unwrap();
    let rights = [("plain", "let me in"), ("old", "päss wörd"), ("new", "x"), ("ours", "o:u$r s")];
    for (user, _) in rights.iter().chain([&("gone", "")]) {
        for password in rights.iter().map(|(_, password)| Some(*password)).chain([None, Some("")]) {
            let theirs = Client::connect(&broker, "id", Some(user), password).is_some();
            let ours = auth.authenticate(Some(user), password.map(str::as_bytes)).is_ok();
            assert_eq!(theirs, ours, "{user} {password:?}");
            assert_eq!(theirs, rights.iter().any(|right| (right.0, Some(right.1)) == (*user, password)));
        }
    }
    assert!(Client::connect(&broker, "id", None, None).is_some() && auth.authenticate(None, None).is_ok());
}

#[derive(Clone, Copy, Debug)]
struct Asker {
    user: Option<&'static str>,
    client_id: &'static str,
}

impl Asker {
    /// The same, except that names with a slash get less from us.
    fn agree(self, theirs: bool, ours: bool) -> bool {
        let slash = self.client_id.contains('/') || self.user.is_some_and(|user| user.contains('/'));
        theirs == ours || (slash && !ours)
    }
}

/// Plays one client against mosquitto and gives (what, mosquitto's answer, ours) for each topic and right.
fn compare(
    broker: &Broker,
    auth: &Auth,
    asker: Asker,
    topics: &[String],
    filter: &str,
    each: &mut impl FnMut(String, bool, bool),
) {
    let who = asker.user.map_or_else(Identity::anonymous, Identity::user);
    let mut observer = Client::connect(broker, "watch", Some(OBSERVER), Some(PASSWORD)).unwrap();
    observer.subscribe("#");
    observer.subscribe("$other/#");
    let mut client =
        Client::connect(broker, asker.client_id, asker.user, asker.user.map(|_| PASSWORD)).unwrap();
    client.subscribe(filter);

    // The broker works in order: what it has answered a ping after, it has delivered.
    observer.publish_numbered(topics);
    observer.ping();
    let read = numbers(client.ping());
    let filter = TopicFilter::new(filter).unwrap();
    let verdict = auth.read_verdict(&who, asker.client_id, &filter);
    for (number, text) in topics.iter().enumerate() {
        let topic = TopicName::new(text).unwrap();
        if filter.matches(topic) {
            let ours = auth.may_read(&who, asker.client_id, topic);
            each(format!("read {text} by {filter}"), read.contains(&number), ours);
            assert!(
                verdict == Verdict::PerTopic || ours == (verdict == Verdict::All),
                "{verdict:?} {text} {filter}"
            );
        } else {
            assert!(!read.contains(&number), "{filter} {text}");
        }
    }

    client.publish_numbered(topics);
    client.ping();
    let written = numbers(observer.ping());
    for (number, text) in topics.iter().enumerate() {
        let ours = auth.may_publish(&who, asker.client_id, TopicName::new(text).unwrap());
        each(format!("write {text}"), written.contains(&number), ours);
    }
}

fn numbers(payloads: Vec<Vec<u8>>) -> BTreeSet<usize> {
    payloads.into_iter().map(|payload| String::from_utf8(payload).unwrap().parse().unwrap()).collect()
}

/// A random topic, or one that a random rule of the file is about.
fn topic(acl: &str, asker: Asker, random: &mut Random) -> String {
    let levels = ["a", "a", "b", "b", "c d", "bob", "bob", "c1", "", "x", "%u"];
    let rules: Vec<&str> = acl.lines().filter(|line| !line.starts_with(['u', '#'])).collect();
    let mut text: Vec<String> = (0..1 + random.below(3)).map(|_| random.one(&levels).to_owned()).collect();
    if random.below(3) > 0 {
        let rule = rules[usize::try_from(random.below(rules.len() as u64)).unwrap()];
        let words = ["topic", "pattern", "readwrite", "read", "write", "deny"];
        let filter =
            words.iter().fold(rule, |rest, word| rest.trim_start().strip_prefix(word).unwrap_or(rest));
        let filled = filter.trim().replace("%u", asker.user.unwrap_or("%u")).replace("%c", asker.client_id);
        text = filled.split('/').map(ToOwned::to_owned).collect();
        for level in &mut text {
            if level.contains(['+', '#']) {
                *level = random.one(&levels).to_owned();
            }
        }
    } else if random.below(5) == 0 {
        text.insert(0, "$other".to_owned());
    }
    match text.join("/") {
        empty if empty.is_empty() => "/".to_owned(),
        text => text,
    }
}

fn acl_text(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..4 + random.below(16) {
        let word = match random.below(8) {
            0 => {
                text += &format!("user {}\n", random.one(&["bob", "bob", "bob", "eve", "w+", "a/b"]));
                continue;
            }
            1..=4 => "topic",
            5 => "# a comment\n  topic",
            _ => "pattern",
        };
        let access = random.one(&["read ", "write ", "readwrite ", "deny ", "deny ", ""]);
        text += &format!("{word} {access}{}\n", filter(random, !access.is_empty()));
    }
    // Patterns with a denial must not blind the observer: its own allowance comes first.
    text + &format!("user {OBSERVER}\ntopic readwrite #\ntopic readwrite $other/#\n")
}

/// Mostly from a few levels, so that rules meet one another; seldom from odd ones.
fn filter(random: &mut Random, spaces: bool) -> String {
    let few = ["a", "a", "b", "bob", "c1", "+", "+", "%u", "%c"];
    let odd = ["c d", "", "x%c", "%%u", "%", "eve"];
    let mut text: Vec<&str> = (0..1 + random.below(2))
        .map(|_| if random.below(8) == 0 { random.one(&odd) } else { random.one(&few) })
        .collect();
    text.retain(|level| spaces || !level.contains(' '));
    if random.below(8) == 0 {
        text.insert(0, "$other");
    }
    if text.join("/").is_empty() || random.below(2) == 0 {
        text.push("#");
    }
    text.join("/")
}

fn mosquitto_passwd(options: &[&str], path: &Path, arguments: &[&str]) {
    if !path.exists() {
        fs::write(path, "").unwrap();
    }
    let output = Command::new("mosquitto_passwd").args(options).arg(path).args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("mosquitto_passwd: {error}; {}", broker::HOW_TO_INSTALL));
    assert!(
        output.status.success(),
        "mosquitto_passwd {options:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")),
        Err(_) => default,
    }
}
