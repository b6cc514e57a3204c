//! One accepted connection: whatever was read of it already, and a deadline for a peer that does not read.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A peer that takes less than [`WRITE_BYTES_MIN`] in so long is cut off: it holds a page's memory.
const WRITE_WINDOW: Duration = Duration::from_secs(30);
/// What a peer takes at least while there is something for it, in bytes for each [`WRITE_WINDOW`].
const WRITE_BYTES_MIN: usize = 256 << 10;

/// An accepted connection, as the lobby hands it over.
#[derive(Debug)]
pub enum Connection {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a socket in the file system.
    Unix(UnixStream),
}

impl From<TcpStream> for Connection {
    fn from(stream: TcpStream) -> Self {
        Connection::Tcp(stream)
    }
}

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Self {
        Connection::Unix(stream)
    }
}

impl Connection {
    /// For the async thread; `read_before` are the bytes that were taken from it already. Only inside a runtime.
    pub(crate) fn into_async(self, read_before: Vec<u8>) -> io::Result<Patient> {
        let inner: Box<dyn Duplex> = match self {
            Connection::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Box::new(tokio::net::TcpStream::from_std(stream)?)
            }
            Connection::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Box::new(tokio::net::UnixStream::from_std(stream)?)
            }
        };
        Ok(Patient { inner, read_before, given: 0, slow: None })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Gives first what was read before; fails when the peer reads too slowly.
pub(crate) struct Patient {
    inner: Box<dyn Duplex>,
    read_before: Vec<u8>,
    given: usize,
    /// While there is more to write than the peer takes: when that must end, and what it took meanwhile.
    slow: Option<(Pin<Box<Sleep>>, usize)>,
}

impl fmt::Debug for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patient").finish_non_exhaustive()
    }
}

impl Patient {
    /// Passes an outcome of a write on, or fails when the peer takes too little.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = outcome {
            if let Some((_, taken)) = &mut self.slow {
                *taken += count;
                if *taken >= WRITE_BYTES_MIN {
                    self.slow = None;
                }
            }
            return outcome;
        }
        if outcome.is_ready() {
            return outcome;
        }
        let (deadline, _) = self.slow.get_or_insert_with(|| (Box::pin(sleep(WRITE_WINDOW)), 0));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.read_before[self.given..];
        if left.is_empty() {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.given += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(context));
        // everything is written: what comes next has its own time
        self.slow = None;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
