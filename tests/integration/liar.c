/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node that lies, for tests only: linked around the agent's own objects with --wrap, so that the
 * agent carries no code for it. SHOAL_LIAR=flip sends wrong bytes under the true voucher (P-5);
 * SHOAL_LIAR=sign signs a voucher of its own for the wrong bytes (INT-7).
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/blob.h"
#include "digest.h"
#include "../../src/daemon/node.h"

#define REMEMBERED 64

void __real_node_upload_ready(struct node *node, uint64_t upload_id, int status,
                              struct buffer *bytes, const struct voucher *voucher);
void __wrap_node_upload_ready(struct node *node, uint64_t upload_id, int status,
                              struct buffer *bytes, const struct voucher *voucher);
void __real_blobs_handlers(struct blobs *blobs, struct node_handlers *out);
void __wrap_blobs_handlers(struct blobs *blobs, struct node_handlers *out);

static void (*real_upload)(void *host, const struct transfer_result *result);
static struct {
    uint64_t id;
    struct blob_key key;
} remembered[REMEMBERED];
static unsigned next_slot;

static void remember_upload(void *host, const struct transfer_result *result)
{
    remembered[next_slot % REMEMBERED].id = result->id;
    remembered[next_slot % REMEMBERED].key = result->key;
    next_slot++;
    real_upload(host, result);
}

void __wrap_blobs_handlers(struct blobs *blobs, struct node_handlers *out)
{
    __real_blobs_handlers(blobs, out);
    real_upload = out->upload;
    out->upload = remember_upload;
}

static const struct blob_key *key_of(uint64_t upload_id)
{
    for (unsigned i = 0; i < REMEMBERED; i++) {
        if (remembered[i].id == upload_id)
            return &remembered[i].key;
    }
    return NULL;
}

void __wrap_node_upload_ready(struct node *node, uint64_t upload_id, int status,
                              struct buffer *bytes, const struct voucher *voucher)
{
    const char *mode = getenv("SHOAL_LIAR");
    const struct blob_key *key = key_of(upload_id);
    struct buffer *wrong = NULL;
    if (mode != NULL && status == 0 && voucher != NULL && key != NULL)
        wrong = buffer_get(node_buffers(node), bytes->used, BUFFER_FOR_LOCAL);
    if (wrong == NULL) {
        __real_node_upload_ready(node, upload_id, status, bytes, voucher);
        return;
    }
    struct voucher own = *voucher;
    memcpy(wrong->bytes, bytes->bytes, bytes->used);
    wrong->used = bytes->used;
    wrong->bytes[wrong->used / 2] ^= 0x55;
    buffer_put(bytes);
    if (strcmp(mode, "sign") == 0) {
        own.signer = *node_self_id(node);
        piece_hash_of(wrong->bytes, wrong->used, &own.hash);
        voucher_sign(node_identity(node), key, &own);
    }
    __real_node_upload_ready(node, upload_id, status, wrong, &own);
}
