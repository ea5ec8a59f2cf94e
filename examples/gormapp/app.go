package main

import (
	"context"
	"database/sql"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"gorm.io/gorm"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// User is GORM's model of the table "users", which AutoMigrate makes. The columns with <-:create are
// Latchkey's: GORM reads them and never updates them, so that Save of an old copy undoes nothing.
type User struct {
	ID             int64     `gorm:"primaryKey;autoIncrement:false"` // made by sqlstore.NewInt64ID
	Email          string    `gorm:"<-:create;not null;uniqueIndex"`
	HashedPassword string    `gorm:"<-:create;not null" json:"-"`
	IsActive       bool      `gorm:"<-:create;not null"`
	IsVerified     bool      `gorm:"<-:create;not null"`
	IsSuperuser    bool      `gorm:"<-:create;not null"`
	CreatedAt      time.Time `gorm:"<-:create;not null"`
	TokenVersion   int64     `gorm:"<-:create;not null" json:"-"`
	Name           string    `gorm:"not null"`
	Notes          []Note
}

// Note is a note of a user.
type Note struct {
	ID     int64  `json:"id"`
	UserID int64  `gorm:"not null;index" json:"-"`
	Text   string `gorm:"not null" json:"text"`
}

// Member is the same user for Latchkey: an account, and the fields that Latchkey's routes use.
// Columns that only GORM's model has keep their values.
type Member struct {
	account.User[int64]
	Name string // the column name
}

type app struct {
	*latchkey.Latchkey[Member, int64]
	db *gorm.DB
}

// newApp makes the tables: first the application's, then Latchkey's, which refer to the users.
func newApp(ctx context.Context, db *gorm.DB, pool *sql.DB, dialect sqlstore.Dialect, cfg latchkey.Config) (*app, error) {
	if err := db.WithContext(ctx).AutoMigrate(&User{}, &Note{}); err != nil {
		return nil, err
	}
	lk, err := sqlstore.New[Member](pool, dialect, sqlstore.NewInt64ID, cfg)
	if err != nil {
		return nil, err
	}
	if err := lk.EnsureIndexes(ctx); err != nil {
		lk.Close()
		return nil, err
	}
	return &app{lk, db}, nil
}

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
	r.GET("/notes", a.Auth.RequireUser(), a.listNotes)
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
	me, _ := a.Auth.CurrentUser(c)
	notes := []Note{}
	if err := a.db.WithContext(c.Request.Context()).Where("user_id = ?", me.ID).Order("id").Find(&notes).Error; err != nil {
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
	if err := a.db.WithContext(c.Request.Context()).Create(&note).Error; err != nil {
		a.Auth.Refuse(c, err)
		return
	}
	c.JSON(http.StatusCreated, note)
}

func (a *app) removeAccount(c *gin.Context) {
	me, _ := a.Auth.CurrentUser(c)
	ctx := c.Request.Context()
	err := a.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error { return deleteUser(tx, me.ID) })
	if err == nil {
		// For the caches of all processes, if Config.Cache is set.
		err = a.Sessions.UserChanged(ctx, me.ID, strategy.RevokedAll)
	}
	if err != nil {
		a.Auth.Refuse(c, err)
		return
	}
	c.Status(http.StatusNoContent)
}

// deleteUser deletes a user and the notes. By the foreign key of access_tokens, the database
// deletes the user's tokens in the same transaction.
func deleteUser(tx *gorm.DB, id int64) error {
	if err := tx.Where("user_id = ?", id).Delete(&Note{}).Error; err != nil {
		return err
	}
	return tx.Delete(&User{ID: id}).Error
}
