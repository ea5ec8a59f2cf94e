package adoption_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
)

// server is the MongoDB server under test.
var server *testserver.Server

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	if os.Getenv(envConvertURI) != "" {
		if err := convertMain(); err != nil {
			fmt.Fprintln(os.Stderr, "adoption: conversion:", err)
			os.Exit(1)
		}
		return
	}
	ctx := context.Background()
	var err error
	if server, err = testserver.Start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "adoption:", err)
		os.Exit(1)
	}
	fmt.Println(server)
	code := m.Run()
	if err := server.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "adoption:", err)
		code = 1
	}
	os.Exit(code)
}

func client(t *testing.T) *mongo.Client {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = client.Disconnect(ctx)
	})
	return client
}
