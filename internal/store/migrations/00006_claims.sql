-- Claims are counted by their group; a machine's own count is not read any more.

-- +goose Up
ALTER TABLE machine DROP COLUMN claims;
