package dispatch

import (
	"fmt"
	"strings"
	"time"

	"runbell/internal/webhook"
)

// Schedule is the waits before each further attempt: one more attempt than
// waits is made.
type Schedule []time.Duration

// DefaultSchedule spans a little over three days.
func DefaultSchedule() Schedule {
	return Schedule{5 * time.Second, 30 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour,
		5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}
}

// ParseSchedule reads "5s,30s,5m". Empty means no retries.
func ParseSchedule(s string) (Schedule, error) {
	var out Schedule
	if strings.TrimSpace(s) == "" {
		return out, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		d, err := time.ParseDuration(strings.TrimSpace(part))
		if err != nil || d < 0 || d > 30*24*time.Hour {
			return nil, fmt.Errorf("%q is not a wait between 0s and 720h, such as 30s or 5m", strings.TrimSpace(part))
		}
		out = append(out, d)
	}
	if len(out) > 50 {
		return nil, fmt.Errorf("%d waits are too many: at most 50", len(out))
	}
	return out, nil
}

// Jitter is how far a wait is moved, as a fraction to either side, so that
// what failed together does not come back together.
const Jitter = 0.2

// Next says how long to wait after the attempt with the given number failed,
// and whether there is another attempt at all. random is in [0, 1).
func (s Schedule) Next(attempt int, random float64) (time.Duration, bool) {
	if attempt < 1 || attempt > len(s) {
		return 0, false
	}
	wait := s[attempt-1]
	return wait + time.Duration(float64(wait)*Jitter*(2*random-1)), true
}

// MaxRetryAfter is the longest Retry-After of a receiver that counts; longer ones are cut to it.
const MaxRetryAfter = time.Hour

// QuickRetry is the longest wait of the schedule for which later events of the
// same run wait at the endpoint; they overtake one that waits longer.
const QuickRetry = 30 * time.Second

// The statuses that mean more than failure.
const (
	gone               = 410
	tooManyRequests    = 429
	serviceUnavailable = 503
)

// Judge decides after an attempt, by the rules of delivery: try is its number
// since the delivery was queued, from 1; retryAfter is what the receiver asked
// for, 0 if nothing; random is in [0, 1).
func (s Schedule) Judge(try int, class webhook.Class, status int, retryAfter time.Duration,
	random float64) webhook.Decision {
	if class == webhook.OK {
		return webhook.Decision{State: webhook.Delivered}
	}
	d := webhook.Decision{State: webhook.Failed, Gone: status == gone}
	if status == tooManyRequests || status == serviceUnavailable {
		d.Hold = min(max(retryAfter, 0), MaxRetryAfter)
	}
	if wait, more := s.Next(try, random); more {
		d.State, d.Wait, d.Quick = webhook.Waiting, max(wait, d.Hold), s[try-1] <= QuickRetry
	}
	return d
}
