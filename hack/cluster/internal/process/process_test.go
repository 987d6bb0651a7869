package process

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const tail = " S 1 2 3 0 -1 4194560 5 6 7 8 9 10 11 12 20 0 1 0 4711 1000 50"
	for _, test := range []struct {
		name, stat string
		ok         bool
	}{
		{"plain", "42 (etcd)" + tail, true},
		{"blanks and parentheses in the name", "42 (a) (b c)" + tail, true},
		{"cut short", "42 (etcd) S 1 2", false},
		{"empty", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			state, start, err := parseStat(test.stat)
			if (err == nil) != test.ok {
				t.Fatalf("error %v, want success %t", err, test.ok)
			}
			if test.ok && (state != 'S' || start != 4711) {
				t.Errorf("got state %c, start %d", state, start)
			}
		})
	}
}

func TestSame(t *testing.T) {
	p := Process{PID: 42, StartTime: 1, Boot: "a", Exe: "/bin/node"}
	for name, change := range map[string]func(*Process){
		"id reused after a while": func(p *Process) { p.StartTime = 2 },
		"another boot":            func(p *Process) { p.Boot = "b" },
		"another program":         func(p *Process) { p.Exe = "/bin/sh" },
	} {
		now := p
		change(&now)
		if p.same(now) {
			t.Errorf("%s: taken for the same process", name)
		}
	}
	now := p
	now.Name = "what is recorded only"
	if !p.same(now) {
		t.Error("not taken for the same process")
	}
}

func TestMarkedName(t *testing.T) {
	name, ok := markedName([]byte("A=b\x00" + marker + "=etcd\x00"))
	if !ok || name != "etcd" {
		t.Errorf("got %q, %t", name, ok)
	}
	if _, ok := markedName([]byte("A=" + marker + "=x\x00")); ok {
		t.Error("a value was taken for the marker")
	}
}

func TestLifeOfAProgram(t *testing.T) {
	p, err := Start("sleeper", "/bin/sleep", []string{"60"}, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if child, err := os.FindProcess(p.PID); err == nil {
			_, _ = child.Wait() // the zombie
		}
	})
	if !p.Alive() {
		t.Error("not alive after start")
	}
	other := p
	other.StartTime++
	if err := Stop([]Process{other}, time.Millisecond); err != nil || !p.Alive() {
		t.Errorf("a process with a reused id was stopped (%v)", err)
	}
	if err := Stop([]Process{p}, 5*time.Second); err != nil || p.Alive() {
		t.Errorf("still alive after stop (%v)", err)
	}
}
