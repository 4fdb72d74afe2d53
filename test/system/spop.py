"""An SPOP 2.0 client that plays HAProxy's part, and reads an agent's answers strictly.

It is written from the specification alone and shares nothing with the agent, so that the two
cannot be wrong together. Whatever an agent may never do (a frame without FIN, an ACK that is
empty, a second one, a string with a line break) raises ProtocolError here, in every test.
"""

import ipaddress
import socket
import struct
import time

UNSET, HAPROXY_HELLO, HAPROXY_DISCONNECT, NOTIFY = 0, 1, 2, 3
AGENT_HELLO, AGENT_DISCONNECT, ACK = 101, 102, 103
FIN, ABORT = 1, 2
MIN_FRAME = 256
U64 = (1 << 64) - 1

NULL, BOOL, INT32, UINT32, INT64, UINT64, IPV4, IPV6, STRING, BINARY = range(10)
INTEGERS = (INT32, UINT32, INT64, UINT64)
SCOPE_TXN = 2

# What a health check of HAProxy 2.0 to 3.5 sends, byte for byte.
HEALTH_CHECK = bytes.fromhex(
    "0000004e01000000010000"
    "12737570706f727465642d76657273696f6e730803322e30"
    "0e6d61782d6672616d652d73697a6503fcf006"
    "0c6361706162696c69746965730800"
    "0b6865616c7468636865636b11")

# A NOTIFY of HAProxy 2.6 with every kind of argument, stream-id 0, frame-id 1.
NOTIFY_CAPTURED = bytes.fromhex(
    "000000890300000001" "0001"
    "0b636865636b2d6c696d6974" "0e"
    "03737263" "067f000001"
    "066d6574686f64" "0803474554"
    "0470617468" "08022f61"
    "03686472" "08024b31"
    "076d697373696e67" "00"
    "0169" "04fff0fefefefefefefe0e"
    "0162" "11"
    "027636" "0720010db8000000000000000000000001"
    "036c6974" "0800"
    "0362696e" "090200ff"
    "0373736c" "01"
    "026265" "0400"
    "0171" "0400"
    "00" "067f000001")

VARIABLES = {
    "deny": bool, "reason": str, "limit": int, "remaining": int, "reset": int, "reset_at": int,
    "retry_after": int, "rule": str, "tier": str, "scope": str, "algorithm": str, "warn": bool,
    "shadow": str, "tag": str, "policy": str, "ratelimit": str, "ack": bool,
}
REASONS = {"ok", "limited", "oversize", "blocked", "banned", "bypassed", "disabled", "degraded"}


class ProtocolError(AssertionError):
    """The agent did what no agent may do."""


class Closed(Exception):
    """The connection ended without an AGENT-DISCONNECT."""


class Disconnected(Exception):
    """An AGENT-DISCONNECT came."""

    def __init__(self, code, message):
        super().__init__(f"AGENT-DISCONNECT {code} {message!r}")
        self.code = code
        self.message = message


def require(condition, what):
    if not condition:
        raise ProtocolError(what)


# --- bytes -----------------------------------------------------------------------------------

def varint(n):
    n &= U64
    if n < 240:
        return bytes([n])
    out = bytearray([(n | 240) & 255])
    n = (n - 240) >> 4
    while n >= 128:
        out.append((n | 128) & 255)
        n = (n - 128) >> 7
    out.append(n)
    return bytes(out)


class Raw(bytes):
    """A typed value that is already encoded."""


def typed(kind, value):
    """An integer of a chosen type."""
    return Raw(bytes([kind]) + varint(value))


def string(value):
    if isinstance(value, str):
        value = value.encode()
    return varint(len(value)) + bytes(value)


def value(v):
    """A Python value in the type that HAProxy would give it: every integer is INT64."""
    if isinstance(v, Raw):
        return bytes(v)
    if v is None:
        return b"\x00"
    if v is True:
        return b"\x11"
    if v is False:
        return b"\x01"
    if isinstance(v, int):
        return bytes([INT64]) + varint(v)
    if isinstance(v, ipaddress.IPv4Address):
        return bytes([IPV4]) + v.packed
    if isinstance(v, ipaddress.IPv6Address):
        return bytes([IPV6]) + v.packed
    if isinstance(v, str):
        return bytes([STRING]) + string(v)
    if isinstance(v, (bytes, bytearray)):
        return bytes([BINARY]) + string(v)
    raise TypeError(f"no SPOP type for {v!r}")


def ip(text):
    return ipaddress.ip_address(text)


def pairs(args):
    return list(args.items()) if isinstance(args, dict) else list(args)


def kv(items):
    return b"".join(string(k) + value(v) for k, v in pairs(items))


def message(name, args=()):
    args = pairs(args)
    return string(name) + bytes([len(args) & 255]) + kv(args)


def frame(kind, payload=b"", sid=0, fid=0, flags=FIN):
    body = struct.pack(">BI", kind, flags) + varint(sid) + varint(fid) + bytes(payload)
    return struct.pack(">I", len(body)) + body


def hello_items(versions="2.0", size=16380, capabilities="pipelining,async", **more):
    items = []
    if versions is not None:
        items.append(("supported-versions", versions))
    if size is not None:
        items.append(("max-frame-size", typed(UINT32, size) if isinstance(size, int) and
                      not isinstance(size, Raw) else size))
    if capabilities is not None:
        items.append(("capabilities", capabilities))
    items += [(k.replace("_", "-"), v) for k, v in more.items()]
    return items


def hello(**items):
    return frame(HAPROXY_HELLO, kv(hello_items(**items)))


def disconnect(code=0, text="normal"):
    return frame(HAPROXY_DISCONNECT, kv([("status-code", typed(UINT32, code)), ("message", text)]))


class Reader:
    def __init__(self, data):
        self.data = bytes(data)
        self.at = 0

    def left(self):
        return len(self.data) - self.at

    def take(self, n):
        require(n <= self.left(), f"{n} bytes wanted, {self.left()} left in {self.data!r}")
        self.at += n
        return self.data[self.at - n:self.at]

    def u8(self):
        return self.take(1)[0]

    def u32(self):
        return struct.unpack(">I", self.take(4))[0]

    def varint(self):
        v = b = self.u8()
        shift = 4
        if b < 240:
            return v
        while True:
            b = self.u8()
            v += b << shift
            shift += 7
            require(v <= U64, "a varint beyond 64 bits")
            if b < 128:
                return v

    def string(self):
        return self.take(self.varint())

    def value(self):
        """(type, value); flags where none belong are an error, as HAProxy has it."""
        head = self.u8()
        kind, flags = head & 15, head & 0xf0
        if kind == BOOL:
            require(flags in (0, 0x10), f"flags {flags:#x} on a boolean")
            return kind, bool(flags)
        require(flags == 0, f"flags {flags:#x} on type {kind}")
        if kind == NULL:
            return kind, None
        if kind in INTEGERS:
            n = self.varint()
            if kind in (INT32, INT64) and n >> 63:
                n -= 1 << 64
            return kind, n
        if kind == IPV4:
            return kind, ipaddress.IPv4Address(self.take(4))
        if kind == IPV6:
            return kind, ipaddress.IPv6Address(self.take(16))
        if kind in (STRING, BINARY):
            return kind, self.string()
        raise ProtocolError(f"a value of type {kind}")

    def kv(self):
        items = {}
        while self.left():
            name = self.string().decode()
            require(name not in items, f"{name} twice")
            items[name] = self.value()
        return items


class Frame:
    def __init__(self, data):
        r = Reader(data)
        self.length = len(data)
        self.kind = r.u8()
        self.flags = r.u32()
        self.sid = r.varint()
        self.fid = r.varint()
        self.payload = data[r.at:]

    def __repr__(self):
        return f"<frame {self.kind} flags={self.flags} {self.sid}/{self.fid} {self.payload!r}>"


class Answer(dict):
    """The variables of one ACK, in the order in which they came."""

    length = 0

    @property
    def denied(self):
        return self["deny"]


def answer_load(f):
    """An ACK's actions; everything that HAProxy or the contract forbids is an error."""
    r = Reader(f.payload)
    require(r.left() > 0, "an empty ACK: HAProxy 3.1.0 hangs on it")
    answer = Answer()
    answer.length = f.length
    while r.left():
        action, nb_args = r.u8(), r.u8()
        require((action, nb_args) == (1, 3), f"action {action} with {nb_args} arguments")
        scope = r.u8()
        require(scope == SCOPE_TXN, f"scope {scope}")
        name = r.string().decode("ascii")
        kind, v = r.value()
        require(name in VARIABLES, f"variable {name!r}")
        require(name not in answer, f"variable {name} twice")
        want = VARIABLES[name]
        if want is bool:
            require(kind == BOOL, f"{name} has type {kind}")
        elif want is int:
            require(kind in INTEGERS, f"{name} has type {kind}")
            require(0 <= v <= (1 << 63) - 1, f"{name} is {v}")
        else:
            require(kind == STRING, f"{name} has type {kind}")
            require(not set(v) & set(b"\r\n\0"), f"{name} is {v!r}")
            v = v.decode("utf-8", "surrogateescape")
        answer[name] = v
    answer_check(answer)
    return answer


def answer_check(a):
    """What holds for every answer, whatever was asked."""
    if "deny" in a:
        require(next(iter(a)) == "deny", f"the decision is not first: {list(a)}")
    if "ack" in a:
        require(a == {"ack": True}, f"ack beside others: {a}")
    if "reason" in a:
        require(a["reason"] in REASONS, f"reason {a['reason']!r}")
    if "deny" in a and "reason" in a:
        if a["reason"] in ("limited", "oversize", "blocked", "banned"):
            require(a["deny"], f"{a['reason']}, but not denied")
        if a["reason"] in ("ok", "bypassed", "disabled"):
            require(not a["deny"], f"{a['reason']}, but denied")
    if "limit" in a and "remaining" in a:
        require(a["remaining"] <= a["limit"], f"remaining {a['remaining']} of {a['limit']}")
    if {"deny", "reason", "retry_after"} <= a.keys():
        if a["deny"] and a["reason"] == "limited":
            require(a["retry_after"] >= 1, "limited, but retry_after is 0")
        elif not a["deny"] or a["reason"] == "oversize":
            require(a["retry_after"] == 0, f"{a['reason']}, but retry_after {a['retry_after']}")


# --- a connection ----------------------------------------------------------------------------

def dial(address, bound=15, source=None):
    """A TCP connection to (host, port), or a UNIX one to a path."""
    if isinstance(address, tuple):
        s = socket.create_connection(address, bound, source)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(bound)
    try:
        s.connect(address)
    except OSError:
        s.close()
        raise
    return s


class Connection:
    """One connection to an agent; every wait is bounded."""

    def __init__(self, address, greet=True, bound=15, source=None, sock=None, **items):
        self.bound = bound
        self.sock = sock or dial(address, bound, source)
        self.sock.settimeout(bound)
        self.buffer = b""
        self.pending = {}       # (sid, fid) -> None, or its Answer
        self.limit = None       # the most that the agent may send
        self.next_sid = 1
        self.greeting = None
        if greet:
            self.greet(**items)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def reset(self):
        """End with RST, as HAProxy ends its health checks."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def greet(self, **items):
        self.send(hello(**items))
        return self.greeted(items.get("size", 16380), items.get("capabilities", "pipelining"))

    def greeted(self, size=16380, capabilities="pipelining"):
        """Read an AGENT-HELLO and hold it against the rules."""
        f = self.read()
        require(f.kind == AGENT_HELLO, f"no AGENT-HELLO: {f}")
        require((f.sid, f.fid) == (0, 0), f"an AGENT-HELLO with ids: {f}")
        items = Reader(f.payload).kv()
        kind, version = items["version"]
        require((kind, version) == (STRING, b"2.0"), f"version {version!r}")
        kind, mfs = items["max-frame-size"]
        require(kind == UINT32, f"max-frame-size of type {kind}")
        require(MIN_FRAME <= mfs <= size, f"max-frame-size {mfs} to a peer of {size}")
        kind, caps = items["capabilities"]
        require(kind == STRING, f"capabilities of type {kind}")
        caps = [c.strip() for c in caps.decode().split(",") if c.strip()]
        require("async" not in caps, "async announced")
        offered = [c.strip() for c in (capabilities or "").split(",")]
        require("pipelining" in offered or "pipelining" not in caps, "pipelining not offered")
        # HAProxy compares keys by prefix: a further key could be taken for one of these.
        for name in items:
            require(name in ("version", "max-frame-size", "capabilities"), f"key {name!r}")
        self.limit = mfs
        self.greeting = {"size": mfs, "capabilities": caps}
        return self.greeting

    def read_bytes(self, n, deadline):
        while len(self.buffer) < n:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the agent does not answer")
            self.sock.settimeout(left)
            try:
                got = self.sock.recv(65536)
            except ConnectionError as e:
                raise Closed(str(e)) from None
            if not got:
                require(not self.buffer, f"the connection ended within a frame: {self.buffer!r}")
                raise Closed("end of stream")
            self.buffer += got
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def read(self, bound=None):
        """The next frame; Disconnected for an AGENT-DISCONNECT."""
        deadline = time.monotonic() + (bound or self.bound)
        n = struct.unpack(">I", self.read_bytes(4, deadline))[0]
        require(7 <= n <= (self.limit or 1 << 20), f"a frame of {n} bytes, limit {self.limit}")
        f = Frame(self.read_bytes(n, deadline))
        require(f.flags == FIN, f"flags of an agent's frame: {f}")
        require(f.kind in (AGENT_HELLO, AGENT_DISCONNECT, ACK), f"a frame of type {f.kind}")
        if f.kind == AGENT_DISCONNECT:
            require((f.sid, f.fid) == (0, 0), f"an AGENT-DISCONNECT with ids: {f}")
            items = Reader(f.payload).kv()
            kind, code = items["status-code"]
            require(kind == UINT32, f"status-code of type {kind}")
            require(code in (*range(14), 99), f"status-code {code}")
            kind, text = items["message"]
            require(kind == STRING and len(text) <= 255, f"message {text!r}")
            raise Disconnected(code, text.decode())
        return f

    # NOTIFY and ACK

    def ids(self):
        sid, self.next_sid = self.next_sid, self.next_sid + 2
        return sid, 1

    def expect(self, key):
        assert key not in self.pending, "a test's own mistake: ids used twice"
        self.pending[key] = None
        return key

    def notify(self, messages, sid=None, fid=None):
        """Send one NOTIFY; its key is returned."""
        if sid is None:
            sid, fid = self.ids()
        key = self.expect((sid, 1 if fid is None else fid))
        self.send(frame(NOTIFY, messages, *key))
        return key

    def fragments(self, messages, sizes, key=None):
        """The frames of one NOTIFY, cut into pieces of these sizes and the rest."""
        key = self.expect(key or self.ids())
        cuts, at = [], 0
        for n in sizes:
            cuts.append(messages[at:at + n])
            at += n
        cuts.append(messages[at:])
        frames = [frame(NOTIFY if i == 0 else UNSET, piece, *key,
                        flags=FIN if i == len(cuts) - 1 else 0) for i, piece in enumerate(cuts)]
        return key, frames

    def wait(self, key, bound=None):
        """The answer to one NOTIFY; others that come before it are kept."""
        while self.pending[key] is None:
            f = self.read(bound)
            require(f.kind == ACK, f"no ACK: {f}")
            got = (f.sid, f.fid)
            require(got in self.pending, f"an ACK for what was not asked, or a second one: {f}")
            require(self.pending[got] is None, f"a second ACK: {f}")
            self.pending[got] = answer_load(f)
        return self.pending.pop(key)

    def ask(self, messages, bound=None):
        return self.wait(self.notify(messages), bound)

    def batch(self, several, window=50):
        """The answers to many NOTIFYs, pipelined, with no more under way than an agent must take
        from a peer that does not read."""
        keys, answers = [], []
        for messages in several:
            keys.append(self.notify(messages))
            if len(keys) >= window:
                answers += map(self.wait, keys)
                keys = []
        return answers + [self.wait(key) for key in keys]

    def check(self, args=(), name="check", bound=None, **more):
        return self.ask(message(name, pairs(args) + pairs(more)), bound)

    def silent(self):
        """Nothing more came: shown by an exchange that is answered next."""
        answer = self.ask(message("nothing"))
        require(not self.buffer, f"left over: {self.buffer!r}")
        return answer

    def ended(self, bound=None):
        """How the connection ends: a status code, or None for an end without a word."""
        try:
            while True:
                f = self.read(bound)
                require(f.kind == ACK and (f.sid, f.fid) in self.pending, f"unexpected: {f}")
                require(self.pending[f.sid, f.fid] is None, f"a second ACK: {f}")
                self.pending[f.sid, f.fid] = answer_load(f)
        except Closed:
            return None
        except Disconnected as end:
            try:
                f = self.read(bound)
            except Closed:
                return end.code
            except Disconnected:
                raise ProtocolError("a second AGENT-DISCONNECT") from None
            raise ProtocolError(f"after AGENT-DISCONNECT: {f}")


def health_check(address, bound=15, source=None):
    """True: AGENT-HELLO; False: anything else. Ends with RST, as HAProxy does."""
    try:
        with Connection(address, greet=False, bound=bound, source=source) as c:
            c.send(HEALTH_CHECK)
            c.greeted(16380, "")
            c.reset()
            return True
    except (Closed, Disconnected, ConnectionError):
        return False
