package main

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/sqlstore"
)

// Member is Latchkey's user: an account, and a field of the application.
type Member struct {
	account.User[uuid.UUID]
	Name string // the column name
}

// User is Bun's model of the same table, with the columns that Bun reads.
type User struct {
	bun.BaseModel `bun:"table:users" json:"-"`
	ID            uuid.UUID `bun:",pk,type:uuid" json:"-"`
	Name          string    `json:"name"`
}

// Note is a note of a user.
type Note struct {
	ID     int64     `bun:",pk,autoincrement" json:"id"`
	UserID uuid.UUID `bun:"type:uuid" json:"-"`
	Text   string    `json:"text"`
	User   *User     `bun:"rel:belongs-to,join:user_id=id" json:"user,omitempty"`
}

type app struct {
	*latchkey.Latchkey[Member, uuid.UUID]
	db *bun.DB
}

// newApp connects Latchkey to the tables, which must be there.
func newApp(ctx context.Context, db *bun.DB, dialect sqlstore.Dialect, cfg latchkey.Config) (*app, error) {
	lk, err := sqlstore.New[Member](db.DB, dialect, newID, cfg)
	if err != nil {
		return nil, err
	}
	if err := lk.VerifyIndexes(ctx); err != nil {
		lk.Close()
		return nil, err
	}
	return &app{lk, db}, nil
}

// newID returns a UUID that begins with the time, which keeps new rows together in an index.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func (a *app) handler() (http.Handler, error) {
	r := gin.New()
	r.Use(ginauth.Recovery(nil))
	if err := r.SetTrustedProxies(nil); err != nil { // behind a proxy: its addresses
		return nil, err
	}
	a.Auth.Routes(r.Group("/auth")) // POST /auth/login, POST /auth/logout, GET /auth/sessions …
	a.Auth.WithHooks(ginauth.Hooks[Member]{
		Register: func(_ context.Context, m *Member, body *ginauth.Body) error {
			body.Require("name", &m.Name)
			return nil
		},
		View: func(m Member) map[string]any { return map[string]any{"name": m.Name} },
	}).RegisterRoutes(r.Group("/auth")) // POST /auth/register
	r.GET("/notes", a.listNotes)
	r.POST("/notes", a.Auth.RequireUser(), a.addNote)
	r.DELETE("/account", a.Auth.RequireUser(ginauth.Fresh(10*time.Minute)), a.removeAccount)
	r.GET("/readyz", func(c *gin.Context) {
		if err := a.Ping(c.Request.Context()); err != nil {
			_ = c.AbortWithError(http.StatusServiceUnavailable, err)
		}
	})
	return r, nil
}

func (a *app) listNotes(c *gin.Context) {
	notes := []Note{}
	if err := a.db.NewSelect().Model(&notes).Relation("User").Order("note.id DESC").Limit(100).Scan(c.Request.Context()); err != nil {
		a.Auth.Refuse(c, err)
		return
	}
	c.JSON(http.StatusOK, notes)
}

func (a *app) addNote(c *gin.Context) {
	me, _ := a.Auth.CurrentUser(c)
	var body struct {
		Text string `json:"text" binding:"required,max=1000"`
	}
	if err := c.ShouldBindJSON(&body); err != nil {
		c.JSON(http.StatusUnprocessableEntity, gin.H{"detail": err.Error()})
		return
	}
	note := Note{UserID: me.ID, Text: body.Text}
	if _, err := a.db.NewInsert().Model(&note).Exec(c.Request.Context()); err != nil {
		a.Auth.Refuse(c, err)
		return
	}
	c.JSON(http.StatusCreated, note)
}

// removeAccount deletes the row of the user. By the foreign keys, the database deletes the tokens
// and the notes in the same statement.
func (a *app) removeAccount(c *gin.Context) {
	me, _ := a.Auth.CurrentUser(c)
	if err := a.Accounts.Delete(c.Request.Context(), me.ID); err != nil {
		a.Auth.Refuse(c, err)
		return
	}
	c.Status(http.StatusNoContent)
}
