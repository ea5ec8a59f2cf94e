package mongostore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/strategy"
)

// Every guarded request waits for the look-up of its token. This file therefore writes
// the filter and reads the row without the driver's reflection.

// tokenFilter returns {token: digest}.
func tokenFilter(digest string) bson.Raw {
	b := make([]byte, 4, 64) // the length comes last
	b = append(b, byte(bson.TypeString))
	b = append(b, "token\x00"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(digest)+1))
	b = append(b, digest...)
	b = append(b, 0, 0) // the ends of the string and of the document
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// parseToken reads a row of access_tokens. It returns an error that names the first field
// of another type, or a required field that is missing: without a creation time, for example,
// the token would never expire. It also returns the fields that it could read.
func parseToken[ID comparable](doc bson.Raw, reg *bson.Registry) (t strategy.AccessToken[ID], err error) {
	elems, err := doc.Elements()
	if err != nil {
		return t, err
	}
	for _, e := range elems {
		key, v, ok := e.Key(), e.Value(), true
		if v.Type == bson.TypeNull {
			continue // equivalent to a missing field
		}
		var cause error
		switch key {
		case "_id":
			t.ID, ok = uuidOf(v)
		case "token":
			t.Digest, ok = v.StringValueOK()
		case "user_id":
			cause = parseID(v, reg, &t.UserID)
		case "created_at":
			t.CreatedAt, ok = timeOf(v)
		case "last_used_at":
			t.LastUsedAt, ok = timeOf(v)
		case "authenticated_at":
			t.AuthenticatedAt, ok = timeOf(v)
		case "token_version":
			t.TokenVersion, cause = integerOf(v)
		case "expires_at":
			t.ExpiresAt, ok = timeOf(v)
		case "legacy":
			t.Legacy, ok = v.BooleanOK()
		case "scopes":
			t.Scopes, ok = stringsOf(v)
		case "name":
			t.Name, ok = v.StringValueOK()
		case "user_agent":
			t.UserAgent, ok = v.StringValueOK()
		case "client_ip":
			t.ClientIP, ok = v.StringValueOK()
		}
		if err == nil {
			err = fieldError(key, v, ok, cause)
		}
	}
	var noUser ID
	for _, f := range []struct {
		name    string
		missing bool
	}{{"_id", t.ID == uuid.Nil}, {"token", t.Digest == ""}, {"user_id", t.UserID == noUser}, {"created_at", t.CreatedAt.IsZero()}} {
		if f.missing && err == nil {
			err = fmt.Errorf("decode the field %s: it is missing", f.name)
		}
	}
	return t, err
}

// fieldError returns the error of a field: that of cause, or if it is not ok, that its value
// has another type. Otherwise it returns nil.
func fieldError(key string, v bson.RawValue, ok bool, cause error) error {
	switch {
	case !ok && v.Type == bson.TypeDateTime:
		cause = errors.New("the date is not in the years 0 to 9999")
	case !ok:
		cause = fmt.Errorf("unexpected type %v", v.Type)
	}
	if cause != nil {
		return fmt.Errorf("decode the field %s: %w", key, cause)
	}
	return nil
}

func uuidOf(v bson.RawValue) (uuid.UUID, bool) {
	subtype, b, ok := v.BinaryOK()
	if !ok || subtype != bson.TypeBinaryUUID || len(b) != len(uuid.UUID{}) {
		return uuid.Nil, false
	}
	return uuid.UUID(b), true
}

// The dates that RFC 3339, and therefore JSON, can represent.
var (
	minDate = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	maxDate = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC).UnixMilli()
)

func timeOf(v bson.RawValue) (time.Time, bool) {
	ms, ok := v.DateTimeOK()
	if !ok || ms < minDate || ms > maxDate {
		return time.Time{}, false
	}
	return time.UnixMilli(ms).UTC(), true
}

// stringsOf returns an empty list, not nil, for an empty array.
func stringsOf(v bson.RawValue) ([]string, bool) {
	a, ok := v.ArrayOK()
	if !ok {
		return nil, false
	}
	values, err := a.Values()
	if err != nil {
		return nil, false
	}
	out := make([]string, len(values))
	for i, v := range values {
		if out[i], ok = v.StringValueOK(); !ok {
			return nil, false
		}
	}
	return out, true
}

// integerOf reads an integer from a number of any BSON type.
func integerOf(v bson.RawValue) (int64, error) {
	switch v.Type {
	case bson.TypeInt64:
		if n, ok := v.Int64OK(); ok {
			return n, nil
		}
	case bson.TypeInt32:
		if n, ok := v.Int32OK(); ok {
			return int64(n), nil
		}
	case bson.TypeDouble:
		f, _ := v.DoubleOK()
		// From 2^53 on, a double plus 1 can be the same double: a revocation would be lost.
		if math.Trunc(f) == f && math.Abs(f) < 1<<53 {
			return int64(f), nil
		}
		return 0, fmt.Errorf("the double %v is not an integer below 2^53", f)
	case bson.TypeDecimal128:
		d, _ := v.Decimal128OK()
		n, ok := integerOfDecimal(d)
		if !ok {
			return 0, fmt.Errorf("the decimal128 %v is not an integer of 64 bits", d)
		}
		return n, nil
	}
	return 0, fmt.Errorf("unexpected type %v, want a number", v.Type)
}

func integerOfDecimal(d bson.Decimal128) (n int64, ok bool) {
	// Coefficients have at most 34 digits, int64 has at most 19.
	const maxDigits, maxExponent = 34, 18
	coefficient, exponent, err := d.BigInt()
	switch {
	case err != nil: // not a number, or infinite
		return 0, false
	case coefficient.Sign() == 0:
		return 0, true
	case exponent < -maxDigits || exponent > maxExponent:
		return 0, false
	}
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exponent, -exponent))), nil)
	if exponent >= 0 {
		coefficient.Mul(coefficient, power)
	} else if _, remainder := coefficient.QuoRem(coefficient, power, new(big.Int)); remainder.Sign() != 0 {
		return 0, false
	}
	return coefficient.Int64(), coefficient.IsInt64()
}

// parseID reads an application's ID. It reads the usual types itself, as NewRegistry
// writes them, and leaves all others to the registry.
func parseID[ID comparable](v bson.RawValue, reg *bson.Registry, id *ID) error {
	if reg == defaultRegistry {
		ok := false
		switch id := any(id).(type) {
		case *uuid.UUID:
			*id, ok = uuidOf(v)
		case *bson.ObjectID:
			*id, ok = v.ObjectIDOK()
		case *string:
			*id, ok = v.StringValueOK()
		case *int64:
			*id, ok = v.Int64OK()
		}
		if ok {
			return nil
		}
	}
	return v.UnmarshalWithRegistry(reg, id)
}
