package spellings_test

import (
	"slices"
	"testing"

	"github.com/latchkey-go/latchkey/internal/spellings"
)

func TestVariants(t *testing.T) {
	for email, want := range map[string][]string{
		"ann@example.com":           {"ann@example.com"},
		"ann@xn--bcher-kva.example": {"ann@xn--bcher-kva.example", "ann@bücher.example"},
		"no address":                {"no address"},
		"ann@xn--0.example":         {"ann@xn--0.example"},
	} {
		if got := spellings.Variants(email); !slices.Equal(got, want) {
			t.Errorf("Variants(%q) = %q, want %q", email, got, want)
		}
	}
}
