package mongostore_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/mongostore"
)

func TestTokenFilterEqualsTheDriversEncoding(t *testing.T) {
	for name, digest := range map[string]string{
		"a digest":       strings.Repeat("Ab3_-", 9)[:43],
		"an empty one":   "",
		"an injection":   `{"$ne": "é"}`,
		"a long digest":  strings.Repeat("a", 300),
		"with a newline": "a\nb",
	} {
		want, err := bson.Marshal(bson.D{{Key: "token", Value: digest}})
		if err != nil {
			t.Fatal(err)
		}
		if got := mongostore.TokenFilter(digest); !bytes.Equal(got, want) {
			t.Errorf("%s: the filter is %v, want %v", name, got, bson.Raw(want))
		}
	}
}

func decimal(t *testing.T, s string) bson.Decimal128 {
	t.Helper()
	d, err := bson.ParseDecimal128(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// versionDoc is a document with one field before and one after the version.
func versionDoc(t *testing.T, version any) bson.Raw {
	t.Helper()
	doc, err := bson.Marshal(bson.D{{Key: "email", Value: "a@example.com"}, {Key: "is_active", Value: true}, {Key: "token_version", Value: version}, {Key: "name", Value: "Jo"}})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// integers are the versions that can be read, by the values in the document.
func integers(t *testing.T) map[any]int64 {
	return map[any]int64{
		int32(7):                           7,
		int64(7):                           7,
		int32(-7):                          -7,
		int64(math.MaxInt64):               math.MaxInt64,
		int64(math.MinInt64):               math.MinInt64,
		7.0:                                7,
		math.Copysign(0, -1):               0,
		float64(1<<53 - 1):                 1<<53 - 1,
		-float64(1<<53 - 1):                -(1<<53 - 1),
		decimal(t, "7"):                    7,
		decimal(t, "7.00"):                 7,
		decimal(t, "7E+3"):                 7000,
		decimal(t, "-70E-1"):               -7,
		decimal(t, "0E-6176"):              0,
		decimal(t, "0E+6111"):              0,
		decimal(t, "9E+18"):                9e18,
		decimal(t, "1E+2"):                 100,
		decimal(t, "9223372036854775807"):  math.MaxInt64,
		decimal(t, "-9223372036854775808"): math.MinInt64,
		decimal(t, "1000000000000000000000000000000000E-33"): 1,
	}
}

// notIntegers are versions that cannot be read, and a part of the error.
func notIntegers(t *testing.T) map[string]any {
	return map[string]any{
		"the double 7.5 is not an integer":                                7.5,
		"the double NaN is not an integer":                                math.NaN(),
		"the double +Inf is not an integer":                               math.Inf(1),
		"the double 9.007199254740992e+15 is not an integer below 2^53":   float64(1 << 53),
		"the decimal128 7.5 is not an integer":                            decimal(t, "7.5"),
		"the decimal128 NaN is not an integer":                            decimal(t, "NaN"),
		"the decimal128 -Infinity is not an integer":                      decimal(t, "-Infinity"),
		"the decimal128 9223372036854775808 is not an integer of 64 bits": decimal(t, "9223372036854775808"),
		"the decimal128 1E+19 is not an integer of 64 bits":               decimal(t, "1E+19"),
		"the decimal128 1E+6111 is not an integer of 64 bits":             decimal(t, "1E+6111"),
		"the decimal128 1E-6176 is not an integer of 64 bits":             decimal(t, "1E-6176"),
		"unexpected type string, want a number":                           "7",
		"unexpected type boolean, want a number":                          true,
		"unexpected type embedded document, want a number":                bson.D{},
		"unexpected type array, want a number":                            bson.A{7},
		"unexpected type UTC datetime, want a number":                     bson.DateTime(7),
		"unexpected type undefined, want a number":                        bson.Undefined{},
	}
}

func TestIntegersOfEveryNumericType(t *testing.T) {
	for value, want := range integers(t) {
		got, err := mongostore.IntegerOf(versionDoc(t, value).Lookup("token_version"))
		if err != nil || got != want {
			t.Errorf("%T %v is read as %d, %v; want %d", value, value, got, err, want)
		}
	}
	for want, value := range notIntegers(t) {
		got, err := mongostore.IntegerOf(versionDoc(t, value).Lookup("token_version"))
		if got != 0 || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%T %v is read as %d, %v; want an error that contains %q", value, value, got, err, want)
		}
	}
}

func TestVersionsOfOtherTypesAreMadeIntegers(t *testing.T) {
	for _, value := range []any{7.0, decimal(t, "7")} {
		doc, err := mongostore.Canonical(versionDoc(t, value))
		if err != nil {
			t.Fatal(err)
		}
		if want := versionDoc(t, int64(7)); !bytes.Equal(doc, want) {
			t.Errorf("got %v, want %v", doc, want)
		}
	}
}

func TestUsualVersionsNeedNoAllocation(t *testing.T) {
	without, err := bson.Marshal(bson.D{{Key: "email", Value: "a@example.com"}, {Key: "is_active", Value: true}})
	if err != nil {
		t.Fatal(err)
	}
	for name, doc := range map[string]bson.Raw{
		"int32": versionDoc(t, int32(7)), "int64": versionDoc(t, int64(7)), "null": versionDoc(t, nil), "missing": without,
	} {
		var got bson.Raw
		allocs := testing.AllocsPerRun(100, func() { got, err = mongostore.Canonical(doc) })
		if err != nil || &got[0] != &doc[0] {
			t.Errorf("%s: got %v, %v; want the same document", name, got, err)
		}
		if allocs > 0 {
			t.Errorf("%s: %v allocations, want none", name, allocs)
		}
	}
}
