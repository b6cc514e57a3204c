//! One run of ssh, from its start to its end.

use std::collections::VecDeque;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::GerritConfig;
use super::command::command;
use super::complaint::{Ending, explain, is_login};
use super::lines::{Line, Lines};
use super::queue::QueueSender;

/// Lines of stderr that are kept to explain an ending, and the length at which one is cut off.
const WORDS_MAX: usize = 40;
const WORD_LINE_BYTES_MAX: usize = 4096;

/// How a link was.
pub(super) struct Lost {
    /// Why it ended; None: because we are asked to stop.
    pub(super) why: Option<String>,
    /// How long it was live, if it ever was.
    pub(super) live_for: Option<Duration>,
}

/// Starts ssh and puts the lines that it prints into the queue, until it ends, is dead or `shutdown` says so.
///
/// Calls `on_live` once, when events come as they happen. The process is gone, and reaped, when this returns.
pub(super) async fn follow(
    config: &GerritConfig,
    queue: &QueueSender,
    shutdown: &mut watch::Receiver<bool>,
    on_live: impl FnOnce(),
) -> Lost {
    let mut link = match Link::start(config, queue) {
        Ok(link) => link,
        Err(error) => {
            let program = config.ssh_program.display();
            tracing::warn!(source = config.name, %program, %error, "cannot run ssh");
            let why = format!("the bus cannot run ssh ({error}): is the OpenSSH client installed?");
            return Lost { why: Some(why), live_for: None };
        }
    };
    let ending = link.watch(shutdown, on_live).await;
    let ending = link.end(ending).await;
    Lost {
        why: (ending != Ending::Shutdown).then(|| explain(link.words.make_contiguous(), ending, &config.url)),
        live_for: link.live_at.map(|at| at.elapsed()),
    }
}

/// Resolves when we are to stop.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error: its sender is gone, and so is who wanted the source.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

struct Link<'a> {
    config: &'a GerritConfig,
    queue: &'a QueueSender,
    ssh: Ssh,
    /// When ssh was started, or something was last read from it.
    last_read: watch::Receiver<Instant>,
    stderr: mpsc::Receiver<String>,
    words: VecDeque<String>,
    logged_in_at: Option<Instant>,
    live_at: Option<Instant>,
    /// The task that reads events; ends when ssh's output does.
    reader: JoinSet<()>,
    _stderr_reader: JoinSet<()>,
}

impl<'a> Link<'a> {
    fn start(config: &'a GerritConfig, queue: &'a QueueSender) -> io::Result<Self> {
        let mut child = command(config).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let ssh = Ssh { child, group };
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(io::Error::other("its output is not connected"));
        };
        let (last_read_sender, last_read) = watch::channel(Instant::now());
        let (words_sender, stderr_lines) = mpsc::channel(WORDS_MAX);
        let (mut reader, mut stderr_reader) = (JoinSet::new(), JoinSet::new());
        reader.spawn(read_events(stdout, config.line_bytes_max, queue.clone(), last_read_sender));
        stderr_reader.spawn(read_words(stderr, words_sender));
        Ok(Self {
            config,
            queue,
            ssh,
            last_read,
            stderr: stderr_lines,
            words: VecDeque::new(),
            logged_in_at: None,
            live_at: None,
            reader,
            _stderr_reader: stderr_reader,
        })
    }

    /// Watches until something ends the link.
    async fn watch(&mut self, shutdown: &mut watch::Receiver<bool>, on_live: impl FnOnce()) -> Ending {
        let started = Instant::now();
        let mut on_live = Some(on_live);
        loop {
            let (deadline, due) = self.next_deadline(started);
            let mut read = false;
            tokio::select! {
                biased;
                () = stopped(shutdown) => return Ending::Shutdown,
                Some(line) = self.stderr.recv() => self.hear(line),
                Ok(()) = self.last_read.changed() => read = true,
                status = self.ssh.child.wait() => return exited(status),
                _ = self.reader.join_next() => return self.closed().await,
                () = sleep_until(deadline) => match due {
                    Due::Live => read = true,
                    Due::Never => {}
                    Due::End(ending) => return ending,
                },
            }
            if read && self.live_at.is_none() {
                self.live_at = Some(Instant::now());
                if let Some(on_live) = on_live.take() {
                    on_live();
                }
            }
        }
    }

    /// What is due next if nothing happens, and when.
    fn next_deadline(&self, started: Instant) -> (Instant, Due) {
        let silence = self.config.silence_max.map(|max| *self.last_read.borrow() + max);
        match (self.live_at, self.logged_in_at, silence) {
            (None, Some(at), _) => (at + self.config.settle, Due::Live),
            (None, None, _) => (started + self.config.connect_timeout, Due::End(Ending::ConnectTimeout)),
            (Some(at), _, Some(silence)) => {
                (silence.max(at + self.config.silence_max.unwrap_or_default()), Due::End(Ending::Silence))
            }
            (Some(_), _, None) => (Instant::now() + Duration::from_secs(3600), Due::Never),
        }
    }

    /// The output ended: mostly because ssh ended, which it then says soon.
    async fn closed(&mut self) -> Ending {
        match timeout(self.config.stop_grace, self.ssh.child.wait()).await {
            Ok(status) => exited(status),
            Err(_) => Ending::Closed,
        }
    }

    /// Ends ssh and what it started, takes the last words and the last lines.
    async fn end(&mut self, ending: Ending) -> Ending {
        self.ssh.stop(self.config.stop_grace).await;
        while let Ok(Some(line)) = timeout(self.config.stop_grace, self.stderr.recv()).await {
            self.hear(line);
        }
        // Only a full queue may keep the reader busy now; whatever else holds its pipe open is not waited for.
        while !self.reader.is_empty() {
            let joined = timeout(self.config.stop_grace, self.reader.join_next()).await;
            if joined.is_err() && (!self.queue.is_busy() || ending == Ending::Shutdown) {
                self.reader.abort_all();
            }
        }
        ending
    }

    fn hear(&mut self, line: String) {
        tracing::debug!(source = self.config.name, ssh = line, "ssh says");
        if is_login(&line) && self.logged_in_at.is_none() {
            self.logged_in_at = Some(Instant::now());
        }
        if self.words.len() == WORDS_MAX {
            self.words.pop_front();
        }
        self.words.push_back(line);
    }
}

/// What happens at the next deadline.
enum Due {
    Live,
    Never,
    End(Ending),
}

fn exited(status: io::Result<ExitStatus>) -> Ending {
    Ending::Exited(status.ok().and_then(|status| status.code()))
}

/// The process and its group; both are killed when this is dropped.
struct Ssh {
    child: Child,
    group: Option<Pid>,
}

impl Ssh {
    /// Ends the group, gently first, and reaps the process.
    async fn stop(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        if timeout(grace, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            if let Err(error) = self.child.wait().await {
                tracing::warn!(%error, "ssh was killed but could not be reaped");
            }
        }
        self.signal(Signal::KILL);
        self.group = None;
    }

    /// A group that has no process left gives an error, which is as good.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Reads events, and does nothing else: a reader that pauses is what makes Gerrit drop events.
async fn read_events(
    mut stdout: ChildStdout,
    line_bytes_max: usize,
    queue: QueueSender,
    last_read: watch::Sender<Instant>,
) {
    let mut lines = Lines::new(line_bytes_max);
    while read_some(&mut stdout, &mut lines).await {
        last_read.send_replace(Instant::now());
        while let Some(line) = lines.next_line() {
            if !queue.line(line).await {
                return;
            }
        }
    }
    if let Some(rest) = lines.rest() {
        queue.line(rest).await;
    }
}

/// Reads stderr, so that ssh never waits for us to.
async fn read_words(mut stderr: ChildStderr, words: mpsc::Sender<String>) {
    let mut lines = Lines::new(WORD_LINE_BYTES_MAX);
    while read_some(&mut stderr, &mut lines).await {
        while let Some(line) = lines.next_line() {
            if let Line::Whole(line) = line {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if words.send(line).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads once. False: the stream has ended.
async fn read_some(stream: &mut (impl AsyncRead + Unpin), lines: &mut Lines) -> bool {
    matches!(stream.read_buf(lines.space()).await, Ok(n) if n > 0)
}
