"""Penalties: which denials count, who is banned, and how long, by the documents (conf/full.cfg, conf/admin.md,
contrib/man/spoa-ratelimit.cfg.5)."""

from fractions import Fraction

from oracle_request import SECOND, WINDOWS, Unclear


class Ban:
    """Instants are UTC; what other clocks would make of them is Unclear after a step back."""

    def __init__(self, world, length, level, penalty):
        self.since, self.until, self.steady_until = world.utc, world.utc + length, world.now + length
        self.level, self.most, self.window, self.backs = level, penalty["max"], penalty["window"], world.backs
        self.steps = world.steps
        self.doubtful = False            # lifted or forgotten, or not

    def holds(self, world):
        clear = self.backs == world.backs
        over = world.utc >= self.until and (clear or world.now >= self.steady_until)
        if not over and not clear and (world.held >= self.until or world.now >= self.steady_until
                                       or world.steps > self.steps + 1):
            raise Unclear
        if not over and self.doubtful:
            raise Unclear
        return not over

    def is_remembered(self, world, most):
        """The next one is longer for it."""
        either = {world.utc < self.until + m for m in (self.most, most)}
        if len(either) > 1 or True in either and (self.doubtful or self.backs != world.backs):
            raise Unclear
        return True in either


class Count:
    """Denials, from the first one on."""

    def __init__(self, world, n=1):
        self.utc, self.now, self.backs, self.n = world.utc, world.now, world.backs, n
        self.doubtful = False            # forgotten, or not

    def goes_on(self, world, length):
        either = {world.utc - self.utc < length, world.now - self.now < length}
        if len(either) > 1 or True in either and (self.doubtful or self.backs != world.backs):
            raise Unclear
        return True in either


def length_of(penalty, level):
    return min(penalty["max"], int(penalty["ban"] * Fraction(penalty["factor"]) ** level))


def may_find(rule, who):
    """Can a request be counted so by this rule?"""
    return len(rule["per"]) == len(who) and all(name in names for (name, _), names in zip(who, rule["per"]))


class Penalties:
    def __init__(self):
        self.counts, self.bans = {}, {}          # by rule, (time,) and whom the rule counts

    def until(self, world, counted):
        """When the bans of who is counted so (rules, with whom) end; None: there is none."""
        bans = [self.bans.get((rule["name"], who)) for rule, who in counted
                if rule["penalty"] and rule["mode"] == "enforce" and rule["action"] == "deny"]
        return max((b.until for b in bans if b and b.holds(world)), default=None)

    def is_exact(self, world):
        return all(b.backs == world.backs for b in self.bans.values())

    def weigh(self, world, denied):
        """What a denial by these does: a list of counts and bans."""
        denied = [(rule, who) for rule, who in denied if rule["penalty"]]
        if denied and world.utc < world.held:
            raise Unclear
        return [self.weigh_one(world, rule["name"], rule["penalty"], who) for rule, who in denied]

    def weigh_one(self, world, name, penalty, who):
        length = int(WINDOWS[penalty["window"]] * SECOND)
        before = self.counts.get((name, length, who))
        count = Count(world)
        if before and before.goes_on(world, length):
            count.__dict__.update(before.__dict__, n=before.n + 1)
        if count.n < penalty["n"]:
            return (name, length, who), count, None
        last = self.bans.get((name, who))
        level = last.level + 1 if last and last.is_remembered(world, penalty["max"]) else 0
        return (name, length, who), None, Ban(world, length_of(penalty, level), level, penalty)

    def settle(self, weighed):
        for (name, length, who), count, ban in weighed:
            if ban:
                self.begin_anew(name, who, ban.window)
                self.bans[name, who] = ban
            else:
                self.counts[name, length, who] = count

    def forget(self, rule, who):
        """The counters of one client begin anew, and so does the count of his denials."""
        for key, count in list(self.counts.items()):
            if (key[0], key[2]) == (rule["name"], who):
                count.doubtful = True
                if rule["penalty"] and key[1] == int(WINDOWS[rule["penalty"]["window"]] * SECOND) \
                   and rule["mode"] == "enforce" and rule["action"] == "deny":
                    del self.counts[key]

    def begin_anew(self, name, who, window):
        """After a ban or a lift; nothing says so of what was counted with another time in `after`."""
        for key, count in list(self.counts.items()):
            if (key[0], key[2]) == (name, who):
                count.doubtful = True
                if key[1] == int(WINDOWS[window] * SECOND):
                    del self.counts[key]

    def lift(self, world, name):
        """All bans of a rule; Unclear, and nothing is done, where one may hold or not."""
        for key in [k for k, b in self.bans.items() if k[0] == name and b.holds(world)]:
            self.begin_anew(*key, self.bans.pop(key).window)

    def reset(self, name):
        """Counters of a rule (None: of all) begin anew; bans go on."""
        self.counts = {k: c for k, c in self.counts.items() if name not in (None, k[0])}

    def load(self, world, config):
        """Bans that nothing finds any more end."""
        rules = {r["name"]: r for r in config["rules"]}
        for key, ban in list(self.bans.items()):
            rule = rules.get(key[0])
            switch = world.changes.switches.get(key[0], (None,))[0]
            known = rule and rule["penalty"] and rule["penalty"]["window"] == ban.window and may_find(rule, key[1])
            if known and (rule["mode"] != "off" or switch == "enforce"):
                continue
            # Nothing says what it is where a rule that is off is switched to shadow, nor whether it is forgotten
            # how often he was banned whose ban was over.
            if known and switch or not self.surely_holds(world, ban):
                ban.doubtful = True
            else:
                self.begin_anew(*key, self.bans.pop(key).window)

    @staticmethod
    def surely_holds(world, ban):
        try:
            return ban.holds(world)
        except Unclear:
            return False
