"""A real Gerrit on loopback, from Maven's jars to accounts that can log in.

There is no war to be had from Maven, but two jars together are the whole server, less the web UI and the core
plugins: gerrit-acceptance-framework (init, daemon, Jetty) and gerrit-plugin-api (all the rest). Bouncy Castle is the one
library that neither carries.

Needs: mvn, git's `ssh` and `ssh-keygen`, and a Java of 21 or more. The `java` in the PATH is often an older one, so
others on the machine are looked at too; $JAVA names one for certain.
"""

import base64
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

VERSION = os.environ.get("GERRIT_VERSION", "3.13.5")
BOUNCY_CASTLE = "1.80"
JAVA_LEAST = 21
START_SECS_MAX = 180
ADMIN = "admin:secret"


class Gerrit:
    """A Gerrit whose site, keys, jars and log are in one folder. Ports are chosen once and kept over restarts."""

    def __init__(self, folder):
        self.folder = os.path.abspath(folder)
        if " " in self.folder:
            sys.exit(f"{self.folder}: Gerrit's folder must have no space in its path")
        self.site = self.path("site")
        self.process = None
        os.makedirs(self.path("keys"), mode=0o700, exist_ok=True)
        os.makedirs(self.path("tmp"), exist_ok=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def key(self, name):
        """The private key `name`: admin, bus or truth."""
        return self.path("keys", name)

    @property
    def known_hosts(self):
        return self.path("keys", "known_hosts")

    def up(self):
        """Everything from nothing to a running server; what is there already is not done again."""
        self.java = java()
        self.jars()
        for name in ("admin", "bus", "truth"):
            if not os.path.exists(self.key(name)):
                run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.key(name))
        if not os.path.exists(self.path("ports")):
            self.init()
        self.http_port, self.ssh_port = json.load(open(self.path("ports")))
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.start()
        if not os.path.exists(self.known_hosts):
            self.accounts()

    def jars(self):
        """Fetches the jars with Maven, in one run, into its local store and from there to us."""
        if glob.glob(self.path("jars", "gerrit-plugin-api-*")):
            return
        wanted = [("com.google.gerrit", f"gerrit-{a}", VERSION) for a in ("acceptance-framework", "plugin-api")]
        wanted += [("org.bouncycastle", f"bc{a}-jdk18on", BOUNCY_CASTLE) for a in ("prov", "pkix", "util", "pg")]
        nothing_else = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
        dependencies = "".join(
            f"<dependency><groupId>{g}</groupId><artifactId>{a}</artifactId><version>{v}</version>{nothing_else}"
            "</dependency>"
            for g, a, v in wanted
        )
        pom = self.path("pom.xml")
        with open(pom, "w") as file:
            file.write(
                "<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>gerrit</artifactId>"
                f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
            )
        run("mvn", "-B", "-q", "-f", pom, "dependency:copy-dependencies", "-DoutputDirectory=" + self.path("jars"))

    def command(self, *arguments):
        """The command line of one of Gerrit's programs."""
        # Without a logging set-up of its own (the war's), every library would log at DEBUG: 400 MB an hour.
        with open(self.path("log4j.properties"), "w") as file:
            file.write(
                "log4j.rootLogger=INFO, out\n"
                "log4j.appender.out=org.apache.log4j.ConsoleAppender\n"
                "log4j.appender.out.layout=org.apache.log4j.PatternLayout\n"
                "log4j.appender.out.layout.ConversionPattern=[%d] [%t] %-5p %c : %m%n\n"
            )
        logging = "com.google.common.flogger.backend.log4j.Log4jBackendFactory#getInstance"
        context = "com.google.gerrit.server.logging.LoggingContext#getInstance"
        return [
            self.java,
            # A small heap, one thread for garbage and the quick compiler: half the memory and half the start.
            f"-Xmx{os.environ.get('GERRIT_HEAP', '256m')}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Duser.home={self.folder}", f"-Djava.io.tmpdir={self.path('tmp')}",
            "--add-opens", "java.base/java.net=ALL-UNNAMED",
            "--add-opens", "java.base/java.lang.invoke=ALL-UNNAMED",
            f"-Dflogger.backend_factory={logging}", f"-Dflogger.logging_context={context}",
            f"-Dlog4j.configuration=file:{self.path('log4j.properties')}",
            "-cp", ":".join(sorted(glob.glob(self.path("jars", "*.jar")))),
            "com.google.gerrit.launcher.GerritLauncher", *arguments,
        ]

    def init(self):
        # In a site folder that is there already, init makes no account for the administrator, and says nothing.
        shutil.rmtree(self.site, ignore_errors=True)
        run(*self.command("init", "--batch", "--dev", "--no-auto-start", "--skip-plugins", "-d", self.site),
            env={**os.environ, "HOME": self.folder})
        http, ssh = free_ports(2)
        for key, value in {
            "gerrit.canonicalWebUrl": f"http://127.0.0.1:{http}/",
            "gerrit.instanceId": "test",
            "httpd.listenUrl": f"http://127.0.0.1:{http}/",
            "sshd.listenAddress": f"127.0.0.1:{ssh}",
            "sendemail.enable": "false",
        }.items():
            run("git", "config", "-f", os.path.join(self.site, "etc", "gerrit.config"), key, value)
        with open(self.path("ports"), "w") as file:
            json.dump([http, ssh], file)

    def start(self):
        # A log of its own for each start: the wait below must not see an older "ready".
        log = open(self.path("gerrit.log"), "w+b")
        self.process = subprocess.Popen(
            self.command("daemon", "-d", self.site, "--console-log", "--headless"),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "HOME": self.folder},
        )
        with open(self.path("pid"), "w") as file:
            file.write(str(self.process.pid))
        deadline = time.monotonic() + START_SECS_MAX
        while not re.search(rb"Gerrit Code Review .* ready", open(log.name, "rb").read()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("Gerrit did not start:\n" + open(log.name, errors="replace").read()[-4000:])
            time.sleep(0.2)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def accounts(self):
        """The administrator's key, the account `bus` with two keys and nothing but Stream Events, the host's key."""
        self.rest("POST", "accounts/self/sshkeys", text=open(self.key("admin") + ".pub").read())
        # The group Service Users has Stream Events from the start.
        bus = {"name": "Bus Reader", "email": "bus@example.com", "groups": ["Service Users"]}
        self.rest("PUT", "accounts/bus", {**bus, "ssh_key": open(self.key("bus") + ".pub").read()})
        self.rest("POST", "accounts/bus/sshkeys", text=open(self.key("truth") + ".pub").read())
        self.know_host(self.ssh_port, self.known_hosts)

    def know_host(self, port, file):
        """Writes a known_hosts file for this server as seen at 127.0.0.1:`port`."""
        key = open(os.path.join(self.site, "etc", "ssh_host_ed25519_key.pub")).read().split()
        with open(file, "w") as known_hosts:
            known_hosts.write(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")

    def rest(self, method, path, data=None, text=None):
        """A call of the REST API as administrator; gives the decoded answer, or None if it is empty."""
        request = urllib.request.Request(f"{self.url}/a/{path}", method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(ADMIN.encode()).decode())
        # Gerrit answers 400 to a DELETE with a content type and no body.
        if text is not None:
            request.data = text.encode()
            request.add_header("Content-Type", "text/plain; charset=UTF-8")
        elif data is not None:
            request.data = json.dumps(data).encode()
            request.add_header("Content-Type", "application/json; charset=UTF-8")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                body = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()[:300]}") from None
        body = body.removeprefix(")]}'\n")
        try:
            return json.loads(body) if body else None
        except ValueError:
            return body

    def stream(self, output, key="truth"):
        """`gerrit stream-events` as account bus, by plain ssh, into the file `output`."""
        return subprocess.Popen(
            ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
             "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "IdentitiesOnly=yes", "-i", self.key(key),
             "-p", str(self.ssh_port), "bus@127.0.0.1", "gerrit", "stream-events"],
            stdin=subprocess.DEVNULL, stdout=open(output, "wb"), stderr=subprocess.DEVNULL,
        )


def java():
    """The first Java that is new enough, as given by $JAVA, $JAVA_HOME, the PATH or the usual folders."""
    candidates = [os.environ.get("JAVA"), os.path.join(os.environ.get("JAVA_HOME", "/nowhere"), "bin", "java")]
    candidates += [shutil.which("java")]
    for pattern in ("/usr/lib/jvm/*/bin/java", "/opt/*/bin/java", os.path.expanduser("~/.sdkman/candidates/java/*/bin/java")):
        candidates += sorted(glob.glob(pattern), reverse=True)
    seen = []
    for candidate in filter(None, candidates):
        try:
            text = subprocess.run([candidate, "-version"], capture_output=True, text=True).stderr
        except OSError:
            continue
        version = re.search(r'version "(\d+)', text)
        if version and int(version[1]) >= JAVA_LEAST:
            return candidate
        seen.append(f"{candidate} ({version[1] if version else '?'})")
    sys.exit(f"no Java of {JAVA_LEAST} or more; set JAVA. Seen: {', '.join(seen) or 'none'}")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run(*command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:6])} …: status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def stop_by_pid_file(folder):
    """Stops a Gerrit that another process started in `folder`."""
    try:
        pid = int(open(os.path.join(folder, "pid")).read())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    while os.path.exists(f"/proc/{pid}") and "\nState:\tZ" not in open(f"/proc/{pid}/status").read():
        time.sleep(0.2)
