// Command runtime is trainer, server and follower in one program, as the runtime image has
// it: which one it is follows from the name that it is called by. Their larger
// parts, OpenBLAS and Go's own runtime, are in the image once that way.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	follower "trainyard.dev/trainyard/cmd/follower/app"
	server "trainyard.dev/trainyard/cmd/server/app"
	trainer "trainyard.dev/trainyard/cmd/trainer/app"
)

// version is set with -ldflags "-X main.version=...".
var version string

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "trainer":
		os.Exit(trainer.Main(version))
	case "server":
		os.Exit(server.Main())
	case "follower":
		os.Exit(follower.Main())
	default:
		fmt.Fprintf(os.Stderr, "%s: call this program by the name trainer, server or follower\n", name)
		os.Exit(2)
	}
}
