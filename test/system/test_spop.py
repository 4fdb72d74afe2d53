"""The client of these tests is tested first: against bytes, and against a fake agent that errs."""

import socket

import pytest

import spop

VARINTS = [
    (0, "00"), (1, "01"), (127, "7f"), (128, "80"), (239, "ef"), (240, "f000"), (241, "f100"),
    (255, "ff00"), (256, "f001"), (2287, "ff7f"), (2288, "f08000"), (2289, "f18000"),
    (16380, "fcf006"), (65532, "fcf01e"), (264431, "ffff7f"), (264432, "f0808000"),
    (33818863, "ffffff7f"), (33818864, "f080808000"), (2**31 - 1, "fff0fefe3e"),
    (2**31, "f0f1fefe3e"), (2**32 - 1, "fff0fefe7e"), (2**32, "f0f1fefe7e"),
    (4328786159, "ffffffff7f"), (4328786160, "f08080808000"), (554084600047, "ffffffffff7f"),
    (554084600048, "f0808080808000"), (2**63 - 1, "fff0fefefefefefefe06"),
    (2**63, "f0f1fefefefefefefe06"), (-5, "fbf0fefefefefefefe0e"),
    (2**64 - 1, "fff0fefefefefefefe0e"),
]

VARIABLES_OF_ACK = b"\x01\x03\x02" + spop.string("deny") + b"\x11"


@pytest.mark.parametrize("number, text", VARINTS)
def test_varint(number, text):
    assert spop.varint(number).hex() == text
    assert spop.Reader(bytes.fromhex(text)).varint() == number & spop.U64


def test_varint_beyond_64_bits():
    for text in ("ff" * 10 + "0f", "fff0fefefefefefefe0f", "f0f0fefefefefefefe1f"):
        with pytest.raises(spop.ProtocolError):
            spop.Reader(bytes.fromhex(text)).varint()


def test_captured_bytes():
    items = [("supported-versions", "2.0"), ("max-frame-size", spop.typed(spop.UINT32, 16380)),
             ("capabilities", ""), ("healthcheck", True)]
    assert spop.frame(spop.HAPROXY_HELLO, spop.kv(items)) == spop.HEALTH_CHECK
    args = [("src", spop.ip("127.0.0.1")), ("method", "GET"), ("path", "/a"), ("hdr", "K1"),
            ("missing", None), ("i", -1), ("b", True), ("v6", spop.ip("2001:db8::1")),
            ("lit", ""), ("bin", b"\x00\xff"), ("ssl", False), ("be", 0), ("q", 0),
            ("", spop.ip("127.0.0.1"))]
    notify = spop.frame(spop.NOTIFY, spop.message("check-limit", args), 0, 1)
    assert notify == spop.NOTIFY_CAPTURED
    assert spop.disconnect().hex() == ("00000025" "02" "00000001" "0000" "0b7374617475732d636f6465"
                                       "0300" "076d657373616765" "08066e6f726d616c")


def fake(*sent):
    """A client whose agent says just this."""
    ours, theirs = socket.socketpair()
    theirs.sendall(b"".join(sent))
    client = spop.Connection(None, greet=False, sock=ours, bound=5)
    client.fake = theirs
    return client


def hello(version="2.0", size=1000, caps="pipelining", **more):
    items = [("version", version), ("max-frame-size", spop.typed(spop.UINT32, size)),
             ("capabilities", caps), *more.items()]
    return spop.frame(spop.AGENT_HELLO, spop.kv(items))


def ack(payload=VARIABLES_OF_ACK, sid=1, fid=1, **kw):
    return spop.frame(spop.ACK, payload, sid, fid, **kw)


def test_an_exchange():
    with fake(hello(), ack(), ack(sid=5), ack(sid=3)) as c:
        assert c.greeted(1000) == {"size": 1000, "capabilities": ["pipelining"]}
        first, second, third = (c.notify(spop.message("check")) for _ in range(3))
        assert c.wait(second) == {"deny": True}
        assert c.wait(first)["deny"] and c.wait(third)["deny"]
        c.fake.sendall(spop.frame(spop.AGENT_DISCONNECT, spop.kv(
            [("status-code", spop.typed(spop.UINT32, 0)), ("message", "normal")])))
        c.fake.close()
        assert c.ended() == 0


@pytest.mark.parametrize("bad", [
    hello(version="1.0"), hello(size=1001), hello(size=255), hello(caps="async"),
    hello(caps="pipelining,async"), hello(engine="x"), ack(),
    spop.frame(spop.AGENT_HELLO, b"", flags=0), spop.frame(spop.AGENT_HELLO, b"", sid=1),
    spop.frame(50), b"\0\0\0\0", b"\0\0\0\6\x65\0\0\0\1\0",
])
def test_a_bad_hello_is_seen(bad):
    with fake(bad) as c, pytest.raises((spop.ProtocolError, KeyError)):
        c.greeted(1000)


@pytest.mark.parametrize("bad", [
    ack(b""), ack(flags=0), ack(flags=3), ack(sid=2), ack(fid=2), ack(VARIABLES_OF_ACK * 2),
    ack(b"\x02\x02\x02" + spop.string("deny")),
    ack(b"\x01\x03\x01" + spop.string("deny") + b"\x11"),
    ack(b"\x01\x03\x02" + spop.string("deny") + spop.value(1)),
    ack(b"\x01\x03\x02" + spop.string("dany") + b"\x11"),
    ack(VARIABLES_OF_ACK + b"\x01\x03"),
    ack(b"\x01\x03\x02" + spop.string("reason") + spop.value("ok") + VARIABLES_OF_ACK),
    ack(VARIABLES_OF_ACK + b"\x01\x03\x02" + spop.string("rule") + spop.value("a\r\nb")),
    ack(VARIABLES_OF_ACK + b"\x01\x03\x02" + spop.string("rule") + b"\x18\x00"),
    ack(VARIABLES_OF_ACK + b"\x01\x03\x02" + spop.string("remaining") + spop.value(-1)),
    hello(), ack(VARIABLES_OF_ACK + b"\x01\x03\x02" + spop.string("rule") +
                                spop.value("x" * 1000)),
])
def test_a_bad_ack_is_seen(bad):
    with fake(hello(), bad) as c:
        c.greeted(1000)
        with pytest.raises(spop.ProtocolError):
            c.ask(spop.message("check"))


def test_a_second_ack_is_seen():
    with fake(hello(), ack(), ack(), ack(sid=3)) as c:
        c.greeted(1000)
        c.ask(spop.message("check"))
        with pytest.raises(spop.ProtocolError):
            c.ask(spop.message("check"))


@pytest.mark.parametrize("extra", [b"", b"\0\0"])
def test_an_end_is_told_from_a_torn_frame(extra):
    with fake(hello(), extra) as c:
        c.greeted(1000)
        c.fake.close()
        if extra:
            with pytest.raises(spop.ProtocolError):
                c.ended()
        else:
            assert c.ended() is None
