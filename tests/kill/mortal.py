"""Clients with wills: what becomes of each will is known exactly.

That the bus died does not mean that its clients did: their wills wait for `will_grace_secs` after the next start, and are
dropped for those who come back before. That is one of two times here: none, or longer than any life of the bus.
"""

import time

import mqtt
from client import ENDING, Client, check, payload

TOPIC = "mortal/will"
LONG_SECS = 3600
# How often a will is published in the end.
NEVER, ONCE, PERHAPS = "never", "once", "perhaps"


class Mortal(Client):
    """`kind` says how its connections end:

    stays      when the bus is killed
    drops      without a word, while the bus lives
    leaves     properly; it comes back at once, and when it has been let in, that was carried out
    confesses  by DISCONNECT with 0x04 (MQTT 5), which asks for the will
    yields     to another connection with its client id; the last one when the bus is killed
    delays     as `stays`, with a will delay of a second, in a session that it does not come back to
    returns    as `stays`, with a will delay of an hour, and comes back to its session in time
    """

    def __init__(self, kind, version, qos, chance):
        self.name, self.kind, self.version, self.qos, self.chance = f"mortal-{kind}", kind, version, qos, chance
        self.number = 0
        self.fates = {}  # number -> NEVER, ONCE or PERHAPS
        self.published = {}  # number -> how often it is in the history
        self.cut = []  # wills, not published, that the end of the bus left to a client that comes back
        self.leaving = None  # the will that a DISCONNECT is to have dropped

    def start(self, port, grace):
        """`grace`: clients that come back do so before their wills are published."""
        self.leaving = None
        if self.kind in ("leaves", "yields"):
            self.cut = [number for number in self.fates if number not in self.published and self.fates[number] != NEVER]
        self.grace = grace
        self.run_in_thread(lambda: self.work(port))

    def work(self, port):
        try:
            getattr(self, self.kind)(port)
        except mqtt.Closed:
            check(ENDING.is_set(), "the bus closed the connection")

    def stays(self, port):
        until_closed(self.connect(port, f"{self.name}-{self.number}"))

    def drops(self, port):
        while True:
            connection = self.connect(port, f"{self.name}-{self.number}")
            self.pause()
            connection.close()

    def leaves(self, port):
        while True:
            connection = self.connect(port, self.name)
            # The bus has answered this CONNECT, so it has carried out the DISCONNECT before.
            if self.leaving:
                self.fates[self.leaving] = NEVER
            self.pause()
            self.leaving = self.number
            self.fates[self.number] = PERHAPS
            connection.leave()

    def confesses(self, port):
        while True:
            connection = self.connect(port, f"{self.name}-{self.number}")
            self.pause()
            connection.leave(4)

    def yields(self, port):
        first = self.connect(port, self.name)
        while True:
            self.pause()
            second = self.connect(port, self.name)
            until_closed(first)
            first = second

    def delays(self, port):
        until_closed(self.connect(port, f"{self.name}-{self.number}", clean=True, expiry_secs=LONG_SECS, delay_secs=1))

    def returns(self, port):
        until_closed(self.connect(port, self.name, clean=False, expiry_secs=LONG_SECS, delay_secs=LONG_SECS, fate=NEVER))

    def connect(self, port, client_id, delay_secs=0, fate=ONCE, **session):
        self.number += 1
        number = self.number
        will = mqtt.Will(TOPIC, payload(TOPIC, self.name, number), self.qos, False, delay_secs)
        # An hour has not passed: not even if nobody knows whether the bus took it.
        self.fates[number] = fate if fate == NEVER else PERHAPS
        connection = mqtt.Connection(port, client_id, self.version, "mortal", will=will, **session)
        self.fates[number] = fate
        # It is back, and what the end of the bus had cut is forgiven.
        for cut in self.cut:
            self.fates[cut] = NEVER if self.grace else PERHAPS
        self.cut = []
        return connection

    def pause(self):
        time.sleep(self.chance.uniform(0, 0.15))

    def stored(self, numbers):
        for number in numbers:
            self.published[number] = self.published.get(number, 0) + 1
            check(self.published[number] == 1, f"{self.name}: will {number} was published twice")
            check(number in self.fates, f"{self.name}: will {number} was never given")

    def check(self):
        wrong = [number for number in self.published if self.fates[number] == NEVER]
        check(not wrong, f"{self.name}: wills {wrong} were published though nobody died")

    def due(self):
        """Wills that are still to be published."""
        return [number for number, fate in self.fates.items() if fate == ONCE and number not in self.published]


def until_closed(connection):
    try:
        while True:
            connection.read()
    except mqtt.Closed:
        connection.close()


def mortals(chance_of):
    kinds = ["stays", "drops", "leaves", "confesses", "yields", "delays", "returns"]
    five = {"confesses", "delays", "returns"}
    return [Mortal(kind, 5 if kind in five or at % 2 else 4, 1 + at % 2, chance_of()) for at, kind in enumerate(kinds)]
