/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes without the secret; see outsiders.h. */
#include "outsiders.h"

bool outsiders_note(struct outsiders *outsiders, uint64_t now_us, const struct peer_addr *from,
                    uint64_t *unsaid)
{
    bool due = !outsiders->any || now_us - outsiders->said_us >= OUTSIDERS_LINE_US;
    if (!outsiders->any || now_us - outsiders->last_us >= OUTSIDERS_PAUSE_US)
        outsiders->first_us = now_us;
    outsiders->any = true;
    outsiders->last_us = now_us;
    outsiders->addr = *from;
    if (!due) {
        outsiders->unsaid++;
        return false;
    }
    *unsaid = outsiders->unsaid;
    outsiders->unsaid = 0;
    outsiders->said_us = now_us;
    return true;
}

bool outsiders_go_on(const struct outsiders *outsiders, uint64_t now_us)
{
    return outsiders->any && now_us - outsiders->last_us < OUTSIDERS_PAUSE_US &&
           outsiders->last_us - outsiders->first_us >= OUTSIDERS_LAST_US;
}
