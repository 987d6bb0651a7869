// Package tokens decides who may use which repositories of the registry, and
// says so in tokens that the registry believes: it is the token service of
// Docker's token flow.
//
// A client that a registry sends here presents the token of a ServiceAccount as
// its password. Whose it is decides what is granted:
//
//	a ServiceAccount of namespace N may pull, push and delete in the
//	repositories below <prefix>/N/, and nothing else.
//
// What is asked for beyond that is left out of the token, as the protocol wants
// it, so that the registry refuses it. Who would get nothing at all is told why.
package tokens

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Access is something that may be done in a registry, in the words of its
// tokens.
type Access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// repository is the type of access that there is for namespaces.
const repository = "repository"

// actions are those that a namespace has in its own repositories.
var actions = []string{"pull", "push", "delete"}

// Limits of what one request may ask for. A push that mounts a blob of another
// repository asks for two.
const (
	mostScopes     = 16
	mostScopeBytes = 4096
)

// parseScopes reads what a client asks for. A value holds one scope or several,
// with spaces in between, and a scope is TYPE:NAME:ACTION,ACTION. The name may
// hold colons: registries with mirrors put a host's port there.
func parseScopes(values []string) ([]Access, error) {
	var asked []Access
	for _, value := range values {
		if len(value) > mostScopeBytes {
			return nil, fmt.Errorf("a scope has %d bytes; %d are the most", len(value), mostScopeBytes)
		}
		for scope := range strings.FieldsSeq(value) {
			first, last := strings.Index(scope, ":"), strings.LastIndex(scope, ":")
			if first <= 0 || last <= first+1 || last == len(scope)-1 {
				return nil, fmt.Errorf("scope %.200q is not TYPE:NAME:ACTIONS, as in repository:models/default/digits:pull,push", scope)
			}
			asked = append(asked, Access{Type: scope[:first], Name: scope[first+1 : last], Actions: strings.Split(scope[last+1:], ",")})
			if len(asked) > mostScopes {
				return nil, fmt.Errorf("more than %d scopes are asked for at once", mostScopes)
			}
		}
	}
	return asked, nil
}

// Grant returns what of the access that is asked for the namespace has. prefix is
// the path below which each namespace has its repositories; it may be empty.
func Grant(prefix, namespace string, asked []Access) []Access {
	granted := []Access{}
	for _, access := range asked {
		if access.Type != repository || !isOwn(prefix, namespace, access.Name) {
			continue
		}
		own := slices.DeleteFunc(slices.Clone(actions), func(action string) bool { return !slices.Contains(access.Actions, action) })
		if len(own) > 0 {
			granted = append(granted, Access{Type: repository, Name: access.Name, Actions: own})
		}
	}
	return granted
}

// component is a part of a repository's name between slashes, as the OCI
// Distribution Specification has it. So a name has no empty parts and no dots
// that climb.
var component = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

// isOwn tells whether a repository is the namespace's.
func isOwn(prefix, namespace, name string) bool {
	rest, ok := strings.CutPrefix(name, home(prefix, namespace))
	if !ok || !component.MatchString(namespace) {
		return false
	}
	for part := range strings.SplitSeq(rest, "/") {
		if !component.MatchString(part) {
			return false
		}
	}
	return true
}

// home is what the names of a namespace's repositories begin with.
func home(prefix, namespace string) string {
	if prefix == "" {
		return namespace + "/"
	}
	return prefix + "/" + namespace + "/"
}
