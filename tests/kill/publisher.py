"""Publishers that know exactly what they sent, what was acknowledged, and what they must send again."""

import threading
import time

import mqtt
from client import Client, check, payload

WINDOW = {1: 64, 2: 20}
SESSION_SECS = 3600
# What a QoS 2 message waits for: nothing stored yet for sure (PUBLISH is sent again), or PUBCOMP (PUBREL is).
UNSTORED, UNRELEASED = "unstored", "unreleased"


class Publisher(Client):
    """Publishes for as long as the bus lives. `persistent`: with a session that it resumes, sending again, in order, with
    DUP and the same packet ids, what is not acknowledged. Otherwise it never sends anything again."""

    def __init__(self, name, version, qos, persistent, chance):
        self.name, self.version, self.qos, self.persistent, self.chance = name, version, qos, persistent, chance
        self.window = WINDOW[qos]
        self.number = self.packet_id = 0
        self.known = False  # The bus has said that it has a session of this name.
        self.inflight = {}  # packet id -> [number, state], in the order of sending
        self.sent = []  # by the present connection, in order
        self.acknowledged = set()  # not found in the history yet
        self.acknowledged_now = self.acknowledged_ever = self.resent_ever = 0
        self.resent = {}  # number -> how often it was sent again
        self.counts, self.highest = {}, 0  # what is in the history
        self.finishing = False

    def message(self, number):
        """Topic, payload and retain flag of its message of that number."""
        topic = f"{self.name}/stream"
        return topic, payload(topic, self.name, number), False

    def start(self, port):
        self.acknowledged_now, self.sent = 0, []
        if not self.persistent:
            self.inflight = {}
        self.run_in_thread(lambda: self.work(port))

    def finish(self):
        """No more new messages; ends when all are acknowledged."""
        self.finishing = True

    def work(self, port):
        expiry_secs = SESSION_SECS if self.persistent else 0
        connection = mqtt.Connection(port, self.name, self.version, self.name, clean=not self.persistent,
                                     expiry_secs=expiry_secs)
        expected = [self.known] if self.known or not self.persistent else [False, True]
        check(connection.session_present in expected, f"session present is {connection.session_present}")
        self.known = self.persistent
        window = min(self.window, connection.receive_maximum)
        check(window >= len(self.inflight), f"Receive Maximum {window} is below {len(self.inflight)} in flight")
        self.room, closed = threading.Semaphore(window - len(self.inflight)), threading.Event()
        self.released_again = {packet_id for packet_id, (_, state) in self.inflight.items() if state == UNRELEASED}
        resending = [(packet_id, *rest) for packet_id, rest in self.inflight.items()]
        acks = threading.Thread(target=self.hear, args=(connection, closed), daemon=True)
        acks.start()
        try:
            for packet_id, number, state in resending:
                self.send_again(connection, packet_id, number, state)
            self.send_new(connection, closed)
            while self.inflight:
                self.check_open(closed)
                time.sleep(0.005)
        finally:
            connection.close()
            acks.join()

    def send_again(self, connection, packet_id, number, state):
        if state == UNRELEASED:
            connection.send_bytes(mqtt.ack(mqtt.PUBREL, packet_id))
            return
        self.resent[number] = self.resent.get(number, 0) + 1
        self.resent_ever += 1
        self.publish(connection, packet_id, number, again=True)

    def send_new(self, connection, closed):
        while not self.finishing:
            if not self.room.acquire(timeout=0.05):
                self.check_open(closed)
                continue
            self.number += 1
            self.packet_id = next_free(self.packet_id, self.inflight)
            self.inflight[self.packet_id] = [self.number, UNSTORED]
            self.publish(connection, self.packet_id, self.number, again=False)
            if self.chance.random() < 0.1:
                time.sleep(self.chance.uniform(0, 0.02))

    def publish(self, connection, packet_id, number, again):
        self.sent.append(number)
        topic, body, retain = self.message(number)
        connection.publish(topic, packet_id, body, qos=self.qos, again=again, retain=retain)

    def hear(self, connection, closed):
        try:
            while True:
                kind, _, body = connection.read()
                if kind in (mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBCOMP):
                    self.acknowledge(connection, kind, body)
                check(kind != mqtt.DISCONNECT, f"DISCONNECT {body.hex()}")
        except mqtt.Closed as error:
            self.ended = str(error)
        except (Exception, SystemExit) as error:
            self.error = error
        finally:
            closed.set()

    def acknowledge(self, connection, kind, body):
        packet_id = body[0] << 8 | body[1]
        # 0x92, Packet Identifier not found, is no error where a PUBREL is sent again [MQTT 5, 3.7.2.1].
        known = kind == mqtt.PUBCOMP and packet_id in self.released_again and body[2:3] == b"\x92"
        if self.version == 5 and len(body) > 2 and body[2] >= 0x80 and not known:
            raise mqtt.Refused(f"acknowledgement {kind} {body.hex()}")
        entry = self.inflight.get(packet_id)
        check(entry is not None, f"acknowledgement {kind} of packet id {packet_id}, which is not in flight")
        if kind == mqtt.PUBCOMP:
            check(entry[1] == UNRELEASED, f"PUBCOMP of {entry}")
            self.complete(packet_id)
            return
        check(kind == (mqtt.PUBACK if self.qos == 1 else mqtt.PUBREC), f"acknowledgement {kind} at QoS {self.qos}")
        if entry[1] == UNSTORED:
            self.acknowledged.add(entry[0])
            self.acknowledged_now += 1
            self.acknowledged_ever += 1
        if kind == mqtt.PUBACK:
            self.complete(packet_id)
        else:
            entry[1] = UNRELEASED
            connection.send_bytes(mqtt.ack(mqtt.PUBREL, packet_id))

    def complete(self, packet_id):
        self.released_again.discard(packet_id)
        del self.inflight[packet_id]
        self.room.release()

    def check_open(self, closed):
        if closed.is_set():
            raise mqtt.Closed(f"the acknowledgements ended: {self.ended}")

    def stored(self, numbers):
        """Its part of what came to the history, in order; gives how many were there already."""
        twice = 0
        for number in numbers:
            count = self.counts.get(number, 0) + 1
            self.counts[number] = count
            if count == 1:
                check(number > self.highest, f"{self.name}: {number} came after {self.highest}")
                self.highest = number
                continue
            twice += 1
            most = 1 if self.qos == 2 else 1 + self.resent.get(number, 0)
            check(count <= most, f"{self.name}: {number} is there {count} times; QoS {self.qos}, sent again "
                                 f"{self.resent.get(number, 0)} times")
        return twice

    def check(self):
        """Against the history, once it has been read up to its head and the present connection is over."""
        missing = sorted(number for number in self.acknowledged if number not in self.counts)
        check(not missing, f"{self.name}: {len(missing)} acknowledged messages are not in the history: {missing[:10]}")
        self.acknowledged.clear()
        kept = [number in self.counts for number in self.sent]
        check(kept == sorted(kept, reverse=True), f"{self.name}: a hole in what one connection sent")


def next_free(packet_id, taken):
    while True:
        packet_id = packet_id % 65_535 + 1
        if packet_id not in taken:
            return packet_id
