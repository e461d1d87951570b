package testkit

import (
	"fmt"
	"net"
	"os"
	"sync"
)

// Ports below those that Linux and macOS give to connections that go out: while a server is away, one of them could get
// its port, or even connect to itself there.
const firstPort, lastPort = 15_000, 32_000

var ports struct {
	sync.Mutex
	next int
}

// FreePort is a port of this machine that a server can take, leave and take again. Other calls of this process get
// others, and those of other processes most probably, too: they begin elsewhere.
func FreePort() (int, error) {
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = os.Getpid() * 101 % (lastPort - firstPort)
	}
	for range lastPort - firstPort {
		ports.next = (ports.next + 1) % (lastPort - firstPort)
		port := firstPort + ports.next
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("none of the ports %d to %d is free", firstPort, lastPort)
}
