//! What one connection still has to be sent: replies, and ranges of shared frames. Bounded; when it is full the lane
//! goes on from the log. An idle connection's outbox holds no memory.

mod count;
mod expiry;

pub(crate) use expiry::Expired;

use crate::aliases::Aliases;
use crate::frames::{Frames, Range, topic_of};
use crate::gate::Gate;
use crate::inflight::Inflight;
use crate::item::{Item, is_retained};
use crate::partial::Partial;
use crate::scan::RETAINED;
use firehose_log::Offset;
use firehose_mqtt::QoS;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Pieces handed to one `writev`.
const PIECES_MAX: usize = 32;
/// Bytes gathered for one `writev`.
const GATHER_BYTES: usize = 256 << 10;
/// Writes of one flush: more waits for the next turn, so that others get theirs.
const WRITES_MAX: usize = 8;
/// Bytes of messages that are rewritten with topic aliases at a time.
const ALIASED_BYTES: usize = 16 << 10;

/// Where a flush writes to: a socket, or a test's buffer.
pub trait Wire {
    /// Writes as much as it takes now; `WouldBlock` when it takes nothing.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Everything is out.
    Empty,
    /// The socket takes no more; it will say when it does.
    Blocked,
    /// Messages wait for acknowledgements of the client.
    Window,
    /// Messages wait at the gate.
    Gated,
    /// More could be written: come again next turn.
    More,
    /// The socket is dead.
    Dead,
}

/// A frame of one connection, with its packet id in it.
#[derive(Debug)]
pub struct OwnFrame {
    /// The packet id.
    pub packet_id: u16,
    /// The whole packet; empty: to be made again from the log.
    pub bytes: Vec<u8>,
}

/// Memory of one flush, kept by the shard: patched frames are copied here.
#[derive(Default)]
pub struct Scratch {
    copies: Vec<u8>,
    plan: Vec<Piece>,
}

/// One piece of a gathered write.
#[derive(Clone, Copy)]
enum Piece {
    Partial,
    Control,
    /// A QoS 0 item, whole.
    Shared(usize),
    /// Patched frames in `copies`.
    Copied(usize, usize),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    partial: Option<Box<Partial>>,
    control: Vec<u8>,
    items: VecDeque<Item>,
    bytes: usize,
    aliases: Option<Box<Aliases>>,
}

impl Outbox {
    /// From now on messages go with topic aliases.
    pub fn use_aliases(&mut self, aliases: Aliases) {
        self.aliases = Some(Box::new(aliases));
    }

    /// Replies (acknowledgements, PINGRESP, ...): they go before queued messages.
    pub fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Queues frames; grows the last item where they continue it.
    pub fn push(&mut self, range: &Range, lane: u16, qos: QoS, logged: bool) {
        if range.first == range.end {
            return;
        }
        self.bytes += range.bytes as usize;
        if let Some(last) = self.items.back_mut()
            && last.range.end == range.first
            && last.lane == lane
            && last.qos == qos
            && last.logged == logged
            && Arc::ptr_eq(&last.range.frames, &range.frames)
        {
            last.range.end = range.end;
            last.range.bytes += range.bytes;
            return;
        }
        self.items.push_back(Item { range: range.clone(), lane, qos, logged });
    }

    /// Bytes of all queued frames.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory that the queue keeps alive: the whole buffers its ranges point into.
    pub fn pinned_bytes(&self) -> usize {
        let mut pinned = self.control.len();
        let mut last: Option<&Arc<Frames>> = None;
        for item in &self.items {
            if last.is_none_or(|last| !Arc::ptr_eq(last, &item.range.frames)) {
                pinned += item.range.frames.pinned_bytes();
            }
            last = Some(&item.range.frames);
        }
        pinned
    }

    /// Whether nothing at all is to be written.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.control.is_empty() && self.partial.is_none()
    }

    /// Whether any queued message needs a packet id.
    pub fn wants_window(&self) -> bool {
        self.items.iter().any(|item| item.qos != QoS::AtMostOnce)
    }

    /// Whether messages are queued.
    pub fn has_messages(&self) -> bool {
        !self.items.is_empty()
    }

    /// Bytes of replies that the client does not take.
    pub fn control_bytes(&self) -> usize {
        self.control.len()
    }

    /// Whether the event at `offset` of the log is queued. Looks at each frame: they do not always ascend.
    pub fn queues(&self, offset: Offset) -> bool {
        self.items.iter().filter(|item| item.logged).any(|item| {
            let mut frames = (item.range.first..item.range.end).map(|index| item.range.frames.get(index));
            frames.any(|frame| frame.is_some_and(|frame| frame.offset == offset))
        })
    }

    /// Whether bytes that wait for the socket may be those of the event at `offset`, rewritten with a topic alias.
    pub fn has_rewritten(&self, offset: Offset) -> bool {
        let aliases = self.aliases.as_ref().filter(|_| self.partial.is_some());
        aliases.is_some_and(|aliases| aliases.portion.contains(&offset))
    }

    /// Drops all queued messages. For each lane that lost logged ones `from` gets the offset of the first; returns how
    /// many messages that are in no log were lost. A frame that is half out stays.
    pub fn drop_messages(&mut self, mut from: impl FnMut(u16, Offset)) -> u64 {
        let mut lost = 0;
        for item in self.items.drain(..) {
            match item.range.frames.get(item.range.first) {
                Some(at) if item.logged => from(item.lane, at.offset),
                _ => lost += u64::from(item.range.end - item.range.first),
            }
        }
        self.items.shrink_to(0);
        self.bytes = 0;
        self.unpin_partial();
        lost
    }

    /// Drops what is queued for a lane.
    pub fn drop_lane(&mut self, lane: u16) {
        let bytes = &mut self.bytes;
        self.items.retain(|item| {
            let stays = item.lane != lane;
            *bytes -= if stays { 0 } else { item.range.bytes as usize };
            stays
        });
    }

    /// Gives each lane that has logged messages queued, with the offset of its first.
    pub fn first_offsets(&self) -> Vec<(u16, Offset)> {
        let mut firsts: Vec<(u16, Offset)> = Vec::new();
        for item in self.items.iter().filter(|item| item.logged && item.lane != RETAINED) {
            if !firsts.iter().any(|(lane, _)| *lane == item.lane)
                && let Some(at) = item.range.frames.get(item.range.first)
            {
                firsts.push((item.lane, at.offset));
            }
        }
        firsts
    }

    /// The QoS of the next message.
    pub fn front_qos(&self) -> Option<QoS> {
        self.items.front().map(|item| item.qos)
    }

    /// Takes messages of QoS 1 and 2 from the front, with their packet ids, as far as the window goes, until `out` has
    /// `bytes_max` bytes or more. They count as sent. Gives the bytes taken.
    pub fn take_front(&mut self, window: &mut Inflight, bytes_max: usize, out: &mut Vec<OwnFrame>) -> usize {
        let mut taken = 0;
        while taken < bytes_max && window.room() > 0 {
            let Some(item) = self.items.front_mut().filter(|item| item.qos != QoS::AtMostOnce) else { break };
            let Some(at) = item.range.frames.get(item.range.first).copied() else { break };
            let packet_id = window.packet_id(0);
            let mut bytes = Vec::with_capacity(at.frame.len as usize);
            taken += item.copy_patched(item.range.first, packet_id, &mut bytes);
            window.sent(item.qos, || item.place(at.offset, is_retained(&bytes)));
            out.push(OwnFrame { packet_id, bytes });
            self.pass_first(at.frame.len);
        }
        taken
    }

    /// Puts bytes of one connection's own before everything that is queued, behind a frame that is half out.
    pub fn push_own(&mut self, bytes: Vec<u8>) {
        match self.partial.as_deref_mut() {
            None => self.partial = Some(Box::new(Partial::Owned(bytes, 0))),
            Some(partial) => {
                let mut rest = partial.rest().to_vec();
                rest.extend_from_slice(&bytes);
                *partial = Partial::Owned(rest, 0);
            }
        }
    }

    /// The topic of the first retained message that is queued for a scan.
    pub fn first_retained_topic(&self) -> Option<Box<str>> {
        let item = self.items.iter().find(|item| item.lane == RETAINED && item.logged)?;
        let at = item.range.frames.get(item.range.first)?;
        topic_of(item.range.frames.bytes_of(at)).map(Box::from)
    }

    /// Takes what is left of such bytes out again.
    pub fn take_own(&mut self) -> Vec<u8> {
        match self.partial.take().map(|partial| *partial) {
            Some(Partial::Owned(bytes, start)) => bytes.get(start..).unwrap_or(&[]).to_vec(),
            shared => {
                self.partial = shared.map(Box::new);
                Vec::new()
            }
        }
    }

    /// Forgets everything but replies: the connection is about to close.
    pub fn keep_only_control(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    /// Writes as much as the wire takes, and the client's window and the gate allow.
    pub fn flush(
        &mut self,
        window: Option<&mut Inflight>,
        gate: Gate,
        scratch: &mut Scratch,
        wire: &mut dyn Wire,
    ) -> Flushed {
        let mut window = window;
        for _ in 0..WRITES_MAX {
            if self.aliases.is_some() {
                self.take_aliased(window.as_deref_mut(), gate, scratch);
            }
            let gathered = self.gather(window.as_deref(), gate, scratch);
            if gathered == 0 {
                self.release_memory();
                return match self.items.front() {
                    None => Flushed::Empty,
                    Some(item) if gate.stops(item.qos) => Flushed::Gated,
                    Some(_) => Flushed::Window,
                };
            }
            match self.write(scratch, wire) {
                Ok(written) => {
                    self.consume(written, window.as_deref_mut(), scratch);
                    if written < gathered {
                        return self.blocked();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.blocked(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Flushed::Dead,
            }
            if self.is_empty() {
                self.release_memory();
                return Flushed::Empty;
            }
        }
        Flushed::More
    }

    /// Rewrites what goes next with topic aliases. It counts as sent: an alias holds once its packet is on its way.
    fn take_aliased(&mut self, mut window: Option<&mut Inflight>, gate: Gate, scratch: &mut Scratch) {
        // Replies, CONNACK among them, go first.
        if self.partial.is_some() || !self.control.is_empty() {
            return;
        }
        let Some(mut aliases) = self.aliases.take() else { return };
        let mut portion = Vec::new();
        aliases.portion.clear();
        while portion.len() < ALIASED_BYTES
            && let Some(item) = self.items.front().filter(|item| !gate.stops(item.qos))
            && let Some(at) = item.range.frames.get(item.range.first).copied()
        {
            aliases.portion.extend(item.logged.then_some(at.offset));
            if item.qos == QoS::AtMostOnce {
                aliases.append(item.range.frames.bytes_of(&at), &mut portion);
            } else {
                let Some(window) = window.as_deref_mut().filter(|window| window.room() > 0) else { break };
                scratch.copies.clear();
                item.copy_patched(item.range.first, window.packet_id(0), &mut scratch.copies);
                let retain = is_retained(&scratch.copies);
                window.sent(item.qos, || item.place(at.offset, retain));
                aliases.append(&scratch.copies, &mut portion);
            }
            self.pass_first(at.frame.len);
        }
        self.aliases = Some(aliases);
        if !portion.is_empty() {
            self.partial = Some(Box::new(Partial::Owned(portion, 0)));
        }
    }

    /// Plans one write: nothing changes yet, since nobody knows how much the wire takes.
    fn gather(&self, window: Option<&Inflight>, gate: Gate, scratch: &mut Scratch) -> usize {
        scratch.copies.clear();
        scratch.plan.clear();
        let mut gathered = 0;
        if let Some(partial) = &self.partial {
            scratch.plan.push(Piece::Partial);
            gathered += partial.rest().len();
        }
        if !self.control.is_empty() {
            scratch.plan.push(Piece::Control);
            gathered += self.control.len();
        }
        if self.aliases.is_some() {
            return gathered;
        }
        let mut room = window.map_or(0, Inflight::room);
        let mut ahead = 0;
        for (index, item) in self.items.iter().enumerate() {
            if scratch.plan.len() == PIECES_MAX || gathered >= GATHER_BYTES || gate.stops(item.qos) {
                break;
            }
            if item.qos == QoS::AtMostOnce {
                scratch.plan.push(Piece::Shared(index));
                gathered += item.range.bytes as usize;
                continue;
            }
            let Some(window) = window else { break };
            let start = scratch.copies.len();
            for frame in item.range.first..item.range.end {
                if room == 0 || gathered >= GATHER_BYTES {
                    break;
                }
                gathered += item.copy_patched(frame, window.packet_id(ahead), &mut scratch.copies);
                (room, ahead) = (room - 1, ahead + 1);
            }
            if scratch.copies.len() > start {
                scratch.plan.push(Piece::Copied(start, scratch.copies.len()));
            }
            if room == 0 {
                break;
            }
        }
        gathered
    }

    fn write(&self, scratch: &Scratch, wire: &mut dyn Wire) -> io::Result<usize> {
        // A message to a client that keeps up is one piece.
        if let [piece] = scratch.plan.as_slice() {
            return wire.write_vectored(&[IoSlice::new(self.bytes_of(piece, scratch))]);
        }
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        for (piece, slot) in scratch.plan.iter().zip(&mut pieces) {
            *slot = IoSlice::new(self.bytes_of(piece, scratch));
        }
        wire.write_vectored(&pieces[..scratch.plan.len()])
    }

    fn bytes_of<'a>(&'a self, piece: &Piece, scratch: &'a Scratch) -> &'a [u8] {
        match piece {
            Piece::Partial => self.partial.as_ref().map_or(&[], |partial| partial.rest()),
            Piece::Control => &self.control,
            Piece::Shared(index) => match self.items.get(*index) {
                Some(item) => item.range.frames.range(item.range.first, item.range.end),
                None => &[],
            },
            Piece::Copied(start, end) => scratch.copies.get(*start..*end).unwrap_or(&[]),
        }
    }

    /// Takes `written` bytes off the front, in the order in which they were gathered.
    fn consume(&mut self, mut written: usize, mut window: Option<&mut Inflight>, scratch: &Scratch) {
        if let Some(partial) = &mut self.partial {
            let rest = partial.rest().len();
            if written < rest {
                partial.advance(written);
                return;
            }
            written -= rest;
            self.partial = None;
        }
        if !self.control.is_empty() {
            written -= self.control.drain(..written.min(self.control.len())).len();
        }
        let mut copied = 0;
        while written > 0 {
            let Some(item) = self.items.front_mut() else { return };
            if item.qos == QoS::AtMostOnce && written >= item.range.bytes as usize {
                written -= item.range.bytes as usize;
                self.bytes = self.bytes.saturating_sub(item.range.bytes as usize);
                self.items.pop_front();
                continue;
            }
            let Some(at) = item.range.frames.get(item.range.first).copied() else { return };
            let len = at.frame.len as usize;
            if item.qos != QoS::AtMostOnce {
                if let Some(window) = window.as_deref_mut() {
                    let retain = || is_retained(item.range.frames.bytes_of(&at));
                    window.sent(item.qos, || item.place(at.offset, retain()));
                }
                if written < len {
                    let rest = scratch.copies.get(copied + written..copied + len).unwrap_or(&[]);
                    self.partial = Some(Box::new(Partial::Owned(rest.to_vec(), 0)));
                }
                copied += len;
            } else if written < len {
                let start = at.frame.start as usize;
                let shared = Partial::Shared(item.range.frames.clone(), start + written, start + len);
                self.partial = Some(Box::new(shared));
            }
            written = written.saturating_sub(len);
            self.pass_first(at.frame.len);
        }
    }

    /// The first frame, of so many bytes, has left the queue.
    fn pass_first(&mut self, len: u32) {
        let Some(item) = self.items.front_mut() else { return };
        item.range.first += 1;
        item.range.bytes -= len;
        self.bytes = self.bytes.saturating_sub(len as usize);
        if item.range.first == item.range.end {
            self.items.pop_front();
        }
    }

    /// Keeps only the bytes of a half-written frame, not the buffer they lie in.
    fn unpin_partial(&mut self) {
        if let Some(partial) = &mut self.partial
            && let Partial::Shared(frames, start, end) = &**partial
            && frames.pinned_bytes() > 2 * (end - start)
        {
            let rest = partial.rest().to_vec();
            **partial = Partial::Owned(rest, 0);
        }
    }

    /// The rest of the last frame waits alone: it is kept, the buffer around it is not.
    fn blocked(&mut self) -> Flushed {
        if self.items.is_empty() {
            self.unpin_partial();
        }
        Flushed::Blocked
    }

    fn release_memory(&mut self) {
        if self.control.is_empty() && self.control.capacity() > 0 {
            self.control = Vec::new();
        }
        if self.items.is_empty() && self.items.capacity() > 16 {
            self.items = VecDeque::new();
        }
    }
}
