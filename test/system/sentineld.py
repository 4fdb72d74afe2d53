"""A sentinel that says what a test wants it to say."""

import socket
import threading
import time


def bulk(*texts):
    return b"*%d\r\n" % len(texts) + b"".join(
        b"$%d\r\n%s\r\n" % (len(t), t) for t in (x if isinstance(x, bytes) else str(x).encode()
                                                for x in texts))


class Sentinel:
    """Names `master`, a pair of host and port; keeps when it was asked for it. What comes of a
    subscription is `on_subscribe`, bytes in place of what is right; None: that."""

    def __init__(self, master, name="mymaster"):
        self.master, self.name = master, name
        self.on_subscribe = None
        self.asked = []         # time.monotonic()
        self.connections = 0
        self.listeners = []     # sockets of those who subscribed
        self.lock = threading.Lock()
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.ended = False
        threading.Thread(target=self.accept, daemon=True).start()

    def finish(self):
        self.ended = True
        # Closing a socket wakes nobody who waits for it; a connection does.
        socket.create_connection(self.socket.getsockname()).close()
        self.socket.close()

    def accept(self):
        while not self.ended:
            peer, _ = self.socket.accept()
            self.connections += 1
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        subscribed = False
        try:
            with peer, peer.makefile("rb") as file:
                while not self.ended:
                    head = file.readline()
                    if not head:
                        return
                    words = []
                    for _ in range(int(head[1:])):
                        words.append(file.read(int(file.readline()[1:]) + 2)[:-2])
                    what = words[0].upper()
                    if what == b"PING":
                        peer.sendall(bulk("pong", "") if subscribed else b"+PONG\r\n")
                    elif what == b"SUBSCRIBE":
                        subscribed = True
                        peer.sendall(b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n" % (
                            len(words[1]), words[1]) if self.on_subscribe is None
                            else self.on_subscribe)
                        with self.lock:
                            self.listeners.append(peer)
                    else:
                        self.asked.append(time.monotonic())
                        peer.sendall(bulk(*self.master))
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                if peer in self.listeners:
                    self.listeners.remove(peer)

    def say(self, *words):
        """To all who listen, as PUBLISH would; without words: that the master is another one."""
        host, port = self.master
        words = words or (f"{self.name} 192.0.2.9 6379 {host} {port}",)
        self.send(bulk("message", "+switch-master", *words))

    def send(self, what):
        with self.lock:
            some = list(self.listeners)
        for peer in some:
            try:
                peer.sendall(what)
            except OSError:
                pass
        return len(some)
