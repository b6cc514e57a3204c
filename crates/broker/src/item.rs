//! A range of frames that waits in an outbox for one lane, and what is read in its bytes.

use crate::frames::Range;
use crate::inflight::Place;
use crate::member::is_shared;
use firehose_log::Offset;
use firehose_mqtt::{QoS, patch};

/// Frames that go to one lane of the session.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) range: Range,
    pub(crate) lane: u16,
    pub(crate) qos: QoS,
    pub(crate) logged: bool,
}

impl Item {
    /// Which event one of its messages is.
    pub(crate) fn place(&self, offset: Offset, retain: bool) -> Place {
        Place { offset, retain, shared: if is_shared(self.lane) { self.lane } else { 0 } }
    }

    /// Copies a frame, with its packet id in it; gives its length.
    pub(crate) fn copy_patched(&self, index: u32, packet_id: u16, copies: &mut Vec<u8>) -> usize {
        let Some(at) = self.range.frames.get(index) else { return 0 };
        let start = copies.len();
        copies.extend_from_slice(self.range.frames.bytes_of(at));
        let id_at = (at.frame.packet_id_at - at.frame.start) as usize;
        let retain = is_retained(&copies[start..]);
        patch(&mut copies[start..], id_at, packet_id, self.qos, false, retain);
        at.frame.len as usize
    }
}

/// Whether a PUBLISH frame has the retain flag.
pub(crate) fn is_retained(frame_bytes: &[u8]) -> bool {
    frame_bytes.first().is_some_and(|first| first & 1 != 0)
}
