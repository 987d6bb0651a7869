package cluster

import (
	"context"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/tokens"
)

// Review returns a function that asks the API server whose token it is. The token
// must be meant for the audience: one for the API server itself, or for another
// service, opens nothing here.
func Review(c client.Client, audience string) func(ctx context.Context, token string) (string, error) {
	return func(ctx context.Context, token string) (string, error) {
		review := authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}}}
		if err := c.Create(ctx, &review); err != nil {
			return "", fmt.Errorf("reviewing a token: %w", err)
		}
		switch status := review.Status; {
		case !status.Authenticated && status.Error != "":
			return "", &tokens.InvalidError{Reason: status.Error}
		case !status.Authenticated:
			return "", &tokens.InvalidError{Reason: "the API server does not know it"}
		case !slices.Contains(status.Audiences, audience):
			// An API server that knows no audiences would take any token.
			return "", &tokens.InvalidError{Reason: "the API server does not confirm its audience"}
		}
		return review.Status.User.Username, nil
	}
}
