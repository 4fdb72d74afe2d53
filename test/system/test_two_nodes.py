"""conf/examples/two-nodes: two HAProxies, two agents, two Redis servers and three sentinels, as its
README sets them up, enforce one limit together, and go on when one of them is lost."""

import re
import shutil
import time

import pytest

import agent as agents
import stack
import two_nodes
from two_nodes import Load, TwoNodes

pytestmark = pytest.mark.skipif(bool(two_nodes.missing()), reason="needs redis-server and openssl")

# A burst of 100, and nothing comes back while a test runs.
SLOW = {"RATELIMIT_ANONYMOUS": "100/300d", "RATELIMIT_ENTERPRISE": "1000000/300d",
        "RATELIMIT_ALL": "1000000000/second"}
EMIL = {"X-API-Key": "key-of-emil"}
new_client = stack.Clients()


@pytest.fixture(autouse=True, scope="module")
def not_twice():
    if agents.BACKEND == "redis":
        pytest.skip("has a Redis of its own, whatever the others use")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    n = TwoNodes(tmp_path_factory.mktemp("n"), SLOW)
    try:
        yield n.start()
    finally:
        n.finish()


@pytest.fixture
def nodes(both):
    """One for all tests, which use clients of their own; what they have killed comes back."""
    yield both
    for p in both.started:
        if not p.running:
            p.start()
    agents.until(both.whole, "all of it", stack.BOUND)
    for node in (0, 1):
        agents.until(lambda n=node: both.reason_of(n) == "ok", "Redis to be asked", stack.BOUND)


def passed(got):
    return sum(status == 200 and checked for _, _, status, checked in got)


def unchecked(got):
    return [x for x in got if not x[3]]


def test_what_the_readme_shows(nodes):
    first, second = (nodes.printed(b) for b in two_nodes.blocks("Try it")[-2:])
    assert re.findall(r"r=(\d+);", first) == ["99", "98", "19"], first
    keys = second.split()
    assert len(keys) >= 2 and all(k.startswith("rl:2:") for k in keys), second


def test_sentinels_that_were_paused_promote_all_the_same():
    """After a pause they look on for 30 s; a replica that lost the master ten times
    down-after-milliseconds before they agreed is none that they would take. (Half a minute of waiting
    would show it; this is the arithmetic.)"""
    text = (two_nodes.FOLDER / "sentinel.conf").read_text()
    after = int(re.search(r"(?m)^sentinel down-after-milliseconds ratelimit (\d+)$", text)[1])
    assert 10 * after >= 30_000 + after


def test_one_limit(nodes):
    client = new_client()
    with Load(nodes, client) as load:
        load.more(100)
    assert {x[2] for x in load.got} == {200, 429} and not unchecked(load.got)
    assert passed(load.got) == 100
    # Half of them or so by each, and each knows of the other's.
    assert all(any(x[1] == n and x[2] == 200 for x in load.got) for n in (0, 1))
    for node in (0, 1):
        assert nodes.ask_redis(node, "ACL", "LOG") == [], "beyond what users.acl allows"


@pytest.mark.parametrize("how", ["kill", "asked"])
def test_a_failover_under_load(nodes, how):
    """No request fails; who was at his limit stays there, through it and after it."""
    old = next(i for i in (0, 1) if nodes.leads(i))
    spent, busy = new_client(), new_client()
    with Load(nodes, spent) as load:
        load.more(60)
        agents.until(lambda: passed(load.got) == 100, "the limit", stack.BOUND)
    nodes.copied(old)       # what has not been copied yet is lost, as the README says
    with Load(nodes, spent, connections=1) as denied, Load(nodes, busy, headers=EMIL) as load:
        load.more(50)
        before = nodes.used_by(EMIL)
        if how == "kill":
            nodes.redis[old].kill()
        asked = time.monotonic()
        agents.until(lambda: nodes.leads(1 - old) or how == "asked" and nodes.fail_over(old),
                     "the other server", stack.BOUND)
        for node in (0, 1):
            agents.until(lambda n=node: nodes.reason_of(n) == "ok", "recovery", stack.BOUND)
        load.more(50)
        denied.more(20)
    assert {x[2] for x in load.got} == {200} and not unchecked(load.got)
    let_in = [(when - asked, *more) for when, *more in denied.got if more[1] != 429]
    assert not let_in, (let_in, time.monotonic() - asked, [p.stderr for p in nodes.agents],
                        [p.stdout[-3000:] for p in nodes.redis])
    # What was counted before is counted still, but for what had not been copied yet.
    assert nodes.used_by(EMIL) >= before - 50
    if how == "kill":
        for p in nodes.agents:
            assert "store_degraded" in p.stderr
            agents.until(lambda p=p: p.stderr.rfind("store_recovered") >
                         p.stderr.rfind("store_degraded"), "a line when it ends", stack.BOUND)


def test_an_agent_is_killed_under_load(nodes):
    """Its HAProxy goes on through the other's, and both limits are one still."""
    client, busy = new_client(), new_client()
    with Load(nodes, busy, headers=EMIL) as load:
        load.more(50)
        with Load(nodes, client, connections=1) as limited:
            limited.more(20)
            nodes.agents[0].kill()
            limited.more(100)
        load.more(50)
        agents.until(lambda: nodes.state(0, "own") == "DOWN", "HAProxy to see it", stack.BOUND)
        nodes.agents[0].start()
        agents.until(lambda: nodes.state(0, "own") == "UP", "HAProxy to see it", stack.BOUND)
        load.more(50)
    assert {x[2] for x in load.got} == {200} and {x[2] for x in limited.got} == {200, 429}
    # Of each connection what was under way at the kill, and what met a closed port before HAProxy knew
    # it; of those that saw the agent come back, one more then, with HAProxy 3.0 now and then two.
    few = unchecked(limited.got), unchecked(load.got)
    back = 2 if stack.haproxy_version() >= (3, 0) else 1
    assert len(few[0]) <= 2 and len(few[1]) <= 2 * (2 + back), few
    assert {x[1] for x in sum(few, [])} <= {0}, few
    # Charged, and the agent died before it could say so.
    assert 100 - len(few[0]) <= passed(limited.got) <= 100


def test_redis_is_gone(nodes):
    """Each agent gives its half, to whom it does not know yet; the login is closed."""
    spent, fresh = new_client(), new_client()
    with Load(nodes, spent) as load:
        agents.until(lambda: passed(load.got) == 100, "the limit", stack.BOUND)
    for p in nodes.redis:
        p.kill()
    for node in (0, 1):
        agents.until(lambda n=node: nodes.reason_of(n) == "degraded", "the failure", stack.BOUND)
    got = nodes.ask(0, "/auth/login", new_client(), "POST")
    assert got.status == 503 and got.headers["Retry-After"] == "1"
    with Load(nodes, fresh) as load, Load(nodes, spent, connections=1) as denied:
        load.more(100)
        denied.more(10)
    assert not unchecked(load.got) and passed(load.got) == 100
    for node in (0, 1):
        assert passed([x for x in load.got if x[1] == node]) == 50
    assert {x[2] for x in denied.got} == {429}


class Third:
    """A further node, whose store moves as the README has it."""

    def __init__(self, nodes):
        self.nodes, self.haproxy, self.n = nodes, None, 0
        self.folder = nodes.folder / "third"
        shutil.copytree(nodes.folder, self.folder, ignore=shutil.ignore_patterns("node*", "*.stats"))
        new = self.folder / "ratelimit.cfg"
        text = new.read_text()
        (self.folder / "memory.cfg").write_text(
            stack.replaced(text, 'backend = "redis"', 'backend = "memory"', new))
        new.write_text(stack.replaced(text, f":{nodes.ports['9600']}", f":{nodes.ports['9610']}", new))
        self.launch("RATELIMIT_ADMIN=127.0.0.3:9601 spoa-ratelimit -f memory.cfg", "memory", "9600")
        self.launch("RATELIMIT_ADMIN=127.0.0.4:9601 spoa-ratelimit -f ratelimit.cfg", "moved", "9610")

    def launch(self, command, name, port):
        p = self.nodes.launch(f"(cd third && NODE=127.0.0.3 OTHER=127.0.0.1 {command}) &", name)
        agents.until(lambda: self.nodes.listens(p, two_nodes.NODES[2], port), name, stack.BOUND)
        return p

    def edit(self, name, old, new):
        """The first of it."""
        path = self.folder / name
        before, found, after = path.read_text().partition(old)
        assert found, f"{path} has no {old!r}"
        path.write_text(before + new + after)

    def exchange(self, decides, counts):
        self.edit("spoe-ratelimit.conf", f"use-backend {decides}", f"use-backend {counts}")
        self.edit("spoe-moving.conf", f"use-backend {counts}", f"use-backend {decides}")
        self.reload(" -f moving.cfg")

    def reload(self, more=""):
        """Another HAProxy takes over; returns when the one before has ended."""
        old, self.n = self.haproxy, self.n + 1
        sf = f" -sf {old.pid}" if old else ""
        self.haproxy = self.launch(f"haproxy -db -C . -f haproxy.cfg{more}{sf}", f"h{self.n}", "8080")
        if old:
            old.wait(stack.BOUND)
            self.nodes.started.remove(old)


def test_moving_from_memory_to_redis_and_back(nodes):
    """A client has his limit once, whichever store decides."""
    third, client = Third(nodes), new_client()

    def uses(n, node=2):
        """The client uses n of his 100: what is left then."""
        for _ in range(n):
            got = nodes.ask(node, client=client)
            assert got.status == 200
        return int(re.search(r";r=(\d+)", got.headers["RateLimit"])[1])

    third.reload()
    nodes.ask(2, client=new_client())
    filter_line, group_line = re.findall(
        r"(?m)^ {8}((?:filter|http-request) .*moving.*)$", two_nodes.README.read_text())
    shown = re.search(r"(?m)^\tfilter spoe .*$", (third.folder / "haproxy.cfg").read_text())[0]
    third.edit("haproxy.cfg", shown, f"{shown}\n\t{filter_line}")
    third.edit("haproxy.cfg", "\thttp-after-response", f"\t{group_line}\n\thttp-after-response")
    third.reload(" -f moving.cfg")
    assert uses(20) == 80
    # Decided by memory, and counted in Redis as well: as each of the two others can tell.
    assert uses(1, 0) == 79

    third.exchange("ratelimit_agents", "moving_agents")
    assert uses(20) == 59
    third.exchange("moving_agents", "ratelimit_agents")
    # Back in memory, which knows nothing of the one that came through another node.
    assert uses(20) == 40
    for p in [x for x in nodes.started if "third" in str(x.directory)]:
        nodes.end(p)
