//go:build cluster_components

package main

import (
	"context"
	"fmt"
	"os"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins" // containerd's own plugins
	"github.com/containerd/containerd/v2/cmd/containerd/command"
	"github.com/containerd/containerd/v2/cmd/ctr/app"
)

func containerd() { exitOn("containerd", command.App().Run(context.Background(), os.Args)) }
func ctr()        { exitOn("ctr", app.New().Run(context.Background(), os.Args)) }

func exitOn(name string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
