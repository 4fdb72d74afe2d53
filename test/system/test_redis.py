"""Several agents and one Redis: they admit together what one would, and Redis sees no secret."""

import base64
import collections
import hashlib
import re
import signal
import struct
import threading
import time

import pytest

import redisd
from agent import ROOT, config, execute, has_ipv6, until
from redisd import admitted, hammer
from spop import NOTIFY, disconnect, frame, message
from test_limits import DAY, near, rule, rules

# Long enough that nothing refills, and no window ends, while a test runs.
LONG = "300d"
# Asked for in Sentinel mode, or in Cluster mode.
OTHER_MODES = {"role", "cluster|slots", "asking"}
KEY = re.compile(r"rl:2:\{[A-Za-z0-9_-]{3}\}[A-Za-z0-9_-]{22}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    s = redisd.Server(tmp_path_factory.mktemp("r"))
    try:
        yield s.start()
    finally:
        s.finish()


@pytest.fixture
def redis(server):
    """A Redis that is up, empty, and at the test's end was asked nothing but what the agent may."""
    server("FLUSHALL")
    server("ACL", "LOG", "RESET")
    yield server
    assert server.denied() == [], "beyond the ACL"


def used(value):
    """What a token bucket has used, as it stands in Redis."""
    assert len(value) == 28, value
    return struct.unpack_from("<dq", value)[0]


# --- exactly the limit -----------------------------------------------------------------------

@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window", "sliding-window"])
def test_agents_admit_together_exactly_the_limit(run, redis, algorithm, count):
    some = [run(rules=rule(rate=f"500/{LONG}", algorithm=f'"{algorithm}"'), top=redis.group())
            for _ in range(count)]
    answers = hammer(some, lambda n: [message("check", {"user": "u"})] * (900 // (3 * count)))
    assert len(answers) >= 899 and admitted(answers) == 500
    assert {a["reason"] for a in answers} == {"ok", "limited"}
    # Each that was admitted left another number of units: no charge was lost, none done twice.
    left = collections.Counter(a["remaining"] for a in answers if not a["deny"])
    assert left == collections.Counter(range(500))


def test_costs(run, redis):
    some = [run(rules=rule(rate=f"1000/{LONG}"), top=redis.group()) for _ in range(3)]
    costs = [1, 2, 3, 5, 7]
    total = 0
    wrong = []

    def one(agent, n):
        nonlocal total
        with agent.connect() as c:
            got = 0
            for i in range(100):
                cost = costs[(i + n) % 5]
                got += 0 if c.check(user="u", cost=cost)["deny"] else cost
            wrong.append(got)
    threads = [threading.Thread(target=one, args=(a, i)) for i, a in enumerate(some)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    # 1080 are asked for, and a unit that is left is had by somebody who asks for one.
    assert len(wrong) == 3 and sum(wrong) <= 1000
    assert sum(wrong) + some[0].check(user="u", cost=0)["remaining"] == 1000


@pytest.mark.parametrize("count", [1, 3])
def test_three_limits_at_once(run, redis, count):
    """Users within organisations within everything, of three algorithms: whatever the order, what
    is admitted is the same, as the limits are nested."""
    text = rules(rule("user", rate=f"400/{LONG}"),
                 rule("org", per='[ "org" ]', rate=f"700/{LONG}", algorithm='"fixed-window"'),
                 rule("all", per="[]", rate=f"1000/{LONG}", algorithm='"sliding-window"'))
    some = [run(rules=text, top=redis.group()) for _ in range(count)]
    asked = [("u0", "o0"), ("u1", "o0"), ("u2", "o1")]

    def requests(n):
        each = 1350 // (3 * count)
        return [message("check", {"user": u, "org": o, "x": u})
                for u, o in redisd.shuffled((asked * each)[:each], n)]
    answers = hammer(some, requests)
    assert admitted(answers) == 1000
    assert {a["rule"] for a in answers if a["deny"]} <= {"user", "org", "all"}
    used_up = [v for v in (redis("GET", k) for k in redis.keys())]
    assert len(used_up) == 6, "three users, two organisations, and all"


def test_shadow_and_tag_and_count_denied_under_load(run, redis):
    text = rules(rule("dark", rate=f"100/{LONG}", mode='"shadow"'),
                 rule("slow", rate=f"50/{LONG}", action='"tag"', tag='"t"'),
                 rule("counts", per='[ "x" ]', rate=f"300/{LONG}", count_denied="true"),
                 rule("real", rate=f"200/{LONG}"))
    some = [run(rules=text, top=redis.group()) for _ in range(2)]
    answers = hammer(some, lambda n: [message("check", {"user": "u", "x": "x"})] * 50, 5)
    passed = [a for a in answers if not a["deny"]]
    assert len(passed) == 200
    assert sum(a["shadow"] == "dark" for a in passed) == 100
    assert sum(a["tag"] == "t" for a in passed) == 150
    # 200 and, of the 300 that were denied, what was still there.
    answer = some[0].check(x="x", cost=0)
    assert (answer["deny"], answer["remaining"]) == (True, 0)


def test_counters_outlive_the_agents(run, redis):
    a = run(rules=rule(rate=f"10/{LONG}"), top=redis.group())
    for left in (9, 8, 7):
        assert a.check(user="u")["remaining"] == left
    a.restart()
    assert a.check(user="u")["remaining"] == 6
    a.stop()
    b = run(rules=rule(rate=f"20/{LONG}"), top=redis.group())
    assert b.check(user="u")["remaining"] == 15


def test_every_notify_before_the_end_is_answered(run, redis):
    a = run(rules=rule(rate=f"100000/{LONG}"), top=redis.group(), agent='drain = "1s";')
    cs = [a.connect() for _ in range(4)]
    keys = [(c, c.notify(message("check", {"user": "u"}))) for c in cs for _ in range(40)]
    a.send_signal(signal.SIGTERM)
    left = {c.wait(key)["remaining"] for c, key in keys}
    assert len(left) == 160 and min(left) == 100000 - 160
    for c in cs:
        c.close()
    assert a.wait() == 0


def test_peers_that_leave_while_redis_is_asked(run, redis):
    a = run(rules=rule(rate=f"100000/{LONG}"), top=redis.group())
    for _ in range(30):
        with a.connect() as c:
            for _ in range(20):
                c.notify(message("check", {"user": "u"}))
    assert until(lambda: a.check(user="u", cost=0)["remaining"] <= 100000 and a.running)
    assert a.check(user="v")["remaining"] == 99999


@pytest.mark.parametrize("end", [disconnect(), frame(NOTIFY, b"\x05torn", 99, 1)],
                         ids=["disconnect", "malformed"])
def test_what_waits_is_answered_before_the_end(run, redis, end):
    """One ACK for each NOTIFY: an end that follows at once does not cost it, as with memory."""
    a = run(rules=rule(), top=redis.group())
    with a.connect() as c:
        key = c.expect(c.ids())
        c.send(frame(NOTIFY, message("check", {"user": "u"}), *key) + end)
        assert c.wait(key)["remaining"] == 4


# --- what is written -------------------------------------------------------------------------

def test_nothing_is_written_for_what_consumes_nothing(run, redis):
    a = run(rules=rules(rule("r", rate=f"5/{LONG}"),
                        rule("off", per='[ "x" ]', rate="1/day", mode='"off"')), top=redis.group())
    a.check(user="u", cost=0, x="1")
    assert a.check(user="u", cost=6)["reason"] == "oversize"
    a.check(x="1")
    assert redis.keys() == []
    a.check(user="u", cost=5)
    (key,) = redis.keys()
    before = redis("GET", key)
    for _ in range(5):
        assert a.check(user="u")["deny"]
    assert redis("GET", key) == before and redis.keys() == [key]
    assert used(before) == 5


def test_keys_have_prefix_version_and_a_fixed_length(run, redis):
    text = rules(rule(), rule("f", algorithm='"fixed-window"'), rule("g", per="[]"),
                 rule("s", per='[ "user", "path" ]', algorithm='"sliding-window"'))
    a = run(rules=text, top=redis.group())
    a.check(user="u" * 3000, path="/" + "p" * 2000)
    keys = redis.keys()
    assert len(keys) == 4 and all(KEY.fullmatch(k) for k in keys), keys
    assert all(len(redis("GET", k)) == 28 for k in keys)


def test_prefixes_and_secrets_keep_agents_apart(run, tmp_path, ends):
    redis = ends(redisd.Server(tmp_path, keys="*", tiers="*"))
    some = [run(rules=rule(), top=redis.group(**more)) for more in (
        {}, {"prefix": "rl:"}, {"prefix": "other:"}, {"hash_secret": "x"}, {"hash_secret": "x"},
        {"prefix": "other:", "hash_secret": "x"}, {"prefix": ""}, {"db": 3})]
    assert [a.check(user="u")["remaining"] for a in some] == [4, 3, 4, 4, 3, 4, 4, 4]
    assert len(redis.keys()) == 5 and len(redis.keys(db=3)) == 1
    prefixes = collections.Counter(k[:-29] for k in redis.keys())
    assert prefixes == {"rl:": 2, "other:": 2, "": 1}
    # What follows the prefix differs too where the secret comes from it.
    assert len({k[-22:] for k in redis.keys()}) >= 4


def test_keys_of_others_are_left_alone(run, redis):
    redis("SET", "rl:2:" + "x" * 22, "a later release")
    redis("SET", "somebody's", "else")
    a = run(rules=rule(), top=redis.group())
    for _ in range(7):
        a.check(user="u")
    assert redis("GET", "rl:2:" + "x" * 22) == b"a later release"
    assert redis("GET", "somebody's") == b"else" and len(redis.keys()) == 3


@pytest.mark.parametrize("rate, algorithm, cost, least, most", [
    ("10/hour", "token-bucket", 10, 3600, 7200), ("10/hour", "token-bucket", 1, 360, 7200),
    ("10/minute burst 100", "token-bucket", 100, 600, 1200),
    ("10/minute burst 100", "token-bucket", 1, 6, 1200),
    ("1/366d", "token-bucket", 1, 366 * DAY, 732 * DAY),
    ("100/second", "token-bucket", 100, 1, 2),
    ("10/day", "fixed-window", 1, None, 2 * DAY), ("10/week", "fixed-window", 1, None, 14 * DAY),
    ("10/month", "fixed-window", 1, None, 62 * DAY),
    ("10/day", "sliding-window", 1, None, 2 * DAY),
    ("10/366d", "sliding-window", 10, None, 732 * DAY),
])
def test_time_to_live(run, redis, rate, algorithm, cost, least, most):
    """Never shorter than what the counter is good for, and at most twice the window or refill."""
    a = run(rules=rule(rate=rate, algorithm=f'"{algorithm}"'), top=redis.group(),
            agent='variables = [ "reset" ];')
    reset = a.check(user="u", cost=cost)["reset"]
    (key,) = redis.keys()
    ttl = redis("PTTL", key) / 1000
    assert ttl > 0, "no time to live"
    # reset: until full, or until the window, and for a sliding one the next, has ended.
    # Less what passed since.
    assert ttl >= (reset if least is None else least) - 5
    assert ttl <= most + 1


def test_every_key_has_a_time_to_live_after_all_that_happens_to_it(run, redis):
    text = rules(*(rule(f"{x}{n}", per=f'[ "{f}" ]', rate=f'"{n}/hour"', algorithm=f'"{x}"',
                        count_denied=d)
                   for x in ("token-bucket", "fixed-window", "sliding-window")
                   for n, f, d in ((5, "user", "false"), (9, "x", "true"))))
    a = run(rules=text, top=redis.group())
    for i in range(40):
        a.check(user=f"u{i % 3}", x=f"x{i % 2}", cost=i % 4)
    keys = redis.keys()
    assert len(keys) == 15
    assert all(0 < redis("PTTL", k) <= 2 * 3600 * 1000 for k in keys)


def test_secrets_never_reach_redis(run, redis):
    """Neither in what stands there nor in what was sent, in clear or in any plain encoding."""
    secrets = {"key": "K3Y-4f9a1c77-0d", "user": "alice.van.der.secret@example.org",
               "path": "/patients/4711-smith", "session": "sess-77d1e0c2"}
    warmed = 0
    sent = b""

    def send_until(monitor, word):
        """What Redis was sent up to there."""
        redis("ECHO", word)
        lines = []
        while not lines or f'"{word}"'.encode() not in lines[-1]:
            lines.append(monitor.file.readline())
        return b"".join(lines)

    a = run(rules=rules(rule("key", per='[ "key" ]'), rule("user", per='[ "user", "path" ]'),
                        rule("s", per='[ "session" ]', count_denied="true")),
            top=redis.group() + 'identity: { secret = [ "key", "session" ]; };'
            ' log: { level = "debug"; };')
    with redis.client() as monitor:
        assert monitor("MONITOR") == "OK"
        # Until the agent knows that no tiers stand in Redis, it asks for them by name.
        while not warmed or b"HMGET" in sent.upper():
            warmed += 1
            a.check(user=f"w{warmed}")
            sent = send_until(monitor, f"warm-{warmed}")
        for _ in range(7):
            a.check(secrets)
        sent = send_until(monitor, "over")
    kept = b"".join(k.encode() + (redis("GET", k) or b"") for k in redis.keys())
    assert len(redis.keys()) == 3 and b"EVALSHA" in sent.upper()
    for text in secrets.values():
        t = text.encode()
        for shape in (t, t[:9], t.hex().encode(), base64.b64encode(t)[:-4],
                      base64.urlsafe_b64encode(t)[:-4], hashlib.sha256(t).digest(),
                      hashlib.sha256(t).hexdigest().encode(), hashlib.sha1(t).hexdigest().encode(),
                      hashlib.md5(t).hexdigest().encode()):
            assert shape not in kept and shape not in sent, (text, shape)
            escaped = "".join(f"\\x{b:02x}" for b in shape).encode()
            assert escaped not in sent, (text, shape)
    assert redisd.PASSWORD not in a.stderr


# --- the semantics that Redis' own life adds --------------------------------------------------

def test_what_is_no_bucket_counts_as_never_seen(run, redis):
    a = run(rules=rule(rate=f"5/{LONG}"), top=redis.group())
    a.check(user="u", cost=5)
    (key,) = redis.keys()
    for args in (("RPUSH", key, "a"), ("SET", key, "short"), ("SET", key, "x" * 17),
                 ("SET", key, ""), ("HSET", key, "a", "b"), ("SADD", key, "m"),
                 ("ZADD", key, "1", "m"), ("XADD", key, "*", "a", "b")):
        redis("DEL", key)
        redis(*args)
        # Another in the same batch is not disturbed.
        with a.connect() as c:
            waits = [c.notify(message("check", {"user": u})) for u in ("v", "u", "v")]
            first, second, third = map(c.wait, waits)
        assert (second["reason"], second["remaining"]) == ("ok", 4), args
        assert first["reason"] in ("ok", "limited") and third["reason"] in ("ok", "limited")
        assert used(redis("GET", key)) == 1 and redis("PTTL", key) > 0, args


@pytest.mark.parametrize("value", [
    struct.pack("<dq12x", float("nan"), 0), struct.pack("<dq12x", float("inf"), 1 << 50),
    struct.pack("<dq12x", -5.0, 1), struct.pack("<dq12x", 1e308, -1), b"\xff" * 28,
    struct.pack("<dq12x", 3.0, (1 << 63) - 1), struct.pack("<dq12x", float("-inf"), -(1 << 63)),
])
@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window", "fixed-window"])
def test_a_value_of_the_right_length_that_is_nonsense(run, redis, algorithm, value):
    """Whoever can write to Redis can hold a client back, or free it; nothing worse, nor for ever."""
    a = run(rules=rule(rate="5/2s", algorithm=f'"{algorithm}"'), top=redis.group())
    # (Its window may end before one looks.)
    (key,) = until(lambda: a.check(user="u") and redis.keys(), "a key")
    redis("SET", key, value)
    answer = a.check(user="u")
    assert 0 <= answer["remaining"] <= 5 and answer["reason"] in ("ok", "limited")
    assert answer["retry_after"] <= 5 and answer["reset"] <= 5
    until(lambda: not a.check(user="u")["deny"], "the client to be let in again", 10)


def test_a_bucket_from_the_future_is_read_as_now(run, redis):
    """A failover to a server whose clock is behind."""
    a = run(rules=rule(rate="5/day"), top=redis.group())
    at = int((time.time() + 90 * DAY) * 1e6)

    def ask(user, was):
        redis("FLUSHALL")
        a.check(user=user)
        (key,) = redis.keys()
        redis("SET", key, struct.pack("<dq12x", was, at), "PX", 90 * DAY * 1000)
        return key, a.check(user=user)
    key, answer = ask("u", 5.0)
    assert answer["deny"] and near(answer["retry_after"], DAY / 5)
    key, answer = ask("v", 2.0)
    assert (answer["remaining"], answer["deny"]) == (2, False)
    assert near(answer["reset"], 3 * DAY / 5) and redis("PTTL", key) <= 2 * DAY * 1000


def test_script_flush_under_load(run, redis):
    some = [run(rules=rule(rate=f"1500/{LONG}"), top=redis.group()) for _ in range(2)]
    over = threading.Event()

    def flush():
        with redis.client() as c:
            while not over.is_set():
                c("SCRIPT", "FLUSH")
                time.sleep(0.003)
    t = threading.Thread(target=flush)
    t.start()
    try:
        answers = hammer(some, lambda n: [message("check", {"user": "u"})] * 300, 3)
    finally:
        over.set()
        t.join()
    assert admitted(answers) == 1500
    assert {a["reason"] for a in answers} == {"ok", "limited"}, "the loss of a script is no failure"
    assert "store_degraded" not in "".join(a.stderr for a in some)
    assert redis.calls().get("script|load", 0) >= 3


def test_flushall_under_load(run, redis):
    """What is lost is lost: everyone is new once, and nothing else happens."""
    some = [run(rules=rule(rate=f"400/{LONG}"), top=redis.group()) for _ in range(2)]
    timer = threading.Timer(0.05, lambda: redis("FLUSHALL"))
    timer.start()
    answers = hammer(some, lambda n: [message("check", {"user": "u"})] * 300, 4)
    timer.join()
    assert 400 <= admitted(answers) <= 800
    assert {a["reason"] for a in answers} == {"ok", "limited"}
    redis("FLUSHALL")
    # Of another user: what was denied may be remembered.
    answers = hammer(some, lambda n: [message("check", {"user": "v"})] * 150, 2)
    assert admitted(answers) == 400


@pytest.mark.parametrize("how", ["kill", "shutdown"])
def test_a_restart_with_persistence_under_load(run, tmp_path, ends, how):
    """Charged but not answered is denied (the policy is "closed"): never more than the limit, and
    less by no more than what was under way."""
    redis = ends(redisd.Server(tmp_path, persist=True))
    some = [run(rules=rule(rate=f"1500/{LONG}"),
                top=redis.group(timeout="500ms", on_failure="closed")) for _ in range(2)]
    got = []

    def ask():
        got.extend(hammer(some, lambda n: [message("check", {"user": "u"})] * 1000, 2, 16))
    before = redis.calls().get("evalsha", 0)
    t = threading.Thread(target=ask)
    t.start()
    until(lambda: redis.calls().get("evalsha", 0) >= before + 20, "the load")
    if how == "kill":
        redis.kill()
    else:
        redis.send_signal(signal.SIGTERM)
        redis.wait()
    time.sleep(0.05)
    redis.start()
    t.join(60)
    assert len(got) == 4000
    assert {a["reason"] for a in got} <= {"ok", "limited", "degraded"}
    until(lambda: all(a.check(user="v", cost=0)["reason"] == "ok" for a in some), "recovery")
    rest = hammer(some, lambda n: [message("check", {"user": "u"})] * 500, 2)
    total = admitted(got) + admitted(rest)
    assert 1500 - 4 * 16 <= total <= 1500


def test_the_first_requests_of_an_agent(run, redis):
    """A restart of an agent lets nothing pass, and denies nothing, that Redis would not."""
    for i in range(10):
        a = run(rules=rule(rate="100/day"), top=redis.group(on_failure="closed"))
        assert a.check(user="u")["remaining"] == 99 - i


# --- how it is reached -----------------------------------------------------------------------

def test_the_acl_is_enough_and_no_more_than_is_used(run, tmp_path, ends):
    redis = ends(redisd.Server(tmp_path))
    before = redis.calls()      # Valkey 9 counts calls of its own at its start
    long = rule("long", rate=f"1000/{LONG}", algorithm='"fixed-window"')
    a = run(rules=rules(rule(), long), top=redis.group(db=2))
    for _ in range(7):
        a.check(user="u")
    redis("SCRIPT", "FLUSH")
    a.check(user="u")
    redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    until(lambda: a.check(user="u")["reason"] == "limited", "recovery")
    calls = {k: n for k, n in redis.calls().items() if n > before.get(k, 0)}
    # The test's own; and Valkey 9's, at its start and after. (To the agent it is forbidden: denied().)
    for others in ("auth", "acl|log", "info", "client|kill", "script|flush", "ping", "hello", "config|get"):
        calls.pop(others, None)
    listed = {*redisd.COMMANDS, *redisd.TIERS_COMMANDS, *redisd.CHANGES_COMMANDS}
    assert set(calls) <= listed, "commands that are not listed"
    spared = {"ping", "hmget", "hset", "hdel", "incr", "xadd", "xrange", "del", *OTHER_MODES}
    assert listed - spared <= set(calls), "listed, but not used"
    assert redis.denied() == []


def test_without_setrange_it_works_as_well(run, tmp_path, ends):
    """As the ACL was before format 2."""
    redis = ends(redisd.Server(tmp_path))
    redis("ACL", "SETUSER", redisd.USER, "-setrange")
    a = run(rules=rule(rate=f"1000/{LONG}", algorithm='"fixed-window"'), top=redis.group())
    assert [a.check(user="u")["remaining"] for _ in range(3)] == [999, 998, 997]
    (key,) = redis.keys()
    assert redis("PTTL", key) > 0 and "set" in redis.calls()
    assert {d[d.index(b"object") + 1] for d in redis.denied()} == {b"setrange"}


def test_the_acl_is_the_one_that_is_printed():
    """What the documents tell operators is what these tests allow; the example is not for a cluster."""
    shown = re.findall(r"(?m)^    (ACL SETUSER .*)$", (ROOT / "conf/README.md").read_text())
    assert shown[0] == f"ACL SETUSER ratelimit on >PASSWORD {redisd.acl('rl:*', None, False)}"
    assert shown[1] == f"ACL SETUSER ratelimit {redisd.allowed(redisd.CHANGES_COMMANDS)}"
    assert shown[2] == f"ACL SETUSER ratelimit {redisd.tiers_acl('rl:tiers')}"
    assert shown[3] == f"ACL SETUSER default off resetpass {redisd.DEFAULT_OFF}"
    users = (ROOT / "conf/examples/two-nodes/users.acl").read_text()
    assert users.startswith(f"user default off {redisd.DEFAULT_OFF}\n")
    line = re.search(r"(?m)^user ratelimit on >AGENT-PASSWORD (.*)$", users)[1]
    wanted = [c for c in redisd.COMMANDS if c not in ("cluster|slots", "asking")]
    assert line == " ".join(["~rl:*", "-@all", redisd.allowed(wanted),
                             redisd.allowed(redisd.CHANGES_COMMANDS), redisd.tiers_acl("rl:tiers")])


def addresses(redis):
    yield f"127.0.0.1:{redis.port}"
    yield redis.path
    yield f"localhost:{redis.port}"


def test_addresses(run, redis):
    for i, where in enumerate(addresses(redis)):
        a = run(rules=rule(rate="20/day"), top=redisd.group(where))
        assert a.check(user="u")["remaining"] == 19 - i, where


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")
def test_ipv6(run, tmp_path, ends):
    redis = ends(redisd.Server(tmp_path, settings=["bind 127.0.0.1 ::1"]))
    a = run(rules=rule(), top=redisd.group(f"[::1]:{redis.port}"))
    assert a.check(user="u")["remaining"] == 4 and len(redis.keys()) == 1


def test_several_databases(run, redis):
    for db in (0, 1, 15):
        a = run(rules=rule(), top=redis.group(db=db))
        assert a.check(user="u")["remaining"] == 4
        # Once more, over a connection that came later.
        redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        until(lambda: a.check(user="x")["reason"] in ("ok", "limited"))
        until(lambda: a.check(user="u", cost=0)["remaining"] == 4 and
              a.check(user="u", cost=0)["reason"] == "ok")
        assert redis.keys(db=db)
    assert redis.keys(db=2) == []


def test_a_database_that_is_not_there(run, redis):
    a = run(rules=rule(), top=redis.group(db=999, on_failure="closed"))
    assert a.check(user="u")["reason"] == "degraded"
    until(lambda: re.search("(?i)db|database|select", a.stderr), "a word about it")


@pytest.mark.parametrize("user, password", [("", redisd.ADMIN), ("default", redisd.ADMIN),
                                            (redisd.USER, redisd.PASSWORD)])
def test_passwords(run, redis, user, password):
    a = run(rules=rule(), top=redis.group(user=user, password=password))
    answer = a.check(user="u")
    assert (answer["remaining"], answer["reason"]) == (4, "ok")


def test_a_password_from_the_environment(run, redis):
    a = run(rules=rule(), top=redis.group(password=""), env={"REDIS_PASSWORD": redisd.PASSWORD})
    assert a.check(user="u")["reason"] == "ok" and len(redis.keys()) == 1


def test_no_password_at_all(run, tmp_path, ends):
    redis = ends(redisd.Server(tmp_path, auth=False))
    a = run(rules=rule(), top=redis.group(user="", password=""))
    assert a.check(user="u")["reason"] == "ok" and len(redis.keys()) == 1


@pytest.mark.parametrize("user, password, word", [
    (redisd.USER, "wrong-Pw-1", "WRONGPASS"), ("nobody", redisd.PASSWORD, "WRONGPASS"),
    ("", "wrong-Pw-1", "WRONGPASS"), ("", "", "NOAUTH")])
def test_a_wrong_password_is_named_and_not_shown(run, server, user, password, word):
    a = run(rules=rule(), top=server.group(user=user, password=password, on_failure="closed"))
    assert a.check(user="u")["reason"] == "degraded"
    until(lambda: word in a.stderr, word)
    assert not password or password not in a.stderr
    server("ACL", "LOG", "RESET")


def test_a_password_that_is_changed_is_named_when_that_is_what_is_wrong(run, tmp_path, ends):
    """The first reason is that a connection ended, and no hint at a password."""
    redis = ends(redisd.Server(tmp_path))
    a = run(rules=rule(), top=redis.group(on_failure="closed"))
    assert a.check(user="u")["reason"] == "ok"
    redis("ACL", "SETUSER", redisd.USER, "resetpass", ">another-Pw-1")
    redis("CLIENT", "KILL", "USER", redisd.USER)

    def told(event):
        a.check(user="u")
        return [x for x in a.lines() if event in x]
    (line,) = until(lambda: told("store_degraded "), "a line in the log")
    assert "WRONGPASS" not in line
    (line,) = until(lambda: told("store_still_degraded "), "another")
    assert "WRONGPASS" in line and "redis.password" in line, line
    redis("ACL", "SETUSER", redisd.USER, "resetpass", f">{redisd.PASSWORD}")
    until(lambda: told("store_recovered"), "a line when it is back")
    assert len(told("_degraded")) == 2


def test_passwords_of_every_shape(run, tmp_path, ends):
    password = "p w'\"$1 #\u00e9*\\r"
    redis = ends(redisd.Server(tmp_path))
    redis("ACL", "SETUSER", redisd.USER, ">" + password)
    a = run(rules=rule(), top=redis.group(password="${PW}"), env={"PW": password})
    assert a.check(user="u")["reason"] == "ok"


@pytest.mark.skipif(not redisd.VALKEY, reason="needs valkey-server")
def test_valkey(run, tmp_path, ends):
    valkey = ends(redisd.Server(tmp_path, "valkey", program=redisd.VALKEY))
    some = [run(rules=rules(rule(rate=f"300/{LONG}"),
                            rule("w", rate=f"400/{LONG}", algorithm='"sliding-window"'),
                            rule("f", rate=f"500/{LONG}", algorithm='"fixed-window"')),
                top=valkey.group()) for _ in range(2)]
    answers = hammer(some, lambda n: [message("check", {"user": "u"})] * 100, 3)
    assert admitted(answers) == 300
    valkey("SCRIPT", "FLUSH")
    assert some[0].check(user="v")["remaining"] == 299 and valkey.denied() == []


def test_the_servers_clock_counts(run, redis):
    """reset_at is what Redis' clock says, and keys carry its time."""
    a = run(rules=rule(rate="10/hour"), top=redis.group(), agent='variables = [ "reset_at" ];')
    seconds, _ = redis("TIME")
    at = a.check(user="u", cost=10)["reset_at"]
    assert 0 <= at - int(seconds) - 3600 <= 20
    (key,) = redis.keys()
    stamp = struct.unpack_from("<dq", redis("GET", key))[1] / 1e6
    assert 0 <= stamp - int(seconds) <= 20


# --- configuration and reload ----------------------------------------------------------------

@pytest.mark.parametrize("changed", [
    'store: { backend = "memory"; };', {"prefix": "new:"}, {"hash_secret": "new"}, {"db": 1}])
def test_what_cannot_change_refuses_the_reload(run, redis, changed):
    """Where counters are is part of the store: a reload that would change it is refused."""
    a = run(rules=rule(), top=redis.group())
    a.check(user="u")
    a.rewrite(rule(rate='"7/day"'),
              top=changed if isinstance(changed, str) else redis.group(**changed))
    a.reload(lambda: re.search("(?i)refused|cannot change|restart", a.stderr), "a refusal")
    answer = a.check(user="u")
    assert (answer["limit"], answer["remaining"]) == (5, 3)


def test_rules_change_by_reload_and_counters_stay(run, redis):
    a = run(rules=rule(rate="10/day"), top=redis.group())
    a.check(user="u", cost=10)
    a.rewrite(rule(rate="20/day"), top=redis.group())
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 20)
    assert a.check(user="u", cost=0)["remaining"] == 10


def test_reload_under_load(run, redis):
    some = [run(rules=rule(rate=f"100/{LONG}"), top=redis.group()) for _ in range(2)]
    over = threading.Event()

    def reload():
        n = 100
        while not over.is_set():
            n = 100 if n == 101 else 101
            some[0].rewrite(rule(rate=f"{n}/{LONG}", warn_at=f"0.{n - 99}"), top=redis.group())
            some[0].send_signal(signal.SIGHUP)
            time.sleep(0.01)
    t = threading.Thread(target=reload)
    t.start()
    try:
        answers = hammer(some, lambda n: [message("check", {"user": f"u{i % 5}"})
                                          for i in range(500)], 3)
    finally:
        over.set()
        t.join()
    assert 500 <= admitted(answers) <= 505
    assert {a["reason"] for a in answers} == {"ok", "limited"}


@pytest.mark.parametrize("setting, word", [
    ('servers = [ ];', "servers"), ('servers = [ "nowhere" ];', "nowhere"),
    ('servers = [ "127.0.0.1:99999" ];', "99999"), ('servers = [ "relative/path" ];', "relative"),
    ('timeout = "0s";', "timeout"), ('on_failure = "maybe";', "on_failure"),
    ('instances = 0;', "instances"), ('db = -1;', "db"), ('mode = "twin";', "mode"),
])
def test_bad_settings(tmp_path, setting, word):
    path = tmp_path / "bad.cfg"
    path.write_text(config("127.0.0.1:9600", rule(), top='store: { backend = "redis"; };\n'
                           f"redis: {{ {setting} }};"))
    r = execute("-c", "-f", path)
    assert r.status == 1 and re.search(rf"{re.escape(str(path))}:\d+: .*{word}", r.stderr), r


@pytest.mark.parametrize("setting, valid", [('"open"', True), ('"closed"', True), ('"local"', True),
                                            ('"shut"', False), ("1", False)])
def test_a_rules_own_policy_is_checked(tmp_path, setting, valid):
    path = tmp_path / "rule.cfg"
    path.write_text(config("127.0.0.1:9600", rule(on_failure=setting)))
    assert (execute("-c", "-f", path).status == 0) is valid


def test_the_status_line_names_the_store(run, redis):
    a = run(rules=rule(), top=redis.group())
    until(lambda: "redis" in a.stderr, "a word about the store")
    assert redisd.PASSWORD not in a.stderr


def test_one_connection_for_each_worker(run, redis):
    """One command connection for each worker; for each process a subscription, and one for what
    operators change."""
    before = int(redis.info("clients")["connected_clients"])
    a = run(rules=rule(rate=f"100000/{LONG}"), top=redis.group(), agent="threads = 3;")
    hammer([a], lambda n: [message("check", {"user": "u"})] * 50, 12)
    now = int(redis.info("clients")["connected_clients"])
    assert 1 <= now - before <= 5


def test_requests_travel_together(run, redis):
    """Not one call for each request: what comes in one turn of a loop is asked at once."""
    a = run(rules=rule(rate=f"100000/{LONG}"), top=redis.group(), agent="threads = 1;")
    redis("CONFIG", "RESETSTAT")
    with a.connect() as c:
        for _ in range(10):
            together = b"".join(
                frame(NOTIFY, message("check", {"user": f"u{i}"}), *c.expect(c.ids())) for i in range(64))
            c.send(together)
            for key in list(c.pending):
                assert c.wait(key)["reason"] == "ok"
    stats = redis.info("stats")
    # Pipelined or in one call: either way not a round trip for each.
    assert int(stats["total_reads_processed"]) < 320, stats["total_reads_processed"]
