package strategy

import (
	"context"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/event"
)

// Config configures a [Database]. The zero value is usable: tokens then do not expire.
type Config struct {
	// Lifetime is how long a token is accepted after it was issued, to the millisecond: a
	// token of exactly this age is accepted, and one that is a millisecond older is not.
	// [WithLifetime] shortens it for one token. 0 means that tokens do not expire. NIST SP
	// 800-63B-4 §2.2.3 recommends at most 24 hours at AAL2.
	Lifetime time.Duration

	// IdleTimeout ends a session that was not used for longer, to the millisecond by its
	// stored last use; see TouchInterval. It does not apply to tokens with scopes. 0 means
	// no idle timeout. NIST SP 800-63B-4 §2.2.3 recommends at most 1 hour at AAL2.
	IdleTimeout time.Duration

	// TouchInterval is the shortest time between two writes of a session's last use. It can
	// shorten a session's idle timeout by at most itself, and never extends it. The default
	// is a tenth of IdleTimeout, but at least 1 second if IdleTimeout is 2 seconds or more;
	// without an IdleTimeout, the last use is not stored.
	TouchInterval time.Duration

	// MaxSessions is the maximum number of sessions of a user, not counting tokens with
	// scopes. A login beyond it ends the user's oldest session. 0 means no limit.
	MaxSessions int

	// NotBefore invalidates every token whose user gave the credentials earlier, at once and
	// without a write: to log everybody out in an emergency, or after a backup was restored.
	// The zero time means no such limit.
	NotBefore time.Time

	// TokenPrefix begins every token, so that secret scanners find leaked ones: the pattern
	// of the default is \blk_[0-9A-Za-z]{49}\b. It has 2 to 24 characters of a-z, 0-9 and _,
	// begins with a letter and ends with _. Tokens with another prefix are refused, so
	// changing it logs everybody out. Default "lk_".
	TokenPrefix string

	// SurvivePasswordChange lets tokens go on after their user's password was changed: for
	// tokens of scripts, in a store of their own. The token version is not compared then, so
	// what else revokes all tokens of a user deletes their rows instead: a token that is issued
	// at the same moment can remain. An inactive user's tokens are refused in any case. Default
	// false.
	SurvivePasswordChange bool

	// Cache keeps sessions in memory. Default: no cache.
	Cache Cache

	// PublishRevocations tells other processes, which have a Cache, what this process
	// revokes. A process with a Cache always does. Set it in every other process that revokes
	// tokens or changes accounts. The Store must be a [RevocationLog]. Default false.
	PublishRevocations bool

	// WatchInterval is how often a token that is watched is looked up, or up to 25 % sooner; see
	// [Database.Watch]. At least 10 milliseconds. Default 5 seconds; with a Cache, whose
	// revocations are followed besides, MaxStaleness, but at least 1 second.
	WatchInterval time.Duration

	// WatchGrace is how long a [Database.Watch] outlives the last moment at which its session
	// was known to be valid, while the store fails. At least WatchInterval. Default 1 minute, or
	// twice WatchInterval if that is more.
	WatchGrace time.Duration

	// Now is the clock. Default [time.Now].
	Now func() time.Time

	// OnEvent is called synchronously with every event. It must be quick and safe for
	// concurrent use. [event.Log] returns one that logs. Default: events are dropped.
	OnEvent func(context.Context, event.Event)
}

// prepare fills in the defaults. It returns an error that names the field if a value is
// invalid.
func (cfg *Config) prepare() error {
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"Lifetime", cfg.Lifetime}, {"IdleTimeout", cfg.IdleTimeout}, {"TouchInterval", cfg.TouchInterval},
		{"WatchInterval", cfg.WatchInterval}, {"WatchGrace", cfg.WatchGrace},
	} {
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
		return fmt.Errorf("strategy: Config.TouchInterval is %v, want less than IdleTimeout, %v: sessions in use would end", cfg.TouchInterval, cfg.IdleTimeout)
	}
	if cfg.MaxSessions < 0 {
		return fmt.Errorf("strategy: Config.MaxSessions is negative: %d", cfg.MaxSessions)
	}
	if err := cfg.Cache.prepare(); err != nil {
		return err
	}
	if err := cfg.prepareWatch(); err != nil {
		return err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return nil
}

const minWatchInterval = 10 * time.Millisecond

func (cfg *Config) prepareWatch() error {
	switch {
	case cfg.WatchInterval == 0 && cfg.Cache == Cache{}:
		cfg.WatchInterval = 5 * time.Second
	case cfg.WatchInterval == 0:
		cfg.WatchInterval = max(time.Second, cfg.Cache.MaxStaleness)
	case cfg.WatchInterval < minWatchInterval:
		return fmt.Errorf("strategy: Config.WatchInterval is %v, want at least %v", cfg.WatchInterval, minWatchInterval)
	}
	switch {
	case cfg.WatchGrace == 0:
		cfg.WatchGrace = max(time.Minute, 2*cfg.WatchInterval)
	case cfg.WatchGrace < cfg.WatchInterval:
		return fmt.Errorf("strategy: Config.WatchGrace is %v, want at least WatchInterval, %v: a single failed look-up would end a watch", cfg.WatchGrace, cfg.WatchInterval)
	}
	return nil
}
