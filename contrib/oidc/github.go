package oidc

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// GitHubProfile returns a Provider.Profile for GitHub, whose API is at api; "" means
// "https://api.github.com". The subject is the user's number, which stays if the user is renamed. The
// address is the primary one; it needs the scope "user:email":
//
//	oidc.Provider{
//		Name:     "github",
//		Issuer:   "https://github.com",
//		ClientID: "…",
//		Scopes:   []string{"user:email"},
//		Endpoint: endpoints.GitHub, // golang.org/x/oauth2/endpoints
//		Profile:  oidc.GitHubProfile(""),
//		…
//	}
func GitHubProfile(api string) func(ctx context.Context, client *http.Client) (Identity, error) {
	if api == "" {
		api = "https://api.github.com"
	}
	return func(ctx context.Context, client *http.Client) (id Identity, err error) {
		if err := getJSON(ctx, client, api+"/user", &id.Claims); err != nil {
			return Identity{}, err
		}
		var user struct {
			ID int64 `json:"id"`
		}
		if err := json.Unmarshal(id.Claims, &user); err != nil || user.ID <= 0 {
			return Identity{}, fmt.Errorf("%s/user has no id: %v", api, err)
		}
		id.Subject = strconv.FormatInt(user.ID, 10)
		var emails []struct {
			Email    string `json:"email"`
			Primary  bool   `json:"primary"`
			Verified bool   `json:"verified"`
		}
		if err := getJSON(ctx, client, api+"/user/emails", &emails); err != nil {
			return Identity{}, err
		}
		for _, e := range emails {
			if e.Primary {
				id.Email, id.EmailVerified = e.Email, e.Verified
			}
		}
		return id, nil
	}
}

func getJSON(ctx context.Context, client *http.Client, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
