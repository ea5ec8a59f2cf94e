// Package ginauth adds login, logout and route guards to a Gin application.
//
//	auth, err := ginauth.New(sessions, accounts, ginauth.Config{})
//	…
//	auth.Routes(r.Group("/auth"))       // POST /auth/login, POST /auth/logout …
//	r.GET("/me", auth.RequireUser(), func(c *gin.Context) {
//		user, _ := auth.CurrentUser(c)
//		c.JSON(http.StatusOK, user)
//	})
//
// Clients send tokens by [Bearer] header, by [Cookie], or by either. The routes answer as
// those of fastapi-users do; where that project is silent, RFC 6750 and RFC 6749 §5.1
// apply. This is not OAuth: the password grant, which the login's form resembles, is no
// longer part of it (RFC 9700 §2.4).
//
// A request gets 401 only if its token is certainly not valid. If the database cannot
// tell, the answer is 503 with Retry-After: nothing is granted, and nobody is logged out.
//
// # Pages of your own
//
// An application that wants its own login page or JSON calls the methods that the routes
// call. One rule holds for all of them: a method returns what happened, and only handlers
// write an answer. [Auth.Login], [Auth.LoginWithPassword], [Auth.Reauthenticate] and
// [Auth.Renew] return an [Issued] session or an error; [Auth.Logout] returns an error. With
// the cookie transport they set or clear the cookie, which is a header; they write no
// status and no body. The handler then redirects, writes an answer of its own, or calls
// [Auth.Answer] or [Auth.Refuse], which answer as the routes do.
package ginauth
