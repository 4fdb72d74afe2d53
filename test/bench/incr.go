// The agent that most would write first in Go: for each request INCR the user's counter in Redis, by
// go-redis, and answer. A goroutine for each connection of HAProxy and one for each NOTIFY; as many
// INCRs are under way as the client's pool has connections. Frames are whole: it announces no
// fragmentation.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"gopkg.in/redis.v5"
)

const (
	haproxyHello      = 1
	haproxyDisconnect = 2
	notify            = 3
	agentHello        = 101
	agentDisconnect   = 102
	ack               = 103

	flagFin = 1

	typeUint32 = 3
	typeString = 8
	typeTrue   = 0x11

	maxFrame = 16380
	keep     = time.Minute
)

// A set-var of the transaction's `ack`, true.
var setAck = append(putText([]byte{1, 3, 2}, "ack"), typeTrue)

var errBadFrame = errors.New("malformed frame")

// A frame as it came, behind its length; its ids are echoed.
type frame struct {
	kind    byte
	ids     []byte
	payload []byte
}

// --- reading ---

// Once it is bad it stays so, and gives nothing.
type reader struct {
	left []byte
	bad  bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.left)) {
		r.left, r.bad = nil, true
		return nil
	}
	p := r.left[:n]
	r.left = r.left[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.bytes(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) varint() uint64 {
	value := uint64(r.byte())
	if value < 240 {
		return value
	}
	for shift := 4; shift < 64; shift += 7 {
		b := r.byte()
		value += uint64(b) << shift
		if b < 128 {
			return value
		}
	}
	r.left, r.bad = nil, true
	return 0
}

func (r *reader) text() []byte {
	return r.bytes(r.varint())
}

// The next name and value: an integer, or bytes.
func (r *reader) pair() (name []byte, number uint64, bytes []byte) {
	name = r.text()
	switch kind := r.byte() & 15; kind {
	case 0, 1: // null, and a boolean, which is in the flags
	case 2, 3, 4, 5:
		number = r.varint()
	case 6:
		bytes = r.bytes(net.IPv4len)
	case 7:
		bytes = r.bytes(net.IPv6len)
	case 8, 9:
		bytes = r.text()
	default:
		r.left, r.bad = nil, true
	}
	return
}

func readFrame(in io.Reader) (*frame, error) {
	var length [4]byte
	if _, err := io.ReadFull(in, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < 7 || n > maxFrame {
		return nil, errBadFrame
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(in, p); err != nil {
		return nil, err
	}
	r := reader{left: p[5:]}
	r.varint()
	r.varint()
	if r.bad {
		return nil, errBadFrame
	}
	return &frame{kind: p[0], ids: p[5 : len(p)-len(r.left)], payload: r.left}, nil
}

// The argument `user` of the first message; "": none.
func (f *frame) user() (string, error) {
	r := reader{left: f.payload}
	r.text()
	for args := r.byte(); args > 0 && !r.bad; args-- {
		if name, _, value := r.pair(); string(name) == "user" {
			return string(value), nil
		}
	}
	if r.bad {
		return "", errBadFrame
	}
	return "", nil
}

// --- writing ---

func putVarint(p []byte, value uint64) []byte {
	if value < 240 {
		return append(p, byte(value))
	}
	p = append(p, byte(value)|240)
	for value = (value - 240) >> 4; value >= 128; value = (value - 128) >> 7 {
		p = append(p, byte(value)|128)
	}
	return append(p, byte(value))
}

func putText(p []byte, s string) []byte {
	return append(putVarint(p, uint64(len(s))), s...)
}

// --- what it answers ---

// One connection of HAProxy.
type conn struct {
	net.Conn
	redis *redis.Client
	write sync.Mutex // one frame after the other
}

func (c *conn) send(kind byte, ids, payload []byte) error {
	p := make([]byte, 9, 9+len(ids)+len(payload))
	binary.BigEndian.PutUint32(p, uint32(5+len(ids)+len(payload)))
	p[4] = kind
	binary.BigEndian.PutUint32(p[5:], flagFin)
	p = append(append(p, ids...), payload...)
	c.write.Lock()
	defer c.write.Unlock()
	_, err := c.Write(p)
	return err
}

func (c *conn) onHello(f *frame) error {
	size, capabilities := uint64(maxFrame), ""
	r := reader{left: f.payload}
	for len(r.left) > 0 {
		name, number, value := r.pair()
		switch string(name) {
		case "max-frame-size":
			if number < size {
				size = number
			}
		case "capabilities":
			if strings.Contains(string(value), "pipelining") {
				capabilities = "pipelining"
			}
		}
	}
	if r.bad {
		return errBadFrame
	}
	p := append(putText(nil, "version"), typeString)
	p = append(putText(putText(p, "2.0"), "max-frame-size"), typeUint32)
	p = append(putText(putVarint(p, size), "capabilities"), typeString)
	return c.send(agentHello, f.ids, putText(p, capabilities))
}

func (c *conn) onDisconnect(f *frame) error {
	p := append(putText(nil, "status-code"), typeUint32, 0)
	p = append(putText(p, "message"), typeString)
	if err := c.send(agentDisconnect, f.ids, putText(p, "normal")); err != nil {
		return err
	}
	return io.EOF
}

func (c *conn) count(user string) error {
	key := "incr:" + user
	n, err := c.redis.Incr(key).Result()
	if err == nil && n == 1 {
		err = c.redis.PExpire(key, keep).Err()
	}
	return err
}

func (c *conn) onNotify(f *frame) {
	user, err := f.user()
	if err == nil {
		if err := c.count(user); err != nil {
			log.Fatalf("INCR: %v", err)
		}
		err = c.send(ack, f.ids, setAck)
	}
	if err != nil {
		c.Close()
	}
}

func (c *conn) serve() {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		f, err := readFrame(in)
		if err != nil {
			return
		}
		switch f.kind {
		case haproxyHello:
			err = c.onHello(f)
		case haproxyDisconnect:
			err = c.onDisconnect(f)
		case notify:
			go c.onNotify(f)
		default:
			err = errBadFrame
		}
		if err != nil {
			return
		}
	}
}

// usage: incr_go REDIS-PORT 127.0.0.1:PORT
func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: incr_go REDIS-PORT 127.0.0.1:PORT")
		os.Exit(1)
	}
	client := redis.NewClient(&redis.Options{
		Addr:     "127.0.0.1:" + os.Args[1],
		PoolSize: 10 * runtime.GOMAXPROCS(0), // what later releases of go-redis have by default
	})
	if err := client.Ping().Err(); err != nil {
		log.Fatalf("Redis: %v", err)
	}
	listener, err := net.Listen("tcp", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	for {
		accepted, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go (&conn{Conn: accepted, redis: client}).serve()
	}
}
