/* SPDX-License-Identifier: Apache-2.0 */
/* Live blobs as status pages and `explain` show them: one that is open in both cuts as one. Nothing
 * here changes anything. */
#include "blob_internal.h"

/* Of a map's letter; a blob of 1 TiB has a thousand pieces for each. */
#define MAP_LOOKS_MAX 8
/* Small and capital letters by where a piece came from: peers by distance, then the others. */
#define MAP_REGISTRY DISTANCE_COUNT
#define MAP_HERE     (DISTANCE_COUNT + 1)
#define MAP_KINDS    (DISTANCE_COUNT + 2)

static const struct blob *blob_of(const struct blobs *blobs, const struct digest *digest,
                                  enum piece_cut cut)
{
    const struct blob *head = cut == PIECE_CUT_FINE ? blobs->fine : blobs->by_digest, *blob = NULL;
    HASH_FIND(by_digest, head, digest, sizeof *digest, blob);
    return blob;
}

static void view_of(const struct blob *blob, struct blob_view *out)
{
    *out = (struct blob_view){
        .digest = blob->info.digest,
        .size_bytes = blob->info.size_bytes,
        .origin_bytes = blob->sources.origin,
        .peer_bytes = blob->sources.peer,
        .verified = blob->verified,
        .handle = blob->handle,
    };
    uint32_t pieces = blob->layout.piece_count;
    out->have_bytes = (uint64_t)blob->have_count * blob->layout.piece_bytes;
    if (pieces > 0 && blob->pieces[pieces - 1].have)
        out->have_bytes -= blob->layout.piece_bytes - piece_length(&blob->layout, pieces - 1);
    for (const struct blob_reader *at = blob->readers; at != NULL; at = at->next)
        out->readers++;
    out->fetches = blob_fetch__count(blob);
}

/* Adds what the same blob has in the other cut. Bytes that are here in both count once: of the cut
 * that has more of them. */
static void add_view(const struct blob *blob, struct blob_view *out)
{
    struct blob_view other;
    view_of(blob, &other);
    if (other.have_bytes > out->have_bytes && !out->verified) {
        out->have_bytes = other.have_bytes;
        out->handle = other.handle;
    }
    out->origin_bytes += other.origin_bytes;
    out->peer_bytes += other.peer_bytes;
    out->readers += other.readers;
    out->fetches += other.fetches;
}

static bool is_active(const struct blob *blob)
{
    return blob != NULL && (blob->readers != NULL || blob->fetches != NULL);
}

size_t blobs_active(const struct blobs *blobs, struct blob_view *out, size_t max)
{
    size_t count = 0;
    for (const struct blob *blob = blobs->by_digest; blob != NULL && count < max;
         blob = blob->by_digest.next) {
        const struct blob *fine = blob_of(blobs, &blob->info.digest, PIECE_CUT_FINE);
        if (!is_active(blob) && !is_active(fine))
            continue;
        view_of(blob, &out[count]);
        if (fine != NULL)
            add_view(fine, &out[count]);
        count++;
    }
    for (const struct blob *fine = blobs->fine; fine != NULL && count < max;
         fine = fine->by_digest.next)
        if (is_active(fine) && blob_of(blobs, &fine->info.digest, PIECE_CUT_PLAIN) == NULL)
            view_of(fine, &out[count++]);
    return count;
}

bool blobs_view(const struct blobs *blobs, const struct digest *digest, struct blob_view *out)
{
    const struct blob *blob = blob_of(blobs, digest, PIECE_CUT_PLAIN);
    const struct blob *fine = blob_of(blobs, digest, PIECE_CUT_FINE);
    if (blob == NULL && fine == NULL)
        return false;
    view_of(blob != NULL ? blob : fine, out);
    if (blob != NULL && fine != NULL)
        add_view(fine, out);
    return true;
}

static unsigned map_kind(const struct blob_piece *piece)
{
    if (piece->tier == BLOB_FROM_PEER)
        return piece->distance;
    return piece->tier == BLOB_FROM_ORIGIN ? MAP_REGISTRY : MAP_HERE;
}

/* The letter of pieces [first, end). */
static char map_letter(const struct blob *blob, uint32_t first, uint32_t end)
{
    static const char whole[MAP_KINDS + 1] = "VZNERH", part[MAP_KINDS + 1] = "vznerh";
    uint32_t step = (end - first + MAP_LOOKS_MAX - 1) / MAP_LOOKS_MAX;
    uint32_t counts[MAP_KINDS] = {0}, missing = 0;
    unsigned most = 0;
    for (uint32_t i = first; i < end; i += step) {
        const struct blob_piece *piece = &blob->pieces[i];
        missing += !piece->have;
        counts[map_kind(piece)] += piece->have;
    }
    for (unsigned kind = 1; kind < MAP_KINDS; kind++)
        most = counts[kind] > counts[most] ? kind : most;
    if (counts[most] == 0)
        return '.';
    return missing == 0 ? whole[most] : part[most];
}

size_t blobs_map(const struct blobs *blobs, const struct digest *digest,
                 char out[BLOB_MAP_CELLS_MAX + 1])
{
    struct blob_view view;
    bool open = blobs_view(blobs, digest, &view);
    const struct blob *blob = open ? blob_of(blobs, digest, PIECE_CUT_PLAIN) : NULL;
    if (open && (blob == NULL || blob->handle != view.handle))
        blob = blob_of(blobs, digest, PIECE_CUT_FINE);
    uint64_t pieces = blob == NULL ? 0 : blob->layout.piece_count;
    uint64_t cells = pieces < BLOB_MAP_CELLS_MAX ? pieces : BLOB_MAP_CELLS_MAX;
    for (uint64_t i = 0; i < cells; i++)
        out[i] =
            map_letter(blob, (uint32_t)(i * pieces / cells), (uint32_t)((i + 1) * pieces / cells));
    out[cells] = '\0';
    return cells;
}
