"""How each client is made: its packages, at their exact versions, in a folder of its own; gives the command that runs it."""

import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
MAKING_SECS_MAX = 1200


def paho(folder, major):
    python, wanted = os.path.join(folder, "bin", "python"), source("paho", f"requirements-{major}.txt")
    with Made(folder, wanted) as missing:
        if missing:
            run([sys.executable, "-m", "venv", folder])
            pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "install"]
            run([*pip, "--require-hashes", "-r", wanted])
    return [python, source("paho", "client.py")]


def mosquitto(_folder):
    return [sys.executable, source("mosquitto", "client.py")]


def mqttjs(folder):
    files = [source("mqttjs", name) for name in ("package.json", "package-lock.json", "client.js")]
    with Made(folder, *files) as missing:
        if missing:
            for file in files:
                shutil.copy(file, folder)
            run(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], folder, npm_config_cache=folder + "/cache")
    return ["node", os.path.join(folder, "client.js")]


def golang(folder):
    program, sources = os.path.join(folder, "client"), source("golang")
    with Made(folder, *(os.path.join(sources, name) for name in sorted(os.listdir(sources)))) as missing:
        if missing:
            run(
                ["go", "build", "-mod=readonly", "-buildvcs=false", "-modcacherw", "-o", program, "."], sources, GOTOOLCHAIN="local",
                GOFLAGS="", GOCACHE=folder + "/cache", GOMODCACHE=folder + "/modules", GOPATH=folder + "/path",
            )
    return [program]


def hivemq(folder):
    java = newest_java()
    jars, classes = os.path.join(folder, "jars"), os.path.join(folder, "classes")
    with Made(folder, *(source("hivemq", name) for name in ("pom.xml", "jars.sha256", "Client.java"))) as missing:
        if missing:
            run(["mvn", "-B", "-q", "-C", "-Dmaven.repo.local=" + folder + "/repository", "-f", source("hivemq", "pom.xml"),
                 "dependency:copy-dependencies", "-DoutputDirectory=" + jars])
            run(["sha256sum", "--quiet", "--strict", "-c", source("hivemq", "jars.sha256")], jars)
            javac = os.path.join(os.path.dirname(os.path.realpath(java)), "javac")
            run([javac, "-encoding", "UTF-8", "-cp", jars + "/*", "-d", classes, source("hivemq", "Client.java")])
    quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]
    return [java, *quick, "-cp", f"{classes}:{jars}/*", "Client"]


def rumqttc(folder):
    run(["cargo", "build", "--quiet", "--locked", "--manifest-path", source("rumqttc", "Cargo.toml"), "--target-dir", folder])
    return [os.path.join(folder, "debug", "rumqttc-client")]


class Made:
    """Enters a folder; tells whether what it is made of has changed; notes at the end what it was made of."""

    def __init__(self, folder, *sources):
        self.note = os.path.join(folder, "made-of")
        self.folder = folder
        self.digest = hashlib.sha256(b"".join(open(file, "rb").read() for file in sources) + folder.encode()).hexdigest()

    def __enter__(self):
        if os.path.exists(self.note) and open(self.note).read() == self.digest:
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        return True

    def __exit__(self, failure, *_):
        if failure is None:
            with open(self.note, "w") as file:
                file.write(self.digest)


def newest_java():
    """As for Gerrit, which needs a newer one than this."""
    sys.path.insert(0, os.path.join(os.path.dirname(HERE), "gerrit"))
    import server

    return server.java()


def source(*path):
    return os.path.join(HERE, *path)


def run(command, folder=None, **environment):
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=MAKING_SECS_MAX,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{command[0]}: {error}") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-4000:]}")
