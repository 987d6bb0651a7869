package main

// component is a program that runs as long as the cluster does. Its name is
// the program's.
type component struct {
	name string
	args []string
}

// storage and runtime need nothing but the machine; the API server needs
// storage, and all others need the API server.
func storage() component {
	return component{"etcd", []string{
		"--name=" + nodeName,
		"--data-dir=" + path("etcd"),
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=" + nodeName + "=http://127.0.0.1:2380",
		"--unsafe-no-fsync", // the data is thrown away with the cluster
		"--log-level=warn",
	}}
}

func containerRuntime() component {
	return component{"containerd", []string{"--config=" + configFile("containerd.toml")}}
}

func api() component {
	return component{"kube-apiserver", []string{
		"--bind-address=" + nodeIP,
		"--advertise-address=" + nodeIP,
		"--secure-port=6443",
		"--etcd-servers=http://127.0.0.1:2379",
		"--service-cluster-ip-range=" + serviceRange,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged",
		"--client-ca-file=" + certificate("ca"),
		"--tls-cert-file=" + certificate("kube-apiserver"),
		"--tls-private-key-file=" + keyOf("kube-apiserver"),
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + keyOf("service-accounts"),
		"--service-account-signing-key-file=" + keyOf("service-accounts"),
		// Without InternalIP, logs and exec would look up the node's name.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + certificate("ca"),
		"--kubelet-client-certificate=" + certificate("kube-apiserver-kubelet-client"),
		"--kubelet-client-key=" + keyOf("kube-apiserver-kubelet-client"),
		// What the operator asks for, which its permissions are compared with.
		"--audit-policy-file=" + configFile("audit.yaml"),
		"--audit-log-path=" + logFile("audit"),
		"--audit-log-maxbackup=1",
		// For aggregated APIs such as metrics.
		"--requestheader-client-ca-file=" + certificate("front-proxy-ca"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + certificate("front-proxy-client"),
		"--proxy-client-key-file=" + keyOf("front-proxy-client"),
		"--enable-aggregator-routing",
	}}
}

// clients are the components that talk to the API server.
func clients() []component {
	return []component{
		{"kube-controller-manager", []string{
			"--kubeconfig=" + kubeconfigOf("kube-controller-manager"),
			"--authentication-kubeconfig=" + kubeconfigOf("kube-controller-manager"),
			"--authorization-kubeconfig=" + kubeconfigOf("kube-controller-manager"),
			"--bind-address=127.0.0.1",
			"--leader-elect=false", // there is only one; waiting for a lease would slow the start
			"--use-service-account-credentials",
			"--root-ca-file=" + certificate("ca"),
			"--service-account-private-key-file=" + keyOf("service-accounts"),
			"--cluster-signing-cert-file=" + certificate("ca"),
			"--cluster-signing-key-file=" + keyOf("ca"),
			"--allocate-node-cidrs",
			"--cluster-cidr=" + podRange,
			"--node-cidr-mask-size=22", // one node has it all
			"--service-cluster-ip-range=" + serviceRange,
			"--kube-api-qps=500",
			"--kube-api-burst=1000",
		}},
		{"kube-scheduler", []string{
			"--config=" + configFile("kube-scheduler.yaml"),
			"--authentication-kubeconfig=" + kubeconfigOf("kube-scheduler"),
			"--authorization-kubeconfig=" + kubeconfigOf("kube-scheduler"),
			"--bind-address=127.0.0.1",
		}},
		{"kubelet", []string{
			"--config=" + configFile("kubelet.yaml"),
			"--kubeconfig=" + kubeconfigOf("kubelet"),
			"--root-dir=" + path("kubelet"),
			"--cert-dir=" + path("kubelet", "pki"),
			"--hostname-override=" + nodeName,
			"--node-ip=" + nodeIP,
		}},
		{"kube-proxy", []string{"--config=" + configFile("kube-proxy.yaml")}},
		{"coredns", []string{"-conf=" + configFile("Corefile")}},
		{"hostpath-provisioner", []string{
			"-kubeconfig=" + kubeconfigOf("hostpath-provisioner"),
			"-provisioner=" + provisioner,
			"-dir=" + path("volumes"),
			"-node=" + nodeName,
		}},
	}
}
