package routing

import (
	"fmt"
	"hash/fnv"
	"time"
)

// Ports are where the gateway's pods listen for one service. By the port they
// know whose request it is: http://digits does not say which namespace is
// meant.
type Ports struct {
	HTTP, GRPC int32
}

// Range is the ports that are given out, both ends included.
type Range struct {
	First, Last int32
}

// GatewayRange lies below the ports that Linux gives to outgoing connections.
// It is for 10,000 services.
var GatewayRange = Range{10000, 29999}

// pairs is how many services have room.
func (r Range) pairs() int32 { return max(0, (r.Last-r.First+1)/2) }

func (r Range) pair(index int32) Ports {
	return Ports{r.First + 2*index, r.First + 2*index + 1}
}

// holds tells whether the ports are a pair of the range.
func (r Range) holds(p Ports) bool {
	return p.GRPC == p.HTTP+1 && p.HTTP >= r.First && p.GRPC <= r.Last && (p.HTTP-r.First)%2 == 0
}

// Claim is a service and the ports that it has; they are zero while it has
// none.
type Claim struct {
	UID     string
	Created time.Time
	Ports   Ports
}

// before tells which of two services keeps the ports that both have: the older.
func (c Claim) before(other Claim) bool {
	if !c.Created.Equal(other.Created) {
		return c.Created.Before(other.Created)
	}
	return c.UID < other.UID
}

// Keeps tells whether a service may keep its ports, given all that have the
// same: two managers, or one that did not see its own last write, may have given
// a pair to two services, and then the younger of them takes another.
func Keeps(of Range, mine Claim, others []Claim) bool {
	if !of.holds(mine.Ports) {
		return false
	}
	for _, other := range others {
		if other.UID != mine.UID && other.Ports == mine.Ports && other.before(mine) {
			return false
		}
	}
	return true
}

// Allot gives a service ports that no other has. Where it begins to look
// depends on the UID, so that two managers which give out ports at the same time
// hardly meet, and ports that were just given back rest for a while.
func Allot(of Range, mine Claim, others []Claim) (Ports, error) {
	taken := make(map[Ports]bool, len(others))
	for _, other := range others {
		if other.UID != mine.UID {
			taken[other.Ports] = true
		}
	}
	count := of.pairs()
	for step := range count {
		ports := of.pair(int32((int64(start(mine.UID, count)) + int64(step)) % int64(count)))
		if !taken[ports] {
			return ports, nil
		}
	}
	return Ports{}, fmt.Errorf("all %d pairs of ports from %d to %d are taken: the gateway has room for no further ModelService", count, of.First, of.Last)
}

// start is where a service begins to look, from 0 to count-1.
func start(uid string, count int32) int32 {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(uid))
	return int32(hash.Sum32() % uint32(count))
}
