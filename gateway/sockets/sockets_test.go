package sockets

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's own program be the processes that get killed.
func TestMain(m *testing.M) {
	address, port := os.Getenv("SOCKETS_ADDRESS"), int32(0)
	if address == "" {
		os.Exit(m.Run())
	}
	if _, err := fmt.Sscan(os.Getenv("SOCKETS_PORT"), &port); err != nil {
		panic(err)
	}
	listener, err := Kept{address, slog.Default()}.Listen(context.Background(), port)
	if err != nil {
		panic(err)
	}
	if os.Getenv("SOCKETS_SILENT") == "" {
		panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })))
	}
	fmt.Println("listening")
	select {}
}

// keeper keeps sockets until the test ends.
func keeper(t *testing.T) Kept {
	t.Helper()
	address := fmt.Sprintf("@trainyard-test-%d-%s", os.Getpid(), t.Name())
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ended <- Keep(ctx, address, slog.Default()) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return Kept{address, slog.Default()}
}

// freePort has nobody listening.
func freePort(t *testing.T) int32 {
	t.Helper()
	listener, err := Own{}.Listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return int32(listener.Addr().(*net.TCPAddr).Port)
}

// start starts a process that serves the port.
func start(t *testing.T, k Kept, port int32, silent string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), program)
	command.Env = append(os.Environ(), "SOCKETS_ADDRESS="+k.Address, fmt.Sprintf("SOCKETS_PORT=%d", port), "SOCKETS_SILENT="+silent)
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	if silent != "" {
		if _, err := output.Read(make([]byte, 1)); err != nil {
			t.Fatalf("the process that was started doesn't listen: %v", err)
		}
	}
	return command
}

// TestKilledRefusesNobody kills a process that listens and accepts nothing. Who
// had connected by then, and who connects while there is no process, is answered
// by the next one.
func TestKilledRefusesNobody(t *testing.T) {
	k, port := keeper(t), freePort(t)
	first := start(t, k, port, "yes")
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
	connections := []net.Conn{dial(), dial()}
	if err := first.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	connections = append(connections, dial(), dial())
	second := start(t, k, port, "")
	for i, connection := range connections {
		_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
		answer := make([]byte, 1000)
		n, err := connection.Read(answer)
		if err != nil || !strings.HasSuffix(string(answer[:n]), fmt.Sprint(second.Process.Pid)) {
			t.Errorf("connection %d is answered %q, %v; want the second process", i, answer[:n], err)
		}
		_ = connection.Close()
	}
}

// TestOnly closes ports that nobody needs any more, and leaves others alone.
func TestOnly(t *testing.T) {
	k, first, second := keeper(t), freePort(t), freePort(t)
	for _, port := range []int32{first, second, first} {
		listener, err := k.Listen(t.Context(), port)
		if err != nil {
			t.Fatal(err)
		}
		if got := listener.Addr().(*net.TCPAddr).Port; got != int(port) {
			t.Errorf("port %d is asked for, and %d comes", port, got)
		}
		_ = listener.Close()
	}
	open := func(port int32) bool {
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		return connection.Close() == nil
	}
	for _, test := range []struct {
		keep          []int32
		first, second bool
	}{{[]int32{second, first}, true, true}, {[]int32{second}, false, true}, {nil, false, false}} {
		if err := k.Only(t.Context(), test.keep); err != nil {
			t.Fatal(err)
		}
		if got, other := open(first), open(second); got != test.first || other != test.second {
			t.Errorf("only %v are kept, and %d is open: %v, %d is open: %v", test.keep, first, got, second, other)
		}
	}
}

// TestTakenPort tells who has it.
func TestTakenPort(t *testing.T) {
	k := keeper(t)
	taken, err := Own{}.Listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := int32(taken.Addr().(*net.TCPAddr).Port)
	if _, err := k.Listen(t.Context(), port); err == nil || !strings.Contains(err.Error(), fmt.Sprintf(":%d: bind: address already in use", port)) {
		t.Errorf("a port that another has: %v", err)
	}
}

// TestNobodyKeeps opens sockets nevertheless.
func TestNobodyKeeps(t *testing.T) {
	k, port := Kept{"@trainyard-test-nobody", slog.New(slog.DiscardHandler)}, freePort(t)
	listener, err := k.Listen(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	if err := k.Only(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "reaching the process that keeps the sockets") {
		t.Errorf("there is nobody, and Only ends in %v", err)
	}
}
