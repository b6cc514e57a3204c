//! A start: what is damaged is set aside, what cannot be read now stays where it is, and what is missing is told.

use crate::bed::*;
use firehose_broker::Limits;
use firehose_broker::action::Now;
use firehose_broker::state::{State, StateError, StateNote};
use firehose_log::{Disk, DiskCall, LogConfig, MemDisk, Origin, RealDisk};
use std::io::ErrorKind;
use std::sync::Arc;

/// A bus that has a session and a retained message, and is stopped.
fn stopped() -> (MemDisk, MemDisk, Now) {
    let mut bed = Bed::new();
    bed.open(open(&name("a"))).unwrap();
    bed.retain("t", b"1");
    bed.settle();
    (bed.disk.copy(), bed.state_disk.copy(), bed.now)
}

/// Why the state does not begin on these disks.
fn refusal(disk: &MemDisk, state_disk: &MemDisk, now: Now) -> String {
    let config = LogConfig { segment_bytes: 256 << 10, ..LogConfig::new("/data/log") };
    let log = firehose_log::open(config, Arc::new(disk.copy()), now.wall_us).unwrap();
    let limits = Arc::new(Limits::default());
    match State::open(Arc::new(state_disk.clone()), &path(), log.read.clone(), limits, now) {
        Err(StateError(why)) => why,
        Ok((_, report)) => panic!("it begins: {:?}", report.notes),
    }
}

fn names(state_disk: &MemDisk) -> Vec<String> {
    state_disk.list(path().parent().unwrap()).unwrap()
}

#[test]
fn a_file_that_cannot_be_read_now_is_not_set_aside_and_the_start_is_refused() {
    for kind in [ErrorKind::Other, ErrorKind::TimedOut, ErrorKind::PermissionDenied] {
        for call in [DiskCall::Read, DiskCall::Write, DiskCall::Sync, DiskCall::SyncDir] {
            let (disk, state_disk, now) = stopped();
            state_disk.fail(call, kind);
            let why = refusal(&disk, &state_disk, now);
            for part in ["/data/state.redb", "stays where it is", "owner", "open files"] {
                assert!(why.contains(part), "{call:?}: {why}");
            }
            assert!(!names(&state_disk).iter().any(|name| name.contains("damaged")));
            let mut bed = Bed::on(disk, state_disk, now, Limits::default());
            assert!(bed.notes.is_empty(), "{call:?}: {:?}", bed.notes);
            assert!(bed.open(open(&name("a"))).unwrap().resumed.is_some(), "{call:?}");
            let mut bed = bed.lose_power();
            assert!(bed.notes.is_empty(), "{call:?}: {:?}", bed.notes);
            assert!(bed.open(open(&name("a"))).unwrap().resumed.is_some(), "{call:?}");
        }
    }
}

#[test]
fn someone_elses_file_and_a_folder_in_its_place_refuse_the_start() {
    let (disk, state_disk, now) = stopped();
    state_disk.deny(&path());
    let why = refusal(&disk, &state_disk, now);
    assert!(why.contains("ermission denied"), "{why}");
    assert_eq!(names(&state_disk), ["state.redb"]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.redb");
    std::fs::create_dir(&file).unwrap();
    let log = LogConfig { disk_reserve_bytes: 0, ..LogConfig::new(folder.path().join("log")) };
    let log = firehose_log::open(log, Arc::new(RealDisk::new()), 0).unwrap();
    let limits = Arc::new(Limits::default());
    let opened = State::open(Arc::new(RealDisk::new()), &file, log.read.clone(), limits, Now::default());
    assert!(opened.is_err_and(|StateError(why)| why.contains("state.redb")));
    assert!(file.is_dir());
}

#[test]
fn with_a_full_disk_the_sessions_there_are_go_on_and_the_file_is_written_when_there_is_room() {
    for call in [DiskCall::Write, DiskCall::Sync] {
        let (disk, state_disk, now) = stopped();
        state_disk.set_free_bytes(Some(100));
        state_disk.fail(call, ErrorKind::StorageFull);
        let mut bed = Bed::on(disk, state_disk, now, Limits::default());
        assert!(matches!(&bed.notes[..], [StateNote::Bad(_)]), "{call:?}: {:?}", bed.notes);
        let secret = bed.state.secret().clone();
        assert!(bed.open(open(&name("a"))).unwrap().resumed.is_some(), "{call:?}");
        assert_eq!(bed.retained("#").len(), 1);
        assert!(bed.open(open(&name("b"))).is_err());
        bed.state_disk.set_free_bytes(None);
        bed.pass(1);
        bed.settle();
        bed.open(open(&name("b"))).unwrap();
        let mut bed = bed.lose_power();
        assert!(secret == *bed.state.secret());
        assert!(bed.notes.is_empty(), "{:?}", bed.notes);
        assert!(bed.open(open(&name("b"))).unwrap().resumed.is_some());
    }
}

#[test]
fn a_missing_file_is_told_when_the_log_has_events_and_only_then() {
    assert!(Bed::new().notes.is_empty());
    let (disk, state_disk, now) = stopped();
    state_disk.remove(&path()).unwrap();
    let mut bed = Bed::on(disk, state_disk, now, Limits::default());
    let [StateNote::Bad(line)] = &bed.notes[..] else { panic!("{:?}", bed.notes) };
    for part in
        ["/data/state.redb", "is missing", "sessions and wills are lost", "retained messages are rebuilt"]
    {
        assert!(line.contains(part), "{line}");
    }
    bed.settle();
    assert_eq!(bed.retained("#").len(), 1);
    assert!(bed.restart().notes.is_empty());
}

/// A message that outlived its segment stands in a file of its own; that it was cleared stands in the log, until
/// retention deletes that too.
#[test]
fn what_was_cleared_does_not_come_back_when_the_state_is_rebuilt() {
    let config =
        LogConfig { segment_bytes: 4 << 10, retention_bytes: Some(12 << 10), ..LogConfig::new("/data/log") };
    let now = Now { ms: 0, wall_us: 1_700_000_000_000_000 };
    let mut bed = Bed::on_log(config.clone(), MemDisk::new(), MemDisk::new(), now, Limits::default());
    for topic in ["a", "b", "c"] {
        bed.retain(topic, b"1");
    }
    thin_out(&mut bed);
    assert_eq!(bed.log.read.kept(), [1, 2, 3]);
    let cleared = bed.retain("b", b"");
    thin_out(&mut bed);
    assert!(bed.log.read.oldest() > cleared);
    let before = bed.retained("#");
    bed.state_disk.remove(&path()).unwrap();
    let Bed { disk, state_disk, log, state, .. } = bed;
    let (disk, state_disk) = (disk.copy(), state_disk.copy());
    drop((log, state));
    let mut bed = Bed::on_log(config, disk, state_disk, now, Limits::default());
    assert_eq!(bed.notes.len(), 1, "{:?}", bed.notes);
    bed.settle();
    assert_eq!(bed.retained("#"), before);
    assert_eq!(before, [("a".to_owned(), 1), ("c".to_owned(), 3)]);
}

/// Retention deletes what there was.
fn thin_out(bed: &mut Bed) {
    for _ in 0..20 {
        bed.append("x", &[0; 1_000], 0, false, Origin::default());
    }
    bed.settle();
    bed.log.commit.upkeep(bed.now.wall_us, &mut bed.state.keep());
}
