//! An event is taken back on a running bus, of which the state cannot be written just then.

use crate::bed::*;
use firehose_auth::{Access, AuthConfig};
use firehose_broker::action::Now;
use firehose_broker::limits::Limits;
use firehose_broker::{Bus, BusConfig, Durability};
use firehose_log::{Chunk, DiskCall, Kind, LogConfig, MemDisk, Offset, Origin, RedactError, Wait};
use firehose_topic::TopicFilter;
use std::io::ErrorKind;
use std::sync::mpsc::channel;
use std::time::Duration;

/// A test that waits for longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bus on what the bed has, with its threads.
fn run(bed: Bed) -> (Bus, MemDisk) {
    run_with(bed, Durability::Sync)
}

fn run_with(bed: Bed, durability: Durability) -> (Bus, MemDisk) {
    let Bed { state_disk, log, state, .. } = bed;
    let config = BusConfig { shards: 1, durability, ..BusConfig::default() };
    (Bus::start(config, log, state, Access::new(AuthConfig::default()).expect("no rules")), state_disk)
}

fn kind_of(bus: &Bus, offset: Offset) -> Kind {
    match bus.read().read(offset, offset, 1, Wait::Yes).expect("is read") {
        Chunk::Batches(batches) => batches[0].record((offset - batches[0].base()) as usize).kind(),
        other => panic!("{other:?}"),
    }
}

/// In a tombstone nobody sees that there was a message that took the place of the one before, the packet id that its
/// publisher used, or that it was a will.
#[test]
fn an_event_stays_until_what_followed_from_it_is_saved() {
    let mut bed = Bed::new();
    bed.retain("t", b"before");
    bed.settle();
    let offset = bed.retain("t", b"secret");
    bed.state_disk.fail_after(0, ErrorKind::Other);
    let (bus, state_disk) = run(bed);
    let refused = bus.redact(offset);
    assert!(matches!(refused, Err(RedactError::Failed(_))), "{refused:?}");
    assert_eq!(kind_of(&bus, offset), Kind::Event);
    state_disk.heal();
    while let Err(error) = bus.redact(offset) {
        assert!(matches!(error, RedactError::Failed(_)), "{error}");
    }
    assert_eq!(kind_of(&bus, offset), Kind::Tombstone);
    bus.stop();
    let all = TopicFilter::new("#").expect("a filter");
    let retained = bus.state_reader().retained(&all, None, Offset::MAX, 10).expect("is read");
    assert_eq!(retained.entries, []);
}

/// What has to be saved first waits for a log that makes nothing durable any more, whatever acknowledgements wait for.
#[test]
fn on_a_log_that_is_read_only_nothing_is_taken_back_and_nobody_waits_for_ever() {
    for durability in [Durability::Sync, Durability::Os] {
        let mut bed = Bed::new();
        let offset = bed.retain("t", b"secret");
        bed.disk.fail_after(0, ErrorKind::Other);
        let (bus, _) = run_with(bed, durability);
        let (done, refused) = channel();
        let asked = bus.clone();
        std::thread::spawn(move || done.send(asked.redact(offset)));
        let refused = refused.recv_timeout(PATIENCE);
        assert!(matches!(refused, Ok(Err(RedactError::Failed(_)))), "{durability:?}: {refused:?}");
        assert_eq!(kind_of(&bus, offset), Kind::Event);
        bus.stop();
    }
}

/// The log may have done its part in an attempt that failed later, and knows nothing of the event any more.
#[test]
fn of_one_that_retention_deleted_nothing_stays_in_the_state_when_it_is_done_again() {
    let config =
        LogConfig { segment_bytes: 4 << 10, retention_bytes: Some(8 << 10), ..LogConfig::new("/data/log") };
    let now = Now { ms: 0, wall_us: 1_700_000_000_000_000 };
    let mut bed = Bed::on_log(config, MemDisk::new(), MemDisk::new(), now, Limits::default());
    let offset = bed.retain("people/alice-secret", b"1");
    for _ in 0..20 {
        bed.append("x", &[0; 1_000], 0, false, Origin::default());
    }
    bed.settle();
    bed.log.commit.upkeep(now.wall_us, &mut bed.state.keep());
    assert_eq!(bed.log.read.kept(), [offset]);
    let (bus, state_disk) = run(bed);
    state_disk.fail(DiskCall::Create, ErrorKind::Other);
    let first = bus.redact(offset);
    assert!(matches!(first, Err(RedactError::Failed(_))), "{first:?}");
    assert!(bus.read().kept().is_empty());
    let again = loop {
        match bus.redact(offset) {
            Err(RedactError::Failed(_)) => {}
            other => break other,
        }
    };
    assert_eq!(again, Err(RedactError::Gone { offset }));
    bus.stop();
    let bytes = state_disk.bytes(&path()).expect("is there");
    assert!(!bytes.windows(12).any(|window| window == b"alice-secret"));
}
