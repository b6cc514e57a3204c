//! A disk whose every `write` is slow, and whose `fdatasync` takes as long as it likes: what it delays, and what not.

use crate::bed::Bed;
use firehose_broker::Limits;
use firehose_log::{Append, Batch, Commit, CommitError, Keep, Log, Offset, Refusal, Submission, Upkeep};
use firehose_mqtt::{PINGREQ, QoS, Version};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What every `write` takes.
const WRITE: Duration = Duration::from_millis(20);

struct SlowAppend(Box<dyn Append>);

impl Append for SlowAppend {
    fn append(
        &mut self,
        now_us: i64,
        submissions: &mut Vec<Submission>,
        placed: &mut dyn FnMut(u32, u64, Result<Arc<Batch>, Refusal>),
    ) {
        std::thread::sleep(WRITE);
        self.0.append(now_us, submissions, placed);
    }

    fn head(&self) -> Offset {
        self.0.head()
    }

    fn durable(&self) -> Offset {
        self.0.durable()
    }

    fn wants_upkeep(&self) -> bool {
        self.0.wants_upkeep()
    }
}

/// An `fdatasync` that waits while a test holds the gate.
struct Gated {
    commit: Box<dyn Commit>,
    gate: Arc<Mutex<()>>,
}

impl Commit for Gated {
    fn commit(&mut self) -> Result<Offset, CommitError> {
        drop(self.gate.lock());
        self.commit.commit()
    }

    fn upkeep(&mut self, now_us: i64, keep: &mut dyn Keep) -> Vec<Upkeep> {
        self.commit.upkeep(now_us, keep)
    }
}

#[test]
fn nothing_but_acknowledgements_waits_for_an_fdatasync_that_hangs() {
    let gate = Arc::<Mutex<()>>::default();
    let of_disk = gate.clone();
    let mut bed = Bed::start_on(Limits::default(), |log| Log {
        append: Box::new(SlowAppend(log.append)),
        commit: Box::new(Gated { commit: log.commit, gate: of_disk }),
        ..log
    });
    let mut alice = bed.alice(Version::V311, "alice");
    let mut live = bed.client(Version::V311, "live");
    live.subscribe("alice/#", QoS::AtLeastOnce);
    let shut = gate.lock().expect("whole");
    for id in 1..6 {
        alice.publish("alice/t", &id.to_string(), id);
    }
    for id in 1..6 {
        assert_eq!(live.next(), Some(id.to_string()), "it is delivered after its write");
    }
    for client in [&mut alice, &mut live] {
        client.send(&PINGREQ);
        assert_eq!(client.next().as_deref(), Some("PINGRESP"), "and no acknowledgement before it");
    }
    for number in 0..6 {
        // Some on each shard.
        let mut newcomer = bed.client(Version::V5, &format!("newcomer {number}"));
        newcomer.subscribe("$replay/earliest/alice/#", QoS::AtMostOnce);
        for id in 1..6 {
            assert_eq!(newcomer.next(), Some(id.to_string()));
        }
    }
    drop(shut);
    for id in 1..6 {
        assert_eq!(alice.next(), Some(format!("PUBACK {id}")));
    }
    bed.stop();
}
