/* SPDX-License-Identifier: Apache-2.0 */
/* What `shoal doctor` has other nodes try: whether they can begin a connection to this one. */
#include <poll.h>
#include <string.h>

#include "blocking.h"
#include "control_socket.h"
#include "doctor.h"
#include "status_text.h"

#define INBOUND_MS 3000
#define POLL_MS    150

struct inbound {
    unsigned asked, reached, failed;
};

static bool ask_once(const char *path, struct inbound *out)
{
    struct control_answer answer;
    if (control_get(path, "/dialback", INBOUND_MS, &answer) != 0)
        return false;
    json_t *root = json_loadb(answer.body, answer.body_bytes, 0, NULL);
    control_answer_free(&answer);
    bool told = json_is_integer(json_object_get(root, "asked"));
    out->asked = (unsigned)json_number_at(root, "asked");
    out->reached = (unsigned)json_number_at(root, "reached");
    out->failed = (unsigned)json_number_at(root, "failed");
    json_decref(root);
    return told;
}

/* Until all have answered or the time is over. */
static struct inbound ask_others(const struct doctor *doctor)
{
    char path[CONFIG_PATH_BYTES + 16];
    struct inbound inbound = {.asked = 0};
    uint64_t end_ms = blocking_now_ms() + INBOUND_MS;
    (void)control_path(doctor->config, path);
    while (ask_once(path, &inbound) && inbound.reached + inbound.failed < inbound.asked &&
           blocking_now_ms() < end_ms)
        (void)poll(NULL, 0, POLL_MS);
    return inbound;
}

void doctor_inbound(const struct doctor *doctor)
{
    static const char todo[] = "open TCP and UDP of listen.mesh to this node from all others: its "
                               "own firewall, security group, NetworkPolicy";
    const char *own = json_text_at(doctor->status, "addr");
    doctor->report->check = "ports";
    if (json_array_size(json_object_get(doctor->status, "members")) < 2)
        return; /* nobody is there to ask; `peers` says why */
    struct inbound inbound = ask_others(doctor);
    if (inbound.failed > 0 && inbound.reached == 0)
        doctor_add(doctor->report, FINDING_ERROR, own, todo,
                   "no other node can connect to it (tcp): %u were asked to try", inbound.failed);
    else if (inbound.failed > 0)
        doctor_add(doctor->report, FINDING_WARNING, own, todo,
                   "%u of %u other nodes that were asked to cannot connect to it (tcp)",
                   inbound.failed, inbound.failed + inbound.reached);
    else if (inbound.reached > 0)
        doctor_add(doctor->report, FINDING_OK, own, "",
                   "other nodes can connect to it (tcp): %u of %u asked did", inbound.reached,
                   inbound.asked);
    else
        doctor_add(doctor->report, FINDING_WARNING, own,
                   "ask again in some seconds; nodes of older versions do not answer",
                   "whether others can connect to it was not checked: none answered");
}
