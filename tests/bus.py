"""The bus under test: its config, its process, and what it says on stdout."""

import os
import signal
import subprocess
import sys
import time

START_SECS_MAX = 60


def binary():
    """The binary: $FIREHOSE_BIN, which the test script of the repository sets."""
    path = os.environ.get("FIREHOSE_BIN", "")
    if not os.access(path, os.X_OK):
        sys.exit(f"FIREHOSE_BIN={path!r} is no program: build it with `cargo build --profile ci` and name it")
    return os.path.abspath(path)


class Bus:
    """A `firehose serve` over one folder. Each start takes free ports: read `mqtt_port` and `http_port` after it."""

    def __init__(self, folder, config):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.config = os.path.join(folder, "firehose.toml")
        self.log = os.path.join(folder, "firehose.log")
        self.process = None
        self.configure(config)

    def configure(self, config, server=""):
        """What the next start gets: whole tables, and further keys of `[server]`."""
        listeners = "".join(
            f'[[listener]]\nname = "{p}"\nprotocol = "{p}"\naddress = "127.0.0.1:0"\n\n' for p in ("mqtt", "http")
        )
        with open(self.config, "w") as file:
            file.write(f'[server]\ndata_dir = "{os.path.join(self.folder, "data")}"\n{server}\n{listeners}{config}')

    def start(self):
        """Starts it and waits until it is ready; gives the seconds that took."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [binary(), "serve", "--config", self.config, "--admin", "off"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(self.log, "ab"), text=True,
        )
        # A bus that hangs is killed, which ends the reading below.
        watchdog = subprocess.Popen(
            ["sh", "-c", f"sleep {START_SECS_MAX}; kill -9 {self.process.pid}"], start_new_session=True
        )
        try:
            for line in self.process.stdout:
                words = line.split()
                if words[:1] == ["listening"]:
                    setattr(self, f"{words[1]}_port", int(words[2].rsplit(":", 1)[1]))
                if words == ["ready"]:
                    return time.monotonic() - began
        finally:
            os.killpg(watchdog.pid, signal.SIGKILL)
            watchdog.wait()
        self.process.wait()
        sys.exit(f"firehose did not start (status {self.process.returncode}):\n{self.words()}")

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """SIGTERM; gives the exit status."""
        if self.process is None or self.process.poll() is not None:
            return self.process and self.process.returncode
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            return "did not end within 30 s"

    def words(self):
        """The end of its log."""
        return open(self.log, errors="replace").read()[-4000:]

    @property
    def http(self):
        return f"http://127.0.0.1:{self.http_port}"

    def history(self, *arguments):
        """`firehose history` with these arguments: its stdout, as bytes."""
        done = subprocess.run([binary(), "history", self.http, *arguments], stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"firehose history {arguments}: status {done.returncode}\n{done.stderr.decode()[-2000:]}")
        return done.stdout
