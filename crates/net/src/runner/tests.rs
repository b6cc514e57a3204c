//! Turns of one runner over real sockets, of which none is told to be ready.

use super::*;
use crate::addresses::Addresses;
use firehose_auth::{Access, AnonymousMode, AuthConfig, Identity};
use firehose_broker::arrival::Arrival;
use firehose_broker::state::State;
use firehose_broker::{BusConfig, Limits};
use firehose_log::{LogConfig, MemDisk, open};
use firehose_mqtt::{
    Connect, Packet, Properties, QoS, Subscribe, SubscribeItemsBuf, SubscribeOptions, Version, Will, encode,
};
use firehose_topic::TopicName;
use mio::net::UnixStream;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

/// CONNECT of MQTT 5, clean, with the client id `x`.
const CONNECT: &[u8] = &[0x10, 0x0e, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, b'x'];
const DISCONNECT: &[u8] = &[0xe0, 0];
const PINGREQ: &[u8] = &[0xc0, 0];
const CONNACK: u8 = 0x20;

struct Bed {
    bus: Bus,
    runner: Runner,
    places: Addresses,
}

impl Bed {
    fn new() -> Bed {
        let limits = Limits::default();
        let log = LogConfig { disk_reserve_bytes: 0, ..LogConfig::new("/log") };
        let log = open(log, Arc::new(MemDisk::new()), 0).expect("opens");
        let state = State::in_memory(log.read.clone(), &limits);
        let auth = AuthConfig { anonymous: AnonymousMode::Full, ..AuthConfig::default() };
        let config = BusConfig { shards: 1, limits, ..BusConfig::default() };
        let bus = Bus::start(config, log, state, Access::new(auth).expect("loads"));
        let readers = Readers::start(&bus).expect("threads");
        let registry = mio::Poll::new().and_then(|poll| poll.registry().try_clone()).expect("an epoll");
        let runner = Runner::new(&bus, 0, registry, &readers);
        Bed { bus, runner, places: Addresses::default() }
    }

    /// A client arrives, and waits in the shard's mailbox; gives its end of the socket.
    fn arrive(&mut self) -> UnixStream {
        self.arrive_with(CONNECT.to_vec())
    }

    fn arrive_with(&mut self, input: Vec<u8>) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let place = self.places.admit(None, self.bus.limits()).expect("a place");
        let newcomer = Newcomer { socket: Socket::Unix(ours), place };
        let arrival = Arrival {
            input,
            identity: Identity::anonymous(),
            client_id: "x".into(),
            assigned: false,
            address: None,
            socket: Some(Box::new(newcomer)),
        };
        self.bus.sequencer().send(0, Message::Arrival(Box::new(arrival)));
        theirs
    }

    /// A turn of the shard in which no socket was told to be ready.
    fn turn(&mut self) {
        self.runner.exchange();
        self.runner.flush();
        self.runner.exchange();
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.bus.stop();
    }
}

fn heard(client: &mut UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 1000];
    let len = client.read(&mut bytes).expect("it was answered, or the connection is over");
    bytes.truncate(len);
    bytes
}

#[test]
fn a_client_that_is_told_why_it_is_closed_may_still_send() {
    let mut bed = Bed::new();
    let mut client = bed.arrive();
    bed.turn();
    assert_eq!(heard(&mut client)[0], CONNACK);
    client.write_all(CONNECT).expect("sent");
    bed.runner.read_socket(0);
    bed.turn();
    client.write_all(DISCONNECT).expect("nothing reset the connection");
    assert_eq!(heard(&mut client), [0xe0, 1, 0x82]);
    assert!(heard(&mut client).is_empty(), "then it is closed");
}

#[test]
fn what_a_client_sent_before_it_came_again_is_read_before_it_is_taken_over() {
    for leaves in [false, true] {
        let mut bed = Bed::new();
        let mut old = bed.arrive();
        bed.turn();
        assert_eq!(heard(&mut old)[0], CONNACK);
        if leaves {
            old.write_all(DISCONNECT).expect("sent");
        }
        let mut new = bed.arrive();
        bed.turn();
        assert_eq!(heard(&mut new)[0], CONNACK);
        // Who has left is not told that it was taken over.
        assert_eq!(heard(&mut old), if leaves { &[][..] } else { &[0xe0, 1, 0x8e] });
    }
}

/// A SUBSCRIBE that is looked at in more than one turn; until then what follows it is not.
fn many_filters() -> Vec<u8> {
    let mut items = SubscribeItemsBuf::new();
    (0..600)
        .for_each(|number| items.push(&format!("t/{number}"), SubscribeOptions::default()).expect("fits"));
    let packet_id = 1.try_into().expect("not zero");
    let packet = Subscribe { packet_id, properties: Properties::EMPTY, filters: items.as_items() };
    let mut bytes = Vec::new();
    encode(&Packet::Subscribe(packet), Version::V5, &mut bytes).expect("a SUBSCRIBE");
    bytes
}

fn connect_with_will() -> Vec<u8> {
    let will = Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: TopicName::new("x/will").expect("a topic"),
        payload: b"gone",
        properties: Properties::EMPTY,
    };
    let connect = Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive_secs: 0,
        client_id: "x",
        will: Some(will),
        user_name: None,
        password: None,
        properties: Properties::EMPTY,
    };
    let mut bytes = Vec::new();
    encode(&Packet::Connect(connect), Version::V5, &mut bytes).expect("a CONNECT");
    bytes
}

#[test]
fn what_a_client_sent_while_it_was_not_read_is_read_before_it_is_taken_over() {
    for (leaves, closes) in [(false, false), (true, false), (true, true)] {
        let mut bed = Bed::new();
        let mut old = bed.arrive();
        bed.turn();
        assert_eq!(heard(&mut old)[0], CONNACK);
        old.write_all(&many_filters()).expect("sent");
        bed.runner.read_socket(0);
        if leaves {
            old.write_all(DISCONNECT).expect("sent");
        }
        if closes {
            old.shutdown(std::net::Shutdown::Write).expect("shut");
        }
        let mut new = bed.arrive();
        bed.turn();
        assert_eq!(heard(&mut new)[0], CONNACK);
        assert_eq!(heard(&mut old), if leaves { &[][..] } else { &[0xe0, 1, 0x8e] });
    }
}

#[test]
fn the_end_of_a_socket_that_is_not_read_is_seen_when_its_pause_is_over() {
    let mut bed = Bed::new();
    let mut client = bed.arrive();
    bed.turn();
    assert_eq!(heard(&mut client)[0], CONNACK);
    client.write_all(&many_filters()).expect("sent");
    bed.runner.read_socket(0);
    client.shutdown(std::net::Shutdown::Write).expect("shut");
    bed.runner.read_socket(0);
    assert!(!bed.runner.is_empty(), "what it sent before comes first");
    while bed.runner.shard.go_on_with_filters() || !bed.runner.is_quiet() {
        bed.turn();
        bed.runner.read();
    }
    assert!(bed.runner.is_empty());
    assert_eq!(heard(&mut client)[0], 0x90, "SUBACK");
}

#[test]
fn what_a_client_sent_before_its_socket_failed_is_read_and_a_disconnect_keeps_its_will_from_being_published()
{
    for leaves in [false, true] {
        let mut bed = Bed::new();
        let mut client = bed.arrive_with(connect_with_will());
        // The state keeps the will first, on its own thread.
        let mut bytes = [0; 100];
        while client.read(&mut bytes).is_err() {
            bed.turn();
            std::thread::yield_now();
        }
        assert_eq!(bytes[0], CONNACK);
        client.write_all(PINGREQ).expect("sent");
        bed.runner.read_socket(0);
        if leaves {
            client.write_all(DISCONNECT).expect("sent");
        }
        drop(client);
        bed.turn();
        assert!(bed.runner.is_empty());
        while !leaves && bed.bus.sequencer().head() == 0 {
            std::thread::yield_now();
        }
        bed.bus.stop();
        assert_eq!(bed.bus.sequencer().head(), u64::from(!leaves), "the will");
    }
}
