package strategy_test

import (
	"crypto/sha256"
	"encoding/base64"

	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// newSecret returns a new token.
func newSecret() strategy.Secret {
	text, _ := token.Default.New()
	return strategy.NewSecret(text)
}

// sha256Of returns the digest of a token, computed independently of the package.
func sha256Of(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
