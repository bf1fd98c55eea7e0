//! Counts a connection's bytes as they are read.

use super::admission::Ticket;
use super::refusal::automatic;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that fails if there is no room for what was read, and that withholds the HTTP library's own response to
/// malformed requests.
pub(super) struct Metered<S> {
    pub(super) stream: S,
    pub(super) ticket: Arc<Ticket>,
    /// Whether there has been room so far.
    pub(super) has_room: bool,
    /// The status of a withheld response, which is always the last one.
    pub(super) withheld: Option<u16>,
}

impl<S> Metered<S> {
    /// A stream, counted for a connection.
    pub(super) fn new(stream: S, ticket: Arc<Ticket>) -> Self {
        Self { stream, ticket, has_room: true, withheld: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        match polled {
            // A ready read without bytes is the end of the stream.
            Poll::Ready(Ok(())) if count > 0 && !self.ticket.read(count) => {
                // The HTTP library sees an ordinary error; the flag says that the client is still to be told why.
                self.has_room = false;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::OutOfMemory, "no room for more of this request")))
            }
            polled => polled,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = match automatic(bytes) {
            Some((0, status)) => {
                self.withheld = Some(status);
                // All counts as written: the library would offer the rest again.
                return Poll::Ready(Ok(bytes.len()));
            }
            // The earlier response in the same bytes goes out first; the library then offers the rest again, on its
            // own.
            Some((place, _)) => bytes.get(..place).unwrap_or(bytes),
            None => bytes,
        };
        Pin::new(&mut self.stream).poll_write(context, sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.withheld {
            // Another response takes its place.
            Some(_) => Poll::Ready(Ok(())),
            None => Pin::new(&mut self.stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A response head without a body is written on its own.
        match slices {
            [only] => self.poll_write(context, only),
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
