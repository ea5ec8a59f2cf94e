package latchkey

// Parts returns the configurations that New gives to the other packages, without the
// default listener: functions are equal only where they are nil.
func (c Config) Parts() []any {
	onEvent := c.OnEvent
	c.fillDefaults()
	c.OnEvent = onEvent
	return []any{c.users(), c.tokens(), c.attempts(), c.oneTimeTokens(), c.auditTrail(), c.accounts(), c.sessions(), c.ginauth(), c.Cookie, c.Legacy, c.apiTokens(), c.apiStrategy()}
}
