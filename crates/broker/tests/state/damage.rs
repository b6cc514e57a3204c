//! A state file that cannot be opened is set aside with one clear line, and rebuilt from the log.

use crate::bed::*;
use firehose_broker::state::{State, StateNote};
use firehose_log::{Disk, DiskCall, LogConfig, MemDisk};
use std::io::ErrorKind;
use std::sync::Arc;

/// A bus that has a session and a retained message.
fn filled() -> Bed {
    let mut bed = Bed::new();
    bed.open(open(&name("a"))).unwrap();
    bed.save(vec![subscriptions(&name("a"), &["x/y/z"])]);
    for number in 0..50 {
        bed.retain(&format!("t/{number}"), b"1");
    }
    bed.settle();
    bed
}

/// The state after a restart on a file with these bytes: rebuilt, or as it was.
fn check_rebuilt(mut bed: Bed, what: &str) {
    let [StateNote::Bad(line)] = &bed.notes[..] else { panic!("{what}: one line: {:?}", bed.notes) };
    for part in
        ["/data/state.redb", "sessions and wills are gone", "retained messages are rebuilt", "damaged-1"]
    {
        assert!(line.contains(part), "{what}: {line}");
    }
    bed.settle();
    assert_eq!(bed.state.queue().stats().rebuilds.get(), 1, "{what}");
    assert_eq!(bed.retained("t/#").len(), 50, "{what}");
    assert!(bed.open(open(&name("a"))).unwrap().resumed.is_none(), "{what}");
    let bed = bed.restart();
    assert!(bed.notes.is_empty(), "{what}: {:?}", bed.notes);
}

#[test]
fn each_kind_of_damage_has_its_line_and_the_start_goes_on() {
    let whole = filled().state_disk.bytes(&path()).unwrap();
    let foreign = {
        // Its random numbers have gone on, so that its log has another id.
        let disk = MemDisk::new();
        disk.random();
        let config = LogConfig { segment_bytes: 256 << 10, ..LogConfig::new("/data/log") };
        let log = firehose_log::open(config, Arc::new(disk), 0).unwrap();
        let state_disk = MemDisk::new();
        let limits = Arc::new(firehose_broker::Limits::default());
        let now = firehose_broker::action::Now::default();
        drop(State::open(Arc::new(state_disk.clone()), &path(), log.read.clone(), limits, now).unwrap());
        state_disk.bytes(&path()).unwrap()
    };
    let mut flipped = whole.clone();
    for at in (4096..flipped.len()).step_by(512) {
        flipped[at] ^= 1;
    }
    let mut header = whole.clone();
    header[3] ^= 0x40;
    let kinds: [(&str, Vec<u8>); 7] = [
        ("empty", Vec::new()),
        ("text", b"hello".to_vec()),
        ("zeros", vec![0; whole.len()]),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("bits", flipped),
        ("magic", header),
        ("of another log", foreign),
    ];
    for (what, bytes) in kinds {
        let bed = filled();
        bed.state_disk.set_bytes(&path(), &bytes);
        check_rebuilt(bed.restart(), what);
    }
}

/// The same state file, if it were of another format.
fn of_format(bytes: &[u8], format: u64) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    std::fs::write(&path, bytes).unwrap();
    let database = redb::Database::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    txn.open_table(meta).unwrap().insert("format", &format.to_le_bytes()[..]).unwrap();
    txn.commit().unwrap();
    drop(database);
    std::fs::read(&path).unwrap()
}

#[test]
fn a_file_of_an_older_or_a_newer_format_is_set_aside_with_a_line_that_says_so() {
    for (format, age) in [(1, "older"), (3, "newer")] {
        let bed = filled();
        let bytes = of_format(&bed.state_disk.bytes(&path()).unwrap(), format);
        bed.state_disk.set_bytes(&path(), &bytes);
        let bed = bed.restart();
        let line = bed.notes[0].to_string();
        assert!(line.contains(&format!("its format {format} is {age} than this version's (2)")), "{line}");
        check_rebuilt(bed, age);
    }
}

#[test]
fn of_a_file_that_is_cut_short_it_is_said_that_it_is() {
    let whole = filled().state_disk.bytes(&path()).unwrap();
    for len in [1, 100, 4_095] {
        let bed = filled();
        bed.state_disk.set_bytes(&path(), &whole[..len]);
        let bed = bed.restart();
        let line = bed.notes[0].to_string();
        assert!(line.contains(&format!("it is cut short: only {len} bytes of it are left")), "{line}");
        check_rebuilt(bed, "cut short");
    }
}

#[test]
fn a_file_that_is_ahead_of_the_log_is_not_believed() {
    let bed = filled();
    let log_disk = MemDisk::new();
    let ahead = bed.state_disk.copy();
    let fresh = Bed::on(log_disk, MemDisk::new(), bed.now, firehose_broker::Limits::default());
    let head = fresh.log.read.head();
    assert!(head < bed.log.read.head());
    // The same log id, since both disks draw the same random numbers.
    let bed = Bed::on(fresh.disk.copy(), ahead, bed.now, firehose_broker::Limits::default());
    let [StateNote::Bad(line)] = &bed.notes[..] else { panic!("{:?}", bed.notes) };
    assert!(line.contains("the log ends at 0") || line.contains("another log"), "{line}");
}

#[test]
fn a_session_whose_record_cannot_be_read_is_forgotten_alone() {
    // Every record begins with its version: of another one, it is as good as unreadable. redb's own checksums are kept
    // right by writing it through redb.
    let mut bed = filled();
    bed.open(open(&name("b"))).unwrap();
    bed.settle();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy.redb");
    std::fs::write(&file, bed.state_disk.bytes(&path()).unwrap()).unwrap();
    {
        let database = redb::Database::open(&file).unwrap();
        let txn = database.begin_write().unwrap();
        let table = redb::TableDefinition::<u64, &[u8]>::new("subscriptions");
        txn.open_table(table).unwrap().insert(name("a").hash, &[99u8, 1, 2][..]).unwrap();
        txn.commit().unwrap();
    }
    bed.state_disk.set_bytes(&path(), &std::fs::read(&file).unwrap());
    let mut bed = bed.restart();
    assert!(bed.notes.is_empty(), "{:?}", bed.notes);
    assert!(bed.open(open(&name("a"))).unwrap().resumed.is_none());
    let [StateNote::Bad(line)] = &bed.notes[..] else { panic!("{:?}", bed.notes) };
    assert!(line.contains("\"a\" cannot be read"), "{line}");
    assert!(bed.open(open(&name("b"))).unwrap().resumed.is_some());
}

#[test]
fn only_the_last_three_files_that_were_set_aside_are_kept() {
    let mut bed = Bed::new();
    for number in 1..=5 {
        bed.state_disk.set_bytes(&path(), b"not a state file");
        bed = bed.restart();
        let [StateNote::Bad(line)] = &bed.notes[..] else { panic!("{:?}", bed.notes) };
        assert!(line.contains(&format!("damaged-{number}")), "{line}");
    }
    let mut names = bed.state_disk.list(path().parent().unwrap()).unwrap();
    names.sort();
    assert_eq!(names, ["state.redb", "state.redb.damaged-3", "state.redb.damaged-4", "state.redb.damaged-5"]);
}

#[test]
fn no_single_flipped_bit_makes_a_panic_or_a_wrong_answer() {
    let bed = filled();
    let whole = bed.state_disk.bytes(&path()).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    for seed in 0..60usize {
        let mut bytes = whole.clone();
        let at = used[seed * 7_919 % used.len()];
        bytes[at] ^= 1 << (seed % 8);
        let (disk, state_disk) = (bed.disk.copy(), bed.state_disk.copy());
        state_disk.set_bytes(&path(), &bytes);
        let mut bed = Bed::on(disk, state_disk, bed.now, firehose_broker::Limits::default());
        bed.settle();
        assert_eq!(bed.retained("t/#").len(), 50, "bit {} of byte {at}", seed % 8);
        let resumed = bed.open(open(&name("a"))).unwrap().resumed;
        match (&bed.notes[..], resumed) {
            ([], Some(resumed)) => assert_eq!(resumed.subscriptions, [subscription("x/y/z")], "byte {at}"),
            ([line], Some(_)) if is_of_last_save(line) => {}
            ([_], None) => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

/// The bytes that differ between the last two saves of a file: what the last one alone needs is among them.
fn of_last_save(bed: &mut Bed) -> Vec<usize> {
    let before = bed.state_disk.bytes(&path()).unwrap();
    bed.retain("last", b"1");
    bed.settle();
    let after = bed.state_disk.bytes(&path()).unwrap();
    // The first page is redb's header.
    (4096..after.len()).filter(|at| after[*at] != 0 && before.get(*at) != Some(&after[*at])).collect()
}

#[test]
fn a_last_save_that_is_not_whole_is_told() {
    let mut bed = filled();
    let places = of_last_save(&mut bed);
    let whole = bed.state_disk.bytes(&path()).unwrap();
    let mut told = 0;
    for at in places.iter().step_by(places.len() / 20) {
        let mut bytes = whole.clone();
        bytes[*at] ^= 1;
        let (disk, state_disk) = (bed.disk.copy(), bed.state_disk.copy());
        state_disk.set_bytes(&path(), &bytes);
        let mut bed = Bed::on(disk, state_disk, bed.now, firehose_broker::Limits::default());
        told += bed.notes.iter().filter(|note| is_of_last_save(note)).count();
        bed.settle();
        assert_eq!(bed.retained("#").len(), 51, "byte {at}");
        assert!(bed.open(open(&name("a"))).unwrap().resumed.is_some(), "byte {at}: {:?}", bed.notes);
        assert!(bed.restart().notes.is_empty(), "byte {at}");
    }
    assert!(told > 10, "{told}");
}

/// Nothing but the header says which save is the last.
#[test]
fn a_header_that_does_not_name_the_last_save_any_more_is_told() {
    let mut bed = filled();
    bed.save(vec![subscriptions(&name("a"), &["last"])]);
    let whole = bed.state_disk.bytes(&path()).unwrap();
    let mut silent = Vec::new();
    for at in 0..320 {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let (disk, state_disk) = (bed.disk.copy(), bed.state_disk.copy());
        state_disk.set_bytes(&path(), &bytes);
        let mut bed = Bed::on(disk, state_disk, bed.now, firehose_broker::Limits::default());
        let found = bed.open(open(&name("a"))).unwrap().resumed;
        let is_last = found.is_some_and(|found| found.subscriptions == [subscription("last")]);
        if !is_last && bed.notes.is_empty() {
            silent.push(at);
        }
        assert!(bed.notes.len() < 2, "byte {at}: {:?}", bed.notes);
    }
    assert_eq!(silent, [0; 0]);
}

#[test]
fn a_running_bus_does_not_go_back_to_an_earlier_save() {
    let mut bed = filled();
    let places = of_last_save(&mut bed);
    let mut set_aside = 0;
    for at in places.iter().step_by(places.len() / 20) {
        let mut bed = filled();
        assert_eq!(of_last_save(&mut bed), places, "the same steps make the same file");
        let mut bytes = bed.state_disk.bytes(&path()).unwrap();
        bytes[*at] ^= 1;
        bed.state_disk.set_bytes(&path(), &bytes);
        bed.state_disk.fail(DiskCall::Write, ErrorKind::TimedOut);
        bed.retain("later", b"1");
        bed.pass(1);
        bed.settle();
        bed.pass(1);
        bed.settle();
        assert_eq!(bed.retained("#").len(), 52, "byte {at}: {:?}", bed.notes);
        let says =
            |note: &&StateNote| note.to_string().contains("what was saved last cannot be read any more");
        set_aside += bed.notes.iter().filter(says).count();
    }
    assert!(set_aside > 10, "{set_aside}");
}

#[test]
fn a_bit_that_turns_while_the_file_is_open_makes_no_panic_and_the_state_goes_on() {
    for seed in 0..150 {
        let mut bed = Bed::new();
        bed.open(open(&name("a"))).unwrap();
        bed.settle();
        bed.state_disk.flip_bit(seed).expect("a byte");
        for _ in 0..3 {
            let offset = bed.retain("t", b"1");
            bed.submit(vec![subscriptions(&name("a"), &["x"])]);
            bed.settle();
            bed.pass(1);
            bed.settle();
            assert_eq!(bed.retained("t"), [("t".to_owned(), offset)], "{seed}: {:?}", bed.notes);
        }
        // It closes the file.
        let mut bed = bed.begin_on_the_same_disks();
        bed.settle();
        assert_eq!(bed.retained("t").len(), 1, "{seed}: {:?}", bed.notes);
    }
}
