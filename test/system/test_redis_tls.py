"""TLS to Redis: who is at the other end is verified, what is wrong is said, and no worker waits for a
handshake. A build without TLS says so."""

import re
import socket
import subprocess
import threading
import time

import pytest

import redisd
from agent import check_file, config, execute, free_port, until
from redisd import Asker, admitted, hammer
from spop import message
from test_admin import Admin
from test_admin_changes import change
from test_limits import rule, rules
from test_redis_away import LONG, NOISE, said

HAS = "TLS to Redis: no" not in execute("-vv").stdout
with_tls = pytest.mark.skipif(not HAS, reason="this agent is built without TLS")
without_tls = pytest.mark.skipif(HAS, reason="this agent is built with TLS")


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return redisd.Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Who signs as well, but for others."""
    return redisd.Authority(tmp_path_factory.mktemp("other"), "stranger")


class Secured(redisd.Server):
    """With a plain port for the test, and one with TLS for agents."""

    def __init__(self, directory, by, pair, *, name="redis", clients="no", **kw):
        self.tls_port = free_port()
        self.where = f"127.0.0.1:{self.tls_port}"
        super().__init__(directory, name, settings=by.settings(self.tls_port, pair, clients), **kw)


def group(where, ca, **more):
    return redisd.group(where, **{"tls": True, "tls_ca": ca.path, "timeout": "200ms",
                                  "on_failure": "closed", **more})


@pytest.fixture
def server(tmp_path, ends, ca):
    return ends(Secured(tmp_path, ca, ca.sign("server")))


# --- a build without it ----------------------------------------------------------------------

@without_tls
def test_asked_for_where_there_is_none(tmp_path):
    path = tmp_path / "c.cfg"
    path.write_text('store: { backend = "redis"; };\nredis: {\n  tls = true;\n};\n')
    for asked in (check_file(path), execute("-f", path)):
        assert asked.status == 1
        line, = asked.stderr.splitlines()
        assert line.startswith(f"{path}:3: redis.tls = true: this build has no TLS"), line
        assert "Debian 13" in line and "stunnel" in line


# --- with it ---------------------------------------------------------------------------------

@with_tls
def test_agents_admit_together_exactly_the_limit(run, server, ca):
    some = [run(rules=rule(rate=f"500/{LONG}"), top=group(server.where, ca, timeout="2s"))
            for _ in range(3)]
    answers = hammer(some, lambda n: [message("check", {"user": "u"})] * 100)
    assert len(answers) == 900 and admitted(answers) == 500
    assert {a["reason"] for a in answers} == {"ok", "limited"}
    assert server.denied() == []
    # Through the port that has TLS, and no other.
    theirs = [x for x in server("CLIENT", "LIST").decode().splitlines() if f"user={redisd.USER}" in x]
    assert theirs and all(f"laddr={server.where}" in x for x in theirs)


@with_tls
def test_large_calls(run, server, ca):
    """More than a record of TLS holds, there and back."""
    a = run(rules=rule(rate=f"100000/{LONG}"), top=group(server.where, ca, timeout="2s"),
            agent="threads = 1;")
    answers = hammer([a], lambda n: [message("check", {"user": f"u{n}-{i}"}) for i in range(3000)],
                     2, 400)
    assert len(answers) == 6000 and admitted(answers) == 6000
    assert {a["reason"] for a in answers} == {"ok"}


@with_tls
@pytest.mark.parametrize("names, host, more", [
    ("IP:127.0.0.1", "127.0.0.1", {}),
    ("DNS:localhost", "localhost", {}),
    ("DNS:redis.example", "127.0.0.1", {"tls_name": "redis.example"}),
    ("DNS:*.redis.example", "localhost", {"tls_name": "a.redis.example"}),
    ("IP:192.0.2.1", "localhost", {"tls_name": "192.0.2.1"}),
], ids=["address", "name", "name set", "wildcard", "address set"])
def test_names(run, tmp_path, ends, ca, names, host, more):
    s = ends(Secured(tmp_path, ca, ca.sign("named", names)))
    a = run(rules=rule(), top=group(f"{host}:{s.tls_port}", ca, **more))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")


SELF = "set redis.tls_ca to the certificate of who signed it"


def refused(agent, why, hint):
    line = until(lambda: said(agent, "store_degraded"), "a line in the log")[0]
    assert why in line and hint in line, agent.stderr
    assert agent.check(user="u")["reason"] == "degraded"


@with_tls
@pytest.mark.parametrize("names, host, more, why", [
    ("IP:127.0.0.2", "127.0.0.1", {}, "IP address mismatch"),
    ("DNS:localhost", "127.0.0.1", {}, "IP address mismatch"),
    ("IP:127.0.0.1", "localhost", {}, "hostname mismatch"),
    ("IP:127.0.0.1,DNS:localhost", "localhost", {"tls_name": "redis.example"}, "hostname mismatch"),
    ("DNS:a*.redis.example", "localhost", {"tls_name": "ab.redis.example"}, "hostname mismatch"),
], ids=["another address", "a name for an address", "an address for a name", "name set", "half a wildcard"])
def test_other_names(run, tmp_path, ends, ca, names, host, more, why):
    s = ends(Secured(tmp_path, ca, ca.sign("named", names)))
    a = run(rules=rule(), top=group(f"{host}:{s.tls_port}", ca, **more))
    refused(a, "its certificate is refused: " + why, "set redis.tls_name to a name that is in it")
    assert not [x for x in s.calls() if x.startswith("script")], "who is not known is told nothing"


@with_tls
def test_who_signed(run, tmp_path, ends, ca, stranger):
    s = ends(Secured(tmp_path, stranger, stranger.sign("server")))
    refused(run(rules=rule(), top=group(s.where, ca)), "its certificate is refused: ", SELF)
    # Nobody's word but the system's.
    refused(run(rules=rule(), top=redisd.group(s.where, tls=True, on_failure="closed")),
            "its certificate is refused: ", SELF)
    # Its own word counts for nothing.
    own = stranger.make("own", "-addext", "subjectAltName=IP:127.0.0.1")
    t = ends(Secured(tmp_path, stranger, own, name="own"))
    refused(run(rules=rule(), top=group(t.where, ca)), "its certificate is refused: self-signed", SELF)
    # Any of several.
    both = tmp_path / "both.pem"
    both.write_text(ca.path.read_text() + stranger.path.read_text())
    a = run(rules=rule(), top=redisd.group(s.where, tls=True, tls_ca=both, on_failure="closed"))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")
    assert s.denied() == []


@with_tls
def test_a_certificate_of_ours(run, tmp_path, ends, ca, stranger):
    s = ends(Secured(tmp_path, ca, ca.sign("server"), clients="yes"))
    pair = ca.sign("agent", "DNS:agent.example")
    a = run(rules=rule(), top=group(s.where, ca, tls_cert=pair[0], tls_key=pair[1]))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")
    refused(run(rules=rule(), top=group(s.where, ca)), "certificate required",
            "set redis.tls_cert and redis.tls_key")
    pair = stranger.sign("agent", "DNS:agent.example")
    refused(run(rules=rule(), top=group(s.where, ca, tls_cert=pair[0], tls_key=pair[1])),
            "unknown ca", "it does not know who signed redis.tls_cert")


@with_tls
def test_a_port_without_tls(run, server, ca):
    a = run(rules=rule(), top=group(f"127.0.0.1:{server.port}", ca))
    until(lambda: said(a, "store_degraded"), "a line in the log")
    assert "speak" in said(a, "store_degraded")[0], a.stderr
    assert a.check(user="u")["reason"] == "degraded"


@with_tls
def test_sni(run, ca):
    """The name is asked for; an address never is."""
    for name, there in (("redis.example", True), ("192.0.2.1", False)):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            run(rules=rule(), top=group(f"127.0.0.1:{port}", ca, tls_name=name), ready=False)
            listener.settimeout(20)
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(20)
                hello = peer.recv(4096)
            assert hello[:2] == b"\x16\x03" and (name.encode() in hello) is there, hello


@with_tls
def test_files_that_are_none(tmp_path, ca, stranger):
    """What a check of the configuration cannot see ends the start, with a reason."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    mine, key = ca.sign("agent", "DNS:agent.example")
    _, other = stranger.sign("agent", "DNS:agent.example")
    locked = tmp_path / "locked.key"
    subprocess.run([redisd.OPENSSL, "pkcs8", "-topk8", "-in", key, "-out", locked, "-passout",
                           "pass:secret"], check=True, stdin=subprocess.DEVNULL)
    for setting, more in (("tls_ca", {"tls_ca": empty}),
                          ("tls_cert", {"tls_cert": empty, "tls_key": key}),
                          ("tls_key", {"tls_cert": mine, "tls_key": empty}),
                          ("tls_key", {"tls_cert": mine, "tls_key": other}),
                          ("tls_key", {"tls_cert": mine, "tls_key": locked})):
        path = tmp_path / "c.cfg"
        path.write_text(config(str(tmp_path / "s"), rule(), "", group("127.0.0.1:1", ca, **more)))
        assert check_file(path).status == 0
        started = execute("-f", path)
        assert started.status == 2, started
        assert f"spoa-ratelimit: redis.{setting} = \"{more[setting]}\": " in started.stderr, started


@with_tls
def test_certificates_are_read_again_at_a_reload(run, tmp_path, ends, ca, stranger):
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(ca.path.read_text())
    files = [tmp_path / "server.pem", tmp_path / "server.key"]
    s = Secured(tmp_path, ca, files)

    def certify(by):
        for to, made in zip(files, by.sign("server")):
            to.write_bytes(made.read_bytes())
    certify(ca)
    ends(s)
    a = run(rules=rule(), top=redisd.group(s.where, tls=True, tls_ca=trusted, on_failure="closed"))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")
    # Another authority, from one day to the next.
    s.kill()
    certify(stranger)
    s.start()
    until(lambda: a.check(user="u", cost=0)["reason"] == "degraded", "a refusal")
    trusted.write_text("nothing\n")
    a.reload(lambda: said(a, "reload_refused"), "a refusal")
    assert "redis.tls_ca" in said(a, "reload_refused")[0]
    trusted.write_text(stranger.path.read_text())
    a.reload(lambda: said(a, " reloaded "), "a reload")
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")


# --- sentinels -------------------------------------------------------------------------------

@with_tls
def test_a_file_that_is_missing_refuses_no_switch(run, tmp_path, server, ca):
    """Only a reload looks for it; what operators change is put upon what holds."""
    mine = tmp_path / "ca.pem"
    mine.write_text(ca.path.read_text())
    admin = Admin(run, tmp_path, rules=rule(), top=redisd.group(server.where, tls=True, tls_ca=mine))
    mine.unlink()
    change(admin, "/api/v1/enabled", enabled=False)
    until(lambda: admin.agent.check(user="u")["reason"] == "disabled", "the switch")


@with_tls
def test_sentinels(run, tmp_path, ends, ca):
    """All of it: what is asked, what is pushed, the master and its successor."""
    s = ends(redisd.Sentinels(tmp_path, ca=ca))
    a = run(rules=rule(rate=f"100/{LONG}"), top=s.group(
        tls=True, tls_ca=ca.path, timeout="200ms", on_failure="closed"))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "the master")
    assert a.check(user="u")["remaining"] == 99
    old = s.master()
    old.kill()
    s.failed_over(old)
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "the new master")
    assert a.check(user="u")["remaining"] in (98, 99)
    assert not said(a, "redis_sentinel_away"), a.stderr


@with_tls
def test_sentinels_of_somebody_else(run, tmp_path, ends, ca, stranger):
    s = ends(redisd.Sentinels(tmp_path, replicas=0, sentinels=1, ca=stranger))
    a = run(rules=rule(), top=s.group(tls=True, tls_ca=ca.path, on_failure="closed"))
    line = until(lambda: said(a, "redis_sentinel_away"), "a line in the log")[0]
    assert "its certificate is refused" in line and SELF in line
    assert a.check(user="u")["reason"] == "degraded"


# --- clusters --------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(tmp_path_factory, ca):
    if not HAS:
        pytest.skip("this agent is built without TLS")
    c = redisd.Cluster(tmp_path_factory.mktemp("c"), ca=ca)
    try:
        yield c.start()
    finally:
        c.finish()


@pytest.fixture
def cluster(whole):
    for n in whole.nodes:
        n("FLUSHALL")
    return whole


@with_tls
def test_cluster(run, cluster):
    """Whoever is told of, by the first or by MOVED, is told of by the port that has TLS."""
    some = [run(rules=rule(rate=f"300/{LONG}"), top=redisd.group(
        cluster.where(n), mode="cluster", tls=True, tls_ca=cluster.ca.path, on_failure="closed"))
            for n in cluster.nodes]
    answers = hammer(some, lambda n: [message("check", {"user": f"u{i % 20}"}) for i in range(1000)])
    assert admitted(answers) == 20 * 300
    assert {a["reason"] for a in answers} == {"ok", "limited"}
    assert all(n.keys() and not n.denied() for n in cluster.nodes)
    for n in cluster.nodes:
        theirs = [x for x in n("CLIENT", "LIST").decode().splitlines() if f"user={redisd.USER}" in x]
        assert theirs and all(f"laddr={cluster.where(n)}" in x for x in theirs)


@with_tls
def test_limits_on_several_nodes_of_a_cluster(run, cluster):
    text = rules(rule("user", rate=f"400/{LONG}"), rule("all", per="[]", rate=f"500/{LONG}"))
    some = [run(rules=text, top=cluster.group()) for _ in range(2)]
    answers = hammer(some, lambda n: [message("check", {"user": f"u{i % 3}"}) for i in range(300)], 2)
    more = hammer(some[:1], lambda n: [message("check", {"user": f"u{i % 3}"}) for i in range(300)], 1)
    assert 490 <= admitted(answers) + admitted(more) <= 500


@with_tls
def test_a_slot_of_a_cluster_moves_under_load(run, cluster):
    """ASK and MOVED, too, name the port that has TLS."""
    a = run(rules=rule(rate=f"1500/{LONG}"), top=cluster.group(on_failure="closed"))
    assert a.check(user="u")["reason"] == "ok"
    slot = cluster.slot(cluster.keys()[0])
    over = threading.Event()
    moved = []

    def move():
        while not over.is_set():
            to = next(n for n in cluster.nodes if n is not cluster.owner(slot))
            cluster.migrate(slot, to, 0.02)
            moved.append(to)
    t = threading.Thread(target=move)
    t.start()
    try:
        answers = hammer([a], lambda n: [message("check", {"user": "u"})] * 1000, 2)
    finally:
        over.set()
        t.join()
    assert moved and admitted(answers) + 1 == 1500
    assert {x["reason"] for x in answers} == {"ok", "limited"}


@with_tls
def test_a_replica_takes_over_in_a_cluster(run, tmp_path, ends, ca):
    c = ends(redisd.Cluster(tmp_path, ca=ca))
    c.replica(c.nodes[0])
    a = run(rules=rule(), top=c.group(on_failure="closed"))
    users = [f"u{i}" for i in range(30)]
    until(lambda: all(a.check(user=u, cost=0)["reason"] == "ok" for u in users), "all nodes")
    c.nodes[0].kill()
    until(lambda: any(a.check(user=u, cost=0)["reason"] == "degraded" for u in users), "its absence")
    until(lambda: all(a.check(user=u, cost=0)["reason"] == "ok" for u in users), "the replica")


@with_tls
def test_a_node_with_a_certificate_for_another(run, tmp_path, ends, ca):
    """Of a cluster as well, each node has to show that it is who was to be asked: it alone is not."""
    c = ends(redisd.Cluster(tmp_path, ca=ca, names={2: "DNS:other.example"}))
    a = run(rules=rule(), top=c.group(on_failure="closed"))
    line = until(lambda: [x for x in said(a, "store_degraded") if "certificate" in x],
                 "a line in the log")[0]
    assert "its certificate is refused" in line and c.where(c.nodes[2]) in line, line
    reasons = {a.check(user=f"u{i}", cost=0)["reason"] for i in range(60)}
    assert reasons == {"ok", "degraded"}
    assert "evalsha" not in c.nodes[2].calls(), "it is told nothing"


# --- what is at the other end does not do its part -------------------------------------------

@pytest.fixture
def wire(server, ends):
    return ends(redisd.Proxy(("127.0.0.1", server.tls_port)))


@with_tls
@pytest.mark.parametrize("mode", ["hang", "drop", "mute", "garbage", "cut"])
def test_a_handshake_that_does_not_end(run, ca, wire, mode):
    """No worker waits for it: checks are answered at once, and all is well once it is."""
    wire.set(mode)
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire.address, ca, timeout="50ms"))
    with Asker(a, {"user": "u"}) as asker:
        until(lambda: said(a, "store_degraded"), "a line in the log")
        time.sleep(0.5)
        wire.set("pass")
        until(lambda: asker.got and asker.got[-1][2]["reason"] == "ok", "Redis")
        wire.set(mode)
        wire.cut()
        until(lambda: asker.got and asker.got[-1][2]["reason"] == "degraded", "the failure policy")
        wire.set("pass")
        until(lambda: asker.got and asker.got[-1][2]["reason"] == "ok", "Redis")
    took = [seconds for _, seconds, _ in asker.got]
    assert max(took) < 0.05 + NOISE and sorted(took)[len(took) // 2] < 0.05, max(took)


@with_tls
def test_slow_and_in_pieces(run, ca, wire):
    wire.set("pass", 0.02)
    a = run(rules=rule(rate=f"100/{LONG}"), top=group(wire.address, ca, timeout="2s"))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")
    answers = hammer([a], lambda n: [message("check", {"user": "u"})] * 100, 3)
    assert admitted(answers) == 100


@with_tls
def test_an_open_connection_that_is_lied_to(run, ca, wire):
    """Bytes that are not the server's end the connection, and nothing worse."""
    a = run(rules=rule(rate=f"1000000/{LONG}"), top=group(wire.address, ca))
    until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")
    for _ in range(5):
        wire.set("garbage")
        until(lambda: a.check(user="u", cost=0)["reason"] == "degraded", "the failure policy")
        wire.set("pass")
        until(lambda: a.check(user="u", cost=0)["reason"] == "ok", "Redis")
    assert not re.search("error:[0-9A-F]", a.stderr)
