"""agent.busy_poll: how often a worker falls asleep under traffic, and that it then does."""

import os
import pathlib
import signal
import time

import pytest

from agent import until

RULES = '{ name = "per-user"; per = [ "user" ]; rate = "1000000/day"; }'
ASKED = 20
CORES = os.sched_getaffinity(0)

two_cores = pytest.mark.skipif(len(CORES) < 2, reason="one core is no more than one worker")


def on_cpu(a):
    """Nanoseconds that its workers have spent on a CPU."""
    found = []
    for task in pathlib.Path(f"/proc/{a.pid}/task").iterdir():
        if (task / "comm").read_text().startswith("worker-"):
            found.append(int((task / "schedstat").read_text().split()[0]))
    assert found, "there is no worker"
    return sum(found)


def stays_awake(a):
    """Whether a worker spends the time between requests on a CPU, and not only that for them."""
    assert a.check(user="u")["reason"] == "ok"
    began, before = time.monotonic_ns(), on_cpu(a)
    for _ in range(ASKED):
        # Shorter than the 1ms that tests give it to wait for the next one.
        time.sleep(0.0005)
        assert a.check(user="u")["reason"] == "ok"
    # A request itself takes it some hundredths of that time; others may need the core in between.
    return on_cpu(a) - before > (time.monotonic_ns() - began) / 4


def never_polls(a):
    """Not even in one round of many: who polls leaves off where others need the core."""
    return not any(stays_awake(a) for _ in range(20))


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
    until(lambda: stays_awake(a), "a worker that is awake when a request comes")


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


def test_zero_never_polls(run):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "0s";')
    assert never_polls(a)


@two_cores
def test_it_is_workers_with_requests_that_count(run):
    """As many workers as cores; but one carries these, and the other cores are left."""
    a = run(rules=RULES, agent=f'threads = {os.cpu_count()}; busy_poll = "1ms";')
    until(lambda: stays_awake(a), "a worker that is awake when a request comes")


@two_cores
def test_a_reload_changes_it(run):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "0s";')
    assert not stays_awake(a)
    a.rewrite(RULES, agent='threads = 1; busy_poll = "1ms";')
    a.reload(lambda: stays_awake(a))
    a.rewrite(RULES, agent='threads = 1; busy_poll = "0s";')
    a.reload(lambda: "agent.busy_poll 1ms -> 0s" in a.stderr)
    until(lambda: not stays_awake(a), "a worker that sleeps again")


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_stop_is_not_delayed(run, number):
    a = run(rules=RULES, agent='threads = 1; busy_poll = "1ms"; drain = "0s";')
    assert a.check(user="u")["reason"] == "ok"
    assert a.stop(number) == 0, a.stderr
