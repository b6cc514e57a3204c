//! `serve`, `pub`, `sub` and `history` together, as people use them.

mod process;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use process::{Serve, command, ended, run, run_with_input, signal};
use tempfile::TempDir;

/// A bus whose user `ann` (password `pw`) writes `ann/#`.
fn bus() -> (TempDir, Serve) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let serve = Serve::start(&folder.path().join("data"), &["--config", &config(&folder)]);
    (folder, serve)
}

fn config(folder: &TempDir) -> String {
    let passwd = folder.path().join("passwd");
    if !passwd.exists() {
        let passwd = passwd.to_str().expect("a plain name");
        assert_eq!(run(["passwd", "-c", "-b", passwd, "ann", "pw"]).code, Some(0));
    }
    let path = folder.path().join("firehose.toml");
    let text = format!("[auth]\npassword_file = {:?}\n[admin]\naddress = \"off\"\n", passwd);
    fs::write(&path, text).expect("it can be written");
    path.to_str().expect("a plain name").to_owned()
}

fn publish(url: &str, lines: std::ops::RangeInclusive<u32>) {
    let input: String = lines.map(|line| format!("{line}\n")).collect();
    let ended = run_with_input(
        &["pub", url, "-t", "ann/n", "-l", "-q", "1", "-u", "ann", "-P", "pw"],
        input.as_bytes(),
    );
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// A `sub` that runs; the lines that it writes.
fn sub(args: &[&str]) -> (Child, std::io::Lines<BufReader<std::process::ChildStdout>>) {
    let mut child = command(["sub"]).args(args).spawn().expect("the binary runs");
    let out = BufReader::new(child.stdout.take().expect("it is piped"));
    (child, out.lines())
}

#[test]
fn what_is_published_is_read_live_from_the_past_and_as_history() {
    let (_folder, serve) = bus();
    publish(&serve.mqtt, 1..=50);
    let past = run(["sub", &serve.mqtt, "-t", "ann/#", "--since", "earliest", "-n", "50"]);
    assert_eq!(
        (past.code, lines(&past.out)),
        (Some(0), numbers(1..=50).iter().map(String::as_str).collect())
    );
    let raw = run(["history", &serve.http, "--raw"]);
    assert_eq!((raw.code, raw.out), (Some(0), past.out));
    let last = run(["history", &serve.http, "--order", "desc", "-n", "2", "-F", "%t=%p q%q"]);
    assert_eq!(lines(&last.out), ["ann/n=50 q1", "ann/n=49 q1"]);
    let first = run(["history", &serve.http, "-t", "ann/+", "-n", "1"]);
    assert!(first.out.ends_with("Z ann/n 1\n"), "{}", first.out);
    let json = run(["history", &serve.http, "--json", "-n", "1"]).out;
    let event: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!((event["topic"].as_str(), event["data"].as_i64()), (Some("ann/n"), Some(1)));
    let cursor = event["cursor"].as_str().expect("it has one");
    let after = run(["sub", &serve.mqtt, "-t", "#", "--since", cursor, "-n", "1", "-v"]);
    assert_eq!(after.out, "ann/n 2\n");
    let sub_json = run(["sub", &serve.mqtt, "--since", "earliest", "-n", "1", "--json", "-q", "1"]).out;
    let sub_event: serde_json::Value = serde_json::from_str(&sub_json).expect("it is JSON");
    for member in ["cursor", "topic", "qos", "retain", "data"] {
        assert_eq!(sub_event[member], event[member], "{member}");
    }
}

#[test]
fn history_follows_pages_up_to_the_head() {
    let (_folder, serve) = bus();
    publish(&serve.mqtt, 1..=2_500);
    let raw = run(["history", &serve.http, "--raw"]);
    assert_eq!(lines(&raw.out), numbers(1..=2_500).iter().map(String::as_str).collect::<Vec<_>>());
    let mut down = run(["history", &serve.http, "--raw", "--order", "desc"]).out;
    down = down.lines().rev().map(|line| format!("{line}\n")).collect();
    assert_eq!(down, raw.out);
    assert_eq!(lines(&run(["history", &serve.http, "--raw", "-n", "1500"]).out).len(), 1_500);
    assert_eq!(run(["history", &serve.http, "--raw", "--until", "-1h"]).out, "");
    assert_eq!(lines(&run(["history", &serve.http, "--raw", "--since", "-1h"]).out).len(), 2_500);
}

#[test]
fn a_reader_resumes_without_gap_or_duplicate_when_the_bus_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let mut serve = Serve::start(&data, &["--config", &config(&folder)]);
    let address = serve.mqtt.trim_start_matches("mqtt://").to_owned();
    publish(&serve.mqtt, 1..=3);
    let (mut child, mut out) = sub(&[&serve.mqtt, "-t", "ann/#", "--since", "earliest", "-n", "9"]);
    let mut read = |count: usize| -> Vec<String> {
        out.by_ref().take(count).map(|line| line.expect("it is UTF-8")).collect()
    };
    assert_eq!(read(3), numbers(1..=3));
    serve.kill();
    let mut serve = Serve::start_at(&data, &address, &["--config", &config(&folder)]);
    publish(&serve.mqtt, 4..=6);
    assert_eq!(read(3), numbers(4..=6));
    serve.kill();
    let serve = Serve::start_at(&data, &address, &["--config", &config(&folder)]);
    publish(&serve.mqtt, 7..=9);
    assert_eq!(read(3), numbers(7..=9));
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_cursor_file_goes_on_where_the_last_run_ended() {
    let (folder, serve) = bus();
    let file = folder.path().join("cursor");
    let file = file.to_str().expect("a plain name");
    publish(&serve.mqtt, 1..=10);
    for range in [1..=4, 5..=9] {
        let count = range.clone().count().to_string();
        let read = run([
            "sub",
            &serve.mqtt,
            "-t",
            "ann/#",
            "--since",
            "earliest",
            "-n",
            &count,
            "--cursor-file",
            file,
        ]);
        assert_eq!(lines(&read.out), numbers(range).iter().map(String::as_str).collect::<Vec<_>>());
    }
    let line = fs::read_to_string(file).expect("it is there");
    assert!(line.starts_with('c') && line.ends_with('\n') && line.lines().count() == 1, "{line}");
}

#[test]
fn exit_codes_say_what_happened() {
    let (folder, serve) = bus();
    for (args, code) in [
        (vec!["sub", &serve.mqtt, "-W", "1"], 27),
        (vec!["sub", "mqtt://127.0.0.1:1"], 3),
        (vec!["sub", "ws://127.0.0.1"], 2),
        (vec!["sub", &serve.mqtt, "-t", "a/#/b"], 2),
        (vec!["sub", &serve.mqtt, "--since", "yesterday"], 2),
        (vec!["sub", &serve.mqtt, "-u", "ann", "-P", "wrong"], 4),
        (vec!["sub", &serve.mqtt, "--since", "cAQfLI7z_usB7AAD44Z6wDQx"], 2),
        (vec!["pub", &serve.mqtt, "-t", "x", "-m", "y"], 4),
        (vec!["pub", &serve.mqtt, "-t", "x", "-m", "y", "-q", "1"], 4),
        (vec!["pub", &serve.mqtt, "-t", "ann/x", "-m", "y", "-q", "2", "-u", "ann", "-P", "pw"], 0),
        (vec!["pub", &serve.mqtt, "-t", "a/+", "-m", "y"], 2),
        (vec!["history", &serve.mqtt], 2),
        (vec!["history", "http://127.0.0.1:1"], 3),
        (vec!["history", &serve.http, "-u", "ann", "-P", "wrong"], 4),
        (vec!["history", &serve.http, "-u", "ann", "-P", "pw"], 0),
        (vec!["nonsense"], 2),
    ] {
        let ended = run(&args);
        assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.err);
        assert_eq!(ended.err.is_empty(), matches!(code, 0 | 27), "{args:?}: {}", ended.err);
    }
    let file = folder.path().join("password");
    fs::write(&file, "pw\n").expect("it can be written");
    let file = file.to_str().expect("a plain name");
    assert_eq!(
        run(["pub", &serve.mqtt, "-t", "ann/x", "-m", "y", "-q", "1", "-u", "ann", "--password-file", file])
            .code,
        Some(0)
    );
    let mut by_variable = command(["pub", &serve.mqtt, "-t", "ann/x", "-m", "y", "-q", "1", "-u", "ann"]);
    assert_eq!(ended(by_variable.env("FIREHOSE_PASSWORD", "pw").output().expect("it runs")).code, Some(0));
    let mut by_url = command(["history"]);
    assert_eq!(ended(by_url.env("FIREHOSE_URL", &serve.http).output().expect("it runs")).code, Some(0));
}

#[test]
fn a_reader_with_a_session_goes_on_with_what_it_missed() {
    let (_folder, serve) = bus();
    publish(&serve.mqtt, 1..=1);
    let args =
        |count: &'static str| ["sub", &serve.mqtt, "-c", "-i", "me", "-q", "1", "-t", "ann/#", "-n", count];
    let first = run([&args("1")[..], &["--since", "earliest"]].concat());
    assert_eq!((first.code, lines(&first.out)), (Some(0), vec!["1"]), "{}", first.err);
    for round in [2..=4, 5..=7] {
        publish(&serve.mqtt, round.clone());
        let again = run(args("3"));
        let expected = numbers(round);
        assert_eq!(
            lines(&again.out),
            expected.iter().map(String::as_str).collect::<Vec<_>>(),
            "{}",
            again.err
        );
    }
}

#[test]
fn an_interrupted_reader_ends_with_130_and_all_its_output() {
    let (_folder, serve) = bus();
    publish(&serve.mqtt, 1..=3);
    let (mut child, mut out) = sub(&[&serve.mqtt, "-t", "ann/#", "--since", "earliest"]);
    for number in 1..=3 {
        assert_eq!(out.next().expect("a line").expect("it is UTF-8"), number.to_string());
    }
    signal(&child, "INT");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it is UTF-8");
    assert_eq!(said, "");
}

#[test]
fn a_reader_whose_reader_has_seen_enough_ends_in_silence() {
    let (_folder, serve) = bus();
    publish(&serve.mqtt, 1..=2_000);
    let mut child = command(["history", &serve.http, "--json"]).spawn().expect("the binary runs");
    drop(child.stdout.take());
    let ended = ended(child.wait_with_output().expect("it ends"));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
}

#[test]
fn term_ends_the_bus_with_0_and_everything_is_there_afterwards() {
    let (folder, serve) = bus();
    publish(&serve.mqtt, 1..=5);
    assert_eq!(serve.terminate(), Some(0));
    let serve = Serve::start(&folder.path().join("data"), &[]);
    assert_eq!(lines(&run(["history", &serve.http, "--raw"]).out).len(), 5);
}

#[test]
fn a_data_folder_in_use_and_a_taken_port_are_refused_in_one_line() {
    let (folder, serve) = bus();
    let data = folder.path().join("data");
    let data = data.to_str().expect("a plain name");
    let second = run(["serve", "--data", data, "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    assert_eq!((second.code, lines(&second.err).len()), (Some(1), 1), "{}", second.err);
    assert!(second.err.contains("in use by another firehose"), "{}", second.err);
    let address = serve.mqtt.trim_start_matches("mqtt://");
    let other = folder.path().join("other");
    let other = other.to_str().expect("a plain name");
    let third = run(["serve", "--data", other, "--mqtt", address, "--http", "127.0.0.1:0"]);
    assert_eq!((third.code, lines(&third.err).len()), (Some(1), 1), "{}", third.err);
    assert!(third.err.contains(address) && !fs::exists(other).unwrap_or(true), "{}", third.err);
}

#[test]
fn hup_puts_new_access_rules_in_force_and_keeps_old_ones_if_the_new_are_broken() {
    let (folder, serve) = bus();
    let passwd = folder.path().join("passwd");
    let passwd = passwd.to_str().expect("a plain name");
    let publish_as_bob =
        || run(["pub", &serve.mqtt, "-t", "bob/x", "-m", "y", "-q", "1", "-u", "bob", "-P", "pw"]).code;
    assert_eq!(publish_as_bob(), Some(4));
    assert_eq!(run(["passwd", "-b", passwd, "bob", "pw"]).code, Some(0));
    signal(&serve.child, "HUP");
    let mut tries = 0;
    while publish_as_bob() != Some(0) {
        tries += 1;
        assert!(tries < 100, "the reload never came");
    }
    fs::write(passwd, "not a password file").expect("it can be written");
    signal(&serve.child, "HUP");
    assert_eq!(publish_as_bob(), Some(0));
}

#[test]
fn the_admin_listener_answers_livez_only_where_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let serve = Serve::start(&folder.path().join("data"), &["--admin", "127.0.0.1:0"]);
    assert_eq!(serve.lines.len(), 3, "{:?}", serve.lines);
    let admin = serve.lines[2].strip_prefix("listening admin ").expect("it listens").to_owned();
    let get = |address: &str| {
        let output = Command::new("curl").args(["-s", address]).stderr(Stdio::null()).output();
        String::from_utf8_lossy(&output.expect("curl is installed").stdout).into_owned()
    };
    assert_eq!(get(&format!("http://{admin}/livez")), "ok\n");
    assert_eq!(get(&format!("{}/livez", serve.http)), "ok\n");
    drop(serve);
    let serve = Serve::start(&folder.path().join("data"), &[]);
    assert_eq!(serve.lines.len(), 2, "{:?}", serve.lines);
}

#[test]
fn the_demo_can_be_read_along_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child =
        command(["demo"]).env("TMPDIR", folder.path()).stderr(Stdio::null()).spawn().expect("it runs");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut line = || out.next().expect("a line").expect("it is UTF-8");
    let mqtt = line().strip_prefix("listening mqtt ").expect("it listens").to_owned();
    let http = line().strip_prefix("listening http ").expect("it listens").to_owned();
    let url = format!("mqtt://{mqtt}");
    let read = run(["sub", &url, "-t", "gerrit/#", "--since", "earliest", "-n", "3", "-F", "%t"]);
    assert_eq!(lines(&read.out), ["gerrit/All-Users/batch-ref-updated"; 3]);
    let past = run(["history", &format!("http://{http}"), "-n", "3", "-F", "%t"]);
    assert_eq!(past.out, read.out);
    signal(&child, "INT");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
}

#[test]
fn a_demo_whose_terminal_is_closed_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child =
        command(["demo"]).env("TMPDIR", folder.path()).stderr(Stdio::null()).spawn().expect("it runs");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    while out.next().expect("a line").expect("it is UTF-8") != "ready" {}
    signal(&child, "HUP");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
}
