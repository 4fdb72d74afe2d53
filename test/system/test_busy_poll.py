"""agent.busy_poll: whether a worker waits awake for more after traffic, and that it then sleeps. How
long it does is told by test/unit/server/test_busy_poll.c, whose time is given: here others may take
the core at any moment, and then it leaves off, as it should."""

import os
import signal
import time

import pytest

from agent import until
from test_admin import Admin

RULES = '{ name = "per-user"; per = [ "user" ]; rate = "1000000/day"; }'
ASKED = 20

two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2,
                               reason="one core is no more than one worker")


@pytest.fixture
def start(run, tmp_path):
    return lambda agent: Admin(run, tmp_path, rules=RULES, agent=agent)


def polls(admin):
    """Whether a worker has waited awake for more, after one of some requests."""
    before = admin.value("ratelimit_busy_polls_total")
    for _ in range(ASKED):
        assert admin.agent.check(user="u")["reason"] == "ok"
    return admin.value("ratelimit_busy_polls_total") > before


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def idles(a):
    began, ticks = time.monotonic(), cpu_ticks(a.pid)
    until(lambda: time.monotonic() - began > 1)
    busy = (cpu_ticks(a.pid) - ticks) / os.sysconf("SC_CLK_TCK")
    return busy < 0.1 * (time.monotonic() - began)


@two_cores
def test_it_waits_awake_while_requests_come(start):
    admin = start('threads = 1; busy_poll = "1ms";')
    until(lambda: polls(admin), "a worker that waits awake for the next request")


@pytest.mark.parametrize("busy_poll", ("0s", "30us", "1ms"))
def test_without_requests_it_sleeps(run, busy_poll):
    a = run(rules=RULES, agent=f'threads = 1; busy_poll = "{busy_poll}";')
    assert a.check(user="u")["reason"] == "ok"
    until(lambda: idles(a), "next to no CPU time without requests", bound=10)
    assert a.check(user="u")["reason"] == "ok"


def test_rare_requests_do_not_keep_it_awake(run):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "1ms";')
    assert a.check(user="u")["reason"] == "ok"
    began, ticks = time.monotonic(), cpu_ticks(a.pid)
    while time.monotonic() - began < 1:
        assert a.check(user="u")["reason"] == "ok"
        time.sleep(0.02)
    busy = (cpu_ticks(a.pid) - ticks) / os.sysconf("SC_CLK_TCK")
    assert busy < 0.5 * (time.monotonic() - began), "it spins"


def test_zero_never_polls(start):
    assert not polls(start('threads = 1; busy_poll = "0s";'))


@two_cores
def test_it_is_workers_with_requests_that_count(start):
    """As many workers as cores; but one carries these, and the other cores are left."""
    admin = start(f'threads = {os.cpu_count()}; busy_poll = "1ms";')
    until(lambda: polls(admin), "a worker that waits awake for the next request")


@two_cores
def test_a_reload_changes_it(start):
    admin = start('threads = 1; busy_poll = "0s";')
    a = admin.agent
    assert not polls(admin)
    a.rewrite(RULES, agent='threads = 1; busy_poll = "1ms";', top=admin.top())
    a.reload(lambda: polls(admin), "a worker that waits awake for the next request")
    a.rewrite(RULES, agent='threads = 1; busy_poll = "0s";', top=admin.top())
    a.reload(lambda: "agent.busy_poll 1ms -> 0s" in a.stderr)
    until(lambda: not polls(admin), "a worker that sleeps again")


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_stop_is_not_delayed(run, number):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "1ms"; drain = "0s";')
    assert a.check(user="u")["reason"] == "ok"
    assert a.stop(number) == 0, a.stderr
