//go:build older

package main

import (
	"github.com/kserve/kserve/pkg/apis/serving/v1alpha1"
	"github.com/kserve/kserve/pkg/apis/serving/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

func cacheOptions() (cache.Options, error) {
	return cache.Options{}, nil
}

func addKinds(known *runtime.Scheme) error {
	kinds := runtime.NewSchemeBuilder(v1alpha1.AddToScheme, v1beta1.AddToScheme, gateway.Install)
	return kinds.AddToScheme(known)
}
