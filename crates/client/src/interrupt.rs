//! Stops a client that waits, from another thread.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A handle on everything that a client may be waiting for. Clones are the same handle.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    inside: Arc<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    state: Mutex<State>,
    raised: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_raised: bool,
    /// The connection in use: it is shut, so that who reads from it wakes up.
    socket: Option<TcpStream>,
}

impl Interrupt {
    /// A handle that was not raised.
    pub fn new() -> Self {
        Interrupt::default()
    }

    /// Ends what waits now and what would wait later: it fails with [`crate::ClientError::Interrupted`].
    pub fn raise(&self) {
        let mut state = self.lock();
        state.is_raised = true;
        if let Some(socket) = &state.socket {
            // only its reading side: what is to be said last can still be said; an error means it is closed already
            let _ = socket.shutdown(Shutdown::Read);
        }
        self.inside.raised.notify_all();
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.lock().is_raised
    }

    /// Waits so long, or until it is raised; gives whether it is.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let state = self.lock();
        let waited = self.inside.raised.wait_timeout_while(state, timeout, |state| !state.is_raised);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_raised
    }

    /// From now on this connection is the one that is waited for.
    pub(crate) fn watch(&self, socket: &TcpStream) {
        self.lock().socket = socket.try_clone().ok();
        if self.is_raised() {
            self.raise();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inside.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
