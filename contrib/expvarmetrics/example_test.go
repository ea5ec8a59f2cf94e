package expvarmetrics_test

import (
	"context"
	"expvar"
	"fmt"
	"log"

	"github.com/latchkey-go/latchkey/contrib/expvarmetrics"
	"github.com/latchkey-go/latchkey/event"
)

func Example() {
	count, err := expvarmetrics.New("latchkey")
	if err != nil {
		log.Fatal(err)
	}
	onEvent := event.Join(count, event.Log(nil)) // for latchkey.Config.OnEvent

	// Latchkey calls it:
	onEvent(context.Background(), event.Event{Kind: event.LoginSucceeded, UserID: int64(7)})
	onEvent(context.Background(), event.Event{Kind: event.LoginDenied, Reason: event.ReasonWrongPassword})
	fmt.Println(expvar.Get("latchkey"))
	// Output: {"login.denied{reason=wrong_password}": 1, "login.succeeded": 1}
}
