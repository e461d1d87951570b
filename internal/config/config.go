// Package config turns environment and flags into checked values. They are
// passed down from package app; nothing else reads the environment.
package config

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Database says where the database is.
type Database struct {
	DataDir     string `help:"Directory of the database and the secret key." var:"RUNBELL_DATA_DIR" default:"./runbell-data" placeholder:"DIR"`
	DatabaseURL string `help:"sqlite:PATH or postgres://…. Default: SQLite, runbell.db in the data directory." var:"RUNBELL_DATABASE_URL" secret:"" placeholder:"URL"`
	SecretKey   string `help:"32 bytes, base64: encrypts signing secrets and header values in the database. Default: the file secret.key in the data directory, created at the first start." var:"RUNBELL_SECRET_KEY" secret:"" placeholder:"BASE64"`
}

// URL is the database's, with the default filled in.
func (d Database) URL() string {
	if d.DatabaseURL != "" {
		return d.DatabaseURL
	}
	return "sqlite:" + filepath.Join(d.DataDir, "runbell.db")
}

// KeyFile is where the secret key is, unless it is in the environment.
func (d Database) KeyFile() string { return filepath.Join(d.DataDir, "secret.key") }

// Key is the 32 bytes that encrypt secrets at rest. It makes the key file if
// there is none.
func (d Database) Key() ([]byte, error) {
	if d.SecretKey != "" {
		key, err := decodeKey(d.SecretKey)
		if err != nil {
			return nil, fmt.Errorf("RUNBELL_SECRET_KEY %w: create one with 'openssl rand -base64 32'", err)
		}
		return key, nil
	}
	if err := os.MkdirAll(d.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("create the data directory: %w", err)
	}
	path := d.KeyFile()
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return newKeyFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the secret key: %w", err)
	}
	key, err := decodeKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("the secret key in %s %w: restore the file, or set RUNBELL_SECRET_KEY", path, err)
	}
	return key, nil
}

func decodeKey(s string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil || len(key) != 32 {
		return nil, errors.New("is not the base64 of 32 bytes")
	}
	return key, nil
}

// newKeyFile writes a key so that it is there whole or not at all: what it
// encrypts would be lost with it.
func newKeyFile(path string) ([]byte, error) {
	key := make([]byte, 32)
	rand.Read(key)
	f, err := os.CreateTemp(filepath.Dir(path), ".secret.key-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("create the secret key: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("write the secret key: %w", err)
	}
	// Link, not rename: of two processes that start at once, one wins and the
	// other reads its key.
	if err := os.Link(f.Name(), path); errors.Is(err, os.ErrExist) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return decodeKey(string(text))
	} else if err != nil {
		return nil, fmt.Errorf("write the secret key: %w", err)
	}
	return key, nil
}

// DefaultPublicURL is the public URL of a server without that setting, and where commands
// look for a server.
const DefaultPublicURL = "http://localhost:8484"

// Serve configures 'runbell serve'.
type Serve struct {
	Database
	Storage

	Addr           string        `help:"Listen address." var:"RUNBELL_ADDR" default:"127.0.0.1:8484" placeholder:"HOST:PORT"`
	PublicURL      string        `help:"URL at which people and receivers reach this server, the base of links to runs. Default: http://localhost with the port of --addr." var:"RUNBELL_PUBLIC_URL" placeholder:"URL"`
	AdminEmail     string        `help:"Email of the first admin, created if there are no accounts yet." var:"RUNBELL_ADMIN_EMAIL" placeholder:"EMAIL"`
	AdminPassword  string        `help:"Password of the first admin. Prefer the variable: others can see the command line." var:"RUNBELL_ADMIN_PASSWORD" secret:"" placeholder:"PASSWORD"`
	APIKey         string        `help:"A read-write API key to create at start, at least 16 characters." var:"RUNBELL_API_KEY" secret:"" placeholder:"KEY"`
	Recording      string        `help:"'keys': reporters need a record key of the project. 'open': any key works, and unknown projects are created (local use)." var:"RUNBELL_RECORDING" enum:"keys,open" default:"keys"`
	TrustedProxies string        `help:"CIDRs of the proxies in front of the server. X-Forwarded-For is ignored from all others." var:"RUNBELL_TRUSTED_PROXIES" placeholder:"CIDRS"`
	WebhookAllow   string        `help:"CIDRs of private networks that webhooks may call, such as 127.0.0.0/8,10.0.0.0/8." var:"RUNBELL_WEBHOOK_ALLOW" placeholder:"CIDRS"`
	WebhookProxy   string        `help:"HTTP or HTTPS proxy for webhooks. Networks of --webhook-allow are called directly." var:"RUNBELL_WEBHOOK_PROXY" secret:"" placeholder:"URL"`
	WebhookCAFile  string        `help:"PEM file with additional certificate authorities, for receivers with a private one." var:"RUNBELL_WEBHOOK_CA_FILE" placeholder:"FILE"`
	WebhookTimeout time.Duration `help:"Timeout of one attempt, from connecting to the end of the response." var:"RUNBELL_WEBHOOK_TIMEOUT" default:"10s"`
	WebhookRetries string        `help:"Waits before each retry, with up to 20 % random jitter." var:"RUNBELL_WEBHOOK_RETRIES" default:"5s,30s,5m,30m,2h,5h,10h,14h,20h,24h" placeholder:"WAITS"`
	MetricsToken   string        `help:"Bearer token that /metrics requires, at least 16 characters. Without it, /metrics is open to anyone who can reach the server." var:"RUNBELL_METRICS_TOKEN" secret:"" placeholder:"TOKEN"`
	LogLevel       string        `help:"debug, info, warn or error." var:"RUNBELL_LOG_LEVEL" enum:"debug,info,warn,error" default:"info"`
	LogFormat      string        `help:"text or json." var:"RUNBELL_LOG_FORMAT" enum:"text,json" default:"text"`
}

// Check says what is wrong with the values, in terms of the environment.
func (s *Serve) Check() error {
	if s.PublicURL == "" {
		s.PublicURL = DefaultPublicURL
		if _, port, err := net.SplitHostPort(s.Addr); err == nil {
			s.PublicURL = "http://localhost:" + port
		}
	}
	u, err := url.Parse(s.PublicURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" {
		return errors.New("RUNBELL_PUBLIC_URL must be a URL such as https://runbell.example.com, without user, query " +
			"or fragment")
	}
	s.PublicURL = strings.TrimRight(s.PublicURL, "/")
	if (s.AdminEmail == "") != (s.AdminPassword == "") {
		return errors.New("RUNBELL_ADMIN_EMAIL and RUNBELL_ADMIN_PASSWORD go together: set both or neither")
	}
	if n := len(s.MetricsToken); n > 0 && n < 16 {
		return errors.New("RUNBELL_METRICS_TOKEN must have at least 16 characters: create one with 'openssl rand -hex 24'")
	}
	if s.WebhookTimeout < 100*time.Millisecond || s.WebhookTimeout > 5*time.Minute {
		return errors.New("RUNBELL_WEBHOOK_TIMEOUT must be between 100ms and 5m")
	}
	_, err1 := s.Allow()
	_, err2 := s.Proxy()
	_, err3 := s.Roots()
	_, err4 := s.Proxies()
	_, err5 := s.Dir(s.DataDir)
	return errors.Join(err1, err2, err3, err4, err5)
}

// Allow is the private networks that webhooks may call.
func (s *Serve) Allow() ([]netip.Prefix, error) {
	return networks("RUNBELL_WEBHOOK_ALLOW", s.WebhookAllow)
}

// Proxies are the networks of proxies whose X-Forwarded-For is believed.
func (s *Serve) Proxies() ([]netip.Prefix, error) {
	return networks("RUNBELL_TRUSTED_PROXIES", s.TrustedProxies)
}

// networks reads CIDRs with commas between them.
func networks(variable, list string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%s: %q is not a network such as 10.0.0.0/8", variable, part)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Proxy is what webhooks go through, nil if they go directly.
func (s *Serve) Proxy() (*url.URL, error) {
	if s.WebhookProxy == "" {
		return nil, nil
	}
	u, err := url.Parse(s.WebhookProxy)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		// Not the value, nor the parser's error: there may be a password in it.
		return nil, errors.New("RUNBELL_WEBHOOK_PROXY must be a URL such as http://proxy.example.com:3128 or " +
			"https://user:password@proxy.example.com, without path, query or fragment; in the password, write special " +
			"characters as %40 and the like")
	}
	return u, nil
}

// Roots are the authorities of certificates that webhooks trust, nil for those
// of the system alone.
func (s *Serve) Roots() (*x509.CertPool, error) {
	return roots("RUNBELL_WEBHOOK_CA_FILE", s.WebhookCAFile)
}

// roots adds the certificates in the file of a variable to those of the system.
func roots(variable, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates, to which those of %s are added: %w", variable, err)
	}
	n := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		n++
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d in %s cannot be read: %w", variable, n, file, err)
		}
		pool.AddCert(certificate)
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: %s has no certificates: it must be a PEM file, with lines -----BEGIN CERTIFICATE-----",
			variable, file)
	}
	return pool, nil
}

// Logger writes to w as configured.
func (s *Serve) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(s.LogLevel)) // one of the enum
	opts := &slog.HandlerOptions{Level: level}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
