package tokens

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func complete(t *testing.T, data map[string][]byte) (*KeyRing, map[string][]byte) {
	t.Helper()
	ring, err := Complete(data)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := ring.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return ring, kept
}

func trusted(t *testing.T, data map[string][]byte) *jose.JSONWebKeySet {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data[TrustedKeys], &set); err != nil {
		t.Fatal(err)
	}
	for _, key := range set.Keys {
		if !key.IsPublic() || key.KeyID == "" {
			t.Fatalf("the registry is given %+v", key)
		}
	}
	return &set
}

func TestKeysAreKept(t *testing.T) {
	ring, first := complete(t, nil)
	if len(first) != 3 || len(trusted(t, first).Keys) != 2 || ring.current.KeyID == ring.next.KeyID {
		t.Fatalf("made from nothing: %d entries, %d trusted keys", len(first), len(trusted(t, first).Keys))
	}
	again, second := complete(t, first)
	if !reflect.DeepEqual(first, second) || again.current.KeyID != ring.current.KeyID {
		t.Error("what was kept is read back as something else")
	}
}

// TestSuccessorIsTrustedBefore takes the current key away: the one that signs then
// is one that a registry trusts which was not started anew.
func TestSuccessorIsTrustedBefore(t *testing.T) {
	old, before := complete(t, nil)
	registry := trusted(t, before)
	delete(before, CurrentKey)
	ring, after := complete(t, before)
	if ring.current.KeyID != old.next.KeyID || ring.next.KeyID == old.current.KeyID {
		t.Error("the next key did not take the place of the current one")
	}
	if keys := trusted(t, after).Key(old.current.KeyID); len(keys) > 0 {
		t.Error("the key that was taken away is still trusted by a registry that starts")
	}
	claims := verify(t, registry, issue(t, ring, nil))
	if claims.Subject != "somebody" {
		t.Errorf("the token is %+v", claims)
	}
}

func TestDamagedKeysAreSaid(t *testing.T) {
	_, kept := complete(t, nil)
	for name, damage := range map[string]string{"no JSON": "{", "a public key": string(must(json.Marshal(trusted(t, kept).Keys[0]))), "another kind of key": `{"kty":"oct","k":"c2VjcmV0"}`} {
		data := maps.Clone(kept)
		data[NextKey] = []byte(damage)
		if _, err := Complete(data); err == nil || !strings.Contains(err.Error(), NextKey) {
			t.Errorf("%s is taken: %v", name, err)
		}
	}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func issue(t *testing.T, ring *KeyRing, access []Access) string {
	t.Helper()
	token, err := (&Issuer{Name: "issuer", Service: "service", Keys: ring}).Issue("somebody", access, noon)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// verify reads a token as a registry does: by the id of the key in its head.
func verify(t *testing.T, keys *jose.JSONWebKeySet, token string) claims {
	t.Helper()
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	found := keys.Key(parsed.Headers[0].KeyID)
	if len(found) != 1 {
		t.Fatalf("the token is signed by %q, which is not trusted", parsed.Headers[0].KeyID)
	}
	var c claims
	if err := parsed.Claims(found[0], &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTokenSaysWhoMayWhatAndUntilWhen(t *testing.T) {
	ring, kept := complete(t, nil)
	access := []Access{{"repository", "models/red/a", []string{"pull"}}}
	c := verify(t, trusted(t, kept), issue(t, ring, access))
	if !reflect.DeepEqual(c.Access, access) || c.Issuer != "issuer" || !slices.Equal(c.Audience, []string{"service"}) || c.ID == "" {
		t.Errorf("the token is %+v", c)
	}
	if !c.NotBefore.Time().Equal(noon.Add(-clockSkew)) || !c.IssuedAt.Time().Equal(noon) || !c.Expiry.Time().Equal(noon.Add(5*time.Minute)) {
		t.Errorf("it is valid from %s to %s", c.NotBefore.Time(), c.Expiry.Time())
	}
	if c2 := verify(t, trusted(t, kept), issue(t, ring, access)); c2.ID == c.ID {
		t.Error("two tokens have the same id")
	}
}
