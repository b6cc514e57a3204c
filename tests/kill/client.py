"""What all clients of the kill test have in common: a thread for each life of the bus, and messages that tell who they are."""

import json
import threading
import time

import mqtt

PATIENCE_SECS = 120
ENDING = threading.Event()  # The bus is about to be killed, or is dead: connections may end.


class Failed(SystemExit):
    pass


class Client:
    """Runs in a thread of its own for each life of the bus."""

    name = ""
    error = None
    thread = None

    def run_in_thread(self, work):
        def run():
            try:
                work()
            except mqtt.Closed as error:
                if not ENDING.is_set():
                    self.error = self.error or error
            except (Exception, Failed) as error:  # Told by whoever waits for something.
                self.error = self.error or error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def join(self):
        if self.thread is None:
            return
        self.thread.join(PATIENCE_SECS)
        check(not self.thread.is_alive(), f"{self.name} noticed the end of the bus")
        self.check_error()

    def check_error(self):
        check(self.error is None, f"{self.name}: {type(self.error).__name__} {self.error}")


def payload(topic, name, number):
    """The message, the same whenever it is sent; a few are large."""
    size = 60_000 if number % 499 == 0 else 5_000 if number % 47 == 0 else number % 200
    return json.dumps({"p": name, "n": number, "t": topic, "pad": "x" * size}).encode()


def message_key(topic, body):
    """(publisher, number) of a message that must be exactly what was sent; of one without payload: (topic, 0)."""
    if not body:
        return topic, 0
    message = json.loads(body)
    key = message["p"], message["n"]
    check(body == payload(topic, *key), f"message {key} on {topic} arrived as it was sent")
    return key


def check(condition, what):
    if not condition:
        raise Failed(f"FAILED: {what}")


def say(words):
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)
