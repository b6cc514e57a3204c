//! The standard output of commands that write events.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write};

use crate::exit::{Exit, Failure};

/// Buffered; whoever writes says when there is nothing more for now.
pub struct Output(BufWriter<Stdout>);

impl Output {
    /// The standard output.
    pub fn new() -> Self {
        Output(BufWriter::with_capacity(64 << 10, io::stdout()))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// An error of the standard output. A reader that has seen enough is none: the process ends in silence.
pub fn failure(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::silent(Exit::Success),
        _ => Failure::runtime(format!("cannot write to the standard output: {error}")),
    }
}
