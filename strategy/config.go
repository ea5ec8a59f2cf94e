package strategy

import (
	"context"
	"fmt"
	"time"
)

// Config configures a [Database]. The zero value is usable: tokens that live
// until they are revoked.
type Config struct {
	// Lifetime is how long a token is accepted after it was issued, to the
	// millisecond: at the age of Lifetime it still is, one millisecond later it
	// is not. [WithLifetime] shortens it for a token. 0 means that tokens do not
	// expire. NIST SP 800-63B-4 §2.2.3 recommends at most 24 hours at AAL2.
	Lifetime time.Duration

	// IdleTimeout ends a session that was not used for longer, to the
	// millisecond by what is written down of its use; see TouchInterval. 0 means
	// that sessions may be idle. NIST recommends at most 1 hour at AAL2. It does
	// not apply to tokens with scopes.
	IdleTimeout time.Duration

	// TouchInterval is how often a session's use is written down, at most. It can
	// make the idle timeout shorter by itself, and never longer. Default a tenth
	// of IdleTimeout, but at least 1 second (where IdleTimeout is 2 seconds or
	// more); with an IdleTimeout of 0, 0: its use is not written down.
	TouchInterval time.Duration

	// MaxSessions is how many sessions a user may have at once, not counting
	// tokens with scopes. 0 means any number.
	MaxSessions int

	// WhenFull says what happens beyond MaxSessions. Default [EvictOldest].
	WhenFull WhenFull

	// NotBefore makes all tokens invalid, at once and without being touched, for
	// which the credentials were given earlier: an emergency log-out of everybody,
	// or what a restored backup needs. The zero time means that there is no limit.
	NotBefore time.Time

	// TokenPrefix begins every token; see [NewTokenFormat]. Default
	// [DefaultTokenPrefix]. Tokens with another prefix are refused: changing it
	// logs everybody out.
	TokenPrefix string

	// Cache keeps sessions in memory. Default: none.
	Cache Cache

	// PublishRevocations tells other processes that have a Cache what this one
	// revokes; a Cache of its own implies it. Default false. Set it in every process
	// that revokes tokens or changes accounts beside others that have a Cache. The
	// Store must be a [RevocationLog].
	PublishRevocations bool

	// Now is the clock. Default [time.Now].
	Now func() time.Time

	// OnEvent is called synchronously with everything that happens, by whatever
	// goroutine it happens in; it must be quick and safe for concurrent use. nil
	// means that nobody listens. [LogEvents] is a ready one.
	OnEvent func(context.Context, Event)
}

// WhenFull says what happens to a login beyond [Config.MaxSessions].
type WhenFull uint8

const (
	// EvictOldest ends the user's oldest sessions.
	EvictOldest WhenFull = iota
	// RefuseNew refuses the login, with [ErrTooManySessions].
	RefuseNew
)

// prepare fills in the defaults and returns an error that names the field where
// something is wrong.
func (cfg *Config) prepare() error {
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"Lifetime", cfg.Lifetime}, {"IdleTimeout", cfg.IdleTimeout}, {"TouchInterval", cfg.TouchInterval}} {
		if f.value < 0 {
			return fmt.Errorf("strategy: Config.%s is negative: %v", f.name, f.value)
		}
	}
	if cfg.TouchInterval == 0 && cfg.IdleTimeout > 0 {
		cfg.TouchInterval = cfg.IdleTimeout / 10
		if cfg.IdleTimeout >= 2*time.Second {
			cfg.TouchInterval = max(cfg.TouchInterval, time.Second)
		}
	}
	if cfg.IdleTimeout > 0 && cfg.TouchInterval >= cfg.IdleTimeout {
		return fmt.Errorf("strategy: Config.TouchInterval is %v, want less than IdleTimeout, %v: a session in use would end", cfg.TouchInterval, cfg.IdleTimeout)
	}
	if cfg.MaxSessions < 0 {
		return fmt.Errorf("strategy: Config.MaxSessions is negative: %d", cfg.MaxSessions)
	}
	if cfg.WhenFull > RefuseNew {
		return fmt.Errorf("strategy: Config.WhenFull: %d is none of the choices", cfg.WhenFull)
	}
	if err := cfg.Cache.prepare(); err != nil {
		return err
	}
	cfg.NotBefore = ceil(cfg.NotBefore)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return nil
}
