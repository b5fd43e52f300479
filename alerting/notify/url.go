package notify

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// URL is where an Alertmanager is: http or https, with a path prefix and basic authentication where it has them. It
// prints with *** for the password.
type URL struct{ u *url.URL }

// ParseURL reads a URL.
func ParseURL(s string) (URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil: // the text may hold a password, and so may the error
		return URL{}, errors.New("is not a URL such as http://alertmanager:9093/prefix")
	case u.Scheme != "http" && u.Scheme != "https":
		return URL{}, fmt.Errorf("%s: must begin with http:// or https://", redacted(u))
	case u.Host == "":
		return URL{}, fmt.Errorf("%s: names no host", redacted(u))
	case u.RawQuery != "" || u.Fragment != "":
		return URL{}, fmt.Errorf("%s: must have neither a query nor a fragment", redacted(u))
	}
	return URL{u}, nil
}

// String returns the URL with *** for the password.
func (u URL) String() string {
	if u.u == nil {
		return ""
	}
	return redacted(u.u)
}

// Format prints String for every verb.
func (u URL) Format(w fmt.State, _ rune) { _, _ = w.Write([]byte(u.String())) }

// MarshalText returns String.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is ParseURL.
func (u *URL) UnmarshalText(b []byte) error {
	v, err := ParseURL(string(b))
	if err == nil {
		*u = v
	}
	return err
}

// alerts returns where alerts are posted, without user and password.
func (u URL) alerts() string {
	v := *u.u
	v.User = nil
	return v.JoinPath("/api/v2/alerts").String()
}

func redacted(u *url.URL) string {
	if _, secret := u.User.Password(); !secret {
		return u.String()
	}
	v := *u
	v.User = nil
	name := url.User(u.User.Username()).String()
	return strings.Replace(v.String(), "://", "://"+name+":***@", 1)
}
