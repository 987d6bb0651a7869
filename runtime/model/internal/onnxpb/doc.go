// Package onnxpb holds the protocol buffer types of an ONNX file.
package onnxpb

//go:generate sh -c "protoc --plugin=protoc-gen-go=\"$(go tool -modfile=../../../../hack/tools/go.mod -n protoc-gen-go)\" --go_out=. --go_opt=paths=source_relative onnx.proto"
