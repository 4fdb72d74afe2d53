"""Behind a real HAProxy: what goes wrong around a limiter must never stop the requests."""

import collections
import http.client
import os
import random
import re
import signal
import socket
import threading
import time

import pytest

import spop
import stack
from agent import Process, free_port, has_ipv6, until

pytestmark = pytest.mark.skipif(not os.access(stack.HAPROXY, os.X_OK), reason="no haproxy here")

BIG = '{ name = "r"; per = [ "user|ip" ]; rate = "100000000/day"; }'
FIVE = '{ name = "r"; per = [ "user|ip" ]; rate = "5/day"; }'


class HAProxy(Process):
    """HAProxy with one frontend that asks, refuses, and shows what it was told."""

    def __init__(self, directory, servers, *, processing="5s", check="5s", name="haproxy",
                 frag=False):
        self.port, self.mapped_port = free_port(), free_port()
        self.port6 = free_port("::1") if has_ipv6() else None
        self.control = str(directory / f"{name}.ctl")
        self.cfg = directory / f"{name}.cfg"
        spoe = directory / f"{name}.spoe"
        spoe.write_text(f"""[ratelimit]
spoe-agent rl
    groups request
    option var-prefix rl
    option set-on-error err
    option continue-on-error
    option pipelining
    {"" if frag else "no option send-frag-payload"}
    timeout hello 5s
    timeout idle 30s
    timeout processing {processing}
    use-backend agents
spoe-group request
    messages check
spoe-message check
    args ip=src user=req.hdr(x-user) key=req.hdr(x-key) method=method path=path host=req.hdr(host) fill=req.hdr(x-fill)
""")
        show = " ".join(f"{v}=%[var(txn.rl.{v})]" for v in
                        ("err", "deny", "reason", "limit", "remaining", "rule", "scope", "tier"))
        binds = f"    bind 127.0.0.1:{self.port}\n"
        if self.port6:
            binds += f"    bind [::1]:{self.port6}\n    bind ipv6@::ffff:127.0.0.1:{self.mapped_port}\n"
        lines = "\n".join(f"    server s{i} {s} check inter 100ms fastinter 100ms downinter 100ms "
                          "fall 2 rise 1" for i, s in enumerate(servers))
        self.cfg.write_text(f"""global
    nbthread 2
    stats socket {self.control} mode 600 level admin expose-fd listeners
    hard-stop-after 20s
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend fe
{binds}
    filter spoe engine ratelimit config {spoe}
    http-request send-spoe-group ratelimit request
    http-request deny deny_status 429 hdr Retry-After %[var(txn.rl.retry_after)] hdr X-Show "{show}" if {{ var(txn.rl.deny) -m bool }}
    http-request return status 200 content-type text/plain hdr X-Show "{show}" string "ok"
backend agents
    mode tcp
    option spop-check
    balance roundrobin
    timeout connect 1s
    timeout check {check}
    timeout server 1h
{lines}
""")
        super().__init__([stack.HAPROXY, "-db", "-f", self.cfg], directory, name)
        self.count = len(servers)

    def start(self):
        super().start()
        until(lambda: self.ready() and os.path.exists(self.control) and
              all(self.status(i) == "UP" for i in range(self.count)), "HAProxy and its servers")
        return self

    def ready(self):
        assert self.running, self.stderr
        try:
            spop.dial(("127.0.0.1", self.port), 5).close()
            return True
        except ConnectionError:
            return False

    def command(self, text):
        with spop.dial(self.control, 5) as s:
            s.sendall(text.encode() + b"\n")
            out = b""
            while True:
                got = s.recv(65536)
                if not got:
                    return out.decode()
                out += got

    def status(self, i):
        for line in self.command("show stat").splitlines():
            fields = line.split(",")
            if fields[:2] == ["agents", f"s{i}"]:
                return fields[17].split()[0]
        return None

    def replace(self):
        """A reload: a new process takes the listeners, the old one ends what it has."""
        old = self.child
        self.argv = [stack.HAPROXY, "-db", "-f", str(self.cfg), "-x", self.control, "-sf", str(old.pid)]
        self.child = None
        super().start()
        old.wait(40)
        until(lambda: self.ready() and self.status(0) == "UP", "the new HAProxy")

    def finish(self):
        self.kill()


Reply = collections.namedtuple("Reply", "status headers show")


class Client:
    def __init__(self, port, host="127.0.0.1"):
        self.connection = http.client.HTTPConnection(host, port, timeout=30)

    def get(self, path="/", **headers):
        self.connection.request("GET", path, headers={k.replace("_", "-"): v
                                                      for k, v in headers.items()})
        r = self.connection.getresponse()
        r.read()
        show = dict(re.findall(r"(\w+)=(\S*)", r.getheader("X-Show") or ""))
        return Reply(r.status, r.headers, show)

    def close(self):
        self.connection.close()


class Load:
    """Threads that ask without pause, each request on a connection of its own."""

    def __init__(self, port, threads=4, keep=False, **headers):
        self.port, self.keep, self.headers = port, keep, headers
        self.replies, self.wrong = [], []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(threads)]

    def work(self):
        client = None
        while not self.stopping.is_set():
            try:
                client = client or Client(self.port)
                self.replies.append(client.get(**self.headers))
                if not self.keep:
                    client.close()
                    client = None
            except Exception as e:      # told by the test
                self.wrong.append(e)
                client = None
        if client:
            client.close()

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for t in self.threads:
            t.join()

    def more(self, n=100):
        """Wait until so many further replies have come."""
        want = len(self.replies) + n
        until(lambda: len(self.replies) >= want, f"{n} more replies", 30)
        return self.replies[-n:]

    def decided(self, n=50):
        """Wait until requests are decided again, without an error."""
        until(lambda: all(r.show["err"] == "" and r.show["reason"] for r in self.more(10)),
              "decisions", 30)
        return self.more(n)

    def all_passed(self):
        assert not self.wrong, self.wrong[:3]
        assert {r.status for r in self.replies} == {200}


@pytest.fixture
def proxy(tmp_path):
    started = []

    def start(*agents, **kw):
        servers = [f"{a.address[0]}:{a.address[1]}" if isinstance(a.address, tuple)
                   else f"unix@{a.address}" for a in agents]
        h = HAProxy(tmp_path, servers, **kw)
        started.append(h)
        return h.start()

    yield start
    for h in started:
        h.finish()


@pytest.fixture
def tcp(run):
    """An agent on a TCP port, as HAProxy usually has it."""
    def start(rules, **kw):
        return run(rules=rules, listen=f"127.0.0.1:{free_port()}", **kw)
    return start


def test_keep_alive(tcp, proxy):
    h = proxy(tcp(FIVE))
    c = Client(h.port)
    for left in (4, 3, 2, 1, 0):
        r = c.get(x_user="u")
        assert (r.status, r.show["remaining"], r.show["err"]) == (200, str(left), "")
        assert (r.show["rule"], r.show["scope"], r.show["tier"]) == ("r", "user", "anonymous")
    r = c.get(x_user="u")
    assert r.status == 429 and 1 <= int(r.headers["Retry-After"]) <= 17280
    assert r.show["reason"] == "limited"
    assert c.get(x_user="v").status == 200
    c.close()


def test_a_unix_socket(run, proxy):
    h = proxy(run(rules=FIVE))
    c = Client(h.port)
    assert [c.get(x_user="u").status for _ in range(6)] == [200] * 5 + [429]
    c.close()


def test_addresses(tcp, proxy):
    h = proxy(tcp(FIVE))
    c = Client(h.port)
    assert (c.get().show["scope"], c.get().show["remaining"]) == ("ip", "3")
    if h.port6:
        six = Client(h.port6, "::1")
        assert (six.get().show["scope"], six.get().show["remaining"]) == ("ip", "3")
        # An IPv4 client on an IPv6 listener arrives as ::ffff:127.0.0.1: the same client.
        mapped = Client(h.mapped_port)
        assert mapped.get().show["remaining"] == "2"
        six.close()
        mapped.close()
    c.close()


def test_odd_requests(tcp, proxy):
    h = proxy(tcp(FIVE))
    for method, path in (("DEBUG", "/"), ("PROPFIND", "/x"), ("OPTIONS", "*"), ("GET", "/%00%ff"),
                         ("X" * 50, "/" + "a" * 2000), ("GET", "/?" + "b" * 2000)):
        with spop.dial(("127.0.0.1", h.port), 20) as s:
            s.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-User: {path[:5]}{method}\r\n"
                      "Connection: close\r\n\r\n".encode())
            assert s.recv(65536).startswith(b"HTTP/1.1 200"), (method, path)


def test_fragments_of_a_real_haproxy(tcp, proxy):
    if stack.haproxy_version() >= (3, 1):
        pytest.skip("HAProxy 3.1 and newer send no fragments")
    a = tcp(FIVE, agent="max_frame_size = 512;")
    h = proxy(a, frag=True)
    c = Client(h.port)
    # HAProxy learns the agent's frame size by its first HELLO: what it encodes before is lost.
    until(lambda: c.get(x_user="first").show["err"] == "")
    for left in (4, 3, 2, 1, 0):
        r = c.get(x_user="u", x_fill="x" * 3000)
        assert (r.status, r.show["err"], r.show["remaining"]) == (200, "", str(left))
    assert c.get(x_user="u", x_fill="x" * 3000).status == 429
    c.close()


def test_a_crowd_gets_exactly_what_is_allowed(tcp, proxy):
    h = proxy(tcp(FIVE.replace("5/day", "100/day")))
    statuses = []

    def work():
        c = Client(h.port)
        for _ in range(40):
            r = c.get(x_user="crowd")
            statuses.append((r.status, r.show["err"]))
        c.close()
    threads = [threading.Thread(target=work) for _ in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert collections.Counter(statuses) == {(200, ""): 100, (429, ""): 300}


@pytest.mark.parametrize("keep", [False, True])
def test_agent_restarts_under_load(tcp, proxy, keep):
    a = tcp(BIG)
    h = proxy(a)
    with Load(h.port, keep=keep) as load:
        for _ in range(3):
            load.decided()
            assert a.stop() == 0
            load.more(20)
            a.start()
        load.decided()
    load.all_passed()


def test_agent_reloads_under_load(tcp, proxy):
    a = tcp(BIG)
    h = proxy(a)
    with Load(h.port) as load:
        for limit in (200000000, 300000000, 400000000):
            a.rewrite(BIG.replace("100000000", str(limit)))
            a.send_signal(signal.SIGHUP)
            until(lambda limit=limit: {r.show["limit"] for r in load.more(10)} == {str(limit)},
                  "the new limit")
        load.more(50)
    load.all_passed()
    assert {r.show["err"] for r in load.replies} == {""}


def test_haproxy_reloads_under_load(tcp, proxy):
    h = proxy(tcp(BIG))
    with Load(h.port) as load:
        for _ in range(3):
            load.decided()
            h.replace()
        load.decided()
    load.all_passed()
    assert {r.show["err"] for r in load.replies} == {""}


def test_killed(tcp, proxy):
    """kill -9: the requests go on without a decision, and are decided again afterwards."""
    a = tcp(BIG)
    h = proxy(a, processing="500ms")
    with Load(h.port) as load:
        load.decided()
        a.kill()
        until(lambda: h.status(0) == "DOWN", "the check to see it")
        undecided = load.more(100)
        assert any(r.show["err"] for r in undecided)
        a.start()
        until(lambda: h.status(0) == "UP", "the check to see it back")
        load.decided()
    load.all_passed()


def test_stopped_in_its_tracks(tcp, proxy):
    """SIGSTOP: no answer, no end. HAProxy's `timeout processing` is the bound, then the check."""
    a = tcp(BIG)
    h = proxy(a, processing="200ms", check="200ms")
    with Load(h.port) as load:
        load.decided()
        a.send_signal(signal.SIGSTOP)
        try:
            # What was answered before it stopped may come first.
            until(lambda: any(r.show["err"] for r in load.more(10)), "a check that was not answered")
            until(lambda: h.status(0) == "DOWN", "the check to see it")
            load.more(40)
        finally:
            a.send_signal(signal.SIGCONT)
        until(lambda: h.status(0) == "UP", "the check to see it back")
        load.decided()
    load.all_passed()


def test_a_drain_moves_to_the_other_agent(tcp, proxy):
    a = tcp(BIG, agent='drain = "3s";')
    b = tcp(BIG)
    h = proxy(a, b)
    with Load(h.port, threads=3) as load:
        load.decided()
        a.send_signal(signal.SIGTERM)
        until(lambda: h.status(0) == "DOWN", "the check to see the drain")
        # Down by its health checks, while the process still serves what it has.
        assert a.running
        mark = len(load.replies)
        load.more(50)
        during = load.replies[mark:]
        if a.running:
            assert {r.show["err"] for r in during} == {""}
        assert a.wait() == 0
        load.decided()
    load.all_passed()
    # At the very end a NOTIFY may cross the DISCONNECT; HAProxy does not repeat it.
    assert sum(r.show["err"] != "" for r in load.replies) <= 10


def test_bad_neighbours(tcp, proxy):
    """Whoever else finds the agent's port: HAProxy is served as if alone."""
    a = tcp(BIG)
    h = proxy(a)

    def hostile(seed):
        rng = random.Random(seed)
        held = collections.deque()
        for _ in range(150):
            try:
                s = spop.dial(a.address, 5)
                kind = rng.randrange(6)
                if kind == 0:
                    s.sendall(rng.randbytes(rng.randint(1, 4000)))
                elif kind == 1:
                    s.sendall(b"GET / HTTP/1.1\r\n\r\n")
                elif kind == 2:
                    s.sendall(spop.hello()[:rng.randint(1, 60)])
                elif kind == 3:
                    s.sendall(spop.hello() + spop.NOTIFY_CAPTURED[:rng.randint(1, 100)])
                elif kind == 4:     # asks and never reads
                    s.setblocking(False)
                    s.send((spop.hello() + spop.NOTIFY_CAPTURED * 500)[:100000])
                else:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                held.append(s)
                if len(held) > 30:
                    held.popleft().close()
            except OSError:
                pass
        for s in held:
            s.close()
    others = [threading.Thread(target=hostile, args=(n,)) for n in range(3)]
    for t in others:
        t.start()
    with Load(h.port, threads=2) as load:
        for t in others:
            t.join()
        load.more(20)
    load.all_passed()
    assert {r.show["err"] for r in load.replies} == {""}
    assert a.running


def test_health_checks_leave_no_trace(tcp, proxy):
    """Each ends with RST; a log that tells of every one would be useless."""
    a = tcp(BIG)
    h = proxy(a)
    before = len(a.lines())
    with Load(h.port, threads=1) as load:
        load.more(30)

        def checks():
            for line in h.command("show stat").splitlines():
                fields = line.split(",")
                if fields[:2] == ["agents", "s0"]:
                    return fields[36]
            return None
        assert checks() == "L7OK"
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 1.2)
    assert len(a.lines()) - before < 5, a.stderr
