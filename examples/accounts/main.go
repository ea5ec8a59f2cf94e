package main

import (
	"context"
	"log"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Member is your user: an account, and the fields that you add.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name" json:"name"`
}

func main() {
	client, err := mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI")))
	check(err)
	lk, err := latchkey.New[Member](client.Database("app"), uuid.New, latchkey.Config{
		Lifetime: 12 * time.Hour,
		Mail:     account.MailConfig{Mailer: account.MailerFunc(send)},
	})
	check(err)
	check(lk.EnsureIndexes(context.Background()))
	r := gin.New()
	r.Use(gin.Logger(), ginauth.Recovery(nil))
	check(r.SetTrustedProxies(nil))  // behind a proxy: its addresses
	lk.Auth.Routes(r.Group("/auth")) // POST /auth/login, POST /auth/logout, GET /auth/sessions …
	accounts := lk.Auth.WithHooks(ginauth.Hooks[Member]{
		Register: func(_ context.Context, m *Member, body *ginauth.Body) error {
			body.Require("name", &m.Name)
			return nil
		},
		View: func(m Member) map[string]any { return map[string]any{"name": m.Name} },
	})
	accounts.RegisterRoutes(r.Group("/auth"))      // POST /auth/register
	accounts.VerifyRoutes(r.Group("/auth"))        // POST /auth/request-verify-token, /auth/verify
	accounts.ResetPasswordRoutes(r.Group("/auth")) // POST /auth/forgot-password, /auth/reset-password
	r.GET("/me", lk.Auth.RequireUser(), func(c *gin.Context) {
		member, _ := lk.Auth.CurrentUser(c)
		c.JSON(200, member)
	})
	check(r.Run())
}

// mails are the words of the messages. The links lead to pages of yours, which post the token.
var mails = map[account.MessageKind]string{
	account.MessageVerification:    "Subject: Confirm your address\n\nhttps://app.example.com/verify#TOKEN\n",
	account.MessagePasswordReset:   "Subject: Choose a new password\n\nhttps://app.example.com/reset#TOKEN\n",
	account.MessagePasswordChanged: "Subject: Your password was changed\n\nIf it was not you, reset it now: https://app.example.com/forgot\n",
}

// send sends a message with the machine's mail program.
func send(ctx context.Context, m account.Message) error {
	sendmail := exec.CommandContext(ctx, "sendmail", "-i", "-t")
	sendmail.Stdin = strings.NewReader("To: " + m.To + "\n" + strings.ReplaceAll(mails[m.Kind], "TOKEN", m.Token.Reveal()))
	return sendmail.Run()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
