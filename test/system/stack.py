"""The agent behind a real HAProxy: from the very files that are shipped, on private ports, in a
folder of their own, ended by their process ids."""

import collections
import contextlib
import http.client
import os
import pathlib
import re
import shutil
import socket
import subprocess

import agent as agents

ROOT = agents.ROOT
HAPROXY = os.environ.get("HAPROXY") or shutil.which("haproxy") or "/usr/sbin/haproxy"
HAPROXY = os.path.abspath(shutil.which(HAPROXY) or HAPROXY)
BOUND = 60      # seconds within which an answer must come; a bound, never a measure

Answer = collections.namedtuple("Answer", "status headers body")


def answer_vars():
    """Name -> whether it is sent by default, from the agent's own table."""
    text = (ROOT / "agent/limit/answer.h").read_text()
    found = re.findall(r"X\((\w+), \w+, (true|false),", text)
    assert len(found) > 10
    return {name: default == "true" for name, default in found}


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    except OSError:
        return False


def haproxy_version():
    said = subprocess.run([HAPROXY, "-v"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.search(r"version (\d+)\.(\d+)", said).groups()))


def replaced(text, old, new, path):
    assert old in text, f"{path} has no {old!r}: the test would not test it"
    return text.replace(old, new)


class Stack:
    """The agent and HAProxy from two folders of configuration; a copy of them, with private ports
    and a patience for checks that fits a sanitizer on a busy machine."""

    def __init__(self, folder, agent_cfg, haproxy_folder, env=None, edit=None):
        self.folder = pathlib.Path(folder)
        self.env = env or {}
        self.agent_port, self.port, self.grpc_port = (
            agents.free_port() for _ in range(3))
        self.agent = self.haproxy = None

        agent_cfg = pathlib.Path(agent_cfg)
        shutil.copytree(agent_cfg.parent, self.folder / "conf",
                        ignore=shutil.ignore_patterns("examples"))
        self.cfg = self.folder / "conf" / agent_cfg.name
        text = self.cfg.read_text()
        drain = "" if "drain" in text else ' drain = "0s";'
        self.cfg.write_text(replaced(text, 'listen = [ "127.0.0.1:9600" ];',
                                     f'listen = [ "127.0.0.1:{self.agent_port}" ];{drain}', agent_cfg))

        if agents.redis:
            self.cfg.write_text(agents.redis.into(self.cfg.read_text(), agents.redis.prefix()))

        self.haproxy_dir = self.folder / "haproxy"
        shutil.copytree(haproxy_folder, self.haproxy_dir)
        cfg = self.haproxy_dir / "haproxy.cfg"
        text = cfg.read_text()
        text = replaced(text, "127.0.0.1:8080", f"127.0.0.1:{self.port}", cfg)
        text = replaced(text, "127.0.0.1:9600", f"127.0.0.1:{self.agent_port}", cfg)
        text = text.replace("127.0.0.1:10080", f"127.0.0.1:{self.grpc_port}")
        text = text.replace("global\n", f"global\n\tstats socket {self.folder}/stats.sock\n", 1)
        cfg.write_text(text)
        spoe = self.haproxy_dir / "spoe-ratelimit.conf"
        text = replaced(spoe.read_text(), "timeout processing 50ms", "timeout processing 10s", spoe)
        text = replaced(text, "timeout hello 200ms", "timeout hello 10s", spoe)
        spoe.write_text(text)
        if edit:
            edit(self)

    def start_agent(self):
        self.agent = agents.Process([agents.BINARY, "-f", self.cfg], self.folder, "agent", self.env)
        self.wait_for(self.agent, self.agent_port)

    def start_haproxy(self):
        self.haproxy = agents.Process(
            [HAPROXY, "-db", "-C", self.haproxy_dir, "-f", "haproxy.cfg"], self.folder, "haproxy")
        self.wait_for(self.haproxy, self.port)

    @staticmethod
    def wait_for(process, port):
        def ready():
            assert process.running, f"{process.name} ended at its start:\n{process.stderr}"
            return accepts(port)
        process.start()
        agents.until(ready, f"{process.name} to accept", BOUND)

    def start(self):
        self.start_agent()
        self.start_haproxy()
        return self

    def agent_is(self, state):
        """As HAProxy sees it: UP or DOWN. At its start it may answer requests before it has the socket."""
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(f"{self.folder}/stats.sock")
            except FileNotFoundError:
                return False
            s.sendall(b"show stat\n")
            text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
        return re.search(rf"^ratelimit_agents,agent1,.*,{state}[,/ ]", text, re.M) is not None

    def stop_agent(self):
        """Stops it as an operator would; HAProxy knows of it when this returns."""
        self.end(self.agent)
        agents.until(lambda: self.agent_is("DOWN"), "HAProxy to take the agent for DOWN", BOUND)

    @staticmethod
    def end(process):
        try:
            status = process.stop(bound=BOUND)
            process.sane()
            assert status == 0, f"the agent ended with {status}:\n{process.stderr}"
        finally:
            process.kill()

    def stop(self):
        try:
            if self.agent and self.agent.child:
                if self.agent.running:
                    self.end(self.agent)
                self.agent.sane()
        finally:
            if self.haproxy:
                self.haproxy.kill()

    def ask(self, path="/", method="GET", client="127.0.0.1", headers=None, body=None):
        """One request on a connection of its own, from the address `client` (127.x.y.z)."""
        with self.connect(client) as c:
            return send(c, path, method, headers, body)

    @contextlib.contextmanager
    def connect(self, client="127.0.0.1"):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND,
                                       source_address=(client, 0))
        try:
            yield c
        finally:
            c.close()

    def statuses(self, n, *args, **kw):
        return [self.ask(*args, **kw).status for _ in range(n)]


def send(connection, path="/", method="GET", headers=None, body=None):
    connection.request(method, path, body=body, headers=headers or {})
    r = connection.getresponse()
    return Answer(r.status, r.headers, r.read())


@contextlib.contextmanager
def running(folder, agent_cfg, haproxy_folder, env=None, edit=None):
    s = Stack(folder, agent_cfg, haproxy_folder, env, edit)
    try:
        yield s.start()
    finally:
        s.stop()


class Clients:
    """Addresses that no earlier test has used: their counters are full."""

    def __init__(self):
        self.n = 0

    def __call__(self):
        self.n += 1
        return f"127.1.{self.n // 250}.{self.n % 250 + 1}"


def trust(*networks):
    """An edit for Stack: these are proxies in front of HAProxy."""
    def edit(stack):
        (stack.haproxy_dir / "trusted-proxies.lst").write_text("".join(n + "\n" for n in networks))
    return edit


def until_denied(s, n, path, method="GET", *, least=None, headers=None, **kw):
    """Asks until it is denied, and returns that answer: at least n requests must have passed before
    (or `least`), and at most twice as many: a window may have turned, a bucket refilled, meanwhile.
    `path` and `headers` may be functions of the request's number."""
    for i in range(2 * n + 1):
        got = s.ask(path(i) if callable(path) else path, method,
                    headers=headers(i) if callable(headers) else headers, **kw)
        if got.status == 429:
            assert i >= (n if least is None else least), f"denied after {i}, not {n}: {got}"
            return got
        assert got.status == 200, got
    raise AssertionError(f"{2 * n + 1} requests passed, the limit is {n}")
