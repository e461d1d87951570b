package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"strings"
	"time"
)

// ErrProxy is in the chain of errors of connections that the proxy did not
// make.
var ErrProxy = errors.New("the proxy of RUNBELL_WEBHOOK_PROXY")

// maxAnswer bounds the head of the proxy's answer.
const maxAnswer = 64 << 10

// connect has the proxy connect to target, an address and a port. Whether the
// proxy's own address is private is the operator's business.
func (d *dialer) connect(ctx context.Context, target string) (net.Conn, error) {
	host, port := d.proxy.Hostname(), d.proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[d.proxy.Scheme]
	}
	plain, err := d.free.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("%w cannot be reached: %w", ErrProxy, reason(err))
	}
	// What is said with the proxy ends with the context; what follows has its
	// own limits.
	stop := context.AfterFunc(ctx, func() { _ = plain.SetDeadline(time.Unix(1, 0)) })
	conn := plain
	if d.proxy.Scheme == "https" {
		conn = tls.Client(plain, d.tls(host))
	}
	err = ask(conn, d.proxy.User, target)
	if ended := !stop(); ended {
		err = fmt.Errorf("did not connect in time: %w", ctx.Err())
	}
	if err != nil {
		_ = plain.Close()
		return nil, fmt.Errorf("%w %w", ErrProxy, err)
	}
	return conn, nil
}

// ask sends CONNECT and reads the answer.
func ask(conn net.Conn, user *url.Userinfo, target string) error {
	req := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\nUser-Agent: Runbell\r\n"
	if user != nil {
		password, _ := user.Password()
		req += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) +
			"\r\n"
	}
	if _, err := io.WriteString(conn, req+"\r\n"); err != nil {
		return fmt.Errorf("broke the connection: %w", reason(err))
	}
	answer := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	head := textproto.NewReader(answer)
	line, err := head.ReadLine()
	if err == nil {
		_, err = head.ReadMIMEHeader()
	}
	if err != nil {
		return fmt.Errorf("sent a response that cannot be read: %w", reason(err))
	}
	switch version, status, _ := strings.Cut(line, " "); {
	case !strings.HasPrefix(version, "HTTP/1."):
		return errors.New("sent a response that cannot be read")
	case !strings.HasPrefix(status, "200"):
		return fmt.Errorf("responded with %s when asked to connect to %s", status, target)
	case answer.Buffered() > 0:
		// Receivers wait for a request before they speak.
		return errors.New("sent more than its response")
	}
	return nil
}

// reason is what happened, without the address of the proxy: those who see the
// log of a webhook need not know it.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return errors.New(dns.Err)
	}
	return err
}
