//! A test bed: a folder with the stand-in for ssh and what its runs do, a sink in memory, and a running source.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use firehose_source::{
    BackoffConfig, GerritConfig, GerritSource, NewEvent, Refused, Sink, Source, Status, StatusHandle, Stored,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// So long a test waits for what must come; no test asserts that something comes within a time.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Bed {
    folder: TempDir,
}

impl Bed {
    /// A bed where every run of ssh does `run_last` unless [`Bed::run`] says otherwise.
    pub fn new(run_last: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-ssh/ssh");
        symlink(script, folder.path().join("ssh")).unwrap();
        fs::write(folder.path().join("run-last"), format!("{run_last}\n")).unwrap();
        Self { folder }
    }

    /// What the run with this number does, from 1.
    pub fn run(&self, number: usize, script: &str) {
        fs::write(self.folder.path().join(format!("run-{number}")), format!("{script}\n")).unwrap();
    }

    /// Puts these lines into the file `lines` in the folder, which the runs of ssh know as `$dir`.
    pub fn lines(&self, lines: &[String]) {
        fs::write(self.folder.path().join("lines"), lines.join("\n") + "\n").unwrap();
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How often ssh was run.
    pub fn runs(&self) -> usize {
        let runs = fs::read_to_string(self.folder.path().join("runs")).unwrap_or_default();
        runs.trim().parse().unwrap_or(0)
    }

    /// The process id that a run wrote to this file.
    pub fn pid(&self, file: &str) -> Option<u32> {
        fs::read_to_string(self.folder.path().join(file)).ok()?.trim().parse().ok()
    }

    /// Short pauses, and the stand-in as ssh.
    pub fn config(&self) -> GerritConfig {
        let mut config = GerritConfig::new("gerrit", "ssh://bot@review.example.org".parse().unwrap());
        config.ssh_program = self.folder.path().join("ssh");
        let quick = BackoffConfig {
            first: Duration::from_millis(10),
            factor: 1.5,
            max: Duration::from_millis(50),
            jitter: 0.25,
        };
        config.backoff = quick;
        config.publish_backoff = quick;
        config.settle = Duration::from_millis(20);
        config.stop_grace = Duration::from_millis(500);
        config
    }

    pub fn sink(&self, answer: impl Fn(&[NewEvent], usize) -> Answer + Send + Sync + 'static) -> MemorySink {
        MemorySink(Arc::new(Memory {
            events: Mutex::new(Vec::new()),
            calls: Mutex::new(0),
            answer: Box::new(answer),
            blocked: watch::channel(false).0,
            waiting: AtomicBool::new(false),
        }))
    }

    pub fn start(&self, config: GerritConfig) -> Running {
        self.start_with(config, self.sink(|_, _| Answer::Store))
    }

    pub fn start_with(&self, config: GerritConfig, sink: MemorySink) -> Running {
        let source = Box::new(GerritSource::new(config).unwrap());
        let status = source.status();
        let (stop, shutdown) = watch::channel(false);
        let task = tokio::spawn(source.run(Arc::new(sink.clone()), shutdown));
        Running { sink, status, stop, task: Mutex::new(task) }
    }
}

/// What a sink does with a batch.
pub enum Answer {
    Store,
    Refuse,
    RefuseAndRetry,
}

#[derive(Clone)]
pub struct MemorySink(Arc<Memory>);

type Decide = Box<dyn Fn(&[NewEvent], usize) -> Answer + Send + Sync>;

struct Memory {
    events: Mutex<Vec<NewEvent>>,
    calls: Mutex<usize>,
    answer: Decide,
    blocked: watch::Sender<bool>,
    waiting: AtomicBool,
}

impl MemorySink {
    /// Lets events wait until [`MemorySink::unblock`].
    pub fn block(&self) {
        self.0.blocked.send_replace(true);
    }

    pub fn unblock(&self) {
        self.0.blocked.send_replace(false);
    }

    /// Whether a batch has come to wait.
    pub fn is_waiting(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed)
    }
}

impl Sink for MemorySink {
    fn publish(&self, events: Vec<NewEvent>) -> Stored<'_> {
        Box::pin(async move {
            self.0.waiting.store(true, Ordering::Relaxed);
            let mut blocked = self.0.blocked.subscribe();
            let _ = blocked.wait_for(|blocked| !blocked).await;
            let calls = {
                let mut calls = self.0.calls.lock().unwrap();
                *calls += 1;
                *calls
            };
            match (self.0.answer)(&events, calls) {
                Answer::Store => {
                    self.0.events.lock().unwrap().extend(events);
                    Ok(())
                }
                Answer::Refuse => Err(Refused { why: "too large".into(), retry: false }),
                Answer::RefuseAndRetry => Err(Refused { why: "disk full".into(), retry: true }),
            }
        })
    }
}

/// A source at work.
pub struct Running {
    sink: MemorySink,
    pub status: StatusHandle,
    stop: watch::Sender<bool>,
    task: Mutex<JoinHandle<()>>,
}

impl Running {
    /// The events stored so far, without the status.
    pub fn stored(&self) -> Vec<NewEvent> {
        let all = self.sink.0.events.lock().unwrap();
        all.iter().filter(|event| !event.topic.starts_with("firehose/")).cloned().collect()
    }

    /// Waits for so many events and gives them; more are an error.
    pub async fn events(&self, count: usize) -> Vec<NewEvent> {
        self.until(|running| running.stored().len() >= count).await;
        let stored = self.stored();
        assert_eq!(stored.len(), count);
        stored
    }

    /// The status publications.
    pub fn statuses(&self) -> Vec<serde_json::Value> {
        let all = self.sink.0.events.lock().unwrap();
        let statuses = all.iter().filter(|event| event.topic == "firehose/status/gerrit");
        statuses
            .map(|event| {
                assert!(event.retain);
                serde_json::from_slice(&event.payload).unwrap()
            })
            .collect()
    }

    /// State and reason of each status publication.
    pub fn states(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        self.statuses().iter().map(|status| (text(&status["state"]), text(&status["why"]))).collect()
    }

    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !condition(self) {
            assert!(
                started.elapsed() < PATIENCE,
                "status {:?}, {} events",
                self.status.get(),
                self.stored().len()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn ask_to_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops the source, waits for its end, and gives its last status.
    pub async fn stop(&self) -> Status {
        self.ask_to_stop();
        self.until(|running| running.task.lock().unwrap().is_finished()).await;
        self.status.get()
    }

    pub fn abort(&self) {
        self.task.lock().unwrap().abort();
    }
}

/// The lines of a file.
pub fn lines_of(file: &str) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{file}: {e}")).lines().map(str::to_owned).collect()
}

/// Whether a process is there and no zombie.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.trim().is_empty())
}
