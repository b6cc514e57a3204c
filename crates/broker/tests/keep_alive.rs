//! Keep-alive, as a shard counts it.

use firehose_auth::{Access, AnonymousMode, AuthConfig, Identity};
use firehose_broker::arrival::Arrival;
use firehose_broker::message::Message;
use firehose_broker::outbox::Wire;
use firehose_broker::shard::{Now, Shard};
use firehose_broker::state::State;
use firehose_broker::{Bus, BusConfig};
use firehose_log::{LogConfig, MemDisk};
use firehose_mqtt::{Connect, Packet, Properties, Version, encode};
use std::io::{self, IoSlice};
use std::sync::Arc;

const KEEP_ALIVE_SECS: u16 = 10;

/// A socket that takes everything.
struct Unread;

impl Wire for Unread {
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }
}

/// A shard with one client, and its bus.
fn shard_with_a_client() -> (Shard, Bus) {
    let log = firehose_log::open(LogConfig::new("/log"), Arc::new(MemDisk::default()), 0).unwrap();
    let access =
        Access::new(AuthConfig { password_file: None, acl_file: None, anonymous: AnonymousMode::Full })
            .unwrap();
    let config = BusConfig { shards: 1, ..BusConfig::default() };
    let state = State::in_memory(log.read.clone(), &config.limits);
    let bus = Bus::start(config, log, state, access);
    let connect = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive_secs: KEEP_ALIVE_SECS,
        client_id: "reader",
        will: None,
        user_name: None,
        password: None,
        properties: Properties::default(),
    };
    let mut input = Vec::new();
    encode(&Packet::Connect(connect), Version::V311, &mut input).unwrap();
    let arrival = Arrival {
        input,
        identity: Identity::anonymous(),
        client_id: "reader".into(),
        assigned: false,
        address: None,
        socket: None,
    };
    let mut shard = bus.shard(0);
    run(&mut shard, 1);
    shard.drain(&mut vec![Message::Arrival(Box::new(arrival))]);
    assert!(!shard.is_empty());
    (shard, bus)
}

fn run(shard: &mut Shard, secs: u64) {
    shard.set_now(Now { ms: secs * 1000, wall_us: 0 });
    shard.tick();
    while let Some(session) = shard.next_dirty() {
        shard.flush(session, &mut Unread);
    }
}

#[test]
fn a_client_that_is_not_heard_for_one_and_a_half_keep_alives_is_disconnected() {
    let (mut shard, bus) = shard_with_a_client();
    (2..=16).for_each(|secs| run(&mut shard, secs));
    assert!(!shard.is_empty());
    (17..=18).for_each(|secs| run(&mut shard, secs));
    assert!(shard.is_empty());
    bus.stop();
}

#[test]
fn time_in_which_the_shard_did_not_run_is_not_counted_against_its_clients() {
    let (mut shard, bus) = shard_with_a_client();
    run(&mut shard, 1000);
    assert!(!shard.is_empty(), "what the client sent meanwhile has not been read yet");
    (1001..=1020).for_each(|secs| run(&mut shard, secs));
    assert!(shard.is_empty());
    bus.stop();
}
