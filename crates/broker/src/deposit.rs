//! What is left at the sequencer, to get its place in the one order.

use firehose_log::Draft;

/// What lies in a slot.
pub enum Deposit {
    /// Events for the log.
    Batch {
        /// Names it to its depositor.
        ticket: u64,
        /// The events.
        draft: Draft,
        /// Whether an acknowledgement waits for its durability.
        wants_sync: bool,
    },
    /// Publications that are delivered but not stored: they get a place between two offsets.
    Unlogged(Draft),
    /// Asks for its place in the order: how SUBSCRIBE is sequenced.
    Mark {
        /// Names it to its depositor.
        token: u64,
    },
}
