"""conf/examples/two-nodes as its README sets it up and starts it, on private ports, in a folder of its
own, each process ended by its id."""

import contextlib
import http.client
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time

import agent as agents
import redisd
import stack

FOLDER = stack.ROOT / "conf/examples/two-nodes"
README = FOLDER / "README.md"
NODES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")      # the third is where a sentinel is
BOUND = stack.BOUND


def blocks(heading):
    """The indented blocks below this heading of the README, without their indent."""
    _, _, text = README.read_text().partition(f"\n## {heading}\n")
    assert text, heading
    found = re.findall(r"(?m)^    .*\n(?:\n?^    .*\n)*", text.partition("\n## ")[0])
    return [re.sub(r"(?m)^    ", "", b) for b in found]


def free_port():
    """Free on all three nodes."""
    while True:
        port = agents.free_port()
        with contextlib.ExitStack() as held:
            try:
                for host in NODES:
                    s = held.enter_context(socket.socket())
                    s.bind((host, port))
            except OSError:
                continue
            return port


class TwoNodes:
    def __init__(self, directory, env=None):
        """What the first commands of `Try it` make, with other ports, and patience that fits a
        sanitizer on a busy machine."""
        self.folder = pathlib.Path(directory) / "two-nodes"
        self.env = env or {}
        self.started = []
        self.redis, self.sentinels, self.agents, self.haproxies = [], [], [], []
        self.ports = {p: free_port() for p in ("26379", "6379", "9600", "9601", "9610", "8080")}
        prepare, self.commands = blocks("Try it")[0].split("\n\n", 1)
        prepare = prepare.replace("conf/examples/two-nodes", str(FOLDER)).replace(
            "/tmp/two-nodes", str(self.folder))
        done = subprocess.run(
            ["sh", "-euc", prepare + "\nprintf '%s %s %s' \"$REDIS_PASSWORD\" "
             "\"$RATELIMIT_HASH_SECRET\" \"$ADMIN\""],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.secrets = dict(zip(("REDIS_PASSWORD", "RATELIMIT_HASH_SECRET", "ADMIN"),
                                done.stdout.split()))
        assert len(set(self.secrets.values())) == 3
        for path in self.folder.rglob("*.c*f*"):
            text = re.sub(r"\b(26379|6379|9600|9601|9610|8080)\b", lambda m: str(self.ports[m[1]]),
                          path.read_text())
            text = text.replace("timeout processing 50ms", "timeout processing 10s")
            text = text.replace("timeout hello 200ms", "timeout hello 10s")
            text = text.replace('"20ms"', '"1s"')
            if path.name == "haproxy.cfg":
                text = text.replace("global\n", "global\n\tstats socket unix@\"${NODE}.stats\"\n", 1)
            path.write_text(text)

    # --- processes ---------------------------------------------------------------------------

    def start(self):
        """All that `Try it` starts, in its order."""
        lists = {"redis.conf": self.redis, "sentinel.conf": self.sentinels,
                 "ratelimit.cfg": self.agents, "haproxy.cfg": self.haproxies}
        for line in self.commands.splitlines():
            if line.endswith(" &"):
                file = next(x for x in lists if x in line)
                lists[file].append(self.launch(line, f"{file}{len(lists[file])}"))
        agents.until(self.whole, "the sentinels and the replica", BOUND)
        for i, p in enumerate(self.agents):
            agents.until(lambda i=i: self.listens(p, NODES[i], "9600"), "an agent", BOUND)
        for i, p in enumerate(self.haproxies):
            agents.until(lambda i=i: self.listens(p, NODES[i], "8080"), "HAProxy", BOUND)
        for node in (0, 1):
            agents.until(lambda n=node: self.reason_of(n) == "ok", "Redis to be asked", BOUND)
        return self

    def launch(self, line, name):
        """A command as it is printed, in the background. It is the job itself (`exec`): the `kill` that
        ends all of it would end the shell between them, and leave it."""
        folder, command = re.fullmatch(r"(?:\(cd (\S+) && (?:exec )?)?(.*?)\)? &", line).groups()
        words = command.split()
        env = dict(self.secrets, **self.env)
        while "=" in words[0]:
            key, _, value = words.pop(0).partition("=")
            env[key] = value.replace(":9601", f":{self.ports['9601']}")
        words[0] = {"spoa-ratelimit": agents.BINARY, "haproxy": stack.HAPROXY,
                    "redis-server": redisd.PROGRAM}[words[0]]
        p = agents.Process(words, self.folder / (folder or "."), name, env)
        self.started.append(p)
        p.start()
        return p

    def listens(self, process, host, port):
        assert process.running, f"{process.name}:\n{process.stdout}{process.stderr}"
        try:
            socket.create_connection((host, self.ports[port]), 5).close()
            return True
        except OSError:
            return False

    def whole(self):
        """One master, one replica that follows it, and three sentinels that know all of it."""
        for p in self.started:
            assert p.running, f"{p.name}:\n{p.stdout}{p.stderr}"
        try:
            known = [self.monitored(i) for i in range(3)]
            return (all(k[b"flags"] == b"master" and k[b"num-slaves"] == b"1" and
                        k[b"num-other-sentinels"] == b"2" for k in known) and
                    any("state=online" in self.info(i, "replication").get("slave0", "")
                        for i in (0, 1) if self.leads(i)))
        except (OSError, redisd.ReplyError):
            return False

    def monitored(self, i):
        with redisd.Client((NODES[i], self.ports["26379"]), password=None) as c:
            flat = c("SENTINEL", "MASTER", "ratelimit")
            return dict(zip(flat[::2], flat[1::2]))

    def ask_redis(self, i, *args):
        with redisd.Client((NODES[i], self.ports["6379"]), self.secrets["ADMIN"], "admin") as c:
            return c(*args)

    def info(self, i, section):
        lines = self.ask_redis(i, "INFO", section).decode().splitlines()
        return dict(x.split(":", 1) for x in lines if ":" in x)

    def copied(self, old):
        """Redis of this node has written so much, and now the other has it, too. Whoever is made the
        master sooner than he has read what was sent to him, goes on without it: SENTINEL FAILOVER does
        not wait, and a replica counts as online while it still reads its data."""
        written = int(self.info(old, "replication")["master_repl_offset"])

        def has_all():
            got = self.info(1 - old, "replication")
            return got["master_link_status"] == "up" and int(got["slave_repl_offset"]) >= written
        agents.until(has_all, "the replica to have it all", BOUND)

    def used_by(self, headers):
        """What this client has used of his limit, of 1000000."""
        left = re.search(r'"api";r=(\d+)', self.ask(0, headers=headers).headers["RateLimit"])
        return 1000000 - int(left[1])

    def state(self, node, server):
        """UP or DOWN, as HAProxy of this node has it."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.folder / f"{NODES[node]}.stats"))
            s.sendall(b"show stat\n")
            text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
        return re.search(rf"^ratelimit_agents,{server},(?:[^,]*,){{15}}(\w+)", text, re.M)[1]

    def leads(self, i):
        """Whether Redis of node i is the master, by its own word and the sentinels'."""
        try:
            return (self.info(i, "replication")["role"] == "master" and all(
                int(self.monitored(j)[b"port"]) == self.ports["6379"] and
                self.monitored(j)[b"ip"].decode() == NODES[i] for j in range(3)))
        except (OSError, redisd.ReplyError):
            return False

    def fail_over(self, old):
        """Asks a sentinel for it, which may have none that it would take yet, or have given up."""
        if self.monitored(2)[b"ip"].decode() == NODES[old]:
            with redisd.Client((NODES[2], self.ports["26379"]), password=None) as c:
                with contextlib.suppress(redisd.ReplyError):
                    c("SENTINEL", "FAILOVER", "ratelimit")

    def end(self, process):
        """An agent has to end well; the others may be killed."""
        self.started.remove(process)
        try:
            if process.argv[0] == str(agents.BINARY) and process.running:
                assert process.stop() == 0, process.stderr
            process.sane()
        finally:
            process.kill()

    def finish(self):
        wrong = []
        for p in reversed(list(self.started)):
            try:
                self.end(p)
            except AssertionError as e:
                wrong.append(str(e))
        assert not wrong, "\n".join(wrong)

    def printed(self, commands):
        """What these commands print, with the ports of here."""
        commands = commands.replace("redis-cli ", f"redis-cli -p {self.ports['6379']} ")
        commands = commands.replace(":8080", f":{self.ports['8080']}")
        done = subprocess.run(["sh", "-uc", commands], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, env=agents.environment(self.secrets), check=False)
        assert done.returncode == 0 and not done.stderr, done
        return done.stdout

    # --- requests ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def connect(self, node, client="127.0.0.1"):
        c = http.client.HTTPConnection(NODES[node], self.ports["8080"], timeout=BOUND,
                                       source_address=(client, 0))
        try:
            yield c
        finally:
            c.close()

    def ask(self, node, path="/api/x", client="127.0.0.1", method="GET", headers=None):
        with self.connect(node, client) as c:
            return stack.send(c, path, method, headers)

    def reason_of(self, node):
        """How the last request of this node was decided, after asking for one that no limit of a
        client holds for."""
        self.ask(node, "/probe")
        lines = re.findall(r"rl=(\S*)/.* /probe ", self.haproxies[node].stdout)
        return lines[-1] if lines else None


class Load:
    """Clients that ask one node after the other's fashion, each on a connection of its own, until
    told to stop: every status, whether it was checked, and when."""

    def __init__(self, nodes, client, which=(0, 1), connections=2, pause=0.003, headers=None):
        self.nodes, self.client, self.pause, self.headers = nodes, client, pause, headers
        self.got, self.wrong = [], []       # (when, node, status, checked)
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True)
                        for n in which for _ in range(connections)]

    def run(self, node):
        try:
            with self.nodes.connect(node, self.client) as c:
                while not self.over.is_set():
                    began = time.monotonic()
                    a = stack.send(c, "/api/x", headers=self.headers)
                    self.got.append((began, node, a.status, bool(a.headers["RateLimit"])))
                    time.sleep(self.pause)
        except Exception as e:      # pylint: disable=broad-except
            self.wrong.append(e)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, kind, *_):
        self.over.set()
        for t in self.threads:
            t.join(2 * BOUND)
        if kind is None:
            assert not any(t.is_alive() for t in self.threads), "an answer is missing"
            assert not self.wrong, self.wrong

    def since(self, when, node=None):
        return [x for x in list(self.got) if x[0] >= when and node in (None, x[1])]

    def more(self, n, what="more answers"):
        """Wait until each node has given n more answers that were checked."""
        when = time.monotonic()
        nodes = {x[1] for x in list(self.got)} or {0, 1}
        agents.until(lambda: all(sum(x[3] for x in self.since(when, i)) >= n for i in nodes), what,
                     BOUND)


def missing():
    """What is not there to try it with."""
    return [x for x in ("redis-server", "openssl", "curl") if not shutil.which(x)]
