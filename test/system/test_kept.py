"""What the admin interface has answered is on disk: it is there after a kill -9, whatever the state file's
own time is; and a disk that takes nothing is told of, and takes nothing else away."""

import hashlib
import json
import os
import pathlib
import re
import resource
import signal

import pytest

import agent as agents
from agent import config, execute, until
from test_admin import BEARER, Admin
from test_admin_changes import JSON, audit, change, override, passed, served
from test_ctl import call
from test_penalty import login, use_up

pytestmark = pytest.mark.skipif(agents.BACKEND != "memory", reason="the state file is the memory store's")

RULES = '''
{ name = "api"; per = [ "user" ]; rate = { gold = "9/day"; default = "3/day"; }; algorithm = "fixed-window"; },
{ name = "ip"; per = [ "ip" ]; rate = "4/day"; match = { path = "!/login"; }; },
{ name = "login"; match = { path = "/login"; }; per = [ "ip" ]; rate = "2/day";
  penalty = { after = "3/1m"; ban = "1h"; }; }
'''


class Kept(Admin):
    """With a state file that is not written by itself while it runs."""

    def __init__(self, run, tmp_path, interval="0s", **kw):
        self.interval = interval
        self.folder = tmp_path / "state.d"
        self.folder.mkdir()
        self.state = self.folder / "state"
        self.changes = pathlib.Path(f"{self.state}.changes")
        super().__init__(run, tmp_path, rules=RULES, **kw, top=self.store())

    def store(self):
        return f'store: {{ state_file = "{self.state}"; state_interval = "{self.interval}"; }};'

    def kill(self):
        self.agent.forget()
        self.agent.kill()

    def start(self):
        self.agent.start()
        self.agent.await_admin(self.socket)
        until(self.answers)

    def answers(self):
        try:
            return self.ask("/readyz").status == 200
        except OSError:
            return False

    def overrides(self):
        return [o["user"] for o in self.ask("/api/v1/overrides").json["overrides"]]


@pytest.fixture
def kept(run, tmp_path):
    return Kept(run, tmp_path)


def test_what_was_answered_survives_a_kill(kept):
    for i in range(8):
        override(kept, user=f"u{i}", bypass=True)
        if i % 2:
            override(kept, "DELETE", user=f"u{i - 1}")
        kept.kill()
        kept.start()
        want = [f"u{k}" for k in range(i + 1) if k % 2 or k == i]
        assert kept.overrides() == want, i
    served(kept, "bypassed", user="u7")
    change(kept, "/api/v1/enabled", mode="off", rule="ip")
    kept.kill()
    kept.start()
    assert [s["rule"] for s in kept.ask("/api/v1/enabled").json["switches"]] == ["ip"]


def test_resets_survive_a_kill(kept):
    """Of a rule: its counters are other ones. Of a client: the state file has them as they were."""
    assert passed(kept, 5, user="alice", ip="10.0.0.1")[0] == 3
    assert passed(kept, 5, user="bob")[0] == 3
    assert passed(kept, 5, ip="10.0.0.2")[0] == 4
    assert kept.agent.stop() == 0   # the state file has them
    kept.start()
    assert passed(kept, 1, user="alice")[0] == 0
    change(kept, "/api/v1/reset", "POST", fields={"user": "alice", "path": "/"})
    change(kept, "/api/v1/reset", "POST", rule="ip")
    kept.kill()
    kept.start()
    assert passed(kept, 1, user="bob")[0] == 0
    assert passed(kept, 5, user="alice")[0] == 3
    assert passed(kept, 5, ip="10.0.0.2")[0] == 4
    # what is counted after the reset is not forgotten by it, once the state file has that
    assert kept.agent.stop() == 0
    kept.start()
    assert passed(kept, 1, user="alice")[0] == 0
    kept.kill()
    kept.start()
    assert passed(kept, 1, user="alice")[0] == 0


def test_a_lift_survives_a_kill(kept):
    def ban(ip):
        use_up(kept.agent, ip, 3)
        until(lambda: login(kept.agent, ip)["reason"] == "banned")

    ban("10.0.0.1")
    ban("10.0.0.2")
    until(lambda: len(kept.ask("/api/v1/bans").json["bans"]) == 2)
    until(lambda: len([x for x in audit(kept) if "what=ban" in x]) == 2)
    one = next(b for b in kept.ask("/api/v1/bans").json["bans"] if "10.0.0.1" in b["client"])
    change(kept, "/api/v1/bans", "DELETE", id=one["id"])
    kept.kill()
    kept.start()
    assert ["10.0.0.2" in b["client"] for b in kept.ask("/api/v1/bans").json["bans"]] == [True]
    assert login(kept.agent, "10.0.0.2")["reason"] == "banned"
    assert login(kept.agent, "10.0.0.1", cost=0)["reason"] == "ok"


def test_the_state_file_is_not_written_for_a_change(kept):
    until(kept.state.exists)
    before = kept.state.stat()
    for i in range(20):
        override(kept, user=f"u{i}", bypass=True)
    assert b"override:user:u19" in kept.changes.read_bytes()
    assert kept.changes.stat().st_mode & 0o777 == 0o600
    after = kept.state.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_the_audit_line_comes_when_it_is_kept(kept):
    override(kept, user="a", bypass=True, reason="ticket 9")
    line, = until(lambda: audit(kept))
    assert "ticket 9" in line and "not_kept" not in line


def limit_files(a, n):
    """No file grows beyond n bytes (-1: any may): as a disk that is full."""
    resource.prlimit(a.agent.pid, resource.RLIMIT_FSIZE, (n, -1))


def test_a_full_disk_is_told_of(run, tmp_path):
    a = Kept(run, tmp_path, preexec=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
    override(a, user="first", bypass=True)
    limit_files(a, 64)
    told = override(a, user="second", bypass=True)
    assert "not on disk" in told["warnings"][0] and "changes" in told["warnings"][0], told
    served(a, "bypassed", user="second")
    assert "not on disk" in change(a, "/api/v1/enabled", mode="off", rule="ip")["warnings"][0]
    assert a.overrides() == ["first", "second"]
    limit_files(a, -1)
    assert "warnings" not in override(a, user="third", bypass=True)
    a.kill()
    a.start()
    assert a.overrides() == ["first", "second", "third"]
    assert [s["rule"] for s in a.ask("/api/v1/enabled").json["switches"]] == ["ip"]


def test_a_disk_that_has_room_again_gets_it_by_itself(run, tmp_path):
    a = Kept(run, tmp_path, preexec=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
    limit_files(a, 64)
    assert "warnings" in override(a, user="one", bypass=True)
    limit_files(a, -1)
    until(lambda: "changes_kept" in a.agent.stderr)
    a.kill()
    a.start()
    assert a.overrides() == ["one"]


def test_a_disk_that_has_room_again_gets_it_at_a_stop(run, tmp_path):
    """Though the next time for that has not come."""
    a = Kept(run, tmp_path, preexec=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
    limit_files(a, 64)
    assert "warnings" in override(a, user="one", bypass=True)
    limit_files(a, -1)
    assert a.agent.stop() == 0, a.agent.stderr
    a.start()
    assert a.overrides() == ["one"]


def up(a):
    return a.samples()[1]["ratelimit_state_file_up", ()]


def test_a_state_file_that_cannot_be_written_is_seen(run, tmp_path):
    """By who looks at status, by Prometheus, and by who sees how the stop ended."""
    a = Kept(run, tmp_path, interval="1s")

    def state_file():
        return a.ask("/api/v1/status").json["store"]["state_file"]
    assert state_file() == {"file": str(a.state), "state": "well"}
    assert up(a) == 1
    (a.folder / "state.tmp").mkdir()    # a file of that name cannot be made
    bad = until(lambda: state_file()["state"] == "not written" and state_file())
    assert "state.tmp: cannot create: " in bad["reason"] and bad["since"] > 0, bad
    assert up(a) == 0 and a.ask("/readyz").status == 200
    told = call("status", "--socket", a.socket).stdout
    assert re.search("(?m)^state file +NOT WRITTEN since .*state.tmp: cannot create", told), told
    assert a.agent.stop() == 3
    lost = [x for x in a.agent.lines() if " error state_lost " in x]
    assert len(lost) == 1 and str(a.state) in lost[0] and "cannot create" in lost[0], a.agent.stderr


def test_a_state_file_without_room_is_told_at_the_start(tmp_path):
    path = tmp_path / "x.cfg"
    path.write_text(config(str(tmp_path / "s.sock"), "", top=f'store: {{ state_file = "{tmp_path}/state"; }};'))

    def full():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
    r = execute("-f", path, preexec=full)
    assert r.status == 2 and f"{tmp_path}/state.tmp: cannot write: File too large" in r.stderr, r
    assert "make room" in r.stderr and "see the log" not in r.stderr, r


def test_a_damaged_file_is_set_aside_and_what_can_be_read_holds(kept):
    for user in ("one", "two"):
        override(kept, user=user, bypass=True)
    kept.kill()
    path = kept.changes
    bad = bytearray(path.read_bytes())
    bad[-5] ^= 1
    path.write_bytes(bad)
    kept.start()
    assert kept.overrides() == ["one"]
    aside, = [p for p in kept.folder.iterdir() if ".bad-" in p.name]
    assert aside.read_bytes() == bad
    until(lambda: aside.name in kept.agent.stderr)   # the log has a thread of its own
    kept.kill()
    kept.start()
    assert kept.overrides() == ["one"]


def test_changes_outlive_the_counters(kept):
    """Another state file has another key: bans and resets are of counters that are no more."""
    override(kept, user="vip", bypass=True)
    use_up(kept.agent, "10.0.0.1", 3)
    # Nobody waits for an answer to a ban: it is on disk a moment later.
    until(lambda: b"ban:" in kept.changes.read_bytes())
    kept.kill()
    kept.state.unlink()
    kept.start()
    assert kept.overrides() == ["vip"]
    assert kept.ask("/api/v1/bans").json["count"] == 0
    until(lambda: "bans_lost" in kept.agent.stderr)


def test_a_folder_that_was_cleared_away_is_told_and_written_anew(kept):
    """What is written to a file that has no name any more, no start ever reads."""
    override(kept, user="first", bypass=True)
    for path in kept.folder.iterdir():
        path.unlink()
    kept.folder.rmdir()
    kept.folder.mkdir()
    override(kept, user="second", bypass=True)
    until(lambda: kept.changes.exists() and b"second" in kept.changes.read_bytes())
    kept.kill()
    kept.start()
    assert kept.overrides() == ["first", "second"]


def test_a_place_that_cannot_be_written_is_told_at_the_start(run, tmp_path):
    a = Kept(run, tmp_path)
    a.agent.stop()
    path = a.changes
    path.unlink()
    path.mkdir()
    a.agent.start(ready=False)
    assert a.agent.wait() == 2
    assert "state.changes" in a.agent.stderr


def test_without_a_state_file_nothing_is_written(run, tmp_path):
    a = Admin(run, tmp_path, rules=RULES)
    override(a, user="x", bypass=True)
    until(lambda: audit(a))
    assert not [p for p in tmp_path.iterdir() if "changes" in p.name]


def test_a_secret_user_is_nowhere_in_clear(kept):
    """Also if he was none when the override was made."""
    digest = "sha256:" + hashlib.sha256(b"alice.x").hexdigest()
    override(kept, user="alice.x", tier="gold", reason="ticket 7")
    assert b"alice.x" in kept.changes.read_bytes()
    until(lambda: audit(kept))
    before = len(kept.agent.lines())
    kept.agent.rewrite(RULES, kept.top(kept.store() + 'identity: { secret = [ "key", "user" ]; };'))
    assert kept.ask("/api/v1/reload", "POST", headers={**JSON, **BEARER}).status == 200
    until(lambda: b"alice.x" not in kept.changes.read_bytes())
    until(lambda: kept.agent.check(cost=0, user="alice.x")["tier"] == "gold")
    kept.kill()
    kept.start()
    until(lambda: kept.agent.check(cost=0, user="alice.x")["tier"] == "gold")
    assert kept.agent.check(user=digest)["tier"] != "gold"
    told = override(kept, user="bob.x", block=True)
    served(kept, "blocked", user="bob.x")
    shown = kept.ask("/api/v1/overrides").json["overrides"]
    assert {o["user"] for o in shown} == {digest, told["user"]}
    why = change(kept, "/api/v1/explain", "POST", fields={"user": "alice.x"})
    assert why["override"]["for"] == f"user:{digest}" and why["override"]["reason"] == "ticket 7"
    events = [override(kept, "DELETE", user="alice.x"), override(kept, "DELETE", user=told["user"])]
    served(kept, "ok", user="bob.x")
    until(lambda: len([x for x in audit(kept) if "what=remove" in x]) == 2)
    for text in (json.dumps([told, shown, why, events]), "\n".join(kept.agent.lines()[before:]),
                 kept.changes.read_text("latin1")):
        assert "alice.x" not in text and "bob.x" not in text


def test_who_is_banned_is_nowhere_in_clear(kept):
    """Also if his address was not secret when the ban began: in the list, in the log, on disk."""
    def bans():
        return [(b["id"], b["client"]) for b in kept.ask("/api/v1/bans").json["bans"]]
    use_up(kept.agent, "192.0.2.17", 3)
    (number, client), = until(bans)
    assert client == "ip=192.0.2.17"
    until(lambda: b"192.0.2.17" in kept.changes.read_bytes())
    until(lambda: [x for x in audit(kept) if "what=ban" in x])
    before = len(kept.agent.lines())
    kept.agent.rewrite(RULES, kept.top(kept.store() + 'identity: { secret = [ "key", "ip" ]; };'))
    assert kept.ask("/api/v1/reload", "POST", headers={**JSON, **BEARER}).status == 200
    hidden = "ip=sha256:" + hashlib.sha256(b"192.0.2.17").hexdigest()[:12]
    assert bans() == [(number, hidden)]
    until(lambda: b"192.0.2.17" not in kept.changes.read_bytes())
    kept.kill()
    kept.start()
    assert bans() == [(number, hidden)]
    assert login(kept.agent, "192.0.2.17")["reason"] == "banned"
    change(kept, "/api/v1/bans", "DELETE", id=number)
    until(lambda: [x for x in audit(kept) if "what=lift" in x])
    assert not [x for x in kept.agent.lines()[before:] if " audit " in x and "192.0.2.17" in x]


def test_a_secret_address_is_nowhere_in_clear(kept):
    """Also if it was none when the override was made; by the hash of the prefix as it is written."""
    def digest(text):
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    override(kept, ip="192.0.2.17", block=True, reason="ticket 8")
    override(kept, ip="198.51.100.0/24", bypass=True)
    assert b"192.0.2.17" in kept.changes.read_bytes()
    until(lambda: len(audit(kept)) == 2)
    before = len(kept.agent.lines())
    kept.agent.rewrite(RULES, kept.top(kept.store() + 'identity: { secret = [ "key", "ip" ]; };'))
    assert kept.ask("/api/v1/reload", "POST", headers={**JSON, **BEARER}).status == 200
    until(lambda: not any(x in kept.changes.read_bytes() for x in (b"192.0.2.17", b"198.51.100")))
    kept.kill()
    kept.start()
    for ip, reason in (("192.0.2.17", "blocked"), ("198.51.100.7", "bypassed"), ("192.0.2.18", "ok")):
        until(lambda ip=ip, reason=reason: kept.agent.check(cost=0, user="z", ip=ip)["reason"] == reason)
    told = override(kept, ip="2001:db8::/48", block=True)
    assert told["ip"] == digest("2001:db8::/48") + "/48"
    served(kept, "blocked", user="z", ip="2001:db8:0:1::1")
    shown = kept.ask("/api/v1/overrides").json["overrides"]
    assert {o["ip"] for o in shown} == {
        told["ip"], digest("192.0.2.17") + "/32", digest("198.51.100.0/24") + "/24"}
    why = change(kept, "/api/v1/explain", "POST", fields={"ip": "192.0.2.17", "user": "z"})
    assert why["override"]["for"] == f"ip:{digest('192.0.2.17')}/32"
    assert why["override"]["reason"] == "ticket 8"
    # Away by what it is, or by what is shown.
    events = [override(kept, "DELETE", ip="192.0.2.17"), override(kept, "DELETE", ip=told["ip"])]
    served(kept, "ok", user="y", ip="192.0.2.17")
    until(lambda: len([x for x in audit(kept) if "what=remove" in x]) == 2)
    for text in (json.dumps([told, shown, why["override"], events]), kept.changes.read_text("latin1"),
                 "\n".join(x for x in kept.agent.lines()[before:] if " audit " in x)):
        assert not any(x in text for x in ("192.0.2.17", "198.51.100", "2001:db8"))
