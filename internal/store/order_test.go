package store_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestOrdersAreComplete: an ORDER BY ends with what no two of its rows have in common. Otherwise the
// database may put two rows in one order now and in another the next time.
func TestOrdersAreComplete(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	between := regexp.MustCompile("`\\s*\\+\\s*(?:\n\\s*)?`")
	order := regexp.MustCompile("ORDER BY ([^`]+?)(?:\\s+(?:DESC|ASC))?\\s*(?:LIMIT|OFFSET|FOR|\\)|`|$)")
	unique := regexp.MustCompile(`^(\w+\.)?(id|hash|key|name|number|position|part|sequence|hour|run_id|event_id|endpoint_id|project_id|2)$`)
	incomplete := []string{
		"SELECT created_at FROM once WHERE api_key_id = $1 ORDER BY created_at", // only the time is wanted
		"finished_at <= $4 ORDER BY finished_at",                                // the same
	}
	seen := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(between.ReplaceAllString(string(b), ""), "COALESCE(newest, created_at)", "created_at")
		for _, m := range order.FindAllStringSubmatchIndex(text, -1) {
			seen++
			columns := strings.Split(text[m[2]:m[3]], ",")
			last := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(columns[len(columns)-1]), " DESC"))
			known := false
			for _, s := range incomplete {
				known = known || strings.HasSuffix(text[:m[3]], s)
			}
			if !unique.MatchString(last) && !known {
				t.Errorf("%s: ORDER BY %s does not end with something unique", file, text[m[2]:m[3]])
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d orders were found", seen)
	}
}
