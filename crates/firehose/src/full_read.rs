//! The whole log, read once: a log that is damaged knows it of what was read.

use firehose_log::{Chunk, Offset, Read, ReadError, Wait};

/// How much is asked of the log at a time, in bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// How many kept events are asked of the log at a time.
const KEPT_PAGE: usize = 64;

/// Reads every event that is there, and what is kept beyond retention. Gives the first and the last offset; what is
/// damaged, [`Read::damage`] knows then. Waits for the disk.
///
/// # Errors
/// The disk cannot be read. Says where.
pub fn full_read(log: &dyn Read) -> Result<(Offset, Offset), ReadError> {
    let (first, head) = (log.oldest(), log.head());
    for page in log.kept().chunks(KEPT_PAGE) {
        log.fetch(page, Wait::Yes)?;
    }
    let mut next = first;
    while next <= head {
        next = match log.read(next, head, CHUNK_BYTES, Wait::Yes)? {
            Chunk::Batches(batches) => batches.last().map_or(head, |batch| batch.last()).max(next) + 1,
            Chunk::Gap { next: after, .. } => after.max(next + 1),
            Chunk::Blocked | Chunk::End => break,
        };
    }
    Ok((first, head))
}
