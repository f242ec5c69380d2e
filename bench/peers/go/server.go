// Go's net/http with golang-jwt, after their documentation.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/golang-jwt/jwt"
	"github.com/golang-jwt/jwt/request"
)

var (
	key    = []byte(os.Getenv("BENCH_KEY"))
	parser = jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}))
)

// login issues a token.
func login(w http.ResponseWriter, r *http.Request) {
	var body struct{ Username string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, "invalid body", http.StatusBadRequest)
		return
	}
	claims := jwt.RegisteredClaims{Subject: body.Username, ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour))}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(key)
	if err != nil {
		http.Error(w, "the token cannot be signed", http.StatusInternalServerError)
		return
	}
	respond(w, map[string]string{"access_token": token})
}

// hello returns the public response.
func hello(w http.ResponseWriter, r *http.Request) {
	respond(w, map[string]string{"Hello": "World!"})
}

// secret returns the response for clients with a valid token.
func secret(w http.ResponseWriter, r *http.Request) {
	respond(w, map[string]string{"Hello": "Secret!"})
}

// authenticated rejects requests without a valid token.
func authenticated(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, err := request.ParseFromRequest(
			r,
			request.BearerExtractor{},
			func(*jwt.Token) (interface{}, error) { return key, nil },
			request.WithClaims(&jwt.RegisteredClaims{}),
			request.WithParser(parser),
		)
		if err != nil {
			http.Error(w, "invalid token", http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

func respond(w http.ResponseWriter, body map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Print(err)
	}
}

func main() {
	http.HandleFunc("/auth", login)
	http.HandleFunc("/tests/hello", hello)
	http.HandleFunc("/tests/secret", authenticated(secret))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
