/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our part of a TOML file: lines between two marks that are comments to everybody else. Taking the
 * blocks out of a file gives the file without us, byte for byte; a line of theirs that had to give
 * way stands in the block, behind "#was:", and comes back.
 */
#ifndef SHOAL_RUNTIME_BLOCK_H
#define SHOAL_RUNTIME_BLOCK_H

#include "toml.h"

/* Never to be changed: files out there have them, and a later release must find them. */
#define BLOCK_BEGIN "# BEGIN shoal (made by `shoal ... apply`, taken out by `shoal ... revert`)"
#define BLOCK_END   "# END shoal"
#define BLOCK_WAS   "#was:"
/* The last line, before the block or kept in it, got its line end from us. */
#define BLOCK_JOINED "#no line end before"

/*
 * The text without our blocks, from the pool; *blocks is how many there were. 0; E_REFUSED with
 * `error` = "LINE: ..." if a mark has no partner; E_NO_MEMORY.
 */
MUST_USE int block_strip(struct pool *pool, const struct toml *toml, struct span *out,
                         unsigned *blocks, struct runtime_error *error);

/* One edit of a text without blocks: our `lines` (each ending in \n) go in at `at`, the begin of a
 * line or the end of the text; the lines [at, was_end) give way, none if was_end is `at`. */
struct block_edit {
    size_t at, was_end;
    const char *lines;
};
/*
 * Carries edits out, in the order of `at`, with the line ends of the file, and proves the result:
 * it can be parsed, taking the blocks out gives the text from before, and each statement outside
 * them means what it meant. 0; E_REFUSED with `error` if one of these does not hold; E_NO_MEMORY.
 */
MUST_USE int block_insert(struct pool *pool, const struct toml *base,
                          const struct block_edit *edits, unsigned count, struct text *out,
                          struct runtime_error *error);

/* Takes our blocks out of a text that others may have edited, and proves that each statement
 * outside them means the same without. 0 with *blocks; E_REFUSED, E_NO_MEMORY as block_insert. */
MUST_USE int block_undo(struct pool *pool, const struct span *text, struct span *out,
                        unsigned *blocks, struct runtime_error *error);

#endif
