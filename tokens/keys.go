package tokens

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Keys of the Secret, or whatever else holds a [KeyRing].
const (
	// CurrentKey is the private key that signs, as a JSON Web Key.
	CurrentKey = "current.json"
	// NextKey is the one that will sign after it.
	NextKey = "next.json"
	// TrustedKeys are the public halves of both, as a JSON Web Key Set. It is what
	// the registry reads.
	TrustedKeys = "trusted.json"
)

// KeyRing holds the keys that sign tokens.
//
// The registry reads the keys that it trusts only when it starts. Therefore the
// key that signs next is made, and trusted, long before it signs: when the current
// one is taken away, its successor is one that the registry knows.
type KeyRing struct {
	current, next jose.JSONWebKey
}

// Complete returns the keys that are in data, with those that it lacks: where
// there is no current key, the next one takes its place. Whoever calls it keeps
// what [KeyRing.Encode] returns, if that is not data.
func Complete(data map[string][]byte) (*KeyRing, error) {
	keys, err := decodeKeys(data)
	if err != nil {
		return nil, err
	}
	for len(keys) < 2 {
		made, err := newKey()
		if err != nil {
			return nil, err
		}
		keys = append(keys, made)
	}
	return &KeyRing{current: keys[0], next: keys[1]}, nil
}

// decodeKeys returns the private keys that are there, in the order in which they
// sign.
func decodeKeys(data map[string][]byte) ([]jose.JSONWebKey, error) {
	var found []jose.JSONWebKey
	for _, name := range []string{CurrentKey, NextKey} {
		if len(data[name]) == 0 {
			continue
		}
		var key jose.JSONWebKey
		err := json.Unmarshal(data[name], &key)
		if _, private := key.Key.(ed25519.PrivateKey); err == nil && !private {
			err = errors.New("it is no private Ed25519 key")
		}
		if err != nil {
			return nil, fmt.Errorf("reading the key under %s: %w; remove it, and another is made", name, err)
		}
		found = append(found, key)
	}
	return found, nil
}

func newKey() (jose.JSONWebKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("making a key: %w", err)
	}
	key := jose.JSONWebKey{Key: private, Algorithm: string(jose.EdDSA), Use: "sig"}
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("naming a key: %w", err)
	}
	key.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	return key, nil
}

// Encode returns the ring for a Secret.
func (r *KeyRing) Encode() (map[string][]byte, error) {
	data := map[string][]byte{}
	for name, value := range map[string]any{
		CurrentKey:  r.current,
		NextKey:     r.next,
		TrustedKeys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{r.current.Public(), r.next.Public()}},
	} {
		encoded, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encoding the keys: %w", err)
		}
		data[name] = encoded
	}
	return data, nil
}
