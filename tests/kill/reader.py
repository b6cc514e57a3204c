"""Readers that go on where they were: by cursor, or by a session of theirs in the bus."""

import time
from collections import deque

import mqtt
from client import Client, check, message_key
from publisher import SESSION_SECS
from sequence import Sequence


class CursorReader(Client):
    """Clean sessions; goes on from the last cursor it saw, by `$replay/<cursor>/…` or by `since`."""

    def __init__(self, name, topic_filter, replay):
        self.name, self.topic_filter, self.replay = name, topic_filter, replay
        self.cursor = None
        self.sequence = Sequence(f"reader {name}")
        self.seen = deque()  # (connection, key), since the last check
        self.connections = 0

    def start(self, port):
        # Connected and subscribed before the publishers come.
        self.connections += 1
        connection = mqtt.Connection(port, "reader-" + self.name[-5:], 5)
        topic_filter, asked = self.topic_filter, {"firehose_cursor": "on"}
        if self.cursor and self.replay:
            topic_filter = f"$replay/{self.cursor}/{self.topic_filter}"
        elif self.cursor:
            asked["since"] = self.cursor
        said = connection.subscribe(topic_filter, **asked)
        if self.cursor is None:
            self.cursor = said["firehose-cursor"]
        self.run_in_thread(lambda: self.work(connection))

    def work(self, connection):
        connection.wait_for_ever()
        try:
            while True:
                topic, body, carried = connection.message()
                check("firehose-gap" not in carried, f"reader {self.name}: a gap: {carried}")
                check(carried["firehose-cursor"] != self.cursor, f"reader {self.name}: twice the same cursor")
                self.cursor = carried["firehose-cursor"]
                self.seen.append((self.connections, message_key(topic, body)))
        finally:
            connection.close()

    def wants(self, topic):
        return matches(self.topic_filter, topic)

    def check(self, seen):
        for connection, key in seen:
            self.sequence.see(connection, key)
        check(self.sequence.seen == self.sequence.had()[1], f"reader {self.name} saw an event twice")


class SessionReader(Client):
    """A persistent session; at random it breaks its connection, leaves properly, stays away for a while or for a whole
    life of the bus. It keeps what MQTT has a client keep: the ids of QoS 2 messages that were not released."""

    def __init__(self, name, version, qos, topic_filters, chance, *, user=None, cursors=False, steady=False, joins_at=1):
        self.name, self.version, self.qos, self.topic_filters = name, version, qos, topic_filters
        self.chance, self.user, self.cursors, self.steady, self.joins_at = chance, user, cursors, steady, joins_at
        self.sequence = Sequence(f"session {name}")
        self.known = False
        self.unreleased = {}  # packet id -> key
        self.seen = deque()  # (connection, key, qos), since the last check
        self.once = set()  # QoS 2 messages had
        self.connections = self.again = 0
        self.calm = False
        self.windows = [5, 50, 500]

    def start(self, port):
        if self.known:
            self.run_in_thread(lambda: self.work(port, None))
        else:
            # There before the publishers come.
            connection = self.connect(port)
            asked = {"firehose_cursor": "on"} if self.cursors else {}
            for topic_filter in self.topic_filters:
                connection.subscribe(topic_filter, self.qos, **asked)
            self.known = True
            self.run_in_thread(lambda: self.work(port, connection))

    def connect(self, port):
        self.receive_maximum = self.chance.choice(self.windows) if self.version == 5 else 0
        connection = mqtt.Connection(port, "session-" + self.name, self.version, self.user, clean=False,
                                     expiry_secs=SESSION_SECS, receive_maximum=self.receive_maximum)
        self.connections += 1
        check(connection.session_present or not self.known, f"connection {self.connections}: the session is gone")
        check(self.known or not connection.session_present or not self.unreleased, "a session from nowhere")
        return connection

    def work(self, port, connection):
        if connection is None and not self.calm and not self.steady:
            if self.chance.random() < 0.15:
                return  # Away for this life of the bus.
            if self.chance.random() < 0.3:
                time.sleep(self.chance.uniform(0, 0.3))
        while True:
            connection = connection or self.connect(port)
            connection.wait_for_ever()
            try:
                self.read(connection)
                if self.chance.random() < 0.3:
                    connection.leave()
            finally:
                connection.close()
            connection = None
            time.sleep(self.chance.choice([0, 0, self.chance.uniform(0, 0.2)]))

    def read(self, connection):
        """Reads until the connection ends, or until it is time to go away, with or without the last acknowledgements."""
        stays = float("inf") if self.calm or self.steady else self.chance.choice([3, 50, 400, 2000])
        self.unacknowledged, self.room = {}, self.receive_maximum or 65_535
        while stays > 0:
            packet, acks = connection.read(), []
            while packet and stays > 0:
                stays -= 1
                acks.append(self.hear(connection, *packet))
                packet = connection.buffered()
            if stays <= 0 and self.chance.random() < 0.5:
                return
            connection.send_bytes(b"".join(acks))
            # What the bus may use again, and send more for, once it has these.
            for acknowledgement in acks:
                if acknowledgement[:1] in (b"\x40", b"\x70"):
                    self.unacknowledged.pop(int.from_bytes(acknowledgement[2:4], "big"), None)
                    self.room += 1

    def hear(self, connection, kind, flags, body):
        """Takes one packet; gives its acknowledgement."""
        if kind == mqtt.PUBREL:
            packet_id = int.from_bytes(body[:2], "big")
            self.unreleased.pop(packet_id, None)
            return mqtt.ack(mqtt.PUBCOMP, packet_id)
        if kind == mqtt.DISCONNECT:
            raise mqtt.Closed(f"DISCONNECT {body.hex()}")
        check(kind == mqtt.PUBLISH, f"a packet of kind {kind}")
        message = connection.decode_publish(flags, body)
        key = message_key(message.topic, message.payload)
        check("firehose-gap" not in message.properties, f"a gap before {key}: {message.properties}")
        check(not self.cursors or "firehose-cursor" in message.properties, f"{key} came without a cursor")
        if message.qos == 0:
            self.take(key, message)
            return b""
        self.room -= 1
        check(self.room >= 0, f"more than Receive Maximum {self.receive_maximum} in flight")
        before = self.unacknowledged.get(message.packet_id)
        check(before is None, f"packet id {message.packet_id} is that of {before} still, and of {key}")
        self.unacknowledged[message.packet_id] = key
        if message.qos == 1:
            self.take(key, message)
            return mqtt.ack(mqtt.PUBACK, message.packet_id)
        before = self.unreleased.get(message.packet_id)
        if before is None:
            self.unreleased[message.packet_id] = key
            self.take(key, message)
        else:
            check(before == key, f"packet id {message.packet_id} is that of {before}, not released yet, and of {key}")
            check(message.dup, f"{key} came again without DUP")
        return mqtt.ack(mqtt.PUBREC, message.packet_id)

    def take(self, key, message):
        check(not message.retain, f"{key} came with the retain flag")
        self.seen.append((self.connections, key, message.qos))

    def wants(self, topic):
        return any(matches(topic_filter, topic) for topic_filter in self.topic_filters)

    def check(self, seen):
        for connection, key, qos in seen:
            self.sequence.see(connection, key)
            if qos == 2 and key[1]:
                check(key not in self.once, f"session {self.name} has had {key} twice, at QoS 2")
                self.once.add(key)
        self.again = self.sequence.seen - self.sequence.had()[1]


def matches(topic_filter, topic):
    if topic_filter.startswith("$replay/"):
        topic_filter = topic_filter.split("/", 2)[2]
    levels, names = topic_filter.split("/"), topic.split("/")
    if levels[-1] == "#":
        levels, names = levels[:-1], names[: len(levels) - 1]
    return len(levels) == len(names) and all(level in ("+", name) for level, name in zip(levels, names))
