// Outside is a program that "go build" has built, and that tries to use the kit with a testing.TB that
// is genuine. It prints what happened, for TestKitWorksOnlyInTests.
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/testhook"
	"github.com/latchkey-go/latchkey/latchkeytest"
	"github.com/latchkey-go/latchkey/strategy"
)

type member struct {
	account.User[uuid.UUID] `bson:",inline"`
}

func main() {
	gin.SetMode(gin.ReleaseMode)
	testing.Init()
	var t testing.TB
	testing.Benchmark(func(b *testing.B) { t = b })
	try := func(what string, do func(t testing.TB)) {
		defer func() { fmt.Printf("%s: %v\n", what, recover()) }()
		do(t)
	}
	try("New", func(t testing.TB) { latchkeytest.New[member](t, uuid.New, latchkey.Config{}) })
	try("ContextAs", func(t testing.TB) { latchkeytest.ContextAs(t, member{}) })
	try("NewUser", func(t testing.TB) { new(latchkeytest.Kit[member, uuid.UUID]).NewUser(t, member{}) })
	try("As", func(t testing.TB) { new(latchkeytest.Kit[member, uuid.UUID]).As(t, member{}) })

	// The value itself, which only this module can make.
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:1"))
	if err != nil {
		panic(err)
	}
	lk, err := latchkey.New[member](client.Database("none"), uuid.New, latchkey.Config{})
	if err != nil {
		panic(err)
	}
	defer lk.Close()
	r := gin.New()
	r.GET("/", lk.Auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusNoContent) })
	session := strategy.Session[member]{User: member{account.User[uuid.UUID]{ID: uuid.New(), Active: true}}}
	ctx := strategy.ContextWithSession(context.Background(), session)
	ctx = testhook.WithSession(ctx, func(time.Time) *strategy.Session[member] { return &session })
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	fmt.Println("guard:", w.Code)
}
