package retention

import (
	"context"
	"time"

	"runbell/internal/auth"
	"runbell/internal/store"
)

// sweep removes one kind of rows.
type sweep struct {
	what  string // in the plural: for the log, and the label of the metric
	begin func(*store.DB) step
}

// step removes at most one batch, in one transaction. It reports how many rows it
// removed, and whether there is more to look at.
type step func(context.Context) (removed int, more bool, err error)

// sweeps lists everything that grows and is removed.
func sweeps() []sweep {
	return []sweep{
		{"deliveries", deliveries},
		{"sessions", sessions},
		{"invitations", invitations},
	}
}

// deliveries removes deliveries that ended longer ago than their project keeps
// them, with their attempts. What a deleted webhook left goes at once.
func deliveries(db *store.DB) step {
	var of store.DeliveryLog // the webhook whose deliveries are being removed
	found := false
	next := func(ctx context.Context) error {
		return db.Read(ctx, func(tx *store.Tx) (err error) {
			of, err = tx.NextDeliveryLog(ctx, of.EndpointID)
			found = err == nil && of.EndpointID != ""
			return err
		})
	}
	return func(ctx context.Context) (removed int, more bool, err error) {
		if !found {
			if err := next(ctx); err != nil || !found {
				return 0, false, err
			}
		}
		before := db.Now().Add(-of.Keep)
		if of.Orphaned {
			before = db.Now().Add(time.Hour) // all of them, even if another node queued one just now
		}
		if of.Oldest.Before(before) {
			err = db.Write(ctx, func(tx *store.Tx) (err error) {
				removed, err = tx.DeleteDeliveries(ctx, of.EndpointID, before, of.Orphaned, batch)
				return err
			})
		}
		found = removed == batch // else the next step goes on with another webhook
		return removed, true, err
	}
}

// sessions removes sessions that nobody can use any more.
func sessions(db *store.DB) step {
	return func(ctx context.Context) (removed int, more bool, err error) {
		err = db.Write(ctx, func(tx *store.Tx) (err error) {
			removed, err = tx.DeleteSessions(ctx, tx.Now.Add(-auth.SessionLife), batch)
			return err
		})
		return removed, removed == batch, err
	}
}

// invitations removes links that nobody used in time.
func invitations(db *store.DB) step {
	return func(ctx context.Context) (removed int, more bool, err error) {
		err = db.Write(ctx, func(tx *store.Tx) (err error) {
			removed, err = tx.DeleteInvitations(ctx, tx.Now, batch)
			return err
		})
		return removed, removed == batch, err
	}
}
