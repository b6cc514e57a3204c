//! Runs the binary as people do.

#![allow(dead_code)]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

pub const FIREHOSE: &str = env!("CARGO_BIN_EXE_firehose");

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A command without anything of the environment that could change it.
pub fn command<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(FIREHOSE);
    command.args(args);
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("FIREHOSE_") || name == "STATE_DIRECTORY")
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end.
pub fn run<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Ended {
    ended(command(args).output().expect("the binary runs"))
}

/// Runs a command with this on its standard input.
pub fn run_with_input(args: &[&str], input: &[u8]) -> Ended {
    let mut child = command(args).stdin(Stdio::piped()).spawn().expect("the binary runs");
    child.stdin.take().expect("it is piped").write_all(input).expect("it reads");
    ended(child.wait_with_output().expect("it ends"))
}

pub fn ended(output: std::process::Output) -> Ended {
    Ended {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A running `firehose serve`; killed when it is dropped.
pub struct Serve {
    pub child: Child,
    pub mqtt: String,
    pub http: String,
    pub lines: Vec<String>,
    out: BufReader<ChildStdout>,
}

impl Serve {
    /// On free ports of loopback.
    pub fn start(data: &Path, more: &[&str]) -> Serve {
        Serve::start_at(data, "127.0.0.1:0", more)
    }

    /// On free ports of loopback; its log lines go to `log`.
    pub fn start_logging(data: &Path, log: &Path, more: &[&str]) -> Serve {
        let mut command = command(["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]);
        command.arg(data).args(more).stderr(std::fs::File::create(log).expect("it can be made"));
        Serve::of(command)
    }

    /// With MQTT at this address.
    pub fn start_at(data: &Path, mqtt: &str, more: &[&str]) -> Serve {
        let mut command = command(["serve", "--mqtt", mqtt, "--http", "127.0.0.1:0", "--data"]);
        command.arg(data).args(more).stderr(Stdio::null());
        Serve::of(command)
    }

    /// With its data on a file system of its own, of so many KiB, at the folder `disk`, which only it sees: others come to
    /// it by [`Serve::inside`]. Its log lines go to `log`.
    pub fn on_a_small_disk(disk: &Path, kib: u32, log: &Path, more: &[&str]) -> Serve {
        // who is not root may mount in a user namespace of its own
        let root = std::fs::metadata("/proc/self").expect("there is /proc").uid() == 0;
        let mut command = Command::new("unshare");
        command.args(if root { &["--mount"][..] } else { &["--mount", "--map-root-user"] });
        let script = r#"mount -t tmpfs -o "size=$1k" tmpfs "$2" && shift 2 && exec "$@""#;
        command.args(["sh", "-c", script, "sh", &kib.to_string()]).arg(disk);
        command.args([FIREHOSE, "serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]);
        command.arg(disk.join("data")).args(more).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(log).expect("it can be made"));
        Serve::of(command)
    }

    /// A path as the bus sees it.
    pub fn inside(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.child.id());
        Path::new(&root).join(path.strip_prefix("/").unwrap_or(path))
    }

    fn of(mut command: Command) -> Serve {
        let mut child = command.spawn().expect("the binary runs");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(out.read_line(&mut line).expect("it is UTF-8") > 0, "serve ended after {lines:?}");
            let line = line.trim_end().to_owned();
            if line == "ready" {
                break;
            }
            lines.push(line);
        }
        let of = |protocol: &str| {
            let prefix = format!("listening {protocol} ");
            lines.iter().find_map(|line| line.strip_prefix(&prefix)).expect("it listens").to_owned()
        };
        Serve {
            mqtt: format!("mqtt://{}", of("mqtt")),
            http: format!("http://{}", of("http")),
            child,
            lines,
            out,
        }
    }

    /// The next line of its standard output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("it is UTF-8");
        line
    }

    /// Sends TERM and gives the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        signal(&self.child, "TERM");
        self.child.wait().expect("it ends").code()
    }

    /// As a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a child of ours.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}
