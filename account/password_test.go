package account_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	stdhash "hash"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/pbkdf2"
	"golang.org/x/crypto/scrypt"
	"golang.org/x/text/unicode/norm"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"

	"github.com/google/uuid"
)

// Hashes of fastapi-users: argon2id with argon2-cffi's default parameters, and bcrypt, which
// it used before.
const (
	password      = "herminetincture"
	fastapiArgon2 = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$mw5pxkDpXOj9+myCoPLOHtsF/rPK+jtpfHbsuxPjtbY"
	fastapiBcrypt = "$2b$12$TeeRorSas/1pgjdXTKqnUecb34YCE0mh45gqHgFWpVVbYVqo0KRA6"
)

func TestHashesOfOtherLibrariesVerify(t *testing.T) {
	for _, c := range []struct{ name, password, hash string }{
		// Test vectors of the reference implementation (phc-winner-argon2, test.c).
		{"the Argon2 reference, one lane", "password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"},
		{"the Argon2 reference, two lanes", "password", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"},
		{"argon2-cffi's defaults", password, fastapiArgon2},
		// Test vectors of OpenBSD's and Openwall's implementations.
		{"bcrypt, $2b$", "Kk4DQuMMfZL9o", "$2b$04$cVWp4XaNU8a4v1uMRum2SO026BWLIoQMD/TXg5uZV.0P.uO8m3YEm"},
		{"bcrypt, $2a$", "U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
		{"bcrypt, $2y$", "U*U", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if ok, outdated, err := account.Verify(c.password, c.hash); !ok || !outdated || err != nil {
				t.Errorf("the right password: got %v, outdated %v, %v, want true, true, nil", ok, outdated, err)
			}
			if ok, _, err := account.Verify(c.password+"x", c.hash); ok || err != nil {
				t.Errorf("a wrong password: got %v, %v, want false, nil", ok, err)
			}
		})
	}
}

// phc returns an argon2id hash as a PHC string.
func phc(memory, passes, lanes uint64, salt, key []byte) string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", memory, passes, lanes, b64(salt), b64(key))
}

// keyOf returns an argon2id key with the parameters cheap.
func keyOf(password string, salt []byte, length uint32) []byte {
	return argon2.IDKey([]byte(password), salt, 1, 64, 1, length)
}

// Hashes in a database are not trusted: none may match every password, panic, or take a
// long time to check.
var (
	salt          = []byte("0123456789abcdef")
	key           = keyOf(password, salt, 32)
	hostileHashes = map[string]string{
		"empty":                         "",
		"garbage":                       "garbage",
		"dollars":                       "$$$$$",
		"the password itself":           password,
		"an unknown scheme":             "$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D",
		"argon2d":                       strings.Replace(phc(64, 1, 1, salt, key), "argon2id", "argon2d", 1),
		"an old version":                strings.Replace(phc(64, 1, 1, salt, key), "v=19", "v=16", 1),
		"no version":                    strings.Replace(phc(64, 1, 1, salt, key), "$v=19", "", 1),
		"an empty key":                  phc(64, 1, 1, salt, nil),
		"a key of one byte":             phc(64, 1, 1, salt, keyOf(password, salt, 1)),
		"a key of 15 bytes":             phc(64, 1, 1, salt, keyOf(password, salt, 15)),
		"a key of a megabyte":           phc(64, 1, 1, salt, make([]byte, 1<<20)),
		"an empty salt":                 phc(64, 1, 1, nil, keyOf(password, nil, 32)),
		"a salt of 7 bytes":             phc(64, 1, 1, salt[:7], keyOf(password, salt[:7], 32)),
		"a salt of a megabyte":          phc(64, 1, 1, make([]byte, 1<<20), key),
		"an empty key and salt":         phc(64, 1, 1, nil, nil),
		"no passes":                     phc(64, 0, 1, salt, key),
		"no lanes":                      phc(64, 1, 0, salt, key),
		"no memory":                     phc(0, 1, 1, salt, key),
		"2 GiB":                         phc(1<<21, 1, 1, salt, key),
		"4 TiB":                         phc(1<<32-1, 1, 1, salt, key),
		"more memory than fits a field": phc(1<<40, 1, 1, salt, key),
		"negative memory":               strings.Replace(phc(64, 1, 1, salt, key), "m=64", "m=-64", 1),
		"a billion passes":              phc(64, 1e9, 1, salt, key),
		"256 lanes":                     phc(64, 1, 256, salt, key),
		"no parameters":                 strings.Replace(phc(64, 1, 1, salt, key), "m=64,t=1,p=1", "", 1),
		"parameters in another order":   strings.Replace(phc(64, 1, 1, salt, key), "m=64,t=1", "t=1,m=64", 1),
		"a cut argon2id hash":           phc(64, 1, 1, salt, key)[:60],
		"an argon2id hash without key":  strings.TrimSuffix(phc(64, 1, 1, salt, nil), "$"),
		"only a scheme":                 "$argon2id$",
		"bad base64":                    phc(64, 1, 1, salt, key) + "*",
		"padded base64":                 phc(64, 1, 1, salt, key) + "=",
		"a field too many":              phc(64, 1, 1, salt, key) + "$",
		"bcrypt of cost 31":             strings.Replace(fastapiBcrypt, "$12$", "$31$", 1),
		"bcrypt of cost 17":             strings.Replace(fastapiBcrypt, "$12$", "$17$", 1),
		"bcrypt of cost 0":              strings.Replace(fastapiBcrypt, "$12$", "$00$", 1),
		"bcrypt of cost 99":             strings.Replace(fastapiBcrypt, "$12$", "$99$", 1),
		"a cut bcrypt hash":             fastapiBcrypt[:58],
		"only bcrypt's salt":            fastapiBcrypt[:29],
		"only bcrypt's scheme":          "$2b$",
		"bcrypt of an unknown version":  strings.Replace(fastapiBcrypt, "$2b$", "$2x$", 1),
		"bcrypt with a bad character":   strings.Replace(fastapiBcrypt, "Tee", "T!e", 1),
		"a bcrypt hash and a character": fastapiBcrypt + "6",
		"bcrypt with unused bits":       fastapiBcrypt[:59] + "7",
		"an unknown parameter":          strings.Replace(phc(64, 1, 1, salt, key), "p=1", "p=1,data=eA", 1),
		"a version and a letter":        strings.Replace(phc(64, 1, 1, salt, key), "v=19", "v=19a", 1),
		"a hash after a space":          " " + phc(64, 1, 1, salt, key),
		"NULs":                          strings.Repeat("\x00", 60),
		"ten megabytes":                 strings.Repeat("$", 10<<20),
	}
)

func TestHostileHashesMatchNothing(t *testing.T) {
	// Control: the hash from which the hostile ones are made is valid.
	if ok, _, err := account.Verify(password, phc(64, 1, 1, salt, key)); !ok || err != nil {
		t.Fatalf("a valid hash: got %v, %v, want true", ok, err)
	}
	for name, hash := range hostileHashes {
		for _, password := range []string{password, "", "x", hash[:min(len(hash), 1024)]} {
			if ok, _, err := account.Verify(password, hash); ok || err == nil {
				t.Errorf("%s, password %.20q: got %v, %v, want false and an error", name, password, ok, err)
			}
		}
	}
}

// slow are valid hashes that are too slow for a fuzzer.
var slow = regexp.MustCompile(`^\$?pbkdf2[^$]*\$(i=)?\d{5,7}\D|^\$scrypt\$ln=(9|1\d)|^\$scrypt\$.*=\d\d|^scrypt\$\d{4,}\$|^scrypt\$.*\$\d\d\$|^\$bcrypt-sha256\$.*[=,]([6-9]|1[0-6])\$|^bcrypt[^$]*\$\$2[aby]\$(0[6-9]|1[0-6])`)

var argon2Shape = regexp.MustCompile(`^(?:argon2)?\$argon2(id?)\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$`)

// If a hash matches, an independent computation must confirm it.
func FuzzVerify(f *testing.F) {
	f.Add(password, phc(64, 1, 1, salt, key))
	f.Add("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")
	f.Add("Kk4DQuMMfZL9o", "$2b$04$cVWp4XaNU8a4v1uMRum2SO026BWLIoQMD/TXg5uZV.0P.uO8m3YEm")
	for _, hash := range hostileHashes {
		if len(hash) < 1024 {
			f.Add(password, hash)
		}
	}
	for _, c := range otherHashes {
		f.Add(c.password, c.hash)
	}
	f.Fuzz(func(t *testing.T, password, hash string) {
		if slow.MatchString(hash) {
			return
		}
		if p, _, _, err := argon2id.DecodeHash(strings.Replace(strings.TrimPrefix(hash, "argon2"), "argon2i$", "argon2id$", 1)); err == nil && max(uint64(p.Memory), 8*uint64(p.Parallelism))*uint64(p.Iterations) > 4096 &&
			p.Memory <= 1<<20 && p.Iterations <= 64 {
			return
		}
		if cost, err := bcrypt.Cost([]byte(hash)); err == nil && cost > 5 && cost <= 16 {
			return
		}
		ok, _, err := account.Verify(password, hash)
		if err != nil && ok {
			t.Errorf("Verify(%q, %q): got true with the error %v", password, hash, err)
		}
		if usable := account.Usable(hash); (usable == nil) != (err == nil) {
			t.Errorf("Verify(%q, %q): got the error %v, and ImportHash %v", password, hash, err, usable)
		}
		if !ok {
			return
		}
		if !strings.Contains(hash, "argon2") && !strings.HasPrefix(hash, "$2") {
			if !independent(t, password, hash) && !independent(t, norm.NFC.String(password), hash) {
				t.Errorf("Verify(%q, %q): got true, another computation false", password, hash)
			}
			return
		}
		if strings.HasPrefix(hash, "$2") {
			if err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)); err != nil {
				t.Errorf("Verify(%q, %q): got true, bcrypt says %v", password, hash, err)
			}
			return
		}
		parts := argon2Shape.FindStringSubmatch(hash)
		if parts == nil {
			t.Fatalf("Verify(%q, %q): got true for a malformed hash", password, hash)
		}
		memory, _ := strconv.ParseUint(parts[2], 10, 32)
		passes, _ := strconv.ParseUint(parts[3], 10, 32)
		lanes, _ := strconv.ParseUint(parts[4], 10, 8)
		salt, err1 := base64.RawStdEncoding.DecodeString(parts[5])
		key, err2 := base64.RawStdEncoding.DecodeString(parts[6])
		derive := argon2.IDKey
		if parts[1] == "i" {
			derive = argon2.Key
		}
		want := derive([]byte(password), salt, uint32(passes), uint32(memory), uint8(lanes), uint32(len(key)))
		if err := errors.Join(err1, err2); err != nil || len(key) < 16 || !bytes.Equal(key, want) {
			t.Errorf("Verify(%q, %q): got true, but the key should be %x: %v", password, hash, want, err)
		}
	})
}

// independent reports whether a password has a hash of PBKDF2, scrypt or bcrypt_sha256. It is
// as lenient as Python.
func independent(t *testing.T, password, hash string) bool {
	t.Helper()
	b64 := func(s string) []byte {
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.ReplaceAll(s, ".", "+"), "="))
		if err != nil {
			t.Fatalf("%q: %v", hash, err)
		}
		return b
	}
	f := strings.Split(hash, "$")
	django := f[0] != ""
	if !django {
		f = f[1:]
	}
	name := strings.ReplaceAll(f[0], "_", "-")
	var key []byte
	if !strings.HasPrefix(name, "bcrypt") {
		if key = b64(f[len(f)-1]); len(key) < 16 || len(key) > 128 {
			return false
		}
	}
	switch name {
	case "pbkdf2", "pbkdf2-sha1", "pbkdf2-sha256", "pbkdf2-sha512":
		rounds, _, _ := strings.Cut(strings.TrimPrefix(f[1], "i="), ",")
		n, _ := strconv.Atoi(rounds)
		salt := []byte(f[2])
		if !django {
			salt = b64(f[2])
		}
		sum := map[string]func() stdhash.Hash{"pbkdf2-sha256": sha256.New, "pbkdf2-sha512": sha512.New}[name]
		if sum == nil {
			sum = sha1.New
		}
		return bytes.Equal(key, pbkdf2.Key([]byte(password), salt, n, len(key), sum))
	case "scrypt":
		var n, r, p int
		var salt []byte
		if django {
			n, _ = strconv.Atoi(f[1])
			r, _ = strconv.Atoi(f[3])
			p, _ = strconv.Atoi(f[4])
			salt = []byte(f[2])
		} else {
			_, _ = fmt.Sscanf(f[1], "ln=%d,r=%d,p=%d", &n, &r, &p)
			n, salt = 1<<n, b64(f[2])
		}
		got, err := scrypt.Key([]byte(password), salt, n, r, p, len(key))
		return err == nil && bytes.Equal(key, got)
	case "bcrypt":
		return bcrypt.CompareHashAndPassword([]byte(strings.Join(f[1:], "$")), []byte(password)) == nil
	case "bcrypt-sha256":
		sum := sha256.Sum256([]byte(password))
		if django {
			return bcrypt.CompareHashAndPassword([]byte(strings.Join(f[1:], "$")), fmt.Appendf(nil, "%x", sum)) == nil
		}
		digest := sum[:]
		if strings.HasPrefix(f[1], "v=2") {
			mac := hmac.New(sha256.New, []byte(f[2]))
			mac.Write([]byte(password))
			digest = mac.Sum(nil)
			f[1] = strings.NewReplacer("v=2,t=", "", "r=", "").Replace(f[1])
		}
		version, costText, _ := strings.Cut(f[1], ",")
		cost, _ := strconv.Atoi(costText)
		return bcrypt.CompareHashAndPassword(fmt.Appendf(nil, "$%s$%02d$%s%s", version, cost, f[2], f[3]),
			[]byte(base64.StdEncoding.EncodeToString(digest))) == nil
	default:
		return false
	}
}

// bcrypt repeats the password and a NUL to fill its key: "pw\x00pw" has the key of "pw". If it
// logged in, the rehash would lock the real password out.
func TestPasswordWithNULMatchesNoBcryptHash(t *testing.T) {
	for _, c := range []struct{ stored, typed string }{
		{"pw", "pw\x00pw"}, {"pw", "pw\x00pw\x00pw"}, {"pw", "pw\x00"}, {"", "\x00"}, {"pw", "pw\x00other"}, {"pw\x00pw", "pw\x00pw"},
		{strings.Repeat("x", 72), strings.Repeat("x", 72) + "\x00"}, {"cafe\u0301", "cafe\u0301\x00cafe\u0301"},
	} {
		hash, err := bcrypt.GenerateFromPassword([]byte(c.stored), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		if ok, _, err := account.Verify(c.typed, string(hash)); ok || err != nil {
			t.Errorf("%q against the hash of %q: got %v, %v, want false", c.typed, c.stored, ok, err)
		}
		if c.stored == "" || strings.Contains(c.stored, "\x00") {
			continue
		}
		r := newRig(t, account.Config{})
		ann := r.withHash(t, string(hash))
		r.authenticate(t, "with a NUL", ann.Email, c.typed, account.ErrBadCredentials)
		if got := r.hash(t, ann.ID); got != string(hash) {
			t.Errorf("%q replaced the hash of %q", c.typed, c.stored)
		}
		r.authenticate(t, "the real password", ann.Email, c.stored, nil)
	}
	// Argon2id takes a NUL for a character like any other.
	r := newRig(t, account.Config{})
	if _, err := r.Register(t.Context(), newMember("bob@example.com"), "password\x00password"); err != nil {
		t.Fatal(err)
	}
	r.authenticate(t, "with the NUL", "bob@example.com", "password\x00password", nil)
	r.authenticate(t, "without it", "bob@example.com", "password", account.ErrBadCredentials)
}

func TestMemoryOfStoredHashesIsBounded(t *testing.T) {
	const mib = 1 << 10 // in KiB
	for _, c := range []struct {
		name       string
		params     account.Argon2
		concurrent int
		memory     uint64 // of the stored hash
		usable     bool
	}{
		{"by the default of one hash", account.Argon2{}, 1, 64 * mib, true},
		{"by one hash, and a bit more", account.Argon2{}, 1, 64*mib + 1, false},
		{"by two hashes", account.Argon2{}, 2, 128 * mib, true},
		{"by two hashes, and a bit more", account.Argon2{}, 2, 128*mib + 1, false},
		{"1 GiB", account.Argon2{}, 1, 1024 * mib, false},
		// Imported hashes of fastapi-users stay usable.
		{"by 64 MiB if hashes are small", account.Argon2{MemoryKiB: 19 * mib, Iterations: 2, Parallelism: 1}, 1, 64 * mib, true},
		{"by 64 MiB if hashes are small, and a bit more", account.Argon2{MemoryKiB: 19 * mib, Iterations: 2, Parallelism: 1}, 1, 64*mib + 1, false},
		{"by four small hashes", account.Argon2{MemoryKiB: 19 * mib, Iterations: 2, Parallelism: 1}, 4, 76*mib + 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{Argon2: c.params, MaxConcurrentHashes: c.concurrent})
			if c.params == (account.Argon2{}) {
				r = newRig(t, account.Config{Argon2: account.Argon2{MemoryKiB: 64 * mib, Iterations: 1, Parallelism: 4}, MaxConcurrentHashes: c.concurrent})
			}
			ann := r.withHash(t, phc(c.memory, 1, 1, salt, key)) // of another password
			r.authenticate(t, "a login", ann.Email, "wrong", account.ErrBadCredentials)
			got := r.takeEvents()
			want := event.ReasonWrongPassword
			if !c.usable {
				want = event.ReasonUnusableHash
			}
			if len(got) != 1 || got[0].Reason != want || (got[0].Err != nil) == c.usable {
				t.Fatalf("got the events %+v, want the reason %q, with an error: %v", got, want, !c.usable)
			}
			if !c.usable && (!strings.Contains(got[0].Err.Error(), fmt.Sprint(c.memory)) || !strings.Contains(got[0].Err.Error(), "MaxConcurrentHashes")) {
				t.Errorf("got the error %q, want it to name the memory and the setting", got[0].Err)
			}
		})
	}
}

func TestArgon2Parameters(t *testing.T) {
	for _, c := range []struct {
		name     string
		params   account.Argon2
		insecure bool
		ok       bool
	}{
		{"the default", account.Argon2{}, false, true},
		{"RFC 9106, second option", account.Argon2{MemoryKiB: 65536, Iterations: 3, Parallelism: 4}, false, true},
		{"OWASP, 46 MiB and 1 pass", account.Argon2{MemoryKiB: 47104, Iterations: 1, Parallelism: 1}, false, true},
		{"OWASP, 19 MiB and 2 passes", account.Argon2{MemoryKiB: 19456, Iterations: 2, Parallelism: 1}, false, true},
		{"OWASP, 12 MiB and 3 passes", account.Argon2{MemoryKiB: 12288, Iterations: 3, Parallelism: 1}, false, true},
		{"OWASP, 9 MiB and 4 passes", account.Argon2{MemoryKiB: 9216, Iterations: 4, Parallelism: 1}, false, true},
		{"OWASP, 7 MiB and 5 passes", account.Argon2{MemoryKiB: 7168, Iterations: 5, Parallelism: 1}, false, true},
		{"19 MiB and the default passes", account.Argon2{MemoryKiB: 19456}, false, true},
		{"the most memory", account.Argon2{MemoryKiB: 1 << 20, Iterations: 1, Parallelism: 255}, false, true},
		{"the most passes", account.Argon2{MemoryKiB: 1 << 16, Iterations: 16}, false, true},

		{"19 MiB and 1 pass", account.Argon2{MemoryKiB: 19456, Iterations: 1}, false, false},
		{"7 MiB and 4 passes", account.Argon2{MemoryKiB: 7168, Iterations: 4}, false, false},
		{"less memory than any option, in many passes", account.Argon2{MemoryKiB: 7167, Iterations: 64}, false, false},
		{"test parameters", account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, false, false},
		{"test parameters, with InsecureArgon2", account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, true, true},
		{"the minimum of argon2", account.Argon2{MemoryKiB: 8, Iterations: 1, Parallelism: 1}, true, true},
		{"the minimum of argon2 with many lanes", account.Argon2{MemoryKiB: 8, Iterations: 1, Parallelism: 255}, true, true},
		{"less than the minimum of argon2", account.Argon2{MemoryKiB: 7, Iterations: 1, Parallelism: 1}, true, false},
		{"over 1 GiB", account.Argon2{MemoryKiB: 1<<20 + 1, Iterations: 1}, true, false},
		{"64 MiB in 17 passes", account.Argon2{Iterations: 17}, true, false},
		{"a product that overflows 32 bits", account.Argon2{MemoryKiB: 1 << 16, Iterations: 1 << 16}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			users := memstore.NewUsers[member]()
			m, err := account.NewManager(users, nil, newAttempts(t), uuid.New, account.Config{
				Argon2: c.params, InsecureArgon2: c.insecure, Timeout: time.Hour, // under the race detector, hashes take seconds
			})
			if !c.ok {
				if m != nil || err == nil || !strings.Contains(err.Error(), "Config.Argon2") {
					t.Errorf("got %v, %v, want an error that names Config.Argon2", m, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("got %v, want a Manager", err)
			}
			if uint64(c.params.MemoryKiB)*uint64(c.params.Iterations) > 1<<19 {
				return // too slow to try
			}
			// Hashes with accepted parameters must be accepted and up to date.
			ann, err := m.Register(t.Context(), newMember("ann@example.com"), password)
			if err != nil {
				t.Fatalf("Register: %v", err)
			}
			got, _, err := m.Authenticate(t.Context(), "ann@example.com", password, "")
			if err != nil || got.HashedPassword.Reveal() != ann.HashedPassword.Reveal() {
				t.Errorf("Authenticate: got %v, rehashed: %v, want nil, false", err, got.HashedPassword.Reveal() != ann.HashedPassword.Reveal())
			}
		})
	}
}

var _ strategy.UserSource[member, uuid.UUID] = account.Store[member, uuid.UUID](nil)
