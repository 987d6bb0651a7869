package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// asked is a line of the audit log: one request to the API server.
type asked struct {
	Verb string `json:"verb"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	Object struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
	} `json:"objectRef"`
	At time.Time `json:"requestReceivedTimestamp"`
}

// tally counts requests by what they ask for.
type tally map[string]int

// requests are those of one of the operator's programs between two times:
// writes, and reads but for watches, which last.
func (b *bench) requests(account string, from, to time.Time) (writes, reads tally, err error) {
	file, err := os.Open(b.file("audit.log"))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()
	writes, reads = tally{}, tally{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line asked
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, nil, fmt.Errorf("reading the audit log: %w", err)
		}
		if line.User.Username != "system:serviceaccount:"+system+":"+account || line.At.Before(from) || !line.At.Before(to) {
			continue
		}
		what := strings.TrimSuffix(line.Verb+" "+line.Object.Resource+"/"+line.Object.Subresource, "/")
		switch line.Verb {
		case "create", "update", "patch", "delete", "deletecollection":
			writes[what]++
		case "watch":
		default:
			reads[what]++
		}
	}
	return writes, reads, lines.Err()
}

func (t tally) total() int {
	total := 0
	for _, count := range t {
		total += count
	}
	return total
}

// String names the most frequent first.
func (t tally) String() string {
	var parts []string
	names := slices.SortedFunc(maps.Keys(t), func(a, b string) int { return t[b] - t[a] })
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%d %s", t[name], name))
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}
