// Package ginauth puts login, logout and route guards on a Gin application.
//
//	auth, err := ginauth.New(sessions, accounts, ginauth.Config{})
//	…
//	auth.Routes(r.Group("/auth"))       // POST /auth/login, POST /auth/logout …
//	r.GET("/me", auth.RequireUser(), func(c *gin.Context) {
//		user, _ := auth.CurrentUser(c)
//		c.JSON(http.StatusOK, user)
//	})
//
// Tokens come by [Bearer] header or by [Cookie], or by either. The routes answer
// as fastapi-users' do, so that a front end written for it works unchanged;
// where that is silent, RFC 6750 and RFC 6749 §5.1 decide. This is no OAuth: the
// password grant that the login's form resembles is no longer part of it (RFC
// 9700 §2.4).
//
// Only a token that is certainly not good is a 401. Where the database cannot
// say, the answer is 503 with Retry-After: nothing is granted, and nobody is
// logged out.
package ginauth
