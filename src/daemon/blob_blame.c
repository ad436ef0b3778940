/* SPDX-License-Identifier: Apache-2.0 */
/* Suspects and proof; see blob_blame.h. */
#include "blob_blame.h"

#include <string.h>

#include "bytes.h"

void blob_blame_note(struct blob_blame *blame, const struct node_id *signer, bool self)
{
    if (self) {
        blame->registry_lied = true;
        return;
    }
    for (uint32_t i = 0; i < blame->suspect_count; i++) {
        if (node_id_equal(&blame->suspects[i], signer))
            return;
    }
    if (blame->suspect_count < BLOB_SUSPECTS_MAX)
        blame->suspects[blame->suspect_count++] = *signer;
}

uint32_t blob_blame_settle(struct blob_blame *blame, bool digest_matched,
                           struct node_id liars[BLOB_SUSPECTS_MAX])
{
    uint32_t count = digest_matched && !blame->registry_lied ? blame->suspect_count : 0;
    memcpy(liars, blame->suspects, count * sizeof liars[0]);
    blame->registry_lied = blame->registry_lied || !digest_matched;
    blob_blame_clear(blame);
    return count;
}

void blob_blame_clear(struct blob_blame *blame)
{
    blame->suspect_count = 0;
}
