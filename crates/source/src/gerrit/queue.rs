//! What was read and is not yet stored: a queue that is bounded in bytes.
//!
//! The reading task waits only when the whole budget is taken; then ssh and Gerrit hold the rest back, and Gerrit
//! says `dropped-output` when it cannot.

use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lines::Line;
use crate::sink::NewEvent;

/// What an item takes beside its bytes, so that many short lines do not take more memory than the budget.
const OVERHEAD_BYTES: usize = 128;

/// An item of the queue.
pub(super) enum Item {
    /// A line, and its share of the budget: to be held until the line is stored.
    Line(Line, OwnedSemaphorePermit),
    /// A status to be published.
    Status(NewEvent),
}

/// The side that reads.
#[derive(Clone)]
pub(super) struct QueueSender {
    items: UnboundedSender<Item>,
    budget: Arc<Semaphore>,
    bytes_max: usize,
}

/// The side that publishes.
pub(super) type QueueReceiver = UnboundedReceiver<Item>;

/// A queue of at most `bytes_max` bytes; a single line above that passes when it is alone.
pub(super) fn queue(bytes_max: usize) -> (QueueSender, QueueReceiver) {
    let bytes_max = bytes_max.clamp(1, u32::MAX as usize >> 1);
    let (items, receiver) = mpsc::unbounded_channel();
    (QueueSender { items, budget: Arc::new(Semaphore::new(bytes_max)), bytes_max }, receiver)
}

impl QueueSender {
    /// Puts a line into the queue as soon as there is room. False: nobody takes lines any more.
    pub(super) async fn line(&self, line: Line) -> bool {
        let bytes = OVERHEAD_BYTES
            + match &line {
                Line::Whole(bytes) => bytes.len(),
                Line::TooLong(_) => 0,
            };
        let share = u32::try_from(bytes.min(self.bytes_max)).unwrap_or(u32::MAX >> 1);
        match Arc::clone(&self.budget).acquire_many_owned(share).await {
            Ok(permit) => self.items.send(Item::Line(line, permit)).is_ok(),
            Err(_) => false,
        }
    }

    /// Puts a status into the queue, whatever is in it: there are few.
    pub(super) fn status(&self, publication: NewEvent) {
        // Nobody to take it: the source is stopping.
        let _ = self.items.send(Item::Status(publication));
    }

    /// Whether the publishing side has something left to do.
    pub(super) fn is_busy(&self) -> bool {
        self.budget.available_permits() < self.bytes_max
    }
}
