"""agent.busy_poll: how often a worker falls asleep under traffic, and that it then does."""

import os
import pathlib
import signal
import time

import pytest

from agent import until

RULES = '{ name = "per-user"; per = [ "user" ]; rate = "1000000/day"; }'
ASKED = 50
CORES = os.sched_getaffinity(0)

two_cores = pytest.mark.skipif(len(CORES) < 2, reason="one core is no more than one worker")


def sleeps(a):
    """How often its workers have fallen asleep; to yield does not count."""
    found = []
    for task in pathlib.Path(f"/proc/{a.pid}/task").iterdir():
        if (task / "comm").read_text().startswith("worker-"):
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    found.append(int(line.split()[1]))
    assert found, "there is no worker"
    return sum(found)


def slept(a):
    """Of ASKED requests, one after another: how many found the worker asleep, about."""
    assert a.check(user="u")["reason"] == "ok"
    before = sleeps(a)
    for _ in range(ASKED):
        assert a.check(user="u")["reason"] == "ok"
    return sleeps(a) - before


def never_polls(a):
    """Not even in one round of many: who polls leaves off where others need the core."""
    return all(slept(a) > ASKED / 2 for _ in range(100))


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
def test_it_stays_awake_while_requests_come(run):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "1ms";')
    # Others may need the core for a while: then it leaves off, as it should.
    until(lambda: slept(a) < ASKED / 2, "a worker that is awake when a request comes")


@pytest.mark.parametrize("busy_poll", ("0s", "30us", "1ms"))
def test_without_requests_it_sleeps(run, busy_poll):
    a = run(rules=RULES, agent=f'threads = 1; busy_poll = "{busy_poll}";')
    slept(a)
    until(lambda: idles(a), "next to no CPU time without requests", bound=10)
    assert a.check(user="u")["reason"] == "ok"


def test_rare_requests_do_not_keep_it_awake(run):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "1ms";')
    slept(a)
    began, ticks = time.monotonic(), cpu_ticks(a.pid)
    while time.monotonic() - began < 1:
        assert a.check(user="u")["reason"] == "ok"
        time.sleep(0.02)
    busy = (cpu_ticks(a.pid) - ticks) / os.sysconf("SC_CLK_TCK")
    assert busy < 0.5 * (time.monotonic() - began), "it spins"


def test_zero_never_polls(run):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "0s";')
    assert never_polls(a)


@two_cores
def test_it_is_workers_with_requests_that_count(run):
    """As many workers as cores; but one carries these, and the other cores are left."""
    a = run(rules=RULES, agent=f'threads = {os.cpu_count()}; busy_poll = "1ms";')
    until(lambda: slept(a) < ASKED / 2, "a worker that is awake when a request comes")


@two_cores
def test_a_reload_changes_it(run):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "0s";')
    assert slept(a) > ASKED / 2
    a.rewrite(RULES, agent='threads = 1; busy_poll = "1ms";')
    a.reload(lambda: slept(a) < ASKED / 2)
    a.rewrite(RULES, agent='threads = 1; busy_poll = "0s";')
    a.reload(lambda: "agent.busy_poll 1ms -> 0s" in a.stderr)
    until(lambda: slept(a) > ASKED / 2, "a worker that sleeps again")


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_stop_is_not_delayed(run, number):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "1ms"; drain = "0s";')
    slept(a)
    assert a.stop(number) == 0, a.stderr
