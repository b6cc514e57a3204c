//! Records that are still needed when retention deletes their segment.

mod fixture;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use firehose_log::{Disk, DiskCall, Fetched, Keep, Log, LogConfig, MemDisk, Note, Offset, Upkeep, Wait};
use fixture::*;

const MINUTE_US: u64 = 60_000_000;

/// Needs these.
struct Needs(Vec<Offset>);

impl Keep for Needs {
    fn wanted(&mut self, first: Offset, last: Offset) -> Option<Vec<Offset>> {
        Some(self.0.iter().copied().filter(|offset| (first..=last).contains(offset)).collect())
    }
}

/// Does not know.
struct Unsure;

impl Keep for Unsure {
    fn wanted(&mut self, _: Offset, _: Offset) -> Option<Vec<Offset>> {
        None
    }
}

fn small() -> LogConfig {
    LogConfig { segment_bytes: 16 << 10, retention_bytes: Some(40 << 10), ..config() }
}

fn text_of(offset: Offset) -> String {
    format!("{offset:0500}")
}

/// 60 batches of three events of 500 bytes, recorded one second after the other.
fn fill(log: &mut Log) {
    for batch in 0..60u64 {
        let texts: Vec<String> = (1..=3).map(|n| text_of(batch * 3 + n)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        append_at(log, time_of(batch * 3 + 1), &[&texts]).remove(0).expect("placed");
        commit(log).expect("commits");
    }
}

fn time_of(offset: Offset) -> i64 {
    NOW_US + (offset as i64 - 1) / 3 * 1_000_000
}

/// What a fetch of these gives, each checked to be what it was.
fn fetch(log: &Log, offsets: &[Offset]) -> Vec<Offset> {
    let Ok(Fetched::Events(events)) = log.read.fetch(offsets, Wait::Yes) else { panic!("fetches") };
    for (offset, batch) in &events {
        let record = batch.record((offset - batch.base()) as usize);
        assert_eq!((batch.time_us(), batch.epoch()), (time_of(*offset), 1), "event {offset}");
        assert_eq!(record.event().payload, text_of(*offset).as_bytes(), "event {offset}");
        assert_eq!(record.event().topic, "a/b");
    }
    events.into_iter().map(|(offset, _)| offset).collect()
}

fn kept_files(disk: &MemDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new("/log")).expect("lists");
    let kept = names.iter().filter(|name| name.starts_with("kept."));
    kept.map(|name| Path::new("/log").join(name)).collect()
}

const NEEDED: [Offset; 6] = [1, 2, 3, 8, 17, 50];

/// A log of which retention took all but the newest segments, with what was needed kept.
fn thinned(disk: &MemDisk) -> Log {
    let mut log = try_open(disk, small()).expect("opens");
    fill(&mut log);
    let done = log.commit.upkeep(NOW_US, &mut Needs(NEEDED.to_vec()));
    assert!(done.iter().any(|it| matches!(it, Upkeep::Kept { records: 6, unreadable: 0, .. })), "{done:?}");
    assert!(log.read.oldest() > 100, "{}", log.read.oldest());
    log
}

#[test]
fn what_is_needed_outlives_its_segment_and_is_found_by_fetch_alone() {
    let disk = MemDisk::new();
    let mut log = thinned(&disk);
    for _ in 0..3 {
        let all: Vec<Offset> = (1..=180).collect();
        let oldest = log.read.oldest();
        let expected: Vec<Offset> = NEEDED.into_iter().chain(oldest..=180).collect();
        assert_eq!(fetch(&log, &all), expected);
        assert_eq!(log.read.kept(), NEEDED);
        assert_eq!(read_from(&log, 1).gaps, [(1, oldest - 1)]);
        assert_eq!(kept_files(&disk).len(), 1);
        drop(log);
        log = try_open(&disk, small()).expect("opens");
        assert_eq!(log.recovery.notes, []);
        assert_eq!(log.read.oldest(), oldest);
    }
    // More of it, in a next generation.
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    for _ in 0..20 {
        append_bytes(&mut log, NOW_US, 2_000);
    }
    commit(&mut log).expect("commits");
    log.commit.upkeep(NOW_US, &mut Needs(vec![2, 17, 50, 170, 171]));
    assert!(log.read.oldest() > 180);
    assert_eq!(log.read.kept(), [2, 17, 50, 170, 171]);
    assert_eq!(fetch(&log, &[1, 2, 17, 50, 170, 171]), [2, 17, 50, 170, 171]);
    assert_eq!(kept_files(&disk), [Path::new("/log/kept.1.log")]);
}

#[test]
fn nothing_is_deleted_while_it_is_not_known_what_is_needed_and_that_is_said_once_when_it_lasts() {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, small()).expect("opens");
    fill(&mut log);
    assert_eq!(log.commit.upkeep(NOW_US, &mut Unsure), []);
    disk.pass(59 * 1_000_000);
    assert_eq!(log.commit.upkeep(NOW_US + 59_000_000, &mut Unsure), []);
    disk.pass(1_000_000);
    let done = log.commit.upkeep(NOW_US + 60_000_000, &mut Unsure);
    assert!(matches!(done[..], [Upkeep::Failed { .. }]), "{done:?}");
    assert_eq!(log.commit.upkeep(NOW_US + 60_000_000, &mut Unsure), []);
    assert_eq!(log.read.oldest(), 1);
    log.commit.upkeep(NOW_US + 60_000_000, &mut Needs(vec![2]));
    assert!(log.read.oldest() > 100);
    assert_eq!(fetch(&log, &[1, 2, 3]), [2]);
}

#[test]
fn what_is_needed_no_longer_goes_when_it_is_the_most_of_what_is_kept() {
    let disk = MemDisk::new();
    let mut log = thinned(&disk);
    disk.pass(9 * MINUTE_US);
    assert_eq!(log.commit.upkeep(NOW_US + 9 * 60_000_000, &mut Needs(vec![8])), []);
    disk.pass(MINUTE_US);
    assert_eq!(log.commit.upkeep(NOW_US + 10 * 60_000_000, &mut Needs(vec![1, 2, 3, 8])), []);
    disk.pass(10 * MINUTE_US);
    let done = log.commit.upkeep(NOW_US + 20 * 60_000_000, &mut Needs(vec![3, 8]));
    assert!(matches!(done[..], [Upkeep::Kept { records: 2, .. }]), "{done:?}");
    assert_eq!((fetch(&log, &NEEDED), log.read.kept()), (vec![3, 8], vec![3, 8]));
    disk.pass(10 * MINUTE_US);
    assert_eq!(log.commit.upkeep(NOW_US + 30 * 60_000_000, &mut Unsure), []);
    disk.pass(10 * MINUTE_US);
    log.commit.upkeep(NOW_US + 40 * 60_000_000, &mut KeepNothing);
    assert_eq!((log.read.kept(), kept_files(&disk)), (vec![], vec![]));
    assert!(fetch(&log, &NEEDED).is_empty());
}

/// More than one segment takes.
fn append_more(log: &mut Log) {
    for _ in 0..20 {
        append_bytes(log, NOW_US, 2_000);
    }
    commit(log).expect("commits");
}

/// Else what is rebuilt from the log would find the old record, and not the later one that ended it.
#[test]
fn what_is_needed_no_longer_goes_before_the_segments_that_may_have_ended_it() {
    let disk = MemDisk::new();
    let mut log = thinned(&disk);
    append_more(&mut log);
    let oldest = log.read.oldest();
    let done = log.commit.upkeep(NOW_US, &mut Needs(vec![1, 2, 8, 17, 50]));
    assert!(matches!(done[0], Upkeep::Kept { records: 5, .. }), "{done:?}");
    assert!(log.read.oldest() > oldest);
    assert_eq!(log.read.kept(), [1, 2, 8, 17, 50]);
    append_more(&mut log);
    let done = log.commit.upkeep(NOW_US, &mut Needs(vec![1, 2, 8, 17, 50]));
    assert!(matches!(done[0], Upkeep::Deleted { .. }), "nothing has changed: {done:?}");
}

#[test]
fn a_full_disk_keeps_no_segment_from_going_of_which_nothing_is_needed() {
    let disk = MemDisk::new();
    let mut log = thinned(&disk);
    append_more(&mut log);
    let oldest = log.read.oldest();
    // The other files are written.
    log.commit.upkeep(NOW_US, &mut Unsure);
    disk.fail(DiskCall::Write, ErrorKind::StorageFull);
    let done = log.commit.upkeep(NOW_US, &mut Needs(vec![1, 2, 8, 17, 50]));
    assert!(log.read.oldest() > oldest, "{done:?}");
    assert_eq!(fetch(&log, &NEEDED), NEEDED);
}

#[test]
fn kept_bytes_count_as_bytes_of_the_log() {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, small()).expect("opens");
    fill(&mut log);
    log.commit.upkeep(NOW_US, &mut Needs((1..=60).collect()));
    let with = log.read.oldest();
    log.commit.upkeep(NOW_US, &mut Needs((1..=180).collect()));
    assert!(log.read.oldest() > with);
}

#[test]
fn a_damaged_record_is_left_out_and_noted() {
    let disk = MemDisk::new();
    drop(thinned(&disk));
    let path = kept_files(&disk).remove(0);
    let whole = disk.bytes(&path).expect("there");
    let place = |offset: Offset| {
        let text = text_of(offset);
        whole.windows(text.len()).position(|at| at == text.as_bytes()).expect("there")
    };
    // A payload in a batch of three, the header of a batch, and what follows an offset.
    let cases: [(usize, bool, &[Offset]); 3] =
        [(place(2), false, &[2]), (place(8) - 60, false, &[8]), (place(17) - 60, true, &[17, 50])];
    for (at, cut, lost) in cases {
        let mut bytes = whole.clone();
        if cut {
            bytes.truncate(at)
        } else {
            bytes[at] ^= 1
        }
        disk.set_bytes(&path, &bytes);
        let mut log = try_open(&disk, small()).expect("opens");
        let file = "kept.0.log".to_owned();
        assert_eq!(log.recovery.notes, [Note::KeptDamaged { file, events: lost.len() as u64 }]);
        let left: Vec<Offset> = NEEDED.into_iter().filter(|offset| !lost.contains(offset)).collect();
        assert_eq!(fetch(&log, &NEEDED), left);
        // The next generation has what is left, and is whole.
        log.commit.upkeep(NOW_US, &mut Unsure);
        disk.pass(10 * MINUTE_US);
        log.commit.upkeep(NOW_US, &mut Needs(vec![1]));
        drop(log);
        let log = try_open(&disk, small()).expect("opens");
        assert_eq!((log.recovery.notes.as_slice(), fetch(&log, &NEEDED)), ([].as_slice(), vec![1]));
        drop(log);
        disk.remove(&kept_files(&disk)[0]).expect("removes");
    }
}

#[test]
fn a_file_that_is_not_of_this_log_or_format_is_set_aside_with_one_line() {
    let disk = MemDisk::new();
    drop(thinned(&disk));
    let other = MemDisk::new();
    firehose_log::Disk::random(&other);
    drop(thinned(&other));
    let path = kept_files(&disk).remove(0);
    let whole = disk.bytes(&path).expect("there");
    let mut newer = whole.clone();
    for copy in [0, 2048] {
        newer[copy + 8] = 2;
        let crc = crc32c::crc32c(&newer[copy..copy + 124]);
        newer[copy + 124..copy + 128].copy_from_slice(&crc.to_le_bytes());
    }
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    damaged[2048 + 20] ^= 1;
    let foreign = other.bytes(&kept_files(&other)[0]).expect("there");
    let cases = [
        (newer, "is of format 2, of a later firehose"),
        (damaged, "has a damaged header"),
        (foreign, "belongs to another log"),
        (Vec::new(), "has a damaged header"),
    ];
    for (bytes, why) in cases {
        disk.set_bytes(&path, &bytes);
        let log = try_open(&disk, small()).expect("opens");
        let to =
            disk.list(Path::new("/log")).expect("lists").into_iter().filter(|name| name.contains(".damaged"));
        let to = to.max().expect("set aside");
        let note = Note::SetAside { file: "kept.0.log".into(), to: to.clone(), why: why.into() };
        assert_eq!(log.recovery.notes, [note]);
        assert_eq!((fetch(&log, &NEEDED), log.read.kept()), (vec![], vec![]));
        assert_eq!(disk.bytes(&Path::new("/log").join(to)), Some(bytes));
        drop(log);
    }
}

#[test]
fn wherever_the_power_fails_what_is_needed_is_found_after_the_start() {
    let needed: Vec<Offset> = NEEDED.into_iter().skip(1).chain([90, 91]).collect();
    for how in 0..STOPS {
        for calls in 0.. {
            let disk = MemDisk::new();
            // One generation is there, and is followed by the next.
            let half = LogConfig { retention_bytes: Some(100 << 10), ..small() };
            let mut log = try_open(&disk, half).expect("opens");
            fill(&mut log);
            log.commit.upkeep(NOW_US, &mut Needs(NEEDED.to_vec()));
            drop(log);
            let mut log = try_open(&disk, small()).expect("opens");
            disk.fail_after(calls, ErrorKind::Other);
            log.commit.upkeep(NOW_US, &mut Needs(needed.clone()));
            let over = !disk.is_failing();
            drop(log);

            let disk = stop(disk, how);
            let mut log = try_open(&disk, small()).expect("opens");
            assert_eq!(fetch(&log, &needed), needed, "cut at call {calls}, {how}");
            let is_amiss = |note: &Note| matches!(note, Note::KeptDamaged { .. } | Note::SetAside { .. });
            assert!(!log.recovery.notes.iter().any(is_amiss), "cut at call {calls}, {how}");
            log.commit.upkeep(NOW_US, &mut Needs(needed.clone()));
            assert_eq!(fetch(&log, &needed), needed, "cut at call {calls}, {how}");
            assert_eq!(log.read.kept(), needed);
            assert_eq!(kept_files(&disk).len(), 1);
            if over {
                assert!(calls > 10, "{calls}");
                break;
            }
        }
    }
}
