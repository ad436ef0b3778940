/* SPDX-License-Identifier: Apache-2.0 */
/* Live blobs as status pages and `explain` show them. Nothing here changes anything. */
#include "blob_internal.h"

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
    for (uint32_t i = 0; i < blob->layout.piece_count; i++)
        out->have_bytes += blob->pieces[i].have ? piece_length(&blob->layout, i) : 0;
    for (const struct blob_reader *at = blob->readers; at != NULL; at = at->next)
        out->readers++;
    out->fetches = blob_fetch__count(blob);
}

size_t blobs_active(const struct blobs *blobs, struct blob_view *out, size_t max)
{
    size_t count = 0;
    for (const struct blob *blob = blobs->by_digest; blob != NULL && count < max;
         blob = blob->by_digest.next)
        if (blob->readers != NULL || blob->fetches != NULL)
            view_of(blob, &out[count++]);
    return count;
}

bool blobs_view(const struct blobs *blobs, const struct digest *digest, struct blob_view *out)
{
    const struct blob *blob = NULL;
    HASH_FIND(by_digest, blobs->by_digest, digest, sizeof *digest, blob);
    if (blob == NULL)
        return false;
    view_of(blob, out);
    return true;
}
