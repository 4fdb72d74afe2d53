"""Packets are lost between agent and Redis: TCP sends them again, late, and every check is answered in
time all the same. In a network of its own, where a device of ours carries the packets."""

import ctypes
import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time

import pytest

import redisd
from agent import BOUND, until
from redisd import Asker, admitted, hammer
from spop import message
from test_limits import rule
from test_redis_away import LONG, NOISE

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
HERE, THERE = "10.9.0.1", "10.9.0.2"


class Lossy(threading.Thread):
    """A network namespace with one device. What is sent to THERE comes back to HERE as if THERE had
    sent it (source and destination change places, so that the sums still hold): so both ends are in
    here, and each packet passes this thread, which loses the share `loss` of them, and in any case
    the fifth: how many there are depends on the machine."""

    def __init__(self):
        super().__init__(daemon=True)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.random = random.Random(7)
        self.loss = 0.0
        self.passed = self.lost = self.met = 0  # met: while some are lost
        self.ready, self.ended = threading.Event(), threading.Event()
        self.why = None
        self.tun = self.namespace = None

    def start(self):
        super().start()
        assert self.ready.wait(BOUND)
        return self

    def enter(self):
        """In a child, before it becomes a program."""
        if self.libc.setns(self.namespace, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def make(self):
        if self.libc.unshare(CLONE_NEWNET) != 0:    # of this thread alone
            raise OSError(ctypes.get_errno(), "unshare")
        self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
        for line in ("link set lo up", f"addr add {HERE}/24 dev tun0", "link set tun0 up"):
            subprocess.run(["ip", *line.split()], check=True, capture_output=True)
        self.namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def run(self):
        try:
            self.make()
        except (OSError, subprocess.CalledProcessError) as e:
            self.why = str(e)
            return
        finally:
            self.ready.set()
        while not self.ended.is_set():
            if not select.select([self.tun], [], [], 0.1)[0]:
                continue
            p = os.read(self.tun, 65536)
            if p[0] >> 4 != 4:
                continue
            if self.loss:
                self.met += 1
                if self.random.random() < self.loss or self.met == 5:
                    self.lost += 1
                    continue
            self.passed += 1
            os.write(self.tun, p[:12] + p[16:20] + p[12:16] + p[20:])

    def finish(self):
        self.ended.set()
        self.join(BOUND)
        for fd in (self.tun, self.namespace):
            if fd is not None:
                os.close(fd)


@pytest.fixture
def net(ends):
    if os.geteuid() != 0 or not shutil.which("ip") or not os.path.exists("/dev/net/tun"):
        pytest.skip("a network of its own wants root, iproute2 and /dev/net/tun")
    n = ends(Lossy())
    if n.why:
        pytest.skip(f"no network of its own here: {n.why}")
    return n


@pytest.fixture
def redis(net, tmp_path, ends):
    s = redisd.Server(tmp_path, settings=[f"bind {HERE}"])
    s.preexec = net.enter
    s.address = s.path      # the test is outside
    return ends(s)


def agent_of(run, net, redis, rate, **more):
    a = run(rules=rule(rate=rate), preexec=net.enter,
            top=redisd.group(f"{THERE}:{redis.port}", on_failure="closed", **more))
    until(lambda: a.check(user="settle", cost=0)["reason"] == "ok", "Redis")
    return a


@pytest.mark.parametrize("loss", [0.02, 0.1])
def test_what_is_sent_again_is_charged_once(run, net, redis, loss):
    some = [agent_of(run, net, redis, f"500/{LONG}", timeout="5s") for _ in range(2)]
    net.loss = loss
    answers = hammer(some, lambda n: [message("check", {"user": "u"})] * 150, 3, 20)
    net.loss = 0.0
    assert net.lost > 0, "nothing was lost: this shows nothing"
    assert len(answers) == 900
    late = sum(a["reason"] == "degraded" for a in answers)
    # One that came too late may have been charged, and was denied.
    assert 500 - late <= admitted(answers) <= 500
    assert late <= 450, "most of it comes in time"


@pytest.mark.parametrize("loss", [0.1, 0.3, 1.0])
def test_nobody_waits_for_what_is_lost(run, net, redis, loss):
    a = agent_of(run, net, redis, f"1000000/{LONG}", timeout="50ms")
    with Asker(a, {"user": "u"}) as asker:
        until(lambda: asker.reasons()["ok"] >= 50, "Redis")
        net.loss = loss
        began = time.monotonic()
        until(lambda: net.lost >= 5 and time.monotonic() - began > 3, "some to be lost")
        net.loss = 0.0
        over = time.monotonic()
        until(lambda: asker.since(over) and asker.got[-1][2]["reason"] == "ok", "Redis")
        until(lambda: asker.reasons(over)["ok"] >= 50, "Redis to stay")
    meanwhile = [x for x in asker.got if began <= x[0] <= over]
    assert max(seconds for _, seconds, _ in asker.got) < 0.05 + NOISE
    assert {x["reason"] for _, _, x in meanwhile} <= {"ok", "degraded"}
    # It goes on: what takes 50 ms each, and no more, makes at least so many in that time.
    assert len(meanwhile) >= (over - began) / (0.05 + NOISE)
    assert sum(x["reason"] == "degraded" for _, _, x in meanwhile) > 0
