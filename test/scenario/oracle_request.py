"""What a request holds and what of it matches, by the contract; and what all parts of the oracle know."""

import ipaddress
import re
from fractions import Fraction

SECOND = 1_000_000                       # all times are whole microseconds
DAY = 86400 * SECOND
WINDOWS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400, "7s": 7, "10s": 10, "90s": 90,
           "1m": 60, "5m": 300, "1h": 3600, "1d": 86400, "7d": 7 * 86400, "3d": 3 * 86400,
           "180d": 180 * 86400, "1500ms": Fraction(3, 2), "2s": 2, "30d": 30 * 86400}


class Unclear(Exception):
    """The exact answer lies so close to an edge that either one is right, or nothing says which is."""


# ---- What a request holds

def text(kind, value):
    """An argument in text form; None is absent."""
    if kind == "null":
        return None
    if kind in ("ipv4", "ipv6"):
        return str(address(value)).encode()
    return value.encode() if isinstance(value, str) else value


def address(literal):
    ip = ipaddress.ip_address(literal)
    return getattr(ip, "ipv4_mapped", None) or ip


def address_of(kind, value):
    """None where it is no address."""
    if kind == "hex":
        if len(value) in (4, 16):
            return address(value)
    elif kind not in ("string", "ipv4", "ipv6"):
        return None
    try:
        return address(value.decode() if isinstance(value, bytes) else value)
    except ValueError:
        return None


def normal_path(path):
    path = re.sub(rb"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", b"", path)
    path = re.split(rb"[?#]", path, maxsplit=1)[0]

    def escape(found):
        byte = bytes([int(found[1], 16)])
        return byte if re.match(rb"[A-Za-z0-9._~-]", byte) else found[0].upper()
    path = re.sub(rb"%([0-9A-Fa-f]{2})", escape, path)
    path = re.sub(rb"/+", b"/", path)
    if path and not path.startswith(b"/"):
        return path
    out = []
    parts = path.split(b"/")[1:]
    for n, part in enumerate(parts):
        if part == b"..":
            del out[-1:]
        elif part != b".":
            out.append(part)
        if part in (b".", b"..") and n == len(parts) - 1:
            out.append(b"")
    return b"/" + b"/".join(out)


def normal_host(host):
    host = re.sub(rb":[0-9]*$", b"", host).lower()
    return host[:-1] if host.endswith(b".") else host


def fields_of(message, args):
    fields = {"message": message.encode()}
    first = {}
    for name, kind, value in args:
        first.setdefault(name, (kind, value))
    for name, (kind, value) in first.items():
        got = address_of(kind, value) if name == "ip" else text(kind, value)
        if got is not None and name == "path":                   # empty is "/"
            got = normal_path(got)
        if got and name == "host":
            got = normal_host(got)
        if got:
            fields[name] = got
    if "method" in fields and "path" in fields:
        fields["endpoint"] = fields["method"] + b":" + fields["path"]
    return fields, first


def cost_of(first, name):
    kind, value = first.get(name, ("null", None))
    value = text(kind, value) or b""
    return int(value) if kind not in ("bool", "ipv4", "ipv6") and re.fullmatch(rb"[0-9]+", value) else 1


def like(pattern, value):
    parts = re.split(r"(\\\*|\*)", pattern)
    regex = "".join({"*": ".*", r"\*": r"\*"}.get(p, re.escape(p)) for p in parts)
    return re.fullmatch(regex.encode(), value, re.S) is not None


def field_matches(name, patterns, fields):
    wanted = [p for p in patterns if not p.startswith("!")]
    if name not in fields:
        return not wanted

    def one(pattern):
        if name == "ip":
            net = ipaddress.ip_network(pattern)
            return fields[name].version == net.version and fields[name] in net
        return like(pattern, fields[name])
    return (not wanted or any(map(one, wanted))) and not any(one(p[1:]) for p in patterns if p.startswith("!"))


def matches(match, fields):
    return all(field_matches(name, patterns, fields) for name, patterns in match.items())
