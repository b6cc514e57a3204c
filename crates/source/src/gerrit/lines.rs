//! Lines out of a stream of bytes, of limited length; sans-I/O.

use bytes::{Buf, Bytes, BytesMut};

/// What the stream held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its newline.
    Whole(Bytes),
    /// A line above the limit, skipped; how many bytes it had, without its newline.
    TooLong(u64),
}

/// Splits what is read into lines. Read into [`Lines::space`], then take lines with [`Lines::next_line`].
pub(super) struct Lines {
    buffer: BytesMut,
    /// Bytes of `buffer` that are known to hold no newline.
    searched: usize,
    line_bytes_max: usize,
    /// While a line above the limit is skipped: its bytes so far.
    skipped: Option<u64>,
}

impl Lines {
    pub(super) fn new(line_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, line_bytes_max, skipped: None }
    }

    /// Where to read to. Holds one line at most, and what was read together with its end.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        self.buffer.reserve(16 * 1024);
        &mut self.buffer
    }

    /// The next line, if its end has been read.
    pub(super) fn next_line(&mut self) -> Option<Line> {
        match self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
            Some(at) => {
                let end = self.searched + at;
                let line = self.take(end);
                self.buffer.advance(1);
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                if self.searched > self.line_bytes_max {
                    *self.skipped.get_or_insert(0) += self.searched as u64;
                    // A huge line's memory is given back.
                    self.buffer = BytesMut::new();
                    self.searched = 0;
                }
                None
            }
        }
    }

    /// What stands after the last newline when the stream has ended.
    pub(super) fn rest(&mut self) -> Option<Line> {
        let end = self.buffer.len();
        (end > 0 || self.skipped.is_some()).then(|| self.take(end))
    }

    /// Takes the first `end` bytes as (the end of) a line. A copy: a small line must not pin a large buffer.
    fn take(&mut self, end: usize) -> Line {
        self.searched = 0;
        let line = match self.skipped.take() {
            Some(skipped) => Line::TooLong(skipped + end as u64),
            None if end > self.line_bytes_max => Line::TooLong(end as u64),
            None => Line::Whole(Bytes::copy_from_slice(&self.buffer[..end])),
        };
        self.buffer.advance(end);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]], line_bytes_max: usize) -> Vec<Line> {
        let mut lines = Lines::new(line_bytes_max);
        let mut all = Vec::new();
        for chunk in chunks {
            lines.space().extend_from_slice(chunk);
            while let Some(line) = lines.next_line() {
                all.push(line);
            }
        }
        all.extend(lines.rest());
        all
    }

    fn whole(text: &'static str) -> Line {
        Line::Whole(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn lines_are_the_same_however_the_reads_fall() {
        let text = "{\"a\":1}\n\nzwölf\r\n{}\nlast".as_bytes();
        let expected = [whole("{\"a\":1}"), whole(""), whole("zwölf\r"), whole("{}"), whole("last")];
        assert_eq!(split(&[text], 100), expected);
        for size in 1..text.len() {
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(split(&chunks, 100), expected, "reads of {size}");
        }
    }

    #[test]
    fn a_line_above_the_limit_is_skipped_whole_and_the_next_one_is_not() {
        for size in 1..30 {
            let chunks: Vec<&[u8]> = b"12345678\n123456789\n1\n".chunks(size).collect();
            assert_eq!(
                split(&chunks, 8),
                [whole("12345678"), Line::TooLong(9), whole("1")],
                "reads of {size}"
            );
        }
        assert_eq!(split(&[b"123456789"], 8), [Line::TooLong(9)]);
    }

    #[test]
    fn a_line_above_the_limit_is_not_kept_in_memory() {
        let mut lines = Lines::new(1024);
        for _ in 0..1000 {
            lines.space().extend_from_slice(&[b'x'; 512]);
            assert_eq!(lines.next_line(), None);
            assert!(lines.buffer.len() <= 2048);
        }
        lines.space().extend_from_slice(b"\n");
        assert_eq!(lines.next_line(), Some(Line::TooLong(512_000)));
    }
}
