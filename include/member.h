/* SPDX-License-Identifier: Apache-2.0 */
/* What a node knows of another: gossip keeps it, transfer and hosts read it. */
#ifndef SHOAL_MEMBER_H
#define SHOAL_MEMBER_H

#include "types.h"

enum member_state {
    MEMBER_UNKNOWN = 0,
    MEMBER_ALIVE,   /* answers probes, or nobody said otherwise */
    MEMBER_SUSPECT, /* a probe failed; refuted by a higher incarnation or dead at the deadline */
    MEMBER_LEAVING, /* announced that it drains: gets no new requests; ends by LEFT */
    MEMBER_DEAD,    /* confirmed; kept a while so that old news does not revive it */
    MEMBER_LEFT,    /* left in order */
};

struct member {
    struct node_id id; /* always node_id_of(cluster id, addr): a record that says otherwise is
                          refused (PEER-4) */
    struct identity_key key;
    struct peer_addr addr;
    struct topology topology;
    uint64_t incarnation;
    enum member_state state;
    uint8_t capacity_class; /* log2 of the NIC rate in Mbit/s; 0 unknown */
    uint8_t load;           /* 0..255 of upload capacity in use */
    uint16_t version_minor;
};

#endif
