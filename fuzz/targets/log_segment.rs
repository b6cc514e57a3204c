//! A segment file with damage: it opens, and every event is read as it was or lies in a declared gap.

use std::path::Path;
use std::sync::Arc;

use firehose_log::{
    Attributes, Chunk, Disk, Draft, Event, Flags, LogConfig, MemDisk, Offset, Origin, Submission, Wait, open,
};

const EVENTS: Offset = 12;

/// Each five bytes are one damage: where (two bytes), how many bytes (one), what is put there (one), and whether the
/// file ends there (one: 255).
pub fn segment(data: &[u8]) {
    let disk = MemDisk::new();
    let path = Path::new("/log").join("00000000000000000001.0.log");
    write_log(&disk);
    let mut bytes = disk.bytes(&path).expect("a segment");
    for damage in data.chunks_exact(5) {
        let at = usize::from(u16::from_le_bytes([damage[0], damage[1]])) % (bytes.len() + 1);
        let end = bytes.len().min(at + usize::from(damage[2]));
        bytes[at..end].fill(damage[3]);
        if damage[4] == 255 {
            bytes.truncate(at);
        }
    }
    disk.set_bytes(&path, &bytes);

    let log = open(config(), Arc::new(disk.clone()), 0).expect("a damaged log opens");
    let mut next = log.read.oldest();
    loop {
        match log.read.read(next, Offset::MAX, 100, Wait::Yes).expect("reads") {
            Chunk::Batches(batches) => {
                for (offset, record) in batches.iter().flat_map(|batch| batch.records()) {
                    if offset >= next {
                        assert_eq!(offset, next);
                        assert_eq!(record.event().payload, payload(offset));
                        next += 1;
                    }
                }
            }
            Chunk::Gap { next: after, .. } => {
                assert!(after > next);
                next = after;
            }
            Chunk::End => break,
            Chunk::Blocked => panic!("a read that may wait is never blocked"),
        }
    }
    assert_eq!(next, log.read.head() + 1);
    assert!(disk.list(Path::new("/log")).is_ok());
}

fn write_log(disk: &MemDisk) {
    let mut log = open(config(), Arc::new(disk.clone()), 0).expect("opens");
    let mut offsets = 1..=EVENTS;
    for count in [1, 3, 2, 5, 1] {
        let mut draft = Draft::new();
        for offset in offsets.by_ref().take(count) {
            let payload = payload(offset);
            let event = Event {
                flags: Flags::default(),
                topic: "a/b",
                attributes: Attributes::EMPTY,
                payload: &payload,
            };
            draft.push(&event, &Origin::default()).expect("fits");
        }
        let mut submissions = vec![Submission { draft, ticket: 0, from: 0 }];
        log.append.append(0, &mut submissions, &mut |_, _, answer| assert!(answer.is_ok()));
    }
}

fn payload(offset: Offset) -> Vec<u8> {
    vec![offset as u8; offset as usize * 3]
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 8 << 10, tail_bytes: 0, ..LogConfig::new("/log") }
}
