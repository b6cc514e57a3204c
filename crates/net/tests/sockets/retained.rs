//! Retained messages and wills over sockets, by Debian's mosquitto_pub and mosquitto_sub.

use crate::bed::Bed;
use firehose_broker::Limits;
use std::process::{Command, Stdio};

/// Waits until a line that was retained is seen by a new subscriber.
const PATIENCE_SECS: &str = "60";

fn mosquitto(bed: &Bed, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &bed.tcp.port().to_string()]).args(args);
    command
}

fn publish(bed: &Bed, args: &[&str]) {
    let user = ["-u", "alice", "-P", "secret", "-q", "1", "-r"];
    let status = mosquitto(bed, "mosquitto_pub", &user).args(args).status();
    assert!(status.expect("mosquitto_pub is installed").success());
}

fn lines(bed: &Bed, args: &[&str]) -> Vec<String> {
    let output = mosquitto(bed, "mosquitto_sub", &["-W", PATIENCE_SECS, "-F", "%t %p %r"])
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .expect("mosquitto_sub is installed");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn mosquitto_sub_gets_what_mosquitto_pub_retained() {
    let bed = Bed::start(Limits::default());
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        publish(&bed, &["-V", version, "-t", "alice/b", "-m", version]);
        publish(&bed, &["-V", version, "-t", "alice/gone", "-m", "x"]);
        publish(&bed, &["-V", version, "-t", "alice/gone", "-n"]);
        publish(&bed, &["-V", version, "-t", "alice/a", "-m", "first"]);
        for qos in ["0", "1", "2"] {
            let got = lines(&bed, &["-V", version, "-q", qos, "-t", "alice/+", "-C", "2"]);
            assert_eq!(got, ["alice/a first 1".to_owned(), format!("alice/b {version} 1")]);
        }
    }
}

#[test]
fn sys_comes_at_once() {
    let bed = Bed::start(Limits::default());
    let got = lines(&bed, &["-t", "$SYS/broker/version", "-C", "1"]);
    assert!(got[0].starts_with("$SYS/broker/version firehose version "), "{got:?}");
    let got = lines(&bed, &["-t", "$SYS/broker/state/#", "-C", "6"]);
    let names = ["commits", "commits/seconds", "lag", "rebuilds", "sessions", "wills"];
    for name in names {
        let topic = format!("$SYS/broker/state/{name} ");
        assert!(got.iter().any(|line| line.starts_with(&topic)), "{topic}: {got:?}");
    }
}

#[test]
fn thousands_of_retained_messages_come_whole_and_in_order() {
    let bed = Bed::start(Limits::default());
    let text: String = (0..3000).map(|number| format!("{number}\n")).collect();
    std::thread::scope(|scope| {
        for part in 0..2 {
            let (bed, text) = (&bed, &text);
            scope.spawn(move || {
                let mut alice = bed.alice(firehose_mqtt::Version::V311, &format!("alice {part}"));
                for (index, line) in text.lines().enumerate().filter(|(index, _)| index % 2 == part) {
                    let id = index as u16 + 1;
                    alice.retain(&format!("alice/{index:05}"), line, id);
                    assert_eq!(alice.next(), Some(format!("PUBACK {id}")));
                }
            });
        }
    });
    let expected: Vec<String> = (0..3000).map(|number| format!("alice/{number:05} {number} 1")).collect();
    std::thread::scope(|scope| {
        for qos in ["0", "1", "2", "1"] {
            let (bed, expected) = (&bed, &expected);
            scope.spawn(move || {
                let got = lines(bed, &["-q", qos, "-t", "alice/#", "-C", "3000"]);
                assert!(got == *expected, "QoS {qos}: {} lines", got.len());
            });
        }
    });
}

#[test]
fn a_will_is_published_when_mosquitto_sub_is_killed_and_retained() {
    let bed = Bed::start(Limits::default());
    let user = ["-u", "alice", "-P", "secret", "-t", "alice/x", "-i", "mortal"];
    let will = ["--will-topic", "alice/will", "--will-payload", "gone", "--will-qos", "1", "--will-retain"];
    let mut mortal = mosquitto(&bed, "mosquitto_sub", &user)
        .args(will)
        .stdout(Stdio::null())
        .spawn()
        .expect("mosquitto_sub is installed");
    // It is connected once it has taken over nothing and subscribed: what it is sent says so.
    while bed.bus.stats().subscriptions.get() == 0 {
        std::thread::yield_now();
    }
    mortal.kill().expect("killed");
    mortal.wait().expect("over");
    let got = lines(&bed, &["-q", "1", "-t", "alice/will", "-C", "1"]);
    assert!(got == ["alice/will gone 1"] || got == ["alice/will gone 0"], "{got:?}");
    assert_eq!(lines(&bed, &["-t", "alice/will", "-C", "1"]), ["alice/will gone 1"]);
}
