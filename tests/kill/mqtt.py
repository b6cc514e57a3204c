"""As much of MQTT 3.1.1 and 5 as the kill test needs, on a plain socket, so that what is sent and seen is known exactly."""

import socket
import struct
import threading
from collections import namedtuple

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = range(1, 10)
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14
SESSION_EXPIRY, WILL_DELAY, RECEIVE_MAXIMUM, USER_PROPERTY = 17, 24, 33, 38

# How many bytes the value of a property has; 0: text or bytes with their length before them; -1: a variable integer.
PROPERTY_BYTES = {1: 1, 2: 4, 3: 0, 8: 0, 9: 0, 11: -1, 17: 4, 18: 0, 19: 2, 21: 0, 22: 0, 23: 1, 24: 4, 25: 1, 26: 0,
                  28: 0, 31: 0, 33: 2, 34: 2, 35: 2, 36: 1, 37: 1, 39: 4, 40: 1, 41: 1, 42: 1}
READ_BYTES = 65_536
SILENCE_SECS = 60

Will = namedtuple("Will", "topic payload qos retain delay_secs", defaults=(0, False, 0))
Message = namedtuple("Message", "topic payload qos dup retain packet_id properties")


class Closed(Exception):
    """The connection is gone: what happens to a client of a bus that was killed."""


class Refused(Exception):
    """The bus said no."""


class Connection:
    """A connection that has been accepted; version 4 is 3.1.1, 5 is 5. `expiry_secs` above 0: a session that outlives it
    (3.1.1: clean session 0), resumed if `clean` is false."""

    def __init__(self, port, client_id, version, user=None, *, clean=True, expiry_secs=0, receive_maximum=0, will=None):
        self.version, self.client_id = version, client_id
        self.input, self.early, self.sending = bytearray(), [], threading.Lock()
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), 10)
        except OSError as error:
            raise Closed(str(error)) from None
        self.socket.settimeout(SILENCE_SECS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(CONNECT, 0, connect(client_id, version, user, clean, expiry_secs, receive_maximum, will))
        kind, _, body = self.read()
        if kind != CONNACK or body[1] != 0:
            raise Refused(f"CONNACK of {client_id}: {kind} {body.hex()}")
        self.session_present = body[0] == 1
        told = dict(read_properties(body, 2)[0]) if version == 5 else {}
        self.receive_maximum = told.get(RECEIVE_MAXIMUM, 65_535)

    def wait_for_ever(self):
        """From now on nothing is late: whoever counts what came tells when something is missing."""
        self.socket.settimeout(None)

    def send(self, kind, flags, body):
        self.send_bytes(packet(kind, flags, body))

    def send_bytes(self, data):
        try:
            with self.sending:
                self.socket.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from None

    def read(self):
        """The next packet: kind, flags, body. Waits for it."""
        while True:
            found = self.buffered()
            if found:
                return found
            try:
                data = self.socket.recv(READ_BYTES)
            except TimeoutError:
                raise Refused(f"{self.client_id}: nothing came for {SILENCE_SECS} s") from None
            except OSError as error:
                raise Closed(str(error)) from None
            if not data:
                raise Closed("end of stream")
            self.input += data

    def buffered(self):
        """The next packet, if all of it has been read already."""
        if self.early:
            return self.early.pop(0)
        length, at = 0, 1
        while True:
            if at >= len(self.input):
                return None
            byte = self.input[at]
            length |= (byte & 127) << 7 * (at - 1)
            at += 1
            if byte < 128:
                break
        if len(self.input) < at + length:
            return None
        first, body = self.input[0], bytes(self.input[at : at + length])
        del self.input[: at + length]
        return first >> 4, first & 15, body

    def publish(self, topic, packet_id, payload, *, qos=1, again=False, retain=False):
        """PUBLISH at QoS 1 or 2; `again`: with the DUP flag."""
        head = text(topic) + struct.pack(">H", packet_id) + (b"\0" if self.version == 5 else b"")
        self.send(PUBLISH, qos << 1 | (8 if again else 0) | (1 if retain else 0), head + payload)

    def subscribe(self, topic_filter, qos=1, **user_properties):
        """SUBSCRIBE; gives the user properties of the SUBACK."""
        body = struct.pack(">H", 1)
        if self.version == 5:
            body += with_length(pairs(user_properties))
        self.send(SUBSCRIBE, 2, body + text(topic_filter) + bytes([qos]))
        kind, flags, body = self.read()
        # Messages may come before the SUBACK; they are read after it.
        early = []
        while kind != SUBACK:
            early.append((kind, flags, body))
            kind, flags, body = self.read()
        self.early = early
        reasons, carried = body[2:], {}
        if self.version == 5:
            told, at = read_properties(body, 2)
            reasons, carried = body[at:], user_properties_of(told)
        if reasons != bytes([qos]):
            raise Refused(f"SUBACK for {topic_filter} {user_properties}: {body.hex()}")
        return carried

    def message(self):
        """The next PUBLISH, acknowledged if it has QoS 1: topic, payload, user properties."""
        while True:
            kind, flags, body = self.read()
            if kind == DISCONNECT:
                raise Closed(f"DISCONNECT {body.hex()}")
            if kind == PUBLISH:
                break
        message = self.decode_publish(flags, body)
        if message.qos == 1:
            try:
                self.send_bytes(ack(PUBACK, message.packet_id))
            except Closed:
                pass  # What was delivered was seen; the next read tells of the end.
        return message.topic, message.payload, message.properties

    def decode_publish(self, flags, body):
        topic, at = read_text(body, 0)
        qos, packet_id, properties = flags >> 1 & 3, 0, {}
        if qos:
            packet_id = struct.unpack_from(">H", body, at)[0]
            at += 2
        if self.version == 5:
            told, at = read_properties(body, at)
            properties = user_properties_of(told)
        return Message(topic, body[at:], qos, bool(flags & 8), bool(flags & 1), packet_id, properties)

    def leave(self, reason=0):
        """DISCONNECT, and waits until the bus has closed."""
        self.send(DISCONNECT, 0, bytes([reason, 0]) if self.version == 5 else b"")
        try:
            while True:
                self.read()
        except Closed:
            pass
        self.close()

    def close(self):
        """Just closes."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def connect(client_id, version, user, clean, expiry_secs, receive_maximum, will):
    persistent = expiry_secs > 0
    clean_flag = clean if version == 5 else not persistent
    flags = (2 if clean_flag else 0) | (0xC0 if user else 0)
    if will:
        flags |= 4 | will.qos << 3 | (0x20 if will.retain else 0)
    body = text("MQTT") + bytes([version, flags]) + struct.pack(">H", 60)
    if version == 5:
        told = struct.pack(">BI", SESSION_EXPIRY, expiry_secs) if persistent else b""
        told += struct.pack(">BH", RECEIVE_MAXIMUM, receive_maximum) if receive_maximum else b""
        body += with_length(told)
    body += text(client_id)
    if will:
        if version == 5:
            body += with_length(struct.pack(">BI", WILL_DELAY, will.delay_secs) if will.delay_secs else b"")
        body += text(will.topic) + struct.pack(">H", len(will.payload)) + will.payload
    return body + (text(user) + text("sesame") if user else b"")


def packet(kind, flags, body):
    return bytes([kind << 4 | flags]) + variable(len(body)) + body


def ack(kind, packet_id):
    return packet(kind, 2 if kind == PUBREL else 0, struct.pack(">H", packet_id))


def pairs(user_properties):
    return b"".join(
        bytes([USER_PROPERTY]) + text(name.replace("_", "-")) + text(value) for name, value in user_properties.items()
    )


def with_length(body):
    return variable(len(body)) + body


def read_properties(body, at):
    """(kind, value) of each property of the block that begins at `at`, and where it ends."""
    length, at = read_variable(body, at)
    end, found = at + length, []
    while at < end:
        kind, start = body[at], at + 1
        if kind == USER_PROPERTY:
            name, at = read_text(body, start)
            value, at = read_text(body, at)
            found.append((kind, (name, value)))
        elif PROPERTY_BYTES[kind] == -1:
            value, at = read_variable(body, start)
            found.append((kind, value))
        elif PROPERTY_BYTES[kind] == 0:
            at = start + 2 + struct.unpack_from(">H", body, start)[0]
            found.append((kind, body[start + 2 : at]))
        else:
            at = start + PROPERTY_BYTES[kind]
            found.append((kind, int.from_bytes(body[start:at], "big")))
    return found, end


def user_properties_of(told):
    return dict(value for kind, value in told if kind == USER_PROPERTY)


def text(words):
    words = words.encode()
    return struct.pack(">H", len(words)) + words


def read_text(body, at):
    end = at + 2 + struct.unpack_from(">H", body, at)[0]
    return body[at + 2 : end].decode(), end


def variable(number):
    out = b""
    while True:
        number, byte = number >> 7, number & 127
        out += bytes([byte | (128 if number else 0)])
        if not number:
            return out


def read_variable(body, at):
    number = shift = 0
    while True:
        byte = body[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at
