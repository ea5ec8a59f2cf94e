package smtpmailer_test

import (
	"context"
	"fmt"
	"log"
	"testing/fstest"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/smtpmailer"
)

func Example() {
	server := new(server) // a mail server in this process
	defer server.start()()

	type Member struct{ Name string }
	mailer, err := smtpmailer.New(smtpmailer.Config{
		Host:          "127.0.0.1",
		Port:          server.port,
		InsecureNoTLS: true, // this server has no certificate
		From:          "Example <accounts@example.com>",
		BaseURL:       "https://app.example.com",
		Templates: fstest.MapFS{ // usually an embed.FS
			"email_taken.txt":  {Data: []byte("Subject: You have an account, {{.User.Name}}\n\nLog in at {{.BaseURL}}/login.\n")},
			"email_taken.html": {Data: []byte(`<p><a href="{{.BaseURL}}/login">Log in</a></p>`)},
		},
		SampleUser: Member{Name: "Ann"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer mailer.Close()

	cfg := account.MailConfig{Mailer: mailer} // for the field Mail of latchkey.Config
	err = cfg.Mailer.Send(context.Background(), account.Message{
		Kind: account.MessageEmailTaken, To: "ann@example.org", User: Member{Name: "Ann"},
	})
	if err != nil {
		log.Fatal(err)
	}

	header, text, _, err := server.all()[0].read()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(header.Get("From"))
	fmt.Println(header.Get("Subject"))
	fmt.Print(text)
	// Output:
	// "Example" <accounts@example.com>
	// You have an account, Ann
	// Log in at https://app.example.com/login.
}
