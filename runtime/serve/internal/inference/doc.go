// Package inference holds the messages and the service of the Open Inference
// Protocol over gRPC.
package inference

//go:generate sh -c "protoc --plugin=protoc-gen-go=\"$(go tool -modfile=../../../../hack/tools/go.mod -n protoc-gen-go)\" --plugin=protoc-gen-go-grpc=\"$(go tool -modfile=../../../../hack/tools/go.mod -n protoc-gen-go-grpc)\" --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative,require_unimplemented_servers=false inference.proto"
