package store

import "context"

// Watched returns a transaction that passes each statement to see before it runs.
func Watched(tx *Tx, see func(ctx context.Context, query string, args []any)) *Tx {
	return &Tx{Tx: tx.Watched(see), sealer: tx.sealer}
}
