"""What an operator changes while the agent runs, by conf/admin.md: overrides and switches."""

import ipaddress

from oracle_request import SECOND, Unclear


class Changes:
    """`overrides`: by (key, user or ip, whose), `switches`: by rule, "" for all; with what it sets and, in Unix
    seconds, its end."""

    def __init__(self):
        self.overrides, self.switches = {}, {}

    def end(self, world):
        """Takes out those that are over; says whether there were any."""
        ended = False
        for some in (self.overrides, self.switches):
            for name, (_, until) in list(some.items()):
                if until is None or until * SECOND > world.held:
                    continue
                if until * SECOND > world.utc:
                    raise Unclear
                del some[name]
                ended = True
        return ended

    def put(self, line):
        what, name, value, until = line
        some = self.overrides if what == "override" else self.switches
        if value is not None:
            some[name] = (value, until)
        return value is not None or some.pop(name, None) is not None

    def switched(self, config):
        """The configuration as the switches make it."""
        whole = self.switches.get("", (None,))[0]
        rules = [dict(r, mode=self.mode_of(r, whole)) for r in config["rules"]]
        return dict(config, rules=rules, enabled=whole != "off" if whole else config["enabled"])

    def mode_of(self, rule, whole):
        own = self.switches.get(rule["name"], (None,))[0]
        return own or (whole if whole in ("shadow", "enforce") and rule["mode"] != "off" else rule["mode"])

    def of(self, fields, config):
        """What is set for who asks: (kind, value), or (None, None)."""
        names = [(by, fields[by].decode("latin-1")) for by in ("key", "user") if by in fields]
        if "ip" in fields:
            nets = [ipaddress.ip_network(who) for by, who in self.overrides if by == "ip"]
            nets = [n for n in nets if n.version == fields["ip"].version and fields["ip"] in n]
            names += [("ip", subject(n)) for n in sorted(nets, key=lambda n: -n.prefixlen)]
        for name in names:
            if name in self.overrides:
                kind, value = self.overrides[name][0]
                if kind == "rates" and not goes(value, config):
                    raise Unclear
                return kind, value
        return None, None


def subject(net):
    """A prefix as it is written: of a single address without its length."""
    return str(net.network_address if net.prefixlen == net.max_prefixlen else net)


def goes(rates, config):
    """Do these rates go with the configuration's rules?"""
    kinds = {r["name"]: r["algorithm"] for r in config["rules"]}
    return all(name in kinds and all(r == "unlimited" or (not r.burst or kinds[name] == "token-bucket") and
                                     (r.seconds or kinds[name] == "fixed-window") for r in some)
               for name, some in rates.items())
