package account_test

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"

	"github.com/latchkey-go/latchkey/account"
)

const upass = "t\u00e1\u0411\u2113\u0259" // a password of passlib's tests

// Hashes of the schemes that a login replaces, with their passwords.
var otherHashes = []struct{ name, password, hash string }{
	// The tests of the reference implementation.
	{"argon2i, one lane", "password", "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8"},
	{"argon2i, two lanes", "password", "$argon2i$v=19$m=256,t=2,p=2$c29tZXNhbHQ$T/XOJ2mh1/TIpJHfCdQan76Q5esCFVoT5MAeIM1Oq2E"},
	{"argon2i of Django", "password", "argon2$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8"},
	{"argon2id of Django", "password", "argon2$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"},

	// passlib's documentation, and RFC 7914 §12.
	{"scrypt of passlib, cheap", "password", "$scrypt$ln=8,r=8,p=1$WKs1xljLudd6z9kbY0wpJQ$yCR4iDZYDKv+iEJj6yHY0lv/epnfB6f/w1EbXrsJOuQ"},
	{"scrypt of RFC 7914, p=16", "password", "$scrypt$ln=10,r=8,p=16$TmFDbA$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDDaxyevuUqD7m2DYMvfoswGQA"},
	// Django's tests.
	{"scrypt of Django", "lètmein", "scrypt$16384$seasalt$8$1$Qj3+9PPyRjSJIebHnG81TMjsqtaIGxNQG/aEB/NYafTJ7tibgfYz71m0ldQESkXFRkdVCBhhY8mx7rQwite/Pw=="},

	// passlib's documentation, RFC 6070 §2, RFC 7914 §11, and Python's hashlib.
	{"PBKDF2 with SHA-256 of passlib", "password", "$pbkdf2-sha256$6400$0ZrzXitFSGltTQnBWOsdAw$Y11AchqV4b0sUisdZd0Xr97KWoymNE0LNNrnEgY4H9M"},
	{"PBKDF2 with a salt of 10 bytes", "password", "$pbkdf2-sha256$8000$XAuBMIYQQogxRg$tRRlz8hYn63B9LYiCd6PRo6FMiunY9ozmMMI3srxeRE"},
	{"PBKDF2 with SHA-1 of RFC 6070", "passwordPASSWORDpassword", "$pbkdf2$4096$c2FsdFNBTFRzYWx0U0FMVHNhbHRTQUxUc2FsdFNBTFRzYWx0$PS7sT.QchJuAyNg2YsDkSospGpZM8vBwOA"},
	{"PBKDF2 with SHA-256 of RFC 7914", "Password", "$pbkdf2-sha256$i=80000,l=64$TmFDbA$TdzY9guYviGDDO5e8icB+WQaRBjQTAQUrv8Ih2s0q1ah1CWhIlgzVJrbhBtRybMXaicr3ruh0HhHj2Kzl/M8jQ"},
	{"PBKDF2 with SHA-1 of passlib", password, "$pbkdf2$1000$....MDEyMzQ1Njc4OWFiYw$jk/w4AJkzubFqc8jm1vfWVlSh0w"},
	{"PBKDF2 with SHA-1, PHC", password, "$pbkdf2$i=1000$++++MDEyMzQ1Njc4OWFiYw$jk/w4AJkzubFqc8jm1vfWVlSh0w"},
	{"PBKDF2 with SHA-256, PHC", password, "$pbkdf2-sha256$i=1000$++++MDEyMzQ1Njc4OWFiYw$XdwN/DpXAs2KZKnWDCursgF1tQwIM3FBAcVLsIim6uA"},
	{"PBKDF2 with SHA-512 of passlib", password, "$pbkdf2-sha512$1000$....MDEyMzQ1Njc4OWFiYw$7UVkutUl1nlLsQ74AAV6PvSZwffTLOBhXM4ndsI2lt2N0upfWBaULO0RwwA/HCawVGSlhDLWMfsCfwY7N2flEQ"},
	{"PBKDF2 with SHA-512, PHC", password, "$pbkdf2-sha512$i=1000$++++MDEyMzQ1Njc4OWFiYw$7UVkutUl1nlLsQ74AAV6PvSZwffTLOBhXM4ndsI2lt2N0upfWBaULO0RwwA/HCawVGSlhDLWMfsCfwY7N2flEQ"},

	// passlib's tests and documentation.
	{"bcrypt_sha256 of passlib 1.6", "password", "$bcrypt-sha256$2a,5$5Hg1DKFqPE8C2aflZ5vVoe$12BjNE0p7axMg55.Y/mHsYiVuFBDQyu"},
	{"bcrypt_sha256 of passlib 1.7.0", "password", "$bcrypt-sha256$2b,5$5Hg1DKFqPE8C2aflZ5vVoe$12BjNE0p7axMg55.Y/mHsYiVuFBDQyu"},
	{"bcrypt_sha256 of passlib 1.7.0, 75 bytes", strings.Repeat("abc123", 12) + "qwr", "$bcrypt-sha256$2b,5$X1g1nh3g0v4h6970O68cxe$021KLEif6epjot5yoxk0m8I0929ohEa"},
	{"bcrypt_sha256 of passlib 1.7.3", "password", "$bcrypt-sha256$v=2,t=2b,r=5$5Hg1DKFqPE8C2aflZ5vVoe$wOK1VFFtS8IGTrGa7.h5fs0u84qyPbS"},
	{"bcrypt_sha256 of passlib 1.7.3, not ASCII", upass, "$bcrypt-sha256$v=2,t=2b,r=5$.US1fQ4TQS.ZTz/uJ5Kyn.$pzzgp40k8reM1CuQb03PvE0IDPQSdV6"},
	{"bcrypt_sha256 of passlib 1.7.3, 75 bytes", strings.Repeat("abc123", 12) + "qwr", "$bcrypt-sha256$v=2,t=2b,r=5$X1g1nh3g0v4h6970O68cxe$CBF9csfEdW68xv3DwE6xSULXMtqEFP."},
	{"bcrypt_sha256 of Django, cheap", password, djangoBcryptSHA256(password)},
	{"bcrypt of Django, cheap", "U*U", "bcrypt$$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
}

// slowHashes are hashes of the usual strength: of passlib's documentation, of RFC 7914 §12, of
// Django's tests, and made by Django.
var slowHashes = []struct{ name, password, hash string }{
	{"scrypt of passlib", "password", "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E"},
	{"scrypt of RFC 7914", "pleaseletmein", "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw"},
	{"PBKDF2 with SHA-256 of Django", "lètmein", "pbkdf2_sha256$260000$seasalt$YlZ2Vggtqdc61YjArZuoApoBh9JNGYoDRBUGu6tcJQo="},
	{"PBKDF2 with SHA-1 of Django", "lètmein", "pbkdf2_sha1$260000$seasalt2$wAibXvW6jgvatCdONi6SMJ6q7mI="},
	{"bcrypt_sha256 of Django", "ExjGmyUT73bFoT", "bcrypt_sha256$$2b$12$LZSJchsWG/DrBy1erNs4eeYo6tZNlLFQmONdxN9HPesa1EyXVcTXK"},
}

func TestHashesOfOtherSchemesVerify(t *testing.T) {
	for i, c := range slices.Concat(otherHashes, slowHashes) {
		t.Run(c.name, func(t *testing.T) {
			if err := account.Usable(c.hash); err != nil {
				t.Fatalf("ImportHash: got %v, want nil", err)
			}
			if ok, outdated, err := account.Verify(c.password, c.hash); !ok || !outdated || err != nil {
				t.Errorf("the right password: got %v, outdated %v, %v, want true, true, nil", ok, outdated, err)
			}
			if i >= len(otherHashes) {
				return // under the race detector, each check takes seconds
			}
			for _, wrong := range []string{c.password + "x", c.password + "\x00"} {
				if ok, _, err := account.Verify(wrong, c.hash); ok || err != nil {
					t.Errorf("a wrong password, %d bytes: got %v, %v, want false, nil", len(wrong), ok, err)
				}
			}
		})
	}
}

// A right password replaces the hash by argon2id of it; a wrong one does not.
func TestHashesOfOtherSchemesAreReplacedAtLogin(t *testing.T) {
	for _, c := range otherHashes {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{})
			ann := r.withHash(t, c.hash)
			r.authenticate(t, "a wrong password", ann.Email, c.password+"x", account.ErrBadCredentials)
			if got := r.hash(t, ann.ID); got != c.hash {
				t.Error("a wrong password replaced the hash")
			}
			r.authenticate(t, "the right password", ann.Email, c.password, nil)
			if got := r.hash(t, ann.ID); !strings.HasPrefix(got, cheapHash) {
				t.Errorf("the stored hash begins with %.20q, want %q", got, cheapHash)
			}
			r.authenticate(t, "the replaced hash", ann.Email, c.password, nil)
			r.authenticate(t, "a wrong password for it", ann.Email, c.password+"x", account.ErrBadCredentials)
		})
	}
}

// djangoBcryptSHA256, djangoPBKDF2 and djangoScrypt return cheap hashes in Django's forms.
func djangoBcryptSHA256(password string) string {
	hash, err := bcrypt.GenerateFromPassword(fmt.Appendf(nil, "%x", sha256.Sum256([]byte(password))), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return "bcrypt_sha256$" + string(hash)
}

func djangoPBKDF2(t testing.TB, password string) string {
	t.Helper()
	key, err := pbkdf2.Key(sha256.New, password, salt, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("pbkdf2_sha256$10$%s$%s", salt, base64.StdEncoding.EncodeToString(key))
}

func djangoScrypt(t testing.TB, password string) string {
	t.Helper()
	key, err := scrypt.Key([]byte(password), salt, 16, 1, 1, 64)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("scrypt$16$%s$1$1$%s", salt, base64.StdEncoding.EncodeToString(key))
}

// HMAC fills its key with NULs, so that PBKDF2 and scrypt give "pw" and "pw\x00" the same key.
// If the second logged in, the new hash would lock the real password out.
func TestPasswordWithTrailingNULMatchesNoHMAC(t *testing.T) {
	for name, hash := range map[string]func(testing.TB, string) string{"PBKDF2": djangoPBKDF2, "scrypt": djangoScrypt} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				stored, typed string
				ok            bool
			}{
				{"pw", "pw", true}, {"pw", "pw\x00", false}, {"pw", "pw\x00\x00", false}, {"cafe\u0301", "cafe\u0301\x00", false},
				{"p\x00w", "p\x00w", true}, {"p\x00w", "pw", false},
			} {
				if ok, _, err := account.Verify(c.typed, hash(t, c.stored)); ok != c.ok || err != nil {
					t.Errorf("%q against the hash of %q: got %v, %v, want %v", c.typed, c.stored, ok, err, c.ok)
				}
			}
		})
	}
	// bcrypt_sha256 compares all of a password.
	const ofPassword = "$bcrypt-sha256$v=2,t=2b,r=5$5Hg1DKFqPE8C2aflZ5vVoe$wOK1VFFtS8IGTrGa7.h5fs0u84qyPbS"
	if ok, _, err := account.Verify("password\x00password", ofPassword); ok || err != nil {
		t.Errorf("bcrypt_sha256: got %v, %v, want false", ok, err)
	}
}

func TestOtherSchemesKnowTheFormsOfAPassword(t *testing.T) {
	for name, hash := range map[string]func(testing.TB, string) string{"PBKDF2": djangoPBKDF2, "scrypt": djangoScrypt} {
		for _, c := range []struct{ stored, typed string }{
			{"caf\u00e9", "cafe\u0301"}, {"cafe\u0301", "cafe\u0301"}, {strings.Repeat("x", 1024), strings.Repeat("x", 1024)},
		} {
			if ok, outdated, err := account.Verify(c.typed, hash(t, c.stored)); !ok || !outdated || err != nil {
				t.Errorf("%s: got %v, %v, %v, want true, true, nil", name, ok, outdated, err)
			}
		}
	}
}

// A stored hash says what its check costs.
func TestCostOfStoredHashesIsBounded(t *testing.T) {
	b64 := func(n int) string { return base64.RawStdEncoding.EncodeToString(make([]byte, n)) }
	padded := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	bcryptKey := strings.Repeat(".", 22) + "$" + strings.Repeat(".", 31)
	for _, c := range []struct {
		name, hash string
		usable     bool
	}{
		{"argon2i of 64 MiB", "$argon2i$v=19$m=65536,t=16,p=4$" + b64(16) + "$" + b64(32), true},
		{"argon2i of 64 MiB and more", "$argon2i$v=19$m=65537,t=1,p=4$" + b64(16) + "$" + b64(32), false},
		{"argon2i of too many passes", "$argon2i$v=19$m=65536,t=17,p=4$" + b64(16) + "$" + b64(32), false},
		{"argon2id with many lanes", "$argon2id$v=19$m=8,t=514,p=255$" + b64(16) + "$" + b64(32), true},
		{"argon2id with lanes that take more memory than it says", "$argon2id$v=19$m=8,t=515,p=255$" + b64(16) + "$" + b64(32), false},
		{"argon2id of Django, too many passes", "argon2$argon2id$v=19$m=65536,t=17,p=4$" + b64(16) + "$" + b64(32), false},

		{"scrypt of 64 MiB", "$scrypt$ln=16,r=8,p=8$" + b64(16) + "$" + b64(32), true},
		{"scrypt of 64 MiB too often", "$scrypt$ln=16,r=8,p=9$" + b64(16) + "$" + b64(32), false},
		{"scrypt of 128 MiB", "$scrypt$ln=17,r=8,p=1$" + b64(16) + "$" + b64(32), false},
		{"scrypt of the most memory of 32 bits", "$scrypt$ln=31,r=64,p=1$" + b64(16) + "$" + b64(32), false},
		{"scrypt of an exponent that overflows", "$scrypt$ln=64,r=1,p=1$" + b64(16) + "$" + b64(32), false},
		{"scrypt of N=1", "$scrypt$ln=0,r=8,p=1$" + b64(16) + "$" + b64(32), false},
		{"scrypt of the greatest factors", "$scrypt$ln=1,r=64,p=64$" + b64(16) + "$" + b64(32), true},
		{"scrypt of a greater r", "$scrypt$ln=1,r=65,p=1$" + b64(16) + "$" + b64(32), false},
		{"scrypt of a greater p", "$scrypt$ln=1,r=1,p=65$" + b64(16) + "$" + b64(32), false},
		{"scrypt of r=0", "$scrypt$ln=14,r=0,p=1$" + b64(16) + "$" + b64(32), false},
		{"scrypt of p=0", "$scrypt$ln=14,r=8,p=0$" + b64(16) + "$" + b64(32), false},
		{"scrypt of Django", "scrypt$16384$seasalt$8$5$" + padded(64), true},
		{"scrypt of Django, 128 MiB", "scrypt$131072$seasalt$8$1$" + padded(64), false},
		{"scrypt of Django, no power of 2", "scrypt$16383$seasalt$8$1$" + padded(64), false},
		{"scrypt of Django, N=0", "scrypt$0$seasalt$8$1$" + padded(64), false},
		{"scrypt of Django, more than 32 bits", "scrypt$4294967296$seasalt$8$1$" + padded(64), false},

		{"PBKDF2 of the most rounds", "$pbkdf2-sha256$8000000$" + b64(16) + "$" + strings.ReplaceAll(b64(32), "+", "."), true},
		{"PBKDF2 of more rounds", "$pbkdf2-sha256$8000001$" + b64(16) + "$" + b64(32), false},
		{"PBKDF2 of more rounds, PHC", "$pbkdf2-sha256$i=8000001$" + b64(16) + "$" + b64(32), false},
		{"PBKDF2 of two blocks", "$pbkdf2-sha256$4000000$" + b64(16) + "$" + b64(64), true},
		{"PBKDF2 of two blocks, more rounds", "$pbkdf2-sha256$4000001$" + b64(16) + "$" + b64(33), false},
		{"PBKDF2 of no rounds", "$pbkdf2-sha256$0$" + b64(16) + "$" + b64(32), false},
		{"PBKDF2 of Django", "pbkdf2_sha256$1200000$seasalt$" + padded(32), true},
		{"PBKDF2 of Django, more rounds", "pbkdf2_sha256$8000001$seasalt$" + padded(32), false},
		{"PBKDF2 of SHA-1, seven blocks", "pbkdf2_sha1$1142857$seasalt$" + padded(128), true},
		{"PBKDF2 of SHA-1, seven blocks, more rounds", "pbkdf2_sha1$1142858$seasalt$" + padded(128), false},

		{"bcrypt_sha256 of the cost 16", "$bcrypt-sha256$v=2,t=2b,r=16$" + bcryptKey, true},
		{"bcrypt_sha256 of the cost 17", "$bcrypt-sha256$v=2,t=2b,r=17$" + bcryptKey, false},
		{"bcrypt_sha256 of the cost 17, first version", "$bcrypt-sha256$2b,17$" + bcryptKey, false},
		{"bcrypt_sha256 of Django, cost 17", "bcrypt_sha256$$2b$17$" + strings.Repeat(".", 53), false},
		{"bcrypt of Django, cost 17", "bcrypt$$2b$17$" + strings.Repeat(".", 53), false},
	} {
		if err := account.Usable(c.hash); (err == nil) != c.usable {
			t.Errorf("%s: got %v, want usable: %v", c.name, err, c.usable)
		}
	}
}

func init() {
	b64 := base64.RawStdEncoding.EncodeToString
	padded := base64.StdEncoding.EncodeToString
	const (
		v1 = "$bcrypt-sha256$2b,5$5Hg1DKFqPE8C2aflZ5vVoe$12BjNE0p7axMg55.Y/mHsYiVuFBDQyu"
		v2 = "$bcrypt-sha256$v=2,t=2b,r=5$5Hg1DKFqPE8C2aflZ5vVoe$wOK1VFFtS8IGTrGa7.h5fs0u84qyPbS"
	)
	// The keys are derived from the password: only the form or a bound makes them unusable.
	pbkdf2Key := func(salt []byte, length int) []byte {
		key, err := pbkdf2.Key(sha256.New, password, salt, 10, length)
		if err != nil {
			panic(err)
		}
		return key
	}
	scryptKey := func(salt []byte, length int) []byte {
		key, err := scrypt.Key([]byte(password), salt, 16, 1, 1, length)
		if err != nil {
			panic(err)
		}
		return key
	}
	goodPBKDF2 := "$pbkdf2-sha256$i=10$" + b64(salt) + "$" + b64(pbkdf2Key(salt, 32))
	goodScrypt := "$scrypt$ln=4,r=1,p=1$" + b64(salt) + "$" + b64(scryptKey(salt, 32))
	djangoPBKDF2 := "pbkdf2_sha256$10$" + string(salt) + "$" + padded(pbkdf2Key(salt, 32))
	djangoScrypt := "scrypt$16$" + string(salt) + "$1$1$" + padded(scryptKey(salt, 32))
	usableHashes["PBKDF2"], usableHashes["scrypt"] = goodPBKDF2, goodScrypt
	usableHashes["PBKDF2 of Django"], usableHashes["scrypt of Django"] = djangoPBKDF2, djangoScrypt
	for name, hash := range map[string]string{
		"a PBKDF2 hash without key":            "$pbkdf2-sha256$i=10$" + b64(salt) + "$",
		"a PBKDF2 hash with a key of 15 bytes": "$pbkdf2-sha256$i=10$" + b64(salt) + "$" + b64(pbkdf2Key(salt, 15)),
		"a PBKDF2 hash with a long key":        "$pbkdf2-sha256$i=10$" + b64(salt) + "$" + b64(pbkdf2Key(salt, 129)),
		"a PBKDF2 hash without salt":           "$pbkdf2-sha256$i=10$$" + b64(pbkdf2Key(nil, 32)),
		"a PBKDF2 hash with a long salt":       "$pbkdf2-sha256$i=10$" + b64(make([]byte, 129)) + "$" + b64(pbkdf2Key(make([]byte, 129), 32)),
		"a PBKDF2 hash with another length":    strings.Replace(goodPBKDF2, "i=10", "i=10,l=31", 1),
		"a PBKDF2 hash of the length 0":        strings.Replace(goodPBKDF2, "i=10", "i=10,l=0", 1),
		"a PBKDF2 hash without a length":       strings.Replace(goodPBKDF2, "i=10", "i=10,l=", 1),
		"a PBKDF2 hash with another parameter": strings.Replace(goodPBKDF2, "i=10", "i=10,x=1", 1),
		"PBKDF2 with a leading zero":           strings.Replace(goodPBKDF2, "i=10", "i=010", 1),
		"PBKDF2 with a sign":                   strings.Replace(goodPBKDF2, "i=10", "i=+10", 1),
		"PBKDF2 with negative rounds":          strings.Replace(goodPBKDF2, "i=10", "i=-10", 1),
		"PBKDF2 with another base64":           strings.Replace(goodPBKDF2, "i=10", "10", 1) + "+",
		"PBKDF2 with a line break":             goodPBKDF2 + "\n",
		"PBKDF2 and a field":                   goodPBKDF2 + "$",
		"only PBKDF2's scheme":                 "$pbkdf2-sha256$",
		"PBKDF2 of an unknown hash":            strings.Replace(goodPBKDF2, "sha256", "sha3", 1),
		"PBKDF2 of Django, not padded":         strings.TrimRight(djangoPBKDF2, "="),
		"PBKDF2 of Django with a line break":   djangoPBKDF2 + "\n",
		"PBKDF2 of Django without salt":        "pbkdf2_sha256$10$$" + padded(pbkdf2Key(nil, 32)),
		"PBKDF2 of Django without key":         "pbkdf2_sha256$10$" + string(salt) + "$",
		"PBKDF2 of Django and a dollar":        "$" + djangoPBKDF2,
		"only Django's PBKDF2":                 "pbkdf2_sha256$",
		"a scrypt hash without key":            "$scrypt$ln=4,r=1,p=1$" + b64(salt) + "$",
		"a scrypt hash with a key of 15 bytes": "$scrypt$ln=4,r=1,p=1$" + b64(salt) + "$" + b64(scryptKey(salt, 15)),
		"a scrypt hash without salt":           "$scrypt$ln=4,r=1,p=1$$" + b64(scryptKey(nil, 32)),
		"scrypt's parameters in another order": strings.Replace(goodScrypt, "r=1,p=1", "p=1,r=1", 1),
		"a scrypt hash without p":              strings.Replace(goodScrypt, ",p=1", "", 1),
		"a scrypt hash with another parameter": strings.Replace(goodScrypt, ",p=1", ",p=1,x=1", 1),
		"only scrypt's scheme":                 "$scrypt$",
		"scrypt of Django without key":         "scrypt$16$" + string(salt) + "$1$1$",
		"scrypt of Django without salt":        "scrypt$16$$1$1$" + padded(scryptKey(nil, 32)),
		"scrypt of Django and a field":         djangoScrypt + "$",
		"only Django's scrypt":                 "scrypt$",
		"argon2i of an old version":            strings.Replace(otherHashes[0].hash, "v=19", "v=16", 1),
		"argon2d of Django":                    "argon2" + strings.Replace(phc(64, 1, 1, salt, key), "argon2id", "argon2d", 1),
		"argon2 of Django twice":               "argon2$argon2" + phc(64, 1, 1, salt, key),
		"an argon2id hash and a line break":    phc(64, 1, 1, salt, key) + "\n",
		"argon2id with a leading zero":         strings.Replace(phc(64, 1, 1, salt, key), "m=64", "m=064", 1),
		"only Django's argon2":                 "argon2$",
		"bcrypt of Django of another version":  "bcrypt$" + strings.Replace(fastapiBcrypt, "$2b$", "$2x$", 1),
		"bcrypt of Django, one dollar":         "bcrypt" + fastapiBcrypt,
		"only Django's bcrypt":                 "bcrypt$",
		"only Django's bcrypt_sha256":          "bcrypt_sha256$",
		"bcrypt with a signed cost":            strings.Replace(fastapiBcrypt, "$12$", "$+5$", 1),
		"bcrypt with line breaks":              strings.Replace(fastapiBcrypt, "TeeR", "\n\n\n\n", 1),
		"bcrypt-sha256 of an unknown version":  strings.Replace(v2, "v=2", "v=3", 1),
		"bcrypt-sha256 of the first version":   strings.Replace(v2, "v=2", "v=1", 1),
		"bcrypt-sha256 of another bcrypt":      strings.Replace(v2, "2b", "2y", 1),
		"bcrypt-sha256 with a leading zero":    strings.Replace(v1, "2b,5", "2b,05", 1),
		"bcrypt-sha256 of the cost 3":          strings.Replace(v1, "2b,5", "2b,3", 1),
		"bcrypt-sha256 of the cost 100":        strings.Replace(v1, "2b,5", "2b,100", 1),
		"bcrypt-sha256 with a bad character":   strings.Replace(v2, "KFq", "KF!", 1),
		"bcrypt-sha256 with unused bits":       v2[:len(v2)-1] + "T",
		"a cut bcrypt-sha256 hash":             v2[:len(v2)-1],
		"bcrypt-sha256 without key":            v1[:strings.LastIndex(v1, "$")],
		"only the scheme of bcrypt-sha256":     "$bcrypt-sha256$",
		"Django's unusable password":           "!Qx7mR2vT9kLp4sWzQx7mR2vT9kLp4sWzQx7mR2vT",
	} {
		hostileHashes[name] = hash
	}
}
