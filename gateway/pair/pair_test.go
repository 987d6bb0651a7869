package pair

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's own program be the processes that get killed.
func TestMain(m *testing.M) {
	name := os.Getenv("PAIR_NAME")
	if name == "" {
		os.Exit(m.Run())
	}
	if err := serve(name); err != nil {
		panic(err)
	}
}

// serve answers with the process's number on a port, once it leads. A silent one
// accepts no connection.
func serve(name string) error {
	fmt.Println("begins")
	leader, err := Lead(context.Background(), name, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(os.Getenv("PAIR_PORT"))
	if err != nil {
		return err
	}
	listener, err := leader.Listen(context.Background(), int32(port))
	if err != nil {
		return err
	}
	fmt.Println("listens")
	if os.Getenv("PAIR_SILENT") != "" {
		select {}
	}
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) }))
}

// process is one of a pair.
type process struct {
	*exec.Cmd
	says *bufio.Reader
}

func start(t *testing.T, name string, port int32, silent string) process {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := process{Cmd: exec.CommandContext(t.Context(), program)}
	p.Env = append(os.Environ(), "PAIR_NAME="+name, fmt.Sprintf("PAIR_PORT=%d", port), "PAIR_SILENT="+silent)
	p.Stderr = os.Stderr
	output, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	p.says = bufio.NewReader(output)
	p.expect(t, "begins")
	return p
}

func (p process) expect(t *testing.T, words string) {
	t.Helper()
	if line, err := p.says.ReadString('\n'); err != nil || line != words+"\n" {
		t.Fatalf("the process says %q, %v; want %q", line, err, words)
	}
}

// has waits until the process has that many sockets of the port.
func (p process) has(t *testing.T, port int32, want int) {
	t.Helper()
	inode := inodeOf(t, port)
	for limit := time.Now().Add(20 * time.Second); ; {
		have := 0
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if target, _ := os.Readlink(link); target == "socket:["+inode+"]" {
				have++
			}
		}
		if have == want {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the process has %d sockets of port %d; want %d", have, port, want)
		}
	}
}

// inodeOf is the number of the socket that listens on a port.
func inodeOf(t *testing.T, port int32) string {
	t.Helper()
	content, err := os.ReadFile("/proc/net/tcp6")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && fields[3] == "0A" {
			return fields[9]
		}
	}
	t.Fatalf("nobody listens on port %d", port)
	return ""
}

func (p process) kill(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
}

func nameOf(t *testing.T) string { return fmt.Sprintf("@trainyard-test-%d-%s", os.Getpid(), t.Name()) }

// freePort has nobody listening.
func freePort(t *testing.T) int32 {
	t.Helper()
	listener, err := Alone{}.Listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return int32(listener.Addr().(*net.TCPAddr).Port)
}

// TestKilledRefusesNobody kills a process that listens and accepts nothing. Who
// had connected by then, and who connects later, is answered by the other, with
// nobody starting a process. A third one that comes follows, and answers when the
// second is killed.
func TestKilledRefusesNobody(t *testing.T) {
	name, port := nameOf(t), freePort(t)
	first := start(t, name, port, "yes")
	first.expect(t, "listens")
	second := start(t, name, port, "")
	second.has(t, port, 1)
	dial := func() net.Conn {
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(connection, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return connection
	}
	answeredBy := func(connection net.Conn, want process) {
		t.Helper()
		defer func() { _ = connection.Close() }()
		_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
		answer := make([]byte, 1000)
		n, err := connection.Read(answer)
		if err != nil || !strings.HasSuffix(string(answer[:n]), fmt.Sprint(want.Process.Pid)) {
			t.Errorf("the answer is %q, %v; want process %d", answer[:n], err, want.Process.Pid)
		}
	}
	before := []net.Conn{dial(), dial()}
	first.kill(t)
	for _, connection := range append(before, dial(), dial()) {
		answeredBy(connection, second)
	}
	second.expect(t, "listens")

	third := start(t, name, port, "")
	third.has(t, port, 1)
	answeredBy(dial(), second)
	second.kill(t)
	answeredBy(dial(), third)
}

// TestKilledFollower is told everything when it is back.
func TestKilledFollower(t *testing.T) {
	name, port := nameOf(t), freePort(t)
	leader := start(t, name, port, "")
	leader.expect(t, "listens")
	for range 3 {
		follower := start(t, name, port, "")
		follower.has(t, port, 1)
		follower.kill(t)
	}
	leader.has(t, port, 2) // its listener's, and the one that it hands on
}

// pairOf is two in this process, of which the first leads until it resigns.
func pairOf(t *testing.T) (first *Leader, second func() *Leader) {
	t.Helper()
	name, log := nameOf(t), slog.New(slog.DiscardHandler)
	first, err := Lead(t.Context(), name, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Resign)
	led := make(chan *Leader, 1)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	go func() {
		l, err := Lead(ctx, name, log)
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		led <- l
	}()
	return first, func() *Leader {
		t.Helper()
		select {
		case l := <-led:
			if l == nil {
				t.Fatal("the second doesn't lead")
			}
			t.Cleanup(l.Resign)
			return l
		case <-time.After(20 * time.Second):
			t.Fatal("the second doesn't lead 20 s after the first resigned")
			return nil
		}
	}
}

// follows waits until the leader has a follower.
func (l *Leader) follows(t *testing.T) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); ; {
		l.mutex.Lock()
		found := l.follower != nil
		l.mutex.Unlock()
		if found {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("nobody follows")
		}
	}
}

func isOpen(t *testing.T, port int32) bool {
	t.Helper()
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	return connection.Close() == nil
}

// TestPorts are those that the follower has when the leader resigns: all that were
// open, whether they were opened before it came or later, and none that was closed.
// What it does not listen on is closed when it says so.
func TestPorts(t *testing.T) {
	first, second := pairOf(t)
	first.follows(t)
	ports := []int32{freePort(t), freePort(t), freePort(t)}
	for _, port := range ports {
		listener, err := first.Listen(t.Context(), port)
		if err != nil {
			t.Fatal(err)
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
	}
	first.Close(ports[0])
	for limit := time.Now().Add(20 * time.Second); isOpen(t, ports[0]); {
		if time.Now().After(limit) {
			t.Fatal("a port that was closed is open at the follower")
		}
	}
	first.Resign()
	leader := second()
	listener, err := leader.Listen(t.Context(), ports[1])
	if err != nil {
		t.Fatal(err)
	}
	if got := listener.Addr().(*net.TCPAddr).Port; got != int(ports[1]) {
		t.Errorf("port %d is asked for, and %d comes", ports[1], got)
	}
	for i, want := range []bool{false, true, true} {
		if got := isOpen(t, ports[i]); got != want {
			t.Errorf("after the change, port %d of 3 is open: %v", i, got)
		}
	}
	leader.Forget()
	for i, want := range []bool{false, true, false} {
		if got := isOpen(t, ports[i]); got != want {
			t.Errorf("after Forget, port %d of 3 is open: %v", i, got)
		}
	}
	_ = listener.Close()
	leader.Close(ports[1])
	if isOpen(t, ports[1]) {
		t.Error("a port that was closed is open")
	}
}

// TestTakenPort tells who has it.
func TestTakenPort(t *testing.T) {
	leader, _ := pairOf(t)
	taken, err := Alone{}.Listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := int32(taken.Addr().(*net.TCPAddr).Port)
	if _, err := leader.Listen(t.Context(), port); err == nil || !strings.Contains(err.Error(), fmt.Sprintf(":%d: bind: address already in use", port)) {
		t.Errorf("a port that another has: %v", err)
	}
}

// TestResigned opens ports of its own, which nobody is told of.
func TestResigned(t *testing.T) {
	leader, second := pairOf(t)
	leader.Resign()
	second()
	listener, err := leader.Listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	leader.Close(1)
	leader.Forget()
	leader.Resign()
}

// TestLeaves ends a follower whose time is over.
func TestLeaves(t *testing.T) {
	name, log := nameOf(t), slog.New(slog.DiscardHandler)
	leader, err := Lead(t.Context(), name, log)
	if err != nil {
		t.Fatal(err)
	}
	defer leader.Resign()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := Lead(ctx, name, log); ended <- err }()
	leader.follows(t)
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the follower ends with %v", err)
	}
}
