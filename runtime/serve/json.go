package serve

import (
	"bytes"
	"errors"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// decode reads a JSON body into v. Numbers of tensors stay unread, as
// [jsontext.Value]: no reflection goes over them.
func decode(body []byte, v any) error {
	err := json.Unmarshal(body, v)
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return syntaxProblem(body, e)
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		return invalid("the request's %s is %s, expected %s", place(e.JSONPointer), article(e.JSONKind), expectation(e.GoType))
	}
	return invalid("the body is not JSON: %v", err)
}

func syntaxProblem(body []byte, e *jsontext.SyntacticError) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return invalid("the body is empty; expected a JSON object")
	}
	rest := body[min(max(int(e.ByteOffset), 0), len(body)):]
	rest = bytes.TrimPrefix(rest, []byte("-"))
	if bytes.HasPrefix(rest, []byte("NaN")) || bytes.HasPrefix(rest, []byte("Inf")) {
		return invalid("the request's %s is not a finite number; JSON has no NaN and no infinity, so replace it before you send it", place(e.JSONPointer))
	}
	return invalid("the body is not JSON: at byte %d, in %s: %v", e.ByteOffset, place(e.JSONPointer), e.Err)
}

// place writes a JSON pointer as people write paths: inputs[0].shape.
func place(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		switch {
		case token != "" && strings.Trim(token, "0123456789") == "":
			b.WriteString("[" + token + "]")
		case b.Len() > 0:
			b.WriteString("." + clipped(token))
		default:
			b.WriteString(clipped(token))
		}
	}
	if b.Len() == 0 {
		return "body"
	}
	return b.String()
}

func expectation(t reflect.Type) string {
	if t == nil {
		return "something else"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return expectation(t.Elem())
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int64:
		return "a whole number"
	}
	return "a " + t.Kind().String()
}

// quoted appends s as a JSON string.
func quoted(dst []byte, s string) []byte {
	// The only error is about invalid UTF-8, which it replaces.
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}
