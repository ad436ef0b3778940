/* SPDX-License-Identifier: Apache-2.0 */
/* The transfer decoder on any bytes: what it accepts is within the limits, can be encoded into one
 * datagram, and decodes to the same again. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "log.h"
#include "wire_transfer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_limits(const struct wire_transfer *message)
{
    switch (message->type) {
    case WIRE_TRANSFER_PEERS:
        ASSERT(message->of.peers.contact_count <= WIRE_PEERS_MAX);
        break;
    case WIRE_TRANSFER_HELLO:
    case WIRE_TRANSFER_HAVE:
        ASSERT(message->of.have.page_bytes <= WIRE_PAGE_BYTES);
        ASSERT(message->of.have.first_byte <= PIECE_COUNT_MAX / 8);
        break;
    case WIRE_TRANSFER_REQUEST:
    case WIRE_TRANSFER_QUEUED:
    case WIRE_TRANSFER_BUSY:
    case WIRE_TRANSFER_CANCEL:
        ASSERT(message->of.piece.piece < PIECE_COUNT_MAX);
        break;
    case WIRE_TRANSFER_RENEW:
        ASSERT(message->of.renew.count <= WIRE_RENEWALS_MAX);
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct wire_transfer message, back;
    uint8_t out[MESSAGE_BYTES_MAX], again[MESSAGE_BYTES_MAX];
    size_t used, used_again;
    memset(&message, 0, sizeof message);
    memset(&back, 0, sizeof back);
    if (wire_transfer_decode(data, size, &message) != 0)
        return 0;
    check_limits(&message);
    int err = wire_transfer_encode(&message, out, sizeof out, &used);
    ASSERT(err == 0);
    err = wire_transfer_decode(out, used, &back);
    ASSERT(err == 0);
    err = wire_transfer_encode(&back, again, sizeof again, &used_again);
    ASSERT(err == 0 && used == used_again && memcmp(out, again, used) == 0);
    return 0;
}
