package serve

import (
	"bytes"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// head is what the head of a request for predictions says.
type head struct {
	protocol       string
	codec          codec
	model, version []byte
	// binary is the value of [binaryHeader], and parent and state are the first of
	// traceparent and tracestate: nil, if they are not there.
	binary, parent, state []byte
	// length is that of the head, with the empty line, and body that of the body.
	length, body int
}

// parseHead reads the head at the front of text. It is not ok if the head is not
// whole, or says anything that it does not know the meaning of for certain: then
// it is for net/http, which tells a client what is wrong.
func parseHead(text []byte) (h head, ok bool) {
	line, rest, ok := cutLine(text)
	if !ok || !h.parseTarget(line) {
		return h, false
	}
	h.body = -1
	hosts := 0
	for {
		if line, rest, ok = cutLine(rest); !ok {
			return h, false
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || !h.parseField(name, trim(value), &hosts) {
			return h, false
		}
	}
	h.length = len(text) - len(rest)
	return h, h.body >= 0 && hosts == 1
}

// cutLine returns the line at the front of text, without its end.
func cutLine(text []byte) (line, rest []byte, ok bool) {
	end := bytes.IndexByte(text, '\n')
	if end < 1 || text[end-1] != '\r' {
		return nil, nil, false
	}
	return text[:end-1], text[end+1:], true
}

// parseTarget reads the first line.
func (h *head) parseTarget(line []byte) bool {
	line, ok := bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	if !ok {
		return false
	}
	if rest, ok := bytes.CutPrefix(line, []byte("POST /v2/models/")); ok {
		h.protocol, h.codec = "v2", inferV2
		rest, ok = bytes.CutSuffix(rest, []byte("/infer"))
		model, version, versioned := bytes.Cut(rest, []byte("/versions/"))
		h.model, h.version = model, version
		return ok && plain(model) && (!versioned || plain(version))
	}
	rest, ok := bytes.CutPrefix(line, []byte("POST /v1/models/"))
	if !ok {
		return false
	}
	h.protocol, h.codec = "v1", predictV1
	h.model, ok = bytes.CutSuffix(rest, []byte(predictVerb))
	return ok && plain(h.model)
}

// plain tells whether a part of a path means what it says.
func plain(part []byte) bool {
	for _, c := range part {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			if (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
				return false
			}
		}
	}
	return len(part) > 0 && string(part) != "." && string(part) != ".."
}

// trim returns a value without the spaces around it: never nil, as that of
// [bytes.Trim] is when nothing else is there.
func trim(value []byte) []byte {
	for len(value) > 0 && isSpace(value[0]) {
		value = value[1:]
	}
	for len(value) > 0 && isSpace(value[len(value)-1]) {
		value = value[:len(value)-1]
	}
	return value
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// parseField reads a field. It is false for one that is not understood here, or
// that there must be only one of.
func (h *head) parseField(name, value []byte, hosts *int) bool {
	if !isToken(name) || !isText(value) {
		return false
	}
	switch {
	case named(name, "Host"):
		*hosts++
		return isHost(value)
	case named(name, "Content-Length"):
		first := h.body < 0
		h.body = natural(value)
		return first && h.body >= 0
	case named(name, binaryHeader):
		first := h.binary == nil
		h.binary = value
		return first && len(value) > 0
	case named(name, "Traceparent"):
		if h.parent == nil {
			h.parent = value
		}
	case named(name, "Tracestate"):
		if h.state == nil {
			h.state = value
		}
	case named(name, "Connection"):
		return named(value, "keep-alive")
	case named(name, "Transfer-Encoding"), named(name, "Content-Encoding"), named(name, "Expect"), named(name, "Upgrade"),
		named(name, "Trailer"), named(name, "Proxy-Connection"):
		return false
	}
	return true
}

func named(text []byte, name string) bool {
	return len(text) == len(name) && bytes.EqualFold(text, []byte(name))
}

// natural reads a number of at most nine digits. It is -1 for anything else.
func natural(value []byte) int {
	if len(value) == 0 || len(value) > 9 {
		return -1
	}
	n := 0
	for _, c := range value {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// isToken tells whether text can be the name of a field.
func isToken(text []byte) bool {
	for _, c := range text {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			if (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return len(text) > 0
}

// isText tells whether text can be the value of a field.
func isText(text []byte) bool {
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isHost tells whether text can be a host, with a port or without.
func isHost(text []byte) bool {
	for _, c := range text {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '-' || c > ':' || c == '/') && c != '[' && c != ']' && c != '_' {
			return false
		}
	}
	return len(text) > 0
}

// appendReply appends an answer, whole, and returns its status.
func appendReply(dst []byte, b *buffers, served *version, err error, closes bool, now time.Time) ([]byte, int) {
	p, body := (*problem)(nil), b.answer
	code, kind := http.StatusOK, "application/json"
	switch {
	case err != nil:
		p = asProblem(err)
		code, body = p.status, p.body()
	case b.answerHead > 0:
		kind = "application/octet-stream"
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(append(dst, ' '), http.StatusText(code)...)
	dst = append(append(dst, "\r\nDate: "...), httpDate(now)...)
	dst = append(append(dst, "\r\nContent-Type: "...), kind...)
	dst = append(dst, "\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	if served != nil {
		dst = append(append(dst, "\r\n"+versionHeader+": "...), served.header[0]...)
	}
	if err == nil && b.answerHead > 0 {
		dst = append(dst, "\r\n"+binaryHeader+": "...)
		dst = strconv.AppendInt(dst, int64(b.answerHead), 10)
	}
	if p != nil && p.retryAfter > 0 {
		dst = append(dst, "\r\nRetry-After: "...)
		dst = strconv.AppendInt(dst, p.retrySeconds(), 10)
	}
	if closes {
		dst = append(dst, "\r\nConnection: close"...)
	}
	return append(append(dst, "\r\n\r\n"...), body...), code
}

// dated is a second, and how HTTP writes it.
type dated struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[dated]

func httpDate(now time.Time) string {
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		d = &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(d)
	}
	return d.text
}
