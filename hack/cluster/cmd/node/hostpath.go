//go:build cluster_components

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/reference"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-helpers/storage/volume"
)

// hostpathProvisioner gives every claim of its storage class a directory of
// this node. The controller manager's own host-path provisioner is not used:
// its directories stand under /tmp and only root can write to them, so no pod
// under the restricted Pod Security Standard could use its volume.
func hostpathProvisioner() {
	p := provisioner{}
	flags := flag.NewFlagSet(os.Args[0], flag.ExitOnError)
	flags.StringVar(&p.name, "provisioner", "", "name of the provisioner in storage classes")
	flags.StringVar(&p.dir, "dir", "", "directory that holds the volumes")
	flags.StringVar(&p.node, "node", "", "name of this node")
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig file")
	_ = flags.Parse(os.Args[1:]) // ExitOnError

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err == nil {
		p.client, err = kubernetes.NewForConfig(config)
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		err = p.run(ctx)
	}
	exitOn("hostpath-provisioner", err)
}

type provisioner struct {
	name, dir, node string
	client          kubernetes.Interface
}

// task is one object to look at: a claim that may want a volume, or a volume
// (with an empty namespace) that may have been released.
type task struct{ namespace, name string }

func (p *provisioner) run(ctx context.Context) error {
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[task]())
	factory := informers.NewSharedInformerFactory(p.client, 10*time.Minute)
	add := func(obj any) {
		if o, ok := obj.(metav1.Object); ok {
			queue.Add(task{o.GetNamespace(), o.GetName()})
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, obj any) { add(obj) }}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().PersistentVolumeClaims().Informer(),
		factory.Core().V1().PersistentVolumes().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching volumes: %w", err)
		}
	}
	factory.Start(ctx.Done())
	go func() { <-ctx.Done(); queue.ShutDown() }()
	for p.next(ctx, queue) {
	}
	return nil
}

func (p *provisioner) next(ctx context.Context, queue workqueue.TypedRateLimitingInterface[task]) bool {
	t, shutdown := queue.Get()
	if shutdown {
		return false
	}
	defer queue.Done(t)
	handle := p.provision
	if t.namespace == "" {
		handle = p.reclaim
	}
	if err := handle(ctx, t); err != nil && !apierrors.IsNotFound(err) {
		slog.Error("will try again", "namespace", t.namespace, "name", t.name, "error", err)
		queue.AddRateLimited(t)
		return true
	}
	queue.Forget(t)
	return true
}

func (p *provisioner) provision(ctx context.Context, t task) error {
	claim, err := p.client.CoreV1().PersistentVolumeClaims(t.namespace).Get(ctx, t.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if claim.Annotations[volume.AnnStorageProvisioner] != p.name || claim.Spec.VolumeName != "" {
		return nil
	}
	pv, err := p.newVolume(claim)
	if err != nil {
		return err
	}
	dir := pv.Spec.Local.Path
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("creating a volume: %w", err)
	}
	// Past the umask: pods of any user write to their volume.
	if err := os.Chmod(dir, 0o777); err != nil {
		return fmt.Errorf("opening a volume to every user: %w", err)
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (p *provisioner) newVolume(claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, error) {
	ref, err := reference.GetReference(scheme.Scheme, claim)
	if err != nil {
		return nil, fmt.Errorf("referring to the claim: %w", err)
	}
	// The claim's identity in the name makes a second attempt find the first.
	name := "pvc-" + string(claim.UID)
	pv := &corev1.PersistentVolume{}
	pv.Name = name
	pv.Annotations = map[string]string{volume.AnnDynamicallyProvisioned: p.name}
	pv.Spec = corev1.PersistentVolumeSpec{
		Capacity:                      claim.Spec.Resources.Requests,
		AccessModes:                   claim.Spec.AccessModes,
		ClaimRef:                      ref,
		StorageClassName:              *claim.Spec.StorageClassName,
		PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
		VolumeMode:                    claim.Spec.VolumeMode,
		NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node},
				}},
			}},
		}},
	}
	// A local volume rather than a host path: the kubelet gives it the pod's
	// fsGroup, as it would a volume of a real storage system.
	pv.Spec.Local = &corev1.LocalVolumeSource{Path: filepath.Join(p.dir, name)}
	return pv, nil
}

// reclaim removes a released volume, directory first: the object is what
// remembers that there is something left to remove.
func (p *provisioner) reclaim(ctx context.Context, t task) error {
	pv, err := p.client.CoreV1().PersistentVolumes().Get(ctx, t.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if pv.Annotations[volume.AnnDynamicallyProvisioned] != p.name ||
		pv.Status.Phase != corev1.VolumeReleased ||
		pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		return nil
	}
	if pv.Spec.Local == nil || filepath.Dir(pv.Spec.Local.Path) != filepath.Clean(p.dir) {
		return errors.New("the volume's directory is not one of this provisioner's; delete the volume by hand")
	}
	if err := os.RemoveAll(pv.Spec.Local.Path); err != nil {
		return fmt.Errorf("removing a volume: %w", err)
	}
	return p.client.CoreV1().PersistentVolumes().Delete(ctx, t.name, metav1.DeleteOptions{})
}
