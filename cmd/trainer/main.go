// Command trainer trains one model and pushes it to a registry.
package main

import (
	"os"

	"trainyard.dev/trainyard/cmd/trainer/app"
)

// version is set with -ldflags "-X main.version=...".
var version string

func main() { os.Exit(app.Main(version)) }
