//! Wakes a thread: the commit thread, or the section's.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// A bell that one thread waits for. Ringing it twice before it is heard is the same as once.
#[derive(Default)]
pub struct Bell {
    rung: AtomicBool,
    listener: OnceLock<Thread>,
}

impl Bell {
    /// Rings. Costs no system call while the listener is up, or when the bell has rung already.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst)
            && let Some(listener) = self.listener.get()
        {
            listener.unpark();
        }
    }

    /// Waits until it was rung since the last wait, for `at_most`. Only one thread ever calls this.
    pub fn wait(&self, at_most: Duration) {
        self.listener.get_or_init(std::thread::current);
        if !self.rung.load(Ordering::SeqCst) {
            std::thread::park_timeout(at_most);
        }
        self.rung.store(false, Ordering::SeqCst);
    }
}
