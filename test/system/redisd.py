"""Redis for a test: servers of its own on private ports in temporary folders, a Sentinel set, a
Cluster, and a wire between agent and server that can be delayed, cut or made to lie. Nothing here
knows port 6379, or a service of the distribution's; each process is ended by its id."""

import collections
import contextlib
import functools
import itertools
import os
import pathlib
import random
import re
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from agent import BOUND, Agent, Process, free_port, until

# Which server the tests start; Valkey is another that is tried.
PROGRAM = shutil.which(os.environ.get("RATELIMIT_TEST_REDIS") or "redis-server")
VALKEY = shutil.which("valkey-server")
OPENSSL = shutil.which("openssl")
TOOL = shutil.which("redis-cli") or shutil.which("valkey-cli")

USER, PASSWORD = "ratelimit", "agent-secret-b6Qz"
ADMIN = "admin-secret-x81T"     # of the user `default`, which may do everything: the tests' own

# What the agent may do, and nothing else (CONTRACT.md section 4; AUTH needs no permission).
COMMANDS = ("evalsha", "script|load", "time", "mget", "set", "setrange", "select", "ping", "role",
            "cluster|slots", "asking")
# What operators change, these besides.
CHANGES_COMMANDS = ("get", "hgetall", "hset", "hdel", "incr", "xadd", "xrange", "del")
# With tiers from Redis, these besides.
TIERS_COMMANDS = ("hmget", "exists", "subscribe", "client|id", "client|tracking")
INVALIDATE = "__redis__:invalidate"
# Of the user `default` where he is off: as him Redis reads its append-only file.
DEFAULT_OFF = "~* -@all +@write +select"


def tiers_acl(channel):
    return f"&{channel} &{INVALIDATE} " + " ".join("+" + c for c in TIERS_COMMANDS)


def allowed(commands):
    return " ".join("+" + c for c in commands)


def acl(keys, tiers="rl:tiers", changes=True):
    """`tiers`: the hash, and the channel of that name; None: without."""
    rule = f"~{keys} -@all {allowed(COMMANDS)}"
    if changes and keys == "*":
        rule += f" {allowed(CHANGES_COMMANDS)}"
    elif changes:
        rule += f" ~rl:{{changes}}* {allowed(CHANGES_COMMANDS)}"
    if tiers == "*":
        return rule + " &* " + " ".join("+" + c for c in TIERS_COMMANDS)
    return f"{rule} ~{tiers} {tiers_acl(tiers)}" if tiers else rule


# --- asking it -------------------------------------------------------------------------------

class ReplyError(Exception):
    """What Redis says with a minus."""


class Client:
    """RESP2, one command after the other."""

    def __init__(self, address, password=ADMIN, user=None, db=0, bound=BOUND):
        if isinstance(address, tuple):
            self.sock = socket.create_connection(address, bound)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(bound)
            self.sock.connect(address)
        self.file = self.sock.makefile("rb")
        try:
            if password:
                self(*(("AUTH", user, password) if user else ("AUTH", password)))
            if db:
                self("SELECT", db)
        except BaseException:
            self.close()
            raise

    def close(self):
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, *args):
        parts = [a if isinstance(a, bytes) else str(a).encode() for a in args]
        self.sock.sendall(b"*%d\r\n" % len(parts) +
                          b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))

    def __call__(self, *args):
        self.send(*args)
        return self.read()

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise ReplyError(rest.decode())
        if kind == b":":
            return int(rest)
        n = int(rest)
        if kind == b"$":
            return None if n < 0 else self.file.read(n + 2)[:-2]
        assert kind == b"*", line
        return None if n < 0 else [self.read() for _ in range(n)]


# --- certificates ----------------------------------------------------------------------------

class Authority:
    """Signs certificates, for a day."""

    def __init__(self, directory, name="ca"):
        self.directory = pathlib.Path(directory)
        self.name = name
        self.path = self.make(name, "-addext", "basicConstraints=critical,CA:TRUE",
                              "-addext", "keyUsage=critical,keyCertSign")[0]

    def make(self, name, *more):
        path, key = (self.directory / f"{name}.{kind}" for kind in ("pem", "key"))
        done = subprocess.run(
            [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-nodes", "-days", "1", "-subj", f"/CN={name}", "-keyout", key, "-out", path, *more],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return path, key

    def sign(self, name, names="IP:127.0.0.1,DNS:localhost", *more):
        """The files of a certificate for `names`, and of its key."""
        return self.make(f"{self.name}-{name}", "-CA", self.path, "-CAkey",
                         self.path.with_suffix(".key"), "-addext", f"subjectAltName={names}",
                         "-addext", "basicConstraints=critical,CA:FALSE", *more)

    def settings(self, port, pair, clients="no"):
        """Of a server with TLS on `port`; its own connections to others have the same
        certificate."""
        return ["bind 127.0.0.1 -::1", f"tls-port {port}", f"tls-cert-file {pair[0]}",
                f"tls-key-file {pair[1]}", f"tls-ca-cert-file {self.path}",
                f"tls-auth-clients {clients}"]


# --- a server --------------------------------------------------------------------------------

def free_port_pair():
    """A port whose cluster bus, 10000 above, is free as well."""
    while True:
        port = free_port()
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port


class Server(Process):
    """One redis-server. It forgets everything when it ends, unless it is asked to persist."""

    def __init__(self, directory, name="redis", *, keys="rl:2:*", tiers="rl:tiers", program=None,
                 port=None, settings=(), persist=False, auth=True, sentinel=False):
        self.port = port or free_port()
        self.address = ("127.0.0.1", self.port)
        self.path = str(pathlib.Path(directory) / f"{name}.sock")
        self.password = ADMIN if auth else None
        assert len(self.path) < 104, f"too long for a UNIX socket: {self.path}"
        data = pathlib.Path(directory) / f"{name}.data"
        data.mkdir(exist_ok=True)
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {data}", "daemonize no"]
        if not sentinel:
            lines += [f"unixsocket {self.path}", "unixsocketperm 700", 'save ""',
                      "appendonly yes\nappendfsync always" if persist else "appendonly no"]
        if auth:
            lines += [f"requirepass {ADMIN}", f"user {USER} on >{PASSWORD} {acl(keys, tiers)}"]
        self.conf = pathlib.Path(directory) / f"{name}.conf"
        self.conf.write_text("\n".join([*lines, *settings]) + "\n")
        super().__init__([program or PROGRAM, self.conf, *(["--sentinel"] if sentinel else [])],
                         directory, name)
        self.stopped = False

    def start(self, ready=True):
        super().start()
        if ready:
            until(self.answers, f"{self.name} to answer")
        return self

    def answers(self):
        assert self.running, f"{self.name} ended with {self.child.returncode}:\n{self.stdout}"
        try:
            with self.client() as c:
                return c("PING") == "PONG"
        except (OSError, ReplyError):
            return False

    def client(self, **kw):
        return Client(self.address, **{"password": self.password, **kw})

    def __call__(self, *args, db=0):
        with self.client(db=db) as c:
            return c(*args)

    def keys(self, db=0):
        with self.client(db=db) as c:
            return sorted(k.decode() for k in c("KEYS", "*"))

    def info(self, section):
        lines = self("INFO", section).decode().splitlines()
        return dict(x.split(":", 1) for x in lines if ":" in x)

    def calls(self):
        """Command -> how often it was called, scripts' own calls included."""
        found = self.info("commandstats")
        return {k[len("cmdstat_"):]: int(re.search(r"calls=(\d+)", v).group(1))
                for k, v in found.items()}

    def denied(self):
        """What the ACL refused."""
        return self("ACL", "LOG")

    def pause(self):
        self.send_signal(signal.SIGSTOP)
        self.stopped = True

    def resume(self):
        self.send_signal(signal.SIGCONT)
        self.stopped = False

    def finish(self):
        if self.running:
            if self.stopped:
                self.resume()
            self.kill()

    def group(self, **more):
        """The groups `store` and `redis` of an agent that uses it."""
        return group(f"127.0.0.1:{self.port}", **more)


def group(servers, *, user=USER, password=PASSWORD, timeout="2s", **more):
    """As text; timeouts are long where a test is not about them."""
    servers = [servers] if isinstance(servers, str) else servers
    items = {"servers": "[ " + ", ".join(f'"{s}"' for s in servers) + " ]",
             "timeout": f'"{timeout}"'}
    if user:
        items["username"] = f'"{user}"'
    if password:
        items["password"] = f'"{password}"'
    items.update({k: v if isinstance(v, int) else f'"{v}"' for k, v in more.items()})
    return ('store: { backend = "redis"; }; redis: { ' +
            " ".join(f"{k} = {v};" for k, v in items.items()) + " };")


@functools.lru_cache(maxsize=None)
def knows(mode):
    """Whether this agent has that redis.mode: one that has not says so as it starts, and ends."""
    with tempfile.TemporaryDirectory() as directory:
        # A rule of its own socket, and nobody at the other end: it starts, or it ends at once.
        a = Agent(directory, rules='{ name = "r"; rate = "1/day"; per = []; }',
                  top=group(f"127.0.0.1:{free_port()}", mode=mode))
        try:
            a.start(ready=False)
            until(lambda: not a.running or a.answers(), "a start, or its refusal")
            if a.running:
                return True
        except AssertionError:
            pass
        finally:
            a.kill()
        assert a.child.returncode in (1, 2) and "redis" in a.stderr, a.stderr
        return False


# --- one suite, two stores -------------------------------------------------------------------

class Suite(Server):
    """The server behind tests that were written for any store: each agent has a prefix of its own."""

    def __init__(self, directory):
        super().__init__(directory, "suite", keys="rl:*", tiers="rl:*")
        self.numbers = itertools.count()

    def prefix(self):
        return f"rl:{next(self.numbers)}:"

    def into(self, text, prefix):
        """The same configuration with this store; one that chooses a store is left alone, and so
        is the number of each line."""
        if isinstance(text, bytes):
            return self.into(text.decode("latin-1"), prefix).encode("latin-1")
        if re.search(r"(?m)^[^#\n]*\bredis\s*[:=]\s*\{", text) or 'backend = "redis"' in text:
            return text
        store, redis = self.group(prefix=prefix).split(" redis:", 1)
        given = re.search(r"(?m)^[^#\n]*?\bstore\s*[:=]\s*\{", text)
        if given:
            text = re.sub(r'backend\s*=\s*"memory"\s*;', "", text)
            given = re.search(r"(?m)^[^#\n]*?\bstore\s*[:=]\s*\{", text)
            text = text[:given.end()] + ' backend = "redis";' + text[given.end():]
            store = ""
        return f"{text.rstrip()}\n{store} redis:{redis}\n"


# --- a wire with faults ----------------------------------------------------------------------

GARBAGE = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64, b"$99999999999999\r\n", b"*-7\r\n",
           b"*1000000000\r\n", b"$5\r\nab", b":1\r\n", b"+OK\r\n", b"$-1\r\n", b"*0\r\n", b"$0\r\n\r\n",
           b"$16\r\n0123456789abcdef\r\n", b"\xff\xfe\r\n", b"*1\r\n" * 20, b"-\r\n", b"-ERR \x00\x1b\r\n",
           b"$24\r\n" + b"\xff" * 24 + b"\r\n", b":" + b"9" * 40 + b"\r\n", b"%1\r\n+a\r\n+b\r\n"]


class Proxy:
    """Between agent and server, on a loopback port; one thread, ended by close().

    mode is  pass    what comes is passed on, replies after `delay` seconds
             hang    nothing is read any more, and waits (connections are still accepted)
             drop    what comes is swallowed
             mute    requests are passed on, replies are swallowed
             cut     every connection ends, and each new one at once
             garbage  replies are replaced by something else
    """

    def __init__(self, target):
        self.target = target
        self.mode = "pass"
        self.delay = 0.0
        self.accepted = 0
        self.garbage = itertools.cycle(GARBAGE)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.listener.setblocking(False)
        self.peers = {}         # socket -> the other one
        self.clients = set()    # those that the agent opened
        self.late = collections.deque()     # (when, to whom, bytes): replies under way
        self.wake, self.waker = socket.socketpair()
        self.lock = threading.Lock()
        self.cut_once = False
        self.ended = False
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def set(self, mode, delay=0.0):
        with self.lock:
            self.mode, self.delay = mode, delay
        self.waker.send(b"x")

    def cut(self):
        """Ends every connection that is there; new ones are welcome."""
        with self.lock:
            self.cut_once = True
        self.waker.send(b"x")

    def close(self):
        self.ended = True
        with contextlib.suppress(OSError):  # it may have seen that, and be gone
            self.waker.send(b"x")
        self.thread.join(BOUND)
        assert not self.thread.is_alive(), "the proxy does not end"

    def finish(self):
        self.close()

    def drop(self, s):
        for one in (s, self.peers.pop(s, None)):
            if one is not None:
                self.peers.pop(one, None)
                self.clients.discard(one)
                one.close()

    def accept(self):
        try:
            s, _ = self.listener.accept()
        except OSError:
            return
        self.accepted += 1
        if self.mode == "cut":
            s.close()
            return
        try:
            if isinstance(self.target, tuple):
                t = socket.create_connection(self.target, 2)
                t.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                t = socket.socket(socket.AF_UNIX)
                t.connect(self.target)
        except OSError:
            s.close()
            return
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one in (s, t):
            one.settimeout(5)
        self.peers[s], self.peers[t] = t, s
        self.clients.add(s)

    def pass_on(self, s):
        try:
            got = s.recv(65536)
        except OSError:
            got = b""
        if not got:
            self.drop(s)
            return
        reply = s not in self.clients
        if self.mode == "drop" or self.mode == "mute" and reply:
            return
        if reply and self.mode == "garbage":
            got = next(self.garbage)
        if reply and (self.delay or self.late):
            self.late.append((time.monotonic() + self.delay, self.peers[s], got))
        else:
            self.give(self.peers[s], got)

    def give(self, to, what):
        try:
            if to in self.peers:
                to.sendall(what)
        except OSError:
            self.drop(to)

    def loop(self):
        while not self.ended:
            with self.lock:
                if self.mode == "cut" or self.cut_once:
                    self.cut_once = False
                    for s in list(self.clients):
                        self.drop(s)
            now = time.monotonic()
            while self.late and self.late[0][0] <= now:
                _, to, what = self.late.popleft()
                self.give(to, what)
            bound = max(0, self.late[0][0] - now) if self.late else 1
            with selectors.DefaultSelector() as selector:
                for s in (self.wake, self.listener):
                    selector.register(s, selectors.EVENT_READ)
                if self.mode != "hang":
                    for s in self.peers:
                        selector.register(s, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select(bound)]
            for s in ready:
                if s is self.wake:
                    self.wake.recv(4096)
                elif s is self.listener:
                    self.accept()
                elif s in self.peers and self.mode not in ("hang", "cut"):
                    self.pass_on(s)
        for s in list(self.peers):
            self.drop(s)
        for s in (self.listener, self.wake, self.waker):
            s.close()


# --- Sentinel --------------------------------------------------------------------------------

class Sentinels:
    """A master, two replicas, three sentinels that take a silent master for dead within half a
    second."""

    MASTER = "mymaster"

    def __init__(self, directory, replicas=2, sentinels=3, names=False, ca=None):
        self.directory = directory
        self.servers = []
        self.sentinels = []
        self.started = []
        self.ca = ca
        self.ports = {}         # of each server, as others are told
        host = "localhost" if names else "127.0.0.1"
        both = [f"masterauth {ADMIN}", "repl-diskless-sync-delay 0", "repl-timeout 5"]
        if names:
            both += ["bind 127.0.0.1 -::1", f"replica-announce-ip {host}"]
        for i in range(1 + replicas):
            of = [f"replicaof {host} {self.ports[self.servers[0]]}"] if i else []
            self.servers.append(self.make(f"r{i}", settings=both + of))
        knows = ["bind 127.0.0.1 -::1", "sentinel resolve-hostnames yes",
                 "sentinel announce-hostnames yes"]
        for i in range(sentinels):
            m, port = self.MASTER, self.ports[self.servers[0]]
            self.sentinels.append(self.make(
                f"s{i}", auth=False, sentinel=True, settings=[
                    *(knows if names else []),
                    f"sentinel monitor {m} {host} {port} {sentinels // 2 + 1}",
                    f"sentinel auth-pass {m} {ADMIN}", f"sentinel down-after-milliseconds {m} 500",
                    f"sentinel failover-timeout {m} 2000", f"sentinel parallel-syncs {m} 2"]))

    def make(self, name, settings, **kw):
        """With a port of its own for the test where what counts is the one with TLS."""
        port = free_port() if self.ca else None
        if self.ca:
            settings = [*self.ca.settings(port, self.ca.sign(name)), "tls-replication yes",
                        *settings]
        made = Server(self.directory, name, settings=settings, **kw)
        self.ports[made] = port or made.port
        return made

    def start(self):
        for s in self.servers + self.sentinels:
            self.started.append(s)
            s.start()
        until(lambda: all(self.knows(s) for s in self.sentinels), "the sentinels to know each other")
        until(lambda: int(self.servers[0].info("replication")["connected_slaves"]) ==
              len(self.servers) - 1, "the replicas")
        return self

    def knows(self, sentinel):
        flat = sentinel("SENTINEL", "MASTER", self.MASTER)
        known = dict(zip(flat[::2], flat[1::2]))
        return (known[b"flags"] == b"master" and
                int(known[b"num-other-sentinels"]) == len(self.sentinels) - 1 and
                int(known[b"num-slaves"]) == len(self.servers) - 1)

    def master(self):
        """As the sentinels have it now."""
        for s in self.sentinels:
            if s.running and not s.stopped:
                _, port = s("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.MASTER)
                return next(x for x in self.servers if self.ports[x] == int(port))
        raise AssertionError("no sentinel is left")

    def failed_over(self, old):
        """The new master, once there is one that says so itself."""
        def new():
            m = self.master()
            return (m is not old and m.running and m.info("replication")["role"] == "master") and m
        return until(new, "another master", 30)

    def addresses(self):
        return [f"127.0.0.1:{self.ports[s]}" for s in self.sentinels]

    def group(self, **more):
        return group(self.addresses(), mode="sentinel", master=self.MASTER, **more)

    def finish(self):
        for s in reversed(self.started):
            s.finish()


# --- Cluster ---------------------------------------------------------------------------------

class Cluster:
    """Masters that share the slots. With an authority, nodes talk to each other by TLS, and agents are
    told of no other port; the plain one is the test's. `names`: what stands in the certificate of
    which node, where that is not its address."""

    def __init__(self, directory, masters=3, ca=None, names=None):
        self.directory = directory
        self.ca, self.names = ca, names or {}
        self.nodes = []
        self.started = []
        self.ports = {}         # of each node, as others are told
        for i in range(masters):
            self.nodes.append(self.node(i))

    def node(self, i):
        settings = ["cluster-enabled yes", "cluster-node-timeout 1000", f"masterauth {ADMIN}"]
        port = free_port_pair()
        if self.ca:
            names = [self.names[i]] if i in self.names else []
            settings += [*self.ca.settings(port, self.ca.sign(f"n{i}", *names)), "tls-cluster yes",
                         "tls-replication yes"]
        made = Server(self.directory, f"n{i}", port=None if self.ca else port, settings=settings)
        self.ports[made] = port
        return made

    def where(self, node):
        return f"127.0.0.1:{self.ports[node]}"

    def launch(self, node):
        self.started.append(node)
        return node.start()

    def start(self):
        for n in self.nodes:
            self.launch(n)
        self.tool("--cluster", "create", *map(self.where, self.nodes),
                  "--cluster-yes")
        until(lambda: all(self.whole(n) for n in self.nodes), "the cluster")
        return self

    @staticmethod
    def whole(node):
        text = node("CLUSTER", "INFO").decode()
        return "cluster_state:ok" in text and "cluster_slots_ok:16384" in text

    def tool(self, *args):
        tls = ["--tls", "--cacert", self.ca.path] if self.ca else []
        done = subprocess.run([TOOL, "--no-auth-warning", "-a", ADMIN, *tls, *map(str, args)],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def add(self):
        """A further master, without slots."""
        node = self.launch(self.node(len(self.nodes)))
        self.tool("--cluster", "add-node", self.where(node), self.where(self.nodes[0]))
        self.nodes.append(node)
        until(lambda: all(self.whole(n) for n in self.nodes), "the new node")
        return node

    def replica(self, master):
        """A node that follows this master, and takes over when it dies."""
        node = self.launch(self.node(len(self.nodes)))
        self.tool("--cluster", "add-node", self.where(node), self.where(master),
                  "--cluster-slave", "--cluster-master-id", self.identity(master))
        until(lambda: node.info("replication").get("master_link_status") == "up", "the replica")
        until(lambda: all(self.identity(node).encode() in n("CLUSTER", "NODES") for n in self.nodes),
              "the others to know it")
        return node

    @staticmethod
    def identity(node):
        return node("CLUSTER", "MYID").decode()

    def slots(self, node):
        """The numbers of its slots."""
        mine = self.identity(node)
        found = []
        for line in node("CLUSTER", "NODES").decode().splitlines():
            words = line.split()
            if words[0] == mine:
                for part in words[8:]:
                    if not part.startswith("["):
                        first, _, last = part.partition("-")
                        found += range(int(first), int(last or first) + 1)
        return found

    def owner(self, slot):
        return next(n for n in self.nodes if slot in self.slots(n))

    def slot(self, key):
        return self.nodes[0]("CLUSTER", "KEYSLOT", key)

    def migrate(self, slot, to, pause=0.0):
        """Moves one slot with its keys, as redis-cli does, with a wait half way: asked meanwhile,
        the old node says ASK, and TRYAGAIN for several keys."""
        source = self.owner(slot)
        to("CLUSTER", "SETSLOT", slot, "IMPORTING", self.identity(source))
        source("CLUSTER", "SETSLOT", slot, "MIGRATING", self.identity(to))
        time.sleep(pause)
        while True:
            keys = source("CLUSTER", "GETKEYSINSLOT", slot, 10)
            if not keys:
                break
            source("MIGRATE", "127.0.0.1", self.ports[to], "", 0, 5000, "AUTH", ADMIN, "KEYS", *keys)
        time.sleep(pause)
        for node in (to, source, *(n for n in self.nodes if n not in (to, source))):
            node("CLUSTER", "SETSLOT", slot, "NODE", self.identity(to))

    def group(self, **more):
        if self.ca:
            more = {"tls": True, "tls_ca": self.ca.path, **more}
        return group([*map(self.where, self.nodes)], mode="cluster", **more)

    def keys(self):
        return sorted(k for n in self.nodes for k in n.keys())

    def finish(self):
        for n in reversed(self.started):
            n.finish()


# --- load ------------------------------------------------------------------------------------

class Asker(threading.Thread):
    """Asks one check after the other on a connection of its own until it is told to stop; keeps
    every answer, when it was asked for, and how long it took."""

    def __init__(self, agent, args, pause=0.002):
        super().__init__(daemon=True)
        self.agent, self.pause = agent, pause
        self.args = args if callable(args) else lambda i: args
        self.got = []           # (when asked, seconds, answer)
        self.wrong = None
        self.over = threading.Event()

    def run(self):
        try:
            with self.agent.connect() as c:
                while not self.over.is_set():
                    began = time.monotonic()
                    answer = c.check(self.args(len(self.got)))
                    self.got.append((began, time.monotonic() - began, answer))
                    time.sleep(self.pause)
        except Exception as e:      # pylint: disable=broad-except
            self.wrong = e

    def stop(self):
        self.over.set()
        self.join(BOUND * 2)
        assert not self.is_alive(), "an answer is missing"
        assert self.wrong is None, f"while asking: {self.wrong!r}"
        return self.got

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        self.over.set()
        self.join(BOUND * 2)
        if kind is None:
            assert not self.is_alive() and self.wrong is None, f"while asking: {self.wrong!r}"

    def since(self, when):
        return [x for x in list(self.got) if x[0] >= when]

    def reasons(self, when=0.0):
        return collections.Counter(a["reason"] for _, _, a in self.since(when))


def hammer(agents, requests, connections=3, window=50, settle=True):
    """All agents at once, each over several connections: the answers to requests(i), i from 0 on,
    for each of `agents` and each connection; bytes of messages in, answers out. They have found their
    Redis by then, unless they are not to `settle`: one that starts on a busy machine serves without
    for a moment."""
    answers, wrong = [], []
    for agent in agents if settle else ():
        settled(agent)

    def one(agent, messages):
        try:
            with agent.connect() as c:
                answers.extend(c.batch(messages, window))
        except Exception as e:      # pylint: disable=broad-except
            wrong.append(e)
    threads = []
    for number, agent in enumerate(agents):
        for i in range(connections):
            threads.append(threading.Thread(
                target=one, args=(agent, requests(number * connections + i)), daemon=True))
    for t in threads:
        t.start()
    for t in threads:
        t.join(3 * BOUND)
    assert not any(t.is_alive() for t in threads), "an answer is missing"
    assert not wrong, wrong
    return answers


def settled(agent, threads=2):
    """Every worker of this agent has found its Redis: a new connection goes to the worker that has
    the fewest."""
    connections = [agent.connect() for _ in range(2 * threads)]
    for c in connections:
        until(lambda c=c: c.check({f: "settled" for f in ("user", "x", "key", "org", "session")},
                                  cost=0)["reason"] != "degraded", "Redis")
        c.close()
    return agent


def admitted(answers):
    return sum(not a["deny"] for a in answers)


def shuffled(items, seed):
    items = list(items)
    random.Random(seed).shuffle(items)
    return items
