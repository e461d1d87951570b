// Package intake is what every protocol of test reporters needs: bodies read and decoded within limits, names, CI
// parameters, and the response to a request. Each protocol has a package below it, which translates what its clients
// send.
package intake
