package sqlstore_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/gin-gonic/gin"
	"go.uber.org/goleak"
)

// With envChild, the test program is another process of the application that takes its orders from
// stdin, instead of running tests. Its value is a driver, a space and a data source name.
const envChild = "LATCHKEY_TEST_SQL_CHILD"

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	if from := os.Getenv(envChild); from != "" {
		if err := childMain(from); err != nil {
			fmt.Fprintln(os.Stderr, "sqlstore: another process:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}
