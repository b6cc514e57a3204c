//! What is wrong with a configuration is said with file, line and key.

mod process;

use std::fs;

use process::{command, ended, run};
use tempfile::TempDir;

/// Checks this text as a file; gives the exit code and what was said, without the folder's name.
fn check(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    check_in(&folder, text, &[])
}

fn check_in(folder: &TempDir, text: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    fs::write(folder.path().join("f.toml"), text).expect("it can be written");
    let mut command = command(["check-config", "f.toml"]);
    command.current_dir(folder.path()).envs(variables.iter().copied());
    let ended = ended(command.output().expect("the binary runs"));
    (ended.code, format!("{}{}", ended.out, ended.err).trim_end().to_owned())
}

#[test]
fn mistakes_are_told_with_file_line_and_key() {
    for (text, message) in [
        (
            "[log]\nretention_ag = \"1d\"\n",
            "f.toml:2: log.retention_ag: unknown field `retention_ag`, expected one of `durability`, `retention_age`, \
             `retention_bytes`, `disk_reserve_bytes`, `disk_check_secs`, `unlogged`",
        ),
        (
            "# age\n\n[log]\nretention_age = \"1x\"\n",
            "f.toml:4: log.retention_age: \"1x\" is not a span of time: write a whole number with s, m, h, d or w, as in \
             \"365d\" or \"90s\"",
        ),
        (
            "[log]\nretention_bytes = \"20 gigs\"\n",
            "f.toml:2: log.retention_bytes: \"20 gigs\" is not a size: write a whole number of bytes, or one with a unit, \
             as in \"256MiB\" or \"20GiB\"",
        ),
        (
            "[log]\ndurability = \"never\"\n",
            "f.toml:2: log.durability: unknown variant `never`, expected `sync` or `os`",
        ),
        (
            "[auth]\nanonymous = \"maybe\"\n",
            "f.toml:2: auth.anonymous: unknown variant `maybe`, expected one of `read`, `none`, `full`",
        ),
        (
            "[logs]\n",
            "f.toml:1: logs: unknown field `logs`, expected one of `server`, `log`, `auth`, `limits`, `admin`, \
             `listener`, `source`",
        ),
        ("log = 3\n", "f.toml:1: log: invalid type: integer `3`, expected the table [log]"),
        ("[log\n", "f.toml:1: unclosed table, expected `]`"),
        ("[server]\nshards = 1\nshards = 2\n", "f.toml:3: shards: duplicate key"),
        (
            "[limits]\ninflight_max = 70000\n",
            "f.toml:2: limits.inflight_max: invalid value: integer `70000`, expected a whole number from 0 to 65535",
        ),
        ("[limits]\ninflight_max = 0\n", "f.toml:2: limits.inflight_max: must be at least 1"),
        ("[limits]\npacket_bytes_max = 7\n", "f.toml:2: limits.packet_bytes_max: must be at least 1KiB"),
        (
            "[[listener]]\nname = \"a\"\n[[listener]]\naddress = \"1883\"\n",
            "f.toml:4: listener[2].address: \"1883\" is not an address: write host:port, [IPv6]:port or unix:/path, as in \
             \"127.0.0.1:1883\"",
        ),
        (
            "[[listener]]\n\n[[listener]]\nname = \"mqtt\"\naddress = \"127.0.0.1:1\"\n",
            "f.toml:4: listener[2].name: another listener is named \"mqtt\" already: give each a name of its own",
        ),
        (
            "[[listener]]\ntls = { certificate = \"c\", key = \"k\" }\n",
            "f.toml:2: listener[1].tls: this version of firehose does not serve TLS: put a TLS proxy before it and remove \
             this key",
        ),
        ("[[source]]\ntype = \"gerrit\"\n", "f.toml:1: source[1]: missing field `url`"),
        (
            "[[source]]\ntype = \"gerrit\"\nurl = \"https://u@h\"\n",
            "f.toml:3: source[1].url: gerrit url \"https://u@h\": events are read over ssh, not \"https\"; expected \
             ssh://user@host[:port]",
        ),
        (
            "[[source]]\nurl = \"ssh://u@h\"\ntype = \"gerrit\"\nname = \"a/b\"\n",
            "f.toml:4: source[1].name: a source's name is one level of a topic: not empty, without / + and #",
        ),
        (
            "[admin]\naddress = \"unix:/x\"\n",
            "f.toml:2: admin.address: \"unix:/x\": the admin listener takes host:port or \"off\"",
        ),
    ] {
        assert_eq!(check(text), (Some(2), format!("firehose: {message}")), "{text}");
    }
}

#[test]
fn a_filter_or_network_that_is_none_is_told_with_its_list() {
    let (code, message) = check("[log]\nunlogged = [\"a/#\", \"a/#/b\"]\n");
    assert_eq!(code, Some(2));
    assert!(message.starts_with("firehose: f.toml:2: log.unlogged"), "{message}");
    let (code, message) = check("[limits]\ndeny = [\n  \"203.0.113.0/24\",\n  \"203.0.113.0/33\",\n]\n");
    assert_eq!(code, Some(2));
    assert!(message.starts_with("firehose: f.toml:") && message.contains("limits.deny"), "{message}");
}

#[test]
fn a_right_file_is_ok_and_shown_in_full() {
    let text = "[server]\nshards = 2\n[log]\nretention_age = \"7d\"\n[[listener]]\naddress = \"[::]:1883\"\n";
    assert_eq!(check(text), (Some(0), "f.toml: ok".into()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("f.toml");
    fs::write(&path, text).expect("it can be written");
    let shown = run(["check-config".as_ref(), "--print".as_ref(), path.as_os_str()]);
    for line in
        ["shards = 2", "retention_age = \"7d\"", "retention_bytes = \"20GiB\"", "address = \"[::]:1883\""]
    {
        assert!(shown.out.lines().any(|shown| shown == line), "{line} in {}", shown.out);
    }
    fs::write(&path, &shown.out).expect("it can be written");
    let again = run(["check-config".as_ref(), "--print".as_ref(), path.as_os_str()]);
    assert_eq!((again.code, again.out), (Some(0), shown.out));
}

#[test]
fn files_of_conf_d_are_laid_over_and_named_in_errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fragments = folder.path().join("conf.d");
    fs::create_dir(&fragments).expect("it can be made");
    fs::write(fragments.join("20-b.toml"), "[log]\nretention_age = \"2d\"\n").expect("it can be written");
    fs::write(
        fragments.join("10-a.toml"),
        "[log]\nretention_age = \"1d\"\n[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:2\"\n",
    )
    .expect("it can be written");
    fs::write(fragments.join("README"), "not read").expect("it can be written");
    let text = "[log]\nretention_age = \"9d\"\n[[listener]]\nname = \"a\"\n";
    assert_eq!(check_in(&folder, text, &[]), (Some(0), "f.toml: ok".into()));
    let mut command = command(["check-config", "--print", "f.toml"]);
    let shown = ended(command.current_dir(folder.path()).output().expect("the binary runs")).out;
    assert!(
        shown.contains("retention_age = \"2d\"") && shown.matches("[[listener]]").count() == 2,
        "{shown}"
    );
    let (code, message) = check_in(&folder, "[[listener]]\nname = \"b\"\n", &[]);
    let expected = "firehose: conf.d/10-a.toml:4: listener[2].name: another listener is named \"b\" already: give each a \
                    name of its own";
    assert_eq!((code, message.as_str()), (Some(2), expected));
    fs::write(fragments.join("30-c.toml"), "\n[log]\nx = 1\n").expect("it can be written");
    let (code, message) = check_in(&folder, text, &[]);
    assert_eq!(code, Some(2));
    assert!(message.starts_with("firehose: conf.d/30-c.toml:3: log.x: unknown field"), "{message}");
}

#[test]
fn variables_override_scalars_and_are_named_in_errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let variables = [
        ("FIREHOSE__LOG__DURABILITY", "os"),
        ("FIREHOSE__SERVER__SHARDS", "3"),
        ("FIREHOSE__SERVER__DATA_DIR", "7"),
    ];
    fs::write(folder.path().join("f.toml"), "[log]\ndurability = \"sync\"\n").expect("it can be written");
    let mut command = command(["check-config", "--print", "f.toml"]);
    command.current_dir(folder.path()).envs(variables);
    let shown = ended(command.output().expect("the binary runs")).out;
    for line in ["durability = \"os\"", "shards = 3", "data_dir = \"7\""] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    for (variable, value, message) in [
        ("FIREHOSE__LOG__DURABILITY", "o", "log.durability: unknown variant `o`, expected `sync` or `os`"),
        (
            "FIREHOSE__SERVER__SHARD",
            "1",
            "server.shard: unknown field `shard`, expected one of `data_dir`, `shards`, `public_url`",
        ),
        (
            "FIREHOSE__LOG",
            "x",
            "log: an environment variable overrides one key of one table, as in FIREHOSE__LOG__DURABILITY",
        ),
    ] {
        let told = check_in(&folder, "", &[(variable, value)]);
        assert_eq!(told, (Some(2), format!("firehose: {variable}: {message}")));
    }
}

#[test]
fn files_that_the_configuration_names_are_checked_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("acl"), "topic read #\ntopik read #\n").expect("it can be written");
    let (code, message) = check_in(&folder, "[auth]\nacl_file = \"acl\"\n", &[]);
    assert_eq!(code, Some(2));
    assert!(message.starts_with("firehose: acl:2: "), "{message}");
    let (code, message) = check_in(&folder, "[auth]\npassword_file = \"none\"\n", &[]);
    assert_eq!(code, Some(2));
    assert!(message.starts_with("firehose: none: "), "{message}");
    let missing = run(["check-config", "/no/such/file.toml"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.err.starts_with("firehose: /no/such/file.toml: cannot be read: "), "{}", missing.err);
}

#[test]
fn serve_does_not_start_with_a_mistake() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("f.toml"), "[log]\nx = 1\n").expect("it can be written");
    let mut command = command(["serve", "--config", "f.toml"]);
    let ended = ended(command.current_dir(folder.path()).output().expect("the binary runs"));
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""));
    assert!(ended.err.contains("f.toml:2: log.x: unknown field"), "{}", ended.err);
    assert!(!folder.path().join("firehose-data").exists());
}
