"""agent.threads: connections lie on as few of them as carry them."""

import os
import pathlib
import signal
import threading

import pytest

from agent import until
from spop import Closed, Connection, Disconnected, dial, message, pairs

RULES = '{ name = "per-user"; per = [ "user" ]; rate = "1000000/day"; }'

knows_threads = pytest.mark.skipif(
    not os.path.exists("/proc/self/schedstat"), reason="the kernel keeps no account of threads")


def sleeps(a):
    """How often each worker has fallen asleep: who was not woken has not."""
    found = {}
    for task in pathlib.Path(f"/proc/{a.pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("worker-"):
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    found[name] = int(line.split()[1])
    return found


def woken(a, conns):
    """The workers that requests on these connections wake, one request after another."""
    before = sleeps(a)
    for _ in range(3):
        for c in conns:
            assert c.check(user="u")["reason"] == "ok"
    asked = 3 * len(conns)
    after = sleeps(a)
    return [name for name in after if after[name] - before[name] > asked / 20]


@knows_threads
def test_one_carries_what_one_can_carry(run):
    a = run(rules=RULES, agent='threads = 4; busy_poll = "0s";')
    conns = [Connection(a.address) for _ in range(20)]
    until(lambda: woken(a, conns) == ["worker-1"], "one worker that has all connections")
    assert len(sleeps(a)) == 4


@knows_threads
def test_a_burst_is_packed_again(run):
    """More at once than a mailbox holds: others help out, and hand them over afterwards."""
    a = run(rules=RULES, agent='threads = 4; busy_poll = "0s"; max_connections = 1000;')
    a.send_signal(signal.SIGSTOP)
    socks = [dial(a.address) for _ in range(400)]
    a.send_signal(signal.SIGCONT)
    conns = [Connection(a.address, sock=s) for s in socks]
    until(lambda: woken(a, conns) == ["worker-1"], "one worker that has all connections")
    a.sane()


@knows_threads
@pytest.mark.parametrize("threads", (2, 4))
def test_many_that_ask_all_the_time_lose_nothing(run, threads):
    """However many threads that takes here, and whatever moves: each is answered, also at a reload and a
    stop in the middle."""
    a = run(rules=RULES, agent=f'threads = {threads}; drain = "0s";')
    conns = [Connection(a.address) for _ in range(8)]
    ended, failed = threading.Event(), []
    answered = [0] * len(conns)

    def go_on(i):
        try:
            while True:
                conns[i].batch([message("check", pairs({"user": f"u{i}"}))] * 200, window=50)
                answered[i] += 200
        except (Disconnected, Closed) as e:
            if not ended.is_set():
                failed.append(e)

    players = [threading.Thread(target=go_on, args=(i,)) for i in range(len(conns))]
    for p in players:
        p.start()
    until(lambda: min(answered) >= 1000, "a thousand answers for each")
    a.rewrite(RULES + ', { name = "more"; rate = "1000000/day"; }',
              agent=f'threads = {threads}; drain = "0s";')
    a.reload(lambda: "reloaded" in a.stderr)
    more = min(answered) + 1000
    until(lambda: min(answered) >= more, "a thousand more")
    ended.set()
    assert a.stop() == 0, a.stderr
    for p in players:
        p.join(30)
        assert not p.is_alive()
    assert not failed
