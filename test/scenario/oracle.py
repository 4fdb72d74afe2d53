#!/usr/bin/env python3
"""Random worlds (configurations and requests) are written as scenarios with what an oracle expects, the
runner runs them, and what it does not agree with is shrunk and printed.

    oracle.py [--seed N] [--worlds N] [--shown N] [--redis] RUNNER

RUNNER is the program that runs scenarios. The exit status is 1 on a difference. The same seed makes
the same worlds."""

import argparse
import bisect
import hashlib
import ipaddress
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from oracle_contract import VARIABLES, World, apply, instant
from oracle_request import SECOND, Unclear
from oracle_worlds import Chance


def quoted(value):
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def listed(values):
    return "[ " + ", ".join(quoted(v) for v in values) + " ]"


def settings(match):
    return "{ " + " ".join(f"{f} = {listed(p)};" for f, p in match.items()) + " }"


def rule_text(rule):
    rate = rule["rate"]
    rate = "{ " + " ".join(f"{t} = {listed(r)};" for t, r in rate.items()) + " }" if isinstance(rate, dict) \
        else listed(rate)
    out = f'name = "{rule["name"]}"; per = {listed("|".join(p) for p in rule["per"])}; ' \
          f'algorithm = "{rule["algorithm"]}"; rate = {rate};'
    if rule["match"]:
        out += f" match = {settings(rule['match'])};"
    if rule["action"] == "tag":
        out += f' action = "tag"; tag = "{rule["tag"]}";'
    for name, default in (("mode", "enforce"), ("count_denied", False), ("cost", "cost"), ("warn_at", None)):
        if rule[name] != default:
            value = rule[name] if name == "warn_at" else quoted(rule[name]).lower()
            out += f" {name} = {value};"
    if rule["penalty"]:
        out += " penalty = { " + 'after = "{n}/{window}"; ban = "{ban}ms"; factor = {factor}; max = "{max}ms"; '.format(
            **dict(rule["penalty"], ban=rule["penalty"]["ban"] // 1000, max=rule["penalty"]["max"] // 1000)) + "};"
    return "{ " + out + " }"


def config_text(config, tiers_file):
    out = [f"agent: {{ variables = {listed(VARIABLES)}; }};"]
    if not config["enabled"]:
        out.append("enabled = false;")
    out.append(f"identity: {{ ipv4_prefix = {config['ipv4_prefix']}; ipv6_prefix = {config['ipv6_prefix']}; "
               f"default_tier = {quoted(config['default_tier'])};"
               + (f" tiers_file = {quoted(tiers_file)};" if config["tiers_file"] else "") + " };")
    for name in ("allow", "block"):
        if config[name]:
            out.append(f"{name} = ( " + ", ".join(settings(m) for m in config[name]) + " );")
    out.append("rules = ( " + ",\n          ".join(rule_text(r) for r in config["rules"]) + " );")
    return "\n".join(out)


def arg_text(name, kind, value):
    if kind == "null":
        return f"{name}=null"
    if kind == "string":
        return f"{name}={quoted(value)}"
    return f"{name}={kind}:{value.hex() if kind == 'hex' else value}"


def change_text(what, name, value, until):
    """An override or a switch, by the name and the text that Redis has of it."""
    if what == "override":
        by, who = name
        name = f"{by}:" + {"key": "sha256:" + hashlib.sha256(who.encode()).hexdigest(), "user": who,
                           "ip": by == "ip" and str(ipaddress.ip_network(who))}[by]
        kind, value = value or (None, None)
        value = kind and {kind: {r: [str(x) for x in some] for r, some in value.items()} if kind == "rates" else value}
    else:
        value = value and {"mode": value}
    out = f'change {quoted(f"{what}:{name}")}'
    return out + " " + quoted(json.dumps(dict(value, **({"until": until} if until else {})))) if value else out


def expected_text(said):
    out = ["deny" if said["deny"] else "allow"]
    for name, value in said.items():
        if name == "deny":
            continue
        if value is None:
            out.append(f"!{name}")
        elif isinstance(value, tuple):
            out += [f"{name}>={value[0]}", f"{name}<={value[1]}"]
        else:
            out.append(f"{name}={str(value).lower() if isinstance(value, (bool, int)) else quoted(value)}")
    return " ".join(out)


def scenario(lines, tiers, tiers_file):
    """The text of one world."""
    _, utc, config = lines[0]
    out = [f"utc {utc}", "config", config_text(config, tiers_file), "end"]
    world = World(instant(utc), tiers)
    world.config = config
    for line in lines[1:]:
        what = line[0]
        if what == "at":
            world.now = max(line[1], world.now)
            try:
                said = world.decide(*line[2:])
            except Unclear:
                out.append(f"wait {world.now}us")
                continue
            world.asked = world.now
            message = "" if line[2] == "check" else f" message={line[2]}"
            args = "".join(" " + arg_text(*a) for a in line[3])
            out.append(f"at {world.now}us{message}{args} -> {expected_text(said)}")
        elif not apply(world, line):
            continue
        elif what == "reload":
            out += ["reload", config_text(line[1], tiers_file), "end"]
        elif what == "restart":
            out.append(f"restart after {line[1]}us" + (" config" if line[2] else ""))
            out += [config_text(line[2], tiers_file), "end"] if line[2] else []
        elif what in ("override", "switch"):
            out.append(change_text(*line))
        elif what == "lift":
            out.append(f"lift {line[1]}")
        elif what == "reset":
            of = "" if line[2] is None else " for" + "".join(" " + arg_text(*a) for a in line[2])
            out.append(f"reset {line[1]}{of}".rstrip())
        else:
            step = [f"step {line[1]}us"] if what == "step" else []
            out += ["sweep", *step, f"sweep {world.now}us"] if step and line[1] < -60 * SECOND else step or ["sweep"]
    return "\n".join(out) + "\n"


class Runner:
    TIERS = {b"alice": "premium", b"k-1": "free", b"bob": "gold", b"5": "odd"}

    def __init__(self, command, folder):
        self.command, self.folder = command, pathlib.Path(folder)
        self.tiers_file = self.folder / "tiers.map"
        hashed = hashlib.sha256(b"k-1").hexdigest()
        self.tiers_file.write_text(f"# by chance\nalice premium\nsha256:{hashed} free\nbob   gold\n5 odd\n")

    def text(self, lines):
        return scenario(lines, self.TIERS, self.tiers_file.name)

    def differences(self, worlds):
        """What the runner says of each world: a list of texts for each."""
        file, begins, whole, line = self.folder / "worlds.txt", [], [], 1
        for lines in worlds:
            out = self.text(lines)
            begins.append(line)
            whole.append(out)
            line += out.count("\n")
        file.write_text("".join(whole))
        done = subprocess.run([*self.command, str(file)], capture_output=True, text=True, errors="replace",
                              check=False)
        found = [[] for _ in worlds]
        at = 0
        for said in done.stderr.splitlines() + done.stdout.splitlines()[:-1] if done.returncode else []:
            where = re.match(re.escape(str(file)) + r":([0-9]+): ", said)
            at = bisect.bisect_right(begins, int(where[1])) - 1 if where else at
            if where or found[at]:
                found[at].append(said)
        if done.returncode and not any(found):
            raise SystemExit(f"{self.command[0]}: exit status {done.returncode}: {done.stderr}")
        return found

    def fails(self, lines):
        try:
            return bool(self.differences([lines])[0])
        except (KeyError, IndexError):
            return False

    def shrunk(self, lines):
        """The least that still differs."""
        smaller = True
        while smaller:
            smaller = False
            for size in (16, 8, 4, 2, 1):
                n = 1
                while n < len(lines):
                    less = lines[:n] + lines[n + size:]
                    if self.fails(less):
                        lines, smaller = less, True
                    else:
                        n += size
            for n, line in enumerate(lines):
                for other in simpler(line):
                    if self.fails(lines[:n] + [other] + lines[n + 1:]):
                        lines, smaller = lines[:n] + [other] + lines[n + 1:], True
                        break
        return lines


def simpler(line):
    """The line with one thing less, in all ways."""
    for n, part in enumerate(line):
        if isinstance(part, dict):
            for config in simpler_config(part):
                yield line[:n] + (config,) + line[n + 1:]
        elif isinstance(part, list):
            for k in range(len(part)):
                yield line[:n] + (part[:k] + part[k + 1:],) + line[n + 1:]


def simpler_config(config):
    for n, rule in enumerate(config["rules"]):
        rules = config["rules"]
        if len(rules) > 1:
            yield dict(config, rules=rules[:n] + rules[n + 1:])
        less = [dict(rule, **{k: v}) for k, v in (("match", {}), ("count_denied", False), ("cost", "cost"),
                                                  ("warn_at", None), ("mode", "enforce"), ("action", "deny"),
                                                  ("penalty", None))
                if rule[k] != v]
        less += [dict(rule, per=rule["per"][:k] + rule["per"][k + 1:]) for k in range(len(rule["per"]))
                 if not rule["penalty"] or len(rule["per"]) > 1]
        less += [dict(rule, per=rule["per"][:k] + [p[:1]] + rule["per"][k + 1:])
                 for k, p in enumerate(rule["per"]) if len(p) > 1]
        rate = rule["rate"]
        if isinstance(rate, dict):
            less += [dict(rule, rate=r) for r in rate.values()]
            less += [dict(rule, rate={t: r for t, r in rate.items() if t != gone}) for gone in rate if len(rate) > 1]
        elif len(rate) > 1:
            less += [dict(rule, rate=rate[:k] + rate[k + 1:]) for k in range(len(rate))]
        for one in less:
            yield dict(config, rules=rules[:n] + [one] + rules[n + 1:])
    for name, value in (("allow", []), ("block", []), ("tiers_file", False), ("default_tier", "anonymous"),
                        ("enabled", True)):
        if config[name] != value:
            yield dict(config, **{name: value})


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", type=int, default=300)
    parser.add_argument("--shown", type=int, default=1, help="how many differences are shrunk and printed")
    parser.add_argument("--redis", action="store_true", help="counters are in the Redis that the runner starts")
    parser.add_argument("runner")
    options = parser.parse_args()
    command = [options.runner] + ["--redis"] * options.redis
    differ = asked = 0
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(command, folder)
        for first in range(0, options.worlds, 50):
            numbers = range(first, min(first + 50, options.worlds))
            worlds = [Chance(f"{options.seed}/{n}", options.redis).world(runner.TIERS) for n in numbers]
            asked += sum(line[0] == "at" for lines in worlds for line in lines)
            for n, lines, found in zip(numbers, worlds, runner.differences(worlds)):
                if not found:
                    continue
                differ += 1
                if differ <= options.shown:
                    lines = runner.shrunk(lines)
                    print(f"; seed {options.seed}, world {n}")
                    print(runner.text(lines), end="")
                    print("\n".join("; " + re.sub(r"^\S*/", "", t) for t in runner.differences([lines])[0]))
        print(f"{options.worlds} worlds, {asked} requests, {differ} worlds differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
