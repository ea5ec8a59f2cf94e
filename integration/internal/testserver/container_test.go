package testserver

import (
	"context"
	"testing"
)

// FindImage returns the reason why no container of the image can be started, or nil.
func FindImage(ctx context.Context, image string) error {
	docker, err := engineWith(ctx, image)
	if err != nil {
		return err
	}
	return docker.Close()
}

func TestRepositoryOfAnImage(t *testing.T) {
	for image, want := range map[string]string{
		"mongo":                              "mongo",
		"mongo:8":                            "mongo",
		"example.test:5000/library/mongo":    "mongo",
		"example.test:5000/mongo:8@sha256:0": "mongo",
		"mongo@sha256:0":                     "mongo",
		"latchkey-devmongo:local":            "latchkey-devmongo",
		"mongo/community-server:8":           "community-server",
	} {
		if got := repository(image); got != want {
			t.Errorf("repository(%q) = %q, want %q", image, got, want)
		}
	}
}
