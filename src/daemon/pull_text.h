/* SPDX-License-Identifier: Apache-2.0 */
/* How an order fares, for people: bars that are drawn anew on a terminal, lines elsewhere. From the
 * agent's JSON (pull.h), read key by key. */
#ifndef SHOAL_DAEMON_PULL_TEXT_H
#define SHOAL_DAEMON_PULL_TEXT_H

#include <jansson.h>
#include <stdio.h>

#include "types.h"

struct pull_text {
    FILE *out; /* borrowed */
    bool terminal;
    unsigned lines;               /* drawn last, to be drawn over */
    size_t told_done, told_nodes; /* blobs and nodes told of so far, without a terminal */
};

/* One look at the order (borrowed). */
void pull_text_show(struct pull_text *text, const json_t *pull);
/* What became of it: the last line. */
void pull_text_end(struct pull_text *text, const json_t *pull);

#endif
