// Command server pulls models and answers predictions for them.
package main

import (
	"os"

	"trainyard.dev/trainyard/cmd/server/app"
)

func main() { os.Exit(app.Main()) }
