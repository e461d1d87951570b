package config_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/config"
)

func TestTheDefaultDatabaseIsInTheDataDirectory(t *testing.T) {
	for _, c := range []struct {
		db   config.Database
		want string
	}{
		{config.Database{DataDir: "data"}, "sqlite:" + filepath.Join("data", "runbell.db")},
		{config.Database{DataDir: "/var/lib/runbell"}, "sqlite:" + filepath.Join("/var/lib/runbell", "runbell.db")},
		{config.Database{DataDir: "data", DatabaseURL: "postgres://u@h/d"}, "postgres://u@h/d"},
	} {
		if got := c.db.URL(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.db, got, c.want)
		}
	}
}

func TestTheKeyFileIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	d := config.Database{DataDir: dir}
	key, err := d.Key()
	if err != nil || len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		t.Fatalf("%x, %v", key, err)
	}
	again, err := d.Key()
	if err != nil || !bytes.Equal(key, again) {
		t.Errorf("the second start has another key: %x, %x, %v", key, again, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, "secret.key"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left, %v; want the key alone", len(entries), err)
	}
	// The file is what an operator may keep elsewhere and give in the environment.
	text, err := os.ReadFile(filepath.Join(dir, "secret.key"))
	if err != nil {
		t.Fatal(err)
	}
	if given, err := (config.Database{DataDir: t.TempDir(), SecretKey: string(text)}).Key(); err != nil || !bytes.Equal(key, given) {
		t.Errorf("the text of the file is another key: %v", err)
	}
}

func TestAGivenKeyMakesNoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	want := bytes.Repeat([]byte{7}, 32)
	got, err := config.Database{DataDir: dir, SecretKey: base64.StdEncoding.EncodeToString(want)}.Key()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v", got, err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the data directory: %v", err)
	}
}

// Two processes that start at once must not encrypt with two keys.
func TestStartsAtOnceShareTheKey(t *testing.T) {
	for range 20 {
		d := config.Database{DataDir: filepath.Join(t.TempDir(), "data")}
		keys := make([][]byte, 8)
		var wg sync.WaitGroup
		for i := range keys {
			wg.Go(func() {
				var err error
				if keys[i], err = d.Key(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, k := range keys {
			if len(k) != 32 || !bytes.Equal(k, keys[0]) {
				t.Fatalf("the keys differ: %x", keys)
			}
		}
	}
}

func TestBadKeysAreExplainedAndNotRepeated(t *testing.T) {
	for name, key := range map[string]string{
		"short":      base64.StdEncoding.EncodeToString([]byte("tooshort")),
		"long":       base64.StdEncoding.EncodeToString(make([]byte, 33)),
		"not base64": "correct horse battery staple!!!!",
		"hex":        strings.Repeat("ab", 32),
	} {
		_, err := config.Database{SecretKey: key}.Key()
		check(t, name+" in the environment", err, key, "RUNBELL_SECRET_KEY", "openssl rand -base64 32")

		dir := t.TempDir()
		path := filepath.Join(dir, "secret.key")
		if err := os.WriteFile(path, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = config.Database{DataDir: dir}.Key()
		check(t, name+" in the file", err, key, path, "restore the file")
		// What it encrypted could never be read again.
		if text, err := os.ReadFile(path); err != nil || string(text) != key {
			t.Errorf("%s: the file was replaced: %v", name, err)
		}
	}
}

func TestADataDirectoryThatCannotBeMadeIsExplained(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Database{DataDir: filepath.Join(file, "data")}.Key()
	check(t, "below a file", err, "\x00", "create the data directory")
}

func check(t *testing.T, name string, err error, secret string, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s was accepted", name)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s: the message does not say %q: %v", name, s, err)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("%s: the message repeats the secret: %v", name, err)
	}
}

// s3 is settings with a bucket, and a change of them.
func s3(change func(*config.Storage)) func(*config.Serve) {
	return func(s *config.Serve) {
		s.Artifacts, s.S3 = "s3://shots/from/ci", config.S3{AccessKeyID: "id", SecretAccessKey: "secret of s3", PathStyle: "auto", Presign: "off"}
		change(&s.Storage)
	}
}

func TestBucket(t *testing.T) {
	for place, want := range map[string][2]string{
		"s3://shots": {"shots", ""}, "s3://shots/": {"shots", ""}, "s3://shots/from/ci/": {"shots", "from/ci"}, "disk:/srv": {}, "": {}, "off": {},
	} {
		if bucket, prefix := (config.Storage{Artifacts: place}).Bucket(); bucket != want[0] || prefix != want[1] {
			t.Errorf("%s is the bucket %q with the prefix %q", place, bucket, prefix)
		}
	}
}

func TestCheck(t *testing.T) {
	good := config.Serve{PublicURL: "https://runbell.example.com", WebhookTimeout: 10 * time.Second, Storage: config.Storage{ArtifactMax: 2 << 30}}
	for name, c := range map[string]struct {
		change func(*config.Serve)
		says   string // "" when it is fine
	}{
		"defaults":             {func(*config.Serve) {}, ""},
		"a port":               {func(s *config.Serve) { s.PublicURL = "http://localhost:8484" }, ""},
		"below a path":         {func(s *config.Serve) { s.PublicURL = "https://example.com/runbell" }, ""},
		"no scheme":            {func(s *config.Serve) { s.PublicURL = "runbell.example.com" }, "RUNBELL_PUBLIC_URL"},
		"another scheme":       {func(s *config.Serve) { s.PublicURL = "ftp://example.com" }, "RUNBELL_PUBLIC_URL"},
		"no host":              {func(s *config.Serve) { s.PublicURL = "https://" }, "RUNBELL_PUBLIC_URL"},
		"a port alone":         {func(s *config.Serve) { s.PublicURL = "http://:8484" }, "RUNBELL_PUBLIC_URL"},
		"a user":               {func(s *config.Serve) { s.PublicURL = "https://u@example.com" }, "RUNBELL_PUBLIC_URL"},
		"a query":              {func(s *config.Serve) { s.PublicURL = "https://example.com?x=1" }, "RUNBELL_PUBLIC_URL"},
		"a fragment":           {func(s *config.Serve) { s.PublicURL = "https://example.com#x" }, "RUNBELL_PUBLIC_URL"},
		"not a URL":            {func(s *config.Serve) { s.PublicURL = "https://exa mple.com" }, "RUNBELL_PUBLIC_URL"},
		"an admin":             {func(s *config.Serve) { s.AdminEmail, s.AdminPassword = "a@example.com", "correct horse" }, ""},
		"no password":          {func(s *config.Serve) { s.AdminEmail = "a@example.com" }, "RUNBELL_ADMIN_PASSWORD"},
		"no email":             {func(s *config.Serve) { s.AdminPassword = "correct horse" }, "RUNBELL_ADMIN_EMAIL"},
		"the shortest timeout": {func(s *config.Serve) { s.WebhookTimeout = 100 * time.Millisecond }, ""},
		"the longest timeout":  {func(s *config.Serve) { s.WebhookTimeout = 5 * time.Minute }, ""},
		"no timeout":           {func(s *config.Serve) { s.WebhookTimeout = 0 }, "RUNBELL_WEBHOOK_TIMEOUT"},
		"too short a timeout":  {func(s *config.Serve) { s.WebhookTimeout = 99 * time.Millisecond }, "RUNBELL_WEBHOOK_TIMEOUT"},
		"too long a timeout":   {func(s *config.Serve) { s.WebhookTimeout = 5*time.Minute + 1 }, "RUNBELL_WEBHOOK_TIMEOUT"},
		"a bad proxy":          {func(s *config.Serve) { s.WebhookProxy = "proxy:3128" }, "RUNBELL_WEBHOOK_PROXY"},
		"no certificates":      {func(s *config.Serve) { s.WebhookCAFile = "/nowhere.pem" }, "RUNBELL_WEBHOOK_CA_FILE"},
		"bad proxies":          {func(s *config.Serve) { s.TrustedProxies = "10.0.0.1" }, "RUNBELL_TRUSTED_PROXIES"},
		"no artifacts":         {func(s *config.Serve) { s.Artifacts = "off" }, ""},
		"a place":              {func(s *config.Serve) { s.Artifacts = "disk:/srv/artifacts" }, ""},
		"no place":             {func(s *config.Serve) { s.Artifacts = "disk:" }, "RUNBELL_ARTIFACTS"},
		"an unknown place":     {func(s *config.Serve) { s.Artifacts = "/srv/artifacts" }, "RUNBELL_ARTIFACTS"},
		"too small artifacts":  {func(s *config.Serve) { s.ArtifactMax = 1<<20 - 1 }, "RUNBELL_ARTIFACT_MAX"},
		"too large artifacts":  {func(s *config.Serve) { s.ArtifactMax = 1<<40 + 1 }, "RUNBELL_ARTIFACT_MAX"},
		"a bucket":             {s3(func(*config.Storage) {}), ""},
		"a bucket for reporters": {s3(func(s *config.Storage) {
			s.Artifacts, s.S3.Endpoint, s.S3.PublicEndpoint, s.S3.Presign = "s3://shots", "http://10.0.0.7:9000", "https://s3.example.com/", "on"
		}), ""},
		"no bucket":                 {s3(func(s *config.Storage) { s.Artifacts = "s3://" }), "RUNBELL_ARTIFACTS"},
		"a bad bucket":              {s3(func(s *config.Storage) { s.Artifacts = "s3://Shots" }), "RUNBELL_ARTIFACTS"},
		"a bad prefix":              {s3(func(s *config.Storage) { s.Artifacts = "s3://shots/../x" }), "RUNBELL_ARTIFACTS"},
		"an access key alone":       {s3(func(s *config.Storage) { s.S3.SecretAccessKey = "" }), "RUNBELL_S3_SECRET_ACCESS_KEY"},
		"a secret alone":            {s3(func(s *config.Storage) { s.S3.AccessKeyID = "" }), "RUNBELL_S3_ACCESS_KEY_ID"},
		"an endpoint with a path":   {s3(func(s *config.Storage) { s.S3.Endpoint = "https://s3.example.com/shots" }), "RUNBELL_S3_ENDPOINT"},
		"an endpoint without https": {s3(func(s *config.Storage) { s.S3.Endpoint = "s3.example.com:9000" }), "RUNBELL_S3_ENDPOINT"},
		"a bad public endpoint":     {s3(func(s *config.Storage) { s.S3.PublicEndpoint = "https://user@s3.example.com" }), "RUNBELL_S3_PUBLIC_ENDPOINT"},
		"no authority":              {s3(func(s *config.Storage) { s.S3.CAFile = "/nowhere.pem" }), "RUNBELL_S3_CA_FILE"},
		"too large for a bucket":    {s3(func(s *config.Storage) { s.ArtifactMax = 5<<30 + 1 }), "RUNBELL_ARTIFACT_MAX"},
		"an endpoint for a disk":    {func(s *config.Serve) { s.S3.Endpoint = "https://s3.example.com" }, "RUNBELL_ARTIFACTS"},
		"another path style":        {s3(func(s *config.Storage) { s.S3.PathStyle = "true" }), "RUNBELL_S3_PATH_STYLE"},
		"another presign":           {s3(func(s *config.Storage) { s.S3.Presign = "yes" }), "RUNBELL_S3_PRESIGN"},
		"presign for a disk":        {func(s *config.Serve) { s.S3.Presign = "on" }, "RUNBELL_ARTIFACTS"},
		"bad networks":              {func(s *config.Serve) { s.WebhookAllow = "10.0.0.0" }, "RUNBELL_WEBHOOK_ALLOW"},
	} {
		s := good
		c.change(&s)
		if err := s.Check(); c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	s := good
	s.PublicURL += "/base//"
	if err := s.Check(); err != nil || s.PublicURL != "https://runbell.example.com/base" {
		t.Errorf("slashes at the end: %q, %v; links would have two", s.PublicURL, err)
	}
}

func TestAllow(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		" , ,":                      "",
		"127.0.0.0/8":               "127.0.0.0/8",
		"127.0.0.0/8, 10.0.0.0/8 ,": "127.0.0.0/8 10.0.0.0/8",
		"192.168.1.77/16":           "192.168.0.0/16", // what was meant
		"::1/128,fd00::/8":          "::1/128 fd00::/8",
		"10.0.0.5/32":               "10.0.0.5/32",
	} {
		got, err := (&config.Serve{WebhookAllow: in}).Allow()
		var text []string
		for _, p := range got {
			text = append(text, p.String())
		}
		if diff := cmp.Diff(want, strings.Join(text, " ")); diff != "" || err != nil {
			t.Errorf("%q: %v %s", in, err, diff)
		}
	}
	// A network of mapped addresses would match nothing: addresses are compared in their plain form.
	for _, in := range []string{"10.0.0.1", "localhost", "10.0.0.0/33", "10.0.0.0/8;127.0.0.0/8", "10.0.0/8", "fe80::1%eth0/64", "::ffff:127.0.0.0/104"} {
		_, err := (&config.Serve{WebhookAllow: "127.0.0.0/8," + in}).Allow()
		if err == nil || !strings.Contains(err.Error(), "RUNBELL_WEBHOOK_ALLOW") || !strings.Contains(err.Error(), in) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestProxy(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		"http://proxy.example.com:3128":     "http://proxy.example.com:3128",
		"https://proxy.example.com/":        "https://proxy.example.com/",
		"http://10.0.0.1:8080":              "http://10.0.0.1:8080", // the operator's choice
		"http://user:p%40ss@[fd00::1]:3128": "http://user:p%40ss@[fd00::1]:3128",
	} {
		u, err := (&config.Serve{WebhookProxy: in}).Proxy()
		got := ""
		if u != nil {
			got = u.String()
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"proxy.example.com:3128", "proxy:t0ps3cret", "http://", "http://:3128", "socks5://user:t0ps3cret@proxy:1080", "http://user:t0ps3cret@proxy/path",
		"http://user:t0ps3cret@proxy?x=1", "http://user:t0ps3cret@proxy#x", "http://user:t0ps3cret%@proxy", "http://user:t0ps3cret@proxy:port", "http://us er:t0ps3cret@proxy"} {
		_, err := (&config.Serve{WebhookProxy: in}).Proxy()
		check(t, in, err, "t0ps3cret", "RUNBELL_WEBHOOK_PROXY", "http://proxy.example.com:3128")
	}
}

func TestRoots(t *testing.T) {
	authority := httptest.NewUnstartedServer(nil)
	authority.StartTLS()
	defer authority.Close()
	der := authority.Certificate().Raw
	encode := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	roots := func(text string) (*x509.CertPool, string, error) {
		path := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		pool, err := (&config.Serve{WebhookCAFile: path}).Roots()
		return pool, path, err
	}
	for name, text := range map[string]string{
		"one":                   encode("CERTIFICATE", der),
		"with words around":     "The authority of the house:\n" + encode("CERTIFICATE", der) + "\nthe end\n",
		"after something":       encode("DH PARAMETERS", []byte{1}) + encode("CERTIFICATE", der),
		"with line ends of DOS": strings.ReplaceAll(encode("CERTIFICATE", der)+encode("CERTIFICATE", der), "\n", "\r\n"),
	} {
		pool, _, err := roots(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := authority.Certificate().Verify(x509.VerifyOptions{Roots: pool}); err != nil {
			t.Errorf("%s: its certificate is not trusted: %v", name, err)
		}
		// Beside the system's, not instead of them.
		if system, err := x509.SystemCertPool(); err != nil || pool.Equal(system) || len(pool.Subjects()) != len(system.Subjects())+1 { //nolint:staticcheck // SA1019: it counts what was added
			t.Errorf("%s: the pool does not have the system's certificates and one more: %v", name, err)
		}
	}
	for name, c := range map[string]struct{ text, says string }{
		"empty":                {"", "has no certificates"},
		"not PEM":              {"certificate", "has no certificates"},
		"DER":                  {string(der), "has no certificates"},
		"a key alone":          {encode("PRIVATE KEY", []byte("t0ps3cret")), "has no certificates"},
		"a broken certificate": {encode("CERTIFICATE", der) + encode("CERTIFICATE", der[:100]), "certificate 2"},
	} {
		_, path, err := roots(c.text)
		check(t, name, err, "t0ps3cret", "RUNBELL_WEBHOOK_CA_FILE", path, c.says)
	}
	_, err := (&config.Serve{WebhookCAFile: filepath.Join(t.TempDir(), "none.pem")}).Roots()
	check(t, "no file", err, "\x00", "RUNBELL_WEBHOOK_CA_FILE", "none.pem", "no such file")
	if pool, err := (&config.Serve{}).Roots(); pool != nil || err != nil {
		t.Errorf("none: %v, %v", pool, err)
	}
}

func TestLogger(t *testing.T) {
	for _, c := range []struct {
		level, format string
		lines         int
	}{
		{"debug", "text", 4}, {"info", "json", 3}, {"warn", "text", 2}, {"error", "json", 1},
	} {
		var out bytes.Buffer
		log := (&config.Serve{LogLevel: c.level, LogFormat: c.format}).Logger(&out)
		log.Debug("d")
		log.Info("i")
		log.Warn("w")
		log.Error("e")
		if n := strings.Count(out.String(), "\n"); n != c.lines {
			t.Errorf("%s: %d lines, want %d", c.level, n, c.lines)
		}
		if first, _, _ := strings.Cut(out.String(), "\n"); json.Valid([]byte(first)) != (c.format == "json") {
			t.Errorf("%s: %s", c.format, first)
		}
	}
}

// TestPublicURLFollowsTheAddress: links work wherever the server listens.
func TestPublicURLFollowsTheAddress(t *testing.T) {
	for addr, want := range map[string]string{"127.0.0.1:8484": config.DefaultPublicURL, ":9000": "http://localhost:9000", "[::1]:80": "http://localhost:80"} {
		cfg := config.Serve{Addr: addr, WebhookTimeout: 10 * time.Second, Storage: config.Storage{ArtifactMax: 2 << 30}}
		if err := cfg.Check(); err != nil || cfg.PublicURL != want {
			t.Errorf("%s: %q, %v, want %q", addr, cfg.PublicURL, err, want)
		}
	}
}
