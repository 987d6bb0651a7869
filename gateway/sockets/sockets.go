// Package sockets keeps the gateway's listening sockets in a process that does
// nothing else. When the gateway is killed, the sockets stay open: whoever
// connects meanwhile waits in the kernel's queue and is answered by the gateway
// that starts next, which gets the same sockets.
//
// The two processes are containers of one pod. They talk over a Unix socket, one
// connection for one request, and listening sockets travel as SCM_RIGHTS.
package sockets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"
)

// timeout bounds one request: it is between two processes of one pod.
const timeout = time.Second

// request is one of two. The zero value asks for nothing.
type request struct {
	// Listen asks for the socket of a port, which is opened unless it is kept.
	Listen int32 `json:"listen,omitempty"`
	// Only, if not nil, closes all sockets but those of these ports.
	Only *[]int32 `json:"only,omitempty"`
}

// reply comes with a socket if one was asked for.
type reply struct {
	Error string `json:"error,omitempty"`
}

// Keep answers a gateway's requests at the address, a path or, with @ before it,
// a name in the pod's network namespace, until ctx ends.
func Keep(ctx context.Context, address string, log *slog.Logger) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", address)
	if err != nil {
		return fmt.Errorf("listening for the gateway: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	kept := kept{}
	defer kept.only(nil)
	for {
		connection, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("waiting for the gateway: %w", err)
		}
		// One after the other: there is one gateway.
		if err := kept.answer(ctx, connection.(*net.UnixConn)); err != nil {
			log.Warn("can't answer the gateway", "reason", err)
		}
	}
}

// kept are listening sockets by port.
type kept map[int32]*net.TCPListener

func (k kept) answer(ctx context.Context, connection *net.UnixConn) error {
	defer func() { _ = connection.Close() }()
	if err := connection.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	var asked request
	if err := json.NewDecoder(connection).Decode(&asked); err != nil {
		return fmt.Errorf("reading what the gateway asks: %w", err)
	}
	if asked.Only != nil {
		k.only(*asked.Only)
	}
	if asked.Listen == 0 {
		return send(connection, reply{}, nil)
	}
	listener, err := k.listen(ctx, asked.Listen)
	if err != nil {
		return send(connection, reply{Error: err.Error()}, nil)
	}
	return send(connection, reply{}, listener)
}

func (k kept) listen(ctx context.Context, port int32) (*net.TCPListener, error) {
	if listener := k[port]; listener != nil {
		return listener, nil
	}
	listener, err := listen(ctx, port)
	if err != nil {
		return nil, err
	}
	k[port] = listener.(*net.TCPListener)
	return k[port], nil
}

func (k kept) only(ports []int32) {
	for port, listener := range k {
		if !slices.Contains(ports, port) {
			_ = listener.Close()
			delete(k, port)
		}
	}
}

func listen(ctx context.Context, port int32) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", ":"+strconv.Itoa(int(port)))
}

// Own opens sockets in this process. Nothing keeps them.
type Own struct{}

// Listen opens a port.
func (Own) Listen(ctx context.Context, port int32) (net.Listener, error) { return listen(ctx, port) }

// Only has nothing to close.
func (Own) Only(context.Context, []int32) error { return nil }

// Kept has sockets from another process, which keeps them.
type Kept struct {
	// Address is that of [Keep].
	Address string
	Log     *slog.Logger
}

// Listen gets the socket of a port: the one that is kept, if there is one. If
// nobody keeps sockets, it opens one of its own.
func (k Kept) Listen(ctx context.Context, port int32) (net.Listener, error) {
	connection, err := k.dial(ctx)
	if err != nil {
		k.Log.Warn("nobody keeps a socket: if this process is killed, connections are refused", "port", port, "reason", err)
		return listen(ctx, port)
	}
	defer func() { _ = connection.Close() }()
	listener, err := ask(connection, request{Listen: port})
	if err == nil && listener == nil {
		err = errors.New("the answer has no socket")
	}
	return listener, err
}

// Only has all sockets closed but those of these ports.
func (k Kept) Only(ctx context.Context, ports []int32) error {
	connection, err := k.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	// An empty list, not none, closes all.
	ports = append([]int32{}, ports...)
	_, err = ask(connection, request{Only: &ports})
	return err
}

// dial waits a little: both processes may have started just now.
func (k Kept) dial(ctx context.Context) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		connection, err := new(net.Dialer).DialContext(ctx, "unix", k.Address)
		if err == nil {
			return connection.(*net.UnixConn), connection.SetDeadline(time.Now().Add(timeout))
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("reaching the process that keeps the sockets: %w", err)
		}
	}
}

func ask(connection *net.UnixConn, asked request) (net.Listener, error) {
	if err := json.NewEncoder(connection).Encode(asked); err != nil {
		return nil, fmt.Errorf("asking for a socket: %w", err)
	}
	told, listener, err := receive(connection)
	switch {
	case err != nil:
		return nil, fmt.Errorf("receiving a socket: %w", err)
	case told.Error != "":
		return nil, errors.New(told.Error)
	}
	return listener, nil
}
