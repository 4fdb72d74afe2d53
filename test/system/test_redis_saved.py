"""Redis with the files of conf/examples/two-nodes is killed, or stopped, and started again: all that the
agents have there is read back, although nobody may log in as the user `default`."""

import json
import re
import signal
import time

import pytest

import agent as agents
import redisd
from agent import ROOT, until
from test_admin import Admin
from test_admin_changes import JSON, override
from test_limits import rule, rules

EXAMPLE = ROOT / "conf/examples/two-nodes"
# All that a script may write: buckets, windows, blocks of a lease, keys that end meanwhile.
RULES = rules(rule("api", '[ "user" ]', "10/hour", lease="0.2"),
              rule("all", "[]", "1000/day", algorithm='"fixed-window"'),
              rule("slide", '[ "user" ]', "1000/hour", algorithm='"sliding-window"', count_denied="true"),
              rule("short", '[ "user" ]', "5/second", match='{ path = "/short"; }')) + ''',
{ name = "login"; match = { path = "/login"; }; per = [ "ip" ]; rate = "1/day";
  penalty = { after = "2/1m"; ban = "10m"; }; }'''

READ = {"string": lambda c, key: c("GET", key),
        "hash": lambda c, key: dict(zip(*[iter(c("HGETALL", key))] * 2)),
        "stream": lambda c, key: c("XRANGE", key, "-", "+")}

if agents.BACKEND == "redis":
    pytest.skip("has a Redis of its own, whatever the others use", allow_module_level=True)


class Saved(redisd.Server):
    """As the example's README makes it: its redis.conf and users.acl, the passwords filled in."""

    def __init__(self, directory, name, replica_of=None):
        folder = directory / name
        folder.mkdir()
        super().__init__(folder, name)
        text = (EXAMPLE / "redis.conf").read_text().replace("THIS", "127.0.0.1")
        text = text.replace("port 6379", f"port {self.port}").replace("SERVER-PASSWORD", "s-secret")
        if replica_of:
            text = text.replace("# replicaof 127.0.0.1 6379", f"replicaof 127.0.0.1 {replica_of.port}")
        self.conf.write_text(text)
        users = (EXAMPLE / "users.acl").read_text().replace("SERVER-PASSWORD", "s-secret")
        users = users.replace("ADMIN-PASSWORD", redisd.ADMIN).replace(
            "AGENT-PASSWORD", redisd.PASSWORD)
        (folder / "users.acl").write_text(users)

    def client(self, **kw):
        return super().client(**{"user": "admin", **kw})

    def data(self):
        """What is there, and how long it will be, but for what ends soon: key -> (value, ends at)."""
        found = {}
        with self.client() as c:
            for key in self.keys():
                ends = c("PEXPIRETIME", key)
                if ends == -1 or ends > time.time() * 1000 + 60_000:
                    found[key] = (READ[c("TYPE", key)](c, key), ends)
        return found

    def written(self):
        """All of it handed to the system; only a machine that dies would lose it."""
        return int(self.info("persistence")["aof_buffer_length"]) == 0

    def wrong(self):
        return [x for x in self.stdout.splitlines() if " # " in x and "overcommit" not in x.lower()
                and re.search(r"(?i)error|noperm|denied|fail|acl", x)]


def use(run, folder, redis):
    """Charges, an override, one that is taken back, a switch, a reset, a ban, and keys that end."""
    folder.mkdir()
    admin = Admin(run, folder, rules=RULES, top=redis.group())
    a = admin.agent
    for _ in range(12):
        a.check(user="u")
    assert a.check(user="u")["reason"] == "limited"
    override(admin, user="alice", bypass=True, **{"for": "10m"})
    override(admin, user="bob", tier="gold")
    override(admin, "DELETE", user="bob")
    headers = {**JSON, "Authorization": f"Bearer {admin.token}"}
    for method, path, body in (
            ("PUT", "enabled", {"rule": "slide", "mode": "shadow", "for": "10m"}),
            ("POST", "reset", {"fields": {"user": "v"}})):
        got = admin.ask(f"/api/v1/{path}", method, headers=headers, body=json.dumps(body))
        assert got.status == 200, got
    until(lambda: a.check(ip="10.0.0.1", path="/login")["reason"] == "banned")
    # A key that has ended, and that a script comes upon: it is deleted in the script's own block.
    for _ in range(3):
        a.check(user="v", path="/short")
        time.sleep(2.1)
        a.check(user="v", path="/short")
    redis("HSET", "rl:tiers", "carol", "gold")
    until(lambda: redis("HLEN", "rl:{changes}") >= 2)
    return admin


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_all_is_read_back(run, tmp_path, ends, how):
    master = ends(Saved(tmp_path, "one"))
    replica = ends(Saved(tmp_path, "two", replica_of=master))
    until(lambda: replica.info("replication").get("master_link_status") == "up")
    admin = use(run, tmp_path / "n", master)
    assert admin.agent.stop() == 0      # so that it puts nothing again by itself
    had = master.data()
    until(lambda: replica.data() == had, "the replica to have it all", 5)
    assert {k.split(":")[1] for k in had} >= {"2", "{changes}", "tiers"} and len(had) >= 8, had
    assert master.denied() == [] and replica.denied() == []

    for redis in (replica, master):
        until(redis.written)
        redis.send_signal(how)
        redis.wait()
    for redis in (master, replica):
        redis.start()
        until(lambda r=redis: r.info("persistence").get("loading") == "0")
    assert master.data() == had
    until(lambda: replica.info("replication").get("master_link_status") == "up")
    assert replica.data() == had
    for redis in (master, replica):
        assert redis.denied() == [] and redis.wrong() == [], redis.stdout
    again = Admin(run, tmp_path / "n", rules=RULES, top=master.group(), name="again")
    until(lambda: again.agent.check(user="alice")["reason"] == "bypassed")
    assert again.agent.check(user="u")["reason"] == "limited"


def test_the_one_that_is_read_back_as_is_off(tmp_path, ends):
    redis = ends(Saved(tmp_path, "one"))
    for password in (None, "", "x"):
        with pytest.raises(redisd.ReplyError):
            with redisd.Client(redis.address, password=password, user="default") as c:
                c("SET", "k", "v")
    assert redis.keys() == []
