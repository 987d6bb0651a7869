package tokens

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// IssuerName is who issues the tokens; registries are told to trust it.
const IssuerName = "trainyard"

// Lifetime of a token. It is short, as a registry can't be told to take none any
// more; clients fetch another when it is over, in the middle of an upload too.
const Lifetime = 5 * time.Minute

// clockSkew is how far the registry's clock may be behind. It allows another
// minute by itself.
const clockSkew = 30 * time.Second

// Issuer makes tokens.
type Issuer struct {
	// Name is the issuer that the registry trusts.
	Name string
	// Service is the registry's name for itself.
	Service string
	// Keys sign.
	Keys *KeyRing
}

// claims are those of the registry's tokens.
type claims struct {
	jwt.Claims
	Access []Access `json:"access"`
}

// Issue returns a token with which the subject has that access.
func (i *Issuer) Issue(subject string, access []Access, now time.Time) (string, error) {
	key := jose.SigningKey{Algorithm: jose.EdDSA, Key: i.Keys.current}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	payload, err := json.Marshal(claims{
		Claims: jwt.Claims{
			Issuer: i.Name, Subject: subject, Audience: jwt.Audience{i.Service}, ID: rand.Text(),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-clockSkew)), Expiry: jwt.NewNumericDate(now.Add(Lifetime)),
		},
		Access: access,
	})
	if err != nil {
		return "", fmt.Errorf("encoding a token: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return signed.CompactSerialize()
}
