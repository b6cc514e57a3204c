"""As much of MQTT 3.1.1 and 5 as the kill test needs, on a plain socket, so that what is sent and seen is known exactly."""

import socket
import struct

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 14
USER_PROPERTY = 38

# How many bytes the value of a property has; 0: text or bytes with their length before them; -1: a variable integer.
PROPERTY_BYTES = {1: 1, 2: 4, 3: 0, 8: 0, 9: 0, 11: -1, 17: 4, 18: 0, 19: 2, 21: 0, 22: 0, 23: 1, 24: 4, 25: 1, 26: 0,
                  28: 0, 31: 0, 33: 2, 34: 2, 35: 2, 36: 1, 37: 1, 39: 4, 40: 1, 41: 1, 42: 1}


class Closed(Exception):
    """The connection is gone: what happens to a client of a bus that was killed."""


class Refused(Exception):
    """The bus said no."""


class Connection:
    """A connection that has been accepted; version 4 is 3.1.1, 5 is 5."""

    def __init__(self, port, client_id, version, user=None, password=None):
        self.version = version
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), 10)
        except OSError as error:
            raise Closed(str(error)) from None
        self.socket.settimeout(60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")
        self.send(CONNECT, 0, connect(client_id, version, user, password))
        kind, _, body = self.read()
        if kind != CONNACK or body[1] != 0:
            raise Refused(f"CONNACK of {client_id}: {kind} {body.hex()}")

    def send(self, kind, flags, body):
        try:
            self.socket.sendall(bytes([kind << 4 | flags]) + variable(len(body)) + body)
        except OSError as error:
            raise Closed(str(error)) from None

    def read(self):
        """The next packet: kind, flags, body."""
        try:
            first = self.input.read(1)
            length = shift = 0
            while first:
                byte = self.input.read(1)
                length |= (byte[0] & 127) << shift
                shift += 7
                if byte[0] < 128:
                    break
            body = self.input.read(length) if first else b""
        except (OSError, IndexError) as error:
            raise Closed(str(error)) from None
        if not first or len(body) < length:
            raise Closed("end of stream")
        return first[0] >> 4, first[0] & 15, body

    def publish(self, topic, packet_id, payload, again):
        """PUBLISH at QoS 1; `again`: with the DUP flag."""
        head = text(topic) + struct.pack(">H", packet_id) + (b"\0" if self.version == 5 else b"")
        self.send(PUBLISH, 10 if again else 2, head + payload)

    def subscribe(self, topic_filter, **user_properties):
        """SUBSCRIBE at QoS 1; gives the user properties of the SUBACK."""
        body = struct.pack(">H", 1)
        if self.version == 5:
            body += properties(user_properties)
        self.send(SUBSCRIBE, 2, body + text(topic_filter) + b"\1")
        kind, _, body = self.read()
        reasons, carried = body[2:], {}
        if self.version == 5:
            carried, at = user_properties_of(body, 2)
            reasons = body[at:]
        if kind != SUBACK or reasons != b"\1":
            raise Refused(f"SUBACK for {topic_filter} {user_properties}: {kind} {body.hex()}")
        return carried

    def message(self):
        """The next PUBLISH, acknowledged: topic, payload, user properties."""
        while True:
            kind, flags, body = self.read()
            if kind == DISCONNECT:
                raise Closed(f"DISCONNECT {body.hex()}")
            if kind == PUBLISH:
                break
        at = 2 + struct.unpack_from(">H", body)[0]
        topic, carried = body[2:at].decode(), {}
        packet_id = body[at : at + 2] if flags & 6 else b""
        at += len(packet_id)
        if self.version == 5:
            carried, at = user_properties_of(body, at)
        if packet_id:
            try:
                self.send(PUBACK, 0, packet_id)
            except Closed:
                pass  # What was delivered was seen; the next read tells of the end.
        return topic, body[at:], carried

    def close(self):
        """Just closes."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def connect(client_id, version, user, password):
    flags = 2 | (0xC0 if user else 0)
    body = text("MQTT") + bytes([version, flags]) + struct.pack(">H", 60)
    body += (b"\0" if version == 5 else b"") + text(client_id)
    return body + (text(user) + text(password) if user else b"")


def properties(user_properties):
    body = b"".join(
        bytes([USER_PROPERTY]) + text(name.replace("_", "-")) + text(value) for name, value in user_properties.items()
    )
    return variable(len(body)) + body


def user_properties_of(body, at):
    """The user properties of the property block that begins at `at`, and where it ends."""
    length, at = read_variable(body, at)
    end, found = at + length, {}
    while at < end:
        kind = body[at]
        at += 1
        if kind == USER_PROPERTY:
            name, at = read_text(body, at)
            found[name], at = read_text(body, at)
        elif PROPERTY_BYTES[kind] == -1:
            _, at = read_variable(body, at)
        else:
            at += PROPERTY_BYTES[kind] or 2 + struct.unpack_from(">H", body, at)[0]
    return found, end


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
