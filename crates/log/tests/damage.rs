//! Damage that reads find while the log is open: told once a range, known to who asks for it, and gone with the segment.

mod fixture;

use std::path::{Path, PathBuf};

use firehose_log::{
    Chunk, Damage, Keep, Log, LogConfig, MemDisk, Note, Offset, RecoveryReport, Upkeep, Wait,
};
use fixture::*;

fn small() -> LogConfig {
    LogConfig { segment_bytes: 16 << 10, index_point_bytes: 1, ..config() }
}

fn text_of(offset: Offset) -> String {
    format!("<{offset:0300}>")
}

/// 40 batches of three events, in several segments, closed as by a clean stop.
fn filled() -> (MemDisk, Vec<PathBuf>) {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, small()).expect("opens");
    for batch in 0..40 {
        let texts: Vec<String> = (1..=3).map(|n| text_of(batch * 3 + n)).collect();
        append(&mut log, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        commit(&mut log).expect("commits");
        log.commit.upkeep(NOW_US, &mut KeepNothing);
    }
    log.commit.close().expect("closes");
    drop(log);
    let paths = segments(&disk);
    assert!(paths.len() > 3);
    (disk, paths)
}

/// Flips a bit in the payload of the event.
fn flip(disk: &MemDisk, offset: Offset) {
    let text = text_of(offset);
    for path in disk_files(disk) {
        let mut bytes = disk.bytes(&path).expect("there");
        let found = bytes.windows(text.len()).position(|it| it == text.as_bytes());
        if let Some(at) = found {
            bytes[at + 5] ^= 1;
            return disk.set_bytes(&path, &bytes);
        }
    }
    panic!("event {offset} is nowhere");
}

fn disk_files(disk: &MemDisk) -> Vec<PathBuf> {
    let names = firehose_log::Disk::list(disk, std::path::Path::new("/log")).expect("lists");
    names
        .into_iter()
        .filter(|name| name.ends_with(".log"))
        .map(|name| PathBuf::from("/log").join(name))
        .collect()
}

/// The lines about damage that the next upkeep gives.
fn lines(log: &mut Log) -> Vec<String> {
    let done = log.commit.upkeep(NOW_US, &mut KeepNothing);
    let noticed = done.iter().filter(|it| matches!(it, Upkeep::Noticed(_)));
    noticed.map(ToString::to_string).collect()
}

fn line(first: Offset, last: Offset) -> String {
    Note::EventsDamaged { first, last }.to_string()
}

fn damage(ranges: &[(Offset, Offset)]) -> Damage {
    let events = ranges.iter().map(|(first, last)| last - first + 1).sum();
    Damage { named: ranges.to_vec(), ranges: ranges.len() as u64, events }
}

#[test]
fn whoever_reads_it_and_however_often_a_damaged_event_is_told_once() {
    let ways: [fn(&Log); 5] = [
        |log| drop(read_from(log, 1)),
        |log| drop(log.read.read(8, 8, 1, Wait::Yes).expect("reads")),
        |log| drop(log.read.fetch(&[7, 8, 100], Wait::Yes).expect("reads")),
        |log| drop(log.read.fetch(&[8], Wait::Yes).expect("reads")),
        |log| assert!(log.read.seek_time(NOW_US + 1).is_ok()),
    ];
    for (number, way) in ways.into_iter().enumerate() {
        let (disk, _) = filled();
        flip(&disk, 8);
        let mut log = try_open(&disk, small()).expect("opens");
        assert_eq!(log.recovery.gaps, RecoveryReport::default().gaps, "the start does not look there");
        assert_eq!((lines(&mut log), log.read.damage()), (vec![], damage(&[])));
        way(&log);
        if number < 4 {
            assert_eq!(lines(&mut log), [line(8, 8)], "way {number}");
        }
        ways.iter().for_each(|way| way(&log));
        assert_eq!(lines(&mut log).len(), usize::from(number == 4));
        assert_eq!(log.read.damage(), damage(&[(8, 8)]));
    }
}

#[test]
fn a_read_from_within_a_damaged_range_tells_all_of_it() {
    let (disk, paths) = filled();
    let second: Offset = (1..=120).find(|offset| in_file(&disk, &paths[1], *offset)).expect("it has some");
    let third: Offset = (1..=120).find(|offset| in_file(&disk, &paths[2], *offset)).expect("it has some");
    let bytes = disk.bytes(&paths[1]).expect("there");
    disk.set_bytes(&paths[1], &vec![0; bytes.len()]);
    let mut log = try_open(&disk, small()).expect("opens");
    lines(&mut log);
    for offset in (second..third).rev() {
        match log.read.read(offset, 120, 1, Wait::Yes).expect("reads") {
            Chunk::Gap { next, .. } => assert_eq!(next, third),
            other => panic!("{other:?}"),
        }
    }
    let lines = lines(&mut log);
    let about_events: Vec<_> = lines.iter().filter(|line| line.starts_with("events")).collect();
    assert_eq!(about_events, [&line(second, third - 1)]);
    assert_eq!(log.read.damage(), damage(&[(second, third - 1)]));
}

#[test]
fn a_segment_that_is_missing_among_others_is_told_and_whole_again_when_it_is_put_back() {
    let (disk, paths) = filled();
    let [first, bytes] = [0, 1].map(|at| disk.bytes(&paths[at]).expect("there"));
    firehose_log::Disk::remove(&disk, &paths[1]).expect("goes");
    let mut log = try_open(&disk, small()).expect("opens");
    lines(&mut log);
    let gaps = read_from(&log, 1).gaps;
    assert_eq!(gaps.len(), 1);
    assert_eq!(lines(&mut log), [line(gaps[0].0, gaps[0].1)]);
    assert_eq!(log.read.damage(), damage(&gaps));
    drop(log);
    disk.set_bytes(&paths[1], &bytes);
    flip(&disk, 8);
    let _ = firehose_log::Disk::remove(&disk, &paths[0].with_extension("log.index"));
    let log = try_open(&disk, small()).expect("opens");
    assert_eq!(read_from(&log, 1).gaps, [(8, 8)]);
    drop(log);
    disk.set_bytes(&paths[0], &first);
    let log = try_open(&disk, small()).expect("opens");
    assert_eq!((read_from(&log, 1).gaps, log.read.damage()), (vec![], damage(&[])));
}

fn in_file(disk: &MemDisk, path: &Path, offset: Offset) -> bool {
    let (bytes, text) = (disk.bytes(path).expect("there"), text_of(offset));
    bytes.windows(text.len()).any(|it| it == text.as_bytes())
}

#[test]
fn of_many_ranges_16_get_a_line_and_the_rest_one_together() {
    let (disk, _) = filled();
    // Of each batch the second event.
    (0..20).for_each(|batch| flip(&disk, batch * 3 + 2));
    let mut log = try_open(&disk, small()).expect("opens");
    lines(&mut log);
    let found = read_from(&log, 1);
    assert_eq!(found.gaps.len(), 20);
    let told = lines(&mut log);
    assert_eq!((told.len(), &told[15], &told[16]), (17, &line(47, 47), &Note::MoreDamaged.to_string()));
    let known = log.read.damage();
    assert_eq!((known.named.len(), known.ranges, known.events), (16, 20, 20));
    read_from(&log, 1);
    assert_eq!(lines(&mut log), Vec::<String>::new());
}

#[test]
fn what_the_start_has_told_is_known_and_not_told_again() {
    let (disk, _) = filled();
    flip(&disk, 119);
    let mut log = try_open(&disk, small()).expect("opens");
    assert_eq!(log.recovery.gaps, [(119, 119)]);
    assert_eq!(log.read.damage(), damage(&[(119, 119)]));
    read_from(&log, 1);
    assert_eq!(lines(&mut log), Vec::<String>::new());
}

#[test]
fn what_is_noticed_before_a_stop_is_there_for_the_last_lines() {
    let (disk, _) = filled();
    flip(&disk, 8);
    let mut log = try_open(&disk, small()).expect("opens");
    lines(&mut log);
    read_from(&log, 1);
    log.commit.close().expect("closes");
    assert_eq!(log.commit.noticed(), [Upkeep::Noticed(Note::EventsDamaged { first: 8, last: 8 })]);
}

#[test]
fn a_redaction_tells_what_it_comes_upon() {
    let (disk, _) = filled();
    flip(&disk, 8);
    let mut log = try_open(&disk, small()).expect("opens");
    lines(&mut log);
    log.commit.redact(7, NOW_US).expect("redacts");
    assert_eq!(lines(&mut log), [line(8, 8)]);
}

/// Needs events 4 to 6.
struct Needs;

impl Keep for Needs {
    fn wanted(&mut self, first: Offset, last: Offset) -> Option<Vec<Offset>> {
        Some((4..=6).filter(|offset| (first..=last).contains(offset)).collect())
    }
}

#[test]
fn damage_goes_with_its_segment_and_that_of_kept_events_is_told_too() {
    let (disk, _) = filled();
    flip(&disk, 8);
    let mut log = try_open(&disk, LogConfig { retention_bytes: Some(30 << 10), ..small() }).expect("opens");
    read_from(&log, 1);
    assert_eq!(log.read.damage(), damage(&[(8, 8)]));
    log.commit.upkeep(NOW_US, &mut Needs);
    assert!(log.read.oldest() > 8 && log.read.kept() == [4, 5, 6]);
    assert_eq!(log.read.damage(), damage(&[]));
    drop(log);
    flip(&disk, 5);
    let mut log = try_open(&disk, small()).expect("opens");
    log.read.fetch(&[4, 5, 6], Wait::Yes).expect("reads");
    let noticed = log.commit.noticed();
    assert_eq!(noticed, [Upkeep::Noticed(Note::EventsDamaged { first: 5, last: 5 })]);
    assert_eq!(log.read.damage(), damage(&[(5, 5)]));
}
