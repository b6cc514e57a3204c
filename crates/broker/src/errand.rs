//! Work that others have the commit thread do, since it alone has the log's committing side: taking events back,
//! trusting the clock again.

use crate::sync::{Mutex, lock};
use firehose_log::Commit;
use std::sync::mpsc;

type Errand = Box<dyn FnOnce(&mut dyn Commit) + Send>;

/// Errands that wait for the commit thread; `None` once it has ended.
pub(crate) struct Errands(Mutex<Option<Vec<Errand>>>);

impl Default for Errands {
    fn default() -> Errands {
        Errands(Mutex::new(Some(Vec::new())))
    }
}

impl Errands {
    /// Leaves an errand; whoever does must ring the commit thread's bell. Its result comes by the receiver, which is
    /// closed without one if the commit thread has ended.
    pub(crate) fn leave<T: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut dyn Commit) -> T + Send + 'static,
    ) -> mpsc::Receiver<T> {
        let (done, result) = mpsc::channel();
        if let Some(waiting) = &mut *lock(&self.0) {
            waiting.push(Box::new(move |commit| {
                // Who asked may have gone.
                let _ = done.send(errand(commit));
            }));
        }
        result
    }

    /// The commit thread: does what waits, in order.
    pub(crate) fn run(&self, commit: &mut dyn Commit) {
        let waiting = lock(&self.0).as_mut().map(std::mem::take).unwrap_or_default();
        for errand in waiting {
            errand(commit);
        }
    }

    /// The commit thread ends: what still waits is not done.
    pub(crate) fn close(&self) {
        lock(&self.0).take();
    }
}
