//! Log lines: on the standard error, for people or as JSON; with syslog's priorities where the journal reads them.

use std::io::{self, Stderr, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::LogFormat;

/// Starts logging at info, or at what `$RUST_LOG` says.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines { journal });
    // an error means that something logs already
    let _ = match (format, journal) {
        (LogFormat::Json, _) => lines.json().try_init(),
        // the journal has its own clock and levels
        (LogFormat::Text, true) => lines.with_ansi(false).without_time().with_level(false).try_init(),
        (LogFormat::Text, false) => lines.with_ansi(false).try_init(),
    };
}

/// The standard error.
struct Lines {
    journal: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { priority: None, out: io::stderr() }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        let priority = match *metadata.level() {
            Level::ERROR => b"<3>",
            Level::WARN => b"<4>",
            Level::INFO => b"<6>",
            Level::DEBUG | Level::TRACE => b"<7>",
        };
        Line { priority: self.journal.then_some(priority), out: io::stderr() }
    }
}

/// One line, after its priority.
struct Line {
    priority: Option<&'static [u8; 3]>,
    out: Stderr,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(priority) = self.priority.take() {
            self.out.write_all(priority)?;
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
