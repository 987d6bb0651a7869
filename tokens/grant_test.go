package tokens

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestGrant(t *testing.T) {
	for _, test := range []struct {
		name, prefix, namespace, scope string
		want                           string
	}{
		{"own repository", "models", "red", "repository:models/red/digits:pull,push", "repository:models/red/digits:pull,push"},
		{"deleting, as for checkpoints", "models", "red", "repository:models/red/digits:delete", "repository:models/red/digits:delete"},
		{"deeper down", "models", "red", "repository:models/red/vision/digits.v2:pull", "repository:models/red/vision/digits.v2:pull"},
		{"several, of which one is another's", "models", "red", "repository:models/red/a:pull,push repository:models/blue/b:pull", "repository:models/red/a:pull,push"},
		{"a longer prefix", "team/models", "red", "repository:team/models/red/a:push", "repository:team/models/red/a:push"},
		{"no prefix", "", "red", "repository:red/a:pull", "repository:red/a:pull"},
		{"an action twice", "models", "red", "repository:models/red/a:pull,pull", "repository:models/red/a:pull"},

		{"another namespace", "models", "red", "repository:models/blue/digits:pull", ""},
		{"another that begins like this one", "models", "red", "repository:models/red-2/digits:pull", ""},
		{"another that this one begins like", "models", "red-2", "repository:models/red/digits:pull", ""},
		{"the namespace itself is no repository", "models", "red", "repository:models/red:pull", ""},
		{"nothing after the slash", "models", "red", "repository:models/red/:pull", ""},
		{"climbing up", "models", "red", "repository:models/red/../blue/digits:pull", ""},
		{"an empty part", "models", "red", "repository:models/red//blue:pull", ""},
		{"capitals", "models", "red", "repository:models/red/Digits:pull", ""},
		{"a host before the name", "models", "red", "repository:example.com:5000/models/red/digits:pull", ""},
		{"another path", "models", "red", "repository:images/red/digits:pull", ""},
		{"the prefix left out", "models", "red", "repository:red/digits:pull", ""},
		{"every action", "models", "red", "repository:models/red/digits:*", ""},
		{"an unknown action", "models", "red", "repository:models/red/digits:admin", ""},
		{"the catalog", "models", "red", "registry:catalog:*", ""},
		{"a plugin", "models", "red", "repository(plugin):models/red/digits:pull", ""},
		{"a namespace that is none", "models", "red/blue", "repository:models/red/blue/digits:pull", ""},
		{"no namespace", "models", "", "repository:models//digits:pull", ""},
		{"nothing", "models", "red", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked, err := parseScopes([]string{test.scope})
			if err != nil {
				t.Fatal(err)
			}
			want, err := parseScopes([]string{test.want})
			if err != nil {
				t.Fatal(err)
			}
			if got := Grant(test.prefix, test.namespace, asked); !reflect.DeepEqual(got, append([]Access{}, want...)) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestParseScopes(t *testing.T) {
	for _, refused := range []string{"repository", "repository:models/red/a", ":models/red/a:pull", "repository::pull", "repository:models/red/a:", "::", strings.Repeat("repository:a:pull ", mostScopes+1), strings.Repeat("a", mostScopeBytes+1)} {
		if asked, err := parseScopes([]string{refused}); err == nil {
			t.Errorf("%.80q is read as %v", refused, asked)
		}
	}
	got, err := parseScopes([]string{"repository:host:5000/a:pull", "registry:catalog:*  repository:b:pull,push"})
	want := []Access{{repository, "host:5000/a", []string{"pull"}}, {"registry", "catalog", []string{"*"}}, {repository, "b", []string{"pull", "push"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// FuzzGrant asks for anything in the name of any namespace: what is granted is
// always the namespace's own, and was asked for.
func FuzzGrant(f *testing.F) {
	f.Add("models", "red", "repository:models/red/digits:pull,push repository:models/blue/digits:pull")
	f.Add("models", "red", "repository:models/red/../blue/digits:pull")
	f.Add("", "a.b", "repository:a.b/c:delete registry:catalog:*")
	f.Add("models", "red", "repository:models/red/%2e%2e/blue:pull,*")
	f.Add("models/", "", "repository:models///:pull")
	// What Distribution itself takes for the name of a repository.
	name := regexp.MustCompile(`^(?:[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	f.Fuzz(func(t *testing.T, prefix, namespace, scope string) {
		asked, err := parseScopes([]string{scope})
		if err != nil {
			return
		}
		for _, access := range Grant(prefix, namespace, asked) {
			parts := strings.Split(strings.TrimPrefix(strings.TrimPrefix(access.Name, prefix), "/"), "/")
			if access.Type != repository || !strings.HasPrefix(access.Name, prefix) || len(parts) < 2 || parts[0] != namespace {
				t.Errorf("namespace %q with prefix %q is granted %+v", namespace, prefix, access)
			}
			if name.MatchString(prefix) && !name.MatchString(access.Name) {
				t.Errorf("%q is no repository's name", access.Name)
			}
			was := slices.ContainsFunc(asked, func(a Access) bool {
				return a.Type == access.Type && a.Name == access.Name && !slices.ContainsFunc(access.Actions, func(action string) bool { return !slices.Contains(a.Actions, action) })
			})
			if !was || len(access.Actions) == 0 {
				t.Errorf("%+v is granted, %q was asked for", access, scope)
			}
		}
	})
}
