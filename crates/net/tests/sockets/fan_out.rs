//! Many sockets on several shards, run by their own threads, the leader and helpers.

use crate::bed::Bed;
use firehose_broker::Limits;
use firehose_mqtt::{QoS, Version};

#[test]
fn every_message_comes_to_every_socket_in_one_order() {
    const READERS: usize = 200;
    const PUBLISHERS: usize = 4;
    const EACH: u16 = 300;
    // Few flushes are a helper's: so that the shards' own threads are called too.
    let bed = Bed::start(Limits { helping_flushes_max: 4, ..Limits::default() });
    let mut readers: Vec<_> = (0..READERS)
        .map(|number| {
            let mut reader = bed.client(Version::V311, &format!("reader {number}"));
            reader.subscribe("alice/#", QoS::AtMostOnce);
            reader
        })
        .collect();
    std::thread::scope(|scope| {
        for number in 0..PUBLISHERS {
            let bed = &bed;
            scope.spawn(move || {
                let mut alice = bed.alice(Version::V311, &format!("alice {number}"));
                for id in 1..=EACH {
                    alice.publish("alice/t", &format!("{number} {id}"), id);
                    if id % 10 == 0 {
                        for acknowledged in id - 9..=id {
                            assert_eq!(alice.next(), Some(format!("PUBACK {acknowledged}")));
                        }
                    }
                }
            });
        }
    });
    let mut orders = readers.iter_mut().map(|reader| -> Vec<String> {
        (0..PUBLISHERS * usize::from(EACH)).map(|_| reader.next().expect("a message")).collect()
    });
    let first = orders.next().expect("a reader");
    for number in 0..PUBLISHERS {
        let of_one: Vec<_> = first.iter().filter(|it| it.starts_with(&format!("{number} "))).collect();
        let expected: Vec<String> = (1..=EACH).map(|id| format!("{number} {id}")).collect();
        assert!(of_one.into_iter().eq(&expected), "in the order of publisher {number}");
    }
    assert!(orders.all(|order| order == first), "one order for all");
}

#[test]
fn a_reader_that_stops_reading_gets_everything_later_and_nobody_else_notices() {
    const MESSAGES: u16 = 2_000;
    let bed = Bed::start(Limits::default());
    let mut slow = bed.client(Version::V5, "slow");
    let mut lively = bed.client(Version::V5, "lively");
    slow.subscribe("alice/#", QoS::AtMostOnce);
    lively.subscribe("alice/#", QoS::AtMostOnce);
    let mut alice = bed.alice(Version::V311, "alice");
    let filler = "x".repeat(8_000);
    for id in 1..=MESSAGES {
        alice.publish("alice/t", &format!("{id} {filler}"), id);
        assert!(lively.next().is_some_and(|it| it.starts_with(&format!("{id} "))));
        assert_eq!(alice.next(), Some(format!("PUBACK {id}")));
    }
    assert!(bed.bus.stats().lanes_fallen_back.get() > 0, "16 MB fit into no socket buffer");
    for id in 1..=MESSAGES {
        assert!(slow.next().is_some_and(|it| it.starts_with(&format!("{id} "))), "number {id}");
    }
    let mut late = bed.client(Version::V31, "late");
    late.subscribe("$replay/earliest/alice/#", QoS::AtMostOnce);
    for id in 1..=MESSAGES {
        assert!(late.next().is_some_and(|it| it.starts_with(&format!("{id} "))), "number {id}");
    }
}
