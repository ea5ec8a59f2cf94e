package main

import (
	"bytes"
	"os"
	"regexp"
	"testing"
	"time"
)

func TestSizesAndDeletionAreMeasured(t *testing.T) {
	args := []string{"-sessions", "50", "-patience", (5 * time.Minute).String()}
	if uri := os.Getenv("LATCHKEY_TEST_MONGODB_URI"); uri != "" {
		args = append(args, "-mongodb-uri", uri)
	}
	var out bytes.Buffer
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		`(?s)\| documents, before compression \| [1-9]\d* \|.*\| documents on disk \| \d+ \|.*\| all indexes \| \d+ \||does not report sizes: `,
		`deleted 50 sessions in .*, [1-9]\d* a second`,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("nothing matches %s in\n%s", want, out.String())
		}
	}
}

func TestInvalidFlagsAreErrors(t *testing.T) {
	for _, args := range [][]string{{"-sessions", "0"}, {"-patience", "-1s"}, {"more"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q: got no error", args)
		}
	}
}
