// Command follower looks at an address for models.
package main

import (
	"os"

	"trainyard.dev/trainyard/cmd/follower/app"
)

func main() { os.Exit(app.Main()) }
