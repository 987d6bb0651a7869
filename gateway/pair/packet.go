package pair

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// change is a packet: a port is open, and its socket comes with it as SCM_RIGHTS;
// or it is closed.
type change struct {
	Port   int32 `json:"port"`
	Closed bool  `json:"closed,omitempty"`
}

// hello is the first packet of a leader.
var hello = change{Closed: true}

func send(connection *net.UnixConn, what change, socket int) error {
	content, err := json.Marshal(what)
	if err != nil {
		return err
	}
	if err := connection.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	var rights []byte
	if socket != closed {
		rights = unix.UnixRights(socket)
	}
	_, _, err = connection.WriteMsgUnix(content, rights, nil)
	return err
}

// receive is the other end of send. The error is io.EOF if the other process has
// ended.
func receive(connection *net.UnixConn) (what change, socket int, err error) {
	content, rights := make([]byte, 256), make([]byte, unix.CmsgSpace(4))
	n, nRights, _, _, err := connection.ReadMsgUnix(content, rights)
	if err != nil {
		return what, closed, err
	}
	if socket, err = socketOf(rights[:nRights]); err == nil {
		err = json.Unmarshal(content[:n], &what)
	}
	if err == nil && what.Closed != (socket == closed) {
		err = errors.New("a socket is missing, or was not expected")
	}
	if err != nil && socket != closed {
		_ = unix.Close(socket)
	}
	if err != nil {
		return what, closed, fmt.Errorf("the packet %q: %w", content[:n], err)
	}
	return what, socket, nil
}

func socketOf(rights []byte) (int, error) {
	if len(rights) == 0 {
		return closed, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return closed, err
	}
	descriptors, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return closed, err
	}
	return descriptors[0], nil
}

// listenerOf makes a listener of a socket, which stays open when it is closed.
func listenerOf(socket int) (net.Listener, error) {
	copied, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(copied), "listener")
	listener, err := net.FileListener(file)
	return listener, errors.Join(err, file.Close())
}

// duplicate returns a second descriptor of a listener's socket. The listener's
// method File would, by its Fd, make the socket block.
func duplicate(listener *net.TCPListener) (socket int, err error) {
	raw, err := listener.SyscallConn()
	if err != nil {
		return closed, err
	}
	var failed error
	err = raw.Control(func(descriptor uintptr) {
		socket, failed = unix.FcntlInt(descriptor, unix.F_DUPFD_CLOEXEC, 0)
	})
	return socket, errors.Join(err, failed)
}
