"""What the agent promises, once more, in exact arithmetic: written from the contract, without an eye on
the agent's source. A World is given what HAProxy asks, and says what it must be answered."""

import datetime
import ipaddress
import math
from fractions import Fraction

from oracle_changes import Changes
from oracle_penalties import Penalties
from oracle_request import DAY, SECOND, WINDOWS, Unclear, cost_of, fields_of, matches

VARIABLES = ["deny", "reason", "limit", "remaining", "reset", "reset_at", "retry_after", "rule", "tier", "scope",
             "algorithm", "warn", "shadow", "tag", "policy", "ratelimit"]
OF_A_LIMIT = ["limit", "remaining", "reset", "reset_at", "retry_after", "rule", "scope", "algorithm", "ratelimit"]
EVERYBODYS = {"endpoint", "path", "method", "host", "message", "tier"}
MONDAY = 4 * DAY                         # 1970-01-05
TOKENS = Fraction(1, 10**6)              # a bucket may be off by so much


# ---- What a limit is and holds

class Rate:
    def __init__(self, n, window, burst=None, per=False):
        self.n, self.window, self.burst, self.per = n, window, burst, per
        self.seconds = WINDOWS.get(window)              # None: month

    @property
    def capacity(self):
        return self.burst or self.n

    def __str__(self):
        return f"{self.n}{' per ' if self.per else '/'}{self.window}" + (f" burst {self.burst}" if self.burst else "")


def month_of(us, add=0):
    day = datetime.date(1970, 1, 1) + datetime.timedelta(days=us // DAY)
    month = day.year * 12 + day.month - 1 + add
    return (datetime.date(month // 12, month % 12 + 1, 1) - datetime.date(1970, 1, 1)).days * DAY


def window_of(rate, us):
    """Start and end of the window that holds this instant."""
    if rate.seconds is None:
        return month_of(us), month_of(us, 1)
    size = int(rate.seconds * SECOND)
    shift = MONDAY if rate.seconds == 7 * 86400 else 0
    start = (us - shift) // size * size + shift
    return start, start + size


class Limit:
    """One rate of one rule, for one client, as it is at one instant. Waits are in microseconds."""

    exact = True                             # what is used is known exactly
    used = Fraction(0)

    def __init__(self, rule, rate, key, world):
        self.rule, self.rate, self.key, self.world = rule, rate, key, world
        self.capacity = rate.capacity
        self.read(world.counters.get(key))

    def counted(self):
        """The rule, and whom it counts."""
        return self.rule, self.key[3]

    def left(self):
        return self.capacity - self.used

    def admits(self, cost):
        short = cost - self.left()
        if 0 < short <= TOKENS and not self.exact:
            raise Unclear
        return short <= 0

    def share(self):
        return max(Fraction(0), self.left()) / self.capacity if self.capacity else Fraction(0)

    def is_past(self, share):
        """Is more than that used? None: too close to tell."""
        past = min(self.used, self.capacity) - share * self.capacity
        return None if not self.exact and 0 < abs(past) <= TOKENS else past > 0

    def remaining(self):
        edge = 0 if self.exact else TOKENS
        either = (self.rounded(x) for x in (self.left() - edge, self.left() + edge))
        return between(*(max(0, min(x, self.capacity)) for x in either))

    rounded = staticmethod(math.floor)

    def name(self):
        several = self.rule["limits"]
        if len(several) == 1:
            return self.rule["name"]
        names = [2592000 if r.seconds is None else math.ceil(r.seconds) for r in several]
        name = names[several.index(self.rate)]
        if names.count(name) > 1 and name != self.rate.seconds:
            name = "month" if self.rate.seconds is None else f"{int(self.rate.seconds * SECOND)}us"
        return f"{self.rule['name']}:{name}"

    def policy(self):
        return f'"{self.name()}";q={self.capacity};w={math.ceil(self.length() / SECOND)}'


class Bucket(Limit):
    def read(self, stored):
        """`stored`: what was used when, and when it is full again at the rate of then."""
        if not stored or not self.rate.n:
            return
        used, when, _ = stored
        self.exact = False
        self.used = max(Fraction(0), min(used, self.capacity) - (self.world.now - when) * self.speed())
        if self.used and self.key in self.world.doubtful:
            raise Unclear

    def speed(self):
        return Fraction(self.rate.n, int(self.rate.seconds * SECOND))

    def charge(self, cost):
        self.used += cost
        self.exact = False
        self.world.counters[self.key] = (self.used, self.world.now, self.world.now + self.used / self.speed())

    def charge_denied(self, cost):
        if min(cost, self.left()) > 0:
            self.charge(min(cost, self.left()))

    def wait(self, cost):
        """Until a request of this cost passes."""
        return max(Fraction(0), (cost - self.left()) / self.speed())

    def reset(self):
        return self.used / self.speed() if self.used else Fraction(0)

    def slack(self, wait):
        """By how much a wait may be off."""
        return 0 if self.exact else TOKENS / self.speed() + wait * TOKENS + 1

    def length(self):
        """From empty to full."""
        return self.capacity / self.speed()


class Window(Limit):
    def read(self, stored):
        """`stored`: when its window began, what that one and the one before it hold, the rate."""
        self.start, self.end = window_of(self.rate, self.world.held)
        if self.key in self.world.doubtful:
            raise Unclear
        self.current = self.previous = 0
        if stored:
            start, current, previous, _ = stored
            if start == self.start:
                self.current, self.previous = min(current, self.rate.n), min(previous, self.rate.n)
            elif window_of(self.rate, start)[1] == self.start:
                self.previous = min(current, self.rate.n)
        self.estimate()

    def estimate(self):
        self.used = Fraction(self.current)

    def charge(self, cost):
        self.current += cost
        self.world.counters[self.key] = (self.start, self.current, self.previous, self.rate)
        self.estimate()

    def charge_denied(self, cost):
        if min(cost, self.capacity - self.current) > 0:
            self.charge(min(cost, self.capacity - self.current))

    def wait(self, cost):
        return Fraction(0 if self.used + cost <= self.capacity else self.opens(cost) - self.world.utc)

    def opens(self, _):
        return self.end

    def reset(self):
        return Fraction(self.end - self.world.utc)

    def slack(self, wait):
        return 0 if wait.denominator == 1 else 1

    def length(self):
        return Fraction(self.end - self.start)


class SlidingWindow(Window):
    def estimate(self):
        self.used = self.current + self.previous * Fraction(self.end - self.world.held, self.end - self.start)
        self.exact = self.used.denominator == 1

    def opens(self, cost):
        size = self.end - self.start
        if self.current + cost <= self.capacity:
            return self.end - Fraction((self.capacity - self.current - cost) * size, self.previous)
        return self.end + size - min(size, Fraction((self.capacity - cost) * size, self.current))

    def reset(self):
        if self.current:
            return Fraction(2 * self.end - self.start - self.world.utc)
        return Fraction(self.end - self.world.utc if self.previous else 0)

    @staticmethod
    def rounded(left):
        """As others publish it: what the last window weighs is rounded down; 0 where not even 1 passes."""
        return 0 if left < 1 else math.ceil(left)


ALGORITHMS = {"token-bucket": Bucket, "fixed-window": Window, "sliding-window": SlidingWindow}


# ---- Expectations: a value, or a range of integers

def between(low, high):
    return low if low == high else (low, high)


def least(value):
    return value[0] if isinstance(value, tuple) else value


def most(value):
    return value[1] if isinstance(value, tuple) else value


def seconds(us, slack):
    return between(math.ceil(max(Fraction(0), us - slack) / SECOND), math.ceil((us + slack) / SECOND))


class World:
    """What the agent would hold and answer."""

    def __init__(self, utc, tiers):
        self.counters, self.doubtful = {}, set()       # the second: keys of what may be forgotten or not
        self.epoch, self.offset, self.now, self.asked = utc, 0, 0, None
        self.held = utc                  # the windows' clock: stands still after a small step back
        self.steps = self.backs = 0      # of the wall clock so far; of these, steps back
        self.config = None
        self.tiers = tiers
        self.penalties, self.changes = Penalties(), Changes()

    @property
    def utc(self):
        return self.epoch + self.now + self.offset

    def follow(self):
        """A step of the wall clock: back by more than a minute, windows of the future become that of now."""
        if self.utc >= self.held - 60 * SECOND:
            self.held = max(self.held, self.utc)
            return
        self.held = self.utc
        for key, state in self.counters.items():
            if key[1] != "token-bucket":
                if self.held < state[0] <= self.held + SECOND:      # hardly of the future
                    self.doubtful.add(key)
                self.counters[key] = (min(state[0], window_of(state[3], self.held)[0]), *state[1:])

    def sweep(self):
        """Windows that are over are forgotten, also where the clock goes back to them (but not at once)."""
        for key, state in list(self.counters.items()):
            if key[1] == "token-bucket":
                continue
            end = window_of(state[3], state[0])[1]
            if key[1] == "sliding-window":
                end = window_of(state[3], end)[1]
            if end <= self.held:
                del self.counters[key]
            if self.held - SECOND < end <= self.held:
                self.doubtful.add(key)

    def configure(self, config):
        self.config = config
        self.penalties.load(self, config)
        self.unsettle()

    def unsettle(self):
        """Where a rate becomes slower, a bucket that was full again may have been forgotten or not."""
        self.doubtful |= {k for k, s in self.counters.items() if k[1] == "token-bucket" and s[2] <= self.now}

    def tier_of(self, fields):
        if "tier" in fields:
            return fields["tier"].decode()
        for name in ("key", "user"):
            if self.config["tiers_file"] and fields.get(name) in self.tiers:
                return self.tiers[fields[name]]
        return self.config["default_tier"]

    def reset(self, name):
        """Counters of a rule, or of all, begin anew."""
        gone = {k for k in self.counters if name in ("", k[0])}
        self.counters = {k: c for k, c in self.counters.items() if k not in gone}
        self.doubtful -= gone
        self.penalties.reset(name or None)

    def forget(self, name, args):
        """Counters of one client begin anew, by one rule or by all ("")."""
        fields, _ = fields_of("check", args)
        config = self.changes.switched(self.config)
        kind, value = self.changes.of(fields, config)
        if kind in ("tier", "rates"):            # nothing says which tier holds then
            raise Unclear
        fields["tier"] = self.tier_of(fields).encode()
        for rule in config["rules"]:
            if name not in ("", rule["name"]) or not matches(rule["match"], fields):
                continue
            found = self.found(rule, fields)
            if None in found or not name and set(found) <= EVERYBODYS:
                continue
            who = self.descriptor(found, fields)
            rates = rule["rate"].values() if isinstance(rule["rate"], dict) else [rule["rate"]]
            windows = {r.seconds for some in rates for r in some if r != "unlimited"}
            for key in [k for k in self.counters if (k[0], k[3]) == (rule["name"], who)]:
                if key[1] != rule["algorithm"] or key[2] not in windows or rule["mode"] == "off":
                    self.doubtful.add(key)
                else:
                    del self.counters[key]
                    self.doubtful.discard(key)
            self.penalties.forget(rule, who)

    @staticmethod
    def found(rule, fields):
        return [next((f for f in names if f in fields), None) for names in rule["per"]]

    def descriptor(self, found, fields):
        return tuple((f, self.client(fields[f]) if f == "ip" else fields[f]) for f in found)

    def limits_of(self, rule, fields, tier, special):
        """`special`: other rates that are set for this client."""
        if rule["mode"] == "off" or not matches(rule["match"], fields):
            return None
        rates = rule["rate"]
        if isinstance(rates, dict):
            rates = rates.get(tier, rates.get("default", []))
        rates = special.get(rule["name"], rates)
        found = self.found(rule, fields)
        if None in found or not rates or rates == ["unlimited"]:
            return None
        descriptor = self.descriptor(found, fields)
        rule = dict(rule, limits=rates, scope="+".join(found) or "global")
        kind = ALGORITHMS[rule["algorithm"]]
        return [kind(rule, r, (rule["name"], rule["algorithm"], r.seconds, descriptor), self) for r in rates]

    def client(self, ip):
        prefix = self.config["ipv4_prefix" if ip.version == 4 else "ipv6_prefix"]
        return ipaddress.ip_network((ip, prefix), strict=False)

    def decide(self, message, args):
        """The variables that are to be answered; None is one that is not set."""
        fields, first = fields_of(message, args)
        self.follow()
        if self.changes.end(self):
            self.unsettle()
        config = self.changes.switched(self.config)
        kind, value = self.changes.of(fields, config)
        said = dict.fromkeys(VARIABLES)
        said["tier"] = value if kind == "tier" else self.tier_of(fields)
        fields["tier"] = said["tier"].encode()
        for reason, holds in (("disabled", not config["enabled"]), ("blocked", kind == "block"),
                              ("bypassed", kind == "bypass"),
                              ("blocked", any(matches(m, fields) for m in config["block"])),
                              ("bypassed", any(matches(m, fields) for m in config["allow"]))):
            if holds:
                return dict(said, deny=reason == "blocked", reason=reason)
        special = value if kind == "rates" else {}
        found = [self.limits_of(r, fields, said["tier"], special) for r in config["rules"]]
        found = [limits for limits in found if limits]
        banned = self.penalties.until(self, [x[0].counted() for x in found])
        if banned is not None:
            return self.banned(said, banned)
        ask = {r["name"]: cost_of(first, r["cost"]) for r in config["rules"]}

        def cost(limit):
            return ask[limit.rule["name"]] or 1
        over = {limits[0].rule["name"] for limits in found if not all([x.admits(cost(x)) for x in limits])}
        denying = [x for limits in found for x in limits
                   if x.rule["mode"] == "enforce" and x.rule["action"] == "deny" and not x.admits(cost(x))]
        weighed = self.penalties.weigh(self, [x[0].counted() for x in found if ask[x[0].rule["name"]]
                                              and any(limit in denying for limit in x)])
        self.penalties.settle(weighed)
        for limit in (x for limits in found for x in limits):
            name = limit.rule["name"]
            if denying and limit.rule["count_denied"]:
                limit.charge_denied(ask[name])
            elif not denying and name not in over and ask[name]:
                limit.charge(ask[name])
        exceeded = [limits[0].rule for limits in found if limits[0].rule["name"] in over]
        shadow = next((r["name"] for r in exceeded if r["mode"] == "shadow"), "")
        tag = next((r["tag"] for r in exceeded if r["mode"] == "enforce" and r["action"] == "tag"), "")
        shown = [x for limits in found for x in limits if x.rule["mode"] == "enforce"]
        said.update(deny=bool(denying), reason="limited" if denying else "ok", shadow=shadow or None, tag=tag or None)
        if shown:
            said.update(shadow=shadow, tag=tag)
            self.report(said, shown, denying, cost)
            self.lengthen(said, [ban for _, _, ban in weighed if ban])
            past = [x.is_past(Fraction(x.rule["warn_at"])) for x in shown if x.rule["warn_at"] is not None]
            said["warn"] = any(past)
            if None in past and not any(past):
                del said["warn"]
        return said

    def report(self, said, shown, denying, cost):
        oversize = [x for x in denying if cost(x) > x.capacity]
        if oversize:
            said["reason"] = "oversize"
            reported = [oversize[0]]
        elif denying:
            reported = self.nearest(denying, lambda x: -x.wait(cost(x)), lambda x: x.slack(x.wait(cost(x))))
        else:
            reported = self.nearest(shown, lambda x: x.share(), lambda x: 0 if x.exact else TOKENS / x.capacity)
        said["policy"] = ", ".join(x.policy() for x in shown if x.capacity)
        if len(reported) > 1:                # any of these, all but equal
            for name in OF_A_LIMIT:
                del said[name]
            return
        limit, reset = reported[0], reported[0].reset()
        slack = limit.slack(reset)
        said.update(
            limit=limit.capacity, remaining=limit.remaining(), reset=seconds(reset, slack),
            reset_at=seconds(self.utc + reset, slack), rule=limit.rule["name"], scope=limit.rule["scope"],
            algorithm=limit.rule["algorithm"],
            retry_after=self.retry_after(shown, cost) if denying and not oversize else 0)
        said["ratelimit"] = f'"{limit.name()}";r={said["remaining"]};t={said["reset"]}'
        if isinstance(said["remaining"], tuple) or isinstance(said["reset"], tuple):
            del said["ratelimit"]

    def banned(self, said, until):
        said.update(deny=True, reason="banned", retry_after=seconds(until - self.utc, 0))
        if not self.penalties.is_exact(self):
            del said["retry_after"]
        return said

    def lengthen(self, said, bans):
        """The denial that begins a ban says when that ends, where the limit would not deny for longer."""
        if said["reason"] != "oversize" and isinstance(said.get("retry_after"), (int, tuple)):
            waits = [said["retry_after"]] + [seconds(b.until - self.utc, 0) for b in bans]
            said["retry_after"] = between(max(map(least, waits)), max(map(most, waits)))

    @staticmethod
    def retry_after(shown, cost):
        """When the same request would pass: all that enforce have a say, as they are after its charge."""
        waits = [(x.wait(cost(x)), x) for x in shown if x.rule["action"] == "deny"]
        either = [seconds(wait, x.slack(wait)) for wait, x in waits]
        return between(max(1, *(least(e) for e in either)), max(1, *(most(e) for e in either)))

    @staticmethod
    def nearest(limits, measure, slack):
        """The first of the least, or all that may be."""
        first = min(measure(x) for x in limits)
        close = [x for x in limits if measure(x) - slack(x) <= first + max(slack(y) for y in limits)]
        return close[:1] if all(measure(x) == first for x in close) else close


def instant(utc):
    whole = datetime.datetime.fromisoformat(utc.replace("Z", "+00:00"))
    return (whole - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)


def apply(world, line):
    """What a line other than config and at does; False where it is left out."""
    what = line[0]
    if what == "reload":
        world.configure(line[1])
    elif what == "restart":
        if world.utc < world.held:
            return False
        world.now += line[1]
        world.follow()
        world.sweep()
        if line[2]:
            world.configure(line[2])
    elif what == "step":
        lag = world.held - (world.utc + line[1])
        if world.asked != world.now or 55 * SECOND < lag < 70 * SECOND \
           or lag > 60 * SECOND and any(r["algorithm"] == "sliding-window" for r in world.config["rules"]):
            return False
        if line[1] < -60 * SECOND:       # a running agent sweeps all the time; that settles what is silent
            world.sweep()
        world.offset += line[1]
        world.steps += 1
        world.backs += line[1] < 0
        world.follow()
        if line[1] < -60 * SECOND:
            world.now += 1
            apply(world, ("sweep",))
    elif what == "sweep":
        world.follow()
        world.sweep()
    elif what == "reset" and line[2] is None:
        world.reset(line[1])
        world.unsettle()
    elif what in ("reset", "lift"):
        try:
            if what == "lift":
                world.penalties.lift(world, line[1])
            else:
                world.forget(*line[1:])
        except Unclear:
            return False
    elif what in ("override", "switch"):
        if not world.changes.put(line):
            return False
        world.unsettle()
    return True
