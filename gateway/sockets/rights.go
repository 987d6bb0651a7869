package sockets

import (
	"encoding/json"
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// send sends a reply, and with it a listener's socket if there is one.
func send(connection *net.UnixConn, told reply, listener *net.TCPListener) error {
	encoded, err := json.Marshal(told)
	if err != nil {
		return err
	}
	if listener == nil {
		_, err := connection.Write(encoded)
		return err
	}
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	// In here the descriptor is valid, and stays as it is: File and Fd would make
	// a copy, and make the socket block.
	var failed error
	err = raw.Control(func(descriptor uintptr) {
		_, _, failed = connection.WriteMsgUnix(encoded, unix.UnixRights(int(descriptor)), nil)
	})
	return errors.Join(err, failed)
}

// receive is the other end of send.
func receive(connection *net.UnixConn) (told reply, listener net.Listener, err error) {
	content, rights := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(4))
	n, nRights, _, _, err := connection.ReadMsgUnix(content, rights)
	if err != nil {
		return told, nil, err
	}
	if nRights > 0 {
		if listener, err = listenerOf(rights[:nRights]); err != nil {
			return told, nil, err
		}
	}
	return told, listener, json.Unmarshal(content[:n], &told)
}

func listenerOf(rights []byte) (net.Listener, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for _, message := range messages {
		descriptors, err := unix.ParseUnixRights(&message)
		if err != nil {
			return nil, err
		}
		for _, descriptor := range descriptors {
			file := os.NewFile(uintptr(descriptor), "listener")
			listener, err := net.FileListener(file)
			return listener, errors.Join(err, file.Close())
		}
	}
	return nil, errors.New("no socket came")
}
