package importer

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// largest is what MongoDB allows a document to be, and a little more.
const largest = 17 << 20

// endings of the files that mongodump and mongoexport write.
var endings = []string{".bson", ".bson.gz", ".json", ".json.gz"}

// findCollection returns the file of a collection in a directory, or in one of the
// directories in it, as mongodump makes one for each database; "" if there is none.
func findCollection(dir, name string) (string, error) {
	var found []string
	for _, parent := range []string{dir, filepath.Join(dir, "*")} {
		for _, ending := range endings {
			files, err := filepath.Glob(filepath.Join(parent, name+ending))
			if err != nil {
				return "", err
			}
			found = append(found, files...)
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	default:
		return "", fmt.Errorf("%s and %s are both there: name a directory with one of them", found[0], found[1])
	}
}

// eachDocument calls f with every document of a file, and where it begins in a file
// of plain BSON. The document is only valid until f returns.
func eachDocument(path string, f func(at int64, doc bson.Raw) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	name, r := path, io.Reader(bufio.NewReaderSize(file, 1<<20))
	if strings.HasSuffix(name, ".gz") {
		name = strings.TrimSuffix(name, ".gz")
		if r, err = gzip.NewReader(r); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if strings.HasSuffix(name, ".json") {
		err = eachJSON(r, f)
	} else {
		err = eachBSON(r, f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// eachBSON reads documents that follow each other, as mongodump writes them.
func eachBSON(r io.Reader, f func(int64, bson.Raw) error) error {
	var buf []byte
	for at := int64(0); ; at += int64(len(buf)) {
		var err error
		if buf, err = readBSON(r, buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := f(at, buf); err != nil {
			return err
		}
	}
}

// readBSON reads one document into buf, which grows as needed. At the end of the
// file it returns io.EOF.
func readBSON(r io.Reader, buf []byte) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errors.New("the file ends in the middle of a document")
		}
		return nil, err
	}
	n := int(binary.LittleEndian.Uint32(length[:]))
	if n < 5 || n > largest {
		return nil, errors.New("this is not BSON, as mongodump writes it")
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	copy(buf, length[:])
	if _, err := io.ReadFull(r, buf[4:]); err != nil {
		return nil, errors.New("the file ends in the middle of a document")
	}
	if err := bson.Raw(buf).Validate(); err != nil {
		return nil, fmt.Errorf("a document is damaged: %w", err)
	}
	return buf, nil
}

// eachJSON reads documents that follow each other or are in one array, as
// mongoexport writes them.
func eachJSON(r io.Reader, f func(int64, bson.Raw) error) error {
	d := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if d.PeekKind() == '[' {
		if _, err := d.ReadToken(); err != nil {
			return err
		}
	}
	for {
		switch d.PeekKind() {
		case ']':
			return nil
		case '{':
		default:
			_, err := d.ReadToken()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = errors.New("this is not a list of documents, as mongoexport writes it")
			}
			return err
		}
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		var fields bson.D
		if err := bson.UnmarshalExtJSON(value, false, &fields); err != nil {
			return fmt.Errorf("a document is not extended JSON: %w", err)
		}
		doc, err := bson.Marshal(fields)
		if err != nil {
			return err
		}
		if err := f(0, doc); err != nil {
			return err
		}
	}
}

// documents finds the documents of a collection by a field that names each.
type documents struct {
	file    *os.File
	at      map[string]int64
	scratch string // a copy as plain BSON, if the file is something else
}

// openDocuments reads a file once, to know where each document is.
func openDocuments(path, field string) (_ *documents, err error) {
	d := &documents{at: map[string]int64{}}
	if path == "" {
		return d, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if !strings.HasSuffix(path, ".bson") {
		if d.scratch, err = unpack(path); err != nil {
			return d, err
		}
		path = d.scratch
	}
	if d.file, err = os.Open(path); err != nil {
		return d, err
	}
	return d, eachDocument(path, func(at int64, doc bson.Raw) error {
		if name, ok := doc.Lookup(field).StringValueOK(); ok {
			d.at[name] = at
		}
		return nil
	})
}

// unpack copies a file of any form to a temporary one of plain BSON.
func unpack(path string) (_ string, err error) {
	to, err := os.CreateTemp("", "runbell-import-*.bson")
	if err != nil {
		return "", err
	}
	w := bufio.NewWriterSize(to, 1<<20)
	err = eachDocument(path, func(_ int64, doc bson.Raw) error {
		_, err := w.Write(doc)
		return err
	})
	return to.Name(), errors.Join(err, w.Flush(), to.Close())
}

// get returns a document; ok is false if there is none.
func (d *documents) get(name string) (doc bson.Raw, ok bool, err error) {
	at, ok := d.at[name]
	if !ok {
		return nil, false, nil
	}
	doc, err = readBSON(io.NewSectionReader(d.file, at, largest), nil)
	return doc, true, err
}

func (d *documents) close() error {
	var err error
	if d.file != nil {
		err = d.file.Close()
	}
	if d.scratch != "" {
		err = errors.Join(err, os.Remove(d.scratch))
	}
	return err
}
