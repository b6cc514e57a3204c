"""What one reader saw, held against what is in the history."""

from client import check


class Sequence:
    """The keys of the events that a reader is to get, in order, and how far it got.

    Each connection may begin anywhere that the reader has been (QoS 1 may double what was in flight or not saved when the
    bus died), goes on in the history's order, without anything twice, and skips nothing that the reader has not had.
    A key can be in the history more than once (an event that was sent again, an empty payload): every reading that is
    possible is followed."""

    def __init__(self, name):
        self.name = name
        self.keys = []
        self.places = {}  # key -> where it stands
        self.reached = {0: -1}  # how many events the reader has had -> the place of the last one it saw on this connection
        self.connection = None
        self.seen = 0

    def extend(self, keys):
        for key in keys:
            self.places.setdefault(key, []).append(len(self.keys))
            self.keys.append(key)

    def see(self, connection, key):
        if connection != self.connection:
            self.connection = connection
            self.reached = {had: -1 for had in self.reached}
        self.seen += 1
        places = self.places.get(key, [])
        after = {}
        for had, last in self.reached.items():
            for place in places:
                if last < place <= had:
                    now = max(had, place + 1)
                    after[now] = min(after.get(now, place), place)
        check(after, f"{self.name}, connection {connection}: {key} cannot come here; it is event "
                     f"{places or 'none'} of {len(self.keys)}; (events had: last of this connection) {self.reached}; "
                     f"next were {[self.keys[had:had + 2] for had in self.reached]}")
        self.reached = after

    def had(self):
        """How many events the reader has had for sure, and at most."""
        return min(self.reached), max(self.reached)

    def check_complete(self):
        most = self.had()[1]
        check(most == len(self.keys), f"{self.name} has had {most} of {len(self.keys)} events; next: {self.keys[most:][:3]}")
