// Package serve answers predictions: the Open Inference Protocol (V2) and the
// V1 protocol over REST, and V2 over gRPC, for several models at once.
//
// The way of a request: a codec ([inferV2], [predictV1], [inferGRPC]) turns the body into
// tensors, a [signature] turns the tensors into one matrix of rows, the
// [version] of the model computes the answers, and the codec writes them. A
// codec knows its protocol and nothing of the network; the network knows
// nothing of protocols.
//
// The way of a model: [Models] holds, by name, the versions that answer now,
// a [split], and those that are being loaded. A version that is loaded has
// answered its own golden rows, and fits the [contract] of the one before it.
// What was asked for then takes the name over in one step; a version that went
// is closed after its last request.
//
// Requests for large models share computations: see [batcher].
//
// # Answers
//
// The output "outputs" (FP32, rows x outputs) is what the network computes.
// Models that tell classes apart have a second one, "label" (BYTES, rows), with
// the label of the likeliest class. V2 answers it to those who ask for it in
// the request's outputs, V1 to those who send "parameters": {"labels": true};
// the default answer is the main output alone, so that no client meets a tensor
// that it did not expect.
//
// # Inputs
//
// Either one tensor of any name, [rows, features], or [features] for one row;
// or one tensor per feature column, named like the column, in any order, each
// [rows] or [rows, 1]. V1 takes rows as lists or as objects by column name
// ("instances"), and lists by column name ("inputs"). V2 takes and answers JSON
// and, with the binary tensor extension, little-endian bytes; FP16 and BF16 have
// no other form.
package serve
