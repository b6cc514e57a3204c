//! `redact` and `doctor`, on a running bus and on one that is stopped.

mod process;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use process::{Serve, command, run, run_with_input};
use serde_json::Value;
use tempfile::TempDir;

const SECRET: &str = "the-secret-that-must-go-5d1f";

/// A data folder, and the configuration of a bus whose user `ann` writes `ann/#`.
struct Bed {
    folder: TempDir,
    config: String,
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let passwd = folder.path().join("passwd");
        let passwd = passwd.to_str().expect("a plain name");
        assert_eq!(run(["passwd", "-c", "-b", passwd, "ann", "pw"]).code, Some(0));
        let config = folder.path().join("firehose.toml");
        let text = format!("[auth]\npassword_file = {passwd:?}\n[admin]\naddress = \"off\"\n");
        fs::write(&config, text).expect("it can be written");
        let config = config.to_str().expect("a plain name").to_owned();
        Bed { folder, config }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn serve(&self) -> Serve {
        Serve::start(&self.data(), &["--config", &self.config])
    }

    fn operator(&self, args: &[&str]) -> process::Ended {
        let data = self.data();
        let data = data.to_str().expect("a plain name");
        run(args.iter().copied().chain(["--config", &self.config, "--data", data]))
    }

    fn redact(&self, cursor: &str) -> process::Ended {
        self.operator(&["redact", cursor, "--reason", "a token was in it"])
    }

    /// The files of the data folder that hold the text.
    fn holding(&self, text: &str) -> Vec<PathBuf> {
        files(&self.data())
            .into_iter()
            .filter(|path| {
                let bytes = fs::read(path).unwrap_or_default();
                bytes.windows(text.len()).any(|window| window == text.as_bytes())
            })
            .collect()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn publish(serve: &Serve, topic: &str, lines: &[&str], retain: bool) {
    let mut args = vec!["pub", &serve.mqtt, "-t", topic, "-l", "-q", "1", "-u", "ann", "-P", "pw"];
    args.extend(retain.then_some("-r"));
    let ended = run_with_input(&args, format!("{}\n", lines.join("\n")).as_bytes());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

/// The events that match, as the API gives them.
fn events(serve: &Serve, filter: &str) -> Vec<Value> {
    let ended = run(["history", &serve.http, "--json", "-t", filter]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    ended.out.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

fn cursor(event: &Value) -> &str {
    event["cursor"].as_str().expect("it has one")
}

#[test]
fn when_redact_returns_no_file_holds_the_event_though_others_are_published_all_the_while() {
    let bed = Bed::new();
    let serve = bed.serve();
    publish(&serve, "ann/n", &["1", "2"], false);
    publish(&serve, "ann/s", &[&format!("a {SECRET} b")], true);
    publish(&serve, "ann/n", &["3"], false);
    let secret = events(&serve, "ann/s").remove(0);
    assert!(!bed.holding(SECRET).is_empty());

    let stop = std::sync::atomic::AtomicBool::new(false);
    let published = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut published = 0;
            while published == 0 || !stop.load(std::sync::atomic::Ordering::Relaxed) {
                publish(&serve, "ann/load", &["x"; 100], false);
                published += 100;
            }
            published
        });
        let ended = bed.redact(cursor(&secret));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), "event 3 is redacted\n"), "{}", ended.err);
        assert_eq!(bed.holding(SECRET), Vec::<PathBuf>::new());
        publisher.join().expect("it publishes")
    });

    // All others are there, and cursors mean what they meant.
    assert_eq!(events(&serve, "ann/s"), Vec::<Value>::new());
    assert_eq!(events(&serve, "ann/load").len(), published);
    let numbers = events(&serve, "ann/n");
    assert_eq!(
        numbers.iter().map(|it| it["data"].as_i64().expect("a number")).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    for (since, next) in [(cursor(&numbers[1]), "3"), (cursor(&secret), "3"), (cursor(&numbers[0]), "2")] {
        let read = run(["sub", &serve.mqtt, "-t", "ann/n", "--since", since, "-n", "1"]);
        assert_eq!((read.code, read.out), (Some(0), format!("{next}\n")));
    }

    // Everyone is told, and learns nothing of it.
    let notice = events(&serve, "firehose/redaction/#").remove(0);
    assert_eq!(notice["topic"], "firehose/redaction/ann");
    assert_eq!(notice["qos"], 1);
    let data = &notice["data"];
    assert_eq!((&data["cursor"], &data["offset"]), (&secret["cursor"], &Value::from(3)));
    assert_eq!(data["reason"], "a token was in it");
    assert_eq!(data.as_object().map(|it| it.len()), Some(4), "{data}");

    // It stays so.
    let again = bed.redact(cursor(&secret));
    assert_eq!((again.code, again.out.as_str()), (Some(0), "event 3 was redacted before\n"));
    drop(serve);
    let serve = bed.serve();
    assert_eq!(events(&serve, "ann/s"), Vec::<Value>::new());
    assert_eq!(bed.holding(SECRET), Vec::<PathBuf>::new());
    let retained = run(["sub", &serve.mqtt, "-t", "ann/s", "-W", "1"]);
    assert_eq!((retained.code, retained.out.as_str()), (Some(27), ""));
}

#[test]
fn when_redact_returns_no_answer_brings_the_event_to_a_reader_that_had_stopped() {
    let bed = Bed::new();
    let serve = bed.serve();
    // More than the system's buffers take.
    publish(&serve, "ann/s", &[&format!("{}{SECRET}", "x".repeat(12 << 20))], false);
    let secret = events(&serve, "ann/s").remove(0);
    let address = serve.http.strip_prefix("http://").expect("it is one");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(b"GET /v1/events?topic=ann/s HTTP/1.1\r\nhost: h\r\n\r\n").expect("it can be sent");
    stream.read_exact(&mut [0]).expect("the answer begins");
    let ended = bed.redact(cursor(&secret));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let mut rest = Vec::new();
    let _cut_off = stream.read_to_end(&mut rest);
    assert!(!rest.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
}

#[test]
fn what_cannot_be_redacted_is_refused_with_a_reason() {
    let (bed, other) = (Bed::new(), Bed::new());
    let (serve, foreign) = (bed.serve(), other.serve());
    publish(&serve, "ann/n", &["1"], false);
    publish(&foreign, "ann/n", &["1", "2"], false);
    let foreign = events(&foreign, "ann/n").remove(0);
    let refused = bed.redact(cursor(&foreign));
    assert_eq!((refused.code, refused.err.as_str()), (Some(4), "firehose: the cursor is of another log\n"));
    let mistyped = bed.redact("cnonsense");
    assert_eq!(mistyped.code, Some(2), "{}", mistyped.err);
    assert_eq!(bed.operator(&["redact", cursor(&foreign)]).code, Some(2), "no reason is given");
    let own = events(&serve, "ann/n").remove(0);
    for reason in ["", " ", "two\nlines", &"long".repeat(1_000)] {
        let refused = bed.operator(&["redact", cursor(&own), "--reason", reason]);
        assert_eq!(refused.code, Some(2), "{reason:?}: {}", refused.err);
        assert!(refused.err.contains("the reason"), "{}", refused.err);
    }
    assert_eq!(events(&serve, "ann/n").len(), 1, "nothing was taken back");
    let nowhere = run(["redact", cursor(&foreign), "--reason", "r", "--data", "/nonexistent"]);
    assert_eq!(nowhere.code, Some(2));
    assert!(nowhere.err.contains("there is no log"), "{}", nowhere.err);
}

#[test]
fn on_a_stopped_bus_redact_works_by_itself() {
    let bed = Bed::new();
    let serve = bed.serve();
    publish(&serve, "ann/n", &["1", SECRET, "3"], false);
    let secret = events(&serve, "ann/n").remove(1);
    assert_eq!(serve.terminate(), Some(0));
    assert!(!bed.data().join("admin.sock").exists());
    let ended = bed.redact(cursor(&secret));
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "event 2 is redacted\n"), "{}", ended.err);
    assert_eq!(bed.holding(SECRET), Vec::<PathBuf>::new());
    let serve = bed.serve();
    assert_eq!(events(&serve, "ann/n").len(), 2);
    assert_eq!(events(&serve, "firehose/redaction/#").remove(0)["data"]["offset"], 2);
}

/// What stands in the data folder while a redaction is under way.
fn leave_a_note(bed: &Bed, event: &Value) -> PathBuf {
    let note = bed.data().join("redaction.2.json");
    let text = serde_json::json!({ "cursor": event["cursor"], "principal": "ann", "reason": "a token" });
    fs::write(&note, text.to_string()).expect("it can be written");
    note
}

/// Waits until so many notices were published.
fn notices(serve: &Serve, count: usize) -> Vec<Value> {
    let count = count.to_string();
    let read = run([
        "sub",
        &serve.mqtt,
        "-t",
        "firehose/redaction/#",
        "--since",
        "earliest",
        "-n",
        &count,
        "--json",
    ]);
    assert_eq!(read.code, Some(0), "{}", read.err);
    read.out.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

#[test]
fn a_redaction_that_was_cut_off_is_finished_and_told_at_the_next_start() {
    for is_gone in [false, true] {
        let bed = Bed::new();
        let mut serve = bed.serve();
        publish(&serve, "ann/n", &["1", SECRET, "3"], false);
        let secret = events(&serve, "ann/n").remove(1);
        if is_gone {
            assert_eq!(bed.redact(cursor(&secret)).code, Some(0));
        }
        assert!(!bed.data().join("redaction.2.json").exists());
        serve.kill();
        let note = leave_a_note(&bed, &secret);
        let serve = bed.serve();
        let told = notices(&serve, if is_gone { 2 } else { 1 }).pop().expect("a notice");
        assert_eq!(told["topic"], "firehose/redaction/ann");
        assert_eq!(
            (&told["data"]["cursor"], &told["data"]["reason"]),
            (&secret["cursor"], &"a token".into())
        );
        assert_eq!(bed.holding(SECRET), Vec::<PathBuf>::new());
        assert_eq!(events(&serve, "ann/n").len(), 2);
        assert_eq!(serve.terminate(), Some(0));
        assert!(!note.exists());
    }
}

#[test]
fn the_socket_is_the_operators_alone_and_replaces_that_of_a_killed_bus_but_not_of_a_running_one() {
    let bed = Bed::new();
    let mut serve = bed.serve();
    let socket = bed.data().join("admin.sock");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    serve.kill();
    assert!(socket.exists(), "a killed bus leaves it");
    assert_eq!(bed.operator(&["doctor"]).code, Some(0));
    let serve = bed.serve();
    let second = command(["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
        .arg(bed.data())
        .output()
        .expect("the binary runs");
    assert_eq!(second.status.code(), Some(1));
    let told = bed.operator(&["doctor"]);
    assert_eq!(told.code, Some(0), "{}{}", told.out, told.err);
    assert!(told.out.contains("running: true\n"), "{}", told.out);
    drop(serve);
}

#[test]
fn the_doctor_says_what_there_is_to_do_whether_the_bus_runs_or_not() {
    let bed = Bed::new();
    let serve = bed.serve();
    publish(&serve, "ann/n", &["1", "2"], false);
    let well = bed.operator(&["doctor"]);
    assert_eq!(well.code, Some(0), "{}", well.out);
    for line in [
        "running: true",
        "head: 2",
        "oldest: 1",
        "epoch: 1",
        "clock: trusted",
        "sessions: 0",
        "state_lag: 0",
        "all is well",
    ] {
        assert!(well.out.lines().any(|it| it == line), "{line}: {}", well.out);
    }
    assert_eq!(serve.terminate(), Some(0));
    let stopped = bed.operator(&["doctor"]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.out);
    assert!(stopped.out.contains("running: false\n"), "{}", stopped.out);

    let hold = bed.data().join("log/clock-hold");
    let damaged = bed.data().join("log/00000000000000000001.7.log.damaged");
    for runs in [false, true] {
        fs::write(&hold, "90000000000 1795406400000000\n").expect("it can be written");
        fs::write(&damaged, "?").expect("it can be written");
        let serve = runs.then(|| bed.serve());
        let ill = bed.operator(&["doctor"]);
        assert_eq!(ill.code, Some(1), "{}", ill.out);
        assert!(ill.out.contains("it was off by 90000 s"), "{}", ill.out);
        assert!(ill.out.contains("firehose doctor --accept-clock"), "{}", ill.out);
        assert!(ill.out.contains("1.7.log.damaged was set aside"), "{}", ill.out);
        fs::remove_file(&damaged).expect("it is there");
        let accepted = bed.operator(&["doctor", "--accept-clock"]);
        assert_eq!(accepted.code, Some(0), "{}{}", accepted.out, accepted.err);
        assert!(accepted.out.starts_with("the clock is accepted\n"), "{}", accepted.out);
        assert!(!hold.exists());
        let again = bed.operator(&["doctor", "--accept-clock"]);
        assert!(again.out.starts_with("the clock was trusted already\n"), "{}", again.out);
        drop(serve);
    }
}

#[test]
fn the_doctor_names_a_state_file_that_no_start_will_take_and_a_redaction_that_cannot_be_finished() {
    let bed = Bed::new();
    let serve = bed.serve();
    publish(&serve, "ann/n", &["1"], false);
    let state = bed.data().join("state.redb");
    fs::remove_file(&state).expect("it is there");
    let ill = bed.operator(&["doctor"]);
    assert_eq!(ill.code, Some(1), "{}", ill.out);
    assert!(
        ill.out.contains("state.redb is missing: the next start begins without the sessions"),
        "{}",
        ill.out
    );
    assert_eq!(serve.terminate(), Some(0));
    fs::create_dir(&state).expect("it can be made");
    let ill = bed.operator(&["doctor"]);
    assert_eq!(ill.code, Some(1), "{}", ill.out);
    assert!(ill.out.contains("state.redb is no file: a start is refused"), "{}", ill.out);
    fs::remove_dir(&state).expect("it is there");

    fs::write(bed.data().join("redaction.1.json"), "{").expect("it can be written");
    let serve = bed.serve();
    let ill = bed.operator(&["doctor"]);
    assert_eq!(ill.code, Some(1), "{}", ill.out);
    assert!(ill.out.contains("the redaction of event 1 is not finished"), "{}", ill.out);
    let event = events(&serve, "ann/n").remove(0);
    assert_eq!(bed.redact(cursor(&event)).code, Some(0));
    assert_eq!(bed.operator(&["doctor"]).code, Some(0));
}

#[test]
fn the_doctor_names_events_that_were_durable_and_are_gone() {
    let bed = Bed::new();
    let serve = bed.serve();
    publish(&serve, "ann/n", &["1", "2"], false);
    assert_eq!(events(&serve, "ann/n").len(), 2);
    assert_eq!(serve.terminate(), Some(0));
    let segment = bed.data().join("log/00000000000000000001.0.log");
    let file = fs::File::options().write(true).open(segment).expect("the first segment");
    file.set_len(4096).expect("it can be cut behind its header");
    let serve = bed.serve();
    let ill = bed.operator(&["doctor"]);
    assert_eq!(ill.code, Some(1), "{}", ill.out);
    let told = "to do: events 1 to 2 were durable and are damaged: they are lost: look at the disk\n";
    assert!(ill.out.contains(told), "{}", ill.out);
    drop(serve);
}

/// A stopped bus with 600 events of a kilobyte, of which the seventh has a flipped bit.
fn flipped() -> Bed {
    let bed = Bed::new();
    let serve = bed.serve();
    let lines: Vec<String> = (1..=600).map(|n| format!("<{n:01000}>")).collect();
    publish(&serve, "ann/n", &lines.iter().map(String::as_str).collect::<Vec<_>>(), false);
    assert_eq!(serve.terminate(), Some(0));
    let path = bed.data().join("log/00000000000000000001.0.log");
    let mut bytes = fs::read(&path).expect("the first segment");
    let at = bytes.windows(1_002).position(|it| it == lines[6].as_bytes()).expect("the seventh event");
    bytes[at + 500] ^= 1;
    fs::write(path, bytes).expect("it can be written");
    bed
}

const DAMAGED: &str = "events 7 to 7 are damaged on the disk";

#[test]
fn damage_that_readers_come_upon_is_logged_once_counted_and_named_by_the_doctor() {
    let bed = flipped();
    let log = bed.folder.path().join("lines");
    let serve = Serve::start_logging(&bed.data(), &log, &["--config", &bed.config]);
    let well = bed.operator(&["doctor"]);
    assert_eq!(well.code, Some(0), "the start looks at the end of the log only: {}", well.out);
    for _ in 0..2 {
        let read = run(["sub", &serve.mqtt, "-t", "ann/n", "--since", "earliest", "-n", "599"]);
        assert_eq!((read.code, read.out.lines().count()), (Some(0), 599), "{}", read.err);
        let history = run(["history", &serve.http, "-t", "ann/n"]);
        assert_eq!(history.code, Some(4), "{}", history.err);
        assert!(history.err.contains("410"), "{}", history.err);
    }
    let ill = bed.operator(&["doctor"]);
    assert_eq!(ill.code, Some(1), "{}", ill.out);
    let told = format!("to do: {DAMAGED} and are declared as a gap: look at the disk\n");
    assert!(ill.out.contains(&told), "{}", ill.out);
    for name in ["ranges", "events"] {
        let topic = format!("$SYS/broker/log/damaged/{name}");
        let counted = run(["sub", &serve.mqtt, "-t", &topic, "-n", "2"]);
        assert!(counted.out.ends_with("1\n"), "{name}: {}", counted.out);
    }
    assert_eq!(serve.terminate(), Some(0));
    let lines = fs::read_to_string(log).expect("they are there");
    let about: Vec<&str> = lines.lines().filter(|line| line.contains("damaged")).collect();
    assert!(about.len() == 1 && about[0].contains(DAMAGED), "{lines}");
}

#[test]
fn the_doctor_reads_the_whole_log_of_a_running_bus_if_told_to() {
    let bed = flipped();
    let stopped = bed.operator(&["doctor", "--read"]);
    assert_eq!(stopped.code, Some(1), "{}", stopped.out);
    assert!(stopped.out.contains("to do: the log was not read"), "{}", stopped.out);
    let serve = bed.serve();
    assert_eq!(bed.operator(&["doctor"]).code, Some(0));
    let ill = bed.operator(&["doctor", "--read"]);
    assert_eq!(ill.code, Some(1), "{}", ill.out);
    for part in ["read: events 1 to 600\n", "damaged_ranges: 1\n", DAMAGED] {
        assert!(ill.out.contains(part), "{part}: {}", ill.out);
    }
    drop(serve);
}
