// Package runbell holds the documents of this version, which its server shows.
package runbell

import "embed"

// Documents are the changelog, the pages of docs, and the schema of webhooks.
//
//go:embed CHANGELOG.md docs/*.md docs/webhook.schema.json
var Documents embed.FS
