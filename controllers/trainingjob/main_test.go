package trainingjob

import (
	"os"
	"testing"

	"trainyard.dev/trainyard/test/apiserver"
)

var server apiserver.Server

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m, &server)) }
