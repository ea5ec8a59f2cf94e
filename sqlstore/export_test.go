package sqlstore

// For the tests.
var (
	IsDuplicate = Dialect.isDuplicate
	IsConflict  = Dialect.isConflict
	Bind        = Dialect.bind
)
