//! What was taken out of an outbox and has not been written whole.

use crate::frames::Frames;
use std::sync::Arc;

/// A frame of which a part was written; nothing may come before its rest.
#[derive(Debug)]
pub(crate) enum Partial {
    Shared(Arc<Frames>, usize, usize),
    Owned(Vec<u8>, usize),
}

impl Partial {
    /// What is left of it.
    pub(crate) fn rest(&self) -> &[u8] {
        match self {
            Partial::Shared(frames, start, end) => frames.slice(*start, *end),
            Partial::Owned(bytes, start) => bytes.get(*start..).unwrap_or(&[]),
        }
    }

    /// So many more bytes are out.
    pub(crate) fn advance(&mut self, n: usize) {
        match self {
            Partial::Shared(_, start, _) | Partial::Owned(_, start) => *start += n,
        }
    }
}
