// KServe's controller and its webhooks for InferenceServices, on loopback only.
//
// KServe's own program listens on every interface and takes its certificate from a fixed folder;
// all that decides anything is KServe's here too. newer.go and older.go hold what its generations
// do differently.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kserve/kserve/pkg/apis/serving/v1beta1"
	"github.com/kserve/kserve/pkg/controller/v1beta1/inferenceservice"
	"github.com/kserve/kserve/pkg/webhook/admission/pod"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const loopback = "127.0.0.1"

func main() {
	port := flag.Int("webhook-port", 0, "port of the webhooks on loopback")
	probes := flag.Int("probe-port", 0, "port of /readyz on loopback")
	certificate := flag.String("certificate", "", "file with the webhooks' certificate")
	key := flag.String("key", "", "file with its key")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(*port, *probes, *certificate, *key); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(port, probes int, certificate, key string) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	cached, err := cacheOptions()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Cache:                  cached,
		Metrics:                metrics.Options{BindAddress: "0"},
		HealthProbeBindAddress: fmt.Sprintf("%s:%d", loopback, probes),
		WebhookServer: webhook.NewServer(webhook.Options{
			Host:     loopback,
			Port:     port,
			CertDir:  filepath.Dir(certificate),
			CertName: filepath.Base(certificate),
			KeyName:  filepath.Base(key),
		}),
	})
	if err != nil {
		return err
	}
	if err := addKinds(manager.GetScheme()); err != nil {
		return err
	}
	if err := addController(manager, client); err != nil {
		return err
	}
	if err := addWebhooks(manager, client); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}

func addController(manager ctrl.Manager, client kubernetes.Interface) error {
	settings, err := v1beta1.GetInferenceServiceConfigMap(context.Background(), client)
	if err != nil {
		return err
	}
	deploy, err := v1beta1.NewDeployConfig(settings)
	if err != nil {
		return err
	}
	ingress, err := v1beta1.NewIngressConfig(settings)
	if err != nil {
		return err
	}
	events := record.NewBroadcaster()
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	reconciler := &inferenceservice.InferenceServiceReconciler{
		Client:    manager.GetClient(),
		Clientset: client,
		Log:       ctrl.Log.WithName("InferenceService"),
		Scheme:    manager.GetScheme(),
		Recorder:  events.NewRecorder(manager.GetScheme(), corev1.EventSource{Component: "kserve"}),
	}
	return reconciler.SetupWithManager(manager, deploy, ingress)
}

func addWebhooks(manager ctrl.Manager, client kubernetes.Interface) error {
	server := manager.GetWebhookServer()
	server.Register("/mutate-pods", &webhook.Admission{Handler: &pod.Mutator{
		Client:    manager.GetClient(),
		Clientset: client,
		Decoder:   admission.NewDecoder(manager.GetScheme()),
	}})
	err := ctrl.NewWebhookManagedBy(manager).
		For(&v1beta1.InferenceService{}).
		WithDefaulter(&v1beta1.InferenceServiceDefaulter{}).
		WithValidator(&v1beta1.InferenceServiceValidator{}).
		Complete()
	if err != nil {
		return err
	}
	var started healthz.Checker = server.StartedChecker()
	return manager.AddReadyzCheck("webhooks", started)
}
