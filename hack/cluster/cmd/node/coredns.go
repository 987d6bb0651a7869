//go:build cluster_components

package main

import (
	"github.com/coredns/coredns/coremain"
	// Only the plugins that the Corefile of this cluster names: all of them
	// would bring in the SDKs of three clouds.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func coredns() { coremain.Run() }
