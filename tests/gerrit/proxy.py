"""A TCP proxy that can make its connections half open: both ends stay connected, and nothing passes any more."""

import socket
import threading


class Proxy:
    def __init__(self, port):
        self.target = port
        self.frozen = threading.Event()
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def freeze(self):
        """From now on the present connections are dead without knowing it; new ones work."""
        self.frozen.set()
        self.frozen = threading.Event()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.pairs.append((client, server))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self.pass_on, args=(one, other, self.frozen), daemon=True).start()

    @staticmethod
    def pass_on(one, other, frozen):
        try:
            while data := one.recv(65536):
                if frozen.is_set():
                    return
                other.sendall(data)
            if not frozen.is_set():
                other.shutdown(socket.SHUT_WR)
        except OSError:
            pass
