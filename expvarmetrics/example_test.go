package expvarmetrics_test

import (
	"context"
	"expvar"
	"fmt"
	"log"

	"github.com/latchkey-go/latchkey/expvarmetrics"
	"github.com/latchkey-go/latchkey/strategy"
)

// The function goes into every OnEvent field; here it is called in their place.
func Example() {
	counter, err := expvarmetrics.New("latchkey")
	if err != nil {
		log.Fatal(err)
	}
	onEvent := strategy.CountEvents(counter) // to log them too: strategy.JoinEvents

	onEvent(context.Background(), strategy.Event{Kind: strategy.EventLoginSucceeded, UserID: int64(7)})
	onEvent(context.Background(), strategy.Event{Kind: strategy.EventLoginDenied, Reason: strategy.ReasonWrongPassword})
	fmt.Println(expvar.Get("latchkey"))
	// Output: {"login.denied{reason=wrong_password}": 1, "login.succeeded": 1}
}
