"""What would remove limits without a word, and is told while the agent runs: a tier that no rule lists,
a file without a rule, limits that are off. (What -c says of such files: unit/config/test_slips.c.)
"""

import pytest

from agent import until
from test_limits import rule, rules

RATES = '{ anonymous = "5/day"; premium = "9/day"; }'
MAPPED = rule(name="internal", match='{ tier = [ "intern*", "!external" ]; }', rate='"9/day"')


def said(agent, event="tier_unlisted"):
    return [x for x in agent.lines() if f" {event} " in x]


def told(agent, event="tier_unlisted"):
    """All that it had to say, until its end."""
    assert agent.stop() == 0, agent.stderr
    return said(agent, event)


def ask(agent, times=30, **who):
    for _ in range(times):
        agent.check(cost=0, **who)


def test_a_misspelt_tier_is_told_once(run):
    a = run(rules=rule(rate=RATES))
    ask(a, user="petra", tier="premum")
    ask(a, user="paul", tier="premum")
    ask(a, user="petra", tier="something")
    line, other = told(a)
    assert 'tier=something nearest=""' in other, "each name has its own line"
    assert " warning " in line and "no rule lists this tier" in line, line
    assert "tier=premum" in line and "nearest=premium" in line, line
    assert "user=petra" in line and "from=message" in line, line


def test_a_flood_of_names_is_bounded(run):
    a = run(rules=rule(rate=RATES))
    for i in range(2000):
        a.check(user="u", tier=f"t{i}", cost=0)
    assert 1 < len(told(a)) <= 64


@pytest.mark.parametrize("who", [
    {"tier": "premium"}, {"tier": "internal"}, {"tier": ""}, {}, {"tier": "of-a-user", "user": "tina"},
    {"tier": "premum", "user": "allowed"}])
def test_tiers_that_are_known_are_not(run, tmp_path, who):
    (tmp_path / "tiers.map").write_text("tina of-a-user\n")
    a = run(rules=rules(rule(rate=RATES), MAPPED),
            top='identity: { tiers_file = "tiers.map"; }; allow = ( { user = "allowed"; } );')
    ask(a, **{"user": "u", **who})
    assert not told(a)


def test_where_no_rule_lists_tiers_a_name_is_a_name(run):
    a = run(rules=rule(), top='allow = ( { tier = "x"; } );')
    ask(a, user="u", tier="any")
    assert not told(a)


def test_an_excluded_one_is_no_name(run):
    a = run(rules=rules(rule(rate=RATES), MAPPED))
    ask(a, user="u", tier="external")
    assert len(told(a)) == 1


def test_it_forges_nothing_and_tells_no_secret(run):
    a = run(rules=rule(rate=RATES), top='identity: { secret = [ "key", "user" ]; };')
    ask(a, user="verysecret", tier='x" tier=premium\nfoo ' + "y" * 300)
    line, = told(a)
    assert "verysecret" not in a.stderr and len(line) < 600
    assert 'tier="x\\" tier=premium_foo yyy' in line, line
    b = run(rules=rule(rate=RATES), top='identity: { secret = [ "key", "tier" ]; };')
    ask(b, user="u", tier="premum")
    assert len(told(b)) == 1 and "premum" not in b.stderr


def test_json_has_it_too(run):
    a = run(rules=rule(rate=RATES), top='log: { format = "json"; };')
    ask(a, user="petra", tier="premum")
    assert a.stop() == 0
    assert '"event":"tier_unlisted","tier":"premum","nearest":"premium","user":"petra"' in a.stderr


def test_off_is_told_at_the_start_and_after_a_reload(run):
    a = run(rules=rule(), top="enabled = false;")
    until(lambda: len(said(a, "disabled")) == 1, "a line")
    a.rewrite(rules=rule())
    a.reload(lambda: a.check(user="u", cost=0)["reason"] == "ok")
    a.rewrite(rules=rule(), top="enabled = false;")
    a.reload(lambda: len(said(a, "disabled")) == 2)
    assert a.check(user="u")["reason"] == "disabled"
    line, _ = told(a, "disabled")
    assert " warning " in line and "every request passes" in line


def test_no_rule_is_told_at_the_start(run):
    a = run(rules="")
    line, = told(a, "config_warning")
    assert " warning " in line and "there is no rule: no request is limited" in line
