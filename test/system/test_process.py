"""The process: flags, exit status, signals, logs, the state file."""

import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import threading

import pytest

import spop
from agent import BINARY, check_file, config, execute, free_port, has_ipv6, until
from spop import Closed, Connection, Disconnected, frame, message

RULES = '{ name = "per-user"; per = [ "user" ]; rate = "5/day"; }'
GOOD = config("127.0.0.1:9600", RULES)


def put(tmp_path, text, name="x.cfg"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- the command line ------------------------------------------------------------------------

def test_check_says_valid(tmp_path):
    r = check_file(put(tmp_path, GOOD))
    assert (r.status, r.stdout.strip()) == (0, "Configuration file is valid"), r


def test_check_binds_nothing_and_writes_nothing(run, tmp_path):
    a = run(rules=RULES)
    folder = tmp_path / "empty"
    folder.mkdir()
    text = config(a.listen, RULES, top=f'store: {{ state_file = "{folder}/state"; }};'
                                       f'log: {{ target = "{folder}/log"; }};')
    r = check_file(put(tmp_path, text))
    assert r.status == 0, r
    assert not list(folder.iterdir())
    assert a.check(user="u")["remaining"] == 4


def test_check_tells_every_problem(tmp_path):
    path = put(tmp_path, """agent: {
	listen = [ "127.0.0.1:9600" ];
	thredas = 4;
	max_connections = 0;
};
store: { backend = "disk"; };
log: { level = "loud"; };
rules = (
	{ name = "a"; per = [ "ip" ];
	  rate = "5/fortnight"; },
	{ name = "b"; per = "ip";
	  algorithm = "leaky"; rate = "5/minute"; }
);
""")
    r = check_file(path)
    assert r.status == 1 and not r.stdout, r
    lines = [x for x in r.stderr.splitlines() if x.strip()]
    found = [re.match(rf"{re.escape(str(path))}:(\d+): (.+)", x) for x in lines]
    numbers = [int(m[1]) for m in found if m]
    for n in (3, 4, 6, 7, 10, 12):
        assert n in numbers, (n, r)
    # One a line, and nothing that looks otherwise.
    assert sum(m is None for m in found) <= 1, r


@pytest.mark.parametrize("args", [["-x"], ["-f"], ["--nonsense"], ["word"], ["-f", "x"] * 33],
                         ids=["letter", "no file", "long", "word", "too many files"])
def test_a_bad_command_line(args):
    r = execute(*args)
    assert r.status == 1 and r.stderr.strip() and not r.stdout, r


def test_a_word_too_many_beside_a_good_file(tmp_path):
    r = execute("-c", "-f", put(tmp_path, GOOD), "word")
    assert r.status == 1 and '"word"' in r.stderr and not r.stdout, r


def test_the_file_that_is_read_where_none_is_named():
    default = "/etc/spoa-ratelimit/ratelimit.cfg"
    if os.path.exists(default):
        pytest.skip("this machine has one")
    r = execute("-c")
    assert r.status == 1 and f"{default}:1: " in r.stderr, r


def test_help():
    r = execute("-h")
    assert r.status == 0, r
    text = r.stdout + r.stderr
    for flag in ("-f", "-c", "-d", "-q", "-v", "-vv", "-h"):
        assert flag in text


def test_version():
    r = execute("-v")
    assert r.status == 0 and re.search(r"\b\d+\.\d+\.\d+", r.stdout), r
    assert len(r.stdout.splitlines()) <= 3
    more = execute("-vv")
    assert more.status == 0 and len(more.stdout) > len(r.stdout), more
    for library in ("libev", "libconfig", "libsodium"):
        assert re.search(library + r"\D*\d", more.stdout), more


def test_a_missing_file(tmp_path):
    for args in ((), ("-c",)):
        r = execute("-f", tmp_path / "missing.cfg", *args)
        assert r.status == 1 and str(tmp_path / "missing.cfg") in r.stderr, r
    r = execute("-f", tmp_path, "-c")
    assert r.status == 1 and str(tmp_path) in r.stderr, r


def test_a_broken_file_does_not_start(tmp_path):
    path = put(tmp_path, GOOD.replace("5/day", "5/dya"))
    r = execute("-f", path)
    assert r.status == 1 and f"{path}:" in r.stderr, r


def test_quiet_and_debug(run, tmp_path):
    log = tmp_path / "log"
    loud = run(rules=RULES, args=["-d"], top=f'log: {{ target = "{log}"; level = "error"; }};')
    quiet = run(rules=RULES, args=["-q"])
    plain = run(rules='{ name = "per-user"; per = [ "user" ]; rate = "1/day"; }')
    for a in (loud, quiet, plain):
        for _ in range(7):
            a.check(user="u")
        a.reload(lambda: True)
        assert a.stop() == 0
    assert not quiet.stderr.strip()
    assert plain.stderr.strip()
    assert " debug " in loud.stderr and " debug " not in plain.stderr
    assert not log.exists() # -d says where to, too


def test_a_quiet_check_warns_of_nothing(tmp_path):
    warned = put(tmp_path, GOOD + 'redis: { tls_name = "nobody asks for it"; };\n')
    assert ": warning: " in execute("-c", "-f", warned).stderr
    r = execute("-q", "-c", "-f", warned)
    assert r.status == 0 and not r.stderr, r
    with open(warned, "a", encoding="utf-8") as f:
        f.write("bogus = 1;\n")
    r = execute("-q", "-c", "-f", warned)
    assert r.status == 1 and "bogus" in r.stderr and "warning" not in r.stderr, r


def test_quiet_still_tells_errors(tmp_path):
    r = execute("-q", "-f", put(tmp_path, GOOD.replace("5/day", "5/dya")))
    assert r.status == 1 and r.stderr.strip(), r


def test_an_error_is_one_whatever_it_quotes(tmp_path):
    wrong = put(tmp_path, GOOD + 'log: { level = "a: warning: b"; };\n')
    for args in (("-c",), ()):
        r = execute("-q", *args, "-f", wrong)
        assert r.status == 1 and "log.level" in r.stderr, r


def test_what_cannot_be_written_is_no_success(tmp_path):
    good = put(tmp_path, GOOD)
    for args in (("-c", "-f", good), ("--full-config",), ("-v",), ("-vv",), ("-h",)):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([BINARY, *map(str, args)], stdin=subprocess.DEVNULL, stdout=full,
                                  stderr=subprocess.PIPE, timeout=60, check=False)
        assert done.returncode == 2 and b"No space left" in done.stderr, (args, done)
    # Who has closed it wants nothing said.
    done = subprocess.run([BINARY, "-c", "-f", good], preexec_fn=lambda: os.close(1),
                          stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 0 and not done.stderr, done


def test_the_status_line_at_start(run):
    a = run(rules=RULES, listen=f"127.0.0.1:{free_port()}")
    until(lambda: a.listen in a.stderr, "where it listens")
    until(lambda: "per-user" in a.stderr and re.search(r"rules?\D{0,3}1\b", a.stderr),
          "which limits are active")


def test_warnings_are_told_at_the_start(run):
    a = run(rules='{ name = "r"; rate = "1/day"; }')
    until(lambda: re.search(rf"config_warning .*{re.escape(str(a.path))}:\d+: warning: .*has no per",
                            a.stderr), "the warning in the log")


def test_could_not_start(tmp_path):
    for listen in ("192.0.2.1:9600", "/nowhere/at/all/s.sock"):
        r = execute("-f", put(tmp_path, config(listen, RULES)))
        assert r.status == 2 and listen in r.stderr, r


def test_where_its_own_address_is_in_the_way(tmp_path):
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    port = free_port()
    listen = [f"[::]:{port}", f"127.0.0.1:{port}"]
    r = execute("-f", put(tmp_path, config(listen, RULES)))
    assert r.status == 2 and f"{listen[0]} before it" in r.stderr and "process" not in r.stderr, r


# --- what is reserved ------------------------------------------------------------------------

@pytest.mark.parametrize("text, line, word", [
    (config("127.0.0.1:9600", RULES, agent='variables = [ "deny", "token" ];'), 1, "token"),
    (config("127.0.0.1:9600", '{ name = "c"; per = [ "ip" ];\nalgorithm = "concurrency"; '
                              'rate = "5/minute"; }'), 5, "concurrency"),
], ids=["token", "concurrency"])
def test_reserved_things_are_refused(tmp_path, text, line, word):
    path = put(tmp_path, text)
    r = check_file(path)
    assert r.status == 1, r
    assert re.search(rf"^{re.escape(str(path))}:{line}: .*{word}", r.stderr, re.M), r


# --- reload ----------------------------------------------------------------------------------

def remaining(a, **args):
    return a.check(cost=0, **args).get("remaining")


def test_reload_takes_what_is_new_and_keeps_counters(run):
    a = run(rules=RULES)
    a.check(user="u")
    a.check(user="u")
    before = len(a.stderr)
    a.rewrite(RULES.replace("5/day", "20/day"))
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 20)
    assert remaining(a, user="u") == 18
    until(lambda: "reload" in a.stderr[before:].lower(), "a word in the log")
    # A rule is added, one goes, one comes back: its counter is still there.
    a.rewrite('{ name = "other"; per = [ "user" ]; rate = "7/day"; }')
    a.reload(lambda: a.check(user="u", cost=0)["rule"] == "other")
    assert remaining(a, user="u") == 7
    a.rewrite(RULES)
    a.reload(lambda: a.check(user="u", cost=0)["rule"] == "per-user")
    assert remaining(a, user="u") == 3


def test_the_log_says_what_changed(run):
    a = run(rules=RULES)
    before = len(a.stderr)
    a.rewrite(RULES + ', { name = "newcomer"; per = [ "ip" ]; rate = "1/day"; }')
    a.reload(lambda: re.search("reload.*newcomer", a.stderr[before:]), "what changed")


def test_reload_keeps_connections(run):
    a = run(rules=RULES)
    connections = [a.connect() for _ in range(20)]
    a.rewrite(RULES.replace("5/day", "500/day"))
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 500)
    for c in connections:
        assert c.check(user="v")["limit"] == 500
        c.close()


@pytest.mark.parametrize("broken, word", [
    (GOOD.replace("5/day", "5/dya"), "dya"), (GOOD.replace(");", ""), ""),
    (GOOD + "thredas = 4;\n", "thredas"), ("", ""), (b"\0\xff\xfe", ""),
    ('@include "nothing.cfg"\n', "nothing.cfg"), ('@include "/"\n', "/"), (GOOD + "/* open", ""),
    (GOOD.replace("5/day", "${NOT_SET_ANYWHERE}"), "NOT_SET_ANYWHERE"),
], ids=["rate", "syntax", "unknown", "empty", "binary", "include missing", "include directory",
        "comment", "environment"])
def test_a_broken_reload_is_refused(run, broken, word):
    a = run(rules=RULES)
    a.check(user="u")
    before = len(a.stderr)
    if isinstance(broken, str):
        broken = broken.replace("127.0.0.1:9600", a.listen)
    a.write(broken)
    a.reload(lambda: word in a.stderr[before:] and
             (str(a.path) in a.stderr[before:] or not broken), "the refusal in the log")
    if broken:
        assert re.search(rf"{re.escape(str(a.path))}:\d+", a.stderr[before:]), a.stderr[before:]
    assert a.check(user="u")["remaining"] == 3
    a.rewrite(RULES.replace("5/day", "50/day"))
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 50)


def test_a_refusal_is_told_where_only_errors_are(run):
    a = run(rules=RULES, args=["-q"])
    a.rewrite(RULES.replace("5/day", "5/dya") + ', { name = "w"; rate = "1/day"; }')
    assert ": warning: rule \"w\": has no per" in execute("-c", "-f", a.path).stderr
    a.reload(lambda: re.search(rf"{re.escape(str(a.path))}:\d+: .*dya", a.stderr), "the refusal")
    assert a.check(user="u")["remaining"] == 4
    assert a.stop() == 0
    assert "has no per" not in a.stderr


def test_a_log_that_cannot_be_opened_refuses_the_reload(run):
    a = run(rules=RULES)
    a.rewrite(RULES.replace("5/day", "6/day"), top='log: {\ntarget = "/nowhere/at/all/log"; };')
    a.reload(lambda: re.search(rf"{re.escape(str(a.path))}:3: .*/nowhere/at/all/log", a.stderr),
             "the refusal")
    assert a.check(user="u")["limit"] == 5


def test_a_missing_file_on_reload_is_refused(run):
    a = run(rules=RULES)
    before = len(a.stderr)
    a.path.unlink()
    a.reload(lambda: str(a.path) in a.stderr[before:])
    assert a.check(user="u")["remaining"] == 4


@pytest.mark.parametrize("change", [
    lambda a, t: t.replace(f'"{a.listen}"', f'"{a.listen}", "{a.listen}2"'),
    lambda a, t: t.replace("threads = 2", "threads = 3"),
    lambda a, t: t.replace("max_keys = 1000", "max_keys = 2000"),
    lambda a, t: t.replace('state_file = ""', f'state_file = "{a.directory}/state"'),
], ids=["listen", "threads", "max_keys", "state_file"])
def test_what_cannot_change_refuses_the_whole_reload(run, change):
    a = run(rules=RULES, top='store: { max_keys = 1000; state_file = ""; };')
    before = len(a.stderr)
    text = a.path.read_text()
    changed = change(a, text)
    assert changed != text
    log = a.directory / "other.log"
    a.write(changed.replace("5/day", "50/day") + f'log: {{ target = "{log}"; }};\n')
    a.reload(lambda: re.search("cannot|refus|restart", a.stderr[before:]), "the refusal in the log")
    assert a.check(user="u")["limit"] == 5
    assert not log.exists()
    assert not os.path.exists(a.listen + "2")
    a.write(text.replace("5/day", "50/day"))
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 50)


def test_what_else_can_change(run, tmp_path):
    """Only listeners, threads, store and admin cannot."""
    port = free_port()
    log = tmp_path / "new.log"
    a = run(rules=RULES, listen=f"127.0.0.1:{port}", top='log: { level = "warning"; };')
    kept = a.connect()
    kept.check(user="u")
    a.rewrite(RULES.replace("5/day", "6/day"),
              top=f'log: {{ target = "{log}"; format = "json"; level = "debug"; }};'
                  'identity: { default_tier = "free"; }; block = ( { user = "bad"; } );',
              agent='variables = [ "deny", "reason", "limit", "remaining", "tier" ]; '
                    'drain = "20ms"; allow_from = [ "127.0.0.2" ]; max_frame_size = 2000; '
                    'max_connections = 50; ')
    a.reload(lambda: kept.check(user="u", cost=0).get("limit") == 6)
    assert kept.check(user="u") == {"deny": False, "reason": "ok", "limit": 6, "remaining": 4,
                                    "tier": "free"}
    assert kept.check(user="bad")["reason"] == "blocked"
    with Connection(a.address, source=("127.0.0.2", 0)) as c:
        assert c.greeting["size"] == 2000
        assert c.check(user="u")["remaining"] == 3
    with pytest.raises((Closed, Disconnected, ConnectionError)):
        Connection(a.address, source=("127.0.0.1", 0))
    until(lambda: log.exists() and "\n" in log.read_text(), "the new log file")
    for line in log.read_text().split("\n")[:-1]:
        json.loads(line)
    kept.close()


def test_a_broken_tiers_file_refuses_the_reload(run, tmp_path):
    tiers = put(tmp_path, "alice gold\n", "tiers.map")
    rules = '{ name = "r"; per = [ "user" ]; rate = { gold = "9/day"; default = "3/day"; }; }'
    a = run(rules=rules, top=f'identity: {{ tiers_file = "{tiers}"; }};')
    for broken in ("alice gold\nbob\n", None):
        before = len(a.stderr)
        tiers.unlink() if broken is None else tiers.write_text(broken)
        a.reload(lambda before=before: str(tiers) in a.stderr[before:])
        assert a.check(user="alice", cost=0)["limit"] == 9


def test_a_storm_of_signals(run):
    a = run(rules=RULES)
    until(lambda: "listening" in a.stderr)
    for n in range(60):
        a.send_signal((signal.SIGHUP, signal.SIGUSR1)[n % 2])
        if n % 10 == 0:
            a.check(user=f"u{n}")
    a.send_signal(signal.SIGHUP)
    assert a.stop() == 0


def test_reload_under_load(run):
    a = run(rules='{ name = "r"; per = [ "user" ]; rate = "1000000/day"; }')
    stop = threading.Event()
    wrong = []

    def load(n):
        try:
            with a.connect() as c:
                while not stop.is_set():
                    keys = [c.notify(message("check", {"user": f"u{n}"})) for _ in range(20)]
                    for key in keys:
                        answer = c.wait(key)
                        if answer["reason"] != "ok" or answer["limit"] not in (1000000, 2000000):
                            wrong.append(answer)
        except Exception as e:      # told by the assertion below
            wrong.append(e)
    threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    try:
        for i in range(10):
            n = (2000000, 1000000)[i % 2]
            a.rewrite('{ name = "r"; per = [ "user" ]; rate = "%d/day"; }' % n)
            a.reload(lambda n=n: a.check(user="x", cost=0)["limit"] == n)
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not wrong, wrong[:3]


def test_a_tiers_file_follows_reload(run, tmp_path):
    tiers = put(tmp_path, "alice gold\n", "tiers.map")
    rules = '{ name = "r"; per = [ "user" ]; rate = { gold = "9/day"; default = "3/day"; }; }'
    a = run(rules=rules, top=f'identity: {{ tiers_file = "{tiers}"; }};')
    assert a.check(user="alice")["limit"] == 9 and a.check(user="bob")["limit"] == 3
    tiers.write_text("bob gold\n")
    a.reload(lambda: a.check(user="bob", cost=0)["limit"] == 9)
    assert a.check(user="alice", cost=0)["limit"] == 3


# --- logs ------------------------------------------------------------------------------------

def test_sigusr1_reopens_the_log(run, tmp_path):
    log = tmp_path / "agent.log"
    a = run(rules='{ name = "r"; per = [ "user" ]; rate = "1/day"; }',
            top=f'log: {{ target = "{log}"; }};')
    until(log.exists)

    def deny(user):
        a.check(user=user)
        assert a.check(user=user)["deny"]
    deny("first")
    until(lambda: "first" in log.read_text(), "the first denial in the log")
    log.rename(tmp_path / "agent.log.1")
    deny("second")
    until(lambda: "second" in (tmp_path / "agent.log.1").read_text(), "still the old file")
    a.send_signal(signal.SIGUSR1)
    until(log.exists, "the new log file")
    deny("third")
    until(lambda: "third" in log.read_text(), "the third denial in the new file")
    assert "third" not in (tmp_path / "agent.log.1").read_text()


def test_a_log_that_cannot_be_reopened_goes_on(run, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "agent.log"
    a = run(rules='{ name = "r"; per = [ "user" ]; rate = "0/day"; }',
            top=f'log: {{ target = "{log}"; }};')
    until(log.exists)
    folder.rename(tmp_path / "moved")
    a.send_signal(signal.SIGUSR1)
    until(lambda: re.search(f"log_reopen_failed.*{re.escape(str(log))}", a.stderr), "why, on stderr")
    assert a.check(user="late")["deny"]
    until(lambda: "late" in (tmp_path / "moved/agent.log").read_text(), "the old file goes on")


def test_sigusr1_without_a_log_file(run):
    a = run(rules=RULES)
    a.send_signal(signal.SIGUSR1)
    assert a.check(user="u")["remaining"] == 4


def test_a_log_file_that_cannot_be_written(tmp_path):
    r = execute("-f", put(tmp_path, config("127.0.0.1:9600", RULES,
                                           top='log: { target = "/nowhere/at/all/log"; };')))
    assert r.status == 2 and "/nowhere/at/all/log" in r.stderr, r


def test_the_last_denial_is_logged(run):
    a = run(rules='{ name = "r"; per = [ "user" ]; rate = "0/day"; }', agent='drain = "0s";')
    for i in range(5):
        assert a.check(user=f"the-last-{i}")["deny"]
        assert a.stop() == 0
        assert f"the-last-{i}" in a.stderr
        a.start()


def test_every_denial_is_logged(run):
    a = run(rules='{ name = "a-rule"; per = [ "ip" ]; rate = "3/day"; }')
    clients = [f"192.0.2.{i}" for i in range(1, 11)]
    for client in clients:
        for _ in range(3):
            assert not a.check(ip=client)["deny"]
        answer = a.check(ip=spop.ip(client))
        assert answer["deny"] and answer["retry_after"] > 1000

    def told(client):
        for line in a.lines():
            if re.search(rf"\b{re.escape(client)}\b", line) and "a-rule" in line:
                return line
        return None
    for client in clients:
        line = until(lambda client=client: told(client), f"the denial of {client}")
        numbers = [int(n) for n in re.findall(r"\d+", line.replace(client, ""))]
        assert 3 in numbers, line
        assert any(28000 <= n <= 28801 for n in numbers), line


SECRET = "sk_live_0123456789abcdef"


@pytest.mark.parametrize("log", ["text", "json"])
def test_secrets_are_never_written(run, store, tmp_path, log):
    state = tmp_path / "state"
    tiers = put(tmp_path, f"{SECRET} gold\n", "tiers.map")
    top = (f'store: {{ state_file = "{state}"; }}; log: {{ level = "debug"; format = "{log}"; }};\n'
           f'identity: {{ tiers_file = "{tiers}"; secret = [ "key", "session" ]; }};')
    rules = """{ name = "by-key"; per = [ "key" ]; rate = "1/day"; },
               { name = "by-both"; per = [ "session", "key|user" ]; rate = "2/day"; },
               { name = "by-match"; match = { key = "sk_*"; }; per = [ "key" ]; rate = "3/day"; }"""
    a = run(rules=rules, top=top, args=["-d"])
    for key in (SECRET, SECRET.encode()):
        for _ in range(4):
            a.check(key=key, session="other-secret-" + SECRET, ip="192.0.2.1", user="bob")
    with a.connect() as c:
        c.send(frame(spop.NOTIFY, message("check", {"key": SECRET}) + b"\xff", 1, 1))
        c.ended()
    a.restart()
    assert a.check(key=SECRET)["deny"], "the counter is kept without the key"
    assert a.stop() == 0
    assert state.exists() or store == "redis"
    needles = [SECRET.encode(), SECRET.encode().hex().encode(), b"0123456789abcdef"]
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != tiers:
            data = path.read_bytes()
            for needle in needles:
                assert needle not in data, path


def test_secrets_of_a_tiers_file_are_not_in_its_warnings(tmp_path):
    put(tmp_path, f"{SECRET} gold\n{SECRET}\n{SECRET} a b c\n", "tiers.map")
    path = put(tmp_path, config("127.0.0.1:9600", RULES,
                                top='identity: { tiers_file = "tiers.map"; };'))
    r = check_file(path)
    assert SECRET not in r.stdout + r.stderr, r


def test_json_logs_parse(run):
    a = run(rules='{ name = "r"; per = [ "user" ]; rate = "1/day"; }',
            top='log: { format = "json"; level = "debug"; };')
    users = ['quote"', "back\\slash", "line\r\nbreak", "\0\x01\x1f\x7f", "é€\U0001f600",
             "{\"a\":1}", "x" * 3000, "\u2028"]
    for user in users:
        for v in (user, user.encode(), user.encode()[:-1] + b"\xff\xc3"):
            a.check(user=v)
            a.check(user=v)
    with a.connect(greet=False) as c:
        c.send(b"GET / HTTP/1.0\r\n\r\n")
        c.ended()
    a.write("broken\n")
    before = len(a.stderr)
    a.reload(lambda: str(a.path) in a.stderr[before:])
    assert a.stop() == 0
    lines = a.err_path.read_bytes().split(b"\n")
    assert len(lines) > 10
    for line in lines:
        if line:
            entry = json.loads(line.decode("utf-8"))
            assert isinstance(entry, dict), line
    assert any(b"quote" in line for line in lines)


def test_log_lines_cannot_be_forged(run):
    a = run(rules='{ name = "r"; per = [ "user" ]; rate = "1/day"; }',
            top='log: { level = "debug"; };', args=["-d"])
    evil = ["\nforged line", "\r\nforged line", "x\rforged line", "\x1b[2Jforged", "\x85forged",
            "\0forged", "\x9b2Jforged", " rule=forged x=\"", "\" forged=\"1"]
    for text in evil:
        for name in ("user", "ip", "key", "path", "host", "method", "tier", "x"):
            for _ in range(2):
                a.check([("user", "u" + text), (name, text)])
        a.check({"user": "u" + text}, name="check-" + text)
        a.check({"user": "u" + text}, name="check-" + text)
    assert a.stop() == 0
    data = a.err_path.read_bytes()
    for line in data.replace(b"\r", b"\n").split(b"\n"):
        assert not line.startswith(b"forged"), line
    assert not set(data) & (set(range(32)) - {9, 10}), "control characters in the log"
    assert b"\x7f" not in data and b"\x9b" not in data.replace("\u2028".encode(), b"")
    # A value cannot pass for a key of its own either.
    for line in data.split(b"\n"):
        assert not re.search(rb"(?<![\"\\\w])(rule=forged|forged=)", line), line


def test_a_flood_of_one_fault_does_not_flood_the_log(run):
    a = run(rules=RULES)
    before = len(a.lines())
    for _ in range(500):
        with a.connect(greet=False) as c:
            c.send(b"GET / HTTP/1.0\r\n\r\n")
            c.ended()
    assert len(a.lines()) - before < 250


# --- stopping --------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_agent_stops(run, number):
    a = run(rules=RULES)
    assert a.stop(number) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_count_from_the_first_accept_on(run, number):
    """Whoever can connect can also signal: nothing is lost, and nothing kills, while it starts."""
    for n in range(30):
        a = run(rules=RULES, name=f"early-{n}")
        a.rewrite(RULES.replace("5/day", "6/day"))
        a.send_signal(number)
        if number == signal.SIGHUP:
            until(lambda a=a: not a.running or a.check(user="u", cost=0)["limit"] == 6)
        assert a.running and a.stop() == 0 or number == signal.SIGTERM and a.wait() == 0


def test_drain(run):
    """First health checks fail, then, while what is asked is answered, DISCONNECT 0; then exit."""
    port = free_port()
    a = run(rules='{ name = "r"; per = [ "user" ]; rate = "1000000/day"; }',
            listen=f"127.0.0.1:{port}", agent='drain = "3s";')
    connections = [a.connect() for _ in range(5)]
    assert spop.health_check(a.address)
    a.send_signal(signal.SIGTERM)
    until(lambda: not spop.health_check(a.address, bound=5), "health checks to fail")
    # Checks fail already, and what is asked is still answered.
    for c in connections:
        for _ in range(20):
            assert c.check(user="u")["reason"] == "ok"
    assert a.running
    answered = 0
    for c in connections:
        key = c.notify(message("check", {"user": "u"}))
        assert c.wait(key)["reason"] == "ok"
        answered += 1
    for c in connections:
        assert c.ended() == 0
        c.close()
    assert answered == 5
    assert a.wait() == 0


def test_every_notify_before_the_end_is_answered(run):
    a = run(rules='{ name = "r"; per = [ "user" ]; rate = "1000000/day"; }',
            agent='drain = "300ms";')
    with a.connect() as c:
        a.send_signal(signal.SIGTERM)
        sent = []
        try:
            while True:
                key = c.notify(message("check", {"user": "u"}))
                sent.append(key)
                c.wait(key)
        except Disconnected as end:
            assert end.code == 0
        except (Closed, ConnectionError):
            pytest.fail("closed without AGENT-DISCONNECT")
        # Only the very last one may have crossed the end on its way.
        assert len(c.pending) <= 1
    assert a.wait() == 0


def test_new_listeners_during_drain_end(run, tmp_path):
    """After the stop the port and the socket are free again at once."""
    path = str(tmp_path / "again.sock")
    port = free_port()
    listen = [f"127.0.0.1:{port}", path]
    a = run(rules=RULES, listen=listen)
    with a.connect() as c:      # which the agent ends: it is the one to wait for late packets
        assert c.check(user="u")["remaining"] == 4
        assert a.stop() == 0
        assert c.ended() == 0
    b = run(rules=RULES, listen=listen)
    assert b.check(user="u")["remaining"] == 4
    with Connection(path) as c:
        assert c.check(user="u")["remaining"] == 3


def test_a_second_sigterm_ends_the_drain(run):
    a = run(rules=RULES, agent='drain = "10m";')
    with a.connect() as c:
        a.send_signal(signal.SIGTERM)
        until(lambda: not spop.health_check(a.address, bound=5))
        assert c.check(user="u")["remaining"] == 4
        a.send_signal(signal.SIGTERM)
        assert c.ended() in (0, None)
        assert a.wait() == 0


def test_a_deaf_peer_does_not_hold_the_stop(run):
    a = run(rules=RULES)
    with a.connect() as c:
        c.sock.setblocking(False)
        data = frame(spop.NOTIFY, message("check", {"user": "u"}), 1, 1) * 1000
        try:
            for _ in range(100):
                c.sock.send(data)
        except BlockingIOError:
            pass
        a.send_signal(signal.SIGTERM)
        assert a.wait() == 0


def test_stopped_in_the_middle_of_a_frame(run):
    a = run(rules=RULES)
    with a.connect() as c:
        c.send(frame(spop.NOTIFY, message("check", {"user": "u"}), 1, 1)[:-3])
        a.send_signal(signal.SIGTERM)
        assert c.ended() == 0
        assert a.wait() == 0


# --- the state file --------------------------------------------------------------------------

def state_top(path):
    return f'store: {{ state_file = "{path}"; }};'


STATE_RULES = """{ name = "bucket"; per = [ "user" ]; rate = "10/day"; },
	{ name = "window"; per = [ "ip" ]; algorithm = "fixed-window"; rate = "10/month"; },
	{ name = "slide"; per = [ "host" ]; algorithm = "sliding-window"; rate = "10/30d"; }"""


def test_counters_survive_a_restart(run, tmp_path):
    state = tmp_path / "state"
    a = run(rules=STATE_RULES, top=state_top(state))
    for i in range(1, 6):
        for _ in range(i):
            a.check(user=f"u{i}")
            a.check(ip=f"192.0.2.{i}")
            a.check(host=f"h{i}")
    a.restart()
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    for i in range(1, 6):
        assert remaining(a, user=f"u{i}") == 10 - i
        assert remaining(a, ip=f"192.0.2.{i}") == 10 - i
        assert remaining(a, host=f"h{i}") == 10 - i
    # And once more, with another number of threads and another quota.
    a.check(user="u1")
    assert a.stop() == 0
    a.write(a.path.read_text().replace("threads = 2", "threads = 1").replace("10/day", "20/day"))
    a.start()
    assert remaining(a, user="u1") == 18
    assert remaining(a, user="u5") == 15


def test_what_is_asked_during_the_drain_counts(run, tmp_path):
    a = run(rules=RULES, top=state_top(tmp_path / "state"), agent='drain = "10m";')
    with a.connect() as c:
        assert c.check(user="u")["remaining"] == 4
        a.send_signal(signal.SIGTERM)
        until(lambda: not spop.health_check(a.address, bound=5))
        assert c.check(user="u")["remaining"] == 3
        a.send_signal(signal.SIGTERM)
        assert a.wait() == 0
    a.rewrite(RULES, top=state_top(tmp_path / "state"), agent="")
    a.start()
    assert remaining(a, user="u") == 3


def test_relative_state_files_start_from_the_configuration(run, tmp_path):
    a = run(rules=RULES, top=state_top("here.state"))
    a.check(user="u")
    a.restart()
    assert remaining(a, user="u") == 4
    assert (tmp_path / "here.state").exists()


def test_many_counters_survive(run, tmp_path):
    a = run(rules=RULES, top=state_top(tmp_path / "state"))
    with a.connect() as c:
        c.batch(message("check", {"user": f"m{i}"}) for i in range(8000))
    a.restart()
    with a.connect() as c:
        answers = c.batch(message("check", {"user": f"m{i}", "cost": 0}) for i in range(8000))
        assert all(answer["remaining"] == 4 for answer in answers)


def damage(data, how):
    rng = random.Random(5)
    if how == "cut":
        return data[:len(data) // 2]
    if how == "flipped":
        at = rng.randrange(len(data) // 4, len(data))
        return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:]
    if how == "noise":
        return rng.randbytes(5000)
    if how == "longer":
        return data + b"x" * 64
    if how == "empty":
        return b""
    return b"\xff" * 200


@pytest.mark.parametrize("how", ["cut", "flipped", "noise", "longer", "empty", "ff"])
def test_a_damaged_state_file_is_set_aside(run, tmp_path, how):
    folder = tmp_path / "var"
    folder.mkdir()
    state = folder / "state"
    a = run(rules=RULES, top=state_top(state))
    for i in range(50):
        a.check(user=f"u{i}")
    assert a.stop() == 0
    bad = damage(state.read_bytes(), how)
    state.write_bytes(bad)
    before = len(a.stderr)
    a.start()
    assert remaining(a, user="u1") == 5, "it starts empty"
    aside = [p for p in folder.iterdir() if p != state and p.read_bytes() == bad]
    assert aside, list(folder.iterdir())
    until(lambda: str(state) in a.stderr[before:] and aside[0].name in a.stderr[before:],
          "a word of it in the log")
    a.check(user="u1")
    a.restart()
    assert remaining(a, user="u1") == 4
    assert aside[0].read_bytes() == bad


def test_counters_that_find_no_room_at_the_start_are_told(run, tmp_path):
    state = tmp_path / "state"
    a = run(rules=RULES, top=state_top(state))
    with a.connect() as c:
        c.batch(message("check", {"user": f"m{i}", "cost": 5}) for i in range(3000))
    assert a.stop() == 0
    assert " state_loaded_in_part " not in a.stderr
    a.rewrite(RULES, top=f'store: {{ state_file = "{state}"; max_keys = 500; }};\n')
    a.start()
    told = until(lambda: [x for x in a.lines() if " state_loaded_in_part " in x], "the warning")[0]
    assert " warning " in told and "2500 keys more than store.max_keys = 500" in told, told


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_what_is_closed_at_the_start_is_nothing_else_later(tmp_path, closed):
    """Lines for stderr would go into the state file, or to whoever is connected."""
    state = tmp_path / "state"
    path = put(tmp_path, config(str(tmp_path / "s.sock"), RULES, top=state_top(state)))
    closing = " ".join(f"{fd}>&-" for fd in closed)
    child = subprocess.Popen(["sh", "-c", f'exec "$0" "$@" {closing}', BINARY, "-d", "-f", path],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    try:
        until(lambda: (tmp_path / "s.sock").exists(), "its socket")
        for fd in closed:
            assert os.readlink(f"/proc/{child.pid}/fd/{fd}") == "/dev/null"
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0


@pytest.mark.parametrize("where", ["/nowhere/at/all/state", "is-a-directory"])
def test_a_state_file_that_cannot_be_written(tmp_path, where):
    (tmp_path / "is-a-directory").mkdir()
    path = put(tmp_path, config(str(tmp_path / "s.sock"), RULES, top=state_top(where)))
    r = execute("-f", path)
    assert r.status == 2 and where in r.stderr, r


def test_a_kill_does_not_cost_the_state_file(run, tmp_path):
    """kill -9 may lose the latest counts, never the file."""
    state = tmp_path / "state"
    a = run(rules=RULES, top=state_top(state))
    a.check(user="u")
    a.restart()
    a.forget()
    a.kill()
    a.start()
    assert remaining(a, user="u") == 4
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith("state")} == {
        "state", "state.changes", "state.lock"}


# --- systemd ---------------------------------------------------------------------------------

def test_it_tells_its_manager(run, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        a = run(rules=RULES, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000"})
        said = ""
        while "READY=1" not in said or said.count("WATCHDOG=1") < 2:
            said += manager.recv(4096).decode() + "\n"
        a.rewrite(RULES.replace("5/day", "6/day"))
        a.send_signal(signal.SIGHUP)
        while "RELOADING=1" not in said:
            said += manager.recv(4096).decode() + "\n"
        at = said.index("RELOADING=1")
        while "READY=1" not in said[at:]:
            said += manager.recv(4096).decode() + "\n"
        a.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in said:
            said += manager.recv(4096).decode() + "\n"
        assert a.wait() == 0


def test_priorities_for_the_journal(tmp_path):
    """As systemd starts it: stderr is a socket of the journal's, which takes a priority from each line."""
    ours, its = socket.socketpair()
    with ours, its:
        file = os.fstat(its.fileno())
        stream = f"{file.st_dev}:{file.st_ino}"
        ours.settimeout(20)

        def said(text, *args):
            env = dict(os.environ, JOURNAL_STREAM=stream)
            done = subprocess.run([BINARY, "-f", put(tmp_path, text), *args], stderr=its, env=env,
                                  stdout=subprocess.DEVNULL, timeout=60, check=False)
            return done.returncode, ours.recv(65536).decode().splitlines()
        status, lines = said(GOOD.replace("5/day", "5/dya"))
        assert status == 1 and lines and all(x.startswith("<3>") and "x.cfg" in x for x in lines), lines
        status, lines = said(GOOD + 'block = ( { ip = "10.0.0.1/8"; } );', "-c")
        assert status == 0 and [x[:3] for x in lines] == ["<4>"], lines
        status, lines = said(GOOD + 'store: { state_file = "/nowhere/state"; };')
        assert status == 2 and any(re.match("<3>spoa-ratelimit: .*/nowhere", x) for x in lines), lines
