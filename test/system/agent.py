"""Starting and stopping an agent, and any other process, for a test."""

import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import spop

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Processes start in folders of their own: a relative AGENT is from where the tests start.
BINARY = os.path.abspath(os.environ.get("AGENT") or ROOT / "build/dev/agent/spoa-ratelimit")
# Which store the agents of tests use that do not choose one: memory or redis.
BACKEND = os.environ.get("RATELIMIT_TEST_BACKEND") or "memory"
redis = None    # a redisd.Suite while that is redis; conftest.py sets it
BOUND = 60      # seconds within which a condition must come true; a bound, never a measure

# As the service manager hands over sockets: from descriptor 3 on, with two variables. Arguments: how
# many, their numbers, and what to run.
INHERITING = """
import os, sys
n = int(sys.argv[1])
# Out of the way first: one of them may be where another belongs.
for i, fd in enumerate([os.dup2(int(x), 200 + i) for i, x in enumerate(sys.argv[2:2 + n])]):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.environ.update(LISTEN_FDS=str(n), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2 + n], sys.argv[2 + n:])
"""

SANITIZER = re.compile(r"(Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer|runtime error:")


def until(condition, what="a condition", bound=BOUND):
    """Wait until condition() is true, and return what it gave."""
    end = time.monotonic() + bound
    while True:
        got = condition()
        if got:
            return got
        assert time.monotonic() < end, f"waited {bound} s for {what}"
        time.sleep(0.01)


given = set()   # ports, to this process: some are bound only later
# Of those that run side by side each has ports of its own. (As many as divide 10000: a cluster's node
# has one more port, so much higher.)
SHARDS = next(n for n in (1, 2, 4, 8, 16) if n >= int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)))
SHARD = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])


def free_port(host="127.0.0.1"):
    """A port below the ephemeral range, so that no connection of ours takes it in between."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(200):
        port = random.randrange(12000 + SHARD, 32000, SHARDS)
        with socket.socket(family, socket.SOCK_STREAM) as s:
            try:
                s.bind((host, port))
            except OSError:
                continue
        if port not in given:
            given.add(port)
            return port
    raise RuntimeError("no free port")


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


# As it was at the start: pytest writes into its own while threads of tests start processes.
INHERITED = {k: v for k, v in os.environ.items() if not k.startswith(("RATELIMIT", "REDIS"))}


def environment(more=None):
    env = dict(INHERITED)
    # What the caller's own options say comes last, and so counts.
    for name, ours in (("ASAN_OPTIONS", "exitcode=99"), ("TSAN_OPTIONS", "exitcode=99"),
                       ("UBSAN_OPTIONS", "exitcode=99:print_stacktrace=1")):
        env[name] = ours + ":" + os.environ.get(name, "")
    env["LSAN_OPTIONS"] = f"suppressions={ROOT}/test/system/lsan.txt:print_suppressions=0"
    # A port that is free, for conf/ratelimit.cfg: several of them run at a time.
    env["RATELIMIT_ADMIN"] = "127.0.0.1:0"
    env.update(more or {})
    return env


class Process:
    """A child with its output in files; ended by its id."""

    def __init__(self, argv, directory, name, env=None, preexec=None):
        self.argv = [str(a) for a in argv]
        self.directory = pathlib.Path(directory)
        self.name = name
        self.env = env
        self.preexec = preexec
        self.pass_fds = ()
        self.child = None
        self.killed = False     # by ourselves
        self.awaited = False    # its end was
        self.out_path = self.directory / f"{name}.out"
        self.err_path = self.directory / f"{name}.err"

    def start(self):
        assert not self.running, f"{self.name} runs: nobody would end it"
        self.killed = self.awaited = False
        # Appended: what a run before this one said is still there to be judged at the end.
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self.child = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=err, env=environment(self.env),
                                          cwd=self.directory, preexec_fn=self.preexec,
                                          pass_fds=self.pass_fds)
        return self

    def inherit(self, *sockets):
        """At its start it gets these, which listen (or should not)."""
        self.pass_fds = [s.fileno() for s in sockets]
        self.argv = [sys.executable, "-c", INHERITING, str(len(sockets)),
                     *map(str, self.pass_fds), *self.argv]
        return self

    @property
    def pid(self):
        return self.child.pid

    @property
    def running(self):
        return self.child is not None and self.child.poll() is None

    @property
    def stderr(self):
        return self.err_path.read_text("utf-8", "surrogateescape") if self.err_path.exists() else ""

    @property
    def stdout(self):
        return self.out_path.read_text("utf-8", "surrogateescape") if self.out_path.exists() else ""

    def send_signal(self, number):
        assert self.running, f"{self.name} is not running:\n{self.stderr}"
        os.kill(self.pid, number)

    def wait(self, bound=BOUND):
        try:
            status = self.child.wait(bound)
            self.awaited = True
            return status
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.name} did not end within {bound} s:\n{self.stderr}") from None

    def kill(self):
        if self.running:
            self.killed = True
            os.kill(self.pid, signal.SIGKILL)
            self.child.wait()

    def stop(self, number=signal.SIGTERM, bound=BOUND):
        self.send_signal(number)
        return self.wait(bound)

    def sane(self):
        found = SANITIZER.search(self.stderr)
        assert not found, f"a sanitizer spoke:\n{self.stderr[max(0, found.start() - 200):][:6000]}"


def config(listen, rules="", agent="", top=""):
    """A configuration: what a test does not say is short and quick."""
    listen = ", ".join(f'"{x}"' for x in ([listen] if isinstance(listen, str) else listen))
    drain = "" if "drain" in agent else 'drain = "10ms";'
    threads = "" if "threads" in agent else "threads = 2;"
    return (f"agent: {{ listen = [ {listen} ]; {threads} {drain} {agent} }};\n{top}\n"
            f"rules = (\n{rules}\n);\n")


class Agent(Process):
    """spoa-ratelimit with a configuration of its own."""

    def __init__(self, directory, text=None, *, rules="", agent="", top="", listen=None,
                 name="agent", args=(), env=None, preexec=None, address=None):
        directory = pathlib.Path(directory)
        self.path = directory / f"{name}.cfg"
        if listen is None:
            listen = str(directory / f"{name}.sock")
            assert len(listen) < 104, f"too long for a UNIX socket: {listen}"
        self.listen = listen
        self.address = address or self.place(listen if isinstance(listen, str) else listen[0])
        self.extra = agent
        self.store = redis      # where it was made, it stays
        self.prefix = redis.prefix() if redis else None
        self.write(text if text is not None else config(listen, rules, agent, top))
        self._connection = None
        super().__init__([BINARY, "-f", self.path, *args], directory, name, env, preexec)

    @staticmethod
    def place(listen):
        if listen.startswith("/"):
            return listen
        host, port = listen.rsplit(":", 1)
        return host.strip("[]"), int(port)

    def write(self, text):
        if self.store:
            text = self.store.into(text, self.prefix)
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def rewrite(self, rules="", top="", agent=None):
        """Another configuration with the same listeners."""
        self.write(config(self.listen, rules, self.extra if agent is None else agent, top))

    def start(self, ready=True):
        super().start()
        if ready:
            until(self.answers, f"{self.name} to accept")
        return self

    def answers(self):
        assert self.running, f"{self.name} ended with {self.child.returncode}:\n{self.stderr}"
        try:
            spop.dial(self.address, 5).close()
            return True
        except (ConnectionError, FileNotFoundError):
            return False

    def await_admin(self, path):
        """Until it serves: it listens before it reads state file and certificates, and a test that does
        something to these comes after that."""
        def serves():
            assert self.running, f"{self.name} ended with {self.child.returncode}:\n{self.stderr}"
            try:
                with spop.dial(path, 20) as s:
                    s.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                    return s.recv(100).startswith(b"HTTP/1.1 200 ")
            except (ConnectionError, FileNotFoundError):
                return False
        until(serves, f"{self.name} to serve")

    def connect(self, **items):
        return spop.Connection(self.address, **items)

    @property
    def connection(self):
        if self._connection is None:
            self._connection = self.connect()
        return self._connection

    def forget(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def check(self, args=(), name="check", **more):
        return self.connection.check(args, name, **more)

    def stop(self, number=signal.SIGTERM, bound=BOUND):
        self.forget()
        return super().stop(number, bound)

    def restart(self):
        assert self.stop() == 0, self.stderr
        return self.start()

    def reload(self, changed, what="the new configuration"):
        """SIGHUP, and wait until changed() is true."""
        self.send_signal(signal.SIGHUP)

        def done():
            assert self.running, f"{self.name} ended with {self.child.returncode}:\n{self.stderr}"
            return changed()
        return until(done, what)

    def lines(self):
        return self.stderr.splitlines()

    def finish(self):
        """At a test's end: still alive, stops cleanly, and no sanitizer spoke."""
        try:
            if self.child is None:
                return
            if self.running:
                status = self.stop()
                self.sane()
                assert status == 0, f"{self.name} ended with {status}:\n{self.stderr}"
            else:
                self.sane()
                # A test that ends the agent has looked at its status; nothing else may end it.
                status = self.child.returncode
                assert self.killed or self.awaited and 0 <= status != 99, (
                    f"{self.name} ended by itself: {status}\n{self.stderr}")
        finally:
            self.forget()
            self.kill()


class Result:
    def __init__(self, status, stdout, stderr):
        self.status, self.stdout, self.stderr = status, stdout, stderr

    def __repr__(self):
        return f"exit {self.status}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def execute(*args, env=None, bound=BOUND, cwd=None, preexec=None):
    """Run the binary to its end."""
    done = subprocess.run([BINARY, *map(str, args)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=bound,
                          env=environment(env), cwd=cwd, preexec_fn=preexec, check=False)
    result = Result(done.returncode, done.stdout.decode("utf-8", "surrogateescape"),
                    done.stderr.decode("utf-8", "surrogateescape"))
    assert not SANITIZER.search(result.stderr), result
    assert result.status >= 0, f"ended by a signal: {result}"
    return result


def check_file(path, *args, **kw):
    """spoa-ratelimit -c on a file."""
    return execute("-c", "-f", path, *args, **kw)
