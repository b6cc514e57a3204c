//! INT and TERM for the commands that are clients: they end what waits, so that the output is whole.

use std::time::Duration;

use firehose_client::Interrupt;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure};

/// A process that does not end by itself after this was asked is ended.
const GRACE: Duration = Duration::from_secs(3);

/// Raises the interrupt at the first INT or TERM; at the second, or if that does not help, ends the process.
pub fn raise_on_signal(interrupt: Interrupt) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // handlers are in place when this returns
    let (mut int, mut term) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            interrupt.raise();
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, () = tokio::time::sleep(GRACE) => {} }
        });
        std::process::exit(Exit::Interrupted as i32);
    })?;
    Ok(())
}
