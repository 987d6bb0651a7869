// Package pair lets two processes of one pod have the same listening sockets. One
// leads: it serves. The other follows: it has the sockets, and waits. When the
// leader ends, however it ends, the kernel closes the connection between the two,
// and the follower leads: who waits in the queue of a socket, and who connects
// meanwhile, is answered by it.
//
// They meet at a Unix socket: who binds it leads. Over it the leader tells of each
// port that is opened or closed, one packet each; see [change].
package pair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timeout is for one packet: it goes from one process of a pod to another.
const timeout = time.Second

// Alone is a process without another: nobody takes its ports over.
type Alone struct{}

// Listen opens a port.
func (Alone) Listen(ctx context.Context, port int32) (net.Listener, error) { return listen(ctx, port) }

// Close has nothing to do.
func (Alone) Close(int32) {}

// Forget has nothing to do.
func (Alone) Forget() {}

// Resign has nothing to do.
func (Alone) Resign() {}

// Leader has the ports that it listens on in common with its follower, if there is
// one.
type Leader struct {
	log     *slog.Logger
	meeting *net.UnixListener

	mutex    sync.Mutex
	sockets  sockets
	follower *net.UnixConn
	// inherited are the ports of the leader before this one that this one did not
	// listen on yet.
	inherited map[int32]bool
}

// Lead returns when this process leads: at once, if no other does. Until then it
// follows. The name is one in the network namespace of the pod, such as @gateway.
// The error is that of ctx, or one of the Unix socket.
func Lead(ctx context.Context, name string, log *slog.Logger) (*Leader, error) {
	address := &net.UnixAddr{Net: "unixpacket", Name: name}
	kept := sockets{}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for ctx.Err() == nil {
		meeting, err := net.ListenUnix(address.Net, address)
		if err == nil {
			return lead(meeting, kept, log), nil
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			err = follow(ctx, address, kept, log)
		}
		if err != nil && ctx.Err() == nil {
			kept.closeAll()
			return nil, fmt.Errorf("meeting the other gateway of the pod: %w", err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
	kept.closeAll()
	return nil, ctx.Err()
}

// follow keeps what the leader listens on, until the leader ends.
func follow(ctx context.Context, leader *net.UnixAddr, kept sockets, log *slog.Logger) error {
	connection, err := net.DialUnix(leader.Net, nil, leader)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil // it ended just now
	}
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	defer context.AfterFunc(ctx, func() { _ = connection.Close() })()
	for {
		told, socket, err := receive(connection)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		if told == hello {
			// Nobody serves any more what a leader before this one had. Not earlier: a
			// connection is also made to a leader that is just being killed.
			kept.closeAll()
			log.Info("follows: the other gateway of the pod leads")
			continue
		}
		kept.close(told.Port)
		if socket != closed {
			kept[told.Port] = socket
		}
	}
}

func lead(meeting *net.UnixListener, kept sockets, log *slog.Logger) *Leader {
	l := &Leader{log: log, meeting: meeting, sockets: kept, inherited: map[int32]bool{}}
	for port := range kept {
		l.inherited[port] = true
	}
	log.Info("leads", "inherited", len(kept))
	go l.accept()
	return l
}

func (l *Leader) accept() {
	for {
		follower, err := l.meeting.AcceptUnix()
		if err != nil {
			return // it resigned
		}
		l.welcome(follower)
	}
}

func (l *Leader) welcome(follower *net.UnixConn) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.leave()
	l.follower = follower
	if l.sockets == nil { // it resigned meanwhile
		l.leave()
	}
	l.tell(hello, closed)
	for port, socket := range l.sockets {
		l.tell(change{Port: port}, socket)
	}
}

// tell tells the follower, and parts from one that doesn't listen: it comes back,
// and is told everything.
func (l *Leader) tell(what change, socket int) {
	if l.follower == nil {
		return
	}
	if err := send(l.follower, what, socket); err != nil {
		l.log.Warn("can't tell the other gateway of the pod of a port", "port", what.Port, "reason", err)
		l.leave()
	}
}

func (l *Leader) leave() {
	if l.follower != nil {
		_ = l.follower.Close()
		l.follower = nil
	}
}

// Listen opens a port, or takes it over from the leader before this one.
func (l *Leader) Listen(ctx context.Context, port int32) (net.Listener, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	delete(l.inherited, port)
	if socket, open := l.sockets[port]; open {
		return listenerOf(socket)
	}
	listener, err := listen(ctx, port)
	if err != nil || l.sockets == nil {
		return listener, err
	}
	socket, err := duplicate(listener.(*net.TCPListener))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keeping port %d: %w", port, err), listener.Close())
	}
	l.sockets[port] = socket
	l.tell(change{Port: port}, socket)
	return listener, nil
}

// Close closes a port, at the follower too. The listener of this process is its
// own affair.
func (l *Leader) Close(port int32) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.close(port)
}

func (l *Leader) close(port int32) {
	delete(l.inherited, port)
	l.sockets.close(port)
	l.tell(change{Port: port, Closed: true}, closed)
}

// Forget closes the ports of the leader before this one that this one does not
// listen on.
func (l *Leader) Forget() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for port := range l.inherited {
		l.close(port)
	}
}

// Resign lets the follower lead. Listeners of this process stay as they are.
func (l *Leader) Resign() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	_ = l.meeting.Close()
	l.leave()
	l.sockets.closeAll()
	l.sockets = nil
}

// sockets are bare descriptors by port: a net.Listener would wake the process
// whenever somebody connects.
type sockets map[int32]int

// closed stands for no socket.
const closed = -1

func (s sockets) close(port int32) {
	if socket, open := s[port]; open {
		_ = unix.Close(socket)
		delete(s, port)
	}
}

func (s sockets) closeAll() {
	for port := range s {
		s.close(port)
	}
}

func listen(ctx context.Context, port int32) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", ":"+strconv.Itoa(int(port)))
}
