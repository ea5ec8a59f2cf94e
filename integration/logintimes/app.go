package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

type user = account.User[uuid.UUID]

const (
	rightPassword = "the right password"
	wrongPassword = "the wrong password" // as long
)

// stores are the stores of an application.
type stores struct {
	tokens   strategy.Store[uuid.UUID]
	users    account.Store[user, uuid.UUID]
	attempts account.AttemptStore
	oneTime  account.OneTimeTokenStore[uuid.UUID]
}

func inMemory() (stores, error) {
	attempts, err := memstore.NewAttempts(0)
	return stores{memstore.NewTokens[uuid.UUID](), memstore.NewUsers[user](), attempts, memstore.NewOneTimeTokens[uuid.UUID]()}, err
}

// inMongoDB returns stores in a new database. clean drops it.
func inMongoDB(ctx context.Context, uri string) (s stores, clean func(), err error) {
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return s, nil, err
	}
	db := client.Database("latchkey_logintimes_" + bson.NewObjectID().Hex())
	tokens, err1 := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: time.Hour, PurgeInterval: time.Hour})
	users, err2 := mongostore.NewUsers[user](db, mongostore.UsersConfig{})
	attempts, err3 := mongostore.NewAttempts(db, mongostore.AttemptsConfig{PurgeInterval: time.Hour})
	oneTime, err4 := mongostore.NewOneTimeTokens[uuid.UUID](db, mongostore.OneTimeTokensConfig{PurgeInterval: time.Hour})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return s, nil, err
	}
	clean = func() {
		tokens.Close()
		attempts.Close()
		oneTime.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = db.Drop(ctx)
		_ = client.Disconnect(ctx)
	}
	if err := errors.Join(tokens.EnsureIndexes(ctx), users.EnsureIndexes(ctx), attempts.EnsureIndexes(ctx), oneTime.EnsureIndexes(ctx)); err != nil {
		clean()
		return s, nil, err
	}
	return stores{tokens, users, attempts, oneTime}, clean, nil
}

// app is an application that listens on the loopback interface, with a client of it.
type app struct {
	url      string
	accounts *account.Manager[user, uuid.UUID]
	client   *http.Client
	clients  atomic.Uint32
	close    func()
}

// hashing configures the password hashes. Zero fields mean the defaults.
type hashing struct {
	argon2     account.Argon2
	concurrent int
}

// newApp starts an application with the default configuration, except for the hashing, the
// limit of the attempts on an account, the sign-up, which conceals taken addresses, and the
// limit on messages to an address. Its Mailer sends nothing.
func newApp(s stores, h hashing, limit account.Limit) (*app, error) {
	sessions, err := strategy.NewDatabase(s.tokens, s.users, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		return nil, err
	}
	accounts, err := account.NewManager(s.users, s.oneTime, s.attempts, uuid.New, account.Config{
		Argon2: h.argon2, InsecureArgon2: h.argon2 != account.Argon2{}, MaxConcurrentHashes: h.concurrent,
		Limiter: account.LimiterConfig{Account: limit},
		Mail:    account.MailConfig{Mailer: account.MailerFunc(func(context.Context, account.Message) error { return nil }), PerAddress: math.MaxInt32},
	}, sessions)
	if err != nil {
		return nil, err
	}
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{Accounts: ginauth.AccountsConfig{ConcealTaken: true}})
	if err == nil {
		auth, err = ginauth.WithAccounts(auth, accounts)
	}
	if err != nil {
		accounts.Close()
		return nil, err
	}
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	// The client sends its IP in X-Forwarded-For.
	if err := r.SetTrustedProxies([]string{"127.0.0.1", "::1"}); err != nil {
		return nil, err
	}
	auth.Routes(r.Group("/auth"))
	auth.RegisterRoutes(r.Group("/auth"))
	auth.VerifyRoutes(r.Group("/auth"))
	auth.ResetPasswordRoutes(r.Group("/auth"))
	r.GET("/guarded", auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusNoContent) })
	server := httptest.NewServer(r)
	client := server.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 1024
	return &app{url: server.URL, accounts: accounts, client: client, close: func() { server.Close(); accounts.Close() }}, nil
}

// create creates an account.
func (a *app) create(ctx context.Context, email string, active bool) error {
	_, err := a.accounts.Create(ctx, user{Email: email, Active: active}, rightPassword)
	return err
}

// newIP returns a client IP in a network that no earlier login came from.
func (a *app) newIP() string {
	n := a.clients.Add(1)
	return fmt.Sprintf("10.%d.%d.1", n>>8&0xff, n&0xff)
}

// answer is the answer to a request.
type answer struct {
	status int
	body   []byte
	took   float64 // milliseconds
}

// login sends a login and reads the whole answer.
func (a *app) login(ctx context.Context, email, password string) (answer, error) {
	form := url.Values{"username": {email}, "password": {password}}.Encode()
	return a.post(ctx, "login", "application/x-www-form-urlencoded", form)
}

// post sends a request to one of the auth routes, from a new network.
func (a *app) post(ctx context.Context, route, contentType, body string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"/auth/"+route, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("X-Forwarded-For", a.newIP())
	return a.do(req)
}

// guarded sends a request with a token.
func (a *app) guarded(ctx context.Context, token string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/guarded", nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return a.do(req)
}

func (a *app) do(req *http.Request) (answer, error) {
	began := time.Now()
	resp, err := a.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	took := time.Since(began)
	return answer{resp.StatusCode, body, float64(took) / float64(time.Millisecond)}, err
}

// token logs a user in.
func (a *app) token(ctx context.Context, email string) (string, error) {
	got, err := a.login(ctx, email, rightPassword)
	if err != nil {
		return "", err
	}
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(got.body, &body); err != nil || got.status != http.StatusOK {
		return "", fmt.Errorf("login answered %d", got.status)
	}
	return body.AccessToken, nil
}

// is reports whether the answer has this status, and this detail in its body.
func (a answer) is(status int, detail string) bool {
	return a.status == status && bytes.Contains(a.body, []byte(detail))
}
