//! What happens before a connection comes to its shard.

use crate::bed::{Bed, connect_bytes};
use firehose_broker::Limits;
use firehose_mqtt::{Connect, Disconnect, Packet, Properties, QoS, Reason, Version, Will};
use firehose_topic::TopicName;
use std::io::Write;

#[test]
fn clients_of_all_versions_are_served_over_tcp_and_a_unix_socket() {
    let bed = Bed::start(Limits::default());
    let mut alice = bed.alice(Version::V5, "alice");
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut tcp = bed.client(version, "tcp");
        let mut unix = bed.dial_unix();
        unix.version = version;
        unix.connect("unix", None);
        assert_eq!(unix.next().as_deref(), Some("CONNACK Success"));
        tcp.subscribe("alice/#", QoS::AtMostOnce);
        unix.subscribe("alice/+", QoS::AtLeastOnce);
        alice.publish("alice/x", "hello", 7);
        assert_eq!(tcp.next().as_deref(), Some("hello"));
        assert_eq!(unix.next().as_deref(), Some("hello"));
        assert_eq!(alice.next().as_deref(), Some("PUBACK 7"), "also with fdatasync");
    }
}

#[test]
fn who_does_not_finish_connect_in_time_is_closed() {
    let bed = Bed::start(Limits { connect_timeout_secs: 1, ..Limits::default() });
    let mut silent = bed.dial();
    let mut half = bed.dial();
    half.send(&connect_bytes(Version::V5, "half", None)[..9]);
    let mut done = bed.client(Version::V311, "done");
    assert_eq!(silent.next(), None);
    assert_eq!(half.next(), None);
    done.send(&[0xc0, 0]);
    assert_eq!(done.next().as_deref(), Some("PINGRESP"), "the deadline is that of CONNECT only");
}

#[test]
fn who_sends_byte_by_byte_is_served_within_the_deadline_and_closed_behind_it() {
    let bed = Bed::start(Limits { connect_timeout_secs: 2, ..Limits::default() });
    let mut slow = bed.dial();
    for byte in connect_bytes(Version::V311, "slow", None) {
        slow.send(&[byte]);
    }
    slow.version = Version::V311;
    assert_eq!(slow.next().as_deref(), Some("CONNACK Success"));
    // A client id without end: every byte is welcome, none of them moves the deadline.
    let mut endless = bed.dial();
    endless.send(&[0x10, 0xff, 0x7f, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0x3f, 0xf0]);
    while endless.stream.write_all(b"x").is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_is_no_connect_is_closed_at_once() {
    let bed = Bed::start(Limits::default());
    let cases: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01],
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0xc0, 0x00],
        &[0x00; 64],
    ];
    for bytes in cases {
        let mut client = bed.dial();
        client.send(bytes);
        assert_eq!(client.next(), None, "{bytes:?}");
    }
}

#[test]
fn a_huge_connect_is_refused_when_its_length_is_known() {
    let bed = Bed::start(Limits::default());
    let mut client = bed.dial();
    client.send(&[0x10, 0xff, 0xff, 0xff, 0x7f]);
    assert!(client.next().is_none_or(|answer| answer == "CONNACK PacketTooLarge"));
}

#[test]
fn a_version_that_is_not_spoken_here_is_told_so() {
    let bed = Bed::start(Limits::default());
    for (level, version) in [(3, Version::V311), (6, Version::V5), (9, Version::V5)] {
        let mut client = bed.dial();
        client.version = version;
        client.send(&[0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 60, 0, 1, b'x']);
        // Return code 1 in the form of 3.1.1, reason 0x84 in that of 5.0.
        assert_eq!(client.next().as_deref(), Some("CONNACK UnsupportedProtocolVersion"), "{level}");
        assert_eq!(client.next(), None, "{level}");
    }
}

#[test]
fn who_ends_the_connection_right_behind_its_last_packet_is_gone() {
    let bed = Bed::start(Limits::default());
    for round in 0..50 {
        let mut client = bed.client(Version::V311, &format!("c{round}"));
        client.send(&[0xc0, 0]);
        client.stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
        assert_eq!(client.next().as_deref(), Some("PINGRESP"));
        assert_eq!(client.next(), None, "the end came with the packet, or right behind it");
    }
}

#[test]
fn a_password_is_checked() {
    let bed = Bed::start(Limits::default());
    for (version, password, expected) in [
        (Version::V5, "secret", "CONNACK Success"),
        (Version::V311, "secret", "CONNACK Success"),
        (Version::V5, "wrong", "CONNACK BadUserNameOrPassword"),
        // Return codes 5 and 4.
        (Version::V311, "wrong", "CONNACK NotAuthorized"),
        (Version::V31, "", "CONNACK BadUserNameOrPassword"),
    ] {
        let mut client = bed.dial();
        client.version = version;
        client.connect("c", Some(password));
        assert_eq!(client.next().as_deref(), Some(expected), "{version:?} {password}");
    }
}

#[test]
fn more_password_checks_than_may_wait_are_told_to_come_later() {
    let bed = Bed::start(Limits { password_checks_max: 1, ..Limits::default() });
    let mut clients: Vec<_> = (0..30).map(|_| bed.dial()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.connect(&format!("c {number}"), Some("secret"));
    }
    let answers: Vec<_> = clients.iter_mut().map(|client| client.next().expect("an answer")).collect();
    let count = |text: &str| answers.iter().filter(|answer| *answer == text).count();
    assert_eq!(count("CONNACK Success") + count("CONNACK ServerBusy"), 30, "{answers:?}");
    assert!(count("CONNACK Success") > 0 && count("CONNACK ServerBusy") > 0, "{answers:?}");
}

#[test]
fn unfinished_connects_share_one_budget_and_the_largest_goes_first() {
    let bed = Bed::start(Limits { connecting_bytes_max: 150_000, ..Limits::default() });
    // A CONNECT of 60,000 bytes, of which only so many come.
    let part = |bytes: usize| {
        let mut connect = vec![0x10, 0xe0, 0xd4, 3, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0xea, 0x50];
        connect.resize(bytes, b'x');
        connect
    };
    let mut large = bed.dial();
    large.send(&part(50_000));
    let mut others: Vec<_> = (0..10).map(|_| bed.dial()).collect();
    for other in &mut others {
        // It may be among those who are closed.
        let _ = other.stream.write_all(&part(20_000));
    }
    assert_eq!(large.next(), None);
    let mut honest = bed.client(Version::V311, "honest");
    honest.send(&[0xc0, 0]);
    assert_eq!(honest.next().as_deref(), Some("PINGRESP"));
}

#[test]
fn connections_are_counted_and_given_back() {
    let bed = Bed::start(Limits { connections_max: 3, ..Limits::default() });
    let mut clients: Vec<_> = (0..3).map(|it| bed.client(Version::V311, &it.to_string())).collect();
    assert_eq!(bed.dial().next(), None, "closed before a byte of it is read");
    clients.pop();
    // The place comes back when the shard has seen the end of that connection.
    loop {
        let mut next = bed.dial();
        let _ = next.stream.write_all(&connect_bytes(Version::V5, "next", None));
        if next.next().is_some() {
            return;
        }
    }
}

#[test]
fn the_same_id_takes_over_across_sockets() {
    let bed = Bed::start(Limits::default());
    let mut old = bed.client(Version::V5, "same");
    for _ in 0..20 {
        let new = bed.client(Version::V5, "same");
        assert_eq!(old.next().as_deref(), Some("DISCONNECT SessionTakenOver"));
        assert_eq!(old.next(), None);
        old = new;
    }
    assert_eq!(bed.bus.stats().connections.get(), 1);
}

#[test]
fn who_leaves_properly_and_comes_back_at_once_has_no_will_published() {
    let bed = Bed::start(Limits::default());
    let mut reader = bed.client(Version::V311, "reader");
    reader.subscribe("alice/#", QoS::AtMostOnce);
    let will = Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: TopicName::new("alice/will").expect("a topic"),
        payload: b"gone",
        properties: Properties::EMPTY,
    };
    let connect = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive_secs: 0,
        client_id: "hasty",
        will: Some(will),
        user_name: Some("alice"),
        password: Some(b"secret"),
        properties: Properties::EMPTY,
    };
    let disconnect = Disconnect { reason: Reason::Success, properties: Properties::EMPTY };
    for _ in 0..30 {
        let mut client = bed.dial();
        client.version = Version::V311;
        client.send_packet(&Packet::Connect(connect));
        assert_eq!(client.next().as_deref(), Some("CONNACK Success"));
        client.send_packet(&Packet::Disconnect(disconnect));
    }
    let mut last = bed.alice(Version::V311, "last");
    last.publish("alice/t", "the first that comes", 0);
    assert!(reader.next().is_some_and(|it| it.contains("the first that comes")));
}

#[test]
fn a_broken_connect_is_answered_in_mqtt_5_only() {
    let bed = Bed::start(Limits::default());
    for (level, answer) in [(4, None), (5, Some("CONNACK MalformedPacket"))] {
        let mut client = bed.dial();
        client.send(&[0x10, 0x0e, 0, 4, b'M', b'Q', b'T', b'T', level, 3, 0, 60, 0, 0, 1, b'x']);
        assert_eq!(client.next().as_deref(), answer);
    }
}

#[test]
fn an_empty_id_that_asks_for_a_session_is_told_so_and_closed() {
    let bed = Bed::start(Limits::default());
    for version in [Version::V31, Version::V311] {
        let name = version.protocol_name();
        let head = [0, name.len() as u8];
        let body = [&head, name.as_bytes(), &[version.level(), 0, 0, 60, 0, 0]].concat();
        let mut client = bed.dial();
        client.version = version;
        client.send(&[&[0x10, body.len() as u8][..], &body].concat());
        // Return code 2.
        assert_eq!(client.next().as_deref(), Some("CONNACK ClientIdentifierNotValid"));
        assert_eq!(client.next(), None);
    }
}

#[test]
fn who_is_refused_is_told_why_and_closed() {
    let bed = Bed::start(Limits::default());
    for (version, told) in [
        (Version::V31, "CONNACK BadUserNameOrPassword"),
        (Version::V311, "CONNACK NotAuthorized"),
        (Version::V5, "CONNACK BadUserNameOrPassword"),
    ] {
        let mut client = bed.dial();
        client.version = version;
        client.connect("c", Some("wrong"));
        assert_eq!(client.next().as_deref(), Some(told));
        assert_eq!(client.next(), None);
    }
    let mut client = bed.dial();
    let method = [6, 0x15, 0, 3, b'G', b'S', b'2'];
    let body = [&b"\0\x04MQTT\x05\x02\0\x3c"[..], &method, b"\0\x01c"].concat();
    client.send(&[&[0x10, body.len() as u8][..], &body].concat());
    assert_eq!(client.next().as_deref(), Some("CONNACK BadAuthenticationMethod"));
    assert_eq!(client.next(), None);
}

#[test]
fn a_stop_tells_everybody() {
    let mut bed = Bed::start(Limits::default());
    let mut clients: Vec<_> = (0..20).map(|it| bed.client(Version::V5, &it.to_string())).collect();
    let mut old = bed.client(Version::V311, "old");
    let mut guest = bed.dial();
    bed.stop();
    for client in &mut clients {
        assert_eq!(client.next().as_deref(), Some("DISCONNECT ServerShuttingDown"));
        assert_eq!(client.next(), None);
    }
    assert_eq!((old.next(), guest.next()), (None, None));
    assert!(std::net::TcpStream::connect(bed.tcp).is_err());
}
