"""mosquitto_pub and mosquitto_sub, as ../run has its clients."""

import subprocess
import sys

VERSIONS = {"3.1": "mqttv31", "3.1.1": "mqttv311", "5": "mqttv5"}


def main(what, port, version, *arguments):
    where = ["-h", "127.0.0.1", "-p", port, "-V", VERSIONS[version]]
    {"pub": publish, "sub": subscribe}[what](where, *arguments)


def publish(where, _name):
    for line in sys.stdin:
        qos, retain, payload, topic = line.rstrip("\n").split(" ", 3)
        command = ["mosquitto_pub", *where, "-u", "sender", "-P", "sesame", "-q", qos, "-t", topic, "-s" if payload else "-n"]
        subprocess.run(command + ["-r"] * int(retain), input=bytes.fromhex(payload), check=True)


def subscribe(where, qos, count, filter, _route, since, name):
    command = ["mosquitto_sub", *where, "-i", name, "-d", "-q", qos, "-C", count, "-t", filter, "-F", "any %q %r %x %t"]
    if since != "-":
        command += ["-D", "subscribe", "user-property", "since", since]
    # Line by line, so that whoever waits for the subscription hears of it.
    command = ["stdbuf", "-oL", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as reader:
        for line in reader.stdout:
            if line.startswith("Subscribed (mid: "):
                print("ready", line.split()[-1], flush=True)
            elif line.startswith("any "):
                by, qos, retain, payload, topic = line.rstrip("\n").split(" ", 4)
                print(by, qos, retain, payload or "-", topic, flush=True)
    sys.exit(reader.returncode)


main(*sys.argv[1:])
