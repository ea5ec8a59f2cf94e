package benchmarks_test

import (
	"os"
	"testing"

	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}
