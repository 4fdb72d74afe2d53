"""Configurations and requests by chance. A world is a list of lines: tuples of what, and its arguments."""

import copy
import ipaddress
import math
import random
import re
from fractions import Fraction

from oracle_changes import subject
from oracle_contract import Rate, World, apply, instant, window_of
from oracle_request import DAY, SECOND, WINDOWS, Unclear, fields_of

NETS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32", "2001:db8:1::/48", "::1",
        "0.0.0.0/0"]
ADDRESSES = ["10.1.2.3", "10.1.2.4", "10.1.3.3", "192.0.2.1", "203.0.113.9", "2001:db8:1::5", "2001:db8:1::6",
             "2001:db8:2::5", "::1"]
USERS = ["alice", "bob", "10.1.2.3", "5", "true", "Alice", "a|b", "a", "a+b|c"]
KEYS = ["alice", "k-1", "5", "a"]
ORGS = ["acme", "-5", "7", "true", "x", "b|c", "c", "|"]
TIERS = ["anonymous", "free", "premium", "default", "odd"]
PATHS = ["/", "/api/a", "/api/b", "/auth/login", "/api/../auth/login", "/%61uth//login", "/v2/x?y=/api", "/a%2fb",
         "/a%2Fb", "http://h.example/api/a", "/api/a#f", "/api/./a", "/api/b/..", "/api/.", "/../api//a", "?q",
         "/%zz", "/%2e%2E/api/a", "/api/%", "/a*b", "//api/a", "/API/a", "/api/a/", "/%2561pi", "*", "a/../b",
         "HTTPS://u@h:1/auth/login?x"]
COSTS = [("int", "-1"), ("int", "-9223372036854775808"), ("int", "9223372036854775807"), ("int", "1000000000"),
         ("int", "100000000"), ("int", "101"), ("int32", "2"), ("int32", "-2"), ("uint", "3"), ("uint32", "4"),
         ("string", "2"), ("string", "two"), ("string", "-2"), ("string", "0"), ("string", "1.5"), ("string", ""),
         ("string", "3x"), ("null", ""), ("bool", "true"), ("ipv4", "0.0.0.2")]
LONG = 350 * DAY                         # a store that nothing sweeps for two years takes that for a leap of the clock
PAUSES = [1, 999, 1000, 333333, 500000, SECOND, 3 * SECOND, 7 * SECOND, 59999999, 61 * SECOND, 900 * SECOND,
          3600 * SECOND, 5 * 3600 * SECOND, DAY, 8 * DAY, 31 * DAY]
HOSTS = ["example.com", "EXAMPLE.com.", "www.example.com:8080", "Example.com:443", "[::1]:80", "other.test.", "."]
PATTERNS = {"path": ["/api/*", "/auth/*", "*", "/a%2Fb", "*/a", "/a\\*b", "/*a*", "/", "*b", "/api/a"],
            "host": ["example.com", "*.example.com", "*", "*.test", "[::1]"],
            "method": ["GET", "POST", "P*", "*"],
            "endpoint": ["POST:/auth/*", "GET:*", "*:/api/*", "POST:/auth/login"],
            "user": ["alice", "5", "*", "*l*", "true", "a*e", "10.1.*"],
            "org": ["acme", "*", "a*", "-5", "true", "7"],
            "weight": ["2", "-*", "*", "3"], "tier": ["free", "*e", "anonymous"],
            "message": ["check", "check-*", "check-login"], "ip": NETS}
COUNTED = ["ip", "user", "key", "org", "host", "path", "endpoint", "method", "message", "tier", "weight"]
UTC = ["2026-01-05T00:00:00Z", "2026-02-28T23:58:30Z", "2024-02-29T12:00:00Z", "2026-12-31T23:59:59.5Z",
       "2026-01-07T03:59:57.000001Z", "2025-03-30T23:59:00Z"]


def rates_of(rule):
    """All its rates, of every tier."""
    lists = rule["rate"].values() if isinstance(rule["rate"], dict) else [rule["rate"]]
    return [r for some in lists for r in some if r != "unlimited"]


class Chance:
    def __init__(self, seed, redis=False):
        self.random, self.redis = random.Random(seed), redis     # Redis has one clock, and is not started anew
        self.penal = self.of(0, 0.3, 1, 1)       # how many rules have a penalty; 1: it is all about them
        self.changing = self.of(0, 0.1, 0.3)     # how often an operator changes something

    def odds(self, share):
        return self.random.random() < share

    def of(self, *some):
        return self.random.choice(some)

    def some(self, values, most):
        return self.random.sample(values, self.random.randint(1, min(most, len(values))))

    def rate(self, algorithm):
        if self.odds(0.04):
            return Rate(0, self.of("minute", "hour"))
        windows = sorted(WINDOWS) + ["minute", "10s", "7s"] * 2 + ["month"] * (algorithm == "fixed-window")
        burst = algorithm == "token-bucket" and self.odds(0.4)
        if self.odds(0.05):
            return Rate(self.of(10**9, 123456789, 10**6 + 1), self.of(*windows),
                        burst and self.of(1, 10**9, 99999999))
        if self.odds(self.penal):
            return Rate(self.of(0, 0, 1, 2), self.of("minute", "hour", "day", "180d"))
        return Rate(self.of(1, 2, 3, 3, 4, 5, 7, 10, 30), self.of(*windows),
                    burst and self.of(1, 2, 3, 5, 8, 16, 100), self.odds(0.2))

    def rates(self, algorithm):
        if self.odds(0.05):
            return ["unlimited"]
        rates = {r.seconds: r for r in (self.rate(algorithm) for _ in range(self.of(1, 1, 1, 2, 3)))}
        return list(rates.values())

    def match(self, share):
        match = {}
        for field in self.some(sorted(PATTERNS), 2) if self.odds(share) else []:
            match[field] = [("!" if self.odds(0.25) else "") + p for p in self.some(PATTERNS[field], 3)]
        return match

    def per(self):
        if self.odds(0.9 * self.penal):
            return self.of([["ip"]], [["user"]], [["user", "ip"]])
        if self.odds(0.5):
            return self.of([["ip"]], [["user"]], [["key", "user", "ip"]], [])
        left = self.some(COUNTED, 5)
        per = []
        while left and len(per) < 3:
            cut = self.random.randint(1, 3)
            per, left = per + [left[:cut]], left[cut:]
        return per

    def rule(self, name):
        algorithm = self.of("token-bucket", "sliding-window", "fixed-window")
        rate = self.rates(algorithm)
        if self.odds(0.4):
            rate = {t: self.rates(algorithm) for t in self.some(TIERS, 3)}
        action = "tag" if self.odds(0.15) else "deny"
        mode = "enforce" if action == "tag" else self.of("enforce", "enforce", "enforce", "enforce", "shadow")
        per = self.per()
        return {"name": name, "match": self.match(0.3 - self.penal / 4), "per": per,
                "algorithm": algorithm, "rate": rate,
                "mode": "off" if self.odds(0.04 + self.changing / 3) else mode, "action": action, "tag": f"tag-{name}",
                "count_denied": self.odds(0.2), "cost": self.of("weight", "org") if self.odds(0.25) else "cost",
                "warn_at": self.of("0", "0.1", "0.3", "0.5", "0.7", "0.8", "0.9", "1") if self.odds(0.4) else None,
                "penalty": self.penalty() if per and self.odds(self.penal) else None}

    def penalty(self):
        ban = self.of(1, 1, 1.5, 2, 10, 30, 600, 3600)
        return {"n": self.of(1, 1, 2, 2, 3, 5), "window": self.of("second", "7s", "10s", "minute", "1h", "week"),
                "ban": int(ban * SECOND), "factor": self.of(1, 1.5, 2, 3, 10),
                "max": int(ban * self.of(1, 1, 2, 3, 7, 100) * SECOND)}

    def reper(self, per):
        """The same with other alternatives of one field; or another field."""
        n = self.random.randrange(len(per))
        rest = [f for f in COUNTED if not any(f in names for names in per)]
        if self.odds(0.3):
            names = [self.of(*rest)]
        elif len(per[n]) > 1 and self.odds(0.5):
            names = [f for f in per[n] if f != self.of(*per[n])] or per[n]
        else:
            names = self.of(per[n] + [rest[0]], [rest[0]] + per[n])
        return per[:n] + [names] + per[n + 1:]

    def repenalized(self, penalty):
        """The same with another setting."""
        other = self.penalty()
        if not penalty or self.odds(0.2):
            return self.of(None, other)
        changed = self.of("n", "window", "factor", "ban", "max")
        penalty = dict(penalty, **{changed: other[changed]})
        return dict(penalty, max=max(penalty["max"], penalty["ban"]))

    def config(self):
        names = "abcd"[:self.of(1, 1, 2) if self.penal == 1 else self.of(1, 1, 2, 2, 3, 4)]
        return {"enabled": not self.odds(0.02 + self.changing / 3), "rules": [self.rule(n) for n in names],
                "allow": [m for m in [self.match(0.08)] if m], "block": [m for m in [self.match(0.08)] if m],
                "ipv4_prefix": self.of(32, 32, 24, 16), "ipv6_prefix": self.of(64, 64, 48, 128),
                "tiers_file": self.odds(0.3), "default_tier": self.of("anonymous", "anonymous", "free", "odd")}

    def changed(self, config):
        """The same with another quota, order, mode."""
        config = copy.deepcopy(config)
        rules = config["rules"]
        for rule in rules:
            for rate in rates_of(rule):
                if rate.n and self.odds(0.4):
                    rate.n = self.of(1, 2, 5, 10, 20)
                    rate.burst = rate.burst and self.of(1, 4, 20, None)
            if self.odds(0.05):
                rule["rate"] = self.rates(rule["algorithm"])
            if self.odds(0.1):
                rule["algorithm"] = "fixed-window"
                for rate in rates_of(rule):
                    rate.burst = None
            if rule["action"] == "deny" and self.odds(0.15):
                rule["mode"] = self.of("enforce", "shadow", "off")
            if rule["per"] and self.odds(0.05 + self.penal / 10):
                rule["per"] = self.reper(rule["per"])
            if rule["per"] and self.odds(self.penal / 2):
                rule["penalty"] = self.repenalized(rule["penalty"])
            if self.odds(0.1):
                rule["count_denied"] = not rule["count_denied"]
            if self.odds(0.1) and not isinstance(rule["rate"], dict):
                rule["rate"] = {"default": rule["rate"], "free": self.rates(rule["algorithm"])}
        if self.odds(0.3):
            self.random.shuffle(rules)
        if self.odds(0.1) and all(r["name"] != "e" for r in rules):
            rules.insert(0, self.rule("e"))
        elif len(rules) > 1 and self.odds(0.05):
            rules.remove(self.of(*rules))
        return config

    def subject(self, last):
        """Whom an override is for: as a rule who asked last."""
        fields = {f: v for f, v in fields_of(*last)[0].items() if f in ("user", "key", "ip")} if last else {}
        if not fields or self.odds(0.2):
            return self.of(("user", self.of(*USERS)), ("key", self.of(*KEYS)), ("ip", self.of(*NETS)))
        by = self.of(*fields)
        if by != "ip":
            return by, fields[by].decode()
        nets = [n for n in map(ipaddress.ip_network, NETS) if n.version == fields[by].version and fields[by] in n]
        return by, subject(self.of(ipaddress.ip_network(fields[by]), *nets))

    def change(self, world, last):
        """What an operator does."""
        until = self.odds(0.4) and world.utc // SECOND + self.of(1, 2, 10, 60, 3600) or None
        rules = [r["name"] for r in world.config["rules"]]
        if self.odds(0.2):
            texts = {name: (name, kind, value) for name, kind, value in reversed(last[1] if last else [])
                     if kind == "string" and value and name not in ("cost", "weight")}
            client = self.odds(0.5) and texts and not self.redis
            return ("reset", self.of("", *rules), list(texts.values()) if client else None)
        if self.odds(0.2 + self.penal / 3):
            return ("lift", self.of(*rules))
        if self.odds(0.4 + self.penal / 4):
            mode = self.of("enforce", "shadow", "off", None)
            return ("switch", self.of("", *rules), mode, mode and until)
        value = None if self.odds(0.2) else self.override(world.config)
        return ("override", self.subject(last), value, value and until)

    def override(self, config):
        kind = self.of("tier", "tier", "rates", "rates", "rates", "bypass", "block")
        if kind == "tier":
            return kind, self.of(*TIERS, "gold")
        if kind == "rates":
            return kind, {r["name"]: self.rates(r["algorithm"]) for r in self.some(config["rules"], 2)}
        return kind, True

    def ip(self):
        literal = self.of(*ADDRESSES)
        ip = ipaddress.ip_address(literal)
        mapped = f"::ffff:{literal}"
        kinds = [("string", literal), (f"ipv{ip.version}", literal), ("hex", ip.packed)]
        if ip.version == 4:
            kinds += [("string", mapped), ("ipv6", mapped), ("hex", ipaddress.ip_address(mapped).packed)]
        else:
            kinds += [("string", ip.exploded.upper())]
        if self.odds(0.05):
            return self.of(("null", ""), ("string", ""), ("string", "no.address"), ("int", "5"), ("hex", b"abc"),
                           ("string", literal + "/32"))
        return self.of(*kinds) if self.odds(0.3) else kinds[0]

    def value(self, values):
        """A text in one of the types that may hold it."""
        value = self.of(*values)
        if self.odds(0.04):
            return self.of(("null", ""), ("string", ""))
        if re.fullmatch(r"-?[0-9]+", value) and self.odds(0.5):
            return ("int", value)
        if value == "true" and self.odds(0.5):
            return ("bool", value)
        return ("hex", value.encode()) if self.odds(0.1) else ("string", value)

    def cost(self):
        if self.odds(0.7):
            return ("int", self.of("0", "1", "2", "3", "5", "10"))
        return self.of(*COSTS)

    def args(self, narrow):
        args = []
        if self.odds(0.9):
            args.append(("ip", *self.ip()))
        for name, values, share in (("user", USERS, max(0.5, 0.9 * self.penal)), ("key", KEYS, 0.3),
                                    ("tier", TIERS[:-1] + ["gold"], 0.35), ("method", ["GET", "POST", "PUT"], 0.6),
                                    ("path", PATHS, 0.6), ("host", HOSTS, 0.4), ("org", ORGS, 0.3)):
            if self.odds(share):
                args.append((name, *self.value(values[:2] if narrow else values)))
        for name in ("cost", "weight"):
            if self.odds(0.3 - self.penal / 5):
                args.append((name, *self.cost()))
        if args and self.odds(0.05):
            args.append(self.of(*args)[:1] + self.value(USERS))
        if self.odds(0.3):
            self.random.shuffle(args)
        return args

    def asked(self, narrow):
        return self.of("check", "check", "check", "check-login"), self.args(narrow)

    def pause(self, world, answer):
        """How long until the next request."""
        if self.odds(0.5 + self.penal / 7):
            return 0
        if self.odds(0.8 * self.penal):
            return self.penal_edge(world)
        if answer and self.odds(0.4):
            for name in ("retry_after", "reset"):
                wait = answer.get(name)
                if isinstance(wait, int) and wait > 0 and self.odds(0.6):
                    return max(0, wait * SECOND + self.of(0, 0, -SECOND, 1, -1))
        if self.odds(0.4):
            return self.edge(world)
        return self.of(*PAUSES, self.random.randrange(2 * SECOND), self.random.randrange(100 * SECOND))

    def penal_edge(self, world):
        """To where a ban ends or is forgotten, a count ends."""
        penalties = [r["penalty"] for r in world.config["rules"] if r["penalty"]]
        if not penalties:
            return 0
        p = self.of(*penalties)
        length = int(WINDOWS[p["window"]] * SECOND)
        ban = min(p["max"], p["ban"] * p["factor"] ** self.of(0, 0, 1))
        return max(0, int(self.of(length, length / p["n"], ban, p["max"], ban + p["max"])) + self.of(0, 0, 1, -1))

    def edge(self, world):
        """To where something changes: a window's end, a refill."""
        rates = [r for rule in world.config["rules"] if rule["mode"] != "off" for r in rates_of(rule) if r.n]
        if not rates:
            return 0
        rate = self.of(*rates)
        start, end = window_of(rate, world.utc)
        size, left = end - start, end - world.utc
        wait = self.of(left, left, left + size, size, Fraction(size, rate.n),
                       Fraction(size * self.of(1, 2, 3), rate.n), Fraction(size, 10))
        return max(0, self.of(math.ceil(wait), math.floor(wait)) + self.of(0, 0, 0, 1, -1))

    def world(self, tiers):
        """The lines of one world: (what, time, more...)."""
        utc = self.of(*UTC)
        world = World(instant(utc), tiers)
        world.config = self.config()
        lines = [("config", utc, world.config)]
        back = not any(r["algorithm"] == "sliding-window" for r in world.config["rules"])
        stepping, narrow, last, answer = self.odds(0.25) and not self.redis, self.odds(0.7), None, None
        configs, asking = [world.config], [self.asked(narrow) for _ in range(2)]
        for _ in range(self.of(15, 30, 50) if self.penal == 1 else self.of(5, 15, 30, 50)):
            if self.odds(0.03 + self.penal / 20):
                configs.append(self.of(self.changed(world.config), *configs))
                lines.append(("reload", configs[-1]))
            elif self.odds(self.changing):
                lines.append(self.change(world, last))
            elif self.odds(0.02) and not self.redis:
                lines.append(("restart", self.of(0, SECOND, 10 * SECOND, 3600 * SECOND, 1234567),
                              self.changed(world.config) if self.odds(0.3) else None))
            elif self.odds(0.02) and not self.redis:
                lines.append(("sweep",))
            elif stepping and self.odds(0.08):
                by = self.of(1, 45, 3600, 86400, -1, -25, -45) if not back or self.odds(0.6) \
                    else self.of(-7200, -130, -3 * 86400)
                lines.append(("step", by * SECOND))
            if lines[-1][0] not in ("at", "config"):
                apply(world, lines[-1])
                world.asked = None
            if last is None or self.odds(0.3 - self.penal / 5):
                last = self.of(*asking) if self.odds(self.penal) else self.asked(narrow)
            pause = self.pause(world, answer)
            if pause > LONG and not self.redis:
                lines.append(("sweep",))
                apply(world, lines[-1])
                pause = min(pause, 2 * LONG)
            world.now += pause
            lines.append(("at", world.now, *last))
            try:
                answer = world.decide(*last)
                world.asked = world.now
            except Unclear:
                pass
        return lines
