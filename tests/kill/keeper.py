"""Publishers of retained messages, and what a new subscriber must get of them."""

import mqtt
from client import check, message_key, payload
from publisher import Publisher

TOPICS = 20
FILTER = "+/retained/#"


class Keeper(Publisher):
    """Its messages go round its topics; every third time a topic is cleared. No two of those in flight are on one topic."""

    def __init__(self, name, version, qos, chance):
        super().__init__(name, version, qos, True, chance)
        self.window = TOPICS

    def message(self, number):
        topic = f"{self.name}/retained/{number % TOPICS}"
        return topic, b"" if clears(number) else payload(topic, self.name, number), True

    def numbers(self, events, kept):
        """The numbers of its events. An empty payload tells none: it is the next clearing of its topic, or, right after
        one, the same again. `kept`: topic -> number of the last one, of all events before; brought up to date."""
        found = []
        for topic, (_, number) in events:
            last = kept.get(topic, int(topic.rsplit("/", 1)[1]) - TOPICS)
            if not number:
                number = last
                while not clears(number):
                    number += TOPICS
            kept[topic] = number
            found.append(number)
        return found


def clears(number):
    return number > 0 and number // TOPICS % 3 == 2


def check_retained(port, version, qos, expected):
    """A new subscriber gets `expected` (topic -> key), each once, at that moment."""
    connection = mqtt.Connection(port, "collector", version)
    connection.subscribe(FILTER, qos)
    got, pinged = {}, False
    while True:
        if len(got) >= len(expected) and not pinged:
            connection.send(mqtt.PINGREQ, 0, b"")
            pinged = True
        kind, flags, body = connection.read()
        if kind == mqtt.PINGRESP:
            break
        if kind == mqtt.PUBREL:
            connection.send_bytes(mqtt.ack(mqtt.PUBCOMP, int.from_bytes(body[:2], "big")))
            continue
        check(kind == mqtt.PUBLISH, f"a packet of kind {kind} among the retained messages")
        message = connection.decode_publish(flags, body)
        key = message_key(message.topic, message.payload)
        check(message.retain, f"{key} on {message.topic} came without the retain flag")
        check(message.topic not in got, f"retained {key} came after {got.get(message.topic)}, for one subscription")
        wanted = expected.get(message.topic)
        check(key == wanted, f"retained on {message.topic}: {key}, not {wanted}")
        got[message.topic] = key
        if message.qos:
            connection.send_bytes(mqtt.ack(mqtt.PUBACK if message.qos == 1 else mqtt.PUBREC, message.packet_id))
    connection.close()
