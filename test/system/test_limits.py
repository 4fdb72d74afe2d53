"""What the limits mean, asked through the wire.

Windows are so long that the time a test takes does not matter: token buckets refill within
minutes per unit, windows are days. What needs a moving clock is tested beside the algorithms
themselves; here a window may at worst end once within a run, at midnight UTC.
"""

import datetime
import re
import time

import pytest

import spop
from agent import check_file, config, until
from spop import message

STORES = ("memory", "redis")
ALL = ("deny reason limit remaining reset reset_at retry_after rule tier scope algorithm warn "
       "shadow tag policy ratelimit").split()
EVERY = "variables = [ " + ", ".join(f'"{v}"' for v in ALL) + " ];"
STARRED = ("deny reason limit remaining reset retry_after rule tier scope warn shadow tag").split()
DAY = 86400


def rule(name="r", per='[ "user" ]', rate='"5/day"', **more):
    if not rate.startswith(('"', "[", "{", "(")):
        rate = f'"{rate}"'
    rest = "".join(f" {k} = {v};" for k, v in more.items())
    return f'{{ name = "{name}"; per = {per}; rate = {rate};{rest} }}'


def rules(*several):
    return ",\n".join(several)


@pytest.fixture(autouse=True)
def not_at_midnight():
    """Windows of a day: wait out the last seconds of one."""
    left = DAY - time.time() % DAY
    if left < 20:
        until(lambda: time.time() % DAY < DAY / 2, "midnight to pass", 30)


def near(value, expected, slack=60):
    """Expected at the start of a run, less now: the slack is how long a run may have taken."""
    return expected - slack <= value <= expected


# --- the answer ------------------------------------------------------------------------------

def test_the_variables_of_the_default(run):
    a = run(rules=rule())
    answer = a.check(user="u")
    assert sorted(answer) == sorted(STARRED)
    assert list(answer)[0] == "deny"
    assert answer == {"deny": False, "reason": "ok", "limit": 5, "remaining": 4,
                      "reset": answer["reset"], "retry_after": 0, "rule": "r", "tier": "anonymous",
                      "scope": "user", "warn": False, "shadow": "", "tag": ""}
    assert near(answer["reset"], DAY / 5)


def test_all_variables(run):
    a = run(rules=rule(rate="100/hour burst 10"), agent=EVERY)
    before = int(time.time())
    answer = a.check(user="u")
    assert list(answer)[0] == "deny" and sorted(answer) == sorted(ALL)
    assert answer["algorithm"] == "token-bucket"
    assert (answer["limit"], answer["remaining"], answer["reset"]) == (10, 9, 36)
    assert before + 36 <= answer["reset_at"] <= time.time() + 37
    # q is the limit, w the seconds from empty to full.
    assert answer["policy"] == '"r";q=10;w=360'
    assert answer["ratelimit"] == '"r";r=9;t=36'


@pytest.mark.parametrize("chosen, said", [
    ('"deny"', {"deny"}), ('"remaining", "limit"', {"limit", "remaining"}),
    ('"reason", "deny"', {"deny", "reason"}), ('"algorithm"', {"algorithm"}),
])
def test_chosen_variables(run, chosen, said):
    a = run(rules=rule(), agent=f"variables = [ {chosen} ];")
    assert set(a.check(user="u")) == said


def test_nothing_to_say_is_ack(run):
    a = run(rules=rule(), agent='variables = [ "limit", "rule", "shadow" ];',
            top='block = ( { user = "bad"; } );')
    assert a.check(user="bad") == {"ack": True}
    assert a.check(x=1) == {"ack": True}
    assert set(a.check(user="u")) == {"limit", "rule", "shadow"}


@pytest.mark.parametrize("top, args, expected", [
    ("", {"x": "y"}, {"deny": False, "reason": "ok", "tier": "anonymous"}),
    ('block = ( { user = "u"; } );', {"user": "u"},
     {"deny": True, "reason": "blocked", "tier": "anonymous"}),
    ('allow = ( { user = "u"; } );', {"user": "u"},
     {"deny": False, "reason": "bypassed", "tier": "anonymous"}),
    ("enabled = false;", {"user": "u", "tier": "gold"},
     {"deny": False, "reason": "disabled", "tier": "gold"}),
])
def test_when_no_limit_is_reported(run, top, args, expected):
    a = run(rules=rule(), top=top, agent=EVERY)
    assert a.check(args) == expected


def test_ietf_fields(run):
    a = run(rules=rules(rule("api", rate='[ "100/minute", "500/hour" ]',
                             algorithm='"sliding-window"'),
                        rule("day", rate='"1000/day"', algorithm='"fixed-window"'),
                        rule("never", match='{ x = "zero"; }', per='[ "x" ]', rate="0/minute"),
                        rule("sh", rate='"7/day"', mode='"shadow"'),
                        rule("off", rate='"3/day"', mode='"off"')), agent=EVERY)
    answer = a.check(user="u")
    assert answer["policy"].replace(" ", "").startswith(
        '"api:60";q=100;w=60,"api:3600";q=500;w=3600,"day";q=1000;w=86400')
    assert '"off"' not in answer["policy"]
    assert answer["ratelimit"].startswith('"api:60";r=99;t=')
    assert answer["rule"] == "api" and answer["limit"] == 100
    # 0/WINDOW is not in policy.
    assert '"never"' not in a.check(user="u", x="zero")["policy"]


@pytest.mark.parametrize("name", ['a\\"b', "a\\\\b", "a;b=c,d", "a b", "é",
                                  "a\\nb", "a\\r\\nb", "\\x01"])
def test_ietf_fields_are_well_formed_whatever_a_rule_is_called(run, tmp_path, name):
    """Refused by -c, or a structured-field string as RFC 9651 has it."""
    text = config(str(tmp_path / "c.sock"), rule(name, tag='"x"'), EVERY)
    path = tmp_path / "named.cfg"
    path.write_text(text)
    checked = check_file(path)
    if checked.status == 1:
        assert f"{path}:" in checked.stderr
        return
    a = run(rules=rule(name, tag='"x"'), agent=EVERY)
    answer = a.check(user="u")
    for field in ("policy", "ratelimit"):
        assert re.fullmatch(r'"([ !#-\[\]-~]|\\["\\])*"(;[a-z]+=[0-9]+)+', answer[field]), (
            answer[field])


def test_reset_of_windows(run):
    a = run(rules=rules(rule("f", algorithm='"fixed-window"', rate="10/day"),
                        rule("m", per='[ "key" ]', algorithm='"fixed-window"', rate="10/month"),
                        rule("w", per='[ "ip" ]', algorithm='"fixed-window"', rate="10/week"),
                        rule("s", per='[ "host" ]', algorithm='"sliding-window"', rate="10/day")),
            agent=EVERY)
    now = datetime.datetime.now(datetime.timezone.utc)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = int((midnight + datetime.timedelta(days=1)).timestamp())
    month = int((midnight.replace(day=1) + datetime.timedelta(days=32)).replace(day=1).timestamp())
    monday = int((midnight + datetime.timedelta(days=7 - now.weekday())).timestamp())
    for args, end in (({"user": "u"}, tomorrow), ({"key": "k"}, month), ({"ip": "::1"}, monday),
                      ({"host": "h"}, tomorrow + DAY)):
        before = time.time()
        answer = a.check(args)
        assert answer["reset_at"] == end, answer
        assert end - time.time() <= answer["reset"] <= end - before + 1
        assert answer["remaining"] == 9


# --- the algorithms --------------------------------------------------------------------------

@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window", "fixed-window"])
def test_n_pass_and_no_more(run, algorithm):
    a = run(rules=rule(algorithm=f'"{algorithm}"'), agent=EVERY)
    for left in (4, 3, 2, 1, 0):
        answer = a.check(user="u")
        assert (answer["reason"], answer["remaining"], answer["limit"]) == ("ok", left, 5)
        assert answer["algorithm"] == algorithm
    for _ in range(3):
        answer = a.check(user="u")
        assert (answer["deny"], answer["reason"], answer["remaining"]) == (True, "limited", 0)
        assert 1 <= answer["retry_after"] <= 2 * DAY
        assert answer["retry_after"] <= answer["reset"]
    assert a.check(user="v")["remaining"] == 4


def test_burst(run):
    a = run(rules=rule(rate="30/day burst 16"))
    for left in range(15, -1, -1):
        answer = a.check(user="u")
        assert (answer["limit"], answer["remaining"]) == (16, left)
        assert near(answer["reset"], (16 - left) * 2880)
    answer = a.check(user="u")
    assert answer["deny"] and near(answer["retry_after"], 2880) and near(answer["reset"], 16 * 2880)
    small = run(rules=rule(rate="30/day burst 1"))
    assert small.check(user="u")["remaining"] == 0
    assert small.check(user="u")["deny"]


def test_the_table_of_redis_cell_at_one_instant(run):
    """1 token a day, capacity 5: five pass, five days until full; cost 6 can never pass."""
    a = run(rules=rule(rate="1/day burst 5"))
    for left, days in ((4, 1), (3, 2), (2, 3), (1, 4), (0, 5)):
        answer = a.check(user="u")
        assert answer["remaining"] == left and near(answer["reset"], days * DAY)
    answer = a.check(user="u")
    assert answer["reason"] == "limited" and near(answer["retry_after"], DAY)
    assert near(answer["reset"], 5 * DAY)
    for user in ("u", "fresh"):
        answer = a.check(user=user, cost=6)
        assert (answer["deny"], answer["reason"], answer["retry_after"]) == (True, "oversize", 0)
    assert a.check(user="fresh", cost=2)["remaining"] == 3
    answer = a.check(user="fresh", cost=5)
    assert answer["reason"] == "limited" and near(answer["retry_after"], 2 * DAY)
    assert answer["remaining"] == 3


def test_waiting_as_told_is_enough(run):
    a = run(rules=rule(rate="1/second burst 2"))
    refused = 0
    for _ in range(3):
        answer = a.check(user="u")
        if answer["deny"]:
            refused += 1
            assert answer["retry_after"] == 1
    if refused:
        end = time.monotonic() + 1.01
        until(lambda: time.monotonic() >= end)
    assert not a.check(user="u")["deny"]


def test_a_fixed_window_opens_again(run):
    a = run(rules=rule(algorithm='"fixed-window"', rate="2/2s"))
    until(lambda: a.check(user="u")["deny"], "the window to be used up")
    until(lambda: not a.check(user="u")["deny"], "the next window")


# --- all or nothing --------------------------------------------------------------------------

def test_user_and_organisation(run):
    a = run(rules=rules(rule("user", rate="5/day"), rule("org", per='[ "org" ]', rate="8/day")))
    assert sum(not a.check(user="u1", org="o")["deny"] for _ in range(8)) == 5
    assert a.check(org="o", cost=0)["remaining"] == 3
    assert sum(not a.check(user="u2", org="o")["deny"] for _ in range(5)) == 3
    assert a.check(org="o", cost=0)["remaining"] == 0
    assert a.check(user="u2", cost=0)["remaining"] == 2


def test_what_other_rules_say_of_a_denied_request(run):
    """Also where the denial is a remembered one."""
    a = run(rules=rules(rule(rate="3/day"), rule("watched", '[ "ip" ]', "1/day", mode='"shadow"'),
                        rule("marked", '[ "ip" ]', "1/day", action='"tag"', tag='"slow"'),
                        rule("warning", '[ "ip" ]', "100/day", warn_at="0.01",
                             algorithm='"fixed-window"')))
    said = [a.check(user="u", ip="192.0.2.1") for _ in range(8)]
    assert [v["deny"] for v in said] == [False] * 3 + [True] * 5
    assert [(v["shadow"], v["tag"], v["warn"]) for v in said] == [("", "", False)] + \
        7 * [("watched", "slow", True)]


@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window", "fixed-window"])
def test_what_is_left_after_a_denial_of_more(run, algorithm):
    """A denial of 4 that is remembered must not hide what 1s have taken since."""
    a = run(rules=rule(rate="4/day", algorithm=f'"{algorithm}"'))
    said = [a.check(user="u", cost=cost) for cost in (1, 4, 1, 1, 1, 4)]
    assert [v["deny"] for v in said] == [False, True, False, False, False, True]
    assert [v["remaining"] for v in said] == [3, 3, 2, 1, 0, 0]
    if algorithm == "token-bucket":
        assert said[-1]["retry_after"] in (DAY, DAY - 1)


def test_one_rule_with_several_rates(run):
    a = run(rules=rule(rate='[ "3/day", "4/week" ]', algorithm='"fixed-window"'), agent=EVERY)
    for left in (2, 1, 0):
        answer = a.check(user="u")
        assert (answer["limit"], answer["remaining"]) == (3, left)
    for _ in range(3):
        assert a.check(user="u")["limit"] == 3
    assert a.check(user="u")["deny"]
    # The week was not charged for what the day refused.
    a.rewrite(rule(rate='"4/week"', algorithm='"fixed-window"'))
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 4)
    assert a.check(user="u", cost=0)["remaining"] == 1


def test_concurrent_requests_admit_exactly_n(run):
    a = run(rules=rules(rule("u", rate="1000/day"), rule("all", per="[]", rate="1500/day")),
            agent="threads = 2;")
    connections = [a.connect() for _ in range(20)]
    keys = [[c.notify(message("check", {"user": f"u{i % 2}"})) for _ in range(100)]
            for i, c in enumerate(connections)]
    allowed = sum(not c.wait(key)["deny"] for c, some in zip(connections, keys) for key in some)
    assert allowed == 1500
    left = [connections[0].check(user=f"u{i}", cost=0)["remaining"] for i in (0, 1)]
    # The reported one is the global one, used up: what the users have is asked without it.
    assert left == [0, 0]
    for c in connections:
        c.close()


# --- which limit is reported -----------------------------------------------------------------

def test_the_smallest_share_is_reported(run):
    a = run(rules=rules(rule("ten", rate="10/day"), rule("four", rate="4/day"),
                        rule("forty", per='[ "user", "x" ]', rate="40/day burst 8")))
    assert a.check(user="u", cost=0)["rule"] == "ten", "a tie: the first in the file"
    assert a.check(user="u")["rule"] == "four"
    assert a.check(user="u", x="1")["rule"] == "four"
    answer = a.check(user="v", x="1", cost=8)
    assert answer["rule"] == "four" and answer["reason"] == "oversize"


def test_denied_the_longest_wait_is_reported(run):
    a = run(rules=rules(rule("hour", rate="1/hour"), rule("day", rate="1/day"),
                        rule("minute", rate="1/minute burst 9")))
    assert not a.check(user="u")["deny"]
    answer = a.check(user="u")
    assert (answer["rule"], answer["reason"]) == ("day", "limited")
    assert near(answer["retry_after"], DAY)


def test_oversize_before_any_wait(run):
    a = run(rules=rules(rule("small", rate="2/hour"), rule("slow", rate="1/week burst 3")))
    assert not a.check(user="u", cost=2)["deny"]
    answer = a.check(user="u", cost=3)
    assert (answer["rule"], answer["reason"], answer["retry_after"]) == ("small", "oversize", 0)
    answer = a.check(user="u", cost=2)
    assert (answer["rule"], answer["reason"]) == ("slow", "limited")


def test_a_rate_of_zero(run):
    a = run(rules=rules(rule("never", match='{ x = "closed"; }', rate="0/minute"), rule("r")),
            agent=EVERY)
    for cost in (1, 0, 5):
        answer = a.check(user="u", x="closed", cost=cost)
        assert (answer["deny"], answer["reason"], answer["limit"], answer["remaining"],
                answer["retry_after"], answer["rule"]) == (True, "oversize", 0, 0, 0, "never")
    assert a.check(user="u")["remaining"] == 4


def test_unlimited(run):
    a = run(rules=rule(rate='{ gold = "unlimited"; default = "2/day"; }'))
    for _ in range(5):
        assert a.check(user="u", tier="gold") == {"deny": False, "reason": "ok", "tier": "gold"}
    assert a.check(user="u", tier="iron")["remaining"] == 1


# --- cost ------------------------------------------------------------------------------------

@pytest.mark.parametrize("cost, taken", [
    (3, 3), (1, 1), ("3", 3), (b"3", 3), ("007", 7), (-1, 1), (-2**63, 1), ("-3", 1), ("x", 1),
    ("3x", 1), ("", 1), (None, 1), (True, 1), (False, 1), ("1.5", 1), ("0x3", 1), (" 3", 1),
    (spop.ip("0.0.0.3"), 1), (spop.typed(spop.UINT32, 3), 3), (spop.typed(spop.UINT64, 3), 3),
    (spop.typed(spop.INT32, 3), 3), ("3\0", 1), ("-0x", 1),
])
def test_cost(run, cost, taken):
    a = run(rules=rule(rate="10/day"))
    assert a.check(user="u", cost=cost)["remaining"] == 10 - taken


@pytest.mark.parametrize("cost", [11, 2**31, 2**32 + 1, 2**63 - 1, "99999999999999999999999",
                                  spop.typed(spop.UINT64, 2**64 - 1)])
def test_a_cost_that_can_never_pass(run, cost):
    a = run(rules=rule(rate="10/day"))
    answer = a.check(user="u", cost=cost)
    if isinstance(cost, int):
        assert (answer["deny"], answer["reason"], answer["retry_after"]) == (True, "oversize", 0)
        assert answer["remaining"] == 10
    else:
        # Beyond every integer: oversize, or no integer and so 1; never something for nothing.
        assert answer["reason"] == "oversize" or answer["remaining"] == 9, answer


@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window", "fixed-window"])
def test_cost_zero_asks(run, algorithm):
    a = run(rules=rule(rate="2/day", algorithm=f'"{algorithm}"'))
    for zero in (0, "0", b"0", spop.typed(spop.UINT32, 0)):
        answer = a.check(user="u", cost=zero)
        assert (answer["deny"], answer["remaining"], answer["retry_after"]) == (False, 2, 0)
        assert answer["reset"] == 0 or algorithm == "fixed-window"
    a.check(user="u")
    assert a.check(user="u", cost=0)["remaining"] == 1
    a.check(user="u")
    for _ in range(3):
        answer = a.check(user="u", cost=0)
        assert (answer["deny"], answer["reason"], answer["remaining"]) == (True, "limited", 0)
        assert answer["retry_after"] >= 1


def test_a_cost_field_of_its_own(run):
    a = run(rules=rules(rule("tokens", per='[ "user" ]', rate="100/day", cost='"tokens"'),
                        rule("requests", per='[ "key" ]', rate="10/day")))
    assert a.check(user="u", tokens=30, cost=9)["remaining"] == 70
    assert a.check(user="u", tokens="20")["remaining"] == 50
    assert a.check(user="u")["remaining"] == 49
    # cost 0 asks only of a rule whose cost it is; others charge as usual.
    assert a.check(user="v", key="k", tokens=50)["rule"] == "tokens"
    a.check(user="v", key="k", tokens=0)
    assert a.check(user="v", tokens=0)["remaining"] == 50
    assert a.check(key="k", cost=0)["remaining"] == 8
    a.check(user="v", key="k", cost=0)
    assert a.check(key="k", cost=0)["remaining"] == 8
    assert a.check(user="v", tokens=0)["remaining"] == 49


# --- count_denied ----------------------------------------------------------------------------

@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window", "fixed-window"])
def test_count_denied(run, algorithm):
    a = run(rules=rule(rate="10/day", algorithm=f'"{algorithm}"', count_denied="true"))
    assert a.check(user="u", cost=7)["remaining"] == 3
    answer = a.check(user="u", cost=5)
    assert (answer["reason"], answer["remaining"]) == ("limited", 0), "charged with what was there"
    assert a.check(user="u")["deny"]
    if algorithm == "token-bucket":
        # After this charge, to exactly 0: five tokens take half a day.
        assert near(answer["retry_after"], DAY / 2)
        assert near(answer["reset"], DAY)


def test_count_denied_of_another_rule(run):
    a = run(rules=rules(rule("strict", rate="2/day"),
                        rule("counts", rate="10/day", count_denied="true")))
    for _ in range(5):
        a.check(user="u")
    a.rewrite(rule("counts", rate="10/day", count_denied="true"))
    a.reload(lambda: a.check(user="u", cost=0)["rule"] == "counts")
    assert a.check(user="u", cost=0)["remaining"] == 5


def test_count_denied_is_not_for_cost_zero_nor_blocked(run):
    a = run(rules=rule(rate="3/day", count_denied="true"), top='block = ( { bad = "yes"; } );')
    for _ in range(3):
        assert a.check(user="u", bad="yes")["reason"] == "blocked"
        assert a.check(user="u", cost=0)["remaining"] == 3
    a.check(user="u", cost=2)
    assert a.check(user="u", cost=4)["reason"] == "oversize"
    for _ in range(3):
        a.check(user="u", cost=0)
    assert a.check(user="u", cost=0)["remaining"] in (0, 1)


# --- shadow, tag, off, warn ------------------------------------------------------------------

def test_shadow(run):
    a = run(rules=rules(rule("dark", rate="2/day", mode='"shadow"'), rule("real", rate="9/day")))
    for left in (8, 7):
        answer = a.check(user="u")
        assert (answer["rule"], answer["remaining"], answer["shadow"]) == ("real", left, "")
    for left in (6, 5):
        answer = a.check(user="u")
        assert (answer["deny"], answer["rule"], answer["remaining"], answer["shadow"]) == (
            False, "real", left, "dark")
    # Exceeded, it is not charged; and it counted what passed.
    a.rewrite(rule("dark", rate="5/day"))
    a.reload(lambda: a.check(user="u", cost=0).get("rule") == "dark")
    assert a.check(user="u", cost=0)["remaining"] == 3


def test_only_shadow(run):
    a = run(rules=rule("dark", rate="1/day", mode='"shadow"'))
    base = {"deny": False, "reason": "ok", "tier": "anonymous"}
    first = a.check(user="u")
    assert {k: v for k, v in first.items() if v} == {k: v for k, v in base.items() if v}
    assert "rule" not in first and "limit" not in first
    second = a.check(user="u")
    assert second["shadow"] == "dark" and second["deny"] is False and "rule" not in second


def test_shadow_is_not_charged_for_what_others_deny(run):
    a = run(rules=rules(rule("dark", rate="9/day", mode='"shadow"'), rule("real", rate="2/day")))
    for _ in range(6):
        a.check(user="u")
    a.rewrite(rule("dark", rate="9/day"))
    a.reload(lambda: a.check(user="u", cost=0)["rule"] == "dark")
    assert a.check(user="u", cost=0)["remaining"] == 7


def test_tag(run):
    a = run(rules=rules(rule("heavy", rate="2/day", action='"tag"', tag='"slow-lane"'),
                        rule("real", rate="4/day")))
    for _ in range(2):
        assert a.check(user="u")["tag"] == ""
    for _ in range(2):
        answer = a.check(user="u")
        assert (answer["deny"], answer["reason"], answer["tag"]) == (False, "ok", "slow-lane")
        # It is reported when nothing denies, by its share: nothing is left of it.
        assert (answer["rule"], answer["remaining"], answer["retry_after"]) == ("heavy", 0, 0)
    answer = a.check(user="u")
    assert (answer["deny"], answer["rule"]) == (True, "real")


def test_a_tag_without_a_name_is_the_name_of_its_rule(run):
    a = run(rules=rule("heavy", rate="1/day", action='"tag"'))
    assert [a.check(user="u")["tag"] for _ in range(2)] == ["", "heavy"]


def test_off(run):
    a = run(rules=rules(rule("off", rate="1/day", mode='"off"'), rule("on", rate="9/day")))
    for left in (8, 7, 6):
        answer = a.check(user="u")
        assert (answer["rule"], answer["remaining"], answer["shadow"]) == ("on", left, "")


@pytest.mark.parametrize("limit, last_quiet", [(15, 12), (8, 6), (10, 8), (5, 4)])
def test_warn(run, limit, last_quiet):
    a = run(rules=rule(rate=f"{limit}/day", warn_at="0.8"))
    for used in range(1, limit + 1):
        assert a.check(user="u")["warn"] is (used > last_quiet), used
    assert a.check(user="u", cost=0)["warn"] is True


def test_warn_is_not_of_shadow_rules_and_of_every_other(run):
    a = run(rules=rules(rule("dark", rate="2/day", mode='"shadow"', warn_at="0.1"),
                        rule("first", rate="4/day"),
                        rule("second", rate="100/day", warn_at="0.015")))
    assert a.check(user="u")["warn"] is False
    answer = a.check(user="u")
    assert answer["rule"] == "first" and answer["warn"] is True


@pytest.mark.parametrize("mode", ['mode = "shadow";', 'action = "tag"; tag = "x";'])
def test_what_could_never_pass_in_shadow_or_tagged(run, mode):
    a = run(rules=rules(rule("soft", rate="2/day")[:-1] + mode + " }",
                        rule("none", match='{ x = "y"; }', rate="0/day")[:-1] + mode + " }",
                        rule("real", rate="9/day")))
    named = ("shadow", "soft", "none") if "shadow" in mode else ("tag", "x", "x")
    for args, name in (({"cost": 3}, named[1]), ({"x": "y", "cost": 1}, named[2]), ({}, "")):
        answer = a.check(args, user="u")
        assert (answer["deny"], answer["reason"], answer[named[0]]) == (False, "ok", name), args
    # 3 + 1 + 1 of nine; the soft rule was charged for the last two alone.
    a.rewrite(rules(rule("soft", rate="4/day"), rule("real", rate="9/day")))
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 9 or
             a.check(user="u", cost=0)["rule"] == "soft")
    a.rewrite(rule("soft", rate="4/day"))
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 4)
    assert a.check(user="u", cost=0)["remaining"] == 2
    a.rewrite(rule("real", rate="9/day"))
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 9)
    assert a.check(user="u", cost=0)["remaining"] == 4


def test_cost_zero_tells_shadow_tag_and_warn(run):
    a = run(rules=rules(rule("dark", rate="1/day", mode='"shadow"'),
                        rule("tagged", rate="1/day", action='"tag"', tag='"t"'),
                        rule("real", rate="2/day", warn_at="0.4")))
    answer = a.check(user="u", cost=0)
    assert (answer["shadow"], answer["tag"], answer["warn"]) == ("", "", False)
    a.check(user="u")
    for _ in range(2):
        answer = a.check(user="u", cost=0)
        assert (answer["shadow"], answer["tag"], answer["warn"]) == ("dark", "t", True)
    assert not a.check(user="u")["deny"]


def test_count_denied_in_a_shadow_rule(run):
    a = run(rules=rules(rule("dark", rate="9/day", mode='"shadow"', count_denied="true"),
                        rule("real", rate="2/day")))
    for _ in range(5):
        a.check(user="u")
    a.rewrite(rule("dark", rate="9/day"))
    a.reload(lambda: a.check(user="u", cost=0)["rule"] == "dark")
    assert a.check(user="u", cost=0)["remaining"] == 4


# --- tiers -----------------------------------------------------------------------------------

TIERED = rule(rate='{ free = "3/day"; gold = [ "9/day", "20/week" ]; }')


def test_tiers(run):
    a = run(rules=TIERED, top='identity: { default_tier = "free"; };')
    assert (a.check(user="a")["limit"], a.check(user="a")["tier"]) == (3, "free")
    answer = a.check(user="b", tier="gold")
    assert (answer["limit"], answer["remaining"], answer["tier"]) == (9, 8, "gold")
    # A tier that is not listed is not limited by this rule.
    assert a.check(user="c", tier="iron") == {"deny": False, "reason": "ok", "tier": "iron"}
    assert a.check(user="c", tier="")["tier"] == "free"
    assert a.check(user="c", tier=None)["tier"] == "free"
    # One counter, whatever the tier: what was used stays used.
    for _ in range(2):
        a.check(user="d", tier="gold")
    assert a.check(user="d", tier="free", cost=0)["remaining"] == 1


def test_a_lowered_limit_never_owes_more_than_its_capacity(run):
    a = run(rules=rule(rate='{ small = "2/day"; large = "20/day"; }'))
    a.check(user="u", tier="large", cost=15)
    answer = a.check(user="u", tier="small")
    assert answer["deny"] and answer["remaining"] == 0
    assert near(answer["retry_after"], DAY / 2) and near(answer["reset"], DAY)
    # The clamp is stored only when that limit is charged: large still knows its 15.
    assert a.check(user="u", tier="large", cost=0)["remaining"] == 5


def test_default_is_the_tier_of_its_own_name(run):
    a = run(rules=rule(rate='{ gold = "9/day"; default = "4/day"; }'))
    answer = a.check(user="u", tier="iron")
    assert (answer["tier"], answer["limit"]) == ("iron", 4)
    answer = a.check(user="v")
    assert (answer["tier"], answer["limit"]) == ("anonymous", 4)


def test_tiers_that_are_no_names(run):
    a = run(rules=rule(rate='( { tier = "2024-gold"; rate = "9/day"; }, '
                            '{ tier = "default"; rate = [ "4/day", "5/week" ]; } )'))
    assert a.check(user="u", tier="2024-gold")["limit"] == 9
    assert a.check(user="v", tier="x")["limit"] == 4


# --- what it counts by -----------------------------------------------------------------------

def test_alternatives(run):
    a = run(rules=rule(per='[ "key|user|ip" ]'))
    for args, scope in (({"key": "alice", "user": "u", "ip": "192.0.2.1"}, "key"),
                        ({"user": "alice", "ip": "192.0.2.1"}, "user"),
                        ({"ip": "192.0.2.1"}, "ip"),
                        ({"key": "", "user": None, "ip": "192.0.2.2"}, "ip")):
        answer = a.check(args)
        # A user alice and a key alice never share.
        assert (answer["scope"], answer["remaining"]) == (scope, 4), args
    assert a.check(x="y") == {"deny": False, "reason": "ok", "tier": "anonymous"}


def test_several_fields(run):
    a = run(rules=rule(per='[ "user", "key|ip" ]'))
    assert a.check(user="u", ip="192.0.2.1")["scope"] == "user+ip"
    assert a.check(user="u", ip="192.0.2.1")["remaining"] == 3
    assert a.check(user="u", ip="192.0.2.2")["remaining"] == 4
    assert a.check(user="u", key="k", ip="192.0.2.1")["scope"] == "user+key"
    for args in ({"user": "u"}, {"ip": "192.0.2.1"}, {"user": "", "ip": "192.0.2.1"}):
        assert "rule" not in a.check(args), "a field is absent: the rule does not apply"


def test_lengths_are_part_of_a_descriptor(run):
    a = run(rules=rule(per='[ "a", "b" ]'))
    for pair in (("ab", "c"), ("a", "bc"), ("a\0b", "c"), ("a", "b\0c"),
                 ("ab+c", "d"), ("ab", "c+d")):
        assert a.check(a=pair[0], b=pair[1])["remaining"] == 4, pair


def test_global(run):
    a = run(rules=rule(per="[]"))
    assert (a.check(user="u")["scope"], a.check(user="v")["remaining"]) == ("global", 3)
    assert a.check()["remaining"] == 2


def test_the_same_value_in_any_type_is_one_counter(run):
    a = run(rules=rule(per='[ "x" ]', rate="9/day"))
    for left, v in zip((8, 7, 6, 5), (7, "7", b"7", spop.typed(spop.UINT32, 7))):
        assert a.check(x=v)["remaining"] == left
    for left, v in zip((8, 7), (True, "true")):
        assert a.check(x=v)["remaining"] == left
    assert a.check(x="07")["remaining"] == 8
    for left, v in zip((8, 7), (-1, "-1")):
        assert a.check(x=v)["remaining"] == left


def test_endpoint(run):
    a = run(rules=rule(per='[ "endpoint" ]'))
    assert a.check(method="GET", path="/a")["scope"] == "endpoint"
    assert a.check(method="GET", path="/a?x=1")["remaining"] == 3
    assert a.check(method="GET", path="/b/../a")["remaining"] == 2
    assert a.check(method="POST", path="/a")["remaining"] == 4
    assert a.check(method="GET", path="/a/")["remaining"] == 4


@pytest.mark.parametrize("path, same", [
    ("/auth/login", "/auth/login"), ("/api/../auth/login", "/auth/login"),
    ("/%61uth//login", "/auth/login"), ("//auth///login", "/auth/login"),
    ("/auth/./login", "/auth/login"), ("/auth/login?next=/", "/auth/login"),
    ("/auth/login#top", "/auth/login"), ("http://example.org/auth/login", "/auth/login"),
    ("https://example.org:8443/auth/login?x", "/auth/login"), ("/../../auth/login", "/auth/login"),
    ("/auth/x/../login", "/auth/login"), ("/%2e%2e/auth/login", "/auth/login"),
    ("/auth/%2E/login", "/auth/login"), ("/auth//../login", "/login"), ("/a/..", "/"),
    ("/a/.", "/a/"),
    ("http://example.org", "/"), ("?x", "/"), ("/a%2fb", "/a%2Fb"), ("/a%2Fb", "/a%2Fb"),
    ("/a%zz", "/a%zz"), ("/a%", "/a%"), ("/a%4", "/a%4"), ("/%7Ea", "/~a"), ("/a%2e", "/a."),
    ("/%41", "/A"), ("/a%20b", "/a%20b"), ("/..", "/"), ("/.", "/"), ("/a/b/../..", "/"),
    ("/%25%36%31", "/%2561"), ("/a/..b", "/a/..b"),
])
def test_paths_are_normalised(shared_paths, path, same):
    """Both spellings share a counter, whichever is asked with."""
    a = shared_paths
    user = f"{path} {same}"
    assert a.check(path=path, user=user)["remaining"] == 99
    assert a.check(path=same, user=user)["remaining"] == 98


@pytest.fixture(scope="module")
def shared_paths(shared):
    return shared(rules=rule(per='[ "path", "user" ]', rate="100/day"))


def test_no_path_is_no_root(shared_paths):
    assert "rule" not in shared_paths.check(path=None, user="x")
    assert "rule" not in shared_paths.check(user="x")


def test_a_path_cannot_escape_a_match(run):
    a = run(rules=rule(match='{ path = "/auth/*"; }', per='[ "ip" ]', rate="1000/day"))
    for path in ("/auth/login", "/%61uth/login", "//auth/login", "/x/../auth/login",
                 "/auth//login", "/./auth/login", "http://h/auth/login", "/a%75th/login"):
        assert a.check(ip="192.0.2.1", path=path).get("rule") == "r", path
    for path in ("/auth", "/Auth/login", "/auth/../x", "/x?/auth/", "/auth%2Flogin"):
        assert "rule" not in a.check(ip="192.0.2.1", path=path), path


def test_hosts(run):
    a = run(rules=rules(rule("counted", per='[ "host" ]', rate="20/day")))
    for left, host in zip(range(19, 0, -1), ("example.org", "EXAMPLE.org", "example.org:8080",
                                              "example.org.", "Example.Org.:443", b"example.org")):
        assert a.check(host=host)["remaining"] == left, host
    for left, host in zip(range(19, 0, -1), ("[2001:db8::1]", "[2001:DB8::1]:8080")):
        assert a.check(host=host)["remaining"] == left, host
    assert a.check(host="example.com")["remaining"] == 19


def test_host_patterns(run):
    a = run(rules=rule(match='{ host = "API.example.org"; }', per="[]"))
    for host in ("api.example.org", "Api.Example.ORG:443", "api.example.org."):
        assert a.check(host=host).get("rule") == "r", host
    assert "rule" not in a.check(host="www.example.org")


def test_prefixes(run):
    a = run(rules=rule(per='[ "ip" ]'))
    assert a.check(ip="2001:db8:0:1::1")["remaining"] == 4
    assert a.check(ip="2001:db8:0:1:ffff::2")["remaining"] == 3
    assert a.check(ip="2001:db8:0:2::1")["remaining"] == 4
    assert a.check(ip="192.0.2.1")["remaining"] == 4
    assert a.check(ip="192.0.2.2")["remaining"] == 4
    b = run(rules=rule(per='[ "ip" ]'), top="identity: { ipv4_prefix = 24; ipv6_prefix = 48; };")
    assert b.check(ip="192.0.2.1")["remaining"] == 4
    assert b.check(ip=spop.ip("192.0.2.255"))["remaining"] == 3
    assert b.check(ip="::ffff:192.0.2.7")["remaining"] == 2
    assert b.check(ip="192.0.3.1")["remaining"] == 4
    assert b.check(ip="2001:db8:0:1::1")["remaining"] == 4
    assert b.check(ip="2001:db8:0:ffff::1")["remaining"] == 3
    assert b.check(ip="2001:db8:1::1")["remaining"] == 4


def test_ip_text_that_is_no_address(run):
    a = run(rules=rules(rule("ip", per='[ "ip" ]'), rule("user", per='[ "user" ]')))
    for text in ("192.0.2", "192.0.2.1.", "192.0.2.256", "0xc0000201", "3221225985", "192.0.2.1/32",
                 "::ffff:192.0.2.256", "unknown", "[::1]", "::1%lo", " 192.0.2.1", "192.0.2.1\0",
                 "1.2.3.4, 5.6.7.8"):
        assert a.check(ip=text) == {"deny": False, "reason": "ok", "tier": "anonymous"}, text


# --- matching --------------------------------------------------------------------------------

@pytest.mark.parametrize("match, args, matches", [
    ('{ x = "a*"; }', {"x": "abc"}, True), ('{ x = "a*"; }', {"x": "a"}, True),
    ('{ x = "a*"; }', {"x": "ba"}, False), ('{ x = "*"; }', {"x": "v"}, True),
    ('{ x = "*"; }', {"x": ""}, False), ('{ x = "*"; }', {}, False),
    ('{ x = "*b*c"; }', {"x": "abbcbc"}, True), ('{ x = "*b*c"; }', {"x": "abcb"}, False),
    ('{ x = "a\\\\*b"; }', {"x": "a*b"}, True), ('{ x = "a\\\\*b"; }', {"x": "axb"}, False),
    ('{ x = [ "a", "b" ]; }', {"x": "b"}, True), ('{ x = [ "a", "b" ]; }', {"x": "c"}, False),
    ('{ x = "!a"; }', {"x": "b"}, True), ('{ x = "!a"; }', {"x": "a"}, False),
    ('{ x = "!a"; }', {}, True), ('{ x = [ "!a", "!b" ]; }', {}, True),
    ('{ x = [ "!a", "*" ]; }', {}, False), ('{ x = [ "*", "!a*" ]; }', {"x": "ab"}, False),
    ('{ x = [ "*", "!a*" ]; }', {"x": "ba"}, True), ('{ x = "a"; y = "b"; }', {"x": "a"}, False),
    ('{ x = "a"; y = "b"; }', {"x": "a", "y": "b"}, True), ('{ x = "A"; }', {"x": "a"}, False),
    ('{ x = "7"; }', {"x": 7}, True), ('{ x = "-7"; }', {"x": -7}, True),
    ('{ x = "true"; }', {"x": True}, True), ('{ x = "false"; }', {"x": False}, True),
    ('{ x = "1"; }', {"x": True}, False), ('{ x = "?"; }', {"x": "a"}, False),
    ('{ ip = "10.0.0.0/8"; }', {"ip": "10.1.2.3"}, True),
    ('{ ip = "10.0.0.0/8"; }', {"ip": "11.1.2.3"}, False),
    ('{ ip = "10.0.0.0/8"; }', {"ip": spop.ip("::ffff:10.1.2.3")}, True),
    ('{ ip = [ "10.0.0.0/8", "!10.1.0.0/16" ]; }', {"ip": "10.1.2.3"}, False),
    ('{ ip = [ "10.0.0.0/8", "!10.1.0.0/16" ]; }', {"ip": "10.2.2.3"}, True),
    ('{ ip = "!10.0.0.0/8"; }', {"ip": "192.0.2.1"}, True), ('{ ip = "!10.0.0.0/8"; }', {}, True),
    ('{ ip = "2001:db8::/32"; }', {"ip": "2001:db8:1::1"}, True),
    ('{ ip = "2001:db8::/33"; }', {"ip": "2001:db8:8000::1"}, False),
    ('{ ip = "::/0"; }', {"ip": "192.0.2.1"}, False),
    ('{ ip = "0.0.0.0/0"; }', {"ip": "::1"}, False),
    ('{ ip = "192.0.2.1"; }', {"ip": bytes([192, 0, 2, 1])}, True),
    ('{ endpoint = "POST:/auth/*"; }', {"method": "POST", "path": "/auth/x"}, True),
    ('{ endpoint = "POST:/auth/*"; }', {"method": "GET", "path": "/auth/x"}, False),
    ('{ endpoint = "POST:/auth/*"; }', {"method": "POST", "path": "/x/..//auth/x"}, True),
    ('{ endpoint = "POST:/auth/*"; }', {"path": "/auth/x"}, False),
    ('{ message = "check"; }', {}, True), ('{ tier = "gold"; }', {"tier": "gold"}, True),
    ('{ method = [ "POST", "PUT" ]; }', {"method": "PUT"}, True),
    ('{ x = "' + "*a" * 40 + '"; }', {"x": "a" * 39}, False),
    ('{ x = "' + "*a" * 40 + 'b"; }', {"x": "a" * 5000}, False),
])
def test_match(run, match, args, matches):
    a = run(rules=rule(match=match, per="[]"))
    assert ("rule" in a.check(args)) is matches


# --- allow, block, disabled ------------------------------------------------------------------

def test_lists_and_their_order(run):
    top = """block = ( { ip = "192.0.2.0/24"; }, { user = [ "bad*", "!badly" ]; } );
             allow = ( { ip = [ "10.0.0.0/8", "192.0.2.1", "::1" ]; }, { user = "bad-but-known"; },
                       { user = "monitor"; path = "/health"; } );"""
    a = run(rules=rule(per='[ "ip|user" ]', rate="1/day"), top=top)
    for args, reason in (({"ip": "192.0.2.1"}, "blocked"), ({"user": "bad-but-known"}, "blocked"),
                         ({"user": "badly"}, "ok"), ({"ip": "10.1.1.1"}, "bypassed"),
                         ({"ip": spop.ip("::1")}, "bypassed"),
                         ({"ip": "::ffff:10.1.1.1"}, "bypassed"),
                         ({"user": "monitor", "path": "/health"}, "bypassed")):
        for _ in range(3):
            answer = a.check(args)
            assert answer["reason"] == reason or reason == "ok", (args, answer)
            assert answer["deny"] is (answer["reason"] in ("blocked", "limited"))
    assert a.check(user="monitor", path="/x")["reason"] == "ok"
    assert a.check(user="monitor", path="/x")["reason"] == "limited"


def test_bypassed_and_blocked_consume_nothing(run):
    a = run(rules=rule(rate="2/day"), top='allow = ( { x = "y"; } ); block = ( { x = "n"; } );')
    for _ in range(5):
        a.check(user="u", x="y")
        a.check(user="u", x="n")
    assert a.check(user="u")["remaining"] == 1


def test_disabled_comes_first(run):
    a = run(rules=rule(rate="0/day"), top='enabled = false; block = ( { user = "u"; } );')
    assert a.check(user="u")["reason"] == "disabled"
    a.rewrite(rule(rate="0/day"), top='enabled = true; block = ( { user = "u"; } );')
    a.reload(lambda: a.check(user="u")["reason"] == "blocked")


# --- what stays the same counter -------------------------------------------------------------

def test_counters_through_changes_of_the_rule(run):
    a = run(rules=rule("r", rate="10/day"),
            agent='variables = [ "limit", "remaining", "rule" ];')
    a.check(user="u", cost=10)

    def becomes(limit, remaining, *several):
        a.rewrite(rules(*several))
        a.reload(lambda: a.check(user="u", cost=0)["limit"] == limit)
        assert a.check(user="u", cost=0)["remaining"] == remaining
    # 10 used of 10, raised to 20, leaves 10.
    becomes(20, 10, rule("r", rate="20/day"))
    becomes(30, 20, rule("r", rate="30/day", count_denied="true", warn_at="0.5"))
    # Position, mode and action are no part of it.
    becomes(31, 21, rule("x", per='[ "other" ]'), rule("r", rate="31/day"))
    becomes(32, 22, rule("r", rate="32/day", action='"tag"', tag='"t"'))
    # Another burst is another quota, nothing more.
    becomes(12, 2, rule("r", rate="33/day burst 12"))
    # Another window, another algorithm, another name: anew.
    becomes(40, 40, rule("r", rate="40/week"))
    becomes(41, 41, rule("r", rate="41/day", algorithm='"fixed-window"'))
    becomes(42, 42, rule("r2", rate="42/day"))
    # And what was not asked for meanwhile is still there.
    becomes(43, 33, rule("r", rate="43/day"))


def test_windows_written_in_another_way_are_the_same(run):
    a = run(rules=rule(rate="10/day"))
    a.check(user="u", cost=4)
    a.rewrite(rule(rate="11/24h"))
    a.reload(lambda: a.check(user="u", cost=0)["limit"] == 11)
    assert a.check(user="u", cost=0)["remaining"] == 7


# --- max_keys --------------------------------------------------------------------------------

def test_max_keys(run):
    """New keys take the places of what has least to lose; one at its limit stays denied."""
    a = run(rules=rule(rate="100/day"), top="store: { max_keys = 2000; };")
    c = a.connect()
    heavy = [f"heavy-{i}" for i in range(5)]
    for user in heavy:
        assert c.check(user=user, cost=100)["remaining"] == 0
    for start in range(0, 10000, 500):
        for answer in c.batch(message("check", {"user": f"light-{start + i}"}) for i in range(500)):
            assert (answer["deny"], answer["remaining"]) == (False, 99)
    for user in heavy:
        assert c.check(user=user)["deny"], "pushed out, though at its limit"
    until(lambda: "max_keys" in a.stderr, "a warning")
    c.close()


def test_memory_is_bounded(run):
    a = run(rules=rule(rate="100/day"), top="store: { max_keys = 1000; };")

    def resident():
        with open(f"/proc/{a.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * 4096
    with a.connect() as c:
        def ask(n):
            for answer in c.batch(message("check", {"user": f"some-user-{i}"}) for i in range(*n)):
                assert not answer["deny"]
        for n in range(0, 6000, 1000):
            ask((n, n + 1000))
        before = resident()
        for n in range(6000, 20000, 1000):
            ask((n, n + 1000))
        assert resident() - before < 24 << 20
