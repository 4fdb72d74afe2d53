"""Worlds for the alerts of contrib/prometheus, minute by minute, as promtool's unit tests have them:
an agent to which it happens, and one beside it that is well. `v+dxn`: v, and n more values, each d
more than the one before."""

N = 90
ILL, WELL = "10.0.0.1:9601", "10.0.0.2:9601"


def steady(value):
    return f"{value}+0x{N}"


def growing(by):
    return f"0+{by}x{N}"


def turned(at, before, after):
    """`before` up to the minute before `at`, `after` from then on."""
    return f"{before}+0x{at - 1} {after}+0x{N}"


def duration(family, *counts):
    """Checks a minute that took at most 1 ms, at most 49 ms, and all of them."""
    return {f'{family}_bucket{{le="{le}"}}': growing(n)
            for le, n in zip(("0.001024", "0.049152", "+Inf"), counts, strict=True)}


CHECK, CALL = "ratelimit_check_duration_seconds", "ratelimit_redis_call_duration_seconds"
RULE = 'ratelimit_checks_total{rule="api",tier="free",decision="%s",reason="%s"}'
OTHER = RULE.replace("free", "other") % ("allow", "ok")
ALLOWED, DENIED = RULE % ("allow", "ok"), RULE % ("deny", "limited")
SHADOW = 'ratelimit_switch{rule="",mode="shadow"}'
ENFORCED = 'ratelimit_switch{rule="login",mode="enforce"}'  # by its own switch
ERROR = 'ratelimit_disconnects_total{by="%s",code="%d",text="x"}'

EVERYWHERE = "*"  # the other agent is no better

# Ten checks a second, one in a hundred of them denied.
ALL_IS_WELL = {
    "up": steady(1),
    "process_start_time_seconds": steady(1000),
    "ratelimit_enabled": steady(1),
    SHADOW: steady(0),
    "ratelimit_store_up": steady(1),
    "ratelimit_state_file_up": steady(1),
    "ratelimit_redis_changes_up": steady(1),
    "ratelimit_checks_allowed_total": growing(594),
    "ratelimit_checks_denied_total": growing(6),
    ALLOWED: growing(594),
    DENIED: growing(6),
    **duration(CHECK, 600, 600, 600),
    **duration(CALL, 600, 600, 600),
    "ratelimit_connections_open": steady(4),
    "ratelimit_health_checks_total": growing(30),
    OTHER: steady(0),
    "ratelimit_keys": steady(1000),
    "ratelimit_keys_max": steady(100000),
    ERROR % ("haproxy", 0): growing(1),
    **{f"ratelimit_{name}_total": steady(0) for name in (
        "reloads_refused", "bans_begun", "redis_breaks", "checks_degraded", "checks_unpooled",
        "checks_abandoned", "keys_evicted", "keys_evicted_limited", "frames_bad",
        "connections_refused", "actions_dropped", "fragments_truncated")},
}


def total(name, values):
    return {f"ratelimit_{name}_total": values}


NOT_ASKED = {**total("checks_allowed", steady(7)), **total("checks_denied", steady(0)),
             ALLOWED: steady(7), DENIED: steady(0)}

NONE_ASKED = {**NOT_ASKED, EVERYWHERE: True}
UNCONNECTED, UNPROBED = {"ratelimit_connections_open": steady(0)}, total("health_checks", steady(9))

# The alert, what is otherwise than when all is well, and when it is looked at. No other alert fires.
FIRING = (
    ("RatelimitDown", {"up": steady(0)}, "75m"),
    ("RatelimitAbsent", {"up": None}, "75m"),
    ("RatelimitRestarting",
     {"process_start_time_seconds": "1+0x50 2+0x3 3+0x3 4+0x3 5+0x90"}, "75m"),
    ("RatelimitOff", {"ratelimit_enabled": turned(10, 1, 0)}, "75m"),
    ("RatelimitOff", {SHADOW: turned(10, 0, 1)}, "75m"),
    ("RatelimitNoChecks", NONE_ASKED, "75m"),
    ("RatelimitNoChecks", {**NONE_ASKED, **UNCONNECTED}, "75m"),
    ("RatelimitNoChecks", {**NONE_ASKED, **UNPROBED}, "75m"),
    ("RatelimitTierUnknown", {OTHER: growing(40)}, "75m"),
    ("RatelimitReloadRefused", total("reloads_refused", turned(71, 0, 1)), "75m"),
    ("RatelimitDenialsHigh", total("checks_denied", growing(300)), "75m"),
    ("RatelimitRuleDenialsHigh", {DENIED: growing(900)}, "75m"),
    ("RatelimitBansSurge", total("bans_begun", growing(6)), "75m"),
    ("RatelimitStoreAway", {"ratelimit_store_up": turned(73, 1, 0)}, "75m"),
    ("RatelimitStateFileNotWritten", {"ratelimit_state_file_up": turned(69, 1, 0)}, "75m"),
    ("RatelimitChangesNotShared", {"ratelimit_redis_changes_up": turned(69, 1, 0)}, "75m"),
    ("RatelimitStorePartlyAway", {"ratelimit_store_up": turned(69, 1, 0.5)}, "75m"),
    ("RatelimitBreakerOpened", total("redis_breaks", turned(71, 0, 1)), "75m"),
    ("RatelimitDegraded", total("checks_degraded", growing(12)), "75m"),
    ("RatelimitStoreSlow", duration(CALL, 500, 600, 600), "75m"),
    ("RatelimitChecksUnpooled", total("checks_unpooled", turned(71, 0, 5)), "75m"),
    ("RatelimitChecksAbandoned", total("checks_abandoned", growing(2)), "75m"),
    ("RatelimitTableFull", {"ratelimit_keys": steady(95000)}, "75m"),
    ("RatelimitKeysEvicted", total("keys_evicted", growing(6)), "75m"),
    ("RatelimitLimitedEvicted", total("keys_evicted_limited", turned(73, 0, 1)), "75m"),
    ("RatelimitSlow", duration(CHECK, 500, 600, 600), "75m"),
    ("RatelimitFramesBad", total("frames_bad", growing(1)), "75m"),
    ("RatelimitHaproxyErrors", {ERROR % ("haproxy", 4): growing(1)}, "75m"),
    ("RatelimitConnectionsRefused", total("connections_refused", growing(1)), "75m"),
    ("RatelimitFramesTooSmall", total("actions_dropped", turned(71, 0, 5)), "75m"),
    ("RatelimitFramesTooSmall", total("fragments_truncated", turned(71, 0, 5)), "75m"),
)

# Nearly that: too little, too short, or over.
QUIET = (
    ("RatelimitDown", {"up": turned(74, 1, 0)}, "75m"),
    ("RatelimitAbsent", {"up": f"1+0x68 _x{N}"}, "75m"),
    ("RatelimitRestarting", {"process_start_time_seconds": "1+0x50 2+0x3 3+0x3 4+0x90"}, "75m"),
    ("RatelimitRestarting",
     {"process_start_time_seconds": "1+0x10 2+0x3 3+0x3 4+0x3 5+0x90"}, "75m"),
    ("RatelimitOff", {"ratelimit_enabled": turned(20, 1, 0)}, "75m"),
    ("RatelimitOff", {SHADOW: turned(20, 0, 1)}, "75m"),
    ("RatelimitOff", {'ratelimit_switch{rule="api",mode="shadow"}': steady(1)}, "75m"),
    ("RatelimitOff", {SHADOW: steady(1), ENFORCED: steady(1)}, "75m"),
    ("RatelimitNoChecks", NOT_ASKED, "75m"),  # the other one is: this is a backup
    ("RatelimitNoChecks", {**NONE_ASKED, **UNCONNECTED, **UNPROBED}, "75m"),
    ("RatelimitNoChecks", {**NONE_ASKED, **total("checks_allowed", f"0+60x62 3720+0x{N}")}, "75m"),
    ("RatelimitTierUnknown", {OTHER: growing(20)}, "75m"),
    ("RatelimitTierUnknown", {OTHER: f"0+0x67 0+60x{N}"}, "75m"),
    ("RatelimitReloadRefused", total("reloads_refused", turned(50, 0, 1)), "75m"),
    ("RatelimitDenialsHigh", total("checks_denied", growing(150)), "75m"),
    ("RatelimitDenialsHigh", {**total("checks_denied", growing(30)),
                              **total("checks_allowed", growing(1))}, "75m"),
    ("RatelimitDenialsHigh", total("checks_denied", f"0+0x67 0+900x{N}"), "75m"),
    ("RatelimitRuleDenialsHigh", {DENIED: growing(500)}, "75m"),
    ("RatelimitRuleDenialsHigh", {DENIED: growing(30), ALLOWED: growing(1)}, "75m"),
    ("RatelimitBansSurge", total("bans_begun", growing(4)), "75m"),
    ("RatelimitStoreAway", {"ratelimit_store_up": turned(75, 1, 0)}, "75m"),
    ("RatelimitStateFileNotWritten", {"ratelimit_state_file_up": turned(71, 1, 0)}, "75m"),
    ("RatelimitChangesNotShared", {"ratelimit_redis_changes_up": turned(71, 1, 0)}, "75m"),
    ("RatelimitStorePartlyAway", {"ratelimit_store_up": turned(71, 1, 0.5)}, "75m"),
    ("RatelimitBreakerOpened", total("redis_breaks", turned(50, 0, 1)), "75m"),
    ("RatelimitDegraded", total("checks_degraded", growing(3)), "75m"),
    ("RatelimitStoreSlow", duration(CALL, 600, 600, 600), "75m"),
    ("RatelimitStoreSlow", duration(CALL, 0, 0, 0), "75m"),
    ("RatelimitChecksUnpooled", total("checks_unpooled", turned(50, 0, 5)), "75m"),
    ("RatelimitChecksAbandoned", total("checks_abandoned", growing(0.3)), "75m"),
    ("RatelimitTableFull", {"ratelimit_keys": steady(89000)}, "75m"),
    ("RatelimitTableFull", {"ratelimit_keys": turned(68, 1000, 100000)}, "75m"),
    ("RatelimitKeysEvicted", total("keys_evicted", turned(68, 0, 60)), "75m"),
    ("RatelimitLimitedEvicted", total("keys_evicted_limited", turned(50, 0, 1)), "75m"),
    ("RatelimitSlow", duration(CHECK, 599, 600, 600), "75m"),
    ("RatelimitSlow", duration(CHECK, 0, 0, 0), "75m"),
    ("RatelimitFramesBad", total("frames_bad", turned(71, 0, 3)), "75m"),
    ("RatelimitHaproxyErrors", {ERROR % ("haproxy", 2): growing(9), ERROR % ("agent", 4): growing(9)},
     "75m"),
    ("RatelimitConnectionsRefused", total("connections_refused", turned(71, 0, 3)), "75m"),
    ("RatelimitFramesTooSmall", total("actions_dropped", turned(50, 0, 5)), "75m"),
)


def series(changed):
    def of(instance, values):
        for name, text in values.items():
            if text is not None and name != EVERYWHERE:
                head, _, labels = name.partition("{")
                more = "," + labels[:-1] if labels else ""
                yield {"series": f'{head}{{job="spoa-ratelimit",instance="{instance}"{more}}}',
                       "values": text}
    well = {**ALL_IS_WELL, **({"up": changed["up"]} if changed.get("up", "") is None else {})}
    if EVERYWHERE in changed:
        well = {**well, **changed}
    if "_x" in (changed.get("up") or ""):
        well["up"] = changed["up"]      # absent is who has no agent at all
    return [*of(ILL, {**ALL_IS_WELL, **changed}), *of(WELL, well)]


def case(name, changed, at, fire):
    """`fire`: the alerts that fire then, and there; nothing else does."""
    where = (ILL, WELL) if EVERYWHERE in changed else (ILL,)
    return {"name": name, "interval": "1m", "input_series": series(changed), "promql_expr_test": [{
        "expr": 'count by (alertname, instance) (ALERTS{alertstate="firing"})', "eval_time": at,
        "exp_samples": [{"labels": f'{{alertname="{n}"' + (
            "}" if n == "RatelimitAbsent" else f',instance="{i}"}}'), "value": 1} for n in fire for i in where]}]}


def wrong(name, changed, at):
    """The same, but that it says it does not fire."""
    return {"name": name, "interval": "1m", "input_series": series(changed), "alert_rule_test": [{
        "alertname": name, "eval_time": at, "exp_alerts": []}]}
