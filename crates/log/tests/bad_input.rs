//! Files that were truncated, swapped, flipped, of a newer version, of another log, someone else's, or no files: each
//! gets one line and the rule for it, never a panic and never silence.

mod fixture;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firehose_log::{Disk, Log, LogConfig, MemDisk, Note, Offset, OpenError, RealDisk, Upkeep, Wait, open};
use fixture::*;

/// A log of 12 events in four segments of about three; all sealed but the last, which the second start began.
fn small_log() -> (MemDisk, BTreeMap<Offset, String>) {
    let disk = MemDisk::new();
    let mut log = try_open(&disk, tiny()).expect("opens");
    for n in 0..10 {
        append(&mut log, &[&format!("event {n} {}", "-".repeat(60))]);
    }
    commit(&mut log).expect("commits");
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    drop(log);
    let mut log = try_open(&disk, tiny()).expect("opens");
    append(&mut log, &["x", "y"]);
    commit(&mut log).expect("commits");
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    let events = all(&log).into_iter().collect();
    (disk, events)
}

fn tiny() -> LogConfig {
    LogConfig { segment_bytes: 4096 + 450, index_point_bytes: 50, ..config() }
}

/// Opens and reads everything; gives what is lost, the notes of the start and those of upkeep. Of damaged events there is
/// a line and an entry each, which are looked at here and are none of the notes.
fn open_and_read(disk: &MemDisk, events: &BTreeMap<Offset, String>) -> (Vec<Offset>, Vec<Note>, Log) {
    let mut log = try_open(disk, tiny()).expect("opens");
    let (oldest, head) = (log.read.oldest(), log.read.head());
    let found = read_from(&log, oldest);
    let mut here = BTreeMap::new();
    for (offset, text) in &found.events {
        assert_eq!(events.get(offset), Some(text), "wrong bytes were returned");
        here.insert(*offset, ());
    }
    for offset in found.gaps.iter().flat_map(|(first, last)| *first..=*last) {
        assert!(here.insert(offset, ()).is_none());
    }
    assert_eq!(here.len() as u64, head + 1 - oldest, "an offset is neither an event nor declared lost");
    let lost = events.keys().filter(|offset| !found.events.iter().any(|(found, _)| found == *offset));
    let lost: Vec<Offset> = lost.copied().collect();
    let cut = lost.iter().any(|offset| *offset > head);
    assert!(!cut || !log.recovery.notes.is_empty(), "what is cut is told: {lost:?}");
    let mut notes = log.recovery.notes.clone();
    let mut told = log.recovery.gaps.clone();
    for done in log.commit.upkeep(NOW_US, &mut KeepNothing) {
        match done {
            Upkeep::Noticed(Note::EventsDamaged { first, last }) => told.push((first, last)),
            Upkeep::Noticed(note) => notes.push(note),
            _ => {}
        }
    }
    let damage = log.read.damage();
    assert_eq!(damage.named.len() as u64, damage.ranges);
    for gap in &found.gaps {
        let within = |(first, last): &(Offset, Offset)| *first <= gap.0 && gap.1 <= *last;
        assert!(told.iter().any(within) && damage.named.iter().any(within), "{gap:?}: {told:?} {damage:?}");
    }
    for note in &notes {
        assert!(!note.to_string().contains('\n'));
    }
    (lost, notes, log)
}

#[test]
fn every_byte_of_a_small_log_flipped_one_at_a_time_gives_no_wrong_event_and_no_undeclared_loss() {
    let (disk, events) = small_log();
    let names = disk.list(Path::new("/log")).expect("lists");
    assert!(segments(&disk).len() >= 4 && names.iter().any(|name| name.ends_with(".index")));
    for name in names {
        let path = Path::new("/log").join(&name);
        let bytes = disk.bytes(&path).expect("bytes");
        let filled = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for at in 0..bytes.len() {
            // The header page is zeros but for its two copies, and so is what was preallocated.
            let is_empty = at >= filled || (name.ends_with(".log") && at < 4096 && at % 2048 >= 128);
            if is_empty && at % 97 != 0 {
                continue;
            }
            let copy = disk.copy();
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            copy.set_bytes(&path, &bytes);
            let (lost, _, mut log) = open_and_read(&copy, &events);
            assert!(lost.len() <= 3, "byte {at} of {name}: {lost:?}");
            assert_eq!(append(&mut log, &["goes on"]), log.read.head());
        }
    }
}

#[test]
fn every_file_cut_anywhere_gives_no_wrong_event_and_no_undeclared_loss() {
    let (disk, events) = small_log();
    for name in disk.list(Path::new("/log")).expect("lists") {
        let path = Path::new("/log").join(&name);
        let bytes = disk.bytes(&path).expect("bytes");
        for len in (0..bytes.len()).step_by(29) {
            let copy = disk.copy();
            copy.set_bytes(&path, &bytes[..len]);
            open_and_read(&copy, &events);
        }
    }
}

#[test]
fn each_file_in_place_of_each_other_gives_a_line_and_no_wrong_event() {
    let (disk, events) = small_log();
    let (elsewhere, _) = {
        let other = MemDisk::new();
        other.random();
        let mut log = try_open(&other, tiny()).expect("opens");
        for n in 0..10 {
            append(&mut log, &[&format!("other {n} {}", "-".repeat(60))]);
        }
        commit(&mut log).expect("commits");
        log.commit.upkeep(NOW_US, &mut KeepNothing);
        (other, ())
    };
    let names = disk.list(Path::new("/log")).expect("lists");
    let foreign = elsewhere.list(Path::new("/log")).expect("lists");
    let sources = names.iter().map(|name| (&disk, name)).chain(foreign.iter().map(|name| (&elsewhere, name)));
    let is_empty =
        |name: &str| disk.bytes(&Path::new("/log").join(name)).is_none_or(|bytes| bytes.is_empty());
    for (from, source) in sources {
        let bytes = from.bytes(&Path::new("/log").join(source)).expect("bytes");
        for target in names.iter().filter(|target| !is_empty(target) && !target.starts_with("next.")) {
            let path = Path::new("/log").join(target);
            if disk.bytes(&path).as_ref() == Some(&bytes) || bytes.is_empty() {
                continue;
            }
            let copy = disk.copy();
            copy.set_bytes(&path, &bytes);
            let (_, notes, mut log) = open_and_read(&copy, &events);
            assert!(!notes.is_empty(), "{source} as {target} is not told");
            append(&mut log, &["goes on"]);
            drop(log);
            // Nor is anything lost that was there: what is set aside is kept.
            let kept = copy.list(Path::new("/log")).expect("lists");
            if target.ends_with(".log") && bytes.iter().any(|byte| *byte != 0) {
                assert!(kept.iter().any(|name| name.starts_with(target.as_str())), "{target} was removed");
            }
        }
    }
}

#[test]
fn a_last_segment_of_another_log_is_set_aside_and_an_epoch_is_never_used_twice() {
    let (disk, events) = small_log();
    let last = segments(&disk).pop().expect("a segment");
    let misplaced = disk.bytes(&segments(&disk)[0]).expect("bytes");
    disk.set_bytes(&last, &misplaced);
    let (lost, notes, mut log) = open_and_read(&disk, &events);
    assert!(!lost.is_empty() && matches!(notes[..], [Note::SetAside { .. }, ..]), "{notes:?}");
    assert!(disk.bytes(&PathBuf::from(format!("{}.damaged", last.display()))) == Some(misplaced));
    append(&mut log, &["goes on"]);
    commit(&mut log).expect("commits");
    let epoch = log.read.epoch();
    drop(log);
    let log = try_open(&disk, tiny()).expect("opens");
    assert!(log.read.epoch() > epoch);
    assert_eq!(log.recovery.notes, []);
}

#[test]
fn someone_elses_last_segment_refuses_to_start_and_an_older_one_is_told_and_its_reads_fail() {
    let (disk, _) = small_log();
    let paths = segments(&disk);
    let last = disk.copy();
    last.deny(paths.last().expect("a segment"));
    let error = try_open(&last, tiny()).expect_err("refused");
    assert!(matches!(error, OpenError::NotReadable(..)));
    assert!(error.to_string().contains(".log cannot be opened") && !error.to_string().contains('\n'));

    disk.deny(&paths[0]);
    let mut log = try_open(&disk, tiny()).expect("opens");
    let error = log.read.read(1, 1, 100, Wait::Yes).expect_err("cannot be read");
    assert!(error.0.contains(".log: permission denied"), "{error}");
    let done = log.commit.upkeep(NOW_US, &mut KeepNothing);
    assert!(matches!(done[..], [Upkeep::Noticed(Note::Unreadable { .. })]), "{done:?}");
    assert_eq!(log.commit.upkeep(NOW_US, &mut KeepNothing), []);
}

#[test]
fn side_files_of_someone_else_are_done_without() {
    let (disk, events) = small_log();
    for name in disk.list(Path::new("/log")).expect("lists") {
        if name.ends_with(".index") || name.ends_with(".point") {
            let copy = disk.copy();
            copy.deny(&Path::new("/log").join(name));
            let (lost, notes, _) = open_and_read(&copy, &events);
            assert_eq!((lost.len(), notes.len()), (0, 1), "{notes:?}");
        }
    }
}

#[test]
fn an_older_segment_of_a_newer_version_is_a_gap_with_a_line() {
    let (disk, events) = small_log();
    let path = &segments(&disk)[0];
    let mut bytes = disk.bytes(path).expect("bytes");
    for copy in [0, 2048] {
        bytes[copy + 8] = 2;
        let crc = crc32c::crc32c(&bytes[copy..copy + 124]);
        bytes[copy + 124..copy + 128].copy_from_slice(&crc.to_le_bytes());
    }
    disk.set_bytes(path, &bytes);
    let (lost, notes, _) = open_and_read(&disk, &events);
    assert!(!lost.is_empty());
    assert!(matches!(&notes[..], [Note::Unreadable { why, .. }] if why.contains("format 2")), "{notes:?}");
}

#[test]
fn a_damaged_copy_of_two_of_a_header_gets_a_line_once_and_is_mended() {
    let (disk, events) = small_log();
    let paths = segments(&disk);
    for (path, at) in [(&paths[0], 20), (&paths[0], 2048 + 127), (&paths[paths.len() - 1], 3)] {
        let whole = disk.bytes(path).expect("bytes");
        let copy = disk.copy();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        copy.set_bytes(path, &bytes);
        let (lost, notes, log) = open_and_read(&copy, &events);
        assert!(lost.is_empty());
        assert!(
            matches!(&notes[..], [Note::HeaderCopyDamaged { file, failed: None }] if path.ends_with(file)),
            "{notes:?}"
        );
        assert_eq!(copy.bytes(path).expect("bytes")[..4096], whole[..4096]);
        drop(log);
        let (lost, notes, _) = open_and_read(&copy, &events);
        assert!(lost.is_empty() && notes.is_empty(), "{notes:?}");
    }
}

/// A log of a real disk, with its segments, in order.
fn on_a_real_disk(dir: &Path) -> (impl Fn() -> Result<Log, OpenError>, Vec<PathBuf>) {
    let config = LogConfig { dir: dir.to_owned(), ..tiny() };
    let start = move || open(config.clone(), Arc::new(RealDisk::new()), NOW_US);
    let mut log = start().expect("opens");
    for n in 0..10 {
        append(&mut log, &[&format!("event {n} {}", "-".repeat(60))]);
    }
    commit(&mut log).expect("commits");
    log.commit.upkeep(NOW_US, &mut KeepNothing);
    let entries = std::fs::read_dir(dir).expect("lists").map(|entry| entry.expect("an entry").path());
    let mut segments: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    segments.sort();
    (start, segments)
}

fn in_the_place_of_any_file(make: impl Fn(&Path), what: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let (start, segments) = on_a_real_disk(dir.path());
    let replace = |path: &Path| {
        std::fs::remove_file(path).expect("removes");
        make(path);
    };
    replace(&segments[0].with_extension("log.index"));
    replace(&segments[1]);
    replace(segments.last().expect("a segment"));
    make(&dir.path().join("next.2.0"));
    make(&dir.path().join("kept.1.log"));
    let mut log = start().expect("opens");
    let notes = &log.recovery.notes;
    assert!(matches!(&notes[..], [Note::SetAside { why, .. }, _] if why == what), "{notes:?}");
    assert!(notes[1].to_string().contains(what), "{notes:?}");
    assert_eq!(read_from(&log, 1).gaps.len(), 1);
    let told = log.commit.upkeep(NOW_US, &mut KeepNothing);
    // Of the index, of the segment, and of the events in it.
    assert_eq!(told.iter().filter(|done| matches!(done, Upkeep::Noticed(_))).count(), 3, "{told:?}");
    append(&mut log, &["goes on"]);
    commit(&mut log).expect("commits");
    let epoch = log.recovery.epoch;
    drop(log);
    assert!(start().expect("opens again").recovery.epoch > epoch);
}

#[test]
fn a_folder_in_the_place_of_any_file_gets_a_line_and_the_log_opens() {
    in_the_place_of_any_file(|path| std::fs::create_dir(path).expect("makes a folder"), "is a folder");
}

#[test]
fn a_pipe_in_the_place_of_any_file_gets_a_line_and_the_log_opens() {
    let make = |path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("makes a pipe");
    };
    in_the_place_of_any_file(make, "is a pipe");
}

#[test]
fn a_socket_in_the_place_of_any_file_gets_a_line_and_the_log_opens() {
    let make = |path: &Path| drop(std::os::unix::net::UnixListener::bind(path).expect("makes a socket"));
    in_the_place_of_any_file(make, "is a socket");
}

#[test]
fn a_segment_that_is_a_link_to_nowhere_refuses_the_start_and_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let (start, segments) = on_a_real_disk(dir.path());
    let last = segments.last().expect("a segment");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let moved = elsewhere.path().join("moved");
    std::fs::rename(last, &moved).expect("moves");
    std::os::unix::fs::symlink(&moved, last).expect("links");
    drop(start().expect("a link to a file is a file"));
    std::fs::remove_file(&moved).expect("removes");
    let why = start().expect_err("the last segment is not there").to_string();
    assert!(why.contains("mount its disk") && why.contains(&*last.to_string_lossy()), "{why}");
    assert!(!why.contains('\n'));
}
