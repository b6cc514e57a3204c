//! The Gerrit source against a stand-in for ssh (`fake-ssh/ssh`, which says why). `tests/gerrit/run` at the root of
//! the repository runs it against a real Gerrit.

mod bed;

use std::fs;
use std::time::Duration;

use bed::{Answer, Bed, lines_of};
use firehose_source::State;
use serde_json::Value;

const EVENT: &str = r#"{"type":"ref-updated","refUpdate":{"project":"a","refName":"refs/heads/x"},"eventCreatedOn":1795404491}"#;

/// Prints the bed's lines, says when all of them were taken, and stays.
const CAT_AND_STAY: &str = r#"login; cat "$dir/lines"; echo done >"$dir/read"; stay"#;

/// An event that can be told from others.
fn event(number: usize) -> String {
    format!(r#"{{"type":"t","project":"p","change":{{"number":{number}}},"eventCreatedOn":1795404491}}"#)
}

/// The topic that germqtt computed; with projectName where it found no project, and names percent-encoded.
fn topic_by_germqtt(event: &Value) -> String {
    let name = |project: &Value| match project {
        Value::Object(project) => project["name"].as_str().map(str::to_owned),
        project => project.as_str().map(str::to_owned),
    };
    let project = name(&event["project"])
        .or_else(|| name(&event["change"]["project"]))
        .or_else(|| name(&event["refUpdate"]["project"]))
        .or_else(|| name(&event["projectName"]))
        .unwrap_or_default();
    let encoded = project.replace('%', "%25").replace('+', "%2B").replace('#', "%23");
    format!("gerrit/{encoded}/{}", event["type"].as_str().unwrap())
}

#[tokio::test]
async fn every_recorded_event_arrives_byte_for_byte_and_in_order_on_germqtts_topic() {
    let files = ["../firehose/demo/recorded.jsonl", "../firehose/demo/real-3.13.5.jsonl"]
        .into_iter()
        .chain(["tests/data/constructed.jsonl", "tests/data/fixtures.jsonl"]);
    let files: Vec<String> = files.map(|f| format!("{}/{f}", env!("CARGO_MANIFEST_DIR"))).collect();
    let expected: Vec<String> = files.iter().flat_map(|f| lines_of(f)).collect();
    assert_eq!(expected.len(), 604);

    let bed = Bed::new(&format!("login; cat '{}'; stay", files.join("' '")));
    let running = bed.start(bed.config());
    let events = running.events(expected.len()).await;
    for (event, line) in events.iter().zip(&expected) {
        assert_eq!(event.payload, line.as_bytes());
        let json: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event.topic, topic_by_germqtt(&json));
        assert_eq!((event.qos, event.retain), (1, false));
        assert_eq!(event.content_type.as_deref(), Some("application/json"));
        let attribute =
            |name: &str| event.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(attribute("specversion"), Some("1.0"));
        assert_eq!(attribute("source"), Some("https://review.example.org/"));
        let kind = format!("org.gerritcodereview.{}", json["type"].as_str().unwrap());
        assert_eq!(attribute("type"), Some(&*kind));
        assert_eq!(attribute("time").is_some(), json.get("eventCreatedOn").is_some(), "{line}");
        assert_eq!(attribute("id"), None);
    }
    assert!(events.iter().any(|e| e.topic == "gerrit//dropped-output"));
    assert!(events.iter().any(|e| e.topic == "gerrit/libs/libstdc%2B%2B/project-created"));
    let status = running.stop().await;
    assert_eq!((status.lost.unreadable, status.lost.too_long, status.lost.refused), (0, 0, 0));
    assert_eq!(status.lost.dropped_by_service, 1);
}

#[tokio::test]
async fn it_connects_again_when_ssh_ends_and_says_so() {
    let bed = Bed::new(&format!("login; echo '{}'; stay", event(3)));
    bed.run(1, &format!("login; echo '{}'; exit 255", event(1)));
    bed.run(2, "echo 'ssh: connect to host review.example.org port 29418: Connection refused' >&2; exit 255");
    bed.run(
        3,
        &format!(
            "login; echo '{}'; echo 'Timeout, server review.example.org not responding.' >&2; exit 255",
            event(2)
        ),
    );
    let running = bed.start(bed.config());
    let payloads: Vec<_> = running.events(3).await.into_iter().map(|e| e.payload).collect();
    assert_eq!(payloads, [event(1), event(2), event(3)]);
    running.until(|r| r.states().iter().filter(|(state, _)| state == "live").count() == 3).await;
    let states = running.states();
    let short: Vec<&str> = states.iter().map(|(state, _)| state.as_str()).collect();
    assert_eq!(short, ["connecting", "live", "connecting", "failed", "live", "connecting", "live"]);
    assert!(states[3].1.contains("refuses connections"), "{states:?}");
    assert!(states[5].1.contains("link was dead"), "{states:?}");
    running.stop().await;
}

#[tokio::test]
async fn it_is_live_without_an_event_once_ssh_has_logged_in() {
    let bed = Bed::new("login; stay");
    let running = bed.start(bed.config());
    running.until(|r| r.status.get().state == State::Live).await;
    running.stop().await;
}

#[tokio::test]
async fn a_silent_link_is_given_up_after_silence_max() {
    let bed = Bed::new("login; stay");
    bed.run(1, &format!("login; echo '{}'; stay", event(1)));
    bed.run(2, &format!("login; echo '{}'; stay", event(2)));
    let mut config = bed.config();
    config.silence_max = Some(Duration::from_millis(300));
    let running = bed.start(config);
    running.events(2).await;
    running.until(|r| r.states().iter().any(|(_, why)| why.contains("silence_max"))).await;
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_never_lets_us_in_is_given_up_after_connect_timeout() {
    let bed = Bed::new("stay");
    let mut config = bed.config();
    config.connect_timeout = Duration::from_millis(100);
    let running = bed.start(config);
    running
        .until(|r| r.states().iter().any(|(state, why)| state == "failed" && why.contains("in time")))
        .await;
    running.until(|_| bed.runs() >= 3).await;
    running.stop().await;
}

#[tokio::test]
async fn refusals_by_ssh_are_told_in_the_status_with_what_to_do() {
    for (stderr, expected) in [
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "host key of review.example.org changed",
        ),
        (
            "No ED25519 host key is known for [review.example.org]:29418 and you have requested strict checking.\nHost key verification failed.",
            "ssh-keyscan",
        ),
        ("bot@review.example.org: Permission denied (publickey).", "refused the key of account bot"),
    ] {
        let bed = Bed::new(&format!("echo '{stderr}' >&2; exit 255"));
        let running = bed.start(bed.config());
        running.until(|r| r.status.get().state == State::Failed).await;
        let why = running.status.get().why.unwrap_or_default();
        assert!(why.contains(expected), "{why}");
        running.until(|_| bed.runs() >= 3).await;
        running.stop().await;
        // However often it tries in vain, it says so once.
        assert_eq!(running.states().len(), 2, "{:?}", running.states());
    }
}

#[tokio::test]
async fn a_missing_ssh_is_told_in_the_status() {
    let bed = Bed::new("stay");
    let mut config = bed.config();
    config.ssh_program = bed.folder().join("no-such-program");
    let running = bed.start(config);
    running.until(|r| r.status.get().state == State::Failed).await;
    assert!(running.status.get().why.unwrap().contains("cannot run ssh"));
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_event_is_counted_and_the_rest_goes_on() {
    let bed = Bed::new(&format!(
        "login; printf 'garbage\\n\\n[1]\\n{{}}\\n\\377\\n'; head -c 3000000 /dev/zero | tr '\\0' x; \
         printf '\\n%s\\n{{\"type\":' '{EVENT}'; sleep 0.2; printf '\"split\"}}\\n{{\"type\":\"half'; exit 1"
    ));
    bed.run(2, &format!("login; echo '{}'; stay", event(2)));
    let mut config = bed.config();
    config.line_bytes_max = 1 << 20;
    config.losses_interval = Duration::from_millis(10);
    let running = bed.start(config);
    let events = running.events(3).await;
    assert_eq!(events[0].payload, EVENT.as_bytes());
    assert_eq!(
        (events[1].topic.as_str(), &events[1].payload[..]),
        ("gerrit//split", &br#"{"type":"split"}"#[..])
    );
    assert_eq!(events[2].payload, event(2).as_bytes());
    running
        .until(|r| r.statuses().iter().any(|s| s["lost"]["unreadable"] == 6 && s["lost"]["too_long"] == 1))
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_line_of_16_mib_passes() {
    let size = (16 << 20) - r#"{"type":"big","x":""}"#.len();
    let bed = Bed::new(&format!(
        "login; printf '{{\"type\":\"big\",\"x\":\"'; head -c {size} /dev/zero | tr '\\0' x; printf '\"}}\\n'; stay"
    ));
    let running = bed.start(bed.config());
    assert_eq!(running.events(1).await[0].payload.len(), 16 << 20);
    running.stop().await;
}

#[tokio::test]
async fn a_sink_that_cannot_store_is_asked_again_until_it_can_and_order_holds() {
    let lines: Vec<String> = (0..500).map(event).collect();
    let bed = Bed::new("login; cat \"$dir/lines\"; stay");
    bed.lines(&lines);
    let sink = bed.sink(|events, calls| match calls < 20 && events.len() > 1 {
        true => Answer::RefuseAndRetry,
        false => Answer::Store,
    });
    let running = bed.start_with(bed.config(), sink);
    let payloads: Vec<_> = running.events(500).await.into_iter().map(|e| e.payload).collect();
    assert_eq!(payloads, lines);
    running.stop().await;
}

#[tokio::test]
async fn an_event_that_the_sink_refuses_for_good_is_counted_and_the_others_are_stored() {
    let lines: Vec<String> = (0..50).map(event).collect();
    let bed = Bed::new("login; cat \"$dir/lines\"; stay");
    bed.lines(&lines);
    let bad = event(17);
    let refused = bad.clone();
    let sink = bed.sink(move |events, _| match events.iter().any(|e| e.payload == refused) {
        true => Answer::Refuse,
        false => Answer::Store,
    });
    let running = bed.start_with(bed.config(), sink);
    let payloads: Vec<_> = running.events(49).await.into_iter().map(|e| e.payload).collect();
    let expected: Vec<_> = lines.into_iter().filter(|line| *line != bad).collect();
    assert_eq!(payloads, expected);
    assert_eq!(running.stop().await.lost.refused, 1);
}

#[tokio::test]
async fn reading_goes_on_while_the_sink_is_stuck_up_to_the_budget_and_nothing_is_lost() {
    let lines: Vec<String> = (0..5000).map(event).collect();
    let bed = Bed::new(CAT_AND_STAY);
    bed.lines(&lines);
    let sink = bed.sink(|_, _| Answer::Store);
    sink.block();
    let mut config = bed.config();
    config.queue_bytes_max = 4 << 20;
    let running = bed.start_with(config, sink.clone());
    // All of it leaves ssh though nothing is stored.
    running.until(|_| bed.folder().join("read").exists()).await;
    assert_eq!(running.stored().len(), 0);
    sink.unblock();
    let payloads: Vec<_> = running.events(5000).await.into_iter().map(|e| e.payload).collect();
    assert_eq!(payloads, lines);
    running.stop().await;
}

#[tokio::test]
async fn reading_waits_when_the_budget_is_taken() {
    let lines: Vec<String> = (0..5000).map(event).collect();
    let bed = Bed::new(CAT_AND_STAY);
    bed.lines(&lines);
    let sink = bed.sink(|_, _| Answer::Store);
    sink.block();
    let mut config = bed.config();
    config.queue_bytes_max = 64 << 10;
    let running = bed.start_with(config, sink.clone());
    running.until(|_| sink.is_waiting()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!bed.folder().join("read").exists(), "ssh's output was read beyond the budget");
    sink.unblock();
    let payloads: Vec<_> = running.events(5000).await.into_iter().map(|e| e.payload).collect();
    assert_eq!(payloads, lines);
    running.stop().await;
}

#[tokio::test]
async fn stopping_ends_ssh_and_all_that_it_started() {
    // The inner sleep is as a ProxyCommand: it ignores the gentle signal.
    let bed =
        Bed::new("login; sh -c \"trap '' TERM; echo \\$\\$ >'$dir/inner'; sleep 1000; sleep 1000\" & stay");
    let running = bed.start(bed.config());
    running.until(|r| r.status.get().state == State::Live && bed.folder().join("inner").exists()).await;
    running.until(|_| bed.pid("pid-1").is_some() && bed.pid("inner").is_some()).await;
    let pids = [bed.pid("pid-1").unwrap(), bed.pid("inner").unwrap()];
    assert!(pids.iter().all(|pid| bed::is_running(*pid)));
    running.stop().await;
    running.until(|_| pids.iter().all(|pid| !bed::is_running(*pid))).await;
}

#[tokio::test]
async fn dropping_the_source_ends_ssh() {
    let bed = Bed::new("login; stay");
    let running = bed.start(bed.config());
    running.until(|r| r.status.get().state == State::Live).await;
    let pid = bed.pid("pid-1").unwrap();
    running.abort();
    running.until(|_| !bed::is_running(pid)).await;
}

#[tokio::test]
async fn what_was_read_is_stored_before_the_source_ends() {
    let lines: Vec<String> = (0..100).map(event).collect();
    let bed = Bed::new(CAT_AND_STAY);
    bed.lines(&lines);
    let sink = bed.sink(|_, _| Answer::Store);
    sink.block();
    let mut config = bed.config();
    config.drain_timeout = Duration::from_secs(60);
    let running = bed.start_with(config, sink.clone());
    running.until(|_| bed.folder().join("read").exists()).await;
    running.ask_to_stop();
    sink.unblock();
    running.stop().await;
    assert_eq!(running.stored().len(), 100);
}

#[tokio::test]
async fn ssh_is_called_with_strict_host_keys_and_only_the_configured_key() {
    let bed = Bed::new("login; stay");
    let mut config = bed.config();
    config.identity_file = Some("/keys/bus".into());
    config.known_hosts_file = Some("/keys/known hosts".into());
    let running = bed.start(config);
    running.until(|r| r.status.get().state == State::Live).await;
    let arguments = fs::read_to_string(bed.folder().join("arguments-1")).unwrap();
    for expected in [
        "StrictHostKeyChecking=yes\n",
        "BatchMode=yes\n",
        "ServerAliveInterval=15\n",
        "UserKnownHostsFile=\"/keys/known hosts\"\n",
        "IdentitiesOnly=yes\n-i\n/keys/bus\n",
        "-p\n29418\nbot@review.example.org\ngerrit\nstream-events\n",
    ] {
        assert!(arguments.contains(expected), "{arguments}");
    }
    running.stop().await;
}
