package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// accounts are the operator's, with the roles that they have: those of the whole
// cluster, and those of their namespace.
var accounts = map[string]struct{ cluster, namespace []string }{
	"manager": {[]string{"trainyard-manager", "trainyard-registry-tokens"}, []string{"leader-election", "registry-tokens"}},
	"gateway": {[]string{"trainyard-gateway"}, nil},
}

// Reasons for permissions that no story here needs, or not surely.
const (
	leftBehind  = "what a ModelService of the same name left behind is deleted; controllers/modelservice tests it"
	scaledByCPU = "ModelServices that scale by CPU have one; that needs metrics-server"
	enforcement = "nobody asks for it; clusters with OwnerReferencesPermissionEnforcement want it of who sets blockOwnerDeletion"
	repeated    = "an Event that is told again"
)

// rarelyUsed are these permissions.
var rarelyUsed = map[string]string{
	"delete configmaps": leftBehind, "delete services": leftBehind, "delete deployments.apps": leftBehind,
	"delete endpointslices.discovery.k8s.io": leftBehind, "delete networkpolicies.networking.k8s.io": leftBehind,
	"get horizontalpodautoscalers.autoscaling": scaledByCPU, "create horizontalpodautoscalers.autoscaling": scaledByCPU,
	"patch horizontalpodautoscalers.autoscaling": scaledByCPU, "delete horizontalpodautoscalers.autoscaling": scaledByCPU,
	"update modelservices/finalizers.trainyard.dev": enforcement, "update trainingjobs/finalizers.trainyard.dev": enforcement,
	"patch events": repeated, "patch events.events.k8s.io": repeated,
	"get jobs.batch": "a Job that was made a moment ago, and that the cache doesn't show yet",
}

// request is what of the API server's audit log is looked at.
type request struct {
	Verb           string
	User           struct{ Username string }
	ObjectRef      struct{ Resource, Subresource, APIGroup string }
	ResponseStatus struct{ Code int }
	Annotations    map[string]string
}

// permission is a verb and what it is for, as in "patch deployments/scale.apps".
func permission(verb, resource, group string) string {
	if group != "" {
		resource += "." + group
	}
	return verb + " " + resource
}

// checkPermissions compares what the operator asked for, in all stories, with
// what it may: nothing was refused, and nothing was never needed.
func checkPermissions(ctx context.Context) error {
	used, refused, err := usedPermissions(ctx)
	if err != nil {
		return err
	}
	errs := []error{}
	for account, roles := range accounts {
		granted, err := grantedTo(ctx, roles.cluster, roles.namespace)
		if err != nil {
			return err
		}
		for _, p := range granted {
			if !used[account][p] && rarelyUsed[p] == "" && !isFallback(p, granted) {
				errs = append(errs, fmt.Errorf("the %s may %s, and never did", account, p))
			}
		}
		fmt.Printf("the %s has %d permissions and used %d\n", account, len(granted), len(used[account]))
	}
	for _, p := range refused {
		errs = append(errs, fmt.Errorf("refused: %s", p))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// isFallback tells whether it is to list what is watched: API servers before
// Kubernetes 1.34 don't begin a watch with what there is.
func isFallback(permission string, granted []string) bool {
	what, lists := strings.CutPrefix(permission, "list ")
	return lists && slices.Contains(granted, "watch "+what)
}

// usedPermissions reads the audit log of hack/cluster. What was refused because a
// namespace was being deleted is no matter of permissions.
func usedPermissions(ctx context.Context) (used map[string]map[string]bool, refused []string, err error) {
	output, err := exec.CommandContext(ctx, os.Getenv("TRAINYARD_KUBECTL"), "logs", "audit").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the API server's audit log: %w", err)
	}
	used = map[string]map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(output))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, nil, fmt.Errorf("reading the API server's audit log: %w", err)
		}
		if r.ObjectRef.Resource == "" {
			continue // discovery, which everyone may
		}
		resource := r.ObjectRef.Resource
		if r.ObjectRef.Subresource != "" {
			resource += "/" + r.ObjectRef.Subresource
		}
		account := r.User.Username[strings.LastIndex(r.User.Username, ":")+1:]
		p := permission(r.Verb, resource, r.ObjectRef.APIGroup)
		if r.Annotations["authorization.k8s.io/decision"] == "forbid" {
			refused = append(refused, account+": "+p)
			continue
		}
		if used[account] == nil {
			used[account] = map[string]bool{}
		}
		used[account][p] = true
		if r.Verb == "patch" && r.ResponseStatus.Code == http.StatusCreated {
			used[account][permission("create", resource, r.ObjectRef.APIGroup)] = true // server-side apply of what wasn't there
		}
	}
	slices.Sort(refused)
	return used, slices.Compact(refused), lines.Err()
}

// grantedTo lists what roles allow, one verb and resource each.
func grantedTo(ctx context.Context, clusterRoles, roles []string) ([]string, error) {
	var rules []rbacv1.PolicyRule
	for _, name := range clusterRoles {
		role := rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(&role), &role); err != nil {
			return nil, err
		}
		rules = append(rules, role.Rules...)
	}
	for _, name := range roles {
		role := rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: operatorNamespace}}
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(&role), &role); err != nil {
			return nil, err
		}
		rules = append(rules, role.Rules...)
	}
	var granted []string
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					granted = append(granted, permission(verb, resource, group))
				}
			}
		}
	}
	slices.Sort(granted)
	return slices.Compact(granted), nil
}

// everyStory tells whether all of them are told, on the cluster that keeps an
// audit log.
func everyStory() bool {
	return os.Getenv("TRAINYARD_KUBECTL") != "" && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
}
