use proptest::prelude::*;

use super::*;

const NOBODY: Option<&str> = None;

fn acl(text: &str) -> Acl {
    Acl::parse(text.as_bytes()).unwrap()
}

fn reads(acl: &Acl, user: Option<&str>, topic: &str) -> bool {
    acl.allows(user, "id", TopicName::new(topic).unwrap(), Right::Read)
}

fn writes(acl: &Acl, user: Option<&str>, topic: &str) -> bool {
    acl.allows(user, "id", TopicName::new(topic).unwrap(), Right::Write)
}

fn verdict(acl: &Acl, user: Option<&str>, filter: &str) -> Verdict {
    acl.read_verdict(user, "id", &TopicFilter::new(filter).unwrap())
}

#[test]
fn rules_before_the_first_user_are_for_the_anonymous_alone() {
    let acl = acl("topic read open/#\nuser bob\ntopic write in/#\ntopic both\n");
    assert!(reads(&acl, NOBODY, "open/x") && !writes(&acl, NOBODY, "open/x"));
    assert!(!reads(&acl, Some("bob"), "open/x"));
    assert!(writes(&acl, Some("bob"), "in/x") && !reads(&acl, Some("bob"), "in/x"));
    assert!(reads(&acl, Some("bob"), "both") && writes(&acl, Some("bob"), "both"));
    assert!(!reads(&acl, Some("eve"), "open/x") && !reads(&acl, Some("eve"), "both"));
}

#[test]
fn a_denial_of_ones_own_wins_wherever_it_stands_and_ones_own_allowance_beats_a_denying_pattern() {
    let acl =
        acl("user bob\ntopic read a/#\ntopic deny a/b\npattern deny a/#\npattern read a/b\npattern read z\n");
    assert!(reads(&acl, Some("bob"), "a/x"));
    assert!(!reads(&acl, Some("bob"), "a/b"));
    assert!(!reads(&acl, Some("eve"), "a/b") && reads(&acl, Some("eve"), "z") && reads(&acl, NOBODY, "z"));
}

#[test]
fn patterns_put_names_in_and_names_with_wildcards_get_nothing_from_them() {
    let acl = acl(
        "pattern readwrite %u/%c/#\npattern read x/%%u/%\npattern read all\npattern deny no/%u/#\npattern read no/#\n",
    );
    assert!(reads(&acl, Some("bob"), "bob/id/x") && !reads(&acl, Some("bob"), "eve/id/x"));
    assert!(reads(&acl, Some("bob"), "x/%bob/%"));
    assert!(!reads(&acl, NOBODY, "/id/x") && reads(&acl, NOBODY, "all"));
    assert!(!reads(&acl, Some("+"), "bob/id/x") && !reads(&acl, Some("a#"), "all"));
    assert!(!acl.allows(Some("bob"), "+", TopicName::new("bob/id/x").unwrap(), Right::Read));
    // A slash: no allowance, but denials hold.
    assert!(!reads(&acl, Some("a/b"), "a/b/id/x") && reads(&acl, Some("a/b"), "all"));
    assert!(!reads(&acl, Some("a/b"), "no/a/b/c") && reads(&acl, Some("a/b"), "no/a/c"));
    assert!(!acl.allows(Some("bob"), "x/y", TopicName::new("bob/x/y/z").unwrap(), Right::Read));
}

#[test]
fn a_client_id_that_would_be_dear_to_others_gets_nothing_from_patterns() {
    let acl = acl("user bob\ntopic read own\npattern read c/%c\npattern read all\npattern deny no/%c\n");
    for (bytes, may) in [(CLIENT_ID_BYTES_MAX, true), (CLIENT_ID_BYTES_MAX + 1, false), (65_535, false)] {
        let id = "i".repeat(bytes);
        let reads = |topic: &str| {
            let name = TopicName::new(topic).unwrap();
            let filter = TopicFilter::new(topic).unwrap();
            let allowed = acl.allows(Some("bob"), &id, name, Right::Read);
            assert_eq!(allowed, acl.read_verdict(Some("bob"), &id, &filter) == Verdict::All);
            allowed
        };
        assert_eq!(
            (reads("own"), reads("all"), reads(&format!("c/{id}")[..bytes.min(60_000) + 2])),
            (true, may, may)
        );
        assert!(!reads("no/x"));
    }
}

#[test]
fn dollar_topics_need_rules_that_name_them() {
    let acl = acl("topic read #\ntopic read $SYS/#\n");
    assert!(reads(&acl, NOBODY, "$SYS/x") && !reads(&acl, NOBODY, "$other/x"));
}

#[test]
fn spaces_comments_and_windows_line_ends_are_read_as_mosquitto_does() {
    let acl =
        acl("# c\r\n\r\n  \n  topic   read   a b/ c  \r\ntopic read\nuser  bob jr \ntopic readwrite x\n");
    assert!(reads(&acl, NOBODY, "a b/ c"));
    assert!(writes(&acl, NOBODY, "read"), "a single word is a filter");
    assert!(writes(&acl, Some("bob jr"), "x"));
}

#[test]
fn a_broken_line_is_named() {
    for (text, number, why) in [
        ("topic read #\ntopik x", 2, "`topik`"),
        ("topic", 1, "empty"),
        ("topic ", 1, "empty"),
        ("topic a b", 1, "`a` is none"),
        ("topic read a/#/b", 1, "#"),
        ("pattern read a+", 1, "+"),
        ("\nuser \n", 2, "without a name"),
        (" # c", 1, "`#`"),
        ("\ttopic read x", 1, "topic"),
        ("topic read a\0", 1, "zero"),
    ] {
        let error = Acl::parse(text.as_bytes()).unwrap_err();
        assert!(error.line == number && error.what.contains(why), "{text:?}: {error}");
    }
    assert_eq!(Acl::parse(b"topic read #\ntopic read \xff").unwrap_err().line, 2);
}

#[test]
fn a_subscription_is_refused_only_when_nothing_of_it_can_be_read() {
    let acl = acl("topic read a/#\ntopic deny a/secret/#\nuser bob\ntopic write #\npattern read p/%u/#\n");
    assert_eq!(verdict(&acl, NOBODY, "#"), Verdict::PerTopic);
    assert_eq!(verdict(&acl, NOBODY, "a/#"), Verdict::PerTopic);
    assert_eq!(verdict(&acl, NOBODY, "a/open/#"), Verdict::All);
    assert_eq!(verdict(&acl, NOBODY, "a/secret/+"), Verdict::Denied);
    assert_eq!(verdict(&acl, NOBODY, "b/#"), Verdict::Denied);
    assert_eq!(verdict(&acl, Some("bob"), "a/#"), Verdict::Denied);
    assert_eq!(verdict(&acl, Some("bob"), "p/bob/x"), Verdict::All);
    assert_eq!(verdict(&acl, Some("bob"), "p/+/x"), Verdict::PerTopic);
    assert_eq!(verdict(&acl, Some("eve"), "p/bob/x"), Verdict::Denied);
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "bob", "id", "$SYS"])
}

fn filter() -> impl Strategy<Value = String> {
    let inner = prop_oneof![4 => level(), 1 => Just("+"), 1 => Just("%u"), 1 => Just("%c")];
    (prop::collection::vec(inner, 1..4), any::<bool>()).prop_map(|(levels, hash)| {
        let text = levels.join("/");
        if hash || text.is_empty() { format!("{text}/#") } else { text }
    })
}

fn rules() -> impl Strategy<Value = String> {
    let access = prop::sample::select(vec!["read", "write", "readwrite", "deny"]);
    let line = prop_oneof![
        4 => (access.clone(), filter()).prop_map(|(access, filter)| format!("topic {access} {filter}")),
        2 => (access, filter()).prop_map(|(access, filter)| format!("pattern {access} {filter}")),
        1 => Just("user bob".to_owned()),
    ];
    prop::collection::vec(line, 0..9).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn verdicts_agree_with_the_answers_per_topic(
        text in rules(),
        levels in prop::collection::vec(level(), 1..5),
        filter in filter(),
        user in prop::sample::select(vec![None, Some("bob"), Some("a/b")]),
    ) {
        let acl = acl(&text);
        let name = levels.join("/");
        if let (Ok(topic), Ok(filter)) = (TopicName::new(&name), TopicFilter::new(&filter))
            && filter.matches(topic)
        {
            let allowed = acl.allows(user, "id", topic, Right::Read);
            match acl.read_verdict(user, "id", &filter) {
                Verdict::All => prop_assert!(allowed),
                Verdict::Denied => prop_assert!(!allowed),
                Verdict::PerTopic => {}
            }
        }
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Acl::parse(&bytes);
        let _ = crate::PasswordFile::parse(&bytes);
    }

    #[test]
    fn no_text_made_of_the_formats_words_makes_a_parser_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "topic", "user", "pattern", " ", "read", "deny", "#", "+", "/", "%", "%u", "%c", "\n", "\r", "\t", "ü",
            ":", "$", "$6$", "$7$", "$argon2id$", "v=19", "m=8,t=1,p=1", "101", "AAAA", "AAAAAAAAAAA", "=", "\0",
        ]), 0..40),
        user in "[a-z%/+#ü]{0,4}",
    ) {
        let text = words.concat();
        if let Ok(acl) = Acl::parse(text.as_bytes()) {
            let _ = reads(&acl, Some(&user), "a/b");
            let _ = verdict(&acl, Some(&user), "a/+");
        }
        let _ = crate::PasswordFile::parse(text.as_bytes());
    }
}
