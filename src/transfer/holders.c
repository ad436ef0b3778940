/* SPDX-License-Identifier: Apache-2.0 */
/* Who has a blob, as far as this node was told: for people who ask. Nothing here changes anything.
 */
#include "blob.h"

static uint32_t pieces_of(const struct neighbour *neighbour, uint32_t piece_count)
{
    return neighbour->complete ? piece_count : neighbour->known.set_count;
}

size_t transfer_holders(const struct transfer *transfer, blob_handle handle,
                        struct transfer_holder *out, size_t max)
{
    const struct blob *blob = transfer__blob(transfer, handle);
    const struct swarm *swarm = blob == NULL ? NULL : blob->swarm;
    size_t count = 0;
    for (uint32_t i = 0; swarm != NULL && i < swarm->neighbour_count && count < max; i++) {
        const struct neighbour *neighbour = &swarm->neighbours[i];
        const struct node *node = &transfer->nodes.slots[neighbour->node];
        uint32_t pieces = pieces_of(neighbour, blob->layout.piece_count);
        if (pieces > 0)
            out[count++] = (struct transfer_holder){node->id, node->addr, pieces};
    }
    for (uint32_t i = 0; swarm != NULL && i < swarm->remote_count && count < max; i++) {
        const struct node *node = &transfer->nodes.slots[swarm->remotes[i]];
        out[count++] = (struct transfer_holder){node->id, node->addr, blob->layout.piece_count};
    }
    return count;
}
