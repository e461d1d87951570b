// Package webhook is the domain of webhooks: which endpoints exist, which
// events they take, what an event says, and how it is signed.
//
// It is pure: it sends nothing and stores nothing (see packages dispatch and
// store).
package webhook
