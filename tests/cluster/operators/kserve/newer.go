//go:build !older

package main

import (
	"github.com/kserve/kserve/pkg/controller/v1beta1/inferenceservice"
	"github.com/kserve/kserve/pkg/scheme"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

func cacheOptions() (cache.Options, error) {
	return inferenceservice.NewCacheOptions()
}

func addKinds(known *runtime.Scheme) error {
	return scheme.AddAll(known)
}
