package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// CreateNodeLink makes an idle bridge that carries the node's address, and
// routes the service range to it: an address that kube-proxy has not
// programmed yet then leads nowhere, where the default route would carry it
// off the machine. It is a bridge because some kernels have no dummy device.
func CreateNodeLink(ctx context.Context, link, address, serviceRange string) error {
	for _, command := range []string{
		"link add " + link + " type bridge",
		"address add " + address + "/32 dev " + link,
		"link set " + link + " up",
		"route add " + serviceRange + " dev " + link + " src " + address,
	} {
		if _, err := run(ctx, "", "ip", strings.Fields(command)...); err != nil {
			return fmt.Errorf("creating the node's network: %w", err)
		}
	}
	return nil
}

// RemoveLinks deletes links, and what is attached to those that are bridges:
// the host's ends of pods' cables.
func RemoveLinks(ctx context.Context, links ...string) error {
	var errs []error
	for _, link := range links {
		if _, err := net.InterfaceByName(link); err != nil {
			continue
		}
		ports, err := os.ReadDir("/sys/class/net/" + link + "/brif")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, port := range ports {
			// It may vanish by itself just now, with its pod's namespace.
			_, _ = run(ctx, "", "ip", "link", "delete", port.Name())
		}
		_, err = run(ctx, "", "ip", "link", "delete", link)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ClearPacketFilter removes the rules of kube-proxy, of the kubelet and of the
// CNI network, and leaves all others as they are.
func ClearPacketFilter(ctx context.Context, network string) error {
	var errs []error
	for _, family := range []string{"ip", "ip6"} {
		errs = append(errs, deleteTable(ctx, family, "kube-proxy"))
	}
	for _, tool := range []string{"iptables", "ip6tables"} {
		errs = append(errs, clearIPTables(ctx, tool, network))
	}
	return errors.Join(errs...)
}

func deleteTable(ctx context.Context, family, table string) error {
	// "add" makes "delete" succeed when there is no such table.
	_, err := run(ctx, fmt.Sprintf("add table %s %s\ndelete table %s %s\n", family, table, family, table), "nft", "-f", "-")
	return err
}

func clearIPTables(ctx context.Context, tool, network string) error {
	rules, err := run(ctx, "", tool+"-save")
	if err != nil {
		return err
	}
	commands := removalOf(rules, network)
	if commands == "" {
		return nil
	}
	_, err = run(ctx, commands, tool+"-restore", "--noflush")
	return err
}

// removalOf turns the output of iptables-save into the input of
// iptables-restore that removes the cluster's part: in each table first the
// rules outside its chains that lead into them, then the chains.
func removalOf(saved, network string) string {
	var out strings.Builder
	var chains, rules []string
	table := ""
	for _, line := range strings.Split(saved, "\n") {
		switch {
		case strings.HasPrefix(line, "*"):
			table, chains, rules = line, nil, nil
		case strings.HasPrefix(line, ":"):
			chain, _, _ := strings.Cut(line[1:], " ")
			chains = append(chains, chain)
		case strings.HasPrefix(line, "-A "):
			rules = append(rules, line)
		case line == "COMMIT":
			out.WriteString(removalOfTable(table, chains, rules, network))
		}
	}
	return out.String()
}

func removalOfTable(table string, chains, rules []string, network string) string {
	ours := ourChains(chains, rules, network)
	var out strings.Builder
	for _, rule := range rules {
		from, to := ends(rule)
		if !ours[from] && (ours[to] || isOfNetwork(rule, network)) {
			fmt.Fprintln(&out, "-D"+strings.TrimPrefix(rule, "-A"))
		}
	}
	for _, command := range []string{"-F ", "-X "} { // all empty before any goes: they refer to each other
		for _, chain := range chains {
			if ours[chain] {
				fmt.Fprintln(&out, command+chain)
			}
		}
	}
	if out.Len() == 0 {
		return ""
	}
	return table + "\n" + out.String() + "COMMIT\n"
}

// ourChains are Kubernetes' by prefix, and those of the CNI plugins that only
// the rules of our network lead to: another network's look the same.
func ourChains(chains, rules []string, network string) map[string]bool {
	ours := map[string]bool{}
	for _, chain := range chains {
		if strings.HasPrefix(chain, "KUBE-") {
			ours[chain] = true
		}
	}
	for _, rule := range rules {
		if _, to := ends(rule); strings.HasPrefix(to, "CNI-") && isOfNetwork(rule, network) {
			ours[to] = true
		}
	}
	return ours
}

// isOfNetwork recognizes the comment that CNI plugins put on their rules.
func isOfNetwork(rule, network string) bool {
	return strings.Contains(rule, `name: \"`+network+`\" `)
}

// ends names the chain that a rule stands in and the one it leads to.
func ends(rule string) (from, to string) {
	fields := strings.Fields(rule)
	for i := 0; i+1 < len(fields); i++ {
		switch fields[i] {
		case "-A":
			from = fields[i+1]
		case "-j", "-g":
			to = fields[i+1]
		}
	}
	return from, to
}
